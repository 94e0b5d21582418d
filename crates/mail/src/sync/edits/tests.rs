//! Each rule of [`super`], by example. The model under random events is beside it.

use super::*;
use crate::flags::{Flags, Keywords};

const A: MailboxKey = MailboxKey(1);
const B: MailboxKey = MailboxKey(2);
const C: MailboxKey = MailboxKey(3);

fn uid(n: u32) -> Uid {
    Uid::new(n).unwrap()
}

fn flags(flags: Flags) -> FlagState {
    FlagState { flags, keywords: Keywords::new() }
}

fn held(mailbox: MailboxKey, n: u32) -> Held {
    Held { row: None, mailbox, uid: Some(uid(n)), flags: FlagState::default(), marked: false }
}

fn in_(mailboxes: &[MailboxKey]) -> Message {
    let server = mailboxes.iter().zip(1..).map(|(m, n)| held(*m, n)).collect();
    Message { server, ..Message::default() }
}

fn star(scope: Scope) -> Change {
    Change::Flags { change: StoreChange { add: Flags::FLAGGED, ..StoreChange::default() }, scope }
}

fn no_star(scope: Scope) -> Change {
    Change::Flags { change: StoreChange { remove: Flags::FLAGGED, ..StoreChange::default() }, scope }
}

const fn move_to(to: MailboxKey) -> Change {
    Change::Move { from: Scope::All, to }
}

const fn remove(from: Scope) -> Change {
    Change::Remove { from }
}

/// Where it is shown, and whether starred there.
fn shown(message: &Message) -> Vec<(MailboxKey, bool)> {
    let mut shown: Vec<_> =
        message.visible().iter().map(|p| (p.mailbox, p.flags.flags.contains(Flags::FLAGGED))).collect();
    shown.sort_unstable();
    shown
}

fn wanted(message: &Message) -> Vec<(MailboxKey, Does)> {
    message.commands().into_iter().map(|c| (c.mailbox, c.does)).collect()
}

#[test]
fn a_star_a_move_and_no_star_end_without_a_star() {
    let mut m = in_(&[A]);
    m.ask(star(Scope::All));
    m.ask(move_to(B));
    m.ask(no_star(Scope::All));
    assert_eq!(shown(&m), [(B, false)]);
    assert!(matches!(&wanted(&m)[..], [(A, Does::Store(change))] if change.add == Flags::FLAGGED));
    m.begin(0, A);
    m.stored(0, A, uid(1));
    m.settle();
    assert_eq!(wanted(&m), [(A, Does::Move { to: B })]);
    m.begin(0, A);
    m.transferred(0, (A, uid(1)), Some(uid(7)), true);
    assert_eq!(m.settle(), (1, 0));
    assert_eq!(shown(&m), [(B, false)]);
    assert!(matches!(&wanted(&m)[..], [(B, Does::Store(change))] if change.remove == Flags::FLAGGED));
    m.stored(0, B, uid(7));
    m.settle();
    assert!(m.edits.is_empty());
    assert_eq!(shown(&m), [(B, false)]);
}

#[test]
fn neighbours_of_one_scope_are_one_edit_until_the_first_is_sent() {
    let mut m = in_(&[A]);
    assert!(m.ask(star(Scope::All)));
    assert!(!m.ask(no_star(Scope::All)), "the later wins");
    assert_eq!((m.edits.len(), shown(&m)), (1, vec![(A, false)]));
    assert!(m.ask(star(Scope::In(A))), "another scope");
    let mut m = in_(&[A]);
    m.ask(star(Scope::All));
    m.begin(0, A);
    assert!(m.ask(no_star(Scope::All)), "the star may be on its way");
    m.stored(0, A, uid(1));
    m.settle();
    assert_eq!((m.edits.len(), shown(&m)), (1, vec![(A, false)]));
}

#[test]
fn a_flag_of_one_mailbox_does_not_reach_a_copy() {
    let mut m = in_(&[A]);
    m.ask(Change::Copy { from: A, to: B });
    m.ask(star(Scope::In(A)));
    assert_eq!(shown(&m), [(A, true), (B, false)]);
    assert_eq!(wanted(&m), [(A, Does::Copy { to: B })], "the flag would go along");
}

#[test]
fn flags_follow_a_message_that_another_client_moved() {
    for scope in [Scope::All, Scope::In(A)] {
        let mut m = in_(&[A]);
        m.ask(star(scope));
        m.server = vec![held(C, 9)];
        assert_eq!(shown(&m), [(C, true)]);
        assert!(matches!(&wanted(&m)[..], [(C, Does::Store(_))]));
    }
}

