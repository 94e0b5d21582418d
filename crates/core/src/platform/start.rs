//! How a service starts on good ground, and how a program says why it does not.
//!
//! What an operator reads is one line a fault on standard error: the program, the setting, what is wrong, how to mend
//! it. The exit status says whether a restart may help: 78 (EX_CONFIG of sysexits.h) when a person must change
//! something, 69 (EX_UNAVAILABLE) when PostgreSQL does not answer, 1 for the rest.

use std::io::Write as _;
use std::process::ExitCode;

use tokio_util::sync::CancellationToken;

use crate::platform::config::{Config, ConfigError, Keys};
use crate::platform::db::inspect::{Look, Unreachable};
use crate::platform::db::migrate::Refusal;
use crate::platform::heartbeat::HeartbeatError;
use crate::platform::metrics;
use crate::platform::redis_pool::eviction;
use crate::platform::seal::Keyring;
use crate::platform::signal;
use crate::platform::telemetry::{self, LogError};
use wire::dial::OutboundPolicy;
use wire::secret::Secret;
use wire::tls::{self, TlsConfig};

/// Exit status: a person must mend the settings, or what they name.
pub const EX_CONFIG: u8 = 78;
/// Exit status: the database does not answer; the same start may succeed later.
pub const EX_UNAVAILABLE: u8 = 69;

/// Runs the service `program` from its settings in the environment to its exit status: writes its logs as they say,
/// refuses to start on bad ground ([`verify`]), and tells `serve` by the token when SIGTERM or SIGINT asks it to end.
pub async fn service(
    program: &str,
    keys: Keys,
    serve: impl AsyncFnOnce(Config, CancellationToken) -> anyhow::Result<()>,
) -> ExitCode {
    let run = async || {
        let config = Config::from_env(keys)?;
        telemetry::init(&config.log)?;
        tls::install_provider();
        verify(&config).await?;
        let shutdown = CancellationToken::new();
        signal::cancel_on_stop(shutdown.clone())?;
        metrics::start(&config, usual_metrics_port(program), &shutdown)
            .await
            .map_err(|error| StartError::Mend(error.to_string()))?;
        serve(config, shutdown).await
    };
    exit(program, run().await)
}

/// Where metrics of a service are served on its own machine, unless a setting says otherwise. 9464 is the port of
/// Prometheus exporters of OpenTelemetry.
fn usual_metrics_port(program: &str) -> u16 {
    match program {
        "emailclient-worker" => 9465,
        "emailclient-scheduler" => 9466,
        _ => 9464,
    }
}

/// The roles a service connects as: the setting that holds the address, the role, the address.
#[must_use]
pub fn roles(config: &Config) -> [(&'static str, &'static str, &Secret); 2] {
    [
        ("DATABASE_URL", "emailclient_app", &config.database_url),
        ("DATABASE_SYSTEM_URL", "emailclient_system", &config.database_system_url),
    ]
}

/// Why a program does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A person must mend this; each line names the setting and the way out.
    #[error("{0}")]
    Mend(String),
    /// This may pass by itself.
    #[error("{0}")]
    Unavailable(String),
}

impl StartError {
    /// `error` is the fault of `setting`.
    pub fn setting(setting: &str, error: impl std::fmt::Display) -> Self {
        Self::Mend(format!("{setting}: {error}"))
    }
}

impl From<ConfigError> for StartError {
    fn from(error: ConfigError) -> Self {
        Self::Mend(error.to_string())
    }
}

impl From<HeartbeatError> for StartError {
    fn from(error: HeartbeatError) -> Self {
        Self::Mend(error.to_string())
    }
}

