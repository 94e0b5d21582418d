//! The one door outward: every socket that leaves this program is opened by [`Outbound::dial_resolved`].
//!
//! Users name the hosts we connect to, so a host is judged by the addresses it resolves to: unless the operator
//! allowed it, every one of them must be global unicast, and the port must be one of mail's. The name is
//! resolved once and only the addresses that were judged are dialled, so a second answer of a hostile name
//! server is never used. Proxy variables are not read and nothing is retried here.
//!
//! TLS does not live here (`tls.rs`), nor does any protocol. To permit another port for everyone, extend
//! [`MAIL_PORTS`]; to permit a network of one installation, the operator adds an entry to the allow list.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use crate::dns::{Dns, DnsError};

/// IMAP, IMAPS, SMTP, SMTPS, submission and its common alternative.
pub const MAIL_PORTS: [u16; 6] = [143, 993, 25, 465, 587, 2525];

/// HTTPS, for configuration documents.
const WEB_PORTS: [u16; 1] = [443];

/// HTTPS and its common alternative, for what is posted to addresses of our users' own.
const POST_PORTS: [u16; 2] = [443, 8443];

/// More addresses than this for one name are not tried; the surplus is still judged.
const MAX_ATTEMPTS: usize = 6;

/// How long each step of a connection may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// The name lookup.
    pub resolve: Duration,
    /// One TCP connection attempt.
    pub connect: Duration,
    /// The TLS handshake.
    pub tls: Duration,
    /// One answer of the server: the greeting, or everything up to a command's tagged line.
    pub reply: Duration,
}

impl Default for Deadlines {
    /// 10 seconds for each step of set-up; a minute for an answer, because Exchange takes 40 s to open a large
    /// mailbox.
    fn default() -> Self {
        let step = Duration::from_secs(10);
        Self { resolve: step, connect: step, tls: step, reply: Duration::from_secs(60) }
    }
}

/// Why no connection was made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// The name is malformed, or an address that is not global unicast and not allowed by the operator.
    #[error("this host may not be connected to")]
    HostNotAllowed,
    /// The port is not one of mail's and not allowed by the operator.
    #[error("this port may not be connected to")]
    PortNotAllowed,
    /// The name does not exist, has no address, or one that may not be dialled: which of these is nobody's business, or
    /// names inside the operator's network could be told from those that are not there.
    #[error("the host was not found")]
    HostNotFound,
    /// Every address refused or failed; the last reason.
    #[error("the host could not be reached: {0}")]
    Unreachable(String),
    /// A step took longer than its deadline.
    #[error("the host did not answer in time")]
    Timeout,
}

/// An entry of the allow list that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("allow list entry {entry:?}: {reason}")]
pub struct PolicyError {
    /// The entry as written.
    pub entry: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    Host(String),
    Network(IpNet),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Allowed {
    target: Target,
    ports: RangeInclusive<u16>,
}

/// What the operator allows beyond public mail servers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutboundPolicy {
    allowed: Vec<Allowed>,
}

impl OutboundPolicy {
    /// Reads a comma separated list of `host[:port[-port]]` and `network[:port[-port]]`, where a network is an
    /// address or CIDR; an IPv6 one that is followed by a port stands in brackets (`[fd00::/8]:993`). An entry
    /// lifts the rule on addresses and the rule on ports for what it names, all ports when it names none.
    ///
    /// # Errors
    /// [`PolicyError`] with the first entry that cannot be read.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let entries = text.split(',').map(str::trim).filter(|e| !e.is_empty());
        let allowed = entries.map(parse_entry).collect::<Result<_, _>>()?;
        Ok(Self { allowed })
    }

    /// The host names of the list, each with the port when it names exactly one. For an operator who wants to know
    /// whether they exist and answer.
    pub fn named_hosts(&self) -> impl Iterator<Item = (&str, Option<u16>)> {
        self.allowed.iter().filter_map(|allowed| match &allowed.target {
            Target::Host(host) => {
                let one = allowed.ports.start() == allowed.ports.end();
                Some((host.as_str(), one.then_some(*allowed.ports.start())))
            }
            Target::Network(_) => None,
        })
    }

    fn allows_host(&self, host: &str, port: u16) -> bool {
        self.allowed.iter().any(|a| {
            a.ports.contains(&port) && matches!(&a.target, Target::Host(h) if h.eq_ignore_ascii_case(host))
        })
    }

    fn allows_address(&self, ip: IpAddr, port: u16) -> bool {
        self.allowed.iter().any(|a| {
            a.ports.contains(&port) && matches!(&a.target, Target::Network(net) if net.contains(&ip))
        })
    }

    /// Whether some entry names this port at all: without one, the port can be refused before the lookup.
    fn mentions_port(&self, port: u16) -> bool {
        self.allowed.iter().any(|a| a.ports.contains(&port))
    }
}

