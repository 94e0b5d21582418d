//! What every job is given: the process, and what only a worker has.

use std::sync::Arc;

use emailclient_core::connect::Process;
use emailclient_core::platform::config::Config;
use emailclient_core::platform::db::Db;
use emailclient_core::platform::id::new_uuid;
use emailclient_core::sync::driver::{
    FRESH_MEMORY_BYTES, LARGE_MEMORY_BYTES, MEMORY_BYTES, TOLD_MEMORY_BYTES,
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use wire::imap::{MemoryBudget, Rooms};
use wire::pace::Haste;

/// The same as a round of synchronisation needs; cheap to clone.
pub use emailclient_core::sync::driver::SyncContext as Environment;

/// Makes the environment of this process, under an id that is new at every start.
///
/// # Errors
/// When an address, a key, the outbound list or a certificate file cannot be read.
pub fn new(config: Config, shutdown: CancellationToken) -> anyhow::Result<Environment> {
    let work = Arc::new(Semaphore::new(config.worker_concurrency));
    let db = Db::new(&config)?;
    Ok(Environment {
        process: Process::new(config, db)?,
        work,
        haste: Haste::Round,
        worker_id: new_uuid(),
        memory: MemoryBudget::new(MEMORY_BYTES).and_large(LARGE_MEMORY_BYTES),
        fresh_memory: MemoryBudget::new(FRESH_MEMORY_BYTES).and_large(LARGE_MEMORY_BYTES),
        rooms: Rooms::new(TOLD_MEMORY_BYTES),
        shutdown,
    })
}
