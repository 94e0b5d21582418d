//! A mailbox that our user deletes is emptied before it is: what another client put there meanwhile nobody deleted.

use std::collections::BTreeMap;

use mail::flags::{Flags, Keywords};
use mail::mailbox::is_inbox;
use mail::uid::{Uid, UidSet};

use super::SyncError;
use super::link::Link;
use crate::sync::store::view;
use wire::imap::{ImapError, StoreMode};

/// Mail that comes while the mailbox is emptied goes too; a mailbox that never rests is not deleted.
const MAX_LOOKS: usize = 3;

/// Moves all that is in the mailbox `name` to Trash. Nothing is left there afterwards, or on a server without MOVE and
/// UIDPLUS, nothing that is not in Trash. What is in Trash, or below it, was deleted before and stays where it is.
///
/// # Errors
/// [`ImapError::Refused`] when something is left or there is no Trash; then the mailbox must not be deleted.
pub(super) async fn into_trash(link: &mut Link<'_>, name: &[u8]) -> Result<(), SyncError> {
    if is_inbox(name) {
        return Err(ImapError::refused("INBOX is not deleted").into());
    }
    let mut tx = link.ctx.db.tenant(link.lease.tenant).await?;
    let trash = view::trash(&mut tx, link.lease.account).await?;
    drop(tx);
    let below = |trash: &view::Named| {
        let rest = name.strip_prefix(trash.wire_name.as_slice());
        let delimiter = trash.delimiter.map(String::from).unwrap_or_default();
        rest.is_some_and(|r| r.is_empty() || (!delimiter.is_empty() && r.starts_with(delimiter.as_bytes())))
    };
    if trash.as_ref().is_some_and(below) {
        return Ok(());
    }
    let result = empty(link, name, trash.as_ref()).await;
    // Dovecot ends the connection when the open mailbox goes, and not every server can leave one without opening another.
    if link.session.is_usable() {
        link.session.select(b"INBOX", None, true).await?;
    }
    result
}

async fn empty(link: &mut Link<'_>, name: &[u8], trash: Option<&view::Named>) -> Result<(), SyncError> {
    for _ in 0..MAX_LOOKS {
        if link.session.select(name, None, false).await?.exists == 0 {
            return Ok(());
        }
        let uids = link.session.uid_search_all().await?;
        let Some(trash) = trash.filter(|_| !uids.is_empty()) else {
            return Err(ImapError::refused("the mailbox is not empty").into());
        };
        link.round.touched.insert(trash.id);
        if link.session.capabilities().move_ {
            link.session.uid_move(&uids, &trash.wire_name).await?;
        } else if copy(link, (name, &uids), &trash.wire_name).await? {
            return Ok(());
        }
    }
    Err(ImapError::refused("the mailbox does not get empty").into())
}

/// Without MOVE: copied, and the originals removed once their copies are proven. `true`: they cannot be removed but with the
/// mailbox.
async fn copy(link: &mut Link<'_>, (name, uids): (&[u8], &UidSet), trash: &[u8]) -> Result<bool, SyncError> {
    let before = link.session.select(trash, None, true).await?.exists;
    link.session.select(name, None, false).await?;
    let originals = link.session.proofs(uids).await?;
    let told = link.session.uid_copy(uids, trash).await?;
    let now = link.session.select(trash, None, true).await?.exists;
    let pairs: BTreeMap<Uid, Uid> = told.map(|t| t.pairs().collect()).unwrap_or_default();
    let mut copies: Vec<Uid> = pairs.values().copied().collect();
    copies.sort_unstable();
    let found = link.session.proofs(&copies.into_iter().collect()).await?;
    let is_there = |uid: Uid| pairs.get(&uid).is_some_and(|copy| originals.get(&uid) == found.get(copy));
    let all = if pairs.is_empty() {
        // No UIDs were told: the count is all there is to go by.
        u64::from(now.saturating_sub(before)) >= originals.len() as u64
    } else {
        originals.keys().all(|uid| is_there(*uid))
    };
    if !all {
        return Err(ImapError::refused("the copies are not all there").into());
    }
    link.session.select(name, None, false).await?;
    if !link.session.capabilities().uidplus {
        return Ok(true);
    }
    link.session.store(uids, StoreMode::Add, (Flags::DELETED, &Keywords::new()), None).await?;
    link.session.uid_expunge(uids).await?;
    Ok(false)
}
