use std::net::IpAddr;

use super::{Deadlines, DialError, Outbound, OutboundPolicy, is_address, is_global_unicast};

fn outbound(list: &str) -> Outbound {
    Outbound::new(OutboundPolicy::parse(list).unwrap())
}

#[test]
fn only_public_unicast_addresses_count_as_global() {
    for bad in [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "100.127.255.255",
        "127.0.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.9",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.7",
        "203.0.113.9",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:8.8.8.8",
        "::ffff:127.0.0.1",
        "::8.8.8.8",
        "64:ff9b::808:808",
        "64:ff9b:1::1",
        "100::1",
        "2001::1",
        "2001:2::1",
        "2001:10::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "3fff::1",
        "5f00::1",
        "fc00::1",
        "fd12::1",
        "fe80::1",
        "fec0::1",
        "ff02::1",
    ] {
        assert!(!is_global_unicast(bad.parse::<IpAddr>().unwrap()), "{bad}");
    }
    for good in ["8.8.8.8", "100.128.0.1", "172.32.0.1", "198.20.0.1", "2606:4700::1", "2a00:1450::1"] {
        assert!(is_global_unicast(good.parse::<IpAddr>().unwrap()), "{good}");
    }
}

#[test]
fn allow_lists_are_read_or_refused_by_entry() {
    for good in
        ["", " , ", "dovecot", "dovecot:143", "10.0.0.0/8:143-993", "[fd00::/8]:25", "fd00::/8", "::1"]
    {
        assert!(OutboundPolicy::parse(good).is_ok(), "{good}");
    }
    for bad in
        ["a b", "10.0.0.0/33", "host:0x19", "host:9-1", "[::1", "[::1]x", "host/8", "h:", "10.0.0.0/-1"]
    {
        assert_eq!(OutboundPolicy::parse(&format!("ok,{bad}")).unwrap_err().entry, bad);
    }
}

#[tokio::test]
async fn every_spelling_of_loopback_is_refused() {
    let o = Outbound::default();
    for host in [
        "127.0.0.1",
        "127.1",
        "127.0.1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "017700000001",
        "0177.0.0.1",
        "localhost",
        "LocalHost",
        "::1",
        "0:0:0:0:0:0:0:1",
        "::ffff:127.0.0.1",
        "::ffff:7f00:1",
        "::127.0.0.1",
        "64:ff9b::127.0.0.1",
        "2002:7f00:1::",
        "0",
        "::",
    ] {
        assert_eq!(o.check(host, 143).await, Err(DialError::HostNotAllowed), "{host}");
    }
    for host in [
        "",
        ".",
        "..",
        "a b",
        "a\r\nb",
        "a/b",
        "user@host",
        "host:993",
        "[::1]",
        "fe80::1%eth0",
        "fe80::1%25lo",
        "\u{ff11}\u{ff12}\u{ff17}.0.0.1",
        "127\u{3002}0.0.1",
        "loc\u{ad}alhost",
        "127.0.0.1\0.example",
        &"x".repeat(300),
    ] {
        assert_eq!(o.check(host, 143).await, Err(DialError::HostNotAllowed), "{host:?}");
    }
}

#[test]
fn an_address_is_told_from_a_name_in_any_spelling() {
    for address in [
        "127.0.0.1",
        "127.1",
        "1",
        "0x7f000001",
        "0X7F.1",
        "0x",
        "127.0.0.1.",
        "::1",
        "fd00::1",
        "localhost",
        "a.localhost.",
        "999.1.1.1",
        "mail.example.1",
    ] {
        assert!(is_address(address), "{address}");
    }
    for name in
        ["mail.example", "1and1.example", "0x7f.example", "x0x1", "localhost.example", "1.example.", "", "."]
    {
        assert!(!is_address(name), "{name}");
    }
}

/// A name of this machine's own that means a private address: told like one that does not exist.
#[tokio::test]
async fn a_name_with_a_private_address_is_told_like_one_that_does_not_exist() {
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap();
    let names: Vec<&str> = hosts
        .lines()
        .filter_map(|line| line.split('#').next().unwrap_or_default().trim().split_once(char::is_whitespace))
        .filter(|(address, _)| address.parse().is_ok_and(|ip| !is_global_unicast(ip)))
        .flat_map(|(_, names)| names.split_whitespace())
        .filter(|name| !is_address(name))
        .collect();
    assert!(!names.is_empty(), "{hosts}");
    let o = Outbound::default();
    for name in names {
        assert_eq!(o.check(name, 143).await, Err(DialError::HostNotFound), "{name}");
        assert_eq!(o.check(name, 22).await, Err(DialError::PortNotAllowed), "{name}");
        assert_eq!(
            o.dial(name, 143, &Deadlines::default()).await.map(drop),
            Err(DialError::HostNotFound),
            "{name}"
        );
    }
}

