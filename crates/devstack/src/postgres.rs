//! PostgreSQL 15 or newer, never as root, on a loopback port, superuser `postgres` without a password.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use crate::process::{Group, Spawner, account, find, is_root, unprivileged};
use crate::stack::Plan;

const USERS: [&str; 2] = ["postgres", "nobody"];
const OLDEST: u32 = 15;

pub(crate) fn start(plan: &Plan, spawner: &Spawner) -> Result<()> {
    let bin = binaries()?;
    let (data, log) = (plan.dir.join("postgres"), plan.log("postgres"));
    if !data.join("PG_VERSION").exists() {
        fs::create_dir_all(&data)?;
        if is_root() {
            let user = account(&USERS)?;
            chown(&data, Some(user.uid), Some(user.gid))?;
        }
        let mut initdb = unprivileged(bin.join("initdb"), &USERS)?;
        initdb.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8"]);
        initdb.args(["--no-sync", "--no-instructions", "-D"]).arg(&data).current_dir("/");
        spawner.finish(initdb, &log)?;
    }
    let mut server = unprivileged(bin.join("postgres"), &USERS)?;
    server.arg("-D").arg(&data).current_dir("/");
    for setting in settings(plan) {
        server.arg("-c").arg(setting);
    }
    let pid = spawner.server(server, &log, "INT", Group::Own)?;
    spawner.wait_ready(pid, &log, || lets_in(plan.postgres).unwrap_or(false))
}

fn settings(plan: &Plan) -> Vec<String> {
    let mut settings = vec![
        "listen_addresses=127.0.0.1".to_owned(),
        format!("port={}", plan.postgres),
        "unix_socket_directories=".to_owned(),
        "max_connections=300".to_owned(),
        "shared_buffers=256MB".to_owned(),
        "max_wal_size=2GB".to_owned(),
        "log_timezone=UTC".to_owned(),
        "timezone=UTC".to_owned(),
    ];
    if !plan.fsync {
        settings.extend(["fsync=off", "full_page_writes=off", "synchronous_commit=off"].map(str::to_owned));
    }
    settings
}

/// The psql that belongs to the server.
///
/// # Errors
/// PostgreSQL is not installed.
pub fn psql() -> Result<PathBuf> {
    Ok(binaries()?.join("psql"))
}

/// Debian keeps each major version apart, outside of PATH; the newest is taken.
fn binaries() -> Result<PathBuf> {
    let mut versions: Vec<u32> = fs::read_dir("/usr/lib/postgresql")
        .map(|dirs| dirs.flatten().filter_map(|d| d.file_name().to_str()?.parse().ok()).collect())
        .unwrap_or_default();
    versions.sort_unstable();
    if let Some(newest) = versions.into_iter().rev().find(|v| *v >= OLDEST) {
        return Ok(format!("/usr/lib/postgresql/{newest}/bin").into());
    }
    let initdb = find("initdb", &[]).with_context(|| format!("PostgreSQL {OLDEST} or newer"))?;
    Ok(initdb.parent().ok_or_else(|| anyhow!("{} has no directory", initdb.display()))?.to_owned())
}

/// Logs in far enough to see `AuthenticationOk`: a starting server accepts connections and then refuses.
fn lets_in(port: u16) -> Result<bool> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let parameters = b"user\0postgres\0database\0postgres\0\0";
    let mut startup = u32::try_from(parameters.len() + 8)?.to_be_bytes().to_vec();
    startup.extend(196_608_u32.to_be_bytes());
    startup.extend(parameters);
    stream.write_all(&startup)?;
    let mut kind = [0];
    stream.read_exact(&mut kind)?;
    // Terminate, so that the log does not speak of a lost client.
    stream.write_all(b"X\0\0\0\x04")?;
    Ok(kind == *b"R")
}
