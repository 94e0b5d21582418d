use super::*;

mod renames;

fn listed(name: &str, epoch: u32, uidnext: u32, messages: u32) -> ListedMailbox {
    ListedMailbox {
        wire_name: name.into(),
        delimiter: Some('/'),
        subscribed: true,
        status: StatusAnswer::Numbers(StatusNumbers {
            messages: Some(messages),
            uidnext: Some(uidnext),
            uidvalidity: Some(UidValidity(epoch)),
            highestmodseq: Some(ModSeq(9)),
        }),
        ..ListedMailbox::default()
    }
}

/// Our row of the same mailbox, synchronised with these numbers.
fn entry(mailbox: &ListedMailbox) -> LocalEntry {
    let numbers = mailbox.numbers();
    LocalEntry {
        wire_name: mailbox.wire_name.clone(),
        delimiter: mailbox.delimiter,
        selectable: true,
        subscribed: true,
        role: mailbox.role,
        mailboxid: mailbox.mailboxid.clone(),
        checkpoint: Checkpoint {
            uidvalidity: numbers.uidvalidity,
            uidnext: numbers.uidnext.unwrap_or(0),
            head_uid: numbers.uidnext.unwrap_or(1) - 1,
            tail_uid: 1,
            modseq: numbers.highestmodseq.unwrap_or_default(),
            exists_seen: numbers.messages.unwrap_or(0),
            ..Checkpoint::default()
        },
        ..LocalEntry::default()
    }
}

fn tree() -> Vec<ListedMailbox> {
    vec![listed("INBOX", 1, 10, 5), listed("Work", 2, 20, 7), listed("Work/Old", 3, 30, 9)]
}

fn plan_of(listed: &[ListedMailbox], local: &[LocalEntry]) -> TreePlan {
    plan_tree(listed, local, Depth::Full, &Findings::default())
}

fn confirmed() -> Findings {
    Findings { confirmed: true, ..Findings::default() }
}

fn entries(listed: &[ListedMailbox]) -> Vec<LocalEntry> {
    listed.iter().map(entry).collect()
}

#[test]
fn a_mailbox_with_unchanged_numbers_is_not_visited() {
    let listed = tree();
    assert_eq!(plan_of(&listed, &entries(&listed)), TreePlan::default());
    assert_eq!(plan_tree(&listed, &entries(&listed), Depth::Audit, &Findings::default()).visits.len(), 3);
    let changes: [fn(&mut LocalEntry); 7] = [
        |e| e.checkpoint.uidnext -= 1,
        |e| e.checkpoint.exists_seen += 1,
        |e| e.checkpoint.modseq = ModSeq(8),
        |e| e.checkpoint.modseq = ModSeq::ZERO,
        |e| e.checkpoint.uidvalidity = Some(UidValidity(99)),
        |e| e.checkpoint.tail_uid = 2,
        |e| e.unfinished = true,
    ];
    for change in changes {
        let mut local = entries(&listed);
        change(&mut local[1]);
        assert_eq!(plan_of(&listed, &local).visits, [1]);
    }
}

#[test]
fn mailboxes_are_visited_in_the_order_people_wait_for_them() {
    let with = |name: &str, role| ListedMailbox { role, ..listed(name, 1, 5, 1) };
    let mut all = vec![
        with("Trash", Some(Role::Trash)),
        with("Spam", Some(Role::Junk)),
        with("All", Some(Role::All)),
        listed("quiet", 1, 50, 1),
        listed("busy", 1, 60, 1),
        with("Drafts", Some(Role::Drafts)),
        with("Sent", Some(Role::Sent)),
        with("inbox", None),
    ];
    assert_eq!(plan_of(&all, &[]).visits, [7, 6, 5, 4, 3, 2, 1, 0]);
    let mut local = entries(&all);
    local[3].active_at = 1_700_000_000;
    all[7].status = StatusAnswer::None;
    let audit = plan_tree(&all, &local, Depth::Audit, &Findings::default());
    assert_eq!(audit.visits, [7, 6, 5, 3, 4, 2, 1, 0]);
    assert_eq!(plan_of(&all, &local).visits, [7], "without numbers it has to be looked at");
}

/// Of a mailbox that has to be visited.
fn create(listed: usize) -> TreeWrite {
    TreeWrite::Create { listed, at: Checkpoint::default() }
}

