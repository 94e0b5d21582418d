//! Edges of the contract: tags of compressed answers, days of a time zone, the limit of log-ins.

use serde_json::json;
use tests::app::{Answer, App, PASSWORD, Tenant, send};
use tests::mail;

use crate::uploads::percent;

/// GET with `Accept-Encoding: gzip` and perhaps one header more.
async fn gzip(app: &App, tenant: &Tenant, path: &str, header: Option<(&str, &str)>) -> Answer {
    let request = app.request(tenant, "GET", path).header("Accept-Encoding", "gzip");
    send(match header {
        Some((name, value)) => request.header(name, value),
        None => request,
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compressed_answer_has_a_tag_of_its_own_that_is_as_good_as_the_other() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    let account = mail::connect(&app, &tenant, &user).await;
    let body = json!({"account_id": account, "subject": "s", "text": "the same words ".repeat(200)});
    let draft = app.post(&tenant, "/api/compose", &body).await.expect(201);
    let path = format!("/api/compose/{}", draft["id"].as_str().unwrap());
    let plain = app.get(&tenant, &path).await;
    let packed = gzip(&app, &tenant, &path, None).await;
    assert_eq!((plain.status, packed.status), (200, 200));
    assert_eq!(
        (plain.header("content-encoding"), packed.header("content-encoding")),
        (String::new(), "gzip".to_owned())
    );
    let (identity, coded) = (plain.header("etag"), packed.header("etag"));
    assert!(coded.ends_with("-gzip\"") && !coded.starts_with("W/"), "{coded}");
    assert_ne!(identity, coded, "other bytes, another strong tag");
    assert!(
        packed.header("vary").to_ascii_lowercase().contains("accept-encoding"),
        "{}",
        packed.header("vary")
    );

    for (given, told) in [
        (coded.clone(), coded.clone()),
        (identity.clone(), identity.clone()),
        (format!("W/{coded}"), coded.clone()),
        (format!("\"old\", {coded}"), coded.clone()),
    ] {
        let unchanged = gzip(&app, &tenant, &path, Some(("If-None-Match", &given))).await;
        assert_eq!((unchanged.status, unchanged.header("etag")), (304, told), "{given}");
        assert!(unchanged.bytes.is_empty());
    }
    let put = async |tag: &str, text: &str| {
        let body = json!({"account_id": account, "subject": "s", "text": text.repeat(200)});
        send(
            app.request(&tenant, "PUT", &path)
                .header("Accept-Encoding", "gzip")
                .header("If-Match", tag)
                .json(&body),
        )
        .await
    };
    let written = put(&coded, "other words ").await;
    assert_eq!(written.status, 200, "{}", written.text());
    put(&coded, "late words ").await.refused(412, "precondition-failed");
    put(&identity, "late words ").await.refused(412, "precondition-failed");
    assert_eq!(
        gzip(&app, &tenant, &path, Some(("If-None-Match", &coded))).await.status,
        200,
        "it has changed"
    );
    assert_eq!(put(&written.header("etag"), "last words ").await.status, 200);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn days_of_a_search_begin_where_the_client_is() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    // Berlin's 29th of March 2026 has 23 hours, from 23:00 to 22:00 UTC; its 25th of October 25, from 22:00 to 23:00.
    let instants = [
        ("before spring", "2026-03-28T22:59:59Z"),
        ("first of spring", "2026-03-28T23:00:00Z"),
        ("last of spring", "2026-03-29T21:59:59Z"),
        ("after spring", "2026-03-29T22:00:00Z"),
        ("first of autumn", "2026-10-24T22:00:00Z"),
        ("last of autumn", "2026-10-25T22:59:59Z"),
        ("after autumn", "2026-10-25T23:00:00Z"),
    ];
    let rows = instants.iter().map(|(subject, at)| {
        let at = chrono::DateTime::parse_from_rfc3339(at).unwrap().timestamp();
        ("INBOX", vec![], at, mail::message(subject, &format!("{}@x.test", subject.replace(' ', "-")), "x"))
    });
    app.stack.fill(&user, rows).unwrap();
    let account = mail::connect(&app, &tenant, &user).await;
    mail::synchronise(&app, &tenant, &account).await;
    let search = async |query: &str, tz: &str| {
        let path = format!("/api/sync/search?query={}&tz={}", percent(query), percent(tz));
        let found = app.get(&tenant, &path).await.expect(200);
        let mut subjects: Vec<String> = found["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| m["subject"].as_str().unwrap().to_owned())
            .collect();
        subjects.reverse();
        subjects
    };
    let (spring, autumn) = ("after:2026-03-29 before:2026-03-30", "after:2026-10-25 before:2026-10-26");
    assert_eq!(search(spring, "Europe/Berlin").await, ["first of spring", "last of spring"]);
    assert_eq!(search(autumn, "europe/berlin").await, ["first of autumn", "last of autumn"]);
    // The offset knows nothing of the change in between.
    assert_eq!(search(spring, "+01:00").await, ["first of spring", "last of spring", "after spring"]);
    assert_eq!(search(autumn, "+02:00").await, ["first of autumn"]);
    assert_eq!(search(spring, "UTC").await, ["last of spring", "after spring"]);
    for bad in ["Europe/Atlantis", "Berlin", "+25:00", "", "../etc/localtime", "Europe/Berlin\u{200b}"] {
        let path = format!("/api/sync/search?query=x&tz={}", percent(bad));
        let problem = app.get(&tenant, &path).await.refused(400, "invalid-parameter");
        assert_eq!(problem["errors"][0]["pointer"], "/tz", "{bad}: {problem}");
    }
    app.finish().await;
}

/// From one network to the next.
pub const NEXT: u128 = 1 << 64;

/// The first of many networks that no other test has: all of them share one Redis.
pub fn networks() -> u128 {
    (0x2001_0db8 << 96) | ((emailclient_core::id::new_uuid().as_u128() & 0xff_ffff) << 72)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_ins_stay_limited_where_the_limits_of_tenants_are_off() {
    let settings = [
        ("RATE_LIMIT_ENABLED", "false"),
        ("RATE_LIMIT_REQUESTS_PER_MINUTE", "1"),
        ("RATE_LIMIT_LOGIN_PER_MINUTE", "4"),
        // Addresses of this test alone: all tests share one Redis.
        ("API_TRUSTED_PROXIES", "127.0.0.1"),
    ];
    let app = App::start_with(&settings).await;
    let tenant = app.tenant().await;
    let mut tx = app.db.tenant(tenant.id).await.unwrap();
    emailclient_core::tenant::set_limits(&mut tx, None, None).await.unwrap();
    tx.commit().await.unwrap();
    for _ in 0..5 {
        app.get(&tenant, "/api/accounts").await.expect(200);
    }
    let net = networks();
    let login = async |from: u128, email: &str| {
        let from = std::net::Ipv6Addr::from(from).to_string();
        let request = app.http.post(format!("{}/auth/login", app.base)).header("X-Forwarded-For", from);
        send(request.header("X-Tenant-ID", &tenant.slug).json(&json!({"email": email, "password": PASSWORD})))
            .await
    };
    for n in 0..4 {
        // Counted before it is read; and quicker than a password, so that nothing refills meanwhile. Any address of a /64.
        let from = std::net::Ipv6Addr::from(net + n).to_string();
        let request = app.http.post(format!("{}/auth/login", app.base)).header("X-Forwarded-For", from);
        send(request.json(&json!({}))).await.refused(422, "validation-error");
    }
    let refused = login(net + 99, &tenant.email).await;
    refused.refused(429, "rate-limited");
    assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 1);
    // Half as many of one client for one user.
    let other = net + NEXT;
    for n in 1..=2 {
        login(other + n, "victim@x.test").await.refused(401, "invalid-credentials");
    }
    login(other + 3, "victim@x.test").await.refused(429, "rate-limited");
    login(other + NEXT, "victim@x.test").await.refused(401, "invalid-credentials");
    login(other + 2 * NEXT, &tenant.email).await.expect(200);
    app.finish().await;
}
