//! Watches of this process that are asked to end their connection, because somebody else of us needs it. Other processes ask
//! by the account's row, which is looked at every two seconds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch::{Receiver, Sender, channel};

use crate::platform::id::AccountId;

/// Shared by all of a process; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct GiveWay {
    watches: Arc<Mutex<HashMap<AccountId, Sender<bool>>>>,
}

impl GiveWay {
    /// A watch begins: what it is told, `true` while its connection is needed by others.
    #[must_use]
    pub fn register(&self, account: AccountId) -> Receiver<bool> {
        let (sender, receiver) = channel(false);
        self.watches().insert(account, sender);
        receiver
    }

    /// A watch is over.
    pub fn forget(&self, account: AccountId) {
        self.watches().remove(&account);
    }

    /// Tells the account's watch, if it is one of this process.
    pub fn tell(&self, account: AccountId, wanted: bool) {
        if let Some(watch) = self.watches().get(&account) {
            watch.send_if_modified(|now| std::mem::replace(now, wanted) != wanted);
        }
    }

    fn watches(&self) -> MutexGuard<'_, HashMap<AccountId, Sender<bool>>> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
