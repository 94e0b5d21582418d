//! Our users' edits on their way to the server: what to send, what it answered, what became of transfers in doubt.
//!
//! What an edit wants is decided in `mail::sync::edits`; here messages are loaded, asked, and recorded. Each function takes
//! the messages of one command at most, so its transaction is short.
//!
//! - `doubts`: transfers that nobody answered
//! - `gone`: mailboxes that go, or are not made

mod doubts;
mod gone;

use std::collections::{BTreeMap, HashMap, HashSet};

use mail::sync::edits::{Command, Does, End, MailboxKey, Message, State};
use mail::sync::{Ready, ReadyKind, StoreChange};
use mail::uid::Uid;
use uuid::Uuid;

pub use doubts::{doubtful, left_marked, settle};
pub use gone::{leaves, mailboxes_gone, target_refused};

use super::view::{UNTOLD, WAITS_FOR_ITS_NAME};
use super::{Target, status};
use crate::domain::edits::{self, PORTION, Work, key, mailbox};
use crate::domain::event::{self, MailboxPart, MailboxUpdated};
use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{AccountId, MailboxId, MessageId};

/// A server that refused so many times will not change its mind.
pub const GIVE_UP_AFTER: i32 = 5;

/// Refusals within this time of the last one that counted are one with it: what lasts for a moment costs no edit.
const COUNTED_AFTER: &str = "interval '1 minute'";

/// The edit behind a command of [`mail::sync::LocalView::ready`], at the same index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sending {
    /// The message.
    pub message: MessageId,
    /// The edit's number.
    pub edit: i64,
    /// The message in the selected mailbox.
    pub uid: Uid,
    /// What is asked of it.
    pub does: Does,
}

/// Commands for one mailbox.
#[derive(Debug, Clone, Default)]
pub struct Portion {
    /// For the planner.
    pub ready: Vec<Ready>,
    /// What is behind each.
    pub rows: Vec<Sending>,
    /// The last edit looked at, if there may be more after it.
    pub more_after: Option<i64>,
}

/// What the server did with one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// It stored the flags.
    Stored,
    /// It copied or moved it.
    Transferred {
        /// The UID in the target, if that was told.
        uid: Option<Uid>,
        /// It is no longer in its mailbox.
        moved: bool,
    },
    /// It took it away, or marked it (`marked`).
    Removed {
        /// It stands there as `\Deleted`.
        marked: bool,
    },
}

/// The next commands for messages of `target` whose edits have numbers above `after`, oldest first.
pub async fn ready(tx: &mut TenantTx, target: &Target, after: i64) -> Result<Portion, DbError> {
    let rows: Vec<(i64, Uuid)> = sqlx::query_as(
        "SELECT e.id, e.message_id FROM edits e
         WHERE e.tenant_id = $1 AND e.account_id = $2 AND e.id > $5 AND EXISTS (
           SELECT 1 FROM message_mailboxes p WHERE p.tenant_id = $1 AND p.message_id = e.message_id AND p.mailbox_id = $3
             AND p.generation = $4 AND p.uid IS NOT NULL)
         ORDER BY e.id LIMIT $6",
    )
    .bind(tx.tenant())
    .bind(target.account)
    .bind(target.mailbox)
    .bind(target.generation)
    .bind(after)
    .bind(PORTION as i64)
    .fetch_all(tx.conn())
    .await?;
    let mut portion = Portion::default();
    if rows.len() >= PORTION {
        portion.more_after = rows.last().map(|(id, _)| *id);
    }
    let messages: Vec<Uuid> = rows.into_iter().map(|(_, message)| message).collect();
    let works = edits::load(tx, target.account, &messages).await?;
    let mut wanted: Vec<(i64, MessageId, Command)> = Vec::new();
    for work in &works {
        for command in work.message.commands() {
            let edit = work.message.edits.get(command.edit).map_or(0, |e| e.id);
            if command.mailbox == key(target.mailbox) {
                wanted.push((edit, work.id, command));
            }
        }
    }
    let names = names(tx, target.account, &wanted).await?;
    wanted.sort_by_key(|(edit, ..)| *edit);
    let mut taken = HashSet::new();
    for (edit, message, command) in wanted {
        let Some(kind) = kind(&command.does, &names) else { continue };
        // One command for a message at a time: the next depends on its answer.
        if taken.insert(command.uid) {
            portion.ready.push(Ready { uid: command.uid, kind });
            portion.rows.push(Sending { message, edit, uid: command.uid, does: command.does });
        }
    }
    Ok(portion)
}

