//! Recording messages whose edits or placements changed: rows by their difference, edits, and one event for each message
//! that is seen differently.

use std::collections::{BTreeSet, HashMap, HashSet};

use chrono::{DateTime, Utc};
use mail::flags::Keywords;
use mail::sync::StoreChange;
use mail::sync::edits::{Change, Edit, MailboxKey, Scope, State};
use sqlx::Postgres;
use sqlx::postgres::PgArguments;
use uuid::Uuid;

use super::rows::{Rows, difference, seen};
use super::{Dates, Row, Work};
use crate::domain::event::{self, Event, MessageCreated, MessageDeleted, MessagePart, MessageUpdated};
use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{AccountId, MessageId};

/// Records what became of these messages of one account. Returns how many of them are seen differently.
///
/// # Errors
/// Those of the database. [`DbError::MissingReference`]: an edit leads into a mailbox that has just gone.
pub async fn save(tx: &mut TenantTx, account: AccountId, works: &[Work]) -> Result<usize, DbError> {
    let works: Vec<&Work> = works.iter().filter(|w| w.is_changed()).collect();
    if works.is_empty() {
        return Ok(0);
    }
    let generations = generations(tx, &works).await?;
    let fallbacks = fallbacks(tx, &works).await?;
    let (mut all, mut events, mut refreshed) = (Rows::default(), Vec::new(), Vec::new());
    let mut new_of: Vec<(Uuid, Row)> = Vec::new();
    for work in &works {
        let visible = work.message.visible();
        let fallback = fallbacks.get(&work.id.0).copied().unwrap_or(Dates {
            internal: DateTime::<Utc>::UNIX_EPOCH,
            sort: DateTime::<Utc>::UNIX_EPOCH,
            modseq: 0,
        });
        let generation = |mailbox: Uuid| generations.get(&mailbox).copied().unwrap_or(0);
        let rows = difference(work, &visible, generation, fallback);
        new_of.extend(rows.new.into_iter().map(|row| (work.id.0, row)));
        all.changed.extend(rows.changed);
        all.gone.extend(rows.gone);
        let told_before = work.told.clone().unwrap_or_else(|| work.seen());
        let before = seen(told_before.iter().map(|(mailbox, flags)| (*mailbox, flags)));
        let after = seen(visible.iter().map(|p| (Uuid::from_u128(p.mailbox.0), &p.flags)));
        if let Some((event, moved)) = told(work.id.0, &before, &after) {
            events.push(event);
            if moved {
                refreshed.push(work.id.0);
            }
        }
    }
    // Inserted before others are hidden: a message that moves is at no time nowhere.
    insert(tx, account, &new_of).await?;
    update(tx, &all.changed).await?;
    delete(tx, &all.gone).await?;
    write_edits(tx, account, &works).await?;
    if !refreshed.is_empty() {
        crate::domain::thread::refresh(tx, &refreshed).await?;
    }
    event::record(tx, account, &events);
    Ok(events.len())
}

