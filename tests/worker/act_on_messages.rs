//! Bulk actions, batch by batch: each message once, whoever dies, runs twice or cancels.
//!
//! No worker runs beside these tests: they do its jobs themselves, so that they can stop in between.

use std::time::Duration;

use emailclient_core::domain::operation::{self, Step};
use emailclient_core::jobs;
use emailclient_core::platform::id::OperationId;
use emailclient_core::queue::job::Job;
use emailclient_scheduler::sweep;
use emailclient_worker::environment::{self, Environment};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use tests::app::{App, Tenant};
use tests::mail;
use tokio_util::sync::CancellationToken;

struct Stage {
    app: App,
    env: Environment,
    tenant: Tenant,
    account: String,
}

impl Stage {
    /// An account with `messages` unread messages in INBOX, all of them here.
    async fn with(messages: usize) -> Self {
        let app = App::start().await;
        let tenant = app.tenant().await;
        let user = mail::new_mailbox(&app);
        let one = |n| mail::message(&format!("Number {n}"), &format!("{n}@bulk.test"), "words");
        mail::fill(&app, &user, "INBOX", (0..messages).map(one).collect());
        let account = mail::connect(&app, &tenant, &user).await;
        let env = environment::new(app.config().clone(), CancellationToken::new()).unwrap();
        let round = Job::SyncAccount { account_id: account.parse().unwrap() };
        jobs::run(&env, tenant.id, round).await.unwrap();
        let stage = Self { app, env, tenant, account };
        assert_eq!(stage.count("SELECT count(*) FROM messages").await, messages as i64);
        stage
    }

    async fn count(&self, sql: &str) -> i64 {
        let mut conn = self.app.database.superuser().await;
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&mut conn).await.unwrap()
    }

    async fn write(&self, sql: &str) {
        let mut conn = self.app.database.superuser().await;
        sqlx::query(AssertSqlSafe(sql.to_owned())).execute(&mut conn).await.unwrap();
    }

    /// Asks for something to be done to all messages.
    async fn ask(&self, action: &str, mailbox: Option<&str>) -> OperationId {
        let mut conn = self.app.database.superuser().await;
        let ids: Vec<uuid::Uuid> =
            sqlx::query_scalar("SELECT id FROM messages WHERE gone_at IS NULL ORDER BY id")
                .fetch_all(&mut conn)
                .await
                .unwrap();
        let body = json!({"ids": ids, "action": action, "mailbox_id": mailbox});
        let job = self.app.post(&self.tenant, "/api/messages/actions", &body).await.expect(202);
        assert_eq!((&job["state"], &job["kind"]), (&json!("queued"), &json!(action)));
        job["id"].as_str().unwrap().parse().unwrap()
    }

    async fn told(&self, id: OperationId) -> Value {
        self.app.get(&self.tenant, &format!("/api/jobs/{id}")).await.expect(200)
    }

    /// State, done, updated.
    async fn reached(&self, id: OperationId) -> (String, i64, i64) {
        let job = self.told(id).await;
        let number = |value: &Value| value.as_i64().unwrap();
        (job["state"].as_str().unwrap().to_owned(), number(&job["progress"]["done"]), number(&job["updated"]))
    }

    async fn begin(&self, id: OperationId) -> bool {
        let mut tx = self.app.db.tenant(self.tenant.id).await.unwrap();
        let begun = operation::begin(&mut tx, id).await.unwrap();
        tx.commit().await.unwrap();
        begun
    }

    async fn work(&self, id: OperationId) {
        jobs::run(&self.env, self.tenant.id, Job::ActOnMessages { operation_id: id }).await.unwrap();
    }

    async fn finish(self) {
        self.env.db.close().await;
        self.app.finish().await;
    }
}

fn reached(state: &str, done: i64, updated: i64) -> (String, i64, i64) {
    (state.to_owned(), done, updated)
}

