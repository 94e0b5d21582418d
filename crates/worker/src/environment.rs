//! What every job is given.

use std::sync::Arc;

use emailclient_core::clock::{SharedClock, SystemClock};
use emailclient_core::config::Config;
use emailclient_core::db::Db;
use emailclient_core::dial::{Outbound, OutboundPolicy};
use emailclient_core::id::new_uuid;
use emailclient_core::imap::MemoryBudget;
use emailclient_core::imap::execute::{MEMORY_BYTES, SyncContext};
use emailclient_core::seal::Keyring;
use emailclient_core::tls::TlsConfig;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The outside world as a job may touch it.
#[derive(Clone, Debug)]
pub struct Environment {
    /// The database.
    pub db: Db,
    /// Settings.
    pub config: Arc<Config>,
    /// Time.
    pub clock: SharedClock,
    /// Keys for credentials.
    pub keyring: Arc<Keyring>,
    /// The one way out.
    pub outbound: Arc<Outbound>,
    /// Trust for TLS.
    pub tls: TlsConfig,
    /// This process, in leases; new at every start.
    pub worker_id: Uuid,
    /// Fires when the process is to stop.
    pub shutdown: CancellationToken,
    /// The same for rounds of synchronisation, with the memory they share.
    pub sync: SyncContext,
}

impl Environment {
    /// From the settings.
    ///
    /// # Errors
    /// When an address, a key, the outbound list or a certificate file cannot be read.
    pub fn new(config: Config, shutdown: CancellationToken) -> anyhow::Result<Self> {
        let sync = SyncContext {
            db: Db::new(&config)?,
            clock: Arc::new(SystemClock),
            keyring: Arc::new(Keyring::new(&config.encryption_key, &config.encryption_keys_old)?),
            outbound: Arc::new(Outbound::new(OutboundPolicy::parse(&config.outbound_allow)?)),
            tls: TlsConfig::new(config.tls_extra_ca_file.as_deref())?,
            config: Arc::new(config),
            worker_id: new_uuid(),
            memory: MemoryBudget::new(MEMORY_BYTES),
            shutdown: shutdown.clone(),
        };
        Ok(Self {
            db: sync.db.clone(),
            config: sync.config.clone(),
            clock: sync.clock.clone(),
            keyring: sync.keyring.clone(),
            outbound: sync.outbound.clone(),
            tls: sync.tls.clone(),
            worker_id: sync.worker_id,
            shutdown,
            sync,
        })
    }
}