/// What clients see of a message: mailboxes and flags, in one order.
type Seen<'a> = &'a [(Uuid, &'a mail::sync::FlagState)];

/// The event of a message that is seen differently, and whether it came or went altogether.
fn told(id: Uuid, before: Seen<'_>, after: Seen<'_>) -> Option<(Event, bool)> {
    if before == after {
        return None;
    }
    let id = MessageId(id);
    let event = match (before.first(), after.first()) {
        (None, Some((mailbox, _))) => MessageCreated { id, mailbox_id: (*mailbox).into() }.into(),
        (Some(_), None) => MessageDeleted { id }.into(),
        _ => MessageUpdated { id, changed: parts(before, after) }.into(),
    };
    Some((event, before.is_empty() != after.is_empty()))
}

/// What differs of a message in sight. While it stays where it is, flags are compared place by place; else as a whole, as a
/// message's flags are the union over its mailboxes.
fn parts(before: Seen<'_>, after: Seen<'_>) -> Vec<MessagePart> {
    let mailboxes = |places: Seen<'_>| -> Vec<Uuid> { places.iter().map(|(mailbox, _)| *mailbox).collect() };
    let (flags, keywords, moved);
    if mailboxes(before) == mailboxes(after) {
        let pairs = || before.iter().zip(after);
        flags = pairs().any(|((_, b), (_, a))| b.flags != a.flags);
        keywords = pairs().any(|((_, b), (_, a))| b.keywords != a.keywords);
        moved = false;
    } else {
        let all =
            |places: Seen<'_>| places.iter().map(|(_, s)| s.flags.bits()).fold(0, |all, more| all | more);
        let words = |places: Seen<'_>| -> BTreeSet<String> {
            places.iter().flat_map(|(_, s)| s.keywords.as_slice().iter().map(ToString::to_string)).collect()
        };
        flags = all(before) != all(after);
        keywords = words(before) != words(after);
        moved = true;
    }
    let parts =
        [(flags, MessagePart::Flags), (keywords, MessagePart::Keywords), (moved, MessagePart::Mailboxes)];
    parts.into_iter().filter_map(|(differs, part)| differs.then_some(part)).collect()
}

async fn generations(tx: &mut TenantTx, works: &[&Work]) -> Result<HashMap<Uuid, i32>, DbError> {
    let mailboxes: HashSet<Uuid> =
        works.iter().flat_map(|w| &w.message.server).map(|h| Uuid::from_u128(h.mailbox.0)).collect();
    let edits = works.iter().flat_map(|w| &w.message.edits).filter_map(Edit::target);
    let mailboxes: Vec<Uuid> = mailboxes
        .into_iter()
        .chain(edits.map(|m| Uuid::from_u128(m.0)))
        .collect::<HashSet<_>>()
        .into_iter()
        .collect();
    let rows: Vec<(Uuid, i32)> =
        sqlx::query_as("SELECT id, generation FROM mailboxes WHERE tenant_id = $1 AND id = ANY ($2)")
            .bind(tx.tenant())
            .bind(mailboxes)
            .fetch_all(tx.conn())
            .await?;
    Ok(rows.into_iter().collect())
}

/// Dates of messages that the server has nowhere: those of their first arrival.
async fn fallbacks(tx: &mut TenantTx, works: &[&Work]) -> Result<HashMap<Uuid, Dates>, DbError> {
    let ids: Vec<Uuid> =
        works.iter().filter(|w| w.rows.iter().all(|r| r.server.is_none())).map(|w| w.id.0).collect();
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let rows: Vec<(Uuid, DateTime<Utc>, DateTime<Utc>)> = sqlx::query_as(
        "SELECT id, received_at, sort_at FROM messages WHERE tenant_id = $1 AND id = ANY ($2)",
    )
    .bind(tx.tenant())
    .bind(ids)
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().map(|(id, internal, sort)| (id, Dates { internal, sort, modseq: 0 })).collect())
}

/// A statement whose values are not all bound.
type Statement<'q> = sqlx::query::Query<'q, Postgres, PgArguments>;

/// The columns of rows, as arrays: those that a new row and a changed one have in common.
#[derive(Default)]
struct Columns {
    ids: Vec<Uuid>,
    generations: Vec<i32>,
    uids: Vec<Option<i64>>,
    base_flags: Vec<i16>,
    base_keywords: Vec<String>,
    flags: Vec<i16>,
    keywords: Vec<String>,
    shown: Vec<bool>,
    marked: Vec<bool>,
    internal: Vec<DateTime<Utc>>,
    sort: Vec<DateTime<Utc>>,
    modseqs: Vec<i64>,
}

