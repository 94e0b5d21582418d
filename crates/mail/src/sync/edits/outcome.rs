//! What becomes of the edits of a message: asked for, sent, answered, refused, looked for.
//!
//! Each function is one fact. The caller records the message as it is afterwards, server's placements and edits together,
//! and what is visible then: so a fact is recorded as a whole or not at all.

use crate::flags::Flags;
use crate::uid::Uid;

use super::super::merge::StoreChange;
use super::{Change, Edit, End, Held, MailboxKey, Message, Scope, State};

/// What looking at the mailboxes of a transfer told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolved {
    /// They were not all looked at since.
    NotYet,
    /// It goes on, or is over.
    Known,
    /// Our command took the message out of its mailbox, and it is not where it was to go, nor anywhere else.
    Lost,
}

impl Message {
    /// Our user asks for `change`. Whether it adds an edit: a neighbour that nothing was sent of takes it in.
    pub fn ask(&mut self, change: Change) -> bool {
        if let (Some(last), Change::Flags { change: new, scope }) = (self.edits.last_mut(), &change)
            && last.state == State::Open
            && last.done_in.is_empty()
            && let Change::Flags { change: old, scope: its } = &mut last.change
            && its == scope
        {
            *old = old.then(new);
            return false;
        }
        self.edits.push(Edit::new(change));
        true
    }

    /// A command for the edit is about to be sent to `mailbox`. Recorded before it is.
    pub fn begin(&mut self, edit: usize, mailbox: MailboxKey) {
        let carried = self.server.iter().find(|h| h.mailbox == mailbox && !h.marked).map(|h| h.flags.clone());
        let Some(edit) = self.edits.get_mut(edit) else { return };
        match edit.change {
            Change::Flags { .. } => edit.state = State::Sent,
            // Once its target has the message, a move only removes: that may be sent again.
            Change::Copy { .. } | Change::Move { .. } => {
                edit.state = State::InDoubt;
                edit.sent_from = Some(mailbox);
                edit.carried = carried.unwrap_or_default();
            }
            Change::Remove { .. } => edit.sent_from = Some(mailbox),
        }
    }

    /// The server has stored the flags of the edit at this UID.
    pub fn stored(&mut self, edit: usize, mailbox: MailboxKey, uid: Uid) {
        let Some(edit) = self.edits.get_mut(edit) else { return };
        let Change::Flags { change, scope } = &edit.change else { return };
        // Labels are of one message, which has its flags once.
        let everywhere = self.labels.are && *scope == Scope::All;
        for held in
            self.server.iter_mut().filter(|h| everywhere || h.mailbox == mailbox && h.uid == Some(uid))
        {
            held.flags = change.apply(&held.flags);
        }
        let others = self.server.iter().filter(|_| everywhere).map(|h| h.mailbox);
        for stored in others.chain([mailbox]) {
            if !edit.done_in.contains(&stored) {
                edit.done_in.push(stored);
            }
        }
    }

    /// The server has copied the message out of `from`, or `moved` it, to where `uid` is its UID, if that was told.
    ///
    /// Without a UID: only after a COPY whose original was still there afterwards, so the copy was made. OK alone says nothing,
    /// since another client may have taken the original away first (RFC 3501 §6.4.8): that stays in doubt, as every MOVE
    /// without a UID does.
    pub fn transferred(&mut self, edit: usize, from: (MailboxKey, Uid), uid: Option<Uid>, moved: bool) {
        let Some(of) = self.edits.get_mut(edit) else { return };
        let (to, copies) = match of.change {
            Change::Copy { to, .. } => (to, true),
            Change::Move { to, .. } => (to, false),
            Change::Flags { .. } | Change::Remove { .. } => return,
        };
        let Some(uid) = uid else {
            if !moved {
                of.state = if copies { State::DoneUnseen } else { State::Copied };
            }
            return;
        };
        of.state = State::Open;
        let flags = of.carried.clone();
        if moved {
            let takes_all = self.labels.takes_all(to);
            self.server
                .retain(|h| !(takes_all && h.mailbox != to || h.mailbox == from.0 && h.uid == Some(from.1)));
        }
        if !self.server.iter().any(|h| h.mailbox == to && h.uid == Some(uid)) {
            self.server.push(Held { row: None, mailbox: to, uid: Some(uid), flags, marked: false });
        }
        if copies {
            self.end(edit, End::Done);
        }
    }

    /// The server has taken the message out of the mailbox, or keeps it there as `\Deleted` (`marked`).
    pub fn removed(&mut self, edit: usize, from: (MailboxKey, Uid), marked: bool) {
        let is_it = |h: &Held| h.mailbox == from.0 && h.uid == Some(from.1);
        if marked {
            for held in self.server.iter_mut().filter(|h| is_it(h)) {
                held.marked = true;
                held.flags.flags = held.flags.flags.union(Flags::DELETED);
            }
        } else {
            self.server.retain(|h| !is_it(h));
        }
        if let Some(of) = self.edits.get_mut(edit) {
            of.state = State::Open;
        }
        self.end_removal(edit);
    }

