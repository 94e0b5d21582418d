//! The API, and a dispatcher whose clock the test sets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::TimeDelta;
use emailclient_core::domain::event::{self, DraftCreated, Event};
use emailclient_core::platform::clock::ShiftedClock;
use emailclient_core::platform::heartbeat::Heartbeat;
use emailclient_core::platform::id::{AccountId, DraftId};
use emailclient_core::platform::redis_pool;
use emailclient_worker::environment::{self, Environment};
use emailclient_worker::webhooks;
use serde_json::Value;
use tests::app::{App, Tenant};
use tests::eventually::eventually;
use tests::sink::{Received, Sink};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::SOON;

/// The API, and a dispatcher whose clock the test sets.
pub(super) struct Stage {
    pub(super) app: App,
    pub(super) tenant: Tenant,
    pub(super) env: Environment,
    clock: Arc<ShiftedClock>,
    dispatcher: JoinHandle<()>,
}

impl Stage {
    pub(super) async fn new(settings: &[(&str, &str)]) -> Self {
        let app = App::start_with(settings).await;
        let tenant = app.tenant().await;
        let clock = Arc::new(ShiftedClock::default());
        let mut env = environment::new(app.config().clone(), CancellationToken::new()).unwrap();
        env.process.clock = clock.clone();
        env.db.news.publish(redis_pool::connect(&app.config().redis_url).unwrap());
        let running = env.clone();
        let dispatcher =
            tokio::spawn(async move { webhooks::dispatch(&running, &Heartbeat::default()).await });
        Self { app, tenant, env, clock, dispatcher }
    }

    pub(super) async fn finish(self) {
        self.env.shutdown.cancel();
        self.dispatcher.await.unwrap();
        self.env.db.close().await;
        self.app.finish().await;
    }

    /// A webhook of the tenant: its path.
    pub(super) async fn hook(&self, body: Value) -> String {
        let made = self.app.post(&self.tenant, "/api/webhooks", &body).await.expect(201);
        format!("/api/webhooks/{}", made["id"].as_str().unwrap())
    }

    pub(super) async fn state(&self, hook: &str) -> Value {
        self.app.get(&self.tenant, hook).await.expect(200)
    }

    pub(super) async fn until(&self, hook: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        eventually(what, SOON, async || Some(self.state(hook).await).filter(|state| is(state))).await
    }

    pub(super) async fn deliveries(&self, hook: &str, state: &str) -> Vec<Value> {
        let page = self.app.get(&self.tenant, &format!("{hook}/deliveries?state={state}")).await.expect(200);
        page["data"].as_array().unwrap().clone()
    }

    /// Tells events in one transaction.
    pub(super) async fn tell(&self, account: AccountId, events: &[Event]) {
        let mut tx = self.env.db.tenant(self.tenant.id).await.unwrap();
        event::record(&mut tx, account, events);
        tx.commit().await.unwrap();
    }

    /// Tells so many drafts of an account: their ids, in order.
    pub(super) async fn drafts(&self, account: AccountId, count: usize) -> Vec<String> {
        let ids: Vec<DraftId> = (0..count).map(|_| DraftId::new()).collect();
        let events: Vec<Event> = ids.iter().map(|id| DraftCreated { id: *id }.into()).collect();
        self.tell(account, &events).await;
        ids.iter().map(ToString::to_string).collect()
    }

    pub(super) fn advance(&self, delta: TimeDelta) {
        self.clock.advance(delta);
    }
}

/// The kinds of the first so many events that arrive.
pub(super) async fn told(sink: &Sink, count: usize) -> Vec<String> {
    let all = sink.got(count).await;
    let all: BTreeSet<String> = all.iter().map(|r| r.json()["type"].as_str().unwrap().to_owned()).collect();
    all.into_iter().collect()
}

pub(super) fn draft(request: &Received) -> String {
    request.json()["data"]["draft_id"].as_str().unwrap_or_default().to_owned()
}

/// The drafts of each account as they arrived for the first time, in order.
pub(super) fn by_account(all: &[Received]) -> BTreeMap<String, Vec<String>> {
    let (mut seen, mut found) = (BTreeSet::new(), BTreeMap::<String, Vec<String>>::new());
    for request in all.iter().filter(|request| seen.insert(request.id().to_owned())) {
        let account = request.json()["data"]["account_id"].as_str().unwrap().to_owned();
        found.entry(account).or_default().push(draft(request));
    }
    found
}
