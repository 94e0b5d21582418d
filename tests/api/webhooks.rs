//! Webhooks as clients make and read them. How events reach them: `worker/webhooks.rs`.

use std::io::Write as _;
use std::process::{Command, Stdio};

use chrono::TimeDelta;
use emailclient_core::domain::account::keys;
use emailclient_core::events::webhook::secret;
use emailclient_core::platform::clock::{Clock as _, SystemClock};
use emailclient_core::platform::id::{AccountId, WebhookId};
use emailclient_core::platform::seal::Keyring;
use serde_json::{Value, json};
use tests::app::{Answer, App, Tenant, send};
use tests::python;
use tests::sink::{Answer as Said, Received, Sink, TAKEN};
use tests::tls::{Authority, Fault};
use wire::secret::Secret;

const PATH: &str = "/api/webhooks";

/// One at this address: its id and its secret.
async fn made(app: &App, tenant: &Tenant, url: &str) -> (String, String) {
    let made = app.post(tenant, PATH, &json!({ "url": url })).await.expect(201);
    (made["id"].as_str().unwrap().to_owned(), made["secret"].as_str().unwrap().to_owned())
}

async fn account(app: &App, tenant: &Tenant, email: &str) -> String {
    let server =
        json!({"host": "localhost", "port": 9, "security": "tls", "username": "me", "password": "pw"});
    let body = json!({"email": email, "imap": server, "smtp": server});
    let made = app.post(tenant, "/api/accounts?verify=false", &body).await.expect(201);
    made["id"].as_str().unwrap().to_owned()
}

#[track_caller]
fn pointed_at(answer: &Answer, pointer: &str, code: &str) {
    let told = answer.refused(422, "validation-error");
    let found = told["errors"].as_array().unwrap();
    assert!(found.iter().any(|e| e["pointer"] == pointer && e["code"] == code), "{pointer} {code}: {told}");
}

#[tokio::test]
async fn a_webhook_is_made_read_changed_and_removed_and_each_leaves_its_line() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let account = account(&app, &tenant, "me@lab.test").await;
    let body = json!({"url": "https://localhost:4/hook?a=b", "types": ["message.created"], "account_ids": [account],
        "description": "mine", "include": "ids", "backfill": true});
    let answer = app.post(&tenant, PATH, &body).await;
    let made = answer.expect(201);
    let id = made["id"].as_str().unwrap();
    let at = format!("{PATH}/{id}");
    assert_eq!(answer.header("location"), at);
    for (field, value) in body.as_object().unwrap() {
        assert_eq!(&made[field], value, "{field}");
    }
    assert_eq!(
        (&made["state"], &made["cause"], &made["replaying"]),
        (&json!("enabled"), &Value::Null, &json!(false))
    );
    assert!(made["secret"].as_str().unwrap().starts_with("whsec_"));
    let read = app.get(&tenant, &at).await;
    let tag = read.header("etag");
    let mut told = made.clone();
    told.as_object_mut().unwrap().remove("secret");
    assert_eq!(read.expect(200), told, "the secret is told once");
    assert_eq!(app.get(&tenant, PATH).await.expect(200)["data"], json!([told]));

    let change =
        json!({"types": [], "account_ids": [], "description": "", "include": "summary", "backfill": false});
    let patch = |tag: &str| send(app.request(&tenant, "PATCH", &at).header("If-Match", tag).json(&change));
    patch("\"other\"").await.refused(412, "precondition-failed");
    let changed = patch(&tag).await;
    for (field, value) in change.as_object().unwrap() {
        assert_eq!(&changed.expect(200)[field], value, "{field}");
    }
    assert_eq!(changed.expect(200)["url"], body["url"]);
    assert_ne!(changed.header("etag"), tag);
    patch(&tag).await.refused(412, "precondition-failed");

    app.delete(&tenant, &at).await.expect(204);
    app.get(&tenant, &at).await.refused(404, "not-found");
    let lines: Vec<(String, Option<String>)> = sqlx::query_as(
        "SELECT action, target FROM audit_log WHERE action LIKE 'webhook.%' AND result = 'ok' ORDER BY id",
    )
    .fetch_all(&app.behind)
    .await
    .unwrap();
    let line = |action: &str| (action.to_owned(), Some(id.to_owned()));
    assert_eq!(lines, ["webhook.create", "webhook.update", "webhook.delete"].map(line));
    app.finish().await;
}

