//! What our user does, on a server that will not have it. It is undone here and told, or done at last; nothing is lost there.

use std::time::Duration;

use serde_json::{Value, json};
use tests::eventually::eventually;
use tests::imapd::{Imapd, Reply, Times};
use tests::mail as rig_mail;
use tests::relay::Relay;

use crate::odd::{FULL, Odd, PLAIN, Rig, settings};

/// More rounds than a refused change is attempted.
pub const ROUNDS: usize = 6;

pub async fn filled<'a>(rig: &'a Rig, capabilities: &str) -> Odd<'a> {
    let mut odd = rig
        .odd(capabilities, |s| {
            s.mailbox("INBOX").fill(1, 3);
            s.add("Work");
        })
        .await;
    odd.settled().await;
    odd
}

pub async fn mailbox_id(odd: &Odd<'_>, path: &str) -> String {
    let list = format!("/api/accounts/{}/mailboxes?limit=200", odd.account);
    let page = odd.rig.app.get(&odd.rig.tenant, &list).await.expect(200);
    let found = page["data"].as_array().unwrap().iter().find(|m| m["path"] == path).cloned().unwrap();
    found["id"].as_str().unwrap().to_owned()
}

/// The message `M{n}` as a client sees it.
pub async fn message(odd: &Odd<'_>, n: u32) -> Value {
    let list = format!("/api/accounts/{}/messages?limit=200", odd.account);
    let page = odd.rig.app.get(&odd.rig.tenant, &list).await.expect(200);
    let subject = format!("M{n}");
    let found = page["data"].as_array().unwrap().iter().find(|m| m["subject"] == subject.as_str()).unwrap();
    let path = format!("/api/messages/{}", found["id"].as_str().unwrap());
    odd.rig.app.get(&odd.rig.tenant, &path).await.expect(200)
}

pub async fn change(odd: &Odd<'_>, n: u32, change: Value) {
    let path = format!("/api/messages/{}", message(odd, n).await["id"].as_str().unwrap());
    odd.rig.app.patch(&odd.rig.tenant, &path, &change).await.expect(200);
}

