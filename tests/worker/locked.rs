//! Rows of `account_leases` that somebody else holds for minutes.

use std::time::Duration;

use emailclient_core::id::AccountId;
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
