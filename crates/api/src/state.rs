//! What every handler shares, built once at the start.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use deadpool_redis::Pool;
use emailclient_core::access::token::TokenKey;
use emailclient_core::platform::budget::{Budget, Turns};
use emailclient_core::platform::clock::{SharedClock, SystemClock};
use emailclient_core::platform::config::Config;
use emailclient_core::platform::db::Db;
use emailclient_core::platform::db::writes::Writes;
use emailclient_core::platform::redis_pool;
use emailclient_core::platform::seal::Keyring;
use wire::dial::{Outbound, OutboundPolicy};
use wire::dns::Dns;
use wire::tls::TlsConfig;

use crate::known::{Known, Places};
use crate::ratelimit::Limiter;

/// Bytes in work, of all requests together. A source of 50 MB, which goes alone, takes twice its size.
const WORK_BYTES: usize = 48 * 1024 * 1024;
/// Bytes on their way from and to clients.
const LINES_BYTES: usize = 48 * 1024 * 1024;

/// Shared by all requests; cheap to clone.
#[derive(Debug, Clone)]
pub struct AppState {
    /// The database.
    pub db: Db,
    /// Redis; may be away at any time.
    pub redis: Pool,
    /// Settings.
    pub config: Arc<Config>,
    /// The time.
    pub clock: SharedClock,
    /// Keys for the passwords of mail accounts.
    pub keyring: Arc<Keyring>,
    /// The way out to mail servers.
    pub outbound: Arc<Outbound>,
    /// Records of the DNS.
    pub dns: Dns,
    /// TLS towards mail servers.
    pub tls: TlsConfig,
    /// Access tokens.
    pub tokens: Arc<TokenKey>,
    /// Request limits.
    pub limiter: Arc<Limiter>,
    /// Bytes that we are at work with, such as a source that is parsed: for seconds.
    pub memory: Budget,
    /// Bytes that are in hand for as long as a client likes: bodies that arrive, answers that are taken slowly. What we are at
    /// work with would wait for all of them, if both were one.
    pub lines: Budget,
    /// Where attachments lie in their sources.
    pub places: Arc<Places>,
    /// Who may change which draft, mailbox or account now.
    pub turns: Arc<Turns>,
    /// Tenants and sessions seen within the last seconds.
    pub known: Arc<Known>,
    /// Whether the database takes writes.
    pub writes: Arc<Writes>,
    draining: Arc<AtomicBool>,
}

impl AppState {
    /// Builds everything from the settings, without connecting to anything.
    ///
    /// # Errors
    /// When a setting cannot be used: an address, a key, the list of allowed hosts, the extra authorities.
    pub fn new(config: Config) -> anyhow::Result<Self> {
        let redis = redis_pool::connect(&config.redis_url)?;
        let dns = Dns::new(&config.dns_servers);
        Ok(Self {
            db: Db::for_requests(&config)?,
            limiter: Arc::new(Limiter::new(redis.clone())),
            redis,
            clock: Arc::new(SystemClock),
            keyring: Arc::new(Keyring::new(&config.encryption_key, &config.encryption_keys_old)?),
            outbound: Arc::new(Outbound::with_dns(OutboundPolicy::parse(&config.outbound_allow)?, &dns)),
            dns,
            tls: TlsConfig::new(config.extra_authorities())?,
            tokens: Arc::new(TokenKey::new(&config.jwt_secret)),
            memory: Budget::new(WORK_BYTES),
            lines: Budget::new(LINES_BYTES),
            turns: Arc::default(),
            places: Arc::default(),
            known: Arc::new(Known::default()),
            writes: Arc::default(),
            draining: Arc::default(),
            config: Arc::new(config),
        })
    }

    /// From now on the service calls itself not ready.
    pub fn start_draining(&self) {
        self.draining.store(true, Ordering::SeqCst);
    }

    /// True once the shutdown began.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }
}
