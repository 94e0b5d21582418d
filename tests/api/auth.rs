//! `/auth/*`.

use serde_json::json;
use tests::app::{App, PASSWORD, send};

#[tokio::test]
async fn login_reads_json_forms_and_what_curl_sends_by_default() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let body = json!({"email": tenant.email, "password": PASSWORD}).to_string();
    let form = format!("email={}&password={}", tenant.email.replace('@', "%40"), PASSWORD.replace(' ', "+"));
    for (content_type, body) in [
        ("application/json", body.clone()),
        ("application/x-www-form-urlencoded", body),
        ("application/x-www-form-urlencoded", form),
    ] {
        let request = app
            .http
            .post(format!("{}/auth/login", app.base))
            .header("X-Tenant-ID", &tenant.slug)
            .header("Content-Type", content_type)
            .body(body);
        let login = send(request).await.expect(200);
        assert_eq!(login["token_type"], "Bearer");
        assert!(login["expires_in"].as_i64().unwrap() > 0);
        assert_eq!(login["user"]["email"], tenant.email.as_str());
        assert_eq!(login["tenant"]["slug"], tenant.slug.as_str());
    }
    let request = app
        .http
        .post(format!("{}/auth/login", app.base))
        .header("X-Tenant-ID", &tenant.slug)
        .header("Accept", "text/plain")
        .json(&json!({"email": tenant.email, "password": PASSWORD}));
    let bare = send(request).await;
    assert_eq!(bare.status, 200);
    assert_eq!(bare.text().trim().split('.').count(), 3, "a bare token: {}", bare.text());
    app.finish().await;
}

#[tokio::test]
async fn wrong_password_unknown_user_and_wrong_tenant_look_alike() {
    let app = App::start().await;
    let (tenant, other) = (app.tenant().await, app.tenant().await);
    for (slug, email, password) in [
        (&tenant.slug, tenant.email.as_str(), "wrong password"),
        (&tenant.slug, "nobody@example.test", PASSWORD),
        (&other.slug, tenant.email.as_str(), PASSWORD),
    ] {
        let request = app
            .http
            .post(format!("{}/auth/login", app.base))
            .header("X-Tenant-ID", slug)
            .json(&json!({"email": email, "password": password}));
        let answer = send(request).await;
        answer.refused(401, "invalid-credentials");
        assert!(answer.header("www-authenticate").starts_with("Bearer"));
    }
    app.finish().await;
}

#[tokio::test]
async fn a_used_refresh_token_revokes_the_whole_session() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let refresh = |token: &str| {
        app.http.post(format!("{}/auth/refresh", app.base)).json(&json!({"refresh_token": token}))
    };
    let second = send(refresh(&tenant.refresh_token)).await.expect(200);
    let second = second["refresh_token"].as_str().unwrap().to_owned();
    assert_ne!(second, tenant.refresh_token);
    assert_eq!(send(refresh(&tenant.refresh_token)).await.status, 401, "the first token was used already");
    assert_eq!(send(refresh(&second)).await.status, 401, "its reuse revoked the family");
    app.finish().await;
}

#[tokio::test]
async fn logout_ends_the_access_tokens_within_five_seconds() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    assert_eq!(app.get(&tenant, "/auth/me").await.expect(200)["user"]["email"], tenant.email.as_str());
    assert_eq!(app.post(&tenant, "/auth/logout", &json!({})).await.status, 204);
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    assert_eq!(app.get(&tenant, "/auth/me").await.status, 401);
    app.finish().await;
}

#[tokio::test]
async fn every_answer_of_a_login_tells_the_limit_of_logins() {
    let app = App::start_with(&[
        ("RATE_LIMIT_LOGIN_PER_MINUTE", "4"),
        // An address of this test alone: all tests share one Redis.
        ("API_TRUSTED_PROXIES", "127.0.0.1"),
    ])
    .await;
    let tenant = app.tenant().await;
    let from = std::net::Ipv6Addr::from(crate::edges::networks()).to_string();
    let login = async |email: &str, password: &str| {
        let request = app.http.post(format!("{}/auth/login", app.base)).header("X-Forwarded-For", &from);
        let body = json!({"email": email, "password": password});
        send(request.header("X-Tenant-ID", &tenant.slug).json(&body)).await
    };
    let both = "\"login\";q=4;w=60, \"login-user\";q=2;w=60";
    let right = login(&tenant.email, PASSWORD).await;
    right.expect(200);
    let wrong = login("nobody@example.test", "wrong").await;
    wrong.refused(401, "invalid-credentials");
    for answer in [&right, &wrong] {
        assert_eq!(answer.header("ratelimit-policy"), both);
        let left = answer.header("ratelimit");
        assert!(left.starts_with("\"login\";r=") && left.contains(", \"login-user\";r="), "{left}");
    }
    let mut last = right;
    for _ in 0..8 {
        // Refused for its body, which is quicker than a password: nothing refills meanwhile.
        last = login("", "").await;
        if last.status == 429 {
            break;
        }
        assert!(last.header("ratelimit-policy").starts_with("\"login\";q=4;w=60"), "{}", last.status);
    }
    last.refused(429, "rate-limited");
    assert!(last.header("ratelimit-policy").starts_with("\"login\";q=4;w=60"), "{:?}", last.headers);
    assert!(last.header("ratelimit").contains(";r=0;t="), "{:?}", last.headers);
    app.finish().await;
}

#[tokio::test]
async fn only_a_good_refresh_token_is_told_of_a_suspension_and_stays_good() {
    let app = App::start().await;
    let (tenant, other) = (app.tenant().await, app.tenant().await);
    app.emailctl(&["tenant", "suspend", &tenant.slug]).await;
    let refresh = |token: &str| {
        app.http.post(format!("{}/auth/refresh", app.base)).json(&json!({"refresh_token": token}))
    };
    let (name, own) = tenant.refresh_token.split_once('.').unwrap();
    let (_, theirs) = other.refresh_token.split_once('.').unwrap();
    let flipped: String = own.chars().map(|c| if c == 'A' { 'B' } else { 'A' }).collect();
    for stranger in [format!("{name}.{theirs}"), format!("{name}.{flipped}")] {
        let told = send(refresh(&stranger)).await;
        told.refused(401, "invalid-token");
    }
    for _ in 0..2 {
        send(refresh(&tenant.refresh_token)).await.refused(403, "tenant-suspended");
    }
    app.emailctl(&["tenant", "resume", &tenant.slug]).await;
    send(refresh(&tenant.refresh_token)).await.expect(200);
    app.finish().await;
}
