//! A cancelled begin() must not leave a connection inside a transaction that swallows the next user's writes.

use std::time::Duration;

use emailclient_core::tenant;
use sqlx::Row as _;
use tests::app::App;

#[tokio::test]
async fn a_thousand_cancelled_begins_lose_no_write() {
    let app = App::start().await;
    let owner = app.tenant().await;
    let mut cancelled = 0;
    for n in 0..1000u64 {
        let begin = app.db.tenant(owner.id);
        if tokio::time::timeout(Duration::from_micros(n % 400), begin).await.is_err() {
            cancelled += 1;
        }
    }
    assert!(cancelled > 100, "only {cancelled} begins were cancelled");
    for n in 0..40u32 {
        let mut tx = app.db.tenant(owner.id).await.unwrap();
        tenant::set_limits(&mut tx, Some(n + 1), None).await.unwrap();
        tx.commit().await.unwrap();
        let mut superuser = app.database.superuser().await;
        let row = sqlx::query("SELECT per_minute FROM tenants WHERE id = $1").bind(owner.id.0).fetch_one(&mut superuser).await.unwrap();
        assert_eq!(row.get::<i32, _>("per_minute"), (n + 1) as i32, "a committed write was lost");
    }
    app.finish().await;
}
