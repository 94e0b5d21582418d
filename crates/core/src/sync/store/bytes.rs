//! The bytes of messages, under their own hash.
//!
//! They are most of what a backfill writes, so large batches send them ahead of their rows, on a connection of their own
//! while the rows of the batch before are written. What is stored ahead does no harm: it says nothing of any mailbox,
//! whoever writes it writes the same, and bytes that no message came to use are removed by [`super::vanish::sweep_orphans`].

use std::collections::HashSet;

use super::{Prepared, Target};
use crate::platform::db::{Db, DbError, TenantTx};
use crate::platform::id::TenantId;

/// Bytes of messages in one statement. sqlx 0.9 holds them twice more, as arguments and in its write buffer, and each of
/// the two grows by doubling.
const STATEMENT_BYTES: usize = 512 << 10;

/// Hashes of bytes that [`store_ahead`] was the first to store. A message needs its bytes, so the account has none with
/// these, and nobody removes them: [`super::vanish::sweep_gone`] removes bytes with their last message only.
#[derive(Debug, Default)]
pub struct New(HashSet<Vec<u8>>);

impl New {
    /// Those of a later call, too.
    pub fn add(&mut self, later: Self) {
        self.0.extend(later.0);
    }

    pub(super) fn has(&self, message: &Prepared) -> bool {
        self.0.contains(message.hash.as_slice())
    }
}

/// Stores those of `messages` that are not there, before their rows and outside the account's lease.
///
/// An optimisation: the transaction of the rows looks again for those that were there. It commits without waiting for the
/// disk, because a durable commit of the rows makes everything durable that was committed before.
pub async fn store_ahead(
    db: &Db,
    tenant: TenantId,
    target: &Target,
    messages: &[&Prepared],
) -> Result<New, DbError> {
    let mut tx = db.relaxed(tenant).await?;
    let new = store(&mut tx, target, messages).await?;
    tx.commit().await?;
    Ok(new)
}

/// Stores those of `messages` that are not there.
pub(super) async fn store(
    tx: &mut TenantTx,
    target: &Target,
    messages: &[&Prepared],
) -> Result<New, DbError> {
    let mut new = HashSet::new();
    let fetched: Vec<&Prepared> = messages.iter().filter(|p| !p.known).copied().collect();
    let messages = fetched.as_slice();
    if messages.is_empty() {
        return Ok(New(new));
    }
    let there = stored(tx, target, messages).await?;
    let missing: Vec<&Prepared> =
        messages.iter().filter(|p| !there.contains(p.hash.as_slice())).copied().collect();
    let mut rest = missing.as_slice();
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = rest.iter().take_while(|p| {
            bytes += p.raw.len();
            bytes <= STATEMENT_BYTES
        });
        let (now, later) = rest.split_at(fits.count().max(1));
        new.extend(insert(tx, target, now).await?);
        rest = later;
    }
    Ok(New(new))
}

async fn stored(
    tx: &mut TenantTx,
    target: &Target,
    messages: &[&Prepared],
) -> Result<HashSet<Vec<u8>>, DbError> {
    let hashes: Vec<&[u8]> = messages.iter().map(|p| p.hash.as_slice()).collect();
    // As a value of each row, so that it stays a look into the index whatever the planner takes the table for.
    let there: Vec<Option<Vec<u8>>> = sqlx::query_scalar(
        "SELECT (SELECT b.hash FROM blobs b WHERE b.tenant_id = $1 AND b.account_id = $2 AND b.hash = h.hash)
         FROM unnest($3::bytea[]) AS h(hash)",
    )
    .bind(tx.tenant())
    .bind(target.account)
    .bind(hashes)
    .fetch_all(tx.conn())
    .await?;
    Ok(there.into_iter().flatten().collect())
}

/// Returns the hashes of those that nobody else stored meanwhile.
async fn insert(tx: &mut TenantTx, target: &Target, messages: &[&Prepared]) -> Result<Vec<Vec<u8>>, DbError> {
    let hashes: Vec<&[u8]> = messages.iter().map(|p| p.hash.as_slice()).collect();
    // unnest in the select list streams; in FROM it would write all of the bytes to a temporary file first.
    let raws: Vec<&[u8]> = messages.iter().map(|p| p.raw.as_ref()).collect();
    sqlx::query_scalar(
        "INSERT INTO blobs (tenant_id, account_id, hash, size_bytes, raw)
         SELECT $1, $2, b.hash, octet_length(b.raw), b.raw
         FROM (SELECT unnest($3::bytea[]) AS hash, unnest($4::bytea[]) AS raw) b
         ON CONFLICT DO NOTHING RETURNING hash",
    )
    .bind(tx.tenant())
    .bind(target.account)
    .bind(hashes)
    .bind(raws)
    .fetch_all(tx.conn())
    .await
    .map_err(DbError::from)
}
