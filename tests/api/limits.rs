//! The table of limits in `docs/api.md`: what is at its limit passes, one byte more is refused at its pointer.

use std::time::Duration;

use emailclient_api::ratelimit::{Bucket, Limiter};
use serde_json::{Value, json};
use tests::app::{App, send};
use tests::eventually::eventually;
use tests::mail;
use tests::redis::PrivateRedis;
use wire::secret::Secret;

/// Sets `pointer` in `body`, making objects on the way.
fn with(body: &Value, pointer: &str, value: Value) -> Value {
    let mut body = body.clone();
    let mut at = &mut body;
    for name in pointer.trim_start_matches('/').split('/') {
        at = match at {
            Value::Array(list) => &mut list[name.parse::<usize>().unwrap()],
            object => &mut object[name],
        };
    }
    *at = value;
    body
}

fn pointed_at(problem: &Value, pointer: &str, code: &str) {
    let errors = problem["errors"].as_array().unwrap();
    assert!(
        errors.iter().any(|e| e["pointer"] == pointer && e["code"] == code),
        "{pointer} {code}: {problem}"
    );
}

fn text(length: usize) -> Value {
    json!("x".repeat(length))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_texts_of_an_account_have_limits() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    let mut good = mail::settings(&app, &user);
    good["identities"] = json!([{"email": user, "name": "", "signature_text": "", "signature_html": ""}]);
    let create = "/api/accounts?verify=false";
    for (pointer, limit) in [
        ("/name", 200),
        ("/imap/host", 253),
        ("/imap/username", 512),
        ("/imap/password", 1024),
        ("/smtp/host", 253),
        ("/smtp/username", 512),
        ("/smtp/password", 1024),
        ("/identities/0/name", 200),
        ("/identities/0/signature_text", 65536),
        ("/identities/0/signature_html", 65536),
    ] {
        let over = app.post(&tenant, create, &with(&good, pointer, text(limit + 1))).await;
        pointed_at(&over.refused(422, "validation-error"), pointer, "too-long");
        // Passwords of one user are not tried as often as here.
        let mut at = with(&good, pointer, text(limit));
        for server in ["imap", "smtp"] {
            if pointer != format!("/{server}/username") {
                at[server]["username"] = json!(emailclient_core::platform::id::new_uuid());
            }
        }
        let at = app.post(&tenant, create, &at).await;
        if at.status == 201 {
            app.delete(&tenant, &format!("/api/accounts/{}", at.json()["id"].as_str().unwrap())).await;
        } else {
            assert!(!at.text().contains("too-long"), "{pointer}: {}", at.text());
        }
    }
    let crowd = vec![json!({"email": "x@lab.test"}); 101];
    let problem = app.post(&tenant, create, &with(&good, "/identities", json!(crowd))).await;
    pointed_at(&problem.refused(422, "validation-error"), "/identities", "too-many");
    app.post(&tenant, create, &with(&good, "/email", json!(format!("{}@lab.test", "x".repeat(300)))))
        .await
        .refused(422, "invalid-address");
    // PATCH judges what it is given in the same way.
    let id = app.post(&tenant, create, &good).await.expect(201)["id"].as_str().unwrap().to_owned();
    let path = format!("/api/accounts/{id}?verify=false");
    let problem = app.patch(&tenant, &path, &json!({"smtp": {"host": text(254)}})).await;
    pointed_at(&problem.refused(422, "validation-error"), "/smtp/host", "too-long");
    let long = json!({"name": text(300)});
    pointed_at(
        &app.post(&tenant, &format!("/api/accounts/{id}/mailboxes"), &long)
            .await
            .refused(422, "validation-error"),
        "/name",
        "invalid",
    );
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_texts_of_a_draft_have_limits() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    let account = mail::connect(&app, &tenant, &user).await;
    let good = json!({"account_id": account, "subject": "", "headers": [{"name": "X-A", "value": "1"}]});
    // Words short enough to be folded.
    let value = |length: usize| {
        json!(format!("{}x", "word ".repeat(length)).get(..length - 1).unwrap().to_owned() + "x")
    };
    for (pointer, ok, over) in [
        ("/subject", text(998), text(999)),
        ("/subject", json!("ü".repeat(499)), json!("ü".repeat(500))),
        ("/headers/0/value", value(8192), value(8193)),
        ("/headers/0/name", json!(format!("X-{}", "a".repeat(98))), json!(format!("X-{}", "a".repeat(99)))),
    ] {
        app.post(&tenant, "/api/compose", &with(&good, pointer, ok)).await.expect(201);
        for path in ["/api/compose", "/api/compose/draft"] {
            let problem = app.post(&tenant, path, &with(&good, pointer, over.clone())).await;
            pointed_at(&problem.refused(422, "validation-error"), pointer, "too-long");
        }
    }
    let object = with(&good, "/headers", json!({"X-A/b": "1", "X-B": text(9000)}));
    let problem = app.post(&tenant, "/api/compose", &object).await;
    pointed_at(&problem.refused(422, "validation-error"), "/headers/X-B", "too-long");
    for (field, one, most) in [
        ("headers", json!({"name": "X-A", "value": "1"}), 100),
        ("to", json!("a@lab.test"), 1000),
        ("bcc", json!("a@lab.test"), 1000),
    ] {
        let list = |count: usize| {
            let mut body = good.clone();
            body[field] = json!(vec![one.clone(); count]);
            body
        };
        app.post(&tenant, "/api/compose", &list(most)).await.expect(201);
        let problem = app.post(&tenant, "/api/compose", &list(most + 1)).await;
        pointed_at(&problem.refused(422, "validation-error"), &format!("/{field}"), "too-many");
    }
    let draft = app.post(&tenant, "/api/compose", &good).await;
    let path = format!("/api/compose/{}", draft.expect(201)["id"].as_str().unwrap());
    let put = app.request(&tenant, "PUT", &path).header("If-Match", draft.header("etag"));
    let problem = send(put.json(&with(&good, "/subject", text(999)))).await.refused(422, "validation-error");
    pointed_at(&problem, "/subject", "too-long");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logins_tokens_searches_and_parameters_have_limits() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    for (field, limit) in [("email", 254), ("password", 1024)] {
        let mut body = json!({"email": "a@lab.test", "password": "x", "tenant": tenant.slug});
        for (length, status, code) in
            [(limit, 401, "invalid-credentials"), (limit + 1, 422, "validation-error")]
        {
            body[field] = text(length);
            let problem = send(app.http.post(format!("{}/auth/login", app.base)).json(&body)).await;
            let problem = problem.refused(status, code);
            if status == 422 {
                pointed_at(&problem, &format!("/{field}"), "too-long");
            }
        }
    }
    let refresh = |length: usize| {
        send(
            app.http.post(format!("{}/auth/refresh", app.base)).json(&json!({"refresh_token": text(length)})),
        )
    };
    refresh(512).await.refused(401, "invalid-token");
    pointed_at(&refresh(513).await.refused(422, "validation-error"), "/refresh_token", "too-long");
    let search = async |query: String| app.get(&tenant, &format!("/api/sync/search?query={query}")).await;
    search("x".repeat(2000)).await.expect(200);
    search("x".repeat(2001)).await.refused(400, "invalid-query");
    search("x".repeat(16 * 1024 + 1)).await.refused(400, "invalid-parameter");
    app.get(&tenant, &format!("/api/accounts?cursor={}", "x".repeat(17 * 1024)))
        .await
        .refused(400, "invalid-parameter");
    app.finish().await;
}

