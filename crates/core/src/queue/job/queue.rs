//! The statements of the lease table: claim, renew, acknowledge, give back, reap.
//!
//! A claim takes rows no other worker holds (SKIP LOCKED) and leases them; time is the database's. Every later write
//! names the owner and the attempt, so a worker that lost its lease can change nothing.

use std::time::Duration;

use sqlx::Row as _;
use uuid::Uuid;

use super::Job;
use crate::platform::db::{DbError, SystemTx};
use crate::platform::id::{JobId, TenantId};

/// A job leased to this worker.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// Owner of the data.
    pub tenant: TenantId,
    /// The row.
    pub id: JobId,
    /// What to do.
    pub job: Job,
    /// 1 for the first try.
    pub attempt: i32,
    /// How many tries there are.
    pub max_attempts: i32,
    /// See [`super::priority`].
    pub priority: i16,
}

/// How a job ended.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// It did what it was for.
    Done,
    /// It was not its turn: later again, and the attempt does not count.
    Postpone {
        /// Wait at least this long.
        after: Duration,
    },
    /// Try again after this time.
    Retry {
        /// Wait at least this long.
        after: Duration,
        /// What went wrong.
        error: String,
    },
    /// Never try again.
    Dead {
        /// What went wrong.
        error: String,
    },
}

/// Places of one worker.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// All it has.
    pub total: usize,
    /// Those that are free now.
    pub free: usize,
}

impl Room {
    /// Places of one tenant altogether, so that one whose users wait for dead hosts leaves some to others.
    fn of_a_tenant(self) -> i64 {
        count(self.total - self.total / 8)
    }

    /// Places that jobs nobody waits for may take; the others are kept for the quick ones.
    fn slow(self) -> i64 {
        count(self.total - self.total / 4)
    }

    /// Of those, the places of one tenant: two hundred accounts whose hosts are dead keep half of them busy, not all.
    fn slow_of_a_tenant(self) -> i64 {
        count(self.total / 2)
    }

    /// Places that jobs of hours may take; the others are kept for rounds that are due, of which each has its turn soon.
    fn long(self) -> i64 {
        count(self.total / 2)
    }

    /// Of those, the places of one tenant.
    fn long_of_a_tenant(self) -> i64 {
        count(self.total / 2 - self.total / 8)
    }
}

/// A payload that cannot be read is looked at again after this time.
const UNREADABLE_FOR: Duration = Duration::from_secs(60);

/// A worker with one place takes everything in its turn.
fn count(places: usize) -> i64 {
    i64::try_from(places).unwrap_or(i64::MAX).max(1)
}

