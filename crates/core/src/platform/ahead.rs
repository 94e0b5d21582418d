//! Instants that lie further ahead than anything waits: the database's clock was set back since they were written.
//!
//! A clock that runs an hour ahead and is put right leaves leases and due times an hour in the future. What a dead worker held
//! would then be nobody's for that hour. So no lease and no due time counts beyond the longest it can be: the scheduler draws
//! such rows in to that length ([`draw_in`]), which a live holder does not feel, because it renews long before.
//! `emailctl check` counts them ([`count`]).
//!
//! What is judged where it is read needs no row here: its statement names both ends, as `next_try_at` of `ingest_attempts`
//! does. The next lease or due time that others wait for is a row of [`account_is_ahead`], [`JOB_IS_AHEAD`] or
//! [`SUBMISSION_IS_AHEAD`].

use std::time::Duration;

use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;

use crate::platform::config::Config;
use crate::platform::db::inspect::Look;
use crate::platform::db::{Db, DbError};
use crate::platform::id::{AccountId, SubmissionId, TenantId};

/// How long a hand-over stays its worker's without a renewal; renewed every third, so two may fail.
pub const SUBMISSION_LEASE: Duration = Duration::from_secs(60);

/// Rows drawn in at one look. What is left is found by the next one.
const AT_ONCE: i64 = 500;

/// Longest wait of an account in trouble: a day and a tenth, see [`mail::backoff::throttle`].
const LONGEST_PATIENCE: &str = "interval '26 hours 24 minutes'";
/// Longest time that a send can be taken back in.
const LONGEST_UNDO: &str = "interval '2 minutes'";
/// Longest wait between two attempts to send: eight hours and a tenth, see [`mail::backoff::send`].
const LONGEST_DEFERRAL: &str = "interval '8 hours 48 minutes'";
/// An instant is written by transactions that began a moment after the one that judges it.
const SLACK: &str = "interval '5 seconds'";

/// How far ahead instants of this deployment may lie. All processes have the same settings.
#[derive(Debug, Clone, Copy)]
pub struct Longest {
    /// `WORKER_LEASE_SECONDS`: leases of jobs, accounts and watches.
    pub lease: Duration,
    /// `SYNC_INTERVAL_SECONDS`: from one round of an account to the next.
    pub interval: Duration,
}

impl Longest {
    /// What these settings say.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self { lease: config.worker_lease, interval: config.sync_interval }
    }

    fn lease(self) -> String {
        interval(self.lease)
    }

    /// SQL: the longest that the next turn of account `a` may be away.
    fn turn(self) -> String {
        let interval = interval(self.interval);
        format!(
            "CASE WHEN a.state IN ('throttled', 'needs_reauth') THEN greatest({LONGEST_PATIENCE}, {interval})
                  ELSE greatest(interval '1 minute', {interval}) END"
        )
    }
}

fn interval(time: Duration) -> String {
    format!("interval '{} milliseconds'", time.as_millis())
}

/// SQL: the longest that job `j` waits before it is tried again; a send waits as long as its submission says.
const JOB_WAITS: &str =
    "CASE WHEN j.kind IN ('probe_submission', 'file_sent_copy') THEN interval '1 hour'
          ELSE greatest(make_interval(secs => least(3600, 2 ^ least(j.attempt, 12)) * 1.25), interval '1 minute') END";

/// SQL: job `j` waits for longer than it can.
const JOB_IS_AHEAD: &str = "j.state = 'ready' AND j.kind <> 'send_submission' AND j.run_at > now() + ";

/// SQL: the job of a send waits for longer than its submission `s`.
const SEND_IS_AHEAD: &str =
    "j.state = 'ready' AND j.kind = 'send_submission' AND s.tenant_id = j.tenant_id AND s.id::text = j.dedupe_key
     AND j.run_at > greatest(CASE WHEN s.state = 'queued' THEN s.send_after END, now()) + ";

/// SQL: submission `s` waits for longer than it can. An instant that a sender named stands, however far away it is, until
/// the first attempt; what was put off before the present moment began was put off by a clock that ran ahead.
fn submission_is_ahead() -> String {
    format!(
        "(s.state = 'sending' AND s.lease_until > now() + {lease} + {SLACK})
         OR (s.state = 'queued' AND s.attempt = 0 AND s.send_after <= s.created_at + {LONGEST_UNDO} AND s.send_after > now() + {LONGEST_UNDO} + {SLACK})
         OR (s.state = 'queued' AND s.attempt > 0 AND s.send_after > now()
             AND (s.send_after > now() + {LONGEST_DEFERRAL} + {SLACK} OR s.updated_at > now() + {SLACK}))",
        lease = interval(SUBMISSION_LEASE)
    )
}

