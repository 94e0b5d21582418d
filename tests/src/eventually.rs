//! Waiting for what other processes do, with a deadline that fails the test.

use std::time::{Duration, Instant};

/// Calls `look` every 20 ms until it returns something.
///
/// # Panics
/// When `within` has passed; `what` says what did not happen.
pub async fn eventually<T>(what: &str, within: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(start.elapsed() < within, "not within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
