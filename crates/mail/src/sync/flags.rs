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
                if server.seen.vanished.is_some() {
                    return unexplained(server, local, policy);
                }
                let read = ServerRead::Changes { since: stored, vanished: server.capabilities.can_qresync() };
                return Some(Plan::Read(read));
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

/// The mod-sequence rose and the answer named nothing that would have raised it. Honest servers have their reasons at times
/// (an attribute of the mailbox, a repaired index), so it costs one command for the newest, once: afterwards the
/// mod-sequence is stored. Without QRESYNC nobody tells of what was removed, but then the other numbers have moved too.
fn unexplained(server: &ServerView, local: &LocalView, policy: &Policy) -> Option<Plan> {
    let (seen, mailbox, at) = (&server.seen, &server.mailbox, &local.checkpoint);
    let moved = mailbox.exists != at.exists_seen || mailbox.uidnext != Some(at.uidnext);
    if !seen.silent || !seen.flags_read.is_empty() || (moved && !server.capabilities.can_qresync()) {
        return None;
    }
    let uids = local.known.difference(&seen.asked).take_newest(policy.flags_batch.max(1));
    (!uids.is_empty()).then_some(Plan::Read(ServerRead::Flags { uids }))
}
