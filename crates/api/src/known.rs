//! What a copy of the API remembers for seconds, so that not every request asks the database for it.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use emailclient_core::access::tenant::TenantKey;
use emailclient_core::access::user::User;
use emailclient_core::platform::id::{SessionId, TenantId};
use mail::mime::AttachmentPlace;

const REMEMBERED: usize = 10_000;
/// Some hundred bytes each.
const PLACES: usize = 1000;

/// Answers of the database that may be a few seconds old.
#[derive(Debug, Default)]
pub struct Known {
    pub(crate) tenants: Memory<TenantId, TenantKey>,
    // With the tenant it was found in: a session of one tenant must not answer for a token of another.
    pub(crate) sessions: Memory<SessionId, (TenantId, User)>,
}

/// Values by key, each with the moment it was learned.
#[derive(Debug)]
pub(crate) struct Memory<K, V>(Mutex<HashMap<K, (Instant, V)>>);

impl<K, V> Default for Memory<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Hash + Eq, V: Clone> Memory<K, V> {
    pub(crate) fn get(&self, key: &K, fresh: Duration) -> Option<V> {
        let map = self.0.lock().ok()?;
        map.get(key).filter(|(at, _)| at.elapsed() < fresh).map(|(_, v)| v.clone())
    }
    pub(crate) fn put(&self, key: K, value: V) {
        if let Ok(mut map) = self.0.lock() {
            if map.len() >= REMEMBERED {
                map.clear();
            }
            map.insert(key, (Instant::now(), value));
        }
    }
    pub(crate) fn forget(&self, key: &K) {
        if let Ok(mut map) = self.0.lock() {
            map.remove(key);
        }
    }
}

impl Known {
    /// Forgets a session that just ended, so that it ends here at once.
    pub fn forget_session(&self, session: SessionId) {
        self.sessions.forget(&session);
    }
}

/// Where attachments were found lately: clients ask for one in parts, and many at once for the same.
#[derive(Debug, Default)]
pub struct Places(Mutex<HashMap<(Vec<u8>, usize), AttachmentPlace>>);

impl Places {
    /// By the hash of the source and the attachment's index.
    pub(crate) fn get(&self, hash: &[u8], index: usize) -> Option<AttachmentPlace> {
        self.0.lock().ok()?.get(&(hash.to_vec(), index)).cloned()
    }

    pub(crate) fn put(&self, hash: &[u8], index: usize, place: &AttachmentPlace) {
        if let Ok(mut places) = self.0.lock() {
            if places.len() >= PLACES {
                places.clear();
            }
            places.insert((hash.to_vec(), index), place.clone());
        }
    }
}
