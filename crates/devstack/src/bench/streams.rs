//! What a thousand open streams take of the API's memory, and how soon all of them are told.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use devstack::Stack;
use serde_json::json;
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::JoinSet;

use super::figure::Figure;
use super::process::{self, settle};
use super::{API, Plan, milliseconds, ours, progress};
use crate::product::{MAIL_PASSWORD, Product};

/// As many as a tenant may have open.
const STREAMS: usize = 1_000;
/// Drafts that are made while all listen.
const EVENTS: usize = 50;
const SILENCE: Duration = Duration::from_secs(30);

pub(super) async fn measure(stack: &Stack, plan: &Plan) -> Result<Vec<Figure>> {
    let product = Product::start(stack, &plan.listen).await?;
    let session = product.log_in().await?;
    let user = "streams@lab.test";
    stack.endpoints().add_mailbox(user, MAIL_PASSWORD)?;
    let account = ours::connect(&session, stack.endpoints(), user).await?;
    ours::until_listed(&session, &account, 0).await?;
    let api = product.pid(API).context("the API has no process id")?;
    settle(&[api]).await?;
    let before = process::resident_mb(api)?;
    let streams = plan.scaled(STREAMS);
    progress(&format!("streams: opening {streams}"))?;
    let (to, mut told) = unbounded_channel();
    let mut open = JoinSet::new();
    for _ in 0..streams {
        let (mut stream, to) = (session.open("/api/events").await?, to.clone());
        open.spawn(async move {
            while let Some(chunk) = stream.chunk().await? {
                if String::from_utf8_lossy(&chunk).contains("event: draft.created") {
                    to.send(Instant::now())?;
                }
            }
            anyhow::Ok(())
        });
    }
    settle(&[api]).await?;
    let idle = process::resident_mb(api)? - before;
    let mut seconds = Vec::new();
    for _ in 0..EVENTS {
        let draft = json!({ "account_id": account.id, "text": "x" });
        session.post("/api/compose", draft).await?;
        let made = Instant::now();
        let mut last = made;
        for _ in 0..streams {
            let Ok(Some(at)) = tokio::time::timeout(SILENCE, told.recv()).await else {
                bail!("not all streams are told: {:?}", open.try_join_next());
            };
            last = last.max(at);
        }
        seconds.push(milliseconds(last - made));
    }
    let busy = process::resident_mb(api)? - before;
    open.shutdown().await;
    product.stop(stack).await;
    Ok(vec![
        Figure::new(&format!("memory that {streams} open streams take"), "MB", Some("<= 60"), vec![idle]),
        Figure::new(&format!("the same after {EVENTS} events to each"), "MB", Some("<= 60"), vec![busy]),
        Figure::new("from a change until all of them are told", "ms", None, seconds),
    ])
}
