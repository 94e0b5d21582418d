//! A service whose settings or surroundings are wrong says which and how to mend it, and ends with a status that says
//! whether a restart may help.

use sqlx::Executor as _;
use tests::database::Database;
use tests::eventually::eventually;
use tests::redis::PrivateRedis;

use super::program::{Folder, Settings};

const SERVICES: [&str; 3] = ["emailclient-api", "emailclient-worker", "emailclient-scheduler"];

/// Starts each service, which must refuse with `code` and with one line for each of `lines` that has all its parts.
#[track_caller]
fn all_refuse(settings: &Settings, code: i32, lines: &[&[&str]]) {
    let settings = settings.clone().with("API_LISTEN", "127.0.0.1:0");
    for service in SERVICES {
        let ended = settings.refused(service);
        assert_eq!(ended.code, Some(code), "{service}: {ended:?}");
        let said: Vec<&str> = ended.err.lines().collect();
        // The scheduler neither signs nor opens anything.
        let spared =
            |parts: &&&[&str]| service != "emailclient-scheduler" || !parts[0].ends_with(": missing");
        let lines: Vec<&&[&str]> = lines.iter().filter(spared).collect();
        assert_eq!(said.len(), lines.len(), "{service}: {ended:?}");
        for parts in lines {
            let whole = |line: &&&str| parts.iter().all(|part| line.contains(part));
            assert_eq!(said.iter().filter(whole).count(), 1, "{service}: {parts:?} in {}", ended.err);
        }
        assert!(said.iter().all(|line| line.starts_with(&format!("{service}: "))), "{}", ended.err);
        for bad in ["panicked", "hunter2", "Error:", "\u{1b}"] {
            assert!(!ended.err.contains(bad), "{service} says {bad:?}: {}", ended.err);
        }
    }
}

