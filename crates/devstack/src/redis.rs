//! Redis without persistence and without eviction, on a loopback port.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use anyhow::Result;

use crate::process::{Group, Spawner, find, unprivileged};
use crate::stack::Plan;

pub(crate) fn start(plan: &Plan, spawner: &Spawner) -> Result<()> {
    let log = plan.log("redis");
    let mut server =
        unprivileged(find("redis-server", &["/usr/bin", "/usr/local/bin"])?, &["redis", "nobody"])?;
    server.args([
        "--bind",
        "127.0.0.1",
        "--port",
        &plan.redis.to_string(),
        "--save",
        "",
        "--appendonly",
        "no",
    ]);
    server.args(["--maxmemory-policy", "noeviction", "--daemonize", "no"]).current_dir("/");
    let pid = spawner.server(server, &log, "TERM", Group::Own)?;
    spawner.wait_ready(pid, &log, || pongs(plan.redis).unwrap_or(false))
}

fn pongs(port: u16) -> Result<bool> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"PING\r\n")?;
    let mut answer = [0; 5];
    stream.read_exact(&mut answer)?;
    Ok(answer == *b"+PONG")
}
