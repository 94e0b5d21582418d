//! The mailbox tree: our users' changes of it go out, then the server's comes in.

use std::collections::HashMap;

use mail::mailbox::{assign_roles, decode_name, is_inbox};
use mail::sync::{Depth, ListedMailbox, StatusAnswer, StatusNumbers, plan_tree};

use super::round::Link;
use super::{SyncError, trouble};
use crate::id::MailboxId;
use crate::imap::{self, ImapError};
use crate::sync_store::pending::{TreeChangeKind, done, refuse, tree_changes};
use crate::sync_store::{checkpoint, tree, view};

/// Performs on the server what our users did to mailboxes. Returns how many changes it confirmed.
pub(super) async fn push(link: &mut Link<'_>) -> Result<usize, SyncError> {
    let mut tx = link.lease.begin(&link.ctx.db).await?;
    let changes = tree_changes(&mut tx, link.lease.account).await?;
    tx.commit().await?;
    let mut confirmed = 0;
    for change in changes {
        let outcome = perform(link, &change.kind).await;
        let mut tx = link.lease.begin(&link.ctx.db).await?;
        match outcome {
            Ok(()) => {
                done(&mut tx, &[change.id]).await?;
                confirmed += 1;
            }
            Err(
                error @ (ImapError::Refused { .. } | ImapError::NoSuchMailbox(_) | ImapError::Protocol(_)),
            ) if link.session.is_usable() => {
                refuse(&mut tx, link.lease.account, &[change.id], trouble::cause_of(&error).code).await?;
            }
            Err(error) => return Err(error.into()),
        }
        tx.commit().await?;
    }
    Ok(confirmed)
}

/// Doing it again after a crash between the command and its record must end well: what is already as wanted is done.
async fn perform(link: &mut Link<'_>, kind: &TreeChangeKind) -> Result<(), ImapError> {
    let session = &mut link.session;
    match kind {
        TreeChangeKind::Create { name, role } => match session.create_mailbox(name, *role).await {
            Err(error @ ImapError::Refused { .. }) => exists(link, name).await?.then_some(()).ok_or(error),
            other => other,
        },
        TreeChangeKind::Rename { from, to } => match session.rename_mailbox(from, to).await {
            Err(error @ (ImapError::Refused { .. } | ImapError::NoSuchMailbox(_))) => {
                let moved = !exists(link, from).await? && exists(link, to).await?;
                moved.then_some(()).ok_or(error)
            }
            other => other,
        },
        TreeChangeKind::Delete { name } => match session.delete_mailbox(name).await {
            Err(ImapError::NoSuchMailbox(_)) => Ok(()),
            other => other,
        },
        TreeChangeKind::Subscribe { name, on: true } => session.subscribe(name).await,
        TreeChangeKind::Subscribe { name, on: false } => session.unsubscribe(name).await,
    }
}

async fn exists(link: &mut Link<'_>, name: &[u8]) -> Result<bool, ImapError> {
    match link.session.status(name).await {
        Ok(_) => Ok(true),
        Err(ImapError::NoSuchMailbox(_) | ImapError::Refused { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Takes over the server's tree. Returns the mailboxes to open, in order.
pub(super) async fn refresh(link: &mut Link<'_>, depth: Depth) -> Result<Vec<MailboxId>, SyncError> {
    let mut confirmed = false;
    loop {
        let raw = link.session.list_status().await?;
        let mut tx = link.lease.begin(&link.ctx.db).await?;
        let account = link.lease.account;
        let ignored = tree::names_to_ignore(&mut tx, account).await?;
        let entries = view::tree(&mut tx, account).await?;
        let listed =
            translate(raw.into_iter().filter(|m| !ignored.contains(&m.wire_name)).collect(), &entries);
        let local: Vec<_> = entries.iter().map(|e| e.local.clone()).collect();
        let plan = plan_tree(&listed, &local, depth, confirmed);
        tree::apply(&mut tx, account, &plan.writes, &listed, &entries).await?;
        let now = if plan.writes.is_empty() { entries } else { view::tree(&mut tx, account).await? };
        let ids: HashMap<Vec<u8>, MailboxId> = now.iter().map(|e| (key(&e.local.wire_name), e.id)).collect();
        let visits: Vec<MailboxId> =
            plan.visits.iter().filter_map(|at| ids.get(&key(&listed.get(*at)?.wire_name)).copied()).collect();
        let listed_ids = listed.iter().filter(|m| m.selectable()).filter_map(|m| ids.get(&key(&m.wire_name)));
        let quiet: Vec<MailboxId> = listed_ids.copied().filter(|id| !visits.contains(id)).collect();
        checkpoint::unchanged(&mut tx, &quiet).await?;
        tx.commit().await?;
        if !plan.needs_second_listing || confirmed {
            return Ok(visits);
        }
        confirmed = true;
    }
}

/// INBOX is one mailbox in any case.
fn key(wire_name: &[u8]) -> Vec<u8> {
    if is_inbox(wire_name) { b"INBOX".to_vec() } else { wire_name.to_vec() }
}

fn translate(raw: Vec<imap::ListedMailbox>, entries: &[view::Entry]) -> Vec<ListedMailbox> {
    let paths: Vec<String> = raw.iter().map(|m| decode_name(&m.wire_name)).collect();
    let attributes: Vec<Vec<&str>> =
        raw.iter().map(|m| m.attributes.iter().map(String::as_str).collect()).collect();
    let facts: Vec<(&str, Option<char>, &[&str])> = raw
        .iter()
        .zip(&paths)
        .zip(&attributes)
        .map(|((m, path), attributes)| (path.as_str(), m.delimiter, attributes.as_slice()))
        .collect();
    let roles = assign_roles(&facts);
    // A plain LIST says nothing of subscriptions; then ours stay as they are.
    let told = raw.iter().any(|m| m.has_attribute("\\Subscribed"));
    let ours: HashMap<&[u8], bool> =
        entries.iter().map(|e| (e.local.wire_name.as_slice(), e.local.subscribed)).collect();
    let subscribed = |m: &imap::ListedMailbox| {
        if told {
            m.has_attribute("\\Subscribed")
        } else {
            ours.get(m.wire_name.as_slice()).copied().unwrap_or(true)
        }
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
fn answer(mailbox: &imap::ListedMailbox) -> StatusAnswer {
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
