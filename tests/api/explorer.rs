//! The explorer at `/docs`, used as people use it: in a browser.

use serde_json::{Value, json};
use tests::app::{App, PASSWORD};
use tests::chromium::Chromium;
use tests::mail;

/// Fills in the form of an operation, executes it, and reads the answer off the page.
fn try_out(browser: &mut Chromium, operation: &str, parameters: &Value, body: &Value) -> Value {
    let answer = browser.evaluate(&format!("explorer.tryOut({}, {parameters}, {body})", json!(operation)));
    assert_eq!(answer["status"], 200, "{operation}: {answer}");
    let text = answer["body"].as_str().unwrap();
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{operation}: {e}: {text}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn try_it_out_logs_in_lists_and_reads_in_a_real_browser() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    mail::fill(&app, &user, "INBOX", vec![mail::message("Read in a browser", "1@x.test", "the text of it")]);
    let account = mail::connect(&app, &tenant, &user).await;
    mail::synchronise(&app, &tenant, &account).await;
    let (base, slug, email) = (app.base.clone(), tenant.slug.clone(), tenant.email.clone());
    let walk = move || {
        let mut browser = Chromium::start();
        browser.call("Page.navigate", &json!({ "url": format!("{base}/docs/") }));
        browser.evaluate(include_str!("explorer.js"));
        browser.evaluate("explorer.ready().then(() => true)");
        let login = json!({ "email": email, "password": PASSWORD });
        let session = try_out(&mut browser, "auth-login", &json!({ "X-Tenant-ID": slug }), &login);
        let token = session["access_token"].as_str().unwrap();
        browser.evaluate(&format!("explorer.authorize({})", json!(token)));
        let accounts = try_out(
            &mut browser,
            "accounts-list",
            &json!({ "X-Tenant-ID": slug, "limit": "5" }),
            &json!(null),
        );
        let id = &accounts["data"][0]["id"];
        let listing = json!({ "X-Tenant-ID": slug, "id": id });
        let messages = try_out(&mut browser, "messages-list_messages", &listing, &json!(null));
        let one = json!({ "X-Tenant-ID": slug, "id": messages["data"][0]["id"] });
        let message = try_out(&mut browser, "messages-get_message", &one, &json!(null));
        (id.clone(), message, browser.complaints.clone())
    };
    let (id, message, complaints) = tokio::task::spawn_blocking(walk).await.unwrap();
    assert_eq!(id, account.as_str());
    assert_eq!(message["subject"], "Read in a browser");
    assert!(message["text"].as_str().unwrap().contains("the text of it"), "{message}");
    assert!(complaints.is_empty(), "the page complained: {complaints:#?}");
    app.finish().await;
}
