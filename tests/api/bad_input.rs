//! The table of refusals: each row's status and code are part of the contract with clients.

use std::time::{Duration, Instant};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use tests::app::{App, JWT_SECRET, Tenant, send};
use tests::eventually::eventually;
use tests::mail;

fn signed(claims: &Value, key: &[u8], header: &Header) -> String {
    encode(header, claims, &EncodingKey::from_secret(key)).unwrap()
}

/// The claims of a good token, to be spoiled one at a time.
fn claims_of(token: &str) -> (Header, Value) {
    use base64::Engine as _;
    let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let parts: Vec<&str> = token.split('.').collect();
    let header = serde_json::from_slice(&engine.decode(parts[0]).unwrap()).unwrap();
    (header, serde_json::from_slice(&engine.decode(parts[1]).unwrap()).unwrap())
}

#[tokio::test]
async fn tokens_that_prove_nothing_are_refused() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let (header, claims) = claims_of(&tenant.token);
    let with = |name: &str, value: Value| {
        let mut c = claims.clone();
        c[name] = value;
        signed(&c, JWT_SECRET.as_bytes(), &header)
    };
    assert_eq!(
        app.get(&Tenant { token: with("sub", claims["sub"].clone()), ..tenant.clone() }, "/auth/me")
            .await
            .status,
        200,
        "the unspoilt claims"
    );
    let without_exp = {
        let mut c = claims.clone();
        c.as_object_mut().unwrap().remove("exp");
        signed(&c, JWT_SECRET.as_bytes(), &header)
    };
    let none = {
        let body = tenant.token.split('.').nth(1).unwrap();
        format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{body}.")
    };
    let mut foreign = Header::new(Algorithm::HS256);
    foreign.kid = Some("attacker".into());
    foreign.jku = Some("http://127.0.0.1:1/keys".into());
    for (what, token, code) in [
        ("alg none", none, "invalid-token"),
        (
            "wrong key",
            signed(&claims, b"another key of more than thirty-two bytes", &header),
            "invalid-token",
        ),
        ("wrong audience", with("aud", json!("elsewhere")), "invalid-token"),
        ("wrong issuer", with("iss", json!("elsewhere")), "invalid-token"),
        ("expired", with("exp", json!(1_000_000_000)), "token-expired"),
        ("no exp", without_exp, "invalid-token"),
        (
            "attacker's kid and jku",
            signed(&claims, b"another key of more than thirty-two bytes", &foreign),
            "invalid-token",
        ),
        ("refresh token", tenant.refresh_token.clone(), "invalid-token"),
        ("malformed", "abc".into(), "invalid-token"),
    ] {
        let answer = app.get(&Tenant { token, ..tenant.clone() }, "/api/accounts").await;
        assert_eq!(answer.status, 401, "{what}");
        answer.refused(401, code);
    }
    for authorization in [None, Some(""), Some("Basic dTpw")] {
        let mut request =
            app.http.get(format!("{}/api/accounts", app.base)).header("X-Tenant-ID", &tenant.slug);
        if let Some(value) = authorization {
            request = request.header("Authorization", value);
        }
        send(request).await.refused(401, "unauthenticated");
    }
    app.finish().await;
}

#[tokio::test]
async fn the_tenant_header_is_checked_after_the_token() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let call = |values: &[&str]| {
        let mut request = app.http.get(format!("{}/api/accounts", app.base)).bearer_auth(&tenant.token);
        for value in values {
            request = request.header("X-Tenant-ID", *value);
        }
        request
    };
    send(call(&[])).await.refused(400, "tenant-required");
    send(call(&[&tenant.slug, &tenant.slug])).await.refused(400, "invalid-tenant");
    send(call(&["No Slug!"])).await.refused(400, "invalid-tenant");
    let mut tx = app.db.tenant(tenant.id).await.unwrap();
    emailclient_core::queue::suspension::suspend(&mut tx).await.unwrap();
    tx.commit().await.unwrap();
    // What a process knows of a tenant may be five seconds old.
    let told = eventually("the suspension is known", Duration::from_secs(15), async || {
        let answer = send(call(&[&tenant.slug])).await;
        (answer.status != 200).then_some(answer)
    })
    .await;
    told.refused(403, "tenant-suspended");
    app.finish().await;
}

