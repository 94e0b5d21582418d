//! Which message is which: ids survive whatever other clients and the server do to places and numbers.

use std::time::Duration;

use emailclient_core::platform::id::AccountId;
use emailclient_core::sync::due;
use emailclient_core::sync::store::vanish;
use serde_json::json;
use sqlx::{Connection as _, Executor as _};
use tests::eventually::eventually;
use tests::mail;
use tests::relay::Relay;
use uuid::Uuid;

use crate::case::{Case, large, numbered};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lowered_uidvalidity_keeps_ids_and_tells_one_reset() {
    let case = Case::with((1..=6).map(numbered).collect()).await;
    let before = case.ids().await;
    for (uidvalidity, round) in [("4000000000", 1), ("17", 2)] {
        let events = case.events().await;
        case.doveadm("mailbox update", &["--uid-validity", uidvalidity, "INBOX"]);
        case.sync().await;
        assert_eq!(case.ids().await, before, "UIDVALIDITY {uidvalidity}");
        assert_eq!(events.kinds(&case.app).await, ["mailbox.reset"], "round {round}");
        case.settled().await;
    }
    case.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_of_large_messages_are_known_again_in_the_round_that_first_sees_them() {
    let mut case = Case::unserved("127.0.0.1", None, (1..=30).map(large).collect()).await;
    let mut client = case.client().await;
    client.select("INBOX").await;
    client.ok("UID COPY 1:30 Archive").await;
    client.ok("UID COPY 1 INBOX").await;
    client.ok("UNSELECT").await;
    case.app.add_worker();
    case.sync().await;
    let count = async |sql: &'static str| case.count(sql).await;
    assert_eq!(count("SELECT count(*) FROM blobs").await, 30);
    // The second copy in INBOX is a message of its own.
    assert_eq!(count("SELECT count(*) FROM messages").await, 31);
    assert_eq!(count("SELECT count(*) FROM message_mailboxes").await, 61);
    let shared = "SELECT count(*) FROM (SELECT message_id FROM message_mailboxes GROUP BY 1 HAVING count(DISTINCT mailbox_id) = 2) m";
    assert_eq!(count(shared).await, 30);
    case.settled().await;
    case.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changed_together_with_the_uidvalidity_is_found() {
    let case = Case::with((1..=6).map(numbered).collect()).await;
    let before = case.ids().await;
    let mut client = case.client().await;
    client.select("INBOX").await;
    client.ok("UID STORE 2 +FLAGS (\\Flagged $Later)").await;
    client.ok("UID STORE 3 +FLAGS (\\Deleted)").await;
    client.ok("UID EXPUNGE 3").await;
    client.ok("UNSELECT").await;
    case.doveadm("mailbox update", &["--uid-validity", "77", "--min-next-uid", "3000000000", "INBOX"]);
    client.append("INBOX", "", None, &numbered(7)).await;
    // Our user does not know of any of it.
    case.patch(&before["M1"], &json!({"unread": false})).await;
    let events = case.events().await;
    case.sync().await;
    let now = case.ids().await;
    assert!(!now.contains_key("M3") && now.contains_key("M7"));
    // One each: also of the flag that nobody but the new numbers tells of, and not of the five that are as they were.
    let mut told = events.told(&case.app).await;
    told.sort();
    let expected = [
        ("mailbox.reset", &case.mailbox("INBOX").await),
        ("message.created", &now["M7"]),
        ("message.deleted", &before["M3"]),
        ("message.updated", &before["M2"]),
    ];
    assert_eq!(told, expected.map(|(kind, id)| (kind.to_owned(), id.clone())));
    assert!(["M1", "M2", "M4", "M5", "M6"].iter().all(|m| now[*m] == before[*m]));
    case.sync().await;
    case.settled().await;
    let row = case.app.get(&case.tenant, &format!("/api/messages/{}", now["M1"])).await.expect(200);
    assert_eq!(row["unread"], false, "an edit waits for its message, whatever its UID");
    case.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_by_another_client_keeps_the_id_in_either_order_of_looking() {
    let case = Case::with((1..=3).map(numbered).collect()).await;
    let before = case.ids().await;
    let mut client = case.client().await;
    // INBOX is looked at first: there the message goes before it comes, and on the way back it comes before it goes.
    for (from, to) in [("INBOX", "Archive"), ("Archive", "INBOX")] {
        let events = case.events().await;
        client.select(from).await;
        client.ok(&format!("UID MOVE 1:* {to}")).await;
        client.ok("UNSELECT").await;
        case.sync().await;
        assert_eq!(case.ids().await, before, "{from} → {to}");
        assert_eq!(case.mailboxes().await[to]["total"], 3);
        let told = events.told(&case.app).await;
        assert_eq!(told.len(), 6, "one for each place left and each place taken: {told:?}");
        assert!(told.iter().all(|(_, id)| before.values().any(|b| b == id)), "{told:?}");
        case.settled().await;
    }
    case.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copy_and_expunge_is_a_move_too() {
    let case = Case::with((1..=3).map(numbered).collect()).await;
    let before = case.ids().await;
    let mut client = case.client().await;
    client.select("INBOX").await;
    client.ok("UID COPY 1:2 Archive").await;
    case.sync().await;
    assert_eq!(case.ids().await, before, "a copy is one more place");
    client.ok("UID STORE 1:2 +FLAGS.SILENT (\\Deleted)").await;
    client.ok("UID EXPUNGE 1:2").await;
    case.sync().await;
    assert_eq!(case.ids().await, before);
    case.settled().await;
    case.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_moved_away_and_back_between_two_rounds_is_the_same() {
    let case = Case::with((1..=3).map(numbered).collect()).await;
    let before = case.ids().await;
    let mut client = case.client().await;
    client.select("INBOX").await;
    client.ok("UID MOVE 1:2 Archive").await;
    client.select("Archive").await;
    client.ok("UID MOVE 1:* INBOX").await;
    client.ok("UNSELECT").await;
    case.sync().await;
    assert_eq!(case.ids().await, before);
    case.settled().await;
    case.finish().await;
}

/// Two minutes without a look at any mailbox, and what the scheduler removes after them.
async fn two_minutes_pass(case: &Case) -> u64 {
    let pass = "UPDATE messages SET gone_at = gone_at - interval '121 seconds' WHERE gone_at IS NOT NULL;
         UPDATE mailboxes SET last_synced_at = last_synced_at - interval '121 seconds'";
    case.app.database.superuser().await.execute(pass).await.unwrap();
    swept(case).await
}

/// What the scheduler removes now; it finds the account if there is anything.
async fn swept(case: &Case) -> u64 {
    let account = AccountId(Uuid::parse_str(&case.account).unwrap());
    let found = due::accounts_with_gone(&mut case.app.db.system().await.unwrap()).await.unwrap();
    let mut tx = case.app.db.tenant(case.tenant.id).await.unwrap();
    let removed = vanish::sweep_gone(&mut tx, account).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(found.len(), usize::from(removed > 0));
    removed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_moved_keeps_its_id_however_long_it_takes_until_it_is_read() {
    let app = Case::app().await;
    let user = mail::new_mailbox(&app);
    mail::fill(&app, &user, "INBOX", (1..=85).map(numbered).collect());
    let relay = Relay::to(app.stack.imap_port).await;
    let mut case = Case::of(app, user, "127.0.0.1", Some(relay.port)).await;
    case.app.add_worker();
    case.sync().await;
    let before = case.ids().await;
    let gone = "SELECT count(*) FROM messages WHERE gone_at IS NOT NULL";
    let path = format!("/api/sync/imap/{}", case.account);
    let mut client = case.client().await;
    client.ok("CREATE 2023").await;
    // Part of what is in the new mailbox is old mail; what comes into the other one, which has been read, is new.
    for (uids, to, went, old) in [("1:80", "2023", 80, Some(30)), ("81:85", "Archive", 5, None)] {
        client.select("INBOX").await;
        client.ok(&format!("UID MOVE {uids} {to}")).await;
        client.ok("UNSELECT").await;
        let mut held = relay.hold("BODY.PEEK[]");
        case.app.post(&case.tenant, &path, &json!({})).await.expect(202);
        held.reached().await;
        assert_eq!(case.count(gone).await, went, "{to}: INBOX is looked at first");
        assert_eq!(two_minutes_pass(&case).await, 0);
        if let Some(old) = old {
            let first = std::mem::replace(&mut held, relay.hold("BODY.PEEK[]"));
            first.release();
            held.reached().await;
            assert_eq!(case.count(gone).await, old, "the first page has been read");
            assert_eq!(two_minutes_pass(&case).await, 0);
        }
        held.release();
        case.sync().await;
        assert_eq!(case.ids().await, before, "{to}");
    }
    case.settled().await;
    // When all has been read since, nobody waits for it any more.
    client.select("Archive").await;
    client.ok("UID STORE 1:* +FLAGS.SILENT (\\Deleted)").await;
    client.ok("EXPUNGE").await;
    case.sync().await;
    assert_eq!(swept(&case).await, 0);
    assert_eq!(two_minutes_pass(&case).await, 0, "it may have been moved since the last look");
    case.sync().await;
    assert_eq!(swept(&case).await, 5);
    case.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn message_ids_that_are_twice_missing_or_garbage_confuse_nothing() {
    let odd = |subject: &str, header: &str| {
        let text = String::from_utf8(mail::message(subject, "x", subject)).unwrap();
        text.replace("Message-ID: <x>\r\n", header).into_bytes()
    };
    let case = Case::with(vec![
        odd("first", "Message-ID: <same@example.test>\r\n"),
        odd("second", "Message-ID: <same@example.test>\r\n"),
        odd("none", ""),
        odd("none again", ""),
        odd("garbage", "Message-ID: <<\0\x01 \u{fffd}>>@\r\n"),
        odd("empty", "Message-ID:\r\n"),
        odd("long", &format!("Message-ID: <{}@example.test>\r\n", "x".repeat(5_000))),
        odd("two", "Message-ID: <a@example.test>\r\nMessage-ID: <b@example.test>\r\n"),
    ])
    .await;
    let before = case.ids().await;
    assert_eq!(before.len(), 8);
    case.settled().await;
    case.doveadm("mailbox update", &["--uid-validity", "5", "INBOX"]);
    case.sync().await;
    assert_eq!(case.ids().await, before, "another UIDVALIDITY");
    let mut client = case.client().await;
    client.select("INBOX").await;
    client.ok("UID MOVE 1:* Archive").await;
    client.ok("UNSELECT").await;
    case.sync().await;
    assert_eq!(case.ids().await, before, "moved");
    case.settled().await;
    case.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn absurd_dates_are_kept_and_write_nothing_twice() {
    let dated = |n: u32, date: &str| {
        let text = String::from_utf8(numbered(n)).unwrap();
        text.replace("Date: Sat, 21 Nov 2026 10:00:00 +0000\r\n", &format!("Date: {date}\r\n")).into_bytes()
    };
    let case = Case::with(vec![
        dated(1, "Thu, 01 Jan 1600 00:00:00 +0000"),
        dated(2, "Mon, 99 Foo 99999 99:99:99 +9999"),
        dated(3, ""),
        dated(4, "Fri, 31 Dec 9999 23:59:59 -1200"),
    ])
    .await;
    let mut client = case.client().await;
    for (n, internal) in [
        (5, "01-Jan-1600 00:00:00 +0000"),
        (6, "31-Dec-1969 23:59:59 +0000"),
        (7, " 1-Jan-1970 00:00:00 +0000"),
        (8, "19-Jan-2038 03:14:08 +0000"),
        (9, "31-Dec-9999 23:59:59 +0000"),
    ] {
        client.append("INBOX", "", Some(internal), &numbered(n)).await;
    }
    case.sync().await;
    let before = case.ids().await;
    assert_eq!(before.len(), 9);
    case.settled().await;
    for sort in ["received_at", "-received_at", "date", "-date"] {
        let path = format!("/api/accounts/{}/messages?sort={sort}&limit=200", case.account);
        let page = case.app.get(&case.tenant, &path).await.expect(200);
        assert_eq!(page["data"].as_array().unwrap().len(), 9, "{sort}");
    }
    case.doveadm("mailbox update", &["--uid-validity", "5", "INBOX"]);
    case.sync().await;
    assert_eq!(case.ids().await, before);
    case.settled().await;
    case.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_identical_copy_in_one_mailbox_is_a_message_of_its_own_and_elsewhere_it_is_not() {
    let case = Case::with(vec![numbered(1)]).await;
    let mut client = case.client().await;
    client.select("INBOX").await;
    client.ok("UID COPY 1 INBOX").await;
    client.ok("UID COPY 1 Archive").await;
    case.sync().await;
    let of = async |path: &str| {
        let id = case.mailbox(path).await;
        let page = format!("/api/accounts/{}/messages?mailbox_id={id}", case.account);
        let page = case.app.get(&case.tenant, &page).await.expect(200);
        let ids = page["data"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap().to_owned());
        ids.collect::<std::collections::BTreeSet<_>>()
    };
    let (inbox, archive) = (of("INBOX").await, of("Archive").await);
    assert_eq!((inbox.len(), archive.len()), (2, 1));
    assert!(archive.is_subset(&inbox));
    assert_eq!(case.count("SELECT count(*) FROM blobs").await, 1);
    case.settled().await;
    // Both of INBOX follow the UIDVALIDITY, and one of them goes alone.
    case.doveadm("mailbox update", &["--uid-validity", "9", "INBOX"]);
    case.sync().await;
    assert_eq!(of("INBOX").await, inbox);
    client.select("INBOX").await;
    client.ok("UID STORE 1 +FLAGS (\\Deleted)").await;
    client.ok("UID EXPUNGE 1").await;
    case.sync().await;
    let left = of("INBOX").await;
    assert!(left.len() == 1 && left.is_subset(&inbox));
    assert_eq!(of("Archive").await, archive);
    case.settled().await;
    case.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_move_of_what_another_client_took_first_leaves_nothing_behind() {
    let case = Case::with((1..=4).map(numbered).collect()).await;
    let before = case.ids().await;
    let (archive, drafts) = (case.mailbox("Archive").await, case.mailbox("Drafts").await);
    let account = format!("/api/accounts/{}", case.account);
    case.app.post(&case.tenant, &format!("{account}/pause"), &json!({})).await.expect(200);
    for (name, target) in [("M1", &archive), ("M2", &archive), ("M3", &archive), ("M4", &drafts)] {
        case.patch(&before[name], &json!({"move_to": target})).await;
    }
    let mut client = case.client().await;
    client.select("INBOX").await;
    client.ok("UID STORE 1,4 +FLAGS.SILENT (\\Deleted)").await;
    client.ok("UID EXPUNGE 1,4").await;
    client.ok("UID MOVE 2 Sent").await;
    client.ok("UNSELECT").await;
    case.app.post(&case.tenant, &format!("{account}/resume"), &json!({})).await.expect(200);
    case.sync().await;
    // A server may show late what it moved; after a while nobody waits for it any more, and nothing else need happen there.
    // One of the moves came while another generation of its target began.
    sqlx::query(
        "UPDATE message_mailboxes p SET created_at = p.created_at - interval '10 minutes',
           generation = p.generation - (b.role = 'drafts')::int FROM mailboxes b WHERE b.id = p.mailbox_id AND p.uid IS NULL",
    )
    .execute(&mut case.app.database.superuser().await)
    .await
    .unwrap();
    case.sync().await;
    let now = case.ids().await;
    assert_eq!(now.keys().collect::<Vec<_>>(), ["M2", "M3"]);
    assert!(now.iter().all(|(name, id)| before[name] == *id));
    case.settled().await;
    case.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_moves_into_a_mailbox_that_another_client_deleted_are_undone_and_told() {
    let case = Case::with((1..=3).map(numbered).collect()).await;
    let mut client = case.client().await;
    client.ok("CREATE Doomed").await;
    case.sync().await;
    let (before, doomed) = (case.ids().await, case.mailbox("Doomed").await);
    let account = format!("/api/accounts/{}", case.account);
    case.app.post(&case.tenant, &format!("{account}/pause"), &json!({})).await.expect(200);
    case.patch(&before["M1"], &json!({"move_to": doomed})).await;
    let copy = json!({"ids": [before["M2"]], "action": "copy", "mailbox_id": doomed});
    case.app.post(&case.tenant, "/api/messages/actions", &copy).await.expect(200);
    client.ok("DELETE Doomed").await;
    let events = case.events().await;
    case.app.post(&case.tenant, &format!("{account}/resume"), &json!({})).await.expect(200);
    case.sync().await;
    assert_eq!(case.ids().await, before);
    assert_eq!(case.mailboxes().await["INBOX"]["total"], 3);
    assert_eq!(events.kinds(&case.app).await, ["mailbox.deleted", "message.updated", "message.updated"]);
    case.settled().await;
    case.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_whose_copy_was_not_made_yet_stays_when_the_mailbox_of_the_copy_goes() {
    let case = Case::with(vec![numbered(1)]).await;
    case.client().await.ok("CREATE Work").await;
    case.sync().await;
    let (before, work) = (case.ids().await, case.mailbox("Work").await);
    let account = format!("/api/accounts/{}", case.account);
    case.app.post(&case.tenant, &format!("{account}/pause"), &json!({})).await.expect(200);
    let copy = json!({"ids": [before["M1"]], "action": "copy", "mailbox_id": work});
    case.app.post(&case.tenant, "/api/messages/actions", &copy).await.expect(200);
    // It is there already: all that is left of the move is to delete the original.
    case.patch(&before["M1"], &json!({"move_to": work})).await;
    assert_eq!(case.count("SELECT count(*) FROM edits WHERE kind = 'move'").await, 1);
    let events = case.events().await;
    assert_eq!(
        case.app.delete(&case.tenant, &format!("/api/mailboxes/{work}?with_messages=true")).await.status,
        204
    );
    assert_eq!(events.kinds(&case.app).await, ["mailbox.deleted", "message.updated"]);
    case.app.post(&case.tenant, &format!("{account}/resume"), &json!({})).await.expect(200);
    case.sync().await;
    assert_eq!(case.ids().await, before);
    assert_eq!(case.mailboxes().await["INBOX"]["total"], 1);
    case.settled().await;
    case.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mailbox_that_our_user_emptied_is_not_deleted_before_the_server_has_moved_its_messages() {
    let case = Case::with(vec![]).await;
    let mut client = case.client().await;
    client.ok("CREATE Emptied").await;
    client.append("Emptied", "", None, &numbered(1)).await;
    case.sync().await;
    let ids = case.ids().await;
    let (emptied, archive) = (case.mailbox("Emptied").await, case.mailbox("Archive").await);
    let account = format!("/api/accounts/{}", case.account);
    case.app.post(&case.tenant, &format!("{account}/pause"), &json!({})).await.expect(200);
    case.patch(&ids["M1"], &json!({"move_to": archive})).await;
    let path = format!("/api/mailboxes/{emptied}");
    let refused = case.app.delete(&case.tenant, &path).await.refused(422, "validation-error");
    assert_eq!(refused["errors"][0]["code"], "moves-wait");
    case.app.post(&case.tenant, &format!("{account}/resume"), &json!({})).await.expect(200);
    case.sync().await;
    assert_eq!(case.app.delete(&case.tenant, &path).await.status, 204);
    case.sync().await;
    case.settled().await;
    assert_eq!(case.ids().await, ids);
    case.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_deletion_and_a_place_that_a_worker_adds_in_that_moment_are_told_one_after_the_other() {
    let case = Case::with(vec![numbered(1)]).await;
    case.client().await.ok("CREATE Work").await;
    case.sync().await;
    let (ids, work) = (case.ids().await, case.mailbox("Work").await);
    let events = case.events().await;
    let mut conn = case.app.database.superuser().await;
    let mut worker = conn.begin().await.unwrap();
    // A worker's transaction begins with the lease; then it links a copy of the message.
    sqlx::query("SELECT 1 FROM account_leases WHERE account_id = $1::uuid FOR SHARE")
        .bind(&case.account)
        .execute(&mut *worker)
        .await
        .unwrap();
    sqlx::query(
        "INSERT INTO message_mailboxes (tenant_id, id, account_id, mailbox_id, generation, uid, message_id, internal_date, sort_at)
         SELECT tenant_id, gen_random_uuid(), account_id, $1::uuid, 1, 77, id, now(), now() FROM messages WHERE id = $2::uuid",
    )
    .bind(&work)
    .bind(&ids["M1"])
    .execute(&mut *worker)
    .await
    .unwrap();
    let path = format!("/api/messages/{}?permanent=true", ids["M1"]);
    let (answer, ()) = tokio::join!(case.app.delete(&case.tenant, &path), async {
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        eventually("the deletion waits for the worker", Duration::from_secs(20), async || {
            (case.count(waits).await > 0).then_some(())
        })
        .await;
        worker.commit().await.unwrap();
    });
    answer.expect(204);
    let visible = "SELECT count(*) FROM message_mailboxes WHERE hidden_at IS NULL";
    assert_eq!(case.count(visible).await, 0, "it is deleted from where the worker put it, too");
    assert_eq!(case.count("SELECT count(*) FROM messages WHERE gone_at IS NOT NULL").await, 1);
    assert_eq!(events.kinds(&case.app).await, ["message.deleted"]);
    case.finish().await;
}
