//! `make db-backup`, `db-restore`, `db-reset`: whatever the dump is and wherever it ends, the data of before are there.

use std::os::unix::fs::PermissionsExt as _;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};
use tests::database::Database;

use super::{Host, top};
use crate::operator::program::{Ended, Settings};

/// The database that every stack has, on the shared server: one test at a time.
struct Stack {
    host: Host,
    server: PgConnection,
    lent: Database,
    url: String,
}

const NAMES: [&str; 3] = ["emailclient_db", "emailclient_db_old", "emailclient_db_new"];

impl Stack {
    /// With the tenant `before`.
    async fn start() -> Self {
        let lent = Database::empty().await;
        let mut server =
            PgConnection::connect(&lent.url("postgres").replace(&lent.name, "postgres")).await.unwrap();
        server.execute("SELECT pg_advisory_lock(7203453)").await.unwrap();
        server
            .execute(
                "DO $$ BEGIN IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'emailclient') THEN
                   CREATE ROLE emailclient LOGIN SUPERUSER; END IF; END $$",
            )
            .await
            .unwrap();
        let url = lent.url("emailclient").replace(&lent.name, "emailclient_db");
        let address = url.rsplit('@').next().unwrap().split('/').next().unwrap().to_owned();
        let (address, port) = address.rsplit_once(':').unwrap();
        let mut variables = Settings::of(&lent).with("DATABASE_OWNER_URL", &url).pairs();
        variables.extend([("PGHOST", address), ("PGPORT", port)].map(|(n, v)| (n.to_owned(), v.to_owned())));
        let mut stack = Self { host: Host::new(variables), server, lent, url };
        stack.drop_all().await;
        stack.sql("CREATE DATABASE emailclient_db").await;
        let migrated = stack.host.run_at(&top(), &["emailctl", "migrate"], &[]);
        assert!(migrated.success(), "{migrated:?}");
        stack.tenant("before").await;
        stack
    }

