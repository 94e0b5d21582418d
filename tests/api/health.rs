//! `/health*`, the explorer, and what every answer carries.

use tests::app::{App, send};

#[tokio::test]
async fn health_needs_no_token_and_names_what_it_looked_at() {
    let app = App::start().await;
    let answer = send(app.http.get(format!("{}/health", app.base))).await;
    let health = answer.expect(200);
    assert_eq!(health["status"], "ok");
    for check in ["database", "redis", "migrations"] {
        assert!(!health["checks"][check].is_null(), "{check} is missing: {health}");
    }
    for path in ["/health/live", "/health/ready"] {
        assert_eq!(send(app.http.get(format!("{}{path}", app.base))).await.status, 200);
    }
    app.finish().await;
}

#[tokio::test]
async fn the_description_is_openapi_3_1_with_every_route_and_the_explorer_is_bundled() {
    let app = App::start().await;
    let document = send(app.http.get(format!("{}/openapi.json", app.base))).await.expect(200);
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    for path in [
        "/auth/login",
        "/api/accounts",
        "/api/accounts/{id}",
        "/api/sync/search",
        "/api/accounts/{id}/messages",
        "/api/messages/{id}",
        "/api/threads/{id}",
        "/api/compose",
        "/api/compose/{id}/send",
        "/api/submissions/{id}",
    ] {
        assert!(document["paths"][path].is_object(), "{path} is not described");
    }
    let page = send(app.http.get(format!("{}/docs/", app.base))).await;
    assert_eq!(page.status, 200);
    assert!(!page.text().contains("https://"), "the explorer loads from elsewhere");
    app.finish().await;
}

#[tokio::test]
async fn every_answer_carries_the_request_id_and_the_safe_headers() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let request = app.request(&tenant, "GET", "/api/accounts").header("X-Request-Id", "abc-123");
    let answer = send(request).await;
    assert_eq!(answer.header("x-request-id"), "abc-123");
    let missing = app.get(&tenant, "/api/nothing").await;
    missing.refused(404, "not-found");
    for answer in [answer, missing] {
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("referrer-policy"), "no-referrer");
        assert!(!answer.header("cache-control").is_empty());
        assert!(!answer.header("x-request-id").is_empty());
    }
    app.finish().await;
}
