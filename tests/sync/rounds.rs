//! Initial rounds, changes by another client, UIDVALIDITY, recreated mailboxes.

use std::time::Duration;

use emailclient_core::domain::search::index;
use emailclient_core::platform::id::AccountId;
use serde_json::json;
use sqlx::Executor as _;
use tests::app::App;
use tests::eventually::eventually;
use tests::mail::{self, doveadm};

use crate::case::{Case, numbered};
use crate::oracle::agrees;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_varied_mailbox_is_synchronised_and_followed() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    let corpus = devstack::corpus::Generator::new(3, "sync").messages(300);
    app.stack
        .fill(
            &user,
            corpus.enumerate().map(|(n, m)| {
                (if n % 5 == 0 { "Projects/Alpha" } else { "INBOX" }, m.flags, m.internal_date, m.bytes)
            }),
        )
        .unwrap();
    let account = mail::connect(&app, &tenant, &user).await;
    mail::synchronise(&app, &tenant, &account).await;
    agrees(&app, &tenant, &account, &user).await;

    doveadm(&app, &["flags", "add", "-u", &user, "\\Flagged $Later", "mailbox", "INBOX", "uid", "1:40"]);
    doveadm(&app, &["flags", "remove", "-u", &user, "\\Seen", "mailbox", "INBOX", "uid", "20:60"]);
    doveadm(&app, &["expunge", "-u", &user, "mailbox", "INBOX", "uid", "70:90"]);
    doveadm(&app, &["move", "-u", &user, "Archive", "mailbox", "INBOX", "uid", "100:120"]);
    doveadm(&app, &["copy", "-u", &user, "Junk", "mailbox", "INBOX", "uid", "121:125"]);
    mail::deliver(&app, &user, &mail::message("New", "new@example.test", "x"));
    doveadm(&app, &["mailbox", "rename", "-u", &user, "Projects/Alpha", "Projects/Beta"]);
    doveadm(&app, &["mailbox", "create", "-u", &user, "Größe & Co"]);
    mail::synchronise(&app, &tenant, &account).await;
    agrees(&app, &tenant, &account, &user).await;
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_survive_moves_by_other_clients_and_a_changed_uidvalidity() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    mail::fill(
        &app,
        &user,
        "INBOX",
        (0..10)
            .map(|n| mail::message(&format!("M{n}"), &format!("m{n}@example.test"), &format!("body {n}")))
            .collect(),
    );
    let account = mail::connect(&app, &tenant, &user).await;
    mail::synchronise(&app, &tenant, &account).await;
    let ids = async || {
        let page = app.get(&tenant, &format!("/api/accounts/{account}/messages?limit=200")).await.expect(200);
        let mut ids: Vec<(String, String)> = page["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| {
                (m["message_id_header"].as_str().unwrap().to_owned(), m["id"].as_str().unwrap().to_owned())
            })
            .collect();
        ids.sort();
        ids
    };
    let before = ids().await;
    assert_eq!(before.len(), 10);
    doveadm(&app, &["move", "-u", &user, "Archive", "mailbox", "INBOX", "uid", "3:5"]);
    mail::synchronise(&app, &tenant, &account).await;
    assert_eq!(ids().await, before, "after a move by another client");
    doveadm(&app, &["mailbox", "update", "-u", &user, "--uid-validity", "4000000000", "INBOX"]);
    mail::synchronise(&app, &tenant, &account).await;
    assert_eq!(ids().await, before, "after a new UIDVALIDITY");
    agrees(&app, &tenant, &account, &user).await;
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_round_without_changes_writes_no_event_and_each_change_gives_one() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    mail::fill(
        &app,
        &user,
        "INBOX",
        vec![mail::message("A", "a@example.test", "x"), mail::message("B", "b@example.test", "y")],
    );
    let account = mail::connect(&app, &tenant, &user).await;
    mail::synchronise(&app, &tenant, &account).await;
    let events = async || -> Vec<String> {
        let mut conn = app.database.superuser().await;
        sqlx::query_scalar("SELECT kind FROM events WHERE kind LIKE 'message.%' ORDER BY position")
            .fetch_all(&mut conn)
            .await
            .unwrap()
    };
    assert_eq!(events().await, ["message.created", "message.created"]);
    mail::synchronise(&app, &tenant, &account).await;
    assert_eq!(events().await.len(), 2, "nothing happened");
    doveadm(&app, &["flags", "add", "-u", &user, "\\Seen", "mailbox", "INBOX", "uid", "1"]);
    doveadm(&app, &["expunge", "-u", &user, "mailbox", "INBOX", "uid", "2"]);
    mail::synchronise(&app, &tenant, &account).await;
    let mut new = events().await.split_off(2);
    new.sort();
    assert_eq!(new, ["message.deleted", "message.updated"]);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_equal_messages_in_one_mailbox_are_two_and_deleted_one_by_one() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    let twin = mail::message("Twin", "twin@example.test", "same bytes");
    mail::fill(&app, &user, "INBOX", vec![twin.clone(), twin]);
    let account = mail::connect(&app, &tenant, &user).await;
    mail::synchronise(&app, &tenant, &account).await;
    let list = async || {
        app.get(&tenant, &format!("/api/accounts/{account}/messages?role=inbox")).await.expect(200)["data"]
            .as_array()
            .unwrap()
            .clone()
    };
    let both = list().await;
    assert_eq!(both.len(), 2);
    assert_ne!(both[0]["id"], both[1]["id"]);
    let path = format!("/api/messages/{}?permanent=true", both[0]["id"].as_str().unwrap());
    assert_eq!(app.delete(&tenant, &path).await.status, 204);
    tests::eventually::eventually("the server has one", std::time::Duration::from_secs(20), async || {
        (doveadm(&app, &["search", "-u", &user, "mailbox", "INBOX", "all"]).lines().count() == 1)
            .then_some(())
    })
    .await;
    mail::synchronise(&app, &tenant, &account).await;
    let left = list().await;
    assert_eq!(left.len(), 1);
    assert_eq!(left[0]["id"], both[1]["id"]);
    assert_eq!(app.post(&tenant, &format!("/api/sync/imap/{account}"), &json!({})).await.status, 202);
    mail::synchronise(&app, &tenant, &account).await;
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_earlier_release_left_without_words_gets_them_and_they_are_sorted_into_the_index() {
    let mut case = Case::with((1..=3).map(numbered).collect()).await;
    case.sync().await;
    let mut conn = case.app.database.superuser().await;
    for sql in [
        "CREATE EXTENSION pgstattuple",
        "DELETE FROM message_search",
        "DELETE FROM unindexed_batches",
        "UPDATE messages SET indexed_at = NULL",
    ] {
        conn.execute(sql).await.unwrap();
    }
    let found = async |case: &Case| {
        let answer = case.app.get(&case.tenant, "/api/sync/search?query=M2").await.expect(200);
        answer["data"].as_array().unwrap().len()
    };
    assert_eq!(found(&case).await, 0);
    case.app.add_scheduler();
    eventually("the words are found", Duration::from_secs(60), async || {
        (found(&case).await == 1).then_some(())
    })
    .await;
    assert_eq!(case.count("SELECT count(*) FROM unindexed_batches").await, 0);
    eventually("the list of new words is empty", Duration::from_secs(60), async || {
        let waiting = "SELECT pending_tuples::bigint FROM pgstatginindex('message_search_tsv')";
        (case.count(waiting).await == 0).then_some(())
    })
    .await;
    case.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_waits_while_more_of_it_arrives_but_not_for_long() {
    let case = Case::with((1..=2).map(numbered).collect()).await;
    let waits = async || {
        let account = AccountId(case.account.parse().unwrap());
        index::shall_wait(&case.app.db, case.tenant.id, account).await.unwrap()
    };
    let mut conn = case.app.database.superuser().await;
    conn.execute("DELETE FROM unindexed_batches").await.unwrap();
    assert!(!waits().await, "nothing arrives");
    let arrive = "INSERT INTO unindexed_batches (tenant_id, id, account_id, sort_at, message_ids)
        SELECT tenant_id, gen_random_uuid(), account_id, now(), ARRAY[id] FROM messages";
    conn.execute(arrive).await.unwrap();
    assert!(waits().await, "more may be arriving");
    conn.execute("UPDATE unindexed_batches SET stored_at = now() - interval '2 seconds'").await.unwrap();
    assert!(!waits().await, "no more is arriving");
    conn.execute("UPDATE unindexed_batches SET stored_at = now() - interval '41 seconds'").await.unwrap();
    conn.execute(arrive).await.unwrap();
    assert!(!waits().await, "the first has waited long enough");
    case.finish().await;
}
