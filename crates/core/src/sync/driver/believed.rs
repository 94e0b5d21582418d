//! What of a server's answers is believed, and what is asked again.

use std::collections::BTreeMap;

use mail::uid::{Uid, UidSet};

use super::SyncError;
use super::link::Link;
use super::visit::{Open, more, next, note_news};
use crate::sync::store::vanish;
use wire::imap::{FetchedFlags, ImapError, Room, Uids};

/// A message that was moved away and back comes under its new UID before its old one is missed. Whether the old one is
/// there is asked at once: else one message would be two until the next comparison.
pub(super) async fn look_for_twins(link: &mut Link<'_>, open: &mut Open) -> Result<(), SyncError> {
    let twins = std::mem::take(&mut open.twins).intersection(&open.local.known);
    if twins.is_empty() {
        return Ok(());
    }
    // A UID command is answered before its session hears of what went.
    link.session.noop().await?;
    let mut there: Vec<Uid> = Vec::new();
    link.session.fetch_flags(Uids::Set(&twins), None, |f| there.push(f.uid)).await?;
    there.sort_unstable();
    let gone = twins.difference(&there.into_iter().collect());
    if !gone.is_empty() {
        let mut tx = link.lease.begin(&link.ctx.db).await?;
        while more(link, vanish::vanish(&mut tx, &open.target, &gone).await?) {
            tx = next(link, tx).await?;
        }
        tx.commit().await?;
        open.local.known = open.local.known.difference(&gone);
    }
    Ok(())
}

/// Messages that a listing may name beyond those the mailbox has, and a fifth of these.
const SURPLUS: u64 = 1_000;

/// A listing, if the mailbox can hold so many: what it names and is not there would be asked for, all of it. A count that
/// is too low, because the server takes away what it does not have, must not make the mailbox unreadable.
pub(super) fn credible(link: &mut Link<'_>, open: &mut Open, listing: UidSet) -> Result<UidSet, ImapError> {
    note_news(link, open);
    let count = u64::from(open.server.mailbox.exists).max(open.local.known.len());
    if listing.len() > count + count / 5 + SURPLUS {
        return Err(ImapError::protocol("a listing of far more messages than the mailbox has"));
    }
    Ok(listing)
}

/// The last word about each message that was asked about: a server may say a line as often as it likes, and name any UID.
pub(super) struct Heard<'a> {
    about: &'a UidSet,
    pub flags: BTreeMap<Uid, FetchedFlags>,
    room: Room,
    fits: bool,
    attempts: usize,
}

/// Keywords of one message that count for nothing, in bytes: its row here takes more.
const USUAL_KEYWORDS: usize = 200;
/// How often flags are asked for that there was no room for.
const MAX_ATTEMPTS: usize = 3;

impl<'a> Heard<'a> {
    pub const fn of(about: &'a UidSet, room: Room) -> Self {
        Self { about, flags: BTreeMap::new(), room, fits: true, attempts: 0 }
    }

    pub fn hear(&mut self, said: FetchedFlags) {
        if !self.about.contains(said.uid) {
            return;
        }
        let keywords: usize = said.keywords.iter().map(|k| 40 + k.len()).sum();
        self.fits &= self.room.take(keywords.saturating_sub(USUAL_KEYWORDS));
        if self.fits {
            self.flags.insert(said.uid, said);
        } else {
            self.flags = BTreeMap::new();
        }
    }

    /// Whether all that was said is here. Otherwise there is room for it now: ask again.
    ///
    /// # Errors
    /// [`ImapError::Protocol`] when it can never be kept.
    pub async fn is_complete(&mut self) -> Result<bool, ImapError> {
        if self.fits {
            return Ok(true);
        }
        self.attempts += 1;
        if self.attempts == MAX_ATTEMPTS {
            return Err(ImapError::protocol("flags that grow while they are read"));
        }
        self.room.wait().await?;
        self.room.begin();
        self.fits = true;
        Ok(false)
    }
}
