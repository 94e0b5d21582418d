//! Somebody who sends, by the REST API and through a server of the test's choice.

use std::time::Duration;

use serde_json::{Value, json};
use tests::app::{App, Tenant};
use tests::eventually::eventually;
use tests::{database::Database, mail};

const PATIENCE: Duration = Duration::from_secs(40);

/// A connected person: real mailboxes to read, an odd server to send through.
pub struct Sender {
    pub tenant: Tenant,
    pub user: String,
    pub account: String,
}

pub async fn sender(app: &App, smtp_port: u16) -> Sender {
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(app);
    let mut settings = mail::settings(app, &user);
    settings["smtp"] =
        json!({"host": "127.0.0.1", "port": smtp_port, "security": "none", "username": "u", "password": "p"});
    let account = app.post(&tenant, "/api/accounts?verify=false", &settings).await.expect(201);
    let account = account["id"].as_str().unwrap().to_owned();
    mail::synchronise(app, &tenant, &account).await;
    Sender { tenant, user, account }
}

pub async fn start(workers: usize, settings: &[(&str, &str)]) -> App {
    let mut app = App::start_with(settings).await;
    for _ in 0..workers {
        app.add_worker();
    }
    app.add_scheduler();
    app
}

impl Sender {
    pub async fn draft(&self, app: &App, to: &[&str], subject: &str) -> String {
        let body = json!({"account_id": self.account, "to": to, "subject": subject, "text": ".dot first\n\nThe text.\n"});
        app.post(&self.tenant, "/api/compose", &body).await.expect(201)["id"].as_str().unwrap().to_owned()
    }

    /// Sends the draft; returns the submission as it was accepted.
    pub async fn order(&self, app: &App, draft: &str, order: Value) -> Value {
        app.post(&self.tenant, &format!("/api/compose/{draft}/send"), &order).await.expect(202)
    }

    pub async fn send(&self, app: &App, to: &[&str], subject: &str) -> Value {
        let draft = self.draft(app, to, subject).await;
        self.order(app, &draft, json!({})).await
    }

    pub async fn now(&self, app: &App, id: &str) -> Value {
        app.get(&self.tenant, &format!("/api/submissions/{id}")).await.expect(200)
    }

    /// Waits for an attempt to end in `state`.
    pub async fn ends(&self, app: &App, submission: &Value, state: &str) -> Value {
        let id = submission["id"].as_str().unwrap();
        let mut last = Value::Null;
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                last = self.now(app, id).await;
                if last["state"] == state && !last["attempts"].as_array().unwrap().is_empty() {
                    // The claim may fall between the reading of the state and that of the attempts: look once more.
                    last = self.now(app, id).await;
                    if last["state"] == state {
                        return last.clone();
                    }
                }
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
        })
        .await;
        found.unwrap_or_else(|_| panic!("never {state}: {last}"))
    }

    /// Waits until the copy is filed, and asserts that there is one of each message and no more than `count`.
    pub async fn copies(&self, app: &App, count: usize) {
        eventually("the copies are filed", PATIENCE, async || {
            (self.sent_on_server(app) >= count).then_some(())
        })
        .await;
        nothing_is_near(app).await;
        assert_eq!(self.sent_on_server(app), count, "copies in Sent");
    }

    pub fn sent_on_server(&self, app: &App) -> usize {
        mail::doveadm(app, &["search", "-u", &self.user, "mailbox", "Sent", "all"]).lines().count()
    }
}

/// Waits until nothing of sending is under way or due within ten seconds: no hand-over, no copy, no search. What has not
/// happened then does not happen by itself.
pub async fn nothing_is_near(app: &App) {
    let mut conn = app.database.superuser().await;
    let near = "SELECT (SELECT count(*) FROM jobs WHERE kind IN ('send_submission', 'file_sent_copy', 'probe_submission')
                  AND (state = 'running' OR state = 'ready' AND run_at < now() + interval '10 seconds'))
                + (SELECT count(*) FROM submissions
                   WHERE state = 'sending' OR state = 'queued' AND send_after < now() + interval '10 seconds')";
    eventually("nothing of sending is near", PATIENCE, async || {
        let near: i64 = sqlx::query_scalar(near).fetch_one(&mut conn).await.unwrap();
        (near == 0).then_some(())
    })
    .await;
}

/// Lets a submission's waiting jobs be due now, as if the minutes had passed.
pub async fn let_time_pass(database: &Database, submission: &Value) {
    let mut conn = database.superuser().await;
    let id = submission["id"].as_str().unwrap();
    sqlx::query("UPDATE submissions SET send_after = now() WHERE id = $1::uuid AND state = 'queued'")
        .bind(id)
        .execute(&mut conn)
        .await
        .unwrap();
    sqlx::query(
        "UPDATE jobs SET run_at = now() WHERE payload::text LIKE '%' || $1 || '%' AND state = 'ready'",
    )
    .bind(id)
    .execute(&mut conn)
    .await
    .unwrap();
}
