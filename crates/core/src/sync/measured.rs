//! What is counted of rounds and of what they store.

use chrono::{DateTime, Utc};
use metrics::{counter, histogram};
use tokio::time::Instant;

use super::store::Prepared;
use super::store::ingest::Age;
use crate::platform::metrics::table;

/// A round that had the account in hand is over. `failure`: a word for why it failed.
pub(super) fn round(begun: Instant, failure: Option<&'static str>) {
    let (outcome, cause) = failure.map_or(("done", "none"), |cause| ("failed", cause));
    counter!(table::ROUNDS.name, "outcome" => outcome, "cause" => cause).increment(1);
    histogram!(table::ROUND_DURATION.name, "outcome" => outcome).record(begun.elapsed().as_secs_f64());
}

/// A batch is committed, of which so many messages were `created`.
pub(super) fn stored(batch: &[Prepared], created: usize, (age, now): (Age, DateTime<Utc>)) {
    let kind = if age == Age::New { "new" } else { "backfill" };
    counter!(table::STORED.name, "kind" => kind).increment(created as u64);
    // What was here already came without its bytes.
    let bytes = batch.iter().filter(|arrival| !arrival.known).map(|arrival| arrival.size_bytes).sum();
    counter!(table::STORED_BYTES.name).increment(bytes);
    if age == Age::New && created > 0 {
        for arrival in batch {
            let waited = (now - arrival.internal_date).to_std().unwrap_or_default();
            histogram!(table::ARRIVAL_DELAY.name).record(waited.as_secs_f64());
        }
    }
}
