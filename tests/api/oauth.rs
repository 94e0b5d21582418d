//! OAuth2 over the API: apps, sending people away and taking them back.

mod alone;

use devstack::oauth::{Endpoint, Fault, FaultAt, IdToken, consent, deny};
use serde_json::{Value, json};
use tests::app::{App, Tenant};
use tests::mail;
use tests::provider::{self, HOME, app_settings, authority, back, named, sent_to, value};

async fn accounts(app: &App, tenant: &Tenant) -> usize {
    app.get(tenant, "/api/accounts").await.expect(200)["data"].as_array().unwrap().len()
}

async fn grants(app: &App) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM oauth_grants")
        .fetch_one(&mut app.database.superuser().await)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_person_connects_a_mailbox_by_consent_reads_and_sends() {
    let mut app = provider::start().await;
    let (tenant, authority) = (app.tenant().await, authority(&app));
    let app_id = named(&app, &tenant, &authority).await;
    let (user, id) = provider::connect(&app, &tenant, &app_id).await;
    let account = app.get(&tenant, &format!("/api/accounts/{id}")).await.expect(200);
    assert_eq!((account["email"].as_str(), account["has_password"].as_bool()), (Some(&*user), Some(false)));
    let auth = &account["auth"];
    assert_eq!(
        (&auth["type"], &auth["app_id"], &auth["provider"]),
        (&json!("oauth2"), &json!(app_id), &json!("custom"))
    );
    assert!(
        auth["expires_at"].is_string() && auth["scopes"].as_array().unwrap().contains(&json!("mail")),
        "{auth}"
    );
    mail::deliver(&app, &user, &mail::message("By token", "by-token@example.test", "body"));
    app.add_worker();
    mail::synchronise(&app, &tenant, &id).await;
    let page = app.get(&tenant, &format!("/api/accounts/{id}/messages")).await.expect(200);
    assert_eq!(page["data"][0]["subject"], "By token");
    let other = mail::new_mailbox(&app);
    let draft = json!({"account_id": id, "to": [other], "subject": "Sent by token", "text": "x"});
    let draft = app.post(&tenant, "/api/compose", &draft).await.expect(201);
    let draft = draft["id"].as_str().unwrap();
    let sent = app.post(&tenant, &format!("/api/compose/{draft}/send"), &json!({})).await.expect(202);
    let submission = sent["id"].as_str().unwrap().to_owned();
    tests::eventually::eventually("it is sent", std::time::Duration::from_secs(30), async || {
        let seen = app.get(&tenant, &format!("/api/submissions/{submission}")).await.expect(200);
        (seen["state"] == "sent").then_some(())
    })
    .await;
    let trail = app.get(&tenant, "/api/audit?action=account.create").await.expect(200);
    assert_eq!((&trail["data"][0]["target"], trail["data"].as_array().unwrap().len()), (&json!(id), 1));
    // A diagnosis logs in with tokens as well.
    let walked = app.post(&tenant, &format!("/api/accounts/{id}/diagnose"), &json!({})).await.expect(200);
    assert_eq!((&walked["imap"]["ok"], &walked["smtp"]["ok"]), (&json!(true), &json!(true)), "{walked}");
    app.finish().await;
}