    async fn drop_all(&mut self) {
        for name in NAMES {
            self.sql(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await;
        }
    }

    async fn sql(&mut self, sql: &str) {
        self.server.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
    }

    async fn there(&mut self) -> Vec<String> {
        sqlx::query_scalar(
            "SELECT datname::text FROM pg_database WHERE datname LIKE 'emailclient\\_db%' ORDER BY 1",
        )
        .fetch_all(&mut self.server)
        .await
        .unwrap()
    }

    async fn database(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.unwrap()
    }

    async fn tenant(&self, slug: &str) {
        let sql = format!("INSERT INTO tenants (id, slug, name) VALUES (gen_random_uuid(), '{slug}', '')");
        self.database().await.execute(AssertSqlSafe(sql)).await.unwrap();
    }

    async fn tenants(&self) -> Vec<String> {
        sqlx::query_scalar("SELECT slug FROM tenants ORDER BY 1")
            .fetch_all(&mut self.database().await)
            .await
            .unwrap()
    }

    fn script(&self, arguments: &[&str]) -> Ended {
        self.host.calls();
        self.host.run_at(&top(), &[&["deployment/stack/database.sh"], arguments].concat(), &[])
    }

    /// A dump of what is there now.
    fn dump(&self, name: &str) -> String {
        let file = self.host.folder.file(name);
        let done = self.script(&["backup", &file]);
        assert!(done.success(), "{done:?}");
        file
    }

    /// The services were stopped, and the last that was done to them is a start.
    fn services(&self) -> (bool, bool) {
        let calls = self.host.calls();
        let of = |what: &str| {
            calls.iter().rposition(|call| call.contains(&format!(" {what} email-service worker")))
        };
        (of("stop").is_some(), of("start") > of("stop"))
    }

    async fn end(mut self) {
        self.drop_all().await;
        self.sql("SELECT pg_advisory_unlock(7203453)").await;
        self.lent.drop_it().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_is_for_its_owner_alone_and_what_came_after_it_is_gone_when_it_is_restored() {
    let mut stack = Stack::start().await;
    let dump = stack.dump("whole.dump");
    assert_eq!(std::fs::metadata(&dump).unwrap().permissions().mode() & 0o777, 0o600);
    stack.tenant("after").await;
    let done = stack.script(&["restore", &dump]);
    assert!(done.success(), "{done:?}");
    assert_eq!(stack.services(), (true, true));
    assert_eq!(
        (stack.tenants().await, stack.there().await),
        (vec!["before".to_owned()], vec![NAMES[0].to_owned()])
    );
    // Also when the programs were set back, and the schema that is there is newer than they are.
    newer(&mut stack.database().await).await;
    let done = stack.script(&["restore", &dump]);
    assert!(done.success(), "{done:?}");
    assert!(stack.script(&["reset"]).success());
    assert_eq!((stack.tenants().await, stack.there().await), (vec![], vec![NAMES[0].to_owned()]));
    stack.end().await;
}

/// A release that does not exist yet has migrated it.
async fn newer(conn: &mut PgConnection) {
    conn.execute(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (99991231000000, 'of later', true, '', 0)",
    )
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_that_these_programs_cannot_work_with_stops_nothing_and_leaves_nothing_behind() {
    let mut stack = Stack::start().await;
    let whole = std::fs::read(stack.dump("whole.dump")).unwrap();
    newer(&mut stack.database().await).await;
    let later = stack.dump("later.dump");
    stack
        .database()
        .await
        .execute("DELETE FROM _sqlx_migrations WHERE version = 99991231000000")
        .await
        .unwrap();
    let half = stack.host.folder.file("half.dump");
    std::fs::write(&half, &whole[..whole.len() / 2]).unwrap();
    let nothing = stack.host.folder.file("nothing.dump");
    std::fs::write(&nothing, "").unwrap();
    let other = stack.host.folder.file("other.dump");
    let dumped = ["pg_dump", "-U", "emailclient", "--format=custom", "-f", &other, &stack.lent.name];
    assert!(stack.host.run_at(&top(), &dumped, &[]).success());
    for (dump, words) in [
        (later.as_str(), "newer than this program"),
        (&half, "cannot be read to its end"),
        (&nothing, "cannot be read to its end"),
        (&other, "no dump of this product"),
        ("/nonexistent/a.dump", "cannot be read"),
    ] {
        let done = stack.script(&["restore", dump]);
        assert!(!done.success() && done.err.contains(words), "{dump}: {done:?}");
        assert_eq!(stack.services(), (false, false), "{dump}");
        assert_eq!(
            (stack.tenants().await, stack.there().await),
            (vec!["before".to_owned()], vec![NAMES[0].to_owned()])
        );
    }
    stack.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_after_the_exchange_is_taken_back() {
    let mut stack = Stack::start().await;
    let dump = stack.dump("whole.dump");
    stack.tenant("after").await;
    // The last of the three runs of `migrate`: the first makes the roles, the second judges.
    for (what, nth) in [(vec!["restore", &dump], "3"), (vec!["reset"], "2")] {
        stack.host.note("fail-at", nth);
        let done = stack.script(&what);
        assert!(!done.success() && done.err.contains("put back"), "{what:?}: {done:?}");
        assert_eq!(stack.services(), (true, true), "{what:?}");
        assert_eq!(stack.tenants().await, ["after", "before"], "{what:?}");
        assert_eq!(stack.there().await, [NAMES[0]], "{what:?}");
    }
    stack.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_of_before_that_nobody_claimed_are_deleted_by_nothing_but_the_word_for_it() {
    let mut stack = Stack::start().await;
    let dump = stack.dump("whole.dump");
    // A machine that went down between the two names.
    stack.sql("ALTER DATABASE emailclient_db RENAME TO emailclient_db_old").await;
    stack.sql("CREATE DATABASE emailclient_db_new").await;
    for what in [&["restore", dump.as_str()][..], &["reset"], &["forget"]] {
        let done = stack.script(what);
        assert!(!done.success() && done.err.contains("undo"), "{what:?}: {done:?}");
        assert_eq!(stack.there().await, ["emailclient_db_new", "emailclient_db_old"], "{what:?}");
    }
    let done = stack.script(&["undo"]);
    assert!(done.success(), "{done:?}");
    assert_eq!(
        (stack.tenants().await, stack.there().await),
        (vec!["before".to_owned()], vec![NAMES[0].to_owned()])
    );
    assert!(!stack.script(&["undo"]).success(), "there is nothing to undo");
    // One that went down after the second.
    stack.sql("ALTER DATABASE emailclient_db RENAME TO emailclient_db_old").await;
    stack.sql("CREATE DATABASE emailclient_db").await;
    assert!(!stack.script(&["reset"]).success());
    assert!(stack.script(&["undo"]).success());
    assert_eq!(
        (stack.tenants().await, stack.there().await),
        (vec!["before".to_owned()], vec![NAMES[0].to_owned()])
    );
    stack.sql("CREATE DATABASE emailclient_db_old").await;
    assert!(stack.script(&["forget"]).success());
    assert_eq!(
        (stack.tenants().await, stack.there().await),
        (vec!["before".to_owned()], vec![NAMES[0].to_owned()])
    );
    stack.end().await;
}
