//! The event log, and the changes of an account since a state.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use emailclient_core::domain::event::{self, AccountUpdated};
use emailclient_core::events::log::{self, Filter};
use emailclient_core::platform::db::Db;
use emailclient_core::platform::id::AccountId;
use serde_json::json;
use tests::app::{App, Tenant};
use tests::follower::{Follower, Listener};
use tests::mail;

use crate::streams::stream;

/// An account whose INBOX holds these messages, all of them here.
pub(crate) async fn account(app: &App, tenant: &Tenant, messages: Vec<Vec<u8>>) -> (String, String) {
    let user = mail::new_mailbox(app);
    mail::fill(app, &user, "INBOX", messages);
    let account = mail::connect(app, tenant, &user).await;
    mail::synchronise(app, tenant, &account).await;
    (account, user)
}

pub(crate) async fn ids(app: &App, tenant: &Tenant, account: &str) -> Vec<String> {
    let page = app.get(tenant, &format!("/api/accounts/{account}/messages?limit=200")).await.expect(200);
    page["data"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap().to_owned()).collect()
}

/// Eight writers commit at once; whoever reads what is there meanwhile never finds a gap, nor anything before what it has read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn positions_have_no_gap_and_are_in_the_order_of_commits() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let db = Db::new(app.config()).unwrap();
    let before = log::make_durable(&db, tenant.id).await.unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let writers = (0..8).map(|n| {
        let (db, id) = (db.clone(), tenant.id);
        async move {
            for turn in 0..40 {
                let relaxed = (turn + n) % 3 == 0;
                let mut tx = if relaxed { db.relaxed(id).await } else { db.tenant(id).await }.unwrap();
                for _ in 0..=turn % 4 {
                    event::tell(&mut tx, AccountId::new(), AccountUpdated { id: AccountId::new() });
                }
                // Some are taken back, and leave no hole.
                if turn % 7 == 0 {
                    drop(tx);
                } else {
                    tx.commit().await.unwrap();
                }
            }
        }
    });
    let reader = tokio::spawn({
        let (db, id, done) = (db.clone(), tenant.id, Arc::clone(&done));
        async move {
            let (mut at, mut last, mut looks) = (before.durable, None, 0);
            loop {
                let over = done.load(Ordering::SeqCst);
                let stream = log::make_durable(&db, id).await.unwrap();
                let mut tx = db.tenant(id).await.unwrap();
                let read =
                    log::read(&mut tx, (at, stream.durable), &Filter::default(), 10_000).await.unwrap();
                for entry in read {
                    assert_eq!(entry.position, at + 1);
                    assert!(Some(entry.created_at) >= last, "time runs back at {at}");
                    (at, last) = (entry.position, Some(entry.created_at));
                }
                looks += 1;
                if over {
                    return (at, looks);
                }
            }
        }
    });
    futures::future::join_all(writers).await;
    done.store(true, Ordering::SeqCst);
    let (at, looks) = reader.await.unwrap();
    let written: i64 = (0..40).filter(|turn| turn % 7 != 0).map(|turn| turn % 4 + 1).sum::<i64>() * 8;
    assert_eq!(at - before.durable, written);
    assert!(looks > 3, "{looks}");
    db.close().await;
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_on_disk_is_not_shown_until_somebody_waits_for_it() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let db = Db::new(app.config()).unwrap();
    let mut tx = db.relaxed(tenant.id).await.unwrap();
    event::tell(&mut tx, AccountId::new(), AccountUpdated { id: AccountId::new() });
    tx.commit().await.unwrap();
    let mut tx = db.tenant(tenant.id).await.unwrap();
    let stream = log::stream(&mut tx).await.unwrap();
    assert_eq!(stream.position, stream.durable + 1);
    tx.release();
    let stream = log::make_durable(&db, tenant.id).await.unwrap();
    assert_eq!(stream.position, stream.durable);
    // One that waits for the disk covers what came before it.
    for relaxed in [true, false] {
        let mut tx = if relaxed { db.relaxed(tenant.id).await } else { db.tenant(tenant.id).await }.unwrap();
        event::tell(&mut tx, AccountId::new(), AccountUpdated { id: AccountId::new() });
        tx.commit().await.unwrap();
    }
    let mut tx = db.tenant(tenant.id).await.unwrap();
    let now = log::stream(&mut tx).await.unwrap();
    assert_eq!((now.position, now.durable), (stream.position + 2, stream.position + 2));
    tx.release();
    db.close().await;
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_follows_the_changes_in_small_pieces_ends_equal_to_the_lists() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let numbered = |n: usize| mail::message(&format!("M{n}"), &format!("m{n}@c.test"), "x");
    let (account, user) = account(&app, &tenant, (0..12).map(numbered).collect()).await;
    let mut follower = Follower::begin(&app, &tenant, &account).await;
    assert_eq!((follower.there["message"].len(), follower.there["thread"].len()), (12, 12));
    let all = ids(&app, &tenant, &account).await;
    // Stars, a deletion for good, a move, a new mailbox.
    for id in &all[..4] {
        app.patch(&tenant, &format!("/api/messages/{id}"), &json!({"starred": true})).await.expect(200);
    }
    app.delete(&tenant, &format!("/api/messages/{}?permanent=true", all[0])).await.expect(204);
    let made =
        app.post(&tenant, &format!("/api/accounts/{account}/mailboxes"), &json!({"name": "New"})).await;
    let new = made.expect(201)["id"].as_str().unwrap().to_owned();
    app.patch(&tenant, &format!("/api/messages/{}", all[1]), &json!({"move_to": new})).await.expect(200);
    // One that comes and goes, and an answer that makes two conversations one.
    mail::deliver(&app, &user, &mail::message("Short", "short@c.test", "x"));
    mail::synchronise(&app, &tenant, &account).await;
    let short = ids(&app, &tenant, &account).await.into_iter().find(|id| !all.contains(id)).unwrap();
    app.delete(&tenant, &format!("/api/messages/{short}?permanent=true")).await.expect(204);
    let answer = "Message-ID: <joins@c.test>\r\nIn-Reply-To: <m5@c.test>\r\nReferences: <m5@c.test> <m6@c.test>\r\n\
                  From: a@c.test\r\nSubject: Re: M5\r\n\r\nboth\r\n";
    mail::deliver(&app, &user, answer.as_bytes());
    mail::synchronise(&app, &tenant, &account).await;
    follower.follow(&app, &tenant, 2).await;
    follower.agrees(&app, &tenant).await;
    assert!(follower.in_pieces > 3);
    assert_eq!(follower.there["thread"].len(), 10, "one conversation went, two became one");
    // All at once, and of several types, it is the same.
    let path = format!("/api/accounts/{account}/changes?types=mailbox,message,thread,submission");
    let state = app.get(&tenant, &path).await.expect(200)["new_state"].as_str().unwrap().to_owned();
    app.delete(&tenant, &format!("/api/mailboxes/{new}?with_messages=true")).await.expect(204);
    mail::synchronise(&app, &tenant, &account).await;
    let changes = app.get(&tenant, &format!("{path}&since={state}")).await.expect(200);
    assert!(changes["destroyed"].as_array().unwrap().contains(&json!(new)), "{changes}");
    let of = |name: &str| {
        let parts = changes["by_type"].as_array().unwrap();
        parts.iter().find(|part| part["type"] == name).unwrap().clone()
    };
    assert_eq!(of("mailbox")["destroyed"], json!([new]));
    let moved = &of("message")["updated"][0];
    assert_eq!(moved["id"], json!(all[1]));
    assert!(moved["changed"].as_array().unwrap().contains(&json!("mailboxes")), "{moved}");
    app.finish().await;
}

