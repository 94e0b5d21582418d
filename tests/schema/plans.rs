//! Plans of the hot statements, as the roles of the services get them: by index, and in proportion to the answer.
//!
//! The statements are those that the functions of the core send; `log` takes their plans from the server's log. Each is
//! run often enough on one connection for the planner to change over to its generic plan, which is the one that a
//! service lives with. A new hot statement gets a line here.

mod calls;
mod equal;
pub mod fill;
mod judge;
mod log;

use std::collections::BTreeSet;

use emailclient_core::platform::db::{Db, DbError, SystemTx, TenantTx};
use sqlx::{Connection as _, Executor as _};
use tests::database::Database;

use fill::TENANT;
use judge::Budget;
use log::Log;

/// PostgreSQL plans a prepared statement anew five times before it weighs the generic plan.
const RUNS: usize = 8;
/// Tables of fewer rows may be read whole.
const LARGE: f32 = 1_000.0;

struct Bench {
    db: Db,
    log: Log,
    large: BTreeSet<String>,
    faults: Vec<String>,
}

impl Bench {
    /// Runs `call` as the application's role and keeps what is wrong with its plans.
    async fn tenant<T>(
        &mut self,
        name: &str,
        budget: Budget,
        mut call: impl AsyncFnMut(&mut TenantTx) -> Result<T, DbError>,
    ) -> T {
        let mut tx = self.db.tenant(TENANT).await.unwrap();
        self.log.plans();
        let mut last = None;
        for _ in 0..RUNS {
            last = Some(call(&mut tx).await.unwrap_or_else(|e| panic!("{name}: {e:?}")));
        }
        self.judge(name, budget);
        last.unwrap()
    }

    /// The same as the system's role.
    async fn system<T>(
        &mut self,
        name: &str,
        budget: Budget,
        mut call: impl AsyncFnMut(&mut SystemTx) -> Result<T, DbError>,
    ) -> T {
        let mut tx = self.db.system().await.unwrap();
        self.log.plans();
        let mut last = None;
        for _ in 0..RUNS {
            last = Some(call(&mut tx).await.unwrap_or_else(|e| panic!("{name}: {e:?}")));
        }
        self.judge(name, budget);
        last.unwrap()
    }

    fn judge(&mut self, name: &str, budget: Budget) {
        let plans = self.log.plans();
        assert!(plans.len() >= RUNS, "{name}: {} plans in the log for {RUNS} runs", plans.len());
        let mut told = BTreeSet::new();
        for ran in &plans {
            for fault in judge::faults(ran, &self.large, budget) {
                if told.insert((ran.sql.clone(), fault.clone())) {
                    self.faults.push(format!("{name}: {fault}\n    {}", ran.sql.replace('\n', "\n    ")));
                }
            }
        }
    }
}

#[tokio::test]
async fn hot_statements_use_indexes_and_read_in_proportion_to_their_answer() {
    let database = Database::create().await;
    let mut superuser = database.superuser().await;
    fill::run(&mut superuser).await;
    let large: Vec<String> =
        sqlx::query_scalar("SELECT relname::text FROM pg_class WHERE relkind = 'r' AND reltuples >= $1")
            .bind(LARGE)
            .fetch_all(&mut superuser)
            .await
            .unwrap();
    for table in
        ["messages", "message_mailboxes", "message_search", "threads", "jobs", "submissions", "drafts"]
    {
        assert!(large.iter().any(|name| name == table), "{table} was not filled");
    }
    for (name, value) in log::SETTINGS {
        let sql = format!("ALTER DATABASE {} SET {name} = '{value}'", database.name);
        superuser.execute(sqlx::AssertSqlSafe(sql)).await.unwrap();
    }
    let path = devstack::Shared::get().dir.join("log").join("postgres.log");
    let mut bench = Bench {
        db: fill::db(&database),
        log: Log::at_its_end(path),
        large: large.into_iter().collect(),
        faults: Vec::new(),
    };
    assert_a_bad_plan_is_seen(&mut bench, &database).await;
    calls::mail(&mut bench).await;
    calls::search(&mut bench).await;
    calls::compose(&mut bench).await;
    calls::sync(&mut bench).await;
    calls::queue(&mut bench).await;
    calls::webhooks(&mut bench).await;
    calls::edge(&mut bench).await;
    // One account that is nearly the whole table, and of which nothing waits: then no tenant and no account helps.
    for sql in [
        "DELETE FROM message_mailboxes WHERE tenant_id IN (SELECT id FROM tenants WHERE slug = 'tenant-2')",
        "DELETE FROM edits",
        "VACUUM ANALYZE message_mailboxes, edits",
    ] {
        superuser.execute(sql).await.unwrap();
    }
    calls::sync(&mut bench).await;
    bench.db.close().await;
    drop(superuser);
    database.drop_it().await;
    assert!(bench.faults.is_empty(), "{}", bench.faults.join("\n"));
}

/// Without this, a log that says nothing would pass for plans without fault.
async fn assert_a_bad_plan_is_seen(bench: &mut Bench, database: &Database) {
    let mut conn = database.superuser().await;
    bench.log.plans();
    conn.execute("SELECT count(*) FROM messages WHERE snippet = ''").await.unwrap();
    conn.execute("SELECT id FROM messages WHERE size_bytes = 0 ORDER BY tenant_id, id").await.unwrap();
    let plans = bench.log.plans();
    let found: Vec<String> =
        plans.iter().flat_map(|ran| judge::faults(ran, &bench.large, Budget::page(50))).collect();
    assert!(found.iter().any(|f| f.contains("all of messages is read")), "{found:?}");
    assert!(found.iter().any(|f| f.contains("rows, 1000 allowed")), "{found:?}");
    conn.close().await.unwrap();
}

/// Each deletion of a row looks for those that refer to it, so without an index ten thousand deletions read ten thousand
/// times the whole table. Tenants and accounts are left out: they go one at a time, and all of theirs with them.
#[tokio::test]
async fn a_row_that_others_refer_to_is_deleted_by_index() {
    let database = Database::create().await;
    let mut superuser = database.superuser().await;
    let unindexed = "SELECT con.conname::text FROM pg_constraint con
        WHERE con.contype = 'f' AND con.connamespace = 'public'::regnamespace
          AND con.confrelid NOT IN ('tenants'::regclass, 'accounts'::regclass)
          AND NOT EXISTS (SELECT 1 FROM pg_index i WHERE i.indrelid = con.conrelid
            AND (i.indkey::int2[])[0:cardinality(con.conkey) - 1] @> con.conkey
            AND coalesce(pg_get_expr(i.indpred, i.indrelid) ~ '^\\(\\w+ IS NOT NULL\\)$', true))
        ORDER BY 1";
    let found: Vec<String> = sqlx::query_scalar(unindexed).fetch_all(&mut superuser).await.unwrap();
    assert!(found.is_empty(), "foreign keys without an index: {found:?}");
    superuser.execute("DROP INDEX drafts_submission").await.unwrap();
    let found: Vec<String> = sqlx::query_scalar(unindexed).fetch_all(&mut superuser).await.unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    drop(superuser);
    database.drop_it().await;
}
