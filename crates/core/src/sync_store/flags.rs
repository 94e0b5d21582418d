//! Flags and keywords as the server has them, laid under what our users changed meanwhile.
//!
//! `base_*` is the server's last word, the other columns our view. Only rows whose base differs are read for writing, so
//! a listing of a whole mailbox without changes writes nothing.

use std::collections::HashMap;

use mail::flags::{Flags, Keywords};
use mail::sync::{FlagState as State, merge};
use mail::uid::Uid;
use sqlx::Row as _;
use uuid::Uuid;

use super::Target;
use super::ingest::message_event;
use crate::db::{DbError, TenantTx};
use crate::event::{self, NewEvent};

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
    base_flags: Vec<i16>,
    keywords: Vec<String>,
    base_keywords: Vec<String>,
    modseqs: Vec<Option<i64>>,
    /// Of these, what our user deleted on a server that only marks it, and somebody has unmarked there.
    unmarked: Vec<Uuid>,
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
    let rows = sqlx::query(
        "SELECT s.n, p.id, p.message_id, p.flags, p.base_flags, p.keywords, p.base_keywords, p.hidden_at IS NULL AS visible,
           p.hidden_at IS NOT NULL AND NOT EXISTS (
             SELECT 1 FROM pending_changes c WHERE c.tenant_id = $1 AND c.placement_id = p.id) AS left_marked
         FROM unnest($4::bigint[], $5::smallint[], $6::text[]) WITH ORDINALITY AS s(uid, flags, keywords, n)
         JOIN message_mailboxes p ON p.tenant_id = $1 AND p.mailbox_id = $2 AND p.generation = $3 AND p.uid = s.uid
         WHERE p.base_flags <> s.flags OR p.base_keywords <> string_to_array(s.keywords, ' ')
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
    let mut columns = Columns::default();
    let mut events = Vec::new();
    for row in rows {
        let n: i64 = row.get("n");
        let Some(server) = usize::try_from(n - 1).ok().and_then(|n| states.get(n)) else { continue };
        let state = |flags: &str, keywords: &str| State {
            flags: Flags::from_bits(row.get(flags)),
            keywords: Keywords::from(row.get::<Vec<String>, _>(keywords)),
        };
        let (ours, base) = (state("flags", "keywords"), state("base_flags", "base_keywords"));
        let merged = merge(&base, &ours, &State { flags: server.flags, keywords: server.keywords.clone() });
        if row.get("visible") && merged != ours {
            events.push(message_event("message.updated", target, row.get("message_id")));
        }
        if row.get("left_marked") && !server.flags.contains(Flags::DELETED) {
            columns.unmarked.push(row.get("id"));
        }
        columns.ids.push(row.get("id"));
        columns.flags.push(merged.flags.bits());
        columns.base_flags.push(server.flags.bits());
        columns.keywords.push(merged.keywords.as_slice().join(" "));
        columns.base_keywords.push(server.keywords.as_slice().join(" "));
        columns.modseqs.push(server.modseq);
    }
    write(tx, &columns).await?;
    events.extend(show(tx, target, &columns.unmarked).await?);
    event::record(tx, Some(target.account), &events).await?;
    Ok(Applied { shown: events.len(), written: columns.ids.len() })
}

/// Hidden placements are seen again; returns what is to be told of it.
async fn show(tx: &mut TenantTx, target: &Target, placements: &[Uuid]) -> Result<Vec<NewEvent>, DbError> {
    if placements.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<(Uuid, bool)> = sqlx::query_as(
        "SELECT m.id, bool_or(m.gone_at IS NOT NULL) FROM message_mailboxes p
         JOIN messages m ON m.tenant_id = p.tenant_id AND m.id = p.message_id
         WHERE p.tenant_id = $1 AND p.id = ANY ($2) GROUP BY m.id",
    )
    .bind(tx.tenant())
    .bind(placements)
    .fetch_all(tx.conn())
    .await?;
    sqlx::query("UPDATE message_mailboxes SET hidden_at = NULL WHERE tenant_id = $1 AND id = ANY ($2)")
        .bind(tx.tenant())
        .bind(placements)
        .execute(tx.conn())
        .await?;
    let messages: Vec<Uuid> = rows.iter().map(|(id, _)| *id).collect();
    crate::thread::refresh(tx, &messages).await?;
    let kind = |was_gone| if was_gone { "message.created" } else { "message.updated" };
    Ok(rows.into_iter().map(|(id, was_gone)| message_event(kind(was_gone), target, id)).collect())
}

async fn write(tx: &mut TenantTx, c: &Columns) -> Result<(), DbError> {
    if c.ids.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "UPDATE message_mailboxes p SET flags = n.flags, base_flags = n.base_flags,
           keywords = string_to_array(n.keywords, ' '), base_keywords = string_to_array(n.base_keywords, ' '),
           modseq = coalesce(n.modseq, p.modseq)
         FROM unnest($2::uuid[], $3::smallint[], $4::smallint[], $5::text[], $6::text[], $7::bigint[])
           AS n(id, flags, base_flags, keywords, base_keywords, modseq)
         WHERE p.tenant_id = $1 AND p.id = n.id",
    )
    .bind(tx.tenant())
    .bind(&c.ids)
    .bind(&c.flags)
    .bind(&c.base_flags)
    .bind(&c.keywords)
    .bind(&c.base_keywords)
    .bind(&c.modseqs)
    .execute(tx.conn())
    .await?;
    Ok(())
}
