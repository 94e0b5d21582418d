//! How many lines of millions of bytes a process holds at once: answers to SEARCH of servers that have, or pretend to have, very
//! many messages.
//!
//! An ordinary line asks for nothing. One that grows beyond that takes a place of 1 MiB, and beyond 1 MiB one of 16 MiB, before
//! more of it is read; who waits for a place leaves the rest of the line with the server. A tenant has half of each kind at
//! most. Nobody who has a large place waits for a small one, so the two cannot block each other.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A long line up to this size has a small place.
const SMALL_BYTES: usize = 1 << 20;
/// 32 MiB: room for a hundred thousand numbers each.
const SMALL_PLACES: usize = 32;
/// 64 MiB: a million numbers each.
const LARGE_PLACES: usize = 4;
/// Shares that nobody holds any more are looked for when there are so many.
const MANY_TENANTS: usize = 1024;

static OF_THE_PROCESS: LazyLock<LongLines> = LazyLock::new(|| LongLines::new(SMALL_PLACES, LARGE_PLACES));

/// Places of both kinds.
#[derive(Debug)]
struct Places {
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
}

impl Places {
    fn new(small: usize, large: usize) -> Self {
        Self { small: Arc::new(Semaphore::new(small)), large: Arc::new(Semaphore::new(large)) }
    }
}

/// The places, as a connection has them; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct LongLines {
    all: Arc<Places>,
    tenants: Arc<Mutex<HashMap<u128, Weak<Places>>>>,
    /// Of these the connection's tenant has its own; none before it is told whose it is.
    share: Option<Arc<Places>>,
    half: (usize, usize),
}

impl LongLines {
    pub fn new(small: usize, large: usize) -> Self {
        let half = ((small / 2).max(1), (large / 2).max(1));
        Self { all: Arc::new(Places::new(small, large)), tenants: Arc::default(), share: None, half }
    }

    /// Those that all connections of the process share.
    pub fn of_the_process() -> Self {
        OF_THE_PROCESS.clone()
    }

    /// From now on within the share of this tenant.
    pub fn count_for(&mut self, tenant: u128) {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        if tenants.len() >= MANY_TENANTS {
            tenants.retain(|_, share| share.strong_count() > 0);
        }
        let known = tenants.get(&tenant).and_then(Weak::upgrade);
        let share = known.unwrap_or_else(|| Arc::new(Places::new(self.half.0, self.half.1)));
        tenants.insert(tenant, Arc::downgrade(&share));
        drop(tenants);
        self.share = Some(share);
    }

    async fn take(&self, kind: impl Fn(&Places) -> &Arc<Semaphore>) -> Place {
        let share = match &self.share {
            Some(share) => Arc::clone(kind(share)).acquire_owned().await.ok(),
            None => None,
        };
        Place { _share: share, _all: Arc::clone(kind(&self.all)).acquire_owned().await.ok() }
    }
}

#[derive(Debug)]
struct Place {
    _share: Option<OwnedSemaphorePermit>,
    _all: Option<OwnedSemaphorePermit>,
}

/// The places that a line has; given back when it is read.
#[derive(Debug, Default)]
pub(super) struct Turn {
    small: Option<Place>,
    large: Option<Place>,
}

impl Turn {
    /// Waits until the line may grow beyond `bytes`.
    pub async fn suffice(&mut self, lines: &LongLines, bytes: usize) {
        if self.small.is_none() {
            self.small = Some(lines.take(|p| &p.small).await);
        }
        if bytes > SMALL_BYTES && self.large.is_none() {
            self.large = Some(lines.take(|p| &p.large).await);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::time::Instant;

    use super::super::guard::{Allowance, Framer};
    use super::*;

    fn connection(places: &LongLines) -> (Framer, DuplexStream) {
        let (ours, theirs) = duplex(256 << 10);
        let allowance = Allowance { until: Instant::now() + Duration::from_secs(60), bytes: 64 << 20 };
        (Framer::new(Box::new(ours), allowance).sharing(places.clone()), theirs)
    }

    /// Says so much of a line that does not end; how much was taken.
    async fn endless(mut server: DuplexStream, bytes: usize) -> usize {
        let piece = b"1234567 ".repeat(1024);
        let mut taken = 0;
        server.write_all(b"* SEARCH ").await.unwrap();
        while taken < bytes && server.write_all(&piece).await.is_ok() {
            taken += piece.len();
        }
        std::future::pending::<()>().await;
        taken
    }

    #[tokio::test(start_paused = true)]
    async fn lines_without_end_take_no_more_than_their_places_and_a_long_one_has_its_turn_after_them() {
        let places = LongLines::new(3, 1);
        let mut hostile = Vec::new();
        for _ in 0..20 {
            let (mut framer, server) = connection(&places);
            let saying = tokio::spawn(endless(server, 8 << 20));
            let reading = tokio::spawn(async move { framer.read().await.map(drop) });
            hostile.push((saying, reading));
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!((places.all.small.available_permits(), places.all.large.available_permits()), (0, 0));
        // An ordinary answer waits for nobody.
        let (mut framer, mut server) = connection(&places);
        server.write_all(b"* SEARCH 1 2 3\r\n").await.unwrap();
        assert!(tokio::time::timeout(Duration::from_secs(1), framer.read()).await.unwrap().is_ok());
        // A long one waits for its turn, longer than its own deadline would be.
        let (mut framer, mut server) = connection(&places);
        let long = tokio::spawn(async move { framer.read().await.map(|r| r.parts.len()) });
        let saying = tokio::spawn(async move {
            server.write_all(b"* SEARCH ").await.unwrap();
            server.write_all(&b"1234567 ".repeat(300_000)).await.unwrap();
            server.write_all(b"1\r\n").await.unwrap();
            server
        });
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert!(!long.is_finished(), "all places are taken");
        for (saying, reading) in hostile {
            // Their time is over.
            assert!(reading.await.unwrap().is_err());
            saying.abort();
        }
        assert_eq!(long.await.unwrap().unwrap(), 1);
        drop(saying.await.unwrap());
        assert_eq!((places.all.small.available_permits(), places.all.large.available_permits()), (3, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_tenant_whose_servers_never_end_a_line_leaves_half_of_the_places_to_others() {
        let places = LongLines::new(4, 2);
        let mut hostile = Vec::new();
        for _ in 0..20 {
            let (mut framer, server) = connection(&places);
            framer.count_for(7);
            hostile.push(tokio::spawn(endless(server, 8 << 20)));
            tokio::spawn(async move { framer.read().await.map(drop) });
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!((places.all.small.available_permits(), places.all.large.available_permits()), (2, 1));
        let (mut framer, mut server) = connection(&places);
        framer.count_for(8);
        let long = tokio::spawn(async move { framer.read().await.map(|r| r.parts.len()) });
        server.write_all(b"* SEARCH ").await.unwrap();
        server.write_all(&b"1234567 ".repeat(300_000)).await.unwrap();
        server.write_all(b"1\r\n").await.unwrap();
        assert_eq!(tokio::time::timeout(Duration::from_secs(1), long).await.unwrap().unwrap().unwrap(), 1);
        hostile.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
