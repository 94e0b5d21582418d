//! The mailbox tree as the planner decided it, in one transaction.

use std::collections::HashSet;

use mail::mailbox::{Role, decode_name, split_last};
use mail::namespace::Namespaces;
use mail::sync::{Checkpoint, ListedMailbox, TreeWrite};
use uuid::Uuid;

use super::view::Entry;
use super::{attempts, edits, keep, refusal, removal, vanish};
use crate::domain::event::{
    self, Event, MailboxCreated, MailboxDeleted, MailboxPart, MailboxReset, MailboxUpdated,
};
use crate::domain::namespaces;
use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{AccountId, MailboxId};

/// Mailboxes of a listing that are passed over: those that our users deleted or renamed away and the server still lists, which
/// must not come back, and those of others, unless the account asks for them.
#[derive(Debug, Default)]
pub struct Ignored {
    deleted: Vec<Vec<u8>>,
    renamed: Vec<Vec<u8>>,
    namespaces: Namespaces,
    with_foreign: bool,
}

impl Ignored {
    /// Whether a listed mailbox is one of them, or below one that is renamed and will take it along.
    #[must_use]
    pub fn covers(&self, wire_name: &[u8], delimiter: Option<char>) -> bool {
        let is_below = |parent: &Vec<u8>| {
            let delimiter = delimiter.map(String::from).unwrap_or_default();
            let rest = wire_name.strip_prefix(parent.as_slice());
            rest.is_some_and(|r| r.is_empty() || !delimiter.is_empty() && r.starts_with(delimiter.as_bytes()))
        };
        let is_foreign = || !self.with_foreign && self.namespaces.is_foreign(wire_name);
        self.deleted.iter().any(|name| name == wire_name) || self.renamed.iter().any(is_below) || is_foreign()
    }

    /// What the user's own names begin with, as people read it.
    #[must_use]
    pub fn own_prefix(&self) -> String {
        decode_name(self.namespaces.own_prefix().as_bytes())
    }
}

/// What [`Ignored`] tells.
pub async fn ignored(tx: &mut TenantTx, account: AccountId) -> Result<Ignored, DbError> {
    let rows: Vec<(bool, Option<String>)> = sqlx::query_as(
        "SELECT kind = 'rename_mailbox', coalesce(data->>'wire_name_hex', data->>'from_hex') FROM pending_changes
         WHERE tenant_id = $1 AND account_id = $2 AND kind IN ('delete_mailbox', 'rename_mailbox')",
    )
    .bind(tx.tenant())
    .bind(account)
    .fetch_all(tx.conn())
    .await?;
    let (namespaces, with_foreign) = namespaces::with_choice(tx, account).await?;
    let mut ignored = Ignored { namespaces, with_foreign, ..Ignored::default() };
    for (renamed, hex) in rows {
        let Some(name) = hex.and_then(|h| hex::decode(h).ok()) else { continue };
        if renamed { ignored.renamed.push(name) } else { ignored.deleted.push(name) }
    }
    Ok(ignored)
}

/// Performs `writes`; their numbers are indexes into `listed` and `entries`. Each kind is one statement, however many there
/// are: a parent that is renamed takes thousands with it.
///
/// `false`: more messages go, or have edits that end, with mailboxes than one transaction takes. A portion of them is through and
/// nothing else is done; commit, and plan again. Mailboxes that are gone are marked: see [`removal`].
pub async fn apply(
    tx: &mut TenantTx,
    account: AccountId,
    writes: &[TreeWrite],
    listed: &[ListedMailbox],
    entries: &[Entry],
) -> Result<bool, DbError> {
    let wanted: Vec<&[u8]> = writes.iter().filter_map(|write| new_name(*write, listed)).collect();
    let mut held = make_way(tx, account, &wanted, entries).await?;
    hold_chains(&mut held, writes, listed, entries);
    let mut tree = Tree::default();
    for write in writes {
        if new_name(*write, listed).is_none_or(|name| !held.contains(name)) {
            tree.add(*write, listed, entries);
        }
    }
    if empty_some(tx, account, tree.emptied.iter().copied()).await?
        || !tree.removed.is_empty() && edits::mailboxes_gone(tx, account, &tree.removed_ids()).await?
    {
        return Ok(false);
    }
    // What they hold goes in portions; whoever calls sees to that once this is committed.
    removal::mark(tx, account, &tree.removed_ids()).await?;
    rename(tx, &tree.renamed).await?;
    update(tx, &tree.updated).await?;
    forget_numbers(tx, &tree.forgotten, false).await?;
    forget_numbers(tx, &tree.inferred, true).await?;
    let made = create(tx, account, &tree.created).await?;
    tree.events.extend(made.iter().map(|id| MailboxCreated { id: *id }.into()));
    event::record(tx, account, &tree.events);
    if !writes.is_empty() {
        keep::choose(tx, account, &made).await?;
    }
    Ok(true)
}

