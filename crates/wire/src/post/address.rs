//! Where something may be posted to.

use std::time::Duration;

use url::{Host, Url};

use crate::dial::{DialError, Outbound};

/// The longest address.
pub const ADDRESS_BYTES: usize = 2048;
const PATIENCE: Duration = Duration::from_secs(5);

/// An address over HTTPS, or over HTTP for a host that the operator allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    url: Url,
    /// As it is looked up and stands in certificates: an IPv6 address without its brackets.
    host: String,
    port: u16,
}

/// Why nothing can be posted to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It is none, or too long.
    #[error("an address like https://example.com/hook is expected")]
    Malformed,
    /// Neither HTTPS nor HTTP.
    #[error("https is expected")]
    Scheme,
    /// A user or a password stands in it.
    #[error("without user name and password")]
    Credentials,
    /// It has a fragment, which no request carries.
    #[error("without a fragment (#)")]
    Fragment,
    /// HTTP, to a host that the operator did not name.
    #[error("https is expected; http goes to hosts that the operator allowed")]
    Plain,
    /// The policy for outgoing connections forbids the host.
    #[error("this host may not be connected to")]
    Host,
    /// It forbids the port.
    #[error("the ports are 443 and 8443; others for hosts that the operator allowed")]
    Port,
    /// The name has no address that may be dialled, or nobody could say in time.
    #[error("the host was not found")]
    NotFound,
}

impl AddressError {
    /// The word for programs.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Malformed => "invalid",
            Self::Scheme | Self::Plain => "https-required",
            Self::Credentials => "credentials",
            Self::Fragment => "fragment",
            Self::Host => "host-not-allowed",
            Self::Port => "port-not-allowed",
            Self::NotFound => "host-not-found",
        }
    }
}

impl Address {
    /// Reads one. What its name resolves to is judged by [`Address::check`], and again at each connection.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        // The parser drops blanks and line breaks, and a client would not find its own address again.
        if text.len() > ADDRESS_BYTES || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(AddressError::Malformed);
        }
        let url = Url::parse(text).map_err(|_| AddressError::Malformed)?;
        if !matches!(url.scheme(), "https" | "http") {
            return Err(AddressError::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(AddressError::Credentials);
        }
        if url.fragment().is_some() {
            return Err(AddressError::Fragment);
        }
        let host = match url.host().ok_or(AddressError::Malformed)? {
            Host::Domain(name) => name.to_owned(),
            Host::Ipv4(ip) => ip.to_string(),
            Host::Ipv6(ip) => ip.to_string(),
        };
        let port = url.port_or_known_default().filter(|port| *port > 0).ok_or(AddressError::Malformed)?;
        Ok(Self { url, host, port })
    }

    /// Judges it by what its name resolves to now. No socket is opened.
    ///
    /// # Errors
    /// Why nothing may be posted there.
    pub async fn check(&self, outbound: &Outbound) -> Result<(), AddressError> {
        let resolve = |plain| outbound.resolve_post((&self.host, self.port), plain, PATIENCE);
        match resolve(self.is_plain()).await {
            Ok(_) => Ok(()),
            Err(DialError::HostNotAllowed) if self.is_plain() && resolve(false).await.is_ok() => {
                Err(AddressError::Plain)
            }
            Err(DialError::HostNotAllowed) => Err(AddressError::Host),
            // Port 80 is not what is wrong with http://example.com/.
            Err(DialError::PortNotAllowed) if self.is_plain() => Err(AddressError::Plain),
            Err(DialError::PortNotAllowed) => Err(AddressError::Port),
            Err(DialError::HostNotFound | DialError::Timeout | DialError::Unreachable(_)) => {
                Err(AddressError::NotFound)
            }
        }
    }

    /// Without TLS.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.url.scheme() == "http"
    }

    /// Host and port, as they are dialled.
    #[must_use]
    pub fn target(&self) -> (&str, u16) {
        (&self.host, self.port)
    }

    /// What the request line has.
    pub(super) fn path(&self) -> String {
        let path = self.url.path();
        self.url.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"))
    }

    /// What the field `Host` has.
    pub(super) fn authority(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        self.url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.url.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dial::OutboundPolicy;

    #[test]
    fn what_is_no_address_to_post_to_is_refused_by_its_fault() {
        for (text, error) in [
            ("", AddressError::Malformed),
            ("example.com/hook", AddressError::Malformed),
            ("https://", AddressError::Malformed),
            ("https://a b/", AddressError::Malformed),
            ("https://example.com/\nx", AddressError::Malformed),
            ("https://example.com:0/", AddressError::Malformed),
            ("ftp://example.com/", AddressError::Scheme),
            ("file:///etc/passwd", AddressError::Scheme),
            ("https://me@example.com/", AddressError::Credentials),
            ("https://me:pw@example.com/", AddressError::Credentials),
            ("https://example.com/#x", AddressError::Fragment),
        ] {
            assert_eq!(Address::parse(text), Err(error), "{text}");
        }
        assert_eq!(
            Address::parse(&format!("https://a.example/{}", "x".repeat(2048))),
            Err(AddressError::Malformed)
        );
        let address = Address::parse("https://[2001:db8::1]:8443/a?b=c").unwrap();
        assert_eq!(address.target(), ("2001:db8::1", 8443));
        assert_eq!((address.path(), address.authority()), ("/a?b=c".into(), "[2001:db8::1]:8443".into()));
    }

    #[tokio::test]
    async fn an_address_is_judged_by_host_port_and_scheme() {
        let outbound = Outbound::new(OutboundPolicy::parse("10.0.0.1:8080,[fd00::/8]:443").unwrap());
        for (text, verdict) in [
            ("https://1.1.1.1/", Ok(())),
            ("https://1.1.1.1:8443/", Ok(())),
            ("https://1.1.1.1:8080/", Err(AddressError::Port)),
            ("https://1.1.1.1:25/", Err(AddressError::Port)),
            ("http://1.1.1.1/", Err(AddressError::Plain)),
            ("http://1.1.1.1:443/", Err(AddressError::Plain)),
            ("https://127.0.0.1/", Err(AddressError::Host)),
            ("https://2130706433/", Err(AddressError::Host)),
            ("https://0x7f.1/", Err(AddressError::Host)),
            ("https://localhost/", Err(AddressError::Host)),
            ("https://169.254.169.254/latest", Err(AddressError::Host)),
            ("https://[::1]/", Err(AddressError::Host)),
            ("https://[::ffff:127.0.0.1]/", Err(AddressError::Host)),
            ("https://[fd00::1]/", Ok(())),
            ("http://10.0.0.1:8080/", Ok(())),
            ("https://10.0.0.1:8080/", Ok(())),
            ("https://10.0.0.1/", Err(AddressError::Host)),
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!(address.check(&outbound).await, verdict, "{text}");
        }
    }
}
