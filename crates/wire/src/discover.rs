//! Servers of an address that nobody has named: where its domain, or its provider, says they are.
//!
//! Sources, the most trusted first: the built-in table of large providers ([`providers`]), the domain's own configuration
//! document over HTTPS ([`autoconfig`]), its SRV records (RFC 6186, RFC 8314), and the hosts that take its mail, where they
//! are a known provider's. For a domain of the table nobody else is asked. Nothing found here is connected to: a host is
//! only judged by [`Outbound`], and one that may not be dialled is left out. To add a source: a variant of [`Source`], in
//! its place, and its arm in [`discover`].

mod autoconfig;
mod https;
mod notes;
mod providers;

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::timeout;

use crate::dial::{DialError, Outbound};
use crate::dns::{Dns, DnsError, Service};
use crate::imap::{Endpoint, Security};
use crate::tls::TlsConfig;

pub use notes::Note;

/// The longest one source may take: a person waits.
const PATIENCE: Duration = Duration::from_secs(8);

/// Where a candidate comes from, the most trusted first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The built-in table.
    Table,
    /// A configuration document.
    Autoconfig,
    /// SRV records.
    Srv,
    /// The provider that takes the domain's mail.
    Mx,
}

impl Source {
    /// As clients see it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Autoconfig => "autoconfig",
            Self::Srv => "srv",
            Self::Mx => "mx",
        }
    }
}

/// How likely a candidate works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confidence {
    /// Known, or said by the domain itself over a line that proves it.
    High,
    /// Said by the DNS, which proves nothing, or concluded.
    Medium,
}

/// A server and who one is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suggestion {
    /// Where.
    pub endpoint: Endpoint,
    /// The user name.
    pub username: String,
}

/// Settings that may work. At least one of the servers is there, or a note why there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Where it comes from.
    pub source: Source,
    /// Sources that say the same.
    pub confirmed_by: Vec<Source>,
    /// How likely it works.
    pub confidence: Confidence,
    /// The provider's name, where it is known.
    pub provider: Option<String>,
    /// Where mail is read.
    pub imap: Option<Suggestion>,
    /// Where mail is handed in.
    pub smtp: Option<Suggestion>,
    /// What a user should know.
    pub notes: Vec<Note>,
}

/// How a source answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// With at least one candidate.
    Found,
    /// With nothing that can be used.
    Nothing,
    /// Not: why.
    Failed(String),
}

/// What was found, and how each source that was asked answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovered {
    /// The best first; none twice.
    pub candidates: Vec<Candidate>,
    /// In the order of trust.
    pub sources: Vec<(Source, Answer)>,
}

/// The means of a discovery.
#[derive(Clone, Copy, Debug)]
pub struct Discovery<'a> {
    /// Whom to ask for records.
    pub dns: &'a Dns,
    /// The one way out.
    pub outbound: &'a Outbound,
    /// Trust for HTTPS.
    pub tls: &'a TlsConfig,
    /// Where configuration documents are served: [`HTTPS_PORT`].
    pub https_port: u16,
}

/// The port of HTTPS.
pub const HTTPS_PORT: u16 = 443;

/// An address, taken apart.
#[derive(Clone, Debug)]
struct Who {
    email: String,
    local: String,
    /// In ASCII, lower case.
    domain: String,
}

impl Who {
    /// `None` when the domain is none.
    fn read(email: &str) -> Option<Self> {
        let (local, domain) = email.rsplit_once('@')?;
        // The parser of URLs knows what internationalised names are in ASCII, and which are none.
        let url = url::Url::parse(&format!("https://{domain}/")).ok()?;
        let host = url.host_str()?.trim_end_matches('.').to_ascii_lowercase();
        let plain =
            url.port().is_none() && url.username().is_empty() && url.path() == "/" && host.contains('.');
        let named = host.parse::<IpAddr>().is_err() && !host.starts_with('[');
        (plain && named).then(|| Self { email: email.to_owned(), local: local.to_owned(), domain: host })
    }
}

