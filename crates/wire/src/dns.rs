//! Records of the DNS that getaddrinfo does not know: SRV and MX; and, where the operator named servers, addresses too.
//!
//! Answers are hostile: bounded in number and time, and only names and addresses that [`crate::dial`] judges again before
//! anything is done with them. Names are asked for as they stand, never with a search domain behind them.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{Name, RData};
use hickory_resolver::{TokioResolver, lookup::Lookup};
use tokio::time::timeout;

/// The longest one question may take, repetitions included.
const DEADLINE: Duration = Duration::from_secs(5);
/// One server is waited for so long before the next is asked.
const ATTEMPT: Duration = Duration::from_secs(2);
/// Records of one answer that are looked at.
const MAX_RECORDS: usize = 20;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DnsError {
    /// No server can be asked: none is configured.
    #[error("no name server is configured")]
    NotConfigured,
    /// The name is none.
    #[error("not a name")]
    Name,
    /// No server answered in time.
    #[error("the name servers did not answer in time")]
    Timeout,
    /// They could not answer.
    #[error("the name servers could not answer: {0}")]
    Failed(String),
}

/// Where a service is (RFC 2782), the best first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The host, without a dot at its end; empty: the service is decidedly not offered (target `.`).
    pub host: String,
    /// The port.
    pub port: u16,
}

/// Asks the servers that `DNS_SERVERS` names, or the system's. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Dns {
    resolver: Option<TokioResolver>,
    named: bool,
}

impl Dns {
    /// Asks `servers`, by UDP and TCP; with none those of `/etc/resolv.conf`.
    #[must_use]
    pub fn new(servers: &[SocketAddr]) -> Self {
        let provider = TokioRuntimeProvider::default();
        let builder = if servers.is_empty() {
            TokioResolver::builder_tokio()
        } else {
            let servers = servers.iter().map(|server| {
                let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                    connection.port = server.port();
                    connection
                });
                NameServerConfig::new(server.ip(), true, connections.into())
            });
            let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
            Ok(TokioResolver::builder_with_config(config, provider))
        };
        let resolver = builder.and_then(|mut builder| {
            let options = builder.options_mut();
            options.timeout = ATTEMPT;
            options.attempts = 1;
            options.use_hosts_file = ResolveHosts::Never;
            builder.build()
        });
        let named = !servers.is_empty();
        match resolver {
            Ok(resolver) => Self { resolver: Some(resolver), named },
            Err(error) => {
                tracing::warn!(%error, "no name server can be asked for SRV and MX records");
                Self { resolver: None, named }
            }
        }
    }

    /// Whether the operator named the servers, so that hosts are looked up there too.
    #[must_use]
    pub fn is_named(&self) -> bool {
        self.named
    }

    /// Where `service` (`_imaps._tcp`) of `domain` is, by priority, then weight. Empty when there is no record.
    ///
    /// # Errors
    /// [`DnsError`].
    pub async fn services(&self, service: &str, domain: &str) -> Result<Vec<Service>, DnsError> {
        let name = full_name(&format!("{service}.{domain}"))?;
        let answer = self.ask(async |resolver| resolver.srv_lookup(name).await).await?;
        let mut found: Vec<_> = records(&answer)
            .filter_map(|data| match data {
                RData::SRV(srv) => Some((srv.priority, u16::MAX - srv.weight, plain(&srv.target), srv.port)),
                _ => None,
            })
            .collect();
        found.sort();
        Ok(found.into_iter().map(|(_, _, host, port)| Service { host, port }).collect())
    }

    /// The hosts that take mail for `domain`, the preferred first. Empty when there is no record.
    ///
    /// # Errors
    /// [`DnsError`].
    pub async fn mail_hosts(&self, domain: &str) -> Result<Vec<String>, DnsError> {
        let name = full_name(domain)?;
        let answer = self.ask(async |resolver| resolver.mx_lookup(name).await).await?;
        let mut found: Vec<_> = records(&answer)
            .filter_map(|data| match data {
                RData::MX(mx) => Some((mx.preference, plain(&mx.exchange))),
                _ => None,
            })
            .collect();
        found.sort();
        Ok(found.into_iter().map(|(_, host)| host).collect())
    }

    /// The addresses of `host`. Empty when it has none.
    ///
    /// # Errors
    /// [`DnsError`].
    pub async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, DnsError> {
        let name = full_name(host)?;
        let answer = self
            .ask(async |resolver| resolver.lookup_ip(name).await.map(|found| found.as_lookup().clone()))
            .await?;
        let all = answer.iter().flat_map(Lookup::answers);
        // All of them: each address is judged, so none may be overlooked.
        Ok(all.filter_map(|record| record.data.ip_addr()).collect())
    }

    async fn ask(
        &self,
        question: impl AsyncFnOnce(&TokioResolver) -> Result<Lookup, NetError>,
    ) -> Result<Option<Lookup>, DnsError> {
        let resolver = self.resolver.as_ref().ok_or(DnsError::NotConfigured)?;
        match timeout(DEADLINE, question(resolver)).await {
            Err(_) | Ok(Err(NetError::Timeout)) => Err(DnsError::Timeout),
            Ok(Err(error)) if error.is_no_records_found() => Ok(None),
            Ok(Err(error)) => Err(DnsError::Failed(error.to_string())),
            Ok(Ok(found)) => Ok(Some(found)),
        }
    }
}

fn records(answer: &Option<Lookup>) -> impl Iterator<Item = &RData> {
    answer.iter().flat_map(Lookup::answers).map(|record| &record.data).take(MAX_RECORDS)
}

fn full_name(text: &str) -> Result<Name, DnsError> {
    let mut name = Name::from_ascii(text).map_err(|_| DnsError::Name)?;
    name.set_fqdn(true);
    Ok(name)
}

fn plain(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_ascii_lowercase()
}
