//! Tokens without a browser that comes back: a refresh token that is there already, the app itself, a service account, a device. And
//! the end of a grant.

use devstack::oauth::{Endpoint, Fault, FaultAt, consent};
use serde_json::{Value, json};
use tests::app::App;
use tests::mail;
use tests::provider::{self, HOME, app_settings, authority, back, named, sent_to};

#[tokio::test]
async fn accounts_are_connected_without_a_person_by_a_refresh_token_by_the_app_and_by_a_service_account() {
    let app = provider::start().await;
    let (tenant, authority) = (app.tenant().await, authority(&app));
    let app_id = named(&app, &tenant, &authority).await;
    let post = async |email: &str, auth: Value| {
        app.post(&tenant, "/api/accounts", &json!({"email": email, "auth": auth})).await
    };
    // A refresh token that the caller has already: of a flow of its own.
    let user = mail::new_mailbox(&app);
    let url = sent_to(&app, &tenant, &json!({"app_id": app_id})).await;
    back(&app, consent(&url, &user).await.unwrap().as_str()).await;
    let refresh = authority
        .issued()
        .into_iter()
        .rev()
        .find(|i| i.kind == devstack::oauth::Kind::Refresh)
        .unwrap()
        .value;
    let first =
        app.get(&tenant, "/api/accounts").await.expect(200)["data"][0]["id"].as_str().unwrap().to_owned();
    app.delete(&tenant, &format!("/api/accounts/{first}")).await.expect(204);
    let made = post(&user, json!({"type": "oauth2", "app_id": app_id, "refresh_token": refresh})).await;
    assert!(!made.text().contains(&refresh));
    assert_eq!(made.expect(201)["auth"]["grant"], "person");
    let other = mail::new_mailbox(&app);
    let bad = post(&other, json!({"type": "oauth2", "app_id": app_id, "refresh_token": "made-up"})).await;
    bad.refused(422, "upstream-unreachable");
    assert_eq!(app.get(&tenant, "/api/accounts").await.expect(200)["data"].as_array().unwrap().len(), 1);
    // The app itself.
    let mailbox = mail::new_mailbox(&app);
    authority.register(devstack::oauth::Client::confidential("robot", "robot-secret").mailbox(&mailbox));
    let mut robot = app_settings(&app, &authority);
    robot["client_id"] = json!("robot");
    robot["client_secret"] = json!("robot-secret");
    robot["scopes"] = json!(["mail"]);
    let robot = app.post(&tenant, "/api/oauth/apps", &robot).await.expect(201)["id"].clone();
    let made =
        post(&mailbox, json!({"type": "oauth2", "app_id": robot, "grant": "client"})).await.expect(201);
    assert_eq!(made["auth"]["grant"], "client");
    // A service account for a user.
    let account = authority.service_account("robot@project.example", &["lab.test"]).unwrap();
    let mut service = app_settings(&app, &authority);
    service["client_id"] = json!(account.email);
    service["private_key"] = json!(account.private_key);
    service["scopes"] = json!(["mail"]);
    let service = app.post(&tenant, "/api/oauth/apps", &service).await.expect(201);
    assert_eq!(service["has_private_key"], true);
    let user = mail::new_mailbox(&app);
    let made =
        post(&user, json!({"type": "oauth2", "app_id": service["id"], "grant": "service"})).await.expect(201);
    assert_eq!(made["auth"]["grant"], "service");
    for (auth, pointer) in [
        (json!({"type": "oauth2"}), "/auth/app_id"),
        (json!({"type": "oauth2", "app_id": app_id}), "/auth/refresh_token"),
        (json!({"type": "oauth2", "app_id": app_id, "grant": "service"}), "/auth/grant"),
        (
            json!({"type": "oauth2", "app_id": app_id, "grant": "client", "refresh_token": "x"}),
            "/auth/refresh_token",
        ),
        (json!({"type": "oauth2", "app_id": app_id, "refresh_token": "a b"}), "/auth/refresh_token"),
        (
            json!({"type": "oauth2", "app_id": "0190a000-0000-7000-8000-000000000000", "refresh_token": "x"}),
            "/auth/app_id",
        ),
    ] {
        let problem = post("new@lab.test", auth.clone()).await.refused(422, "validation-error");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{auth}");
    }
    let mut both = mail::settings(&app, "new@lab.test");
    both["auth"] = json!({"type": "oauth2", "app_id": app_id, "refresh_token": "x"});
    let problem = app.post(&tenant, "/api/accounts", &both).await.refused(422, "validation-error");
    assert_eq!(problem["errors"][0]["pointer"], "/imap");
    app.finish().await;
}

