//! Mail hosts that a client may not send us to, in every spelling and through every door: nothing is dialled.

use std::net::Ipv4Addr;
use std::time::Duration;

use emailclient_core::platform::id::new_uuid;
use serde_json::{Value, json};
use tests::app::{Answer, App, Tenant, send};
use tests::name_server;
use tokio::net::TcpListener;

/// Addresses that belong to no public host, as somebody might write them.
const PRIVATE: [&str; 67] = [
    // Loopback, by its parts, as one number, in octal and hexadecimal, shortened.
    "127.0.0.1",
    "127.255.255.254",
    "127.1",
    "127.0.1",
    "2130706433",
    "0x7f000001",
    "0x7F.0.0.1",
    "0x7f.1",
    "017700000001",
    "0177.0.0.1",
    "0177.0.0.01",
    "127.0.0.1.",
    "0",
    "0.0.0.0",
    "0x0",
    "::1",
    "0:0:0:0:0:0:0:1",
    "[::1]",
    "::",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "LOCALHOST..",
    // IPv4 inside IPv6: mapped, compatible, translated, NAT64, 6to4, Teredo.
    "::ffff:127.0.0.1",
    "[::ffff:127.0.0.1]",
    "::ffff:7f00:1",
    "::ffff:10.0.0.1",
    "::127.0.0.1",
    "::7f00:1",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::127.0.0.1",
    "64:ff9b:1::a00:1",
    "2002:7f00:1::",
    "2002:a00:1::1",
    "2001::7f00:1",
    // Private, link-local, shared, reserved, multicast.
    "10.0.0.1",
    "0xa000001",
    "167772161",
    "012.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.0.1",
    "192.168.1",
    "3232235521",
    "169.254.169.254",
    "2852039166",
    "0xa9fea9fe",
    "0251.0376.0251.0376",
    "100.64.0.1",
    "100.127.255.255",
    "192.0.0.8",
    "192.0.2.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "ff02::1",
    "2001:db8::1",
];

/// What no resolver should ever be asked for.
const MALFORMED: [&str; 22] = [
    "",
    " ",
    ".",
    "...",
    "a b.example",
    "user@mail.example",
    "https://mail.example",
    "mail.example/path",
    "mail.example:993",
    "mail.example#x",
    "mail.example?x",
    "mail.example\\@127.0.0.1",
    "127.0.0.1%00.example",
    "mail.exa\tmple",
    "mail.example\r\nX: y",
    // Full-width digits, ideographic full stops, circled and superscript digits: IDNA would make 127.0.0.1 of them.
    "\u{ff11}\u{ff12}\u{ff17}.0.0.1",
    "127\u{3002}0\u{3002}0\u{3002}1",
    "\u{2460}\u{2461}\u{2466}.0.0.1",
    "\u{24db}ocalhost",
    "loc\u{ad}alhost",
    "127.0.0.\u{661}",
    "m\u{fc}ller.example",
];

fn account(imap: &str, smtp: &str) -> Value {
    // Passwords of one user are not tried as often as here.
    let user = new_uuid().simple().to_string();
    let server = |host: &str, port: u16| json!({"host": host, "port": port, "security": "tls", "username": user, "password": "p"});
    json!({"email": format!("{user}@example.test"), "imap": server(imap, 993), "smtp": server(smtp, 465)})
}

/// Every way by which a host can come in.
async fn through_every_door(app: &App, tenant: &Tenant, saved: &str, host: &str) -> Vec<(String, Answer)> {
    let mut answers = Vec::new();
    for (field, body) in [("imap", account(host, "8.8.8.8")), ("smtp", account("8.8.8.8", host))] {
        for path in ["/api/accounts", "/api/accounts?verify=false", "/api/accounts/verify"] {
            answers.push((format!("{path} {field}"), app.post(tenant, path, &body).await));
        }
        let path = format!("/api/accounts/{saved}?verify=false");
        let patch = json!({field: {"host": host, "password": "p"}});
        answers.push((format!("PATCH {field}"), app.patch(tenant, &path, &patch).await));
        let put = app.request(tenant, "PUT", &path).json(&body);
        answers.push((format!("PUT {field}"), send(put).await));
    }
    answers
}