fn parse_entry(entry: &str) -> Result<Allowed, PolicyError> {
    let error = |reason| PolicyError { entry: entry.to_owned(), reason };
    let (name, ports) = if let Some(rest) = entry.strip_prefix('[') {
        let (name, rest) = rest.split_once(']').ok_or_else(|| error("the bracket is not closed"))?;
        let ports = match rest.strip_prefix(':') {
            Some(ports) => Some(ports),
            None if rest.is_empty() => None,
            None => return Err(error("only a port may follow the bracket")),
        };
        (name, ports)
    } else if entry.matches(':').count() == 1 {
        entry.split_once(':').map_or((entry, None), |(n, p)| (n, Some(p)))
    } else {
        (entry, None)
    };
    let ports =
        ports.map_or(Some(0..=u16::MAX), parse_ports).ok_or_else(|| error("not a port or port range"))?;
    let target = match network(name) {
        Some(network) => Target::Network(network),
        None if is_host_name(name) => Target::Host(name.trim_end_matches('.').to_owned()),
        None => return Err(error("neither a host name nor a network")),
    };
    Ok(Allowed { target, ports })
}

fn parse_ports(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some(first..=last)
}

/// A network in CIDR notation (RFC 4632 §3.1, RFC 4291 §2.3), or one address. Bits behind the prefix do not count.
#[must_use]
pub fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// Letters, digits, `-`, `_` and `.`, or an address: all that a lookup should ever be asked for. A colon elsewhere is
/// a port in the wrong field, which no lookup would ever find.
fn is_host_name(host: &str) -> bool {
    let named = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    host.parse::<IpAddr>().is_ok()
        || (host.len() <= 253 && host.bytes().all(named) && host.bytes().any(|b| b != b'.'))
}

/// Whether this is an address and no name, in whatever spelling a resolver takes for one: nothing ends in a number but these.
/// `localhost` means an address everywhere (RFC 6761 §6.3).
fn is_address(host: &str) -> bool {
    let host = host.trim_end_matches('.');
    let last = host.rsplit('.').next().unwrap_or_default();
    let number = match last.strip_prefix("0x").or_else(|| last.strip_prefix("0X")) {
        Some(digits) => digits.bytes().all(|b| b.is_ascii_hexdigit()),
        None => !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit()),
    };
    number || last.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok()
}

/// Whether an address belongs to one host of the public internet (IANA special-purpose registries). Forms
/// that carry an IPv4 address inside (mapped, 6to4, Teredo, NAT64) are refused whatever they carry.
#[must_use]
pub fn is_global_unicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => is_global_v4(v4),
        IpAddr::V6(v6) => is_global_v6(v6),
    }
}

fn is_global_v4(ip: Ipv4Addr) -> bool {
    const SPECIAL: [Ipv4Net; 15] = [
        Ipv4Net::new_assert(Ipv4Addr::new(0, 0, 0, 0), 8),
        Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8),
        Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10),
        Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8),
        Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16),
        Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 12),
        Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 0, 0), 24),
        Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 2, 0), 24),
        Ipv4Net::new_assert(Ipv4Addr::new(192, 88, 99, 0), 24),
        Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 0, 0), 16),
        Ipv4Net::new_assert(Ipv4Addr::new(198, 18, 0, 0), 15),
        Ipv4Net::new_assert(Ipv4Addr::new(198, 51, 100, 0), 24),
        Ipv4Net::new_assert(Ipv4Addr::new(203, 0, 113, 0), 24),
        Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4),
        Ipv4Net::new_assert(Ipv4Addr::new(240, 0, 0, 0), 4),
    ];
    !SPECIAL.iter().any(|net| net.contains(&ip))
}

fn is_global_v6(ip: Ipv6Addr) -> bool {
    const UNICAST: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);
    const SPECIAL: [Ipv6Net; 4] = [
        Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
        Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
        Ipv6Net::new_assert(Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
        Ipv6Net::new_assert(Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
    ];
    UNICAST.contains(&ip) && !SPECIAL.iter().any(|net| net.contains(&ip))
}

/// Addresses that were judged and may be dialled; only [`Outbound::resolve`] makes them.
#[derive(Clone, Debug)]
pub struct Resolved(Vec<SocketAddr>);

impl Resolved {
    /// All of them, for a comparison with others. Never to be told: see [`Resolved::public_addresses`].
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.0.iter().map(SocketAddr::ip)
    }

    /// Those that anybody may know: what a name means inside the operator's network is not told.
    #[must_use]
    pub fn public_addresses(&self) -> Vec<IpAddr> {
        self.0.iter().map(SocketAddr::ip).filter(|ip| is_global_unicast(*ip)).collect()
    }
}

