//! Ids stay with mailboxes and not with their names.

use super::*;

/// What is planned in the end when each look shows what `look` says, and how many looks that took.
fn plan_with(
    listed: &[ListedMailbox],
    local: &[LocalEntry],
    look: impl Fn(usize, usize) -> Verdict,
) -> (TreePlan, usize) {
    let mut findings = confirmed();
    loop {
        let plan = plan_tree(listed, local, Depth::Full, &findings);
        if plan.compare.is_empty() {
            return (plan, findings.verdicts.len());
        }
        assert_eq!((&plan.writes, &plan.visits), (&vec![], &vec![]), "nothing is decided before");
        for pair in plan.compare {
            let before = findings.verdicts.insert(pair, look(pair.local, pair.listed));
            assert_eq!(before, None, "asked twice");
        }
    }
}

fn rename(local: usize, listed: usize, relink: bool) -> TreeWrite {
    TreeWrite::Rename { local, listed, relink }
}
#[test]
fn a_rename_is_found_by_mailboxid() {
    let mut before = tree();
    before[1].mailboxid = Some("A".into());
    before[2].mailboxid = Some("B".into());
    let local = entries(&before);
    let mut after = before.clone();
    after[1].wire_name = b"Work/Old".to_vec();
    after[2].wire_name = b"Work".to_vec();
    let plan = plan_of(&after, &local);
    assert_eq!(
        plan.writes,
        [
            TreeWrite::Rename { local: 1, listed: 1, relink: false },
            TreeWrite::Rename { local: 2, listed: 2, relink: false },
        ]
    );
    assert!(plan.visits.is_empty());
}

#[test]
fn a_rename_without_mailboxid_is_proven_by_its_contents_and_keeps_its_numbers() {
    let local = entries(&tree());
    let mut after = tree();
    after[2].wire_name = b"Attic".to_vec();
    for verdict in [Verdict::Same, Verdict::Alike] {
        let (plan, looks) = plan_with(&after, &local, |_, _| verdict);
        assert_eq!((plan.writes, plan.visits, looks), (vec![rename(2, 2, false)], vec![], 1));
    }
    // What is new in it is read like in any other.
    after[2].status = listed("", 3, 31, 10).status;
    assert_eq!(plan_with(&after, &local, |_, _| Verdict::Same).0.visits, [2]);
    let other = plan_with(&after, &local, |_, _| Verdict::Other).0;
    assert_eq!((other.writes, other.visits), (vec![TreeWrite::Remove { local: 2 }, create(2)], vec![2]));
}

#[test]
fn a_rename_that_contents_do_not_prove_is_relinked() {
    let local = entries(&tree());
    let mut after = tree();
    after[2].wire_name = b"Attic".to_vec();
    for verdict in [Verdict::Unknown, Verdict::Nothing] {
        let (plan, looks) = plan_with(&after, &local, |_, _| verdict);
        assert_eq!((plan.writes, plan.visits, looks), (vec![rename(2, 2, true)], vec![2], 1), "{verdict:?}");
    }
    // Where nothing is left there is nothing to look at.
    after[2].status = listed("", 3, 30, 0).status;
    assert_eq!(plan_of(&after, &local).writes, [rename(2, 2, true)]);
}

#[test]
fn mailboxes_that_swap_their_names_keep_what_they_are() {
    let before =
        [listed("INBOX", 1, 10, 5), listed("a", 2, 20, 7), listed("b", 3, 30, 9), listed("c", 4, 9, 2)];
    let local = entries(&before);
    let named = |names: [&str; 3]| {
        let mut after = before.to_vec();
        for (mailbox, name) in after[1..].iter_mut().zip(names) {
            mailbox.wire_name = name.into();
        }
        after
    };
    let all = vec![rename(1, 1, false), rename(2, 2, false), rename(3, 3, false)];
    for (names, writes) in
        [(["b", "a", "c"], all[..2].to_vec()), (["b", "c", "a"], all.clone()), (["c", "a", "b"], all)]
    {
        let (plan, looks) = plan_with(&named(names), &local, |_, _| Verdict::Same);
        assert_eq!((looks, plan.visits, &plan.renumbered), (writes.len(), vec![], &vec![]), "{names:?}");
        assert_eq!(plan.writes, writes, "{names:?}");
        // Not proven: new generations under the old names.
        let (plan, _) = plan_with(&named(names), &local, |_, _| Verdict::Unknown);
        assert_eq!((plan.writes, plan.visits.len()), (vec![], writes.len()), "{names:?}");
        assert_eq!(plan.renumbered.len(), writes.len());
    }
    // Of one that is proven to be elsewhere the name is free for what another one is by its number.
    let mut empty = named(["b", "a", "c"]);
    let mut local = local;
    empty[2].status = listed("", 3, 30, 0).status;
    local[2].checkpoint.exists_seen = 0;
    let (plan, looks) = plan_with(&empty, &local, |_, _| Verdict::Same);
    assert_eq!((plan.writes, looks), (vec![rename(1, 1, false), rename(2, 2, false)], 1));
}

