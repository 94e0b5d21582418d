//! One mailbox: opened, compared step by step as the planner says, left when nothing is to be done.

use std::collections::{BTreeMap, HashSet};

use chrono::{DateTime, Utc};
use mail::keep::Keep;
use mail::sync::{
    Checkpoint, Depth, ListBy, LocalView, Plan, ReadyKind, Seen, ServerMailbox, ServerRead, ServerView,
    StoreChange, Write, plan,
};
use mail::uid::{Uid, UidSet};
use tokio::time::Instant;

use super::believed::{Heard, credible, look_for_twins};
use super::keep::judge;
use super::link::Link;
use super::{SyncContext, SyncError, fetch, push, tree, trouble};
use crate::platform::db::TenantTx;
use crate::platform::id::MailboxId;
use crate::queue::lease::Lease;
use crate::sync::store::checkpoint::Visited;
use crate::sync::store::edits::{self, Portion, Sending};
use crate::sync::store::flags::{self, FlagState as ServerFlags};
use crate::sync::store::status::{self, Cause};
use crate::sync::store::view::{self, Visit};
use crate::sync::store::{Target, attempts, checkpoint, keep, relink, vanish};
use wire::imap::{ChangedSince, FetchedFlags, ImapError, Selected, Uids};

/// News that came while a mailbox was read make it worth one more look; a mailbox that never rests must not hold up
/// the others.
const MAX_LOOKS: usize = 2;

/// Times that the edits of a mailbox are gone through in one visit: as many edits of one message are sent at most.
const MAX_PASSES: usize = 50;

/// One mailbox during its visit.
pub(super) struct Open {
    pub target: Target,
    /// Its name on the wire.
    pub name: Vec<u8>,
    pub local: LocalView,
    /// What is behind [`LocalView::ready`].
    pub rows: Vec<Sending>,
    /// The next portion of edits begins after this one.
    more_after: Option<i64>,
    /// Something was sent since the edits were gone through from the first: what follows it may be due now.
    pub sent: bool,
    /// How often the edits may be gone through yet.
    passes: usize,
    /// Messages of which another with the same bytes has just come: they may be gone.
    pub twins: UidSet,
    pub server: ServerView,
    /// The server announced arrivals or removals during the visit.
    pub news: bool,
    /// How much of the account is kept.
    pub keep: Keep,
    /// Its messages are not: what is read here is what edits ask for.
    pub outside: bool,
    /// Messages that were looked at whether they are kept.
    pub judged: UidSet,
    /// When a user asked for all of it to be compared.
    pub resync_asked_at: Option<DateTime<Utc>>,
    /// The server announced removals during the visit.
    pub shrank: bool,
    /// Placements whose flags were not what the server has had since before our mod-sequence.
    pub corrected: u64,
    /// The database's time before the mailbox was opened.
    opened_at: Option<DateTime<Utc>>,
}

impl Open {
    /// A mailbox as our rows have it, before the server has said anything.
    pub fn of(target: Target, name: Vec<u8>, visit: Visit) -> Self {
        let Visit { local, edits, keep, outside, resync_asked_at, opened_at } = visit;
        let server = ServerView::default();
        Self {
            target,
            name,
            local,
            rows: edits.rows,
            more_after: edits.more_after,
            sent: false,
            passes: MAX_PASSES,
            twins: UidSet::new(),
            opened_at,
            server,
            news: false,
            keep,
            outside,
            judged: UidSet::new(),
            resync_asked_at,
            shrank: false,
            corrected: 0,
        }
    }
}

/// Untagged news change the count, nothing else; the next look finds what they were about.
pub(super) fn note_news(link: &mut Link<'_>, open: &mut Open) {
    let news = link.session.take_unsolicited();
    let exists = &mut open.server.mailbox.exists;
    // The pushing of our own moves is announced too and needs no further look: the count alone is kept right.
    let gone = news.expunged.saturating_add(news.vanished.len());
    open.shrank |= gone > 0;
    *exists = exists.saturating_sub(u32::try_from(gone).unwrap_or(u32::MAX));
    if let Some(now) = news.exists {
        open.news |= now > *exists;
        *exists = now;
    }
}