#[tokio::test]
async fn missing_and_weak_secrets_are_all_named_by_every_service() {
    let database = Database::create().await;
    let settings = Settings::of(&database)
        .with("JWT_SECRET", "hunter2")
        .with("ENCRYPTION_KEY", "")
        .with("DATABASE_SYSTEM_URL", "postgres://emailclient_system:change-me@db/mail");
    let lines: [&[&str]; 3] = [
        &["JWT_SECRET: 7 bytes, at least 32", "openssl rand"],
        &["ENCRYPTION_KEY: missing", "ENCRYPTION_KEY_FILE"],
        &["DATABASE_SYSTEM_URL: still the sample value"],
    ];
    all_refuse(&settings, 78, &lines);
    let settings =
        Settings::of(&database).with("ENCRYPTION_KEY", "hunter2 hunter2 hunter2 hunter2 hunter2 hunter2");
    all_refuse(&settings, 78, &[&["ENCRYPTION_KEY", "32 bytes in base64", "openssl rand"]]);
    database.drop_it().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_scheduler_runs_without_the_keys_and_the_others_do_not() {
    let database = Database::create().await;
    let folder = Folder::new();
    let settings = Settings::of(&database)
        .with("JWT_SECRET", "")
        .with("ENCRYPTION_KEY", "")
        .with("HEARTBEAT_DIR", &folder.file("."));
    for service in ["emailclient-api", "emailclient-worker"] {
        let ended = settings.refused(service);
        assert!(
            ended.code == Some(78) && ended.err.contains("ENCRYPTION_KEY: missing"),
            "{service}: {ended:?}"
        );
    }
    let scheduler = settings.start("emailclient-scheduler");
    eventually("the scheduler goes round", std::time::Duration::from_secs(20), async || {
        settings.emailctl(&["healthcheck", "--service", "scheduler"], "").success().then_some(())
    })
    .await;
    assert_eq!(scheduler.stop(), Some(0));
    database.drop_it().await;
}

#[tokio::test]
async fn a_wrong_database_address_is_told_with_the_servers_words() {
    let database = Database::create().await;
    let good = database.url("emailclient_app").replace("emailclient_app@", "emailclient_app:hunter2@");
    let base = Settings::of(&database);
    let cases: [(String, i32, &[&str]); 4] = [
        (
            good.replace(&database.name, "no_such"),
            78,
            &["database no_such", "does not exist", "user emailclient_app"],
        ),
        (good.replace("emailclient_app:", "nobody_at_all:"), 78, &["user nobody_at_all", "does not exist"]),
        (
            "postgres://u:hunter2@127.0.0.1:1/mail".into(),
            69,
            &["127.0.0.1:1", "refused", "is PostgreSQL running"],
        ),
        ("mysql://u:hunter2@127.0.0.1/mail".into(), 78, &["mysql://u:***@127.0.0.1/mail", "postgres://"]),
    ];
    for (url, code, parts) in cases {
        let parts = [["DATABASE_URL: "].as_slice(), parts].concat();
        all_refuse(&base.clone().with("DATABASE_URL", &url), code, &[&parts]);
    }
    let swapped = base.with("DATABASE_URL", &database.url("postgres"));
    all_refuse(&swapped, 78, &[&["DATABASE_URL: ", "postgres is a superuser", "emailclient_app"]]);
    database.drop_it().await;
}

#[tokio::test]
async fn a_newer_schema_is_no_ground_to_start_on() {
    let database = Database::create().await;
    let mut conn = database.superuser().await;
    conn.execute(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (99991231000001, 'of a later release', true, '', 0)",
    )
    .await
    .unwrap();
    all_refuse(&Settings::of(&database), 78, &[&["newer than this program", "start the release"]]);
    drop(conn);
    database.drop_it().await;
}

#[tokio::test]
async fn an_old_schema_is_told_with_the_command_that_mends_it() {
    let database = Database::create().await;
    let mut conn = database.superuser().await;
    conn.execute("DELETE FROM _sqlx_migrations WHERE version = (SELECT max(version) FROM _sqlx_migrations)")
        .await
        .unwrap();
    all_refuse(&Settings::of(&database), 78, &[&["older than this program", "run `emailctl migrate`"]]);
    conn.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public; GRANT USAGE ON SCHEMA public TO PUBLIC")
        .await
        .unwrap();
    all_refuse(&Settings::of(&database), 78, &[&["holds no schema", "run `emailctl migrate`"]]);
    drop(conn);
    database.drop_it().await;
}

#[tokio::test]
async fn a_redis_that_evicts_or_refuses_the_password_is_told() {
    let database = Database::create().await;
    let redis = PrivateRedis::start(&["--maxmemory-policy", "allkeys-lru"]);
    let settings = Settings::of(&database).with("REDIS_URL", &redis.url());
    all_refuse(&settings, 78, &[&["REDIS_URL: ", "allkeys-lru", "set `maxmemory-policy noeviction`"]]);
    let closed = PrivateRedis::start(&["--requirepass", "swordfish"]);
    let url = format!("redis://:hunter2@127.0.0.1:{}/", closed.port);
    let settings = Settings::of(&database).with("REDIS_URL", &url);
    all_refuse(&settings, 78, &[&["REDIS_URL: redis://:***@", "refuses to log us in", "password"]]);
    database.drop_it().await;
}

#[tokio::test]
async fn files_and_lists_that_cannot_be_used_are_told_with_their_setting() {
    let database = Database::create().await;
    let base = Settings::of(&database);
    for (setting, value) in [
        ("LOG_FILE", "/nonexistent/app.log"),
        ("LOG_LEVEL", "=loud=,"),
        ("OUTBOUND_ALLOW", "10.0.0.0/99"),
        ("API_TRUSTED_PROXIES", "10.0.0.0/99"),
        ("TLS_EXTRA_CA_FILE", "/nonexistent/ca.pem"),
    ] {
        let named = format!("{setting}: ");
        all_refuse(&base.clone().with(setting, value), 78, &[&[named.as_str(), value]]);
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended = base.clone().with("API_LISTEN", &address).refused("emailclient-api");
    assert_eq!(ended.code, Some(78), "{ended:?}");
    assert!(ended.err.contains("API_LISTEN: cannot listen on") && ended.err.contains(&address), "{ended:?}");
    for service in ["emailclient-worker", "emailclient-scheduler"] {
        let ended = base.clone().with("HEARTBEAT_DIR", "/nonexistent").refused(service);
        assert_eq!(ended.code, Some(78), "{ended:?}");
        assert!(ended.err.contains("HEARTBEAT_DIR: /nonexistent"), "{ended:?}");
    }
    database.drop_it().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_away_stops_nobody() {
    let database = Database::create().await;
    let folder = Folder::new();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let settings = Settings::of(&database)
        .with("REDIS_URL", "redis://127.0.0.1:1/")
        .with("API_LISTEN", &format!("127.0.0.1:{port}"))
        .with("HEARTBEAT_DIR", folder.0.to_str().unwrap());
    for service in SERVICES {
        let name = service.trim_start_matches("emailclient-");
        let running = settings.start(service);
        eventually(service, std::time::Duration::from_secs(30), async || {
            (settings.emailctl(&["healthcheck", "--service", name], "").code == Some(0)).then_some(())
        })
        .await;
        assert_eq!(running.stop(), Some(0), "{service}");
    }
    database.drop_it().await;
}