#[test]
fn a_move_from_everywhere_ends_in_its_target_alone() {
    let mut m = in_(&[A, B]);
    m.ask(move_to(C));
    assert_eq!(shown(&m), [(C, false)]);
    assert_eq!(
        wanted(&m),
        [(A, Does::Move { to: C })],
        "one of them goes, the other stays until it is there"
    );
    m.begin(0, A);
    m.transferred(0, (A, uid(1)), Some(uid(5)), true);
    m.settle();
    assert_eq!(wanted(&m), [(B, Does::Remove { stands_in: Some(C) })]);
    m.removed(0, (B, uid(2)), false);
    assert_eq!(m.settle(), (1, 0));
    assert_eq!(shown(&m), [(C, false)]);
}

#[test]
fn a_move_out_of_a_mailbox_the_message_has_left_is_taken_back() {
    let mut m = in_(&[A]);
    m.ask(Change::Move { from: Scope::In(A), to: B });
    m.server = vec![held(C, 4)];
    assert_eq!(shown(&m), [(C, false)]);
    assert_eq!(m.settle(), (0, 1));
}

#[test]
fn all_mail_is_left_alone_while_there_is_another_place() {
    let mut m = Message { all_mail: Some(C), ..in_(&[C, A]) };
    m.ask(move_to(B));
    assert_eq!(shown(&m), [(B, false), (C, false)]);
    assert_eq!(wanted(&m), [(A, Does::Move { to: B })]);
    let mut m = Message { all_mail: Some(C), ..in_(&[C]) };
    m.ask(move_to(B));
    assert_eq!(shown(&m), [(B, false)]);
    assert_eq!(wanted(&m), [(C, Does::Move { to: B })]);
    let mut m = Message { all_mail: Some(C), ..in_(&[C, A]) };
    m.ask(remove(Scope::All));
    assert!(shown(&m).is_empty(), "what is deleted for good stays nowhere");
}

/// In a store of labels: C is All Mail, B the Trash.
fn labelled(mailboxes: &[MailboxKey]) -> Message {
    Message { all_mail: Some(C), labels: Labels { are: true, bins: vec![B] }, ..in_(mailboxes) }
}

const D: MailboxKey = MailboxKey(4);

#[test]
fn of_labels_one_is_left_by_moving_and_flags_are_stored_once() {
    // Archived: out of INBOX, and All Mail has it already.
    let mut m = labelled(&[A, C, D]);
    m.ask(Change::Move { from: Scope::In(A), to: C });
    assert_eq!(shown(&m), [(C, false), (D, false)]);
    assert_eq!(wanted(&m), [(A, Does::Move { to: C })], "never expunged for the sake of All Mail");
    m.begin(0, A);
    m.transferred(0, (A, uid(1)), Some(uid(2)), true);
    assert_eq!((m.settle(), shown(&m)), ((1, 0), vec![(C, false), (D, false)]));
    m.ask(star(Scope::All));
    m.begin(0, C);
    m.stored(0, C, uid(2));
    assert_eq!((m.settle(), shown(&m)), ((1, 0), vec![(C, true), (D, true)]));
    m.ask(no_star(Scope::In(D)));
    m.begin(0, D);
    m.stored(0, D, uid(3));
    assert_eq!(
        (m.settle(), shown(&m)),
        ((1, 0), vec![(C, true), (D, false)]),
        "what the server makes of it, it tells"
    );
}

#[test]
fn what_goes_to_the_trash_of_a_store_of_labels_has_left_everything() {
    for from in [Scope::All, Scope::In(A)] {
        let mut m = labelled(&[A, C, D]);
        m.ask(Change::Move { from, to: B });
        m.ask(remove(Scope::In(B)));
        assert!(shown(&m).is_empty(), "{from:?}");
        assert_eq!(wanted(&m), [(A, Does::Move { to: B })]);
        m.begin(0, A);
        m.transferred(0, (A, uid(1)), Some(uid(9)), true);
        m.settle();
        assert_eq!(wanted(&m), [(B, Does::Remove { stands_in: None })]);
        m.removed(0, (B, uid(9)), false);
        assert!(m.edits.is_empty() && m.server.is_empty());
    }
    // Another client took it out of the mailbox first.
    let mut m = labelled(&[C, D]);
    m.ask(Change::Move { from: Scope::In(A), to: B });
    assert_eq!((m.settle(), shown(&m)), ((0, 1), vec![(C, false), (D, false)]));
}

#[test]
fn edits_of_a_message_that_is_nowhere_sleep_and_wake() {
    for change in [star(Scope::All), move_to(B), remove(Scope::All), remove(Scope::In(A))] {
        let mut m = in_(&[A]);
        m.ask(change.clone());
        m.server.clear();
        assert!(shown(&m).is_empty());
        assert_eq!((m.settle(), wanted(&m)), ((0, 0), Vec::new()), "{change:?}");
        m.server = vec![held(A, 9)];
        assert_eq!(wanted(&m).len(), 1, "{change:?}");
    }
}

