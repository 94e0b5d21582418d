//! Events on their way to webhooks: order, tries, pauses. What harms: `harm.rs`.

mod harm;
mod stage;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta};
use emailclient_core::domain::event::{self, DraftCreated, DraftDeleted, MailboxReset};
use emailclient_core::platform::id::{AccountId, DraftId, MailboxId};
use serde_json::{Value, json};
use stage::{Stage, by_account, draft, told};
use tests::eventually::eventually;
use tests::sink::{Answer, Received, Sink, TAKEN};
use tests::tls::{Authority, Fault};

const SOON: Duration = Duration::from_secs(20);
const FAILED: Answer = Answer::Status(500, "");
const REFUSED: Answer = Answer::Status(422, "");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_arrive_over_tls_in_order_of_their_account_and_accounts_beside_each_other() {
    let authority = Authority::new();
    let stage = Stage::new(&[("TLS_EXTRA_CA_FILE", authority.file.to_str().unwrap())]).await;
    let sink = Sink::behind_tls(&authority, Fault::None, |_| Answer::Slow(Duration::from_millis(20))).await;
    let made = stage.app.post(&stage.tenant, "/api/webhooks", &json!({"url": sink.url()})).await.expect(201);
    let hook = format!("/api/webhooks/{}", made["id"].as_str().unwrap());
    let accounts: Vec<AccountId> = (0..12).map(|_| AccountId::new()).collect();
    let mut wanted = BTreeMap::<String, Vec<String>>::new();
    for _ in 0..3 {
        for account in &accounts {
            wanted.entry(account.to_string()).or_default().extend(stage.drafts(*account, 3).await);
        }
    }
    let all = sink.got(12 * 9).await;
    assert_eq!(by_account(&all), wanted);
    assert_eq!(all.iter().map(Received::id).collect::<BTreeSet<_>>().len(), 12 * 9, "none came twice");
    assert!((4..=8).contains(&sink.most_at_once()), "{} at once", sink.most_at_once());
    for request in &all {
        assert!(request.is_signed_with(made["secret"].as_str().unwrap()));
        let body = request.json();
        assert_eq!(body["type"], "draft.created");
        assert!(DateTime::parse_from_rfc3339(body["timestamp"].as_str().unwrap()).is_ok());
    }
    let state = stage.until(&hook, "all are counted", |state| state["delivered"] == 12 * 9).await;
    assert_eq!((&state["state"], &state["failed"]), (&json!("enabled"), &json!(0)));
    assert_eq!(stage.deliveries(&hook, "delivered").await.len(), 0, "what is taken at once leaves no row");
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_gets_what_it_asked_for_and_what_happens_after_it_was_made() {
    let stage = Stage::new(&[]).await;
    let server =
        json!({"host": "localhost", "port": 9, "security": "tls", "username": "me", "password": "pw"});
    let body = json!({"email": "me@lab.test", "imap": server, "smtp": server});
    let own = stage.app.post(&stage.tenant, "/api/accounts?verify=false", &body).await.expect(201);
    let own: AccountId = own["id"].as_str().unwrap().parse().unwrap();
    stage.drafts(own, 2).await;
    let sinks = [Sink::plain(|_| TAKEN).await, Sink::plain(|_| TAKEN).await, Sink::plain(|_| TAKEN).await];
    for (sink, more) in sinks.iter().zip([
        json!({"types": ["draft.deleted", "mailbox.reset"], "include": "ids"}),
        json!({"account_ids": [own]}),
        json!({"types": ["draft.created"], "backfill": true}),
    ]) {
        let mut body = more;
        body["url"] = json!(sink.url());
        stage.hook(body).await;
    }
    let other = AccountId::new();
    let (id, mailbox) = (DraftId::new(), MailboxId::new());
    let events =
        [DraftCreated { id }.into(), DraftDeleted { id }.into(), MailboxReset { id: mailbox }.into()];
    stage.tell(other, &events).await;
    stage.tell(own, &[DraftDeleted { id }.into()]).await;
    let mut tx = stage.env.db.relaxed(stage.tenant.id).await.unwrap();
    event::record_backfill(&mut tx, own, &[DraftCreated { id }.into()]);
    tx.commit().await.unwrap();
    assert_eq!(told(&sinks[0], 3).await, ["draft.deleted", "mailbox.reset"]);
    assert_eq!(told(&sinks[1], 1).await, ["draft.deleted"]);
    // Nobody made its commit durable but who sends.
    assert_eq!(told(&sinks[2], 2).await, ["draft.created"]);
    let reset = sinks[0].all().into_iter().find(|r| r.json()["type"] == "mailbox.reset").unwrap().json();
    assert!(reset["data"].get("mailbox").is_none(), "ids alone: {reset}");
    assert_eq!(reset["data"]["mailbox_id"], json!(mailbox));
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(sinks.each_ref().map(|sink| sink.all().len()), [3, 1, 2], "and nothing more");
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_fails_is_probed_at_growing_pauses_with_the_same_id_and_then_gets_all_in_order() {
    let stage = Stage::new(&[]).await;
    let sink = Sink::plain(|_| FAILED).await;
    let hook = stage.hook(json!({"url": sink.url()})).await;
    let account = AccountId::new();
    let ids = stage.drafts(account, 5).await;
    let (mut count, mut at) = (1, Vec::new());
    for pause in [5, 5 * 60, 30 * 60, 2 * 3600] {
        let all = sink.got(count).await;
        at.push(all.last().unwrap().field("webhook-timestamp").parse::<i64>().unwrap());
        let state = stage.until(&hook, "it is failing", |s| s["cause"]["next_try_at"].is_string()).await;
        assert_eq!((&state["state"], &state["cause"]["code"]), (&json!("failing"), &json!("status-500")));
        // The first pause is too short to look into: the clock goes on by itself.
        if pause > 60 {
            stage.advance(TimeDelta::seconds(pause - 60));
            tokio::time::sleep(Duration::from_millis(1300)).await;
        }
        assert_eq!(sink.all().len(), count, "tried before {pause} s");
        stage.advance(TimeDelta::seconds(pause / 10 + 60));
        count += 1;
    }
    let all = sink.got(count).await;
    assert_eq!(all.iter().map(Received::id).collect::<BTreeSet<_>>().len(), 1, "one probe, one id");
    assert!(at.windows(2).all(|pair| pair[0] < pair[1]), "each attempt has its own stamp: {at:?}");
    let waiting = stage.deliveries(&hook, "waiting").await;
    assert_eq!((waiting.len(), &waiting[0]["event_id"]), (1, &json!(all[0].id())));
    assert_eq!(waiting[0]["attempts"].as_array().unwrap().len(), count);
    assert_eq!(waiting[0]["attempts"][0]["status"], 500);

    sink.answer(|_| TAKEN);
    stage.advance(TimeDelta::hours(6));
    let all = sink.got(count + 5).await;
    assert_eq!(by_account(&all)[&account.to_string()], ids);
    let state = stage.until(&hook, "it is well", |s| s["delivered"] == 5).await;
    assert_eq!((&state["state"], &state["cause"]), (&json!("enabled"), &Value::Null));
    let delivered = stage.deliveries(&hook, "delivered").await;
    assert_eq!((delivered.len(), &delivered[0]["event_id"]), (1, &json!(all[0].id())));
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_is_refused_holds_up_its_account_for_ten_minutes_and_then_is_listed() {
    let stage = Stage::new(&[]).await;
    let (one, other) = (AccountId::new(), AccountId::new());
    let bad = Arc::new(std::sync::Mutex::new(String::new()));
    let known = Arc::clone(&bad);
    let sink = Sink::plain(move |r| if draft(r) == *known.lock().unwrap() { REFUSED } else { TAKEN }).await;
    let hook = stage.hook(json!({"url": sink.url()})).await;
    let id = DraftId::new();
    *bad.lock().unwrap() = id.to_string();
    stage.tell(one, &[DraftCreated { id }.into()]).await;
    let behind = stage.drafts(one, 2).await;
    let beside = stage.drafts(other, 3).await;
    let all = sink.got(4).await;
    assert_eq!(by_account(&all)[&other.to_string()], beside, "another account goes on");
    assert_eq!(stage.state(&hook).await["state"], "enabled");
    for pause in [67, 530] {
        let count = sink.all().len();
        tokio::time::sleep(Duration::from_millis(1300)).await;
        assert_eq!(sink.all().len(), count, "its account waits");
        assert_eq!(stage.deliveries(&hook, "waiting").await.len(), 1);
        stage.advance(TimeDelta::seconds(pause));
        sink.got(count + 1).await;
    }
    let all = sink.got(8).await;
    let tries: Vec<&Received> = all.iter().filter(|r| draft(r) == id.to_string()).collect();
    assert_eq!((tries.len(), tries.iter().map(|r| r.id()).collect::<BTreeSet<_>>().len()), (3, 1));
    let mut wanted = vec![id.to_string()];
    wanted.extend(behind);
    assert_eq!(by_account(&all)[&one.to_string()], wanted, "its account goes on");
    let state = stage.until(&hook, "it is counted", |s| s["delivered"] == 5).await;
    assert_eq!(state["failed"], 1);
    let failed = stage.deliveries(&hook, "failed").await;
    assert_eq!((failed.len(), failed[0]["attempts"].as_array().unwrap().len()), (1, 3));
    assert_eq!(failed[0]["attempts"][2]["error"], "status-422");

    // A client has it sent again.
    sink.answer(|_| TAKEN);
    let retry = format!("{hook}/deliveries/{}/retry", failed[0]["id"].as_str().unwrap());
    stage.app.post(&stage.tenant, &retry, &json!({})).await.expect(202);
    let all = sink.got(9).await;
    assert_eq!(all[8].id(), tries[0].id());
    eventually("it is delivered", SOON, async || {
        (stage.deliveries(&hook, "delivered").await.len() == 1).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(1300)).await;
    assert_eq!(sink.all().len(), 9, "it is sent again once");
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_is_gone_is_disabled_and_told_of_and_goes_on_when_it_is_enabled() {
    let stage = Stage::new(&[]).await;
    let (sink, watcher) = (Sink::plain(|_| Answer::Status(410, "")).await, Sink::plain(|_| TAKEN).await);
    let hook = stage.hook(json!({"url": sink.url(), "types": ["draft.created"]})).await;
    stage.hook(json!({"url": watcher.url(), "types": ["webhook.disabled"]})).await;
    let account = AccountId::new();
    let ids = stage.drafts(account, 3).await;
    let state = stage.until(&hook, "it is disabled", |s| s["state"] == "disabled").await;
    assert_eq!((&state["cause"]["code"], &state["cause"]["next_try_at"]), (&json!("gone"), &Value::Null));
    let told = watcher.got(1).await.remove(0).json();
    let id = hook.rsplit('/').next().unwrap();
    assert_eq!(
        (&told["type"], &told["data"]["webhook_id"], &told["data"]["reason"]),
        (&json!("webhook.disabled"), &json!(id), &json!("gone"))
    );
    let lines: i64 =
        sqlx::query_scalar("SELECT count(*) FROM audit_log WHERE action = 'webhook.disable' AND target = $1")
            .bind(id)
            .fetch_one(&stage.app.behind)
            .await
            .unwrap();
    assert_eq!(lines, 1);
    sink.answer(|_| TAKEN);
    stage.advance(TimeDelta::days(2));
    tokio::time::sleep(Duration::from_millis(1300)).await;
    assert_eq!(sink.all().len(), 1, "nothing is sent while it is disabled");
    let enabled = stage.app.post(&stage.tenant, &format!("{hook}/enable"), &json!({})).await.expect(200);
    assert_eq!((&enabled["state"], &enabled["cause"]), (&json!("enabled"), &Value::Null));
    assert_eq!(by_account(&sink.got(4).await)[&account.to_string()], ids);
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_days_without_a_success_disable_an_endpoint() {
    let stage = Stage::new(&[]).await;
    let sink = Sink::plain(|_| Answer::HangUp).await;
    let hook = stage.hook(json!({"url": sink.url()})).await;
    stage.drafts(AccountId::new(), 1).await;
    let mut tries = 0;
    for hours in [0, 23, 25, 25, 25, 21] {
        stage.advance(TimeDelta::hours(hours));
        tries += 1;
        sink.got(tries).await;
        let state = stage.until(&hook, "it is failing", |s| s["cause"]["next_try_at"].is_string()).await;
        assert_eq!(
            (&state["state"], &state["cause"]["code"]),
            (&json!("failing"), &json!("upstream-closed"))
        );
        // Between the first pauses the clock stands still.
        let due = state["cause"]["next_try_at"].as_str().unwrap().to_owned();
        eventually("the attempt is noted", SOON, async || {
            let waiting = stage.deliveries(&hook, "waiting").await;
            (waiting[0]["attempts"].as_array().unwrap().len() == tries).then_some(())
        })
        .await;
        assert!(!due.is_empty());
    }
    stage.advance(TimeDelta::hours(25));
    let state = stage.until(&hook, "it is disabled", |s| s["state"] == "disabled").await;
    assert_eq!(state["cause"]["code"], "failing-too-long");
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_for_patience_is_left_alone_for_so_long() {
    let stage = Stage::new(&[]).await;
    for answer in [Answer::Status(429, "retry-after: 100\r\n"), Answer::Status(503, "retry-after: 100\r\n")] {
        let sink = Sink::plain(move |_| answer.clone()).await;
        let hook = stage.hook(json!({"url": sink.url()})).await;
        stage.drafts(AccountId::new(), 2).await;
        sink.got(1).await;
        let state = stage.until(&hook, "it is noted", |s| s["cause"]["next_try_at"].is_string()).await;
        assert_eq!(state["state"], "failing");
        sink.answer(|_| TAKEN);
        stage.advance(TimeDelta::seconds(90));
        tokio::time::sleep(Duration::from_millis(1300)).await;
        assert_eq!(sink.all().len(), 1, "tried too soon");
        stage.advance(TimeDelta::seconds(15));
        sink.got(3).await;
        stage.app.delete(&stage.tenant, &hook).await.expect(204);
    }
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_sends_again_what_happened_then_under_the_same_ids() {
    let stage = Stage::new(&[]).await;
    let sink = Sink::plain(|_| TAKEN).await;
    let hook = stage.hook(json!({"url": sink.url()})).await;
    let account = AccountId::new();
    stage.drafts(account, 2).await;
    let before = sink.got(2).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let since = chrono::DateTime::<chrono::Utc>::from(std::time::SystemTime::UNIX_EPOCH)
        + TimeDelta::milliseconds(
            sqlx::query_scalar::<_, i64>("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint")
                .fetch_one(&stage.app.behind)
                .await
                .unwrap(),
        );
    let ids = stage.drafts(account, 3).await;
    let mailbox = MailboxReset { id: MailboxId::new() };
    stage.tell(account, &[mailbox.into()]).await;
    let first = sink.got(6).await;
    // What was sent and is not noted yet may be sent twice.
    stage.until(&hook, "it is counted", |s| s["delivered"] == 6).await;
    let order = json!({"since": since.to_rfc3339(), "types": ["draft.created"]});
    stage.app.post(&stage.tenant, &format!("{hook}/replay"), &order).await.expect(202);
    let all = sink.got(9).await;
    let again: Vec<String> = all[6..].iter().map(draft).collect();
    assert_eq!(again, ids);
    let id = |r: &Received| r.id().to_owned();
    assert_eq!(all[6..].iter().map(id).collect::<Vec<_>>(), first[2..5].iter().map(id).collect::<Vec<_>>());
    stage.until(&hook, "the replay ends", |s| s["replaying"] == false).await;
    tokio::time::sleep(Duration::from_millis(1300)).await;
    assert_eq!(sink.all().len(), 9, "{before:?}");
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_by_a_client_holds_for_what_waits() {
    let stage = Stage::new(&[]).await;
    let (old, new) = (Sink::plain(|_| FAILED).await, Sink::plain(|_| TAKEN).await);
    let hook = stage.hook(json!({"url": old.url()})).await;
    let account = AccountId::new();
    let ids = stage.drafts(account, 4).await;
    stage.until(&hook, "it is failing", |s| s["state"] == "failing").await;
    stage.app.patch(&stage.tenant, &hook, &json!({"url": new.url()})).await.expect(200);
    assert_eq!(by_account(&new.got(4).await)[&account.to_string()], ids);
    stage.until(&hook, "it is well", |s| s["state"] == "enabled").await;
    assert_eq!(old.all().len(), 1);
    stage.finish().await;
}