#[tokio::test]
async fn parameters_that_cannot_be_read_are_named() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    for (path, code) in [
        ("/api/accounts/not-a-uuid", "invalid-parameter"),
        ("/api/accounts?limit=0", "invalid-parameter"),
        ("/api/accounts?limit=201", "invalid-parameter"),
        ("/api/accounts?limit=x", "invalid-parameter"),
        ("/api/accounts?surprise=1", "invalid-parameter"),
        ("/api/accounts?cursor=garbage", "invalid-cursor"),
        ("/api/sync/search?query=", "invalid-query"),
        ("/api/sync/search?query=a%20OR", "invalid-query"),
        ("/api/sync/search?query=after%3Anever", "invalid-query"),
        ("/api/sync/search?query=%28a", "invalid-query"),
    ] {
        let answer = app.get(&tenant, path).await;
        assert_eq!(answer.status, 400, "{path}: {}", answer.text());
        answer.refused(400, code);
    }
    app.finish().await;
}

#[tokio::test]
async fn bodies_that_are_no_json_are_refused_quickly() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let post = |content_type: &'static str, body: Vec<u8>| {
        app.request(&tenant, "POST", "/api/accounts").header("Content-Type", content_type).body(body)
    };
    for body in [
        b"{".to_vec(),
        b"{\"email\":\"a\",\"email\":\"b\"}".to_vec(),
        b"{\"email\":\"\xff\"}".to_vec(),
        vec![b'['; 100_000],
    ] {
        let start = Instant::now();
        let answer = send(post("application/json", body)).await;
        answer.refused(400, "malformed-json");
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    }
    for content_type in ["text/plain", "application/json; charset=latin1", "application/xml"] {
        send(post(content_type, b"{}".to_vec())).await.refused(415, "unsupported-media-type");
    }
    send(post("application/json", b"{}".to_vec()).header("Content-Encoding", "br"))
        .await
        .refused(415, "unsupported-media-type");
    send(app.request(&tenant, "GET", "/api/accounts").header("Accept", "image/png"))
        .await
        .refused(406, "not-acceptable");
    let large = vec![b' '; 60 * 1024 * 1024];
    send(post("application/json", large)).await.refused(413, "payload-too-large");
    app.finish().await;
}

#[tokio::test]
async fn fields_are_refused_with_their_pointer() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    let good = mail::settings(&app, &user);
    let spoil = |pointer: &str, value: Value| {
        let mut body = good.clone();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        body.pointer_mut(parent).unwrap().as_object_mut().unwrap().insert(name.to_owned(), value);
        body
    };
    for (pointer, value) in [
        ("/imap/port", json!("993")),
        ("/imap/port", Value::Null),
        ("/email", json!(5)),
        ("/name", json!("a\u{0}b")),
        ("/tenant_id", json!("x")),
        ("/role", json!("owner")),
        ("/state", json!("connected")),
        ("/imap/surprise", json!(1)),
    ] {
        let problem =
            app.post(&tenant, "/api/accounts", &spoil(pointer, value)).await.refused(422, "validation-error");
        assert!(
            problem["errors"].as_array().unwrap().iter().any(|e| e["pointer"] == pointer),
            "{pointer}: {problem}"
        );
    }
    let mut body = good.clone();
    body["imap"].as_object_mut().unwrap().remove("host");
    let problem = app.post(&tenant, "/api/accounts", &body).await.refused(422, "validation-error");
    assert!(problem["errors"].as_array().unwrap().iter().any(|e| e["pointer"] == "/imap/host"), "{problem}");
    app.finish().await;
}

