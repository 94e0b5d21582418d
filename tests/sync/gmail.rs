//! Gmail: mailboxes are labels of one store. The server is a rig with its manners ([`tests::imapd::gmail`]), which counts how
//! often the bytes of each message were fetched.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tests::imapd::gmail::{ALL, IMPORTANT, SENT, SPAM, STARRED, TRASH};
use tests::imapd::model::Ids;
use tests::imapd::{Imapd, State, Times};
use tests::mail;

use crate::edits::{change, mailbox_id, message, pushed};
use crate::odd::{Odd, Rig};

fn bytes(n: u32) -> Vec<u8> {
    mail::message(&format!("M{n}"), &format!("g{n}@example.test"), &format!("body {n}"))
}

/// Gmail with what `fill` puts there, and an account on it after its first round.
async fn gmail<'a>(rig: &'a Rig, fill: impl FnOnce(&mut State)) -> Odd<'a> {
    let server = Imapd::start("").await;
    {
        let mut state = server.lock();
        state.become_gmail();
        state.add("Work");
        fill(&mut state);
    }
    rig.odd_on(server).await
}

/// How often bytes were fetched, of how many messages.
fn fetched(odd: &Odd<'_>) -> (usize, usize) {
    let mut state = odd.server.lock();
    let counts = &state.store().fetched;
    (counts.values().sum(), counts.len())
}

/// Where the message is on the server.
fn labels(odd: &Odd<'_>, ids: Ids) -> Vec<String> {
    let mut labels = odd.server.lock().labels(ids);
    labels.sort();
    labels
}

/// Where a client is told that it is.
async fn shown(odd: &Odd<'_>, n: u32) -> Vec<String> {
    let list = format!("/api/accounts/{}/mailboxes?limit=200", odd.account);
    let page = odd.rig.app.get(&odd.rig.tenant, &list).await.expect(200);
    let text = |m: &Value, field: &str| m[field].as_str().unwrap().to_owned();
    let paths: BTreeMap<String, String> =
        page["data"].as_array().unwrap().iter().map(|m| (text(m, "id"), text(m, "path"))).collect();
    let told = message(odd, n).await;
    let mut shown: Vec<String> =
        told["mailboxes"].as_array().unwrap().iter().map(|m| paths[&text(m, "id")].clone()).collect();
    shown.sort();
    shown
}

async fn act(odd: &Odd<'_>, n: u32, action: &str) {
    let body = json!({"ids": [message(odd, n).await["id"]], "action": action});
    odd.rig.app.post(&odd.rig.tenant, "/api/messages/actions", &body).await.expect(200);
}