/// Opens connections under an [`OutboundPolicy`]. Cheap to clone; built once from the settings.
#[derive(Clone, Debug, Default)]
pub struct Outbound {
    policy: Arc<OutboundPolicy>,
    dns: Option<Dns>,
}

impl Outbound {
    /// Connections under this policy.
    #[must_use]
    pub fn new(policy: OutboundPolicy) -> Self {
        Self { policy: Arc::new(policy), dns: None }
    }

    /// As [`Outbound::new`], and hosts are looked up by `dns` where the operator named its servers. Hosts of the allow
    /// list stay the system's: a container's neighbours are in no DNS.
    #[must_use]
    pub fn with_dns(policy: OutboundPolicy, dns: &Dns) -> Self {
        Self { policy: Arc::new(policy), dns: dns.is_named().then(|| dns.clone()) }
    }

    /// Whether `host` is one the operator named, by name or by network, so that it may be talked to without
    /// TLS. Only what [`Outbound::check`] accepts counts, so call that first for names.
    #[must_use]
    pub fn is_allowed_explicitly(&self, host: &str, port: u16) -> bool {
        let host = host.trim_end_matches('.');
        self.policy.allows_host(host, port)
            || host.parse().is_ok_and(|ip| self.policy.allows_address(ip, port))
    }

    /// Whether `host` may be talked to without TLS: the operator named it, or every address it has now.
    ///
    /// # Errors
    /// As [`Outbound::check`].
    pub async fn allows_plain(&self, host: &str, port: u16) -> Result<bool, DialError> {
        let addresses = self.resolve_checked(host, port, Deadlines::default().resolve, &MAIL_PORTS).await?;
        Ok(self.is_allowed_explicitly(host, port)
            || addresses.iter().all(|a| self.policy.allows_address(a.ip(), port)))
    }

    /// Whether a connection to this host and port would be permitted, judged by what the name resolves to
    /// now. No socket is opened. The verdict does not bind a later [`Outbound::dial`], which judges again.
    /// A name that does not resolve lies in no allowed network, so its port must be one of mail's or allowed by name.
    ///
    /// # Errors
    /// [`DialError::HostNotAllowed`], [`DialError::PortNotAllowed`], [`DialError::HostNotFound`] or
    /// [`DialError::Timeout`].
    pub async fn check(&self, host: &str, port: u16) -> Result<(), DialError> {
        match self.resolve_checked(host, port, Deadlines::default().resolve, &MAIL_PORTS).await {
            Err(DialError::HostNotFound | DialError::Timeout) if !self.permits_port(host, port) => {
                Err(DialError::PortNotAllowed)
            }
            other => other.map(drop),
        }
    }

    /// Whether the port alone is no reason to refuse this name, whatever it resolves to.
    fn permits_port(&self, host: &str, port: u16) -> bool {
        MAIL_PORTS.contains(&port) || self.policy.allows_host(host.trim_end_matches('.'), port)
    }

    /// As [`Outbound::resolve`], for an address that something is posted to. `plain`: without TLS, so the operator must have named
    /// the host, or every address it has.
    ///
    /// # Errors
    /// As [`Outbound::resolve`]; [`DialError::HostNotAllowed`] for a host that needs TLS.
    pub async fn resolve_post(
        &self,
        (host, port): (&str, u16),
        plain: bool,
        deadline: Duration,
    ) -> Result<Resolved, DialError> {
        let addresses = self.resolve_checked(host, port, deadline, &POST_PORTS).await?;
        let named = || {
            self.is_allowed_explicitly(host, port)
                || addresses.iter().all(|a| self.policy.allows_address(a.ip(), port))
        };
        if plain && !named() {
            return Err(DialError::HostNotAllowed);
        }
        Ok(Resolved(addresses))
    }

    /// Opens a TCP connection to one of the addresses of `host`: [`Outbound::resolve`], then
    /// [`Outbound::dial_resolved`].
    ///
    /// # Errors
    /// Any [`DialError`]; the last failure when no address answers.
    pub async fn dial(&self, host: &str, port: u16, deadlines: &Deadlines) -> Result<TcpStream, DialError> {
        let resolved = self.resolve(host, port, deadlines.resolve).await?;
        self.dial_resolved(&resolved, deadlines).await
    }

