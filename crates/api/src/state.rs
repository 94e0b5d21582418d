//! What every handler shares, built once at the start.

use std::ops::Deref;
use std::sync::Arc;

use deadpool_redis::Pool;
use emailclient_core::access::token::TokenKey;
use emailclient_core::connect::Process;
use emailclient_core::platform::budget::{Budget, Turns};
use emailclient_core::platform::config::Config;
use emailclient_core::platform::db::Db;
use emailclient_core::platform::db::writes::Writes;
use emailclient_core::platform::redis_pool;
use tokio_util::sync::CancellationToken;

use crate::hub::Hub;
use crate::known::{Known, Places};
use crate::ratelimit::Limiter;
use crate::refusals::Refusals;

/// Bytes in work, of all requests together. A source of 50 MB, which goes alone, takes twice its size.
const WORK_BYTES: usize = 48 * 1024 * 1024;
/// Bytes on their way from and to clients.
const LINES_BYTES: usize = 48 * 1024 * 1024;

/// Shared by all requests; cheap to clone.
#[derive(Debug, Clone)]
pub struct AppState {
    /// What the process has once: settings, database, time, keys, the way out.
    pub process: Process,
    /// Redis; may be away at any time.
    pub redis: Pool,
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
    /// What was refused and belongs into the audit trail.
    pub refusals: Arc<Refusals>,
    /// Whether the database takes writes.
    pub writes: Arc<Writes>,
    /// Who reads the event log for open streams.
    pub hub: Arc<Hub>,
    draining: CancellationToken,
}

impl Deref for AppState {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl AppState {
    /// Builds everything from the settings, without connecting to anything.
    ///
    /// # Errors
    /// When a setting cannot be used: an address, a key, the list of allowed hosts, the extra authorities.
    pub fn new(config: Config) -> anyhow::Result<Self> {
        let redis = redis_pool::connect(&config.redis_url)?;
        let tokens = Arc::new(TokenKey::new(&config.jwt_secret));
        let db = Db::for_requests(&config)?;
        Ok(Self {
            process: Process::new(config, db)?,
            limiter: Arc::new(Limiter::new(redis.clone())),
            redis,
            tokens,
            memory: Budget::new(WORK_BYTES),
            lines: Budget::new(LINES_BYTES),
            turns: Arc::default(),
            places: Arc::default(),
            known: Arc::new(Known::default()),
            refusals: Arc::default(),
            writes: Arc::default(),
            hub: Arc::default(),
            draining: CancellationToken::new(),
        })
    }

    /// From now on the service calls itself not ready.
    pub fn start_draining(&self) {
        self.draining.cancel();
    }

    /// True once the shutdown began.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Waits until the shutdown begins: what has no end of its own ends then.
    pub async fn drained(&self) {
        self.draining.cancelled().await;
    }
}
