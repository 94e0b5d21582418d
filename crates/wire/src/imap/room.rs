//! Room for what servers tell that is no message: listings and flags. A process has so much, a tenant at most half of it.
//!
//! Who waits for room holds none: what does not fit is thrown away while it is read and counted, and asked for again once
//! there is room for all of it. So a server that tells too much, or tells it slowly, costs others nothing but that.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::ImapError;

/// What one answer may take without asking.
const FREE_BYTES: usize = 1 << 20;
const UNIT_BYTES: usize = 1 << 10;
/// Shares of tenants that nobody holds any more are looked for when there are so many.
const MANY_TENANTS: usize = 1024;

/// All there is; cheap to clone.
#[derive(Clone, Debug)]
pub struct Rooms {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    all: Arc<Semaphore>,
    units: usize,
    tenants: Mutex<HashMap<u128, Weak<Semaphore>>>,
}

impl Rooms {
    /// So many bytes for the process.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let units = bytes.div_ceil(UNIT_BYTES).clamp(2, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        let all = Arc::new(Semaphore::new(units));
        Self { inner: Arc::new(Inner { all, units, tenants: Mutex::default() }) }
    }

    /// A room of this tenant, whose number the caller chooses, with nothing in it yet.
    #[must_use]
    pub fn of(&self, tenant: u128) -> Room {
        let mut tenants = self.inner.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        if tenants.len() >= MANY_TENANTS {
            tenants.retain(|_, share| share.strong_count() > 0);
        }
        let share = tenants.get(&tenant).and_then(Weak::upgrade).unwrap_or_else(|| {
            let share = Arc::new(Semaphore::new(self.inner.units / 2));
            tenants.insert(tenant, Arc::downgrade(&share));
            share
        });
        Room { all: Arc::clone(&self.inner.all), share, most: self.inner.units / 2, held: None, needed: 0 }
    }
}

/// What one answer takes; given back when this is dropped.
#[derive(Debug)]
pub struct Room {
    all: Arc<Semaphore>,
    share: Arc<Semaphore>,
    most: usize,
    /// Of the tenant's share and of all, equally much.
    held: Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)>,
    needed: usize,
}

impl Room {
    /// An answer begins: nothing is in it, what was held stays.
    pub const fn begin(&mut self) {
        self.needed = 0;
    }

    /// So many bytes more. `false`: there is no room for them; keep nothing of this answer, and go on counting.
    pub fn take(&mut self, bytes: usize) -> bool {
        self.needed = self.needed.saturating_add(bytes);
        if self.needed <= FREE_BYTES {
            return true;
        }
        let units = (self.needed - FREE_BYTES).div_ceil(UNIT_BYTES);
        let held = self.held.as_ref().map_or(0, |(share, _)| share.num_permits());
        let Some(missing) = units.checked_sub(held).filter(|missing| *missing > 0) else { return true };
        let Ok(missing) = u32::try_from(missing) else { return false };
        let Ok(of_share) = Arc::clone(&self.share).try_acquire_many_owned(missing) else { return false };
        let Ok(of_all) = Arc::clone(&self.all).try_acquire_many_owned(missing) else { return false };
        match &mut self.held {
            Some((share, all)) => {
                share.merge(of_share);
                all.merge(of_all);
            }
            None => self.held = Some((of_share, of_all)),
        }
        true
    }

    /// Gives up what is held and waits until there is room for all of the last answer.
    ///
    /// # Errors
    /// [`ImapError::Protocol`] when that can never be.
    pub async fn wait(&mut self) -> Result<(), ImapError> {
        self.held = None;
        // It may have become more meanwhile.
        let units = self.needed.saturating_add(self.needed / 10).div_ceil(UNIT_BYTES);
        let many = u32::try_from(units).ok().filter(|_| units <= self.most);
        let Some(many) = many else { return Err(ImapError::protocol("an answer larger than the limit")) };
        let share = Arc::clone(&self.share).acquire_many_owned(many).await;
        let all = Arc::clone(&self.all).acquire_many_owned(many).await;
        self.held = share.ok().zip(all.ok());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::script::{commands, is_protocol, session};
    use super::*;

    const MIB: usize = 1 << 20;

    const fn tenant(n: u128) -> u128 {
        n
    }

    #[tokio::test]
    async fn a_tenant_has_half_and_another_the_rest_and_who_waits_holds_nothing() {
        let rooms = Rooms::new(20 * MIB);
        let (mut first, mut second) = (rooms.of(tenant(1)), rooms.of(tenant(1)));
        assert!(first.take(11 * MIB) && second.take(MIB), "what everybody may have is not counted");
        assert!(!second.take(MIB) && !second.take(MIB), "the tenant's half is in use");
        let mut other = rooms.of(tenant(2));
        assert!(other.take(11 * MIB), "which costs no other tenant anything");
        let waiting = tokio::time::timeout(Duration::from_millis(50), second.wait()).await;
        assert!(waiting.is_err());
        drop(first);
        second.wait().await.unwrap();
        second.begin();
        assert!(second.take(3 * MIB));
        drop((second, other));
        assert_eq!(rooms.inner.all.available_permits(), rooms.inner.units);
    }

    #[tokio::test]
    async fn what_can_never_fit_is_an_error_and_not_waited_for() {
        let rooms = Rooms::new(20 * MIB);
        let mut room = rooms.of(tenant(1));
        for _ in 0..5 {
            assert!(!room.take(40 * MIB));
        }
        assert!(matches!(room.wait().await, Err(ImapError::Protocol(_))));
        room.begin();
        assert!(room.take(5 * MIB), "and it is over with that answer");
    }

    /// So many mailboxes with names of 1,900 bytes: each takes some 12,000 bytes in memory.
    fn listing(count: usize) -> String {
        let lines = (0..count).map(|n| format!("* LIST () \"/\" {n:04}{}\r\n", "x".repeat(1_896)));
        lines.collect::<String>() + "$ OK\r\n"
    }

    #[tokio::test]
    async fn a_listing_that_finds_no_room_is_asked_for_again_when_there_is_and_waits_with_empty_hands() {
        let rooms = Rooms::new(4 * MIB);
        let tenant = tenant(1);
        let mut held = rooms.of(tenant);
        assert!(held.take(5 * MIB / 2));
        let (mut s, seen) =
            session("LIST-EXTENDED LIST-STATUS", &[&listing(150), &listing(150), &listing(10)]).await;
        let mut room = rooms.of(tenant);
        let listed = {
            let listed = s.list_status(&mut room);
            tokio::pin!(listed);
            let waited = tokio::time::timeout(Duration::from_millis(300), &mut listed).await;
            assert!(waited.is_err(), "it waits");
            drop(held);
            listed.await.unwrap()
        };
        assert_eq!((listed.len(), commands(&seen).len()), (150, 2));
        drop(room);
        assert_eq!(s.list_status(&mut rooms.of(tenant)).await.unwrap().len(), 10);
    }

    #[tokio::test]
    async fn a_listing_larger_than_a_tenants_share_is_refused_and_the_session_goes_on() {
        let (mut s, _) =
            session("LIST-EXTENDED LIST-STATUS", &[&listing(1_000), "* LIST () \"/\" INBOX\r\n$ OK\r\n"])
                .await;
        assert!(is_protocol(&s.list_status(&mut Rooms::new(4 * MIB).of(tenant(1))).await));
        assert_eq!(s.list_status(&mut Rooms::new(4 * MIB).of(tenant(1))).await.unwrap().len(), 1);
    }
}
