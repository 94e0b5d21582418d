//! Which accounts of its tenant a transaction sees.

use std::fmt::Write as _;

use crate::platform::id::AccountId;

/// The accounts within reach. What belongs to another account does not exist in such a transaction: row-level security of
/// the role `emailclient_limited` hides it from every statement and refuses writes to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Reach {
    /// All accounts of the tenant.
    #[default]
    All,
    /// These and no others; none at all when the list is empty.
    Only(Vec<AccountId>),
}

impl Reach {
    /// Whether this account is within reach.
    #[must_use]
    pub fn has(&self, account: AccountId) -> bool {
        match self {
            Self::All => true,
            Self::Only(accounts) => accounts.contains(&account),
        }
    }

    /// The list as SQL; `NULL`: all. Ids are UUIDs, so nothing in it needs quoting.
    pub(super) fn list(&self) -> String {
        let Self::Only(accounts) = self else { return "NULL".to_owned() };
        let mut list = String::new();
        for account in accounts {
            let comma = if list.is_empty() { "" } else { "," };
            // Writing to a String cannot fail.
            let _ = write!(list, "{comma}{account}");
        }
        format!("'{{{list}}}'")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limited_transaction_names_its_accounts() {
        assert_eq!(Reach::All.list(), "NULL");
        let (a, b) = (AccountId::new(), AccountId::new());
        let only = Reach::Only(vec![a, b]);
        assert_eq!(only.list(), format!("'{{{a},{b}}}'"));
        assert!(only.has(a) && !only.has(AccountId::new()) && Reach::All.has(a));
        assert_eq!(Reach::Only(vec![]).list(), "'{}'");
    }
}
