//! Mailboxes that get other names: their ids, their messages and what our user asked of these go along.

use serde_json::json;
use tests::fault::{Cut, End, Toward};

use super::{assert_both, flagged_there, ids_here, make, turn, two_rounds, wired};
use crate::case::{Case, numbered};
use crate::edits::mailbox_id;
use crate::odd::{FULL, PLAIN, Rig};

/// A mailbox of this name with these messages.
async fn filled(case: &Case, name: &str, numbers: std::ops::RangeInclusive<u32>) {
    make(case, &[name]).await;
    let mut client = case.client().await;
    for n in numbers {
        client.append(name, "", None, &numbered(n)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mailbox_renamed_twice_before_it_was_looked_at_is_the_same_and_its_edits_are_done() {
    let (case, wire) = wired(1, &[], &[]).await;
    filled(&case, "Work", 2..=16).await;
    case.sync().await;
    let (before, ids, work) = (ids_here(&case).await, case.ids().await, case.mailbox("Work").await);
    turn(&case, "pause").await;
    for n in 2..=16 {
        case.patch(&ids[&format!("M{n}")], &json!({"starred": true})).await;
    }
    let mut client = case.client().await;
    client.ok("RENAME Work First").await;
    // Its new name is known, and before anything in it is seen it has another one.
    wire.proxy.cut(Toward::Server, Cut::before("SELECT \"First\"", End::Hole));
    turn(&case, "resume").await;
    wire.is_cut().await;
    client.ok("RENAME First Second").await;
    wire.proxy.hang_up();
    case.round().await;
    two_rounds(&case).await;
    assert_eq!(ids_here(&case).await, before);
    assert_eq!(case.mailbox("Second").await, work);
    assert_eq!(flagged_there(&case, "\\Flagged").await, 15);
    for n in [2, 9, 16] {
        let id = &ids[&format!("M{n}")];
        assert_both(&case, (id, n), &[("Second", "\\Flagged")], "renamed twice").await;
    }
    case.settled().await;
    case.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_mailboxes_that_swap_their_names_keep_their_ids() {
    // As many as can be compared one by one, and more.
    for count in [1, 30] {
        let case = Case::with(vec![]).await;
        filled(&case, "A", 1..=count).await;
        filled(&case, "B", 101..=100 + count).await;
        case.sync().await;
        let (before, a, b) = (ids_here(&case).await, case.mailbox("A").await, case.mailbox("B").await);
        let mut client = case.client().await;
        for command in ["RENAME A X", "RENAME B A", "RENAME X B"] {
            client.ok(command).await;
        }
        case.sync().await;
        assert_eq!((case.mailbox("B").await, case.mailbox("A").await), (a, b), "{count} messages");
        assert_eq!(ids_here(&case).await, before);
        case.settled().await;
        case.finish().await;
    }
}

/// They are pushed before the server is asked for its mailboxes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edits_in_mailboxes_that_swapped_their_names_meanwhile_reach_their_messages() {
    let case = Case::with(vec![]).await;
    filled(&case, "A", 1..=3).await;
    filled(&case, "B", 101..=103).await;
    case.sync().await;
    let (before, ids, a) = (ids_here(&case).await, case.ids().await, case.mailbox("A").await);
    turn(&case, "pause").await;
    for n in [2, 102] {
        case.patch(&ids[&format!("M{n}")], &json!({"starred": true})).await;
    }
    let mut client = case.client().await;
    for command in ["RENAME A X", "RENAME B A", "RENAME X B"] {
        client.ok(command).await;
    }
    let events = case.events().await;
    turn(&case, "resume").await;
    two_rounds(&case).await;
    assert_eq!((case.mailbox("B").await, ids_here(&case).await), (a, before));
    assert_both(&case, (&ids["M2"], 2), &[("B", "\\Flagged")], "swapped").await;
    assert_both(&case, (&ids["M102"], 102), &[("A", "\\Flagged")], "swapped").await;
    assert_eq!(flagged_there(&case, "\\Flagged").await, 2);
    assert_eq!(events.kinds(&case.app).await, ["mailbox.updated"; 2], "nothing was read anew");
    case.settled().await;
    case.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_mailbox_under_the_name_of_one_that_was_renamed_is_another() {
    for count in [1, 30] {
        let case = Case::with(vec![]).await;
        filled(&case, "A", 1..=count).await;
        case.sync().await;
        let (before, ids, a) = (ids_here(&case).await, case.ids().await, case.mailbox("A").await);
        case.client().await.ok("RENAME A Old").await;
        filled(&case, "A", 101..=102).await;
        case.sync().await;
        assert_eq!(case.mailbox("Old").await, a, "{count} messages");
        assert_ne!(case.mailbox("A").await, a);
        let now = ids_here(&case).await;
        assert!(before.is_subset(&now) && now.len() == before.len() + 2, "{before:?} {now:?}");
        assert_both(&case, (&ids["M1"], 1), &[("Old", "")], "renamed").await;
        case.settled().await;
        case.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parents_without_messages_keep_their_ids_when_their_tree_is_renamed() {
    let case = Case::with(vec![]).await;
    filled(&case, "Parent/Middle/Leaf", 1..=2).await;
    case.sync().await;
    let before = case.mailboxes().await;
    assert_eq!(
        (&before["Parent"]["selectable"], &before["Parent/Middle"]["selectable"]),
        (&json!(false), &json!(false))
    );
    let (messages, events) = (ids_here(&case).await, case.events().await);
    case.client().await.ok("RENAME Parent Other").await;
    case.sync().await;
    let now = case.mailboxes().await;
    for (old, new) in
        [("Parent", "Other"), ("Parent/Middle", "Other/Middle"), ("Parent/Middle/Leaf", "Other/Middle/Leaf")]
    {
        assert_eq!(now[new]["id"], before[old]["id"], "{old} → {new}");
    }
    assert_eq!(now.len(), before.len());
    assert_eq!(ids_here(&case).await, messages);
    assert_eq!(events.kinds(&case.app).await, ["mailbox.updated"; 3]);
    case.settled().await;
    case.finish().await;
}

/// With MAILBOXID, without it, and without anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_server_tells_of_mailboxes_their_ids_stay_with_them_and_not_with_their_names() {
    let rig = Rig::start().await;
    for capabilities in [&format!("{FULL} OBJECTID"), FULL, PLAIN] {
        let mut odd = rig
            .odd(capabilities, |s| {
                for (name, count) in [("A", 30), ("B", 30), ("C", 2)] {
                    s.add(name).fill(1, count);
                }
                s.add("Parent").attributes = "\\Noselect".to_owned();
                s.add("Parent/Leaf").fill(1, 2);
            })
            .await;
        odd.settled().await;
        let renamed =
            [("A", "B"), ("B", "A"), ("C", "D"), ("Parent", "Other"), ("Parent/Leaf", "Other/Leaf")];
        let mut before = Vec::new();
        for (old, _) in renamed {
            before.push(mailbox_id(&odd, old).await);
        }
        let messages = odd.ids().await;
        {
            let mut state = odd.server.lock();
            for mailbox in &mut state.mailboxes {
                let new = renamed.iter().find(|(old, _)| old.as_bytes() == mailbox.name);
                mailbox.name = new.map_or(mailbox.name.clone(), |(_, new)| new.as_bytes().to_vec());
            }
            state.add("C").fill(31, 32);
        }
        odd.healthy().await;
        let mut now = Vec::new();
        for (_, new) in renamed {
            now.push(mailbox_id(&odd, new).await);
        }
        assert_eq!(now, before, "{capabilities}");
        assert!(!before.contains(&mailbox_id(&odd, "C").await), "{capabilities}");
        let after = odd.ids().await;
        assert!(
            messages.iter().all(|m| after.contains(m)) && after.len() == messages.len() + 2,
            "{capabilities}"
        );
        odd.settled().await;
    }
    rig.finish().await;
}
