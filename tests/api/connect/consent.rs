//! From the page to a provider and back.

use devstack::oauth::{Authority, Endpoint, Fault, FaultAt, IdToken, consent, deny};
use serde_json::{Value, json};
use tests::app::{App, Tenant, send};
use tests::mail;
use tests::provider::{self, HOME, PUBLIC_URL, app_settings, authority};
use tests::visitor::{self, Visitor};

use super::{accounts, connected};

/// A tenant with an app at this authority.
async fn tenant_with_app(app: &App, authority: &Authority) -> (Tenant, String) {
    let tenant = visitor::registered(app).await;
    let made = app.post(&tenant, "/api/oauth/apps", &app_settings(app, authority)).await.expect(201);
    (tenant, made["id"].as_str().unwrap().to_owned())
}

/// Where the page's link leads: the provider's address.
async fn leave(app: &App, person: &Visitor<'_>) -> String {
    let link = person.link("Continue to Ours");
    let answer = send(app.http.get(format!("{}{link}", app.base))).await;
    assert_eq!(answer.status, 303, "{}", answer.text());
    assert_eq!(answer.header("referrer-policy"), "no-referrer");
    answer.header("location")
}

/// The way back from the provider: where the person is sent on to.
async fn come_back(app: &App, url: &str) -> String {
    let answer = send(app.http.get(url.replacen(PUBLIC_URL, &app.base, 1))).await;
    assert_eq!(answer.status, 303, "{}", answer.text());
    answer.header("location")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_whose_provider_has_an_app_consents_there_and_comes_back() {
    let (app, _names) = visitor::start().await;
    let authority = authority(&app);
    let (tenant, app_id) = tenant_with_app(&app, &authority).await;
    let user = visitor::new_mailbox(&app);
    let mut person = Visitor::sent(&app, &tenant, &json!({})).await;
    person.submit("address", &[("email", &user)]).await;
    person.shows(200, "Sign in with Ours");
    let url = leave(&app, &person).await;
    assert!(url.starts_with(&authority.url(Endpoint::Authorize)), "{url}");
    let back = consent(&url, &user).await.unwrap();
    let id = connected(Some(come_back(&app, back.as_str()).await));
    let account = app.get(&tenant, &format!("/api/accounts/{id}")).await.expect(200);
    let auth = &account["auth"];
    assert_eq!(
        (&account["email"], &auth["type"], &auth["app_id"]),
        (&json!(user), &json!("oauth2"), &json!(app_id))
    );
    // The link is used up, and so is another way from the same page.
    person.load("").await;
    person.shows(410, "This link was used already");
    assert_eq!(connected(Some(person.link("Back to A tenant"))), id);
    // Renewed by the page: the provider is the way, and another mailbox is not taken.
    let mut renewal = Visitor::sent(&app, &tenant, &json!({"account_id": id})).await;
    renewal.shows(200, "Reconnect your mailbox");
    let other = visitor::new_mailbox(&app);
    let back = consent(&leave(&app, &renewal).await, &other).await.unwrap();
    assert_eq!(come_back(&app, back.as_str()).await, format!("{PUBLIC_URL}{}", renewal.path));
    renewal.load("").await;
    renewal.shows(200, "You signed in to another mailbox");
    let back = consent(&leave(&app, &renewal).await, &user).await.unwrap();
    assert_eq!(connected(Some(come_back(&app, back.as_str()).await)), id);
    assert_eq!(accounts(&app, &tenant).await.len(), 1);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_went_wrong_at_the_provider_is_told_on_the_page_which_goes_on() {
    let (app, _names) = visitor::start().await;
    let authority = authority(&app);
    let (tenant, _) = tenant_with_app(&app, &authority).await;
    let user = visitor::new_mailbox(&app);
    let mut person = Visitor::sent(&app, &tenant, &json!({})).await;
    person.submit("address", &[("email", &user)]).await;
    let back = deny(&leave(&app, &person).await).await.unwrap();
    assert_eq!(come_back(&app, back.as_str()).await, format!("{PUBLIC_URL}{}", person.path));
    person.load("").await;
    person.shows(200, "Access was not allowed");
    person.shows(200, "<title>Error: Sign in with Ours");
    let faults = [
        (Endpoint::Token, Fault::server_error(), "The provider does not answer at the moment"),
        (Endpoint::Token, Fault::html(), "The provider does not answer at the moment"),
        (Endpoint::Token, Fault::json(401, r#"{"error":"invalid_client"}"#), "does not accept this service"),
    ];
    for (endpoint, fault, text) in faults {
        authority.fail(FaultAt::new(endpoint, fault));
        let back = consent(&leave(&app, &person).await, &user).await.unwrap();
        come_back(&app, back.as_str()).await;
        person.load("").await;
        person.shows(200, text);
        authority.heal();
    }
    authority.with(|s| s.id_token = IdToken::OtherKey);
    let back = consent(&leave(&app, &person).await, &user).await.unwrap();
    come_back(&app, back.as_str()).await;
    person.load("").await;
    person.shows(200, "Nothing was connected");
    authority.with(|s| s.id_token = IdToken::Honest);
    // The mail server does not take what the provider gave.
    authority.with(|s| {
        s.granted_scopes = Some(vec!["openid".to_owned(), "email".to_owned(), "offline_access".to_owned()])
    });
    let back = consent(&leave(&app, &person).await, &user).await.unwrap();
    come_back(&app, back.as_str()).await;
    person.load("").await;
    person.shows(200, "the mail server does not accept it");
    authority.with(|s| s.granted_scopes = None);
    assert!(accounts(&app, &tenant).await.is_empty());
    // Who sets out anew is not reproached with it any more, and may go another way.
    person.load("?step=password").await;
    person.shows(200, "Enter your password");
    let back = consent(&leave_from(&app, &mut person).await, &user).await.unwrap();
    connected(Some(come_back(&app, back.as_str()).await));
    app.finish().await;
}

async fn leave_from(app: &App, person: &mut Visitor<'_>) -> String {
    person.load("").await;
    let url = leave(app, person).await;
    person.load("").await;
    assert!(!person.page.text().contains("role=\"alert\""), "{}", person.page.text());
    url
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_ways_from_one_page_connect_one_mailbox() {
    let (app, _names) = visitor::start().await;
    let authority = authority(&app);
    let (tenant, _) = tenant_with_app(&app, &authority).await;
    let (ann, bob) = (visitor::new_mailbox(&app), visitor::new_mailbox(&app));
    let mut person = Visitor::sent(&app, &tenant, &json!({})).await;
    person.submit("address", &[("email", &ann)]).await;
    let (one, other) = (leave(&app, &person).await, leave(&app, &person).await);
    let back = consent(&one, &ann).await.unwrap();
    connected(Some(come_back(&app, back.as_str()).await));
    let back = consent(&other, &bob).await.unwrap();
    assert_eq!(come_back(&app, back.as_str()).await, format!("{PUBLIC_URL}{}", person.path));
    person.load("").await;
    person.shows(410, "This link was used already");
    let all = accounts(&app, &tenant).await;
    assert_eq!((all.len(), &all[0]["email"]), (1, &json!(ann)));
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_of_which_nothing_is_known_may_belong_to_one_of_the_tenants_own_providers() {
    let (app, _names) = visitor::start().await;
    let authority = authority(&app);
    let (tenant, _) = tenant_with_app(&app, &authority).await;
    let google = json!({"provider": "google", "client_id": "c", "client_secret": "s"});
    let google = app.post(&tenant, "/api/oauth/apps", &google).await.expect(201);
    let user = mail::new_mailbox(&app);
    let mut person = Visitor::sent(&app, &tenant, &json!({"locale": "en"})).await;
    person.submit("address", &[("email", &user)]).await;
    person.shows(200, "Enter your mail servers");
    let link = person.link("Sign in with Ours");
    assert!(!person.page.text().contains("Google"), "{}", person.page.text());
    let answer = send(app.http.get(format!("{}{link}", app.base))).await;
    let back = consent(&answer.header("location"), &user).await.unwrap();
    connected(Some(come_back(&app, back.as_str()).await));
    // A known provider's app serves the addresses of its users.
    let mut person = Visitor::sent(&app, &tenant, &json!({"locale": "en"})).await;
    person.submit("address", &[("email", "ann@gmail.com")]).await;
    person.shows(200, "Sign in with Google");
    let link = person.link("Continue to Google");
    assert_eq!(link, format!("{}/consent/{}", person.path, google["id"].as_str().unwrap()));
    let answer = send(app.http.get(format!("{}{link}", app.base))).await;
    let location = answer.header("location");
    assert!(
        location.starts_with("https://accounts.google.com/")
            && location.contains("login_hint=ann%40gmail.com"),
        "{location}"
    );
    // Another tenant's app is none.
    let other = visitor::registered(&app).await;
    let theirs = app.post(&other, "/api/oauth/apps", &app_settings(&app, &authority)).await.expect(201);
    let path = format!("{}/consent/{}", person.path, theirs["id"].as_str().unwrap());
    let answer = send(app.http.get(format!("{}{path}", app.base))).await;
    assert_eq!((answer.status, answer.header("location")), (303, person.path.clone()));
    app.delete(&tenant, &format!("/api/oauth/apps/{}", google["id"].as_str().unwrap())).await.expect(204);
    person.load("").await;
    person.shows(200, "App password");
    assert_eq!(provider::HOME, HOME);
    let none: Vec<Value> = accounts(&app, &other).await;
    assert!(none.is_empty());
    app.finish().await;
}