/// Looks at everything a service needs before it takes work: keys, lists and files of the settings, the database as both
/// roles, its schema and its wall, and the eviction policy of Redis.
///
/// A Redis that does not answer is no reason to refuse: it may be gone at any moment while we run as well. One that
/// answers and would throw counters away, or refuses the log-in, stays wrong until somebody mends it.
///
/// # Errors
/// [`StartError`] with the first fault, secrets masked.
pub async fn verify(config: &Config) -> Result<(), StartError> {
    // Without one the program is spared it.
    if !config.encryption_key.is_empty() {
        Keyring::new(&config.encryption_key, &config.encryption_keys_old)
            .map_err(|e| StartError::setting("ENCRYPTION_KEY, ENCRYPTION_KEYS_OLD", e))?;
    }
    OutboundPolicy::parse(&config.outbound_allow).map_err(|e| StartError::setting("OUTBOUND_ALLOW", e))?;
    TlsConfig::new(config.extra_authorities()).map_err(|e| StartError::setting("TLS_EXTRA_CA_FILE", e))?;
    verify_database(config).await?;
    redis(&config.redis_url).await
}

/// Looks at the database as both roles: can it be reached, is its schema ours, could the role pass the wall.
///
/// # Errors
/// [`StartError`] with the first fault, secrets masked.
pub async fn verify_database(config: &Config) -> Result<(), StartError> {
    for (setting, role, url) in roles(config) {
        database(setting, role, url).await?;
    }
    Ok(())
}

async fn database(setting: &str, role: &'static str, url: &Secret) -> Result<(), StartError> {
    let mut look = Look::open(url).await.map_err(|e| unreachable(setting, url, &e))?;
    let verdict = match look.schema().await {
        Ok(()) => look.role(role).await,
        refused => refused,
    };
    look.close().await;
    verdict.map_err(|refusal| match refusal {
        Refusal::Db(error) => StartError::Unavailable(format!("{setting}: {:#}", anyhow::Error::from(error))),
        refusal => StartError::setting(setting, refusal),
    })
}

/// What to say of the address in `setting` that led to no connection.
#[must_use]
pub fn unreachable(setting: &str, url: &Secret, error: &Unreachable) -> StartError {
    match error {
        Unreachable::Address(_) => StartError::setting(setting, format!("{} {error}", url.masked_address())),
        error if error.may_pass() => StartError::Unavailable(format!("{setting}: {error}")),
        error => StartError::setting(setting, error),
    }
}

async fn redis(url: &Secret) -> Result<(), StartError> {
    match eviction::policy(url).await {
        Ok(Some(policy)) if policy == eviction::WANTED => Ok(()),
        Ok(Some(policy)) => Err(StartError::setting("REDIS_URL", evicts(url, &policy))),
        Ok(None) => {
            tracing::warn!(
                "Redis tells its eviction policy neither by CONFIG GET nor by INFO; make sure that it is noeviction"
            );
            Ok(())
        }
        Err(trouble) if trouble.may_pass() => {
            tracing::warn!(error = %trouble, "Redis does not answer; limits are kept in this process until it does");
            Ok(())
        }
        Err(trouble) => Err(StartError::setting("REDIS_URL", format!("{}: {trouble}", url.masked_address()))),
    }
}

/// The sentence about a Redis at `url` that evicts.
#[must_use]
pub fn evicts(url: &Secret, policy: &str) -> String {
    format!(
        "the Redis at {} throws keys away when it is full (maxmemory-policy is {policy}), and the counters of the request \
         limits with them; set `maxmemory-policy noeviction` in its configuration, or at once by \
         `redis-cli CONFIG SET maxmemory-policy noeviction`",
        url.masked_address()
    )
}

/// The status to end `program` with. A failure is written to standard error, each line of it behind the program's name.
#[must_use]
pub fn exit(program: &str, ended: Result<(), anyhow::Error>) -> ExitCode {
    let Err(error) = ended else { return ExitCode::SUCCESS };
    let mut out = std::io::stderr().lock();
    for line in format!("{error:#}").lines() {
        // Nobody is left to tell when standard error is closed.
        let _ = writeln!(out, "{program}: {line}");
    }
    ExitCode::from(status(&error))
}

fn status(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        if let Some(start) = cause.downcast_ref::<StartError>() {
            return match start {
                StartError::Mend(_) => EX_CONFIG,
                StartError::Unavailable(_) => EX_UNAVAILABLE,
            };
        }
        if cause.is::<ConfigError>() || cause.is::<HeartbeatError>() || cause.is::<LogError>() {
            return EX_CONFIG;
        }
    }
    1
}
