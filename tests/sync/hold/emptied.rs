//! A mailbox that our user deletes, with mail in it that nobody deleted.

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
