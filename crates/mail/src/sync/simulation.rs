//! A model of a server and of our rows, driven by the planner as the real driver does, under random arrivals,
//! removals, flag changes, UIDVALIDITY changes, lost connections and truncated searches.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::capabilities::Capabilities;
use crate::modseq::ModSeq;
use crate::uid::{Uid, UidSet, UidValidity};

use super::*;

#[derive(Debug, Clone)]
pub(super) enum Op {
    Arrive(u8),
    Expunge(usize),
    Flag(usize, i16),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flavour {
    Qresync,
    Condstore,
    Plain,
}

#[derive(Debug, Clone)]
pub(super) struct Model {
    pub(super) flavour: Flavour,
    pub(super) uidvalidity: u32,
    pub(super) uidnext: u32,
    pub(super) modseq: u64,
    pub(super) messages: BTreeMap<u32, (i16, u64)>,
    pub(super) expunged: Vec<(u32, u64)>,
    pub(super) tells_uidnext: bool,
    pub(super) truncates_search: bool,
}

impl Model {
    pub(super) fn new(flavour: Flavour) -> Self {
        Self {
            flavour,
            uidvalidity: 7,
            uidnext: 1,
            modseq: 1,
            messages: BTreeMap::new(),
            expunged: Vec::new(),
            tells_uidnext: true,
            truncates_search: false,
        }
    }

    pub(super) fn arrive(&mut self, count: u32) {
        for _ in 0..count {
            self.modseq += 1;
            self.messages.insert(self.uidnext, (0, self.modseq));
            self.uidnext += 1;
        }
    }

    pub(super) fn expunge(&mut self, uid: u32) {
        self.modseq += 1;
        if self.messages.remove(&uid).is_some() {
            self.expunged.push((uid, self.modseq));
        }
    }

    fn apply(&mut self, op: &Op, view: Option<&mut ServerView>) {
        let at = |i: &usize| self.messages.keys().nth(i % self.messages.len().max(1)).copied();
        match op {
            Op::Arrive(count) => {
                self.arrive(u32::from(*count));
                if let Some(view) = view {
                    view.note_exists(u32::try_from(self.messages.len()).unwrap());
                }
            }
            Op::Expunge(i) => {
                if let Some(uid) = at(i) {
                    self.expunge(uid);
                    if let Some(view) = view {
                        view.note_removed(1);
                    }
                }
            }
            Op::Flag(i, bits) => {
                if let Some(uid) = at(i) {
                    self.modseq += 1;
                    self.messages.insert(uid, (*bits, self.modseq));
                }
            }
        }
    }

    pub(super) fn uids(&self) -> UidSet {
        self.messages.keys().filter_map(|n| Uid::new(*n)).collect()
    }

    pub(super) fn select(&self) -> ServerView {
        let capabilities = Capabilities::parse(match self.flavour {
            Flavour::Qresync => vec!["IMAP4REV1", "ENABLE", "CONDSTORE", "QRESYNC"],
            Flavour::Condstore => vec!["IMAP4REV1", "CONDSTORE"],
            Flavour::Plain => vec!["IMAP4REV1"],
        });
        let mailbox = ServerMailbox {
            uidvalidity: Some(UidValidity(self.uidvalidity)),
            uidnext: self.tells_uidnext.then_some(self.uidnext),
            exists: u32::try_from(self.messages.len()).unwrap(),
            highestmodseq: (self.flavour != Flavour::Plain).then_some(ModSeq(self.modseq)),
            ..ServerMailbox::default()
        };
        ServerView { capabilities, mailbox, seen: Seen::default() }
    }
}

/// Our rows: the flags of each placement of this generation.
#[derive(Debug, Clone, Default)]
pub(super) struct Store {
    pub(super) rows: BTreeMap<u32, i16>,
    pub(super) checkpoint: Checkpoint,
    pub(super) old_generation: bool,
    pub(super) alone: UidSet,
    pub(super) raw: UidSet,
    pub(super) unreadable: UidSet,
    pub(super) outside: UidSet,
}

impl Store {
    pub(super) fn view(&self) -> LocalView {
        LocalView {
            checkpoint: self.checkpoint,
            known: self.rows.keys().filter_map(|n| Uid::new(*n)).collect(),
            old_generation: self.old_generation,
            alone: self.alone.clone(),
            raw: self.raw.clone(),
            unreadable: self.unreadable.clone(),
            outside: self.outside.clone(),
            ..LocalView::default()
        }
    }