#[tokio::test]
async fn what_may_not_be_checked_may_not_be_dialled_or_spoken_to_in_clear() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    // The port alone is allowed, for another network.
    let o = outbound(&format!("10.0.0.0/8:{port}"));
    for host in ["127.0.0.1", "2130706433", "localhost", "::ffff:127.0.0.1"] {
        let dialled = o.dial(host, port, &Deadlines::default()).await.map(drop);
        assert_eq!(dialled, Err(DialError::HostNotAllowed), "{host}");
        assert_eq!(o.allows_plain(host, port).await, Err(DialError::HostNotAllowed), "{host}");
        assert!(!o.is_allowed_explicitly(host, port), "{host}");
    }
    let called = tokio::time::timeout(std::time::Duration::from_millis(100), listener.accept()).await;
    assert!(called.is_err(), "somebody called");
    assert_eq!(o.allows_plain("8.8.8.8", 143).await, Ok(false), "public is not enough without TLS");
}

#[test]
fn an_allowed_network_has_exact_edges_and_no_disguise() {
    let o = outbound("10.1.0.0/16, [fd00:1::/32]:993, 192.0.2.7");
    for (host, port, allowed) in [
        ("10.1.0.0", 143, true),
        ("10.1.255.255", 1, true),
        ("10.0.255.255", 143, false),
        ("10.2.0.0", 143, false),
        ("::ffff:10.1.0.1", 143, false),
        ("fd00:1:ffff::1", 993, true),
        ("fd00:1::1", 143, false),
        ("fd00:2::1", 993, false),
        ("192.0.2.7", 25, true),
        ("192.0.2.6", 25, false),
    ] {
        assert_eq!(o.is_allowed_explicitly(host, port), allowed, "{host} {port}");
    }
}

#[tokio::test]
async fn ports_outside_mail_are_refused_even_on_public_hosts() {
    assert_eq!(Outbound::default().check("8.8.8.8", 22).await, Err(DialError::PortNotAllowed));
    assert_eq!(Outbound::default().check("8.8.8.8", 993).await, Ok(()));
    assert_eq!(outbound("127.0.0.0/8:22").check("8.8.8.8", 22).await, Err(DialError::PortNotAllowed));
}

#[tokio::test]
async fn the_port_of_a_name_without_an_address_is_judged_as_well() {
    let o = outbound("127.0.0.0/8, known.invalid:14143");
    assert_eq!(o.check("nope.invalid", 22).await, Err(DialError::PortNotAllowed));
    assert_eq!(o.check("known.invalid", 22).await, Err(DialError::PortNotAllowed));
    for (host, port) in [("nope.invalid", 993), ("known.invalid.", 14143)] {
        let told = o.check(host, port).await;
        // Where the machine's resolver is out of reach, that is what is told.
        assert!(matches!(told, Err(DialError::HostNotFound | DialError::Timeout)), "{host}: {told:?}");
    }
}

#[tokio::test]
async fn an_allow_entry_lifts_both_rules_for_what_it_names_only() {
    let o = outbound("127.0.0.0/8:14000-15000, localhost:9");
    assert_eq!(o.check("127.0.0.1", 14143).await, Ok(()));
    assert_eq!(o.check("localhost", 9).await, Ok(()));
    assert_eq!(o.check("127.0.0.1", 9).await, Err(DialError::HostNotAllowed));
    assert_eq!(o.check("127.0.0.1", 143).await, Err(DialError::HostNotAllowed));
    assert!(o.is_allowed_explicitly("LOCALHOST", 9) && !o.is_allowed_explicitly("8.8.8.8", 993));
}

#[tokio::test]
async fn an_allowed_listener_is_reached_and_a_closed_port_is_unreachable() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let o = outbound("127.0.0.1");
    let stream = o.dial("127.0.0.1", port, &Deadlines::default()).await.unwrap();
    assert!(stream.nodelay().unwrap());
    drop((listener, stream));
    let refused = o.dial("127.0.0.1", port, &Deadlines::default()).await;
    assert!(matches!(refused, Err(DialError::Unreachable(_))), "{refused:?}");
}
