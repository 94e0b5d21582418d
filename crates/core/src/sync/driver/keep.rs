//! Which of the messages that are to be read are kept at all: asked of the server by date and size, before their bytes are.

use mail::uid::{Uid, UidSet};

use super::SyncError;
use super::link::Link;
use super::visit::Open;
use crate::sync::store::keep;

/// Messages that are judged together. Where a mailbox holds much that is outside, it is passed over in steps of so many.
const AT_ONCE: u32 = 10_000;

/// Puts those of `wanted` outside that are, and older ones beside them. `true`: there were such, so what is wanted is another set
/// now.
pub(super) async fn judge(link: &mut Link<'_>, open: &mut Open, wanted: &UidSet) -> Result<bool, SyncError> {
    if open.outside {
        return pass_over(link, open, wanted).await;
    }
    let Some(window) = open.keep.window(link.ctx.clock.now()) else { return Ok(false) };
    let mut asked = wanted.difference(&open.judged);
    let Some(newest) = asked.last() else { return Ok(false) };
    if let Some(listing) = &open.server.seen.listing {
        let known = open.local.accounted().union(&open.judged).union(&open.server.seen.asked);
        let mut older = listing.difference(&known).intersection(&UidSet::range(Uid::MIN, newest));
        asked = asked.union(&older.take_newest(AT_ONCE));
    }
    let facts = link.session.fetch_facts(&asked).await?;
    open.judged = open.judged.union(&asked);
    let outside = window.outside(&facts).intersection(&asked);
    if outside.is_empty() {
        return Ok(false);
    }
    let mut tx = link.lease.begin(&link.ctx.db).await?;
    keep::put_outside(&mut tx, &open.target, &outside).await?;
    tx.commit().await?;
    open.local.outside = open.local.outside.union(&outside);
    Ok(!outside.intersection(wanted).is_empty())
}

/// Puts `wanted` outside, of a mailbox that is not kept, unless a message of ours may be among them whose place there is not known
/// yet. By its number alone it is not told from others, so then all are read.
async fn pass_over(link: &mut Link<'_>, open: &mut Open, wanted: &UidSet) -> Result<bool, SyncError> {
    let mut tx = link.lease.begin(&link.ctx.db).await?;
    if keep::expects(&mut tx, &open.target).await? {
        return Ok(false);
    }
    keep::put_outside(&mut tx, &open.target, wanted).await?;
    tx.commit().await?;
    open.local.outside = open.local.outside.union(wanted);
    Ok(!wanted.is_empty())
}
