//! What happens while a round is under way. A relay holds one command of ours until it has happened.

use std::time::Duration;

use serde_json::json;
use sqlx::Connection as _;
use tests::app::App;
use tests::eventually::eventually;
use tests::mail;
use tests::oracle;
use tests::relay::Relay;

use crate::case::{Case, numbered};

/// An account whose first round will stop before it asks for bodies.
async fn held_before_bodies(messages: u32) -> (Case, Relay, tests::relay::Held) {
    let app = Case::app().await;
    let user = mail::new_mailbox(&app);
    mail::fill(&app, &user, "INBOX", (1..=messages).map(numbered).collect());
    let relay = Relay::to(app.stack.imap_port).await;
    let held = relay.hold("BODY.PEEK[]");
    let mut case = Case::of(app, user, "127.0.0.1", Some(relay.port)).await;
    case.app.add_worker();
    held.reached().await;
    (case, relay, held)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flags_mail_and_removals_during_the_first_round_are_all_found() {
    let (case, _relay, held) = held_before_bodies(120).await;
    let mut client = case.client().await;
    client.select("INBOX").await;
    client.ok("UID STORE 1:10,115:120 +FLAGS (\\Seen $Later)").await;
    client.ok("UID STORE 5,60:70,119 +FLAGS (\\Deleted)").await;
    client.ok("UID EXPUNGE 5,60:70,119").await;
    client.ok("UID MOVE 80:84 Archive").await;
    client.append("INBOX", "\\Flagged", None, &numbered(121)).await;
    mail::deliver(&case.app, &case.user, &numbered(122));
    held.release();
    case.sync().await;
    assert_eq!(case.listed().await.len(), 120 - 13 + 2);
    case.settled().await;
    case.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_expunged_while_it_is_fetched_is_neither_kept_nor_asked_for_again() {
    let (case, _relay, held) = held_before_bodies(3).await;
    let mut client = case.client().await;
    client.select("INBOX").await;
    client.ok("UID STORE 1:3 +FLAGS (\\Deleted)").await;
    client.ok("UID EXPUNGE 1:3").await;
    held.release();
    case.sync().await;
    assert_eq!(case.listed().await.len(), 0);
    case.settled().await;
    case.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mailbox_deleted_or_given_another_uidvalidity_while_it_is_fetched_does_not_mix_messages() {
    let app = Case::app().await;
    let user = mail::new_mailbox(&app);
    for mailbox in ["Gone", "Reset"] {
        mail::fill(&app, &user, mailbox, (1..=5).map(numbered).collect());
    }
    let relay = Relay::to(app.stack.imap_port).await;
    let held = relay.hold("BODY.PEEK[]");
    let mut case = Case::of(app, user, "127.0.0.1", Some(relay.port)).await;
    case.app.add_worker();
    held.reached().await;
    case.doveadm("mailbox delete", &["Gone"]);
    case.doveadm("mailbox update", &["--uid-validity", "99", "Reset"]);
    let mut client = case.client().await;
    client.select("Reset").await;
    client.ok("UID STORE 1 +FLAGS (\\Deleted)").await;
    client.ok("UID EXPUNGE 1").await;
    client.ok("CREATE Gone").await;
    client.append("Gone", "", None, &numbered(77)).await;
    held.release();
    // The round that was surprised may end early; the next is whole.
    oracle::at_rest(&case.app, &case.account).await;
    case.sync().await;
    assert_eq!(case.listed().await.len(), 5);
    case.settled().await;
    case.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_kicked_at_a_fetch_is_made_again_and_nothing_is_lost() {
    let (case, _relay, held) = held_before_bodies(120).await;
    mail::doveadm(&case.app, &["kick", &case.user]);
    held.release();
    case.sync().await;
    assert_eq!(case.listed().await.len(), 120);
    case.settled().await;
    case.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_deleted_during_its_round_is_gone_and_the_round_ends() {
    let (case, _relay, held) = held_before_bodies(20).await;
    assert_eq!(case.app.delete(&case.tenant, &format!("/api/accounts/{}", case.account)).await.status, 204);
    held.release();
    oracle::at_rest(&case.app, &case.account).await;
    for table in [
        "SELECT count(*) FROM messages",
        "SELECT count(*) FROM message_mailboxes",
        "SELECT count(*) FROM blobs",
        "SELECT count(*) FROM mailboxes",
        "SELECT count(*) FROM account_leases",
        "SELECT count(*) FROM ingest_batches",
    ] {
        assert_eq!(case.count(table).await, 0, "{table}");
    }
    case.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_changed_during_a_round_count_from_the_next_one() {
    let (case, _relay, held) = held_before_bodies(20).await;
    let wrong = json!({"imap": {"password": "not this one"}});
    let path = format!("/api/accounts/{}?verify=false", case.account);
    case.app.patch(&case.tenant, &path, &wrong).await.expect(200);
    held.release();
    let state = async || {
        let status =
            case.app.get(&case.tenant, &format!("/api/sync/status/{}", case.account)).await.expect(200);
        status["state"].as_str().unwrap().to_owned()
    };
    oracle::at_rest(&case.app, &case.account).await;
    case.app.post(&case.tenant, &format!("/api/sync/imap/{}", case.account), &json!({})).await.expect(202);
    eventually("the next round is refused", Duration::from_secs(60), async || {
        (state().await == "needs_reauth").then_some(())
    })
    .await;
    assert_eq!(case.listed().await.len(), 20, "what the round under way brought stays");
    let right = json!({"imap": {"password": mail::PASSWORD}});
    case.app.patch(&case.tenant, &path, &right).await.expect(200);
    case.sync().await;
    assert_eq!(state().await, "connected");
    case.settled().await;
    case.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_flag_and_the_servers_older_one_meet_and_both_are_kept() {
    let relay_app = Case::app().await;
    let user = mail::new_mailbox(&relay_app);
    mail::fill(&relay_app, &user, "INBOX", (1..=3).map(numbered).collect());
    let relay = Relay::to(relay_app.stack.imap_port).await;
    let mut case = Case::of(relay_app, user, "127.0.0.1", Some(relay.port)).await;
    case.app.add_worker();
    case.sync().await;
    oracle::at_rest(&case.app, &case.account).await;
    let ids = case.ids().await;
    let mut client = case.client().await;
    client.select("INBOX").await;
    client.ok("UID STORE 1:2 +FLAGS (\\Flagged $Theirs)").await;
    // The changes are asked for, and before the answer our user has decided too.
    let held = relay.hold("CHANGEDSINCE");
    case.app.post(&case.tenant, &format!("/api/sync/imap/{}", case.account), &json!({})).await.expect(202);
    held.reached().await;
    case.patch(&ids["M1"], &json!({"unread": false, "keywords_add": ["$Ours"]})).await;
    case.patch(&ids["M2"], &json!({"starred": true})).await;
    held.release();
    oracle::at_rest(&case.app, &case.account).await;
    case.sync().await;
    let server = oracle::server(&case.app, &case.user).await;
    let flags: Vec<String> = server.placed.iter().map(|p| p.flags.join(" ")).collect();
    assert_eq!(flags, ["$Ours $Theirs \\Flagged \\Seen", "$Theirs \\Flagged", ""]);
    case.settled().await;
    case.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_that_comes_between_select_and_idle_is_not_waited_for() {
    let mut app = App::start().await;
    let user = mail::new_mailbox(&app);
    mail::fill(&app, &user, "INBOX", vec![numbered(1)]);
    let relay = Relay::to(app.stack.imap_port).await;
    let held = relay.hold(" IDLE");
    app.add_worker();
    let case = Case::of(app, user, "127.0.0.1", Some(relay.port)).await;
    held.reached().await;
    // The watcher has asked for a round when it had opened INBOX: what that one finds does not count here.
    oracle::at_rest(&case.app, &case.account).await;
    mail::deliver(&case.app, &case.user, &numbered(2));
    held.release();
    eventually("the second message is there", Duration::from_secs(30), async || {
        (case.listed().await.len() == 2).then_some(())
    })
    .await;
    // The watch vouches for the message alone; the numbers of the mailbox are a round's.
    case.sync().await;
    case.settled().await;
    case.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_the_provider_files_while_ours_is_on_its_way_stands_beside_it_and_is_no_third() {
    let app = Case::app().await;
    let user = mail::new_mailbox(&app);
    let relay = Relay::to(app.stack.imap_port).await;
    let mut case = Case::of(app, user, "127.0.0.1", Some(relay.port)).await;
    case.app.add_worker();
    case.sync().await;
    let held = relay.hold("APPEND");
    let draft = json!({"account_id": case.account, "to": [case.user], "subject": "Raced", "text": "x"});
    let draft = case.app.post(&case.tenant, "/api/compose", &draft).await.expect(201);
    let path = format!("/api/compose/{}/send", draft["id"].as_str().unwrap());
    case.app.post(&case.tenant, &path, &json!({})).await.expect(202);
    held.reached().await;
    // The provider's is not ours byte by byte, but has the same Message-ID.
    let mime: Vec<u8> = sqlx::query_scalar("SELECT mime FROM submissions")
        .fetch_one(&mut case.app.database.superuser().await)
        .await
        .unwrap();
    let theirs = [b"X-Filed-By: provider\r\n".as_slice(), &mime].concat();
    case.client().await.append("Sent", "\\Seen", None, &theirs).await;
    held.release();
    eventually("the copy is filed", Duration::from_secs(60), async || {
        let done = "SELECT count(*) FROM submissions WHERE state = 'sent' AND sent_copy = 'done'";
        (case.count(done).await == 1).then_some(())
    })
    .await;
    case.sync().await;
    assert_eq!(case.mailboxes().await["Sent"]["total"], 2, "nothing of the server's is deleted for tidiness");
    case.settled().await;
    case.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_under_way_into_a_mailbox_our_user_deletes_ends_in_trash_with_its_mail() {
    let app = Case::app().await;
    let user = mail::new_mailbox(&app);
    mail::fill(&app, &user, "INBOX", (1..=2).map(numbered).collect());
    let relay = Relay::to(app.stack.imap_port).await;
    let mut case = Case::of(app, user, "127.0.0.1", Some(relay.port)).await;
    case.app.add_worker();
    case.client().await.ok("CREATE Doomed").await;
    case.sync().await;
    let (ids, doomed) = (case.ids().await, case.mailbox("Doomed").await);
    let events = case.events().await;
    let held = relay.hold("UID MOVE");
    case.patch(&ids["M1"], &json!({"move_to": doomed})).await;
    held.reached().await;
    // It is back in INBOX for our user, and then the server moves it all the same, and the mailbox is emptied into Trash.
    assert_eq!(
        case.app.delete(&case.tenant, &format!("/api/mailboxes/{doomed}?with_messages=true")).await.status,
        204
    );
    held.release();
    case.sync().await;
    case.settled().await;
    assert_eq!(case.ids().await, ids);
    let path = format!("/api/messages/{}", ids["M1"]);
    assert_eq!(case.app.get(&case.tenant, &path).await.expect(200)["mailboxes"][0]["role"], "trash");
    // The message is somewhere all the time.
    let mut kinds = events.kinds(&case.app).await;
    kinds.dedup();
    assert_eq!(kinds, ["mailbox.deleted", "message.updated"]);
    case.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_move_into_a_mailbox_that_goes_in_that_moment_is_refused() {
    let case = Case::with(vec![numbered(1)]).await;
    case.client().await.ok("CREATE Going").await;
    case.sync().await;
    let (ids, going) = (case.ids().await, case.mailbox("Going").await);
    let mut conn = case.app.database.superuser().await;
    let mut round = conn.begin().await.unwrap();
    sqlx::query("DELETE FROM mailboxes WHERE id = $1::uuid").bind(&going).execute(&mut *round).await.unwrap();
    let path = format!("/api/messages/{}", ids["M1"]);
    let body = json!({"move_to": going});
    let (answer, ()) = tokio::join!(case.app.patch(&case.tenant, &path, &body), async {
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        eventually("the move waits for the round", Duration::from_secs(20), async || {
            (case.count(waits).await > 0).then_some(())
        })
        .await;
        round.commit().await.unwrap();
    });
    let refused = answer.refused(422, "validation-error");
    assert_eq!(refused["errors"][0]["pointer"], "/move_to");
    // The mailbox is on the server still.
    case.sync().await;
    case.settled().await;
    assert_eq!(case.ids().await, ids);
    case.finish().await;
}

/// The round has told the server of new names already, and comes to the messages.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mailbox_that_takes_the_name_of_a_deleted_one_during_a_round_gets_what_our_user_moves_there() {
    let app = Case::app().await;
    let user = mail::new_mailbox(&app);
    mail::fill(&app, &user, "INBOX", (1..=2).map(numbered).collect());
    mail::fill(&app, &user, "Work", vec![numbered(3)]);
    let relay = Relay::to(app.stack.imap_port).await;
    let mut case = Case::of(app, user, "127.0.0.1", Some(relay.port)).await;
    case.app.add_worker();
    case.client().await.ok("CREATE Old").await;
    case.sync().await;
    let (ids, old, work) = (case.ids().await, case.mailbox("Old").await, case.mailbox("Work").await);
    mail::deliver(&case.app, &case.user, &numbered(4));
    let held = relay.hold("LIST");
    let path = format!("/api/sync/imap/{}", case.account);
    case.app.post(&case.tenant, &path, &json!({})).await.expect(202);
    held.reached().await;
    assert_eq!(
        case.app.delete(&case.tenant, &format!("/api/mailboxes/{old}?with_messages=true")).await.status,
        204
    );
    let path = format!("/api/mailboxes/{work}");
    case.app.patch(&case.tenant, &path, &json!({"name": "Old"})).await.expect(200);
    case.patch(&ids["M1"], &json!({"move_to": work})).await;
    case.patch(&ids["M3"], &json!({"starred": true})).await;
    held.release();
    case.sync().await;
    case.settled().await;
    let mut now = case.ids().await;
    now.remove("M4");
    assert_eq!(now, ids);
    assert_eq!((case.mailbox("Old").await, &case.mailboxes().await["Old"]["total"]), (work, &json!(2)));
    case.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rename_waits_for_a_round_that_takes_over_the_servers_tree() {
    let case = Case::with(vec![numbered(1)]).await;
    case.client().await.ok("CREATE Work").await;
    case.sync().await;
    let work = case.mailbox("Work").await;
    let mut conn = case.app.database.superuser().await;
    let mut round = conn.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM account_leases WHERE account_id = $1::uuid FOR SHARE")
        .bind(&case.account)
        .execute(&mut *round)
        .await
        .unwrap();
    let path = format!("/api/mailboxes/{work}");
    let body = json!({"name": "Play"});
    let (answer, ()) = tokio::join!(case.app.patch(&case.tenant, &path, &body), async {
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        eventually("the rename waits for the round", Duration::from_secs(20), async || {
            (case.count(waits).await > 0).then_some(())
        })
        .await;
        let touch =
            sqlx::query("UPDATE mailboxes SET last_synced_at = now() WHERE id = $1::uuid").bind(&work);
        touch.execute(&mut *round).await.unwrap();
        round.commit().await.unwrap();
    });
    answer.expect(200);
    case.sync().await;
    case.settled().await;
    assert_eq!(case.mailbox("Play").await, work);
    case.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mailboxes_below_one_that_is_renamed_during_a_round_stay_what_they_are() {
    let app = Case::app().await;
    let user = mail::new_mailbox(&app);
    mail::fill(&app, &user, "Work", vec![numbered(1)]);
    mail::fill(&app, &user, "Work/Deep", vec![numbered(2)]);
    let relay = Relay::to(app.stack.imap_port).await;
    let mut case = Case::of(app, user, "127.0.0.1", Some(relay.port)).await;
    case.app.add_worker();
    case.sync().await;
    let (ids, deep) = (case.ids().await, case.mailbox("Work/Deep").await);
    let events = case.events().await;
    let held = relay.hold("LIST");
    let path = format!("/api/sync/imap/{}", case.account);
    case.app.post(&case.tenant, &path, &json!({})).await.expect(202);
    held.reached().await;
    let path = format!("/api/mailboxes/{}", case.mailbox("Work").await);
    case.app.patch(&case.tenant, &path, &json!({"name": "Play"})).await.expect(200);
    held.release();
    case.sync().await;
    case.settled().await;
    assert_eq!((case.ids().await, case.mailbox("Play/Deep").await), (ids, deep));
    assert_eq!(events.kinds(&case.app).await, ["mailbox.updated"]);
    case.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_of_what_has_just_arrived_in_a_new_mailbox_goes_in_the_same_round() {
    let case = Case::with(vec![numbered(1)]).await;
    let ids = case.ids().await;
    let path = format!("/api/accounts/{}/mailboxes", case.account);
    let new = case.app.post(&case.tenant, &path, &json!({"name": "New"})).await.expect(201);
    case.patch(&ids["M1"], &json!({"move_to": new["id"]})).await;
    case.patch(&ids["M1"], &json!({"starred": true})).await;
    case.sync().await;
    assert_eq!(case.doveadm("search", &["mailbox", "New", "flagged"]).lines().count(), 1);
    // The mod-sequence that our own edit made.
    case.sync().await;
    case.settled().await;
    case.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_users_edit_of_flags_and_what_a_worker_writes_come_one_after_the_other() {
    let app = Case::app().await;
    let user = mail::new_mailbox(&app);
    mail::fill(&app, &user, "INBOX", vec![numbered(1)]);
    let mut case = Case::of(app, user, "127.0.0.1", None).await;
    case.app.add_worker();
    case.sync().await;
    let ids = case.ids().await;
    // As a worker's transaction begins.
    let mut worker = case.app.database.superuser().await;
    let begin = "BEGIN; SELECT 1 FROM account_leases FOR SHARE";
    sqlx::raw_sql(begin).execute(&mut worker).await.unwrap();
    let edit = json!({"starred": true});
    let edited = case.patch(&ids["M1"], &edit);
    let written = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        // What the edit locks is free for the worker.
        let sql = "SELECT 1 FROM message_mailboxes, mailboxes FOR UPDATE NOWAIT";
        sqlx::raw_sql(sql).execute(&mut worker).await.expect("the edit holds what a worker needs next");
        sqlx::raw_sql("COMMIT").execute(&mut worker).await.unwrap();
    };
    tokio::join!(edited, written);
    case.sync().await;
    case.settled().await;
    case.finish().await;
}