/// Finds settings for `email`, which is a checked address. `None`: its domain is none that could have any.
pub async fn discover(way: Discovery<'_>, email: &str) -> Option<Discovered> {
    let who = Who::read(email)?;
    if let Some(provider) = providers::of_domain(&who.domain) {
        let candidates = vec![provider.candidate(Source::Table, Confidence::High, &who)];
        return Some(Discovered { candidates, sources: vec![(Source::Table, Answer::Found)] });
    }
    let (documents, records, hosts) = tokio::join!(
        limited(autoconfig::find(way, &who)),
        limited(services(way, &who)),
        limited(mail_hosts(way, &who)),
    );
    let mut candidates: Vec<Candidate> = Vec::new();
    let mut sources = vec![(Source::Table, Answer::Nothing)];
    for (source, found) in [(Source::Autoconfig, documents), (Source::Srv, records), (Source::Mx, hosts)] {
        let answer = match found {
            Err(text) => Answer::Failed(text),
            Ok(found) => {
                let mut any = false;
                for candidate in found {
                    if let Some(candidate) = permitted(way.outbound, candidate).await {
                        any = true;
                        merge(&mut candidates, candidate);
                    }
                }
                if any { Answer::Found } else { Answer::Nothing }
            }
        };
        sources.push((source, answer));
    }
    Some(Discovered { candidates, sources })
}

async fn limited(
    work: impl Future<Output = Result<Vec<Candidate>, String>>,
) -> Result<Vec<Candidate>, String> {
    timeout(PATIENCE, work).await.unwrap_or_else(|_| Err("no answer in time".to_owned()))
}

/// The same servers are told once, by the most trusted source.
fn merge(all: &mut Vec<Candidate>, new: Candidate) {
    match all.iter_mut().find(|c| c.imap == new.imap && c.smtp == new.smtp && c.imap.is_some()) {
        Some(known) if known.source != new.source => {
            known.confirmed_by.push(new.source);
            known.provider = known.provider.take().or(new.provider);
            for note in new.notes {
                if !known.notes.contains(&note) {
                    known.notes.push(note);
                }
            }
        }
        Some(_) => {}
        None => all.push(new),
    }
}

/// Without servers that could not be connected to anyway; `None` when nothing is left of what was suggested.
async fn permitted(outbound: &Outbound, mut candidate: Candidate) -> Option<Candidate> {
    if candidate.source == Source::Mx {
        return Some(candidate);
    }
    for server in [&mut candidate.imap, &mut candidate.smtp] {
        if let Some(found) = server {
            let verdict = outbound.check(&found.endpoint.host, found.endpoint.port).await;
            if matches!(
                verdict,
                Err(DialError::HostNotAllowed | DialError::PortNotAllowed | DialError::HostNotFound)
            ) {
                *server = None;
            }
        }
    }
    (candidate.imap.is_some() || candidate.smtp.is_some()).then_some(candidate)
}