/// Waits until no edit waits for the server any more.
pub async fn pushed(odd: &Odd<'_>) {
    let waiting = "SELECT (SELECT count(*) FROM pending_changes WHERE account_id = $1::uuid)
        + (SELECT count(*) FROM edits WHERE account_id = $1::uuid)
        + (SELECT count(*) FROM jobs WHERE kind = 'push_changes' AND dedupe_key = $1 AND state IN ('ready', 'running'))";
    eventually("the edits reached the server", Duration::from_secs(120), async || {
        (odd.rig.count(waiting, &odd.account).await == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_that_the_server_has_no_room_or_no_place_for_is_taken_back_and_the_message_is_where_it_was() {
    let rig = Rig::start().await;
    for (capabilities, command) in [(FULL, "UID MOVE"), (PLAIN, "UID COPY")] {
        for refusal in [
            "{tag} NO [OVERQUOTA] full\r\n",
            "{tag} NO [TRYCREATE] none\r\n",
            "{tag} NO [CANNOT] never\r\n",
            "{tag} NO\r\n",
        ] {
            let mut odd = filled(&rig, capabilities).await;
            odd.server.instead(command, Times::Each, refusal);
            let work = mailbox_id(&odd, "Work").await;
            change(&odd, 2, json!({"move_to": work})).await;
            assert_eq!(message(&odd, 2).await["mailboxes"][0]["id"], work.as_str(), "{refusal}");
            for _ in 0..ROUNDS {
                odd.round().await;
                rig.minutes_later().await;
            }
            assert!(odd.server.sane() > 0);
            let back = message(&odd, 2).await;
            assert_eq!(back["mailboxes"][0]["role"], "inbox", "{refusal}: {back}");
            assert_eq!(odd.server.lock().mailbox("INBOX").messages.len(), 3);
            odd.told().await;
            odd.healthy().await;
            odd.settled_after(&[]).await;
            // It is not given up for ever: asked again, it is done.
            change(&odd, 2, json!({"move_to": work})).await;
            pushed(&odd).await;
            odd.healthy().await;
            assert_eq!(odd.server.lock().mailbox("Work").messages.len(), 1);
            // Without UIDPLUS the original stays there, marked, and hidden here.
            if capabilities == FULL {
                odd.settled().await;
            }
        }
    }
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_throttles_an_edit_gets_it_later() {
    let rig = Rig::start().await;
    for reply in [
        "{tag} NO [LIMIT] not so fast\r\n",
        "{tag} BAD Request is throttled. Suggested Backoff Time: 10 milliseconds\r\n",
        "{tag} NO [UNAVAILABLE] later\r\n",
        "{tag} NO [INUSE] somebody else\r\n",
    ] {
        let mut odd = filled(&rig, FULL).await;
        let work = mailbox_id(&odd, "Work").await;
        odd.server.instead("UID STORE", Times::Each, reply);
        odd.server.instead("UID MOVE", Times::Each, reply);
        change(&odd, 1, json!({"starred": true})).await;
        change(&odd, 2, json!({"move_to": work})).await;
        for _ in 0..ROUNDS {
            let status = odd.round().await;
            assert_eq!(status["state"], "throttled", "{reply}: {status}");
        }
        assert!(odd.server.sane() > 0);
        assert_eq!(message(&odd, 2).await["mailboxes"][0]["id"], work.as_str(), "it is not taken back");
        odd.round().await;
        pushed(&odd).await;
        odd.healthy().await;
        {
            let mut state = odd.server.lock();
            assert_eq!(state.mailbox("INBOX").message(1).flags, ["\\Flagged"]);
            assert_eq!((state.mailbox("INBOX").messages.len(), state.mailbox("Work").messages.len()), (2, 1));
        }
        odd.settled().await;
    }
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_leaves_messages_alone_is_done_again_and_neither_sides_flag_is_lost() {
    let rig = Rig::start().await;
    let mut odd = filled(&rig, FULL).await;
    // The other client was first: the server keeps its flag and says so.
    odd.server.instead("UID STORE", Times::First(1), "{tag} OK [MODIFIED 2] others were first\r\n");
    odd.server.lock().mailbox("INBOX").flag(2, "\\Answered", true);
    change(&odd, 2, json!({"starred": true})).await;
    eventually("the server left it alone once", Duration::from_secs(60), async || {
        (odd.server.used() > 0).then_some(())
    })
    .await;
    odd.healthy().await;
    pushed(&odd).await;
    odd.healthy().await;
    assert_eq!(odd.server.lock().mailbox("INBOX").message(2).flags, ["\\Answered", "\\Flagged"]);
    odd.settled().await;
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_our_user_changes_while_another_change_is_refused_is_kept() {
    let rig = Rig::start().await;
    let server = Imapd::start(FULL).await;
    server.lock().mailbox("INBOX").fill(1, 3);
    let relay = Relay::to(server.port).await;
    let mut odd = rig.odd_behind(server, relay.port).await;
    odd.settled().await;
    odd.server.instead("UID STORE", Times::Each, "{tag} NO [CANNOT] never\r\n");
    let held = relay.hold("UID STORE");
    change(&odd, 2, json!({"starred": true, "keywords_add": ["Work"]})).await;
    held.reached().await;
    change(&odd, 2, json!({"unread": false, "keywords_add": ["Mine"]})).await;
    held.release();
    eventually("it is refused", Duration::from_secs(60), async || (odd.server.used() > 0).then_some(()))
        .await;
    let starred = "SELECT count(*) FROM edits WHERE account_id = $1::uuid AND flags_add & 4 = 4";
    for _ in 0..ROUNDS {
        if rig.count(starred, &odd.account).await == 0 {
            break;
        }
        rig.minutes_later().await;
        odd.round().await;
    }
    assert_eq!(rig.count(starred, &odd.account).await, 0, "the star is not given up");
    odd.server.sane();
    odd.round().await;
    pushed(&odd).await;
    assert_eq!(odd.server.lock().mailbox("INBOX").message(2).flags, ["Mine", "\\Seen"]);
    let row = message(&odd, 2).await;
    assert_eq!(
        (&row["unread"], &row["starred"], &row["keywords"]),
        (&json!(false), &json!(false), &json!(["Mine"]))
    );
    odd.healthy().await;
    odd.settled().await;
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_in_doubt_is_not_made_again_while_its_target_cannot_be_read() {
    let rig = Rig::start().await;
    for capabilities in [FULL, PLAIN] {
        let mut odd = filled(&rig, capabilities).await;
        let work = mailbox_id(&odd, "Work").await;
        odd.server.spoil("UID COPY", Times::First(1), |_| Reply::close(""));
        odd.server.instead("SELECT \"Work\"", Times::First(3), "{tag} NO [CANNOT] not now\r\n");
        let copy = json!({"ids": [message(&odd, 2).await["id"]], "action": "copy", "mailbox_id": work});
        rig.app.post(&rig.tenant, "/api/messages/actions", &copy).await.expect(200);
        for _ in 0..ROUNDS {
            odd.round().await;
        }
        assert!(odd.server.sane() >= 2);
        odd.healthy().await;
        pushed(&odd).await;
        assert_eq!(odd.server.lock().mailbox("Work").messages.len(), 1, "{capabilities}");
        odd.settled().await;
    }
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_edits_of_one_mailbox_reach_the_server_without_another_round() {
    let rig = Rig::start().await;
    let all = 5_400;
    let mut odd = rig.odd(FULL, |s| s.mailbox("INBOX").fill(1, all)).await;
    odd.settled().await;
    // As an action does that nobody pushes meanwhile; then one more edit has them pushed.
    for change in [
        "INSERT INTO edits (tenant_id, account_id, message_id, kind, flags_add)
           SELECT tenant_id, account_id, id, 'flags', 4 FROM messages ORDER BY id",
        "UPDATE message_mailboxes SET flags = flags | 4",
    ] {
        sqlx::query(change).execute(&mut rig.app.database.superuser().await).await.unwrap();
    }
    let list = format!("/api/accounts/{}/messages?limit=1", odd.account);
    let page = rig.app.get(&rig.tenant, &list).await.expect(200);
    let path = format!("/api/messages/{}", page["data"][0]["id"].as_str().unwrap());
    rig.app.patch(&rig.tenant, &path, &json!({"unread": false})).await.expect(200);
    eventually("all are starred on the server", Duration::from_secs(60), async || {
        let mut state = odd.server.lock();
        let starred =
            state.mailbox("INBOX").messages.iter().filter(|m| m.flags.contains(&"\\Flagged".into())).count();
        (starred == all as usize).then_some(())
    })
    .await;
    rig.finish().await;
}

/// An account that reads from `server` and sends through the real submission server.
async fn sender(rig: &Rig, server: &Imapd) -> String {
    let user = rig_mail::new_mailbox(&rig.app);
    let mut body = rig_mail::settings(&rig.app, &user);
    body["imap"] = settings(server.port)["imap"].clone();
    rig.connect(&body).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_copy_of_a_sent_message_that_finds_no_room_is_filed_once_when_there_is_some() {
    let rig = Rig::start().await;
    for (refusal, files) in [
        ("{tag} NO [OVERQUOTA] full\r\n", true),
        ("{tag} NO [TRYCREATE] none\r\n", true),
        ("{tag} NO [TOOBIG] no\r\n", false),
    ] {
        let server = Imapd::start("UIDPLUS SPECIAL-USE LIST-EXTENDED").await;
        server.lock().add("Sent").attributes = "\\Sent".to_owned();
        let account = sender(&rig, &server).await;
        server.instead("APPEND", Times::Each, refusal);
        let id = send(&rig, &account).await;
        let copy = async || rig.app.get(&rig.tenant, &id).await.expect(200)["sent_copy"].clone();
        eventually("the copy was tried", Duration::from_secs(120), async || {
            (server.used() > 0).then_some(())
        })
        .await;
        server.sane();
        if files {
            let wanted = eventually("the copy is filed", Duration::from_secs(120), async || {
                hurry(&rig).await;
                Some(copy().await).filter(|c| c == "done")
            });
            wanted.await;
        } else {
            eventually("it is given up", Duration::from_secs(120), async || {
                Some(copy().await).filter(|c| c != "pending")
            })
            .await;
        }
        assert_eq!(server.lock().mailbox("Sent").messages.len(), usize::from(files), "{refusal}");
    }
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_larger_than_the_server_takes_is_not_sent_to_it() {
    let rig = Rig::start().await;
    let server = Imapd::start("UIDPLUS SPECIAL-USE LIST-EXTENDED LITERAL+ APPENDLIMIT=20").await;
    server.lock().add("Sent").attributes = "\\Sent".to_owned();
    let account = sender(&rig, &server).await;
    let id = send(&rig, &account).await;
    eventually("it is given up", Duration::from_secs(120), async || {
        let now = rig.app.get(&rig.tenant, &id).await.expect(200);
        (now["state"] == "sent" && now["sent_copy"] != "pending").then_some(())
    })
    .await;
    {
        let mut state = server.lock();
        assert_eq!((state.count("APPEND"), state.mailbox("Sent").messages.len()), (0, 0));
    }
    rig.finish().await;
}

/// Sends a message to nobody in particular; returns the path of its submission.
async fn send(rig: &Rig, account: &str) -> String {
    let to = rig_mail::new_mailbox(&rig.app);
    let draft = json!({"account_id": account, "to": [to], "subject": "Copy", "text": "x"});
    let draft = rig.app.post(&rig.tenant, "/api/compose", &draft).await.expect(201);
    let path = format!("/api/compose/{}/send", draft["id"].as_str().unwrap());
    let submission = rig.app.post(&rig.tenant, &path, &json!({})).await.expect(202);
    format!("/api/submissions/{}", submission["id"].as_str().unwrap())
}

/// As if the time until the next try had passed.
async fn hurry(rig: &Rig) {
    sqlx::query("UPDATE jobs SET run_at = now() WHERE state = 'ready' AND run_at > now()")
        .execute(&mut rig.app.database.superuser().await)
        .await
        .unwrap();
}
