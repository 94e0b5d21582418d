use crate::modseq::ModSeq;
use crate::uid::{Uid, UidSet, UidValidity};

use super::simulation::{Flavour, Model, Store, assert_equal, visit};
use super::*;

fn synced(flavour: Flavour, messages: u32) -> (Model, Store) {
    let mut model = Model::new(flavour);
    model.arrive(messages);
    let mut store = Store::default();
    visit(&mut model, &mut store, &Policy::default(), &[], None);
    assert_equal(&model, &store);
    (model, store)
}

fn set(text: &str) -> UidSet {
    UidSet::parse(text).unwrap()
}

fn reads(plans: &[Plan]) -> Vec<&ServerRead> {
    plans.iter().filter_map(|plan| if let Plan::Read(read) = plan { Some(read) } else { None }).collect()
}

fn removed(plans: &[Plan]) -> UidSet {
    let writes = plans.iter().filter_map(|plan| match plan {
        Plan::Record { writes, .. } => Some(writes),
        _ => None,
    });
    writes.flatten().fold(UidSet::new(), |all, write| match write {
        Write::Remove(uids) => all.union(uids),
        _ => all,
    })
}

#[test]
fn a_new_mailbox_is_filled_newest_first() {
    let mut model = Model::new(Flavour::Qresync);
    model.arrive(1_200);
    let mut store = Store::default();
    let plans = visit(&mut model, &mut store, &Policy::default(), &[], None);
    let fetched: Vec<String> = plans
        .iter()
        .filter_map(|plan| match plan {
            Plan::Read(ServerRead::Messages(batches)) => Some(batches),
            _ => None,
        })
        .flatten()
        .map(|batch| format!("{} -> {}", batch.uids, batch.then.tail_uid))
        .collect();
    assert_eq!(fetched, ["1151:1200 -> 1151", "651:1150 -> 651", "151:650 -> 151", "1:150 -> 1"]);
    assert_equal(&model, &store);
    assert_eq!(store.checkpoint.modseq, ModSeq(model.modseq));
    assert_eq!((store.checkpoint.head_uid, store.checkpoint.exists_seen), (1_200, 1_200));
}

#[test]
fn an_unchanged_mailbox_is_done_at_once() {
    let (mut model, mut store) = synced(Flavour::Condstore, 100);
    assert_eq!(visit(&mut model, &mut store, &Policy::default(), &[], None), [Plan::Done]);
}

#[test]
fn without_uidnext_the_listing_finds_new_mail() {
    let (mut model, mut store) = synced(Flavour::Qresync, 10);
    model.tells_uidnext = false;
    model.arrive(3);
    visit(&mut model, &mut store, &Policy::default(), &[], None);
    assert_equal(&model, &store);
    let mut view = model.select();
    view.mailbox.uidnext = Some(2);
    assert_eq!(plan(&view, &store.view(), &Policy::default()), Plan::Read(ServerRead::List(ListBy::Search)));
}

#[test]
fn mail_below_a_forged_uidnext_is_found_by_the_count() {
    let (mut model, mut store) = synced(Flavour::Qresync, 10);
    model.uidnext = 5_000_000;
    visit(&mut model, &mut store, &Policy::default(), &[], None);
    assert_eq!(store.checkpoint.head_uid, 4_999_999);
    model.uidnext = 11;
    model.arrive(2);
    model.uidnext = 5_000_000;
    visit(&mut model, &mut store, &Policy::default(), &[], None);
    assert_equal(&model, &store);
}

#[test]
fn new_mail_is_asked_for_by_closed_ranges() {
    let (mut model, mut store) = synced(Flavour::Qresync, 10);
    model.arrive(2);
    let plans = visit(&mut model, &mut store, &Policy::default(), &[], None);
    let Plan::Read(ServerRead::Messages(batches)) = &plans[0] else { panic!("{plans:?}") };
    assert_eq!((&batches[0].uids, batches[0].then.head_uid), (&set("11:12"), 12));
}

