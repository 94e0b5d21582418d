//! `emailctl` as an operator runs it: the real binary, on an empty database.

mod check;
mod drain;
mod events;
mod health;
mod keys;
mod links;
mod mailbox;
pub mod program;
mod start;

use std::time::Duration;

use emailclient_core::platform::db::migrate;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};
use tests::database::Database;
use tests::eventually::eventually;
use wire::secret::Secret;

use self::program::{Ended, Settings};

fn emailctl(database: &Database, arguments: &[&str], input: &str) -> Ended {
    Settings::of(database).emailctl(arguments, input)
}

fn text(output: &Ended) -> String {
    format!("{}{}", output.out, output.err)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_migrates_checks_and_makes_a_tenant_with_a_user() {
    let database = Database::create().await;
    let mut conn = database.superuser().await;
    // An empty database: what the template brought is taken away again.
    conn.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public").await.unwrap();
    let check = emailctl(&database, &["check"], "");
    assert!(!check.success());
    assert!(text(&check).contains("emailctl migrate"), "{}", text(&check));
    for _ in 0..2 {
        let migrated = emailctl(&database, &["migrate"], "");
        assert!(migrated.success(), "{}", text(&migrated));
    }
    let check = emailctl(&database, &["check"], "");
    assert!(check.success(), "{}", text(&check));

    let create = ["tenant", "create", "--slug", "acme", "--name", "Acme"];
    assert!(emailctl(&database, &create, "").success());
    let twice = emailctl(&database, &create, "");
    assert!(!twice.success() && text(&twice).contains("already"), "{}", text(&twice));
    assert!(!emailctl(&database, &["tenant", "create", "--slug", "No Slug"], "").success());
    let user = ["user", "create", "--tenant", "acme", "--email", "a@acme.test", "--role", "admin"];
    assert!(!emailctl(&database, &user, "short\n").success(), "a short password was taken");
    let made = emailctl(&database, &user, "a long enough password\n");
    assert!(made.success(), "{}", text(&made));
    assert!(emailctl(&database, &["tenant", "limits", "acme", "--per-minute", "7"], "").success());
    let rows: (String, Option<i32>, Option<i32>) = sqlx::query_as(
        "SELECT u.role, t.per_minute, t.per_hour FROM users u JOIN tenants t ON t.id = u.tenant_id",
    )
    .fetch_one(&mut conn)
    .await
    .unwrap();
    assert_eq!(rows, ("admin".to_owned(), Some(7), None));
    let audited: i64 = sqlx::query_scalar("SELECT count(*) FROM audit_log WHERE actor LIKE 'emailctl:%'")
        .fetch_one(&mut conn)
        .await
        .unwrap();
    assert_eq!(audited, 3);
    let health = emailctl(&database, &["healthcheck", "--address", "127.0.0.1:1"], "");
    assert!(!health.success());
    conn.close().await.unwrap();
    database.drop_it().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_lists_and_changes_users_and_ends_their_sessions() {
    let database = Database::create().await;
    let mut conn = database.superuser().await;
    assert!(emailctl(&database, &["tenant", "create", "--slug", "acme"], "").success());
    let user = ["user", "create", "--tenant", "acme", "--email", "a@acme.test", "--role", "admin"];
    let made = emailctl(&database, &user, "a long enough password\n");
    assert!(made.success(), "{}", text(&made));
    let listed = emailctl(&database, &["user", "list", "--tenant", "acme"], "");
    let fields: Vec<&str> = listed.out.trim_end_matches('\n').split('\t').collect();
    assert_eq!(
        (listed.success(), &fields[..3]),
        (true, &["a@acme.test", "admin", "active"][..]),
        "{listed:?}"
    );
    assert_eq!(fields[3], made.out.trim());
    let who = ["--tenant", "acme", "--email", "A@Acme.test"];
    let users = |verb: &[&str], more: &[&str], input: &str| {
        emailctl(&database, &[&["user"], verb, &who[..], more].concat(), input)
    };
    assert!(users(&["disable"], &[], "").success());
    assert!(
        emailctl(&database, &["user", "list", "--tenant", "acme"], "").out.contains("\tadmin\tdisabled\t")
    );
    assert!(users(&["enable"], &[], "").success());
    assert!(users(&["role"], &["--role", "viewer"], "").success());
    assert!(!users(&["role"], &["--role", "king"], "").success());
    assert!(!users(&["password"], &[], "short\n").success(), "a short password was taken");
    assert!(users(&["password"], &[], "another long enough one\n").success());
    assert!(
        emailctl(&database, &["user", "list", "--tenant", "acme"], "").out.contains("\tviewer\tactive\t")
    );
    sqlx::query("INSERT INTO sessions (tenant_id, id, user_id, expires_at) SELECT tenant_id, id, id, now() + interval '1 day' FROM users")
        .execute(&mut conn)
        .await
        .unwrap();
    let sessions = users(&["sessions", "list"], &[], "");
    assert_eq!(sessions.out.split('\t').next(), Some(made.out.trim()), "{sessions:?}");
    let other = ["--session", "00000000-0000-0000-0000-000000000000"];
    let none = users(&["sessions", "end"], &other, "");
    assert!(!none.success() && none.err.contains("no session"), "{none:?}");
    let ended = users(&["sessions", "end"], &[], "");
    assert!(ended.success() && ended.out.starts_with("1 "), "{ended:?}");
    assert_eq!(users(&["sessions", "list"], &[], "").out, "");
    for verb in [&["disable"][..], &["enable"], &["sessions", "list"], &["sessions", "end"]] {
        let nobody = [&["user"], verb, &["--tenant", "acme", "--email", "nobody@acme.test"]].concat();
        let told = emailctl(&database, &nobody, "");
        assert!(!told.success() && told.err.contains("no user nobody@acme.test"), "{verb:?}: {told:?}");
    }
    conn.close().await.unwrap();
    database.drop_it().await;
}

/// As at a provider of PostgreSQL: the owner makes roles and owns the database, and is no superuser.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_who_is_no_superuser_migrates_again_and_again() {
    let database = Database::create().await;
    let mut conn = database.superuser().await;
    let provider = format!("provider_{}", &database.name);
    for statement in [
        "DROP SCHEMA public CASCADE".to_owned(),
        format!("CREATE ROLE {provider} LOGIN CREATEROLE"),
        // From PostgreSQL 16 on this comes with making the roles; here they are there.
        format!("GRANT emailclient_owner, emailclient_search TO {provider} WITH ADMIN OPTION"),
        format!("ALTER DATABASE {} OWNER TO {provider}", database.name),
        format!("CREATE SCHEMA public AUTHORIZATION {provider}"),
    ] {
        conn.execute(AssertSqlSafe(statement)).await.unwrap();
    }
    let url = |user: &str| Secret::new(database.url(user));
    for _ in 0..2 {
        migrate::run(&url(&provider), &url("emailclient_app"), &url("emailclient_system")).await.unwrap();
    }
    conn.close().await.unwrap();
    database.drop_it().await;
}

/// An open transaction of somebody else's must not make a migration hold up all that comes behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_gives_way_while_it_waits_for_a_lock_and_succeeds_in_the_end() {
    let database = Database::create().await;
    let (mut holder, mut observer) = (database.superuser().await, database.superuser().await);
    holder.execute("BEGIN; LOCK TABLE _sqlx_migrations IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let settings = Settings::of(&database);
    let migration = tokio::task::spawn_blocking(move || settings.emailctl(&["migrate"], ""));
    for (waits, what) in [(true, "it waits"), (false, "it gives way"), (true, "it tries again")] {
        eventually(what, Duration::from_secs(60), async || {
            let waiting: bool = sqlx::query_scalar(
                "SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')",
            )
            .fetch_one(&mut observer)
            .await
            .unwrap();
            assert!(!migration.is_finished(), "it gave up");
            (waiting == waits).then_some(())
        })
        .await;
    }
    holder.execute("COMMIT").await.unwrap();
    let migrated = migration.await.unwrap();
    assert!(migrated.success(), "{migrated:?}");
    database.drop_it().await;
}

#[tokio::test]
async fn a_missing_setting_is_named_with_the_way_out() {
    let output = Settings::none().emailctl(&["tenant", "resume", "acme"], "");
    assert_eq!(output.code, Some(78));
    assert!(!output.success());
    for name in ["DATABASE_URL", "REDIS_URL", "JWT_SECRET", "ENCRYPTION_KEY"] {
        assert!(text(&output).contains(&format!("{name}: missing")), "{}", text(&output));
    }
}