/// The command with the target's name; nothing while the server does not know it by this name.
fn kind(does: &Does, names: &HashMap<MailboxKey, Vec<u8>>) -> Option<ReadyKind> {
    Some(match does {
        Does::Store(change) => ReadyKind::Store(change.clone()),
        Does::Copy { to } => ReadyKind::Copy { target: names.get(to)?.clone() },
        Does::Move { to } => ReadyKind::Move { target: names.get(to)?.clone() },
        Does::Remove { stands_in: None } => ReadyKind::Remove { stands_in: None },
        Does::Remove { stands_in: Some(to) } => ReadyKind::Remove { stands_in: Some(names.get(to)?.clone()) },
    })
}

const fn target_of(does: &Does) -> Option<MailboxKey> {
    match does {
        Does::Copy { to } | Does::Move { to } => Some(*to),
        Does::Remove { stands_in } => *stands_in,
        Does::Store(_) => None,
    }
}

/// Names, on the wire, of the targets that the server knows.
async fn names(
    tx: &mut TenantTx,
    account: AccountId,
    wanted: &[(i64, MessageId, Command)],
) -> Result<HashMap<MailboxKey, Vec<u8>>, DbError> {
    let targets: HashSet<Uuid> = wanted
        .iter()
        .filter_map(|(_, _, command)| target_of(&command.does))
        .map(|to| mailbox(to).0)
        .collect();
    if targets.is_empty() {
        return Ok(HashMap::new());
    }
    let rows: Vec<(Uuid, Vec<u8>)> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "WITH {UNTOLD} SELECT id, wire_name FROM mailboxes
         WHERE tenant_id = $1 AND account_id = $2 AND id = ANY ($3) AND id NOT IN ({WAITS_FOR_ITS_NAME})"
    )))
    .bind(tx.tenant())
    .bind(account)
    .bind(targets.into_iter().collect::<Vec<_>>())
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().map(|(id, name)| (MailboxKey(id.as_u128()), name)).collect())
}

/// Mailboxes for which edits may want a command now.
pub async fn mailboxes(tx: &mut TenantTx, account: AccountId) -> Result<Vec<MailboxId>, DbError> {
    Ok(sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
        "WITH {UNTOLD}, edited AS (
           SELECT DISTINCT p.mailbox_id AS id FROM edits e
           JOIN message_mailboxes p ON p.tenant_id = e.tenant_id AND p.message_id = e.message_id AND p.uid IS NOT NULL
           WHERE e.tenant_id = $1 AND e.account_id = $2 AND e.state IN ('open', 'sent') AND NOT p.marked
             AND (e.kind IN ('flags', 'copy') OR e.mailbox_id IS NULL OR e.mailbox_id = p.mailbox_id)
             AND p.mailbox_id IS DISTINCT FROM e.target_mailbox_id)
         SELECT id FROM edited WHERE id NOT IN ({WAITS_FOR_ITS_NAME})"
    )))
    .bind(tx.tenant())
    .bind(account)
    .fetch_all(tx.conn())
    .await?)
}

async fn load_for(tx: &mut TenantTx, account: AccountId, rows: &[Sending]) -> Result<Vec<Work>, DbError> {
    let ids: Vec<Uuid> = rows.iter().map(|r| r.message.0).collect();
    edits::load(tx, account, &ids).await
}

