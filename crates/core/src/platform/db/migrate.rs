//! Roles and schema: brought up to date by `emailctl migrate`, checked by every service at its start.

use std::time::Duration;

use percent_encoding::percent_decode_str;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgExecutor, PgPool};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};

use super::DbError;
use wire::secret::Secret;

static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations");

/// Why a service does not start on this database.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The schema is older or newer than this binary.
    #[error("{}", schema_words(*applied, *expected))]
    Schema {
        /// The newest migration applied, if any.
        applied: Option<i64>,
        /// The newest migration in this binary.
        expected: i64,
    },
    /// The role could read other tenants' rows.
    #[error("the role {role} {why}: connect as {wanted}, which `emailctl migrate` makes")]
    Role {
        /// The role of the connection.
        role: String,
        /// What is wrong with it.
        why: &'static str,
        /// The role that belongs here.
        wanted: &'static str,
    },
    /// The database could not be asked.
    #[error(transparent)]
    Db(#[from] DbError),
}

fn schema_words(applied: Option<i64>, expected: i64) -> String {
    match applied {
        None => format!(
            "the database holds no schema, this program needs version {expected}: run `emailctl migrate` of the same release"
        ),
        Some(applied) if applied < expected => format!(
            "the schema is at version {applied}, older than this program, which needs {expected}: \
             run `emailctl migrate` of the same release"
        ),
        Some(applied) => format!(
            "the schema is at version {applied}, newer than this program, which needs {expected}: \
             start the release that the schema was migrated by (`emailctl migrate` never goes back)"
        ),
    }
}

/// The newest migration in this binary.
#[must_use]
pub fn expected() -> i64 {
    MIGRATIONS.iter().map(|m| m.version).max().unwrap_or(0)
}

pub(super) async fn applied(at: impl PgExecutor<'_>) -> Result<i64, DbError> {
    let found =
        sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations WHERE success").fetch_one(at).await;
    match found {
        Ok(version) => Ok(Option::unwrap_or(version, 0)),
        Err(sqlx::Error::Database(db)) if db.code().as_deref() == Some("42P01") => Ok(0),
        Err(error) => Err(error.into()),
    }
}

pub(super) async fn verify(pool: &PgPool, wanted: &'static str) -> Result<(), Refusal> {
    schema(pool).await?;
    role(pool, wanted).await
}

/// Refuses another schema version than this binary's.
pub(super) async fn schema(at: impl PgExecutor<'_>) -> Result<(), Refusal> {
    let applied = applied(at).await?;
    if applied != expected() {
        return Err(Refusal::Schema { applied: (applied > 0).then_some(applied), expected: expected() });
    }
    Ok(())
}

/// What the role of a connection may do.
#[derive(sqlx::FromRow)]
struct Privileges {
    name: String,
    rolsuper: bool,
    rolbypassrls: bool,
    rolcreaterole: bool,
    owns: bool,
    /// Of a role that it should not be of.
    member: bool,
}

/// Refuses a role that could pass the wall between tenants, and any but `wanted`.
pub(super) async fn role(at: impl PgExecutor<'_>, wanted: &'static str) -> Result<(), Refusal> {
    let row: Privileges = sqlx::query_as(
        "SELECT current_user::text AS name, r.rolsuper, r.rolbypassrls, r.rolcreaterole,
                EXISTS (SELECT 1 FROM pg_class c WHERE c.relowner = r.oid AND c.relnamespace = 'public'::regnamespace) AS owns,
                EXISTS (SELECT 1 FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
                        WHERE m.member = r.oid AND NOT (r.rolname = 'emailclient_app' AND g.rolname IN ('emailclient_limited', 'emailclient_remaining')
                                                        AND NOT pg_has_role(r.oid, g.oid, 'USAGE'))) AS member
         FROM pg_roles r WHERE r.rolname = current_user",
    )
    .fetch_one(at)
    .await
    .map_err(DbError::from)?;
    let refuse = |why| Err(Refusal::Role { role: row.name.clone(), why, wanted });
    if row.rolsuper {
        return refuse("is a superuser");
    }
    if row.rolbypassrls {
        return refuse("bypasses row-level security");
    }
    if row.owns {
        return refuse("owns tables");
    }
    if row.member || row.rolcreaterole {
        return refuse("can become another role");
    }
    if row.name != wanted {
        return refuse("is not the role for this connection");
    }
    Ok(())
}

/// How long a migration waits for a lock before it lets those pass that queue behind it. Shorter than a worker's
/// `lock_timeout` and than the time for which a request runs again: what meets a waiting migration is late and not refused.
const LOCK_TIMEOUT: &str = "SET lock_timeout = '2s'";
/// How often it asks for its locks, with [`PAUSE`] between: longer than any transaction of the services lasts.
const TRIES: u32 = 60;
const PAUSE: Duration = Duration::from_secs(1);