async fn saved_account(app: &App, tenant: &Tenant) -> String {
    let saved =
        app.post(tenant, "/api/accounts?verify=false", &account("8.8.8.8", "8.8.4.4")).await.expect(201);
    saved["id"].as_str().unwrap().to_owned()
}

async fn refused_everywhere<'a>(
    app: &App,
    tenant: &Tenant,
    saved: &str,
    hosts: impl Iterator<Item = &'a str>,
) {
    for host in hosts {
        for (door, answer) in through_every_door(app, tenant, saved, host).await {
            let told = answer.json();
            assert!(
                answer.status == 422 && told["code"] == "host-not-allowed",
                "{host:?} by {door}: {} {}",
                answer.status,
                answer.text()
            );
            let field = if door.contains("smtp") { "/smtp/host" } else { "/imap/host" };
            assert_eq!(told["errors"][0]["pointer"], field, "{host:?} by {door}: {told}");
        }
    }
}

#[tokio::test]
async fn addresses_that_are_not_public_are_refused_in_any_spelling_by_every_door() {
    let app = App::start_with(&[("OUTBOUND_ALLOW", "")]).await;
    let tenant = app.tenant().await;
    let saved = saved_account(&app, &tenant).await;
    refused_everywhere(&app, &tenant, &saved, PRIVATE.into_iter()).await;
    let kept = app.get(&tenant, &format!("/api/accounts/{saved}")).await.expect(200);
    assert_eq!((&kept["imap"]["host"], &kept["smtp"]["host"]), (&json!("8.8.8.8"), &json!("8.8.4.4")));
    assert_eq!(app.get(&tenant, "/api/accounts").await.expect(200)["data"].as_array().unwrap().len(), 1);
    app.finish().await;
}

#[tokio::test]
async fn what_is_no_host_name_is_refused_by_every_door() {
    let app = App::start_with(&[("OUTBOUND_ALLOW", "")]).await;
    let tenant = app.tenant().await;
    let saved = saved_account(&app, &tenant).await;
    refused_everywhere(&app, &tenant, &saved, MALFORMED.into_iter()).await;
    for length in [254, 256, 5_000] {
        let overlong = format!("{}.example", "a".repeat(length - 8));
        let told = app.post(&tenant, "/api/accounts", &account(&overlong, "8.8.8.8")).await;
        let code = told.json()["code"].clone();
        assert!(
            told.status == 422 && (code == "host-not-allowed" || code == "validation-error"),
            "{}",
            told.text()
        );
        assert_eq!(told.json()["errors"][0]["pointer"], "/imap/host");
    }
    let nul = app.post(&tenant, "/api/accounts", &account("mail.example\0.test", "8.8.8.8")).await;
    nul.refused(422, "validation-error");
    app.finish().await;
}

/// Every door again, for a name: what each answered, without what differs from request to request.
async fn answers(app: &App, tenant: &Tenant, saved: &str, host: &str) -> Vec<(String, u16, Value)> {
    let mut answers = Vec::new();
    let whole = account(host, host);
    for path in ["/api/accounts", "/api/accounts?verify=false", "/api/accounts/verify"] {
        answers.push((path.to_owned(), app.post(tenant, path, &whole).await));
    }
    for query in ["", "?verify=false"] {
        let path = format!("/api/accounts/{saved}{query}");
        let put = app.request(tenant, "PUT", &path).json(&whole);
        answers.push((format!("PUT {query}"), send(put).await));
        for field in ["imap", "smtp"] {
            let patch = json!({field: {"host": host, "password": "p", "username": new_uuid().to_string()}});
            answers.push((format!("PATCH {query} {field}"), app.patch(tenant, &path, &patch).await));
        }
    }
    let plain = json!({"imap": {"host": host, "security": "none", "password": "p", "username": new_uuid().to_string()}});
    let path = format!("/api/accounts/{saved}?verify=false");
    answers.push(("PATCH without TLS".to_owned(), app.patch(tenant, &path, &plain).await));
    let port =
        json!({"imap": {"host": host, "port": 8080, "password": "p", "username": new_uuid().to_string()}});
    answers.push(("PATCH of another port".to_owned(), app.patch(tenant, &path, &port).await));
    let anew = app.post(tenant, &format!("/api/accounts/{saved}/diagnose"), &json!({})).await;
    answers.push(("diagnose".to_owned(), anew));
    let told = |(door, answer): (String, Answer)| {
        let mut body = answer.json();
        if let Some(object) = body.as_object_mut() {
            object.remove("request_id");
            if object.contains_key("id") {
                body = Value::Null;
            }
        }
        if door == "diagnose" {
            body = json!(body.to_string().matches("host-not-found").count());
        }
        (door, answer.status, body)
    };
    answers.into_iter().map(told).collect()
}

