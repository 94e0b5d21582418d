//! How a transaction writes the event log: what it collected gets its positions at the end, in one statement before COMMIT.
//!
//! A position that was given when a line is written would be seen only when its transaction commits, and a reader that had
//! seen a later one would never come back for it. So the tenant's row of `tenant_streams` is the last that a transaction
//! locks, and positions are in the order of commits, without gaps. A commit that returns before it is on disk moves
//! `position` only: after a crash those positions would be given again. A later commit that waits for the disk covers all
//! before it and moves `durable`, up to which readers go.

use serde_json::Value;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::DbError;
use crate::platform::id::{AccountId, TenantId};

/// An event on its way into the log.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Line {
    /// Its kind, `noun.verb`.
    pub kind: &'static str,
    /// Whose; `None`: the tenant's.
    pub account: Option<AccountId>,
    /// What it happened to.
    pub object: Uuid,
    /// Its payload.
    pub data: Value,
    /// Of an event of a message: by how many its conversation has more messages in sight.
    pub gain: Option<i16>,
    /// Old mail that was read for the first time.
    pub backfill: bool,
}

/// Lines of one statement, which has a limit of time.
const AT_ONCE: usize = 5_000;

/// Gives `lines` their positions and writes them. `relaxed`: the commit will not wait for the disk.
///
/// # Errors
/// Those of the database; [`DbError::Busy`] when other commits of the tenant took ten seconds.
pub(super) async fn write(
    conn: &mut PgConnection,
    tenant: TenantId,
    lines: &[Line],
    relaxed: bool,
) -> Result<(), DbError> {
    for some in lines.chunks(AT_ONCE) {
        write_some(conn, tenant, some, relaxed).await?;
    }
    Ok(())
}

async fn write_some(
    conn: &mut PgConnection,
    tenant: TenantId,
    lines: &[Line],
    relaxed: bool,
) -> Result<(), DbError> {
    let of = |pick: fn(&Line) -> Option<Uuid>| lines.iter().map(pick).collect::<Vec<_>>();
    sqlx::query(
        "WITH e AS (
           SELECT * FROM unnest($2::text[], $3::uuid[], $4::uuid[], $5::jsonb[], $6::smallint[], $7::bool[]) WITH ORDINALITY
             AS e(kind, account_id, object_id, data, gain, backfill, n)),
         m AS (
           SELECT e.n, e.gain, e.object_id, g.thread_id FROM e CROSS JOIN LATERAL (
             SELECT thread_id FROM messages WHERE tenant_id = $1 AND id = e.object_id OFFSET 0) g
           WHERE e.gain IS NOT NULL),
         t AS (
           -- A message counts once, whatever is told of it.
           SELECT thread_id, sum(greatest(-1, least(1, gain))) AS gain, min(came) AS came, max(went) AS went
           FROM (SELECT thread_id, object_id, sum(gain) AS gain, min(n) FILTER (WHERE gain > 0) AS came,
                   max(n) FILTER (WHERE gain < 0) AS went FROM m GROUP BY thread_id, object_id HAVING bool_or(gain <> 0)) o
           GROUP BY thread_id),
         s AS (
           SELECT t.*,
             EXISTS (SELECT 1 FROM messages g WHERE g.tenant_id = $1 AND g.thread_id = t.thread_id AND g.gone_at IS NULL
               OFFSET 0) AS is_seen,
             t.gain < 0 OR EXISTS (SELECT 1 FROM messages g WHERE g.tenant_id = $1 AND g.thread_id = t.thread_id
               AND g.gone_at IS NULL OFFSET greatest(t.gain, 0)) AS was_seen
           FROM t),
         p AS (
           INSERT INTO tenant_streams AS o (tenant_id, position, durable, last_at)
           SELECT $1, $8::bigint, CASE WHEN $9 THEN 0 ELSE $8 END, clock_timestamp()
             -- Locked only once the rest is known: everybody who commits an event waits for this row.
             FROM (SELECT set_config('lock_timeout', '10s', true) AS patience, (SELECT count(*) FROM m) + (SELECT count(*) FROM s) AS known) w
             WHERE w.known >= 0 AND w.patience IS NOT NULL
           ON CONFLICT (tenant_id) DO UPDATE SET position = o.position + $8,
             durable = CASE WHEN $9 THEN o.durable ELSE o.position + $8 END, last_at = greatest(o.last_at, clock_timestamp())
           RETURNING position, last_at),
         written AS (
           INSERT INTO events (tenant_id, position, kind, account_id, object_id, thread_id, thread_shown, backfill, data, created_at)
           SELECT $1, p.position - $8 + e.n, e.kind, e.account_id, e.object_id, m.thread_id,
             CASE WHEN e.n = s.came AND s.is_seen AND NOT s.was_seen THEN true
                  WHEN e.n = s.went AND s.was_seen AND NOT s.is_seen THEN false END,
             e.backfill, e.data, p.last_at
           FROM e CROSS JOIN p LEFT JOIN m ON m.n = e.n LEFT JOIN s ON s.thread_id = m.thread_id)
         SELECT position FROM p",
    )
    .bind(tenant)
    .bind(lines.iter().map(|l| l.kind).collect::<Vec<_>>())
    .bind(of(|l| l.account.map(|a| a.0)))
    .bind(lines.iter().map(|l| l.object).collect::<Vec<_>>())
    .bind(lines.iter().map(|l| &l.data).collect::<Vec<_>>())
    .bind(lines.iter().map(|l| l.gain).collect::<Vec<_>>())
    .bind(lines.iter().map(|l| l.backfill).collect::<Vec<_>>())
    .bind(i64::try_from(lines.len()).unwrap_or(i64::MAX))
    .bind(relaxed)
    .execute(conn)
    .await?;
    Ok(())
}
