//! Refusals in the audit trail: who was not allowed to do what is audited, at most ten lines a minute of one caller, then a
//! count of the rest.
//!
//! What is counted is written when its minute is over, and at the end of the process. The lines are written by `trail`.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use emailclient_core::access::audit::{self, Action, Entry};
use emailclient_core::platform::db::{Db, DbError};
use emailclient_core::platform::id::TenantId;
use tokio_util::sync::CancellationToken;

/// Lines of one caller in a minute.
const LINES: u32 = 10;
/// How long a caller's lines count together.
const MINUTE: Duration = Duration::from_secs(60);
/// The end of the process waits no longer for the last counts.
const LAST_TURN: Duration = Duration::from_secs(3);
/// Kinds of refusals that are counted apart, of all callers in a minute. What comes on top is in the log only.
const KINDS: usize = 20_000;

/// One kind of refusal of one caller.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Refused {
    /// Whose trail.
    pub tenant: TenantId,
    /// Who, as the trail has it.
    pub actor: String,
    /// What was tried.
    pub action: Action,
    /// The code of the refusal.
    pub result: String,
}

#[derive(Debug, Default)]
struct Minute {
    /// By tenant and caller.
    written: HashMap<(TenantId, String), u32>,
    counted: HashMap<Refused, u32>,
}

/// The refusals of this minute.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<Minute>);

impl Refusals {
    /// Whether this refusal gets a line now. Else it is counted. `caller` is whom the bound holds for: the actor, or the network
    /// of somebody who did not log in.
    #[must_use]
    pub fn admit(&self, caller: &str, refused: &Refused) -> bool {
        let Ok(mut minute) = self.0.lock() else { return false };
        let full = minute.written.len() >= KINDS;
        let key = (refused.tenant, caller.to_owned());
        if !full || minute.written.contains_key(&key) {
            let lines = minute.written.entry(key).or_default();
            if *lines < LINES {
                *lines += 1;
                return true;
            }
        }
        drop(minute);
        self.count(refused.clone(), 1);
        false
    }

    fn count(&self, refused: Refused, times: u32) {
        let Ok(mut minute) = self.0.lock() else { return };
        if minute.counted.len() < KINDS || minute.counted.contains_key(&refused) {
            *minute.counted.entry(refused).or_default() += times;
        } else {
            tracing::warn!(actor = refused.actor, action = %refused.action, times, "too many refusals to be counted");
        }
    }

    /// Begins a new minute, and writes what was counted in the last. What cannot be written is counted on.
    pub async fn turn(&self, db: &Db) {
        let counted =
            self.0.lock().map(|mut minute| std::mem::take(&mut *minute).counted).unwrap_or_default();
        for (refused, times) in counted {
            if let Err(error) = write_count(db, &refused, times).await {
                tracing::error!(%error, ?refused, times, "counted refusals could not be written to the audit trail");
            }
        }
    }

    /// Writes what was counted, minute by minute, and the rest at `shutdown`.
    pub async fn run(&self, db: &Db, shutdown: &CancellationToken) {
        while tokio::time::timeout(MINUTE, shutdown.cancelled()).await.is_err() {
            tokio::select! {
                () = self.turn(db) => {}
                () = shutdown.cancelled() => {}
            }
        }
        if tokio::time::timeout(LAST_TURN, self.turn(db)).await.is_err() {
            tracing::error!("the database was too slow for the last counts of refusals");
        }
    }
}

async fn write_count(db: &Db, refused: &Refused, times: u32) -> Result<(), DbError> {
    let mut tx = db.tenant(refused.tenant).await?;
    let entry = Entry {
        actor: &refused.actor,
        action: refused.action,
        target: None,
        address: None,
        result: &refused.result,
        request_id: None,
        times,
    };
    audit::record(&mut tx, &entry).await?;
    tx.commit().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_has_ten_lines_a_minute_and_the_rest_is_counted_by_kind() {
        let (refusals, tenant) = (Refusals::default(), TenantId::new());
        let refused = |actor: &str, action| Refused {
            tenant,
            actor: actor.to_owned(),
            action,
            result: "insufficient-scope".to_owned(),
        };
        let lines = |actor: &str, action, times: u32| {
            (0..times).filter(|_| refusals.admit(actor, &refused(actor, action))).count()
        };
        assert_eq!(lines("user:1", Action::DraftSend, 8), 8);
        assert_eq!(lines("user:1", Action::AccountDelete, 8), 2);
        assert_eq!(lines("user:1", Action::DraftSend, 5), 0);
        assert_eq!(lines("user:2", Action::DraftSend, 12), 10, "another caller has lines of its own");
        let counted = std::mem::take(&mut *refusals.0.lock().unwrap()).counted;
        let of = |actor: &str, action| counted.get(&refused(actor, action)).copied();
        assert_eq!(of("user:1", Action::AccountDelete), Some(6));
        assert_eq!(of("user:1", Action::DraftSend), Some(5));
        assert_eq!(of("user:2", Action::DraftSend), Some(2));
    }
}
