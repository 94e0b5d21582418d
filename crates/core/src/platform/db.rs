//! The only files that see a connection pool.
//!
//! A tenant's rows are reached through a [`TenantTx`], the few cross-tenant reads through a [`SystemTx`]; both are
//! transactions under their own database role. Queries live in the domain modules, not here. Not found is `Ok(None)`.

mod begin;
mod error;
pub mod inspect;
mod log;
pub mod migrate;
mod pools;
mod reach;
mod system_tx;
mod tenant_tx;
pub mod writes;

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};

pub use error::DbError;
pub(crate) use log::Line;
pub use reach::Reach;
pub use system_tx::SystemTx;
use tenant_tx::Mode;
pub use tenant_tx::TenantTx;

use crate::platform::budget::Shares;
use crate::platform::config::Config;
use crate::platform::id::TenantId;
use crate::platform::news::News;

/// Bounds on every statement: a lost client or a runaway query frees its locks by itself.
const SESSION: [(&str, &str); 3] =
    [("statement_timeout", "15s"), ("idle_in_transaction_session_timeout", "10s"), ("timezone", "UTC")];

/// The database as the services see it: two pools, one for each role.
#[derive(Debug, Clone)]
pub struct Db {
    app: PgPool,
    system: PgPool,
    // Of the connections, half for one tenant: however many requests it sends, another one's find a connection.
    shares: Arc<Shares<TenantId>>,
    /// Whose event log has grown.
    pub news: News,
}

impl Db {
    /// Connects lazily: the first transaction opens the first connection.
    ///
    /// # Errors
    /// When one of the two addresses cannot be read.
    pub fn new(config: &Config) -> Result<Self, DbError> {
        Self::with_lock_timeout(config, "3s")
    }

    /// The same for requests: whoever meets a locked row fails with [`DbError::Busy`] after 200 ms, ends its transaction, and
    /// begins anew, so that no connection is held by waiting.
    ///
    /// # Errors
    /// As [`Db::new`].
    pub fn for_requests(config: &Config) -> Result<Self, DbError> {
        Self::with_lock_timeout(config, "200ms")
    }

    fn with_lock_timeout(config: &Config, lock_timeout: &str) -> Result<Self, DbError> {
        let pool = |url: &str, max: u32| -> Result<PgPool, DbError> {
            let options: PgConnectOptions = url.parse().map_err(DbError::from)?;
            Ok(PgPoolOptions::new()
                .max_connections(max)
                .acquire_timeout(begin::PATIENCE)
                .idle_timeout(Duration::from_secs(300))
                .test_before_acquire(false)
                .connect_lazy_with(options.options(SESSION).options([("lock_timeout", lock_timeout)])))
        };
        Ok(Self {
            app: pool(config.database_url.expose(), config.database_max_connections)?,
            system: pool(
                config.database_system_url.expose(),
                config.database_max_connections.div_ceil(4).max(4),
            )?,
            shares: Arc::new(Shares::of(usize::try_from(config.database_max_connections / 2).unwrap_or(1))),
            news: News::default(),
        })
    }

    /// Begins a transaction that sees and writes the rows of `tenant` and no others.
    pub async fn tenant(&self, tenant: TenantId) -> Result<TenantTx, DbError> {
        self.begin((tenant, &Reach::All), Mode::Latest).await
    }

    /// The same for somebody who may touch some of the tenant's accounts only.
    pub async fn within(&self, tenant: TenantId, reach: &Reach) -> Result<TenantTx, DbError> {
        self.begin((tenant, reach), Mode::Latest).await
    }

    /// The same, with a commit that returns before it is on disk. For rows that are read again from the mail server if they
    /// are lost, together with the checkpoint that vouches for them: never for what a client was told.
    pub async fn relaxed(&self, tenant: TenantId) -> Result<TenantTx, DbError> {
        self.begin((tenant, &Reach::All), Mode::Relaxed).await
    }

    /// The same as [`Db::within`] for an answer that several statements make: all of them see one moment, and none can write.
    pub async fn snapshot(&self, tenant: TenantId, reach: &Reach) -> Result<TenantTx, DbError> {
        self.begin((tenant, reach), Mode::Snapshot).await
    }

    /// The same as [`Db::tenant`], with what no other transaction sees any more: accounts that are deleted and not removed yet.
    pub(crate) async fn removal(&self, tenant: TenantId) -> Result<TenantTx, DbError> {
        self.begin((tenant, &Reach::All), Mode::Removal).await
    }

    async fn begin(&self, whose: (TenantId, &Reach), mode: Mode) -> Result<TenantTx, DbError> {
        let taken = tokio::time::timeout(begin::PATIENCE, self.shares.take(whose.0, 1)).await;
        let Ok(Some(share)) = taken else { return Err(DbError::Unavailable(sqlx::Error::PoolTimedOut)) };
        TenantTx::begin(&self.app, share, whose, mode, self.news.clone()).await
    }

    /// Begins a transaction of the system role: queue columns of all tenants, no contents.
    pub async fn system(&self) -> Result<SystemTx, DbError> {
        SystemTx::begin(&self.system).await
    }

    /// Refuses to start when the schema is not the one this binary was built for, or a role could pass the wall. Nor on a
    /// newer one: how much newer it is, and what was taken away since, this binary cannot know.
    pub async fn verify(&self) -> Result<(), migrate::Refusal> {
        migrate::verify(&self.app, "emailclient_app").await?;
        migrate::verify(&self.system, "emailclient_system").await
    }

    /// A round trip to the database.
    pub async fn ping(&self) -> Result<(), DbError> {
        // One that begins knows that it is alive.
        drop(begin::begin(&self.app, "BEGIN").await?);
        Ok(())
    }

    /// True when a process that was started on its own schema can go on: every migration of this binary is applied.
    ///
    /// Newer ones may be, too. During an update the schema runs ahead of the processes of the release before, and what a
    /// migration may do to them is bounded (docs/architecture.md, "Migrations"). A start is stricter: [`Db::verify`].
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn schema_suffices(&self) -> Result<bool, DbError> {
        let mut tx = begin::begin(&self.app, "BEGIN").await?;
        Ok(migrate::applied(&mut *tx).await? >= migrate::expected())
    }

    /// A listener on a channel of NOTIFY, on a connection of its own.
    pub async fn listener(&self, channel: &str) -> Result<sqlx::postgres::PgListener, DbError> {
        let mut listener = sqlx::postgres::PgListener::connect_with(&self.system).await?;
        listener.listen(channel).await?;
        Ok(listener)
    }

    /// Connections open now in both pools, and those of them in use.
    #[must_use]
    pub fn connections(&self) -> (u32, u32) {
        let in_use = |p: &PgPool| p.size().saturating_sub(u32::try_from(p.num_idle()).unwrap_or(u32::MAX));
        (self.app.size() + self.system.size(), in_use(&self.app) + in_use(&self.system))
    }

    /// Closes both pools; running transactions end first.
    pub async fn close(&self) {
        tokio::join!(self.app.close(), self.system.close());
    }
}
