//! The watches of this process as tasks: which run, which are to give way, and which rest because they failed in a way that
//! nobody foresaw.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::time::Duration;

use emailclient_core::connect::give_way::GiveWay;
use emailclient_core::platform::id::AccountId;
use emailclient_core::sync::due::Watched;
use tokio::sync::watch::Receiver;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Over;

/// Before a watch that panicked begins anew: what it met is likely to be there still.
const AFTER_PANIC: Duration = Duration::from_secs(60);

/// What a watch is told.
pub(super) struct Orders {
    stop: CancellationToken,
    /// Its connection is needed by others.
    wanted: Receiver<bool>,
}

impl Orders {
    /// Waits until nobody else needs the connection. `false`: the watch is over.
    pub async fn until_free(&mut self) -> bool {
        let Self { stop, wanted } = self;
        tokio::select! {
            told = is(wanted, false) => told && !stop.is_cancelled(),
            () = stop.cancelled() => false,
        }
    }

    /// Waits until the connection is to end.
    pub async fn until_over(&mut self) -> Over {
        let Self { stop, wanted } = self;
        tokio::select! {
            biased;
            () = stop.cancelled() => Over::Stopped,
            told = is(wanted, true) => if told { Over::GaveWay } else { Over::Stopped },
        }
    }

    /// Waits so long. `true`: the watch is over.
    pub async fn stops_within(&self, wait: Duration) -> bool {
        tokio::time::timeout(wait, self.stop.cancelled()).await.is_ok()
    }
}

/// `false`: nothing is told any more.
async fn is(wanted: &mut Receiver<bool>, what: bool) -> bool {
    wanted.wait_for(|now| *now == what).await.is_ok()
}

struct Running {
    task: Id,
    stop: CancellationToken,
}

/// The tasks.
pub(super) struct Watchers {
    give_way: GiveWay,
    running: HashMap<AccountId, Running>,
    resting: HashMap<AccountId, Instant>,
    accounts: HashMap<Id, AccountId>,
    tasks: JoinSet<()>,
}

impl Watchers {
    pub fn new(give_way: GiveWay) -> Self {
        Self {
            give_way,
            running: HashMap::new(),
            resting: HashMap::new(),
            accounts: HashMap::new(),
            tasks: JoinSet::new(),
        }
    }

    /// From now on these accounts are watched and no others. Each is looked at once: there may be ten thousand.
    pub fn set<F>(
        &mut self,
        wanted: &[Watched],
        now: Instant,
        shutdown: &CancellationToken,
        start: impl Fn(&Watched, Orders) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        self.reap(now);
        let kept: HashSet<AccountId> = wanted.iter().map(|one| one.account).collect();
        self.running.retain(|account, running| {
            let keep = kept.contains(account);
            if !keep {
                running.stop.cancel();
                self.give_way.forget(*account);
            }
            keep
        });
        self.resting.retain(|account, until| *until > now && kept.contains(account));
        for one in wanted.iter().filter(|one| !self.resting.contains_key(&one.account)) {
            self.running.entry(one.account).or_insert_with(|| {
                let stop = shutdown.child_token();
                let orders = Orders { stop: stop.clone(), wanted: self.give_way.register(one.account) };
                let task = self.tasks.spawn(start(one, orders)).id();
                self.accounts.insert(task, one.account);
                Running { task, stop }
            });
            self.give_way.tell(one.account, one.gives_way);
        }
    }

    /// Takes note of those that ended.
    fn reap(&mut self, now: Instant) {
        while let Some(ended) = self.tasks.try_join_next_with_id() {
            let task = ended.as_ref().map_or_else(JoinError::id, |(task, ())| *task);
            let Some(account) = self.accounts.remove(&task) else { continue };
            if self.running.get(&account).is_none_or(|running| running.task != task) {
                continue;
            }
            self.running.remove(&account);
            self.give_way.forget(account);
            if let Err(error) = ended {
                let panic = error.try_into_panic().map(|panic| words(&*panic)).unwrap_or_default();
                tracing::error!(%account, panic, again_s = AFTER_PANIC.as_secs(), "a watch failed; it begins anew");
                self.resting.insert(account, now + AFTER_PANIC);
            }
        }
    }