#[tokio::test]
async fn what_cannot_be_a_webhook_is_refused_at_its_pointer() {
    let app = App::start_with(&[("OUTBOUND_ALLOW", "localhost:4")]).await;
    let tenant = app.tenant().await;
    let good = json!({"url": "https://localhost:4/hook"});
    let kept = app.post(&tenant, PATH, &good).await.expect(201);
    let at = format!("{PATH}/{}", kept["id"].as_str().unwrap());
    let long = format!("https://localhost:4/{}", "x".repeat(2048));
    for (field, value, pointer, code) in [
        ("url", json!("localhost:4"), "/url", "https-required"),
        ("url", json!("/hook"), "/url", "invalid"),
        ("url", json!("https://localhost:4/a b"), "/url", "invalid"),
        ("url", json!(long), "/url", "too-long"),
        ("url", json!("ftp://localhost:4/"), "/url", "https-required"),
        ("url", json!("https://me:pw@localhost:4/"), "/url", "credentials"),
        ("url", json!("https://localhost:4/#here"), "/url", "fragment"),
        ("url", json!("http://1.1.1.1/"), "/url", "https-required"),
        ("url", json!("https://1.1.1.1:993/"), "/url", "port-not-allowed"),
        ("url", json!("https://127.0.0.1/"), "/url", "host-not-allowed"),
        ("url", json!("https://10.0.0.1:8443/"), "/url", "host-not-allowed"),
        ("url", json!("https://[::1]/"), "/url", "host-not-allowed"),
        ("url", json!("https://localhost/"), "/url", "host-not-allowed"),
        ("url", json!("https://no.such.host.invalid/"), "/url", "host-not-found"),
        ("url", json!(7), "/url", "wrong-type"),
        ("types", json!(["message.created", "message.eaten"]), "/types/1", "unknown"),
        ("types", json!(["webhook.test"]), "/types/0", "unknown"),
        ("types", json!(vec!["message.created"; 101]), "/types", "too-many"),
        ("types", json!("message.created"), "/types", "wrong-type"),
        ("account_ids", json!([uuid::Uuid::nil()]), "/account_ids/0", "unknown"),
        ("account_ids", json!(["x"]), "/account_ids/0", "invalid"),
        ("description", json!("x".repeat(501)), "/description", "too-long"),
        ("include", json!("all"), "/include", "invalid"),
        ("backfill", json!("yes"), "/backfill", "wrong-type"),
        ("secret", json!("whsec_mine"), "/secret", "unknown-field"),
    ] {
        let mut body = good.clone();
        body[field] = value.clone();
        pointed_at(&app.post(&tenant, PATH, &body).await, pointer, code);
        pointed_at(&app.patch(&tenant, &at, &json!({ field: value })).await, pointer, code);
    }
    pointed_at(&app.post(&tenant, PATH, &json!({})).await, "/url", "missing");
    let now = app.get(&tenant, &at).await.expect(200);
    assert_eq!((&now["url"], &now["updated_at"]), (&good["url"], &kept["updated_at"]));
    app.finish().await;
}