impl Columns {
    fn of<'a>(rows: impl Iterator<Item = &'a Row>) -> Self {
        let mut c = Self::default();
        for row in rows {
            let server = row.server.as_ref();
            let base = server.map(|s| s.flags.clone()).or_else(|| row.shown.clone()).unwrap_or_default();
            // Of what nobody sees, the flags are those of the server.
            let shown = row.shown.clone().unwrap_or_else(|| base.clone());
            c.ids.push(row.id);
            c.generations.push(server.map_or(0, |s| s.generation));
            c.uids.push(server.map(|s| s.uid));
            c.base_flags.push(base.flags.bits());
            c.base_keywords.push(base.keywords.as_slice().join(" "));
            c.flags.push(shown.flags.bits());
            c.keywords.push(shown.keywords.as_slice().join(" "));
            c.shown.push(row.shown.is_some());
            c.marked.push(server.is_some_and(|s| s.marked));
            c.internal.push(row.dates.internal);
            c.sort.push(row.dates.sort);
            c.modseqs.push(row.dates.modseq);
        }
        c
    }

    /// As `$2` to `$13`.
    fn bind(self, query: Statement<'_>) -> Statement<'_> {
        query
            .bind(self.ids)
            .bind(self.generations)
            .bind(self.uids)
            .bind(self.flags)
            .bind(self.base_flags)
            .bind(self.keywords)
            .bind(self.base_keywords)
            .bind(self.shown)
            .bind(self.marked)
            .bind(self.internal)
            .bind(self.sort)
            .bind(self.modseqs)
    }
}

async fn insert(tx: &mut TenantTx, account: AccountId, rows: &[(Uuid, Row)]) -> Result<(), DbError> {
    if rows.is_empty() {
        return Ok(());
    }
    let columns = Columns::of(rows.iter().map(|(_, row)| row));
    let statement = sqlx::query(
        "INSERT INTO message_mailboxes (tenant_id, account_id, id, message_id, mailbox_id, generation, uid, flags, base_flags,
           keywords, base_keywords, hidden_at, marked, internal_date, sort_at, modseq)
         SELECT $1, $14, r.id, r.message, r.mailbox, r.generation, r.uid, r.flags, r.base_flags, string_to_array(r.keywords, ' '),
           string_to_array(r.base_keywords, ' '), CASE WHEN NOT r.shown THEN now() END, r.marked, r.internal, r.sort, r.modseq
         FROM unnest($2::uuid[], $3::int[], $4::bigint[], $5::smallint[], $6::smallint[], $7::text[], $8::text[], $9::bool[],
           $10::bool[], $11::timestamptz[], $12::timestamptz[], $13::bigint[], $15::uuid[], $16::uuid[])
           AS r(id, generation, uid, flags, base_flags, keywords, base_keywords, shown, marked, internal, sort, modseq, message, mailbox)",
    );
    columns
        .bind(statement.bind(tx.tenant()))
        .bind(account)
        .bind(rows.iter().map(|(message, _)| *message).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, row)| row.mailbox).collect::<Vec<_>>())
        .execute(tx.conn())
        .await?;
    Ok(())
}

async fn update(tx: &mut TenantTx, rows: &[Row]) -> Result<(), DbError> {
    if rows.is_empty() {
        return Ok(());
    }
    let statement = sqlx::query(
        "UPDATE message_mailboxes p SET generation = r.generation, uid = r.uid, flags = r.flags, base_flags = r.base_flags,
           keywords = string_to_array(r.keywords, ' '), base_keywords = string_to_array(r.base_keywords, ' '),
           hidden_at = CASE WHEN r.shown THEN NULL ELSE coalesce(p.hidden_at, now()) END, marked = r.marked,
           internal_date = r.internal, sort_at = r.sort, modseq = r.modseq
         FROM unnest($2::uuid[], $3::int[], $4::bigint[], $5::smallint[], $6::smallint[], $7::text[], $8::text[], $9::bool[],
           $10::bool[], $11::timestamptz[], $12::timestamptz[], $13::bigint[])
           AS r(id, generation, uid, flags, base_flags, keywords, base_keywords, shown, marked, internal, sort, modseq)
         WHERE p.tenant_id = $1 AND p.id = r.id",
    );
    Columns::of(rows.iter()).bind(statement.bind(tx.tenant())).execute(tx.conn()).await?;
    Ok(())
}