/// Opens `mailbox` and does all there is to do in it. `false`: there is nothing that could be opened.
pub(super) async fn visit(link: &mut Link<'_>, mailbox: MailboxId, depth: Depth) -> Result<bool, SyncError> {
    for _ in 0..MAX_LOOKS {
        let Some(mut open) = open(link, mailbox).await? else { return Ok(false) };
        if open.is_renumbered() && link.round.renumbered.insert(mailbox) {
            // Another mailbox may have got its name: the number that tells is not given up before the listing was asked.
            link.unselect().await?;
            Box::pin(tree::refresh(link, Depth::Head)).await?;
            continue;
        }
        link.report.visited += 1;
        steps(link, &mut open, depth).await?;
        if link.batches.called {
            break;
        }
        finish(link, &open, depth).await?;
        if !open.outside {
            link.note_backfill(mailbox, depth, &open.local.checkpoint);
        }
        if !std::mem::take(&mut open.news) || link.batches.called {
            break;
        }
    }
    Ok(true)
}

/// Selects `mailbox`; `None` when we have none of this id any more. What we have of it is read while the server opens it.
pub(super) async fn open(link: &mut Link<'_>, mailbox: MailboxId) -> Result<Option<Open>, SyncError> {
    let mut tx = link.ctx.db.tenant(link.lease.tenant).await?;
    let Some((name, opened_at)) = view::wire_name(&mut tx, link.lease.account, mailbox).await? else {
        return Ok(None);
    };
    let Link { ctx, lease, session, round, .. } = &mut *link;
    let loaded = load(ctx, lease, tx, (mailbox, opened_at));
    let (loaded, selected) = tokio::join!(loaded, session.select(&name, None, false));
    let Some((target, mut visit)) = loaded? else { return Ok(None) };
    let selected = selected?;
    // What cost a connection in this round and is neither stored nor left out since.
    let settled = visit.local.known.union(&visit.local.unreadable).union(&visit.local.raw);
    let suspects = round.alone.get(&mailbox).map(|s| s.difference(&settled)).unwrap_or_default();
    visit.local.alone = visit.local.alone.union(&suspects);
    let mut open = Open::of(target, name, visit);
    let all = Portion {
        ready: std::mem::take(&mut open.local.ready),
        rows: std::mem::take(&mut open.rows),
        more_after: open.more_after,
    };
    open.load(all, &link.round.skip);
    open.server.capabilities = link.session.capabilities().clone();
    open.server.mailbox = describe(&selected);
    Ok(Some(open))
}

async fn load(
    ctx: &SyncContext,
    lease: &Lease,
    mut tx: TenantTx,
    (mailbox, opened_at): (MailboxId, DateTime<Utc>),
) -> Result<Option<(Target, Visit)>, SyncError> {
    let left_over = attempts::left_over(&mut tx, lease, mailbox).await?;
    let mut found = view::visit(&mut tx, lease.account, mailbox).await?;
    drop(tx);
    if let Some((target, visit)) = found.as_ref().filter(|_| left_over) {
        let mut tx = lease.begin(&ctx.db).await?;
        attempts::settle(&mut tx, lease, target, &visit.local.known).await?;
        found = view::visit(&mut tx, lease.account, mailbox).await?;
        tx.commit().await?;
    }
    Ok(found.map(|(target, visit)| (target, Visit { opened_at: Some(opened_at), ..visit })))
}

pub(super) fn describe(selected: &Selected) -> ServerMailbox {
    ServerMailbox {
        uidvalidity: selected.uidvalidity,
        uidnext: selected.uidnext,
        exists: selected.exists,
        highestmodseq: selected.highestmodseq.filter(|_| !selected.nomodseq),
        read_only: selected.read_only,
        permanent: mail::sync::PermanentFlags {
            flags: selected.permanent_flags,
            keywords: selected.permanent_keywords.clone(),
            any_keyword: selected.can_create_keywords,
        },
    }
}

