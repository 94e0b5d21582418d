//! Tables that are filled for the first time are analysed before the planner's guesses hurt.

use std::time::Duration;

use emailclient_core::platform::id::{TenantId, new_uuid};
use emailclient_core::platform::statistics;
use sqlx::{AssertSqlSafe, Executor as _};
use tests::database::Database;
use tests::eventually::eventually;

use crate::plans::fill;

#[tokio::test]
async fn a_table_that_has_just_been_filled_is_analysed_once() {
    let database = Database::create().await;
    let mut superuser = database.superuser().await;
    let tenant = TenantId::new();
    // Autovacuum must not come first, and foreign keys are not what this is about.
    let rows = format!(
        "ALTER TABLE threads SET (autovacuum_enabled = false); SET session_replication_role = replica;
         INSERT INTO threads (tenant_id, account_id, id, last_message_at)
         SELECT '{tenant}', '{}', gen_random_uuid(), now() FROM generate_series(1, 1000)",
        new_uuid()
    );
    superuser.execute(AssertSqlSafe(rows)).await.unwrap();
    let db = fill::db(&database);
    let refresh = async || {
        let mut tx = db.system().await.unwrap();
        let done = statistics::refresh(&mut tx).await.unwrap();
        tx.commit().await.unwrap();
        done
    };
    // The server counts changes a moment after they were made.
    eventually("the table is analysed", Duration::from_secs(60), async || {
        (refresh().await == 1).then_some(())
    })
    .await;
    let known: f32 = sqlx::query_scalar("SELECT reltuples FROM pg_class WHERE oid = 'threads'::regclass")
        .fetch_one(&mut superuser)
        .await
        .unwrap();
    assert!((known - 1000.0).abs() < 1.0, "{known}");
    assert_eq!(refresh().await, 0, "nothing has grown since");
    database.drop_it().await;
}
