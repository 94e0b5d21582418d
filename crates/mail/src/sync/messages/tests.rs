//! Messages that were in the way: of a process, or of the server.

use super::super::simulation::{Flavour, Model, Store, assert_equal, visit};
use super::super::*;
use super::forget;
use crate::uid::UidSet;

fn set(text: &str) -> UidSet {
    UidSet::parse(text).unwrap()
}

/// Each group is one [`ServerRead::Messages`]; `!` marks raw batches.
fn fetched(plans: &[Plan]) -> Vec<String> {
    let show = |b: &Batch| format!("{}{}", b.uids, if b.raw { "!" } else { "" });
    plans
        .iter()
        .filter_map(|plan| match plan {
            Plan::Read(ServerRead::Messages(batches)) => Some(batches),
            _ => None,
        })
        .map(|batches| batches.iter().map(show).collect::<Vec<_>>().join(" "))
        .collect()
}

fn filled(messages: u32) -> (Model, Store) {
    let mut model = Model::new(Flavour::Qresync);
    model.arrive(messages);
    (model, Store::default())
}

#[test]
fn what_a_dead_process_was_looking_into_is_fetched_one_at_a_time() {
    let (mut model, mut store) = filled(10);
    store.alone = set("4:5,8");
    let plans = visit(&mut model, &mut store, &Policy::default(), &[], None);
    assert_eq!(fetched(&plans), ["9:10", "8", "6:7", "5", "4", "1:3"]);
    assert_equal(&model, &store);
    // New mail comes oldest first, and the head moves over what is stored only.
    model.arrive(5);
    store.alone = set("13");
    let plans = visit(&mut model, &mut store, &Policy::default(), &[], None);
    assert_eq!(fetched(&plans), ["11:12", "13", "14:15"]);
    assert_equal(&model, &store);
    assert_eq!(store.checkpoint.head_uid, 15);
}

#[test]
fn a_message_that_ended_two_processes_is_stored_raw_and_the_rest_goes_on() {
    let (mut model, mut store) = filled(10);
    (store.raw, store.alone) = (set("7"), set("6"));
    let plans = visit(&mut model, &mut store, &Policy::default(), &[], None);
    assert_eq!(fetched(&plans), ["8:10", "7!", "6", "1:5"]);
    assert_equal(&model, &store);
    assert_eq!(visit(&mut model, &mut store, &Policy::default(), &[], None), [Plan::Done]);
}

#[test]
fn a_message_left_out_is_accounted_for_and_not_asked_for() {
    let (mut model, mut store) = filled(10);
    store.unreadable = set("7");
    let plans = visit(&mut model, &mut store, &Policy::default(), &[], None);
    assert_eq!(fetched(&plans), ["1:6,8:10"]);
    assert_eq!((store.checkpoint.exists_seen, store.checkpoint.tail_uid), (10, 1));
    assert_eq!(visit(&mut model, &mut store, &Policy::default(), &[], None), [Plan::Done]);
}

#[test]
fn what_is_not_kept_is_accounted_for_and_never_asked_for() {
    let (mut model, mut store) = filled(10);
    store.outside = set("1:6");
    let plans = visit(&mut model, &mut store, &Policy::default(), &[], None);
    assert_eq!(fetched(&plans), ["7:10"]);
    assert_eq!((store.checkpoint.exists_seen, store.checkpoint.tail_uid), (10, 1));
    assert_eq!(visit(&mut model, &mut store, &Policy::default(), &[], None), [Plan::Done]);
    model.expunge(3);
    visit(&mut model, &mut store, &Policy::default(), &[], None);
    assert_eq!((store.outside.clone(), store.checkpoint.exists_seen), (set("1:2,4:6"), 9));
    assert_eq!(visit(&mut model, &mut store, &Policy::default(), &[], None), [Plan::Done]);
    let audit = Policy { depth: Depth::Audit, ..Policy::default() };
    assert!(fetched(&visit(&mut model, &mut store, &audit, &[], None)).is_empty());
    assert_eq!(store.outside, set("1:2,4:6"));
}

#[test]
fn an_answer_that_does_not_fit_what_we_hold_asks_for_a_listing() {
    let (mut model, mut store) = filled(10);
    visit(&mut model, &mut store, &Policy::default(), &[], None);
    let mut server = model.select();
    assert_eq!(plan(&server, &store.view(), &Policy::default()), Plan::Done);
    server.seen.doubt = true;
    let next = plan(&server, &store.view(), &Policy::default());
    assert_eq!(next, Plan::Read(ServerRead::List(ListBy::Search)));
}

#[test]
fn a_message_left_out_is_tried_again_when_it_is_due() {
    let (mut model, mut store) = filled(10);
    store.unreadable = set("7");
    visit(&mut model, &mut store, &Policy::default(), &[], None);
    (store.unreadable, store.alone) = (UidSet::new(), set("7"));
    // A removal nobody noticed makes the counts agree; it is asked for all the same.
    store.rows.insert(99, 0);
    let again = plan(&model.select(), &store.view(), &Policy::default());
    assert_eq!(again, Plan::Read(ServerRead::List(ListBy::Search)));
    store.rows.remove(&99);
    let plans = visit(&mut model, &mut store, &Policy::default(), &[], None);
    assert_eq!(fetched(&plans), ["7"]);
    assert_equal(&model, &store);
}

#[test]
fn a_message_in_the_way_is_forgotten_when_the_server_has_it_no_more() {
    let (mut model, mut store) = filled(10);
    (store.unreadable, store.raw) = (set("7"), set("30"));
    visit(&mut model, &mut store, &Policy::default(), &[], None);
    assert_eq!((store.unreadable.clone(), store.raw.clone()), (set("7"), UidSet::new()));
    model.expunge(7);
    visit(&mut model, &mut store, &Policy::default(), &[], None);
    assert!(store.unreadable.is_empty());
    assert_eq!(store.checkpoint.exists_seen, 9);
    assert_eq!(visit(&mut model, &mut store, &Policy::default(), &[], None), [Plan::Done]);
}

#[test]
fn a_listing_that_lacks_messages_makes_nothing_forgotten() {
    let (mut model, mut store) = filled(10);
    store.unreadable = set("7");
    visit(&mut model, &mut store, &Policy::default(), &[], None);
    let mut view = model.select();
    view.seen.listing = Some(set("8:10"));
    view.seen.second_listing = Some(set("8:10"));
    assert_eq!(forget(&view, &store.view()), None);
    view.seen.listing = Some(set("1:6,8:11"));
    let gone = Plan::Record { writes: vec![Write::Forget(set("7"))], checkpoint: None };
    assert_eq!(forget(&view, &store.view()), Some(gone));
}
