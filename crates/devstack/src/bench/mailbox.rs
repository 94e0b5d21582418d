//! Mailboxes as a server has them that has long had this mail: written, indexed, on disk and read once.

use anyhow::{Context, Result, bail};
use devstack::Endpoints;
use devstack::corpus::Generator;
use tokio::process::Command;
use tokio::task::spawn_blocking;

use super::imap;
use crate::product::MAIL_PASSWORD;

/// How many messages of which size; without one they are as people get them, 24 KB in the mean.
#[derive(Clone, Copy)]
pub(super) struct Corpus {
    pub(super) messages: usize,
    pub(super) size: Option<usize>,
}

impl Corpus {
    /// No two calls with different tags give one message in common.
    pub(super) fn generator(self, tag: &str) -> Generator {
        let generator = Generator::new(1, tag);
        match self.size {
            Some(size) => generator.sized(size),
            None => generator,
        }
    }
}

/// A mailbox, and what proves that all of it has arrived.
#[derive(Clone, Default)]
pub(super) struct Filled {
    pub(super) user: String,
    pub(super) messages: usize,
    pub(super) bytes: u64,
    /// A word that only the oldest message has.
    pub(super) oldest_token: String,
    /// Message-ID of the newest.
    pub(super) newest: String,
}

impl Filled {
    pub(super) fn megabytes(&self) -> f64 {
        self.bytes as f64 / 1e6
    }
}

/// The INBOX of a new user of that name. Messages are generated while they are written, never held.
pub(super) async fn fill(endpoints: &Endpoints, name: &str, corpus: Corpus) -> Result<Filled> {
    let (stack, user) = (endpoints.clone(), format!("{name}@lab.test"));
    let mut filled = Filled { user: user.clone(), messages: corpus.messages, ..Filled::default() };
    let filled = spawn_blocking(move || -> Result<Filled> {
        stack.add_mailbox(&user, MAIL_PASSWORD)?;
        let messages = corpus.generator(name_of(&user)).to(&user).messages(corpus.messages).map(|m| {
            filled.bytes += m.bytes.len() as u64;
            if filled.oldest_token.is_empty() {
                filled.oldest_token = m.token;
            }
            filled.newest = m.message_id;
            ("INBOX", m.flags, m.internal_date, m.bytes)
        });
        stack.fill(&user, messages)?;
        index(&stack, &user)?;
        // Thrown away: what reads first after a filling may take ten times as long.
        let read = imap::read_all(&stack, &user)?.bytes;
        if read < filled.bytes {
            bail!("{user}: the server gave {read} of {} bytes", filled.bytes);
        }
        Ok(filled)
    })
    .await??;
    flush().await?;
    Ok(filled)
}

/// A new user with so many mailboxes beside INBOX, each with `each` small messages.
pub(super) async fn fill_many(
    endpoints: &Endpoints,
    name: &str,
    count: usize,
    each: usize,
) -> Result<Filled> {
    let (stack, user) = (endpoints.clone(), format!("{name}@lab.test"));
    let messages = count * each;
    let filled = Filled { user: user.clone(), messages, ..Filled::default() };
    spawn_blocking(move || -> Result<()> {
        stack.add_mailbox(&user, MAIL_PASSWORD)?;
        let all =
            Corpus { messages, size: Some(4_096) }.generator(name_of(&user)).to(&user).messages(messages);
        let all = all.enumerate().map(|(n, m)| (format!("box{:03}", n / each), m));
        stack.fill(&user, all.map(|(mailbox, m)| (mailbox, m.flags, m.internal_date, m.bytes)))?;
        index(&stack, &user)
    })
    .await??;
    flush().await?;
    Ok(filled)
}

fn name_of(user: &str) -> &str {
    user.split('@').next().unwrap_or(user)
}

fn index(endpoints: &Endpoints, user: &str) -> Result<()> {
    let output = endpoints.doveadm(&["index", "-u", user, "*"])?;
    if !output.status.success() {
        bail!("doveadm index: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// Has the system write what it still owes the disk, so that nobody is measured doing it for another.
pub(super) async fn flush() -> Result<()> {
    let status = Command::new("sync").status().await.context("sync")?;
    if !status.success() {
        bail!("sync: {status}");
    }
    Ok(())
}
