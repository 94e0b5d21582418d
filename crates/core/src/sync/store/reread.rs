//! Stored sources that a newer parser reads again: subjects, addresses, dates, snippets, files and words follow.
//!
//! Source by source in the order of their hashes, so that equal bytes are read once. Threads stay as they are. What the
//! release before stores while both run is read with the next version.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use mail::mime::PARSE_VERSION;
use sqlx::Row as _;
use uuid::Uuid;

use super::prepare::content;
use super::{Content, sort_date};
use crate::domain::search::index::{self, Entry};
use crate::platform::db::{Db, DbError, TenantTx};
use crate::platform::id::{AccountId, MessageId, TenantId};

/// Sources of one portion, and their bytes together unless one alone has more.
const SOURCES: i64 = 200;
const BYTES: i64 = 4 << 20;
/// A portion over which processes ended this often is passed over: its messages stay as they were read before.
const TRIES: i16 = 2;

/// Reads the next portion of an account again. `false`: nothing is left. `with_words`: also what searches look in.
///
/// # Errors
/// Those of the database; the portion is read once more then.
pub async fn portion(
    db: &Db,
    tenant: TenantId,
    account: AccountId,
    with_words: bool,
) -> Result<bool, DbError> {
    let mut tx = db.tenant(tenant).await?;
    let Some((hashes, last)) = next(&mut tx, account).await? else {
        tx.commit().await?;
        return Ok(false);
    };
    // Counted before the risk.
    tx.commit().await?;
    let mut tx = db.tenant(tenant).await?;
    let sources: Vec<(Vec<u8>, Vec<u8>)> = sqlx::query_as(
        "SELECT hash, raw FROM blobs WHERE tenant_id = $1 AND account_id = $2 AND hash = ANY ($3)",
    )
    .bind(tenant)
    .bind(account)
    .bind(&hashes)
    .fetch_all(tx.conn())
    .await?;
    tx.release();
    let parse = move || -> Vec<(Vec<u8>, Content)> {
        let read = |(hash, raw): (Vec<u8>, Vec<u8>)| (hash, content(&mail::mime::parse(&raw), with_words));
        sources.into_iter().map(read).collect()
    };
    let read = tokio::task::spawn_blocking(parse).await.unwrap_or_else(|_| {
        tracing::error!(account_id = %account, "a portion of stored mail could not be read again");
        Vec::new()
    });
    let mut tx = db.tenant(tenant).await?;
    write(&mut tx, account, read).await?;
    advance(&mut tx, account, &last).await?;
    tx.commit().await?;
    Ok(true)
}

/// The hashes of the next portion and the last of them; counts the try. `None`: all was read, which is written down.
async fn next(tx: &mut TenantTx, account: AccountId) -> Result<Option<(Vec<Vec<u8>>, Vec<u8>)>, DbError> {
    loop {
        let state: Option<(Vec<u8>, i16)> = sqlx::query_as(
            "UPDATE accounts SET read_again_tries = read_again_tries + 1
             WHERE tenant_id = $1 AND id = $2 AND read_by < $3
             RETURNING coalesce(read_again_to, ''), read_again_tries",
        )
        .bind(tx.tenant())
        .bind(account)
        .bind(PARSE_VERSION)
        .fetch_optional(tx.conn())
        .await?;
        let Some((after, tries)) = state else { return Ok(None) };
        // Not what processes ended over when it came, and what was too large to be kept.
        let rows: Vec<(Vec<u8>, i64)> = sqlx::query_as(
            "SELECT b.hash, b.size_bytes FROM blobs b WHERE b.tenant_id = $1 AND b.account_id = $2 AND b.hash > $3
               AND octet_length(b.raw) > 0
               AND EXISTS (SELECT 1 FROM messages m WHERE m.tenant_id = $1 AND m.account_id = $2 AND m.blob_hash = b.hash
                           AND NOT m.never_parse)
             ORDER BY b.hash LIMIT $4",
        )
        .bind(tx.tenant())
        .bind(account)
        .bind(after)
        .bind(SOURCES)
        .fetch_all(tx.conn())
        .await?;
        let mut bytes = 0;
        let fits = |(_, size): &(Vec<u8>, i64)| {
            let first = bytes == 0;
            bytes += size.max(&1);
            first || bytes <= BYTES
        };
        let hashes: Vec<Vec<u8>> = rows.into_iter().take_while(fits).map(|(hash, _)| hash).collect();
        let Some(last) = hashes.last().cloned() else {
            sqlx::query(
                "UPDATE accounts SET read_by = $3, read_again_to = NULL, read_again_tries = 0 WHERE tenant_id = $1 AND id = $2",
            )
            .bind(tx.tenant())
            .bind(account)
            .bind(PARSE_VERSION)
            .execute(tx.conn())
            .await?;
            return Ok(None);
        };
        if tries <= TRIES {
            return Ok(Some((hashes, last)));
        }
        tracing::error!(account_id = %account, sources = hashes.len(), "a portion of stored mail is not read again: processes ended over it");
        advance(tx, account, &last).await?;
    }
}