/// Does what the planner says until there is nothing left to do.
pub(super) async fn steps(link: &mut Link<'_>, open: &mut Open, depth: Depth) -> Result<(), SyncError> {
    loop {
        let policy = link.batches.policy(depth);
        match plan(&open.server, &open.local, &policy) {
            Plan::Done => return Ok(()),
            Plan::Record { writes, checkpoint } => record(link, open, &writes, checkpoint).await?,
            Plan::Send(edits) => {
                push::send(link, open, &edits).await?;
                more_edits(link, open).await?;
            }
            // Whoever calls waits for one portion of old mail at least: else a user who never rests would have none of it.
            Plan::Read(ServerRead::Messages(_)) if link.batches.backfill && link.batches.called => {
                return Ok(());
            }
            Plan::Read(read) => perform(link, open, read).await?,
        }
        note_news(link, open);
    }
}

/// Edits are loaded in portions, and gone through again after something was sent: the next edit of a message waits for the
/// one before it. What the server refuses is not asked again so soon, so this comes to an end.
async fn more_edits(link: &Link<'_>, open: &mut Open) -> Result<(), SyncError> {
    while open.local.ready.is_empty() {
        let after = match open.more_after.take() {
            Some(after) => after,
            None if open.sent && open.passes > 0 => {
                open.passes -= 1;
                open.sent = false;
                0
            }
            None => return Ok(()),
        };
        let mut tx = link.ctx.db.tenant(link.lease.tenant).await?;
        let portion = edits::ready(&mut tx, &open.target, after).await?;
        open.load(portion, &link.round.skip);
    }
    Ok(())
}

async fn perform(link: &mut Link<'_>, open: &mut Open, read: ServerRead) -> Result<(), SyncError> {
    match read {
        // Boxed: its four stages would make the future of every round, and the stack that moves it, larger by theirs.
        ServerRead::Messages(batches) => {
            let wanted = batches.iter().fold(UidSet::new(), |all, batch| all.union(&batch.uids));
            if judge(link, open, &wanted).await? {
                return Ok(());
            }
            let started = Instant::now();
            let asked = Box::pin(fetch::messages(link, open, batches)).await?;
            link.batches.note_speed(asked, started.elapsed());
            look_for_twins(link, open).await
        }
        ServerRead::List(ListBy::Search) => {
            let found = link.session.uid_search_all().await?;
            open.server.seen.listing = Some(credible(link, open, found)?);
            Ok(())
        }
        ServerRead::List(ListBy::Fetch) => {
            let mut uids: Vec<Uid> = Vec::new();
            link.session.fetch_flags(Uids::All, None, |f| uids.push(f.uid)).await?;
            uids.sort_unstable();
            open.server.seen.second_listing = Some(credible(link, open, uids.into_iter().collect())?);
            Ok(())
        }
        ServerRead::Changes { since, vanished } => {
            let at = open.local.checkpoint;
            let vouched = |uid: Uid| at.tail_uid > 0 && (at.tail_uid..=at.head_uid).contains(&uid.get());
            let accounted = open.local.accounted().union(&open.local.delicate());
            let accounted = accounted.union(&open.server.seen.asked);
            let mut heard = Heard::of(&open.local.known, link.ctx.rooms.of(link.lease.tenant.0.as_u128()));
            let (mut silent, mut doubt) = (true, false);
            let since = ChangedSince { modseq: since, vanished };
            let gone = loop {
                let all = link.session.fetch_flags(Uids::All, Some(since), |f| {
                    silent = false;
                    doubt |= vouched(f.uid) && !accounted.contains(f.uid);
                    heard.hear(f);
                });
                let gone = all.await;
                if gone.is_err() || heard.is_complete().await? {
                    break gone;
                }
            };
            let changed = std::mem::take(&mut heard.flags);
            if matches!(gone, Err(ImapError::Protocol(_))) && link.session.is_usable() {
                // Offered, and not understood: the planner finds another way.
                link.session.restrict(|c| if vanished { c.qresync = false } else { c.condstore = false });
                open.server.capabilities = link.session.capabilities().clone();
                return Ok(());
            }
            let gone = gone?;
            open.server.seen.silent = silent && gone.is_empty();
            open.server.seen.doubt |= doubt;
            open.corrected += apply_flags(link, open, changed).await?;
            open.server.seen.vanished = Some(gone);
            Ok(())
        }
        ServerRead::Flags { uids } => {
            let mut heard = Heard::of(&uids, link.ctx.rooms.of(link.lease.tenant.0.as_u128()));
            loop {
                link.session.fetch_flags(Uids::Set(&uids), None, |f| heard.hear(f)).await?;
                if heard.is_complete().await? {
                    break;
                }
            }
            let found = std::mem::take(&mut heard.flags);
            open.server.seen.doubt |= found.len() as u64 != uids.len();
            open.corrected += apply_flags(link, open, found).await?;
            open.server.seen.flags_read = open.server.seen.flags_read.union(&uids);
            Ok(())
        }
    }
}

