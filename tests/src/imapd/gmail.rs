//! Gmail's manners (its document on IMAP extensions, and what clients note of it): mailboxes are labels of one store.
//!
//! A message has one X-GM-MSGID, its flags once, and a place in All Mail and in the mailbox of each label. What goes to Trash
//! or Spam has left all others, and is gone for good when it is expunged there; from All Mail nothing can be expunged, and
//! elsewhere a label goes (the setting that Gmail begins with). Starred shows what is `\\Flagged`.

use std::collections::BTreeMap;

use super::State;
use super::answers::{Outcome, find, no, ok};
use super::model::{Ids, Message};

/// What Gmail says it can do, after the login.
pub const CAPABILITIES: &str = "UNSELECT IDLE NAMESPACE QUOTA ID XLIST CHILDREN X-GM-EXT-1 UIDPLUS COMPRESS=DEFLATE ENABLE MOVE CONDSTORE ESEARCH \
     UTF8=ACCEPT LIST-EXTENDED LIST-STATUS LITERAL- SPECIAL-USE APPENDLIMIT=35651584";
/// Every message but those in the bins.
pub const ALL: &str = "[Gmail]/All Mail";
/// What is deleted.
pub const TRASH: &str = "[Gmail]/Trash";
/// What is unwanted.
pub const SPAM: &str = "[Gmail]/Spam";
/// What was sent.
pub const SENT: &str = "[Gmail]/Sent Mail";
/// What is `\\Flagged`.
pub const STARRED: &str = "[Gmail]/Starred";
/// What Gmail takes for important.
pub const IMPORTANT: &str = "[Gmail]/Important";

/// The store, beside its mailboxes.
#[derive(Debug)]
pub struct Store {
    next: u64,
    /// How often the bytes of each message were fetched.
    pub fetched: BTreeMap<u64, usize>,
    /// Connections that may be logged in at once.
    pub connections: usize,
    /// Whether COPYUID tells of copies that were in the target before.
    pub tells_known: bool,
}

fn is_bin(name: &str) -> bool {
    name == TRASH || name == SPAM
}

impl State {
    /// Makes it Gmail, with an empty store.
    pub fn become_gmail(&mut self) {
        self.capabilities = CAPABILITIES.to_owned();
        for (name, attributes) in [
            ("[Gmail]", "\\HasChildren \\Noselect"),
            (ALL, "\\All \\HasNoChildren"),
            ("[Gmail]/Drafts", "\\Drafts \\HasNoChildren"),
            (IMPORTANT, "\\HasNoChildren \\Important"),
            (SENT, "\\HasNoChildren \\Sent"),
            (SPAM, "\\HasNoChildren \\Junk"),
            (STARRED, "\\Flagged \\HasNoChildren"),
            (TRASH, "\\HasNoChildren \\Trash"),
        ] {
            self.add(name).attributes = attributes.to_owned();
        }
        let next = 1_278_455_344_230_334_865;
        self.gmail = Some(Store { next, fetched: BTreeMap::new(), connections: 15, tells_known: true });
    }

    /// The store.
    ///
    /// # Panics
    /// When it is none of Gmail's.
    pub fn store(&mut self) -> &mut Store {
        self.gmail.as_mut().expect("Gmail's store")
    }

    /// A message arrives, in a conversation of its own or in `thread`, with these labels. Returns its ids.
    pub fn arrive(&mut self, labels: &[&str], bytes: impl Into<Vec<u8>>, thread: Option<u64>) -> Ids {
        let store = self.store();
        store.next += 7;
        let ids = Ids { message: store.next, thread: thread.unwrap_or(store.next) };
        let date = format!("{:02}-Jan-2026 10:00:00 +0000", ids.message % 28 + 1);
        let message =
            Message { uid: 0, flags: Vec::new(), modseq: 0, date, bytes: bytes.into(), ids: Some(ids) };
        for label in labels {
            self.put(label, &message);
        }
        if !labels.iter().any(|label| is_bin(label)) {
            self.put(ALL, &message);
        }
        ids
    }

    /// A label is given or taken.
    pub fn label(&mut self, ids: Ids, name: &str, on: bool) {
        if on {
            let message = self.any(ids);
            self.put(name, &message);
        } else {
            self.take(name, ids);
        }
    }

