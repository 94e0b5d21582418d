//! Named places at which a process dies when a test wants it: between two steps that a crash may part.
//!
//! `FAILPOINT=name` in a process's environment lets it end when it passes [`pass`] of that name for the first time,
//! `FAILPOINT=name:3` for the third, as SIGKILL would end it: no destructor runs, nothing is flushed. Only builds with
//! debug assertions have this; in a release build [`pass`] is empty. The places: grep for `failpoint::pass`.

/// Dies here if this place is the one that is armed and it is its turn.
#[cfg(debug_assertions)]
pub fn pass(name: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    static ARMED: OnceLock<Option<(String, AtomicU32)>> = OnceLock::new();
    let armed = ARMED.get_or_init(|| {
        let told = std::env::var_os("FAILPOINT")?.into_string().ok()?;
        let (name, turn) = told.split_once(':').unwrap_or((&told, "1"));
        Some((name.to_owned(), AtomicU32::new(turn.parse().ok()?)))
    });
    if let Some((armed, turn)) = armed
        && armed == name
        && turn.fetch_sub(1, Ordering::Relaxed) == 1
    {
        std::process::abort();
    }
}

/// Nothing, in a release build.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub const fn pass(_: &str) {}
