//! What a copy of the API remembers for seconds, so that not every request asks the database for it.

use std::time::Duration;

use emailclient_core::access::tenant::TenantKey;
use emailclient_core::access::user::User;
use emailclient_core::platform::id::{SessionId, TenantId};
use mail::mime::AttachmentPlace;
use moka::sync::Cache;

/// Entries of each kind; beyond, those that are asked for least are forgotten.
const REMEMBERED: u64 = 10_000;
/// Some hundred bytes each.
const PLACES: u64 = 1000;
/// How late a suspension of a tenant may be noticed.
const TENANT_FRESH: Duration = Duration::from_secs(5);
/// How late the end of a session may be noticed that another copy of the API ended.
const SESSION_FRESH: Duration = Duration::from_secs(3);

/// Answers of the database that may be a few seconds old.
#[derive(Debug)]
pub struct Known {
    pub(crate) tenants: Cache<TenantId, TenantKey>,
    // With the tenant it was found in: a session of one tenant must not answer for a token of another.
    pub(crate) sessions: Cache<SessionId, (TenantId, User)>,
}

impl Default for Known {
    fn default() -> Self {
        Self {
            tenants: Cache::builder().max_capacity(REMEMBERED).time_to_live(TENANT_FRESH).build(),
            sessions: Cache::builder().max_capacity(REMEMBERED).time_to_live(SESSION_FRESH).build(),
        }
    }
}

impl Known {
    /// Forgets a session that just ended, so that it ends here at once.
    pub fn forget_session(&self, session: SessionId) {
        self.sessions.invalidate(&session);
    }
}

/// Where attachments were found lately: clients ask for one in parts, and many at once for the same.
#[derive(Debug)]
pub struct Places(Cache<(Vec<u8>, usize), AttachmentPlace>);

impl Default for Places {
    fn default() -> Self {
        Self(Cache::new(PLACES))
    }
}

impl Places {
    /// By the hash of the source and the attachment's index.
    pub(crate) fn get(&self, hash: &[u8], index: usize) -> Option<AttachmentPlace> {
        self.0.get(&(hash.to_vec(), index))
    }

    pub(crate) fn put(&self, hash: &[u8], index: usize, place: &AttachmentPlace) {
        self.0.insert((hash.to_vec(), index), place.clone());
    }
}

#[cfg(test)]
mod tests {
    use emailclient_core::access::principal::Role;
    use emailclient_core::platform::id::UserId;

    use super::*;

    fn someone() -> (TenantId, User) {
        let (email, name) = ("a@x.test".to_owned(), String::new());
        (TenantId::new(), User { id: UserId::new(), email, name, role: Role::Member, disabled: false })
    }

    #[test]
    fn a_session_that_ended_here_is_forgotten_at_once_and_any_other_after_three_seconds() {
        let (known, session, other) = (Known::default(), SessionId::new(), SessionId::new());
        for id in [session, other] {
            known.sessions.insert(id, someone());
            assert!(known.sessions.get(&id).is_some());
        }
        known.forget_session(session);
        assert!(known.sessions.get(&session).is_none() && known.sessions.get(&other).is_some());
        assert_eq!(known.sessions.policy().time_to_live(), Some(Duration::from_secs(3)));
        assert_eq!(known.tenants.policy().time_to_live(), Some(Duration::from_secs(5)));
        // From when it was learned, however often it is asked for.
        assert_eq!(
            (known.sessions.policy().time_to_idle(), known.tenants.policy().time_to_idle()),
            (None, None)
        );
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let known = Known::default();
        let user = someone();
        for _ in 0..2 * REMEMBERED {
            known.sessions.insert(SessionId::new(), user.clone());
        }
        known.sessions.run_pending_tasks();
        assert!(known.sessions.entry_count() <= REMEMBERED, "{}", known.sessions.entry_count());
    }
}
