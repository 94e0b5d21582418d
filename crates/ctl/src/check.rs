//! Is this deployment fit to start? Each line says what was looked at and, when it is wrong, how to mend it.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use anyhow::{Context as _, bail};
use emailclient_core::config::{Config, Source};
use emailclient_core::db::Db;
use emailclient_core::dial::OutboundPolicy;
use emailclient_core::redis_pool;
use emailclient_core::seal::Keyring;
use emailclient_core::tls::TlsConfig;

/// Looks at everything, says all that is wrong, and fails when anything is.
///
/// # Errors
/// When a check failed; the lines printed before say which.
pub async fn run(source: &Source) -> anyhow::Result<()> {
    let config = Config::from_source(source)?;
    report("settings", Ok(()))?;
    let keys = Keyring::new(&config.encryption_key, &config.encryption_keys_old)
        .map(drop)
        .map_err(anyhow::Error::from);
    let hosts = OutboundPolicy::parse(&config.outbound_allow).map(drop).map_err(anyhow::Error::from);
    let certificates =
        TlsConfig::new(config.tls_extra_ca_file.as_deref()).map(drop).map_err(anyhow::Error::from);
    let db = Db::new(&config)?;
    let database = db.verify().await.map_err(anyhow::Error::from);
    db.close().await;
    let redis = async { redis_pool::ping(&redis_pool::connect(&config.redis_url)?).await }.await;
    let mut failed = 0;
    for (what, result) in [
        ("encryption keys", keys),
        ("OUTBOUND_ALLOW", hosts),
        ("TLS_EXTRA_CA_FILE", certificates),
        ("database, roles and schema", database),
        ("Redis", redis),
    ] {
        failed += usize::from(result.is_err());
        report(what, result)?;
    }
    if failed > 0 {
        bail!("{failed} checks failed");
    }
    Ok(())
}

fn report(what: &str, result: anyhow::Result<()>) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    match result {
        Ok(()) => writeln!(out, "ok      {what}")?,
        Err(error) => writeln!(out, "FAILED  {what}: {error:#}")?,
    }
    Ok(())
}

/// Asks `GET /health/ready` of the API at `address`.
///
/// # Errors
/// When it cannot be reached within five seconds or answers anything but 200.
pub async fn health(address: &str) -> anyhow::Result<()> {
    let address = address.to_owned();
    tokio::task::spawn_blocking(move || {
        let target = address.to_socket_addrs()?.next().context("the address names no host")?;
        let wait = Duration::from_secs(5);
        let mut stream = TcpStream::connect_timeout(&target, wait)?;
        stream.set_read_timeout(Some(wait))?;
        write!(stream, "GET /health/ready HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        let mut head = String::new();
        stream.take(64).read_to_string(&mut head)?;
        if !head.starts_with("HTTP/1.1 200") {
            bail!("not ready: {}", head.lines().next().unwrap_or_default());
        }
        Ok(())
    })
    .await?
}
