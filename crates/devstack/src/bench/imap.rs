//! A mail client that only talks: the second client of a measurement, and the floor that no synchronisation can beat.
//!
//! On the plain port of loopback. TLS would need a library that nothing else here needs, so the floor is that of a
//! server that encrypts nothing, which ours and mbsync are not granted.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use devstack::Endpoints;

use crate::product::MAIL_PASSWORD;

/// A server that says nothing for so long has forgotten us.
const SILENCE: Duration = Duration::from_secs(120);
const READ_BYTES: usize = 1 << 20;
/// No tagged answer is longer.
const TAIL_BYTES: usize = 512;

/// A session that is logged in and has INBOX selected.
pub(super) struct Client {
    stream: BufReader<TcpStream>,
    commands: usize,
}

/// What came of reading a whole mailbox.
pub(super) struct Whole {
    pub(super) seconds: f64,
    pub(super) bytes: u64,
}

/// Connects, logs in, asks for every message's bytes in one command and throws them away.
pub(super) fn read_all(endpoints: &Endpoints, user: &str) -> Result<Whole> {
    let started = Instant::now();
    let bytes = Client::open(endpoints, user)?.discard("UID FETCH 1:* (BODY.PEEK[])")?;
    Ok(Whole { seconds: started.elapsed().as_secs_f64(), bytes })
}

impl Client {
    pub(super) fn open(endpoints: &Endpoints, user: &str) -> Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, endpoints.imap_port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE))?;
        let mut client = Self { stream: BufReader::with_capacity(READ_BYTES, stream), commands: 0 };
        let greeting = client.line()?;
        if !greeting.starts_with("* OK") {
            bail!("IMAP said {greeting:?}");
        }
        client.command(&format!("LOGIN {user} {MAIL_PASSWORD}"))?;
        client.command("SELECT INBOX")?;
        Ok(client)
    }

    /// The untagged lines of the answer. The command must be one that is answered without literals.
    pub(super) fn command(&mut self, command: &str) -> Result<Vec<String>> {
        let tag = self.send(command)?;
        self.answer(&tag, command)
    }

    /// UIDs of the messages that `what` finds, in their order.
    pub(super) fn search(&mut self, what: &str) -> Result<Vec<u32>> {
        let lines = self.command(&format!("UID SEARCH {what}"))?;
        let found = lines.iter().filter_map(|line| line.strip_prefix("* SEARCH"));
        found.flat_map(str::split_whitespace).map(|uid| uid.parse().context("SEARCH")).collect()
    }

    /// Puts a message into INBOX.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let tag = self.send(&format!("APPEND INBOX {{{}}}", bytes.len()))?;
        let go_on = self.line()?;
        if !go_on.starts_with('+') {
            bail!("APPEND: {go_on:?}");
        }
        self.stream.get_mut().write_all(&[bytes, b"\r\n"].concat())?;
        self.answer(&tag, "APPEND").map(drop)
    }

    fn send(&mut self, command: &str) -> Result<String> {
        self.commands += 1;
        let tag = format!("bench{}", self.commands);
        self.stream.get_mut().write_all(format!("{tag} {command}\r\n").as_bytes())?;
        Ok(tag)
    }

    fn answer(&mut self, tag: &str, command: &str) -> Result<Vec<String>> {
        let mut untagged = Vec::new();
        loop {
            let line = self.line()?;
            match line.strip_prefix(tag).and_then(|rest| rest.strip_prefix(' ')) {
                Some(status) if status.starts_with("OK") => return Ok(untagged),
                Some(status) => bail!("{command}: {status}"),
                None => untagged.push(line),
            }
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = Vec::new();
        if self.stream.read_until(b'\n', &mut line)? == 0 {
            bail!("the IMAP server has hung up");
        }
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    /// How many bytes were answered. What they say is not looked at, but for the end: the tagged line is the last that
    /// the server sends.
    fn discard(&mut self, command: &str) -> Result<u64> {
        let tag = self.send(command)?;
        let mark = format!("\r\n{tag} ");
        let (mut buffer, mut tail, mut bytes) = (vec![0; READ_BYTES], Vec::new(), 0);
        loop {
            let count = self.stream.read(&mut buffer)?;
            if count == 0 {
                bail!("the IMAP server has hung up");
            }
            bytes += count as u64;
            let read = buffer.get(..count).unwrap_or_default();
            tail.extend_from_slice(read.get(count.saturating_sub(TAIL_BYTES)..).unwrap_or_default());
            tail.drain(..tail.len().saturating_sub(TAIL_BYTES));
            if !tail.ends_with(b"\r\n") {
                continue;
            }
            let text = String::from_utf8_lossy(&tail);
            if let Some((_, status)) = text.rsplit_once(&mark) {
                if !status.starts_with("OK") {
                    bail!("{command}: {status}");
                }
                return Ok(bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use devstack::{Options, Stack, corpus::Generator};

    #[test]
    fn the_floor_reads_every_byte_and_the_second_client_changes_a_mailbox() {
        let stack = Stack::start(&Options { fsync: false, ..Options::default() }).unwrap();
        let (endpoints, user) = (stack.endpoints(), "floor@lab.test");
        endpoints.add_mailbox(user, super::MAIL_PASSWORD).unwrap();
        let corpus: Vec<_> = Generator::new(9, "floor").messages(40).collect();
        let bytes: usize = corpus.iter().map(|m| m.bytes.len()).sum();
        let more = corpus.iter().map(|m| ("INBOX", m.flags.clone(), m.internal_date, m.bytes.clone()));
        endpoints.fill(user, more).unwrap();
        assert!(super::read_all(endpoints, user).unwrap().bytes > bytes as u64);
        let mut client = super::Client::open(endpoints, user).unwrap();
        let before = client.search("ALL").unwrap();
        client.append(&corpus[0].bytes).unwrap();
        client.command(&format!("UID STORE {} +FLAGS.SILENT (\\Deleted)", before[3])).unwrap();
        client.command("EXPUNGE").unwrap();
        let after = client.search("ALL").unwrap();
        assert_eq!((before.len(), after.len()), (40, 40));
        assert!(!after.contains(&before[3]));
        assert!(client.command("UID NONSENSE").is_err());
    }
}
