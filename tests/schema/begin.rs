//! A cancelled begin() must not leave a connection inside a transaction that swallows the next user's writes.

use std::time::{Duration, Instant};

use emailclient_core::access::tenant;
use sqlx::Row as _;
use tests::app::App;

#[tokio::test]
async fn a_thousand_cancelled_begins_lose_no_write() {
    let app = App::start().await;
    let owner = app.tenant().await;
    let mut cancelled = 0u64;
    let mut attempt = 0u64;
    while cancelled < 1000 {
        attempt += 1;
        assert!(attempt < 100_000, "only {cancelled} begins were cancelled");
        let mut begin = Box::pin(app.db.tenant(owner.id));
        // Dropped at every stage: before it was sent, on the wire, just answered.
        let until = Instant::now() + Duration::from_micros(attempt % 300);
        let mut done = false;
        while !done && Instant::now() < until {
            done = futures::poll!(&mut begin).is_ready();
            tokio::task::yield_now().await;
        }
        cancelled += u64::from(!done);
    }
    for n in 0..40u32 {
        let mut tx = app.db.tenant(owner.id).await.unwrap();
        tenant::set_limits(&mut tx, Some(n + 1), None).await.unwrap();
        tx.commit().await.unwrap();
        let mut superuser = app.database.superuser().await;
        let row = sqlx::query("SELECT per_minute FROM tenants WHERE id = $1")
            .bind(owner.id.0)
            .fetch_one(&mut superuser)
            .await
            .unwrap();
        assert_eq!(row.get::<i32, _>("per_minute"), (n + 1) as i32, "a committed write was lost");
    }
    app.finish().await;
}
