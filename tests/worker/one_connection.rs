//! A server that allows a user one connection: the watch and whoever works take turns, and nobody waits longer for asking.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tests::app::{App, Tenant};
use tests::eventually::eventually;
use tests::imap::Imap;
use tests::mail::{self, doveadm};

const SETTINGS: [(&str, &str); 2] =
    [("SYNC_INTERVAL_SECONDS", "86400"), ("OUTBOUND_ALLOW", "localhost:1-65535,127.0.0.0/8:1-65535")];
const SOON: Duration = Duration::from_secs(40);

struct Rig {
    app: App,
    tenant: Tenant,
    user: String,
    account: String,
}

impl Rig {
    /// An account with mail in INBOX; nobody has worked on it yet.
    async fn new() -> Self {
        let app = App::start_with(&SETTINGS).await;
        let tenant = app.tenant().await;
        let user = mail::new_mailbox(&app);
        mail::fill(&app, &user, "INBOX", vec![mail::message("Old", "old@example.test", "x")]);
        let mut settings = mail::settings(&app, &user);
        settings["imap"] = json!({"host": devstack::SINGLE_HOST, "port": app.stack.imap_port, "security": "none",
            "username": user, "password": mail::PASSWORD});
        let account = app.post(&tenant, "/api/accounts?verify=false", &settings).await.expect(201);
        let account = account["id"].as_str().unwrap().to_owned();
        Self { app, tenant, user, account }
    }

    async fn status(&self) -> Value {
        self.app.get(&self.tenant, &format!("/api/sync/status/{}", self.account)).await.expect(200)
    }

    /// A user's refresh, to its end, however it ends.
    async fn refresh(&self) -> Value {
        let path = format!("/api/sync/imap/{}", self.account);
        let run = self.app.post(&self.tenant, &path, &json!({})).await.expect(202);
        eventually("the round is over", Duration::from_secs(60), async || {
            let status = self.status().await;
            let is_it = status["run"]["id"].as_str() >= run["id"].as_str();
            (is_it && matches!(status["run"]["state"].as_str(), Some("done" | "failed"))).then_some(status)
        })
        .await
    }

    fn sessions(&self) -> usize {
        doveadm(&self.app, &["who", "-1", &self.user]).lines().filter(|l| l.contains(&self.user)).count()
    }

    async fn watched(&self) {
        eventually("the watch connection stands", SOON, async || {
            let held: i64 = self.number("SELECT count(*) FROM account_leases WHERE owner IS NOT NULL").await;
            (held == 0 && self.sessions() == 1).then_some(())
        })
        .await;
    }