#[test]
fn another_uidvalidity_starts_a_generation() {
    for epoch in [Some(UidValidity(8)), Some(UidValidity(1)), None] {
        let (mut model, store) = synced(Flavour::Qresync, 10);
        let mut view = model.select();
        view.mailbox.uidvalidity = epoch;
        let Plan::Record { writes, checkpoint } = plan(&view, &store.view(), &Policy::default()) else {
            panic!("no reset")
        };
        assert_eq!(writes, [Write::NewGeneration]);
        let fresh = store.checkpoint.next_generation(Some(epoch.unwrap_or(UidValidity(0))));
        assert_eq!(checkpoint, Some(fresh));
        assert_eq!((fresh.generation, fresh.head_uid, fresh.tail_uid), (1, 0, 0));
        model.uidvalidity = 9;
        let mut store = store;
        let plans = visit(&mut model, &mut store, &Policy::default(), &[], None);
        let fetches = reads(&plans).iter().any(|read| matches!(read, ServerRead::Messages(_)));
        assert!(fetches && !store.old_generation);
        assert_equal(&model, &store);
    }
}

#[test]
fn a_uid_that_never_comes_is_asked_for_once() {
    let (model, store) = synced(Flavour::Qresync, 10);
    let mut view = model.select();
    view.mailbox.exists = 12;
    view.seen.listing = Some(set("1:10,12:13"));
    view.mailbox.uidnext = Some(14);
    view.seen.asked = set("12:13");
    let local = LocalView { checkpoint: Checkpoint { head_uid: 13, ..store.checkpoint }, ..store.view() };
    assert!(matches!(plan(&view, &local, &Policy::default()), Plan::Record { .. }));
    let local = LocalView { unreadable: set("12"), ..local };
    view.seen.asked = set("13");
    let Plan::Record { checkpoint: Some(settled), .. } = plan(&view, &local, &Policy::default()) else {
        panic!("not settled")
    };
    assert_eq!(settled.exists_seen, 11);
}

#[test]
fn rows_beyond_the_checkpoint_are_not_fetched_again() {
    let (mut model, mut store) = synced(Flavour::Qresync, 10);
    model.arrive(4);
    store.rows.insert(11, 0);
    store.rows.insert(13, 0);
    let plans = visit(&mut model, &mut store, &Policy::default(), &[], None);
    let Plan::Read(ServerRead::Messages(batches)) = &plans[0] else { panic!("{plans:?}") };
    assert_eq!(batches[0].uids, set("12,14"));
}

#[test]
fn new_mail_goes_before_backfill() {
    let mut model = Model::new(Flavour::Qresync);
    model.arrive(5_000);
    let mut store = Store::default();
    let policy = Policy { batch: 100, ..Policy::default() };
    let ops = [simulation::Op::Flag(0, 0), simulation::Op::Flag(0, 0), simulation::Op::Arrive(1)];
    let plans = visit(&mut model, &mut store, &policy, &ops, None);
    let new = plans
        .iter()
        .position(|plan| matches!(plan, Plan::Read(ServerRead::Messages(b)) if b[0].uids == set("5001")));
    assert!(new.is_some_and(|at| at < 6), "{new:?}");
    visit(&mut model, &mut store, &policy, &[], None);
    assert_equal(&model, &store);
}

#[test]
fn without_backfill_only_the_first_page_of_old_mail_is_read() {
    let mut model = Model::new(Flavour::Qresync);
    model.arrive(5_000);
    let mut store = Store::default();
    let changes_only = Policy { backfill: false, ..Policy::default() };
    visit(&mut model, &mut store, &changes_only, &[], None);
    assert_eq!((store.checkpoint.head_uid, store.checkpoint.tail_uid), (5_000, 4_951));
    model.arrive(2);
    model.expunge(4_960);
    visit(&mut model, &mut store, &changes_only, &[], None);
    assert_eq!((store.checkpoint.head_uid, store.checkpoint.tail_uid), (5_002, 4_951));
    assert_eq!(store.view().known, set("4951:4959,4961:5002"));
    assert_eq!(store.checkpoint.uidnext, 0, "it is not settled, so the next round looks at it again");
    let plans = visit(&mut model, &mut store, &changes_only, &[], None);
    assert!(!reads(&plans).iter().any(|r| matches!(r, ServerRead::Messages(_))), "{plans:?}");
    visit(&mut model, &mut store, &Policy::default(), &[], None);
    assert_equal(&model, &store);
    let mut short = Model::new(Flavour::Qresync);
    short.arrive(50);
    let mut store = Store::default();
    visit(&mut short, &mut store, &changes_only, &[], None);
    assert_equal(&short, &store);
}

