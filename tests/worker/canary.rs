//! Secrets stay where they belong: unmistakable ones are put in by every door, then everything that is stored or told
//! is searched for them.

use std::time::Duration;

use emailclient_core::access::principal::Role;
use emailclient_core::platform::id::new_uuid;
use futures::TryStreamExt as _;
use serde_json::json;
use sqlx::{AssertSqlSafe, Row as _};
use tests::app::{App, Tenant, send};
use tests::database::Database;
use tests::eventually::eventually;
use tests::mail;
use wire::secret::Secret;

/// All rows of all tables as text, a line each: `(table, row)`. Binary columns are text as far as they are one.
async fn everything_stored(database: &Database) -> Vec<(String, Vec<u8>)> {
    let mut conn = database.superuser().await;
    let columns = sqlx::query(
        "SELECT c.table_name::text AS t, c.column_name::text AS c, c.data_type::text AS k
         FROM information_schema.columns c JOIN information_schema.tables t USING (table_schema, table_name)
         WHERE c.table_schema = 'public' AND t.table_type = 'BASE TABLE'",
    )
    .fetch_all(&mut conn)
    .await
    .unwrap();
    let mut found = Vec::new();
    for column in &columns {
        let get = |name: &str| column.get::<String, _>(name);
        let (table, name) = (get("t"), get("c"));
        let value = if get("k") == "bytea" {
            format!("\"{name}\"")
        } else {
            format!("convert_to(\"{name}\"::text, 'UTF8')")
        };
        let sql = format!("SELECT {value} AS v FROM \"{table}\" WHERE \"{name}\" IS NOT NULL");
        let mut rows = sqlx::query(AssertSqlSafe(sql)).fetch(&mut conn);
        while let Some(row) = rows.try_next().await.unwrap() {
            found.push((format!("{table}.{name}"), row.get::<Vec<u8>, _>("v")));
        }
    }
    found
}

/// All keys of Redis with what they hold.
async fn everything_cached(url: &str) -> Vec<(String, Vec<u8>)> {
    let mut conn = redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
    let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg("*").query_async(&mut conn).await.unwrap();
    let mut found = Vec::new();
    for key in keys {
        let kind: String = redis::cmd("TYPE").arg(&key).query_async(&mut conn).await.unwrap();
        let mut read = redis::cmd(match kind.as_str() {
            "string" => "GET",
            "hash" => "HGETALL",
            "list" => "LRANGE",
            "set" => "SMEMBERS",
            "zset" => "ZRANGE",
            "stream" => "XRANGE",
            // Gone meanwhile.
            _ => continue,
        });
        read.arg(&key);
        match kind.as_str() {
            "list" | "zset" => read.arg(0).arg(-1),
            "stream" => read.arg("-").arg("+"),
            _ => &mut read,
        };
        let value: redis::Value = read.query_async(&mut conn).await.unwrap();
        let name = String::from_utf8_lossy(&key).into_owned();
        let content = format!("{name} {value:?}").into_bytes();
        found.push((name, content));
    }
    found
}

fn contains(hay: &[u8], needle: &str) -> bool {
    hay.windows(needle.len()).any(|w| w == needle.as_bytes())
}

/// Everything that holds one of `canaries` in clear, in base64 or in hexadecimal.
fn sightings(stored: &[(String, Vec<u8>)], canaries: &[(&str, String)]) -> Vec<String> {
    use base64::Engine as _;
    let mut seen = Vec::new();
    for (name, canary) in canaries {
        let mut forms = vec![canary.clone(), hex::encode(canary)];
        // Within a longer text base64 starts at any of three places and its end depends on what follows.
        for shift in 0..3 {
            let mut encoded = base64::engine::general_purpose::STANDARD_NO_PAD.encode(&canary[shift..]);
            encoded.truncate(encoded.len() - 2);
            forms.push(encoded);
        }
        for form in forms {
            let places = stored.iter().filter(|(_, bytes)| contains(bytes, &form));
            seen.extend(places.map(|(place, _)| format!("{name} in {place}")));
        }
    }
    seen
}

async fn person(app: &App, password: &str) -> Tenant {
    let tenant = app.tenant().await;
    let email = format!("canary@{}.test", tenant.slug);
    let hash = emailclient_core::access::password::hash(Secret::new(password)).await.unwrap();
    let mut tx = app.db.tenant(tenant.id).await.unwrap();
    emailclient_core::access::user::create(&mut tx, &email, "A User", Role::Owner, &hash).await.unwrap();
    tx.commit().await.unwrap();
    let login = app.http.post(format!("{}/auth/login", app.base)).header("X-Tenant-ID", &tenant.slug);
    let login = send(login.json(&json!({"email": email, "password": password}))).await.expect(200);
    let text = |name: &str| login[name].as_str().unwrap().to_owned();
    Tenant { email, token: text("access_token"), refresh_token: text("refresh_token"), ..tenant }
}