fn new_name(write: TreeWrite, listed: &[ListedMailbox]) -> Option<&[u8]> {
    match write {
        TreeWrite::Rename { listed: at, .. } => listed.get(at).map(|mailbox| mailbox.wire_name.as_slice()),
        _ => None,
    }
}

/// What does not get its new name keeps its old one from others.
fn hold_chains(
    held: &mut HashSet<Vec<u8>>,
    writes: &[TreeWrite],
    listed: &[ListedMailbox],
    entries: &[Entry],
) {
    let mut more = !held.is_empty();
    while more {
        more = false;
        for write in writes {
            let TreeWrite::Rename { local, .. } = write else { continue };
            let kept = new_name(*write, listed).is_some_and(|name| held.contains(name));
            if let Some(entry) = entries.get(*local).filter(|_| kept) {
                more |= held.insert(entry.local.wire_name.clone());
            }
        }
    }
}

/// Returns those of the names that mailboxes of our users wait to get on the server, which are not among `entries`: what
/// becomes of them the server has yet to say, and until then nothing else is renamed to them. What it refused to make
/// waits for nothing and goes.
async fn make_way(
    tx: &mut TenantTx,
    account: AccountId,
    wanted: &[&[u8]],
    entries: &[Entry],
) -> Result<HashSet<Vec<u8>>, DbError> {
    if wanted.is_empty() {
        return Ok(HashSet::new());
    }
    refusal::give_way(tx, account, wanted).await?;
    let held: Vec<Vec<u8>> = sqlx::query_scalar(
        "SELECT wire_name FROM mailboxes WHERE tenant_id = $1 AND account_id = $2 AND wire_name = ANY ($3) AND id <> ALL ($4)",
    )
    .bind(tx.tenant())
    .bind(account)
    .bind(wanted)
    .bind(entries.iter().map(|entry| entry.id.0).collect::<Vec<_>>())
    .fetch_all(tx.conn())
    .await?;
    Ok(held.into_iter().collect())
}

