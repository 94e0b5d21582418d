//! Which read brings the flag changes: by mod-sequence where both sides have one that can be trusted, else all.

use super::plan::{Plan, ServerRead};
use super::view::{LocalView, Policy, ServerView};

/// Reads what changed on placements we hold. Those fetched in this visit are fresh already.
pub(super) fn refresh(server: &ServerView, local: &LocalView, policy: &Policy) -> Option<Plan> {
    let stored = local.checkpoint.modseq;
    let now = server.mailbox.usable_modseq().filter(|_| server.capabilities.condstore);
    if !local.is_audited(policy) {
        match now {
            Some(now) if now == stored => return None,
            Some(now) if !stored.is_zero() && stored < now => {
                let read = ServerRead::Changes { since: stored, vanished: server.capabilities.can_qresync() };
                return server.seen.vanished.is_none().then_some(Plan::Read(read));
            }
            // Backwards, forged, or none on one side: a mod-sequence proves nothing here.
            _ => {}
        }
    }
    let seen = &server.seen;
    let mut stale = local.known.difference(&seen.asked).difference(&seen.flags_read);
    let uids = stale.take_newest(policy.flags_batch.max(1));
    (!uids.is_empty()).then_some(Plan::Read(ServerRead::Flags { uids }))
}
