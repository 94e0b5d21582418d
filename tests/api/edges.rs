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
    (0x2001_0db8 << 96) | ((emailclient_core::platform::id::new_uuid().as_u128() & 0xff_ffff) << 72)
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
    emailclient_core::access::tenant::set_limits(&mut tx, None, None).await.unwrap();
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emoji_is_a_query_and_a_year_is_a_year() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    let coded = |text: &str| {
        use base64::Engine as _;
        format!("=?utf-8?B?{}?=", base64::engine::general_purpose::STANDARD.encode(text))
    };
    let row = |subject: &str, body: &str, at: i64| {
        let id = format!("{}@x.test", emailclient_core::platform::id::new_uuid().simple());
        ("INBOX", vec![], at, mail::message(&coded(subject), &id, body))
    };
    let rows = [
        row("🎉 at the end", "x", 1_704_067_199),
        row("one", "we have 👩\u{200d}💻 and 🇩🇪 here", 1_704_067_200),
        row("last", "👍🏽", 1_735_689_599),
        row("later", "words only", 1_735_689_600),
    ];
    app.stack.fill(&user, rows.into_iter()).unwrap();
    let account = mail::connect(&app, &tenant, &user).await;
    mail::synchronise(&app, &tenant, &account).await;
    let search = async |query: &str| {
        let path = format!("/api/sync/search?query={}", percent(query));
        let found = app.get(&tenant, &path).await.expect(200);
        let all = found["data"].as_array().unwrap().clone();
        all.iter()
            .map(|m| (m["subject"].as_str().unwrap().to_owned(), m["snippet"].to_string()))
            .collect::<Vec<_>>()
    };
    tests::eventually::eventually("the text is indexed", std::time::Duration::from_secs(60), async || {
        (search("words").await.len() == 1 && !search("here").await.is_empty()).then_some(())
    })
    .await;
    let subjects = async |query: &str| search(query).await.into_iter().map(|(s, _)| s).collect::<Vec<_>>();
    assert_eq!(subjects("🎉").await, ["🎉 at the end"]);
    assert_eq!(subjects("subject:🎉").await, ["🎉 at the end"]);
    assert_eq!(subjects("👩\u{200d}💻").await, ["one"]);
    assert_eq!(subjects("🇩🇪 👩\u{200d}💻").await, ["one"]);
    assert_eq!(subjects("👍").await, ["last"]);
    assert!(search("👍").await[0].1.contains("<mark>👍</mark>"));
    assert!(subjects("🚀").await.is_empty());
    assert_eq!(subjects("-🎉 after:2023 before:2024").await, Vec::<String>::new());
    assert_eq!(subjects("after:2024").await, ["later", "last", "one"]);
    assert_eq!(subjects("after:2024 before:2025").await, ["last", "one"]);
    assert_eq!(subjects("after:2024-12 before:2025-01").await, ["last"]);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_cut_stays_whole_html() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    let html =
        "<div><p>One &amp; two</p><ul><li><a href=\"https://x.test/?a=1&amp;b=2\">link</a></li></ul></div>";
    let source = format!("Subject: M\r\nMessage-ID: <1@x.test>\r\nContent-Type: text/html\r\n\r\n{html}\r\n");
    mail::fill(&app, &user, "INBOX", vec![source.into_bytes()]);
    let account = mail::connect(&app, &tenant, &user).await;
    mail::synchronise(&app, &tenant, &account).await;
    let listed = app.get(&tenant, &format!("/api/accounts/{account}/messages?role=inbox")).await.expect(200);
    let path =
        format!("/api/messages/{}?body=html&max_body_bytes", listed["data"][0]["id"].as_str().unwrap());
    let whole = app.get(&tenant, &format!("{path}=100000")).await.expect(200);
    assert_eq!(whole["truncated"], false);
    let length = whole["html"].as_str().unwrap().len();
    for max in (0..length).step_by(7) {
        let cut = app.get(&tenant, &format!("{path}={max}")).await.expect(200);
        let html = cut["html"].as_str().unwrap();
        assert!(html.len() <= max && cut["truncated"] == true, "{max}: {cut}");
        for name in ["div", "p", "ul", "li", "a"] {
            let begun =
                html.matches(&format!("<{name}>")).count() + html.matches(&format!("<{name} ")).count();
            assert_eq!(begun, html.matches(&format!("</{name}>")).count(), "{max}: {html}");
        }
        assert_eq!(html.matches('<').count(), html.matches('>').count(), "{max}: {html}");
        assert!(!html.ends_with('&') && !html.contains("&a<") && !html.contains("&am<"), "{max}: {html}");
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn null_in_a_patch_is_a_field_left_out_and_a_second_original_is_at_fault() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    let account = mail::connect(&app, &tenant, &user).await;
    let path = format!("/api/accounts/{account}?verify=false");
    let before = app.get(&tenant, &format!("/api/accounts/{account}")).await.expect(200);
    let nulls = json!({"email": null, "name": null, "imap": null, "smtp": {"host": null, "port": null, "password": null}, "identities": null});
    let after = app.patch(&tenant, &path, &nulls).await.expect(200);
    for field in ["email", "name", "imap", "smtp", "identities"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    let id = uuid::Uuid::nil();
    let fields = ["reply_to_message_id", "reply_all_to_message_id", "forward_message_id"];
    for (given, at_fault) in [
        (&[0, 1][..], &["/reply_all_to_message_id"][..]),
        (&[0, 2], &["/forward_message_id"]),
        (&[1, 2], &["/forward_message_id"]),
        (&[0, 1, 2], &["/reply_all_to_message_id", "/forward_message_id"]),
    ] {
        let mut body = json!({"account_id": account});
        for n in given {
            body[fields[*n]] = json!(id);
        }
        let problem = app.post(&tenant, "/api/compose", &body).await.refused(422, "validation-error");
        let pointers: Vec<&str> =
            problem["errors"].as_array().unwrap().iter().map(|e| e["pointer"].as_str().unwrap()).collect();
        assert_eq!(pointers, at_fault, "{problem}");
    }
    app.finish().await;
}
