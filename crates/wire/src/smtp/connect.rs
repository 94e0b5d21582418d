//! From a host to a server that has greeted us, under TLS where it must be.
//!
//! What was announced before STARTTLS is forgotten; a server that was to offer it and does not is refused (an attacker
//! on the line can remove the offer).

use lettre::transport::smtp::commands::{Ehlo, Quit, Starttls};
use lettre::transport::smtp::extension::ClientId;
use mail::smtp_reply::SmtpReply;

use super::stream::{Duplex, LineStream};
use super::{Dialler, Endpoint, Security, SmtpError};
use crate::dial::Deadlines;
use crate::trouble::{Forbidden, Unopened};

/// What the server announced (RFC 5321 §4.1.1.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// RFC 3207.
    pub starttls: bool,
    /// RFC 6152.
    pub eight_bit_mime: bool,
    /// RFC 6531.
    pub smtputf8: bool,
    /// RFC 1870; `Some(0)` announces no limit.
    pub size_bytes: Option<u64>,
    /// RFC 4954, names in capitals.
    pub auth: Vec<String>,
}

impl Features {
    /// From the lines of an EHLO reply, the first of which is the server's name.
    pub(super) fn from_lines(lines: &[String]) -> Self {
        let mut features = Self::default();
        for line in lines.iter().skip(1) {
            // `AUTH=PLAIN` is how servers of the nineties spelt it; some still announce both.
            let line = line.to_ascii_uppercase().replace("AUTH=", "AUTH ");
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("STARTTLS") => features.starttls = true,
                Some("8BITMIME") => features.eight_bit_mime = true,
                Some("SMTPUTF8") => features.smtputf8 = true,
                Some("SIZE") => {
                    features.size_bytes = Some(words.next().and_then(|n| n.parse().ok()).unwrap_or(0))
                }
                Some("AUTH") => features.auth.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        features
    }
}

/// A server that has greeted us.
#[derive(Debug)]
pub struct Connection {
    pub(super) stream: LineStream,
    pub(super) features: Features,
    pub(super) deadlines: Deadlines,
}

/// Connects and greets; login is `login.rs`.
pub(super) async fn connect(dialler: &Dialler<'_>, endpoint: &Endpoint) -> Result<Connection, SmtpError> {
    let Endpoint { host, port, security } = endpoint;
    let (outbound, deadlines) = (dialler.outbound, dialler.deadlines);
    if *security == Security::Plain && !outbound.allows_plain(host, *port).await.map_err(Unopened::from)? {
        return Err(SmtpError::NotAllowed(Forbidden::Plain));
    }
    let socket = outbound.dial(host, *port, &deadlines).await.map_err(Unopened::from)?;
    match security {
        Security::Plain => greet(Box::new(socket), dialler.helo_name, deadlines).await,
        Security::Tls => {
            let stream = dialler.tls.connect(host, socket, deadlines.tls).await.map_err(Unopened::from)?;
            greet(Box::new(stream), dialler.helo_name, deadlines).await
        }
        Security::StartTls => {
            let socket = start_tls(Box::new(socket), dialler.helo_name, deadlines).await?;
            let stream = dialler.tls.connect(host, socket, deadlines.tls).await.map_err(Unopened::from)?;
            let mut stream = LineStream::new(Box::new(stream));
            let lines = ehlo(&mut stream, dialler.helo_name, deadlines).await?;
            Ok(Connection { stream, features: Features::from_lines(&lines), deadlines })
        }
    }
}

/// Banner and EHLO.
pub(super) async fn greet(
    io: Box<dyn Duplex>,
    helo_name: &str,
    deadlines: Deadlines,
) -> Result<Connection, SmtpError> {
    let mut stream = LineStream::new(io);
    banner(&mut stream, deadlines).await?;
    let lines = ehlo(&mut stream, helo_name, deadlines).await?;
    Ok(Connection { stream, features: Features::from_lines(&lines), deadlines })
}

/// What the server says first.
pub(super) async fn banner(stream: &mut LineStream, deadlines: Deadlines) -> Result<SmtpReply, SmtpError> {
    let banner = stream.reply(deadlines.reply).await?.reply;
    if banner.code == 220 { Ok(banner) } else { Err(unexpected(banner)) }
}

/// Banner, EHLO, STARTTLS; hands back the stream with nothing unread on it.
pub(super) async fn start_tls(
    io: Box<dyn Duplex>,
    helo_name: &str,
    deadlines: Deadlines,
) -> Result<Box<dyn Duplex>, SmtpError> {
    upgrade(greet(io, helo_name, deadlines).await?).await
}

/// STARTTLS; hands back the stream with nothing unread on it.
pub(super) async fn upgrade(mut connection: Connection) -> Result<Box<dyn Duplex>, SmtpError> {
    let deadlines = connection.deadlines;
    if !connection.features.starttls {
        return Err(SmtpError::protocol("the server does not offer STARTTLS"));
    }
    let reply = connection.stream.command(Starttls.to_string(), deadlines.reply).await?.reply;
    if reply.code != 220 {
        return Err(unexpected(reply));
    }
    connection.stream.into_inner()
}

/// The lines of the answer to EHLO, the server's name first.
pub(super) async fn ehlo(
    stream: &mut LineStream,
    helo_name: &str,
    deadlines: Deadlines,
) -> Result<Vec<String>, SmtpError> {
    let name = match helo_name.parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V4(ip)) => ClientId::Ipv4(ip),
        Ok(std::net::IpAddr::V6(ip)) => ClientId::Ipv6(ip),
        Err(_) => ClientId::Domain(helo_name.chars().filter(|c| c.is_ascii_graphic()).collect()),
    };
    let answer = stream.command(Ehlo::new(name).to_string(), deadlines.reply).await?;
    if answer.reply.code != 250 {
        return Err(unexpected(answer.reply));
    }
    Ok(answer.lines)
}

