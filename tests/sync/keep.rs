//! How much of an account is kept: what is outside stays on the server as it is, leaves our copy without a word, and comes back.
//!
//! The oracle of each: our rows are those of the server that are inside, and nothing has changed on the server.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, Days, TimeDelta, Utc};
use emailclient_core::platform::clock::{Clock as _, SystemClock};
use serde_json::{Value, json};
use tests::eventually::eventually;
use tests::oracle::{self, Placed, View};
use tests::worker::Worker;

use crate::case::{Case, numbered};

mod portions;

const PATIENCE: Duration = Duration::from_secs(60);

fn midnight(days_ago: u64) -> DateTime<Utc> {
    (SystemClock.now().date_naive() - Days::new(days_ago)).and_time(chrono::NaiveTime::MIN).and_utc()
}

/// INTERNALDATE as IMAP writes it, in a time zone.
fn written(at: DateTime<Utc>, hours_east: i32) -> String {
    let zone = chrono::FixedOffset::east_opt(hours_east * 3600).unwrap();
    at.with_timezone(&zone).format("%d-%b-%Y %H:%M:%S %z").to_string()
}

fn day(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d").to_string()
}

async fn account(case: &Case) -> Value {
    case.app.get(&case.tenant, &format!("/api/accounts/{}", case.account)).await.expect(200)
}

/// Changes what is kept, and waits until our copy is no more than that.
async fn keep(case: &Case, sync: Value) -> Value {
    let path = format!("/api/accounts/{}", case.account);
    let said = case.app.patch(&case.tenant, &path, &json!({ "sync": sync })).await.expect(200);
    narrowed(case).await;
    said["sync"].clone()
}

async fn narrowed(case: &Case) {
    eventually("nothing is left that is outside", PATIENCE, async || {
        (account(case).await["sync"]["progress"]["state"] != "narrowing").then_some(())
    })
    .await;
}

/// Our rows are those of the server that `inside` says, and the server is as it was.
async fn holds(case: &Case, before: &View, inside: impl Fn(&Placed) -> bool) {
    let (server, ours) =
        (oracle::server(&case.app, &case.user).await, oracle::ours(&case.app, &case.account).await);
    assert_eq!(&server, before, "the server is as it was");
    let wanted: BTreeSet<Placed> = server.placed.into_iter().filter(|placed| inside(placed)).collect();
    let names =
        |placed: &BTreeSet<Placed>| placed.iter().map(|p| (p.mailbox.clone(), p.uid)).collect::<Vec<_>>();
    assert_eq!(names(&ours.placed), names(&wanted));
    assert_eq!(ours.placed, wanted);
    let mut counted = 0;
    for (path, mailbox) in case.mailboxes().await {
        let here = wanted.iter().filter(|p| mail::mailbox::decode_name(p.mailbox.as_bytes()) == path).count();
        assert_eq!(mailbox["total"], here, "{path}");
        counted += here;
    }
    let status = case.app.get(&case.tenant, &format!("/api/sync/status/{}", case.account)).await.expect(200);
    assert_eq!(status["progress"]["messages_synced"], counted, "{status}");
    assert_eq!(status["progress"]["messages_total"], counted, "{status}");
    assert_eq!(case.count("SELECT coalesce(sum(audit_repairs), 0)::bigint FROM mailboxes").await, 0);
    let orphans =
        "SELECT count(*) FROM blobs b WHERE NOT EXISTS (SELECT 1 FROM messages m WHERE m.blob_hash = b.hash)";
    assert_eq!(case.count(orphans).await, 0, "its bytes are gone");
}

/// Whether a message arrived at this moment or later.
fn since(at: DateTime<Utc>) -> impl Fn(&Placed) -> bool {
    move |placed| placed.date.unwrap() >= at.timestamp()
}