#[test]
fn a_new_mailbox_under_the_name_of_a_renamed_one_is_another() {
    let local = entries(&tree());
    let mut after = tree();
    after[1].wire_name = b"Attic".to_vec();
    after.push(listed("Work", 9, 3, 2));
    let (plan, looks) = plan_with(&after, &local, |_, _| Verdict::Same);
    assert_eq!((plan.writes, plan.visits, looks), (vec![rename(1, 1, false), create(3)], vec![3], 1));
    // What is not proven stays with the name, and so does what has a mailbox by its name and number already.
    for verdict in [Verdict::Unknown, Verdict::Other] {
        let plan = plan_with(&after, &local, |_, _| verdict).0;
        assert_eq!((plan.writes, plan.renumbered), (vec![create(1)], vec![1]), "{verdict:?}");
    }
    // A parent that was made under the old name has no number at all.
    after[3] = ListedMailbox { noselect: true, status: StatusAnswer::None, ..listed("Work", 0, 0, 0) };
    let plan = plan_with(&after, &local, |_, _| Verdict::Same).0;
    assert_eq!(plan.writes, [rename(1, 1, false), create(3)]);
    let inbox = [listed("INBOX", 9, 1, 0), listed("Old", 1, 10, 5)];
    assert_eq!(plan_of(&inbox, &entries(&tree()[..1])).writes, [create(1)], "INBOX is what has its name");
}

#[test]
fn a_mailbox_renamed_once_more_before_it_was_read_is_known_by_its_number() {
    let mut local = entries(&tree());
    local[1].checkpoint = local[1].checkpoint.next_generation(Some(UidValidity(2)));
    let mut after = tree();
    after[1].wire_name = b"Attic".to_vec();
    assert_eq!(plan_of(&after, &local).writes, [rename(1, 1, true)]);
    after.push(listed("Work", 9, 3, 2));
    assert_eq!(plan_of(&after, &local).writes, [rename(1, 1, true), create(3)]);
    // A number that others have, too, is none.
    after.push(listed("Other", 2, 3, 2));
    assert_eq!(plan_of(&after, &local).writes, [create(1), create(4)]);
}

#[test]
fn parents_that_cannot_be_selected_go_where_those_below_them_went() {
    let parent =
        |name: &str| ListedMailbox { noselect: true, status: StatusAnswer::None, ..listed(name, 0, 0, 0) };
    let of = |all: &[ListedMailbox]| -> Vec<LocalEntry> {
        let one = |m: &ListedMailbox| LocalEntry { selectable: m.selectable(), ..entry(m) };
        let mut local: Vec<_> = all.iter().map(one).collect();
        for e in local.iter_mut().filter(|e| !e.selectable) {
            e.checkpoint = Checkpoint::default();
        }
        local
    };
    let tree = |names: [&str; 5]| {
        vec![
            listed("INBOX", 1, 10, 5),
            parent(names[0]),
            parent(names[1]),
            listed(names[2], 2, 5, 4),
            listed(names[3], 3, 5, 4),
            listed(names[4], 4, 5, 4),
        ]
    };
    let local = of(&tree(["a", "a/m", "a/m/x", "a/m/y", "a/z"]));
    let renamed = |at: usize| rename(at, at, false);
    let cases = [
        (["b", "b/m", "b/m/x", "b/m/y", "b/z"], vec![1, 2, 3, 4, 5]),
        (["b", "b/n", "b/n/x", "b/n/y", "b/z"], vec![1, 2, 3, 4, 5]),
        // One of them was renamed again: the others tell.
        (["b", "b/m", "q", "b/m/y", "b/z"], vec![1, 2, 3, 4, 5]),
        (["a", "a/n", "a/n/x", "a/n/y", "a/z"], vec![2, 3, 4]),
    ];
    for (names, expected) in cases {
        let plan = plan_with(&tree(names), &local, |_, _| Verdict::Same).0;
        assert_eq!(plan.writes, expected.into_iter().map(renamed).collect::<Vec<_>>(), "{names:?}");
    }
    // Nobody tells.
    let names = ["b", "b/m", "b/m/p", "b/m/q", "r"];
    let plan = plan_with(&tree(names), &local, |_, _| Verdict::Same).0;
    let made = plan.writes.iter().filter(|w| matches!(w, TreeWrite::Create { listed: 1 | 2, .. })).count();
    assert_eq!((made, plan.writes.len()), (2, 7));
}

