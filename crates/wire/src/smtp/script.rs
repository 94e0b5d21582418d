//! A scripted server for the tests of this module: answers by the beginning of a line, and can cut the line anywhere.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use super::stream::Duplex;
use super::{Endpoint, Security};
use crate::dial::Deadlines;

pub(super) fn deadlines() -> Deadlines {
    Deadlines { reply: Duration::from_millis(200), ..Deadlines::default() }
}

/// Where a mechanism is told that the connection leads.
pub(super) fn endpoint() -> Endpoint {
    Endpoint { host: "smtp.example.com".into(), port: 587, security: Security::StartTls }
}

/// Lines the server read, without line ends; the body's too.
pub(super) type Heard = Arc<Mutex<Vec<String>>>;

pub(super) struct Server {
    banner: String,
    features: Vec<String>,
    answers: Vec<(String, String)>,
    cut_before: Option<String>,
    silent_at: Option<String>,
    heard: Heard,
}

impl Server {
    pub fn new() -> Self {
        Self {
            banner: "220 test\r\n".to_owned(),
            features: vec!["8BITMIME".to_owned(), "SIZE 100000".to_owned()],
            answers: Vec::new(),
            cut_before: None,
            silent_at: None,
            heard: Heard::default(),
        }
    }
    pub fn banner(mut self, text: &str) -> Self {
        self.banner = text.to_owned();
        self
    }
    pub fn features(mut self, lines: &[&str]) -> Self {
        self.features = lines.iter().map(|l| (*l).to_owned()).collect();
        self
    }
    /// Answers lines that begin with `line` by `text`; the end of the body is the line `.`, and an empty one is just that.
    pub fn answer(mut self, line: &str, text: &str) -> Self {
        self.answers.push((line.to_owned(), text.to_owned()));
        self
    }
    /// Closes instead of answering lines that begin with `line`.
    pub fn cut_at(mut self, line: &str) -> Self {
        self.cut_before = Some(line.to_owned());
        self
    }
    /// Says nothing more from the first line that begins with `line`.
    pub fn silent_at(mut self, line: &str) -> Self {
        self.silent_at = Some(line.to_owned());
        self
    }
    pub fn heard(&self) -> Heard {
        Arc::clone(&self.heard)
    }

    fn reply(&self, line: &str, in_body: bool) -> Option<String> {
        let begins = |begin: &str| line.starts_with(begin) && (!begin.is_empty() || line.is_empty());
        if let Some((_, text)) = self.answers.iter().find(|(l, _)| begins(l) && (!in_body || line == ".")) {
            return Some(text.clone());
        }
        match line.split([' ', ':']).next().unwrap_or_default() {
            _ if in_body => (line == ".").then(|| "250 2.0.0 Ok: queued as ABC\r\n".to_owned()),
            "EHLO" => {
                let mut lines = vec!["test".to_owned()];
                lines.extend(self.features.iter().cloned());
                let last = lines.pop().unwrap_or_default();
                let mut text: String = lines.iter().map(|l| format!("250-{l}\r\n")).collect();
                text.push_str(&format!("250 {last}\r\n"));
                Some(text)
            }
            "DATA" => Some("354 go\r\n".to_owned()),
            _ => Some("250 2.1.0 Ok\r\n".to_owned()),
        }
    }

    /// Runs in the background; the end for the client is returned.
    pub fn start(self) -> Box<dyn Duplex> {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        tokio::spawn(async move {
            let (read, mut write) = tokio::io::split(theirs);
            let mut read = BufReader::new(read);
            if self.cut_before.as_deref() == Some("banner")
                || write.write_all(self.banner.as_bytes()).await.is_err()
            {
                return;
            }
            let mut in_body = false;
            loop {
                let mut bytes = Vec::new();
                if read.read_until(b'\n', &mut bytes).await.unwrap_or(0) == 0 {
                    return;
                }
                let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
                self.heard.lock().unwrap().push(line.clone());
                if self.cut_before.as_ref().is_some_and(|c| line.starts_with(c.as_str())) {
                    return;
                }
                if self.silent_at.as_ref().is_some_and(|c| line.starts_with(c.as_str())) {
                    std::future::pending::<()>().await;
                }
                let Some(reply) = self.reply(&line, in_body) else { continue };
                in_body = !in_body && reply.starts_with("354");
                if write.write_all(reply.as_bytes()).await.is_err() {
                    return;
                }
            }
        });
        Box::new(ours)
    }
}