#[test]
fn with_qresync_changes_and_removals_come_in_one_read() {
    let (mut model, mut store) = synced(Flavour::Qresync, 10);
    let since = ModSeq(model.modseq);
    model.expunge(4);
    model.modseq += 1;
    model.messages.insert(5, (1, model.modseq));
    let plans = visit(&mut model, &mut store, &Policy::default(), &[], None);
    assert_eq!(reads(&plans), [&ServerRead::Changes { since, vanished: true }]);
    assert_equal(&model, &store);
}

#[test]
fn with_condstore_removals_are_found_by_the_count() {
    let (mut model, mut store) = synced(Flavour::Condstore, 10);
    let since = ModSeq(model.modseq);
    model.expunge(4);
    let plans = visit(&mut model, &mut store, &Policy::default(), &[], None);
    let search = ServerRead::List(ListBy::Search);
    assert_eq!(reads(&plans), [&ServerRead::Changes { since, vanished: false }, &search]);
    assert_eq!(removed(&plans), set("4"));
}

#[test]
fn without_mod_sequences_all_flags_are_read() {
    let (mut model, mut store) = synced(Flavour::Plain, 50);
    let policy = Policy { flags_batch: 30, ..Policy::default() };
    let plans = visit(&mut model, &mut store, &policy, &[], None);
    let expected = [ServerRead::Flags { uids: set("21:50") }, ServerRead::Flags { uids: set("1:20") }];
    assert_eq!(reads(&plans), expected.iter().collect::<Vec<_>>());
    let (model, store) = synced(Flavour::Qresync, 50);
    for forged in [None, Some(ModSeq(0)), Some(ModSeq(u64::MAX)), Some(ModSeq(1 << 63))] {
        let mut view = model.select();
        view.mailbox.highestmodseq = forged;
        let next = plan(&view, &store.view(), &Policy::default());
        assert!(matches!(next, Plan::Read(ServerRead::Flags { .. })), "{forged:?}: {next:?}");
    }
}

#[test]
fn a_mod_sequence_that_ran_backwards_is_not_trusted() {
    let (mut model, mut store) = synced(Flavour::Qresync, 10);
    model.modseq = 3;
    let plans = visit(&mut model, &mut store, &Policy::default(), &[], None);
    assert_eq!(reads(&plans), [&ServerRead::Flags { uids: set("1:10") }]);
    assert_eq!(store.checkpoint.modseq, ModSeq(3));
    let huge = Checkpoint { modseq: ModSeq(1 << 60), ..store.checkpoint };
    let next = plan(&model.select(), &LocalView { checkpoint: huge, ..store.view() }, &Policy::default());
    assert!(matches!(next, Plan::Read(ServerRead::Flags { .. })));
}

#[test]
fn a_mod_sequence_that_rose_for_nothing_has_the_newest_flags_read_once() {
    let policy = Policy { flags_batch: 30, ..Policy::default() };
    for flavour in [Flavour::Qresync, Flavour::Condstore] {
        let (mut model, mut store) = synced(flavour, 50);
        let since = ModSeq(model.modseq);
        model.modseq += 1;
        let plans = visit(&mut model, &mut store, &policy, &[], None);
        let changes = ServerRead::Changes { since, vanished: flavour == Flavour::Qresync };
        assert_eq!(reads(&plans), [&changes, &ServerRead::Flags { uids: set("21:50") }]);
        assert_eq!(store.checkpoint.modseq, ModSeq(model.modseq));
        assert_eq!(visit(&mut model, &mut store, &policy, &[], None), [Plan::Done]);
        // Removals and arrivals raise it too; only with QRESYNC must the answer name them.
        model.expunge(7);
        let plans = visit(&mut model, &mut store, &policy, &[], None);
        assert!(!reads(&plans).iter().any(|read| matches!(read, ServerRead::Flags { .. })), "{plans:?}");
        model.expunged.clear();
        model.expunge(8);
        model.expunged.clear();
        let plans = visit(&mut model, &mut store, &policy, &[], None);
        let asked = reads(&plans).iter().any(|read| matches!(read, ServerRead::Flags { .. }));
        assert_eq!(asked, flavour == Flavour::Qresync);
        assert_equal(&model, &store);
    }
}