#[tokio::test]
async fn secrets_of_an_app_never_come_back_and_it_stays_while_accounts_use_it() {
    let app = provider::start().await;
    let (tenant, other, authority) = (app.tenant().await, app.tenant().await, authority(&app));
    let made = app.post(&tenant, "/api/oauth/apps", &app_settings(&app, &authority)).await;
    assert!(!made.text().contains("canary"));
    let made = made.expect(201);
    let path = format!("/api/oauth/apps/{}", made["id"].as_str().unwrap());
    assert_eq!(made["redirect_uri"], "https://us.example/oauth/callback");
    assert_eq!((&made["has_client_secret"], &made["has_private_key"]), (&json!(true), &json!(false)));
    app.get(&other, &path).await.refused(404, "not-found");
    app.patch(&other, &path, &json!({"name": "x"})).await.refused(404, "not-found");
    app.delete(&other, &path).await.refused(404, "not-found");
    let changed = app.patch(&tenant, &path, &json!({"name": "Renamed", "client_secret": "new-canary"})).await;
    assert!(!changed.text().contains("canary"));
    assert_eq!(changed.expect(200)["name"], "Renamed");
    // To other addresses goes only the secret of who knows it, and no grant.
    let mut elsewhere = app_settings(&app, &authority)["endpoints"].clone();
    elsewhere["token_endpoint"] = json!(format!("{}/elsewhere", authority.base_url()));
    let problem =
        app.patch(&tenant, &path, &json!({"endpoints": elsewhere})).await.refused(422, "validation-error");
    assert_eq!(problem["errors"][0]["pointer"], "/client_secret");
    app.patch(&tenant, &path, &json!({"client_secret": "app-secret-canary"})).await.expect(200);
    app.patch(&tenant, "/api/tenant", &json!({"redirect_urls": [HOME]})).await.expect(200);
    let (_, id) = provider::connect(&app, &tenant, made["id"].as_str().unwrap()).await;
    app.delete(&tenant, &path).await.refused(409, "oauth-app-in-use");
    let moved = json!({"endpoints": elsewhere, "client_secret": "app-secret-canary"});
    app.patch(&tenant, &path, &moved).await.refused(409, "oauth-app-in-use");
    app.delete(&tenant, &format!("/api/accounts/{id}")).await.expect(204);
    assert_eq!(grants(&app).await, 0, "tokens go with their account");
    app.delete(&tenant, &path).await.expect(204);
    app.get(&tenant, &path).await.refused(404, "not-found");
    app.finish().await;
}

#[tokio::test]
async fn an_app_that_cannot_be_used_is_refused_with_pointers() {
    let app = provider::start().await;
    let (tenant, authority) = (app.tenant().await, authority(&app));
    let good = app_settings(&app, &authority);
    let with = |pointer: &str, value: Value| {
        let mut body = good.clone();
        let (at, field) = pointer.rsplit_once('/').unwrap();
        body.pointer_mut(at).unwrap().as_object_mut().unwrap().insert(field.to_owned(), value);
        body
    };
    for (pointer, value, code) in [
        ("/client_id", json!(""), "invalid"),
        ("/client_id", json!("a\nb"), "invalid"),
        ("/scopes", json!([]), "missing"),
        ("/scopes/0", json!("two words"), "invalid"),
        ("/endpoints", Value::Null, "missing"),
        ("/endpoints/token_endpoint", json!("http://1.1.1.1/token"), "https-required"),
        ("/endpoints/token_endpoint", json!("https://169.254.169.254/token"), "host-not-allowed"),
        ("/endpoints/token_endpoint", json!("https://192.168.0.1:22/token"), "host-not-allowed"),
        ("/endpoints/jwks_uri", json!("ftp://1.1.1.1/"), "https-required"),
        ("/endpoints/userinfo_endpoint", json!("https://me:pw@1.1.1.1/"), "credentials"),
        ("/endpoints/imap", json!({"host": "10.0.0.1", "port": 993, "security": "tls"}), "host-not-allowed"),
        ("/endpoints/imap", json!({"host": "localhost", "port": 993, "security": "ssl"}), "unknown"),
        ("/endpoints/token_endpoint_auth_method", json!("private_key_jwt"), "unknown"),
        ("/private_key", json!("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"), "invalid"),
        ("/tenant", json!("contoso.example"), "not-allowed"),
        ("/name", json!("x".repeat(201)), "too-long"),
    ] {
        let body = match pointer {
            "/scopes/0" => with("/scopes", json!([value])),
            _ => with(pointer, value),
        };
        let problem = app.post(&tenant, "/api/oauth/apps", &body).await.refused(422, "validation-error");
        let found = problem["errors"].as_array().unwrap().iter();
        let found: Vec<_> =
            found.map(|e| (e["pointer"].as_str().unwrap(), e["code"].as_str().unwrap())).collect();
        assert!(
            found.iter().any(|(p, c)| p.starts_with(pointer) && *c == code),
            "{pointer} {code}: {found:?}"
        );
    }
    let google = json!({"provider": "google", "client_id": "c", "endpoints": good["endpoints"]});
    app.post(&tenant, "/api/oauth/apps", &google).await.refused(422, "validation-error");
    let microsoft = json!({"provider": "microsoft", "client_id": "c", "tenant": "../../x"});
    app.post(&tenant, "/api/oauth/apps", &microsoft).await.refused(422, "validation-error");
    let unknown = json!({"provider": "aol", "client_id": "c"});
    assert_eq!(app.post(&tenant, "/api/oauth/apps", &unknown).await.status, 422);
    for (provider, host) in [("google", "imap.gmail.com"), ("microsoft", "outlook.office365.com")] {
        let made =
            app.post(&tenant, "/api/oauth/apps", &json!({"provider": provider, "client_id": "c"})).await;
        assert_eq!(made.expect(201)["imap"]["host"], host);
    }
    app.finish().await;
}