/// A bucket as it was left before the clock was set back by an hour.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_bucket_refills_from_now_on_when_the_clock_of_redis_was_set_back() {
    let redis = PrivateRedis::start(&["--maxmemory-policy", "noeviction"]);
    let limiter =
        Limiter::new(emailclient_core::platform::redis_pool::connect(&Secret::new(redis.url())).unwrap());
    let window = Duration::from_secs(20);
    let buckets = [Bucket { key: "k".to_owned(), name: "minute", quota: 20, window }];
    let client = redis::Client::open(redis.url()).unwrap();
    let mut conn = client.get_multiplexed_async_connection().await.unwrap();
    let (seconds, _): (i64, i64) = redis::cmd("TIME").query_async(&mut conn).await.unwrap();
    let ahead = (seconds + 3600) * 1000;
    let () = redis::cmd("HSET")
        .arg("limit:k")
        .arg("v")
        .arg("0")
        .arg("t")
        .arg(ahead)
        .query_async(&mut conn)
        .await
        .unwrap();
    let () = redis::cmd("PEXPIREAT").arg("limit:k").arg(ahead + 21_000).query_async(&mut conn).await.unwrap();
    let refused = limiter.take(&buckets).await;
    assert!(!refused.allowed && refused.retry_after <= Duration::from_secs(1), "{refused:?}");
    eventually("a token is there again", Duration::from_secs(10), async || {
        limiter.take(&buckets).await.allowed.then_some(())
    })
    .await;
    let lives: i64 = redis::cmd("PTTL").arg("limit:k").query_async(&mut conn).await.unwrap();
    assert!((1..=21_000).contains(&lives), "{lives} ms");
}
