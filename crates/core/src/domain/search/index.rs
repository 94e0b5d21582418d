//! Filling the text index: in the transaction that stores fresh mail, or afterwards for what a first synchronisation
//! brought in bulk.

use std::borrow::Cow;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::Row as _;
use uuid::Uuid;

use mail::mime::ParsedMessage;
use mail::search_index::{Document, TSVECTOR_MAX_BYTES, TsVector};
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo, Postgres};

use crate::platform::db::{Db, DbError, SystemTx, TenantTx};
use crate::platform::id::{AccountId, MessageId, TenantId, new_uuid};

/// Bytes of sources held at once while indexing. They are in memory twice, in the driver's rows and as ours, beside
/// their words, in each of the worker's jobs: 32 MiB made the worker's peak 290 MB.
const BATCH_MAX_BYTES: u64 = 4 << 20;
/// How long text may wait while more of the tenant's is arriving.
const PATIENCE: Duration = Duration::from_secs(40);
/// None has arrived for so long: whoever brought it is done, or waits for its server.
const PAUSE: Duration = Duration::from_secs(1);

/// The words of a message, to be stored with it.
#[must_use]
pub fn tsvector(message: &ParsedMessage) -> TsVector {
    let people = |list: &'_ [mail::address::Address]| -> Vec<String> {
        list.iter().flat_map(|a| a.name.iter().cloned().chain([a.address.clone()])).collect()
    };
    let (from, to, cc, bcc) =
        (people(&message.from), people(&message.to), people(&message.cc), people(&message.bcc));
    // Of attached messages too: who looks for their words looks for what they came with.
    let body = match message.attached_text.as_str() {
        "" => Cow::Borrowed(&message.text),
        attached => Cow::Owned(format!("{}\n{attached}", message.text)),
    };
    let document = Document {
        subject: message.subject.as_deref().unwrap_or_default(),
        from: from.iter().map(String::as_str).collect(),
        to: to.iter().map(String::as_str).collect(),
        cc: cc.iter().map(String::as_str).collect(),
        bcc: bcc.iter().map(String::as_str).collect(),
        list_id: message.list_id.as_deref().unwrap_or_default(),
        filenames: message.attachments.iter().filter_map(|a| a.filename.as_deref()).collect(),
        body: &body,
    };
    TsVector::of(&document, TSVECTOR_MAX_BYTES)
}

/// A message and what [`tsvector`] made of it.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The message.
    pub message: MessageId,
    /// Its words.
    pub tsvector: TsVector,
}

/// `tsvector` as an argument, in binary form.
struct Words<'a>(&'a TsVector);

impl sqlx::Type<Postgres> for Words<'_> {
    fn type_info() -> PgTypeInfo {
        // Of pg_type.dat; by name it would be looked up on each new connection.
        PgTypeInfo::with_oid(Oid(3614))
    }
}

impl PgHasArrayType for Words<'_> {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(3643))
    }
}

impl sqlx::Encode<'_, Postgres> for Words<'_> {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        buffer.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }
}

/// Makes messages searchable in the caller's transaction; their rows must exist. Messages that are gone are skipped.
pub async fn write(tx: &mut TenantTx, entries: &[Entry]) -> Result<(), DbError> {
    if entries.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = entries.iter().map(|e| e.message.0).collect();
    let words: Vec<Words<'_>> = entries.iter().map(|e| Words(&e.tsvector)).collect();
    // Locked as the foreign key locks them: what another transaction deletes now is skipped, not refused.
    sqlx::query(
        "WITH there AS (
           SELECT id, account_id, sort_at FROM messages WHERE tenant_id = $1 AND id = ANY ($2) ORDER BY id FOR KEY SHARE)
         INSERT INTO message_search (tenant_id, message_id, account_id, sort_at, tsv)
         SELECT $1, m.id, m.account_id, m.sort_at, e.tsv
         FROM unnest($2::uuid[], $3::tsvector[]) AS e(id, tsv) JOIN there m ON m.id = e.id
         ON CONFLICT (tenant_id, message_id) DO UPDATE SET tsv = excluded.tsv, sort_at = excluded.sort_at",
    )
    .bind(tx.tenant())
    .bind(&ids)
    .bind(&words)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Notes fresh messages, each with its size in bytes, whose words [`index_pending`] shall add, and the time of the newest.
pub async fn postpone(
    tx: &mut TenantTx,
    account: AccountId,
    newest: DateTime<Utc>,
    messages: &[(Uuid, u64)],
) -> Result<(), DbError> {
    let mut bytes = 0;
    let mut batches: Vec<Vec<Uuid>> = Vec::new();
    for (id, size) in messages {
        bytes += size;
        match batches.last_mut() {
            Some(batch) if bytes <= BATCH_MAX_BYTES => batch.push(*id),
            _ => {
                bytes = *size;
                batches.push(vec![*id]);
            }
        }
    }
    for batch in batches {
        sqlx::query(
            "INSERT INTO unindexed_batches (tenant_id, id, account_id, sort_at, message_ids) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(tx.tenant())
        .bind(new_uuid())
        .bind(account)
        .bind(newest)
        .bind(batch)
        .execute(tx.conn())
        .await?;
    }
    Ok(())
}

/// Whether the account's text shall wait, because a first synchronisation of the tenant brings more in this moment, and
/// indexing takes several times the processor of what makes mail visible. False once the account's has waited for 40 seconds.
pub async fn shall_wait(db: &Db, tenant: TenantId, account: AccountId) -> Result<bool, DbError> {
    let mut tx = db.tenant(tenant).await?;
    Ok(sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM unindexed_batches WHERE tenant_id = $1 AND stored_at > now() - make_interval(secs => $3)
                       AND stored_at < now() + interval '1 minute')
           AND NOT EXISTS (SELECT 1 FROM unindexed_batches WHERE tenant_id = $1 AND account_id = $2
             AND stored_at < now() - make_interval(secs => $4))",
    )
    .bind(tenant)
    .bind(account)
    .bind(PAUSE.as_secs_f64())
    .bind(PATIENCE.as_secs_f64())
    .fetch_one(tx.conn())
    .await?)
}

