//! Where a running stack listens, and what can be done to its mail server from outside.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::process::find;
use crate::{maildir, postfix};

/// The variable that carries the description, as JSON, to a program run under a stack.
const VARIABLE: &str = "DEVSTACK";

/// Where Dovecot, on the same ports and with the same mail, offers CONDSTORE and UIDPLUS, but neither QRESYNC nor MOVE.
pub const CONDSTORE_HOST: &str = "127.0.0.2";
/// Where Dovecot offers IMAP4rev1 and nothing else.
pub const PLAIN_HOST: &str = "127.0.0.3";
/// Where Dovecot looks at `dovecot-acl` in a mailbox's folder (RFC 4314 rights, such as `owner lrs`), as it does not elsewhere.
pub const RIGHTS_HOST: &str = "127.0.0.4";

/// Where Dovecot has the user's mailboxes under `INBOX.`, as Courier and Cyrus do, and shared ones under `Public.`; none but
/// INBOX is there before it is made.
pub const PREFIX_HOST: &str = "127.0.0.5";
/// Where Dovecot takes one connection of a user at a time.
pub const SINGLE_HOST: &str = "127.0.0.6";

/// What an access token must allow (`scope`) for Dovecot and Postfix to take it; see [`Endpoints::oauth_key`].
pub const OAUTH_SCOPE: &str = "mail";

/// A running stack as other processes see it. Mail hosts are `localhost` (certificates) and 127.0.0.1.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Endpoints {
    /// As superuser, without a password.
    pub postgres_url: String,
    /// Database 0.
    pub redis_url: String,
    /// IMAP, plain, STARTTLS offered.
    pub imap_port: u16,
    /// IMAP, TLS from the first byte.
    pub imaps_port: u16,
    /// Local delivery into any mailbox, without authentication.
    pub lmtp_port: u16,
    /// SMTP as other servers speak it: accepts for `lab.test` only.
    pub smtp_port: u16,
    /// Submission: AUTH required, STARTTLS offered.
    pub submission_port: u16,
    /// Submission, TLS from the first byte.
    pub submissions_port: u16,
    /// PEM of the authority that signed every certificate here.
    pub ca_file: PathBuf,
    /// For `doveadm -c`.
    pub dovecot_conf: PathBuf,
    /// For `postfix -c`, `postconf -c`.
    pub postfix_conf_dir: PathBuf,
    /// One passwd-file per user of Dovecot.
    pub users_dir: PathBuf,
    /// The mail of user `U` lies in `<mail_root>/U/Maildir`.
    pub mail_root: PathBuf,
    /// Private key (P-256, PKCS#8 PEM) of the access tokens that Dovecot and Postfix take, by XOAUTH2 and OAUTHBEARER: JWTs with
    /// `alg` ES256, no `kid` and no `azp`, and the claims `sub` (any), `email` (the user), `scope` ([`OAUTH_SCOPE`] among others,
    /// between spaces), `exp`, and `nbf` and `iat` that are not ahead of the clock. `iss` and `aud` are not looked at.
    pub oauth_key: PathBuf,
    /// All data; logs are in `<dir>/log`.
    pub dir: PathBuf,
}

impl Endpoints {
    /// The stack that this process runs under, by the variable `DEVSTACK`; `None` when it is unset or not readable.
    pub fn from_env() -> Option<Self> {
        serde_json::from_str(std::env::var_os(VARIABLE)?.to_str()?).ok()
    }

    /// Name and value of the variable for a child that shall run under this stack.
    ///
    /// # Errors
    /// A path that is not UTF-8.
    pub fn to_env(&self) -> Result<(&'static str, String)> {
        Ok((VARIABLE, serde_json::to_string(self)?))
    }

    /// Lets `user` (`name@lab.test`) log in by `password` at once. Its mailboxes come into being at the first login.
    ///
    /// # Errors
    /// A name or password that a passwd-file cannot hold (`:`, `/`, space, control characters); a user that exists;
    /// input or output.
    pub fn add_mailbox(&self, user: &str, password: &str) -> Result<()> {
        let line = entry(user, password)?;
        let file = self.users_dir.join(user);
        let mut file =
            File::options().write(true).create_new(true).open(&file).with_context(|| user.to_owned())?;
        file.write_all(line.as_bytes()).context("users file")
    }

    /// Changes the password of a user that [`Endpoints::add_mailbox`] added; sessions that are logged in stay.
    /// Takes a second.
    ///
    /// # Errors
    /// As [`Endpoints::add_mailbox`]; a user that is unknown.
    pub fn set_password(&self, user: &str, password: &str) -> Result<()> {
        let line = entry(user, password)?;
        let file = self.users_dir.join(user);
        let old = fs::read_to_string(&file).with_context(|| format!("{user} is unknown"))?;
        // Dovecot compares size and second of change, so one size must not come twice running.
        let all = if line.len() == old.len() { line + "#\n" } else { line };
        fs::write(&file, all).context("users file")?;
        // It looks at a file once in a second of its clock.
        std::thread::sleep(Duration::from_millis(1100));
        Ok(())
    }

