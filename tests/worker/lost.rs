//! Jobs whose lease goes while their worker lives.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::Row as _;
use tests::app::App;
use tests::eventually::eventually;

use crate::fairness::{SOON, Slow, reading_old_mail, refreshed};

/// Owner and epoch of the account's lease.
async fn lease(app: &App, account: &str) -> (Option<uuid::Uuid>, i64) {
    let row = sqlx::query("SELECT owner, epoch FROM account_leases WHERE account_id = $1::uuid")
        .bind(account)
        .fetch_one(&mut app.database.superuser().await)
        .await
        .unwrap();
    (row.get("owner"), row.get("epoch"))
}

/// The job of the round is anybody's again, `wait` from now.
async fn take_away(app: &App, wait: &str) {
    let taken = sqlx::query(
        "UPDATE jobs SET state = 'ready', lease_owner = NULL, lease_until = NULL, run_at = now() + $1::interval
         WHERE kind = 'sync_account' AND state = 'running'",
    )
    .bind(wait)
    .execute(&mut app.database.superuser().await)
    .await
    .unwrap();
    assert_eq!(taken.rows_affected(), 1, "the test needs more old mail");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_round_whose_job_was_taken_away_gives_its_account_up() {
    let slow = reading_old_mail(&[("WORKER_LEASE_SECONDS", "6")], 4_000, 100_000).await;
    let Slow { app, tenant, user, account, proxy: _proxy } = slow;
    assert!(lease(&app, &account).await.0.is_some());

    take_away(&app, "1 hour").await;
    eventually("the round has ended", SOON, async || lease(&app, &account).await.0.is_none().then_some(()))
        .await;
    refreshed(&app, &tenant, (&user, &account), "first").await;

    // The worker claims it again itself, before its next renewal.
    let (_, epoch) = lease(&app, &account).await;
    take_away(&app, "0").await;
    eventually("another round has begun", SOON, async || {
        (lease(&app, &account).await.1 > epoch).then_some(())
    })
    .await;
    refreshed(&app, &tenant, (&user, &account), "second").await;
    // And is kept alive: what the earlier run left behind took nothing of it along.
    let (_, epoch) = lease(&app, &account).await;
    let mut conn = app.database.superuser().await;
    let until = "SELECT lease_until FROM jobs WHERE kind = 'sync_account' AND state = 'running' AND lease_until > now()";
    let first: DateTime<Utc> = sqlx::query_scalar(until).fetch_one(&mut conn).await.unwrap();
    eventually("its lease was renewed beyond its first end", SOON, async || {
        let now: Option<DateTime<Utc>> = sqlx::query_scalar(until).fetch_optional(&mut conn).await.unwrap();
        let now = now.expect("the job is kept alive; the test needs more old mail");
        (now - first > TimeDelta::seconds(8)).then_some(())
    })
    .await;
    assert_eq!(lease(&app, &account).await.1, epoch, "the test needs more old mail");
    app.finish().await;
}