/// Tenants are found by leaps over the index; the jobs of one that is suspended wait. Those of one that is deleted
/// do not, for the sake of its removal: that takes the others away, and what would read, send or post asks for the suspension itself. More candidates than places: others may
/// be taking the same ones.
const CLAIM: &str =
    "WITH RECURSIVE t AS (
       (SELECT tenant_id FROM jobs WHERE state = 'ready' AND run_at <= now() ORDER BY tenant_id LIMIT 1)
       UNION ALL
       SELECT (SELECT j.tenant_id FROM jobs j WHERE j.state = 'ready' AND j.run_at <= now() AND j.tenant_id > t.tenant_id
               ORDER BY j.tenant_id LIMIT 1) FROM t WHERE t.tenant_id IS NOT NULL
     ), busy AS (
       SELECT tenant_id, count(*) AS running, count(*) FILTER (WHERE lease_owner = $2) AS own,
              count(*) FILTER (WHERE lease_owner = $2 AND priority < $4) AS own_slow,
              count(*) FILTER (WHERE lease_owner = $2 AND priority < $8) AS own_long
       FROM jobs WHERE state = 'running' GROUP BY tenant_id
     ), waiting AS (
       SELECT j.*, j.priority < $4 AS slow, j.priority < $8 AS long,
              coalesce(b.own, 0) AS own, coalesce(b.own_slow, 0) AS own_slow, coalesce(b.own_long, 0) AS own_long,
              coalesce(b.running, 0) + row_number() OVER (PARTITION BY j.tenant_id ORDER BY j.priority DESC, j.run_at, j.id) AS turn,
              row_number() OVER (PARTITION BY j.tenant_id ORDER BY j.priority DESC, j.run_at, j.id) AS nth,
              row_number() OVER (PARTITION BY j.tenant_id, j.priority < $4 ORDER BY j.priority DESC, j.run_at, j.id) AS nth_slow,
              row_number() OVER (PARTITION BY j.tenant_id, j.priority < $8 ORDER BY j.priority DESC, j.run_at, j.id) AS nth_long
       FROM t JOIN tenants s ON s.id = t.tenant_id AND (s.suspended_at IS NULL OR s.removed_at IS NOT NULL) CROSS JOIN LATERAL (
         (SELECT w.tenant_id, w.id, w.priority, w.run_at FROM jobs w
          WHERE w.tenant_id = t.tenant_id AND w.state = 'ready' AND w.run_at <= now() AND w.kind = ANY ($11)
          ORDER BY w.priority DESC, w.run_at LIMIT $1 * 2)) j
       LEFT JOIN busy b ON b.tenant_id = t.tenant_id
     ), fit AS (
       SELECT tenant_id, id, slow, long, priority, turn, run_at FROM waiting
       WHERE nth + own <= $7 AND (NOT slow OR nth_slow + own_slow <= $6) AND (NOT long OR nth_long + own_long <= $10)
     ), placed AS (
       SELECT *, row_number() OVER (PARTITION BY slow ORDER BY priority DESC, turn, run_at, id) AS place_slow,
              row_number() OVER (PARTITION BY long ORDER BY priority DESC, turn, run_at, id) AS place_long FROM fit
     ), c AS (
       SELECT j.tenant_id, j.id FROM placed p JOIN jobs j ON j.tenant_id = p.tenant_id AND j.id = p.id
       WHERE j.state = 'ready' AND (NOT p.slow OR p.place_slow + (SELECT coalesce(sum(own_slow), 0) FROM busy) <= $5)
         AND (NOT p.long OR p.place_long + (SELECT coalesce(sum(own_long), 0) FROM busy) <= $9)
       ORDER BY p.priority DESC, p.turn, p.run_at, p.id LIMIT $1 FOR UPDATE OF j SKIP LOCKED
     )
     UPDATE jobs j SET state = 'running', attempt = attempt + 1, rerun = false, lease_owner = $2,
                       lease_until = now() + make_interval(secs => $3)
     FROM c WHERE j.tenant_id = c.tenant_id AND j.id = c.id
     RETURNING j.tenant_id, j.id, j.payload, j.attempt, j.max_attempts, j.priority, j.run_at";

/// Leases due jobs to `owner` as far as it has room, most urgent first. Among equally urgent ones tenants take turns: a
/// job's turn is how many its tenant has running, with those before it counted in, so that over time each tenant has the
/// same share of all places, however long its jobs take. A kind that this release does not know is left alone, and a row whose
/// payload it cannot read waits: a worker of another release may know them.
pub async fn claim(
    tx: &mut SystemTx,
    owner: Uuid,
    room: Room,
    lease: Duration,
) -> Result<Vec<Claimed>, DbError> {
    let rows = sqlx::query(CLAIM)
        .bind(count(room.free))
        .bind(owner)
        .bind(lease.as_secs_f64())
        .bind(super::priority::PUSH)
        .bind(room.slow())
        .bind(room.slow_of_a_tenant())
        .bind(room.of_a_tenant())
        .bind(super::priority::BACKGROUND)
        .bind(room.long())
        .bind(room.long_of_a_tenant())
        .bind(Job::KINDS)
        .fetch_all(tx.conn())
        .await?;
    let mut claimed = Vec::with_capacity(rows.len());
    for row in rows {
        let (tenant, id): (TenantId, JobId) = (row.try_get("tenant_id")?, row.try_get("id")?);
        match serde_json::from_value(row.try_get("payload")?) {
            Ok(job) => {
                let run_at: chrono::DateTime<chrono::Utc> = row.try_get("run_at")?;
                let job = Claimed {
                    tenant,
                    id,
                    job,
                    attempt: row.try_get("attempt")?,
                    max_attempts: row.try_get("max_attempts")?,
                    priority: row.try_get("priority")?,
                };
                claimed.push((run_at, job));
            }
            Err(error) => {
                tracing::warn!(job = %id, %error, "the payload of a job cannot be read; it waits for a worker that can");
                set_aside(tx, (tenant, id), &error.to_string()).await?;
            }
        }
    }
    claimed.sort_by_key(|(run_at, job)| (std::cmp::Reverse(job.priority), *run_at));
    Ok(claimed.into_iter().map(|(_, job)| job).collect())
}

