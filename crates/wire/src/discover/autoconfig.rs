//! Configuration documents in Mozilla's format (`clientConfig` 1.1), which a domain serves about itself over HTTPS.

use roxmltree::{Document, Node, ParsingOptions};
use url::Url;

use super::https::get;
use super::{Candidate, Confidence, Discovery, HTTPS_PORT, Note, Source, Suggestion, Who};
use crate::imap::{Endpoint, Security};

/// Elements and texts of a document; more belong to none.
const MAX_NODES: u32 = 5_000;
/// Servers of one kind that are looked at.
const MAX_SERVERS: usize = 3;
/// Bytes of a name.
const MAX_TEXT: usize = 253;

/// Asks both places where a domain may serve its document.
///
/// # Errors
/// In words, when neither could be read and at least one is there.
pub(super) async fn find(way: Discovery<'_>, who: &Who) -> Result<Vec<Candidate>, String> {
    let domain = &who.domain;
    let places = [
        (format!("autoconfig.{domain}"), "/mail/config-v1.1.xml", true),
        (domain.clone(), "/.well-known/autoconfig/mail/config-v1.1.xml", false),
    ];
    let [first, second] =
        places.map(|(host, path, ask)| address(way, &host, path, ask.then_some(&*who.email)));
    let (first, second) = tokio::join!(fetch(way, who, first), fetch(way, who, second));
    let mut failed = None;
    for answer in [first, second] {
        match answer {
            Ok(found) if !found.is_empty() => return Ok(found),
            Ok(_) => {}
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    failed.map_or(Ok(Vec::new()), Err)
}

fn address(way: Discovery<'_>, host: &str, path: &str, email: Option<&str>) -> Option<Url> {
    let port = if way.https_port == HTTPS_PORT { String::new() } else { format!(":{}", way.https_port) };
    let mut url = Url::parse(&format!("https://{host}{port}{path}")).ok()?;
    if let Some(email) = email {
        url.query_pairs_mut().append_pair("emailaddress", email);
    }
    Some(url)
}

async fn fetch(way: Discovery<'_>, who: &Who, url: Option<Url>) -> Result<Vec<Candidate>, String> {
    let Some(url) = url else { return Ok(Vec::new()) };
    match get(way, url).await? {
        Some(bytes) => read(&bytes, who),
        None => Ok(Vec::new()),
    }
}

/// Reads a document: pairs of servers in its order, those without TLS left out.
///
/// # Errors
/// What is wrong with it.
fn read(bytes: &[u8], who: &Who) -> Result<Vec<Candidate>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "the document is not UTF-8".to_owned())?;
    let text = text.trim_start_matches('\u{feff}').trim_start();
    // A document type can only do harm here: no entities, no references.
    let options = ParsingOptions { allow_dtd: false, nodes_limit: MAX_NODES, ..ParsingOptions::default() };
    let document = Document::parse_with_options(text, options)
        .map_err(|e| format!("the document cannot be read: {e}"))?;
    let Some(provider) = child(document.root_element(), "emailProvider") else { return Ok(Vec::new()) };
    let mut imap = servers(provider, "incomingServer", "imap", who);
    let mut smtp = servers(provider, "outgoingServer", "smtp", who);
    let name = child(provider, "displayName")
        .and_then(content)
        .map(|name| mail::address::clean_text(name, MAX_TEXT));
    let pairs = imap.len().max(usize::from(!smtp.is_empty()));
    imap.resize(pairs, None);
    smtp.resize(pairs, smtp.first().cloned().flatten());
    let candidates = imap.into_iter().zip(smtp).map(|(imap, smtp)| {
        let oauth = |s: &Option<(Suggestion, bool)>| s.as_ref().is_some_and(|(_, oauth)| *oauth);
        let notes = match oauth(&imap) || oauth(&smtp) {
            true => vec![Note::OAuthPreferred],
            false => Vec::new(),
        };
        Candidate {
            source: Source::Autoconfig,
            confirmed_by: Vec::new(),
            confidence: Confidence::High,
            provider: name.clone(),
            imap: imap.map(|(server, _)| server),
            smtp: smtp.map(|(server, _)| server),
            notes,
        }
    });
    Ok(candidates.collect())
}

/// The servers of one kind, each with whether it takes OAuth2 only.
fn servers(provider: Node<'_, '_>, element: &str, kind: &str, who: &Who) -> Vec<Option<(Suggestion, bool)>> {
    provider
        .children()
        .filter(|node| node.has_tag_name(element) && node.attribute("type") == Some(kind))
        .filter_map(|node| server(node, who))
        .take(MAX_SERVERS)
        .map(Some)
        .collect()
}