    fn forget(&mut self, uids: &UidSet) {
        let mut view = self.view();
        view.forget(uids);
        (self.alone, self.raw, self.unreadable) = (view.alone, view.raw, view.unreadable);
        self.outside = view.outside;
    }

    fn fetch(&mut self, model: &Model, uids: &UidSet, only_known: bool) {
        for uid in uids.iter() {
            let Some((bits, _)) = model.messages.get(&uid.get()) else { continue };
            if !only_known || self.rows.contains_key(&uid.get()) {
                self.rows.insert(uid.get(), *bits);
            }
        }
    }

    fn write(
        &mut self,
        model: &Model,
        view: &mut ServerView,
        writes: &[Write],
        checkpoint: Option<Checkpoint>,
    ) {
        for write in writes {
            match write {
                Write::NewGeneration => {
                    self.old_generation = !self.rows.is_empty();
                    self.rows.clear();
                    self.forget(&UidSet::range(Uid::MIN, Uid::MAX));
                    view.seen = Seen::default();
                }
                Write::DropOldGeneration => self.old_generation = false,
                Write::Remove(uids) => {
                    for uid in uids.iter() {
                        assert!(!model.messages.contains_key(&uid.get()), "{uid} is removed and exists");
                        assert!(self.rows.remove(&uid.get()).is_some(), "{uid} is removed and not held");
                    }
                }
                Write::Forget(uids) => {
                    assert!(uids.intersection(&model.uids()).is_empty(), "{uids} is forgotten and exists");
                    self.forget(uids);
                }
                Write::TakeBack { .. } => unreachable!("there are no edits"),
            }
        }
        self.checkpoint = checkpoint.unwrap_or(self.checkpoint);
    }

    pub(super) fn read(&mut self, model: &Model, view: &mut ServerView, read: &ServerRead) {
        match read {
            ServerRead::Messages(batches) => {
                for batch in batches {
                    assert!(!batch.uids.is_empty());
                    assert!(batch.uids.intersection(&view.seen.asked).is_empty(), "asked twice");
                    assert!(batch.uids.intersection(&self.unreadable).is_empty(), "left out and asked");
                    assert!(batch.uids.intersection(&self.outside).is_empty(), "not kept and asked");
                    let delicate = batch.uids.intersection(&self.view().delicate());
                    assert!(
                        delicate.is_empty() || (batch.uids.len() == 1 && batches.len() == 1),
                        "not alone"
                    );
                    assert_eq!(batch.raw, !batch.uids.intersection(&self.raw).is_empty());
                    self.forget(&batch.uids);
                    self.fetch(model, &batch.uids, false);
                    view.seen.asked = view.seen.asked.union(&batch.uids);
                    self.checkpoint = batch.then;
                }
            }
            ServerRead::List(ListBy::Search) => {
                let mut uids = model.uids();
                if model.truncates_search {
                    uids = uids.take_newest(u32::try_from(uids.len() / 2).unwrap());
                }
                view.seen.listing = Some(uids);
            }
            ServerRead::List(ListBy::Fetch) => view.seen.second_listing = Some(model.uids()),
            ServerRead::Changes { since, vanished } => {
                let changed = model.messages.iter().filter(|(_, (_, modseq))| *modseq > since.get());
                view.seen.silent = changed.clone().next().is_none();
                for (uid, (bits, _)) in changed {
                    self.rows.entry(*uid).and_modify(|row| *row = *bits);
                }
                let gone = model.expunged.iter().filter(|(_, at)| *vanished && *at > since.get());
                let gone: UidSet = gone.filter_map(|(uid, _)| Uid::new(*uid)).collect();
                view.seen.silent &= gone.is_empty();
                view.seen.vanished = Some(gone);
            }
            ServerRead::Flags { uids } => {
                self.fetch(model, uids, true);
                view.seen.flags_read = view.seen.flags_read.union(uids);
            }
        }
    }
}

/// One visit. Between the steps the server changes by `ops`; at step `lost_at` the connection is gone and only
/// the first rows of what was being fetched are stored. Returns the plans.
pub(super) fn visit(
    model: &mut Model,
    store: &mut Store,
    policy: &Policy,
    ops: &[Op],
    lost_at: Option<usize>,
) -> Vec<Plan> {
    let mut view = model.select();
    let mut ops = ops.iter();
    let mut plans = Vec::new();
    loop {
        let next = plan(&view, &store.view(), policy);
        plans.push(next.clone());
        let bound = 30 + 3 * ops.len() + 4 * usize::try_from(model.uidnext).unwrap();
        assert!(plans.len() <= bound, "no end: {:?}", plans.iter().rev().take(6).collect::<Vec<_>>());
        if lost_at == Some(plans.len()) {
            if let Plan::Read(ServerRead::Messages(batches)) = &next {
                let half: UidSet = batches[0].uids.iter().take(2).collect();
                store.fetch(model, &half, false);
            }
            return plans;
        }
        match &next {
            Plan::Read(read) => store.read(model, &mut view, read),
            Plan::Record { writes, checkpoint } => store.write(model, &mut view, writes, *checkpoint),
            Plan::Send(push) => unreachable!("there are no edits: {push:?}"),
            Plan::Done => return plans,
        }
        if let Some(op) = ops.next() {
            model.apply(op, Some(&mut view));
        }
    }
}

pub(super) fn assert_equal(model: &Model, store: &Store) {
    let server: BTreeMap<u32, i16> = model.messages.iter().map(|(uid, (bits, _))| (*uid, *bits)).collect();
    let differ: Vec<_> = (1..model.uidnext).filter(|uid| store.rows.get(uid) != server.get(uid)).collect();
    assert!(differ.is_empty(), "UIDs that differ: {differ:?}");
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => (1u8..40).prop_map(Op::Arrive),
        3 => any::<usize>().prop_map(Op::Expunge),
        2 => (any::<usize>(), 0i16..32).prop_map(|(i, bits)| Op::Flag(i, bits)),
    ]
}