#[test]
fn an_expunge_hidden_by_an_arrival_is_found() {
    for flavour in [Flavour::Qresync, Flavour::Condstore, Flavour::Plain] {
        let (mut model, mut store) = synced(flavour, 10);
        model.expunge(3);
        model.arrive(1);
        let plans = visit(&mut model, &mut store, &Policy::default(), &[], None);
        assert_eq!(removed(&plans), set("3"));
        assert_equal(&model, &store);
    }
}

#[test]
fn a_huge_vanished_range_needs_a_listing() {
    let (model, store) = synced(Flavour::Qresync, 100);
    let mut view = model.select();
    view.mailbox.highestmodseq = Some(ModSeq(model.modseq + 1));
    view.seen.vanished = Some(set("40:4294967295"));
    assert_eq!(plan(&view, &store.view(), &Policy::default()), Plan::Read(ServerRead::List(ListBy::Search)));
    view.seen.listing = Some(model.uids());
    let Plan::Record { writes, .. } = plan(&view, &store.view(), &Policy::default()) else {
        panic!("not settled")
    };
    assert!(writes.is_empty());
    view.seen.listing = None;
    view.seen.vanished = Some(set("101:4000000000"));
    let Plan::Record { writes, .. } = plan(&view, &store.view(), &Policy::default()) else {
        panic!("not settled")
    };
    assert!(writes.is_empty());
}

#[test]
fn a_truncated_search_deletes_nothing() {
    for exists in [100, 40] {
        let (model, store) = synced(Flavour::Condstore, 100);
        let mut view = model.select();
        view.mailbox.highestmodseq = Some(ModSeq(model.modseq + 1));
        view.seen.vanished = Some(UidSet::new());
        view.mailbox.exists = exists;
        view.seen.listing = Some(UidSet::new());
        let second = Plan::Read(ServerRead::List(ListBy::Fetch));
        assert_eq!(plan(&view, &store.view(), &Policy::default()), second);
        view.seen.second_listing = Some(model.uids());
        let Plan::Record { writes, .. } = plan(&view, &store.view(), &Policy::default()) else {
            panic!("{exists}")
        };
        assert!(writes.is_empty());
    }
}

#[test]
fn the_head_does_not_move_over_mail_a_truncated_search_left_out() {
    let (mut model, store) = synced(Flavour::Condstore, 10);
    model.arrive(700);
    let mut view = model.select();
    view.seen.listing = Some(set("1:10,600:700"));
    assert_eq!(plan(&view, &store.view(), &Policy::default()), Plan::Read(ServerRead::List(ListBy::Fetch)));
}

#[test]
fn two_listings_that_agree_remove_many() {
    let (mut model, mut store) = synced(Flavour::Condstore, 300);
    (1..=200).for_each(|uid| model.expunge(uid));
    let plans = visit(&mut model, &mut store, &Policy::default(), &[], None);
    assert!(reads(&plans).contains(&&ServerRead::List(ListBy::Fetch)));
    assert_eq!(removed(&plans), set("1:200"));
}

#[test]
fn listings_that_contradict_exists_remove_nothing() {
    let (model, store) = synced(Flavour::Condstore, 300);
    let mut view = model.select();
    view.seen.listing = Some(set("1:10"));
    view.seen.second_listing = Some(set("1:20"));
    assert_eq!(plan(&view, &store.view(), &Policy::default()), Plan::Done);
    view.mailbox.exists = 20;
    let Plan::Record { writes, .. } = plan(&view, &store.view(), &Policy::default()) else { panic!("kept") };
    assert_eq!(writes, [Write::Remove(set("21:300"))]);
}