/// Changes of the tree, by their kind.
#[derive(Default)]
struct Tree<'a> {
    removed: Vec<&'a Entry>,
    emptied: Vec<&'a Entry>,
    renamed: Vec<(MailboxId, &'a ListedMailbox)>,
    updated: Vec<(MailboxId, &'a ListedMailbox)>,
    forgotten: Vec<MailboxId>,
    inferred: Vec<MailboxId>,
    created: Vec<(&'a ListedMailbox, Checkpoint)>,
    events: Vec<Event>,
}

impl<'a> Tree<'a> {
    fn removed_ids(&self) -> Vec<Uuid> {
        self.removed.iter().map(|entry| entry.id.0).collect()
    }

    fn add(&mut self, write: TreeWrite, listed: &'a [ListedMailbox], entries: &'a [Entry]) {
        let pair = |local: usize, at: usize| Some((entries.get(local)?, listed.get(at)?));
        let told: Option<Event> = match write {
            TreeWrite::Create { listed: index, at } => {
                self.created.extend(listed.get(index).map(|mailbox| (mailbox, at)));
                None
            }
            TreeWrite::Rename { local, listed, relink } => pair(local, listed).map(|(entry, mailbox)| {
                self.renamed.push((entry.id, mailbox));
                self.inferred.extend(relink.then_some(entry.id));
                MailboxUpdated { id: entry.id, changed: &[MailboxPart::Name] }.into()
            }),
            TreeWrite::Recreate { local, listed } => pair(local, listed).map(|(entry, mailbox)| {
                self.updated.push((entry.id, mailbox));
                self.forgotten.push(entry.id);
                MailboxReset { id: entry.id }.into()
            }),
            TreeWrite::Update { local, listed } => pair(local, listed).map(|(entry, mailbox)| {
                self.updated.push((entry.id, mailbox));
                MailboxUpdated { id: entry.id, changed: &[MailboxPart::Attributes] }.into()
            }),
            TreeWrite::Empty { local } => {
                self.emptied.extend(entries.get(local));
                self.forgotten.extend(entries.get(local).map(|entry| entry.id));
                None
            }
            TreeWrite::Remove { local } => entries.get(local).map(|entry| {
                self.removed.push(entry);
                MailboxDeleted { id: entry.id }.into()
            }),
        };
        self.events.extend(told);
    }
}

/// What the mailboxes hold, or shall hold, goes: see [`vanish::empty_some`].
async fn empty_some<'a>(
    tx: &mut TenantTx,
    account: AccountId,
    entries: impl Iterator<Item = &'a Entry>,
) -> Result<bool, DbError> {
    let ids: Vec<Uuid> = entries.map(|entry| entry.id.0).collect();
    if ids.is_empty() {
        return Ok(false);
    }
    let filled: Vec<MailboxId> = sqlx::query_scalar(
        "SELECT b.id FROM unnest($2::uuid[]) AS b(id)
         WHERE EXISTS (SELECT 1 FROM message_mailboxes p WHERE p.tenant_id = $1 AND p.mailbox_id = b.id)
           OR EXISTS (SELECT 1 FROM edits e WHERE e.tenant_id = $1 AND (e.target_mailbox_id = b.id OR e.mailbox_id = b.id))",
    )
    .bind(tx.tenant())
    .bind(ids)
    .fetch_all(tx.conn())
    .await?;
    vanish::empty_some(tx, account, &filled).await
}

fn ids(mailboxes: &[(MailboxId, &ListedMailbox)]) -> Vec<Uuid> {
    mailboxes.iter().map(|(id, _)| id.0).collect()
}

async fn rename(tx: &mut TenantTx, renamed: &[(MailboxId, &ListedMailbox)]) -> Result<(), DbError> {
    if renamed.is_empty() {
        return Ok(());
    }
    // Two mailboxes may have swapped names, and names are unique: every renamed row first gets its id for a name. NUL cannot
    // stand in a name on the wire.
    sqlx::query("UPDATE mailboxes SET wire_name = '\\x00'::bytea || uuid_send(id) WHERE tenant_id = $1 AND id = ANY ($2)")
        .bind(tx.tenant())
        .bind(ids(renamed))
        .execute(tx.conn())
        .await?;
    let names: Vec<Names> = renamed.iter().map(|(_, mailbox)| Names::of(mailbox)).collect();
    sqlx::query(
        "UPDATE mailboxes b SET wire_name = n.wire_name, path = n.path, name = n.name
         FROM unnest($2::uuid[], $3::bytea[], $4::text[], $5::text[]) AS n(id, wire_name, path, name)
         WHERE b.tenant_id = $1 AND b.id = n.id",
    )
    .bind(tx.tenant())
    .bind(ids(renamed))
    .bind(renamed.iter().map(|(_, mailbox)| mailbox.wire_name.as_slice()).collect::<Vec<_>>())
    .bind(names.iter().map(|n| n.path.as_str()).collect::<Vec<_>>())
    .bind(names.iter().map(|n| n.name.as_str()).collect::<Vec<_>>())
    .execute(tx.conn())
    .await?;
    Ok(())
}

async fn update(tx: &mut TenantTx, updated: &[(MailboxId, &ListedMailbox)]) -> Result<(), DbError> {
    if updated.is_empty() {
        return Ok(());
    }
    let mailboxes = || updated.iter().map(|(_, mailbox)| *mailbox);
    sqlx::query(
        "UPDATE mailboxes b SET delimiter = n.delimiter, role = n.role, mailboxid = coalesce(n.mailboxid, b.mailboxid),
           selectable = n.selectable, subscribed = n.subscribed
         FROM unnest($2::uuid[], $3::text[], $4::text[], $5::text[], $6::bool[], $7::bool[])
           AS n(id, delimiter, role, mailboxid, selectable, subscribed)
         WHERE b.tenant_id = $1 AND b.id = n.id",
    )
    .bind(tx.tenant())
    .bind(ids(updated))
    .bind(mailboxes().map(|m| m.delimiter.map(String::from)).collect::<Vec<_>>())
    .bind(mailboxes().map(|m| m.role.map(Role::as_str)).collect::<Vec<_>>())
    .bind(mailboxes().map(|m| m.mailboxid.as_deref()).collect::<Vec<_>>())
    .bind(mailboxes().map(ListedMailbox::selectable).collect::<Vec<_>>())
    .bind(mailboxes().map(|m| m.subscribed).collect::<Vec<_>>())
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Nothing of what was known about UIDs holds any more; placements wait in their old generation. UIDVALIDITY may be kept: a
/// mailbox that is renamed once more before it is read is known by it.
async fn forget_numbers(
    tx: &mut TenantTx,
    mailboxes: &[MailboxId],
    keep_uidvalidity: bool,
) -> Result<(), DbError> {
    if mailboxes.is_empty() {
        return Ok(());
    }
    attempts::forget_all(tx, mailboxes).await?;
    keep::clear(tx, mailboxes).await?;
    sqlx::query(
        "UPDATE mailboxes SET generation = generation + 1, uidvalidity = CASE WHEN $3 THEN uidvalidity END, uidnext = NULL,
           head_uid = 0, tail_uid = 0, modseq = NULL, base_modseq = NULL, exists_seen = 0, state = 'new'
         WHERE tenant_id = $1 AND id = ANY ($2)",
    )
    .bind(tx.tenant())
    .bind(mailboxes.iter().map(|id| id.0).collect::<Vec<_>>())
    .bind(keep_uidvalidity)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Returns the ids of those that were not here before.
async fn create(
    tx: &mut TenantTx,
    account: AccountId,
    created: &[(&ListedMailbox, Checkpoint)],
) -> Result<Vec<MailboxId>, DbError> {
    if created.is_empty() {
        return Ok(Vec::new());
    }
    let mailboxes = || created.iter().map(|(mailbox, _)| *mailbox);
    let at = || created.iter().map(|(_, at)| at);
    let names: Vec<Names> = mailboxes().map(Names::of).collect();
    let made: Vec<(MailboxId, Vec<u8>)> = sqlx::query_as(
        "INSERT INTO mailboxes (tenant_id, account_id, id, wire_name, path, name, delimiter, role, mailboxid, selectable,
           subscribed, uidvalidity, uidnext, head_uid, tail_uid, modseq, state)
         SELECT $1, $2, n.id, n.wire_name, n.path, n.name, n.delimiter, n.role, n.mailboxid, n.selectable, n.subscribed,
           n.uidvalidity, nullif(n.uidnext, 0), n.head_uid, n.tail_uid, nullif(n.modseq, 0),
           CASE WHEN n.tail_uid = 1 THEN 'synced' ELSE 'new' END
         FROM unnest($3::uuid[], $4::bytea[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::bool[],
           $11::bool[], $12::bigint[], $13::bigint[], $14::bigint[], $15::bigint[], $16::bigint[])
           AS n(id, wire_name, path, name, delimiter, role, mailboxid, selectable, subscribed, uidvalidity, uidnext, head_uid,
                tail_uid, modseq)
         ON CONFLICT (tenant_id, account_id, wire_name) DO NOTHING RETURNING id, wire_name",
    )
    .bind(tx.tenant())
    .bind(account)
    .bind(created.iter().map(|_| MailboxId::new().0).collect::<Vec<_>>())
    .bind(mailboxes().map(|m| m.wire_name.as_slice()).collect::<Vec<_>>())
    .bind(names.iter().map(|n| n.path.as_str()).collect::<Vec<_>>())
    .bind(names.iter().map(|n| n.name.as_str()).collect::<Vec<_>>())
    .bind(mailboxes().map(|m| m.delimiter.map(String::from)).collect::<Vec<_>>())
    .bind(mailboxes().map(|m| m.role.map(Role::as_str)).collect::<Vec<_>>())
    .bind(mailboxes().map(|m| m.mailboxid.as_deref()).collect::<Vec<_>>())
    .bind(mailboxes().map(ListedMailbox::selectable).collect::<Vec<_>>())
    .bind(mailboxes().map(|m| m.subscribed).collect::<Vec<_>>())
    .bind(at().map(|at| at.uidvalidity.map(i64::from)).collect::<Vec<_>>())
    .bind(at().map(|at| i64::from(at.uidnext)).collect::<Vec<_>>())
    .bind(at().map(|at| i64::from(at.head_uid)).collect::<Vec<_>>())
    .bind(at().map(|at| i64::from(at.tail_uid)).collect::<Vec<_>>())
    .bind(at().map(|at| at.modseq.to_i64()).collect::<Vec<_>>())
    .fetch_all(tx.conn())
    .await?;
    let (ids, made): (Vec<MailboxId>, HashSet<Vec<u8>>) = made.into_iter().unzip();
    for mailbox in mailboxes().filter(|m| !made.contains(&m.wire_name)) {
        super::refusal::made_elsewhere(tx, account, &mailbox.wire_name).await?;
    }
    Ok(ids)
}

/// A name as people read it, and its last part.
struct Names {
    path: String,
    name: String,
}

impl Names {
    fn of(mailbox: &ListedMailbox) -> Self {
        let path = decode_name(&mailbox.wire_name);
        let name = split_last(&path, mailbox.delimiter).1.to_owned();
        Self { path, name }
    }
}
