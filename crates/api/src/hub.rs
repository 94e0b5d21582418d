//! Events on their way to open streams: the log of a tenant is read once a process, whatever number of its streams are open.
//!
//! A hint of Redis wakes the reader of a tenant; besides, one statement a second asks where the logs of all tenants with open
//! streams stand, because Redis may be gone. A reader begins with the first stream and ends after the last.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use emailclient_core::events::envelope::{self, Envelope, Include};
use emailclient_core::events::log::{self, Entry, Filter, Stream};
use emailclient_core::platform::db::{Db, DbError};
use emailclient_core::platform::id::TenantId;
use emailclient_core::platform::metrics::table;
use emailclient_core::platform::news;
use tokio::sync::{Mutex, Notify, OwnedSemaphorePermit, Semaphore, broadcast};
use tokio_util::sync::CancellationToken;
use wire::measured::Held;
use wire::secret::Secret;

/// Between two looks without a hint.
const LOOK: Duration = Duration::from_secs(1);
/// How long one look may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// Streams of a process, and of one tenant in it, that are open at once.
const STREAMS: usize = 5_000;
const STREAMS_OF_TENANT: usize = 1_000;
/// Events that wait for the slowest stream of a tenant; one that is further behind is cut, and resumes. Some two kilobytes each.
const BACKLOG: usize = 512;
/// Events read at once.
pub const AT_ONCE: usize = 200;
/// Places of the log that are gone through at once: of events that nobody wants there may be millions in a row.
const WINDOW: i64 = 20_000;

/// One event, ready for all who want it.
#[derive(Debug)]
pub struct Told {
    /// Its line in the log.
    pub entry: Entry,
    /// As it goes into a stream.
    pub frame: Bytes,
}

impl Told {
    fn new(entry: Entry, envelope: &Envelope) -> Self {
        Self { frame: frame(envelope), entry }
    }
}

/// An event as a stream has it (WHATWG HTML §9.2.6). JSON has no line ends of its own.
fn frame(envelope: &Envelope) -> Bytes {
    let data = serde_json::to_string(envelope).unwrap_or_default();
    format!("id: {}\nevent: {}\ndata: {data}\n\n", envelope.id, envelope.kind).into()
}

/// The reader of one tenant's log.
#[derive(Debug)]
pub struct Tail {
    tenant: TenantId,
    kick: Notify,
    /// Up to here everything was told; held while a portion is read and told.
    position: Mutex<i64>,
    sender: broadcast::Sender<Arc<Told>>,
    places: Arc<Semaphore>,
}

/// All readers of a process.
#[derive(Debug)]
pub struct Hub {
    tails: std::sync::Mutex<HashMap<TenantId, Weak<Tail>>>,
    places: Arc<Semaphore>,
}

impl Default for Hub {
    fn default() -> Self {
        Self { tails: std::sync::Mutex::default(), places: Arc::new(Semaphore::new(STREAMS)) }
    }
}

/// A stream that may be open.
#[derive(Debug)]
pub struct Place {
    _of_process: OwnedSemaphorePermit,
    _of_tenant: OwnedSemaphorePermit,
    _counted: Held,
}

impl Hub {
    /// Passes hints on, and looks once a second, until `end`.
    pub async fn run(&self, db: &Db, redis_url: &Secret, end: &CancellationToken) {
        let mut hints = news::listen(redis_url);
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = end.cancelled() => return,
                Some(tenant) = hints.recv() => {
                    if let Some(tail) = self.tails().get(&tenant).and_then(Weak::upgrade) {
                        tail.kick.notify_one();
                    }
                }
                _ = ticks.tick() => {
                    // A statement that hangs holds up neither the hints nor the end.
                    let look = tokio::time::timeout(PATIENCE, self.look(db));
                    tokio::select! {
                        () = end.cancelled() => return,
                        looked = look => if !matches!(looked, Ok(Ok(()))) {
                            tracing::debug!("the event log could not be looked at");
                        }
                    }
                }
            }
        }
    }

    fn tails(&self) -> std::sync::MutexGuard<'_, HashMap<TenantId, Weak<Tail>>> {
        self.tails.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    async fn look(&self, db: &Db) -> Result<(), DbError> {
        let open: HashMap<TenantId, Arc<Tail>> = {
            let mut tails = self.tails();
            tails.retain(|_, tail| tail.strong_count() > 0);
            tails.iter().filter_map(|(tenant, tail)| Some((*tenant, tail.upgrade()?))).collect()
        };
        if open.is_empty() {
            return Ok(());
        }
        let tenants: Vec<TenantId> = open.keys().copied().collect();
        let mut tx = db.system().await?;
        let streams = log::streams(&mut tx, &tenants).await?;
        tx.release();
        for (tenant, stream) in streams {
            let Some(tail) = open.get(&tenant) else { continue };
            // One that is being read goes on by itself.
            if tail.position.try_lock().is_ok_and(|position| *position < stream.position) {
                tail.kick.notify_one();
            }
        }
        Ok(())
    }

    /// The reader of this tenant's log, from where the log stands now if nobody read it before.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn tail(&self, db: &Db, tenant: TenantId) -> Result<Arc<Tail>, DbError> {
        if let Some(tail) = self.tails().get(&tenant).and_then(Weak::upgrade) {
            return Ok(tail);
        }
        let stream = stands(db, tenant, true).await?;
        let mut tails = self.tails();
        if let Some(tail) = tails.get(&tenant).and_then(Weak::upgrade) {
            return Ok(tail);
        }
        let (sender, _) = broadcast::channel(BACKLOG);
        let position = Mutex::new(stream.durable);
        let tail = Arc::new(Tail {
            tenant,
            kick: Notify::new(),
            position,
            sender,
            places: Arc::new(Semaphore::new(STREAMS_OF_TENANT)),
        });
        tails.insert(tenant, Arc::downgrade(&tail));
        drop(tails);
        tokio::spawn(follow(db.clone(), Arc::downgrade(&tail)));
        Ok(tail)
    }
}