/// INBOX and two others with mail at both sides of the beginning of the day twenty days ago, in several time zones.
async fn spread() -> Case {
    let case = Case::at("127.0.0.1", None, Vec::new()).await;
    let mut client = case.client().await;
    client.ok("CREATE \"Entw&APw-rfe 2026\"").await;
    client.ok("CREATE Work/Old").await;
    let edge = midnight(20);
    let mut n = 0;
    for mailbox in ["INBOX", "Entw&APw-rfe 2026", "Work/Old"] {
        for (at, east) in [
            (edge - TimeDelta::days(400), 0),
            (edge - TimeDelta::seconds(1), 0),
            (edge - TimeDelta::seconds(1), 9),
            (edge - TimeDelta::seconds(1), -8),
            (edge, 0),
            (edge, 9),
            (edge, -8),
            (edge + TimeDelta::days(19), 2),
        ] {
            n += 1;
            client
                .append(
                    mailbox,
                    if n % 3 == 0 { "\\Seen" } else { "" },
                    Some(&written(at, east)),
                    &numbered(n),
                )
                .await;
        }
    }
    // One message on both sides, by the date of its copy.
    client.append("INBOX", "", Some(&written(edge - TimeDelta::days(3), 0)), &numbered(99)).await;
    client.append("Work/Old", "", Some(&written(edge + TimeDelta::days(3), 0)), &numbered(99)).await;
    case.sync().await;
    case
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn narrowing_by_date_takes_out_what_is_older_without_a_word_and_widening_brings_it_back() {
    let case = spread().await;
    let before = oracle::server(&case.app, &case.user).await;
    holds(&case, &before, |_| true).await;
    let (ids, events) = (case.ids().await, case.events().await);
    let edge = midnight(20);
    let shown = keep(&case, json!({"since": day(edge)})).await;
    assert_eq!(shown["since"], day(edge));
    holds(&case, &before, since(edge)).await;
    let told = events.told(&case.app).await;
    assert_eq!(told, [("message.updated".to_owned(), ids["M99"].clone())], "only of what is kept elsewhere");
    // Neither a round nor the audit misses anything, and new mail comes.
    case.sync().await;
    let resync = format!("/api/accounts/{}/resync", case.account);
    case.app.post(&case.tenant, &resync, &json!({})).await.expect(202);
    case.sync().await;
    holds(&case, &before, since(edge)).await;
    assert_eq!(events.told(&case.app).await, told);
    let mut client = case.client().await;
    client.append("INBOX", "", None, &numbered(200)).await;
    client.append("INBOX", "", Some(&written(edge - TimeDelta::days(30), 0)), &numbered(201)).await;
    case.sync().await;
    let before = oracle::server(&case.app, &case.user).await;
    holds(&case, &before, since(edge)).await;
    // By days it is the same.
    keep(&case, json!({"since": "20d"})).await;
    case.sync().await;
    holds(&case, &before, since(edge)).await;
    for (sync, edge) in [(json!({"since": "21d"}), midnight(21)), (json!({"since": "5d"}), midnight(5))] {
        keep(&case, sync).await;
        case.sync().await;
        holds(&case, &before, since(edge)).await;
    }
    let shown = keep(&case, Value::Null).await;
    assert_eq!(shown["since"], Value::Null);
    case.sync().await;
    holds(&case, &before, |_| true).await;
    assert_eq!(account(&case).await["sync"]["progress"]["state"], "done");
    assert_eq!(case.ids().await["M8"], ids["M8"], "what was never outside is the same");
    case.settled().await;
    case.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_outside_is_never_read_and_flags_and_removals_there_confuse_nothing() {
    for host in ["127.0.0.1", devstack::CONDSTORE_HOST, devstack::PLAIN_HOST] {
        let app = Case::app().await;
        let user = tests::mail::new_mailbox(&app);
        tests::mail::fill(&app, &user, "INBOX", (1..=300).map(numbered).collect());
        let case = Case::of(app, user, host, None).await;
        let edge = midnight(20);
        let path = format!("/api/accounts/{}", case.account);
        case.app.patch(&case.tenant, &path, &json!({"sync": {"since": "20d"}})).await.expect(200);
        let mut case = case;
        case.app.add_worker();
        let mut client = case.client().await;
        client.append("INBOX", "", None, &numbered(400)).await;
        case.sync().await;
        let before = oracle::server(&case.app, &case.user).await;
        holds(&case, &before, since(edge)).await;
        assert_eq!(case.count("SELECT count(*) FROM messages").await, 1, "{host}");
        let events = case.events().await;
        client.select("INBOX").await;
        client.ok("UID STORE 5:10 +FLAGS.SILENT (\\Flagged)").await;
        client.ok("UID STORE 20:30 +FLAGS.SILENT (\\Deleted)").await;
        client.ok("EXPUNGE").await;
        case.sync().await;
        case.sync().await;
        let before = oracle::server(&case.app, &case.user).await;
        holds(&case, &before, since(edge)).await;
        assert!(events.told(&case.app).await.is_empty(), "{host}: {:?}", events.told(&case.app).await);
        case.doveadm("mailbox update", &["--uid-validity", "777000777", "INBOX"]);
        case.sync().await;
        case.sync().await;
        let before = oracle::server(&case.app, &case.user).await;
        holds(&case, &before, since(edge)).await;
        case.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mailboxes_that_are_not_kept_are_listed_and_hold_nothing_here() {
    let case = spread().await;
    let before = oracle::server(&case.app, &case.user).await;
    let events = case.events().await;
    let out = |names: &'static [&'static str]| move |p: &Placed| !names.contains(&p.mailbox.as_str());
    for (mailboxes, names) in [
        (json!({"exclude": ["Entwürfe%"]}), &["Entw&APw-rfe 2026"][..]),
        (json!({"exclude": ["Work/*"]}), &["Work/Old"]),
        (json!({"exclude": null, "include": ["inbox"]}), &["Work/Old", "Entw&APw-rfe 2026"]),
        (json!({"include": ["Inbox", "Work/%"]}), &["Entw&APw-rfe 2026"]),
        (json!({"include": null, "exclude": ["*/Old", "inbox"]}), &["Work/Old", "INBOX"]),
    ] {
        keep(&case, json!({ "mailboxes": mailboxes })).await;
        case.sync().await;
        holds(&case, &before, out(names)).await;
        for (path, mailbox) in case.mailboxes().await {
            let outside = names.iter().any(|name| mail::mailbox::decode_name(name.as_bytes()) == path);
            if ["INBOX", "Work/Old", "Entwürfe 2026"].contains(&path.as_str()) {
                assert_eq!(mailbox["synchronised"], !outside, "{path} with {mailboxes}");
            }
        }
    }
    assert!(events.kinds(&case.app).await.iter().all(|kind| kind != "message.deleted"));
    keep(&case, Value::Null).await;
    case.sync().await;
    holds(&case, &before, |_| true).await;
    case.settled().await;
    case.finish().await;
}

/// Whether the message of this number is in the mailbox on the server.
async fn stands(case: &Case, mailbox: &str, n: u32) -> bool {
    let found = case.doveadm(
        "fetch",
        &["uid", "mailbox", mailbox, "header", "Message-ID", &format!("m{n}@example.test")],
    );
    !found.trim().is_empty()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_moved_to_a_mailbox_that_is_not_kept_is_there_on_the_server() {
    for host in ["127.0.0.1", devstack::CONDSTORE_HOST, devstack::PLAIN_HOST] {
        let case = Case::at(host, None, vec![numbered(1), numbered(2), numbered(3), numbered(4)]).await;
        let mut client = case.client().await;
        client.ok("CREATE Cellar").await;
        client.append("Cellar", "", None, &numbered(5)).await;
        case.sync().await;
        keep(&case, json!({"mailboxes": {"exclude": ["Cellar"]}})).await;
        case.sync().await;
        let (ids, cellar) = (case.ids().await, case.mailbox("Cellar").await);
        assert!(!ids.contains_key("M5"));
        for (n, action) in [("M1", "move"), ("M2", "copy")] {
            let body = json!({"ids": [ids[n]], "action": action, "mailbox_id": cellar});
            case.app.post(&case.tenant, "/api/messages/actions", &body).await.expect(200);
        }
        eventually("the server has them there", PATIENCE, async || {
            (stands(&case, "Cellar", 1).await && stands(&case, "Cellar", 2).await).then_some(())
        })
        .await;
        case.sync().await;
        case.sync().await;
        narrowed(&case).await;
        assert!(stands(&case, "INBOX", 2).await, "a copy leaves the original");
        let left = case.ids().await;
        assert!(!left.contains_key("M1") && left["M2"] == ids["M2"], "{left:?}");
        let counted = case.doveadm("mailbox status", &["messages", "Cellar"]);
        assert!(counted.contains("messages=3"), "once each, at {host}: {counted}");
        // Another client: in it appears, out it disappears.
        if host == "127.0.0.1" {
            let events = case.events().await;
            client.select("INBOX").await;
            client.ok("UID MOVE 3 Cellar").await;
            client.select("Cellar").await;
            client.ok("UID MOVE 1 INBOX").await;
            case.sync().await;
            let now = case.ids().await;
            assert!(now.contains_key("M5") && !now.contains_key("M3"), "{now:?}");
            assert_eq!(events.kinds(&case.app).await, ["message.created", "message.deleted"]);
        }
        let before = oracle::server(&case.app, &case.user).await;
        if host != devstack::PLAIN_HOST {
            holds(&case, &before, |p| p.mailbox != "Cellar").await;
        }
        case.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edits_that_wait_of_what_is_outside_reach_the_server_before_it_leaves() {
    let case = spread().await;
    let ids = case.ids().await;
    let turn = |what: &'static str| {
        let path = format!("/api/accounts/{}/{what}", case.account);
        let (app, tenant) = (&case.app, &case.tenant);
        async move { app.post(tenant, &path, &json!({})).await.expect(200) }
    };
    turn("pause").await;
    case.patch(&ids["M1"], &json!({"starred": true})).await;
    let path = format!("/api/accounts/{}", case.account);
    case.app.patch(&case.tenant, &path, &json!({"sync": {"since": "20d"}})).await.expect(200);
    eventually("what has no edits has left", PATIENCE, async || {
        (!case.ids().await.contains_key("M2")).then_some(())
    })
    .await;
    assert_eq!(case.ids().await["M1"], ids["M1"], "it waits for the server");
    turn("resume").await;
    eventually("the server has heard of it", PATIENCE, async || {
        let flags =
            case.doveadm("fetch", &["flags", "mailbox", "INBOX", "header", "Message-ID", "m1@example.test"]);
        flags.contains("\\Flagged").then_some(())
    })
    .await;
    narrowed(&case).await;
    assert!(!case.ids().await.contains_key("M1"));
    let before = oracle::server(&case.app, &case.user).await;
    holds(&case, &before, since(midnight(20))).await;
    case.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_dies_while_it_narrows_leaves_what_the_next_one_does() {
    let app = Case::app().await;
    let user = tests::mail::new_mailbox(&app);
    tests::mail::fill(&app, &user, "INBOX", (1..=400).map(numbered).collect());
    let mut case = Case::of(app, user, "127.0.0.1", None).await;
    case.app.add_worker();
    case.sync().await;
    let before = oracle::server(&case.app, &case.user).await;
    case.app.stop_workers().await;
    let path = format!("/api/accounts/{}", case.account);
    let said = case.app.patch(&case.tenant, &path, &json!({"sync": {"since": "20d"}})).await.expect(200);
    assert_eq!(said["sync"]["progress"]["state"], "narrowing", "{said}");
    let mut worker: Worker = case.process(&[("FAILPOINT", "narrowed-portion:2")]);
    let ended = tokio::task::block_in_place(|| worker.ended(PATIENCE));
    assert!(!ended.success() && ended.code().is_none(), "{ended}");
    let left = case.count("SELECT count(*) FROM messages").await;
    assert!(left > 0 && left < 400, "{left}");
    let progress = account(&case).await["sync"]["progress"].clone();
    assert_eq!((&progress["total"], &progress["removed"]), (&json!(400), &json!(400 - left)), "{progress}");
    sqlx::query("DELETE FROM jobs WHERE kind = 'narrow_account'").execute(&case.app.behind).await.unwrap();
    case.app.add_worker();
    case.app.add_scheduler();
    narrowed(&case).await;
    case.sync().await;
    holds(&case, &before, since(midnight(20))).await;
    // What grows older leaves by itself.
    let mut client = case.client().await;
    client.append("INBOX", "", Some(&written(midnight(7), 0)), &numbered(500)).await;
    case.sync().await;
    let before = oracle::server(&case.app, &case.user).await;
    let events = case.events().await;
    assert!(case.ids().await.contains_key("M500"));
    sqlx::query("UPDATE accounts SET keep_since = '6d', narrowed_at = now() - interval '1 day'")
        .execute(&case.app.behind)
        .await
        .unwrap();
    eventually("it has grown too old", Duration::from_secs(150), async || {
        case.ids().await.is_empty().then_some(())
    })
    .await;
    narrowed(&case).await;
    case.sync().await;
    holds(&case, &before, since(midnight(6))).await;
    assert!(events.told(&case.app).await.is_empty());
    case.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_above_a_size_are_outside_until_it_is_raised() {
    let large = |n: u32| [numbered(n), vec![b'x'; 900], b"\r\n".to_vec()].concat();
    let case = Case::with(vec![numbered(1), large(2), numbered(3)]).await;
    let before = oracle::server(&case.app, &case.user).await;
    let events = case.events().await;
    let path = format!("/api/accounts/{}", case.account);
    let wrong = json!({"sync": {"max_message_bytes": 100}});
    case.app.patch(&case.tenant, &path, &wrong).await.refused(422, "validation-error");
    keep(&case, json!({"max_message_bytes": 1024})).await;
    case.sync().await;
    holds(&case, &before, |p| p.uid != 2).await;
    let mut client = case.client().await;
    client.append("INBOX", "", None, &large(4)).await;
    case.sync().await;
    let before = oracle::server(&case.app, &case.user).await;
    holds(&case, &before, |p| p.uid != 2 && p.uid != 4).await;
    assert!(events.told(&case.app).await.is_empty());
    keep(&case, json!({"max_message_bytes": 100_000})).await;
    case.sync().await;
    holds(&case, &before, |_| true).await;
    case.settled().await;
    case.finish().await;
}