    /// Flags of a message, which it has once.
    pub fn flags(&mut self, ids: Ids, flags: &[&str]) {
        for mailbox in &mut self.mailboxes {
            let Some(at) = mailbox.messages.iter().position(|m| m.ids == Some(ids)) else { continue };
            let before = mailbox.messages[at].flags.clone();
            // The mark of an EXPUNGE to come is of one mailbox.
            let marked = before.iter().find(|f| *f == "\\Deleted").map(String::as_str);
            let mut now: Vec<String> = flags.iter().copied().chain(marked).map(str::to_owned).collect();
            now.sort();
            now.dedup();
            if now != before {
                mailbox.messages[at].modseq = mailbox.next_modseq();
                mailbox.messages[at].flags = now;
            }
        }
        let message = self.any(ids);
        let in_bin = self.labels(ids).iter().any(|name| is_bin(name));
        if flags.contains(&"\\Flagged") && !in_bin {
            self.put(STARRED, &message);
        } else {
            self.take(STARRED, ids);
        }
    }

    /// Where a message is.
    #[must_use]
    pub fn labels(&self, ids: Ids) -> Vec<String> {
        let has = |m: &&super::Mailbox| m.messages.iter().any(|x| x.ids == Some(ids));
        self.mailboxes.iter().filter(has).map(|m| String::from_utf8_lossy(&m.name).into_owned()).collect()
    }

    /// Copies, or moves, a message; its UID in the target, and whether it was there before.
    pub(super) fn carry(&mut self, from: &str, to: &str, ids: Ids, moves: bool) -> (u32, bool) {
        let message = self.any(ids);
        if is_bin(to) {
            for name in self.labels(ids).iter().filter(|name| *name != to) {
                self.take(name, ids);
            }
            return self.put(to, &message);
        }
        let placed = self.put(to, &message);
        if is_bin(from) {
            self.put(ALL, &message);
        }
        if moves && from != ALL && from != to {
            self.take(from, ids);
        }
        placed
    }

    /// EXPUNGE of a message in this mailbox.
    pub(super) fn expunge_label(&mut self, name: &str, ids: Ids) {
        if is_bin(name) {
            self.labels(ids).iter().for_each(|name| self.take(name, ids));
        } else if name != ALL {
            self.take(name, ids);
        }
    }

    pub(super) fn count_bytes(&mut self, ids: Ids) {
        if let Some(store) = &mut self.gmail {
            *store.fetched.entry(ids.message).or_default() += 1;
        }
    }

    fn any(&self, ids: Ids) -> Message {
        let mut all = self.mailboxes.iter().flat_map(|m| &m.messages);
        let mut found = all.find(|m| m.ids == Some(ids)).expect("such a message").clone();
        found.flags.retain(|f| f != "\\Deleted");
        found
    }

    fn put(&mut self, name: &str, message: &Message) -> (u32, bool) {
        let mailbox = self.mailbox(name);
        if let Some(there) = mailbox.messages.iter().find(|m| m.ids == message.ids) {
            return (there.uid, true);
        }
        let uid = mailbox.deliver(message.bytes.clone());
        let placed = mailbox.message(uid);
        (placed.flags, placed.date, placed.ids) = (message.flags.clone(), message.date.clone(), message.ids);
        (uid, false)
    }

    fn take(&mut self, name: &str, ids: Ids) {
        let mailbox = self.mailbox(name);
        let uid = mailbox.messages.iter().find(|m| m.ids == Some(ids)).map(|m| m.uid);
        mailbox.expunge(uid);
    }
}

/// COPY and MOVE between labels.
pub(super) fn carry(
    state: &mut State,
    verb: &str,
    (from, to): (&str, Option<&Vec<u8>>),
    originals: &[Message],
    out: &mut Vec<u8>,
) -> Outcome {
    let target = to.and_then(|name| find(state, name)).map(|m| (m.name.clone(), m.uidvalidity));
    let Some((name, uidvalidity)) = target else { return no("[TRYCREATE] none") };
    let to = String::from_utf8_lossy(&name).into_owned();
    let (mut old, mut new) = (Vec::new(), Vec::new());
    for original in originals {
        let Some(ids) = original.ids else { continue };
        let (uid, before) = state.carry(from, &to, ids, verb == "MOVE");
        if !before || state.store().tells_known {
            old.push(original.uid.to_string());
            new.push(uid.to_string());
        }
    }
    let code = match new.is_empty() {
        true => String::new(),
        false => format!("[COPYUID {uidvalidity} {} {}] ", old.join(","), new.join(",")),
    };
    if verb == "MOVE" {
        out.extend(format!("* OK {code}(Success)\r\n").into_bytes());
        return ok();
    }
    Ok(format!("OK {code}(Success)"))
}
