//! Whose event log has grown, told over Redis from process to process.
//!
//! A hint only: it may come late, twice or never, since Redis may be gone. Who waits for events looks once a second besides.
//! PostgreSQL's NOTIFY takes one lock of the whole cluster at each commit, so it is left to the jobs.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use deadpool_redis::Pool;
use futures::StreamExt as _;
use tokio::sync::mpsc;

use crate::platform::id::TenantId;
use wire::secret::Secret;

/// The channel of Redis.
const CHANNEL: &str = "emailclient:events";
/// Hints that wait; more are dropped.
const WAITING: usize = 1024;
/// Between two tries to listen.
const PAUSE: Duration = Duration::from_secs(1);

/// Where transactions say that they wrote events; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct News(Arc<OnceLock<mpsc::Sender<TenantId>>>);

impl News {
    /// The log of `tenant` has grown. Waits for nothing.
    pub fn tell(&self, tenant: TenantId) {
        if let Some(waiting) = self.0.get() {
            let _ = waiting.try_send(tenant);
        }
    }

    /// From now on hints go to Redis, by a task that ends with the last clone of this. Once a process.
    pub fn publish(&self, redis: Pool) {
        let (sender, mut waiting) = mpsc::channel(WAITING);
        if self.0.set(sender).is_err() {
            return;
        }
        tokio::spawn(async move {
            let mut some = Vec::new();
            while waiting.recv_many(&mut some, WAITING).await > 0 {
                let tenants: BTreeSet<TenantId> = some.drain(..).collect();
                if let Err(error) = send(&redis, tenants).await {
                    tracing::debug!(%error, "nobody is told of new events; they look by themselves");
                }
            }
        });
    }
}

async fn send(redis: &Pool, tenants: BTreeSet<TenantId>) -> anyhow::Result<()> {
    let mut conn = redis.get().await?;
    let mut pipe = redis::pipe();
    for tenant in tenants {
        pipe.cmd("PUBLISH").arg(CHANNEL).arg(tenant.to_string()).ignore();
    }
    pipe.query_async::<()>(&mut conn).await?;
    Ok(())
}

/// Hints of all processes, for as long as the receiver lives. While Redis is away there are none.
#[must_use]
pub fn listen(url: &Secret) -> mpsc::Receiver<TenantId> {
    let (sender, receiver) = mpsc::channel(WAITING);
    let url = url.clone();
    tokio::spawn(async move {
        while !sender.is_closed() {
            if let Err(error) = hear(&url, &sender).await {
                tracing::debug!(%error, "Redis tells of no new events");
            }
            tokio::time::sleep(PAUSE).await;
        }
    });
    receiver
}

async fn hear(url: &Secret, sender: &mpsc::Sender<TenantId>) -> anyhow::Result<()> {
    let client = redis::Client::open(url.expose())?;
    let mut line = client.get_async_pubsub().await?;
    line.subscribe(CHANNEL).await?;
    let mut hints = line.on_message();
    loop {
        let hint = tokio::select! {
            hint = hints.next() => hint,
            () = sender.closed() => return Ok(()),
        };
        let Some(hint) = hint else { anyhow::bail!("the connection ended") };
        // Whoever can write to Redis can write nonsense.
        if let Some(tenant) = hint.get_payload::<String>().ok().and_then(|text| text.parse().ok()) {
            let _ = sender.try_send(TenantId(tenant));
        }
    }
}