#[tokio::test]
async fn people_are_sent_to_registered_addresses_only_and_the_request_is_whole() {
    let app = provider::start().await;
    let (tenant, other, authority) = (app.tenant().await, app.tenant().await, authority(&app));
    let (app_id, foreign) = (named(&app, &tenant, &authority).await, named(&app, &other, &authority).await);
    for bad in [
        "https://app.example/connected",
        "https://app.example/connected?from=mail&x=1",
        "https://app.example.evil.example/connected?from=mail",
        "HTTPS://APP.EXAMPLE/connected?from=mail",
        "",
    ] {
        let body = json!({"app_id": app_id, "redirect_url": bad});
        let problem = app.post(&tenant, "/api/oauth/authorize", &body).await.refused(422, "validation-error");
        assert_eq!(
            (&problem["errors"][0]["pointer"], &problem["errors"][0]["code"]),
            (&json!("/redirect_url"), &json!("not-registered"))
        );
    }
    let body = json!({"app_id": foreign, "redirect_url": HOME});
    let problem = app.post(&tenant, "/api/oauth/authorize", &body).await.refused(422, "validation-error");
    assert_eq!(problem["errors"][0]["pointer"], "/app_id");
    for bad in ["http://app.example/", "ftp://x/", "https://a.example/#x", "https://me@a.example/", "nothing"]
    {
        let answer = app.patch(&tenant, "/api/tenant", &json!({"redirect_urls": [bad]})).await;
        assert_eq!(
            answer.refused(422, "validation-error")["errors"][0]["pointer"],
            "/redirect_urls/0",
            "{bad}"
        );
    }
    app.patch(&tenant, "/api/tenant", &json!({"redirect_urls": ["http://127.0.0.1:3000/x", HOME]}))
        .await
        .expect(200);
    let url = sent_to(&app, &tenant, &json!({"app_id": app_id, "email": "ann@lab.test"})).await;
    let url = url::Url::parse(&url).unwrap();
    let query: Vec<(String, String)> =
        url.query_pairs().map(|(k, v)| (k.into_owned(), v.into_owned())).collect();
    for (name, wanted) in [
        ("response_type", "code"),
        ("client_id", "our-app"),
        ("redirect_uri", "https://us.example/oauth/callback"),
        ("code_challenge_method", "S256"),
        ("login_hint", "ann@lab.test"),
    ] {
        assert_eq!(value(&query, name), Some(wanted));
    }
    assert!(["state", "nonce", "code_challenge"].iter().all(|name| value(&query, name).unwrap().len() >= 43));
    app.finish().await;
}