/// Indexes the newest batch of the account that is not yet searchable, in two short transactions with the parsing between
/// them. Returns whether there was one.
pub async fn index_pending(db: &Db, tenant: TenantId, account: AccountId) -> Result<bool, DbError> {
    let mut tx = db.tenant(tenant).await?;
    let Some(batch) = newest_batch(&mut tx, account).await? else { return Ok(false) };
    let sources = sources(&mut tx, batch).await?;
    tx.commit().await?;
    let unread: Vec<MessageId> = sources.iter().map(|(id, _)| *id).collect();
    let parse = move || sources.iter().map(|(id, raw)| entry(*id, raw)).collect::<Vec<Entry>>();
    // A defect in the parser must not keep the batch coming back for ever: it is stored without words.
    let entries = tokio::task::spawn_blocking(parse).await.unwrap_or_else(|_| {
        tracing::error!(account_id = %account, "text of a batch could not be read");
        unread.into_iter().map(|message| Entry { message, tsvector: TsVector::empty() }).collect()
    });
    let mut tx = db.relaxed(tenant).await?;
    write(&mut tx, &entries).await?;
    sqlx::query("DELETE FROM unindexed_batches WHERE tenant_id = $1 AND id = $2")
        .bind(tx.tenant())
        .bind(batch)
        .execute(tx.conn())
        .await?;
    tx.commit().await?;
    Ok(true)
}

/// Sorts what [`write`] added into the index proper, which it otherwise is by whoever's message fills its list. Returns how
/// many pages of new words there were.
pub async fn merge(tx: &mut SystemTx) -> Result<i64, DbError> {
    Ok(sqlx::query_scalar("SELECT merge_search_index()").fetch_one(tx.conn()).await?)
}

fn entry(message: MessageId, raw: &[u8]) -> Entry {
    Entry { message, tsvector: tsvector(&mail::mime::parse(raw)) }
}

async fn newest_batch(tx: &mut TenantTx, account: AccountId) -> Result<Option<Uuid>, DbError> {
    let next = "SELECT id FROM unindexed_batches WHERE tenant_id = $1 AND account_id = $2 ORDER BY sort_at DESC, id LIMIT 1";
    let batch = sqlx::query_scalar(next).bind(tx.tenant()).bind(account).fetch_optional(tx.conn()).await?;
    if batch.is_some() || !adopt(tx, account).await? {
        return Ok(batch);
    }
    Ok(sqlx::query_scalar(next).bind(tx.tenant()).bind(account).fetch_optional(tx.conn()).await?)
}

/// Makes a batch of the newest messages that a release before `unindexed_batches` stored and did not index.
async fn adopt(tx: &mut TenantTx, account: AccountId) -> Result<bool, DbError> {
    let rows: Vec<(Uuid, i64, DateTime<Utc>)> = sqlx::query_as(
        "UPDATE messages SET indexed_at = now() WHERE tenant_id = $1 AND id IN (
           SELECT id FROM messages WHERE tenant_id = $1 AND account_id = $2 AND indexed_at IS NULL
           ORDER BY sort_at DESC LIMIT 500 FOR NO KEY UPDATE)
         RETURNING id, size_bytes, sort_at",
    )
    .bind(tx.tenant())
    .bind(account)
    .fetch_all(tx.conn())
    .await?;
    let Some(newest) = rows.iter().map(|(_, _, sort_at)| *sort_at).max() else { return Ok(false) };
    let messages: Vec<(Uuid, u64)> =
        rows.iter().map(|(id, size, _)| (*id, u64::try_from(*size).unwrap_or(0))).collect();
    postpone(tx, account, newest, &messages).await?;
    Ok(true)
}

async fn sources(tx: &mut TenantTx, batch: Uuid) -> Result<Vec<(MessageId, Vec<u8>)>, DbError> {
    // Key by key, whatever the planner takes the tables for.
    let rows = sqlx::query(
        "SELECT m.id, b.raw
         FROM unindexed_batches u CROSS JOIN LATERAL unnest(u.message_ids) AS d(id)
         CROSS JOIN LATERAL (
           SELECT id, account_id, blob_hash FROM messages WHERE tenant_id = $1 AND id = d.id OFFSET 0) m
         CROSS JOIN LATERAL (
           SELECT raw FROM blobs WHERE tenant_id = $1 AND account_id = m.account_id AND hash = m.blob_hash OFFSET 0) b
         WHERE u.tenant_id = $1 AND u.id = $2",
    )
    .bind(tx.tenant())
    .bind(batch)
    .fetch_all(tx.conn())
    .await?;
    rows.iter().map(|row| Ok((row.try_get("id")?, row.try_get("raw")?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_addresses_subject_and_file_names_are_indexed_under_their_fields() {
        let raw = b"From: Ann <ann@mail.example>\r\nTo: bob@b.example\r\nSubject: Plan\r\nList-Id: <dev.lists.example>\r\n\r\nHello\r\n";
        let words = tsvector(&mail::mime::parse(raw)).to_string();
        for lexeme in ["'f/ann'", "'mail'", "'t/bob'", "'s/plan'", "'l/dev'", "'hello'"] {
            assert!(words.contains(lexeme), "{lexeme} in {words}");
        }
    }
}
