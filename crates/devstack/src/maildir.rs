//! Writing messages into a Maildir++ as Dovecot would have.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{self, File, FileTimes};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;

/// Dovecot gives UIDs to new files in the order of the seconds in front of their names, so these only count. They
/// begin far before any delivery of today, which therefore always comes after what was filled in.
static SEQUENCE: AtomicU64 = AtomicU64::new(1_000_000_000);

/// Maildir has the letters a to z for keywords.
const MOST_KEYWORDS: usize = 26;

/// Where one mailbox is and which keyword has which letter.
struct Folder {
    path: PathBuf,
    keywords: Vec<String>,
}

pub(crate) fn fill<M: AsRef<str>>(
    root: &Path,
    user: &str,
    messages: impl IntoIterator<Item = (M, Vec<String>, i64, Vec<u8>)>,
) -> Result<usize> {
    let metadata = fs::metadata(root).with_context(|| root.display().to_string())?;
    let owner = (metadata.uid(), metadata.gid());
    let mut folders: HashMap<String, Folder> = HashMap::new();
    let mut count = 0;
    for (mailbox, flags, internal_date, bytes) in messages {
        let mailbox = mailbox.as_ref();
        if !folders.contains_key(mailbox) {
            folders.insert(mailbox.to_owned(), Folder::open(root, user, mailbox, owner)?);
        }
        if let Some(folder) = folders.get_mut(mailbox) {
            folder.write(&flags, internal_date, &bytes, owner)?;
        }
        count += 1;
    }
    for folder in folders.values() {
        folder.save_keywords(owner)?;
    }
    Ok(count)
}

pub(crate) fn make_mailboxes(root: &Path, user: &str, names: impl IntoIterator<Item = String>) -> Result<()> {
    let metadata = fs::metadata(root).with_context(|| root.display().to_string())?;
    for name in names {
        Folder::open(root, user, &name, (metadata.uid(), metadata.gid()))?;
    }
    Ok(())
}

impl Folder {
    fn open(root: &Path, user: &str, mailbox: &str, owner: (u32, u32)) -> Result<Self> {
        let (home, maildir) = (root.join(user), root.join(user).join("Maildir"));
        let path = match directory_name(mailbox)? {
            Some(name) => maildir.join(name),
            None => maildir.clone(),
        };
        let parts = ["cur", "new", "tmp"].map(|part| path.join(part));
        for dir in [&home, &maildir, &path].into_iter().chain(&parts) {
            make(dir, owner)?;
        }
        if path != maildir {
            let marker = path.join("maildirfolder");
            File::create(&marker)?;
            chown(&marker, Some(owner.0), Some(owner.1))?;
        }
        let saved = fs::read_to_string(path.join("dovecot-keywords")).unwrap_or_default();
        let keywords = saved.lines().filter_map(|line| Some(line.split_once(' ')?.1.to_owned())).collect();
        Ok(Self { path, keywords })
    }

    fn write(&mut self, flags: &[String], internal_date: i64, bytes: &[u8], owner: (u32, u32)) -> Result<()> {
        let number = SEQUENCE.fetch_add(1, Ordering::Relaxed);
        let wire = bytes.len() + bare_line_feeds(bytes);
        let mut name = format!(
            "{number}.P{}Q{internal_date}.devstack,S={},W={wire}:2,",
            std::process::id(),
            bytes.len()
        );
        name.push_str(&self.letters(flags)?);
        let partial = self.path.join("tmp").join(&name);
        let mut file = File::create(&partial)?;
        file.write_all(bytes)?;
        let seconds = Duration::from_secs(internal_date.unsigned_abs());
        let at = if internal_date < 0 { UNIX_EPOCH - seconds } else { UNIX_EPOCH + seconds };
        file.set_times(FileTimes::new().set_modified(at).set_accessed(at))?;
        drop(file);
        chown(&partial, Some(owner.0), Some(owner.1))?;
        fs::rename(&partial, self.path.join("cur").join(&name))?;
        Ok(())
    }

    /// Dovecot wants them sorted: capitals first, then keywords.
    fn letters(&mut self, flags: &[String]) -> Result<String> {
        let mut letters = Vec::new();
        for flag in flags {
            let letter = match flag.to_ascii_lowercase().as_str() {
                "\\draft" => 'D',
                "\\flagged" => 'F',
                "\\answered" => 'R',
                "\\seen" => 'S',
                "\\deleted" => 'T',
                other if other.starts_with('\\') => bail!("{flag} is no flag that a message can have"),
                _ => self.keyword(flag)?,
            };
            letters.push(letter);
        }
        letters.sort_unstable();
        letters.dedup();
        Ok(letters.into_iter().collect())
    }