#[test]
fn where_all_mailboxes_share_a_uidvalidity_few_are_compared_and_the_likeliest_first() {
    let named = |prefix: &str, n: u32| listed(&format!("{prefix}/{n}"), 1, 10 + n, n + 1);
    let before: Vec<_> =
        [listed("INBOX", 1, 10, 5)].into_iter().chain((0..40).map(|n| named("a", n))).collect();
    let after: Vec<_> =
        [listed("INBOX", 1, 10, 5)].into_iter().chain((0..40).rev().map(|n| named("b", n))).collect();
    let local = entries(&before);
    let is_it = |local: usize, listed: usize| local + listed == 41;
    let same = |local, listed| if is_it(local, listed) { Verdict::Same } else { Verdict::Other };
    let (plan, looks) = plan_with(&after, &local, same);
    assert_eq!((looks, plan.writes.len(), plan.visits.len()), (40, 40, 0));
    assert!(plan.writes.iter().all(|w| matches!(w, TreeWrite::Rename { relink: false, .. })));
    // Dates alone prove nothing here.
    let (plan, looks) = plan_with(&after, &local, |_, _| Verdict::Alike);
    assert!(
        looks <= 3 * 40 && plan.writes.iter().all(|w| matches!(w, TreeWrite::Rename { relink: true, .. }))
    );
    let (plan, looks) = plan_with(&after, &local, |_, _| Verdict::Other);
    assert!(looks <= 3 * 40, "{looks}");
    assert_eq!(plan.writes.len(), 40 + 40);
}

#[test]
fn a_mailbox_that_keeps_its_name_keeps_others_from_it_while_the_tree_is_kept() {
    let ids = |all: &[(&str, &str)]| -> Vec<ListedMailbox> {
        let one = |(name, id): &(&str, &str)| ListedMailbox {
            mailboxid: Some((*id).to_owned()),
            ..listed(name, 7, 5, 1)
        };
        all.iter().map(one).collect()
    };
    let local = entries(&ids(&[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")]));
    // INBOX is not listed: `c` is kept, so `b` stays what it is called, and so does `a`.
    let plan = plan_of(&ids(&[("b", "1"), ("c", "2"), ("e", "4")]), &local);
    assert_eq!(plan.writes, [rename(3, 2, false)]);
}

#[test]
fn a_renamed_mailbox_that_holds_nothing_keeps_its_numbers() {
    let before = [listed("INBOX", 1, 10, 5), listed("a", 2, 20, 0)];
    let local = entries(&before);
    for (uidnext, messages, relink, visits) in
        [(20, 0, false, vec![]), (21, 0, false, vec![1]), (19, 0, true, vec![1]), (21, 1, true, vec![1])]
    {
        let plan = plan_of(&[listed("INBOX", 1, 10, 5), listed("b", 2, uidnext, messages)], &local);
        assert_eq!((plan.writes, plan.visits), (vec![rename(1, 1, relink)], visits));
    }
}

#[test]
fn where_all_mailboxes_share_a_uidvalidity_counts_or_names_tell_a_rename() {
    let before = [listed("INBOX", 1, 10, 5), listed("a/x", 1, 20, 7), listed("a/y", 1, 30, 9)];
    let after = [listed("INBOX", 1, 10, 5), listed("b/x", 1, 30, 9), listed("b/y", 1, 20, 7)];
    let renames = plan_with(&after, &entries(&before), |_, _| Verdict::Unknown).0.writes;
    assert_eq!(renames.len(), 2);
    assert!(renames.contains(&TreeWrite::Rename { local: 1, listed: 2, relink: true }), "{renames:?}");
    let after = [listed("INBOX", 1, 10, 5), listed("b/y", 1, 31, 8), listed("b/x", 1, 21, 6)];
    let renames = plan_with(&after, &entries(&before), |_, _| Verdict::Unknown).0.writes;
    assert!(renames.contains(&TreeWrite::Rename { local: 1, listed: 2, relink: true }), "{renames:?}");
    let after = [listed("INBOX", 1, 10, 5), listed("p", 1, 31, 8), listed("q", 1, 21, 6)];
    let writes = plan_with(&after, &entries(&before), |_, _| Verdict::Unknown).0.writes;
    assert!(!writes.iter().any(|w| matches!(w, TreeWrite::Rename { .. })), "{writes:?}");
}
