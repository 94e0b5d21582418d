//! Servers that refuse, that say what is not so, that break the line, that let nobody in.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tests::eventually::eventually;
use tests::imapd::{Reply, Times};
use tests::mail;

use super::PATIENCE;
use crate::edits::{ROUNDS, change, filled, mailbox_id, message};
use crate::odd::{FULL, Odd, PLAIN, Rig};

pub(super) async fn act(odd: &Odd<'_>, n: u32, action: &str, mailbox: &str) {
    let body = json!({"ids": [message(odd, n).await["id"]], "action": action, "mailbox_id": mailbox});
    let done = odd.rig.app.post(&odd.rig.tenant, "/api/messages/actions", &body).await.expect(200);
    assert_eq!(done["updated"], 1, "{action}");
}

/// Names of the mailboxes our user sees a message in, sorted; none when it is not listed.
pub(super) async fn places(odd: &Odd<'_>, n: u32) -> Vec<String> {
    let list = format!("/api/accounts/{}/messages?limit=200", odd.account);
    let page = odd.rig.app.get(&odd.rig.tenant, &list).await.expect(200);
    let subject = format!("M{n}");
    let all = page["data"].as_array().unwrap().iter().filter(|m| m["subject"] == subject.as_str());
    let of = |m: &Value| m["mailboxes"].as_array().unwrap().clone();
    let mut found: Vec<String> = all.flat_map(of).map(|m| m["name"].as_str().unwrap().to_owned()).collect();
    found.sort();
    found
}

pub(super) fn on_server(odd: &Odd<'_>, mailbox: &str) -> usize {
    odd.server.lock().mailbox(mailbox).messages.len()
}

pub(super) async fn status(odd: &Odd<'_>) -> Value {
    odd.rig.app.get(&odd.rig.tenant, &format!("/api/sync/status/{}", odd.account)).await.expect(200)
}

/// What the status says of a mailbox.
pub(super) fn cause<'a>(status: &'a Value, mailbox: &str) -> &'a Value {
    &status["mailboxes"].as_array().unwrap().iter().find(|m| m["name"] == mailbox).unwrap()["cause"]
}

