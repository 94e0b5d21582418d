//! What an account is asked while its round reads old mail, when that round then fails.

use emailclient_core::platform::id::{AccountId, new_uuid};
use emailclient_core::queue::job::queue::{self, Claimed, Outcome, Room};
use emailclient_core::sync::run;
use emailclient_core::sync::store::status;
use serde_json::json;
use sqlx::Row as _;
use tests::app::App;
use tests::eventually::eventually;
use tests::mail;

use crate::fairness::{SOON, Slow, reading_old_mail};

/// The state of a run, and what went wrong with it.
async fn run(app: &App, id: &str) -> (String, Option<String>) {
    let mut conn = app.database.superuser().await;
    let id: uuid::Uuid = id.parse().unwrap();
    let row =
        sqlx::query("SELECT state, error FROM sync_runs WHERE id = $1").bind(id).fetch_one(&mut conn).await;
    let row = row.unwrap();
    (row.get("state"), row.get("error"))
}

async fn count(app: &App, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(&mut app.database.superuser().await).await.unwrap()
}

/// Without a scheduler: nothing but the round itself can tell what became of the request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_that_a_round_took_over_is_told_as_failed_when_the_round_then_loses_its_server() {
    let Slow { app, tenant, account, proxy, .. } = reading_old_mail(&[], 2_000, 50_000).await;
    let asked = app.post(&tenant, &format!("/api/sync/imap/{account}"), &json!({})).await.expect(202);
    let asked = asked["id"].as_str().unwrap();
    eventually("the round takes it over", SOON, async || {
        let waiting = "SELECT count(*) FROM jobs WHERE kind = 'sync_account' AND rerun";
        (count(&app, waiting).await == 0).then_some(())
    })
    .await;
    assert_eq!(run(&app, asked).await.0, "queued", "the test needs a slower line");
    drop(proxy);
    eventually("its user is told", SOON, async || {
        let status = app.get(&tenant, &format!("/api/sync/status/{account}")).await.expect(200);
        (status["run"]["id"] == asked && status["run"]["state"] == "failed").then_some(())
    })
    .await;
    assert_eq!(run(&app, asked).await.1.as_deref(), Some("upstream-unreachable"));
    // The server is left alone until the account's next turn.
    let jobs = "SELECT count(*) FROM jobs WHERE kind = 'sync_account' AND state IN ('ready', 'running')";
    eventually("the job is done", SOON, async || (count(&app, jobs).await == 0).then_some(())).await;
    app.finish().await;
}

#[tokio::test]
async fn a_run_that_a_job_stands_for_does_not_end_with_a_round_that_fails() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    let path = "/api/accounts?verify=false";
    let account = app.post(&tenant, path, &mail::settings(&app, &user)).await.expect(201);
    let account: AccountId = account["id"].as_str().unwrap().parse().unwrap();
    let (me, room) = (new_uuid(), Room { total: 1, free: 1 });
    let ask = async || {
        let mut tx = app.db.tenant(tenant.id).await.unwrap();
        let run = run::request(&mut tx, account).await.unwrap();
        tx.commit().await.unwrap();
        run.id.0.to_string()
    };
    let fail = async || {
        let mut tx = app.db.tenant(tenant.id).await.unwrap();
        status::fail_taken_over(&mut tx, account, "upstream-closed").await.unwrap();
        tx.commit().await.unwrap();
    };
    let claim = async || {
        let mut tx = app.db.system().await.unwrap();
        let mut claimed = queue::claim(&mut tx, me, room, SOON).await.unwrap();
        tx.commit().await.unwrap();
        claimed.remove(0)
    };
    let finish = async |job: Claimed| {
        let mut tx = app.db.system().await.unwrap();
        assert!(queue::finish(&mut tx, me, &job, &Outcome::Done).await.unwrap());
        tx.commit().await.unwrap();
    };
    let asked = ask().await;
    fail().await;
    assert_eq!(run(&app, &asked).await.0, "queued", "a job that is ready");
    let job = claim().await;
    assert_eq!(ask().await, asked);
    fail().await;
    assert_eq!(run(&app, &asked).await.0, "queued", "a job that is run once more");
    finish(job).await;
    let job = claim().await;
    fail().await;
    assert_eq!(run(&app, &asked).await, ("failed".to_owned(), Some("upstream-closed".to_owned())));
    finish(job).await;
    assert_ne!(ask().await, asked, "the next request is another one");
    app.finish().await;
}
