//! `emailctl check`: every fault is found, named with its setting, and hides no other.

use chrono::TimeDelta;
use emailclient_core::platform::clock::ShiftedClock;
use emailclient_core::platform::config::Source;
use emailclient_core::platform::id::{AccountId, TenantId, new_uuid};
use emailclient_core::platform::seal::{Keyring, Place};
use emailctl::check::report::{Finding, Verdict};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Executor as _};
use tests::database::Database;
use tests::redis::PrivateRedis;
use wire::secret::Secret;

use super::program::{ENCRYPTION_KEY, Folder, Settings};

/// The findings of `emailctl check --json` that ended with `verdict`, each `check: detail → mend`.
fn found(settings: &Settings, verdict: &str) -> Vec<String> {
    let ended = settings.emailctl(&["check", "--json"], "");
    let report: Value = serde_json::from_str(&ended.out).unwrap_or_else(|e| panic!("{e}: {ended:?}"));
    let failed = report["status"] == "failed";
    assert_eq!(ended.code, Some(i32::from(failed)), "{report}");
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let all = report["checks"].as_array().unwrap();
    all.iter()
        .filter(|f| f["verdict"] == verdict)
        .map(|f| format!("{}: {} → {}", text(&f["check"]), text(&f["detail"]), text(&f["mend"])))
        .collect()
}

#[track_caller]
fn assert_one(found: &[String], parts: &[&str]) {
    let hits = found.iter().filter(|line| parts.iter().all(|part| line.contains(part))).count();
    assert_eq!(hits, 1, "{parts:?} in {found:#?}");
}

#[tokio::test]
async fn a_sound_deployment_passes_every_check() {
    let database = Database::create().await;
    let folder = Folder::new();
    let settings = Settings::of(&database)
        .with("LOG_FILE", &folder.file("app.log"))
        .with("HEARTBEAT_DIR", folder.0.to_str().unwrap())
        .with("TLS_EXTRA_CA_FILE", devstack::Shared::get().ca_file.to_str().unwrap())
        .with("OUTBOUND_ALLOW", &format!("localhost:{},10.0.0.0/8", devstack::Shared::get().imaps_port));
    for verdict in ["failed", "skipped", "warning"] {
        assert_eq!(found(&settings, verdict), Vec::<String>::new(), "{verdict}");
    }
    let good = found(&settings, "ok");
    for check in [
        "settings",
        "encryption keys",
        "PostgreSQL",
        "schema",
        "wall",
        "job table",
        "due times",
        "writes",
        "clock",
        "stored passwords",
        "Redis",
        "mail hosts",
        "certificates",
        "folders",
    ] {
        assert!(good.iter().any(|line| line.starts_with(&format!("{check}: "))), "{check} in {good:#?}");
    }
    assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 0, "the check left something behind");
    database.drop_it().await;
}

