//! Users change an account while the worker writes what it read of it.

use serde_json::json;
use tests::app::App;
use tests::mail;

/// In either order of locks two of these waited for each other, the database ended one of them, and the client was told
/// that the database does not answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_can_be_changed_by_several_at_once_while_it_synchronises() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    let id = mail::connect(&app, &tenant, &user).await;
    let (path, sync) = (format!("/api/accounts/{id}"), format!("/api/sync/imap/{id}"));
    let rename = async |who: &str| {
        for n in 0..40 {
            app.patch(&tenant, &path, &json!({"name": format!("{who} {n}")})).await.expect(200);
        }
    };
    let reconnect = async {
        for n in 0..15 {
            // Another user each time: passwords of one are not tried this often.
            let smtp = json!({"smtp": {"username": format!("user-{n}"), "password": "p"}});
            let answer = app.patch(&tenant, &format!("{path}?verify=false"), &smtp).await;
            // Somebody else wrote between its reading and its writing.
            assert!(matches!(answer.status, 200 | 412), "{}", answer.text());
        }
    };
    let round = async {
        for _ in 0..40 {
            app.post(&tenant, &sync, &json!({})).await.expect(202);
        }
    };
    tokio::join!(rename("one"), rename("two"), reconnect, round);
    app.finish().await;
}