fn server(node: Node<'_, '_>, who: &Who) -> Option<(Suggestion, bool)> {
    let text = |name: &str| child(node, name).and_then(content);
    let security = match text("socketType")? {
        "SSL" => Security::Tls,
        "STARTTLS" => Security::StartTls,
        _ => return None,
    };
    let host = fill(text("hostname")?, who).to_ascii_lowercase();
    let username = text("username").map_or_else(|| who.email.clone(), |username| fill(username, who));
    let port = text("port")?.parse().ok().filter(|port| *port > 0)?;
    let fits = |text: &str| !text.is_empty() && text.len() <= MAX_TEXT && !text.chars().any(char::is_control);
    if !fits(&host) || !fits(&username) {
        return None;
    }
    let ways: Vec<&str> =
        node.children().filter(|n| n.has_tag_name("authentication")).filter_map(content).collect();
    let oauth_only = !ways.is_empty() && ways.iter().all(|way| *way == "OAuth2");
    Some((Suggestion { endpoint: Endpoint { host, port, security }, username }, oauth_only))
}

fn child<'a, 'input>(node: Node<'a, 'input>, name: &str) -> Option<Node<'a, 'input>> {
    node.children().find(|child| child.has_tag_name(name))
}

fn content<'a>(node: Node<'a, '_>) -> Option<&'a str> {
    node.text().map(str::trim).filter(|text| !text.is_empty())
}

fn fill(text: &str, who: &Who) -> String {
    text.replace("%EMAILADDRESS%", &who.email)
        .replace("%EMAILLOCALPART%", &who.local)
        .replace("%EMAILDOMAIN%", &who.domain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who() -> Who {
        Who { email: "ann@example.com".into(), local: "ann".into(), domain: "example.com".into() }
    }

    const SERVERS: &str = r#"
        <incomingServer type="pop3"><hostname>pop.example.com</hostname><port>995</port><socketType>SSL</socketType></incomingServer>
        <incomingServer type="imap"><hostname>IMAP.%EMAILDOMAIN%</hostname><port>993</port><socketType>SSL</socketType>
          <username>%EMAILLOCALPART%</username><authentication>password-cleartext</authentication></incomingServer>
        <incomingServer type="imap"><hostname>imap.example.com</hostname><port>143</port><socketType>STARTTLS</socketType>
          <username>%EMAILADDRESS%</username><authentication>OAuth2</authentication></incomingServer>
        <incomingServer type="imap"><hostname>imap.example.com</hostname><port>143</port><socketType>plain</socketType></incomingServer>
        <outgoingServer type="smtp"><hostname>smtp.example.com</hostname><port>465</port><socketType>SSL</socketType></outgoingServer>"#;

    fn document(inside: &str) -> Vec<u8> {
        format!("<?xml version=\"1.0\"?>\n<clientConfig version=\"1.1\"><emailProvider id=\"x\"><displayName>Example &amp; Co</displayName>{inside}</emailProvider></clientConfig>").into_bytes()
    }

    #[test]
    fn servers_are_read_in_their_order_with_names_filled_in_and_none_without_tls() {
        let found = read(&document(SERVERS), &who()).unwrap();
        let shown: Vec<_> = found
            .iter()
            .map(|c| {
                let show = |s: &Option<Suggestion>| {
                    s.as_ref().map(|s| {
                        format!(
                            "{}:{} {:?} {}",
                            s.endpoint.host, s.endpoint.port, s.endpoint.security, s.username
                        )
                    })
                };
                (show(&c.imap).unwrap(), show(&c.smtp).unwrap(), c.notes.len())
            })
            .collect();
        let smtp = "smtp.example.com:465 Tls ann@example.com";
        assert_eq!(
            shown,
            [
                ("imap.example.com:993 Tls ann".to_owned(), smtp.to_owned(), 0),
                ("imap.example.com:143 StartTls ann@example.com".to_owned(), smtp.to_owned(), 1),
            ]
        );
        assert_eq!(found[0].provider.as_deref(), Some("Example & Co"));
    }

    #[test]
    fn what_is_no_such_document_gives_nothing_or_is_refused() {
        for nothing in
            [&b"<html/>"[..], b"<clientConfig/>", &document(""), &document("<incomingServer type=\"imap\"/>")]
        {
            assert_eq!(read(nothing, &who()).unwrap(), [], "{}", String::from_utf8_lossy(nothing));
        }
        let bomb =
            b"<!DOCTYPE c [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;\">]><clientConfig>&b;</clientConfig>";
        let outside = b"<!DOCTYPE c SYSTEM \"https://evil.example/x.dtd\"><clientConfig/>";
        let deep = "<a>".repeat(20_000);
        let wide = document(&"<b/>".repeat(6_000));
        for refused in [&b""[..], b"not xml", b"\xff\xfe", bomb, outside, deep.as_bytes(), &wide] {
            assert!(read(refused, &who()).is_err(), "{:?}", refused.get(..60));
        }
    }
}