/// Rows of one statement when flags are taken over.
const FLAGS_AT_ONCE: usize = 5_000;

/// Takes over flags of messages we hold. Returns how many were wrong here though they had not changed on the server since
/// our mod-sequence.
pub(super) async fn apply_flags(
    link: &mut Link<'_>,
    open: &Open,
    found: BTreeMap<Uid, FetchedFlags>,
) -> Result<u64, SyncError> {
    let at = open.local.checkpoint.modseq;
    let known = found.into_values().filter(|f| open.local.known.contains(f.uid));
    // Those that have not changed since our mod-sequence should be as we have them.
    let (old, new): (Vec<_>, Vec<_>) = known.partition(|f| f.modseq.is_some_and(|m| m <= at));
    let mut corrected = 0;
    for (states, count) in [(old, true), (new, false)] {
        let states: Vec<ServerFlags> = states
            .into_iter()
            .map(|f| ServerFlags {
                uid: f.uid,
                flags: f.flags,
                keywords: f.keywords,
                modseq: f.modseq.map(|m| m.to_i64()),
            })
            .collect();
        for chunk in states.chunks(FLAGS_AT_ONCE) {
            let mut tx = link.lease.begin(&link.ctx.db).await?;
            let applied = flags::apply(&mut tx, &open.target, chunk).await?;
            tx.commit().await?;
            link.report.flagged += applied.shown;
            corrected += if count { applied.written as u64 } else { 0 };
        }
    }
    Ok(corrected)
}

async fn record(
    link: &mut Link<'_>,
    open: &mut Open,
    writes: &[Write],
    checkpoint: Option<Checkpoint>,
) -> Result<(), SyncError> {
    let mut tx = link.lease.begin(&link.ctx.db).await?;
    let exists = open.server.mailbox.exists;
    let mut reverted: Vec<usize> = Vec::new();
    for write in writes {
        match write {
            Write::NewGeneration => {
                let at = checkpoint.unwrap_or_default();
                open.target = relink::begin_generation(&mut tx, &open.target, &at, exists).await?;
                open.local.old_generation |= !open.local.known.is_empty();
                open.local.known = UidSet::new();
                open.local.forget(&UidSet::range(Uid::MIN, Uid::MAX));
                open.server.seen = Seen::default();
                let ready = edits::ready(&mut tx, &open.target, 0).await?;
                open.load(ready, &link.round.skip);
            }
            Write::DropOldGeneration => {
                while more(link, vanish::drop_earlier_generations(&mut tx, &open.target).await?) {
                    tx = next(link, tx).await?;
                }
                open.local.old_generation = false;
            }
            Write::Remove(uids) => {
                while more(link, vanish::vanish(&mut tx, &open.target, uids).await?) {
                    tx = next(link, tx).await?;
                }
                open.local.known = open.local.known.difference(uids);
            }
            Write::Forget(uids) => {
                attempts::forget(&mut tx, &open.target, uids).await?;
                if !open.local.outside.intersection(uids).is_empty() {
                    keep::forget(&mut tx, &open.target, uids).await?;
                }
                open.local.forget(uids);
            }
            Write::TakeBack { ready, keep } => {
                if take_back(&mut tx, open, *ready, keep).await? {
                    reverted.push(*ready);
                }
            }
        }
    }
    if let Some(at) = &checkpoint {
        checkpoint::write(&mut tx, &open.target, at, exists).await?;
        open.local.checkpoint = *at;
    }
    tx.commit().await?;
    open.forget_edits(&reverted);
    Ok(())
}