/// A name is judged by what it resolves to, and whether it exists inside the operator's network is not to be learned: every
/// door answers as for one that does not exist.
#[tokio::test]
async fn names_that_resolve_to_private_addresses_are_told_like_those_that_do_not_exist() {
    let names = name_server::serve(vec![
        name_server::a("private.example", "10.0.0.9"),
        name_server::a("loop.example", "127.0.0.1"),
        name_server::a("meta.example", "169.254.169.254"),
        name_server::a("half.example", "8.8.8.8"),
        name_server::a("half.example", "192.168.1.1"),
    ])
    .await;
    let server = names.address.to_string();
    let app = App::start_with(&[("OUTBOUND_ALLOW", ""), ("DNS_SERVERS", &server)]).await;
    let tenant = app.tenant().await;
    let mut wanted = None;
    for name in ["nowhere.example", "private.example", "loop.example", "meta.example", "half.example"] {
        let saved = saved_account(&app, &tenant).await;
        let told: Vec<_> = answers(&app, &tenant, &saved, name)
            .await
            .into_iter()
            .map(|(door, status, body)| (door, status, body.to_string().replace(&saved, "ID")))
            .collect();
        let refused = told
            .iter()
            .filter(|(_, status, body)| *status == 422 && body.contains("\"host-not-found\""))
            .count();
        assert!(refused >= 3, "{name}: {told:#?}");
        assert!(
            !told.iter().any(|(door, ..)| door != "PATCH without TLS" && door.contains("host-not-allowed"))
        );
        assert_eq!(wanted.get_or_insert_with(|| told.clone()), &told, "{name}");
        let id = app.get(&tenant, "/api/accounts").await.expect(200)["data"].as_array().unwrap().clone();
        for account in id {
            app.delete(&tenant, &format!("/api/accounts/{}", account["id"].as_str().unwrap())).await;
        }
    }
    app.finish().await;
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_told_as_such_and_may_be_saved_for_later() {
    let app = App::start_with(&[("OUTBOUND_ALLOW", "")]).await;
    let tenant = app.tenant().await;
    let long_label = format!("{}.invalid", "a".repeat(64));
    for host in ["nowhere.invalid", "under_score.invalid", "-dash.invalid", &long_label] {
        let answer = app.post(&tenant, "/api/accounts", &account(host, "8.8.8.8")).await;
        let told = answer.json();
        // Where the machine's resolver is out of reach, that is what is told.
        let known =
            ["host-not-found", "upstream-unreachable"].contains(&told["code"].as_str().unwrap_or_default());
        assert!(answer.status == 422 && known, "{host}: {}", answer.text());
        assert_eq!(told["errors"][0]["pointer"], "/imap/host");
        app.post(&tenant, "/api/accounts?verify=false", &account(host, "8.8.8.8")).await.expect(201);
    }
    app.finish().await;
}

#[tokio::test]
async fn ports_outside_mail_are_refused_also_on_public_hosts_and_before_any_look_up() {
    let app = App::start_with(&[("OUTBOUND_ALLOW", "")]).await;
    let tenant = app.tenant().await;
    for port in [0, 1, 22, 80, 443, 3306, 5432, 6379, 8080, 11211, 65535] {
        for field in ["imap", "smtp"] {
            let mut body = account("8.8.8.8", "8.8.8.8");
            body[field]["port"] = json!(port);
            for path in ["/api/accounts", "/api/accounts?verify=false", "/api/accounts/verify"] {
                let answer = app.post(&tenant, path, &body).await;
                let told = answer.refused(422, "port-not-allowed");
                assert_eq!(told["errors"][0]["pointer"], format!("/{field}/port"));
            }
        }
    }
    for port in [json!(-1), json!(65536), json!(993.5), json!("993")] {
        let mut body = account("8.8.8.8", "8.8.8.8");
        body["imap"]["port"] = port;
        app.post(&tenant, "/api/accounts", &body).await.refused(422, "validation-error");
    }
    app.finish().await;
}

/// A network of the allow list lifts the rule on ports for its own addresses; a name without an address is not in it.
#[tokio::test]
async fn the_port_of_a_name_that_does_not_exist_is_judged_as_well() {
    let app = App::start_with(&[("OUTBOUND_ALLOW", "127.0.0.0/8, known.invalid:14143")]).await;
    let tenant = app.tenant().await;
    let path = "/api/accounts?verify=false";
    for (host, port, status) in [
        ("nope.invalid", 22, 422),
        ("nope.invalid", 80, 422),
        ("nope.invalid", 14143, 422),
        ("known.invalid", 22, 422),
        ("known.invalid", 14143, 201),
        ("nope.invalid", 993, 201),
        ("127.0.0.1", 14143, 201),
    ] {
        for field in ["imap", "smtp"] {
            let mut body = account("8.8.8.8", "8.8.8.8");
            body[field]["host"] = json!(host);
            body[field]["port"] = json!(port);
            let answer = app.post(&tenant, path, &body).await;
            if status == 201 {
                answer.expect(201);
                continue;
            }
            let told = answer.refused(422, "port-not-allowed");
            assert_eq!(told["errors"][0]["pointer"], format!("/{field}/port"), "{host}:{port}");
        }
    }
    app.finish().await;
}

/// The proof behind the answers: a listener on a loopback address of its own, at a port of mail, is never called.
#[tokio::test]
async fn a_listener_on_loopback_is_not_called_by_any_spelling() {
    let random = new_uuid();
    let [.., b, c, d] = random.as_bytes();
    let ip = Ipv4Addr::new(127, *b, *c, (*d).clamp(2, 250));
    let listener = TcpListener::bind((ip, 2525)).await.unwrap();
    let app = App::start_with(&[("OUTBOUND_ALLOW", "")]).await;
    let tenant = app.tenant().await;
    let [first, second, third, last] = ip.octets();
    for host in [
        ip.to_string(),
        u32::from(ip).to_string(),
        format!("{:#x}", u32::from(ip)),
        format!("0{:o}.0{second:o}.0{third:o}.0{last:o}", first),
        format!("127.{second}.{}", u16::from_be_bytes([third, last])),
        format!("::ffff:{ip}"),
        format!("::{ip}"),
        format!("64:ff9b::{ip}"),
    ] {
        let mut body = account(&host, &host);
        body["imap"]["port"] = json!(2525);
        body["smtp"]["port"] = json!(2525);
        for security in ["tls", "starttls", "none"] {
            body["imap"]["security"] = json!(security);
            body["smtp"]["security"] = json!(security);
            for path in ["/api/accounts", "/api/accounts?verify=false", "/api/accounts/verify"] {
                app.post(&tenant, path, &body).await.refused(422, "host-not-allowed");
            }
        }
    }
    let called = tokio::time::timeout(Duration::from_millis(500), listener.accept()).await;
    assert!(called.is_err(), "somebody called: {called:?}");
    app.finish().await;
}

#[tokio::test]
async fn without_tls_only_hosts_are_spoken_to_that_the_operator_named() {
    let app = App::start_with(&[("OUTBOUND_ALLOW", "localhost:1-65535")]).await;
    let tenant = app.tenant().await;
    let mut body = account("8.8.8.8", "8.8.8.8");
    body["smtp"]["security"] = json!("none");
    for path in ["/api/accounts", "/api/accounts?verify=false", "/api/accounts/verify"] {
        let told = app.post(&tenant, path, &body).await.refused(422, "host-not-allowed");
        assert_eq!(told["errors"][0]["pointer"], "/smtp/security");
    }
    // The name was allowed, its address was not.
    app.post(&tenant, "/api/accounts", &account("127.0.0.1", "localhost"))
        .await
        .refused(422, "host-not-allowed");
    app.finish().await;
}
