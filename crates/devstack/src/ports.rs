//! Free TCP ports on loopback.
//!
//! They are taken from below the kernel's ephemeral range (32768 and up on Linux): a port from inside it can be
//! given to somebody's outgoing connection between our look and the server's bind.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Result, bail};

const LOWEST: u16 = 15_000;
const COUNT: u64 = 17_000;

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

fn one() -> Result<TcpListener> {
    for _ in 0..1000 {
        // RandomState is seeded by the system for every process and steps on every call: no clock, no rng crate.
        let random = RandomState::new().build_hasher().finish();
        let offset = u16::try_from(random % COUNT)?;
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, LOWEST + offset)) {
            return Ok(listener);
        }
    }
    bail!("no free port between {LOWEST} and {}", u64::from(LOWEST) + COUNT)
}

#[cfg(test)]
mod tests {
    #[test]
    fn ports_of_one_call_differ_and_lie_below_the_ephemeral_range() {
        let mut ports = super::free::<40>().unwrap();
        assert!(ports.iter().all(|p| (15_000..32_000).contains(p)), "{ports:?}");
        ports.sort_unstable();
        assert!(ports.windows(2).all(|w| w[0] != w[1]), "{ports:?}");
    }
}
