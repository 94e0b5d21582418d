//! Who computes a hash next. Places are few and the queue for them is bounded; shares take turns in it, so a tenant that is
//! flooded with log-ins delays its own and no other's.

use std::collections::{HashMap, VecDeque};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::PasswordError;
use crate::platform::id::TenantId;

/// For whom a hash is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Share {
    /// A user of the tenant, from where that user has logged in before.
    Known(TenantId),
    /// Anybody else who names the tenant.
    Of(TenantId),
    /// Who names a tenant that there is not.
    Nobody,
    /// Whoever administrates; not bounded.
    Operator,
}

/// Hashes at once in one process; each holds 19 MiB.
const AT_ONCE: usize = 4;
/// Those of one share that wait: a third of a second on one core.
const WAITING_OF_A_SHARE: usize = 16;
/// All that wait, the operator's left out: under two seconds on one core.
const WAITING: usize = 64;

/// The places of this process.
pub(super) static PLACES: LazyLock<Places> = LazyLock::new(|| Places::new(AT_ONCE));

#[derive(Debug, Default)]
struct State {
    busy: usize,
    /// Shares in which somebody waits, whose turn is next in front.
    turns: VecDeque<Share>,
    waiting: HashMap<Share, VecDeque<oneshot::Sender<Place>>>,
}

impl State {
    fn forget_who_left(&mut self) {
        for queue in self.waiting.values_mut() {
            queue.retain(|waits| !waits.is_closed());
        }
        self.waiting.retain(|_, queue| !queue.is_empty());
        self.turns.retain(|share| self.waiting.contains_key(share));
    }

    /// Makes room for one more of `share`: its own, or that of who came last in the longest queue. `false`: there is none.
    fn admits(&mut self, share: Share) -> bool {
        let own = self.waiting.get(&share).map_or(0, VecDeque::len);
        if share == Share::Operator {
            return true;
        }
        if own >= WAITING_OF_A_SHARE {
            return false;
        }
        let others = || self.waiting.iter().filter(|(share, _)| **share != Share::Operator);
        if others().map(|(_, queue)| queue.len()).sum::<usize>() < WAITING {
            return true;
        }
        let longest =
            others().max_by_key(|(_, queue)| queue.len()).map(|(share, queue)| (*share, queue.len()));
        match longest {
            Some((longest, length)) if length > own + 1 => {
                // Dropped, which its waiter sees.
                self.waiting.get_mut(&longest).and_then(VecDeque::pop_back);
                true
            }
            _ => false,
        }
    }

    fn next(&mut self) -> Option<oneshot::Sender<Place>> {
        let share = self.turns.pop_front()?;
        let queue = self.waiting.get_mut(&share)?;
        let next = queue.pop_front();
        if queue.is_empty() {
            self.waiting.remove(&share);
        } else {
            self.turns.push_back(share);
        }
        next
    }
}

/// Places to compute at, and who waits for them.
#[derive(Debug)]
pub(super) struct Places {
    state: Mutex<State>,
    count: usize,
}

/// A place; the next in turn has it when this is dropped.
#[derive(Debug)]
pub(super) struct Place(&'static Places);

impl Places {
    pub(super) fn new(count: usize) -> Self {
        Self { state: Mutex::default(), count }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a place.
    ///
    /// # Errors
    /// [`PasswordError::Busy`] at once when too many wait, or later when one of a shorter queue came.
    pub(super) async fn enter(&'static self, share: Share) -> Result<Place, PasswordError> {
        let turn = {
            let mut state = self.lock();
            if state.busy < self.count {
                state.busy += 1;
                return Ok(Place(self));
            }
            state.forget_who_left();
            if !state.admits(share) {
                return Err(PasswordError::Busy);
            }
            let (waits, turn) = oneshot::channel();
            state.waiting.entry(share).or_default().push_back(waits);
            if !state.turns.contains(&share) {
                state.turns.push_back(share);
            }
            turn
        };
        turn.await.map_err(|_| PasswordError::Busy)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let next = {
            let mut state = self.0.lock();
            state.forget_who_left();
            let next = state.next();
            if next.is_none() {
                state.busy = state.busy.saturating_sub(1);
            }
            next
        };
        if let Some(next) = next {
            // Who left in this very moment lets it go to the one behind.
            drop(next.send(Place(self.0)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn places(count: usize) -> &'static Places {
        Box::leak(Box::new(Places::new(count)))
    }

    fn tenants(count: usize) -> Vec<Share> {
        (0..count).map(|_| Share::Of(TenantId::new())).collect()
    }

    async fn settled() {
        for _ in 0..200 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_flood_of_one_tenant_is_refused_and_others_have_their_turn_next() {
        let (places, all) = (places(1), tenants(2));
        let held = places.enter(all[0]).await.unwrap();
        let (told, mut order) = tokio::sync::mpsc::unbounded_channel();
        let wait = |share: Share| {
            let told = told.clone();
            tokio::spawn(async move {
                let place = places.enter(share).await;
                if place.is_ok() {
                    told.send(share).unwrap();
                }
                place.map(drop).is_ok()
            })
        };
        let flood: Vec<_> = (0..300).map(|_| wait(all[0])).collect();
        settled().await;
        let other = wait(all[1]);
        settled().await;
        drop(held);
        assert!(other.await.unwrap());
        let mut served = 0;
        for task in flood {
            served += usize::from(task.await.unwrap());
        }
        assert_eq!(served, WAITING_OF_A_SHARE);
        let mut first = Vec::new();
        for _ in 0..2 {
            first.push(order.recv().await.unwrap());
        }
        assert_eq!(first, [all[0], all[1]], "the second turn is the other tenant's");
    }

    #[tokio::test]
    async fn many_tenants_that_are_flooded_leave_room_for_one_more() {
        let (places, all) = (places(1), tenants(5));
        let held = places.enter(Share::Nobody).await.unwrap();
        let wait = |share: Share| tokio::spawn(async move { places.enter(share).await.map(drop) });
        let waiting: Vec<_> =
            all[..4].iter().flat_map(|share| (0..WAITING_OF_A_SHARE).map(|_| wait(*share))).collect();
        settled().await;
        let mine = wait(all[4]);
        settled().await;
        let given_up = waiting.iter().filter(|task| task.is_finished()).count();
        assert_eq!(given_up, 1, "one of the longest queue");
        drop(held);
        tokio::time::timeout(Duration::from_secs(5), async { mine.await.unwrap().unwrap() }).await.unwrap();
        for task in waiting {
            drop(task.await.unwrap());
        }
        drop(places.enter(Share::Nobody).await.unwrap());
        assert_eq!(places.lock().busy, 0, "no place was lost");
    }

    #[tokio::test]
    async fn who_hangs_up_takes_no_place_along() {
        let (places, share) = (places(1), Share::Of(TenantId::new()));
        let held = places.enter(share).await.unwrap();
        for _ in 0..1000 {
            let waits = tokio::spawn(places.enter(share));
            tokio::task::yield_now().await;
            waits.abort();
        }
        drop(held);
        let next = tokio::time::timeout(Duration::from_secs(5), places.enter(share)).await;
        drop(next.unwrap().unwrap());
        assert_eq!(places.lock().busy, 0);
    }
}