/// SQL: the lease row `l` of account `a` holds an instant that is too far ahead.
fn account_is_ahead(longest: Longest) -> String {
    let (lease, turn) = (longest.lease(), longest.turn());
    format!(
        "l.expires_at > now() + {lease} + {SLACK} OR l.watch_expires_at > now() + {lease} + {SLACK}
         OR l.next_due_at > now() + {turn} + {SLACK} OR l.next_audit_at > now() + interval '1 day' + {SLACK}
         OR l.failing_since > now() + {SLACK} OR l.woken_at > now() + {SLACK}"
    )
}

/// How many leases and due times lie further ahead than any can, over all tenants; as `emailclient_system`.
///
/// # Errors
/// When they cannot be counted.
pub async fn count(look: &mut Look, longest: Longest) -> Result<i64, DbError> {
    let sql = format!(
        "SELECT (SELECT count(*) FROM account_leases l JOIN accounts a ON a.tenant_id = l.tenant_id AND a.id = l.account_id
                 WHERE a.state <> 'paused' AND ({account}))
              + (SELECT count(*) FROM jobs j WHERE j.state = 'running' AND j.lease_until > now() + {lease} + {SLACK})
              + (SELECT count(*) FROM jobs j WHERE {JOB_IS_AHEAD} {JOB_WAITS} + {SLACK})
              + (SELECT count(*) FROM jobs j, submissions s WHERE {SEND_IS_AHEAD} {JOB_WAITS} + {SLACK})
              + (SELECT count(*) FROM submissions s WHERE {submission})
              + (SELECT count(*) FROM scheduler_lease WHERE expires_at > now() + interval '1 minute')",
        account = account_is_ahead(longest),
        lease = longest.lease(),
        submission = submission_is_ahead(),
    );
    Ok(sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(look.conn()).await?)
}

/// Draws in what is too far ahead. Returns how many rows that were; the first failure of one account or submission hides none
/// of the others.
///
/// # Errors
/// When the database refuses.
pub async fn draw_in(db: &Db, longest: Longest) -> Result<u64, DbError> {
    let mut drawn = jobs(db, longest).await?;
    let mut tx = db.system().await?;
    let found = accounts(tx.conn(), longest).await?;
    let waiting = submissions(tx.conn()).await?;
    tx.release();
    for (tenant, account) in found {
        drawn +=
            passed_over(account_in(db, tenant, account, longest).await, db, "account", account.0).await?;
    }
    for (tenant, id) in waiting {
        drawn += passed_over(submission_in(db, tenant, id).await, db, "submission", id.0).await?;
    }
    Ok(drawn)
}

/// A row that somebody holds is drawn in at the next look. A database that is away is the end of this one.
async fn passed_over(
    done: Result<u64, DbError>,
    db: &Db,
    what: &str,
    id: uuid::Uuid,
) -> Result<u64, DbError> {
    let error = match done {
        Ok(rows) => return Ok(rows),
        Err(error) => error,
    };
    db.ping().await?;
    tracing::warn!(what, %id, ?error, "an instant in the future could not be drawn in yet");
    Ok(0)
}

async fn jobs(db: &Db, longest: Longest) -> Result<u64, DbError> {
    let lease = longest.lease();
    let mut tx = db.system().await?;
    let mut drawn = 0;
    for sql in [
        format!(
            "UPDATE jobs SET lease_until = now() + {lease} WHERE (tenant_id, id) IN (
               SELECT tenant_id, id FROM jobs WHERE state = 'running' AND lease_until > now() + {lease} + {SLACK}
               LIMIT {AT_ONCE} FOR UPDATE SKIP LOCKED)"
        ),
        format!(
            "UPDATE jobs j SET run_at = now() + {JOB_WAITS} WHERE (j.tenant_id, j.id) IN (
               SELECT j.tenant_id, j.id FROM jobs j WHERE {JOB_IS_AHEAD} {JOB_WAITS} + {SLACK}
               LIMIT {AT_ONCE} FOR UPDATE SKIP LOCKED)"
        ),
        format!(
            "UPDATE jobs j SET run_at = greatest(CASE WHEN s.state = 'queued' THEN s.send_after END, now())
             FROM submissions s WHERE {SEND_IS_AHEAD} {JOB_WAITS} + {SLACK} AND (j.tenant_id, j.id) IN (
               SELECT j.tenant_id, j.id FROM jobs j, submissions s WHERE {SEND_IS_AHEAD} {JOB_WAITS} + {SLACK} LIMIT {AT_ONCE} FOR UPDATE OF j SKIP LOCKED)"
        ),
    ] {
        drawn += sqlx::query(AssertSqlSafe(sql)).execute(tx.conn()).await?.rows_affected();
    }
    tx.commit().await?;
    Ok(drawn)
}

