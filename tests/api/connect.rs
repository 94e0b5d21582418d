//! The page on which a person connects a mailbox, used as a browser without scripts uses it.

mod branding;
mod consent;
mod failures;
mod links;
mod pages;

use serde_json::{Value, json};
use tests::app::{App, Tenant};
use tests::mail;
use tests::provider::{HOME, value};
use tests::visitor::{self, Visitor};

/// The query of an address.
fn query(location: &str) -> Vec<(String, String)> {
    let url = url::Url::parse(location).unwrap_or_else(|error| panic!("{location}: {error}"));
    url.query_pairs().map(|(key, value)| (key.into_owned(), value.into_owned())).collect()
}

/// The account that a person came back with.
#[track_caller]
fn connected(location: Option<String>) -> String {
    let location = location.expect("the page is still there");
    assert!(location.starts_with(&format!("{HOME}&account_id=")), "{location}");
    let query = query(&location);
    assert_eq!(value(&query, "state"), Some("our state"), "{location}");
    value(&query, "account_id").unwrap().to_owned()
}

async fn accounts(app: &App, tenant: &Tenant) -> Vec<Value> {
    app.get(tenant, "/api/accounts").await.expect(200)["data"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_connects_a_mailbox_by_its_address_and_password() {
    let (app, _names) = visitor::start().await;
    let tenant = visitor::registered(&app).await;
    let user = visitor::new_mailbox(&app);
    let mut person = Visitor::sent(&app, &tenant, &json!({})).await;
    person.shows(200, "Connect your mailbox");
    assert_eq!(person.submit("address", &[("email", &format!("  {user} "))]).await, None);
    person.shows(200, "Enter your password");
    // Where the password will go is said before it is entered.
    person.shows(200, &format!("localhost:{}", app.stack.imaps_port));
    person.shows(200, &user);
    let id = connected(person.password(&user, mail::PASSWORD).await);
    let account = app.get(&tenant, &format!("/api/accounts/{id}")).await.expect(200);
    assert_eq!(
        (&account["email"], &account["auth"]["type"], &account["imap"]["username"]),
        (&json!(user), &json!("password"), &json!(user))
    );
    let status = app.get(&tenant, &format!("/api/sync/status/{id}")).await.expect(200);
    assert_eq!(status["run"]["state"], "queued", "its first synchronisation has been asked for: {status}");
    let trail = app.get(&tenant, "/api/audit?action=account.create").await.expect(200);
    assert_eq!((&trail["data"][0]["target"], &trail["data"][0]["result"]), (&json!(id), &json!("ok")));
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nothing_is_found_the_servers_are_asked_for() {
    let (app, _names) = visitor::start().await;
    let tenant = visitor::registered(&app).await;
    let user = mail::new_mailbox(&app);
    let mut person = Visitor::sent(&app, &tenant, &json!({"email": user})).await;
    person.shows(200, &format!("value=\"{user}\""));
    person.submit("address", &[("email", &user)]).await;
    person.shows(200, "Enter your mail servers");
    person.shows(200, "We did not find the settings");
    let (imap, smtp) = (app.stack.imaps_port.to_string(), app.stack.submissions_port.to_string());
    let fields = |password: &'static str| {
        [
            ("email", user.clone()),
            ("username", user.clone()),
            ("password", password.to_owned()),
            ("imap_host", " localhost. ".to_owned()),
            ("imap_port", imap.clone()),
            ("imap_security", "tls".to_owned()),
            ("smtp_host", "localhost".to_owned()),
            ("smtp_port", smtp.clone()),
            ("smtp_security", "tls".to_owned()),
        ]
    };
    let borrow = |all: &[(&'static str, String); 9]| {
        all.iter().map(|(name, value)| (*name, value.clone())).collect::<Vec<_>>()
    };
    let wrong = borrow(&fields("mistaken"));
    let wrong: Vec<(&str, &str)> = wrong.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(person.submit("servers", &wrong).await, None);
    // What was entered is there still, but for the password.
    person.shows(422, &format!("value=\"{imap}\""));
    person.shows(422, "does not accept the user name and password");
    assert!(!person.page.text().contains("mistaken"));
    let right = borrow(&fields(mail::PASSWORD));
    let right: Vec<(&str, &str)> = right.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let id = connected(person.submit("servers", &right).await);
    let account = app.get(&tenant, &format!("/api/accounts/{id}")).await.expect(200);
    assert_eq!(account["imap"]["host"], "localhost");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_is_renewed_by_its_page_and_keeps_what_it_has() {
    let (app, _names) = visitor::start().await;
    let tenant = visitor::registered(&app).await;
    let user = mail::new_mailbox(&app);
    let id = mail::connect(&app, &tenant, &user).await;
    let before = app.get(&tenant, &format!("/api/accounts/{id}")).await.expect(200);
    let mut person = Visitor::sent(&app, &tenant, &json!({"account_id": id})).await;
    // Its address and its servers are known: the password is asked for at once.
    person.shows(200, "Reconnect your mailbox");
    person.shows(200, &user);
    // Another mailbox than the account's is not taken for it, whatever a form says.
    let other = mail::new_mailbox(&app);
    assert_eq!(person.password(&other, mail::PASSWORD).await, None);
    person.shows(409, "Begin with the right mailbox");
    for wanted in ["address", "servers"] {
        assert_eq!(person.submit(wanted, &[("email", &other), ("username", &other)]).await, None);
        person.shows(200, "Reconnect your mailbox");
    }
    assert_eq!(connected(person.password(&user, mail::PASSWORD).await), id);
    let after = app.get(&tenant, &format!("/api/accounts/{id}")).await.expect(200);
    for field in ["email", "name", "imap", "smtp", "identities", "created_at"] {
        assert_eq!(before[field], after[field], "{field}");
    }
    let trail = app.get(&tenant, "/api/audit?action=account.update").await.expect(200);
    assert_eq!(trail["data"][0]["target"], id);
    // A second one by the same address renews as well; at servers of somebody's choice it does not.
    let mut again = Visitor::sent(&app, &tenant, &json!({})).await;
    again.submit("address", &[("email", &user)]).await;
    let (imap, smtp) = (app.stack.imaps_port.to_string(), app.stack.submissions_port.to_string());
    let servers = |imap_host: &'static str| {
        [
            ("email", user.as_str()),
            ("username", user.as_str()),
            ("password", mail::PASSWORD),
            ("imap_host", imap_host),
            ("imap_port", imap.as_str()),
            ("imap_security", "tls"),
            ("smtp_host", "localhost"),
            ("smtp_port", smtp.as_str()),
            ("smtp_security", "tls"),
        ]
    };
    assert_eq!(again.submit("servers", &servers("127.0.0.1")).await, None);
    again.shows(409, "connected already");
    assert_eq!(connected(again.submit("servers", &servers("localhost")).await), id);
    assert_eq!(accounts(&app, &tenant).await.len(), 1);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_form_that_is_sent_twice_connects_once_and_arrives_twice() {
    let (app, _names) = visitor::start().await;
    let tenant = visitor::registered(&app).await;
    let user = visitor::new_mailbox(&app);
    let mut person = Visitor::sent(&app, &tenant, &json!({})).await;
    person.submit("address", &[("email", &user)]).await;
    let form = person.form();
    let fields =
        [("form", form.as_str()), ("do", "password"), ("email", user.as_str()), ("password", mail::PASSWORD)];
    let (one, other) = tokio::join!(person.post(&fields), person.post(&fields));
    let third = person.post(&fields).await;
    let ids: Vec<String> =
        [one, other, third].map(|answer| connected(Some(answer.header("location")))).into();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(accounts(&app, &tenant).await.len(), 1);
    let made = app.get(&tenant, "/api/audit?action=account.create").await.expect(200);
    assert_eq!(made["data"].as_array().unwrap().len(), 1);
    // Who comes back by the link finds it used, and the way on.
    person.load("").await;
    person.shows(410, "This link was used already");
    assert_eq!(connected(Some(person.link("Back to A tenant"))), ids[0]);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_gives_up_is_sent_back_with_the_word_for_it() {
    let (app, _names) = visitor::start().await;
    let tenant = visitor::registered(&app).await;
    let mut person = Visitor::sent(&app, &tenant, &json!({})).await;
    let location = person.submit("cancel", &[]).await.unwrap();
    assert_eq!(location, format!("{HOME}&error=access_denied&state=our+state"));
    let mut person = Visitor::open(&app, &person.path).await;
    person.shows(410, "This link was used already");
    person.load("?step=servers").await;
    person.shows(410, "This link was used already");
    assert_eq!(accounts(&app, &tenant).await.len(), 0);
    app.finish().await;
}