/// The same server, user and options with another database; nothing when `name` is not made of letters, digits and `_`.
#[must_use]
pub fn in_database(url: &Secret, name: &str) -> Option<Secret> {
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return None;
    }
    let (address, options) = match url.expose().split_once('?') {
        Some((address, options)) => (address, format!("?{options}")),
        None => (url.expose(), String::new()),
    };
    let (scheme, rest) = address.split_once("://")?;
    let authority = rest.split('/').next()?;
    Some(Secret::new(format!("{scheme}://{authority}/{name}{options}")))
}

/// Makes the roles, gives them their passwords and lets them into the database; the schema stays as it is. A dump can be read
/// into the database then.
///
/// # Errors
/// With the statement's reason when the database refuses.
pub async fn roles(owner: &Secret, app: &Secret, system: &Secret) -> anyhow::Result<()> {
    let mut conn = with_roles(owner, app, system).await?;
    may_be_limited(&mut conn).await?;
    conn.close().await?;
    Ok(())
}

/// Lets the application take the limited role, and that of tenants which lose accounts, for a transaction. After the migrations: the release before refuses to start as a
/// role that can become another, and on a newer schema it refuses anyway.
///
/// As its heir the application would be held to the limited role's policies at all times. PostgreSQL 16 keeps that in the
/// grant, as the role stands at that moment.
async fn may_be_limited(conn: &mut PgConnection) -> anyhow::Result<()> {
    let done: bool = sqlx::query_scalar(
        "SELECT NOT r.rolinherit AND 2 = (
           SELECT count(DISTINCT g.rolname) FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
           WHERE m.member = r.oid AND g.rolname IN ('emailclient_limited', 'emailclient_remaining'))
         FROM pg_roles r WHERE r.rolname = 'emailclient_app'",
    )
    .fetch_one(&mut *conn)
    .await?;
    if !done {
        conn.execute("ALTER ROLE emailclient_app NOINHERIT").await?;
        conn.execute("GRANT emailclient_limited, emailclient_remaining TO emailclient_app").await?;
    }
    Ok(())
}

async fn with_roles(owner: &Secret, app: &Secret, system: &Secret) -> anyhow::Result<PgConnection> {
    let options: PgConnectOptions = owner.expose().parse()?;
    let mut conn = PgConnection::connect_with(&options).await?;
    conn.execute("SELECT pg_advisory_lock(7203452)").await?;
    let mut tries = 1;
    // Roles belong to the cluster, the lock to this database: another one that is migrated at once may be faster.
    let made = loop {
        match make_roles(&mut conn, app, system).await {
            Err(error) if tries < TRIES && others_were_faster(&error) => {
                tries += 1;
                tokio::time::sleep(PAUSE).await;
            }
            made => break made,
        }
    };
    conn.execute("SELECT pg_advisory_unlock(7203452)").await?;
    made?;
    Ok(conn)
}

/// 42710, duplicate_object, and 23505, unique_violation: it is there now. XX000 is "tuple concurrently updated" (PostgreSQL 16,
/// src/backend/access/heap).
fn others_were_faster(error: &anyhow::Error) -> bool {
    let Some(sqlx::Error::Database(error)) = error.downcast_ref() else { return false };
    match error.code().as_deref() {
        Some("42710" | "23505") => true,
        Some("XX000") => error.message().contains("concurrently"),
        _ => false,
    }
}

/// Makes the roles and brings the schema up to date. Safe to repeat, to run twice at once, and while services run.
///
/// `owner` must be able to create roles; the two service addresses give the passwords the service roles get.
///
/// # Errors
/// [`Refusal::Schema`] for a schema that is newer than this binary: it is left as it is. Else the statement's reason when the
/// database refuses.
pub async fn run(owner: &Secret, app: &Secret, system: &Secret) -> anyhow::Result<()> {
    let mut conn = with_roles(owner, app, system).await?;
    conn.execute("SET ROLE emailclient_owner").await?;
    conn.execute(LOCK_TIMEOUT).await?;
    let mut tries = 1;
    while let Err(error) = MIGRATIONS.run(&mut conn).await {
        if let MigrateError::VersionMissing(found) = error
            && found > expected()
        {
            return Err(Refusal::Schema { applied: Some(found), expected: expected() }.into());
        }
        // What was applied before stays, the rest is rolled back: a migration is one transaction.
        if tries == TRIES || !is_in_the_way(&error) {
            return Err(error.into());
        }
        tries += 1;
        tokio::time::sleep(PAUSE).await;
    }
    conn.execute("RESET ROLE").await?;
    may_be_limited(&mut conn).await?;
    conn.close().await?;
    Ok(())
}

