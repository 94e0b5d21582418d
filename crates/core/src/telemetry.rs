//! Logs: one JSON object a line, UTC, to standard output and, where LOG_FILE names one, to a file as well.

use std::fs::OpenOptions;
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::LogConfig;
use crate::start::StartError;

/// Installs the log writer for this process.
///
/// `log.level` is a level or a tracing filter; lettre and async-imap stay at `warn` because below it they write
/// credentials (lettre 0.11 AUTH lines at debug, async-imap 0.12 LOGIN at trace).
///
/// # Errors
/// When the filter cannot be read, the file cannot be opened, or a writer is installed already.
pub fn init(log: &LogConfig) -> anyhow::Result<()> {
    let filter =
        EnvFilter::try_new(format!("{},lettre=warn,async_imap=warn,sqlx=warn", log.level)).map_err(|e| {
            StartError::setting("LOG_LEVEL", format!("{:?} is neither a level nor a filter: {e}", log.level))
        })?;
    let stdout = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false);
    let file = match &log.file {
        None => None,
        Some(path) => {
            let file = OpenOptions::new().create(true).append(true).open(path).map_err(|e| {
                let words = format!(
                    "{} cannot be written: {e}; give a file that this user may write",
                    path.display()
                );
                StartError::setting("LOG_FILE", words)
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
