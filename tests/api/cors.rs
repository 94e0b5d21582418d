//! Other origins: nothing without `CORS_ORIGINS`, and with it the named ones and no other.

use tests::app::{Answer, App, Tenant, send};
use uuid::Uuid;

const OURS: &str = "https://app.example.test";

fn preflight(app: &App, origin: &str, path: &str, method: &str) -> reqwest::RequestBuilder {
    app.http
        .request(reqwest::Method::OPTIONS, format!("{}{path}", app.base))
        .header("Origin", origin)
        .header("Access-Control-Request-Method", method)
        .header("Access-Control-Request-Headers", "authorization,x-tenant-id,content-type")
}

fn cors_headers(answer: &Answer) -> Vec<String> {
    let names = answer.headers.keys().map(|name| name.as_str().to_owned());
    names.filter(|name| name.starts_with("access-control-")).collect()
}

fn varies_by_origin(answer: &Answer) -> bool {
    answer.headers.get_all("vary").iter().any(|v| v.to_str().unwrap().eq_ignore_ascii_case("origin"))
}

/// Every path of the description with an id in place of its parameters, and its methods.
async fn routes(app: &App) -> Vec<(String, Vec<String>)> {
    let document = send(app.http.get(format!("{}/openapi.json", app.base))).await.expect(200);
    let paths = document["paths"].as_object().unwrap().iter();
    let id = Uuid::nil().to_string();
    paths
        .map(|(path, methods)| {
            let path: Vec<&str> =
                path.split('/').map(|s| if s.starts_with('{') { id.as_str() } else { s }).collect();
            (path.join("/"), methods.as_object().unwrap().keys().map(|m| m.to_ascii_uppercase()).collect())
        })
        .collect()
}

#[tokio::test]
async fn without_origins_options_is_a_method_like_any_other() {
    let app = App::start().await;
    let all = routes(&app).await;
    assert!(all.len() > 20, "{}", all.len());
    for (path, methods) in all {
        let answer = send(preflight(&app, OURS, &path, &methods[0])).await;
        answer.refused(405, "method-not-allowed");
        let allow = answer.header("allow");
        assert!(methods.iter().all(|m| allow.contains(m.as_str())), "{path}: {allow}");
        assert!(
            cors_headers(&answer).is_empty() && !varies_by_origin(&answer),
            "{path}: {:?}",
            answer.headers
        );
    }
    app.finish().await;
}

#[tokio::test]
async fn a_named_origin_may_ask_for_every_route_and_method() {
    let app =
        App::start_with(&[("CORS_ORIGINS", "https://other.example.test, https://app.example.test")]).await;
    for (path, methods) in routes(&app).await {
        for method in methods {
            let answer = send(preflight(&app, OURS, &path, &method)).await;
            assert!((200..300).contains(&answer.status), "{method} {path}: {}", answer.status);
            assert_eq!(answer.header("access-control-allow-origin"), OURS, "{path}");
            assert!(answer.header("access-control-allow-methods").contains(&method), "{method} {path}");
            let headers = answer.header("access-control-allow-headers").to_ascii_lowercase();
            for name in [
                "authorization",
                "content-type",
                "x-tenant-id",
                "idempotency-key",
                "if-match",
                "if-none-match",
            ] {
                assert!(headers.contains(name), "{name}: {headers}");
            }
            assert!(varies_by_origin(&answer) && !answer.header("x-request-id").is_empty(), "{path}");
            assert!(answer.bytes.is_empty());
        }
    }
    app.finish().await;
}

async fn read(app: &App, tenant: &Tenant, origin: Option<&str>, path: &str) -> Answer {
    let request = app.request(tenant, "GET", path);
    send(match origin {
        Some(origin) => request.header("Origin", origin),
        None => request,
    })
    .await
}

#[tokio::test]
async fn answers_and_refusals_can_be_read_by_a_named_origin_and_by_no_other() {
    let app = App::start_with(&[("CORS_ORIGINS", OURS)]).await;
    let tenant = app.tenant().await;
    for (path, status) in [("/api/accounts", 200), ("/api/nothing", 404), ("/api/accounts/verify", 405)] {
        let answer = read(&app, &tenant, Some(OURS), path).await;
        assert_eq!(
            (answer.status, answer.header("access-control-allow-origin")),
            (status, OURS.to_owned()),
            "{path}"
        );
        let exposed = answer.header("access-control-expose-headers").to_ascii_lowercase();
        for name in [
            "etag",
            "location",
            "ratelimit",
            "ratelimit-policy",
            "x-request-id",
            "idempotency-replayed",
            "retry-after",
            "content-disposition",
        ] {
            assert!(exposed.split(", ").any(|e| e == name), "{name}: {exposed}");
        }
        assert!(varies_by_origin(&answer), "{path}");
    }
    let refused =
        read(&app, &Tenant { token: "x".into(), ..tenant.clone() }, Some(OURS), "/api/accounts").await;
    refused.refused(401, "invalid-token");
    assert_eq!(refused.header("access-control-allow-origin"), OURS, "a browser must be able to read why");
    let foreign = [
        "https://evil.example.test",
        "https://app.example.test.evil.example",
        "http://app.example.test",
        "https://app.example.test:8443",
        "https://APP.example.test",
        "null",
    ];
    for origin in foreign.into_iter().map(Some).chain([None]) {
        let answer = read(&app, &tenant, origin, "/api/accounts").await;
        assert_eq!(answer.status, 200);
        assert!(cors_headers(&answer).is_empty(), "{origin:?}: {:?}", answer.headers);
        assert!(varies_by_origin(&answer), "{origin:?}");
        if let Some(origin) = origin {
            let asked = send(preflight(&app, origin, "/api/accounts", "GET")).await;
            asked.refused(405, "method-not-allowed");
            assert!(cors_headers(&asked).is_empty() && varies_by_origin(&asked), "{origin}");
        }
    }
    app.finish().await;
}
