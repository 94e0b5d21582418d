//! `emailctl` as an operator runs it: the real binary, on an empty database.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use sqlx::{Connection as _, Executor as _};
use tests::database::Database;

/// The binary that `cargo build --bins` put beside the tests.
fn emailctl(database: &Database, arguments: &[&str], input: &str) -> Output {
    let tests = std::env::current_exe().unwrap();
    let program = tests.ancestors().nth(2).unwrap().join("emailctl");
    assert!(program.exists(), "{} is not built: cargo build --workspace --bins", program.display());
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("DATABASE_OWNER_URL", database.url("postgres"))
        .env("DATABASE_URL", database.url("emailclient_app"))
        .env("DATABASE_SYSTEM_URL", database.url("emailclient_system"))
        .env("REDIS_URL", &devstack::Shared::get().redis_url)
        .env("JWT_SECRET", "0123456789abcdef0123456789abcdef")
        .env("ENCRYPTION_KEY", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_migrates_checks_and_makes_a_tenant_with_a_user() {
    let database = Database::create().await;
    let mut conn = database.superuser().await;
    // An empty database: what the template brought is taken away again.
    conn.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public").await.unwrap();
    let check = emailctl(&database, &["check"], "");
    assert!(!check.status.success());
    assert!(text(&check).contains("emailctl migrate"), "{}", text(&check));
    for _ in 0..2 {
        let migrated = emailctl(&database, &["migrate"], "");
        assert!(migrated.status.success(), "{}", text(&migrated));
    }
    let check = emailctl(&database, &["check"], "");
    assert!(check.status.success(), "{}", text(&check));

    let create = ["tenant", "create", "--slug", "acme", "--name", "Acme"];
    assert!(emailctl(&database, &create, "").status.success());
    let twice = emailctl(&database, &create, "");
    assert!(!twice.status.success() && text(&twice).contains("already"), "{}", text(&twice));
    assert!(!emailctl(&database, &["tenant", "create", "--slug", "No Slug"], "").status.success());
    let user = ["user", "create", "--tenant", "acme", "--email", "a@acme.test", "--role", "admin"];
    assert!(!emailctl(&database, &user, "short\n").status.success(), "a short password was taken");
    let made = emailctl(&database, &user, "a long enough password\n");
    assert!(made.status.success(), "{}", text(&made));
    assert!(emailctl(&database, &["tenant", "limits", "acme", "--per-minute", "7"], "").status.success());
    let rows: (String, Option<i32>, Option<i32>) = sqlx::query_as(
        "SELECT u.role, t.per_minute, t.per_hour FROM users u JOIN tenants t ON t.id = u.tenant_id",
    )
    .fetch_one(&mut conn)
    .await
    .unwrap();
    assert_eq!(rows, ("admin".to_owned(), Some(7), None));
    let audited: i64 = sqlx::query_scalar("SELECT count(*) FROM audit_log WHERE actor = 'operator'")
        .fetch_one(&mut conn)
        .await
        .unwrap();
    assert_eq!(audited, 3);
    let health = emailctl(&database, &["healthcheck", "--address", "127.0.0.1:1"], "");
    assert!(!health.status.success());
    conn.close().await.unwrap();
    database.drop_it().await;
}

#[tokio::test]
async fn a_missing_setting_is_named_with_the_way_out() {
    let program = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("emailctl");
    let output = Command::new(program).args(["tenant", "resume", "acme"]).env_clear().output().unwrap();
    assert!(!output.status.success());
    for name in ["DATABASE_URL", "REDIS_URL", "JWT_SECRET", "ENCRYPTION_KEY"] {
        assert!(text(&output).contains(&format!("{name}: missing")), "{}", text(&output));
    }
}