    fn keyword(&mut self, keyword: &str) -> Result<char> {
        let known = self.keywords.iter().position(|k| k.eq_ignore_ascii_case(keyword));
        let index = known.unwrap_or(self.keywords.len());
        if known.is_none() {
            self.keywords.push(keyword.to_owned());
        }
        match ('a'..='z').nth(index) {
            Some(letter) => Ok(letter),
            None => bail!("more than {MOST_KEYWORDS} keywords in one mailbox"),
        }
    }

    fn save_keywords(&self, owner: (u32, u32)) -> Result<()> {
        if self.keywords.is_empty() {
            return Ok(());
        }
        let mut text = String::new();
        for (index, keyword) in self.keywords.iter().enumerate() {
            writeln!(text, "{index} {keyword}")?;
        }
        let file = self.path.join("dovecot-keywords");
        fs::write(&file, text)?;
        chown(&file, Some(owner.0), Some(owner.1))?;
        Ok(())
    }
}

fn make(dir: &Path, owner: (u32, u32)) -> Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => chown(dir, Some(owner.0), Some(owner.1)).with_context(|| dir.display().to_string()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error).with_context(|| dir.display().to_string()),
    }
}

fn bare_line_feeds(bytes: &[u8]) -> usize {
    let mut previous = 0;
    let mut count = 0;
    for &byte in bytes {
        count += usize::from(byte == b'\n' && previous != b'\r');
        previous = byte;
    }
    count
}

/// `a/b` is `.a.b`, INBOX is the Maildir itself. A dot inside a name cannot be told from a separator there.
fn directory_name(mailbox: &str) -> Result<Option<String>> {
    if mailbox.eq_ignore_ascii_case("INBOX") {
        return Ok(None);
    }
    if mailbox.split('/').any(str::is_empty) || mailbox.contains(|c: char| c == '.' || c.is_control()) {
        bail!("{mailbox:?} is no mailbox that Maildir++ can hold");
    }
    Ok(Some(format!(".{}", modified_utf7(mailbox).replace('/', "."))))
}

/// RFC 3501 §5.1.3: how mailbox names that are not ASCII look on disk and on the wire.
fn modified_utf7(name: &str) -> String {
    let mut out = String::new();
    let mut wide: Vec<u8> = Vec::new();
    for c in name.chars() {
        if (' '..='~').contains(&c) {
            flush(&mut wide, &mut out);
            out.push(c);
            if c == '&' {
                out.push('-');
            }
        } else {
            let mut units = [0; 2];
            wide.extend(c.encode_utf16(&mut units).iter().flat_map(|unit| unit.to_be_bytes()));
        }
    }
    flush(&mut wide, &mut out);
    out
}

fn flush(wide: &mut Vec<u8>, out: &mut String) {
    if !wide.is_empty() {
        out.push('&');
        out.push_str(&STANDARD_NO_PAD.encode(&*wide).replace('/', ","));
        out.push('-');
        wide.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::{bare_line_feeds, directory_name, modified_utf7};

    #[test]
    fn mailbox_names_become_the_directories_of_maildir() {
        assert_eq!(directory_name("inbox").unwrap(), None);
        assert_eq!(directory_name("Lists/Rust").unwrap().unwrap(), ".Lists.Rust");
        assert_eq!(directory_name("Entwürfe").unwrap().unwrap(), ".Entw&APw-rfe");
        assert!(directory_name("a.b").is_err());
        assert!(directory_name("a//b").is_err());
    }

    #[test]
    fn modified_utf7_agrees_with_the_examples_of_rfc_3501() {
        assert_eq!(modified_utf7("~peter/mail/台北/日本語"), "~peter/mail/&U,BTFw-/&ZeVnLIqe-");
        assert_eq!(modified_utf7("R&D"), "R&-D");
    }

    #[test]
    fn only_line_feeds_without_a_carriage_return_grow_on_the_wire() {
        assert_eq!(bare_line_feeds(b"a\nb\r\nc\n\n"), 3);
    }
}
