//! Whether two mailboxes hold the same messages, by what a server tells of twenty of them without their bytes.

use crate::uid::{Uid, UidSet};

/// Messages that are looked at: enough to tell two mailboxes apart, few enough for one short command.
const LOOKED_AT: u64 = 20;
/// Of so many...
const OF: usize = 10;
/// ...so many must be equal: a message may have gone meanwhile.
const EQUAL: usize = 9;
/// Seconds of 1970-01-02 and 2037-12-31. Dovecot 2.3 tells dates beyond them differently from one time to the next; a day
/// is left for time zones.
const STEADY: std::ops::Range<i64> = 86_400..2_145_830_400;

/// What is told of a message without its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Which message.
    pub uid: Uid,
    /// RFC822.SIZE, or what we stored.
    pub size: Option<u64>,
    /// INTERNALDATE in unix seconds.
    pub date: Option<i64>,
}

/// Whether two mailboxes hold the same messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// They do.
    Same,
    /// UIDs and dates are the same, sizes are not: there are servers that lie on RFC822.SIZE. A proof where no other mailbox
    /// has that UIDVALIDITY.
    Alike,
    /// They do not.
    Other,
    /// Too few of the messages are there, or nothing could be asked.
    Unknown,
    /// We hold nothing that could be compared.
    Nothing,
}

/// The UIDs to ask about, spread over all that we hold.
#[must_use]
pub fn sample(known: &UidSet) -> UidSet {
    let count = known.len();
    let wanted = count.min(LOOKED_AT);
    let (mut picked, mut passed, mut next) = (UidSet::new(), 0, 0);
    let position = |n: u64| if wanted > 1 { n * (count - 1) / (wanted - 1) } else { 0 };
    for (first, last) in known.ranges() {
        let length = u64::from(last.get() - first.get()) + 1;
        while next < wanted && position(next) < passed + length {
            let offset = u32::try_from(position(next) - passed).unwrap_or(0);
            if let Some(uid) = Uid::new(first.get().saturating_add(offset)) {
                picked.insert(uid);
            }
            next += 1;
        }
        passed += length;
    }
    picked
}

/// Compares what we hold with what the server told when asked for the same UIDs.
#[must_use]
pub fn judge(held: &[Facts], told: &[Facts]) -> Verdict {
    let steady = |facts: &&Facts| facts.date.is_some_and(|date| STEADY.contains(&date));
    let held: Vec<&Facts> = held.iter().filter(steady).collect();
    if held.is_empty() {
        return Verdict::Nothing;
    }
    let needed = (held.len() * EQUAL).div_ceil(OF);
    let (mut equal, mut dated, mut strange) = (0, 0, 0);
    for ours in &held {
        let Some(theirs) = told.iter().find(|theirs| theirs.uid == ours.uid) else { continue };
        let (size, date) = (theirs.size == ours.size, theirs.date == ours.date);
        equal += usize::from(size && date);
        dated += usize::from(date);
        strange += usize::from(!size && !date && (theirs.size.is_some() || theirs.date.is_some()));
    }
    match () {
        () if equal >= needed => Verdict::Same,
        () if dated >= needed => Verdict::Alike,
        () if strange > held.len() - needed => Verdict::Other,
        () => Verdict::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(count: u32) -> Vec<Facts> {
        let of = |n: u32| Facts {
            uid: Uid::new(n).unwrap(),
            size: Some(u64::from(n) * 100),
            date: Some(1_700_000_000 + i64::from(n)),
        };
        (1..=count).map(of).collect()
    }

    #[test]
    fn the_messages_that_are_compared_are_spread_over_all() {
        let set = |text: &str| UidSet::parse(text).unwrap();
        assert_eq!(sample(&UidSet::new()), UidSet::new());
        for few in ["7", "3,9", "1:20", "1:10,900:909"] {
            assert_eq!(sample(&set(few)), set(few), "{few}");
        }
        let of_many = sample(&set("1:1000,4000000000:4000000999"));
        assert_eq!(
            (of_many.len(), of_many.first(), of_many.last()),
            (20, Uid::new(1), Uid::new(4_000_000_999))
        );
        assert_eq!(of_many.intersection(&set("1:1000")).len(), 10);
        assert_eq!(sample(&UidSet::range(Uid::MIN, Uid::MAX)).len(), 20);
        assert_eq!(sample(&set("5:25")).to_string(), "5:23,25");
    }

    #[test]
    fn eighteen_of_twenty_messages_prove_a_mailbox_whatever_became_of_the_others() {
        let held = facts(20);
        let change = |count: usize, change: fn(&mut Facts)| {
            let mut told = facts(20);
            told.iter_mut().take(count).for_each(change);
            judge(&held, &told)
        };
        assert_eq!(judge(&held, &held), Verdict::Same);
        assert_eq!(judge(&held, &held[2..]), Verdict::Same);
        assert_eq!(judge(&held, &held[3..]), Verdict::Unknown, "too many have gone");
        assert_eq!(judge(&held, &[]), Verdict::Unknown);
        assert_eq!(change(2, |f| (f.size, f.date) = (Some(1), Some(1))), Verdict::Same);
        assert_eq!(change(3, |f| (f.size, f.date) = (Some(1), Some(1))), Verdict::Other);
        assert_eq!(change(20, |f| f.size = Some(1)), Verdict::Alike, "it lies on sizes");
        assert_eq!(change(20, |f| f.size = None), Verdict::Alike);
        assert_eq!(change(20, |f| f.date = Some(1)), Verdict::Unknown, "it tells another date each time");
        assert_eq!(change(20, |f| (f.size, f.date) = (None, None)), Verdict::Unknown);
        assert_eq!(judge(&held[..1], &held), Verdict::Same);
        assert_eq!(judge(&held[..2], &held[..1]), Verdict::Unknown);
    }

    #[test]
    fn dates_that_no_server_keeps_are_not_compared() {
        let mut held = facts(3);
        (held[0].date, held[1].date) = (Some(-1), Some(2_147_483_648));
        let mut told = held.clone();
        (told[0].date, told[1].date) = (Some(4_294_967_295), Some(0));
        assert_eq!(judge(&held, &told), Verdict::Same);
        assert_eq!(judge(&held[..2], &told), Verdict::Nothing);
        assert_eq!(judge(&[], &told), Verdict::Nothing);
    }
}
