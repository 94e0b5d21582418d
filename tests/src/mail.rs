//! Mailboxes on the private Dovecot, and accounts that connect to them.

use std::time::Duration;

use emailclient_core::platform::id::new_uuid;
use serde_json::{Value, json};

use crate::app::{App, Tenant};
use crate::eventually::eventually;

/// Password of every mailbox a test makes.
pub const PASSWORD: &str = "mailbox-password";

/// A new mail user on the private Dovecot; returns its address.
pub fn new_mailbox(app: &App) -> String {
    let user = format!("u{}@lab.test", new_uuid().simple());
    app.stack.add_mailbox(&user, PASSWORD).unwrap();
    user
}

/// What a client sends to connect `user`, over TLS on both sides.
#[must_use]
pub fn settings(app: &App, user: &str) -> Value {
    json!({
        "email": user,
        "name": "A Person",
        "imap": {"host": "localhost", "port": app.stack.imaps_port, "security": "tls", "username": user, "password": PASSWORD},
        "smtp": {"host": "localhost", "port": app.stack.submissions_port, "security": "tls", "username": user, "password": PASSWORD},
    })
}

/// Connects `user` and returns the account's id.
pub async fn connect(app: &App, tenant: &Tenant, user: &str) -> String {
    let account = app.post(tenant, "/api/accounts", &settings(app, user)).await.expect(201);
    account["id"].as_str().unwrap().to_owned()
}

/// Asks for a round and waits until it is done, and old mail with it: the status then.
pub async fn synchronise(app: &App, tenant: &Tenant, account: &str) -> Value {
    let run = app.post(tenant, &format!("/api/sync/imap/{account}"), &json!({})).await.expect(202);
    let id = run["id"].as_str().unwrap().to_owned();
    run_is_over(app, account, &id, Duration::from_secs(300)).await;
    eventually("the round is done", Duration::from_secs(300), async || {
        let status = app.get(tenant, &format!("/api/sync/status/{account}")).await.expect(200);
        let last = last_round(&status);
        // A later round (the scheduler's or the watcher's) covers this one as well.
        let later = last["id"].as_str().unwrap_or_default() > id.as_str();
        match last["state"].as_str().unwrap_or_default() {
            "done" if later || last["id"] == id.as_str() => Some(status),
            "failed" if last["id"] == id.as_str() => panic!("the round failed: {status}"),
            _ => None,
        }
    })
    .await
}

/// The later one of the two rounds in a status, asked for or not.
#[must_use]
pub fn last_round(status: &Value) -> Value {
    let rounds = [&status["run"], &status["background"]].into_iter().filter(|round| !round.is_null());
    rounds.max_by_key(|round| round["id"].as_str().map(str::to_owned)).cloned().unwrap_or_default()
}

/// Waits until this run of an account, or a later one, has ended. The API is not asked every moment: unoptimised, that costs
/// more than the round itself.
pub async fn run_is_over(app: &App, account: &str, run: &str, within: Duration) {
    eventually("the round is over", within, async || {
        let over: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM sync_runs WHERE account_id = $1::uuid AND id >= $2::uuid AND finished_at IS NOT NULL)",
        )
        .bind(account)
        .bind(run)
        .fetch_one(&app.behind)
        .await
        .unwrap();
        over.then_some(())
    })
    .await;
}

/// A small message with this subject, CRLF line ends.
#[must_use]
pub fn message(subject: &str, message_id: &str, body: &str) -> Vec<u8> {
    format!(
        "From: Sender <sender@example.test>\r\nTo: someone@lab.test\r\nSubject: {subject}\r\nMessage-ID: <{message_id}>\r\n\
         Date: Sat, 21 Nov 2026 10:00:00 +0000\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{body}\r\n"
    )
    .into_bytes()
}

/// Fills a mailbox of `user` on the server with plain messages before any session exists.
pub fn fill(app: &App, user: &str, mailbox: &str, messages: Vec<Vec<u8>>) {
    let start = 1_700_000_000;
    let rows = messages.into_iter().enumerate().map(|(n, m)| (mailbox, vec![], start + n as i64 * 60, m));
    app.stack.fill(user, rows).unwrap();
}

/// Runs `doveadm` and asserts that it succeeded; returns its output.
pub fn doveadm(app: &App, arguments: &[&str]) -> String {
    let out = app.stack.doveadm(arguments).unwrap();
    assert!(out.status.success(), "doveadm {arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Delivers a message by LMTP (RFC 2033), as a mail server would.
pub fn deliver(app: &App, user: &str, message: &[u8]) {
    app.stack.deliver(user, message).unwrap();
}
