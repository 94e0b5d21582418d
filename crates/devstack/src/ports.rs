//! Free TCP ports on loopback.
//!
//! They are taken from below the kernel's ephemeral range (32768 and up on Linux): a port from inside it can be
//! given to somebody's outgoing connection between our look and the server's bind.
//!
//! A folder keeps the ports it was given: the accounts in its database name them.
//!
//! Seconds pass until the server listens. Two stacks given the same port meanwhile would both find somebody there: the one
//! whose server could not bind it takes the other's for its own. So a port stays reserved as long as this process
//! lives, by a listener on an address that nothing else uses.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, anyhow, bail};

const LOWEST: u16 = 15_000;
const COUNT: u64 = 17_000;
const RESERVING: Ipv4Addr = Ipv4Addr::new(127, 111, 111, 111);
static RESERVED: Mutex<BTreeMap<u16, TcpListener>> = Mutex::new(BTreeMap::new());

/// `N` different ports that nobody listened on a moment ago.
pub(crate) fn free<const N: usize>() -> Result<[u16; N]> {
    let mut held = Vec::with_capacity(N);
    let mut ports = [0_u16; N];
    for port in &mut ports {
        let listener = one()?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}

/// A port for each of `servers`: those that `file` names, else free ones, which are written there (`name port`, a
/// line each).
///
/// # Errors
/// A file that cannot be read or lacks a server; a port in it that somebody listens on now. Another one in its place
/// would leave the accounts of the folder's database without their server, so none is taken.
pub(crate) fn kept<const N: usize>(file: &Path, servers: [&str; N]) -> Result<[u16; N]> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let ports = free()?;
            let lines: Vec<String> =
                servers.iter().zip(ports).map(|(s, port)| format!("{s} {port}")).collect();
            fs::write(file, lines.join("\n") + "\n").with_context(|| file.display().to_string())?;
            return Ok(ports);
        }
        Err(e) => return Err(e).with_context(|| file.display().to_string()),
    };
    let mut ports = [0_u16; N];
    for (port, server) in ports.iter_mut().zip(servers) {
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        *port = lines
            .find(|(name, _)| *name == server)
            .and_then(|(_, port)| port.trim().parse().ok().filter(|p| *p > 0))
            .ok_or_else(|| {
                anyhow!("{} names no port for {server}; remove it to get new ports", file.display())
            })?;
        reserve(*port).and_then(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, *port))).map_err(|e| {
            anyhow!(
                "port {port} of this folder's {server} cannot be used ({e}): does another devstack run here? \
                 Accounts saved in the folder name this port; for new ports remove {}",
                file.display()
            )
        })?;
    }
    Ok(ports)
}

fn one() -> Result<TcpListener> {
    for _ in 0..1000 {
        // RandomState is seeded by the system for every process and steps on every call: no clock, no rng crate.
        let random = RandomState::new().build_hasher().finish();
        let port = LOWEST + u16::try_from(random % COUNT)?;
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            && reserve(port).is_ok_and(|new| new)
        {
            return Ok(listener);
        }
    }
    bail!("no free port between {LOWEST} and {}", u64::from(LOWEST) + COUNT)
}

/// `false`: this process has it already. An error: another has.
fn reserve(port: u16) -> io::Result<bool> {
    let mut reserved = RESERVED.lock().unwrap_or_else(PoisonError::into_inner);
    if reserved.contains_key(&port) {
        return Ok(false);
    }
    reserved.insert(port, TcpListener::bind((RESERVING, port))?);
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    #[test]
    fn a_folder_keeps_its_ports_and_says_which_one_is_taken() {
        let [number] = super::free::<1>().unwrap();
        let file = std::env::temp_dir().join(format!("devstack-ports-{}-{number}", std::process::id()));
        let names = ["imap", "imaps", "smtp"];
        let first = super::kept(&file, names).unwrap();
        assert_eq!(super::kept(&file, names).unwrap(), first);
        assert_eq!(super::kept(&file, ["smtp"]).unwrap(), [first[2]], "by name, not by line");
        let held = TcpListener::bind(("127.0.0.1", first[1])).unwrap();
        let taken = super::kept(&file, names).unwrap_err().to_string();
        assert!(taken.contains(&format!("port {} of this folder's imaps", first[1])), "{taken}");
        drop(held);
        assert_eq!(super::kept(&file, names).unwrap(), first, "free again");
        for broken in ["", "imap x\nimaps 1\nsmtp 2\n", "imap 0\n", "imap 99999\n"] {
            std::fs::write(&file, broken).unwrap();
            assert!(super::kept(&file, names).unwrap_err().to_string().contains("imap"), "{broken:?}");
        }
        std::fs::remove_file(&file).unwrap();
    }

    #[test]
    fn ports_of_one_call_differ_and_lie_below_the_ephemeral_range() {
        let mut ports = super::free::<40>().unwrap();
        assert!(ports.iter().all(|p| (15_000..32_000).contains(p)), "{ports:?}");
        ports.sort_unstable();
        assert!(ports.windows(2).all(|w| w[0] != w[1]), "{ports:?}");
    }

    #[test]
    fn a_port_that_was_given_is_given_to_nobody_else_before_its_server_listens() {
        let [port] = super::free::<1>().unwrap();
        assert!(!super::reserve(port).unwrap(), "this process has it");
        TcpListener::bind((super::RESERVING, port)).expect_err("another would have it");
    }
}