    /// `mailbox` was read, of a server without UIDPLUS: what is `\Deleted` where a removal of ours was sent and not
    /// answered is what that has left.
    pub fn left_marked(&mut self, mailbox: MailboxKey) {
        let removes = |e: &Edit| matches!(e.change, Change::Remove { .. } | Change::Move { .. });
        if !self.edits.first().is_some_and(|e| removes(e) && e.sent_from == Some(mailbox)) {
            return;
        }
        let left = |h: &Held| h.mailbox == mailbox && !h.marked && h.flags.flags.contains(Flags::DELETED);
        if self.server.iter().any(left) {
            self.server.iter_mut().filter(|h| left(h)).for_each(|h| h.marked = true);
            self.end_removal(0);
        }
    }

    /// Nothing is left of it by our own doing: nobody waits for it to turn up elsewhere.
    fn end_removal(&mut self, edit: usize) {
        let left = self.shown_before(0);
        if let Some(Change::Remove { from }) = self.edits.get(edit).map(|e| &e.change)
            && self.sources(&left, *from, None).is_empty()
        {
            self.end(edit, End::Done);
        }
    }

    /// A transfer that was sent is decided by what was read since; `read` tells which mailboxes were read to their end
    /// after it had been sent, and the target after the mailbox it went out of: what left the one between may be seen in
    /// the other only then.
    pub fn resolve(&mut self, edit: usize, read: impl Fn(MailboxKey) -> bool) -> Resolved {
        let Some(of) = self.edits.get_mut(edit) else { return Resolved::Known };
        let Some(to) = of.target() else { return Resolved::Known };
        let source_read = of.sent_from.is_none_or(&read);
        let in_target = self.server.iter().any(|h| h.mailbox == to && !h.marked);
        let nowhere = self.server.iter().all(|h| h.marked);
        let moves = matches!(of.change, Change::Move { .. });
        match of.state {
            State::Open | State::Sent => return Resolved::Known,
            _ if !read(to) => return Resolved::NotYet,
            State::InDoubt if moves && !source_read => return Resolved::NotYet,
            // Done, done by half, or not done: the planner sees which.
            State::InDoubt => of.state = State::Open,
            State::Copied if in_target => of.state = State::Open,
            State::Copied => self.end(edit, End::TakenBack),
            // What others did with the copy since comes after it.
            State::DoneUnseen => self.end(edit, End::Done),
        }
        if nowhere && moves { Resolved::Lost } else { Resolved::Known }
    }

    /// The target was looked at, and the message is not under the UID that the server had told.
    pub fn disproved(&mut self, mailbox: MailboxKey, uid: Uid) {
        self.server.retain(|h| !(h.mailbox == mailbox && h.uid == Some(uid)));
        self.placement_gone(mailbox);
    }

    /// Reading found that a placement in this mailbox is gone: what comes there after it has none of the flags stored yet.
    pub fn placement_gone(&mut self, mailbox: MailboxKey) {
        self.edits.iter_mut().for_each(|e| e.done_in.retain(|m| *m != mailbox));
    }

    /// The edit is over.
    ///
    /// When the server does not take a transfer, the message is where it was, with the flags it got meanwhile. The removal
    /// that our user asked for because the message stood in the target is taken back too: nothing may leave the server for
    /// the sake of a copy that was not made. Whoever wanted it to be nowhere gets that.
    pub fn end(&mut self, edit: usize, how: End) {
        if edit >= self.edits.len() {
            return;
        }
        let shown = !self.visible().is_empty();
        self.edits.remove(edit);
        while how == End::TakenBack && shown && !self.shown_before(0).is_empty() {
            let empties = |at: &usize| self.shown_before(at + 1).is_empty();
            let Some(removal) = (0..self.edits.len()).find(empties) else { return };
            self.edits.remove(removal);
        }
    }

    /// The server cannot keep all of a change of flags: `keep` is left of it.
    pub fn keep_of_flags(&mut self, edit: usize, keep: &StoreChange) {
        if let Some(Change::Flags { change, .. }) = self.edits.get_mut(edit).map(|e| &mut e.change) {
            change.clone_from(keep);
        }
    }

    /// The mailbox is no more: edits that lead into it, or out of it, have nothing left to do. Flags follow the message.
    pub fn mailbox_gone(&mut self, mailbox: MailboxKey) {
        self.server.retain(|h| h.mailbox != mailbox);
        self.placement_gone(mailbox);
        for edit in &mut self.edits {
            edit.sent_from = edit.sent_from.filter(|m| *m != mailbox);
            match &mut edit.change {
                Change::Flags { scope, .. } if *scope == Scope::In(mailbox) => *scope = Scope::All,
                Change::Copy { from, to } if *from == mailbox => *from = *to,
                _ => {}
            }
        }
        while let Some(at) = self.edits.iter().position(|e| needs(e, mailbox)) {
            self.end(at, End::TakenBack);
        }
    }
}

fn needs(edit: &Edit, mailbox: MailboxKey) -> bool {
    match edit.change {
        Change::Flags { .. } => false,
        Change::Copy { to, .. } => to == mailbox,
        Change::Move { from, to } => from == Scope::In(mailbox) || to == mailbox,
        Change::Remove { from } => from == Scope::In(mailbox),
    }
}