async fn advance(tx: &mut TenantTx, account: AccountId, to: &[u8]) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE accounts SET read_again_to = $3, read_again_tries = 0 WHERE tenant_id = $1 AND id = $2",
    )
    .bind(tx.tenant())
    .bind(account)
    .bind(to)
    .execute(tx.conn())
    .await?;
    Ok(())
}

async fn write(tx: &mut TenantTx, account: AccountId, read: Vec<(Vec<u8>, Content)>) -> Result<(), DbError> {
    let text = |pick: fn(&Content) -> &str| -> Vec<&str> { read.iter().map(|(_, c)| pick(c)).collect() };
    let lines = |pick: fn(&Content) -> &[String]| -> Vec<String> {
        read.iter().map(|(_, c)| pick(c).join("\n")).collect()
    };
    // A message without a date is sorted by when the server got it, as when it came.
    let sorted: Vec<Option<DateTime<Utc>>> = read.iter().map(|(_, c)| c.date.map(sort_date)).collect();
    let rows = sqlx::query(
        "UPDATE messages m SET message_id_header = n.header, in_reply_to = string_to_array(n.reply, E'\\n'),
           refs = string_to_array(n.refs, E'\\n'), subject = n.subject, from_addresses = n.f::jsonb, to_addresses = n.t::jsonb,
           cc_addresses = n.c::jsonb, bcc_addresses = n.b::jsonb, reply_to_addresses = n.r::jsonb, date = n.date,
           date_sort_at = coalesce(n.sorted, m.sort_at), snippet = n.snippet, attachments = n.attachments::jsonb,
           has_attachments = n.has, degraded = n.degraded, date_zone_unknown = n.no_zone
         FROM unnest($3::bytea[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[],
           $11::text[], $12::text[], $13::timestamptz[], $14::timestamptz[], $15::text[], $16::text[], $17::bool[], $18::bool[], $19::bool[])
           AS n(hash, header, reply, refs, subject, f, t, c, b, r, date, sorted, snippet, attachments, has, degraded, no_zone)
         WHERE m.tenant_id = $1 AND m.account_id = $2 AND m.blob_hash = n.hash AND NOT m.never_parse
         RETURNING m.id, m.blob_hash",
    )
    .bind(tx.tenant())
    .bind(account)
    .bind(read.iter().map(|(hash, _)| hash.as_slice()).collect::<Vec<_>>())
    .bind(read.iter().map(|(_, c)| c.message_id_header.as_deref()).collect::<Vec<_>>())
    .bind(lines(|c| &c.in_reply_to))
    .bind(lines(|c| &c.refs))
    .bind(read.iter().map(|(_, c)| c.subject.as_deref()).collect::<Vec<_>>())
    .bind(text(|c| &c.from))
    .bind(text(|c| &c.to))
    .bind(text(|c| &c.cc))
    .bind(text(|c| &c.bcc))
    .bind(text(|c| &c.reply_to))
    .bind(read.iter().map(|(_, c)| c.date).collect::<Vec<_>>())
    .bind(sorted)
    .bind(text(|c| &c.snippet))
    .bind(text(|c| &c.attachments))
    .bind(read.iter().map(|(_, c)| c.has_attachments).collect::<Vec<_>>())
    .bind(read.iter().map(|(_, c)| c.degraded).collect::<Vec<_>>())
    .bind(read.iter().map(|(_, c)| c.date_zone_unknown).collect::<Vec<_>>())
    .fetch_all(tx.conn())
    .await?;
    let mut words: HashMap<Vec<u8>, _> =
        read.into_iter().filter_map(|(hash, c)| Some((hash, c.tsvector?))).collect();
    let (mut ids, mut entries): (Vec<Uuid>, Vec<Entry>) = (Vec::new(), Vec::new());
    for row in &rows {
        let (id, hash): (Uuid, Vec<u8>) = (row.try_get("id")?, row.try_get("blob_hash")?);
        ids.push(id);
        if let Some(tsvector) = words.get_mut(&hash) {
            entries.push(Entry { message: MessageId(id), tsvector: tsvector.clone() });
        }
    }
    // Lists by date are read from the places.
    sqlx::query(
        "UPDATE message_mailboxes p SET date_sort_at = m.date_sort_at FROM messages m
         WHERE p.tenant_id = $1 AND p.message_id = ANY ($2) AND m.tenant_id = $1 AND m.id = p.message_id
           AND p.date_sort_at IS DISTINCT FROM m.date_sort_at",
    )
    .bind(tx.tenant())
    .bind(&ids)
    .execute(tx.conn())
    .await?;
    index::write(tx, &entries).await
}
