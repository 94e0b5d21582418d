//! A sign of life for services that listen on nothing: a file whose age says when the main loop last went round.
//!
//! The file is touched only after work that needed the database succeeded, and only while every part of the service
//! does so. A loop that hangs, a database that is gone, and a process that died therefore look alike: the file grows
//! old. It belongs on a tmpfs, because a touch waits for the disk. `emailctl healthcheck --service …` reads it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

/// A service whose file is older than this is not well. Three renewals of a job's lease (10 s), which is the slowest
/// beat of a healthy worker: all its slots busy with long jobs.
pub const OLDEST: Duration = Duration::from_secs(30);
/// The file is touched at most this often.
const PACE: Duration = Duration::from_secs(1);

/// Where `service` (`emailclient-worker`) keeps its file inside `dir`.
#[must_use]
pub fn file(dir: &Path, service: &str) -> PathBuf {
    dir.join(format!("{service}.alive"))
}

/// How old the file is at `now`. A file from the future is as old as it is ahead: nobody can say when it was touched.
///
/// # Errors
/// When there is none, which is so until the first round of a service ended well.
pub fn age(file: &Path, now: DateTime<Utc>) -> io::Result<Duration> {
    let touched: DateTime<Utc> = fs::metadata(file)?.modified()?.into();
    Ok((now - touched).abs().to_std().unwrap_or(Duration::MAX))
}

/// The sign of life of this process; clones share it. Without a folder every call does nothing.
#[derive(Debug, Clone, Default)]
pub struct Heartbeat {
    inner: Option<Arc<Inner>>,
}

#[derive(Debug)]
struct Inner {
    file: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// When each part last went round; `None` until it did once.
    parts: Vec<(&'static str, Option<Instant>)>,
    touched: Option<Instant>,
}

impl Heartbeat {
    /// Makes ready for `service` with these parts, and removes what an earlier process left.
    ///
    /// # Errors
    /// When the folder cannot be written; the message names the setting and the file.
    pub fn new(
        dir: Option<&Path>,
        service: &str,
        parts: impl IntoIterator<Item = &'static str>,
    ) -> Result<Self, HeartbeatError> {
        let Some(dir) = dir else { return Ok(Self::default()) };
        let file = file(dir, service);
        let unwritable = |error| HeartbeatError { file: file.clone(), error };
        // Written once to see that it can be, and removed: nothing has gone round yet.
        fs::write(&file, "").map_err(unwritable)?;
        fs::remove_file(&file).map_err(unwritable)?;
        let parts = parts.into_iter().map(|part| (part, None)).collect();
        let state = Mutex::new(State { parts, touched: None });
        Ok(Self { inner: Some(Arc::new(Inner { file, state })) })
    }

    /// Says that `part` has just gone round and the database answered it.
    pub fn beat(&self, part: &'static str) {
        let Some(inner) = &self.inner else { return };
        let now = Instant::now();
        let mut state = inner.state.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, at) in state.parts.iter_mut().filter(|(name, _)| *name == part) {
            *at = Some(now);
        }
        let fresh = |at: &Option<Instant>, within| at.is_some_and(|at| now.duration_since(at) < within);
        let all_well = state.parts.iter().all(|(_, at)| fresh(at, OLDEST));
        if all_well && !fresh(&state.touched, PACE) {
            match fs::write(&inner.file, std::process::id().to_string()) {
                Ok(()) => state.touched = Some(now),
                Err(error) => {
                    tracing::warn!(file = %inner.file.display(), %error, "the sign of life could not be written");
                }
            }
        }
    }

    /// Removes the file: the service has ended in good order.
    pub fn end(&self) {
        if let Some(inner) = &self.inner {
            // A file that stays grows old, which says the same a little later.
            let _ = fs::remove_file(&inner.file);
        }
    }
}

/// The folder for the sign of life cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("HEARTBEAT_DIR: {} cannot be written: {error}; give a folder that this user may write", file.display())]
pub struct HeartbeatError {
    file: PathBuf,
    error: io::Error,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("emailclient-heartbeat-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn the_file_is_touched_only_when_every_part_went_round() {
        let dir = folder("parts");
        let path = file(&dir, "x");
        fs::write(&path, "of an earlier process").unwrap();
        let heart = Heartbeat::new(Some(&dir), "x", ["jobs", "watch"]).unwrap();
        assert!(!path.exists(), "an earlier process vouches for this one");
        heart.beat("jobs");
        assert!(!path.exists(), "one of two parts is enough");
        heart.beat("watch");
        assert!(path.exists());
        heart.end();
        assert!(!path.exists());
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_file_of_the_past_or_of_the_future_is_old() {
        let dir = folder("age");
        let path = file(&dir, "x");
        fs::write(&path, "").unwrap();
        let touched: DateTime<Utc> = fs::metadata(&path).unwrap().modified().unwrap().into();
        for seconds in [-100, 100] {
            let now = touched + chrono::TimeDelta::seconds(seconds);
            assert_eq!(age(&path, now).unwrap(), Duration::from_secs(100));
        }
        assert!(age(&dir.join("none"), touched).is_err());
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named_with_its_setting() {
        let error = Heartbeat::new(Some(Path::new("/nonexistent")), "x", ["jobs"]).unwrap_err().to_string();
        assert!(error.contains("HEARTBEAT_DIR") && error.contains("/nonexistent/x.alive"), "{error}");
    }
}