/// Waits until no round and no push could begin now: what waits for its time does not count.
async fn nothing_is_due(odd: &Odd<'_>) {
    let due = "SELECT count(*) FROM jobs WHERE kind IN ('sync_account', 'push_changes') AND dedupe_key = $1
               AND (state = 'running' OR (state = 'ready' AND run_at <= now()))";
    eventually("nothing is due", PATIENCE, async || {
        (odd.rig.count(due, &odd.account).await == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_to_an_archive_that_the_server_refuses_to_make_is_back_in_its_mailbox_and_told() {
    let rig = Rig::start().await;
    for capabilities in [FULL, PLAIN] {
        let mut odd = filled(&rig, capabilities).await;
        odd.server.instead("CREATE", Times::Each, "{tag} NO [NOPERM] you may not\r\n");
        // Once it is known that the server refuses, too: then it may be refused here at once.
        for attempt in ["first", "second"] {
            odd.told().await;
            let body = json!({"ids": [message(&odd, 2).await["id"]], "action": "archive"});
            let answer = rig.app.post(&rig.tenant, "/api/messages/actions", &body).await;
            let taken = answer.status == 200;
            assert!(taken || (attempt == "second" && answer.status == 422), "{}", answer.text());
            for _ in 0..=ROUNDS {
                odd.round().await;
            }
            assert_eq!(places(&odd, 2).await, ["INBOX"], "{attempt} attempt, {capabilities}");
            assert_eq!(on_server(&odd, "INBOX"), 3);
            let told = odd.told().await;
            let updated = told.iter().filter(|kind| *kind == "message.updated").count();
            assert_eq!(updated, if taken { 2 } else { 0 }, "away and back, {attempt} attempt: {told:?}");
            assert!(!told.iter().any(|kind| kind == "message.deleted"), "{told:?}");
        }
        assert!(odd.server.sane() > 0);
        odd.round().await;
        odd.settled().await;
    }
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_that_breaks_twice_at_a_message_hides_it_no_longer_than_to_the_next_round() {
    let rig = Rig::start().await;
    for capabilities in [FULL, PLAIN] {
        let mut odd = filled(&rig, capabilities).await;
        odd.server.lock().mailbox("INBOX").fill(4, 4);
        odd.server
            .spoil("*BODY.PEEK[]", Times::First(2), |sane| Reply::close(&sane.as_bytes()[..sane.len() / 2]));
        for _ in 0..2 {
            odd.round().await;
        }
        assert_eq!(odd.server.used(), 2, "the line broke twice, {capabilities}");
        assert_eq!(odd.uids("INBOX").await, [1, 2, 3, 4], "{capabilities}");
        assert_eq!(places(&odd, 4).await, ["INBOX"]);
        odd.server.sane();
        odd.healthy().await;
        odd.settled_after(&["message.created"]).await;
    }
    rig.finish().await;
}

/// As long as a server may refuse everybody while its directory restarts.
const SOON: Duration = Duration::from_secs(16 * 60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_ins_refused_for_a_moment_while_our_user_edits_do_not_stop_the_account_for_a_day() {
    let rig = Rig::start().await;
    let mut odd = rig.odd(FULL, |s| s.mailbox("INBOX").fill(1, 6)).await;
    odd.settled().await;
    odd.server.instead("LOGIN", Times::Each, "{tag} NO [AUTHENTICATIONFAILED] wrong\r\n");
    for n in 1..=6 {
        change(&odd, n, json!({"starred": true})).await;
        nothing_is_due(&odd).await;
    }
    let told = status(&odd).await;
    assert_eq!(
        (&told["state"], &told["cause"]["code"]),
        (&json!("needs_reauth"), &json!("upstream-auth-failed"))
    );
    let at = |field: &str| -> DateTime<Utc> { told["cause"][field].as_str().unwrap().parse().unwrap() };
    assert!(at("next_try_at") < at("since") + SOON, "{told}");
    assert!(odd.server.sane() > 0);
    for n in 1..=6 {
        assert_eq!(message(&odd, n).await["starred"], true, "it is not taken back");
    }
    odd.healthy().await;
    let starred = {
        let mut state = odd.server.lock();
        state.mailbox("INBOX").messages.iter().filter(|m| m.flags == ["\\Flagged"]).count()
    };
    assert_eq!(starred, 6);
    odd.healthy().await;
    odd.settled().await;
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_that_a_server_confirms_and_does_not_do_loses_nothing() {
    let rig = Rig::start().await;
    for lie in [
        "* OK [COPYUID 1001 2 1] moved\r\n* 2 EXPUNGE\r\n{tag} OK done\r\n",
        "* OK [COPYUID 1001 2 1] moved\r\n{tag} OK done\r\n",
        "* VANISHED 2\r\n{tag} OK done\r\n",
        "{tag} OK done\r\n",
    ] {
        let mut odd = filled(&rig, FULL).await;
        let (work, before) = (mailbox_id(&odd, "Work").await, odd.ids().await);
        odd.server.instead("UID MOVE", Times::Each, lie);
        change(&odd, 2, json!({"move_to": work})).await;
        eventually("the server lied", PATIENCE, async || (odd.server.used() > 0).then_some(())).await;
        odd.round().await;
        odd.server.sane();
        for _ in 0..2 {
            odd.round().await;
        }
        // Moved at last, or where it was: but in one place, the same here and there, and the same message.
        let all = (on_server(&odd, "INBOX"), on_server(&odd, "Work"));
        assert!(all == (3, 0) || all == (2, 1), "{lie:?}: {all:?}");
        let place = if all == (3, 0) { "INBOX" } else { "Work" };
        assert_eq!(places(&odd, 2).await, [place], "{lie:?}");
        assert_eq!(odd.ids().await, before, "{lie:?}");
        odd.settled().await;
    }
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copyuid_with_the_numbers_of_others_mixes_no_messages() {
    let rig = Rig::start().await;
    for action in ["move", "copy"] {
        // The number of another message, of one that is to come, and of one far above.
        for number in [1, 3, 4_000_000_000_u32] {
            let mut odd = rig
                .odd(FULL, |s| {
                    s.mailbox("INBOX").fill(1, 3);
                    s.add("Work").deliver(mail::message("M9", "stranger@example.test", "not yours"));
                })
                .await;
            odd.settled().await;
            let (work, before) = (mailbox_id(&odd, "Work").await, odd.ids().await);
            let command = format!("UID {}", action.to_uppercase());
            odd.server.spoil(&command, Times::Each, move |sane| {
                assert!(sane.contains(" 2 2]"), "{sane}");
                sane.replace(" 2 2]", &format!(" 2 {number}]"))
            });
            act(&odd, 2, action, &work).await;
            eventually("the server lied", PATIENCE, async || (odd.server.used() > 0).then_some(())).await;
            for _ in 0..3 {
                odd.round().await;
            }
            assert_eq!(odd.server.sane(), 1, "it is not done again");
            assert_eq!(odd.ids().await, before, "{action} to {number}");
            let expected: &[&str] = if action == "move" { &["Work"] } else { &["INBOX", "Work"] };
            assert_eq!(places(&odd, 2).await, expected, "{action} to {number}");
            assert_eq!(places(&odd, 9).await, ["Work"], "{action} to {number}");
            odd.settled().await;
        }
    }
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_refuses_every_edit_loses_nothing_and_says_so_and_other_mailboxes_go_on() {
    let rig = Rig::start().await;
    for capabilities in [FULL, PLAIN] {
        let mut odd = filled(&rig, capabilities).await;
        let (work, before) = (mailbox_id(&odd, "Work").await, odd.ids().await);
        for command in ["UID STORE", "UID MOVE", "UID COPY", "UID EXPUNGE"] {
            odd.server.instead(command, Times::Each, "{tag} NO [NOPERM] this mailbox is sealed\r\n");
        }
        change(&odd, 1, json!({"starred": true, "keywords_add": ["Mine"]})).await;
        change(&odd, 2, json!({"move_to": work})).await;
        act(&odd, 3, "copy", &work).await;
        let mut said = Value::Null;
        for n in 1..=u32::try_from(ROUNDS).unwrap() {
            odd.server.lock().mailbox("Work").fill(10 + n, 10 + n);
            let told = odd.round().await;
            assert_eq!(places(&odd, 10 + n).await, ["Work"], "{capabilities}");
            assert_eq!(told["state"], "connected", "{told}");
            for mailbox in ["INBOX", "Work"] {
                let now = cause(&told, mailbox);
                said = if now.is_null() { said } else { now.clone() };
            }
            for n in 1..=3 {
                assert!(!places(&odd, n).await.is_empty(), "M{n} is listed, {capabilities}");
            }
        }
        assert_eq!((on_server(&odd, "INBOX"), on_server(&odd, "Work")), (3, ROUNDS));
        assert!(odd.server.sane() > 0);
        // Done now, or taken back: in any case both sides have the same.
        for _ in 0..2 {
            odd.round().await;
        }
        let after = odd.ids().await;
        assert!(before.iter().all(|m| after.contains(m)), "{capabilities}: {before:?} {after:?}");
        odd.told().await;
        if capabilities == FULL {
            odd.settled().await;
        }
        let words = &said["upstream"]["text"];
        assert!(words.as_str().is_some_and(|text| text.contains("sealed")), "{capabilities}: {said}");
    }
    rig.finish().await;
}
