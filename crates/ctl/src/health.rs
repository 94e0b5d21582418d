//! Is a service well? Asked by orchestrators every few seconds, so it starts quickly and touches little.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use emailclient_core::platform::clock::{Clock as _, SystemClock};
use emailclient_core::platform::config::Source;
use emailclient_core::platform::heartbeat;

use crate::command::Service;

const PATIENCE: Duration = Duration::from_secs(5);
/// `HTTP/1.1 200` and the rest of the first line.
const ENOUGH_BYTES: u64 = 64;

/// Succeeds when `service` is well.
///
/// # Errors
/// When it is not, or cannot be asked; with the reason.
pub async fn run(source: &Source, service: Service, address: Option<String>) -> anyhow::Result<()> {
    let name = match service {
        Service::Api => {
            let address = address.unwrap_or_else(|| local(source.get("API_LISTEN").as_deref()));
            return tokio::task::spawn_blocking(move || ready(&address)).await?;
        }
        Service::Worker => "emailclient-worker",
        Service::Scheduler => "emailclient-scheduler",
    };
    let dir = source.get("HEARTBEAT_DIR").map(PathBuf::from).with_context(|| {
        format!("HEARTBEAT_DIR: missing; {name} and this program must be given the same folder")
    })?;
    let file = heartbeat::file(&dir, name);
    let age = heartbeat::age(&file, SystemClock.now()).with_context(|| {
        format!("{}: {name} has not gone round yet, or has ended, or writes elsewhere", file.display())
    })?;
    if age > heartbeat::OLDEST {
        bail!(
            "{name} last went round {} s ago, {} s are allowed: it hangs, has died, or has lost its database",
            age.as_secs(),
            heartbeat::OLDEST.as_secs()
        );
    }
    Ok(())
}

/// Where to reach, from this machine, an API that listens on `listen`.
fn local(listen: Option<&str>) -> String {
    let listen = listen.unwrap_or("0.0.0.0:5000");
    for (every, own) in [("0.0.0.0:", "127.0.0.1:"), ("[::]:", "[::1]:")] {
        if let Some(port) = listen.strip_prefix(every) {
            return format!("{own}{port}");
        }
    }
    listen.to_owned()
}

/// Asks `GET /health/ready` of the API at `address`.
fn ready(address: &str) -> anyhow::Result<()> {
    let no_answer = || format!("the API at {address} does not answer");
    let target = address.to_socket_addrs().with_context(no_answer)?.next().with_context(no_answer)?;
    let mut stream = TcpStream::connect_timeout(&target, PATIENCE).with_context(no_answer)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET /health/ready HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut head = Vec::new();
    stream.take(ENOUGH_BYTES).read_to_end(&mut head).with_context(no_answer)?;
    let head = String::from_utf8_lossy(&head);
    if !head.starts_with("HTTP/1.1 200") {
        bail!("the API at {address} is not ready: {}", head.lines().next().unwrap_or_default());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::local;

    #[test]
    fn an_api_that_listens_everywhere_is_asked_on_this_machine() {
        assert_eq!(local(None), "127.0.0.1:5000");
        assert_eq!(local(Some("0.0.0.0:8080")), "127.0.0.1:8080");
        assert_eq!(local(Some("[::]:8080")), "[::1]:8080");
        assert_eq!(local(Some("10.1.2.3:80")), "10.1.2.3:80");
    }
}
