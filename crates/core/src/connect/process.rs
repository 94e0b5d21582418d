//! What a process has once, and all of its work shares. The API and the worker build it, and add what is theirs alone.

use std::sync::Arc;

use wire::dial::{Outbound, OutboundPolicy};
use wire::dns::Dns;
use wire::pace::Pace;
use wire::tls::TlsConfig;

use super::give_way::GiveWay;
use crate::domain::oauth::app::Shared;
use crate::platform::clock::{SharedClock, SystemClock};
use crate::platform::config::Config;
use crate::platform::db::Db;
use crate::platform::seal::Keyring;
use crate::platform::start::StartError;

/// Settings and everything that is made of them; cheap to clone.
#[derive(Clone, Debug)]
pub struct Process {
    /// Settings.
    pub config: Arc<Config>,
    /// The database.
    pub db: Db,
    /// Time and jitter.
    pub clock: SharedClock,
    /// Keys for the passwords of mail accounts.
    pub keyring: Arc<Keyring>,
    /// Records of the DNS.
    pub dns: Dns,
    /// The one way out.
    pub outbound: Arc<Outbound>,
    /// Trust for TLS.
    pub tls: TlsConfig,
    /// How fast connections to mail servers are made.
    pub pace: Pace,
    /// OAuth2 apps of the deployment.
    pub oauth_apps: Arc<Shared>,
    /// The watches of this process, which end their connection where a server allows one alone.
    pub give_way: GiveWay,
}

impl Process {
    /// Builds everything from the settings, without connecting to anything. `db` is made of the same settings: how long its
    /// statements wait for a locked row depends on who waits for them.
    ///
    /// # Errors
    /// [`StartError::Mend`] with the setting that cannot be used.
    pub fn new(config: Config, db: Db) -> Result<Self, StartError> {
        let keyring = Keyring::new(&config.encryption_key, &config.encryption_keys_old)
            .map_err(|e| StartError::setting("ENCRYPTION_KEY, ENCRYPTION_KEYS_OLD", e))?;
        let policy = OutboundPolicy::parse(&config.outbound_allow)
            .map_err(|e| StartError::setting("OUTBOUND_ALLOW", e))?;
        let tls = TlsConfig::new(config.extra_authorities())
            .map_err(|e| StartError::setting("TLS_EXTRA_CA_FILE", e))?;
        let dns = Dns::new(&config.dns_servers);
        Ok(Self {
            db,
            clock: Arc::new(SystemClock),
            keyring: Arc::new(keyring),
            outbound: Arc::new(Outbound::with_dns(policy, &dns)),
            dns,
            tls,
            oauth_apps: Arc::new(match &config.oauth_apps_file {
                Some(file) => Shared::read(file).map_err(|e| StartError::setting("OAUTH_APPS_FILE", e))?,
                None => Shared::default(),
            }),
            pace: Pace::new(config.imap_connects_per_second, config.imap_connects_per_host_per_second),
            give_way: GiveWay::default(),
            config: Arc::new(config),
        })
    }
}