#[test]
fn a_transfer_in_doubt_shows_its_message_where_it_puts_it() {
    let mut m = in_(&[A]);
    m.server[0].flags = flags(Flags::FLAGGED);
    m.ask(move_to(B));
    m.begin(0, A);
    m.server.clear();
    assert_eq!(shown(&m), [(B, true)], "with the flags that went along");
    m.ask(no_star(Scope::All));
    assert_eq!(shown(&m), [(B, false)]);
    assert!(wanted(&m).is_empty());
}

#[test]
fn a_removal_waits_for_the_copy_before_it() {
    let mut m = in_(&[A]);
    m.ask(Change::Copy { from: A, to: B });
    m.ask(remove(Scope::In(A)));
    assert_eq!(shown(&m), [(B, false)]);
    assert_eq!(wanted(&m), [(A, Does::Copy { to: B })]);
    m.begin(0, A);
    assert!(wanted(&m).is_empty(), "nobody knows whether there is a copy");
    m.transferred(0, (A, uid(1)), Some(uid(3)), false);
    assert_eq!(wanted(&m), [(A, Does::Remove { stands_in: None })]);
}

#[test]
fn a_removal_is_taken_back_with_the_copy_it_rested_on() {
    let mut m = in_(&[A]);
    m.ask(Change::Copy { from: A, to: B });
    m.ask(star(Scope::All));
    m.ask(remove(Scope::In(A)));
    m.end(0, End::TakenBack);
    assert_eq!(shown(&m), [(A, true)], "the star stays");
    let mut m = in_(&[A]);
    m.ask(Change::Copy { from: A, to: B });
    m.ask(remove(Scope::In(B)));
    m.ask(remove(Scope::In(A)));
    m.end(0, End::TakenBack);
    m.settle();
    assert!(shown(&m).is_empty(), "our user wanted neither");
}

#[test]
fn what_is_in_doubt_is_decided_by_looking() {
    let sent = |change: Change| {
        let mut m = in_(&[A]);
        m.ask(change);
        m.begin(0, A);
        m
    };
    let mut m = sent(move_to(B));
    assert_eq!(m.resolve(0, |mailbox| mailbox == B), Resolved::NotYet, "the source was not looked at");
    assert_eq!(m.resolve(0, |_| true), Resolved::Known);
    assert_eq!(wanted(&m), [(A, Does::Move { to: B })], "it was not done");
    let mut m = sent(move_to(B));
    m.server = vec![held(B, 8)];
    assert_eq!((m.resolve(0, |_| true), m.settle()), (Resolved::Known, (1, 0)));
    assert!(m.edits.is_empty());
    let mut m = sent(move_to(B));
    m.server.push(held(B, 8));
    assert_eq!(m.resolve(0, |_| true), Resolved::Known);
    assert_eq!(wanted(&m), [(A, Does::Remove { stands_in: Some(B) })], "it was done by half");
    let mut m = sent(move_to(B));
    m.server.clear();
    assert_eq!((m.resolve(0, |_| true), shown(&m)), (Resolved::Lost, Vec::new()));
    m.server = vec![held(C, 9)];
    assert_eq!(wanted(&m), [(C, Does::Move { to: B })], "another client had moved it before");
    let mut m = sent(Change::Copy { from: A, to: B });
    assert_eq!(m.resolve(0, |mailbox| mailbox == B), Resolved::Known);
    assert_eq!(wanted(&m), [(A, Does::Copy { to: B })]);
    m.begin(0, A);
    m.server.push(held(B, 8));
    assert_eq!((m.resolve(0, |_| true), m.settle()), (Resolved::Known, (1, 0)));
}

#[test]
fn a_copy_that_was_made_unseen_is_never_made_again() {
    let mut m = in_(&[A]);
    m.ask(Change::Copy { from: A, to: B });
    m.begin(0, A);
    m.transferred(0, (A, uid(1)), None, false);
    assert_eq!((wanted(&m), shown(&m)), (Vec::new(), vec![(A, false), (B, false)]));
    assert_eq!(m.resolve(0, |_| true), Resolved::Known, "somebody took it away again");
    assert!(m.edits.is_empty());
    let mut m = in_(&[A]);
    m.ask(move_to(B));
    m.begin(0, A);
    m.transferred(0, (A, uid(1)), None, false);
    assert_eq!((wanted(&m), shown(&m)), (Vec::new(), vec![(B, false)]));
    m.resolve(0, |_| true);
    assert_eq!((m.edits.len(), shown(&m)), (0, vec![(A, false)]), "taken back: the original is all there is");
}

