//! Names and values, as the environment has them, read one by one: what is wrong with any is remembered and told at once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Mutex;
use std::time::Duration;

use ipnet::IpNet;
use wire::dial::network;

use super::{ConfigError, Keys, MetricsListen};
use wire::secret::Secret;

/// Parts of values that examples carry; whoever copies one has not chosen a secret.
const SAMPLES: [&str; 8] = [
    "change-me",
    "change_me",
    "changeme",
    "change-this",
    "changethis",
    "replace-me",
    "your-secret",
    "your_secret",
];
/// A key of 32 bytes with fewer different characters than this was typed, not drawn. Random ones have twenty and more.
const FEWEST_CHARACTERS: usize = 5;

/// Reads settings by name and remembers what was wrong and which names were asked for.
pub struct Source {
    values: BTreeMap<String, String>,
    pub(super) asked: Mutex<BTreeSet<String>>,
    errors: Mutex<Vec<String>>,
}

impl Source {
    /// From pairs of names and values.
    pub fn new(values: impl IntoIterator<Item = (String, String)>) -> Self {
        let values = values.into_iter().filter(|(_, v)| !v.is_empty()).collect();
        Self { values, asked: Mutex::default(), errors: Mutex::default() }
    }

    /// From this process's environment.
    #[expect(clippy::disallowed_methods, reason = "this is the one home of the environment")]
    #[must_use]
    pub fn from_env() -> Self {
        Self::new(
            std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))),
        )
    }

    fn complain(&self, message: String) {
        if let Ok(mut errors) = self.errors.lock() {
            errors.push(message);
        }
    }

    /// The value of `name`, or nothing.
    pub fn get(&self, name: &str) -> Option<String> {
        if let Ok(mut asked) = self.asked.lock() {
            asked.insert(name.to_owned());
        }
        self.values.get(name).cloned()
    }

    /// The value of `name`, or `default`; a value that does not read as `T` is remembered as an error.
    pub fn parse<T: std::str::FromStr>(&self, name: &str, default: T) -> T {
        match self.get(name) {
            None => default,
            Some(text) => text.parse().unwrap_or_else(|_| {
                self.complain(format!("{name}: {text:?} cannot be read as a {}", std::any::type_name::<T>()));
                default
            }),
        }
    }

    pub(super) fn seconds(&self, name: &str, default: u64) -> Duration {
        Duration::from_secs(self.parse(name, default).max(1))
    }

    pub(super) fn at_least_one(&self, name: &str, default: u32) -> u32 {
        let number = self.parse(name, default);
        if number == 0 {
            self.complain(format!("{name}: 0 would lift this limit, which always holds; set 1 or more"));
        }
        number.max(1)
    }

    /// Origins as browsers spell them (RFC 6454 §6.2): anything else would match none, without a word.
    pub(super) fn origins(&self, name: &str) -> Vec<String> {
        let origins = self.list(name);
        for origin in &origins {
            let rest = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
            let plain = |rest: &str| {
                !rest.is_empty()
                    && rest.bytes().all(|b| {
                        b.is_ascii_lowercase()
                            || b.is_ascii_digit()
                            || matches!(b, b'.' | b'-' | b':' | b'[' | b']')
                    })
            };
            if !rest.is_some_and(plain) {
                self.complain(format!(
                    "{name}: {origin:?} is no origin; write https://host or https://host:port, in lower case and without a path"
                ));
            }
        }
        origins
    }

    /// `https://host[:port][/path]`, without the slash at the end that people write.
    pub(super) fn web_address(&self, name: &str) -> Option<String> {
        let text = self.get(name).filter(|text| !text.is_empty())?;
        let plain = text.trim_end_matches('/').to_owned();
        let good = plain.starts_with("https://") || plain.starts_with("http://");
        if !good || plain.contains(['?', '#', '@', ' ']) || plain.ends_with("//") || plain.ends_with(':') {
            self.complain(format!("{name}: {text:?} is no address; write https://mail.example.com"));
        }
        Some(plain)
    }

    pub(super) fn dns_servers(&self, name: &str) -> Vec<SocketAddr> {
        let servers = self.list(name);
        let found: Vec<SocketAddr> = servers.iter().filter_map(|text| name_server(text)).collect();
        if found.len() < servers.len() {
            self.complain(format!(
                "{name}: write addresses, separated by commas, each with a port if it is not 53"
            ));
        }
        found
    }

    /// Where metrics are served: `address:port` or `off`.
    pub(super) fn metrics_listen(&self, name: &str) -> MetricsListen {
        match self.get(name).as_deref() {
            None => MetricsListen::Usual,
            Some("off") => MetricsListen::Off,
            Some(text) => text.parse().map_or_else(
                |_| {
                    self.complain(format!("{name}: {text:?} is neither an address with a port nor off"));
                    MetricsListen::Off
                },
                MetricsListen::At,
            ),
        }
    }

    /// Addresses and networks in CIDR notation.
    pub(super) fn networks(&self, name: &str) -> Vec<IpNet> {
        let networks = self.list(name);
        let read = |text: &String| {
            let found = network(text);
            if found.is_none() {
                self.complain(format!(
                    "{name}: {text:?} is neither an address nor a network in CIDR notation"
                ));
            }
            found
        };
        networks.iter().filter_map(read).collect()
    }

    pub(super) fn list(&self, name: &str) -> Vec<String> {
        let text = self.get(name).unwrap_or_default();
        text.split(',').map(str::trim).filter(|s| !s.is_empty()).map(str::to_owned).collect()
    }

    /// A secret by `NAME` or `NAME_FILE`, if either is set.
    pub fn optional_secret(&self, name: &str) -> Option<Secret> {
        let file_name = format!("{name}_FILE");
        match (self.get(name), self.values.get(&file_name)) {
            (Some(_), Some(_)) => {
                self.complain(format!("{name}: set either {name} or {file_name}, not both"));
                None
            }
            (Some(value), None) => Some(Secret::new(value)),
            (None, Some(path)) => match std::fs::read_to_string(path) {
                Ok(text) => Some(Secret::new(text.trim_end_matches(['\r', '\n']))),
                Err(error) => {
                    self.complain(format!("{file_name}: {path} cannot be read: {error}"));
                    None
                }
            },
            (None, None) => None,
        }
    }

    /// A secret that must be there, at least `min_bytes` long and not the sample value.
    pub fn secret(&self, name: &str, min_bytes: usize) -> Secret {
        let before = self.errors.lock().map(|e| e.len()).unwrap_or(0);
        let Some(secret) = self.optional_secret(name) else {
            if self.errors.lock().map(|e| e.len()).unwrap_or(0) == before {
                self.complain(format!("{name}: missing; set {name} or {name}_FILE"));
            }
            return Secret::default();
        };
        let text = secret.expose();
        if text.len() < min_bytes {
            self.complain(format!(
                "{name}: {} bytes, at least {min_bytes} are needed; make one with `openssl rand -base64 32`",
                text.len()
            ));
        } else if SAMPLES.iter().any(|sample| text.to_ascii_lowercase().contains(sample)) {
            self.complain(format!("{name}: still the sample value; make one with `openssl rand -base64 32`"));
        } else if min_bytes >= 32 && text.bytes().collect::<BTreeSet<u8>>().len() < FEWEST_CHARACTERS {
            self.complain(format!(
                "{name}: weak, the same few characters over and over; make one with `openssl rand -base64 32`"
            ));
        }
        secret
    }

    /// A key that this program may be spared; one that is given must be good all the same.
    pub(super) fn key(&self, name: &str, keys: Keys) -> Secret {
        let given = [name.to_owned(), format!("{name}_FILE")].iter().any(|n| self.values.contains_key(n));
        if keys == Keys::Needed || given { self.secret(name, 32) } else { Secret::default() }
    }

    /// All complaints so far, or success.
    pub fn finish(&self) -> Result<(), ConfigError> {
        let errors = self.errors.lock().map(|e| e.clone()).unwrap_or_default();
        if errors.is_empty() { Ok(()) } else { Err(ConfigError(errors)) }
    }
}

/// `address`, `[address]` of IPv6, or either with a port.
fn name_server(text: &str) -> Option<SocketAddr> {
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok();
    let alone = || text.parse().ok().or_else(|| bracketed().map(IpAddr::V6));
    let server = text.parse().ok().or_else(|| Some(SocketAddr::new(alone()?, 53)))?;
    (server.port() != 0).then_some(server)
}