fn find(works: &mut [Work], id: MessageId) -> Option<&mut Work> {
    let at = works.binary_search_by_key(&id, |w| w.id).ok()?;
    works.get_mut(at)
}

fn position(message: &Message, edit: i64) -> Option<usize> {
    message.edits.iter().position(|e| e.id == edit)
}

/// Records that these are about to be sent. Returns those that are still wanted as they stand here: our user may have
/// changed their mind since they were read.
pub async fn begin(tx: &mut TenantTx, target: &Target, rows: &[Sending]) -> Result<Vec<Sending>, DbError> {
    let mut works = load_for(tx, target.account, rows).await?;
    let mut wanted = Vec::new();
    for row in rows {
        let Some(work) = find(&mut works, row.message) else { continue };
        work.message.settle();
        let commands = work.message.commands();
        let same = commands.iter().find(|c| {
            c.mailbox == key(target.mailbox)
                && c.uid == row.uid
                && c.does == row.does
                && work.message.edits.get(c.edit).is_some_and(|e| e.id == row.edit)
        });
        if let Some(at) = same.map(|c| c.edit) {
            work.message.begin(at, key(target.mailbox));
            wanted.push(row.clone());
        }
    }
    edits::save(tx, target.account, &works).await?;
    Ok(wanted)
}

/// Records what the server did.
pub async fn record(tx: &mut TenantTx, target: &Target, done: &[(Sending, Done)]) -> Result<(), DbError> {
    let rows: Vec<Sending> = done.iter().map(|(row, _)| row.clone()).collect();
    let mut works = load_for(tx, target.account, &rows).await?;
    let here = key(target.mailbox);
    for (row, done) in done {
        let Some(work) = find(&mut works, row.message) else { continue };
        let message = &mut work.message;
        let gone = matches!(done, Done::Transferred { moved: true, .. } | Done::Removed { marked: false });
        match (position(message, row.edit), done) {
            (Some(at), Done::Stored) => message.stored(at, here, row.uid),
            (Some(at), Done::Transferred { uid, moved }) => {
                message.transferred(at, (here, row.uid), *uid, *moved);
            }
            (Some(at), Done::Removed { marked }) => message.removed(at, (here, row.uid), *marked),
            // Taken back while the server was at it: what it did is so all the same.
            (None, _) if gone => message.server.retain(|h| !(h.mailbox == here && h.uid == Some(row.uid))),
            (None, _) => {}
        }
        message.settle();
    }
    edits::save(tx, target.account, &works).await?;
    // What is left of these goes on: refusals count in a row.
    sqlx::query("UPDATE edits SET refusals = 0 WHERE tenant_id = $1 AND id = ANY ($2) AND refusals > 0")
        .bind(tx.tenant())
        .bind(done.iter().map(|(row, _)| row.edit).collect::<Vec<_>>())
        .execute(tx.conn())
        .await?;
    expect_counts(tx, target, done).await
}

/// What the server counts from now on, if it did what it says: where it counts otherwise, the next round looks.
async fn expect_counts(tx: &mut TenantTx, target: &Target, done: &[(Sending, Done)]) -> Result<(), DbError> {
    let mut by_mailbox: BTreeMap<Uuid, i64> = BTreeMap::new();
    for (row, done) in done {
        let (leaves, comes) = match done {
            Done::Stored => continue,
            Done::Removed { marked } => (!marked, None),
            Done::Transferred { moved, .. } => (*moved, target_of(&row.does)),
        };
        *by_mailbox.entry(target.mailbox.0).or_default() -= i64::from(leaves);
        if let Some(to) = comes {
            *by_mailbox.entry(mailbox(to).0).or_default() += 1;
        }
    }
    expect(tx, by_mailbox).await
}