#[tokio::test]
async fn hosts_that_are_not_public_are_refused_in_any_spelling() {
    let app = App::start_with(&[("OUTBOUND_ALLOW", "")]).await;
    let tenant = app.tenant().await;
    for host in [
        "127.0.0.1",
        "localhost",
        "10.0.0.1",
        "169.254.169.254",
        "[::1]",
        "::1",
        "0x7f000001",
        "2130706433",
        "127.1",
        "::ffff:127.0.0.1",
    ] {
        let body = json!({"email": "a@example.test",
            "imap": {"host": host, "port": 993, "security": "tls", "username": "u", "password": "p"},
            "smtp": {"host": host, "port": 465, "security": "tls", "username": "u", "password": "p"}});
        let answer = app.post(&tenant, "/api/accounts?verify=false", &body).await;
        assert_eq!(answer.status, 422, "{host}: {}", answer.text());
        let code = answer.json()["code"].clone();
        assert!(
            code == "host-not-allowed" || code == "host-not-found" || code == "validation-error",
            "{host}: {code}"
        );
    }
    let body = json!({"email": "a@example.test",
        "imap": {"host": "mail.example.test", "port": 22, "security": "tls", "username": "u", "password": "p"},
        "smtp": {"host": "mail.example.test", "port": 465, "security": "tls", "username": "u", "password": "p"}});
    app.post(&tenant, "/api/accounts?verify=false", &body).await.refused(422, "port-not-allowed");
    app.finish().await;
}

#[tokio::test]
async fn a_wrong_mailbox_password_is_the_mail_servers_refusal() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    let mut body = mail::settings(&app, &user);
    body["imap"]["password"] = json!("wrong");
    let problem = app.post(&tenant, "/api/accounts", &body).await.refused(422, "upstream-auth-failed");
    assert_eq!(problem["upstream"]["protocol"], "imap");
    assert!(!problem.to_string().contains("wrong\""));
    app.post(&tenant, "/api/accounts", &mail::settings(&app, &user)).await.expect(201);
    app.post(&tenant, "/api/accounts", &mail::settings(&app, &user)).await.refused(409, "account-exists");
    app.finish().await;
}

