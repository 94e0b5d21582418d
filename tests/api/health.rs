//! `/health*`, the explorer, and what every answer carries.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor as _};
use tests::app::{App, Tenant, send};
use tests::eventually::eventually;
use tests::mail;
use tests::redis::PrivateRedis;

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

/// What a client does, so that each service has its statements prepared: lists, a search, a draft that is sent.
async fn use_it(app: &App, tenant: &Tenant, account: &str, to: &str, subject: &str) {
    for path in [
        "/api/accounts".to_owned(),
        format!("/api/accounts/{account}/mailboxes"),
        format!("/api/accounts/{account}/messages?role=inbox"),
        format!("/api/accounts/{account}/threads"),
        "/api/sync/search?query=anything".to_owned(),
        "/api/compose".to_owned(),
        format!("/api/sync/status/{account}"),
    ] {
        app.get(tenant, &path).await.expect(200);
    }
    let draft = json!({"account_id": account, "to": [to], "subject": subject, "text": subject});
    let draft = app.post(tenant, "/api/compose", &draft).await.expect(201);
    let path = format!("/api/compose/{}/send", draft["id"].as_str().unwrap());
    let submission = app.post(tenant, &path, &json!({})).await.expect(202);
    let path = format!("/api/submissions/{}", submission["id"].as_str().unwrap());
    eventually("it was sent", Duration::from_secs(60), async || {
        let now = app.get(tenant, &path).await.expect(200);
        assert_ne!(now["state"], "failed", "{now}");
        (now["state"] == "sent" && now["sent_copy"] == "done").then_some(())
    })
    .await;
    let inbox = format!("/api/accounts/{account}/messages?role=inbox");
    eventually("it came back", Duration::from_secs(60), async || {
        let page = app.get(tenant, &inbox).await.expect(200);
        page["data"].as_array().unwrap().iter().any(|m| m["subject"] == subject).then_some(())
    })
    .await;
}

/// During an update the schema is a release ahead of what runs: it has more columns, tables and indexes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_service_goes_on_under_a_newer_schema_and_is_not_ready_under_an_older_one() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let address = mail::new_mailbox(&app);
    let account = mail::connect(&app, &tenant, &address).await;
    mail::synchronise(&app, &tenant, &account).await;
    use_it(&app, &tenant, &account, &address, "before the migration").await;

    let mut conn = app.database.superuser().await;
    let tables: Vec<String> =
        sqlx::query_scalar("SELECT quote_ident(tablename) FROM pg_tables WHERE schemaname = 'public'")
            .fetch_all(&mut conn)
            .await
            .unwrap();
    assert!(tables.len() > 20, "{tables:?}");
    for table in tables.iter().filter(|name| *name != "_sqlx_migrations") {
        let statement = format!("ALTER TABLE {table} ADD COLUMN of_a_later_release text DEFAULT 'new'");
        conn.execute(AssertSqlSafe(statement)).await.unwrap();
    }
    conn.execute(
        "CREATE TABLE of_a_later_release (id bigint); CREATE INDEX later ON messages (tenant_id, of_a_later_release);
         INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (99991231000001, 'of a later release', true, '', 0)",
    )
    .await
    .unwrap();
    let ready = || async { send(app.http.get(format!("{}/health/ready", app.base))).await };
    let health: Value = ready().await.expect(200);
    assert_eq!((&health["status"], &health["checks"]["migrations"]), (&json!("ok"), &json!("ok")));
    use_it(&app, &tenant, &account, &address, "after the migration").await;

    conn.execute("DELETE FROM _sqlx_migrations WHERE version > 20261121000005").await.unwrap();
    let health: Value = ready().await.expect(503);
    assert_eq!((&health["status"], &health["checks"]["migrations"]), (&json!("degraded"), &json!("failed")));
    drop(conn);
    app.finish().await;
}