#[test]
fn a_transfer_whose_uid_nobody_told_is_over_only_where_it_is_seen() {
    let mut m = in_(&[A]);
    m.ask(move_to(B));
    m.begin(0, A);
    m.transferred(0, (A, uid(1)), None, true);
    m.server = vec![held(C, 9)];
    m.resolve(0, |_| true);
    assert_eq!(wanted(&m), [(C, Does::Move { to: B })], "another client had moved it before");
    m.begin(0, C);
    m.transferred(0, (C, uid(9)), None, true);
    m.server = vec![held(B, 3)];
    m.resolve(0, |_| true);
    assert_eq!(m.settle(), (1, 0));
}

#[test]
fn what_is_left_marked_is_hidden_and_in_nobodys_way() {
    let mut m = in_(&[A]);
    m.ask(move_to(B));
    m.begin(0, A);
    m.transferred(0, (A, uid(1)), Some(uid(2)), false);
    m.removed(0, (A, uid(1)), true);
    assert_eq!((m.settle(), shown(&m)), ((1, 0), vec![(B, false)]));
    m.ask(move_to(A));
    assert_eq!((wanted(&m), shown(&m)), (vec![(B, Does::Move { to: A })], vec![(A, false)]));
}

#[test]
fn edits_wait_for_each_other_whatever_their_mailboxes() {
    let mut m = in_(&[A, B]);
    m.ask(star(Scope::In(A)));
    m.ask(no_star(Scope::In(B)));
    assert!(
        matches!(&wanted(&m)[..], [(A, Does::Store(_))]),
        "if it left A, the star goes to B too, and first"
    );
}

#[test]
fn the_rest_of_a_move_waits_until_it_is_seen_where_the_first_stands() {
    let mut m = in_(&[A, C]);
    m.ask(move_to(B));
    m.begin(0, A);
    m.transferred(0, (A, uid(1)), None, true);
    assert_eq!((m.settle(), wanted(&m), shown(&m)), ((0, 0), Vec::new(), vec![(B, false)]));
    m.server.remove(0);
    let mut gone = m.clone();
    m.server.push(held(B, 8));
    m.resolve(0, |_| true);
    assert_eq!(wanted(&m), [(C, Does::Remove { stands_in: Some(B) })]);
    gone.resolve(0, |_| true);
    assert_eq!(wanted(&gone), [(C, Does::Move { to: B })], "somebody expunged the first");
}

#[test]
fn only_the_removal_that_leaves_nothing_is_taken_back_with_what_it_rested_on() {
    let mut m = in_(&[A]);
    for change in [Change::Copy { from: A, to: B }, remove(Scope::In(A)), move_to(C), move_to(A), move_to(B)]
    {
        m.ask(change);
    }
    m.end(0, End::TakenBack);
    assert_eq!((m.edits.len(), shown(&m)), (3, vec![(B, false)]));
}

#[test]
fn what_comes_into_a_mailbox_anew_has_none_of_the_flags_stored_there() {
    let mut m = in_(&[A, B]);
    m.ask(star(Scope::All));
    m.begin(0, A);
    m.stored(0, A, uid(1));
    m.server[0] = held(A, 5);
    m.placement_gone(A);
    assert_eq!((shown(&m), wanted(&m).len()), (vec![(A, true), (B, true)], 2));
}

#[test]
fn what_an_unanswered_removal_left_deleted_is_ours() {
    for change in [move_to(B), remove(Scope::All), remove(Scope::In(A))] {
        let mut m = in_(&[A]);
        m.ask(change.clone());
        if change == move_to(B) {
            m.server.push(held(B, 4));
        }
        m.begin(0, A);
        m.server[0].flags = flags(Flags::DELETED);
        m.left_marked(A);
        m.resolve(0, |_| true);
        m.settle();
        assert_eq!((m.edits.len(), m.server[0].marked), (0, true), "{change:?}");
    }
    let mut m = in_(&[A]);
    m.server[0].flags = flags(Flags::DELETED);
    m.left_marked(A);
    assert_eq!(shown(&m), [(A, false)], "another client's");
}

#[test]
fn a_mailbox_that_goes_takes_its_edits_along_but_no_flags() {
    let mut m = in_(&[A]);
    m.ask(star(Scope::In(A)));
    m.ask(move_to(B));
    m.mailbox_gone(B);
    assert_eq!(shown(&m), [(A, true)]);
    m.mailbox_gone(A);
    m.server = vec![held(C, 1)];
    assert_eq!(shown(&m), [(C, true)]);
}
