//! The mailbox tree: our users' changes of it go out, then the server's comes in.

use std::collections::{HashMap, HashSet};

use mail::mailbox::{Role, assign_roles, decode_name, is_inbox};
use mail::namespace::Namespaces;
use mail::sync::{
    Depth, Findings, ListedMailbox, LocalEntry, StatusAnswer, StatusNumbers, TreePlan, TreeWrite, plan_tree,
};
use mail::uid::UidValidity;

use super::identity::Known;
use super::link::Link;
use super::{SyncContext, SyncError, empty, trouble};
use crate::domain::mailbox::meant::Meant;
use crate::domain::namespaces;
use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{AccountId, MailboxId, TenantId};
use crate::sync::store::pending::{TreeChange, TreeChangeKind, done, tree_changes};
use crate::sync::store::take_back::refuse;
use crate::sync::store::{checkpoint, keep, refusal, removal, tree, view};
use wire::imap::{ImapError, ListedMailbox as ServerMailbox, MailboxStatus, Session};

/// Performs on the server what our users did to mailboxes. Returns how many changes it confirmed.
pub(super) async fn push(link: &mut Link<'_>) -> Result<usize, SyncError> {
    let mut tx = link.lease.begin(&link.ctx.db).await?;
    let labels = link.session.capabilities().gmail;
    let are_due = namespaces::are_due(&mut tx, link.lease.account, labels).await?;
    let mut changes = tree_changes(&mut tx, link.lease.account).await?;
    tx.commit().await?;
    if are_due {
        changes = learn_namespaces(link).await?;
    }
    let mut confirmed = 0;
    for change in changes {
        let outcome = perform(link, &change).await;
        let mut tx = link.lease.begin(&link.ctx.db).await?;
        match outcome {
            Ok(()) => {
                refusal::forget(&mut tx, change.id).await?;
                done(&mut tx, &[change.id]).await?;
                confirmed += 1;
            }
            Err(SyncError::Imap(
                error @ (ImapError::Refused { .. } | ImapError::NoSuchMailbox(_) | ImapError::Protocol(_)),
            )) if link.session.is_usable() => {
                let cause = trouble::cause_of(&error);
                refusal::tell(&mut tx, link.lease.account, &change, &cause).await?;
                refuse(&mut tx, link.lease.account, &[change.id], cause.code).await?;
            }
            Err(error) => return Err(error),
        }
        tx.commit().await?;
    }
    Ok(confirmed)
}

/// Asks where the user's own mailboxes stand, before anything is made there. Returns the changes that wait, under the names
/// they have now.
async fn learn_namespaces(link: &mut Link<'_>) -> Result<Vec<TreeChange>, SyncError> {
    let told = match link.session.namespaces().await {
        Ok(told) => told,
        Err(error) => {
            link.forgo(error).await?;
            Namespaces::default()
        }
    };
    let mut tx = link.lease.begin(&link.ctx.db).await?;
    let labels = link.session.capabilities().gmail;
    namespaces::note(&mut tx, link.lease.account, &told, labels).await?;
    let changes = tree_changes(&mut tx, link.lease.account).await?;
    tx.commit().await?;
    Ok(changes)
}