/// Changes the count that these mailboxes are expected to have.
async fn expect(tx: &mut TenantTx, mut by_mailbox: BTreeMap<Uuid, i64>) -> Result<(), DbError> {
    by_mailbox.retain(|_, change| *change != 0);
    if by_mailbox.is_empty() {
        return Ok(());
    }
    let (ids, changes): (Vec<Uuid>, Vec<i64>) = by_mailbox.into_iter().unzip();
    sqlx::query(
        "UPDATE mailboxes b SET exists_seen = greatest(0, b.exists_seen + c.change)
         FROM unnest($2::uuid[], $3::bigint[]) AS c(id, change) WHERE b.tenant_id = $1 AND b.id = c.id",
    )
    .bind(tx.tenant())
    .bind(ids)
    .bind(changes)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// These were not done: asked for again.
pub async fn not_done(tx: &mut TenantTx, account: AccountId, rows: &[Sending]) -> Result<(), DbError> {
    let mut works = load_for(tx, account, rows).await?;
    for row in rows {
        let Some(work) = find(&mut works, row.message) else { continue };
        let edit = position(&work.message, row.edit).and_then(|at| work.message.edits.get_mut(at));
        if let Some(edit) = edit.filter(|e| e.state == State::InDoubt) {
            edit.state = State::Open;
        }
    }
    edits::save(tx, account, &works).await.map(drop)
}

/// Which of the UIDs that a server told for the target can be so: a number that we hold already, or that it gave away
/// before, is another message's.
pub async fn credible(
    tx: &mut TenantTx,
    to: MailboxId,
    uidvalidity: u32,
    uids: &[Uid],
) -> Result<HashSet<Uid>, DbError> {
    let known: Option<(i64, i32)> = sqlx::query_as(
        "SELECT head_uid, generation FROM mailboxes WHERE tenant_id = $1 AND id = $2 AND uidvalidity = $3 AND tail_uid > 0",
    )
    .bind(tx.tenant())
    .bind(to)
    .bind(i64::from(uidvalidity))
    .fetch_optional(tx.conn())
    .await?;
    let Some((head, generation)) = known else { return Ok(HashSet::new()) };
    let numbers: Vec<i64> = uids.iter().map(|uid| i64::from(uid.get())).collect();
    let held: Vec<i64> = sqlx::query_scalar(
        "SELECT uid FROM message_mailboxes WHERE tenant_id = $1 AND mailbox_id = $2 AND generation = $3 AND uid = ANY ($4)",
    )
    .bind(tx.tenant())
    .bind(to)
    .bind(generation)
    .bind(numbers)
    .fetch_all(tx.conn())
    .await?;
    let mut counts: BTreeMap<Uid, usize> = BTreeMap::new();
    for uid in uids {
        *counts.entry(*uid).or_default() += 1;
    }
    let is_new = |uid: &Uid| i64::from(uid.get()) > head && !held.contains(&i64::from(uid.get()));
    Ok(counts.into_iter().filter(|(uid, times)| *times == 1 && is_new(uid)).map(|(uid, _)| uid).collect())
}

/// The server refused: counted, and taken back when it was the last attempt.
pub async fn refuse(
    tx: &mut TenantTx,
    target: &Target,
    rows: &[Sending],
    cause: &status::Cause,
) -> Result<(), DbError> {
    let ids: Vec<i64> = rows.iter().map(|r| r.edit).collect();
    let counted: Vec<(i64, i32)> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "UPDATE edits e SET last_error = $3, refusals = e.refusals + n.counts, refused_at = CASE n.counts WHEN 1 THEN now() ELSE e.refused_at END
         FROM (SELECT id, CASE WHEN refused_at > now() - {COUNTED_AFTER} AND refused_at < now() + {COUNTED_AFTER} THEN 0 ELSE 1 END AS counts
               FROM edits WHERE tenant_id = $1 AND id = ANY ($2)) n
         WHERE e.tenant_id = $1 AND e.id = n.id RETURNING e.id, e.refusals",
    )))
    .bind(tx.tenant())
    .bind(ids)
    .bind(cause.code)
    .fetch_all(tx.conn())
    .await?;
    let counted: HashMap<i64, i32> = counted.into_iter().collect();
    let mut works = load_for(tx, target.account, rows).await?;
    for row in rows {
        let Some(work) = find(&mut works, row.message) else { continue };
        let Some(at) = position(&work.message, row.edit) else { continue };
        if counted.get(&row.edit).is_some_and(|n| *n >= GIVE_UP_AFTER) {
            work.message.end(at, End::TakenBack);
        } else if let Some(edit) = work.message.edits.get_mut(at)
            && edit.state == State::InDoubt
            && matches!(row.does, Does::Copy { .. })
        {
            // A COPY that is refused leaves nothing (RFC 9051 §6.4.7). A MOVE may: Dovecot 2.3.19 answers NO when the mailbox
            // is renamed between its copy and its expunge. So that is looked for.
            edit.state = State::Open;
        }
    }
    edits::save(tx, target.account, &works).await?;
    tell(tx, target, cause).await
}