#[tokio::test]
async fn a_way_back_that_is_not_ours_is_a_page_and_creates_nothing() {
    let app = provider::start().await;
    let (tenant, authority) = (app.tenant().await, authority(&app));
    let app_id = named(&app, &tenant, &authority).await;
    let user = mail::new_mailbox(&app);
    let url = sent_to(&app, &tenant, &json!({"app_id": app_id})).await;
    let good = consent(&url, &user).await.unwrap();
    let state = value(
        &good.query_pairs().map(|(k, v)| (k.into_owned(), v.into_owned())).collect::<Vec<_>>(),
        "state",
    )
    .unwrap()
    .to_owned();
    let other = if state.starts_with('A') { 'B' } else { 'A' };
    let forged = [
        "https://us.example/oauth/callback".to_owned(),
        "https://us.example/oauth/callback?code=x&state=".to_owned(),
        "https://us.example/oauth/callback?code=x&state=AAAA".to_owned(),
        format!("https://us.example/oauth/callback?code=x&state={other}{}", &state[1..]),
        format!("https://us.example/oauth/callback?code=x&state={}", state.to_lowercase()),
    ];
    for url in &forged {
        let answer = tests::app::send(app.http.get(url.replacen(provider::PUBLIC_URL, &app.base, 1))).await;
        assert_eq!(
            (answer.status, answer.header("content-type").as_str()),
            (400, "text/html; charset=utf-8"),
            "{url}: {}",
            answer.text()
        );
        assert!(answer.header("content-security-policy").contains("frame-ancestors 'none'"));
        assert_eq!(answer.header("cache-control"), "no-store");
    }
    // Providers add what they like.
    let (status, location, query) = back(&app, &format!("{good}&scope=a+b&authuser=0&session_state=x")).await;
    assert_eq!((status, value(&query, "state")), (303, Some("our state")), "{location}");
    assert!(location.starts_with("https://app.example/connected?from=mail&account_id="));
    // Once and not again.
    let (status, location, _) = back(&app, good.as_str()).await;
    assert_eq!((status, location.as_str()), (400, ""));
    assert_eq!(accounts(&app, &tenant).await, 1);
    app.finish().await;
}

/// Someone consents, and this goes wrong on the way back: what the person is sent on with.
async fn fails(app: &App, tenant: &Tenant, app_id: &str, user: &str) -> String {
    let url = sent_to(app, tenant, &json!({"app_id": app_id})).await;
    let (status, location, query) = back(app, consent(&url, user).await.unwrap().as_str()).await;
    assert_eq!((status, value(&query, "state")), (303, Some("our state")), "{location}");
    assert!(!value(&query, "error_description").unwrap().is_empty(), "{location}");
    assert!(!location.contains("canary"), "{location}");
    value(&query, "error").unwrap_or_else(|| panic!("{location}")).to_owned()
}

