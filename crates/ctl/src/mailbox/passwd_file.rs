//! Dovecot's passwd-file: a line for each user, `name:{SCHEME}hash::::::`
//! (<https://doc.dovecot.org/2.3/configuration_manual/authentication/passwd_file/>).
//!
//! A change is a new file beside the old one, on disk before it takes the old one's name, so Dovecot reads either and a
//! crash leaves either. Writers wait for each other. Lines that are not ours (comments, other schemes, further fields)
//! stay as they are.

use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

/// For its owner to write, and for Dovecot's group to read.
const MODE: u32 = 0o640;
/// Another `emailctl` needs a blink; one that holds the lock for longer is stopped or hangs.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// The lines of the file at `path`; none when there is no file yet.
///
/// # Errors
/// When it cannot be read.
pub fn read(path: &Path) -> anyhow::Result<Vec<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("{} cannot be read", path.display())),
    }
}

/// The user whom `line` lets in, in lower case as Dovecot compares; `None` for comments and empty lines.
#[must_use]
pub fn user(line: &str) -> Option<String> {
    let name = line.split(':').next()?.trim();
    (!name.is_empty() && !name.starts_with('#')).then(|| name.to_ascii_lowercase())
}

/// Replaces the lines of the file by what `change` makes of them. Nobody else changes the file meanwhile.
///
/// # Errors
/// With those of `change`, and when the folder or the file cannot be written. The file is then as it was.
pub fn update(
    path: &Path,
    change: impl FnOnce(Vec<String>) -> anyhow::Result<Vec<String>>,
) -> anyhow::Result<()> {
    // A link stays one: its target is replaced.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let lock = lock(&path)?;
    let lines = change(read(&path)?)?;
    let mut text = lines.join("\n");
    if !text.is_empty() {
        text.push('\n');
    }
    replace(&path, &text)?;
    drop(lock);
    Ok(())
}

fn beside(path: &Path, ending: &str) -> anyhow::Result<PathBuf> {
    let name = path.file_name().with_context(|| format!("{} names no file", path.display()))?;
    Ok(path.with_file_name(format!(".{}.{ending}", name.to_string_lossy())))
}

/// Held until it is dropped. A file of its own, because the passwd-file itself is replaced under those who wait.
fn lock(path: &Path) -> anyhow::Result<File> {
    let lock = beside(path, "lock")?;
    let cannot = || format!("{} cannot be written; make its folder, or give it to this user", lock.display());
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(MODE)
        .open(&lock)
        .with_context(cannot)?;
    let started = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(error).with_context(cannot),
            Err(TryLockError::WouldBlock) if started.elapsed() > LOCK_PATIENCE => bail!(
                "{} has been held by another process for {} s; end that process",
                lock.display(),
                LOCK_PATIENCE.as_secs()
            ),
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn replace(path: &Path, text: &str) -> anyhow::Result<()> {
    let new = beside(path, "new")?;
    // Under the lock nobody else writes it: what lies there is of a process that died.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("{} cannot be removed", new.display()));
        }
        _ => {}
    }
    let written = write(path, &new, text);
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written
}

fn write(path: &Path, new: &Path, text: &str) -> anyhow::Result<()> {
    let cannot = || format!("{} cannot be written", new.display());
    let mut file =
        File::options().read(true).write(true).create_new(true).mode(MODE).open(new).with_context(cannot)?;
    file.write_all(text.as_bytes()).with_context(cannot)?;
    if let Ok(old) = fs::metadata(path) {
        keep_owner(&old, &file).with_context(|| {
            format!(
                "the owner and group of {} cannot be kept; run this as its owner or as root",
                path.display()
            )
        })?;
        be_newer(&old, &file).with_context(cannot)?;
    }
    // After the owner, which clears no bits of these; the umask has had its say at the creation.
    file.set_permissions(fs::Permissions::from_mode(MODE)).with_context(cannot)?;
    file.sync_all().with_context(cannot)?;
    fs::rename(new, path).map_err(|error| match error.kind() {
        ErrorKind::ResourceBusy => anyhow::anyhow!(
            "{} is itself a mount, and a mount cannot be replaced; mount its folder instead",
            path.display()
        ),
        _ => anyhow::Error::from(error).context(format!("{} cannot be replaced", path.display())),
    })?;
    // So that the new name survives a power cut, too.
    if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        File::open(folder).and_then(|f| f.sync_all()).with_context(|| folder.display().to_string())?;
    }
    Ok(())
}

fn keep_owner(old: &fs::Metadata, file: &File) -> std::io::Result<()> {
    let now = file.metadata()?;
    if (now.uid(), now.gid()) == (old.uid(), old.gid()) {
        return Ok(());
    }
    // Without the group Dovecot could read the file no more; the owner matters only to those who maintain it.
    fchown(file, Some(old.uid()), Some(old.gid())).or_else(|_| fchown(file, None, Some(old.gid())))
}

/// Dovecot 2.3.19 reads the file again when its size or the second of its last change differs. Another password has the
/// same size, so two changes in one second would be one to it.
fn be_newer(old: &fs::Metadata, file: &File) -> std::io::Result<()> {
    let (before, now) = (old.modified()?, file.metadata()?.modified()?);
    let next_second = before + Duration::from_secs(1);
    if now < next_second { file.set_modified(next_second) } else { Ok(()) }
}

/// Reads at most one line of a password from `source`.
///
/// # Errors
/// When nothing can be read.
pub fn first_line(mut source: impl std::io::Read) -> anyhow::Result<String> {
    let mut text = String::new();
    // Far more than a password is long, and an end to `/dev/zero`.
    source.by_ref().take(64 * 1024).read_to_string(&mut text).context("the password is no text")?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
