//! When the UIDs of a mailbox mean something new: starting a generation.
//!
//! Its messages are then fetched again and known by their bytes. Message-ID, size and date would spare the fetch, but they
//! are the sender's word: two messages that agree in them would become one.

use super::plan::{ListBy, Plan, ServerRead, Write, advance};
use super::view::{Checkpoint, LocalView, ServerView};

/// Another UIDVALIDITY, or a mailbox never looked at.
pub(super) fn begin(server: &ServerView, local: &LocalView) -> Option<Plan> {
    let mailbox = &server.mailbox;
    let epoch = Some(mailbox.epoch());
    let at = local.checkpoint;
    if at.uidvalidity.is_some() && at.uidvalidity != epoch {
        let fresh = at.next_generation(epoch);
        return Some(Plan::Record { writes: vec![Write::NewGeneration], checkpoint: Some(fresh) });
    }
    if at.tail_uid != 0 {
        return None;
    }
    let next = match (mailbox.uidnext.filter(|n| *n > 0), &server.seen.listing) {
        (Some(next), _) => next,
        (None, Some(listing)) => listing.last().map_or(1, |last| last.get().saturating_add(1)),
        (None, None) => return Some(Plan::Read(ServerRead::List(ListBy::Search))),
    };
    Some(advance(Checkpoint {
        uidvalidity: epoch,
        head_uid: next - 1,
        // Nothing is vouched for yet; of an empty mailbox everything is.
        tail_uid: if mailbox.exists == 0 { 1 } else { next },
        // No placement is held, so all of them show at least this state.
        modseq: mailbox.usable_modseq().unwrap_or_default(),
        ..at
    }))
}
