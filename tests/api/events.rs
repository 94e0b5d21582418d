//! The event log and two of its doors: changes since a state, and the stream of events.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use emailclient_core::domain::event::{self, AccountUpdated};
use emailclient_core::events::log::{self, Filter};
use emailclient_core::platform::db::Db;
use emailclient_core::platform::id::AccountId;
use serde_json::json;
use tests::app::{App, Tenant};
use tests::follower::{Follower, Listener};
use tests::mail;

/// An account whose INBOX holds these messages, all of them here.
async fn account(app: &App, tenant: &Tenant, messages: Vec<Vec<u8>>) -> (String, String) {
    let user = mail::new_mailbox(app);
    mail::fill(app, &user, "INBOX", messages);
    let account = mail::connect(app, tenant, &user).await;
    mail::synchronise(app, tenant, &account).await;
    (account, user)
}

fn stream(app: &App, tenant: &Tenant, query: &str) -> reqwest::RequestBuilder {
    app.request(tenant, "GET", &format!("/api/events{query}"))
}

async fn ids(app: &App, tenant: &Tenant, account: &str) -> Vec<String> {
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
async fn a_stream_tells_of_new_mail_and_of_our_edits_and_goes_on_where_it_was_cut() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let (account, user) = account(&app, &tenant, vec![mail::message("Old", "old@c.test", "x")]).await;
    let mut open = Listener::open(stream(&app, &tenant, "")).await;
    mail::deliver(&app, &user, &mail::message("New", "new@c.test", "hello"));
    let created = open.wait_for("message.created").await;
    let told = created.json();
    assert_eq!(
        (&told["type"], &told["account_id"], &told["id"]),
        (&json!("message.created"), &json!(account), &json!(created.id))
    );
    assert_eq!(told["data"]["message"]["subject"], "New", "{told}");
    assert_eq!(told["data"]["backfill"], false);
    let id = told["data"]["message_id"].as_str().unwrap().to_owned();
    drop(open);
    app.patch(&tenant, &format!("/api/messages/{id}"), &json!({"starred": true})).await.expect(200);
    let again = stream(&app, &tenant, "?types=message.updated").header("Last-Event-ID", &created.id);
    let mut open = Listener::open(again).await;
    let updated = open.wait_for("message.updated").await.json();
    assert_eq!(
        (&updated["data"]["message_id"], &updated["data"]["changed"]),
        (&json!(id), &json!(["flags"]))
    );
    assert_eq!(updated["data"]["message"]["starred"], true);
    // From the beginning, old mail is left out unless it is asked for.
    let mut all = BTreeSet::new();
    for (query, with_old) in [("&backfill=true", true), ("", false)] {
        let first = before_all(&tenant);
        let path = format!("?last_event_id={first}&types=message.created{query}");
        let mut open = Listener::open(stream(&app, &tenant, &path)).await;
        let sent = open.wait_for("message.created").await.json();
        assert_eq!(sent["data"]["message"]["subject"], if with_old { "Old" } else { "New" });
        assert_eq!(sent["data"]["backfill"], with_old);
        all.insert(sent["id"].to_string());
    }
    assert_eq!(all.len(), 2);
    app.finish().await;
}

