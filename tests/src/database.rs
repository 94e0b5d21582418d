//! A database a test: cloned from a template that is migrated once per stack and schema version.

use devstack::{Endpoints, Shared};
use emailclient_core::platform::db::migrate;
use emailclient_core::platform::id::new_uuid;
use sqlx::postgres::{PgConnection, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};
use wire::secret::Secret;

use crate::postgres::PrivatePostgres;

/// A database of its own, dropped by [`Database::drop_it`].
#[derive(Debug, Clone)]
pub struct Database {
    /// Its name.
    pub name: String,
    server: String,
}

impl Database {
    /// Clones the template, which is made first when it is missing.
    pub async fn create() -> Self {
        let server = server_url(Shared::get());
        let template = format!("template_{}", migrate::expected());
        let name = format!("test_{}", new_uuid().simple());
        let mut conn = connect(&format!("{server}/postgres")).await;
        conn.execute("SELECT pg_advisory_lock(42)").await.unwrap();
        let there: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM pg_database WHERE datname = $1)")
            .bind(&template)
            .fetch_one(&mut conn)
            .await
            .unwrap();
        if !there {
            // What an earlier try left.
            conn.execute(AssertSqlSafe(format!("DROP DATABASE IF EXISTS {template}_new"))).await.unwrap();
            conn.execute(AssertSqlSafe(format!("CREATE DATABASE {template}_new"))).await.unwrap();
            let url = |user: &str| Secret::new(with_user(&server, user, &format!("{template}_new")));
            migrate::run(&url("postgres"), &url("emailclient_app"), &url("emailclient_system"))
                .await
                .unwrap();
            conn.execute(AssertSqlSafe(format!("ALTER DATABASE {template}_new RENAME TO {template}")))
                .await
                .unwrap();
        }
        conn.execute(AssertSqlSafe(format!("CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")))
            .await
            .unwrap();
        conn.execute("SELECT pg_advisory_unlock(42)").await.unwrap();
        // What is granted on a database is not in its template.
        conn.execute(AssertSqlSafe(format!("REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC")))
            .await
            .unwrap();
        conn.close().await.unwrap();
        Self { name, server }
    }

    /// One without a schema, for tests of how it comes about.
    pub async fn empty() -> Self {
        let server = server_url(Shared::get());
        let name = format!("test_{}", new_uuid().simple());
        let mut conn = connect(&format!("{server}/postgres")).await;
        conn.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
        conn.close().await.unwrap();
        Self { name, server }
    }

    /// The migrated database of a server of the test's own.
    #[must_use]
    pub fn of(server: &PrivatePostgres) -> Self {
        let url = server.url("postgres");
        let (server, name) = url.rsplit_once('/').unwrap();
        Self { name: name.to_owned(), server: server.to_owned() }
    }

    /// Address for `user` in this database.
    #[must_use]
    pub fn url(&self, user: &str) -> String {
        with_user(&self.server, user, &self.name)
    }

    /// A connection as superuser, to look behind the walls.
    pub async fn superuser(&self) -> PgConnection {
        connect(&self.url("postgres")).await
    }

    /// The same for what is asked often: a connection costs the server more than a question.
    #[must_use]
    pub fn behind(&self) -> PgPool {
        PgPoolOptions::new().max_connections(2).connect_lazy(&self.url("postgres")).unwrap()
    }

    /// Connections of the service roles that are still open.
    pub async fn open_connections(&self) -> i64 {
        let mut conn = connect(&format!("{}/postgres", self.server)).await;
        sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND usename LIKE 'emailclient%'",
        )
        .bind(&self.name)
        .fetch_one(&mut conn)
        .await
        .unwrap()
    }

    /// Removes the database.
    pub async fn drop_it(&self) {
        let mut conn = connect(&format!("{}/postgres", self.server)).await;
        conn.execute(AssertSqlSafe(format!("DROP DATABASE {} WITH (FORCE)", self.name))).await.unwrap();
    }
}

async fn connect(url: &str) -> PgConnection {
    PgConnection::connect(url).await.unwrap()
}

/// `postgres://user@host:port`, as superuser, without the database.
fn server_url(endpoints: &Endpoints) -> String {
    let url = endpoints.postgres_url.as_str();
    url.rsplit_once('/').unwrap().0.to_owned()
}

fn with_user(server: &str, user: &str, database: &str) -> String {
    let (scheme, rest) = server.split_once("://").unwrap();
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    format!("{scheme}://{user}@{host}/{database}")
}