async fn delete(tx: &mut TenantTx, rows: &[Uuid]) -> Result<(), DbError> {
    if !rows.is_empty() {
        sqlx::query("DELETE FROM message_mailboxes WHERE tenant_id = $1 AND id = ANY ($2)")
            .bind(tx.tenant())
            .bind(rows)
            .execute(tx.conn())
            .await?;
    }
    Ok(())
}

async fn write_edits(tx: &mut TenantTx, account: AccountId, works: &[&Work]) -> Result<(), DbError> {
    let (mut new, mut changed, mut over) = (Vec::new(), Vec::new(), Vec::new());
    for work in works {
        let kept: HashMap<i64, &Edit> = work.message.edits.iter().map(|e| (e.id, e)).collect();
        for before in &work.before.edits {
            match kept.get(&before.id) {
                None => over.push(before.id),
                Some(now) if *now != before => changed.push((*now, now.state != before.state)),
                Some(_) => {}
            }
        }
        new.extend(work.message.edits.iter().filter(|e| e.id == 0).map(|e| (work.id.0, e)));
    }
    if !over.is_empty() {
        sqlx::query("DELETE FROM edits WHERE tenant_id = $1 AND id = ANY ($2)")
            .bind(tx.tenant())
            .bind(over)
            .execute(tx.conn())
            .await?;
    }
    update_edits(tx, &changed).await?;
    insert_edits(tx, account, &new).await
}

/// The columns of edits, as arrays, that a new one and a changed one have in common; lists as text, since arrays of arrays
/// cannot be ragged.
#[derive(Default)]
struct EditColumns {
    mailboxes: Vec<Option<Uuid>>,
    add: Vec<i16>,
    remove: Vec<i16>,
    keywords_add: Vec<String>,
    keywords_remove: Vec<String>,
}

fn words(keywords: &Keywords) -> String {
    keywords.as_slice().join(" ")
}

fn uuid(key: MailboxKey) -> Uuid {
    Uuid::from_u128(key.0)
}

fn scope(scope: Scope) -> Option<Uuid> {
    match scope {
        Scope::All => None,
        Scope::In(mailbox) => Some(uuid(mailbox)),
    }
}

const fn state(state: State) -> &'static str {
    match state {
        State::Open => "open",
        State::Sent => "sent",
        State::InDoubt => "in_doubt",
        State::Copied => "copied",
        State::DoneUnseen => "done_unseen",
    }
}

const fn kind(change: &Change) -> &'static str {
    match change {
        Change::Flags { .. } => "flags",
        Change::Copy { .. } => "copy",
        Change::Move { .. } => "move",
        Change::Remove { .. } => "remove",
    }
}

impl EditColumns {
    fn of<'a>(edits: impl Iterator<Item = &'a Edit>) -> Self {
        let mut c = Self::default();
        let none = StoreChange::default();
        for edit in edits {
            let (flags, mailbox) = match &edit.change {
                Change::Flags { change, scope: at } => (change, scope(*at)),
                Change::Copy { from, .. } => (&none, Some(uuid(*from))),
                Change::Move { from, .. } | Change::Remove { from } => (&none, scope(*from)),
            };
            c.mailboxes.push(mailbox);
            c.add.push(flags.add.bits());
            c.remove.push(flags.remove.bits());
            c.keywords_add.push(words(&flags.add_keywords));
            c.keywords_remove.push(words(&flags.remove_keywords));
        }
        c
    }

    /// As `$2` to `$6`.
    fn bind(self, query: Statement<'_>) -> Statement<'_> {
        query
            .bind(self.mailboxes)
            .bind(self.add)
            .bind(self.remove)
            .bind(self.keywords_add)
            .bind(self.keywords_remove)
    }
}