/// The id of the place before the first event.
fn before_all(tenant: &Tenant) -> String {
    emailclient_core::events::envelope::event_id(tenant.id, 0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_asks_for_good_parameters_and_an_unknown_place_gives_one_reset() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let (own, _) = account(&app, &tenant, vec![]).await;
    let other = app.tenant().await;
    let (theirs, user) = account(&app, &other, vec![]).await;
    for (query, code) in [
        ("?types=message.eaten", "invalid-parameter"),
        ("?account_id=7", "invalid-parameter"),
        ("?ping=1", "invalid-parameter"),
        ("?closeafter=0", "invalid-parameter"),
        ("?last_event_id=7", "invalid-state"),
        (&format!("?last_event_id={}", before_all(&other)), "invalid-state"),
    ] {
        app.get(&tenant, &format!("/api/events{query}")).await.refused(400, code);
    }
    app.get(&tenant, &format!("/api/events?account_id={own}&account_id={theirs}"))
        .await
        .refused(404, "not-found");
    // A place in the future, and one that was cut off.
    let future = emailclient_core::events::envelope::event_id(tenant.id, 1_000_000);
    let mut open = Listener::open(stream(&app, &tenant, &format!("?last_event_id={future}&ping=5"))).await;
    let reset = open.next().await.unwrap();
    assert_eq!(reset.kind, "reset");
    // It goes on from now; who comes back with that id is not reset again.
    app.patch(&tenant, &format!("/api/accounts/{own}"), &json!({"name": "Other"})).await.expect(200);
    open.wait_for("account.updated").await;
    open.wait_for("ping").await;
    let mut back =
        Listener::open(stream(&app, &tenant, "?closeafter=1").header("Last-Event-ID", &reset.id)).await;
    assert_eq!(back.next().await.unwrap().kind, "account.updated");
    assert_eq!(back.next().await, None, "one event was asked for");
    // What another tenant does is told to nobody else.
    let mut deaf = Listener::open(stream(&app, &tenant, "")).await;
    mail::deliver(&app, &user, &mail::message("Theirs", "t@c.test", "x"));
    mail::synchronise(&app, &other, &theirs).await;
    app.patch(&tenant, &format!("/api/accounts/{own}"), &json!({"name": "Third"})).await.expect(200);
    assert_eq!(deaf.next().await.unwrap().kind, "account.updated");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_opens_one_stream_and_no_other_door() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let made = app.post(&tenant, "/api/events/ticket", &json!({})).await.expect(201);
    let ticket = made["ticket"].as_str().unwrap();
    let with = |path: String| app.http.get(format!("{}{path}", app.base));
    tests::app::send(with(format!("/api/accounts?ticket={ticket}"))).await.refused(401, "unauthenticated");
    let mut open = Listener::open(with(format!("/api/events?ticket={ticket}&ping=5"))).await;
    tests::app::send(with(format!("/api/events?ticket={ticket}"))).await.refused(401, "invalid-token");
    open.wait_for("ping").await;
    // One that nobody used in time.
    let late = app.post(&tenant, "/api/events/ticket", &json!({})).await.expect(201);
    sqlx::query("UPDATE event_tickets SET expires_at = now() - interval '1 second'")
        .execute(&app.behind)
        .await
        .unwrap();
    let late = late["ticket"].as_str().unwrap();
    tests::app::send(with(format!("/api/events?ticket={late}"))).await.refused(401, "invalid-token");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_with_its_session_and_when_the_service_stops() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let mut open = Listener::open(stream(&app, &tenant, "")).await;
    let ticket = app.post(&tenant, "/api/events/ticket", &json!({})).await.expect(201);
    let path = format!("/api/events?ticket={}", ticket["ticket"].as_str().unwrap());
    let mut by_ticket = Listener::open(app.http.get(format!("{}{path}", app.base))).await;
    sqlx::query("UPDATE sessions SET revoked_at = now()").execute(&app.behind).await.unwrap();
    let patience = Duration::from_secs(20);
    let took = tokio::join!(open.ends(patience), by_ticket.ends(patience));
    // Five seconds, and one for a machine that is busy.
    assert!(took.0.max(took.1) < Duration::from_secs(6), "{took:?}");
    let again = app.login(&tenant.slug, &tenant.email).await;
    let tenant = Tenant { token: again["access_token"].as_str().unwrap().to_owned(), ..tenant };
    let mut last = Listener::open(stream(&app, &tenant, "")).await;
    let begun = Instant::now();
    let (_, ended) = tokio::join!(app.finish(), last.ends(Duration::from_secs(20)));
    assert!(ended < Duration::from_secs(3) && begun.elapsed() < Duration::from_secs(10), "{ended:?}");
}

/// Each event that a client could be told of, told once at each door and in the same order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_cut_all_the_time_tells_each_event_once_and_in_order() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let (account, user) = account(&app, &tenant, vec![]).await;
    let db = Db::new(app.config()).unwrap();
    let begin = log::make_durable(&db, tenant.id).await.unwrap().durable;
    let over = Arc::new(AtomicBool::new(false));
    let hear = async {
        let mut last = emailclient_core::events::envelope::event_id(tenant.id, begin);
        let mut heard = Vec::new();
        loop {
            let ended = over.load(Ordering::SeqCst);
            let mut open = Listener::open(stream(&app, &tenant, "").header("Last-Event-ID", &last)).await;
            let limit = Duration::from_millis(if ended { 3_000 } else { 200 });
            let _ = tokio::time::timeout(limit, async {
                while let Some(sent) = open.next().await {
                    heard.push(sent.id.clone());
                }
            })
            .await;
            last.clone_from(&open.last_id);
            if ended {
                return heard;
            }
        }
    };
    let act = async {
        for n in 0..25 {
            mail::deliver(&app, &user, &mail::message(&format!("M{n}"), &format!("m{n}@c.test"), "x"));
            let path = format!("/api/accounts/{account}");
            app.patch(&tenant, &path, &json!({"name": format!("N{n}")})).await.expect(200);
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
        mail::synchronise(&app, &tenant, &account).await;
        for id in ids(&app, &tenant, &account).await {
            app.patch(&tenant, &format!("/api/messages/{id}"), &json!({"unread": false})).await.expect(200);
        }
        over.store(true, Ordering::SeqCst);
    };
    let (heard, ()) = tokio::join!(hear, act);
    let end = log::make_durable(&db, tenant.id).await.unwrap().durable;
    let mut tx = db.tenant(tenant.id).await.unwrap();
    let entries = log::read(&mut tx, (begin, end), &Filter::default(), 10_000).await.unwrap();
    tx.release();
    let wanted: Vec<String> =
        entries.iter().map(|e| emailclient_core::events::envelope::event_id(tenant.id, e.position)).collect();
    assert!(wanted.len() >= 75, "{}", wanted.len());
    assert_eq!(heard, wanted);
    db.close().await;
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
