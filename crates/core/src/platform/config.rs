//! Settings: read once at the start from the environment, checked, and handed on as typed values.
//!
//! Every secret may be given as `NAME` or as `NAME_FILE` (a path); both at once is an error, and so is a secret that is
//! too short or the sample value. The next setting: a field here, a line in `.env.example`, a line in compose; the
//! unit test below compares the first two.

mod source;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use source::Source;

use ipnet::IpNet;
use wire::secret::Secret;

/// A shorter lease would be lost to a commit that takes its time.
const SHORTEST_LEASE: Duration = Duration::from_secs(3);

/// Why the settings cannot be used; each line names the setting and the way out.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigError(pub Vec<String>);

/// Where logs go.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// `LOG_LEVEL`: a level or a tracing filter.
    pub level: String,
    /// `LOG_FILE`: written beside standard output.
    pub file: Option<PathBuf>,
}

/// Whether a program signs tokens and opens sealed passwords.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    /// It does: `JWT_SECRET` and `ENCRYPTION_KEY` must be there.
    Needed,
    /// It does not, so it need not be given them; they are empty then.
    Spared,
}

/// Requests allowed to a tenant that has no limits of its own.
#[derive(Debug, Clone, Copy)]
pub struct RateLimitConfig {
    /// `RATE_LIMIT_ENABLED`: the tenants' limits; those of log-ins always hold.
    pub enabled: bool,
    /// `RATE_LIMIT_REQUESTS_PER_MINUTE`; 0 is unlimited.
    pub per_minute: u32,
    /// `RATE_LIMIT_REQUESTS_PER_HOUR`; 0 is unlimited.
    pub per_hour: u32,
    /// `RATE_LIMIT_LOGIN_PER_MINUTE`: log-in attempts of one client, and half of that of one client for one user; at least 1.
    pub login_per_minute: u32,
}

/// What retention is counted in.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// All settings of the services.
#[derive(Debug, Clone)]
pub struct Config {
    /// `DATABASE_URL`: PostgreSQL as the role `emailclient_app`.
    pub database_url: Secret,
    /// `DATABASE_SYSTEM_URL`: PostgreSQL as the role `emailclient_system`.
    pub database_system_url: Secret,
    /// `DATABASE_MAX_CONNECTIONS` of one process.
    pub database_max_connections: u32,
    /// `REDIS_URL`.
    pub redis_url: Secret,
    /// `JWT_SECRET`: at least 32 bytes. Empty in a program that is spared the keys.
    pub jwt_secret: Secret,
    /// `ENCRYPTION_KEY`: 32 bytes in base64. Empty in a program that is spared the keys.
    pub encryption_key: Secret,
    /// `ENCRYPTION_KEYS_OLD`: earlier keys, separated by commas.
    pub encryption_keys_old: Vec<Secret>,
    /// `CORS_ORIGINS`: exact origins, separated by commas; empty switches CORS off.
    pub cors_origins: Vec<String>,
    /// Logs.
    pub log: LogConfig,
    /// `METRICS_LISTEN`.
    pub metrics_listen: MetricsListen,
    /// `HEARTBEAT_DIR`: worker and scheduler keep a file there that `emailctl healthcheck` reads.
    pub heartbeat_dir: Option<PathBuf>,
    /// Limits.
    pub rate_limit: RateLimitConfig,
    /// `TENANT_ID_HEADER`.
    pub tenant_id_header: String,
    /// `DEFAULT_TENANT_ID`: slug or id used when a request names none.
    pub default_tenant_id: Option<String>,
    /// `API_BODY_TIMEOUT_SECONDS`: for a whole body, and for an upload from one piece to the next.
    pub api_body_timeout: Duration,
    /// `API_LISTEN`: address and port.
    pub api_listen: String,
    /// `API_TRUSTED_PROXIES`: addresses whose X-Forwarded-For is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// `OUTBOUND_ALLOW`: hosts and networks that may be dialled though private.
    pub outbound_allow: String,
    /// `DNS_SERVERS`: asked instead of the system's, `address` or `address:port`.
    pub dns_servers: Vec<SocketAddr>,
    /// `TLS_EXTRA_CA_FILE`: files of certificates trusted beside the system's, by commas.
    pub tls_extra_ca_files: Vec<PathBuf>,
    /// `IMAP_ENABLED`: the worker synchronises accounts.
    pub imap_enabled: bool,
    /// `IMAP_IDLE_ENABLED`: the worker watches INBOX.
    pub imap_idle_enabled: bool,
    /// `IMAP_COMMAND_TIMEOUT_SECONDS`.
    pub imap_command_timeout: Duration,
    /// `IMAP_CONNECTS_PER_SECOND` of one process, SMTP included; one who waits for a user does not stand in line.
    pub imap_connects_per_second: u32,
    /// `IMAP_CONNECTS_PER_HOST_PER_SECOND` of one process, SMTP included.
    pub imap_connects_per_host_per_second: u32,
    /// `SMTP_ENABLED`: the worker sends mail.
    pub smtp_enabled: bool,
    /// `SMTP_COMMAND_TIMEOUT_SECONDS`.
    pub smtp_command_timeout: Duration,
    /// `SMTP_HELO_NAME`: the name in EHLO.
    pub smtp_helo_name: String,
    /// `WORKER_ENABLED`: the worker takes jobs.
    pub worker_enabled: bool,
    /// `WORKER_CONCURRENCY`: how much is parsed and stored in bulk at once. Jobs that wait for servers are eight times as many.
    pub worker_concurrency: usize,
    /// `WORKER_LEASE_SECONDS`: after this time without a sign of life a worker's jobs and accounts go to others.
    pub worker_lease: Duration,
    /// `SYNC_INTERVAL_SECONDS` between two rounds of an account.
    pub sync_interval: Duration,
    /// `PARSE_ENABLED`: bodies are parsed for text and attachments.
    pub parse_enabled: bool,
    /// `PARSE_INDEX_TEXT`: text is indexed for the search.
    pub parse_index_text: bool,
    /// `MESSAGE_MAX_BYTES`: larger messages are refused.
    pub message_max_bytes: usize,
    /// `PUBLIC_URL`: where browsers reach the API, without a slash at the end. Providers send people back there.
    pub public_url: Option<String>,
    /// `OAUTH_APPS_FILE`: OAuth2 apps that every tenant may use.
    pub oauth_apps_file: Option<PathBuf>,
    /// `EVENT_RETENTION_DAYS`: how far the event log reaches back, 1 to 3650.
    pub event_retention: Duration,
}