#[test]
fn an_empty_mailbox_is_settled_by_its_numbers() {
    let told = StatusNumbers {
        messages: Some(0),
        uidnext: Some(8),
        uidvalidity: Some(UidValidity(5)),
        highestmodseq: Some(ModSeq(3)),
    };
    let with = |change: fn(&mut StatusNumbers)| {
        let mut numbers = told;
        change(&mut numbers);
        ListedMailbox { status: StatusAnswer::Numbers(numbers), ..listed("new", 0, 0, 0) }
    };
    let at = |modseq| Checkpoint {
        uidvalidity: Some(UidValidity(5)),
        uidnext: 8,
        head_uid: 7,
        tail_uid: 1,
        modseq: ModSeq(modseq),
        ..Checkpoint::default()
    };
    // NOMODSEQ is 0 in STATUS; what is beyond 63 bits cannot be stored.
    for (change, modseq) in [
        ((|_| {}) as fn(&mut StatusNumbers), 3),
        (|n| n.highestmodseq = None, 0),
        (|n| n.highestmodseq = Some(ModSeq::ZERO), 0),
        (|n| n.highestmodseq = Some(ModSeq(u64::MAX)), 0),
    ] {
        let mailbox = with(change);
        let plan = plan_of(std::slice::from_ref(&mailbox), &[]);
        assert_eq!(
            (plan.writes, plan.visits),
            (vec![TreeWrite::Create { listed: 0, at: at(modseq) }], vec![])
        );
        // It stays so, whatever becomes of its mod-sequence, until something arrives.
        let local = LocalEntry { checkpoint: at(modseq), ..entry(&mailbox) };
        for (change, visits) in [
            ((|_| {}) as fn(&mut StatusNumbers), vec![]),
            (|n| n.highestmodseq = None, vec![]),
            (|n| n.highestmodseq = Some(ModSeq(99)), vec![]),
            (|n| n.messages = Some(1), vec![0]),
            (|n| n.messages = None, vec![0]),
            (|n| n.uidnext = Some(9), vec![0]),
            (|n| n.uidvalidity = Some(UidValidity(6)), vec![0]),
        ] {
            assert_eq!(plan_of(&[with(change)], std::slice::from_ref(&local)).visits, visits);
        }
    }
    let visited: [fn(&mut StatusNumbers); 6] = [
        |n| n.messages = Some(1),
        |n| n.messages = None,
        |n| n.uidnext = Some(0),
        |n| n.uidnext = None,
        |n| n.uidvalidity = Some(UidValidity(0)),
        |n| n.uidvalidity = None,
    ];
    for change in visited {
        let plan = plan_of(&[with(change)], &[]);
        assert_eq!((plan.writes, plan.visits), (vec![create(0)], vec![0]));
    }
    for status in [StatusAnswer::None, StatusAnswer::Refused] {
        let plan = plan_of(&[ListedMailbox { status, ..listed("new", 0, 0, 0) }], &[]);
        assert_eq!(plan.writes, [create(0)], "{status:?}");
    }
    // One that another mailbox was before, and the audit, open it all the same.
    let mut before = ListedMailbox { mailboxid: Some("A".into()), ..listed("new", 4, 20, 9) };
    let local = entries(std::slice::from_ref(&before));
    before = ListedMailbox { mailboxid: Some("B".into()), ..with(|_| {}) };
    assert_eq!(plan_of(std::slice::from_ref(&before), &local).visits, [0]);
    let audit = plan_tree(&[with(|_| {})], &[], Depth::Audit, &Findings::default());
    assert_eq!((audit.writes, audit.visits), (vec![create(0)], vec![0]));
}

#[test]
fn new_and_deleted_mailboxes_are_written() {
    let listed = tree();
    let local = entries(&listed[..2]);
    let plan = plan_of(&listed, &local);
    assert_eq!((plan.writes, plan.visits), (vec![create(2)], vec![2]));
    let plan = plan_of(&listed[..2], &entries(&listed));
    assert_eq!(plan.writes, [TreeWrite::Remove { local: 2 }]);
}