#[test]
fn an_audit_reads_everything_even_where_the_numbers_agree() {
    let (mut model, mut store) = synced(Flavour::Qresync, 10);
    store.rows.insert(3, 31);
    store.rows.remove(&4);
    let audit = Policy { depth: Depth::Audit, ..Policy::default() };
    visit(&mut model, &mut store, &audit, &[], None);
    assert_equal(&model, &store);
}

#[test]
fn only_a_complete_copy_with_the_servers_numbers_is_settled() {
    let (mut model, store) = synced(Flavour::Qresync, 10);
    assert!(is_settled(&model.select(), &store.view()));
    let damaged = LocalView { known: set("1:4"), ..store.view() };
    assert!(is_settled(&model.select(), &damaged), "the numbers are what counts");
    let ready = vec![Ready { uid: Uid::MIN, kind: ReadyKind::Remove { stands_in: None } }];
    let backfill = Checkpoint { tail_uid: 5, ..store.checkpoint };
    for local in [
        LocalView { ready, ..store.view() },
        LocalView { checkpoint: backfill, ..store.view() },
        LocalView { old_generation: true, ..store.view() },
        LocalView { alone: set("3"), ..store.view() },
        LocalView::default(),
    ] {
        assert!(!is_settled(&model.select(), &local), "{local:?}");
    }
    model.arrive(1);
    assert!(!is_settled(&model.select(), &store.view()));
    let (mut model, store) = synced(Flavour::Plain, 10);
    model.tells_uidnext = false;
    assert!(!is_settled(&model.select(), &store.view()), "without UIDNEXT an arrival may hide an expunge");
}

#[test]
fn a_mailbox_that_is_to_be_read_anew_is_compared_whatever_its_numbers_say() {
    let (model, store) = synced(Flavour::Qresync, 10);
    let (mut view, policy) = (model.select(), Policy::default());
    let local = LocalView { read_anew: true, ..store.view() };
    assert_eq!(plan(&view, &local, &Policy { depth: Depth::Head, ..policy }), Plan::Done);
    assert_eq!(plan(&view, &local, &policy), Plan::Read(ServerRead::Flags { uids: set("1:10") }));
    view.seen.flags_read = set("1:10");
    assert_eq!(plan(&view, &local, &policy), Plan::Read(ServerRead::List(ListBy::Search)));
    view.seen.listing = Some(set("1:10"));
    assert_eq!(plan(&view, &local, &policy), Plan::Done);
}

#[test]
fn mail_announced_during_a_visit_is_looked_up() {
    let (mut model, store) = synced(Flavour::Qresync, 10);
    let mut view = model.select();
    let head = Policy { depth: Depth::Head, ..Policy::default() };
    model.arrive(1);
    view.note_exists(11);
    assert_eq!(plan(&view, &store.view(), &head), Plan::Read(ServerRead::List(ListBy::Search)));
    view.mailbox.uidnext = Some(12);
    assert!(matches!(plan(&view, &store.view(), &head), Plan::Read(ServerRead::Messages(_))));
}

#[test]
fn a_quick_visit_stops_after_new_mail_and_local_edits() {
    let (mut model, store) = synced(Flavour::Plain, 10);
    model.arrive(1);
    let head = Policy { depth: Depth::Head, ..Policy::default() };
    let mut local = store.view();
    local.ready = vec![Ready { uid: Uid::MIN, kind: ReadyKind::Remove { stands_in: None } }];
    let mut view = model.select();
    assert!(matches!(plan(&view, &local, &head), Plan::Read(ServerRead::Messages(_))));
    view.mailbox.uidnext = Some(11);
    assert!(matches!(plan(&view, &local, &head), Plan::Send(_)));
    local.ready.clear();
    assert_eq!(plan(&view, &local, &head), Plan::Done);
}