/// Counts a portion that was removed. Whether there may be more of it.
pub(super) const fn more(link: &mut Link<'_>, removed: usize) -> bool {
    link.report.removed += removed;
    removed >= vanish::PORTION
}

/// A transaction for the next portion: the lease cannot be renewed, nor our user change a message, while one is open.
pub(super) async fn next(link: &Link<'_>, tx: TenantTx) -> Result<TenantTx, SyncError> {
    tx.commit().await?;
    Ok(link.lease.begin(&link.ctx.db).await?)
}

/// Takes back what the server cannot keep of an edit of flags. Whether nothing is left of it.
async fn take_back(
    tx: &mut TenantTx,
    open: &mut Open,
    at: usize,
    keep: &StoreChange,
) -> Result<bool, SyncError> {
    let (Some(row), Some(ready)) = (open.rows.get_mut(at), open.local.ready.get_mut(at)) else {
        return Ok(false);
    };
    edits::keep_of(tx, &open.target, row, keep).await?;
    row.does = mail::sync::edits::Does::Store(keep.clone());
    ready.kind = ReadyKind::Store(keep.clone());
    Ok(keep.is_empty())
}

impl Open {
    /// Whether the server has another UIDVALIDITY than the one of what we hold.
    fn is_renumbered(&self) -> bool {
        let at = &self.local.checkpoint;
        at.uidvalidity.is_some() && self.server.mailbox.epoch_differs(at)
    }

    fn load(&mut self, portion: Portion, skip: &HashSet<i64>) {
        let (mut ready, mut rows) = (portion.ready.into_iter(), portion.rows.into_iter());
        let wanted = std::iter::from_fn(|| ready.next().zip(rows.next()));
        (self.local.ready, self.rows) = wanted.filter(|(_, row)| !skip.contains(&row.edit)).unzip();
        self.more_after = portion.more_after;
    }

    /// Takes commands out of the view, together with what is behind them.
    pub fn forget_edits(&mut self, indexes: &[usize]) {
        let mut at = 0;
        self.local.ready.retain(|_| {
            at += 1;
            !indexes.contains(&(at - 1))
        });
        at = 0;
        self.rows.retain(|_| {
            at += 1;
            !indexes.contains(&(at - 1))
        });
    }
}

/// Records that the visit came to its end.
pub(super) async fn finish(link: &mut Link<'_>, open: &Open, depth: Depth) -> Result<(), SyncError> {
    let mut tx = link.lease.begin(&link.ctx.db).await?;
    if !open.server.capabilities.uidplus {
        edits::left_marked(&mut tx, &open.target).await?;
    }
    let whole = depth != Depth::Head && open.server.seen.listing.is_some();
    let visit = Visited { opened_at: open.opened_at, removals: depth != Depth::Head, whole };
    checkpoint::visited(&mut tx, &open.target, visit).await?;
    if let Some(asked_at) = open.resync_asked_at.filter(|_| whole) {
        checkpoint::read_anew(&mut tx, &open.target, asked_at).await?;
    }
    if !open.local.unreadable.is_empty() {
        let text = trouble::missing(&open.local.unreadable);
        let cause = Cause { code: "unreadable-messages", text, upstream: None, response_code: None };
        status::mailbox_incomplete(&mut tx, &open.target, &cause).await?;
    }
    Ok(tx.commit().await?)
}

/// The server's words, or our code when it said none: for the row of a message it did not deliver.
pub(super) fn words_of(error: &ImapError) -> String {
    let cause = trouble::cause_of(error);
    cause.upstream.unwrap_or_else(|| cause.code.to_owned())
}

/// An error after which the session can go on with another command.
pub(super) fn is_refusal(error: &ImapError) -> bool {
    matches!(error, ImapError::Refused { .. } | ImapError::NoSuchMailbox(_) | ImapError::Protocol(_))
}