    async fn number(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&mut self.app.database.superuser().await).await.unwrap()
    }

    async fn listed(&self, subject: &str) {
        eventually(&format!("{subject} is listed"), SOON, async || {
            let path = format!("/api/accounts/{}/messages?limit=50", self.account);
            let page = self.app.get(&self.tenant, &path).await.expect(200);
            page["data"].as_array().unwrap().iter().any(|m| m["subject"] == subject).then_some(())
        })
        .await;
    }

    fn deliver(&self, subject: &str) {
        mail::deliver(
            &self.app,
            &self.user,
            &mail::message(subject, &format!("{subject}@example.test"), "x"),
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_watch_gives_its_connection_to_whoever_works_and_has_it_back() {
    let mut rig = Rig::new().await;
    rig.app.add_worker();
    rig.app.add_scheduler();
    rig.listed("Old").await;
    for n in 0..3 {
        rig.watched().await;
        let status = rig.refresh().await;
        assert_eq!(
            (&status["run"]["state"], &status["cause"]),
            (&json!("done"), &Value::Null),
            "{n}: {status}"
        );
        assert!(matches!(status["state"].as_str(), Some("connected" | "syncing")), "{status}");
    }
    // The watch is back, and tells of new mail.
    rig.watched().await;
    rig.deliver("First");
    rig.listed("First").await;
    // Our user's edits, and the copy of what is sent, have their turn.
    rig.watched().await;
    let page = format!("/api/accounts/{}/messages?limit=50", rig.account);
    let page = rig.app.get(&rig.tenant, &page).await.expect(200);
    let old = page["data"].as_array().unwrap().iter().find(|m| m["subject"] == "Old").unwrap();
    let path = format!("/api/messages/{}", old["id"].as_str().unwrap());
    rig.app.patch(&rig.tenant, &path, &json!({"starred": true})).await.expect(200);
    eventually("the server has the flag", SOON, async || {
        let flagged = doveadm(&rig.app, &["search", "-u", &rig.user, "mailbox", "INBOX", "flagged"]);
        (!flagged.trim().is_empty()).then_some(())
    })
    .await;
    rig.watched().await;
    let draft =
        json!({"account_id": rig.account, "to": [{"address": rig.user}], "subject": "Sent", "text": "x"});
    let draft = rig.app.post(&rig.tenant, "/api/compose", &draft).await.expect(201);
    let path = format!("/api/compose/{}/send", draft["id"].as_str().unwrap());
    rig.app.post(&rig.tenant, &path, &json!({})).await.expect(202);
    eventually("the copy is filed", Duration::from_secs(60), async || {
        let sent = doveadm(&rig.app, &["search", "-u", &rig.user, "mailbox", "Sent", "all"]);
        (!sent.trim().is_empty()).then_some(())
    })
    .await;
    rig.deliver("Second");
    rig.listed("Second").await;
    assert!(rig.status().await["cause"].is_null());
    rig.app.finish().await;
}

/// Another process watches than the one that works.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_watch_of_another_worker_gives_way_too() {
    let mut rig = Rig::new().await;
    rig.app.add_worker();
    rig.listed("Old").await;
    rig.watched().await;
    let watcher: String = sqlx::query_scalar("SELECT watch_owner::text FROM account_leases")
        .fetch_one(&mut rig.app.database.superuser().await)
        .await
        .unwrap();
    for n in 0..4 {
        if n == 1 {
            rig.app.add_worker();
        }
        rig.watched().await;
        let status = rig.refresh().await;
        assert_eq!(
            (&status["run"]["state"], &status["cause"]),
            (&json!("done"), &Value::Null),
            "{n}: {status}"
        );
    }
    rig.deliver("First");
    rig.listed("First").await;
    assert!(!watcher.is_empty());
    rig.app.finish().await;
}

/// Somebody else's client has the connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_users_refresh_never_lengthens_the_wait_and_what_came_meanwhile_is_seen() {
    let mut rig = Rig::new().await;
    let phone = Imap::login_at(&rig.app, devstack::SINGLE_HOST, &rig.user).await;
    rig.app.add_worker();
    rig.app.add_scheduler();
    eventually("it is told", SOON, async || (rig.status().await["state"] == "throttled").then_some(())).await;
    let next = |status: &Value| -> DateTime<Utc> {
        status["cause"]["next_try_at"].as_str().unwrap().parse().unwrap()
    };
    let first = next(&rig.status().await);
    for n in 0..6 {
        let status = rig.refresh().await;
        assert_eq!(
            (&status["state"], &status["run"]["state"]),
            (&json!("throttled"), &json!("failed")),
            "{n}"
        );
        assert!(next(&status) <= first + chrono::Duration::seconds(1), "{n}: {first} {status}");
        assert!(status["cause"]["upstream"]["text"].as_str().unwrap().contains("Maximum number"), "{status}");
    }
    rig.deliver("Meanwhile");
    drop(phone);
    eventually("the server noticed", SOON, async || (rig.sessions() == 0).then_some(())).await;
    let status = rig.refresh().await;
    assert_eq!(status["run"]["state"], "done", "{status}");
    rig.listed("Meanwhile").await;
    rig.app.finish().await;
}