async fn accounts(conn: &mut PgConnection, longest: Longest) -> Result<Vec<(TenantId, AccountId)>, DbError> {
    let sql = format!(
        "SELECT l.tenant_id, l.account_id FROM account_leases l JOIN accounts a ON a.tenant_id = l.tenant_id AND a.id = l.account_id
         WHERE a.state <> 'paused' AND ({}) LIMIT {AT_ONCE}",
        account_is_ahead(longest)
    );
    Ok(sqlx::query_as(AssertSqlSafe(sql)).fetch_all(conn).await?)
}

async fn submissions(conn: &mut PgConnection) -> Result<Vec<(TenantId, SubmissionId)>, DbError> {
    let sql = format!(
        "SELECT s.tenant_id, s.id FROM submissions s WHERE {} LIMIT {AT_ONCE}",
        submission_is_ahead()
    );
    Ok(sqlx::query_as(AssertSqlSafe(sql)).fetch_all(conn).await?)
}

async fn account_in(db: &Db, tenant: TenantId, account: AccountId, longest: Longest) -> Result<u64, DbError> {
    let (lease, turn) = (longest.lease(), longest.turn());
    let mut tx = db.tenant(tenant).await?;
    let sql = format!(
        "UPDATE account_leases l SET
           expires_at = least(l.expires_at, CASE WHEN l.expires_at IS NOT NULL THEN now() + {lease} END),
           watch_expires_at = least(l.watch_expires_at, CASE WHEN l.watch_expires_at IS NOT NULL THEN now() + {lease} END),
           next_due_at = least(l.next_due_at, now() + {turn}), next_audit_at = least(l.next_audit_at, now() + interval '1 day'),
           failing_since = CASE WHEN l.failing_since IS NOT NULL THEN least(l.failing_since, now()) END,
           woken_at = CASE WHEN l.woken_at IS NOT NULL THEN least(l.woken_at, now()) END
         FROM accounts a WHERE l.tenant_id = $1 AND l.account_id = $2 AND a.tenant_id = $1 AND a.id = $2"
    );
    let done = sqlx::query(AssertSqlSafe(sql)).bind(tenant).bind(account).execute(tx.conn()).await?;
    // What users are told of the next try.
    let sql = format!(
        "UPDATE accounts a SET cause_next_try_at = now() + {turn}
         WHERE a.tenant_id = $1 AND a.id = $2 AND a.cause_next_try_at > now() + {turn} + {SLACK}"
    );
    sqlx::query(AssertSqlSafe(sql)).bind(tenant).bind(account).execute(tx.conn()).await?;
    tx.commit().await?;
    Ok(done.rows_affected())
}

async fn submission_in(db: &Db, tenant: TenantId, id: SubmissionId) -> Result<u64, DbError> {
    let mut tx = db.tenant(tenant).await?;
    let sql = format!(
        "UPDATE submissions s SET
           lease_until = CASE WHEN s.state = 'sending' THEN least(s.lease_until, now() + {lease}) END,
           send_after = CASE WHEN s.state <> 'queued' THEN s.send_after WHEN s.attempt = 0 THEN now() + {LONGEST_UNDO} ELSE now() END,
           updated_at = least(s.updated_at, now())
         WHERE s.tenant_id = $1 AND s.id = $2 AND ({ahead})",
        lease = interval(SUBMISSION_LEASE),
        ahead = submission_is_ahead()
    );
    let done = sqlx::query(AssertSqlSafe(sql)).bind(tenant).bind(id).execute(tx.conn()).await?;
    tx.commit().await?;
    Ok(done.rows_affected())
}
