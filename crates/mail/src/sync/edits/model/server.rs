//! The simulated IMAP server, and what another client does to it.

pub(super) const BOXES: usize = 4;
pub(super) const NAMES: [&str; BOXES] = ["A", "B", "C", "T"];

/// Of a place: the message is there, with these flags.
pub(super) const HERE: u8 = 1;
pub(super) const STAR: u8 = 2;
pub(super) const READ: u8 = 4;

/// What is in each mailbox of one message: 0 or [`HERE`] and flags.
pub(super) type Places = [u8; BOXES];

/// splitmix64.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % n as u64) as usize
    }

    /// Once in `n`.
    pub(super) fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(super) fn of<T: Copy>(&mut self, which: &[T]) -> Option<T> {
        if which.is_empty() { None } else { Some(which[self.below(which.len())]) }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Mail {
    pub(super) uid: u32,
    pub(super) content: usize,
    pub(super) flags: u8,
    pub(super) deleted: bool,
    /// A command of ours put it there.
    ours: bool,
}

pub(super) struct Mailbox {
    pub(super) validity: u32,
    next: u32,
    pub(super) mails: Vec<Mail>,
}

/// What another client does.
#[derive(Debug, Clone, Copy)]
pub(super) enum Act {
    Flag {
        at: usize,
        bit: u8,
        on: bool,
    },
    Move {
        from: usize,
        to: usize,
    },
    Copy {
        from: usize,
        to: usize,
    },
    Expunge {
        at: usize,
    },
    /// What our user deleted is no longer `\Deleted`.
    Unmark {
        at: usize,
    },
    ExpungeMarked {
        at: usize,
    },
    /// The message is put there from elsewhere.
    Return {
        at: usize,
    },
}

pub(super) struct Server {
    pub(super) boxes: Vec<Mailbox>,
    pub(super) has_move: bool,
    pub(super) has_uidplus: bool,
    /// A transfer of ours made a second copy of its own.
    pub(super) doubled: bool,
}

impl Server {
    pub(super) fn new(dice: &mut Dice) -> Self {
        let boxes = (0..BOXES).map(|_| Mailbox { validity: 1, next: 1, mails: Vec::new() }).collect();
        Self { boxes, has_move: !dice.once_in(3), has_uidplus: !dice.once_in(3), doubled: false }
    }

    /// A new message here, and its UID. Who has it already keeps it: a second one would be another message.
    pub(super) fn put(&mut self, at: usize, content: usize, flags: u8, ours: bool) -> u32 {
        let mailbox = &mut self.boxes[at];
        if let Some(mail) = mailbox.mails.iter_mut().find(|m| m.content == content && !m.deleted) {
            self.doubled |= ours && mail.ours;
            mail.ours &= ours;
            return mail.uid;
        }
        let uid = mailbox.next;
        mailbox.next += 1;
        mailbox.mails.push(Mail { uid, content, flags, deleted: false, ours });
        uid
    }

    pub(super) fn find(&mut self, at: usize, uid: u32) -> Option<&mut Mail> {
        self.boxes[at].mails.iter_mut().find(|m| m.uid == uid)
    }

    fn live(&mut self, at: usize, content: usize) -> Option<&mut Mail> {
        self.boxes[at].mails.iter_mut().find(|m| m.content == content && !m.deleted)
    }

    pub(super) fn take(&mut self, at: usize, uid: u32) {
        self.boxes[at].mails.retain(|m| m.uid != uid);
    }

    /// Where the message is, and with which flags.
    pub(super) fn places(&self, content: usize) -> Places {
        let mut places = [0; BOXES];
        for (place, mailbox) in places.iter_mut().zip(&self.boxes) {
            for mail in mailbox.mails.iter().filter(|m| m.content == content && !m.deleted) {
                *place = HERE | mail.flags;
            }
        }
        places
    }

    fn marked(&self, content: usize) -> Vec<usize> {
        let is = |at: &usize| {
            let all: Vec<_> = self.boxes[*at].mails.iter().filter(|m| m.content == content).collect();
            all.len() == 1 && all[0].deleted
        };
        (0..BOXES).filter(is).collect()
    }

    /// UIDs begin anew.
    pub(super) fn reset(&mut self, at: usize) {
        let mailbox = &mut self.boxes[at];
        mailbox.validity += 1;
        // Never the same numbers: who uses an old one hits nothing, or another message.
        for mail in &mut mailbox.mails {
            mail.uid = mailbox.next;
            mailbox.next += 1;
        }
    }

    /// Something another client might do to the message.
    pub(super) fn think(&self, content: usize, dice: &mut Dice) -> Option<Act> {
        let places = self.places(content);
        let here: Vec<usize> = (0..BOXES).filter(|m| places[*m] != 0).collect();
        let marked = self.marked(content);
        if !marked.is_empty() && dice.once_in(4) {
            let at = dice.of(&marked)?;
            return Some(if dice.once_in(2) { Act::Unmark { at } } else { Act::ExpungeMarked { at } });
        }
        let Some(from) = dice.of(&here) else {
            return dice.once_in(3).then(|| Act::Return { at: dice.below(BOXES) });
        };
        let to = dice.below(BOXES);
        match dice.below(12) {
            0..5 => {
                let bit = if dice.once_in(3) { READ } else { STAR };
                Some(Act::Flag { at: from, bit, on: places[from] & bit == 0 })
            }
            5..8 if to != from => Some(Act::Move { from, to }),
            8..10 if to != from => Some(Act::Copy { from, to }),
            10 => Some(Act::Expunge { at: from }),
            _ => None,
        }
    }

    pub(super) fn act(&mut self, content: usize, act: Act) {
        match act {
            Act::Flag { at, bit, on } => {
                if let Some(mail) = self.live(at, content) {
                    mail.flags = if on { mail.flags | bit } else { mail.flags & !bit };
                }
            }
            Act::Move { from, to } | Act::Copy { from, to } => {
                let Some(Mail { flags, uid, .. }) = self.live(from, content).cloned() else { return };
                self.put(to, content, flags, false);
                if matches!(act, Act::Move { .. }) {
                    self.take(from, uid);
                }
            }
            Act::Expunge { at } => {
                if let Some(uid) = self.live(at, content).map(|m| m.uid) {
                    self.take(at, uid);
                }
            }
            Act::Unmark { at } => {
                for mail in self.boxes[at].mails.iter_mut().filter(|m| m.content == content) {
                    mail.deleted = false;
                    mail.ours = false;
                }
            }
            Act::ExpungeMarked { at } => self.boxes[at].mails.retain(|m| m.content != content || !m.deleted),
            Act::Return { at } => {
                self.put(at, content, 0, false);
            }
        }
    }
}
