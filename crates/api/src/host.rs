//! The field `Host` of a request (RFC 9112 §3.2, RFC 9110 §7.2).
//!
//! Whoever stands before us, a proxy or a cache, goes by the first, the last or the one it likes best. A request that can
//! be read in two ways is therefore not answered at all.

use http::{HeaderMap, Version, header};

use crate::error::ApiError;

/// Judges the field. HTTP/1.0 may do without.
///
/// # Errors
/// 400 `invalid-parameter` when it is missing, there twice, or no host with perhaps a port.
pub fn check(version: Version, headers: &HeaderMap) -> Result<(), ApiError> {
    let mut values = headers.get_all(header::HOST).iter();
    match (values.next(), values.next()) {
        (None, _) if version < Version::HTTP_11 => Ok(()),
        (None, _) => Err(ApiError::invalid_parameter("the header Host is missing")),
        (Some(_), Some(_)) => Err(ApiError::invalid_parameter("the header Host is there twice")),
        (Some(value), None) if value.to_str().is_ok_and(is_host) => Ok(()),
        (Some(_), None) => {
            Err(ApiError::invalid_parameter("the header Host is not a host with perhaps a port"))
        }
    }
}

fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        // The colon inside the brackets of an IPv6 address.
        Some((_, tail)) if tail.ends_with(']') => (text, None),
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    // The port may be empty (RFC 3986 §3.2.3).
    let port_is_one =
        |p: &str| p.is_empty() || p.bytes().all(|b| b.is_ascii_digit()) && p.parse::<u16>().is_ok();
    port.is_none_or(port_is_one) && is_name(host)
}

/// An IPv4 address is a name too. Of the characters of a registered name only those that stand in names are taken: a
/// comma or a semicolon here is two values in one.
fn is_name(host: &str) -> bool {
    if let Some(inside) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        return inside.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    (1..=255).contains(&host.len())
        && host.bytes().all(plain)
        && !host.starts_with('.')
        && !host.contains("..")
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Version};

    use super::*;

    #[test]
    fn a_host_with_perhaps_a_port_is_one() {
        for good in [
            "a",
            "mail.example",
            "mail.example:5000",
            "mail.example:",
            "127.0.0.1:80",
            "[::1]",
            "[::1]:5000",
            "a_b",
            "host.",
        ] {
            assert!(is_host(good), "{good}");
        }
        let long = "a".repeat(256);
        for bad in [
            "", " ", ":", ":80", "a b", "a,b", "a;b", "a/b", "a@b", "a?b", "a#b", "http://a", "a:b", "a:-1",
            "a:+1", "a:65536", "a:80:80", "[::1", "::1", "[a]", "[::1]x", "[::1]:x", "[]", "a..b", ".a", "ü",
            "a\\b", "a\"b", "<a>", "a%zz", &long,
        ] {
            assert!(!is_host(bad), "{bad}");
        }
    }

    #[test]
    fn it_is_there_once() {
        let with = |values: &[&'static str]| {
            values.iter().map(|v| (header::HOST, HeaderValue::from_static(v))).collect::<HeaderMap>()
        };
        let judged = |version, values: &[&'static str]| check(version, &with(values)).is_ok();
        assert!(
            judged(Version::HTTP_11, &["a"])
                && judged(Version::HTTP_10, &[])
                && judged(Version::HTTP_10, &["a"])
        );
        assert!(!judged(Version::HTTP_11, &[]) && !judged(Version::HTTP_11, &["a", "a"]));
        assert!(!judged(Version::HTTP_10, &["a", "b"]) && !judged(Version::HTTP_10, &[""]));
    }
}