    /// Runs `doveadm` on this Dovecot. The caller looks at the status.
    ///
    /// # Errors
    /// When it is not installed or cannot be started.
    pub fn doveadm(&self, arguments: &[&str]) -> Result<Output> {
        let program = find("doveadm", &["/usr/bin"])?;
        Command::new(program).arg("-c").arg(&self.dovecot_conf).args(arguments).output().context("doveadm")
    }

    /// Puts messages into mailboxes of `user` by writing its Maildir, thousands a second: `(mailbox, flags,
    /// INTERNALDATE in unix seconds, bytes)`. A mailbox that is missing is made; `/` separates levels. UIDs follow
    /// the order given, per mailbox. Bytes are stored as they are: bare LF goes out as CRLF. Flags are system flags
    /// (`\Seen`) or keywords, at most 26 of those per mailbox. Returns how many were written.
    ///
    /// # Errors
    /// Input or output; a user or mailbox name unfit for a path; too many keywords.
    pub fn fill<M: AsRef<str>>(
        &self,
        user: &str,
        messages: impl IntoIterator<Item = (M, Vec<String>, i64, Vec<u8>)>,
    ) -> Result<usize> {
        check_user(user)?;
        maildir::fill(&self.mail_root, user, messages)
    }

    /// Makes empty mailboxes of `user` by writing its Maildir, thousands a second; `/` separates levels.
    ///
    /// # Errors
    /// Input or output; a user or mailbox name unfit for a path.
    pub fn make_mailboxes(&self, user: &str, names: impl IntoIterator<Item = String>) -> Result<()> {
        check_user(user)?;
        maildir::make_mailboxes(&self.mail_root, user, names)
    }

    /// Delivers a message to `user` by LMTP (RFC 2033), as a mail server would; its lines end in CRLF, the last one too,
    /// and none is a dot alone.
    ///
    /// # Errors
    /// When it is not taken.
    pub fn deliver(&self, user: &str, message: &[u8]) -> Result<()> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.lmtp_port))?;
        let mut lines = BufReader::new(stream.try_clone()?);
        let mut answer = |want: &str| loop {
            let mut line = String::new();
            lines.read_line(&mut line)?;
            if !line.starts_with(want) {
                bail!("LMTP said {line:?}");
            }
            if line.as_bytes().get(3) == Some(&b' ') {
                return Ok(());
            }
        };
        answer("220")?;
        for (command, want) in [
            ("LHLO devstack".to_owned(), "250"),
            ("MAIL FROM:<sender@example.test>".to_owned(), "250"),
            (format!("RCPT TO:<{user}>"), "250"),
            ("DATA".to_owned(), "354"),
        ] {
            write!(stream, "{command}\r\n")?;
            answer(want)?;
        }
        stream.write_all(message)?;
        stream.write_all(b".\r\n")?;
        answer("250")
    }

    /// From now on Postfix gives mail for other domains than `lab.test` to `host:port`, or refuses it (`None`).
    ///
    /// # Errors
    /// When `postconf` or `postfix` fails; needs root.
    pub fn set_relay(&self, relay: Option<&str>) -> Result<()> {
        let setting = format!("default_transport={}", postfix::transport(relay));
        for (program, arguments) in [("postconf", ["-e", &setting].as_slice()), ("postfix", &["reload"])] {
            let program = find(program, &["/usr/sbin"])?;
            let output =
                Command::new(&program).arg("-c").arg(&self.postfix_conf_dir).args(arguments).output()?;
            if !output.status.success() {
                bail!("{}: {}", program.display(), String::from_utf8_lossy(&output.stderr));
            }
        }
        Ok(())
    }
}

fn entry(user: &str, password: &str) -> Result<String> {
    check_user(user)?;
    if password.is_empty() || password.contains(|c: char| c == ':' || c.is_control()) {
        bail!("a password here is not empty and has neither colons nor control characters");
    }
    Ok(format!("{user}:{{PLAIN}}{password}::::::\n"))
}

fn check_user(user: &str) -> Result<()> {
    if user.is_empty()
        || user.starts_with('.')
        || user.contains(|c: char| "/:#%".contains(c) || c.is_control() || c == ' ')
    {
        bail!("{user:?} is no name for a user here");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::entry;

    #[test]
    fn a_name_that_would_leave_the_mail_root_or_break_the_users_file_is_refused() {
        for bad in ["", "../x", "a/b", "a:b", "a\nb", "#a", "a b"] {
            assert!(entry(bad, "secret").is_err(), "{bad:?}");
        }
        assert!(entry("a@lab.test", "a:b").is_err());
        assert_eq!(entry("a@lab.test", "p w").unwrap(), "a@lab.test:{PLAIN}p w::::::\n");
    }
}