async fn ready(app: &App) -> (u16, Value) {
    let answer = send(app.http.get(format!("{}/health/ready", app.base))).await;
    (answer.status, answer.json())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_reads_and_does_not_write_is_not_ready_and_is_again_when_it_does() {
    let app = App::start().await;
    let mut conn = app.database.superuser().await;
    let mut set = async |to: &str| {
        // As after a failover, or when nothing is left on the disk: each session that begins now can only read.
        let sql = format!(
            "ALTER DATABASE {name} SET default_transaction_read_only = {to};
             SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}' AND usename LIKE 'emailclient%'",
            name = app.database.name
        );
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut conn).await.unwrap();
    };
    assert_eq!(ready(&app).await.0, 200);
    set("on").await;
    let told = eventually("it says so", Duration::from_secs(25), async || {
        let (status, health) = ready(&app).await;
        (status == 503).then_some(health)
    })
    .await;
    assert_eq!(
        (&told["checks"]["database"], &told["status"]),
        (&json!("failed"), &json!("degraded")),
        "{told}"
    );
    set("off").await;
    eventually("it is ready", Duration::from_secs(25), async || (ready(&app).await.0 == 200).then_some(()))
        .await;
    drop(conn);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_many_ask_a_write_is_tried_once_in_ten_seconds() {
    let app = App::start().await;
    let mut conn = app.database.superuser().await;
    let tries = "SELECT n_tup_ins FROM pg_stat_user_tables WHERE relname = 'write_probe'";
    let asked = futures::future::join_all((0..200).map(|_| ready(&app))).await;
    assert!(asked.iter().all(|(status, _)| *status == 200));
    let tried = eventually("the try is counted", Duration::from_secs(20), async || {
        let tries: i64 = sqlx::query_scalar(tries).fetch_one(&mut conn).await.unwrap();
        (tries > 0).then_some(tries)
    })
    .await;
    assert!(tried <= 2, "{tried} writes");
    drop(conn);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_whose_memory_is_full_is_told_as_failed_and_takes_nothing_away() {
    let redis = PrivateRedis::start(&["--maxmemory-policy", "noeviction"]);
    let app = App::start_with(&[("REDIS_URL", &redis.url())]).await;
    let client = redis::Client::open(redis.url()).unwrap();
    let mut conn = client.get_multiplexed_async_connection().await.unwrap();
    let overview = async || send(app.http.get(format!("{}/health", app.base))).await.expect(200);
    assert_eq!(overview().await["checks"]["redis"], "ok");
    let full = async |conn: &mut redis::aio::MultiplexedConnection, bytes: &str| {
        let () = redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(bytes).query_async(conn).await.unwrap();
    };
    full(&mut conn, "1").await;
    let told = overview().await;
    assert_eq!((&told["checks"]["redis"], &told["status"]), (&json!("failed"), &json!("degraded")), "{told}");
    full(&mut conn, "0").await;
    assert_eq!(overview().await["checks"]["redis"], "ok");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_that_reads_every_table_for_hours_makes_nobody_unready() {
    let app = App::start().await;
    let mut dump = app.database.superuser().await;
    dump.execute("BEGIN; LOCK TABLE write_probe IN ACCESS SHARE MODE").await.unwrap();
    let rows = async || -> i64 {
        let mut conn = app.database.superuser().await;
        sqlx::query_scalar("SELECT count(*) FROM write_probe").fetch_one(&mut conn).await.unwrap()
    };
    eventually("a write was tried beside it", Duration::from_secs(30), async || {
        let (status, health) = ready(&app).await;
        assert_eq!(status, 200, "{health}");
        (rows().await >= 2).then_some(())
    })
    .await;
    dump.execute("COMMIT").await.unwrap();
    eventually("the rows of meanwhile are gone", Duration::from_secs(30), async || {
        assert_eq!(ready(&app).await.0, 200);
        (rows().await == 1).then_some(())
    })
    .await;
    drop(dump);
    app.finish().await;
}
