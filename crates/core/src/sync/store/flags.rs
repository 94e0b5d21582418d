//! Flags and keywords as the server has them.
//!
//! Only rows that have others are written, so a listing of a whole mailbox without changes writes nothing. Of a message with
//! edits, what is shown is folded anew.

use std::collections::HashMap;

use mail::flags::{Flags, Keywords};
use mail::sync::FlagState as State;
use mail::uid::Uid;
use sqlx::Row as _;
use uuid::Uuid;

use super::Target;
use crate::domain::edits;
use crate::domain::event::{self, MessagePart, MessageUpdated};
use crate::platform::db::{DbError, TenantTx};

/// What the server says of one message's flags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlagState {
    /// Which message.
    pub uid: Uid,
    /// System flags.
    pub flags: Flags,
    /// Keywords.
    pub keywords: Keywords,
    /// Mod-sequence, when the server has them.
    pub modseq: Option<i64>,
}

/// Rows of one UPDATE, as columns.
#[derive(Default)]
struct Columns {
    ids: Vec<Uuid>,
    flags: Vec<i16>,
    keywords: Vec<String>,
    modseqs: Vec<Option<i64>>,
}

/// What [`apply`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Applied {
    /// Placements that changed in our users' view.
    pub shown: usize,
    /// Placements that did not have what the server says.
    pub written: usize,
}

/// Takes over what the server says.
pub async fn apply(tx: &mut TenantTx, target: &Target, states: &[FlagState]) -> Result<Applied, DbError> {
    // A server may tell of one message twice in an answer: its last word counts.
    let last: HashMap<Uid, &FlagState> = states.iter().map(|s| (s.uid, s)).collect();
    let states: Vec<&FlagState> = last.into_values().collect();
    if states.is_empty() {
        return Ok(Applied::default());
    }
    // Looked up one by one: for a hundred the planner reads all of the mailbox.
    let rows = sqlx::query(
        "SELECT s.n, p.id, p.message_id, p.base_flags <> s.flags AS other_flags,
           p.base_keywords <> string_to_array(s.keywords, ' ') AS other_keywords, p.marked OR EXISTS (
           SELECT 1 FROM edits e WHERE e.tenant_id = $1 AND e.message_id = p.message_id) AS folded
         FROM unnest($4::bigint[], $5::smallint[], $6::text[]) WITH ORDINALITY AS s(uid, flags, keywords, n)
         CROSS JOIN LATERAL (
           SELECT id FROM message_mailboxes l WHERE l.tenant_id = $1 AND l.mailbox_id = $2 AND l.generation = $3 AND l.uid = s.uid
             AND (l.base_flags <> s.flags OR l.base_keywords <> string_to_array(s.keywords, ' ')) OFFSET 0) f
         JOIN message_mailboxes p ON p.tenant_id = $1 AND p.id = f.id
         ORDER BY p.id FOR NO KEY UPDATE OF p",
    )
    .bind(tx.tenant())
    .bind(target.mailbox)
    .bind(target.generation)
    .bind(states.iter().map(|s| i64::from(s.uid)).collect::<Vec<_>>())
    .bind(states.iter().map(|s| s.flags.bits()).collect::<Vec<_>>())
    .bind(states.iter().map(|s| s.keywords.as_slice().join(" ")).collect::<Vec<_>>())
    .fetch_all(tx.conn())
    .await?;
    let (mut columns, mut events) = (Columns::default(), Vec::new());
    let mut folded: Vec<(Uuid, Uuid, &FlagState)> = Vec::new();
    for row in &rows {
        let n: i64 = row.try_get("n")?;
        let Some(server) = usize::try_from(n - 1).ok().and_then(|n| states.get(n)) else { continue };
        let (id, message): (Uuid, Uuid) = (row.try_get("id")?, row.try_get("message_id")?);
        if row.try_get("folded")? {
            folded.push((message, id, server));
            continue;
        }
        let parts = [("other_flags", MessagePart::Flags), ("other_keywords", MessagePart::Keywords)];
        let mut changed = Vec::new();
        for (column, part) in parts {
            if row.try_get(column)? {
                changed.push(part);
            }
        }
        events.push(MessageUpdated { id: message.into(), changed }.into());
        columns.ids.push(id);
        columns.flags.push(server.flags.bits());
        columns.keywords.push(server.keywords.as_slice().join(" "));
        columns.modseqs.push(server.modseq);
    }
    write(tx, &columns).await?;
    event::record(tx, target.account, &events);
    let shown = events.len() + fold(tx, target, &folded).await?;
    Ok(Applied { shown, written: rows.len() })
}

/// Takes over flags of messages with edits, or that are hidden as `\Deleted`: who is unmarked is seen again.
async fn fold(
    tx: &mut TenantTx,
    target: &Target,
    said: &[(Uuid, Uuid, &FlagState)],
) -> Result<usize, DbError> {
    let messages: Vec<Uuid> = said.iter().map(|(message, ..)| *message).collect();
    let mut works = edits::load(tx, target.account, &messages).await?;
    for (message, row, server) in said {
        let Ok(at) = works.binary_search_by_key(message, |w| w.id.0) else { continue };
        let Some(work) = works.get_mut(at) else { continue };
        for held in work.message.server.iter_mut().filter(|h| h.row == Some(row.as_u128())) {
            held.flags = State { flags: server.flags, keywords: server.keywords.clone() };
            held.marked &= server.flags.contains(Flags::DELETED);
        }
    }
    edits::save(tx, target.account, &works).await
}

async fn write(tx: &mut TenantTx, c: &Columns) -> Result<(), DbError> {
    if c.ids.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "UPDATE message_mailboxes p SET flags = n.flags, base_flags = n.flags, keywords = string_to_array(n.keywords, ' '),
           base_keywords = string_to_array(n.keywords, ' '), modseq = coalesce(n.modseq, p.modseq)
         FROM unnest($2::uuid[], $3::smallint[], $4::text[], $5::bigint[]) AS n(id, flags, keywords, modseq)
         WHERE p.tenant_id = $1 AND p.id = n.id",
    )
    .bind(tx.tenant())
    .bind(&c.ids)
    .bind(&c.flags)
    .bind(&c.keywords)
    .bind(&c.modseqs)
    .execute(tx.conn())
    .await?;
    Ok(())
}