#[test]
fn a_listing_without_inbox_keeps_the_tree() {
    let listed = tree();
    let local = entries(&listed);
    assert_eq!(plan_of(&[], &local).writes, []);
    assert_eq!(plan_of(&listed[1..2], &local).writes, []);
    assert_eq!(plan_tree(&[], &local, Depth::Full, &confirmed()).writes, []);
    // Nor does a rename take the name of one that is kept.
    let mut before = tree();
    before[1].mailboxid = Some("A".into());
    before[2].mailboxid = Some("B".into());
    let after = [ListedMailbox { mailboxid: Some("B".into()), ..before[1].clone() }];
    assert_eq!(plan_of(&after, &entries(&before)).writes, []);
}

#[test]
fn many_missing_mailboxes_need_a_second_listing() {
    let many: Vec<ListedMailbox> =
        (0..20).map(|n| listed(&format!("m{n}"), 100 + n, 5, 1)).chain(tree()).collect();
    let local = entries(&many);
    let plan = plan_of(&tree(), &local);
    assert!(plan.needs_second_listing && plan.writes.is_empty());
    let plan = plan_tree(&tree(), &local, Depth::Full, &confirmed());
    assert_eq!((plan.needs_second_listing, plan.writes.len()), (false, 20));
}

#[test]
fn a_rename_onto_one_of_many_missing_mailboxes_waits_for_the_second_listing() {
    let with = |name: &str, id: u32| ListedMailbox {
        mailboxid: Some(format!("F{id}")),
        ..listed(name, 100 + id, 5, 1)
    };
    let branch = |name: &str, first: u32| -> Vec<ListedMailbox> {
        let below = (1..8).map(|n| with(&format!("{name}/{n}"), first + n));
        [with(name, first)].into_iter().chain(below).collect()
    };
    let inbox = || [with("INBOX", 1)].into_iter();
    let before: Vec<_> = inbox().chain(branch("Old", 10)).chain(branch("New", 20)).collect();
    // Another client deletes `Old` with all below it and gives its name to `New`.
    let after: Vec<_> = inbox().chain(branch("Old", 20)).collect();
    let local = entries(&before);
    let plan = plan_of(&after, &local);
    assert_eq!(plan, TreePlan { needs_second_listing: true, ..TreePlan::default() });
    let plan = plan_tree(&after, &local, Depth::Full, &confirmed());
    let removed = |w: &&TreeWrite| matches!(w, TreeWrite::Remove { local: 1..=8 });
    let renamed = |w: &&TreeWrite| matches!(w, TreeWrite::Rename { local: 9..=16, relink: false, .. });
    assert_eq!(plan.writes.iter().filter(removed).count(), 8);
    assert_eq!((plan.writes.iter().filter(renamed).count(), plan.writes.len()), (8, 16));
}

#[test]
fn a_recreated_mailbox_starts_a_generation() {
    let mut before = tree();
    before[1].mailboxid = Some("A".into());
    let mut after = before.clone();
    after[1].mailboxid = Some("Z".into());
    let plan = plan_of(&after, &entries(&before));
    assert_eq!(plan.writes[0], TreeWrite::Recreate { local: 1, listed: 1 });
    assert_eq!(plan.visits, [1]);
}

#[test]
fn a_phantom_is_kept_but_not_visited() {
    let mut after = tree();
    after[1].status = StatusAnswer::Refused;
    let plan = plan_of(&after, &entries(&tree()));
    assert_eq!((plan.writes, plan.visits), (vec![TreeWrite::Update { local: 1, listed: 1 }], vec![]));
    after[1].noselect = true;
    let plan = plan_of(&after, &entries(&tree()));
    assert!(plan.writes.contains(&TreeWrite::Empty { local: 1 }));
    // Renamed, and deleted before it was read under its new name: only messages are left of it.
    let mut before = entries(&tree());
    before[1].checkpoint.uidvalidity = None;
    before[1].active_at = 1_700_000_000;
    assert!(plan_of(&after, &before).writes.contains(&TreeWrite::Empty { local: 1 }));
    before[1].active_at = 0;
    assert!(!plan_of(&after, &before).writes.contains(&TreeWrite::Empty { local: 1 }));
}

#[test]
fn inbox_is_one_mailbox_in_any_case() {
    let mut after = tree();
    after[0].wire_name = b"Inbox".to_vec();
    after.push(listed("INBOX", 1, 10, 5));
    assert_eq!(plan_of(&after, &entries(&tree())), TreePlan::default());
}
