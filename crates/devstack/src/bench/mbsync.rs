//! The peer: mbsync (isync) as shipped, fsync included, into an empty Maildir.

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use devstack::Endpoints;
use tokio::process::Command;

use crate::product::MAIL_PASSWORD;

/// Fetches the INBOX of `user` for the first time: the seconds. Fails unless all `messages` are there afterwards.
pub(crate) async fn first_sync(endpoints: &Endpoints, user: &str, messages: usize) -> Result<f64> {
    let dir = endpoints.dir.join("mbsync").join(user);
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir)?;
    let configuration = dir.join("mbsyncrc");
    // SSLType is the name up to 1.4 and still understood after it.
    let text = format!(
        "IMAPAccount lab\nHost localhost\nPort {port}\nUser {user}\nPass {MAIL_PASSWORD}\nSSLType IMAPS\n\
         CertificateFile {ca}\n\nIMAPStore far\nAccount lab\n\n\
         MaildirStore near\nPath {dir}/mail/\nInbox {dir}/mail/INBOX\n\n\
         Channel all\nFar :far:\nNear :near:\nPatterns INBOX\nCreate Near\nSync Pull\nSyncState *\n",
        port = endpoints.imaps_port,
        ca = endpoints.ca_file.display(),
        dir = dir.display(),
    );
    fs::write(&configuration, text)?;
    fs::create_dir_all(dir.join("mail"))?;
    let started = Instant::now();
    let output = Command::new("mbsync").arg("-q").arg("-c").arg(&configuration).arg("all").output().await;
    let output = output.context("mbsync is not installed; run `make deps`")?;
    let seconds = started.elapsed().as_secs_f64();
    if !output.status.success() {
        bail!("mbsync: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    let found: usize = ["cur", "new"]
        .iter()
        .map(|part| fs::read_dir(dir.join("mail/INBOX").join(part)).map(Iterator::count).unwrap_or_default())
        .sum();
    if found < messages {
        bail!("mbsync fetched {found} of {messages} messages");
    }
    fs::remove_dir_all(&dir)?;
    Ok(seconds)
}

#[cfg(test)]
mod tests {
    use devstack::{Options, Stack, corpus::Generator};

    #[tokio::test]
    async fn mbsync_fetches_a_filled_mailbox_over_tls() {
        let stack = Stack::start(&Options { fsync: false, ..Options::default() }).unwrap();
        let (endpoints, user) = (stack.endpoints(), "peer@lab.test");
        endpoints.add_mailbox(user, super::MAIL_PASSWORD).unwrap();
        let corpus = Generator::new(9, "peer").messages(40);
        endpoints.fill(user, corpus.map(|m| ("INBOX", m.flags, m.internal_date, m.bytes))).unwrap();
        assert!(super::first_sync(endpoints, user, 40).await.unwrap() > 0.0);
        assert!(super::first_sync(endpoints, user, 41).await.is_err());
    }
}