#[tokio::test]
async fn a_device_without_a_browser_is_connected_by_a_person_elsewhere() {
    let app = provider::start().await;
    let (tenant, other, authority) = (app.tenant().await, app.tenant().await, authority(&app));
    let app_id = named(&app, &tenant, &authority).await;
    authority.with(|s| s.device_interval = std::time::Duration::from_secs(1));
    let begin = async || {
        let begun = app.post(&tenant, "/api/oauth/device", &json!({"app_id": app_id})).await.expect(201);
        (
            begun["id"].as_str().unwrap().to_owned(),
            begun["verification_uri_complete"].as_str().unwrap().to_owned(),
        )
    };
    let (id, page) = begin().await;
    let path = format!("/api/oauth/device/{id}");
    app.get(&other, &path).await.refused(404, "not-found");
    let pending = app.get(&tenant, &path).await.expect(200);
    assert_eq!(
        (&pending["state"], pending["user_code"].as_str().unwrap().is_empty()),
        (&json!("pending"), false)
    );
    let asked = authority.count_grant("urn:ietf:params:oauth:grant-type:device_code");
    for _ in 0..20 {
        app.get(&tenant, &path).await.expect(200);
    }
    let asked = authority.count_grant("urn:ietf:params:oauth:grant-type:device_code") - asked;
    assert!(asked <= 2, "the provider is asked at its interval, not {asked} times");
    let ends = async |path: &str| {
        tests::eventually::eventually(
            "the person has decided",
            std::time::Duration::from_secs(30),
            async || {
                let seen = app.get(&tenant, path).await.expect(200);
                (seen["state"] != "pending").then_some(seen)
            },
        )
        .await
    };
    let user = mail::new_mailbox(&app);
    devstack::oauth::activate(&page, &user).await.unwrap();
    let done = ends(&path).await;
    assert_eq!(done["state"], "connected", "{done}");
    let account = app
        .get(&tenant, &format!("/api/accounts/{}", done["account_id"].as_str().unwrap()))
        .await
        .expect(200);
    assert_eq!((&account["email"], &account["auth"]["type"]), (&json!(user), &json!("oauth2")));
    let (id, page) = begin().await;
    devstack::oauth::deny_device(&page).await.unwrap();
    let done = ends(&format!("/api/oauth/device/{id}")).await;
    assert_eq!((&done["state"], &done["error"]), (&json!("failed"), &json!("access-denied")));
    authority.with(|s| s.device_lifetime = chrono::TimeDelta::seconds(1));
    let (id, _) = begin().await;
    let done = ends(&format!("/api/oauth/device/{id}")).await;
    assert_eq!((&done["state"], &done["error"]), (&json!("failed"), &json!("expired")));
    let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM oauth_devices WHERE device_code IS NOT NULL AND (connected_id IS NOT NULL OR error IS NOT NULL)")
        .fetch_one(&mut app.database.superuser().await)
        .await
        .unwrap();
    assert_eq!(kept, 0, "a code that has served is forgotten");
    app.finish().await;
}

#[tokio::test]
async fn an_account_that_is_removed_gives_its_grant_back_if_that_is_asked_for() {
    let app = provider::start().await;
    let (tenant, authority) = (app.tenant().await, authority(&app));
    let app_id = named(&app, &tenant, &authority).await;
    let (kept, first) = provider::connect(&app, &tenant, &app_id).await;
    let (given_back, second) = provider::connect(&app, &tenant, &app_id).await;
    app.delete(&tenant, &format!("/api/accounts/{first}")).await.expect(204);
    let path = format!("/api/accounts/{second}?revoke=true");
    authority.fail(FaultAt::new(Endpoint::Revoke, Fault::server_error()));
    app.delete(&tenant, &path).await.refused(422, "upstream-unreachable");
    app.get(&tenant, &format!("/api/accounts/{second}")).await.expect(200);
    authority.heal();
    app.delete(&tenant, &path).await.expect(204);
    assert_eq!((authority.live_grants(&kept), authority.live_grants(&given_back)), (1, 0));
    app.finish().await;
}