/// A claimed row goes back, and is looked at again after [`UNREADABLE_FOR`]; the attempt does not count.
async fn set_aside(tx: &mut SystemTx, (tenant, id): (TenantId, JobId), error: &str) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE jobs SET state = 'ready', attempt = attempt - 1, lease_owner = NULL, lease_until = NULL, last_error = $3,
           run_at = now() + make_interval(secs => $4)
         WHERE tenant_id = $1 AND id = $2",
    )
    .bind(tenant)
    .bind(id)
    .bind(error)
    .bind(UNREADABLE_FOR.as_secs_f64())
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Extends the leases of `jobs`; returns those that `owner` still holds.
pub async fn renew(
    tx: &mut SystemTx,
    owner: Uuid,
    jobs: &[JobId],
    lease: Duration,
) -> Result<Vec<JobId>, DbError> {
    let ids: Vec<Uuid> = jobs.iter().map(|j| j.0).collect();
    let held: Vec<Uuid> = sqlx::query_scalar(
        "UPDATE jobs SET lease_until = now() + make_interval(secs => $3)
         WHERE state = 'running' AND lease_owner = $1 AND id = ANY ($2) RETURNING id",
    )
    .bind(owner)
    .bind(&ids)
    .bind(lease.as_secs_f64())
    .fetch_all(tx.conn())
    .await?;
    Ok(held.into_iter().map(JobId).collect())
}

/// Rounds of `owner` that came to their old mail while they ran ([`super::slow_down`]) and are more than the places for
/// that, its own or one tenant's: of the tenant that has most, those that came to it last. They are to be handed back, or
/// what is due and what somebody waits for finds no place for as long as they last.
pub async fn surplus(tx: &mut SystemTx, owner: Uuid, room: Room) -> Result<Vec<JobId>, DbError> {
    let ids: Vec<Uuid> = sqlx::query_scalar(
        "WITH slow AS (
           SELECT id, tenant_id, run_at, asked_priority, priority < $3 AS long, kind = 'sync_account' AND priority = $4 AS old_mail
           FROM jobs WHERE state = 'running' AND lease_owner = $1 AND priority < $2
         ), nth AS (
           SELECT *, row_number() OVER (PARTITION BY tenant_id ORDER BY old_mail, run_at, id) AS nth_slow,
                  row_number() OVER (PARTITION BY tenant_id, long ORDER BY old_mail, run_at, id) AS nth_of_kind
           FROM slow
         ), placed AS (
           SELECT *, row_number() OVER (ORDER BY old_mail, nth_slow, run_at, id) AS place_slow,
                  row_number() OVER (PARTITION BY long ORDER BY old_mail, nth_of_kind, run_at, id) AS place_of_kind
           FROM nth
         )
         SELECT id FROM placed WHERE old_mail AND asked_priority IS NULL
           AND (nth_slow > $6 OR nth_of_kind > $8 OR place_slow > $5 OR place_of_kind > $7)",
    )
    .bind(owner)
    .bind(super::priority::PUSH)
    .bind(super::priority::BACKGROUND)
    .bind(super::priority::BACKFILL)
    .bind(room.slow())
    .bind(room.slow_of_a_tenant())
    .bind(room.long())
    .bind(room.long_of_a_tenant())
    .fetch_all(tx.conn())
    .await?;
    Ok(ids.into_iter().map(JobId).collect())
}