/// The edit reaches the server, and what it made of it is read.
async fn done(odd: &mut Odd<'_>) {
    pushed(odd).await;
    odd.healthy().await;
    odd.healthy().await;
    odd.settled().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_synchronisation_of_gmail_fetches_the_bytes_of_each_message_once() {
    let rig = Rig::start().await;
    let mut odd = gmail(&rig, |s| {
        for n in 1..=700 {
            let labels: &[&str] = match n % 7 {
                0 => &[],
                1 => &["INBOX"],
                2 => &["INBOX", "Work"],
                3 => &["Work", IMPORTANT],
                4 => &[SENT],
                5 => &[SPAM],
                _ => &["INBOX", "Work", SENT, IMPORTANT],
            };
            let ids = s.arrive(labels, bytes(n), None);
            if n % 5 == 0 {
                s.flags(ids, &["\\Flagged", "\\Seen"]);
            }
        }
    })
    .await;
    odd.healthy().await;
    assert_eq!(fetched(&odd), (700, 700), "each once");
    let here = "SELECT count(*) FROM messages WHERE account_id = $1::uuid";
    assert_eq!(rig.count(here, &odd.account).await, 700);
    odd.settled().await;
    assert_eq!(fetched(&odd), (700, 700));
    // Starred and Important show what stands elsewhere: they are no mailboxes.
    let list = format!("/api/accounts/{}/mailboxes?limit=200", odd.account);
    let page = rig.app.get(&rig.tenant, &list).await.expect(200);
    let roles: BTreeMap<&str, &Value> =
        page["data"].as_array().unwrap().iter().map(|m| (m["path"].as_str().unwrap(), &m["role"])).collect();
    assert!(!roles.contains_key(STARRED) && !roles.contains_key(IMPORTANT), "{roles:?}");
    assert_eq!((roles[ALL], roles[TRASH], roles[SPAM]), (&json!("all"), &json!("trash"), &json!("junk")));
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_arrives_and_what_another_client_labels_at_gmail_costs_its_bytes_once_at_most() {
    let rig = Rig::start().await;
    let (mut first, mut second) = (None, None);
    let mut odd = gmail(&rig, |s| {
        first = Some(s.arrive(&["INBOX"], bytes(1), None));
        second = Some(s.arrive(&[], bytes(2), None));
    })
    .await;
    let (first, second) = (first.unwrap(), second.unwrap());
    odd.settled().await;
    assert_eq!(fetched(&odd), (2, 2));
    let known = odd.ids().await;
    odd.server.lock().arrive(&["INBOX", "Work"], bytes(3), None);
    odd.healthy().await;
    assert_eq!(odd.told().await.iter().filter(|kind| *kind == "message.created").count(), 1);
    assert_eq!(fetched(&odd), (3, 3));
    odd.settled().await;
    // A label more, another taken, one from the archive back into INBOX, one into the Trash and back.
    {
        let mut state = odd.server.lock();
        state.label(first, "Work", true);
        state.label(second, "INBOX", true);
        state.label(first, "INBOX", false);
    }
    odd.healthy().await;
    assert_eq!(shown(&odd, 1).await, ["Work", ALL]);
    assert_eq!(shown(&odd, 2).await, ["INBOX", ALL]);
    odd.settled().await;
    let now = odd.ids().await;
    assert!(known.iter().all(|message| now.contains(message)), "ids stay: {known:?} {now:?}");
    odd.server.lock().flags(second, &["\\Flagged"]);
    odd.healthy().await;
    assert_eq!(message(&odd, 2).await["flags"], json!(["\\Flagged"]));
    odd.settled().await;
    assert_eq!(fetched(&odd), (3, 3), "nothing of this cost a byte");
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_bytes_under_two_ids_are_two_messages_at_gmail_wherever_they_stand() {
    let rig = Rig::start().await;
    let mut odd = gmail(&rig, |s| {
        s.arrive(&["INBOX"], bytes(1), None);
        s.arrive(&["Work"], bytes(1), None);
    })
    .await;
    odd.settled().await;
    assert_eq!(odd.ids().await.len(), 2);
    let places = "SELECT count(*) FROM (SELECT message_id FROM message_mailboxes WHERE account_id = $1::uuid
                    GROUP BY 1 HAVING count(*) = 2) p";
    assert_eq!(rig.count(places, &odd.account).await, 2, "each in All Mail and under its label");
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_one_thread_of_gmail_are_one_conversation_whatever_their_headers_say() {
    let rig = Rig::start().await;
    let reply = |n: u32, to: u32| {
        let head = format!("In-Reply-To: <g{to}@example.test>\r\nReferences: <g{to}@example.test>\r\n");
        [head.into_bytes(), bytes(n)].concat()
    };
    let mut odd = gmail(&rig, |s| {
        let first = s.arrive(&["INBOX"], bytes(1), None);
        // Named by no header, and of the thread; named by a header, and of another.
        s.arrive(&["Work"], bytes(2), Some(first.thread));
        s.arrive(&["INBOX"], reply(3, 1), None);
    })
    .await;
    odd.settled().await;
    let thread = async |n| message(&odd, n).await["thread_id"].clone();
    assert_eq!(thread(1).await, thread(2).await);
    assert_ne!(thread(1).await, thread(3).await);
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_users_archive_move_star_and_delete_at_gmail_do_to_labels_what_they_say() {
    let rig = Rig::start().await;
    for tells_known in [true, false] {
        let mut ids = Vec::new();
        let mut odd = gmail(&rig, |s| {
            s.store().tells_known = tells_known;
            for n in 1..=6 {
                let labels: &[&str] = if n == 6 { &[] } else { &["INBOX", "Work"] };
                ids.push(s.arrive(labels, bytes(n), None));
            }
        })
        .await;
        odd.settled().await;
        let work = mailbox_id(&odd, "Work").await;
        odd.server.lock().add("Other");
        odd.healthy().await;
        let other = mailbox_id(&odd, "Other").await;
        odd.server.lock().heard.clear();
        act(&odd, 1, "archive").await;
        assert_eq!(shown(&odd, 1).await, ["Work", ALL], "seen at once");
        act(&odd, 2, "star").await;
        change(&odd, 3, json!({"move_to": other})).await;
        act(&odd, 4, "trash").await;
        assert_eq!(shown(&odd, 4).await, [TRASH], "seen at once, and nowhere else");
        let fifth =
            format!("/api/messages/{}?permanent=true", message(&odd, 5).await["id"].as_str().unwrap());
        assert_eq!(rig.app.delete(&rig.tenant, &fifth).await.status, 204);
        change(&odd, 6, json!({"move_to": work})).await;
        pushed(&odd).await;
        let heard = odd.server.lock().heard.clone();
        done(&mut odd).await;
        assert_eq!(labels(&odd, ids[0]), ["Work", ALL]);
        assert_eq!(labels(&odd, ids[1]), ["INBOX", "Work", ALL, STARRED]);
        assert_eq!(labels(&odd, ids[2]), ["Other", ALL]);
        assert_eq!(labels(&odd, ids[3]), [TRASH]);
        assert_eq!(labels(&odd, ids[4]), Vec::<String>::new(), "gone for good");
        assert_eq!(labels(&odd, ids[5]), ["Work", ALL]);
        // Nothing is expunged but from the Trash.
        let mut open = String::new();
        for command in &heard {
            if let Some(name) = command.strip_prefix("SELECT ") {
                name.clone_into(&mut open);
            }
            assert!(!command.starts_with("UID EXPUNGE") || open.contains("Trash"), "{command} in {open}");
        }
        assert_eq!(heard.iter().filter(|c| c.starts_with("UID EXPUNGE")).count(), 1);
        act(&odd, 2, "unstar").await;
        change(&odd, 4, json!({"move_to": mailbox_id(&odd, "INBOX").await})).await;
        done(&mut odd).await;
        assert_eq!(labels(&odd, ids[1]), ["INBOX", "Work", ALL]);
        assert_eq!(labels(&odd, ids[3]), ["INBOX", ALL]);
        // From the Trash for good.
        act(&odd, 3, "delete").await;
        done(&mut odd).await;
        act(&odd, 3, "delete").await;
        done(&mut odd).await;
        assert_eq!(labels(&odd, ids[2]), Vec::<String>::new());
        assert_eq!(fetched(&odd), (6, 6), "no edit cost a byte");
    }
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_that_lie_or_are_not_there_after_all_cost_bytes_and_no_mail() {
    let rig = Rig::start().await;
    // Another message under the same id, in another mailbox and of another size.
    let server = Imapd::start("").await;
    {
        let mut state = server.lock();
        state.become_gmail();
        let ids = state.arrive(&[], bytes(1), None);
        let uid = state.mailbox("INBOX").deliver(bytes(200));
        state.mailbox("INBOX").message(uid).ids = Some(ids);
    }
    let mut odd = rig.odd_on(server).await;
    odd.settled().await;
    assert_eq!(odd.ids().await.len(), 2);
    // Offered, and answered with BAD.
    let mut odd = gmail(&rig, |s| {
        s.arrive(&["INBOX", "Work"], bytes(1), None);
    })
    .await;
    odd.server.lock().arrive(&["INBOX", "Work"], bytes(2), None);
    odd.server.instead("*X-GM-MSGID", Times::Each, "{tag} BAD Could not parse command\r\n");
    odd.healthy().await;
    assert!(odd.server.sane() > 0);
    assert_eq!(odd.ids().await.len(), 2, "known by its bytes");
    odd.settled().await;
    // The first half of an answer, then the end of the line.
    odd.server.lock().arrive(&["INBOX", "Work"], bytes(3), None);
    odd.server.spoil("*X-GM-MSGID", Times::First(1), |sane: &str| {
        tests::imapd::Reply::close(sane.as_bytes()[..sane.len() / 2].to_vec())
    });
    odd.healthy().await;
    odd.server.sane();
    odd.healthy().await;
    assert_eq!(odd.ids().await.len(), 3);
    odd.settled().await;
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_stored_before_gmail_told_its_ids_is_known_again() {
    let rig = Rig::start().await;
    let mut ids = None;
    let mut odd = gmail(&rig, |s| ids = Some(s.arrive(&["INBOX"], bytes(1), None))).await;
    let ids = ids.unwrap();
    odd.settled().await;
    let known = odd.ids().await;
    sqlx::query("UPDATE messages SET email_id = NULL WHERE account_id = $1::uuid")
        .bind(&odd.account)
        .execute(&mut rig.app.database.superuser().await)
        .await
        .unwrap();
    odd.server.lock().label(ids, "Work", true);
    odd.healthy().await;
    assert_eq!(odd.ids().await, known);
    odd.settled().await;
    let told = "SELECT count(*) FROM messages WHERE account_id = $1::uuid AND email_id IS NOT NULL";
    assert_eq!(rig.count(told, &odd.account).await, 1, "and has its id from then on");
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_to_what_was_stored_before_gmail_told_its_ids_joins_its_conversation() {
    let rig = Rig::start().await;
    let mut ids = None;
    let mut odd = gmail(&rig, |s| ids = Some(s.arrive(&["INBOX"], bytes(1), None))).await;
    let ids = ids.unwrap();
    odd.settled().await;
    // As a release stored it that knew no ids: found by its headers alone.
    let key = <sha2::Sha256 as sha2::Digest>::digest("g1@example.test")[..16].to_vec();
    sqlx::query("UPDATE messages SET email_id = NULL WHERE account_id = $1::uuid")
        .bind(&odd.account)
        .execute(&mut rig.app.database.superuser().await)
        .await
        .unwrap();
    let renamed = sqlx::query("UPDATE thread_keys SET key = $2 WHERE account_id = $1::uuid")
        .bind(&odd.account)
        .bind(key)
        .execute(&mut rig.app.database.superuser().await)
        .await
        .unwrap();
    assert_eq!(renamed.rows_affected(), 1);
    let answer = String::from_utf8(bytes(2)).unwrap().replacen(
        "Subject:",
        "In-Reply-To: <g1@example.test>\r\nSubject:",
        1,
    );
    odd.server.lock().arrive(&["INBOX"], answer.into_bytes(), Some(ids.thread));
    odd.healthy().await;
    odd.settled().await;
    assert_eq!(message(&odd, 1).await["thread_id"], message(&odd, 2).await["thread_id"]);
    rig.finish().await;
}
