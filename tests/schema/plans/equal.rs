//! Messages of the same bytes by the thousand, as an empty template or a monitor's mail is: what is asked about them must
//! not grow with their square, and what is fetched not with their number.

use emailclient_core::platform::id::{AccountId, MailboxId, TenantId};
use emailclient_core::sync::store::{Content, Prepared, Target, bytes, ingest, vanish};
use mail::flags::{Flags, Keywords};
use mail::uid::{Uid, UidSet};
use sha2::{Digest as _, Sha256};
use sqlx::Executor as _;
use tests::database::Database;
use uuid::Uuid;

use super::fill;
use super::log::{self, Log};

/// As in `equal.sql`: they have long been there, and as many have just come.
const OLD: u32 = 3_000;
const ARRIVALS: u32 = 10;

const fn id(n: u128) -> Uuid {
    Uuid::from_u128(0x7000_8000_0000_0000_0000 + n)
}

const TENANT: TenantId = TenantId(id(1));

const fn target(mailbox: u128) -> Target {
    Target { account: AccountId(id(1)), mailbox: MailboxId(id(mailbox)), generation: 1 }
}

fn empty(uid: u32) -> Prepared {
    let list = || "[]".to_owned();
    let content = Content {
        from: list(),
        to: list(),
        cc: list(),
        bcc: list(),
        reply_to: list(),
        attachments: list(),
        ..Content::default()
    };
    Prepared {
        uid: Uid::new(uid).unwrap(),
        flags: Flags::default(),
        keywords: Keywords::new(),
        modseq: 0,
        internal_date: fill::at(1),
        email_id: None,
        known: false,
        size_bytes: 0,
        raw: Vec::new().into(),
        hash: Sha256::digest(b"").into(),
        content,
    }
}

/// The most rows that any part of a statement since the last look came to, and the statement.
fn most(log: &mut Log) -> (f64, String) {
    let plans = log.plans();
    assert!(!plans.is_empty(), "no plans in the log");
    let each = plans.iter().map(|ran| (rows(&ran.plan), ran.sql.clone()));
    each.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap()
}

fn rows(plan: &serde_json::Value) -> f64 {
    let number = |name: &str| plan[name].as_f64().unwrap_or(0.0);
    let met =
        number("Actual Rows") + number("Rows Removed by Join Filter") + number("Rows Removed by Filter");
    let below = plan["Plans"].as_array().into_iter().flatten().map(rows);
    below.fold(met * number("Actual Loops"), f64::max)
}

#[tokio::test]
async fn messages_of_the_same_bytes_cost_no_more_than_their_number() {
    let database = Database::create().await;
    let mut superuser = database.superuser().await;
    superuser.execute(include_str!("equal.sql")).await.unwrap();
    superuser.execute("VACUUM ANALYZE").await.unwrap();
    for (name, value) in log::SETTINGS {
        let sql = format!("ALTER DATABASE {} SET {name} = '{value}'", database.name);
        superuser.execute(sqlx::AssertSqlSafe(sql)).await.unwrap();
    }
    let mut log = Log::at_its_end(devstack::Shared::get().dir.join("log").join("postgres.log"));
    let db = fill::db(&database);

    // Half of the old ones left; which of the new ones they are, only their number tells.
    let mut tx = db.tenant(TENANT).await.unwrap();
    let left = UidSet::range(Uid::MIN, Uid::new(OLD / 2).unwrap());
    let gone = vanish::vanish(&mut tx, &target(10), &left).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(gone, OLD as usize / 2);
    let (met, sql) = most(&mut log);
    assert!(met <= f64::from(8 * OLD), "{met} rows: {sql}");
    let reunited = "SELECT count(*) FROM message_mailboxes p JOIN messages m ON m.id = p.message_id WHERE p.uid > 3000 AND m.created_at < now() - interval '1 hour'";
    let reunited: i64 = sqlx::query_scalar(reunited).fetch_one(&mut superuser).await.unwrap();
    assert_eq!(reunited, i64::from(OLD / 2));

    let mut tx = db.tenant(TENANT).await.unwrap();
    let batch: Vec<Prepared> = (1..=ARRIVALS).map(empty).collect();
    let done =
        ingest::ingest(&mut tx, &target(11), &batch, &bytes::New::default(), ingest::Age::Old).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!((done.created, done.linked), (0, ARRIVALS as usize));
    let plans = log.plans();
    let (fetched, sql) = plans
        .iter()
        .map(|ran| (ran.plan["Actual Rows"].as_f64().unwrap(), &ran.sql))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .unwrap();
    assert!(fetched <= f64::from(4 * ARRIVALS), "{fetched} rows: {sql}");
    db.close().await;
    drop(superuser);
    database.drop_it().await;
}