#[derive(Debug, Clone)]
struct Round {
    between: Vec<Op>,
    during: Vec<Op>,
    lost_at: Option<usize>,
    new_epoch: bool,
    depth: Depth,
}

fn any_round() -> impl Strategy<Value = Round> {
    let ops = || prop::collection::vec(any_op(), 0..12);
    let depth = prop_oneof![5 => Just(Depth::Full), 1 => Just(Depth::Head), 1 => Just(Depth::Audit)];
    (ops(), ops(), prop::option::weighted(0.4, 1usize..12), prop::bool::weighted(0.1), depth).prop_map(
        |(between, during, lost_at, new_epoch, depth)| Round { between, during, lost_at, new_epoch, depth },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_happens_a_quiet_visit_makes_the_copy_equal(
        flavour in prop_oneof![Just(Flavour::Qresync), Just(Flavour::Condstore), Just(Flavour::Plain)],
        tells_uidnext in prop::bool::weighted(0.8),
        truncates_search in prop::bool::weighted(0.2),
        batch in 1u32..60,
        start in 0u32..200,
        in_the_way in prop::collection::vec((1u32..250, any::<bool>()), 0..12),
        rounds in prop::collection::vec(any_round(), 0..6),
    ) {
        let mut model = Model { tells_uidnext, truncates_search, ..Model::new(flavour) };
        model.arrive(start);
        let mut store = Store::default();
        for (uid, raw) in in_the_way {
            if raw { &mut store.raw } else { &mut store.alone }.insert(Uid::new(uid).unwrap());
        }
        let mut policy = Policy { batch, first_batch: 5, batches_ahead: 2, flags_batch: 30, ..Policy::default() };
        for round in &rounds {
            if round.new_epoch {
                model.uidvalidity += 1;
                let kept: Vec<_> = model.messages.values().copied().collect();
                model.messages = kept.into_iter().zip(1..).map(|(message, uid)| (uid, message)).collect();
                model.uidnext = u32::try_from(model.messages.len()).unwrap() + 1;
                model.expunged.clear();
            }
            round.between.iter().for_each(|op| model.apply(op, None));
            policy.depth = round.depth;
            visit(&mut model, &mut store, &policy, &round.during, round.lost_at);
        }
        policy.depth = Depth::Full;
        visit(&mut model, &mut store, &policy, &[], None);
        assert_equal(&model, &store);
        prop_assert!(!store.old_generation);
        prop_assert_eq!(store.checkpoint.tail_uid, 1);

        let again = visit(&mut model, &mut store, &policy, &[], None);
        let idle = |plan: &Plan| matches!(plan, Plan::Done)
            || (flavour == Flavour::Plain && matches!(plan, Plan::Read(ServerRead::Flags { .. })))
            || (!tells_uidnext && matches!(plan, Plan::Read(ServerRead::List(_))));
        prop_assert!(again.iter().all(idle), "{:?}", again);
    }
}