/// What is listed came after the state, and goes before the changes are asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_lists_while_things_come_and_go_ends_equal_too() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let (account, user) = account(&app, &tenant, vec![mail::message("Old", "old@c.test", "x")]).await;
    let mut follower = Follower::begin_beside(&app, &tenant, &account, async || {
        mail::deliver(&app, &user, &mail::message("Short", "short@c.test", "x"));
        mail::synchronise(&app, &tenant, &account).await;
    })
    .await;
    assert_eq!(follower.there["message"].len(), 2);
    for id in ids(&app, &tenant, &account).await {
        app.delete(&tenant, &format!("/api/messages/{id}?permanent=true")).await.expect(204);
    }
    mail::deliver(&app, &user, &mail::message("New", "new@c.test", "x"));
    mail::synchronise(&app, &tenant, &account).await;
    follower.follow(&app, &tenant, 500).await;
    follower.agrees(&app, &tenant).await;
    assert_eq!((follower.there["message"].len(), follower.there["thread"].len()), (1, 1));
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_late_is_told_everything_in_order() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let db = Db::new(app.config()).unwrap();
    let mut late = Listener::open(stream(&app, &tenant, "")).await;
    // More than all buffers between hold.
    for _ in 0..60 {
        let mut tx = db.tenant(tenant.id).await.unwrap();
        for _ in 0..100 {
            event::tell(&mut tx, AccountId::new(), AccountUpdated { id: AccountId::new() });
        }
        tx.commit().await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let end = log::make_durable(&db, tenant.id).await.unwrap().durable;
    for position in end - 5_999..=end {
        let sent = tokio::time::timeout(Duration::from_secs(20), late.next()).await.unwrap().unwrap();
        assert_eq!(sent.id, emailclient_core::events::envelope::event_id(tenant.id, position));
    }
    db.close().await;
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_is_good_for_its_account_and_types_and_for_as_long_as_the_log_reaches_back() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let (one, _) = account(&app, &tenant, vec![mail::message("A", "a@c.test", "x")]).await;
    let (two, _) = account(&app, &tenant, vec![]).await;
    let path = |account: &str, rest: &str| format!("/api/accounts/{account}/changes{rest}");
    let state = app.get(&tenant, &path(&one, "")).await.expect(200)["new_state"].as_str().unwrap().to_owned();
    app.get(&tenant, &path(&one, &format!("?since={state}"))).await.expect(200);
    let other = app.tenant().await;
    let (theirs, _) = account(&app, &other, vec![]).await;
    for (who, account, rest) in [
        (&tenant, &two, format!("?since={state}")),
        (&tenant, &one, format!("?since={state}&types=thread")),
        (&tenant, &one, format!("?since=x{state}")),
        (&tenant, &one, "?since=7".to_owned()),
        (&other, &theirs, format!("?since={state}")),
    ] {
        app.get(who, &path(account, &rest)).await.refused(400, "invalid-state");
    }
    for bad in ["?types=", "?types=draft", "?limit=0", "?limit=501", "?states=x"] {
        app.get(&tenant, &path(&one, bad)).await.refused(400, "invalid-parameter");
    }
    app.get(&other, &path(&one, "")).await.refused(404, "not-found");
    let cut = "UPDATE tenant_streams SET oldest = position + 1 WHERE tenant_id = $1";
    let id = ids(&app, &tenant, &one).await.remove(0);
    app.patch(&tenant, &format!("/api/messages/{id}"), &json!({"starred": true})).await.expect(200);
    sqlx::query(cut).bind(tenant.id).execute(&app.behind).await.unwrap();
    let gone = app.get(&tenant, &path(&one, &format!("?since={state}"))).await.refused(410, "state-expired");
    let fresh = gone["new_state"].as_str().unwrap();
    let next = app.get(&tenant, &path(&one, &format!("?since={fresh}"))).await.expect(200);
    assert_eq!(next["has_more"], false);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drafts_submissions_and_accounts_tell_what_becomes_of_them() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let mut open = Listener::open(stream(&app, &tenant, "")).await;
    let (account, _) = account(&app, &tenant, vec![mail::message("Old", "o@c.test", "x")]).await;
    assert_eq!(open.wait_for("account.created").await.json()["data"]["account_id"], account);
    open.wait_for("account.synced").await;
    let new = json!({"account_id": account, "to": ["x@lab.test"], "subject": "S"});
    let draft = app.post(&tenant, "/api/compose", &new).await.expect(201);
    let id = draft["id"].as_str().unwrap();
    assert_eq!(open.wait_for("draft.created").await.json()["data"], json!({"draft_id": id}));
    let state = app
        .get(&tenant, &format!("/api/accounts/{account}/changes?types=submission"))
        .await
        .expect(200)["new_state"]
        .as_str()
        .unwrap()
        .to_owned();
    let order = json!({"undo_seconds": 100});
    let sent = app.post(&tenant, &format!("/api/compose/{id}/send"), &order).await.expect(202);
    let queued = open.wait_for("submission.queued").await.json();
    assert_eq!(queued["data"]["submission"]["id"], sent["id"]);
    assert_eq!(queued["data"]["recipients"][0]["address"], "x@lab.test");
    open.wait_for("draft.updated").await;
    let cancel = format!("/api/submissions/{}/cancel", sent["id"].as_str().unwrap());
    app.post(&tenant, &cancel, &json!({})).await.expect(200);
    open.wait_for("submission.cancelled").await;
    open.wait_for("draft.updated").await;
    let path = format!("/api/compose/{id}");
    let tag = app.get(&tenant, &path).await.header("etag");
    tests::app::send(app.request(&tenant, "DELETE", &path).header("If-Match", tag)).await.expect(204);
    open.wait_for("draft.deleted").await;
    let path = format!("/api/accounts/{account}/changes?types=submission&since={state}");
    let changes = app.get(&tenant, &path).await.expect(200);
    assert_eq!((&changes["created"], &changes["updated"]), (&json!([sent["id"]]), &json!([])));
    app.delete(&tenant, &format!("/api/accounts/{account}")).await.expect(204);
    assert_eq!(open.wait_for("account.deleted").await.json()["data"]["account_id"], account);
    app.finish().await;
}
