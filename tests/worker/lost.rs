//! Jobs whose lease goes while their worker lives.

use std::time::Duration;

use serde_json::json;
use sqlx::Row as _;
use tests::app::{App, Tenant};
use tests::eventually::eventually;
use tests::fault::{Proxy, Toward};
use tests::mail;

use crate::fairness::{SOON, connect_through, fill_large, inbox};

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

async fn refreshed(app: &App, tenant: &Tenant, (user, account): (&str, &str), subject: &str) {
    mail::deliver(app, user, &mail::message(subject, &format!("{subject}@example.test"), "fresh"));
    app.post(tenant, &format!("/api/sync/imap/{account}"), &json!({})).await.expect(202);
    eventually(&format!("{subject} is listed"), SOON, async || {
        let page = app.get(tenant, &format!("/api/accounts/{account}/messages?limit=5")).await.expect(200);
        page["data"].as_array().unwrap().iter().any(|m| m["subject"] == subject).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_round_whose_job_was_taken_away_gives_its_account_up() {
    let settings = [("IMAP_IDLE_ENABLED", "false"), ("WORKER_LEASE_SECONDS", "6")];
    let mut app = App::start_with(&settings).await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    fill_large(&app, &user, 4_000);
    let proxy = Proxy::before(app.stack.imaps_port).await;
    proxy.line(Toward::Client, |line| line.bandwidth = Some(100_000));
    app.add_worker();
    let account = connect_through(&app, &tenant, &user, &proxy).await;
    eventually("old mail is being read", Duration::from_secs(60), async || {
        let (state, synced) = inbox(&app, &tenant, &account).await;
        (state == "backfill" && synced > 50).then_some(())
    })
    .await;
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
    tokio::time::sleep(Duration::from_secs(8)).await;
    let attempts: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM jobs WHERE kind = 'sync_account' AND state = 'running' AND lease_until > now()",
    )
    .fetch_one(&mut app.database.superuser().await)
    .await
    .unwrap();
    assert_eq!((attempts, lease(&app, &account).await.1), (1, epoch), "the test needs more old mail");
    app.finish().await;
}