#[tokio::test]
async fn a_tenant_has_fifty_webhooks_at_most_and_another_one_its_own() {
    let app = App::start().await;
    let (tenant, other) = (app.tenant().await, app.tenant().await);
    let body = json!({"url": "https://localhost:4/hook"});
    let all = futures::future::join_all((0..53).map(|_| app.post(&tenant, PATH, &body))).await;
    assert_eq!(all.iter().filter(|answer| answer.status == 201).count(), 50);
    for refused in all.iter().filter(|answer| answer.status != 201) {
        pointed_at(refused, "", "too-many");
    }
    app.post(&other, PATH, &body).await.expect(201);
    let page = app.get(&tenant, &format!("{PATH}?limit=30")).await.expect(200);
    let next = app
        .get(&tenant, &format!("{PATH}?limit=30&cursor={}", page["next_cursor"].as_str().unwrap()))
        .await
        .expect(200);
    assert_eq!((page["data"].as_array().unwrap().len(), next["data"].as_array().unwrap().len()), (30, 20));
    app.finish().await;
}

#[tokio::test]
async fn a_secret_is_told_once_even_to_who_repeats_the_request_and_lies_sealed() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let keyed = async |path: &str, body: Value| {
        send(app.request(&tenant, "POST", path).header("Idempotency-Key", "once").json(&body)).await
    };
    let body = json!({"url": "https://localhost:4/hook"});
    let (first, again) = (keyed(PATH, body.clone()).await, keyed(PATH, body).await);
    let (first, again) = (first.expect(201), again.expect(201));
    assert_eq!((&again["id"], &again["secret"]), (&first["id"], &Value::Null));
    let rotate = format!("{PATH}/{}/secret/rotate", first["id"].as_str().unwrap());
    let (other, repeated) =
        (keyed(&rotate, json!({})).await.expect(200), keyed(&rotate, json!({})).await.expect(200));
    assert_ne!(other["secret"], first["secret"]);
    assert_eq!(repeated["secret"], Value::Null);
    assert!(other["previous_secret_until"].is_string());
    let dump: String = sqlx::query_scalar(
        "SELECT string_agg(t, ' ') FROM (SELECT w::text AS t FROM webhooks w UNION ALL SELECT encode(body, 'escape') FROM idempotency_keys
         UNION ALL SELECT l::text FROM audit_log l UNION ALL SELECT e::text FROM events e) s",
    )
    .fetch_one(&app.behind)
    .await
    .unwrap();
    for secret in [&first["secret"], &other["secret"]] {
        let secret = secret.as_str().unwrap().trim_start_matches("whsec_");
        assert!(!dump.contains(secret) && !dump.contains(&hex::encode(secret)), "a secret lies open");
    }
    app.finish().await;
}

#[tokio::test]
async fn keys_rotate_seals_secrets_anew() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let (id, first) = made(&app, &tenant, "https://localhost:4/hook").await;
    let second = app.post(&tenant, &format!("{PATH}/{id}/secret/rotate"), &json!({})).await.expect(200);
    let key = |byte: u8| {
        Secret::new(base64::Engine::encode(&base64::engine::general_purpose::STANDARD, [byte; 32]))
    };
    let both = Keyring::new(&key(8), &[key(7)]).unwrap();
    let done = keys::rotate(&app.db, &both, "emailctl:test").await.unwrap();
    assert!(done.is_whole() && done.sealed.values().sum::<i64>() == 2, "{done:?}");
    let survey = keys::survey(&app.db, &both, std::time::Duration::from_secs(9)).await.unwrap();
    assert_eq!((survey.known.len(), survey.known.get(both.current_id())), (1, Some(&2)));
    let alone = Keyring::new(&key(8), &[]).unwrap();
    let mut tx = app.db.tenant(tenant.id).await.unwrap();
    let id: WebhookId = id.parse().unwrap();
    let opened = secret::stored(&mut tx, id).await.unwrap().open(&alone, SystemClock.now()).unwrap();
    tx.release();
    assert_eq!(opened.current.expose(), second["secret"].as_str().unwrap());
    assert_eq!(opened.previous.unwrap().0.expose(), first);
    app.finish().await;
}