async fn update_edits(tx: &mut TenantTx, changed: &[(&Edit, bool)]) -> Result<(), DbError> {
    if changed.is_empty() {
        return Ok(());
    }
    // Of an edit that was sent, the moment tells whether a mailbox was read since.
    let statement = sqlx::query(
        "UPDATE edits e SET mailbox_id = n.mailbox, state = n.state, flags_add = n.add, flags_remove = n.remove,
           keywords_add = string_to_array(n.keywords_add, ' '), keywords_remove = string_to_array(n.keywords_remove, ' '),
           done_in = string_to_array(n.done_in, ' ')::uuid[], sent_from = n.sent_from,
           sent_at = CASE WHEN n.state = 'open' THEN NULL WHEN n.moved THEN clock_timestamp() ELSE e.sent_at END,
           carried_flags = n.carried, carried_keywords = string_to_array(n.keywords_carried, ' ')
         FROM unnest($2::uuid[], $3::smallint[], $4::smallint[], $5::text[], $6::text[], $7::bigint[], $8::text[], $9::text[],
           $10::uuid[], $11::bool[], $12::smallint[], $13::text[])
           AS n(mailbox, add, remove, keywords_add, keywords_remove, id, state, done_in, sent_from, moved, carried, keywords_carried)
         WHERE e.tenant_id = $1 AND e.id = n.id",
    );
    let edits = || changed.iter().map(|(edit, _)| *edit);
    let done_in = |edit: &Edit| -> String {
        edit.done_in.iter().map(|m| uuid(*m).to_string()).collect::<Vec<_>>().join(" ")
    };
    EditColumns::of(edits())
        .bind(statement.bind(tx.tenant()))
        .bind(edits().map(|e| e.id).collect::<Vec<_>>())
        .bind(edits().map(|e| state(e.state)).collect::<Vec<_>>())
        .bind(edits().map(done_in).collect::<Vec<_>>())
        .bind(edits().map(|e| e.sent_from.map(uuid)).collect::<Vec<_>>())
        .bind(changed.iter().map(|(_, moved)| *moved).collect::<Vec<_>>())
        .bind(edits().map(|e| e.carried.flags.bits()).collect::<Vec<_>>())
        .bind(edits().map(|e| words(&e.carried.keywords)).collect::<Vec<_>>())
        .execute(tx.conn())
        .await?;
    Ok(())
}

async fn insert_edits(tx: &mut TenantTx, account: AccountId, new: &[(Uuid, &Edit)]) -> Result<(), DbError> {
    if new.is_empty() {
        return Ok(());
    }
    // Their numbers are given in this order, under the account's lease: so they tell the order in which edits were asked for.
    let statement = sqlx::query(
        "INSERT INTO edits (tenant_id, account_id, message_id, kind, mailbox_id, target_mailbox_id, flags_add, flags_remove,
           keywords_add, keywords_remove)
         SELECT $1, $7, n.message, n.kind, n.mailbox, n.target, n.add, n.remove, string_to_array(n.keywords_add, ' '),
           string_to_array(n.keywords_remove, ' ')
         FROM unnest($2::uuid[], $3::smallint[], $4::smallint[], $5::text[], $6::text[], $8::uuid[], $9::text[], $10::uuid[])
           WITH ORDINALITY AS n(mailbox, add, remove, keywords_add, keywords_remove, message, kind, target, at)
         ORDER BY n.at",
    );
    let edits = || new.iter().map(|(_, edit)| *edit);
    EditColumns::of(edits())
        .bind(statement.bind(tx.tenant()))
        .bind(account)
        .bind(new.iter().map(|(message, _)| *message).collect::<Vec<_>>())
        .bind(edits().map(|e| kind(&e.change)).collect::<Vec<_>>())
        .bind(edits().map(|e| e.target().map(uuid)).collect::<Vec<_>>())
        .execute(tx.conn())
        .await?;
    Ok(())
}