/// A refusal keeps its code; a success where none makes sense breaks the protocol.
pub(super) fn unexpected(reply: SmtpReply) -> SmtpError {
    if reply.code >= 400 {
        SmtpError::Refused(reply)
    } else {
        SmtpError::Protocol(format!("unexpected reply {}", reply.code))
    }
}

impl Connection {
    /// What the server announced, after TLS where there is TLS.
    #[must_use]
    pub const fn features(&self) -> &Features {
        &self.features
    }

    /// Says goodbye and does not mind the answer: all that mattered has been acknowledged.
    pub async fn quit(mut self) {
        let limit = self.deadlines.reply.min(std::time::Duration::from_secs(2));
        let _ = self.stream.command(Quit.to_string(), limit).await;
        self.stream.shutdown(limit).await;
    }
}

#[cfg(test)]
mod tests {
    use super::super::script::{Server, deadlines};
    use super::*;

    #[test]
    fn announcements_are_read_in_any_case_and_spelling() {
        let lines =
            ["x", "size 100", "8bitmime", "AUTH=LOGIN", "AUTH PLAIN XOAUTH2", "SMTPUTF8", "STARTTLS", ""];
        let f = Features::from_lines(&lines.map(str::to_owned));
        assert_eq!(f.auth, ["LOGIN", "PLAIN", "XOAUTH2"]);
        assert_eq!((f.size_bytes, f.eight_bit_mime, f.smtputf8, f.starttls), (Some(100), true, true, true));
    }

    #[tokio::test]
    async fn a_server_without_starttls_is_refused_where_tls_is_required() {
        let server = Server::new().features(&["SIZE 10"]);
        let refused = start_tls(server.start(), "us", deadlines()).await.err();
        assert!(matches!(refused, Some(SmtpError::Protocol(_))));
    }

    #[tokio::test]
    async fn what_is_sent_in_clear_after_starttls_is_refused() {
        let server = Server::new().features(&["STARTTLS"]).answer("STARTTLS", "220 go\r\n250 injected\r\n");
        let refused = start_tls(server.start(), "us", deadlines()).await.err();
        assert!(matches!(refused, Some(SmtpError::Protocol(_))));
    }

    #[tokio::test]
    async fn a_banner_of_refusal_keeps_its_code() {
        let refused =
            greet(Server::new().banner("554 no service\r\n").start(), "us", deadlines()).await.unwrap_err();
        assert_eq!(refused.code(), Some(554));
        assert!(!refused.is_temporary());
    }

    #[tokio::test]
    async fn what_is_not_smtp_is_told_apart() {
        let refused =
            greet(Server::new().banner("* OK IMAP4rev1\r\n").start(), "us", deadlines()).await.unwrap_err();
        assert!(matches!(refused, SmtpError::Protocol(_)));
    }
}
