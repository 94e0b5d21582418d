//! What a case starts from: one account on the real Dovecot, with rounds only when the case asks for one.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::app::{App, Tenant};
use tests::eventually::eventually;
use tests::imap::Imap;
use tests::oracle::{self, Events};
use tests::{mail, worker};

/// An account and everything around it.
pub struct Case {
    pub app: App,
    pub tenant: Tenant,
    pub user: String,
    pub account: String,
    logged_in: Instant,
}

/// An access token is good for fifteen minutes.
const TOKEN_KEPT: Duration = Duration::from_secs(600);

/// Settings of a case: nobody watches, and every address of the loopback network may be dialled.
const SETTINGS: [(&str, &str); 2] =
    [("IMAP_IDLE_ENABLED", "false"), ("OUTBOUND_ALLOW", "localhost:1-65535,127.0.0.0/8:1-65535")];

/// A message whose Message-ID and bytes are this number's own.
pub fn numbered(n: u32) -> Vec<u8> {
    mail::message(&format!("M{n}"), &format!("m{n}@example.test"), &format!("body {n}"))
}

/// The same with 100 KB of text: a dozen are more than what is sent along with their rows.
pub fn large(n: u32) -> Vec<u8> {
    [numbered(n), format!("{}\r\n", "x".repeat(70)).repeat(1_500).into_bytes()].concat()
}

impl Case {
    /// INBOX holds these messages, and all of them have been synchronised.
    pub async fn with(messages: Vec<Vec<u8>>) -> Self {
        let case = Self::at("127.0.0.1", None, messages).await;
        case.sync().await;
        case
    }

    /// Reads through this address (and port) of the server; the first round may be under way.
    pub async fn at(host: &str, port: Option<u16>, messages: Vec<Vec<u8>>) -> Self {
        let mut case = Self::unserved(host, port, messages).await;
        case.app.add_worker();
        case
    }

    /// Nobody has worked on the account yet.
    pub async fn unserved(host: &str, port: Option<u16>, messages: Vec<Vec<u8>>) -> Self {
        let app = App::start_with(&SETTINGS).await;
        let user = mail::new_mailbox(&app);
        mail::fill(&app, &user, "INBOX", messages);
        Self::of(app, user, host, port).await
    }

    /// An account of `user` in an app that has no worker yet.
    pub async fn of(app: App, user: String, host: &str, port: Option<u16>) -> Self {
        let tenant = app.tenant().await;
        let mut settings = mail::settings(&app, &user);
        let port = port.unwrap_or(app.stack.imap_port);
        let imap = json!({"host": host, "port": port, "security": "none", "username": user, "password": mail::PASSWORD});
        settings["imap"] = imap;
        let account = app.post(&tenant, "/api/accounts?verify=false", &settings).await.expect(201);
        let account = account["id"].as_str().unwrap().to_owned();
        Self { app, tenant, user, account, logged_in: Instant::now() }
    }

    /// The app alone, with the settings of a case.
    pub async fn app() -> App {
        App::start_with(&SETTINGS).await
    }

    /// A round from now on, to its end.
    pub async fn sync(&self) -> Value {
        let run = mail::synchronise(&self.app, &self.tenant, &self.account).await;
        // One that is asked for during a backfill is over before the backfill is.
        oracle::at_rest(&self.app, &self.account).await;
        run
    }

    /// For tests that take longer than an access token lasts: call it now and then.
    pub async fn stay_logged_in(&mut self) {
        if self.logged_in.elapsed() > TOKEN_KEPT {
            let login = self.app.login(&self.tenant.slug, &self.tenant.email).await;
            login["access_token"].as_str().unwrap().clone_into(&mut self.tenant.token);
            self.logged_in = Instant::now();
        }
    }

    /// A round from now on, however it ends, or a later one.
    pub async fn round(&self) -> Value {
        let path = format!("/api/sync/imap/{}", self.account);
        let asked = self.app.post(&self.tenant, &path, &json!({})).await.expect(202);
        let (path, within) = (format!("/api/sync/status/{}", self.account), Duration::from_secs(120));
        mail::run_is_over(&self.app, &self.account, asked["id"].as_str().unwrap(), within).await;
        eventually("the round is over", within, async || {
            let status = self.app.get(&self.tenant, &path).await.expect(200);
            let last = mail::last_round(&status);
            let is_it = last["id"].as_str() >= asked["id"].as_str();
            (is_it && matches!(last["state"].as_str(), Some("done" | "failed"))).then_some(status)
        })
        .await
    }

    /// The oracle, whole: see [`oracle::settled`].
    pub async fn settled(&self) {
        oracle::settled(&self.app, &self.tenant, &self.account, &self.user).await;
    }

    /// What is told from now on.
    pub async fn events(&self) -> Events {
        Events::from_now(&self.app, &self.account).await
    }

    /// Another client.
    pub async fn client(&self) -> Imap {
        Imap::login(&self.app, &self.user).await
    }

    /// `doveadm` with `-u user` behind its command's words.
    pub fn doveadm(&self, command: &str, arguments: &[&str]) -> String {
        let words: Vec<&str> =
            command.split(' ').chain(["-u", &self.user]).chain(arguments.iter().copied()).collect();
        mail::doveadm(&self.app, &words)
    }

    /// All messages of the account as the API lists them, at most 200.
    pub async fn listed(&self) -> Vec<Value> {
        let path = format!("/api/accounts/{}/messages?limit=200", self.account);
        self.app.get(&self.tenant, &path).await.expect(200)["data"].as_array().unwrap().clone()
    }

    /// Subject → id; subjects are unique in a case.
    pub async fn ids(&self) -> BTreeMap<String, String> {
        let text = |m: &Value, field: &str| m[field].as_str().unwrap_or_default().to_owned();
        self.listed().await.iter().map(|m| (text(m, "subject"), text(m, "id"))).collect()
    }

    /// Path → the mailbox as the API has it.
    pub async fn mailboxes(&self) -> BTreeMap<String, Value> {
        let path = format!("/api/accounts/{}/mailboxes?limit=200", self.account);
        let page = self.app.get(&self.tenant, &path).await.expect(200);
        let rows = page["data"].as_array().unwrap().iter();
        rows.map(|m| (m["path"].as_str().unwrap().to_owned(), m.clone())).collect()
    }

    /// The id of a mailbox by its path.
    pub async fn mailbox(&self, path: &str) -> String {
        self.mailboxes().await[path]["id"].as_str().unwrap().to_owned()
    }

    /// One number from the database, behind the walls.
    pub async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.app.behind).await.unwrap()
    }

    /// PATCH of a message of ours.
    pub async fn patch(&self, id: &str, body: &Value) {
        self.app.patch(&self.tenant, &format!("/api/messages/{id}"), body).await.expect(200);
    }

    /// A worker in a process of its own.
    pub fn process(&self, variables: &[(&str, &str)]) -> worker::Worker {
        let settings: Vec<(&str, &str)> = SETTINGS.iter().chain(variables).copied().collect();
        worker::Worker::start(&self.app, &settings)
    }

    /// The end.
    pub async fn finish(self) {
        self.app.finish().await;
    }
}