#[tokio::test]
async fn each_wrong_setting_is_named_with_its_value_and_no_secret_is_shown() {
    let database = Database::create().await;
    let folder = Folder::new();
    std::fs::write(folder.0.join("empty.pem"), "nothing").unwrap();
    std::fs::write(folder.0.join("jwt"), "fedcba9876543210fedcba9876543210").unwrap();
    let app = database.url("emailclient_app").replace("emailclient_app@", "emailclient_app:hunter2@");
    let settings = Settings::of(&database)
        .with("DATABASE_URL", &app.replace(&database.name, "no_such_database"))
        .with("DATABASE_SYSTEM_URL", "postgres://emailclient_system:hunter2@127.0.0.1:1/mail")
        .with("REDIS_URL", "redis://:hunter2@127.0.0.1:1/")
        .with("JWT_SECRET_FILE", &folder.file("jwt"))
        .with("ENCRYPTION_KEY", "hunter2hunter2hunter2hunter2hunter2hunter2")
        .with("SYNC_INTERVAL_SECONDS", "soon")
        .with("OUTBOUND_ALLOW", "good.test,10.0.0.0/99")
        .with("TLS_EXTRA_CA_FILE", &folder.file("empty.pem"))
        .with("LOG_FILE", "/nonexistent/app.log")
        .with("HEARTBEAT_DIR", "/nonexistent");
    let failed = found(&settings, "failed");
    assert_one(&failed, &["settings", "JWT_SECRET", "not both"]);
    assert_one(&failed, &["settings", "SYNC_INTERVAL_SECONDS", "soon"]);
    assert_one(&failed, &["encryption keys", "ENCRYPTION_KEY", "openssl rand -base64 32"]);
    assert_one(
        &failed,
        &["DATABASE_URL", "127.0.0.1", "user emailclient_app", "database no_such_database", "does not exist"],
    );
    assert_one(
        &failed,
        &["DATABASE_SYSTEM_URL", "127.0.0.1:1", "user emailclient_system", "is PostgreSQL running there"],
    );
    assert_one(&failed, &["Redis", "REDIS_URL", "redis://:***@127.0.0.1:1/", "is it running"]);
    assert_one(&failed, &["mail hosts", "OUTBOUND_ALLOW", "10.0.0.0/99"]);
    assert_one(&failed, &["certificates", "TLS_EXTRA_CA_FILE", "empty.pem"]);
    assert_one(&failed, &["folders", "LOG_FILE", "/nonexistent/app.log"]);
    assert_one(&failed, &["folders", "HEARTBEAT_DIR"]);
    assert!(!format!("{failed:?}").contains("hunter2"), "a secret is shown: {failed:#?}");
    let skipped = found(&settings, "skipped");
    assert_one(&skipped, &["job table", "DATABASE_SYSTEM_URL"]);
    database.drop_it().await;
}

#[tokio::test]
async fn without_settings_every_missing_one_is_named_and_lines_are_coloured_on_request_only() {
    let plain = Settings::none().emailctl(&["check"], "");
    assert_eq!(plain.code, Some(1), "{plain:?}");
    for name in ["DATABASE_URL", "DATABASE_SYSTEM_URL", "REDIS_URL", "JWT_SECRET", "ENCRYPTION_KEY"] {
        assert!(plain.out.contains(&format!("{name}: missing")), "{}", plain.out);
    }
    assert!(!plain.out.contains('\x1b'), "a pipe was coloured: {}", plain.out);
    let coloured = Settings::none().emailctl(&["check", "--color", "always"], "");
    assert!(coloured.out.contains("\x1b[1;31mFAILED"), "{}", coloured.out);
}

#[tokio::test]
async fn an_older_and_a_newer_schema_have_different_ways_out() {
    let database = Database::create().await;
    let mut conn = database.superuser().await;
    let settings = Settings::of(&database);
    conn.execute("UPDATE _sqlx_migrations SET version = version + 1000000 WHERE version = (SELECT max(version) FROM _sqlx_migrations)")
        .await
        .unwrap();
    let failed = found(&settings, "failed");
    assert_eq!(failed.iter().filter(|l| l.contains("newer than this program")).count(), 2, "{failed:#?}");
    assert!(failed.iter().all(|l| l.contains("start the release")), "{failed:#?}");
    conn.execute("DELETE FROM _sqlx_migrations WHERE version = (SELECT max(version) FROM _sqlx_migrations)")
        .await
        .unwrap();
    let failed = found(&settings, "failed");
    assert_eq!(failed.iter().filter(|l| l.contains("older than this program")).count(), 2, "{failed:#?}");
    assert!(failed.iter().all(|l| l.contains("→ run `emailctl migrate`")), "{failed:#?}");
    drop(conn);
    database.drop_it().await;
}

#[tokio::test]
async fn a_hole_in_the_wall_is_named() {
    let database = Database::create().await;
    let mut conn = database.superuser().await;
    conn.execute("ALTER TABLE drafts NO FORCE ROW LEVEL SECURITY; DROP POLICY tenant ON threads")
        .await
        .unwrap();
    let settings = Settings::of(&database).with("DATABASE_SYSTEM_URL", &database.url("postgres"));
    let failed = found(&settings, "failed");
    assert_one(&failed, &["wall", "drafts, threads"]);
    assert_one(&failed, &["wall", "DATABASE_SYSTEM_URL", "postgres", "is a superuser", "emailclient_system"]);
    drop(conn);
    database.drop_it().await;
}

