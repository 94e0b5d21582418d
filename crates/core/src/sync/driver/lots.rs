//! What is asked of the server, lot by lot, what of it is here already, and what is noted of it before it is looked into.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use mail::sync::Batch;
use mail::uid::{Uid, UidSet};
use tokio::sync::mpsc;

use super::link::Link;
use super::visit::{Open, is_refusal, words_of};
use super::{SyncContext, SyncError};
use crate::platform::db::{Db, DbError};
use crate::platform::id::{MailboxId, TenantId};
use crate::queue::lease::Lease;
use crate::sync::store::{Target, attempts, lasting};
use wire::imap::{FetchEvent, FetchedMessage, ImapError, LastingIds, MemoryBudget, Room, Rooms, Session};

/// Batches read and noted together: what a process that ends leaves of them is read one at a time, and so are all of them
/// when the server refuses one.
const LOT: usize = 8;

/// The UIDs of `batches`, in lots.
pub(super) fn of(batches: &[Batch]) -> Vec<Vec<UidSet>> {
    batches.chunks(LOT).map(|lot| lot.iter().map(|b| b.uids.clone()).collect()).collect()
}

pub(super) fn union(sets: &[UidSet]) -> UidSet {
    sets.iter().fold(UidSet::new(), |all, set| all.union(set))
}

/// Messages at which the line broke in earlier rounds that may break it in one round. A dozen of them must not use up the
/// connections of the round, so they take turns; as long as none breaks it, all are asked for.
const MAY_BREAK: usize = 2;

/// Whether a batch is one message in the way that is left to the next round: the line broke at it in this one, or enough
/// others broke it, and it was not its turn.
pub(super) async fn is_left(link: &Link<'_>, open: &Open, batch: &Batch) -> Result<bool, DbError> {
    let broken: usize = link.round.left.values().map(|uids| uids.iter().count()).sum();
    let (1, Some(uid)) = (batch.uids.len(), batch.uids.first()) else { return Ok(false) };
    if broken == 0 || !open.local.delicate().contains(uid) {
        return Ok(false);
    }
    let is_in =
        |of: &HashMap<MailboxId, UidSet>| of.get(&open.target.mailbox).is_some_and(|s| s.contains(uid));
    if is_in(&link.round.left) || is_in(&link.round.alone) {
        return Ok(is_in(&link.round.left));
    }
    let mut tx = link.ctx.db.tenant(link.lease.tenant).await?;
    let before = attempts::longer_waiting(&mut tx, &open.target, uid).await?;
    Ok(before + broken >= MAY_BREAK)
}

/// What is noted as being looked into: the lots so far, of which the last are not all stored.
pub(super) struct Notes<'a> {
    ctx: &'a SyncContext,
    lease: &'a Lease,
    target: Target,
    lots: std::slice::Iter<'a, Vec<UidSet>>,
    noted: UidSet,
}

impl<'a> Notes<'a> {
    pub fn new(ctx: &'a SyncContext, lease: &'a Lease, target: Target, lots: &'a [Vec<UidSet>]) -> Self {
        Self { ctx, lease, target, lots: lots.iter(), noted: UidSet::new() }
    }

    /// Notes the lot of this message, unless it is noted.
    pub async fn cover(&mut self, uid: Uid) -> Result<(), SyncError> {
        while !self.noted.contains(uid) && self.next().await? {}
        Ok(())
    }

    /// Notes the next lot. `false`: there is none.
    pub async fn next(&mut self) -> Result<bool, SyncError> {
        let Some(lot) = self.lots.next() else { return Ok(false) };
        self.noted = self.noted.union(&union(lot));
        let mut tx = self.lease.begin_relaxed(&self.ctx.db).await?;
        attempts::begin(&mut tx, self.lease, &self.target, &self.noted).await?;
        tx.commit().await?;
        Ok(true)
    }
}

/// What the server was asked for.
pub(super) struct Asked<'a> {
    pub uids: UidSet,
    /// Messages it refused when asked for each alone.
    pub refused: UidSet,
    /// Its words about the last of them.
    pub words: String,
    /// Ask for no more.
    called: &'a AtomicBool,
}

impl<'a> Asked<'a> {
    /// `called` stops the asking when it is set.
    pub const fn nothing(called: &'a AtomicBool) -> Self {
        Self { uids: UidSet::new(), refused: UidSet::new(), words: String::new(), called }
    }
}

/// What is here already, and the room for what is not.
pub(super) struct Stock<'a> {
    pub db: &'a Db,
    pub tenant: TenantId,
    pub target: Target,
    pub memory: &'a MemoryBudget,
    pub rooms: &'a Rooms,
}

/// Keywords of one message that count for nothing, in bytes: its row here takes more.
const USUAL_KEYWORDS: usize = 200;

/// Facts of a lot. Those for which there is no room are left out: their bytes are asked for as if they were unknown.
struct Met {
    messages: Vec<FetchedMessage>,
    room: Room,
}

impl Met {
    fn hear(&mut self, message: FetchedMessage) {
        let keywords: usize = message.keywords.iter().map(|k| 40 + k.len()).sum();
        if self.room.take(keywords.saturating_sub(USUAL_KEYWORDS)) {
            self.messages.push(message);
        }
    }
}