const STARRED: &str = "SELECT count(*) FROM message_mailboxes WHERE flags & 4 = 4";
const EDITS: &str =
    "SELECT count(*) FROM events WHERE kind = 'message.updated' AND data->'changed' ? 'flags'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_runs_at_once_and_a_third_change_every_message_once() {
    let stage = Stage::with(1_100).await;
    let id = stage.ask("star", None).await;
    tokio::join!(stage.work(id), stage.work(id));
    assert_eq!(stage.reached(id).await, reached("done", 1_100, 1_100));
    stage.work(id).await;
    assert_eq!(stage.reached(id).await, reached("done", 1_100, 1_100));
    assert_eq!(stage.count(STARRED).await, 1_100);
    assert_eq!(stage.count(EDITS).await, 1_100, "a message was changed twice");
    let pushing = "SELECT count(*) FROM jobs WHERE kind = 'push_changes' AND state = 'ready'";
    assert_eq!(stage.count(pushing).await, 1, "nobody brings the flags to the server");
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_that_was_killed_goes_on_behind_the_last_batch_that_was_committed() {
    let stage = Stage::with(1_100).await;
    // A message that is deleted twice would be gone for good.
    let id = stage.ask("delete", None).await;
    assert!(stage.begin(id).await);
    let mut tx = stage.app.db.tenant(stage.tenant.id).await.unwrap();
    assert_eq!(operation::step(&mut tx, id).await.unwrap(), Step::More);
    tx.commit().await.unwrap();
    assert_eq!(stage.reached(id).await, reached("running", 500, 500));
    let mut killed = stage.app.db.tenant(stage.tenant.id).await.unwrap();
    assert_eq!(operation::step(&mut killed, id).await.unwrap(), Step::More);
    drop(killed);
    assert_eq!(stage.reached(id).await, reached("running", 500, 500));
    stage.work(id).await;
    assert_eq!(stage.reached(id).await, reached("done", 1_100, 1_100));
    assert_eq!(stage.count("SELECT count(*) FROM edits WHERE kind = 'move'").await, 1_100);
    assert_eq!(stage.count("SELECT count(*) FROM edits WHERE kind <> 'move'").await, 0);
    assert_eq!(stage.count("SELECT count(*) FROM messages WHERE gone_at IS NOT NULL").await, 0);
    assert_eq!(
        stage.count("SELECT coalesce(sum(cardinality(selection)), 0)::bigint FROM operations").await,
        0
    );
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelling_waits_for_the_batch_in_hand_and_tells_what_was_done() {
    let stage = Stage::with(1_100).await;
    let id = stage.ask("star", None).await;
    assert!(stage.begin(id).await);
    let mut batch = stage.app.db.tenant(stage.tenant.id).await.unwrap();
    operation::step(&mut batch, id).await.unwrap();
    let path = format!("/api/jobs/{id}");
    {
        let cancel = stage.app.delete(&stage.tenant, &path);
        tokio::pin!(cancel);
        let early = tokio::time::timeout(Duration::from_millis(400), &mut cancel).await;
        assert!(early.is_err(), "a batch was cancelled while it was being written");
        batch.commit().await.unwrap();
        assert_eq!(cancel.await.status, 204);
    }
    stage.work(id).await;
    assert_eq!(stage.reached(id).await, reached("cancelled", 500, 500));
    assert_eq!(stage.count(STARRED).await, 500);
    assert_eq!(stage.count(EDITS).await, 500);
    let first = stage.told(id).await;
    assert!(first["finished_at"].is_string() && first["error"].is_null(), "{first}");
    assert_eq!(stage.app.delete(&stage.tenant, &path).await.status, 204);
    assert_eq!(stage.told(id).await, first, "cancelling twice changed something");
    let cancels = "SELECT count(*) FROM audit_log WHERE action = 'job.cancel'";
    assert_eq!(stage.count(cancels).await, 1);

    let waiting = stage.ask("unstar", None).await;
    assert_eq!(stage.app.delete(&stage.tenant, &format!("/api/jobs/{waiting}")).await.status, 204);
    stage.work(waiting).await;
    assert_eq!(stage.reached(waiting).await, reached("cancelled", 0, 0));
    assert_eq!(stage.count(STARRED).await, 500);
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_and_mailboxes_that_went_meanwhile_are_skipped_or_told() {
    let stage = Stage::with(501).await;
    let app = &stage.app;
    let starred = stage.ask("star", None).await;
    let list = format!("/api/accounts/{}/messages?limit=3", stage.account);
    let listed = app.get(&stage.tenant, &list).await.expect(200);
    for message in listed["data"].as_array().unwrap() {
        let path = format!("/api/messages/{}?permanent=true", message["id"].as_str().unwrap());
        assert_eq!(app.delete(&stage.tenant, &path).await.status, 204);
    }
    stage.work(starred).await;
    assert_eq!(stage.reached(starred).await, reached("done", 501, 498));

    // Three more, so that there is a job again.
    stage.write("DELETE FROM edits").await;
    stage.write("UPDATE message_mailboxes SET hidden_at = NULL").await;
    let mailboxes = format!("/api/accounts/{}/mailboxes", stage.account);
    let target = app.post(&stage.tenant, &mailboxes, &json!({"name": "Target"})).await.expect(201);
    let target = target["id"].as_str().unwrap();
    let moved = stage.ask("move", Some(target)).await;
    assert_eq!(
        app.delete(&stage.tenant, &format!("/api/mailboxes/{target}?with_messages=true")).await.status,
        204
    );
    stage.work(moved).await;
    assert_eq!(stage.reached(moved).await, reached("failed", 0, 0));
    assert_eq!(stage.told(moved).await["error"], "there is no such mailbox");
    assert_eq!(stage.count("SELECT count(*) FROM edits WHERE kind = 'move'").await, 0);
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_that_never_gets_anywhere_is_given_up() {
    let stage = Stage::with(501).await;
    let id = stage.ask("star", None).await;
    for _ in 0..10 {
        assert!(stage.begin(id).await);
    }
    stage.work(id).await;
    assert_eq!(stage.reached(id).await, reached("failed", 0, 0));
    assert!(stage.told(id).await["error"].as_str().unwrap().contains("without success"));
    assert_eq!(stage.count(STARRED).await, 0);
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_that_lost_its_job_gets_one_again_and_old_work_is_forgotten() {
    let stage = Stage::with(501).await;
    let (open, closed) = (stage.ask("star", None).await, stage.ask("unstar", None).await);
    stage.work(closed).await;
    stage.write("DELETE FROM jobs WHERE kind = 'act_on_messages'").await;
    jobs::act_on_messages::sweep(&stage.app.db).await.unwrap();
    jobs::act_on_messages::sweep(&stage.app.db).await.unwrap();
    let live = format!(
        "SELECT count(*) FROM jobs WHERE kind = 'act_on_messages' AND state = 'ready' AND dedupe_key = '{open}'"
    );
    assert_eq!(stage.count(&live).await, 1);
    let all = "SELECT count(*) FROM jobs WHERE kind = 'act_on_messages'";
    assert_eq!(stage.count(all).await, 1, "what is over needs no job");

    stage
        .write("UPDATE operations SET finished_at = now() - interval '6 days' WHERE finished_at IS NOT NULL")
        .await;
    stage.write("UPDATE operations SET created_at = now() - interval '30 days'").await;
    sweep::prune(&stage.app.db).await.unwrap();
    assert_eq!(stage.reached(closed).await, reached("done", 501, 501));
    stage
        .write("UPDATE operations SET finished_at = now() - interval '8 days' WHERE finished_at IS NOT NULL")
        .await;
    sweep::prune(&stage.app.db).await.unwrap();
    let path = format!("/api/jobs/{closed}");
    stage.app.get(&stage.tenant, &path).await.refused(404, "not-found");
    assert_eq!(stage.reached(open).await, reached("queued", 0, 0), "what is not over is never forgotten");
    stage.finish().await;
}