/// Reads on at each kick, for as long as somebody listens.
async fn follow(db: Db, tail: Weak<Tail>) {
    loop {
        let Some(now) = tail.upgrade() else { return };
        // Let go of between two looks: only streams keep a reader alive.
        if tokio::time::timeout(LOOK, now.kick.notified()).await.is_err() {
            continue;
        }
        if let Err(error) = now.read_on(&db).await {
            tracing::debug!(%error, tenant = %now.tenant, "events could not be read; the next look tries again");
        }
    }
}

impl Tail {
    /// A place for one more stream; `None`: the tenant has as many as it may.
    #[must_use]
    pub fn place(&self, hub: &Hub) -> Option<Place> {
        let of = |places: &Arc<Semaphore>| Arc::clone(places).try_acquire_owned().ok();
        let (of_tenant, of_process) = (of(&self.places)?, of(&hub.places)?);
        let counted = Held::new(metrics::gauge!(table::STREAMS.name));
        Some(Place { _of_tenant: of_tenant, _of_process: of_process, _counted: counted })
    }

    /// Listens: everything after the position that is returned arrives at the receiver.
    pub async fn subscribe(&self) -> (i64, broadcast::Receiver<Arc<Told>>) {
        let position = self.position.lock().await;
        (*position, self.sender.subscribe())
    }

    async fn read_on(&self, db: &Db) -> Result<(), DbError> {
        let mut position = self.position.lock().await;
        let stream = stands(db, self.tenant, true).await?;
        while *position < stream.durable {
            // Old mail goes to those that ask for it, who read it by themselves.
            let range = (*position, stream.durable);
            let (told, reached) = read(db, self.tenant, range, &Filter::default()).await?;
            for told in told {
                // Nobody listens at this moment.
                let _ = self.sender.send(Arc::new(told));
            }
            *position = reached;
        }
        Ok(())
    }
}

/// Where the log of a tenant stands. `wait`: after what is committed now is on disk, unless others commit at this moment; what
/// is on disk without that is enough to go on.
///
/// # Errors
/// Those of the database.
pub async fn stands(db: &Db, tenant: TenantId, wait: bool) -> Result<Stream, DbError> {
    match if wait { log::make_durable(db, tenant).await.map(Some) } else { Ok(None) } {
        Ok(Some(stream)) => return Ok(stream),
        Ok(None) | Err(DbError::Busy(_)) => {}
        Err(error) => return Err(error),
    }
    let mut tx = db.tenant(tenant).await?;
    let stream = log::stream(&mut tx).await?;
    tx.release();
    Ok(stream)
}

/// Some of the events after a position, up to another, ready to be sent, and the position that was reached with them.
///
/// # Errors
/// Those of the database.
pub async fn read(
    db: &Db,
    tenant: TenantId,
    (after, until): (i64, i64),
    filter: &Filter,
) -> Result<(Vec<Told>, i64), DbError> {
    let until = until.min(after.saturating_add(WINDOW));
    let mut tx = db.tenant(tenant).await?;
    let entries = log::read(&mut tx, (after, until), filter, AT_ONCE).await?;
    let envelopes = envelope::envelopes(&mut tx, &entries, Include::Summary).await?;
    tx.release();
    let reached = entries.last().filter(|_| entries.len() == AT_ONCE).map_or(until, |last| last.position);
    let told = entries.into_iter().zip(&envelopes).map(|(entry, envelope)| Told::new(entry, envelope));
    Ok((told.collect(), reached))
}