#[tokio::test]
async fn redis_must_evict_nothing_however_it_tells_its_policy() {
    let database = Database::create().await;
    let base = Settings::of(&database);
    let hide_config = ["--rename-command", "CONFIG", ""];
    for evicting in [["--maxmemory-policy", "allkeys-lru"], ["--maxmemory-policy", "volatile-ttl"]] {
        let redis = PrivateRedis::start(&evicting);
        let failed = found(&base.clone().with("REDIS_URL", &redis.url()), "failed");
        assert_one(&failed, &["Redis", "REDIS_URL", evicting[1], "noeviction"]);
        let managed = PrivateRedis::start(&[evicting.as_slice(), &hide_config].concat());
        let failed = found(&base.clone().with("REDIS_URL", &managed.url()), "failed");
        assert_one(&failed, &["Redis", "REDIS_URL", evicting[1], "noeviction"]);
    }
    let managed = PrivateRedis::start(&hide_config);
    assert_one(&found(&base.clone().with("REDIS_URL", &managed.url()), "ok"), &["Redis", "noeviction"]);
    let secretive =
        PrivateRedis::start(&[hide_config.as_slice(), &["--rename-command", "INFO", ""]].concat());
    assert_one(
        &found(&base.clone().with("REDIS_URL", &secretive.url()), "warning"),
        &["Redis", "CONFIG GET", "INFO"],
    );
    let closed = PrivateRedis::start(&["--requirepass", "swordfish"]);
    let wrong = format!("redis://:hunter2@127.0.0.1:{}/", closed.port);
    for url in [wrong, closed.url()] {
        let failed = found(&base.clone().with("REDIS_URL", &url), "failed");
        assert_one(&failed, &["Redis", "REDIS_URL", "refuses to log us in"]);
        assert!(!format!("{failed:?}").contains("hunter2"));
    }
    let right = format!("redis://:swordfish@127.0.0.1:{}/", closed.port);
    assert_one(&found(&base.with("REDIS_URL", &right), "ok"), &["Redis", "noeviction"]);
    database.drop_it().await;
}

/// A tenant with one account whose IMAP password is sealed under `key`.
async fn account(database: &Database, key: &str) {
    let mut conn = database.superuser().await;
    let (tenant, account) = (TenantId::new(), AccountId::new());
    let keyring = Keyring::new(&Secret::new(key), &[]).unwrap();
    let sealed =
        keyring.seal(Place { tenant, row: account.0, field: "imap_password" }, &Secret::new("pw")).unwrap();
    sqlx::query("INSERT INTO tenants (id, slug, name) VALUES ($1, $2, '')")
        .bind(tenant)
        .bind(format!("t{}", new_uuid().simple()))
        .execute(&mut conn)
        .await
        .unwrap();
    sqlx::query(
        "INSERT INTO accounts (tenant_id, id, email, email_key, imap_host, imap_port, imap_security, imap_username,
           smtp_host, smtp_port, smtp_security, smtp_username, imap_password, imap_password_key)
         VALUES ($1, $2, 'a@x.test', 'a@x.test', 'x.test', 993, 'tls', 'a', 'x.test', 465, 'tls', 'a', $3, $4)",
    )
    .bind(tenant)
    .bind(account)
    .bind(sealed.bytes)
    .bind(sealed.key_id)
    .execute(&mut conn)
    .await
    .unwrap();
}

#[tokio::test]
async fn passwords_under_a_lost_key_and_changed_ones_are_found() {
    let database = Database::create().await;
    let other = "YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXoxMjM0NTY=";
    account(&database, ENCRYPTION_KEY).await;
    account(&database, other).await;
    let settings = Settings::of(&database);
    let failed = found(&settings, "failed");
    let lost = Keyring::new(&Secret::new(other), &[]).unwrap().current_id().to_owned();
    assert_one(&failed, &["stored passwords", "1 were sealed under key", &lost, "ENCRYPTION_KEYS_OLD"]);
    let settings = settings.with("ENCRYPTION_KEYS_OLD", other);
    let earlier = ["stored passwords", "2 in 2 tenants", "1 of them under an earlier key", "keys rotate"];
    assert_one(&found(&settings, "warning"), &earlier);
    let mut conn = database.superuser().await;
    conn.execute(
        "UPDATE accounts SET imap_password = set_byte(imap_password, 15, 255 - get_byte(imap_password, 15))",
    )
    .await
    .unwrap();
    assert_one(&found(&settings, "failed"), &["stored passwords", "2 do not open"]);
    drop(conn);
    database.drop_it().await;
}

