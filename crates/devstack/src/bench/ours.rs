//! What a user of the product waits for, seen through the REST API.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use devstack::Endpoints;
use serde_json::{Value, json};

use super::milliseconds;
use crate::product::{Session, account, text};

/// Nothing measured here takes so long unless it never ends.
const NEVER: Duration = Duration::from_secs(3600);

/// An account whose first synchronisation has been asked for.
pub(super) struct Asked {
    pub(super) id: String,
    pub(super) at: Instant,
}

/// Creates the account; its credentials are not tried first.
pub(super) async fn connect(session: &Session, endpoints: &Endpoints, user: &str) -> Result<Asked> {
    let at = Instant::now();
    let created = session.post("/api/accounts?verify=false", account(endpoints, user, "Bench")).await?;
    Ok(Asked { id: text(&created, "id")?, at })
}

/// From the request that created the account until the status says that all messages are here: seconds.
pub(super) async fn until_listed(session: &Session, asked: &Asked, messages: usize) -> Result<f64> {
    loop {
        let status = session.get(&format!("/api/sync/status/{}", asked.id)).await?;
        let state = status.pointer("/run/state").and_then(Value::as_str).unwrap_or_default();
        if state == "done" && synced(&status) >= messages as u64 {
            return Ok(asked.at.elapsed().as_secs_f64());
        }
        if state == "failed" || asked.at.elapsed() > NEVER {
            bail!("the synchronisation did not end well: {status}");
        }
        // Looking costs processor time too; a hundredth is exact enough.
        tokio::time::sleep((asked.at.elapsed() / 100).max(Duration::from_millis(20))).await;
    }
}

/// How many messages are here now.
pub(super) async fn listed(session: &Session, asked: &Asked) -> Result<usize> {
    let status = session.get(&format!("/api/sync/status/{}", asked.id)).await?;
    if status.pointer("/run/state").and_then(Value::as_str) == Some("failed") {
        bail!("the synchronisation did not end well: {status}");
    }
    Ok(usize::try_from(synced(&status))?)
}

/// From the same request until this message, the oldest, is found by a word of its text: seconds. Text is indexed newest
/// first, so all others are found by then.
pub(super) async fn until_searchable(session: &Session, asked: &Asked, token: &str) -> Result<f64> {
    let query = format!("/api/sync/search?account_id={}&limit=1&query={token}", asked.id);
    loop {
        if rows(&session.get(&query).await?).next().is_some() {
            return Ok(asked.at.elapsed().as_secs_f64());
        }
        if asked.at.elapsed() > NEVER {
            bail!("{token} is not found");
        }
        // In a new database a look may read the whole table: 52 of them read 264,000 rows.
        tokio::time::sleep((asked.at.elapsed() / 20).max(Duration::from_millis(100))).await;
    }
}

/// From the same request until a page of INBOX is full and begins with the newest message: milliseconds.
pub(super) async fn until_first_page(
    session: &Session,
    asked: &Asked,
    wanted: usize,
    newest: &str,
) -> Result<f64> {
    let page = format!("/api/accounts/{}/messages?role=inbox&limit={wanted}", asked.id);
    loop {
        let answer = session.get(&page).await?;
        let first = rows(&answer).next().and_then(|m| m.pointer("/message_id_header"));
        if rows(&answer).count() == wanted && first.and_then(Value::as_str) == Some(newest) {
            return Ok(milliseconds(asked.at.elapsed()));
        }
        if asked.at.elapsed() > NEVER {
            bail!("the first page never came: {answer}");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Asks for a round and waits for its end, with so many messages here then: milliseconds.
pub(super) async fn round(session: &Session, id: &str, messages: usize) -> Result<f64> {
    let started = Instant::now();
    let asked = session.post(&format!("/api/sync/imap/{id}"), json!({})).await?;
    let run = text(&asked, "id")?;
    loop {
        let status = session.get(&format!("/api/sync/status/{id}")).await?;
        let field = |path: &str| status.pointer(path).and_then(Value::as_str).unwrap_or_default();
        if field("/run/id") == run && field("/run/state") == "done" {
            if synced(&status) != messages as u64 {
                bail!("the round left {} of {messages} messages", synced(&status));
            }
            return Ok(milliseconds(started.elapsed()));
        }
        if field("/run/state") == "failed" || started.elapsed() > NEVER {
            bail!("the round did not end well: {status}");
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn synced(status: &Value) -> u64 {
    status.pointer("/progress/messages_synced").and_then(Value::as_u64).unwrap_or_default()
}

fn rows(answer: &Value) -> impl Iterator<Item = &Value> {
    answer.pointer("/data").and_then(Value::as_array).into_iter().flatten()
}
