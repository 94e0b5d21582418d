//! When the UIDs of a mailbox mean something new: starting a generation, and finding the messages we hold again
//! under their new UIDs so that ids survive and no body is fetched twice.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use crate::uid::{Uid, UidSet};

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

/// What tells a message apart without its contents.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// EMAILID (RFC 8474) or X-GM-MSGID.
    pub email_id: Option<String>,
    /// The `Message-ID` header, without angle brackets.
    pub message_id_header: Option<String>,
    /// RFC822.SIZE.
    pub size_bytes: u64,
    /// INTERNALDATE.
    pub internal_date: Option<DateTime<Utc>>,
    /// SHA-256 of the contents, where they were fetched.
    pub hash: Option<Vec<u8>>,
}

/// What [`relink`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Relinked {
    /// Index into the old placements and the UID it lives under now; each of both at most once.
    pub links: Vec<(usize, Uid)>,
    /// What matched nothing: its contents must be fetched.
    pub unknown: UidSet,
}

/// Pairs messages under new UIDs with old placements: by EMAILID; else by `Message-ID`, size and INTERNALDATE;
/// else by hash. Identical ones are paired in order, so give both sides by ascending UID.
#[must_use]
pub fn relink(old: &[Identity], new: &[(Uid, Identity)]) -> Relinked {
    let mut taken = vec![false; old.len()];
    let mut links = Vec::new();
    let mut open: Vec<&(Uid, Identity)> = new.iter().collect();
    let by: [fn(&Identity) -> Option<Key<'_>>; 3] = [by_email_id, by_header, by_hash];
    for key in by {
        let mut index: HashMap<Key<'_>, Vec<usize>> = HashMap::new();
        for (at, identity) in old.iter().enumerate().rev() {
            if let (Some(key), Some(false)) = (key(identity), taken.get(at)) {
                index.entry(key).or_default().push(at);
            }
        }
        open.retain(|(uid, identity)| {
            let found = key(identity).and_then(|key| index.get_mut(&key)).and_then(Vec::pop);
            if let Some(at) = found {
                links.push((at, *uid));
                taken.get_mut(at).into_iter().for_each(|t| *t = true);
            }
            found.is_none()
        });
    }
    Relinked { links, unknown: open.into_iter().map(|(uid, _)| *uid).collect() }
}

#[derive(PartialEq, Eq, Hash)]
enum Key<'a> {
    EmailId(&'a str),
    Header(&'a str, u64, Option<i64>),
    Hash(&'a [u8]),
}

fn by_email_id(identity: &Identity) -> Option<Key<'_>> {
    identity.email_id.as_deref().filter(|id| !id.is_empty()).map(Key::EmailId)
}

fn by_header(identity: &Identity) -> Option<Key<'_>> {
    let id = identity.message_id_header.as_deref().filter(|id| !id.is_empty())?;
    Some(Key::Header(id, identity.size_bytes, identity.internal_date.and_then(comparable)))
}

fn by_hash(identity: &Identity) -> Option<Key<'_>> {
    identity.hash.as_deref().map(Key::Hash)
}

/// Unix seconds of a date that means something. Dovecot 2.3.19 reads dates before 1970 as 1901 once and 2038
/// later, and dates from 2037-12-31 on as now, with no number changing: such dates all count as equal.
fn comparable(date: DateTime<Utc>) -> Option<i64> {
    const FROM_2037_12_31: i64 = 2_145_830_400;
    Some(date.timestamp()).filter(|at| (0..FROM_2037_12_31).contains(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(header: &str, size_bytes: u64, at: i64) -> Identity {
        Identity {
            message_id_header: (!header.is_empty()).then(|| header.to_owned()),
            size_bytes,
            internal_date: DateTime::from_timestamp(at, 0),
            ..Identity::default()
        }
    }

    fn new(identities: &[Identity]) -> Vec<(Uid, Identity)> {
        (100..).filter_map(Uid::new).zip(identities.iter().cloned()).collect()
    }

    fn links(old: &[Identity], now: &[Identity]) -> (Vec<(usize, u32)>, String) {
        let found = relink(old, &new(now));
        (found.links.iter().map(|(at, uid)| (*at, uid.get())).collect(), found.unknown.to_string())
    }

    #[test]
    fn a_message_is_known_by_its_header_size_and_date() {
        let old = [identity("a", 1, 10), identity("b", 2, 20), identity("c", 3, 30)];
        let now = [identity("b", 2, 20), identity("a", 1, 11), identity("c", 4, 30), identity("", 1, 10)];
        assert_eq!(links(&old, &now), (vec![(1, 100)], "101:103".to_owned()));
    }

    #[test]
    fn an_email_id_goes_before_all_else_and_a_hash_helps_where_nothing_does() {
        let mut old = [identity("a", 1, 10), identity("", 5, 50)];
        old[0].email_id = Some("E".into());
        old[1].hash = Some(vec![7]);
        let mut now = [identity("x", 9, 90), identity("", 6, 60)];
        now[0].email_id = Some("E".into());
        now[1].hash = Some(vec![7]);
        assert_eq!(links(&old, &now), (vec![(0, 100), (1, 101)], String::new()));
    }

    #[test]
    fn identical_messages_are_paired_in_order_and_once() {
        let one = identity("a", 1, 10);
        let old = [one.clone(), one.clone()];
        assert_eq!(
            links(&old, &[one.clone(), one.clone(), one]),
            (vec![(0, 100), (1, 101)], "102".to_owned())
        );
    }

    #[test]
    fn dates_the_server_cannot_keep_are_not_compared() {
        let old = [identity("a", 1, -2_177_452_800), identity("b", 1, 4_000_000_000)];
        let now = [identity("a", 1, 2_147_483_647), identity("b", 1, 2_145_830_400)];
        assert_eq!(links(&old, &now).0.len(), 2);
        assert_eq!(links(&[identity("c", 1, -1)], &[identity("c", 1, 1_700_000_000)]).0, []);
    }
}