#[tokio::test]
async fn without_an_address_of_our_own_nobody_is_sent_away() {
    let app = App::start().await;
    let (tenant, authority) = (app.tenant().await, authority(&app));
    let app_id = named(&app, &tenant, &authority).await;
    let body = json!({"app_id": app_id, "redirect_url": HOME});
    app.post(&tenant, "/api/oauth/authorize", &body).await.refused(409, "not-configured");
    app.finish().await;
}

#[tokio::test]
async fn a_refresh_token_that_was_handed_over_is_not_lost_when_the_servers_were_away() {
    let app = provider::start().await;
    let (tenant, authority) = (app.tenant().await, authority(&app));
    let app_id = named(&app, &tenant, &authority).await;
    let user = mail::new_mailbox(&app);
    let url = sent_to(&app, &tenant, &json!({"app_id": app_id})).await;
    back(&app, consent(&url, &user).await.unwrap().as_str()).await;
    let issued = authority.issued().into_iter().rev();
    let refresh = issued.into_iter().find(|i| i.kind == devstack::oauth::Kind::Refresh).unwrap().value;
    let first =
        app.get(&tenant, "/api/accounts").await.expect(200)["data"][0]["id"].as_str().unwrap().to_owned();
    app.delete(&tenant, &format!("/api/accounts/{first}")).await.expect(204);
    // It is good once; what it gives opens no mailbox the first time.
    authority.with(|s| {
        s.rotation = devstack::oauth::Rotation::Replace;
        s.granted_scopes = Some(vec!["openid".to_owned(), "offline_access".to_owned()]);
    });
    let body = json!({"email": user, "auth": {"type": "oauth2", "app_id": app_id, "refresh_token": refresh}});
    app.post(&tenant, "/api/accounts", &body).await.refused(422, "upstream-auth-failed");
    authority.with(|s| s.granted_scopes = None);
    app.post(&tenant, "/api/accounts", &body).await.expect(201);
    app.finish().await;
}

#[tokio::test]
async fn an_app_of_the_deployment_is_for_people_who_consent_and_acts_for_nobody_else() {
    let file =
        std::env::temp_dir().join(format!("oauth-apps-{}.json", emailclient_core::platform::id::new_uuid()));
    let id = "0190a000-0000-7000-8000-000000000001";
    let shared = json!([{"id": id, "provider": "microsoft", "name": "Everybody's", "client_id": "c", "client_secret": "s-canary",
        "tenant": "contoso.example"}]);
    std::fs::write(&file, shared.to_string()).unwrap();
    let settings = [("PUBLIC_URL", provider::PUBLIC_URL), ("OAUTH_APPS_FILE", file.to_str().unwrap())];
    let app = App::start_with(&settings).await;
    let tenant = app.tenant().await;
    let all = app.get(&tenant, "/api/oauth/apps").await;
    assert!(!all.text().contains("canary"));
    assert_eq!(
        (&all.json()["data"][0]["id"], &all.json()["data"][0]["deployment"]),
        (&json!(id), &json!(true))
    );
    for grant in ["client", "service"] {
        let body =
            json!({"email": "ceo@contoso.example", "auth": {"type": "oauth2", "app_id": id, "grant": grant}});
        let problem =
            app.post(&tenant, "/api/accounts?verify=false", &body).await.refused(422, "validation-error");
        assert_eq!(
            (&problem["errors"][0]["pointer"], &problem["errors"][0]["code"]),
            (&json!("/auth/app_id"), &json!("not-allowed"))
        );
    }
    let path = format!("/api/oauth/apps/{id}");
    app.patch(&tenant, &path, &json!({"name": "Mine"})).await.refused(403, "insufficient-scope");
    app.delete(&tenant, &path).await.refused(403, "insufficient-scope");
    app.patch(&tenant, "/api/tenant", &json!({"redirect_urls": [HOME]})).await.expect(200);
    let url = sent_to(&app, &tenant, &json!({"app_id": id})).await;
    assert!(
        url.starts_with("https://login.microsoftonline.com/contoso.example/oauth2/v2.0/authorize?"),
        "{url}"
    );
    app.finish().await;
    std::fs::remove_file(file).unwrap();
}
