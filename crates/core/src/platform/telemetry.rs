//! Logs: one JSON object a line, UTC, to standard output and, where LOG_FILE names one, to a file as well.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::platform::config::LogConfig;

/// A setting of the logs cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: {words}")]
pub struct LogError {
    setting: &'static str,
    words: String,
}

/// Installs the log writer for this process.
///
/// `log.level` is a level or a tracing filter; lettre and async-imap stay at `warn` because below it they write
/// credentials (lettre 0.11 AUTH lines at debug, async-imap 0.12 LOGIN at trace).
///
/// # Errors
/// [`LogError`] when the filter cannot be read or the file cannot be opened; another when a writer is installed already.
pub fn init(log: &LogConfig) -> anyhow::Result<()> {
    let filter =
        EnvFilter::try_new(format!("{},lettre=warn,async_imap=warn,sqlx=warn", log.level)).map_err(|e| {
            let words = format!("{:?} is neither a level nor a filter: {e}", log.level);
            LogError { setting: "LOG_LEVEL", words }
        })?;
    let stdout = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false);
    let file = match &log.file {
        None => None,
        Some(path) => {
            let file = open(path).map_err(|e| {
                let words = format!(
                    "{} cannot be written: {e}; give a file that this user may write",
                    path.display()
                );
                LogError { setting: "LOG_FILE", words }
            })?;
            Some(
                tracing_subscriber::fmt::layer()
                    .json()
                    .flatten_event(true)
                    .with_span_list(false)
                    .with_writer(Mutex::new(file)),
            )
        }
    };
    tracing_subscriber::registry().with(filter).with(stdout).with(file).try_init()?;
    Ok(())
}

/// Opens a log to write at its end, for its owner and group only: it tells who did what when.
///
/// # Errors
/// When the file cannot be opened.
pub fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().create(true).append(true).mode(0o640).open(path)?;
    // One that an earlier release made for everybody. What is no file (`/dev/stderr`), or is not ours, stays as it is.
    let metadata = file.metadata()?;
    let mode = metadata.permissions().mode();
    if metadata.is_file() && mode & 0o007 != 0 {
        // Not being its owner is no reason not to write.
        let _ = file.set_permissions(std::fs::Permissions::from_mode(mode & 0o770));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_for_its_owner_and_group_also_one_that_was_for_all() {
        let dir = std::env::temp_dir().join(format!("log-{}", crate::platform::id::new_uuid().simple()));
        std::fs::create_dir(&dir).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let new = dir.join("new.log");
        drop(open(&new).unwrap());
        assert_eq!(mode(&new) & 0o007, 0, "{:o}", mode(&new));
        let old = dir.join("old.log");
        std::fs::write(&old, "before\n").unwrap();
        std::fs::set_permissions(&old, std::fs::Permissions::from_mode(0o644)).unwrap();
        io::Write::write_all(&mut open(&old).unwrap(), b"after\n").unwrap();
        assert_eq!(mode(&old), 0o640);
        assert_eq!(std::fs::read_to_string(&old).unwrap(), "before\nafter\n");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