/// What the official library for Python makes of a request, with this body, id and stamp.
fn official(secret: &str, request: &Received, changed: Option<(&str, String)>) -> bool {
    const PROGRAM: &str = "import json, sys
from standardwebhooks.webhooks import Webhook, WebhookVerificationError
asked = json.load(sys.stdin)
try:
    Webhook(asked['secret']).verify(asked['body'], asked['headers'])
    print('good')
except WebhookVerificationError as error:
    print('bad', error)
";
    let mut headers = json!({});
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        headers[name] = json!(request.field(name));
    }
    let mut asked = json!({"secret": secret, "body": request.body, "headers": headers});
    if let Some((name, value)) = changed {
        *asked.pointer_mut(name).unwrap() = json!(value);
    }
    let mut child = Command::new(python::with_library("standardwebhooks", "1.1.0"))
        .args(["-c", PROGRAM])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(asked.to_string().as_bytes()).unwrap();
    let done = child.wait_with_output().unwrap();
    let said = String::from_utf8(done.stdout).unwrap();
    assert!(done.status.success() && (said.starts_with("good") || said.starts_with("bad")), "{said}");
    said.starts_with("good")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signatures_hold_for_the_official_library_and_for_nothing_that_was_changed() {
    let authority = Authority::new();
    let app = App::start_with(&[("TLS_EXTRA_CA_FILE", authority.file.to_str().unwrap())]).await;
    let tenant = app.tenant().await;
    let sink = Sink::behind_tls(&authority, Fault::None, |_| TAKEN).await;
    let (id, secret) = made(&app, &tenant, &sink.url()).await;
    let test = format!("{PATH}/{id}/test");
    let told = app.post(&tenant, &test, &json!({})).await.expect(200);
    let request = sink.got(1).await.remove(0);
    assert_eq!(
        (&told["delivered"], &told["status"], &told["error"]),
        (&json!(true), &json!(204), &Value::Null)
    );
    assert_eq!(told["event_id"], request.id());
    assert_eq!(request.line, "POST /hook HTTP/1.1");
    assert_eq!(request.field("content-type"), "application/json");
    assert!(request.field("user-agent").starts_with("emailclient/"));
    let body = request.json();
    assert_eq!((&body["type"], &body["data"]["webhook_id"]), (&json!("webhook.test"), &json!(id)));
    assert_eq!(body.as_object().unwrap().keys().collect::<Vec<_>>(), ["data", "timestamp", "type"]);
    assert!(request.is_signed_with(&secret) && official(&secret, &request, None));
    let old = SystemClock.now() - TimeDelta::minutes(6);
    for (what, value) in [
        ("/body", request.body.replace("webhook.test", "webhook.best")),
        ("/headers/webhook-id", format!("{}x", request.id())),
        ("/headers/webhook-timestamp", old.timestamp().to_string()),
        ("/headers/webhook-signature", "v1,AAAA".to_owned()),
    ] {
        assert!(!official(&secret, &request, Some((what, value))), "{what}");
    }
    // Signed in time and read too late.
    let sealed = secret_of(&app, &tenant, &id).await;
    let mut late = request.clone();
    late.fields.insert("webhook-timestamp".to_owned(), old.timestamp().to_string());
    let signature = sealed.sign(late.id(), old, late.body.as_bytes());
    late.fields.insert("webhook-signature".to_owned(), signature);
    assert!(late.is_signed_with(&secret) && !official(&secret, &late, None));

    let other = app.post(&tenant, &format!("{PATH}/{id}/secret/rotate"), &json!({})).await.expect(200);
    let other = other["secret"].as_str().unwrap();
    app.post(&tenant, &test, &json!({})).await.expect(200);
    let request = sink.got(2).await.remove(1);
    assert_eq!(request.field("webhook-signature").split(' ').count(), 2);
    assert!(request.is_signed_with(&secret) && request.is_signed_with(other));
    assert!(official(&secret, &request, None) && official(other, &request, None));

    // Had that answer been lost, the receiver would know the first one alone.
    let third = app.post(&tenant, &format!("{PATH}/{id}/secret/rotate"), &json!({})).await.expect(200);
    app.post(&tenant, &test, &json!({})).await.expect(200);
    let request = sink.got(3).await.remove(2);
    for known in [&secret, other, third["secret"].as_str().unwrap()] {
        assert!(request.is_signed_with(known) && official(known, &request, None));
    }
    // Another secret is the way out when those that are stored cannot be opened.
    sqlx::query("UPDATE webhooks SET secret_key = 'lost', previous_secret_key = 'lost'")
        .execute(&app.behind)
        .await
        .unwrap();
    let fourth = app.post(&tenant, &format!("{PATH}/{id}/secret/rotate"), &json!({})).await.expect(200);
    assert_eq!(fourth["previous_secret_until"], Value::Null);
    app.post(&tenant, &test, &json!({})).await.expect(200);
    assert!(sink.got(4).await.remove(3).is_signed_with(fourth["secret"].as_str().unwrap()));
    app.finish().await;
}

