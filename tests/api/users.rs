//! What an operator does with a user holds within five seconds, for its access tokens, too.

use std::time::Duration;

use serde_json::{Value, json};
use tests::app::{Answer, App, PASSWORD, Tenant, send};
use tests::eventually::eventually;

const SOON: Duration = Duration::from_secs(5);

async fn login(app: &App, tenant: &Tenant, email: &str, password: &str) -> Answer {
    let request = app.http.post(format!("{}/auth/login", app.base)).header("X-Tenant-ID", &tenant.slug);
    send(request.json(&json!({"email": email, "password": password}))).await
}

fn as_user(tenant: &Tenant, login: &Value) -> Tenant {
    let text = |name: &str| login[name].as_str().unwrap().to_owned();
    Tenant { token: text("access_token"), refresh_token: text("refresh_token"), ..tenant.clone() }
}

async fn refresh(app: &App, who: &Tenant) -> Answer {
    let body = json!({"refresh_token": who.refresh_token});
    send(app.http.post(format!("{}/auth/refresh", app.base)).json(&body)).await
}

async fn is_out(app: &App, who: &Tenant) {
    eventually("the access token is refused", SOON, async || {
        (app.get(who, "/auth/me").await.status == 401).then_some(())
    })
    .await;
    app.get(who, "/api/accounts").await.refused(401, "invalid-token");
    refresh(app, who).await.refused(401, "invalid-token");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_that_is_disabled_is_out_and_can_come_back_when_enabled() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let email = format!("member@{}.test", tenant.slug);
    app.user(tenant.id, &email).await;
    let who = ["--tenant", tenant.slug.as_str(), "--email", email.as_str()];
    let user = as_user(&tenant, &login(&app, &tenant, &email, PASSWORD).await.expect(200));
    app.get(&user, "/auth/me").await.expect(200);

    app.emailctl(&[&["user", "disable"], &who[..]].concat()).await;
    is_out(&app, &user).await;
    login(&app, &tenant, &email, PASSWORD).await.refused(401, "invalid-credentials");
    app.get(&tenant, "/auth/me").await.expect(200);
    app.emailctl(&[&["user", "enable"], &who[..]].concat()).await;
    app.get(&user, "/auth/me").await.refused(401, "invalid-token");
    let user = as_user(&tenant, &login(&app, &tenant, &email, PASSWORD).await.expect(200));
    app.get(&user, "/auth/me").await.expect(200);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_password_ends_the_sessions_and_is_the_only_one_from_then_on() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let who = ["--tenant", tenant.slug.as_str(), "--email", tenant.email.as_str()];
    app.get(&tenant, "/auth/me").await.expect(200);
    app.emailctl(&[&["user", "password"], &who[..], &["--password", "quite another one"]].concat()).await;
    is_out(&app, &tenant).await;
    login(&app, &tenant, &tenant.email, PASSWORD).await.refused(401, "invalid-credentials");
    login(&app, &tenant, &tenant.email, "quite another one").await.expect(200);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_role_holds_for_the_tokens_there_are() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    for role in ["viewer", "member", "admin", "owner"] {
        let change = ["user", "role", "--tenant", &tenant.slug, "--email", &tenant.email, "--role", role];
        app.emailctl(&change).await;
        eventually("the role is told", SOON, async || {
            (app.get(&tenant, "/auth/me").await.expect(200)["user"]["role"] == role).then_some(())
        })
        .await;
        let again = login(&app, &tenant, &tenant.email, PASSWORD).await.expect(200);
        assert_eq!(again["user"]["role"], role);
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_session_or_all_of_a_user_can_be_ended() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let who = ["--tenant", tenant.slug.as_str(), "--email", tenant.email.as_str()];
    let sessions =
        async || as_user(&tenant, &login(&app, &tenant, &tenant.email, PASSWORD).await.expect(200));
    let (first, second) = (sessions().await, sessions().await);
    for user in [&tenant, &first, &second] {
        app.get(user, "/auth/me").await.expect(200);
    }
    let mut conn = app.database.superuser().await;
    let newest: String = sqlx::query_scalar("SELECT id::text FROM sessions ORDER BY created_at DESC LIMIT 1")
        .fetch_one(&mut conn)
        .await
        .unwrap();
    app.emailctl(&[&["user", "sessions", "end"], &who[..], &["--session", &newest]].concat()).await;
    is_out(&app, &second).await;
    app.get(&first, "/auth/me").await.expect(200);
    app.emailctl(&[&["user", "sessions", "end"], &who[..]].concat()).await;
    is_out(&app, &first).await;
    is_out(&app, &tenant).await;
    let trail: Vec<String> = sqlx::query_scalar(
        "SELECT action FROM audit_log WHERE actor LIKE 'emailctl:%' AND action LIKE 'user.%' ORDER BY at",
    )
    .fetch_all(&mut conn)
    .await
    .unwrap();
    assert_eq!(trail, ["user.sessions.end"; 2]);
    app.finish().await;
}
