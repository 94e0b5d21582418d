//! A database large enough that reading a table whole would be a mistake, and the names of what is in it.

use chrono::{DateTime, TimeDelta, Utc};
use emailclient_core::platform::config::{Config, Source};
use emailclient_core::platform::db::Db;
use emailclient_core::platform::id::TenantId;
use sqlx::Executor as _;
use sqlx::postgres::PgConnection;
use tests::database::Database;
use uuid::Uuid;

/// The tenant that asks; there is a second of the same size.
pub const TENANT: TenantId = TenantId(id(1, 1));

/// Messages of account 1, counted from 1, one arrival each ten minutes.
pub const MESSAGES: u32 = 20_000;

/// Kinds of rows, as in `fill.sql`.
pub mod kind {
    pub const USER: u16 = 2;
    pub const SESSION: u16 = 3;
    pub const ACCOUNT: u16 = 4;
    pub const MAILBOX: u16 = 5;
    pub const THREAD: u16 = 6;
    pub const MESSAGE: u16 = 7;
    pub const DRAFT: u16 = 11;
    pub const SUBMISSION: u16 = 12;
    pub const WEBHOOK: u16 = 13;
}

/// Row `n` of a kind, of [`TENANT`].
pub const fn id(kind: u16, n: u32) -> Uuid {
    Uuid::from_fields(n, kind, 0x7000, &[0x80, 0, 0, 0, 0, 0, 0, 1])
}

/// When message `n` arrived.
pub fn at(n: u32) -> DateTime<Utc> {
    DateTime::from_timestamp(1_704_067_200, 0).unwrap() + TimeDelta::minutes(10 * i64::from(n))
}

/// Fills a migrated database; for a superuser.
pub async fn run(superuser: &mut PgConnection) {
    superuser.execute(include_str!("fill.sql")).await.unwrap();
    // What autovacuum does within minutes: statistics, the visibility map, and the words still waiting to enter the index.
    superuser.execute("VACUUM ANALYZE").await.unwrap();
}

/// The services' way to the database.
pub fn db(database: &Database) -> Db {
    let values = [
        ("DATABASE_URL", database.url("emailclient_app")),
        ("DATABASE_SYSTEM_URL", database.url("emailclient_system")),
        ("DATABASE_MAX_CONNECTIONS", "2".to_owned()),
        ("REDIS_URL", "redis://127.0.0.1:1/".to_owned()),
        ("JWT_SECRET", "0123456789abcdef0123456789abcdef".to_owned()),
        ("ENCRYPTION_KEY", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=".to_owned()),
    ];
    let source = Source::new(values.map(|(name, value)| (name.to_owned(), value)));
    Db::new(&Config::from_source(&source).unwrap()).unwrap()
}
