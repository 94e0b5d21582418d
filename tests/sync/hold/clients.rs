//! Another client was there first: what our user asked follows the message, or ends and is told.

use std::time::Duration;

use serde_json::json;
use tests::eventually::eventually;
use tests::imap::Imap;
use tests::imapd::Imapd;
use tests::oracle;
use tests::relay::Relay;

use super::servers::on_server;
use super::{
    HOSTS, PATIENCE, act, all_here, assert_both, flagged_there, here, ids_here, make, places, there, turn,
    two_rounds,
};
use crate::case::{Case, numbered};
use crate::edits::{mailbox_id, message};
use crate::odd::{FULL, PLAIN, Rig};

/// UIDs of INBOX or another mailbox go elsewhere by another client's hand.
async fn moves(client: &mut Imap, from: &str, uids: &str, to: &str) {
    client.select(from).await;
    client.ok(&format!("UID MOVE {uids} {to}")).await;
    client.ok("UNSELECT").await;
}

async fn expunges(client: &mut Imap, uids: &str) {
    client.select("INBOX").await;
    client.ok(&format!("UID STORE {uids} +FLAGS.SILENT (\\Deleted)")).await;
    client.ok(&format!("UID EXPUNGE {uids}")).await;
    client.ok("UNSELECT").await;
}