#[tokio::test]
async fn drafts_refuse_what_would_break_a_header() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    let account = mail::connect(&app, &tenant, &user).await;
    let draft = |more: Value| {
        let mut body = json!({"account_id": account, "to": ["x@lab.test"], "subject": "s", "text": "t"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    for (more, status, code) in [
        (json!({"subject": "a\r\nBcc: x@y.test"}), 422, "invalid-header"),
        (json!({"to": [{"name": "a\r\nb", "address": "x@lab.test"}]}), 422, "invalid-header"),
        (json!({"to": ["x@lab.test\r\nRCPT TO:<y@lab.test>"]}), 422, "invalid-address"),
        (json!({"to": ["no address"]}), 422, "invalid-address"),
        (json!({"headers": [{"name": "DKIM-Signature", "value": "x"}]}), 422, "header-not-allowed"),
        (json!({"from": "someone.else@lab.test"}), 403, "sender-not-allowed"),
    ] {
        let answer = app.post(&tenant, "/api/compose", &draft(more.clone())).await;
        let got = answer.json()["code"].as_str().unwrap_or_default().to_owned();
        let alike = ["invalid-header", "invalid-address"];
        let same = got == code || (alike.contains(&code) && alike.contains(&got.as_str()));
        assert!(answer.status == status && same, "{more}: {} {}", answer.status, answer.text());
    }
    let empty =
        app.post(&tenant, "/api/compose", &json!({"account_id": account, "subject": "s"})).await.expect(201);
    let id = empty["id"].as_str().unwrap();
    app.post(&tenant, &format!("/api/compose/{id}/send"), &json!({})).await.refused(422, "no-recipients");
    let many: Vec<String> = (0..501).map(|n| format!("u{n}@lab.test")).collect();
    let crowd = app.post(&tenant, "/api/compose", &draft(json!({"to": many}))).await;
    let refused = if crowd.status == 201 {
        app.post(&tenant, &format!("/api/compose/{}/send", crowd.json()["id"].as_str().unwrap()), &json!({}))
            .await
    } else {
        crowd
    };
    refused.refused(422, "too-many-recipients");
    let ready = app.post(&tenant, "/api/compose", &draft(json!({}))).await.expect(201);
    let send_path = format!("/api/compose/{}/send", ready["id"].as_str().unwrap());
    for when in ["2001-01-01T00:00:00Z", "2030-01-01T00:00:00"] {
        app.post(&tenant, &send_path, &json!({"send_at": when})).await.refused(422, "invalid-send-at");
    }
    let draft_path = format!("/api/compose/{}", ready["id"].as_str().unwrap());
    send(app.request(&tenant, "PUT", &draft_path).json(&draft(json!({}))))
        .await
        .refused(428, "precondition-required");
    send(app.request(&tenant, "PUT", &draft_path).header("If-Match", "\"stale\"").json(&draft(json!({}))))
        .await
        .refused(412, "precondition-failed");
    app.finish().await;
}

#[tokio::test]
async fn idempotency_keys_replay_and_are_checked() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    let account = mail::connect(&app, &tenant, &user).await;
    let body = json!({"account_id": account, "to": ["x@lab.test"], "subject": "once"});
    let post = |key: &str, body: &Value| {
        app.request(&tenant, "POST", "/api/compose").header("Idempotency-Key", key).json(body)
    };
    let first = send(post("key-1", &body)).await;
    let again = send(post("key-1", &body)).await;
    assert_eq!(first.expect(201)["id"], again.expect(201)["id"]);
    assert_eq!(again.header("idempotency-replayed"), "true");
    let other = json!({"account_id": account, "to": ["x@lab.test"], "subject": "twice"});
    send(post("key-1", &other)).await.refused(422, "idempotency-key-reused");
    for key in [String::new(), "x".repeat(256)] {
        send(post(&key, &body)).await.refused(400, "invalid-idempotency-key");
    }
    let doubled = app
        .request(&tenant, "POST", "/api/compose")
        .header("Idempotency-Key", "a")
        .header("Idempotency-Key", "b")
        .json(&body);
    send(doubled).await.refused(400, "invalid-idempotency-key");
    app.finish().await;
}

#[tokio::test]
async fn a_tenant_over_its_limit_is_told_when_to_come_back() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let mut tx = app.db.tenant(tenant.id).await.unwrap();
    emailclient_core::access::tenant::set_limits(&mut tx, Some(5), Some(0)).await.unwrap();
    tx.commit().await.unwrap();
    // What a process knows of a tenant may be five seconds old.
    eventually("the limit is known", Duration::from_secs(15), async || {
        let answer = app.get(&tenant, "/api/accounts").await;
        answer.header("ratelimit-policy").contains("q=5;").then_some(())
    })
    .await;
    let mut refused = None;
    for _ in 0..8 {
        let answer = app.get(&tenant, "/api/accounts").await;
        assert!(!answer.header("ratelimit").is_empty() && !answer.header("ratelimit-policy").is_empty());
        if answer.status == 429 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("eight requests passed a limit of five");
    refused.refused(429, "rate-limited");
    assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 1);
    app.finish().await;
}

#[tokio::test]
async fn unknown_paths_and_wrong_methods_are_problems_too() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    app.get(&tenant, "/nowhere").await.refused(404, "not-found");
    let wrong = app.delete(&tenant, "/api/accounts").await;
    wrong.refused(405, "method-not-allowed");
    assert!(
        wrong.header("allow").contains("GET") && wrong.header("allow").contains("POST"),
        "{}",
        wrong.header("allow")
    );
    app.get(&tenant, "/api/accounts/verify").await.refused(405, "method-not-allowed");
    app.finish().await;
}