/// Where metrics are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricsListen {
    /// On the loopback network, at the usual port of the service.
    Usual,
    /// Nowhere.
    Off,
    /// There.
    At(SocketAddr),
}

impl Config {
    /// The files of [`Config::tls_extra_ca_files`].
    pub fn extra_authorities(&self) -> impl Iterator<Item = &Path> {
        self.tls_extra_ca_files.iter().map(PathBuf::as_path)
    }

    /// From this process's environment.
    ///
    /// # Errors
    /// All that is missing or malformed, at once.
    pub fn from_env(keys: Keys) -> Result<Self, ConfigError> {
        Self::from_source_for(&Source::from_env(), keys)
    }

    /// From any source of names and values.
    ///
    /// # Errors
    /// All that is missing or malformed, at once.
    pub fn from_source(s: &Source) -> Result<Self, ConfigError> {
        Self::from_source_for(s, Keys::Needed)
    }

    /// The same for a program that may be spared the keys.
    ///
    /// # Errors
    /// All that is missing or malformed, at once.
    pub fn from_source_for(s: &Source, keys: Keys) -> Result<Self, ConfigError> {
        let config = Self::read_with(s, keys);
        s.finish()?;
        Ok(config)
    }

    /// As [`Config::from_source`], and what cannot be used stands at its default or is empty; [`Source::finish`] has
    /// the complaints. For `emailctl check`, which looks at the rest all the same.
    #[must_use]
    pub fn read(s: &Source) -> Self {
        Self::read_with(s, Keys::Needed)
    }