/// COPY and MOVE take the mark along (RFC 9051 §6.4.7). It may be our own, of a removal whose answer was lost: another client
/// moves the copy on, and the move is made again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_marked_as_deleted_arrives_without_the_mark_and_a_copied_original_keeps_it() {
    for host in HOSTS {
        let case = Case::at(host, None, (1..=3).map(numbered).collect()).await;
        case.sync().await;
        let (ids, archive) = (case.ids().await, case.mailbox("Archive").await);
        turn(&case, "pause").await;
        let mut client = case.client().await;
        client.select("INBOX").await;
        client.ok("UID STORE 1:2 +FLAGS.SILENT (\\Deleted)").await;
        client.ok("UNSELECT").await;
        case.patch(&ids["M1"], &json!({"move_to": archive})).await;
        act(&case, &ids["M2"], "copy", &archive).await;
        act(&case, &ids["M3"], "copy", &archive).await;
        turn(&case, "resume").await;
        two_rounds(&case).await;
        assert_both(&case, (&ids["M1"], 1), &[("Archive", "")], host).await;
        assert_eq!(there(&case, 2).await, places(&[("Archive", "")]), "the original is marked, {host}");
        let shown = places(&[("Archive", ""), ("INBOX", "\\Deleted")]);
        assert_eq!(here(&case, &ids["M2"]).await, shown, "another client's mark stands, {host}");
        assert_both(&case, (&ids["M3"], 3), &[("Archive", ""), ("INBOX", "")], host).await;
        case.settled().await;
        case.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_of_edits_ends_where_it_should_though_its_first_mailbox_was_renamed_or_renumbered() {
    for disturbance in ["renamed", "renumbered"] {
        let case = Case::with(vec![]).await;
        make(&case, &["A", "B", "C"]).await;
        let mut client = case.client().await;
        for n in 1..=2 {
            client.append("A", "", None, &numbered(n)).await;
        }
        case.sync().await;
        let ids = case.ids().await;
        let (a, b, c) = (case.mailbox("A").await, case.mailbox("B").await, case.mailbox("C").await);
        let (id, trash) = (&ids["M1"], case.mailbox("Trash").await);
        turn(&case, "pause").await;
        act(&case, id, "copy", &c).await;
        case.patch(id, &json!({"move_to": b, "mailbox_id": a})).await;
        case.patch(id, &json!({"move_to": a, "mailbox_id": b})).await;
        act(&case, id, "delete", &a).await;
        assert_eq!(here(&case, id).await, places(&[("C", ""), ("Trash", "")]));
        act(&case, id, "delete", &trash).await;
        assert_eq!(here(&case, id).await, places(&[("C", "")]));
        let of_a = match disturbance {
            "renamed" => {
                client.ok("RENAME A Z").await;
                "Z"
            }
            _ => {
                case.doveadm("mailbox update", &["--uid-validity", "4000000000", "A"]);
                "A"
            }
        };
        turn(&case, "resume").await;
        // The first one may find that nothing is where it was.
        case.round().await;
        two_rounds(&case).await;
        assert_both(&case, (id, 1), &[("C", "")], disturbance).await;
        assert_both(&case, (&ids["M2"], 2), &[(of_a, "")], disturbance).await;
        assert_eq!(case.mailbox(of_a).await, a, "{disturbance}");
        case.settled().await;
        case.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_goes_and_comes_back_while_its_neighbour_is_starred_is_the_same() {
    let case = Case::with(vec![]).await;
    make(&case, &["B", "C"]).await;
    let mut client = case.client().await;
    for n in 1..=3 {
        client.append("C", "", None, &numbered(n)).await;
    }
    case.sync().await;
    let (before, ids) = (ids_here(&case).await, case.ids().await);
    let mut uid = 1;
    for (starred, flags) in [(true, "\\Flagged"), (false, ""), (true, "\\Flagged")] {
        moves(&mut client, "C", &uid.to_string(), "B").await;
        moves(&mut client, "B", "1:*", "C").await;
        case.patch(&ids["M2"], &json!({"starred": starred})).await;
        eventually("the neighbour's star is on the server", PATIENCE, async || {
            (there(&case, 2).await == places(&[("C", flags)])).then_some(())
        })
        .await;
        // That push has read what is new in C. No round has looked at what is gone.
        oracle::at_rest(&case.app, &case.account).await;
        assert_eq!(ids_here(&case).await, before, "after the star is {starred}");
        client.select("C").await;
        uid = *client.ok("UID SEARCH HEADER Message-ID m1@example.test").await.numbers().last().unwrap();
        client.ok("UNSELECT").await;
    }
    moves(&mut client, "C", &uid.to_string(), "B").await;
    case.sync().await;
    assert_both(&case, (&ids["M1"], 1), &[("B", "")], "after one more move").await;
    assert_eq!(ids_here(&case).await, before);
    case.settled().await;
    case.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flags_follow_a_message_to_where_another_client_moved_it_first() {
    let case = Case::with((1..=3).map(numbered).collect()).await;
    let (ids, inbox) = (case.ids().await, case.mailbox("INBOX").await);
    turn(&case, "pause").await;
    case.patch(&ids["M1"], &json!({"starred": true})).await;
    case.patch(&ids["M2"], &json!({"starred": true, "unread": false, "mailbox_id": inbox})).await;
    moves(&mut case.client().await, "INBOX", "1", "Archive").await;
    turn(&case, "resume").await;
    two_rounds(&case).await;
    assert_both(&case, (&ids["M1"], 1), &[("Archive", "\\Flagged")], "moved").await;
    assert_both(&case, (&ids["M2"], 2), &[("INBOX", "\\Flagged \\Seen")], "not moved").await;
    assert_both(&case, (&ids["M3"], 3), &[("INBOX", "")], "not asked for").await;
    case.settled().await;
    case.finish().await;
}

const MANY: u32 = 1_200;
const MOVED: u32 = 300;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_messages_that_are_starred_at_once_those_moved_first_are_starred_too() {
    let case = Case::with((1..=MANY).map(numbered).collect()).await;
    let before = ids_here(&case).await;
    assert_eq!(before.len(), MANY as usize);
    turn(&case, "pause").await;
    moves(&mut case.client().await, "INBOX", &format!("1:{MOVED}"), "Archive").await;
    let body = json!({"query": "in:inbox", "action": "star"});
    let job = case.app.post(&case.tenant, "/api/messages/actions", &body).await.expect(202);
    let path = format!("/api/jobs/{}", job["id"].as_str().unwrap());
    let done = eventually("the job is over", Duration::from_secs(120), async || {
        let job = case.app.get(&case.tenant, &path).await.expect(200);
        (job["state"] != "queued" && job["state"] != "running").then_some(job)
    })
    .await;
    turn(&case, "resume").await;
    two_rounds(&case).await;
    let starred = all_here(&case).await.iter().filter(|m| m["starred"] == true).count();
    let found = (flagged_there(&case, "\\Flagged").await, starred);
    assert_eq!(found, (MANY as usize, MANY as usize), "there and here");
    assert_eq!((&done["state"], &done["updated"]), (&json!("done"), &json!(MANY)), "{done}");
    assert_eq!(ids_here(&case).await, before);
    assert_eq!(case.mailboxes().await["Archive"]["total"], MOVED);
    case.settled().await;
    case.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_into_a_mailbox_that_another_client_renames_is_not_given_up_for_other_edits() {
    let case = Case::with((1..=9).map(numbered).collect()).await;
    make(&case, &["B"]).await;
    case.sync().await;
    let (ids, b) = (case.ids().await, case.mailbox("B").await);
    case.client().await.ok("RENAME B Z").await;
    case.patch(&ids["M1"], &json!({"move_to": b})).await;
    for n in 2..=9 {
        case.patch(&ids[&format!("M{n}")], &json!({"starred": true})).await;
        // Each of them is pushed alone: so often the server is asked for what it does not have.
        eventually("the star is on the server", PATIENCE, async || {
            (there(&case, n).await == places(&[("INBOX", "\\Flagged")])).then_some(())
        })
        .await;
    }
    two_rounds(&case).await;
    assert_both(&case, (&ids["M1"], 1), &[("Z", "")], "in the renamed mailbox").await;
    for n in 2..=9 {
        assert_both(&case, (&ids[&format!("M{n}")], n), &[("INBOX", "\\Flagged")], "starred").await;
    }
    assert_eq!(case.mailbox("Z").await, b);
    case.settled().await;
    case.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_expunged_before_our_move_or_copy_of_it_is_gone_at_once() {
    let case = Case::with((1..=4).map(numbered).collect()).await;
    let (ids, archive) = (case.ids().await, case.mailbox("Archive").await);
    turn(&case, "pause").await;
    case.patch(&ids["M1"], &json!({"move_to": archive})).await;
    act(&case, &ids["M2"], "copy", &archive).await;
    case.patch(&ids["M3"], &json!({"starred": true, "move_to": archive})).await;
    expunges(&mut case.client().await, "1:3").await;
    let events = case.events().await;
    turn(&case, "resume").await;
    let status = case.sync().await;
    assert_eq!(
        (&status["run"]["state"], &status["state"]),
        (&json!("done"), &json!("connected")),
        "{status}"
    );
    for n in 1..=3 {
        assert_both(&case, (&ids[&format!("M{n}")], n), &[], "expunged").await;
    }
    assert_both(&case, (&ids["M4"], 4), &[("INBOX", "")], "nobody touched it").await;
    let mailboxes = case.mailboxes().await;
    assert_eq!((&mailboxes["Archive"]["total"], &mailboxes["INBOX"]["total"]), (&json!(0), &json!(1)));
    let told = events.told(&case.app).await;
    for n in 1..=3 {
        let of_it = (String::from("message.deleted"), ids[&format!("M{n}")].clone());
        assert_eq!(told.iter().filter(|t| **t == of_it).count(), 1, "M{n}: {told:?}");
    }
    case.settled().await;
    case.finish().await;
}

/// Without UIDPLUS the original of a move stands there as `\Deleted`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_our_user_moved_away_and_back_is_not_taken_for_its_marked_original_under_another_uidvalidity() {
    let case = Case::at(devstack::PLAIN_HOST, None, (1..=3).map(numbered).collect()).await;
    case.sync().await;
    let ids = case.ids().await;
    let (id, inbox, archive) = (&ids["M2"], case.mailbox("INBOX").await, case.mailbox("Archive").await);
    for target in [&archive, &inbox] {
        case.patch(id, &json!({"move_to": target})).await;
        two_rounds(&case).await;
    }
    let events = case.events().await;
    case.doveadm("mailbox update", &["--uid-validity", "4000000000", "INBOX"]);
    two_rounds(&case).await;
    assert_eq!(case.ids().await, ids, "each is itself, and there is no other");
    assert_eq!(events.kinds(&case.app).await, ["mailbox.reset"]);
    case.patch(id, &json!({"starred": true})).await;
    two_rounds(&case).await;
    assert_both(&case, (id, 2), &[("INBOX", "\\Flagged")], "starred").await;
    case.patch(id, &json!({"move_to": archive})).await;
    two_rounds(&case).await;
    assert_both(&case, (id, 2), &[("Archive", "\\Flagged")], "moved").await;
    case.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_back_beside_what_our_user_left_marked_there_is_the_same() {
    for (back, star) in [("MOVE", false), ("MOVE", true), ("COPY", false), ("COPY", true)] {
        let case = Case::at(devstack::PLAIN_HOST, None, (1..=3).map(numbered).collect()).await;
        make(&case, &["C"]).await;
        case.sync().await;
        let ids = case.ids().await;
        let (id, inbox, archive) = (&ids["M2"], case.mailbox("INBOX").await, case.mailbox("Archive").await);
        for target in [&archive, &inbox] {
            case.patch(id, &json!({"move_to": target})).await;
            two_rounds(&case).await;
        }
        let mut client = case.client().await;
        client.append("C", "", None, &numbered(4)).await;
        case.sync().await;
        client.select("INBOX").await;
        let live = "UID SEARCH UNDELETED HEADER Message-ID m2@example.test";
        let uid = client.ok(live).await.numbers().last().unwrap().to_string();
        client.ok("UNSELECT").await;
        moves(&mut client, "INBOX", &uid, "C").await;
        // The edit of its neighbour has C read, and INBOX not.
        let neighbour = case.ids().await["M4"].clone();
        case.patch(&neighbour, &json!({"starred": true})).await;
        eventually("the neighbour's star is on the server", PATIENCE, async || {
            (there(&case, 4).await == places(&[("C", "\\Flagged")])).then_some(())
        })
        .await;
        oracle::at_rest(&case.app, &case.account).await;
        client.select("C").await;
        let uid = client.ok(live).await.numbers().last().unwrap().to_string();
        client.ok(&format!("UID {back} {uid} INBOX")).await;
        client.ok("UNSELECT").await;
        case.patch(if star { id } else { &ids["M1"] }, &json!({"starred": true})).await;
        two_rounds(&case).await;
        let flags = if star { "\\Flagged" } else { "" };
        let in_c = if back == "COPY" { vec![("C", flags)] } else { vec![] };
        let expected = [in_c, vec![("INBOX", flags)]].concat();
        let mut now = case.ids().await;
        now.remove("M4");
        assert_eq!(now, ids, "each is itself, and there is no other: {back}, {star}");
        assert_both(&case, (id, 2), &expected, back).await;
        case.patch(id, &json!({"move_to": archive})).await;
        two_rounds(&case).await;
        assert_eq!(here(&case, id).await, places(&[("Archive", flags)]), "{back}, {star}");
        case.finish().await;
    }
}

/// Between our look at a message and our command another client takes it away: OK, and nothing was done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_client_moves_in_the_moment_of_our_command_gets_all_of_our_edit_where_it_went() {
    let rig = Rig::start().await;
    let (star, copy, go) = (("star", "UID STORE"), ("copy", "UID COPY"), ("move", "UID MOVE"));
    let without = |word: &str| FULL.replace(word, "");
    let servers = [
        (FULL.to_owned(), [star, copy, go]),
        (without("UIDPLUS"), [star, copy, go]),
        (without("MOVE"), [star, copy, ("move", "UID COPY")]),
        (PLAIN.to_owned(), [star, copy, ("move", "UID COPY")]),
    ];
    for (capabilities, commands) in servers {
        for (edit, command) in commands {
            let what = format!("{edit} on a server with {capabilities}");
            let server = Imapd::start(&capabilities).await;
            server.lock().mailbox("INBOX").fill(1, 3);
            for name in ["B", "C"] {
                server.lock().add(name);
            }
            let relay = Relay::to(server.port).await;
            let mut odd = rig.odd_behind(server, relay.port).await;
            let (id, b) = (message(&odd, 2).await["id"].clone(), mailbox_id(&odd, "B").await);
            let held = relay.hold(command);
            let body = match edit {
                "star" => json!({"ids": [id], "action": "star"}),
                _ => json!({"ids": [id], "action": edit, "mailbox_id": b}),
            };
            rig.app.post(&rig.tenant, "/api/messages/actions", &body).await.expect(200);
            held.reached().await;
            {
                let mut state = odd.server.lock();
                let bytes = state.mailbox("INBOX").message(2).bytes.clone();
                state.mailbox("INBOX").expunge([2]);
                state.mailbox("C").deliver(bytes);
            }
            held.release();
            for _ in 0..3 {
                odd.round().await;
            }
            let marked = edit == "move" && capabilities.is_empty();
            if marked {
                // Without MOVE and UIDPLUS what goes stays as \\Deleted until somebody expunges it.
                assert_eq!(odd.server.lock().mailbox("C").message(1).flags, ["\\Deleted"], "{what}");
                odd.server.lock().mailbox("C").expunge([1]);
                odd.round().await;
            }
            let expected = if edit == "move" { (1, 0) } else { (1, 1) };
            match edit {
                "star" => {
                    assert_eq!(odd.server.lock().mailbox("C").message(1).flags, ["\\Flagged"], "{what}")
                }
                _ => assert_eq!((on_server(&odd, "B"), on_server(&odd, "C")), expected, "{what}"),
            }
            odd.settled().await;
        }
    }
    rig.finish().await;
}
