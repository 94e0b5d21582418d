//! What is not the database: Redis, mail hosts, certificates, folders.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::Path;
use std::time::Duration;

use emailclient_core::platform::config::Config;
use emailclient_core::platform::redis_pool::eviction;
use emailclient_core::platform::start;
use wire::dial::{Deadlines, DialError, Outbound, OutboundPolicy};
use wire::secret::Secret;
use wire::tls::TlsConfig;

use super::report::Report;

/// Each step of the connection to a mail host. They are the operator's own, so near.
const PATIENCE: Duration = Duration::from_secs(3);
/// Written to see whether there is room.
const ROOM_BYTES: usize = 64 * 1024;

/// Redis answers, lets us in, and evicts nothing.
pub async fn redis(url: &Secret, report: &mut Report) {
    if url.is_empty() {
        return report.skip("Redis", "REDIS_URL is not usable");
    }
    let masked = url.masked_address();
    match eviction::policy(url).await {
        Ok(Some(policy)) if policy == eviction::WANTED => match eviction::takes_writes(url).await {
            Ok(()) => report.ok("Redis", format!("{masked}, maxmemory-policy {policy}")),
            Err(trouble) => report.fail("Redis", format!("REDIS_URL: {masked}: {trouble}")),
        },
        Ok(Some(policy)) => report.fail("Redis", format!("REDIS_URL: {}", start::evicts(url, &policy))),
        Ok(None) => report.warn(
            "Redis",
            format!("{masked} answers, and tells its maxmemory-policy neither by CONFIG GET nor by INFO"),
            "make sure in your provider's settings that it is noeviction",
        ),
        Err(trouble) => report.fail("Redis", format!("REDIS_URL: {masked}: {trouble}")),
    }
}

/// `OUTBOUND_ALLOW` can be read, and the hosts it names exist and answer.
pub async fn mail_hosts(config: &Config, report: &mut Report) {
    let policy = match OutboundPolicy::parse(&config.outbound_allow) {
        Ok(policy) => policy,
        Err(error) => {
            return report.fail(
                "mail hosts",
                format!("OUTBOUND_ALLOW: {error}; entries are host|CIDR[:port[-port]], by commas"),
            );
        }
    };
    let outbound = Outbound::new(policy.clone());
    let deadlines = Deadlines { resolve: PATIENCE, connect: PATIENCE, tls: PATIENCE, reply: PATIENCE };
    let mut answering = 0;
    for (host, port) in policy.named_hosts() {
        let (place, looked) = match port {
            Some(port) => (format!("{host}:{port}"), outbound.dial(host, port, &deadlines).await.map(drop)),
            None => (host.to_owned(), exists(host).await),
        };
        match looked {
            Ok(()) => answering += 1,
            // It may start later than we look: the services retry, and accounts show the cause.
            Err(error) => report.warn(
                "mail hosts",
                format!("OUTBOUND_ALLOW: {place}: {error}"),
                "start this server, or correct its name or port",
            ),
        }
    }
    if config.outbound_allow.trim().is_empty() {
        report.ok("mail hosts", "public ones only (OUTBOUND_ALLOW is empty)");
    } else {
        report
            .ok("mail hosts", format!("OUTBOUND_ALLOW can be read; {answering} named hosts answer or exist"));
    }
}

/// A name without one certain port is looked up only. Port 0 stands for none.
async fn exists(host: &str) -> Result<(), DialError> {
    match tokio::time::timeout(PATIENCE, tokio::net::lookup_host((host, 0))).await {
        Err(_) => Err(DialError::Timeout),
        Ok(Err(_)) => Err(DialError::HostNotFound),
        Ok(Ok(_)) => Ok(()),
    }
}

/// There are authorities to trust, and `TLS_EXTRA_CA_FILE` holds certificates.
pub fn certificates(config: &Config, report: &mut Report) {
    let files: Vec<String> = config.extra_authorities().map(|file| file.display().to_string()).collect();
    match (TlsConfig::new(config.extra_authorities()), files.is_empty()) {
        (Ok(_), true) => report.ok("certificates", "the system's authorities"),
        (Ok(_), false) => {
            report.ok("certificates", format!("the system's authorities and {}", files.join(", ")));
        }
        (Err(error), false) => report.fail(
            "certificates",
            format!("TLS_EXTRA_CA_FILE: {error}; give a PEM file that this user may read, or leave it out"),
        ),
        (Err(error), true) => report.fail(
            "certificates",
            format!("{error}; install the system's authorities (ca-certificates), or name some in TLS_EXTRA_CA_FILE"),
        ),
    }
}

/// Where logs and signs of life go can be written.
pub fn folders(config: &Config, report: &mut Report) {
    let log = config.log.file.as_deref();
    let heartbeat = config.heartbeat_dir.as_deref();
    for (setting, path, tried) in
        [("LOG_FILE", log, log.map(appendable)), ("HEARTBEAT_DIR", heartbeat, heartbeat.map(writable))]
    {
        let (Some(path), Some(tried)) = (path, tried) else { continue };
        match tried {
            Ok(()) => report.ok("folders", format!("{setting}: {} can be written", path.display())),
            Err(error) => report.fail(
                "folders",
                format!(
                    "{setting}: {} cannot be written: {error}; make the folder, give it to the user that the services \
                     run as, or free its disk",
                    path.display()
                ),
            ),
        }
    }
    if log.is_none() && heartbeat.is_none() {
        report.ok("folders", "none is needed (neither LOG_FILE nor HEARTBEAT_DIR is set)");
    }
}

/// A log that exists is opened and left as it is; whether there is room the folder tells.
fn appendable(file: &Path) -> std::io::Result<()> {
    let folder = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !file.exists() {
        return writable(folder);
    }
    File::options().append(true).open(file)?;
    match writable(folder) {
        Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => Err(error),
        // The folder may be somebody else's.
        _ => Ok(()),
    }
}

/// On a full disk an empty file can still be made.
fn writable(folder: &Path) -> std::io::Result<()> {
    let probe = folder.join(format!(".emailctl-check-{}", std::process::id()));
    let mut file = File::options().write(true).create_new(true).open(&probe)?;
    let written = file.write_all(&[b'x'; ROOM_BYTES]).and_then(|()| file.sync_all());
    fs::remove_file(probe)?;
    written
}