/// The mailbox says why what our user asked for is not done yet, or was taken back.
async fn tell(tx: &mut TenantTx, target: &Target, cause: &status::Cause) -> Result<(), DbError> {
    let told: Option<MailboxId> = sqlx::query_scalar(
        "UPDATE mailboxes SET cause_code = 'edits-refused', cause_text = $3, cause_upstream = $4, cause_since = now()
         WHERE tenant_id = $1 AND id = $2 AND cause_code IS DISTINCT FROM 'edits-refused' RETURNING id",
    )
    .bind(tx.tenant())
    .bind(target.mailbox)
    .bind("The mail server refuses a change of messages in this mailbox; what it does not take in the end is undone.")
    .bind(cause.upstream_json(true))
    .fetch_optional(tx.conn())
    .await?;
    if let Some(id) = told {
        event::tell(tx, target.account, MailboxUpdated { id, changed: &[MailboxPart::Cause] });
    }
    Ok(())
}

/// What the server cannot keep of changes of flags is taken back; `keep` is left of them.
pub async fn keep_of(
    tx: &mut TenantTx,
    target: &Target,
    row: &Sending,
    keep: &StoreChange,
) -> Result<(), DbError> {
    let mut works = load_for(tx, target.account, std::slice::from_ref(row)).await?;
    if let Some(work) = find(&mut works, row.message)
        && let Some(at) = position(&work.message, row.edit)
    {
        work.message.keep_of_flags(at, keep);
        work.message.settle();
    }
    edits::save(tx, target.account, &works).await.map(drop)
}

/// Where each of these messages is said to stand in the mailbox `to`, as our rows have it.
pub async fn standing(
    tx: &mut TenantTx,
    account: AccountId,
    rows: &[Sending],
    to: MailboxKey,
) -> Result<Vec<Option<Uid>>, DbError> {
    let mut works = load_for(tx, account, rows).await?;
    let in_target =
        |message: &Message| message.server.iter().find(|h| h.mailbox == to && !h.marked).and_then(|h| h.uid);
    Ok(rows.iter().map(|row| in_target(&find(&mut works, row.message)?.message)).collect())
}

/// These messages do not stand in `to` under these UIDs.
pub async fn disprove(
    tx: &mut TenantTx,
    account: AccountId,
    rows: &[(Sending, Uid)],
    to: MailboxKey,
) -> Result<(), DbError> {
    let sent: Vec<Sending> = rows.iter().map(|(row, _)| row.clone()).collect();
    let mut works = load_for(tx, account, &sent).await?;
    for (row, uid) in rows {
        if let Some(work) = find(&mut works, row.message) {
            work.message.disproved(to, *uid);
        }
    }
    edits::save(tx, account, &works).await?;
    // What stands there under these UIDs is read by the next round.
    let count = i64::try_from(rows.len()).unwrap_or(i64::MAX);
    expect(tx, BTreeMap::from([(mailbox(to).0, -count)])).await
}