/// Doing it again after a crash between the command and its record must end well: what is already as wanted is done.
async fn perform(link: &mut Link<'_>, change: &TreeChange) -> Result<(), SyncError> {
    match &change.kind {
        TreeChangeKind::Create { name, role } => {
            match link.session.create_mailbox(name, *role).await {
                Err(error @ ImapError::Refused { .. }) if !exists(link, name).await? => {
                    return Err(error.into());
                }
                Ok(()) | Err(ImapError::Refused { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            // Other clients show only what is subscribed to.
            Ok(link.session.subscribe_new(name).await?)
        }
        TreeChangeKind::Rename { from, to } => {
            let renamed = match is_meant(link, from, &change.meant).await {
                Ok(false) => return Ok(()),
                Ok(true) => link.session.rename_mailbox(from, to).await,
                Err(error) => Err(error),
            };
            match renamed {
                Err(error @ (ImapError::Refused { .. } | ImapError::NoSuchMailbox(_))) => {
                    let moved = !exists(link, from).await? && exists(link, to).await?;
                    moved.then_some(()).ok_or(error)?;
                }
                other => other?,
            }
            Ok(link.session.carry_subscriptions(from, to).await?)
        }
        TreeChangeKind::Delete { name } => {
            let is_there = match is_meant(link, name, &change.meant).await {
                Ok(false) => return Ok(()),
                Ok(true) => match empty::into_trash(link, name).await {
                    Err(SyncError::Imap(ImapError::NoSuchMailbox(_))) => Ok(()),
                    emptied => emptied,
                },
                Err(error) => Err(error.into()),
            };
            let deleted = match is_there {
                Ok(()) => link.session.delete_mailbox(name).await.map_err(SyncError::from),
                Err(error) => Err(error),
            };
            match deleted {
                Ok(()) | Err(SyncError::Imap(ImapError::NoSuchMailbox(_))) => {}
                Err(error) => return Err(error),
            }
            Ok(link.session.unsubscribe_deleted(name).await?)
        }
        TreeChangeKind::Subscribe { name, on: true } => Ok(link.session.subscribe(name).await?),
        TreeChangeKind::Subscribe { name, on: false } => Ok(link.session.unsubscribe(name).await?),
    }
}

/// Whether the mailbox of this name may be the one our user meant. Another client can have given the name away since, or to
/// a new mailbox after a command of ours whose answer never came: then what was meant is not there any more, and the
/// listing tells the rest.
async fn is_meant(link: &mut Link<'_>, name: &[u8], meant: &Meant) -> Result<bool, ImapError> {
    if !meant.is_known() {
        return Ok(true);
    }
    match link.session.status_and_id(name).await {
        Ok((status, id)) => {
            let uidvalidity = status.uidvalidity.filter(|v| v.get() != 0);
            Ok(!meant.is_not(uidvalidity, id.as_deref()))
        }
        // The question was not understood.
        Err(ImapError::Protocol(_)) if link.session.is_usable() => Ok(true),
        Err(error) => Err(error),
    }
}

async fn exists(link: &mut Link<'_>, name: &[u8]) -> Result<bool, ImapError> {
    match link.session.status(name).await {
        Ok(_) => Ok(true),
        Err(ImapError::NoSuchMailbox(_) | ImapError::Refused { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether a round would find nothing to do. Only looks: the caller has no lease.
pub(super) async fn is_current(
    ctx: &SyncContext,
    (tenant, account): (TenantId, AccountId),
    session: &mut Session,
) -> Result<bool, SyncError> {
    let mut room = ctx.rooms.of(tenant.0.as_u128());
    let mut raw = session.list_status(&mut room).await?;
    let mut tx = ctx.db.tenant(tenant).await?;
    let ignored = tree::ignored(&mut tx, account).await?;
    let entries = view::tree(&mut tx, account).await?;
    tx.release();
    let labels = session.capabilities().gmail;
    raw.retain(|m| !is_left_out(m, &ignored, labels));
    let local: Vec<_> = entries.iter().map(|e| e.local.clone()).collect();
    let listed = translate(&raw, &entries, &ignored.own_prefix());
    let plan = plan_tree(&listed, &local, Depth::Full, &Findings::default());
    let settled = plan.compare.is_empty() && !plan.needs_second_listing && plan.writes.is_empty();
    Ok(settled && divide(&plan, &listed, &entries).0.is_empty())
}

/// Takes over the server's tree. Returns the mailboxes to open, in order.
pub(super) async fn refresh(link: &mut Link<'_>, depth: Depth) -> Result<Vec<MailboxId>, SyncError> {
    let mut known = Known::default();
    // Held until the tree is taken over.
    let mut room = link.ctx.rooms.of(link.lease.tenant.0.as_u128());
    loop {
        let mut raw = match link.session.list_status(&mut room).await {
            Ok(raw) => raw,
            Err(error) => {
                link.forgo(error).await?;
                continue;
            }
        };
        let mut ours = Ours::load(link).await?;
        let (refusing, missing) = (refusing(&raw, &ours.entries), missing(&raw, &ours.entries));
        if !refusing.is_empty() || !missing.is_empty() {
            // The server is not waited for inside a transaction.
            ours.tx.release();
            look_into_refusals(link, &mut raw, &refusing).await?;
            raw.extend(left_out(link, missing).await?);
            ours = Ours::load(link).await?;
        }
        if let Some(visits) = take_over(link, ours, raw, depth, &mut known).await? {
            return Ok(visits);
        }
    }
}

/// Where mailboxes are labels, Starred and Important are none: they show messages by a mark, and what is moved out of them
/// loses it.
fn is_left_out(mailbox: &ServerMailbox, ignored: &tree::Ignored, labels: bool) -> bool {
    ignored.covers(&mailbox.wire_name, mailbox.delimiter) || labels && mailbox.is_view()
}

/// Our tree, and the transaction in which it is so.
struct Ours {
    tx: TenantTx,
    entries: Vec<view::Entry>,
}

impl Ours {
    async fn load(link: &Link<'_>) -> Result<Self, SyncError> {
        let mut tx = link.lease.begin(&link.ctx.db).await?;
        let entries = view::tree(&mut tx, link.lease.account).await?;
        Ok(Self { tx, entries })
    }
}

/// Plans, looks where the planner wants it, and writes. `None`: list again.
async fn take_over(
    link: &mut Link<'_>,
    mut ours: Ours,
    mut raw: Vec<ServerMailbox>,
    depth: Depth,
    known: &mut Known,
) -> Result<Option<Vec<MailboxId>>, SyncError> {
    let account = link.lease.account;
    loop {
        let Ours { mut tx, entries } = ours;
        let ignored = tree::ignored(&mut tx, account).await?;
        let labels = link.session.capabilities().gmail;
        raw.retain(|m| !is_left_out(m, &ignored, labels));
        let listed = translate(&raw, &entries, &ignored.own_prefix());
        let local: Vec<_> = entries.iter().map(|e| e.local.clone()).collect();
        let plan = plan_tree(&listed, &local, depth, &known.findings(&listed, &entries));
        if plan.needs_second_listing {
            tx.release();
            known.confirmed = true;
            return Ok(None);
        }
        if !plan.compare.is_empty() {
            tx.release();
            if !known.compare(link, &plan.compare, &listed, &entries).await? {
                return Ok(None);
            }
            ours = Ours::load(link).await?;
            continue;
        }
        if !tree::apply(&mut tx, account, &plan.writes, &listed, &entries).await? {
            tx.commit().await?;
            return Ok(None);
        }
        link.round.renumbered.extend(plan.renumbered.iter().filter_map(|at| Some(entries.get(*at)?.id)));
        let now = if plan.writes.is_empty() { entries } else { view::tree(&mut tx, account).await? };
        let (visits, quiet) = divide(&plan, &listed, &now);
        checkpoint::unchanged(&mut tx, &quiet).await?;
        keep::pass_over(&mut tx, &outside(&listed, &now)).await?;
        keep::follow_up(&mut tx, account).await?;
        tx.commit().await?;
        if plan.writes.iter().any(|write| matches!(write, TreeWrite::Remove { .. })) {
            remove_gone(link).await?;
        }
        return Ok(Some(visits));
    }
}

/// The numbers of mailboxes that are not kept.
fn outside(listed: &[ListedMailbox], now: &[view::Entry]) -> Vec<keep::Numbers> {
    let left: HashMap<Vec<u8>, MailboxId> =
        now.iter().filter(|e| !e.synchronised).map(|e| (key(&e.local.wire_name), e.id)).collect();
    let numbers = |mailbox: &ListedMailbox| {
        let StatusAnswer::Numbers(told) = mailbox.status else { return None };
        Some(keep::Numbers {
            mailbox: *left.get(&key(&mailbox.wire_name))?,
            uidvalidity: told.uidvalidity.map_or(0, i64::from),
            uidnext: i64::from(told.uidnext.filter(|next| *next > 0)?),
            messages: i64::from(told.messages?),
        })
    };
    listed.iter().filter_map(numbers).collect()
}

/// Removes what mailboxes held that are gone, before the others are read: what was moved from one to another is known again by
/// what has left. The lease is renewed beside; what this process leaves of it a job finds.
async fn remove_gone(link: &Link<'_>) -> Result<(), SyncError> {
    let (tenant, account) = (link.lease.tenant, link.lease.account);
    for gone in removal::list(&link.ctx.db, tenant, Some(account)).await? {
        match removal::finish(&link.ctx.db, tenant, (account, gone.mailbox), || false).await {
            Err(DbError::Deleted) => return Err(SyncError::Lost),
            finished => finished?,
        };
    }
    Ok(())
}

/// The mailboxes to open, in order, and those that can be opened and need not be. Of those that are kept.
fn divide(
    plan: &TreePlan,
    listed: &[ListedMailbox],
    now: &[view::Entry],
) -> (Vec<MailboxId>, Vec<MailboxId>) {
    let kept = now.iter().filter(|e| e.synchronised);
    let ids: HashMap<Vec<u8>, MailboxId> = kept.map(|e| (key(&e.local.wire_name), e.id)).collect();
    let visits: Vec<MailboxId> =
        plan.visits.iter().filter_map(|at| ids.get(&key(&listed.get(*at)?.wire_name)).copied()).collect();
    let listed_ids = listed.iter().filter(|m| m.selectable()).filter_map(|m| ids.get(&key(&m.wire_name)));
    let visited: HashSet<MailboxId> = visits.iter().copied().collect();
    let quiet = listed_ids.copied().filter(|id| !visited.contains(id)).collect();
    (visits, quiet)
}

/// Positions in `raw` of mailboxes that held messages and now refuse their numbers.
fn refusing(raw: &[ServerMailbox], entries: &[view::Entry]) -> Vec<usize> {
    let held: HashSet<Vec<u8>> =
        entries.iter().filter(|e| e.local.holds_anything()).map(|e| key(&e.local.wire_name)).collect();
    let refused = raw.iter().enumerate().filter(|(_, m)| m.is_selectable() && m.status.is_none());
    refused.filter(|(_, m)| held.contains(&key(&m.wire_name))).map(|(at, _)| at).collect()
}

/// Mailboxes of ours that a listing does not name.
fn missing(raw: &[ServerMailbox], entries: &[view::Entry]) -> Vec<LocalEntry> {
    let listed: HashSet<Vec<u8>> = raw.iter().map(|m| key(&m.wire_name)).collect();
    let known = entries.iter().map(|e| &e.local).filter(|e| e.checkpoint.uidvalidity.is_some());
    known.filter(|e| !listed.contains(&key(&e.wire_name))).cloned().collect()
}

/// Those that refuse their numbers may be closed to us for a while, or be the phantom that Dovecot 2.3.19 lists, without
/// `\Noselect`, for a parent that was deleted: asked alone, it says that there is none.
async fn look_into_refusals(
    link: &mut Link<'_>,
    raw: &mut [ServerMailbox],
    refusing: &[usize],
) -> Result<(), SyncError> {
    for at in refusing {
        let Some(mailbox) = raw.get_mut(*at) else { continue };
        match link.session.status(&mailbox.wire_name).await {
            Ok(status) => mailbox.status = Some(status),
            Err(ImapError::NoSuchMailbox(_)) => mailbox.attributes.push("\\NonExistent".to_owned()),
            Err(ImapError::Refused { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Those of `missing` that the server has all the same, under the UIDVALIDITY we know: a listing that was cut short may end
/// in OK too, and a mailbox is not given up on the word of one question.
async fn left_out(link: &mut Link<'_>, missing: Vec<LocalEntry>) -> Result<Vec<ServerMailbox>, SyncError> {
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<&[u8]> = missing.iter().map(|e| e.wire_name.as_slice()).collect();
    let found = link.session.numbers_of(&names).await?;
    let same = |entry: &LocalEntry, numbers: &MailboxStatus| {
        Some(numbers.uidvalidity.unwrap_or(UidValidity(0))) == entry.checkpoint.uidvalidity
    };
    let there = missing.into_iter().zip(found).filter_map(|(entry, numbers)| {
        let status = numbers.filter(|n| same(&entry, n))?;
        Some(ServerMailbox {
            wire_name: entry.wire_name,
            delimiter: entry.delimiter,
            attributes: entry.role.and_then(Role::attribute).map(str::to_owned).into_iter().collect(),
            special_use: entry.role,
            mailbox_id: entry.mailboxid,
            subscribed: Some(entry.subscribed),
            status: Some(status),
        })
    });
    Ok(there.collect())
}

/// INBOX is one mailbox in any case.
fn key(wire_name: &[u8]) -> Vec<u8> {
    if is_inbox(wire_name) { b"INBOX".to_vec() } else { wire_name.to_vec() }
}

fn translate(raw: &[ServerMailbox], entries: &[view::Entry], own_prefix: &str) -> Vec<ListedMailbox> {
    let paths: Vec<String> = raw.iter().map(|m| decode_name(&m.wire_name)).collect();
    let attributes: Vec<Vec<&str>> =
        raw.iter().map(|m| m.attributes.iter().map(String::as_str).collect()).collect();
    let facts: Vec<(&str, Option<char>, &[&str])> = raw
        .iter()
        .zip(&paths)
        .zip(&attributes)
        .map(|((m, path), attributes)| (path.as_str(), m.delimiter, attributes.as_slice()))
        .collect();
    let roles = assign_roles(&facts, own_prefix);
    // What our user decided holds until the server has heard of it, and always where the server does not tell.
    let ours: HashMap<Vec<u8>, &view::Entry> = entries.iter().map(|e| (key(&e.local.wire_name), e)).collect();
    let subscribed = |m: &ServerMailbox| match (m.subscribed, ours.get(&key(&m.wire_name))) {
        (Some(told), None) => told,
        (Some(told), Some(entry)) if !entry.subscription_waits => told,
        (_, Some(entry)) => entry.local.subscribed,
        (None, None) => true,
    };
    raw.iter()
        .zip(roles)
        .map(|(m, role)| ListedMailbox {
            wire_name: m.wire_name.clone(),
            delimiter: m.delimiter,
            noselect: !m.is_selectable(),
            subscribed: subscribed(m),
            role,
            mailboxid: m.mailbox_id.clone(),
            status: answer(m),
        })
        .collect()
}

/// Every mailbox that can be selected was asked for its numbers: silence is a refusal.
fn answer(mailbox: &ServerMailbox) -> StatusAnswer {
    match &mailbox.status {
        Some(s) => StatusAnswer::Numbers(StatusNumbers {
            messages: s.messages,
            uidnext: s.uidnext,
            uidvalidity: s.uidvalidity,
            highestmodseq: s.highestmodseq,
        }),
        None if mailbox.is_selectable() => StatusAnswer::Refused,
        None => StatusAnswer::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(subscribed: Option<bool>) -> ServerMailbox {
        ServerMailbox {
            wire_name: b"a".to_vec(),
            delimiter: Some('/'),
            attributes: Vec::new(),
            special_use: None,
            mailbox_id: None,
            subscribed,
            status: None,
        }
    }

    #[test]
    fn a_subscription_of_our_user_holds_until_the_server_has_heard_of_it() {
        for (told, waits, ours, wanted) in [
            (Some(true), false, false, true),
            (Some(false), false, true, false),
            (Some(true), true, false, false),
            (Some(false), true, true, true),
            (None, false, false, false),
        ] {
            let local = LocalEntry { wire_name: b"a".to_vec(), subscribed: ours, ..LocalEntry::default() };
            let entry =
                view::Entry { id: MailboxId::new(), local, subscription_waits: waits, synchronised: true };
            let found = translate(&[listed(told)], &[entry], "");
            assert_eq!(found[0].subscribed, wanted, "{told:?} {waits} {ours}");
        }
        assert!(!translate(&[listed(Some(false))], &[], "")[0].subscribed);
        assert!(translate(&[listed(None)], &[], "")[0].subscribed);
    }
}