async fn secret_of(app: &App, tenant: &Tenant, id: &str) -> secret::Secrets {
    let keyring = Keyring::new(&app.config().encryption_key, &[]).unwrap();
    let mut tx = app.db.tenant(tenant.id).await.unwrap();
    let stored = secret::stored(&mut tx, id.parse().unwrap()).await.unwrap();
    tx.release();
    stored.open(&keyring, SystemClock.now()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_tells_what_came_of_it() {
    let authority = Authority::new();
    let app = App::start_with(&[("TLS_EXTRA_CA_FILE", authority.file.to_str().unwrap())]).await;
    let tenant = app.tenant().await;
    let sink = Sink::plain(|_| TAKEN).await;
    let (id, _) = made(&app, &tenant, &sink.url()).await;
    let test = format!("{PATH}/{id}/test");
    for (answer, status, error) in [
        (Said::Status(500, ""), json!(500), json!("status-500")),
        (Said::Status(404, ""), json!(404), json!("status-404")),
        (Said::Status(302, "location: http://127.0.0.1:1/\r\n"), json!(302), json!("status-302")),
        (Said::HangUp, Value::Null, json!("upstream-closed")),
        (Said::Endless, json!(200), Value::Null),
    ] {
        sink.answer(move |_| answer.clone());
        let told = app.post(&tenant, &test, &json!({})).await.expect(200);
        assert_eq!((&told["status"], &told["error"]), (&status, &error));
        assert_eq!(told["delivered"], error.is_null());
    }
    for (fault, error) in [(Fault::Expired, "tls-certificate"), (Fault::OtherName, "tls-certificate")] {
        let sink = Sink::behind_tls(&authority, fault, |_| TAKEN).await;
        app.patch(&tenant, &format!("{PATH}/{id}"), &json!({"url": sink.url()})).await.expect(200);
        let told = app.post(&tenant, &test, &json!({})).await.expect(200);
        assert_eq!((&told["status"], &told["error"]), (&Value::Null, &json!(error)));
        assert_eq!(sink.all().len(), 0);
    }
    let state = app.get(&tenant, &format!("{PATH}/{id}")).await.expect(200);
    assert_eq!((&state["state"], &state["delivered"]), (&json!("enabled"), &json!(0)));
    app.finish().await;
}

#[tokio::test]
async fn a_replay_of_what_there_is_not_is_refused_at_its_pointer() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let (id, _) = made(&app, &tenant, "https://localhost:4/hook").await;
    let at = format!("{PATH}/{id}/replay");
    let ago = |time: TimeDelta| (SystemClock.now() - time).to_rfc3339();
    let hour = ago(TimeDelta::hours(1));
    for (body, pointer, code) in [
        (json!({"since": ago(TimeDelta::days(31))}), "/since", "too-old"),
        (json!({"since": "yesterday"}), "/since", "invalid"),
        (json!({}), "/since", "missing"),
        (json!({"since": hour, "until": ago(TimeDelta::hours(2))}), "/until", "invalid"),
        (json!({"since": (SystemClock.now() + TimeDelta::hours(1)).to_rfc3339()}), "/until", "invalid"),
        (json!({"since": hour, "types": ["message.eaten"]}), "/types/0", "unknown"),
    ] {
        pointed_at(&app.post(&tenant, &at, &body).await, pointer, code);
    }
    // A log that was cut off.
    account(&app, &tenant, "me@lab.test").await;
    sqlx::query("UPDATE tenant_streams SET oldest = position + 1").execute(&app.behind).await.unwrap();
    pointed_at(&app.post(&tenant, &at, &json!({"since": hour})).await, "/since", "too-old");
    sqlx::query("UPDATE tenant_streams SET oldest = 1").execute(&app.behind).await.unwrap();
    assert_eq!(app.post(&tenant, &at, &json!({"since": hour})).await.expect(202)["replaying"], true);
    app.post(&tenant, &at, &json!({"since": hour})).await.refused(409, "replay-running");
    sqlx::query("UPDATE webhooks SET state = 'disabled'").execute(&app.behind).await.unwrap();
    app.post(&tenant, &at, &json!({"since": hour})).await.refused(409, "webhook-disabled");
    app.finish().await;
}

#[tokio::test]
async fn deliveries_come_in_pages_by_state_and_those_of_a_week_ago_not_at_all() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let (id, _) = made(&app, &tenant, "https://localhost:4/hook").await;
    sqlx::query(
        "INSERT INTO webhook_deliveries (tenant_id, id, webhook_id, position, replay, account_id, kind, event_at, state, updated_at)
         SELECT $1, ('01890000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, $2::uuid, n, false, $3, 'draft.created', now(),
           CASE WHEN n % 2 = 0 THEN 'failed' ELSE 'delivered' END, now() - CASE WHEN n = 10 THEN interval '8 days' ELSE '0' END
         FROM generate_series(1, 10) n",
    )
    .bind(tenant.id)
    .bind(&id)
    .bind(AccountId::new())
    .execute(&app.behind)
    .await
    .unwrap();
    let at = format!("{PATH}/{id}/deliveries");
    let page = async |query: &str| app.get(&tenant, &format!("{at}?{query}")).await.expect(200);
    let ids = |page: &Value| {
        let all = page["data"].as_array().unwrap().iter();
        all.map(|d| d["id"].as_str().unwrap().trim_start_matches("01890000-0000-7000-8000-").parse().unwrap())
            .collect::<Vec<u32>>()
    };
    assert_eq!(ids(&page("").await), [9, 8, 7, 6, 5, 4, 3, 2, 1]);
    let first = page("state=failed&limit=3").await;
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = page(&format!("state=failed&limit=3&cursor={cursor}")).await;
    assert_eq!((ids(&first), ids(&second)), (vec![8, 6, 4], vec![2]));
    app.get(&tenant, &format!("{at}?state=delivered&cursor={cursor}")).await.refused(400, "invalid-cursor");
    app.get(&tenant, &format!("{at}?state=lost")).await.refused(400, "invalid-parameter");
    let row = &first["data"][0];
    assert_eq!(
        (&row["state"], &row["type"], &row["replay"]),
        (&json!("failed"), &json!("draft.created"), &json!(false))
    );
    let retry = format!("{at}/{}/retry", row["id"].as_str().unwrap());
    assert_eq!(app.post(&tenant, &retry, &json!({})).await.expect(202)["state"], "waiting");
    app.post(&tenant, &format!("{at}/{}/retry", uuid::Uuid::nil()), &json!({}))
        .await
        .refused(404, "not-found");
    app.finish().await;
}
