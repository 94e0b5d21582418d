//! Filling the text index: in the transaction that stores fresh mail, or afterwards for what a first synchronisation
//! brought in bulk.

use sqlx::Row as _;
use uuid::Uuid;

use mail::mime::ParsedMessage;
use mail::search_index::{Document, TSVECTOR_MAX_BYTES, tsvector_text};

use crate::db::{Db, DbError, TenantTx};
use crate::id::{AccountId, MessageId, TenantId};

/// Bytes of sources held at once while indexing. They are in memory twice, in the driver's rows and as ours, beside
/// their words, in each of the worker's jobs: 32 MiB made the worker's peak 290 MB.
const BATCH_MAX_BYTES: i64 = 4 << 20;

/// The `tsvector` literal of a message, to be stored with it.
#[must_use]
pub fn tsvector(message: &ParsedMessage) -> String {
    let people = |list: &'_ [mail::address::Address]| -> Vec<String> {
        list.iter().flat_map(|a| a.name.iter().cloned().chain([a.address.clone()])).collect()
    };
    let (from, to, cc, bcc) =
        (people(&message.from), people(&message.to), people(&message.cc), people(&message.bcc));
    let document = Document {
        subject: message.subject.as_deref().unwrap_or_default(),
        from: from.iter().map(String::as_str).collect(),
        to: to.iter().map(String::as_str).collect(),
        cc: cc.iter().map(String::as_str).collect(),
        bcc: bcc.iter().map(String::as_str).collect(),
        list_id: message.list_id.as_deref().unwrap_or_default(),
        filenames: message.attachments.iter().filter_map(|a| a.filename.as_deref()).collect(),
        body: &message.text,
    };
    tsvector_text(&document, TSVECTOR_MAX_BYTES)
}

/// A message and the literal that [`tsvector`] made of it.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The message.
    pub message: MessageId,
    /// Its words.
    pub tsvector: String,
}

/// Makes messages searchable in the caller's transaction; their rows must exist. Messages that are gone are skipped.
pub async fn write(tx: &mut TenantTx, entries: &[Entry]) -> Result<(), DbError> {
    if entries.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = entries.iter().map(|e| e.message.0).collect();
    let words: Vec<&str> = entries.iter().map(|e| e.tsvector.as_str()).collect();
    sqlx::query(
        "WITH marked AS (
           UPDATE messages SET indexed_at = now() WHERE tenant_id = $1 AND id = ANY ($2) RETURNING id, account_id, sort_at)
         INSERT INTO message_search (tenant_id, message_id, account_id, sort_at, tsv)
         SELECT $1, m.id, m.account_id, m.sort_at, e.tsv::tsvector
         FROM unnest($2::uuid[], $3::text[]) AS e(id, tsv) JOIN marked m ON m.id = e.id
         ON CONFLICT (tenant_id, message_id) DO UPDATE SET tsv = excluded.tsv, sort_at = excluded.sort_at",
    )
    .bind(tx.tenant())
    .bind(&ids)
    .bind(&words)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Makes one fresh message searchable in the transaction that stores it.
pub async fn index_one_inline(
    tx: &mut TenantTx,
    message: MessageId,
    parsed: &ParsedMessage,
) -> Result<(), DbError> {
    write(tx, &[Entry { message, tsvector: tsvector(parsed) }]).await
}

/// Indexes up to `limit` messages of the account that are not yet searchable, newest first. Returns how many; fewer than
/// `limit` does not mean that it was the last: call again until it returns 0.
///
/// Two short transactions, with the parsing between them.
pub async fn index_pending(
    db: &Db,
    tenant: TenantId,
    account: AccountId,
    limit: usize,
) -> Result<usize, DbError> {
    let mut tx = db.tenant(tenant).await?;
    let sources = pending(&mut tx, account, limit).await?;
    drop(tx);
    if sources.is_empty() {
        return Ok(0);
    }
    let unread: Vec<MessageId> = sources.iter().map(|(id, _)| *id).collect();
    let parse = move || sources.iter().map(|(id, raw)| entry(*id, raw)).collect::<Vec<Entry>>();
    // A defect in the parser must not keep the batch coming back for ever: it is stored without words.
    let entries = tokio::task::spawn_blocking(parse).await.unwrap_or_else(|_| {
        tracing::error!(account_id = %account, "text of a batch could not be read");
        unread.into_iter().map(|message| Entry { message, tsvector: String::new() }).collect()
    });
    let mut tx = db.tenant(tenant).await?;
    tx.relax_durability().await?;
    write(&mut tx, &entries).await?;
    tx.commit().await?;
    Ok(entries.len())
}

fn entry(message: MessageId, raw: &[u8]) -> Entry {
    Entry { message, tsvector: tsvector(&mail::mime::parse(raw)) }
}

/// Sources of the newest messages without words, as many as fit into [`BATCH_MAX_BYTES`], but at least one.
async fn pending(
    tx: &mut TenantTx,
    account: AccountId,
    limit: usize,
) -> Result<Vec<(MessageId, Vec<u8>)>, DbError> {
    let rows = sqlx::query(
        "WITH due AS (
           SELECT id, blob_hash, size_bytes, row_number() OVER w AS n, sum(size_bytes) OVER w AS bytes FROM (
             SELECT id, blob_hash, size_bytes, sort_at FROM messages
             WHERE tenant_id = $1 AND account_id = $2 AND indexed_at IS NULL ORDER BY sort_at DESC LIMIT $3) m
           WINDOW w AS (ORDER BY sort_at DESC, id))
         SELECT d.id, b.raw FROM due d JOIN blobs b ON b.tenant_id = $1 AND b.account_id = $2 AND b.hash = d.blob_hash
         WHERE d.n = 1 OR d.bytes <= $4",
    )
    .bind(tx.tenant())
    .bind(account)
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .bind(BATCH_MAX_BYTES)
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
        let words = tsvector(&mail::mime::parse(raw));
        for lexeme in ["'f/ann'", "'mail'", "'t/bob'", "'s/plan'", "'l/dev'", "'hello'"] {
            assert!(words.contains(lexeme), "{lexeme} in {words}");
        }
    }
}
