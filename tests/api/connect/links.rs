//! Links, forms and who may use them.

use emailclient_core::access::principal::Role;
use serde_json::{Value, json};
use tests::app::{App, Tenant, send};
use tests::mail;
use tests::provider::{HOME, PUBLIC_URL};
use tests::visitor::{self, Visitor, link, shows};

use super::accounts;

async fn begin(app: &App, tenant: &Tenant, body: &Value) -> tests::app::Answer {
    app.post(tenant, "/api/connect/sessions", body).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_made_for_registered_addresses_and_accounts_of_the_tenant() {
    let (app, _names) = visitor::start().await;
    let tenant = visitor::registered(&app).await;
    let other = visitor::registered(&app).await;
    let user = mail::new_mailbox(&app);
    let theirs = mail::connect(&app, &other, &user).await;
    let made = begin(&app, &tenant, &json!({"redirect_url": HOME})).await.expect(201);
    let url = made["url"].as_str().unwrap();
    assert!(url.starts_with(&format!("{PUBLIC_URL}/connect/")), "{url}");
    let until: chrono::DateTime<chrono::Utc> = made["expires_at"].as_str().unwrap().parse().unwrap();
    let now: chrono::DateTime<chrono::Utc> =
        sqlx::query_scalar("SELECT now()").fetch_one(&app.behind).await.unwrap();
    assert!((1700..=1800).contains(&(until - now).num_seconds()), "{made}");
    let long = "x".repeat(2000);
    for (body, pointer, code) in [
        (json!({"redirect_url": format!("{HOME}&more=1")}), "/redirect_url", "not-registered"),
        (json!({"redirect_url": "https://app.example/connected"}), "/redirect_url", "not-registered"),
        (json!({"redirect_url": "https://evil.example/"}), "/redirect_url", "not-registered"),
        (json!({"redirect_url": "javascript:alert(1)"}), "/redirect_url", "not-registered"),
        (json!({}), "/redirect_url", "missing"),
        (json!({"redirect_url": HOME, "account_id": theirs}), "/account_id", "unknown"),
        (json!({"redirect_url": HOME, "state": long}), "/state", "too-long"),
        (json!({"redirect_url": HOME, "email": long}), "/email", "too-long"),
        (json!({"redirect_url": HOME, "email": "a\r\nb@c.test"}), "/email", "invalid"),
        (json!({"redirect_url": HOME, "locale": long}), "/locale", "too-long"),
        (json!({"redirect_url": HOME, "locale": "de\"><script>"}), "/locale", "invalid"),
        (json!({"redirect_url": HOME, "more": 1}), "/more", "unknown-field"),
    ] {
        let refused = begin(&app, &tenant, &body).await;
        let problem = refused.json();
        assert_eq!(refused.status, 422, "{body}: {problem}");
        let errors = problem["errors"].as_array().unwrap();
        let found =
            errors.iter().any(|e| e["pointer"] == pointer && (e["code"] == code || code == "unknown-field"));
        assert!(found, "{body}: {problem}");
    }
    let viewer = app.member(&tenant, Role::Member).await;
    begin(&app, &viewer, &json!({"redirect_url": HOME})).await.refused(403, "insufficient-scope");
    app.finish().await;

    let app = App::start().await;
    let tenant = visitor::registered(&app).await;
    begin(&app, &tenant, &json!({"redirect_url": HOME})).await.refused(409, "not-configured");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_is_none_or_too_old_is_a_page_that_says_so() {
    let (app, _names) = visitor::start().await;
    let tenant = visitor::registered(&app).await;
    let good = link(&app, &tenant, &json!({})).await;
    let token = good.rsplit('/').next().unwrap();
    let other = if token.starts_with('A') { 'B' } else { 'A' };
    let forged = [
        format!("{other}{}", &token[1..]),
        token.to_lowercase(),
        token[..token.len() - 1].to_owned(),
        format!("{token}A"),
        "x".to_owned(),
        "%00".to_owned(),
        "%ff".to_owned(),
        "..%2f..%2fapi".to_owned(),
        "%3Cscript%3Ealert(1)%3C%2Fscript%3E".to_owned(),
    ];
    for wrong in forged {
        for path in [format!("/connect/{wrong}"), format!("/connect/{wrong}/consent/x")] {
            let page = send(app.http.get(format!("{}{path}", app.base))).await;
            shows(&page, 404, "This link is not valid");
        }
        let fields = [("form", "x"), ("do", "cancel")];
        let page = send(app.http.post(format!("{}/connect/{wrong}", app.base)).form(&fields)).await;
        shows(&page, 404, "This link is not valid");
    }
    let german = app.http.get(format!("{}/connect/x", app.base)).header("accept-language", "de-DE, en;q=0.5");
    let page = send(german).await;
    shows(&page, 404, "Dieser Link ist nicht gültig");
    assert!(page.text().contains("<html lang=\"de\">"));
    assert_eq!(page.header("content-language"), "de");
    // Half an hour later.
    let person = Visitor::open(&app, &good).await;
    person.shows(200, "Connect your mailbox");
    let form = person.form();
    sqlx::query("UPDATE connect_sessions SET expires_at = now() - interval '1 second'")
        .execute(&mut app.database.superuser().await)
        .await
        .unwrap();
    let late = Visitor::open(&app, &good).await;
    late.shows(410, "This link has expired");
    assert_eq!(late.link("Back to A tenant"), format!("{HOME}&error=expired&state=our+state"));
    let fields = [("form", form.as_str()), ("do", "address"), ("email", "a@lab.test")];
    shows(&person.post(&fields).await, 410, "This link has expired");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_form_that_is_not_of_the_page_does_nothing() {
    let (app, _names) = visitor::start().await;
    let tenant = visitor::registered(&app).await;
    let user = visitor::new_mailbox(&app);
    let mut person = Visitor::sent(&app, &tenant, &json!({})).await;
    person.submit("address", &[("email", &user)]).await;
    let foreign = Visitor::sent(&app, &visitor::registered(&app).await, &json!({})).await.form();
    let (own, url) = (person.form(), format!("{}{}", app.base, person.path));
    let fields = |form: &str| {
        [
            ("form", form.to_owned()),
            ("do", "password".to_owned()),
            ("email", user.clone()),
            ("password", mail::PASSWORD.to_owned()),
        ]
    };
    for form in ["", "x", &foreign, &own.to_uppercase(), &own[1..]] {
        shows(&send(app.http.post(&url).form(&fields(form))).await, 403, "This form cannot be used");
    }
    let without = [("do", "password"), ("email", user.as_str()), ("password", mail::PASSWORD)];
    shows(&person.post(&without).await, 403, "This form cannot be used");
    // Another site sent it.
    let elsewhere = app.http.post(&url).header("sec-fetch-site", "cross-site").form(&fields(&own));
    shows(&send(elsewhere).await, 403, "This form cannot be used");
    for wanted in ["", "delete"] {
        let odd = [("form", own.as_str()), ("do", wanted)];
        shows(&person.post(&odd).await, 403, "This form cannot be used");
    }
    let json = send(app.http.post(&url).json(&json!({"form": own}))).await;
    shows(&json, 415, "This form cannot be used");
    let large = [("form", own.as_str()), ("do", "password"), ("password", &"x".repeat(100_000))];
    shows(&person.post(&large).await, 413, "This form cannot be used");
    let kind = "application/x-www-form-urlencoded";
    for body in ["form=%", "form=%zz&do=cancel", "form=%ff"] {
        let broken = send(app.http.post(&url).header("content-type", kind).body(body)).await;
        shows(&broken, 400, "This form cannot be used");
    }
    assert!(accounts(&app, &tenant).await.is_empty());
    assert!(person.password(&user, mail::PASSWORD).await.is_some());
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_is_worth_no_more_than_who_made_it() {
    let (app, _names) = visitor::start().await;
    let tenant = visitor::registered(&app).await;
    let admin = app.member(&tenant, Role::Admin).await;
    let (by_admin, by_owner) = (link(&app, &admin, &json!({})).await, link(&app, &tenant, &json!({})).await);
    Visitor::open(&app, &by_admin).await.shows(200, "Connect your mailbox");
    let mut conn = app.database.superuser().await;
    sqlx::query("UPDATE users SET role = 'member' WHERE email = $1")
        .bind(&admin.email)
        .execute(&mut conn)
        .await
        .unwrap();
    Visitor::open(&app, &by_admin).await.shows(403, "This link is not valid any more");
    Visitor::open(&app, &by_owner).await.shows(200, "Connect your mailbox");
    // The way back is registered no more.
    app.patch(&tenant, "/api/tenant", &json!({"redirect_urls": []})).await.expect(200);
    let page = Visitor::open(&app, &by_owner).await;
    page.shows(410, "The address to go back to is not registered any more");
    assert!(!page.page.text().contains("app.example"), "{}", page.page.text());
    app.patch(&tenant, "/api/tenant", &json!({"redirect_urls": [HOME]})).await.expect(200);
    // An account that goes takes its links with it.
    let user = mail::new_mailbox(&app);
    let id = mail::connect(&app, &tenant, &user).await;
    let renewal = link(&app, &tenant, &json!({"account_id": id})).await;
    Visitor::open(&app, &renewal).await.shows(200, "Reconnect your mailbox");
    app.delete(&tenant, &format!("/api/accounts/{id}")).await.expect(204);
    Visitor::open(&app, &renewal).await.shows(404, "This link is not valid");
    app.emailctl(&["tenant", "suspend", &tenant.slug]).await;
    tests::eventually::eventually(
        "the tenant is suspended",
        std::time::Duration::from_secs(20),
        async || {
            let page = Visitor::open(&app, &by_owner).await;
            (page.page.status == 403).then(|| page.shows(403, "Mailboxes cannot be connected at present"))
        },
    )
    .await;
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_table_holds_what_stands_in_a_link() {
    let (app, _names) = visitor::start().await;
    let tenant = visitor::registered(&app).await;
    let request = app
        .request(&tenant, "POST", "/api/connect/sessions")
        .header("idempotency-key", "one")
        .json(&json!({"redirect_url": HOME}));
    let made = send(request.try_clone().unwrap()).await.expect(201);
    let url = made["url"].as_str().unwrap().to_owned();
    let again = send(request).await;
    assert_eq!((again.header("idempotency-replayed").as_str(), &again.json()["url"]), ("true", &Value::Null));
    let user = visitor::new_mailbox(&app);
    let mut person = Visitor::open(&app, &url).await;
    person.submit("address", &[("email", &user)]).await;
    assert_eq!(person.password(&user, "wrong-canary").await, None);
    let token = url.rsplit('/').next().unwrap();
    let mut conn = app.database.superuser().await;
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT c.relname::text FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'",
    )
    .fetch_all(&mut conn)
    .await
    .unwrap();
    assert!(tables.iter().any(|table| table == "connect_sessions"));
    for table in tables {
        let sql =
            sqlx::AssertSqlSafe(format!("SELECT coalesce(string_agg(t::text, ' '), '') FROM {table} t"));
        let all: String = sqlx::query_scalar(sql).fetch_one(&mut conn).await.unwrap();
        let hidden = |secret: &str| !all.contains(secret) && !all.contains(&hex::encode(secret));
        assert!(hidden(token) && hidden("wrong-canary"), "{table}");
    }
    drop(conn);
    app.finish().await;
}