    fn read_with(s: &Source, keys: Keys) -> Self {
        Self {
            database_url: s.secret("DATABASE_URL", 1),
            database_system_url: s.secret("DATABASE_SYSTEM_URL", 1),
            database_max_connections: s.parse("DATABASE_MAX_CONNECTIONS", 20),
            redis_url: s.secret("REDIS_URL", 1),
            jwt_secret: s.key("JWT_SECRET", keys),
            encryption_key: s.key("ENCRYPTION_KEY", keys),
            encryption_keys_old: s
                .optional_secret("ENCRYPTION_KEYS_OLD")
                .map(|keys| {
                    keys.expose().split(',').filter(|k| !k.trim().is_empty()).map(Secret::new).collect()
                })
                .unwrap_or_default(),
            cors_origins: s.origins("CORS_ORIGINS"),
            log: LogConfig {
                level: s.get("LOG_LEVEL").unwrap_or_else(|| "info".into()),
                file: s.get("LOG_FILE").map(PathBuf::from),
            },
            metrics_listen: s.metrics_listen("METRICS_LISTEN"),
            heartbeat_dir: s.get("HEARTBEAT_DIR").map(PathBuf::from),
            rate_limit: RateLimitConfig {
                enabled: s.parse("RATE_LIMIT_ENABLED", true),
                per_minute: s.parse("RATE_LIMIT_REQUESTS_PER_MINUTE", 60),
                per_hour: s.parse("RATE_LIMIT_REQUESTS_PER_HOUR", 1000),
                login_per_minute: s.at_least_one("RATE_LIMIT_LOGIN_PER_MINUTE", 10),
            },
            tenant_id_header: s.get("TENANT_ID_HEADER").unwrap_or_else(|| "X-Tenant-ID".into()),
            default_tenant_id: s.get("DEFAULT_TENANT_ID"),
            api_body_timeout: s.seconds("API_BODY_TIMEOUT_SECONDS", 30),
            api_listen: s.get("API_LISTEN").unwrap_or_else(|| "0.0.0.0:5000".into()),
            trusted_proxies: s.networks("API_TRUSTED_PROXIES"),
            outbound_allow: s.get("OUTBOUND_ALLOW").unwrap_or_default(),
            dns_servers: s.dns_servers("DNS_SERVERS"),
            tls_extra_ca_files: s.list("TLS_EXTRA_CA_FILE").into_iter().map(PathBuf::from).collect(),
            imap_enabled: s.parse("IMAP_ENABLED", true),
            imap_idle_enabled: s.parse("IMAP_IDLE_ENABLED", true),
            imap_command_timeout: s.seconds("IMAP_COMMAND_TIMEOUT_SECONDS", 60),
            imap_connects_per_second: s.at_least_one("IMAP_CONNECTS_PER_SECOND", 50),
            imap_connects_per_host_per_second: s.at_least_one("IMAP_CONNECTS_PER_HOST_PER_SECOND", 5),
            smtp_enabled: s.parse("SMTP_ENABLED", true),
            smtp_command_timeout: s.seconds("SMTP_COMMAND_TIMEOUT_SECONDS", 60),
            smtp_helo_name: s.get("SMTP_HELO_NAME").unwrap_or_else(|| "localhost".into()),
            worker_enabled: s.parse("WORKER_ENABLED", true),
            worker_concurrency: s.parse("WORKER_CONCURRENCY", 4usize).clamp(1, 256),
            worker_lease: s.seconds("WORKER_LEASE_SECONDS", 30).max(SHORTEST_LEASE),
            sync_interval: s.seconds("SYNC_INTERVAL_SECONDS", 300),
            parse_enabled: s.parse("PARSE_ENABLED", true),
            parse_index_text: s.parse("PARSE_INDEX_TEXT", true),
            message_max_bytes: s.parse("MESSAGE_MAX_BYTES", 50 * 1024 * 1024),
            public_url: s.web_address("PUBLIC_URL"),
            oauth_apps_file: s.get("OAUTH_APPS_FILE").map(PathBuf::from),
            event_retention: DAY * s.parse("EVENT_RETENTION_DAYS", 30u32).clamp(1, 3650),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn good() -> BTreeMap<String, String> {
        [
            ("DATABASE_URL", "postgres://a"),
            ("DATABASE_SYSTEM_URL", "postgres://b"),
            ("REDIS_URL", "redis://c"),
            ("JWT_SECRET", "0123456789abcdef0123456789abcdef"),
            ("ENCRYPTION_KEY", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into()
    }

    #[test]
    fn every_setting_is_in_the_example_file_and_no_other() {
        let source = Source::new(good());
        Config::from_source(&source).unwrap();
        let mut asked = source.asked.lock().unwrap().clone();
        // These two are read by `emailctl` alone.
        asked.extend(["DATABASE_OWNER_URL".into(), "DOVECOT_PASSWD_FILE".into()]);
        let example = include_str!("../../../../.env.example");
        let documented: BTreeSet<String> = example
            .lines()
            .map(|line| line.trim_start_matches("# ").trim_start_matches('#'))
            .filter_map(|line| line.split_once('='))
            .map(|(name, _)| name.trim().to_owned())
            .filter(|name| !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
            .collect();
        assert_eq!(asked, documented);
    }

    #[test]
    fn weak_missing_and_doubled_secrets_are_all_named_at_once() {
        let mut values = good();
        values.insert("JWT_SECRET".into(), "short".into());
        values.insert("ENCRYPTION_KEY".into(), "change-me-change-me-change-me-change-me".into());
        values.remove("REDIS_URL");
        values.insert("DATABASE_URL_FILE".into(), "/nonexistent".into());
        let text = Config::from_source(&Source::new(values)).unwrap_err().to_string();
        for name in ["JWT_SECRET", "ENCRYPTION_KEY", "REDIS_URL", "DATABASE_URL_FILE"] {
            assert!(text.contains(name), "{name} is not named in {text}");
        }
    }

    #[test]
    fn the_limit_of_log_ins_cannot_be_lifted_and_origins_are_exact() {
        for (name, value) in [
            ("RATE_LIMIT_LOGIN_PER_MINUTE", "0"),
            ("CORS_ORIGINS", "*"),
            ("CORS_ORIGINS", "https://app.example.com, https://App.example.com"),
            ("CORS_ORIGINS", "https://app.example.com/"),
            ("CORS_ORIGINS", "app.example.com"),
            ("CORS_ORIGINS", "null"),
        ] {
            let mut values = good();
            values.insert(name.into(), value.into());
            let text = Config::from_source(&Source::new(values)).unwrap_err().to_string();
            assert!(text.starts_with(name), "{name}={value}: {text}");
        }
        let mut values = good();
        values.insert("CORS_ORIGINS".into(), "https://app.example.com,http://[::1]:3000".into());
        assert_eq!(Config::from_source(&Source::new(values)).unwrap().cors_origins.len(), 2);
    }

    #[test]
    fn name_servers_are_addresses_with_or_without_a_port() {
        let read = |text: &str| {
            let mut values = good();
            values.insert("DNS_SERVERS".into(), text.into());
            let config = Config::from_source(&Source::new(values));
            config.map(|c| c.dns_servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        };
        for (text, servers) in [
            ("", ""),
            (" , ", ""),
            ("192.0.2.1", "192.0.2.1:53"),
            ("192.0.2.1:5353", "192.0.2.1:5353"),
            ("2001:db8::1", "[2001:db8::1]:53"),
            ("[2001:db8::1]", "[2001:db8::1]:53"),
            ("[2001:db8::1]:5353", "[2001:db8::1]:5353"),
            (" 192.0.2.1 ,[::1]:54,", "192.0.2.1:53 [::1]:54"),
        ] {
            assert_eq!(read(text).unwrap(), servers, "{text:?}");
        }
        for text in [
            "dns.example.com",
            "192.0.2",
            "192.0.2.256",
            "192.0.2.1:",
            "192.0.2.1:0",
            "192.0.2.1:65536",
            "192.0.2.1:domain",
            "192.0.2.1 192.0.2.2",
            "[192.0.2.1]",
            "[2001:db8::1",
            "2001:db8::1]",
            "[[2001:db8::1]]",
            "[2001:db8::1]:",
            "[2001:db8::1]:0",
            "udp://192.0.2.1",
            "192.0.2.1,nonsense",
        ] {
            let text = read(text).map_err(|e| e.to_string());
            assert!(text.as_ref().is_err_and(|e| e.starts_with("DNS_SERVERS: ")), "{text:?}");
        }
    }

    #[test]
    fn a_secret_of_a_few_repeated_characters_is_weak() {
        let mut values = good();
        values.insert("JWT_SECRET".into(), "abcabcabcabcabcabcabcabcabcabcabcabc".into());
        let text = Config::from_source(&Source::new(values)).unwrap_err().to_string();
        assert!(text.starts_with("JWT_SECRET: weak"), "{text}");
    }
}
