//! A mailbox that our user deletes, with mail in it that nobody deleted.

use serde_json::json;
use tests::eventually::eventually;
use tests::mail;

use super::{HOSTS, PATIENCE, places, there, turn};
use crate::case::{Case, numbered};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_in_a_mailbox_that_our_user_deletes_is_in_trash_also_what_nobody_here_had_seen() {
    for host in HOSTS {
        let case = Case::at(host, None, vec![numbered(3)]).await;
        let mut client = case.client().await;
        client.ok("CREATE Old").await;
        client.append("Old", "", None, &numbered(1)).await;
        case.sync().await;
        let (old, ids) = (case.mailbox("Old").await, case.ids().await);
        turn(&case, "pause").await;
        client.append("Old", "", None, &numbered(2)).await;
        let path = format!("/api/mailboxes/{old}?with_messages=true");
        assert_eq!(case.app.delete(&case.tenant, &path).await.status, 204);
        assert!(!case.mailboxes().await.contains_key("Old"));
        turn(&case, "resume").await;
        case.sync().await;
        eventually("it is gone on the server", PATIENCE, async || {
            let listed = client.ok("LIST \"\" \"*\"").await.listed();
            listed.iter().all(|(_, name)| name != "Old").then_some(())
        })
        .await;
        for n in [1, 2] {
            assert_eq!(there(&case, n).await, places(&[("Trash", "")]), "M{n} at {host}");
        }
        assert_eq!(there(&case, 3).await, places(&[("INBOX", "")]));
        case.sync().await;
        assert_eq!(case.ids().await["M1"], ids["M1"], "it is the same message, at {host}");
        case.settled().await;
        case.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mailbox_below_trash_goes_with_what_is_in_it() {
    let case = Case::with(vec![]).await;
    let mut client = case.client().await;
    client.ok("CREATE Trash/Old").await;
    client.append("Trash/Old", "", None, &numbered(1)).await;
    case.sync().await;
    let old = case.mailbox("Trash/Old").await;
    assert_eq!(
        case.app.delete(&case.tenant, &format!("/api/mailboxes/{old}?with_messages=true")).await.status,
        204
    );
    case.sync().await;
    assert!(there(&case, 1).await.is_empty());
    case.settled().await;
    case.finish().await;
}

/// Subject and id of all messages that are seen.
async fn subjects(case: &Case) -> Vec<(String, String)> {
    sqlx::query_as("SELECT subject, id::text FROM messages WHERE gone_at IS NULL ORDER BY 1")
        .fetch_all(&case.app.behind)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mailbox_that_is_removed_in_portions_ends_in_trash_too_and_a_new_one_has_its_name() {
    let mut case = Case::at("127.0.0.1", None, vec![numbered(9_000)]).await;
    mail::fill(&case.app, &case.user, "Old", (1..=700).map(numbered).collect());
    case.sync().await;
    let (old, before) = (case.mailbox("Old").await, case.count("SELECT count(*) FROM messages").await);
    assert_eq!(before, 701);
    let known = subjects(&case).await;
    case.app.stop_workers().await;
    let path = format!("/api/mailboxes/{old}?with_messages=true");
    assert_eq!(case.app.delete(&case.tenant, &path).await.status, 204);
    assert_eq!(case.listed().await.len(), 1);
    let made = serde_json::json!({"name": "Old"});
    let made = case
        .app
        .post(&case.tenant, &format!("/api/accounts/{}/mailboxes", case.account), &made)
        .await
        .expect(201);
    let inbox = case.ids().await["M9000"].clone();
    let moved = serde_json::json!({"ids": [inbox], "action": "move", "mailbox_id": made["id"]});
    case.app.post(&case.tenant, "/api/messages/actions", &moved).await.expect(200);
    case.app.add_worker();
    let mut client = case.client().await;
    eventually(
        "the new one has the name on the server, and the mail of the old one is in Trash",
        PATIENCE,
        async || {
            let trash = client.run("STATUS Trash (MESSAGES)").await;
            let old = client.run("STATUS Old (MESSAGES)").await;
            let counts =
                |told: &tests::imap::Outcome, n: &str| told.untagged.iter().any(|line| line.text.contains(n));
            (counts(&trash, "MESSAGES 700)") && counts(&old, "MESSAGES 1)")).then_some(())
        },
    )
    .await;
    case.sync().await;
    assert_eq!(subjects(&case).await, known, "they are the same messages");
    assert_eq!(case.mailboxes().await["Old"]["id"], made["id"]);
    case.settled().await;
    case.finish().await;
}

/// A case whose mailbox `Old`, with these and 600 more in it, is deleted and stays as it is until [`removed`].
async fn losing(inbox: Vec<Vec<u8>>, old: Vec<Vec<u8>>, side: Vec<Vec<u8>>) -> Case {
    let mut case = Case::at("127.0.0.1", None, inbox).await;
    mail::fill(&case.app, &case.user, "Old", (1..=600).map(numbered).chain(old).collect());
    mail::fill(&case.app, &case.user, "Side", side);
    case.sync().await;
    let old = case.mailbox("Old").await;
    case.app.stop_workers().await;
    let path = format!("/api/mailboxes/{old}?with_messages=true");
    assert_eq!(case.app.delete(&case.tenant, &path).await.status, 204);
    removal_at(&case, "now() + interval '1 hour'").await;
    case.app.add_worker();
    case
}

async fn removal_at(case: &Case, at: &str) {
    let sql = format!("UPDATE jobs SET run_at = {at} WHERE kind = 'remove_mailboxes'");
    let done = sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&case.app.behind).await.unwrap();
    assert_eq!(done.rows_affected(), 1);
}

async fn removed(case: &Case) {
    assert_eq!(case.count("SELECT count(*) FROM mailbox_removals").await, 1, "it was there until now");
    removal_at(case, "now()").await;
    eventually("it is removed", PATIENCE, async || {
        (case.count("SELECT count(*) FROM mailbox_removals").await == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_client_expunges_while_a_mailbox_is_removed_is_told_and_does_not_come_back() {
    let case = losing(vec![numbered(9_000), numbered(9_001)], vec![], vec![]).await;
    let (events, id) = (case.events().await, case.ids().await["M9000"].clone());
    let mut client = case.client().await;
    for command in ["SELECT INBOX", "UID STORE 1 +FLAGS (\\Deleted)", "EXPUNGE"] {
        client.ok(command).await;
    }
    case.sync().await;
    let told = events.told(&case.app).await;
    assert!(told.contains(&("message.deleted".to_owned(), id.clone())), "{told:?}");
    removed(&case).await;
    case.app.get(&case.tenant, &format!("/api/messages/{id}")).await.refused(404, "not-found");
    let nowhere = "SELECT count(*) FROM messages g WHERE gone_at IS NULL
        AND NOT EXISTS (SELECT 1 FROM message_mailboxes p WHERE p.message_id = g.id)";
    assert_eq!(case.count(nowhere).await, 0);
    case.sync().await;
    case.settled().await;
    case.finish().await;
}

/// A message of one conversation.
fn talk(n: u32) -> Vec<u8> {
    format!(
        "From: a@x.test\r\nTo: b@x.test\r\nSubject: Talk\r\nMessage-ID: <talk{n}@x.test>\r\nReferences: <talk0@x.test>\r\n\r\n{n}\r\n"
    )
    .into_bytes()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_conversation_between_a_mailbox_that_is_removed_and_one_that_is_excluded_each_part_goes() {
    let case = losing(vec![numbered(9_000)], vec![talk(1)], vec![talk(2)]).await;
    let one = "SELECT count(DISTINCT thread_id) FROM messages WHERE subject = 'Talk'";
    assert_eq!(case.count(one).await, 1);
    let wanted = json!({"sync": {"mailboxes": {"exclude": ["Side"]}}});
    let path = format!("/api/accounts/{}", case.account);
    case.app.patch(&case.tenant, &path, &wanted).await.expect(200);
    eventually("what is excluded has left", PATIENCE, async || {
        (case.count("SELECT count(*) FROM messages WHERE subject = 'Talk'").await == 1).then_some(())
    })
    .await;
    removed(&case).await;
    case.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mailbox_that_is_not_synchronised_is_not_deleted_as_an_empty_one() {
    let case = Case::with(vec![numbered(3)]).await;
    let mut client = case.client().await;
    for (name, n) in [("Side", 1), ("Other", 2)] {
        client.ok(&format!("CREATE {name}")).await;
        client.append(name, "", None, &numbered(n)).await;
    }
    client.ok("CREATE Empty").await;
    case.sync().await;
    let ids = [case.mailbox("Side").await, case.mailbox("Other").await];
    turn(&case, "pause").await;
    let wanted = json!({"sync": {"mailboxes": {"exclude": ["Side", "Other", "Empty"]}}});
    case.app.patch(&case.tenant, &format!("/api/accounts/{}", case.account), &wanted).await.expect(200);
    eventually("what is excluded has left", PATIENCE, async || (case.ids().await.len() == 1).then_some(()))
        .await;
    // Nobody has looked at that one yet.
    sqlx::query(
        "UPDATE mailboxes SET uidvalidity = NULL, uidnext = NULL, head_uid = 0, tail_uid = 0, exists_seen = 0, state = 'new' WHERE path = 'Other'",
    )
    .execute(&case.app.behind)
    .await
    .unwrap();
    for id in &ids {
        let path = format!("/api/mailboxes/{id}");
        case.app.delete(&case.tenant, &path).await.refused(409, "mailbox-not-empty");
    }
    turn(&case, "resume").await;
    case.sync().await;
    for id in &ids {
        let path = format!("/api/mailboxes/{id}");
        case.app.delete(&case.tenant, &path).await.refused(409, "mailbox-not-empty");
        assert_eq!(case.app.delete(&case.tenant, &format!("{path}?with_messages=true")).await.status, 204);
    }
    let empty = format!("/api/mailboxes/{}", case.mailbox("Empty").await);
    assert_eq!(case.app.delete(&case.tenant, &empty).await.status, 204);
    case.sync().await;
    for n in [1, 2] {
        assert_eq!(there(&case, n).await, places(&[("Trash", "")]), "M{n}");
    }
    case.finish().await;
}