/// Records how a job ended. `false`: the lease was lost meanwhile and nothing was written.
pub async fn finish(
    tx: &mut SystemTx,
    owner: Uuid,
    job: &Claimed,
    outcome: &Outcome,
) -> Result<bool, DbError> {
    let (state, wait, error) = match outcome {
        Outcome::Done => ("done", 0.0, None),
        Outcome::Postpone { after } => ("ready", after.as_secs_f64(), None),
        Outcome::Retry { error, .. } if job.attempt >= job.max_attempts => ("dead", 0.0, Some(error)),
        Outcome::Retry { after, error } => ("ready", after.as_secs_f64(), Some(error)),
        Outcome::Dead { error } => ("dead", 0.0, Some(error)),
    };
    // Asked for again while it ran: ready at once, as urgent as it was asked for, with its attempts forgotten when it had
    // succeeded.
    let written = sqlx::query(
        "UPDATE jobs SET state = CASE WHEN rerun THEN 'ready' ELSE $4 END,
           attempt = CASE WHEN rerun AND $4 = 'done' THEN 0 WHEN $8 THEN attempt - 1 ELSE attempt END,
           run_at = CASE WHEN rerun AND NOT $8 THEN now() WHEN $4 = 'ready' THEN now() + make_interval(secs => $5) ELSE run_at END,
           priority = greatest(priority, asked_priority), asked_priority = NULL, rerun = false,
           last_error = coalesce($6, last_error), lease_owner = NULL, lease_until = NULL,
           finished_at = CASE WHEN rerun OR $4 = 'ready' THEN NULL ELSE now() END
         WHERE tenant_id = $1 AND id = $2 AND lease_owner = $3 AND attempt = $7 AND state = 'running'",
    )
    .bind(job.tenant)
    .bind(job.id)
    .bind(owner)
    .bind(state)
    .bind(wait)
    .bind(error)
    .bind(job.attempt)
    .bind(matches!(outcome, Outcome::Postpone { .. }))
    .execute(tx.conn())
    .await?;
    if written.rows_affected() == 1 {
        sqlx::query("SELECT pg_notify($1, '')").bind(super::CHANNEL).execute(tx.conn()).await?;
    }
    Ok(written.rows_affected() == 1)
}

/// Gives back jobs that were claimed and not started, without counting the attempt.
pub async fn give_back(tx: &mut SystemTx, owner: Uuid, jobs: &[JobId]) -> Result<(), DbError> {
    let ids: Vec<Uuid> = jobs.iter().map(|j| j.0).collect();
    sqlx::query(
        "UPDATE jobs SET state = 'ready', attempt = attempt - 1, lease_owner = NULL, lease_until = NULL,
           priority = greatest(priority, asked_priority), asked_priority = NULL
         WHERE lease_owner = $1 AND state = 'running' AND id = ANY ($2)",
    )
    .bind(owner)
    .bind(&ids)
    .execute(tx.conn())
    .await?;
    sqlx::query("SELECT pg_notify($1, '')").bind(super::CHANNEL).execute(tx.conn()).await?;
    Ok(())
}

/// Makes jobs ready again whose worker died, or dead when they used up their attempts. Returns how many.
pub async fn reap(tx: &mut SystemTx) -> Result<u64, DbError> {
    let done = sqlx::query(
        "UPDATE jobs SET state = CASE WHEN attempt >= max_attempts THEN 'dead' ELSE 'ready' END,
           priority = greatest(priority, asked_priority), asked_priority = NULL,
           run_at = now() + make_interval(secs => least(600, 2 ^ least(attempt, 10))), last_error = 'the lease ran out',
           finished_at = CASE WHEN attempt >= max_attempts THEN now() END, lease_owner = NULL, lease_until = NULL
         WHERE (tenant_id, id) IN (SELECT tenant_id, id FROM jobs WHERE state = 'running' AND lease_until < now() LIMIT 500 FOR UPDATE SKIP LOCKED)",
    )
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected())
}

/// Removes finished jobs older than `keep`. Returns how many.
pub async fn prune(tx: &mut SystemTx, keep: Duration) -> Result<u64, DbError> {
    let done = sqlx::query(
        "DELETE FROM jobs WHERE (tenant_id, id) IN (SELECT tenant_id, id FROM jobs WHERE finished_at < now() - make_interval(secs => $1) LIMIT 5000)",
    )
    .bind(keep.as_secs_f64())
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected())
}
