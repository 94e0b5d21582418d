//! Bytes in hand: one bound for a process, and a share of it for each tenant.
//!
//! Whoever is about to hold what strangers determine the size of (a body, a source to be parsed, an answer that its reader
//! has not taken yet) takes that many bytes first, all at once, and holds nothing while it waits. So memory is bounded
//! whatever arrives, and one tenant leaves room for the others.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use uuid::Uuid;

use crate::platform::id::TenantId;

/// How long one waits for bytes.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Permits are counted in this unit, in bytes.
const UNIT: usize = 1024;
/// Below this many entries nobody looks for those that are out of use.
const FEW: usize = 256;

/// Nothing was free in time.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("nothing was free in time")]
pub struct Spent;

/// What was taken; given back when it is dropped.
#[derive(Debug)]
pub struct Held {
    _all: Option<OwnedSemaphorePermit>,
    _share: Option<OwnedSemaphorePermit>,
}

/// A bound on bytes with shares; cheap to clone.
#[derive(Debug, Clone)]
pub struct Budget {
    all: Arc<Semaphore>,
    units: usize,
    shares: Arc<Shares<TenantId>>,
}

impl Budget {
    /// `bytes` in all, half of them for one tenant.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let units = (bytes / UNIT).clamp(2, Semaphore::MAX_PERMITS);
        Self { all: Arc::new(Semaphore::new(units)), units, shares: Arc::new(Shares::of(units / 2)) }
    }

    /// Takes `bytes` for `tenant`, or for somebody who is not known yet. More than there are, or than the tenant's share, takes
    /// all of that: what is so large goes alone.
    ///
    /// # Errors
    /// [`Spent`] after [`PATIENCE`].
    pub async fn take(&self, tenant: Option<TenantId>, bytes: usize) -> Result<Held, Spent> {
        if let Some(held) = self.try_take(tenant, bytes) {
            return Ok(held);
        }
        let units = bytes.div_ceil(UNIT);
        let taken = async {
            let share = match tenant {
                Some(tenant) => Some(self.shares.take(tenant, units).await?),
                None => None,
            };
            let all = Arc::clone(&self.all).acquire_many_owned(count(units, self.units)).await.ok()?;
            Some(Held { _all: Some(all), _share: share })
        };
        timeout(PATIENCE, taken).await.ok().flatten().ok_or(Spent)
    }

    /// The same without waiting.
    #[must_use]
    pub fn try_take(&self, tenant: Option<TenantId>, bytes: usize) -> Option<Held> {
        let units = bytes.div_ceil(UNIT);
        let share = match tenant {
            Some(tenant) => Some(self.shares.try_take(tenant, units)?),
            None => None,
        };
        let all = Arc::clone(&self.all).try_acquire_many_owned(count(units, self.units)).ok()?;
        Some(Held { _all: Some(all), _share: share })
    }
}

/// Turns at what only one may change at a time, such as a draft: whoever waits for one holds no connection and no lock.
#[derive(Debug)]
pub struct Turns(Shares<(TenantId, Uuid)>);

impl Default for Turns {
    fn default() -> Self {
        Self(Shares::of(1))
    }
}

impl Turns {
    /// The turn at `what`, in the order of asking; it ends when it is dropped.
    ///
    /// # Errors
    /// [`Spent`] after [`PATIENCE`].
    pub async fn take(&self, tenant: TenantId, what: Uuid) -> Result<Held, Spent> {
        let turn = timeout(PATIENCE, self.0.take((tenant, what), 1)).await.ok().flatten();
        turn.map(|turn| Held { _all: Some(turn), _share: None }).ok_or(Spent)
    }
}

fn count(units: usize, most: usize) -> u32 {
    u32::try_from(units.min(most)).unwrap_or(u32::MAX)
}

/// A semaphore of the same size for each key that is in use.
#[derive(Debug)]
pub(crate) struct Shares<K> {
    each: usize,
    known: Mutex<HashMap<K, Weak<Semaphore>>>,
}

impl<K: Hash + Eq> Shares<K> {
    /// `each` for every key.
    pub(crate) fn of(each: usize) -> Self {
        Self { each: each.max(1), known: Mutex::default() }
    }

    /// `wanted` of the key's share, or all of it; in turn.
    pub(crate) async fn take(&self, key: K, wanted: usize) -> Option<OwnedSemaphorePermit> {
        self.share(key).acquire_many_owned(count(wanted, self.each)).await.ok()
    }

    /// The same without waiting.
    pub(crate) fn try_take(&self, key: K, wanted: usize) -> Option<OwnedSemaphorePermit> {
        self.share(key).try_acquire_many_owned(count(wanted, self.each)).ok()
    }

    fn share(&self, key: K) -> Arc<Semaphore> {
        // A map that a panic left behind is still a map.
        let mut known = self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(share) = known.get(&key).and_then(Weak::upgrade) {
            return share;
        }
        if known.len() >= FEW {
            known.retain(|_, share| share.strong_count() > 0);
        }
        let share = Arc::new(Semaphore::new(self.each));
        known.insert(key, Arc::downgrade(&share));
        share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_tenant_has_half_and_leaves_the_other_half() {
        let budget = Budget::new(64 * UNIT);
        let (a, b) = (TenantId::new(), TenantId::new());
        let most = budget.take(Some(a), 32 * UNIT).await.unwrap();
        assert!(budget.take(Some(a), 1).await.is_err(), "its share is used up");
        let other = budget.take(Some(b), 31 * UNIT).await.unwrap();
        assert!(budget.take(None, 2 * UNIT).await.is_err(), "one is left");
        drop(most);
        assert!(
            budget.take(Some(a), 33 * UNIT).await.is_ok(),
            "what is larger than the share takes all of it"
        );
        drop(other);
        assert!(budget.take(None, usize::MAX).await.is_ok(), "what is larger than all takes all");
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_gets_its_turn_and_holds_nothing() {
        let budget = Budget::new(64 * UNIT);
        let a = TenantId::new();
        let first = budget.take(Some(a), 20 * UNIT).await.unwrap();
        let second = tokio::spawn({
            let budget = budget.clone();
            async move { budget.take(Some(a), 20 * UNIT).await.is_ok() }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(budget.try_take(None, 44 * UNIT).is_some(), "the one that waits holds nothing of all");
        drop(first);
        assert!(second.await.unwrap());
        assert_eq!(budget.shares.known.lock().unwrap().len(), 1);
    }
}
