//! The peer: mbsync (isync), over TLS, into a Maildir that is empty at first.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use devstack::Endpoints;
use tokio::process::Command;

use super::process;
use crate::product::MAIL_PASSWORD;

/// A local copy of what one user has.
pub(super) struct Mbsync {
    dir: PathBuf,
    configuration: PathBuf,
}

/// What one call took.
pub(super) struct Pulled {
    pub(super) seconds: f64,
    pub(super) cpu_seconds: f64,
}

impl Mbsync {
    /// An empty copy of the mailboxes that match `patterns`. As shipped it has every file written to disk at once;
    /// `fsync` can do without that.
    pub(super) fn new(endpoints: &Endpoints, user: &str, patterns: &str, fsync: bool) -> Result<Self> {
        let dir = endpoints.dir.join("mbsync").join(user);
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("mail"))?;
        let configuration = dir.join("mbsyncrc");
        // SSLType is the name up to 1.4 and still understood after it.
        let text = format!(
            "FSync {fsync}\nIMAPAccount lab\nHost localhost\nPort {port}\nUser {user}\nPass {MAIL_PASSWORD}\n\
             SSLType IMAPS\nCertificateFile {ca}\n\nIMAPStore far\nAccount lab\n\n\
             MaildirStore near\nPath {dir}/mail/\nInbox {dir}/mail/INBOX\nSubFolders Verbatim\n\n\
             Channel all\nFar :far:\nNear :near:\nPatterns {patterns}\nCreate Near\nExpunge Near\nSync Pull\n\
             SyncState *\n",
            fsync = if fsync { "yes" } else { "no" },
            port = endpoints.imaps_port,
            ca = endpoints.ca_file.display(),
            dir = dir.display(),
        );
        fs::write(&configuration, text)?;
        Ok(Self { dir, configuration })
    }

    /// Fetches whatever changed. Fails unless the copy has exactly so many messages afterwards.
    pub(super) async fn pull(&self, messages: usize) -> Result<Pulled> {
        let before = process::ended_children_cpu_seconds(std::process::id())?;
        let started = Instant::now();
        let output =
            Command::new("mbsync").arg("-q").arg("-c").arg(&self.configuration).arg("all").output().await;
        let output = output.context("mbsync is not installed; run `make deps`")?;
        let seconds = started.elapsed().as_secs_f64();
        let cpu_seconds = process::ended_children_cpu_seconds(std::process::id())? - before;
        if !output.status.success() {
            bail!("mbsync: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
        }
        let found = self.count()?;
        if found != messages {
            bail!("mbsync has {found} of {messages} messages");
        }
        Ok(Pulled { seconds, cpu_seconds })
    }

    fn count(&self) -> Result<usize> {
        let mut found = 0;
        for mailbox in fs::read_dir(self.dir.join("mail"))? {
            let mailbox = mailbox?.path();
            for part in ["cur", "new"] {
                found += fs::read_dir(mailbox.join(part)).map(Iterator::count).unwrap_or_default();
            }
        }
        Ok(found)
    }

    /// Deletes the copy.
    pub(super) async fn remove(self) -> Result<()> {
        tokio::fs::remove_dir_all(self.dir).await.context("mbsync's copy")
    }
}

#[cfg(test)]
mod tests {
    use devstack::{Options, Stack, corpus::Generator};

    use super::Mbsync;

    #[tokio::test]
    async fn mbsync_fetches_a_filled_mailbox_over_tls_and_then_what_changed() {
        let stack = Stack::start(&Options { fsync: false, ..Options::default() }).unwrap();
        let (endpoints, user) = (stack.endpoints(), "peer@lab.test");
        endpoints.add_mailbox(user, super::MAIL_PASSWORD).unwrap();
        let corpus = Generator::new(9, "peer").messages(40);
        endpoints.fill(user, corpus.map(|m| ("INBOX", m.flags, m.internal_date, m.bytes))).unwrap();
        for fsync in [true, false] {
            let peer = Mbsync::new(endpoints, user, "INBOX", fsync).unwrap();
            assert!(peer.pull(40).await.unwrap().seconds > 0.0);
            assert!(peer.pull(41).await.is_err());
            peer.remove().await.unwrap();
        }
        let peer = Mbsync::new(endpoints, user, "*", true).unwrap();
        peer.pull(40).await.unwrap();
        let output = endpoints.doveadm(&["expunge", "-u", user, "mailbox", "INBOX", "1:3"]).unwrap();
        assert!(output.status.success());
        peer.pull(37).await.unwrap();
    }
}
