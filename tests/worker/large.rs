//! Large messages on their way over slow lines: whom they hold up.

use std::time::Duration;

use serde_json::json;
use tests::app::{App, Tenant};
use tests::eventually::eventually;
use tests::fault::{Proxy, Toward};
use tests::mail;
use tokio::time::sleep;

use crate::fairness::{SOON, connect_through, lists};

async fn ask(app: &App, tenant: &Tenant, account: &str) {
    app.post(tenant, &format!("/api/sync/imap/{account}"), &json!({})).await.expect(202);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_mail_does_not_wait_for_the_memory_of_a_large_message_that_comes_slowly() {
    let mut app = App::start_with(&[("IMAP_IDLE_ENABLED", "false")]).await;
    let tenant = app.tenant().await;
    let proxy = Proxy::before(app.stack.imaps_port).await;
    let (slow, user) = (mail::new_mailbox(&app), mail::new_mailbox(&app));
    app.add_worker();
    let patient = connect_through(&app, &tenant, &slow, &proxy).await;
    let account = mail::connect(&app, &tenant, &user).await;
    mail::synchronise(&app, &tenant, &patient).await;
    mail::synchronise(&app, &tenant, &account).await;

    let large = "a line of no meaning at all\r\n".repeat(700_000);
    mail::deliver(&app, &slow, &mail::message("Large", "large@example.test", &large));
    proxy.line(Toward::Client, |line| line.bandwidth = Some(100_000));
    ask(&app, &tenant, &patient).await;
    // Noted, and so asked for: its first bytes come within a second.
    eventually("the large message is on its way", SOON, async || {
        let noted: i64 = sqlx::query_scalar("SELECT count(*) FROM ingest_batches")
            .fetch_one(&mut app.database.superuser().await)
            .await
            .unwrap();
        (noted > 0).then_some(())
    })
    .await;
    sleep(Duration::from_secs(2)).await;
    mail::deliver(&app, &user, &mail::message("Small", "small@example.test", "x"));
    ask(&app, &tenant, &account).await;
    eventually("the small one is listed", SOON, async || {
        lists(&app, &tenant, &account, "Small").await.then_some(())
    })
    .await;
    assert!(!lists(&app, &tenant, &patient, "Large").await, "the test needs a slower line");
    // It is whole once the line is well.
    proxy.line(Toward::Client, |line| line.bandwidth = None);
    eventually("the large one is listed, too", Duration::from_secs(60), async || {
        lists(&app, &tenant, &patient, "Large").await.then_some(())
    })
    .await;
    app.finish().await;
}
