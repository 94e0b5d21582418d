//! Rows of `account_leases` that somebody else holds: for minutes, or again and again.

use std::time::{Duration, Instant};

use emailclient_core::platform::id::{AccountId, new_uuid};
use emailclient_core::queue::lease;
use emailclient_core::sync::due;
use sqlx::Connection as _;
use tests::app::{App, Tenant};
use tests::eventually::eventually;
use tests::mail;

use crate::fairness::SOON;
use crate::places::clear;

async fn account(app: &App, tenant: &Tenant) -> AccountId {
    let settings = mail::settings(app, &mail::new_mailbox(app));
    let made = app.post(tenant, "/api/accounts?verify=false", &settings).await.expect(201);
    made["id"].as_str().unwrap().parse().unwrap()
}

async fn execute(app: &App, sql: &'static str, account: AccountId) {
    sqlx::query(sql).bind(account).execute(&mut app.database.superuser().await).await.unwrap();
}

/// As while an account is deleted that holds much.
#[tokio::test]
async fn an_account_whose_row_is_held_keeps_no_other_from_its_round_or_its_audit() {
    let mut app = App::start_with(&[("IMAP_IDLE_ENABLED", "false")]).await;
    let tenant = app.tenant().await;
    let (held, free) = (account(&app, &tenant).await, account(&app, &tenant).await);
    clear(&app).await;
    for (id, age) in [(held, "2 hours"), (free, "1 hour")] {
        sqlx::query("UPDATE accounts SET state = 'connected' WHERE id = $1")
            .bind(id)
            .execute(&mut app.database.superuser().await)
            .await
            .unwrap();
        sqlx::query(
            "UPDATE account_leases SET next_due_at = now() - $2::interval, next_audit_at = now() - $2::interval
             WHERE account_id = $1",
        )
        .bind(id)
        .bind(age)
        .execute(&mut app.database.superuser().await)
        .await
        .unwrap();
    }
    let mut holder = app.database.superuser().await;
    let mut tx = holder.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM account_leases WHERE account_id = $1 FOR UPDATE")
        .bind(held)
        .execute(&mut *tx)
        .await
        .unwrap();
    app.add_scheduler();
    let jobs = async |id: AccountId| -> Vec<String> {
        sqlx::query_scalar("SELECT kind FROM jobs WHERE dedupe_key = $1 ORDER BY kind")
            .bind(id.to_string())
            .fetch_all(&mut app.database.superuser().await)
            .await
            .unwrap()
    };
    let both = ["audit_account", "sync_account"];
    eventually("the other account has its jobs", Duration::from_secs(8), async || {
        (jobs(free).await == both).then_some(())
    })
    .await;
    assert!(jobs(held).await.is_empty());
    tx.rollback().await.unwrap();
    eventually("its turn comes when it is free", SOON, async || (jobs(held).await == both).then_some(()))
        .await;
    clear(&app).await;
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_round_that_writes_without_pause_does_not_cost_its_account_the_watch() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let id = account(&app, &tenant).await;
    clear(&app).await;
    execute(&app, "UPDATE accounts SET state = 'connected' WHERE id = $1", id).await;
    let (me, lasts) = (new_uuid(), Duration::from_secs(30));
    let watched = async || {
        let claimed = due::claim_watches(&app.db, me, lasts, 10).await.unwrap();
        claimed.iter().any(|w| (w.tenant, w.account) == (tenant.id, id))
    };
    assert!(watched().await);
    execute(
        &app,
        "UPDATE account_leases SET watch_expires_at = now() + interval '2 seconds' WHERE account_id = $1",
        id,
    )
    .await;
    let mut tx = app.db.tenant(tenant.id).await.unwrap();
    let held = lease::acquire(&mut tx, id, new_uuid(), lasts).await.unwrap().unwrap();
    tx.commit().await.unwrap();
    let db = app.db.clone();
    let round = tokio::spawn(async move {
        loop {
            let tx = held.begin(&db).await.unwrap();
            tokio::time::sleep(Duration::from_millis(40)).await;
            tx.commit().await.unwrap();
        }
    });
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(4) {
        assert!(watched().await, "after {:?}", started.elapsed());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    round.abort();
    let _ = round.await;
    app.finish().await;
}