/// RFC 6186 and RFC 8314: TLS from the first byte before STARTTLS, whatever the priorities among them.
async fn services(way: Discovery<'_>, who: &Who) -> Result<Vec<Candidate>, String> {
    let ask = |service: &'static str| way.dns.services(service, &who.domain);
    let (imaps, imap, submissions, submission) = tokio::join!(
        ask("_imaps._tcp"),
        ask("_imap._tcp"),
        ask("_submissions._tcp"),
        ask("_submission._tcp")
    );
    let all = [imaps, imap, submissions, submission];
    if all.iter().all(Result::is_err) {
        let error = all.into_iter().find_map(Result::err).unwrap_or(DnsError::Timeout);
        return Err(error.to_string());
    }
    let first = |found: Result<Vec<Service>, DnsError>, security| {
        let service = found.unwrap_or_default().into_iter().next().filter(|s| !s.host.is_empty())?;
        let endpoint = Endpoint { host: service.host, port: service.port, security };
        Some(Suggestion { endpoint, username: who.email.clone() })
    };
    let [imaps, imap, submissions, submission] = all;
    let imap = [first(imaps, Security::Tls), first(imap, Security::StartTls)];
    let smtp = [first(submissions, Security::Tls), first(submission, Security::StartTls)];
    let best = |both: &[Option<Suggestion>; 2]| both.iter().flatten().next().cloned();
    let [_, imap_second] = &imap;
    let [_, smtp_second] = &smtp;
    let pairs = [(best(&imap), best(&smtp)), (imap_second.clone(), smtp_second.clone())];
    Ok(pairs
        .into_iter()
        .filter(|(imap, _)| imap.is_some())
        .map(|(imap, smtp)| {
            let own =
                |s: &Option<Suggestion>| s.as_ref().is_none_or(|s| belongs(&s.endpoint.host, &who.domain));
            // RFC 6186 §6: whoever can forge the answer can name any host; one inside the domain has to prove its name.
            let confidence = if own(&imap) && own(&smtp) { Confidence::High } else { Confidence::Medium };
            Candidate {
                source: Source::Srv,
                confirmed_by: Vec::new(),
                confidence,
                provider: None,
                imap,
                smtp,
                notes: Vec::new(),
            }
        })
        .collect())
}

/// Whether `host` is `domain` or below it.
fn belongs(host: &str, domain: &str) -> bool {
    host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

async fn mail_hosts(way: Discovery<'_>, who: &Who) -> Result<Vec<Candidate>, String> {
    let hosts = way.dns.mail_hosts(&who.domain).await.map_err(|e| e.to_string())?;
    let provider = hosts.iter().find_map(|host| providers::of_mail_host(host));
    Ok(provider.map(|p| p.candidate(Source::Mx, Confidence::Medium, who)).into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_apart_and_a_domain_that_is_none_is_refused() {
        let domain = |email: &str| Who::read(email).map(|w| w.domain);
        assert_eq!(domain("a@Example.COM"), Some("example.com".into()));
        assert_eq!(domain("a@münchen.example"), Some("xn--mnchen-3ya.example".into()));
        for none in [
            "a",
            "a@",
            "a@localhost",
            "a@127.0.0.1",
            "a@[127.0.0.1]",
            "a@2130706433",
            "a@b.example:80",
            "a@b.example/x",
            "a@x@",
            "a@b .example",
        ] {
            assert_eq!(domain(none), None, "{none}");
        }
    }

    #[test]
    fn a_host_belongs_to_its_domain_by_whole_labels() {
        for (host, domain, expected) in [
            ("example.com", "example.com", true),
            ("imap.example.com", "example.com", true),
            ("evilexample.com", "example.com", false),
            ("example.com.evil.test", "example.com", false),
        ] {
            assert_eq!(belongs(host, domain), expected, "{host}");
        }
    }

    #[test]
    fn the_same_servers_are_told_once_with_all_that_say_so() {
        let candidate = |source, host: &str, note: Note| Candidate {
            source,
            confirmed_by: Vec::new(),
            confidence: Confidence::High,
            provider: None,
            imap: Some(Suggestion {
                endpoint: Endpoint { host: host.into(), port: 993, security: Security::Tls },
                username: "a@b.c".into(),
            }),
            smtp: None,
            notes: vec![note],
        };
        let mut all = Vec::new();
        for (source, host, note) in [
            (Source::Autoconfig, "a", Note::SwitchOn),
            (Source::Srv, "a", Note::LocalPart),
            (Source::Srv, "b", Note::SwitchOn),
            (Source::Mx, "a", Note::SwitchOn),
        ] {
            merge(&mut all, candidate(source, host, note));
        }
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].confirmed_by, [Source::Srv, Source::Mx]);
        assert_eq!(all[0].notes, [Note::SwitchOn, Note::LocalPart]);
    }
}
