//! What our user did after something the server then refuses.

use std::time::Duration;

use serde_json::{Value, json};
use tests::eventually::eventually;
use tests::imapd::{Reply, Times};

use crate::edits::{ROUNDS, change, filled, mailbox_id, message, pushed};
use crate::odd::{FULL, Odd, PLAIN, Rig};

const REFUSED: &str = "{tag} NO [OVERQUOTA] full\r\n";

async fn pause(odd: &Odd<'_>, what: &str) {
    let path = format!("/api/accounts/{}/{what}", odd.account);
    odd.rig.app.post(&odd.rig.tenant, &path, &json!({})).await.expect(200);
}

async fn copy(odd: &Odd<'_>, n: u32, mailbox: &str) {
    let copy = json!({"ids": [message(odd, n).await["id"]], "action": "copy", "mailbox_id": mailbox});
    odd.rig.app.post(&odd.rig.tenant, "/api/messages/actions", &copy).await.expect(200);
}

async fn places(odd: &Odd<'_>, n: u32) -> Vec<Value> {
    let places = message(odd, n).await["mailboxes"].as_array().unwrap().clone();
    places.into_iter().map(|m| m["name"].clone()).collect()
}

fn on_server(odd: &Odd<'_>, mailbox: &str) -> usize {
    odd.server.lock().mailbox(mailbox).messages.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_not_deleted_for_the_sake_of_a_copy_that_is_not_made() {
    let rig = Rig::start().await;
    for capabilities in [FULL, PLAIN] {
        let mut odd = filled(&rig, capabilities).await;
        let work = mailbox_id(&odd, "Work").await;
        pause(&odd, "pause").await;
        copy(&odd, 2, &work).await;
        // It is there, so that only its original has to go.
        change(&odd, 2, json!({"move_to": work})).await;
        odd.server.instead("UID COPY", Times::Each, REFUSED);
        odd.server.instead("UID MOVE", Times::Each, REFUSED);
        pause(&odd, "resume").await;
        // First the copy is given up, then the move.
        for _ in 0..2 * ROUNDS {
            odd.round().await;
            rig.minutes_later().await;
            assert_eq!(on_server(&odd, "INBOX"), 3, "{capabilities}");
        }
        assert!(odd.server.sane() > 0);
        odd.healthy().await;
        assert_eq!(places(&odd, 2).await, ["INBOX"]);
        odd.settled().await;
    }
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_not_deleted_before_it_is_known_that_its_copy_was_made() {
    let rig = Rig::start().await;
    let mut odd = filled(&rig, FULL).await;
    let work = mailbox_id(&odd, "Work").await;
    pause(&odd, "pause").await;
    copy(&odd, 2, &work).await;
    change(&odd, 2, json!({"move_to": work})).await;
    odd.server.instead("UID COPY", Times::First(1), Reply::close(""));
    odd.server.instead("SELECT \"Work\"", Times::First(3), "{tag} NO [CANNOT] not now\r\n");
    pause(&odd, "resume").await;
    for _ in 0..3 {
        odd.round().await;
        let there = (on_server(&odd, "INBOX"), on_server(&odd, "Work"));
        assert!(there == (3, 0) || there == (3, 1) || there == (2, 1), "{there:?}");
    }
    assert!(odd.server.sane() > 1);
    odd.healthy().await;
    pushed(&odd).await;
    odd.healthy().await;
    assert_eq!((on_server(&odd, "INBOX"), on_server(&odd, "Work")), (2, 1));
    assert_eq!(places(&odd, 2).await, ["Work"]);
    odd.settled().await;
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_client_flags_while_our_move_waits_stays_flagged() {
    let rig = Rig::start().await;
    for capabilities in [FULL, PLAIN] {
        let mut odd = filled(&rig, capabilities).await;
        let work = mailbox_id(&odd, "Work").await;
        let command = if capabilities == FULL { "UID MOVE" } else { "UID COPY" };
        odd.server.instead(command, Times::Each, REFUSED);
        change(&odd, 2, json!({"move_to": work, "starred": true, "keywords_add": ["Mine"]})).await;
        eventually("it is refused", Duration::from_secs(60), async || (odd.server.used() > 0).then_some(()))
            .await;
        {
            let mut server = odd.server.lock();
            server.mailbox("INBOX").flag(2, "\\Seen", true);
            server.mailbox("INBOX").flag(2, "Theirs", true);
        }
        odd.round().await;
        assert!(odd.server.sane() > 0);
        odd.healthy().await;
        pushed(&odd).await;
        odd.healthy().await;
        let mut flags = odd.server.lock().mailbox("Work").message(1).flags.clone();
        flags.sort();
        assert_eq!(flags, ["Mine", "Theirs", "\\Flagged", "\\Seen"], "{capabilities}");
        let row = message(&odd, 2).await;
        assert_eq!((&row["unread"], &row["keywords"]), (&json!(false), &json!(["Mine", "Theirs"])));
        if capabilities == FULL {
            odd.settled().await;
        }
    }
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_cannot_be_moved_keeps_the_flags_it_got_on_the_way_and_goes_on_from_where_it_is() {
    let rig = Rig::start().await;
    let mut odd = filled(&rig, FULL).await;
    odd.server.lock().add("Later");
    odd.healthy().await;
    let (work, later) = (mailbox_id(&odd, "Work").await, mailbox_id(&odd, "Later").await);
    let inbox = mailbox_id(&odd, "INBOX").await;
    odd.server.instead("UID MOVE", Times::Each, REFUSED);
    change(&odd, 1, json!({"move_to": work})).await;
    change(&odd, 1, json!({"starred": true, "keywords_add": ["Mine"]})).await;
    for (n, on) in [(2, &later), (3, &inbox)] {
        change(&odd, n, json!({"move_to": work})).await;
        change(&odd, n, json!({"move_to": on})).await;
    }
    for _ in 0..ROUNDS {
        odd.round().await;
        rig.minutes_later().await;
    }
    assert!(odd.server.sane() > 0);
    odd.healthy().await;
    pushed(&odd).await;
    // What was asked for afterwards is done all the same: one was to go on to another mailbox.
    for (n, place) in [(1, "INBOX"), (2, "Later"), (3, "INBOX")] {
        assert_eq!(places(&odd, n).await, [place], "{n}");
    }
    assert_eq!(odd.server.lock().mailbox("INBOX").message(1).flags, ["Mine", "\\Flagged"]);
    let mailboxes =
        rig.app.get(&rig.tenant, &format!("/api/accounts/{}/mailboxes", odd.account)).await.expect(200);
    let totals: Vec<&Value> = mailboxes["data"].as_array().unwrap().iter().map(|m| &m["total"]).collect();
    assert_eq!(totals.iter().filter_map(|t| t.as_u64()).sum::<u64>(), 3, "{totals:?}");
    odd.settled().await;
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_our_user_deleted_for_good_stays_deleted_though_it_could_not_be_moved_before() {
    let rig = Rig::start().await;
    let mut odd = filled(&rig, FULL).await;
    let work = mailbox_id(&odd, "Work").await;
    let delete = async |path: String| assert_eq!(rig.app.delete(&rig.tenant, &path).await.status, 204);
    let mut ids = vec![];
    for n in 1..=3 {
        ids.push(message(&odd, n).await["id"].as_str().unwrap().to_owned());
    }
    // Moved, then deleted there, and the move is refused: it is deleted where it was.
    odd.server.instead("UID MOVE", Times::Each, REFUSED);
    odd.server.instead("UID COPY", Times::Each, REFUSED);
    change(&odd, 1, json!({"move_to": work})).await;
    delete(format!("/api/messages/{}?permanent=true", ids[0])).await;
    // Deleted with its copy, which is never made: it stays deleted.
    copy(&odd, 3, &work).await;
    delete(format!("/api/messages/{}?permanent=true", ids[2])).await;
    odd.told().await;
    for _ in 0..ROUNDS {
        odd.round().await;
        rig.minutes_later().await;
    }
    assert!(odd.server.sane() > 0);
    odd.healthy().await;
    pushed(&odd).await;
    assert!(odd.told().await.iter().all(|kind| !kind.starts_with("message.")));
    assert_eq!(on_server(&odd, "INBOX"), 1);
    // Moved, then deleted there, and the mailbox goes.
    pause(&odd, "pause").await;
    change(&odd, 2, json!({"move_to": work})).await;
    delete(format!("/api/messages/{}?permanent=true", ids[1])).await;
    odd.told().await;
    delete(format!("/api/mailboxes/{work}?with_messages=true")).await;
    assert_eq!(odd.told().await, ["mailbox.deleted"]);
    pause(&odd, "resume").await;
    odd.healthy().await;
    pushed(&odd).await;
    odd.healthy().await;
    assert_eq!(on_server(&odd, "INBOX"), 0);
    odd.settled().await;
    rig.finish().await;
}