    /// Waits for the end of all, which must have been told.
    pub async fn end(mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    use emailclient_core::platform::id::TenantId;

    use super::*;

    fn accounts(count: usize) -> Vec<Watched> {
        let one =
            |_| Watched { tenant: TenantId(uuid::Uuid::nil()), account: AccountId::new(), gives_way: false };
        (0..count).map(one).collect()
    }

    async fn ended(watchers: &Watchers) {
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        assert!(!watchers.tasks.is_empty());
    }

    #[tokio::test]
    async fn a_watch_that_panicked_begins_anew_after_a_pause_and_the_others_go_on() {
        let (mut watchers, shutdown) = (Watchers::new(GiveWay::default()), CancellationToken::new());
        let all = accounts(3);
        let begun: Arc<Mutex<Vec<AccountId>>> = Arc::default();
        let start = |one: &Watched, mut orders: Orders| {
            let (account, begun, unlucky) = (one.account, begun.clone(), all[1].account);
            async move {
                let first = !begun.lock().unwrap().contains(&account);
                begun.lock().unwrap().push(account);
                assert!(account != unlucky || !first, "what nobody foresaw");
                orders.until_over().await;
            }
        };
        let mut now = Instant::now();
        watchers.set(&all, now, &shutdown, start);
        ended(&watchers).await;
        let count = || begun.lock().unwrap().len();
        for _ in 0..3 {
            watchers.set(&all, now, &shutdown, start);
            ended(&watchers).await;
            assert_eq!(count(), 3, "it rests");
        }
        now += AFTER_PANIC;
        for _ in 0..3 {
            watchers.set(&all, now, &shutdown, start);
            ended(&watchers).await;
            assert_eq!(
                (count(), begun.lock().unwrap()[3]),
                (4, all[1].account),
                "it alone begins anew, once"
            );
        }
        assert_eq!(watchers.running.len(), 3);
        shutdown.cancel();
        watchers.end().await;
    }

    #[tokio::test]
    async fn who_is_no_longer_to_watch_is_stopped_and_who_is_to_give_way_is_told() {
        let (mut watchers, shutdown) = (Watchers::new(GiveWay::default()), CancellationToken::new());
        let mut all = accounts(2);
        let (gave, stopped) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let start = |_: &Watched, mut orders: Orders| {
            let (gave, stopped) = (gave.clone(), stopped.clone());
            async move {
                while orders.until_free().await {
                    match orders.until_over().await {
                        Over::GaveWay => gave.fetch_add(1, Ordering::SeqCst),
                        Over::Stopped => stopped.fetch_add(1, Ordering::SeqCst),
                    };
                }
            }
        };
        let told = |gave: &AtomicUsize| gave.load(Ordering::SeqCst);
        watchers.set(&all, Instant::now(), &shutdown, start);
        ended(&watchers).await;
        all[0].gives_way = true;
        watchers.set(&all, Instant::now(), &shutdown, start);
        ended(&watchers).await;
        assert_eq!((told(&gave), told(&stopped)), (1, 0));
        all[0].gives_way = false;
        watchers.set(&all, Instant::now(), &shutdown, start);
        ended(&watchers).await;
        // By somebody of this process, before the next look.
        watchers.give_way.tell(all[0].account, true);
        ended(&watchers).await;
        assert_eq!((told(&gave), told(&stopped)), (2, 0));
        watchers.set(&all[..1], Instant::now(), &shutdown, start);
        ended(&watchers).await;
        assert_eq!((told(&gave), told(&stopped)), (2, 1));
        shutdown.cancel();
        watchers.end().await;
    }

    /// Each with each would be a hundred million comparisons.
    #[tokio::test]
    async fn ten_thousand_watches_are_looked_through_in_a_moment() {
        let (mut watchers, shutdown) = (Watchers::new(GiveWay::default()), CancellationToken::new());
        let all = accounts(10_000);
        let start = |_: &Watched, mut orders: Orders| async move { _ = orders.until_over().await };
        watchers.set(&all, Instant::now(), &shutdown, start);
        let started = std::time::Instant::now();
        for _ in 0..5 {
            watchers.set(&all, Instant::now(), &shutdown, start);
        }
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
        shutdown.cancel();
        watchers.end().await;
    }
}