#[tokio::test]
async fn a_job_that_nobody_takes_is_a_warning() {
    let database = Database::create().await;
    let mut conn = database.superuser().await;
    let tenant = new_uuid();
    conn.execute(AssertSqlSafe(format!(
        "INSERT INTO tenants (id, slug, name) VALUES ('{tenant}', 'acme', '');
         INSERT INTO jobs (tenant_id, id, kind, payload, run_at, max_attempts)
         VALUES ('{tenant}', '{tenant}', 'x', '{{}}', now() - interval '10 minutes', 1)"
    )))
    .await
    .unwrap();
    let warned = found(&Settings::of(&database), "warning");
    assert_one(&warned, &["job table", "1 due (the oldest for 6", "is a worker running"]);
    drop(conn);
    database.drop_it().await;
}

#[tokio::test]
async fn a_clock_that_is_off_is_a_warning_and_then_a_failure() {
    wire::tls::install_provider();
    let database = Database::create().await;
    for (seconds, wanted) in [
        (0, Verdict::Ok),
        (5, Verdict::Warning),
        (-5, Verdict::Warning),
        (40, Verdict::Failed),
        (-40, Verdict::Failed),
    ] {
        let clock = ShiftedClock::default();
        clock.advance(TimeDelta::seconds(seconds));
        let source = Source::new(Settings::of(&database).pairs());
        let report = emailctl::check::look(&source, &clock).await;
        let clocks: Vec<&Finding> = report.findings().iter().filter(|f| f.check == "clock").collect();
        assert_eq!(clocks.len(), 1);
        assert_eq!(clocks[0].verdict, wanted, "{seconds} s: {clocks:?}");
    }
    database.drop_it().await;
}

#[tokio::test]
async fn leases_and_due_times_beyond_all_bounds_are_a_warning() {
    let database = Database::create().await;
    let mut conn = database.superuser().await;
    let tenant = new_uuid();
    conn.execute(AssertSqlSafe(format!(
        "INSERT INTO tenants (id, slug, name) VALUES ('{tenant}', 'acme', '');
         INSERT INTO jobs (tenant_id, id, kind, payload, state, lease_owner, lease_until, max_attempts)
         VALUES ('{tenant}', '{tenant}', 'x', '{{}}', 'running', '{tenant}', now() + interval '1 hour', 1);
         INSERT INTO jobs (tenant_id, id, kind, payload, run_at, max_attempts)
         VALUES ('{tenant}', gen_random_uuid(), 'x', '{{}}', now() + interval '1 hour', 1),
                ('{tenant}', gen_random_uuid(), 'x', '{{}}', now() + interval '10 seconds', 1)"
    )))
    .await
    .unwrap();
    let warned = found(&Settings::of(&database), "warning");
    assert_one(&warned, &["due times", "2 leases or due times", "so the clock was set back", "scheduler"]);
    drop(conn);
    database.drop_it().await;
}

#[tokio::test]
async fn a_database_and_a_redis_that_take_no_writes_are_failures_that_name_the_disk() {
    let database = Database::create().await;
    let mut conn = database.superuser().await;
    let read_only = format!("ALTER DATABASE {} SET default_transaction_read_only = on", database.name);
    conn.execute(AssertSqlSafe(read_only)).await.unwrap();
    let redis = PrivateRedis::start(&["--maxmemory-policy", "noeviction", "--maxmemory", "1"]);
    let settings = Settings::of(&database).with("REDIS_URL", &redis.url());
    let failed = found(&settings, "failed");
    assert_one(&failed, &["writes", "read-only transaction", "disk"]);
    assert_one(&failed, &["Redis", "takes no writes", "OOM", "disk"]);
    assert_eq!(failed.len(), 2, "{failed:#?}");
    drop(conn);
    database.drop_it().await;
}