    /// Looks the name up and judges all its addresses; none of them is dialled.
    ///
    /// # Errors
    /// Any [`DialError`] but [`DialError::Unreachable`].
    pub async fn resolve(&self, host: &str, port: u16, deadline: Duration) -> Result<Resolved, DialError> {
        self.resolve_checked(host, port, deadline, &MAIL_PORTS).await.map(Resolved)
    }

    /// As [`Outbound::resolve`], for a server of documents instead of one of mail.
    ///
    /// # Errors
    /// As [`Outbound::resolve`].
    pub async fn resolve_web(
        &self,
        host: &str,
        port: u16,
        deadline: Duration,
    ) -> Result<Resolved, DialError> {
        self.resolve_checked(host, port, deadline, &WEB_PORTS).await.map(Resolved)
    }

    /// Opens a TCP connection (without Nagle's delay) to one of the addresses that were judged, trying them in the
    /// resolver's order. This is the only function of the program that opens a socket to a host that a user
    /// or an external system named.
    ///
    /// # Errors
    /// [`DialError::Unreachable`] or [`DialError::Timeout`], the last failure when no address answers.
    pub async fn dial_resolved(
        &self,
        resolved: &Resolved,
        deadlines: &Deadlines,
    ) -> Result<TcpStream, DialError> {
        let mut last = DialError::HostNotFound;
        for address in resolved.0.iter().copied().take(MAX_ATTEMPTS) {
            match timeout(deadlines.connect, TcpStream::connect(address)).await {
                Err(_) => last = DialError::Timeout,
                Ok(Err(e)) => last = DialError::Unreachable(e.kind().to_string()),
                Ok(Ok(stream)) => match verify_peer(&stream, address) {
                    Ok(()) => return Ok(stream),
                    Err(e) => last = e,
                },
            }
        }
        Err(last)
    }

    async fn resolve_checked(
        &self,
        host: &str,
        port: u16,
        deadline: Duration,
        ports: &[u16],
    ) -> Result<Vec<SocketAddr>, DialError> {
        if !is_host_name(host) {
            return Err(DialError::HostNotAllowed);
        }
        let usual_port = ports.contains(&port);
        if !usual_port && !self.policy.mentions_port(port) {
            return Err(DialError::PortNotAllowed);
        }
        let named = self.policy.allows_host(host.trim_end_matches('.'), port);
        let dns = self.dns.as_ref().filter(|_| !named && host.parse::<IpAddr>().is_err());
        let found = timeout(deadline, async {
            match dns {
                Some(dns) => {
                    let found = dns.addresses(host).await.map_err(dns_error)?;
                    Ok(found.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
                }
                None => Ok(lookup_host((host, port)).await.map_err(|e| lookup_error(&e))?.collect()),
            }
        });
        let not_dialled = if is_address(host) { DialError::HostNotAllowed } else { DialError::HostNotFound };
        let addresses: Vec<SocketAddr> = match found.await.unwrap_or(Err(DialError::Timeout)) {
            Err(DialError::HostNotFound) => return Err(not_dialled),
            other => other?,
        };
        if addresses.is_empty() {
            return Err(not_dialled);
        }
        for ip in addresses.iter().map(SocketAddr::ip) {
            if named || self.policy.allows_address(ip, port) {
                continue;
            }
            if !is_global_unicast(ip) {
                tracing::info!(host, %ip, port, "this address may not be connected to; OUTBOUND_ALLOW may name it");
                return Err(not_dialled);
            }
            if !usual_port {
                return Err(DialError::PortNotAllowed);
            }
        }
        Ok(addresses)
    }
}

/// getaddrinfo's "no such name" arrives as an uncategorised error; a broken resolver does too, and both mean
/// that there is no address to dial.
fn lookup_error(error: &io::Error) -> DialError {
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => DialError::Timeout,
        _ => DialError::HostNotFound,
    }
}

fn dns_error(error: DnsError) -> DialError {
    match error {
        DnsError::Timeout => DialError::Timeout,
        DnsError::Name | DnsError::NotConfigured | DnsError::Failed(_) => DialError::HostNotFound,
    }
}

fn verify_peer(stream: &TcpStream, expected: SocketAddr) -> Result<(), DialError> {
    let unreachable = |e: io::Error| DialError::Unreachable(e.kind().to_string());
    if stream.peer_addr().map_err(unreachable)?.ip() != expected.ip() {
        return Err(DialError::HostNotAllowed);
    }
    stream.set_nodelay(true).map_err(unreachable)
}

#[cfg(test)]
mod tests;
