//! What is on the server: mailboxes and messages, changed as another client would change them.

/// What Gmail calls a message in every mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ids {
    /// X-GM-MSGID.
    pub message: u64,
    /// X-GM-THRID.
    pub thread: u64,
}

/// One message.
#[derive(Debug, Clone)]
pub struct Message {
    /// Its UID.
    pub uid: u32,
    /// System flags and keywords, sorted.
    pub flags: Vec<String>,
    /// When it last changed.
    pub modseq: u64,
    /// INTERNALDATE, as on the wire.
    pub date: String,
    /// The whole of it.
    pub bytes: Vec<u8>,
    /// At Gmail.
    pub ids: Option<Ids>,
}

/// One mailbox.
#[derive(Debug, Clone)]
pub struct Mailbox {
    /// As on the wire.
    pub name: Vec<u8>,
    /// Attributes in LIST, such as `\Noselect`.
    pub attributes: String,
    /// Among those LSUB tells.
    pub subscribed: bool,
    /// MAILBOXID (RFC 8474), told where OBJECTID is offered; it stays when the name changes.
    pub objectid: String,
    /// LIST shows it; SELECT and STATUS refuse.
    pub phantom: bool,
    /// Generation of the UIDs.
    pub uidvalidity: u32,
    /// The next UID.
    pub uidnext: u32,
    /// The highest mod-sequence.
    pub modseq: u64,
    /// Ascending by UID.
    pub messages: Vec<Message>,
    /// Expunged UIDs, each with the mod-sequence of that.
    pub gone: Vec<(u32, u64)>,
}

impl Mailbox {
    /// Whether it shows what stands elsewhere and has a mark.
    #[must_use]
    pub fn is_view(&self) -> bool {
        ["\\Flagged", "\\Important"].iter().any(|name| self.attributes.contains(name))
    }

    pub(super) fn new(name: &[u8], uidvalidity: u32) -> Self {
        Self {
            name: name.to_vec(),
            attributes: String::new(),
            subscribed: true,
            objectid: format!("F{uidvalidity}"),
            phantom: false,
            uidvalidity,
            uidnext: 1,
            modseq: 1,
            messages: Vec::new(),
            gone: Vec::new(),
        }
    }

    pub(super) fn next_modseq(&mut self) -> u64 {
        self.modseq += 1;
        self.modseq
    }

    /// A message arrives; returns its UID.
    pub fn deliver(&mut self, bytes: impl Into<Vec<u8>>) -> u32 {
        let (uid, modseq) = (self.uidnext, self.next_modseq());
        self.uidnext += 1;
        let date = format!("{:02}-Jan-2026 10:00:00 +0000", uid % 28 + 1);
        self.messages.push(Message { uid, flags: Vec::new(), modseq, date, bytes: bytes.into(), ids: None });
        uid
    }

    /// Arrivals `from..=to` with the subjects `M1`, `M2`, … and Message-IDs of this mailbox.
    pub fn fill(&mut self, from: u32, to: u32) {
        let name = String::from_utf8_lossy(&self.name).into_owned();
        for n in from..=to {
            let id = format!("m{n}.{}@example.test", hex::encode(&name));
            self.deliver(crate::mail::message(&format!("M{n}"), &id, &format!("body {n} of {name}")));
        }
    }

    /// The message of a UID.
    ///
    /// # Panics
    /// When there is none.
    pub fn message(&mut self, uid: u32) -> &mut Message {
        self.messages.iter_mut().find(|m| m.uid == uid).unwrap_or_else(|| panic!("no UID {uid}"))
    }

    /// Sets or takes away a flag or keyword.
    pub fn flag(&mut self, uid: u32, flag: &str, on: bool) {
        let modseq = self.next_modseq();
        let message = self.message(uid);
        message.flags.retain(|f| !f.eq_ignore_ascii_case(flag));
        if on {
            message.flags.push(flag.to_owned());
            message.flags.sort();
        }
        message.modseq = modseq;
    }

    /// Removes messages, those of them that are there.
    pub fn expunge(&mut self, uids: impl IntoIterator<Item = u32>) {
        for uid in uids {
            let modseq = self.next_modseq();
            let before = self.messages.len();
            self.messages.retain(|m| m.uid != uid);
            if self.messages.len() < before {
                self.gone.push((uid, modseq));
            }
        }
    }

    /// The same messages under new UIDs from `first` on.
    pub fn renumber(&mut self, uidvalidity: u32, first: u32) {
        (self.uidvalidity, self.gone) = (uidvalidity, Vec::new());
        self.uidnext = first;
        for message in &mut self.messages {
            message.uid = self.uidnext;
            self.uidnext += 1;
        }
    }
}