#[tokio::test]
async fn the_search_itself_finds_a_secret_in_every_form_and_in_every_kind_of_redis_key() {
    use base64::Engine as _;
    let canary = format!("canary-control-{}", new_uuid().simple());
    let canaries = [("it", canary.clone())];
    for before in ["", "x", "xx"] {
        let text = format!("{before}{canary} and more");
        let encoded = base64::engine::general_purpose::STANDARD.encode(&text);
        for form in [text.clone(), encoded, hex::encode(&text)] {
            assert!(
                !sightings(&[("here".to_owned(), form.clone().into_bytes())], &canaries).is_empty(),
                "{form}"
            );
        }
    }
    let url = &devstack::Shared::get().redis_url;
    let mut conn =
        redis::Client::open(url.as_str()).unwrap().get_multiplexed_async_connection().await.unwrap();
    let key = format!("test:{}", new_uuid().simple());
    for write in [
        "SET {k} {v}",
        "HSET {k} f {v}",
        "RPUSH {k} {v}",
        "SADD {k} {v}",
        "ZADD {k} 1 {v}",
        "XADD {k} * f {v}",
    ] {
        let mut words = write.split(' ');
        let mut command = redis::cmd(words.next().unwrap());
        for word in words {
            command.arg(word.replace("{k}", &key).replace("{v}", &canary));
        }
        let _: redis::Value = command.query_async(&mut conn).await.unwrap();
        let seen = sightings(&everything_cached(url).await, &canaries);
        let _: i64 = redis::cmd("DEL").arg(&key).query_async(&mut conn).await.unwrap();
        assert!(!seen.is_empty(), "{write}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_password_or_token_is_stored_cached_or_told() {
    let mut app = tests::provider::start().await;
    app.add_worker();
    app.add_scheduler();
    let canary = |name: &str| format!("canary-{name}-{}", new_uuid().simple());
    let (login, mailbox, wrong) = (canary("login"), canary("mailbox"), canary("wrong"));
    let tenant = person(&app, &login).await;
    let user = format!("u{}@lab.test", new_uuid().simple());
    app.stack.add_mailbox(&user, &mailbox).unwrap();
    mail::fill(
        &app,
        &user,
        "INBOX",
        vec![mail::message("Visible", "v@example.test", "marker-that-is-stored")],
    );
    let mut settings = mail::settings(&app, &user);
    for side in ["imap", "smtp"] {
        settings[side]["password"] = json!(mailbox);
    }
    let mut refused = settings.clone();
    refused["imap"]["password"] = json!(wrong);
    let key = new_uuid().to_string();
    let attempt =
        app.request(&tenant, "POST", "/api/accounts").header("Idempotency-Key", new_uuid().to_string());
    let told_off = send(attempt.json(&refused)).await;
    assert_eq!(told_off.status, 422, "{}", told_off.text());
    let created =
        app.request(&tenant, "POST", "/api/accounts").header("Idempotency-Key", &key).json(&settings);
    let created = send(created).await;
    let account = created.expect(201)["id"].as_str().unwrap().to_owned();
    mail::synchronise(&app, &tenant, &account).await;
    let refreshed = app.http.post(format!("{}/auth/refresh", app.base)).header("X-Tenant-ID", &tenant.slug);
    let refreshed = send(refreshed.json(&json!({"refresh_token": tenant.refresh_token}))).await.expect(200);
    let next_token = refreshed["refresh_token"].as_str().unwrap().to_owned();

    let body = json!({"account_id": account, "to": [&user], "subject": "To myself", "text": "hello"});
    let draft = app.post(&tenant, "/api/compose", &body).await.expect(201);
    let sent =
        app.post(&tenant, &format!("/api/compose/{}/send", draft["id"].as_str().unwrap()), &json!({})).await;
    let submission = format!("/api/submissions/{}", sent.expect(202)["id"].as_str().unwrap());
    eventually("the message was sent", Duration::from_secs(40), async || {
        let now = app.get(&tenant, &submission).await.expect(200);
        (now["state"] == "sent" && now["sent_copy"] == "done").then_some(())
    })
    .await;

    let authority = tests::provider::authority(&app);
    let app_id = tests::provider::named(&app, &tenant, &authority).await;
    let (_, by_token) = tests::provider::connect(&app, &tenant, &app_id).await;
    mail::synchronise(&app, &tenant, &by_token).await;
    let issued = authority.issued();
    assert!(issued.len() >= 3, "a code, an access token, a refresh token");

    let mut canaries = vec![
        ("the user's password", login),
        ("the mailbox's password", mailbox),
        ("a password that was refused", wrong),
        ("a refresh token that was used", tenant.refresh_token.clone()),
        ("a refresh token", next_token),
        ("an access token", tenant.token.clone()),
        ("the secret of an OAuth app", tests::provider::SECRET.to_owned()),
    ];
    canaries.extend(issued.into_iter().map(|token| ("what a provider gave", token.value)));
    let stored = everything_stored(&app.database).await;
    assert!(
        stored.iter().any(|(_, bytes)| contains(bytes, "marker-that-is-stored")),
        "the search sees what is stored"
    );
    assert!(stored.iter().any(|(place, _)| place == "refresh_tokens.token_hash"));
    assert_eq!(sightings(&stored, &canaries), Vec::<String>::new());
    assert_eq!(sightings(&everything_cached(&app.stack.redis_url).await, &canaries), Vec::<String>::new());

    let mut told =
        vec![("the refusal".to_owned(), told_off.bytes), ("the creation".to_owned(), created.bytes)];
    for path in [
        "/api/accounts",
        &format!("/api/accounts/{account}"),
        &format!("/api/accounts/{by_token}"),
        "/api/oauth/apps",
        &format!("/api/sync/status/{account}"),
        &submission,
        "/auth/me",
        "/openapi.json",
        "/health/ready",
    ] {
        let answer = app.get(&tenant, path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        told.push((path.to_owned(), answer.bytes));
    }
    assert_eq!(sightings(&told, &canaries), Vec::<String>::new());
    app.finish().await;
}
