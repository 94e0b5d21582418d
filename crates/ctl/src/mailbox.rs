//! Mailboxes of our own Dovecot: who may log in, by which password.
//!
//! This is the mail server's side, apart from tenants and users: a user of the API connects such a mailbox as an account
//! like one of any other server. [`passwd_file`] keeps the file, [`address`] says which names it may hold.

pub mod address;
pub mod passwd_file;

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use emailclient_core::access::password;
use emailclient_core::platform::config::Source;
use emailclient_core::platform::start::StartError;
use wire::secret::Secret;

use crate::command::{Mailbox, MailboxArgs, NewPassword};
use crate::say;

/// Shorter ones are refused; a drawn one has 32.
const SHORTEST: usize = 8;
/// Longer ones are refused, because clients and servers cut them at different lengths.
const LONGEST_BYTES: usize = 128;

/// Carries out one command on the file.
///
/// # Errors
/// With the reason; the file is then as it was.
pub async fn run(source: &Source, args: MailboxArgs) -> anyhow::Result<()> {
    let setting = || source.get("DOVECOT_PASSWD_FILE").map(PathBuf::from);
    let Some(file) = args.passwd_file.or_else(setting) else {
        let missing = "missing; set it, or give --passwd-file";
        return Err(StartError::setting("DOVECOT_PASSWD_FILE", missing).into());
    };
    match args.what {
        Mailbox::List => list(&file),
        Mailbox::Create { address, password } => {
            let address = address::parse(&address)?;
            let (password, drawn) = obtain(&password)?;
            let line = line(&address, password.clone()).await?;
            passwd_file::update(&file, |mut lines| {
                if lines.iter().any(|l| is(l, &address)) {
                    bail!(
                        "there is a mailbox {address} already; change its password by `emailctl mailbox password`"
                    );
                }
                lines.push(line);
                Ok(lines)
            })?;
            tell(&format!("{address} may log in"), &password, drawn)
        }
        Mailbox::Password { address, password } => {
            let address = address::parse(&address)?;
            let (password, drawn) = obtain(&password)?;
            let line = line(&address, password.clone()).await?;
            passwd_file::update(&file, |mut lines| {
                let Some(old) = lines.iter_mut().find(|l| is(l, &address)) else { bail!(unknown(&address)) };
                *old = keep_fields(old, &line);
                Ok(lines)
            })?;
            tell(&format!("{address} has another password"), &password, drawn)
        }
        Mailbox::Delete { address } => {
            let address = address.to_ascii_lowercase();
            passwd_file::update(&file, |mut lines| {
                let before = lines.len();
                lines.retain(|l| !is(l, &address));
                if lines.len() == before {
                    bail!(unknown(&address));
                }
                Ok(lines)
            })
        }
    }
}

fn list(file: &Path) -> anyhow::Result<()> {
    if !file.exists() {
        bail!("{} is not there; the first `emailctl mailbox create` makes it", file.display());
    }
    for line in passwd_file::read(file)? {
        if let Some(user) = passwd_file::user(&line) {
            say(&user)?;
        }
    }
    Ok(())
}

fn is(line: &str, address: &str) -> bool {
    passwd_file::user(line).is_some_and(|user| user == address)
}

fn unknown(address: &str) -> String {
    format!("there is no mailbox {address:?}; `emailctl mailbox list` prints them")
}

/// The password to set, and whether it was drawn here.
fn obtain(from: &NewPassword) -> anyhow::Result<(Secret, bool)> {
    let Some(path) = &from.password_file else { return Ok((password::draw(), true)) };
    let text = if path.as_os_str() == "-" {
        passwd_file::first_line(std::io::stdin().lock())?
    } else {
        let file = File::open(path).with_context(|| format!("{} cannot be read", path.display()))?;
        passwd_file::first_line(file).with_context(|| path.display().to_string())?
    };
    if text.chars().count() < SHORTEST || text.len() > LONGEST_BYTES || text.chars().any(char::is_control) {
        bail!(
            "a password has {SHORTEST} characters or more, {LONGEST_BYTES} bytes at most, and no control characters"
        );
    }
    Ok((Secret::new(text), false))
}

/// argon2id, which Dovecot verifies when it was built with libsodium (Debian's and Alpine's are); the six colons stand
/// for uid, gid, gecos, home, shell and extra fields, which the server's own configuration decides.
async fn line(address: &str, password: Secret) -> anyhow::Result<String> {
    Ok(format!("{address}:{{ARGON2ID}}{}::::::", password::hash(password).await?))
}

/// `new` with the fields behind the password that somebody gave the user by hand.
fn keep_fields(old: &str, new: &str) -> String {
    let fields = old.splitn(3, ':').nth(2);
    let head: Vec<&str> = new.splitn(3, ':').take(2).collect();
    format!("{}:{}", head.join(":"), fields.unwrap_or(":::::"))
}

/// A drawn password goes to standard output alone, so that a script can keep it; the sentence to standard error.
fn tell(done: &str, password: &Secret, drawn: bool) -> anyhow::Result<()> {
    if drawn {
        say(password.expose())?;
        writeln!(std::io::stderr(), "{done}; the password is printed this once")?;
    } else {
        writeln!(std::io::stderr(), "{done}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::keep_fields;

    #[test]
    fn another_password_keeps_what_stands_behind_the_old_one() {
        let old = "a@x.test:{PLAIN}pw:1000:1000::/home/a::quota=1";
        let new = "a@x.test:{ARGON2ID}$h::::::";
        assert_eq!(keep_fields(old, new), "a@x.test:{ARGON2ID}$h:1000:1000::/home/a::quota=1");
        assert_eq!(keep_fields("a@x.test:{PLAIN}pw", new), new);
    }
}
