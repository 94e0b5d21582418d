//! What every job is given: the database, settings, time, keys and the ways out of this process.

use std::sync::Arc;

use emailclient_core::platform::clock::SystemClock;
use emailclient_core::platform::config::Config;
use emailclient_core::platform::db::Db;
use emailclient_core::platform::id::new_uuid;
use emailclient_core::platform::seal::Keyring;
use emailclient_core::sync::driver::{
    FRESH_MEMORY_BYTES, LARGE_MEMORY_BYTES, MEMORY_BYTES, TOLD_MEMORY_BYTES,
};
use emailclient_core::sync::give_way::GiveWay;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use wire::dial::{Outbound, OutboundPolicy};
use wire::dns::Dns;
use wire::imap::{Haste, MemoryBudget, Pace, Rooms};
use wire::tls::TlsConfig;

/// The same as a round of synchronisation needs; cheap to clone.
pub use emailclient_core::sync::driver::SyncContext as Environment;

/// Makes the environment of this process, under an id that is new at every start.
///
/// # Errors
/// When an address, a key, the outbound list or a certificate file cannot be read.
pub fn new(config: Config, shutdown: CancellationToken) -> anyhow::Result<Environment> {
    Ok(Environment {
        db: Db::new(&config)?,
        clock: Arc::new(SystemClock),
        keyring: Arc::new(Keyring::new(&config.encryption_key, &config.encryption_keys_old)?),
        outbound: Arc::new(Outbound::with_dns(
            OutboundPolicy::parse(&config.outbound_allow)?,
            &Dns::new(&config.dns_servers),
        )),
        tls: TlsConfig::new(config.extra_authorities())?,
        pace: Pace::new(config.imap_connects_per_second, config.imap_connects_per_host_per_second),
        work: Arc::new(Semaphore::new(config.worker_concurrency)),
        give_way: GiveWay::default(),
        haste: Haste::Round,
        config: Arc::new(config),
        worker_id: new_uuid(),
        memory: MemoryBudget::new(MEMORY_BYTES).and_large(LARGE_MEMORY_BYTES),
        fresh_memory: MemoryBudget::new(FRESH_MEMORY_BYTES).and_large(LARGE_MEMORY_BYTES),
        rooms: Rooms::new(TOLD_MEMORY_BYTES),
        shutdown,
    })
}
