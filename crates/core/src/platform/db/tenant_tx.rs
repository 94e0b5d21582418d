//! The only way to a tenant's rows.

use sqlx::Transaction;
use sqlx::postgres::{PgConnection, PgPool, Postgres};
use tokio::sync::OwnedSemaphorePermit;

use super::log::{self, Line};
use super::{DbError, Reach, begin};
use crate::platform::id::TenantId;
use crate::platform::news::News;

/// What the statements of a transaction see of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// What is committed when each begins.
    Latest,
    /// The same, and its commit returns before it is on disk.
    Relaxed,
    /// What was committed when the transaction began; nothing can be written.
    Snapshot,
    /// As [`Mode::Latest`], with what is deleted and not removed yet.
    Removal,
}

/// A transaction in which row-level security shows the rows of one tenant.
///
/// Dropping it rolls back. Only this crate can reach the connection, so the binaries cannot write SQL.
#[derive(Debug)]
pub struct TenantTx {
    tenant: TenantId,
    reach: Reach,
    tx: Transaction<'static, Postgres>,
    mode: Mode,
    owes: Option<&'static str>,
    log: Vec<Line>,
    news: News,
    _share: OwnedSemaphorePermit,
}

/// What [`TenantTx::unhide`] has to put back: accounts that lose mailboxes.
#[derive(Debug)]
#[must_use = "the messages stay in sight until it is given to hide_again"]
pub(crate) struct Hidden(String);

impl TenantTx {
    pub(super) async fn begin(
        pool: &PgPool,
        share: OwnedSemaphorePermit,
        (tenant, reach): (TenantId, &Reach),
        mode: Mode,
        news: News,
    ) -> Result<Self, DbError> {
        let how = match mode {
            Mode::Latest | Mode::Removal => "",
            Mode::Relaxed => "; SET LOCAL synchronous_commit = off",
            Mode::Snapshot => " ISOLATION LEVEL REPEATABLE READ, READ ONLY",
        };
        let enter = match mode {
            Mode::Removal => format!("set_config('app.tenant_id', '{tenant}', true)"),
            // A tenant that is losing accounts takes another role than the others, of which nobody knows before.
            _ => format!("enter_tenant('{tenant}', {})", reach.list()),
        };
        let statement = format!("BEGIN{how}; SELECT {enter}");
        Ok(Self {
            tenant,
            reach: reach.clone(),
            tx: begin::begin(pool, &statement).await?,
            mode,
            owes: None,
            log: Vec::new(),
            news,
            _share: share,
        })
    }

    /// From now on this transaction commits only with a line of this action in the audit trail.
    pub fn owe_audit(&mut self, action: &'static str) {
        self.owes = Some(action);
    }

    /// The line of this action is written.
    pub(crate) fn settle_audit(&mut self, action: &'static str) {
        self.owes = self.owes.filter(|owed| *owed != action);
    }

    /// Takes [`TenantTx::owe_audit`] back: what was asked for changed nothing that is audited.
    pub fn nothing_to_audit(&mut self) {
        self.owes = None;
    }

    /// The tenant whose rows these are.
    #[must_use]
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// The accounts within reach; the database keeps to them. For a function that runs as another role and would look at all.
    #[must_use]
    pub fn reach(&self) -> &Reach {
        &self.reach
    }

    /// The connection, for the queries of this crate.
    pub(crate) fn conn(&mut self) -> &mut PgConnection {
        &mut self.tx
    }

    /// Adds to the event log when this transaction commits.
    pub(crate) fn log(&mut self, lines: impl IntoIterator<Item = Line>) {
        self.log.extend(lines);
    }

    /// From now on this transaction sees the messages of mailboxes that are being removed, though not their places there, until
    /// [`TenantTx::hide_again`] gets what this returned: for whoever removes what no message refers to, because foreign keys see
    /// every message. `None`: nothing was hidden.
    ///
    /// # Errors
    /// Those of the database.
    pub(crate) async fn unhide(&mut self) -> Result<Option<Hidden>, DbError> {
        let losing: Option<String> =
            sqlx::query_scalar("SELECT nullif(current_setting('app.losing_account_ids', true), '')")
                .fetch_one(self.conn())
                .await?;
        let Some(losing) = losing.filter(|losing| losing != "{}") else { return Ok(None) };
        self.hide("{}").await?;
        Ok(Some(Hidden(losing)))
    }

    /// Takes [`TenantTx::unhide`] back.
    ///
    /// # Errors
    /// Those of the database.
    pub(crate) async fn hide_again(&mut self, hidden: Option<Hidden>) -> Result<(), DbError> {
        match hidden {
            Some(Hidden(losing)) => self.hide(&losing).await,
            None => Ok(()),
        }
    }

    async fn hide(&mut self, losing: &str) -> Result<(), DbError> {
        sqlx::query("SELECT set_config('app.losing_account_ids', $1, true)")
            .bind(losing)
            .execute(self.conn())
            .await?;
        Ok(())
    }

    /// Lets the statements of this transaction wait three seconds for a locked row: for work that cannot be begun anew, since
    /// somebody else was asked something for it.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn wait_for_rows(&mut self) -> Result<(), DbError> {
        sqlx::query("SET LOCAL lock_timeout = '3s'").execute(self.conn()).await?;
        Ok(())
    }

    /// Ends a transaction that only read; never one that wrote, since it rolls back. Nothing waits for the database: the
    /// ROLLBACK travels while the connection returns to its pool, which spares the caller a round trip.
    pub fn release(self) {
        drop(self.tx);
    }

    /// Makes everything written visible and durable, and its events readable in the order of commits.
    ///
    /// # Errors
    /// When the database refused or the line broke; then nothing, or in the second case possibly all, was written.
    /// [`DbError::Unaudited`] when the line of [`TenantTx::owe_audit`] is missing; then nothing was written.
    pub async fn commit(mut self) -> Result<(), DbError> {
        if let Some(action) = self.owes {
            return Err(DbError::Unaudited(action));
        }
        if self.log.is_empty() {
            return Ok(self.tx.commit().await?);
        }
        log::write(&mut self.tx, self.tenant, &self.log, self.mode == Mode::Relaxed).await?;
        self.tx.commit().await?;
        self.news.tell(self.tenant);
        Ok(())
    }
}