/// 55P03, lock_not_available, and 40P01, a deadlock with a service (PostgreSQL, appendix A).
fn is_in_the_way(error: &MigrateError) -> bool {
    let (MigrateError::Execute(sqlx::Error::Database(db))
    | MigrateError::ExecuteMigration(sqlx::Error::Database(db), _)) = error
    else {
        return false;
    };
    db.code().is_some_and(|code| ["55P03", "40P01"].contains(&&*code))
}

async fn make_roles(conn: &mut PgConnection, app: &Secret, system: &Secret) -> anyhow::Result<()> {
    for role in ["emailclient_owner", "emailclient_search", "emailclient_limited", "emailclient_remaining"] {
        ensure_role(conn, role, false).await?;
    }
    for (role, url) in [("emailclient_app", app), ("emailclient_system", system)] {
        ensure_role(conn, role, true).await?;
        if let Some(password) = password_of(url.expose()) {
            let quoted: String = sqlx::query_scalar("SELECT quote_literal($1)")
                .bind(password.expose())
                .fetch_one(&mut *conn)
                .await?;
            conn.execute(AssertSqlSafe(format!("ALTER ROLE {role} PASSWORD {quoted}"))).await?;
        }
    }
    let database: String =
        sqlx::query_scalar("SELECT quote_ident(current_database())").fetch_one(&mut *conn).await?;
    let user: String = sqlx::query_scalar("SELECT quote_ident(current_user)").fetch_one(&mut *conn).await?;
    for statement in [
        format!("GRANT emailclient_owner TO {user}"),
        "GRANT emailclient_search TO emailclient_owner".to_owned(),
        "GRANT USAGE, CREATE ON SCHEMA public TO emailclient_owner WITH GRANT OPTION".to_owned(),
        format!("GRANT CREATE, CONNECT ON DATABASE {database} TO emailclient_owner"),
        // Whoever may make a temporary type can have it taken for another by a function that runs as its owner. Neither a
        // dump nor a template brings this along, so it is said each time.
        format!("REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC"),
        // PostgreSQL 14 and before let everybody create there, and an upgrade keeps that.
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC".to_owned(),
        format!("GRANT CONNECT ON DATABASE {database} TO emailclient_app, emailclient_system"),
        "GRANT USAGE ON SCHEMA public TO emailclient_app, emailclient_limited, emailclient_remaining, emailclient_system, emailclient_search"
            .to_owned(),
    ] {
        conn.execute(AssertSqlSafe(statement)).await?;
    }
    Ok(())
}

/// A role that is as it should be is left alone: who is no superuser, as at every provider of PostgreSQL, may make such a
/// role but not say NOBYPASSRLS of one that exists (PostgreSQL 15).
async fn ensure_role(conn: &mut PgConnection, role: &str, login: bool) -> anyhow::Result<()> {
    let right: Option<bool> = sqlx::query_scalar(
        "SELECT rolcanlogin = $2 AND NOT (rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb)
         FROM pg_roles WHERE rolname = $1",
    )
    .bind(role)
    .bind(login)
    .fetch_optional(&mut *conn)
    .await?;
    let verb = match right {
        Some(true) => return Ok(()),
        Some(false) => "ALTER",
        None => "CREATE",
    };
    let login = if login { "LOGIN" } else { "NOLOGIN" };
    let statement = format!("{verb} ROLE {role} {login} NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOCREATEDB");
    conn.execute(AssertSqlSafe(statement)).await?;
    Ok(())
}

/// The password inside a `postgres://user:password@…` address, percent-decoded.
fn password_of(url: &str) -> Option<Secret> {
    let authority = url.split_once("://")?.1.split(['/', '?']).next()?;
    let (user_info, _) = authority.rsplit_once('@')?;
    let (_, password) = user_info.split_once(':')?;
    percent_decode_str(password).decode_utf8().ok().map(Secret::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_led_to_another_database_of_the_same_server() {
        let led = |url: &str, name| in_database(&Secret::new(url), name).map(|url| url.expose().to_owned());
        for (url, wanted) in [
            (
                "postgres://u:p%2Fss@h:5/d?sslmode=verify-full",
                Some("postgres://u:p%2Fss@h:5/new_1?sslmode=verify-full"),
            ),
            ("postgresql://u@h", Some("postgresql://u@h/new_1")),
            ("h:5/d", None),
        ] {
            assert_eq!(led(url, "new_1").as_deref(), wanted, "{url}");
        }
        for name in ["", "a b", "a/b", "a?b", "ä"] {
            assert_eq!(led("postgres://u@h/d", name), None, "{name}");
        }
    }

    #[test]
    fn the_password_of_an_address_is_decoded() {
        assert_eq!(password_of("postgres://u:p%40ss@h:5/d").unwrap().expose(), "p@ss");
        // As sqlx takes it.
        assert_eq!(password_of("postgres://u:p%+f@h/d").unwrap().expose(), "p%+f");
        assert!(password_of("postgres://u@h/d").is_none());
    }
}
