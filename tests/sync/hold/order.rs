//! Edits of one message that follow each other: the last one holds, and none reaches what it was not meant for.

use serde_json::{Value, json};
use tests::eventually::eventually;
use tests::fault::{Cut, End, Toward};

use super::{HOSTS, PATIENCE, Wire, act, assert_both, here, places, there, turn, two_rounds, wired};
use crate::case::{Case, numbered};

/// Odd messages are starred and not starred again, even ones read and unread.
fn set_and_cleared(n: u32) -> (Value, Value) {
    match n % 2 {
        1 => (json!({"starred": true}), json!({"starred": false})),
        _ => (json!({"unread": false}), json!({"unread": true})),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flag_that_is_set_before_a_move_and_cleared_after_it_is_set_nowhere() {
    for host in HOSTS {
        let case = Case::at(host, None, (1..=8).map(numbered).collect()).await;
        case.sync().await;
        let (ids, archive) = (case.ids().await, case.mailbox("Archive").await);
        // Some while a worker is at it, some before any is told.
        for n in 1..=8 {
            if n == 5 {
                turn(&case, "pause").await;
            }
            let (id, (set, cleared)) = (&ids[&format!("M{n}")], set_and_cleared(n));
            case.patch(id, &set).await;
            case.patch(id, &json!({"move_to": archive})).await;
            case.patch(id, &cleared).await;
            assert_eq!(here(&case, id).await, places(&[("Archive", "")]), "M{n} at once, {host}");
        }
        turn(&case, "resume").await;
        two_rounds(&case).await;
        for n in 1..=8 {
            assert_both(&case, (&ids[&format!("M{n}")], n), &[("Archive", "")], host).await;
        }
        case.settled().await;
        case.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_star_in_one_mailbox_does_not_reach_the_copy_that_was_made_before_it() {
    for host in HOSTS {
        let case = Case::at(host, None, (1..=4).map(numbered).collect()).await;
        case.sync().await;
        let (ids, inbox, archive) =
            (case.ids().await, case.mailbox("INBOX").await, case.mailbox("Archive").await);
        for n in 1..=4 {
            if n == 3 {
                turn(&case, "pause").await;
            }
            let id = &ids[&format!("M{n}")];
            act(&case, id, "copy", &archive).await;
            case.patch(id, &json!({"starred": true, "mailbox_id": inbox})).await;
        }
        turn(&case, "resume").await;
        two_rounds(&case).await;
        for n in 1..=4 {
            let expected = [("Archive", ""), ("INBOX", "\\Flagged")];
            assert_both(&case, (&ids[&format!("M{n}")], n), &expected, host).await;
        }
        case.settled().await;
        case.finish().await;
    }
}

/// The server has done it, nobody knows, and our user goes on.
async fn cleared_in_doubt(case: &Case, wire: &Wire, action: &str) {
    let (ids, work) = (case.ids().await, case.mailbox("Work").await);
    let id = &ids["M1"];
    // The server says it in the answer to COPY, or before the end of MOVE.
    wire.proxy.cut(Toward::Client, Cut::before("OPYUID", End::Hole));
    case.patch(id, &json!({"starred": true})).await;
    act(case, id, action, &work).await;
    wire.is_cut().await;
    eventually("it is in the target", PATIENCE, async || {
        there(case, 1).await.iter().any(|(mailbox, _)| mailbox == "Work").then_some(())
    })
    .await;
    case.patch(id, &json!({"starred": false})).await;
    wire.proxy.hang_up();
    two_rounds(case).await;
}

/// Without them the worker copies and expunges, and without the last two it only marks the original.
const HIDDEN: [&[(&str, &str)]; 3] =
    [&[], &[("MOVE", "XOVE")], &[("MOVE", "XOVE"), ("UIDPLUS", "XIDPLUS"), ("COPYUID", "XOPYUID")]];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_cleared_while_the_answer_to_a_move_is_lost_stays_cleared() {
    for hidden in HIDDEN {
        let (case, wire) = wired(2, &["Work"], hidden).await;
        let ids = case.ids().await;
        cleared_in_doubt(&case, &wire, "move").await;
        assert_both(&case, (&ids["M1"], 1), &[("Work", "")], &format!("{hidden:?}")).await;
        case.settled().await;
        case.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_cleared_while_the_answer_to_a_copy_is_lost_stays_cleared_and_it_is_copied_once() {
    for hidden in [HIDDEN[0], HIDDEN[2]] {
        let (case, wire) = wired(2, &["Work"], hidden).await;
        let ids = case.ids().await;
        cleared_in_doubt(&case, &wire, "copy").await;
        let expected = [("INBOX", ""), ("Work", "")];
        assert_both(&case, (&ids["M1"], 1), &expected, &format!("{hidden:?}")).await;
        case.settled().await;
        case.finish().await;
    }
}