impl Stock<'_> {
    /// Hands on those messages of a lot whose bytes are here, by the ids that the server has for them; returns their UIDs.
    /// They are asked for nothing more.
    async fn hand_on_known(
        &self,
        session: &mut Session,
        lot: &[UidSet],
        out: &mpsc::Sender<FetchEvent>,
    ) -> Result<UidSet, ImapError> {
        let mut uids = UidSet::new();
        if !session.tells_ids() {
            return Ok(uids);
        }
        // The room is held until all of it is handed on.
        let mut met = Met { messages: Vec::new(), room: self.rooms.of(self.tenant.0.as_u128()) };
        match session.fetch_ids(&union(lot), |message| met.hear(message)).await {
            // Whoever asks for the bytes hears it again, and knows what to do.
            Err(error) if is_refusal(&error) && session.is_usable() => return Ok(uids),
            answered => answered?,
        }
        let ids: Vec<LastingIds> = met.messages.iter().filter_map(|m| m.ids).collect();
        let mut here =
            lasting::here(self.db, self.tenant, &self.target, &ids).await.unwrap_or_else(|error| {
                // What is wrong with the database the writer finds out.
                tracing::debug!(%error, "what is here already is not known");
                HashMap::new()
            });
        for mut message in met.messages.drain(..) {
            // Once in a mailbox; and an id that stands for messages of different sizes proves nothing.
            let Some(known) = message.ids.and_then(|ids| here.remove(&ids)) else { continue };
            if message.size.is_some_and(|size| size != known.size) {
                continue;
            }
            message.known = Some(known.hash);
            uids.insert(message.uid);
            if out.send(FetchEvent::Message(Box::new(message))).await.is_err() {
                break;
            }
        }
        Ok(uids)
    }
}

/// The batches of a lot as they are asked for.
struct Asking<'a, 'b> {
    lot: std::slice::Iter<'a, UidSet>,
    known: &'a UidSet,
    asked: &'a mut Asked<'b>,
}

// By hand: of a closure over references the compiler does not believe that the round can move between threads.
impl Iterator for Asking<'_, '_> {
    type Item = UidSet;

    fn next(&mut self) -> Option<UidSet> {
        loop {
            if self.asked.called.load(Ordering::Relaxed) {
                return None;
            }
            let set = self.lot.next()?;
            self.asked.uids = self.asked.uids.union(set);
            let unknown = set.difference(self.known);
            if !unknown.is_empty() {
                return Some(unknown);
            }
        }
    }
}

/// Reads all lots, unless something else is asked for meanwhile. A server that refuses a whole command may do so for one
/// message in it: then those of the lot are asked for one by one, and those it still refuses count as answered without a
/// message.
pub(super) async fn read(
    session: &mut Session,
    stock: &Stock<'_>,
    lots: &[Vec<UidSet>],
    out: mpsc::Sender<FetchEvent>,
    asked: &mut Asked<'_>,
) -> Result<(), ImapError> {
    for lot in lots {
        if asked.called.load(Ordering::Relaxed) {
            break;
        }
        let known = stock.hand_on_known(session, lot, &out).await.inspect_err(|_| {
            // The line may have broken at one of them.
            asked.uids = asked.uids.union(&union(lot));
        })?;
        let batches = Asking { lot: lot.iter(), known: &known, asked: &mut *asked };
        let Err(error) = session.fetch_bodies(batches, stock.memory, &out).await else { continue };
        if !is_refusal(&error) || !session.is_usable() {
            return Err(error);
        }
        for uid in union(lot).difference(&known).iter() {
            if asked.called.load(Ordering::Relaxed) {
                return Ok(());
            }
            asked.uids.insert(uid);
            let one = UidSet::range(uid, uid);
            match session.fetch_bodies([one.clone()], stock.memory, &out).await {
                Ok(()) => {}
                Err(error) if is_refusal(&error) && session.is_usable() => {
                    asked.refused.insert(uid);
                    asked.words = words_of(&error);
                    let nothing = FetchEvent::BatchDone { requested: one.clone(), missing: one };
                    if out.send(nothing).await.is_err() {
                        return Ok(());
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use mail::flags::{Flags, Keywords};

    use super::*;

    #[test]
    fn facts_for_which_there_is_no_room_are_left_out() {
        let words: Vec<String> = (0..200).map(|n| format!("{n:0>255}")).collect();
        let message = |n: u32, keywords: &Keywords| FetchedMessage {
            uid: Uid::try_from(i64::from(n)).unwrap(),
            flags: Flags::NONE,
            keywords: keywords.clone(),
            modseq: None,
            internal_date: None,
            size: None,
            raw: bytes::Bytes::new(),
            oversized: None,
            permit: None,
            ids: None,
            known: None,
        };
        let kept = |keywords: &Keywords| {
            let mut met = Met { messages: Vec::new(), room: Rooms::new(4 << 20).of(0) };
            (1..=4_000).for_each(|n| met.hear(message(n, keywords)));
            met.messages.len()
        };
        let many = Keywords::from_wire(words.iter().map(String::as_str));
        assert!(many.iter().count() > 10);
        assert!((1..1_000).contains(&kept(&many)));
        assert_eq!(kept(&Keywords::new()), 4_000);
    }
}