#[tokio::test]
async fn an_authorization_server_that_answers_badly_creates_nothing_and_says_why() {
    let app = provider::start().await;
    let (tenant, authority) = (app.tenant().await, authority(&app));
    let app_id = named(&app, &tenant, &authority).await;
    let user = mail::new_mailbox(&app);
    let trap = authority.url(Endpoint::Trap);
    let faults = [
        (Endpoint::Token, Fault::server_error(), "provider-unavailable"),
        (Endpoint::Token, Fault::html(), "provider-unavailable"),
        (Endpoint::Token, Fault::not_an_object(), "provider-unavailable"),
        (Endpoint::Token, Fault::empty(), "provider-unavailable"),
        (Endpoint::Token, Fault::Closed, "provider-unavailable"),
        (Endpoint::Token, Fault::Gigabyte, "provider-unavailable"),
        (Endpoint::Token, Fault::too_many_requests("7"), "provider-unavailable"),
        (Endpoint::Token, Fault::redirect(&trap), "app-refused"),
        (Endpoint::Token, Fault::json(401, r#"{"error":"invalid_client"}"#), "app-refused"),
        (Endpoint::Keys, Fault::html(), "provider-unavailable"),
        (Endpoint::Keys, Fault::json(200, r#"{"keys":[{"kty":"?"}]}"#), "identity-untrusted"),
        (Endpoint::Keys, Fault::json(200, r#"{"keys":7}"#), "identity-untrusted"),
    ];
    for (endpoint, fault, code) in faults {
        let what = format!("{endpoint:?} {fault:?}");
        authority.fail(FaultAt::new(endpoint, fault));
        assert_eq!(fails(&app, &tenant, &app_id, &user).await, code, "{what}");
        authority.heal();
    }
    assert_eq!(authority.count(Endpoint::Trap), 0, "a redirect was followed");
    // Some megabytes of it are in buffers of the system.
    assert!(authority.poured() < 32 << 20, "{} bytes were read", authority.poured());
    let identities = [
        (IdToken::OtherAudience, "identity-untrusted"),
        (IdToken::OtherIssuer, "identity-untrusted"),
        (IdToken::OtherKey, "identity-untrusted"),
        (IdToken::AlgNone, "identity-untrusted"),
        (IdToken::Secret, "identity-untrusted"),
        (IdToken::Expired, "identity-untrusted"),
        (IdToken::OtherNonce, "identity-untrusted"),
        (IdToken::WithoutNonce, "identity-untrusted"),
        (IdToken::Garbage, "identity-untrusted"),
    ];
    for (wrong, code) in identities {
        authority.with(|s| s.id_token = wrong);
        assert_eq!(fails(&app, &tenant, &app_id, &user).await, code, "{wrong:?}");
    }
    authority.with(|s| s.id_token = IdToken::Honest);
    // Whoever consents, the address is the one that the provider tells: no mail server lets that one in with this token.
    authority.with(|s| {
        s.granted_scopes = Some(vec!["openid".to_owned(), "email".to_owned(), "offline_access".to_owned()])
    });
    assert_eq!(fails(&app, &tenant, &app_id, &user).await, "upstream-auth-failed");
    authority.with(|s| s.granted_scopes = None);
    let url = sent_to(&app, &tenant, &json!({"app_id": app_id})).await;
    let (_, _, query) = back(&app, deny(&url).await.unwrap().as_str()).await;
    assert_eq!((value(&query, "error"), value(&query, "account_id")), (Some("access-denied"), None));
    assert_eq!((accounts(&app, &tenant).await, grants(&app).await), (0, 0));
    // Nobody tells the address in the ID token: userinfo does.
    authority.with(|s| s.id_token = IdToken::WithoutEmail);
    let (_, id) = provider::connect(&app, &tenant, &app_id).await;
    app.get(&tenant, &format!("/api/accounts/{id}")).await.expect(200);
    app.finish().await;
}

#[tokio::test]
async fn a_code_is_good_once_and_only_with_the_verifier_of_its_flow() {
    let app = provider::start().await;
    let (tenant, authority) = (app.tenant().await, authority(&app));
    let app_id = named(&app, &tenant, &authority).await;
    let (ann, eve) = (mail::new_mailbox(&app), mail::new_mailbox(&app));
    let pair =
        |url: &url::Url, name: &str| url.query_pairs().find(|(key, _)| key == name).unwrap().1.into_owned();
    let hers = consent(&sent_to(&app, &tenant, &json!({"app_id": app_id})).await, &ann).await.unwrap();
    let evil = consent(&sent_to(&app, &tenant, &json!({"app_id": app_id})).await, &eve).await.unwrap();
    // Eve's code, put into Ann's way back.
    let mixed = format!(
        "{}/oauth/callback?code={}&state={}",
        provider::PUBLIC_URL,
        pair(&evil, "code"),
        pair(&hers, "state")
    );
    let (_, _, query) = back(&app, &mixed).await;
    assert_eq!(
        (value(&query, "error"), value(&query, "account_id")),
        (Some("code-refused"), None),
        "{query:?}"
    );
    let without = evil.as_str().split("&iss=").next().unwrap().to_owned();
    let (_, _, query) = back(&app, &format!("{without}&iss=https%3A%2F%2Fanother.example")).await;
    assert_eq!(value(&query, "error"), Some("issuer-mismatch"));
    assert_eq!(accounts(&app, &tenant).await, 0);
    app.finish().await;
}

#[tokio::test]
async fn an_account_is_renewed_by_its_own_mailbox_and_no_other() {
    let app = provider::start().await;
    let (tenant, authority) = (app.tenant().await, authority(&app));
    let app_id = named(&app, &tenant, &authority).await;
    let (user, id) = provider::connect(&app, &tenant, &app_id).await;
    let other = mail::new_mailbox(&app);
    let renew = json!({"app_id": app_id, "account_id": id});
    let (_, _, query) =
        back(&app, consent(&sent_to(&app, &tenant, &renew).await, &other).await.unwrap().as_str()).await;
    assert_eq!(value(&query, "error"), Some("identity-mismatch"));
    assert!(value(&query, "error_description").unwrap().contains(&other));
    let before = app.get(&tenant, &format!("/api/accounts/{id}")).await.expect(200);
    let (_, _, query) =
        back(&app, consent(&sent_to(&app, &tenant, &renew).await, &user).await.unwrap().as_str()).await;
    assert_eq!(value(&query, "account_id"), Some(id.as_str()));
    let after = app.get(&tenant, &format!("/api/accounts/{id}")).await.expect(200);
    assert_eq!(
        (&before["id"], &before["name"], &before["email"]),
        (&after["id"], &after["name"], &after["email"])
    );
    // Of an address that is connected already it is renewed, too; one with a password goes over to tokens.
    let (_, _, query) = back(
        &app,
        consent(&sent_to(&app, &tenant, &json!({"app_id": app_id})).await, &user).await.unwrap().as_str(),
    )
    .await;
    assert_eq!(value(&query, "account_id"), Some(id.as_str()));
    let by_password = mail::connect(&app, &tenant, &other).await;
    let url = sent_to(&app, &tenant, &json!({"app_id": app_id, "account_id": by_password})).await;
    let (_, _, query) = back(&app, consent(&url, &other).await.unwrap().as_str()).await;
    assert_eq!(value(&query, "account_id"), Some(by_password.as_str()));
    let account = app.get(&tenant, &format!("/api/accounts/{by_password}")).await.expect(200);
    assert_eq!((&account["auth"]["type"], &account["has_password"]), (&json!("oauth2"), &json!(false)));
    assert_eq!(grants(&app).await, 2, "grants that nobody uses are forgotten");
    // And back, when both passwords are given.
    let settings = mail::settings(&app, &other);
    let passwords = json!({"imap": settings["imap"], "smtp": settings["smtp"]});
    let path = format!("/api/accounts/{by_password}");
    let half = json!({"imap": settings["imap"]});
    app.patch(&tenant, &path, &half).await.refused(422, "validation-error");
    let account = app.patch(&tenant, &path, &passwords).await.expect(200);
    assert_eq!((&account["auth"]["type"], grants(&app).await), (&json!("password"), 1));
    // Tokens are shown to no other server.
    let elsewhere = json!({"imap": {"host": "127.0.0.1", "port": app.stack.imaps_port}});
    let problem =
        app.patch(&tenant, &format!("/api/accounts/{id}"), &elsewhere).await.refused(422, "validation-error");
    assert_eq!(
        (&problem["errors"][0]["pointer"], &problem["errors"][0]["code"]),
        (&json!("/imap/host"), &json!("not-allowed"))
    );
    app.finish().await;
}
