//! Who asks, for which tenant, and what that one may do: scopes, roles as sets of them, and the accounts within reach.

use crate::platform::db::Reach;
use crate::platform::id::{TenantId, UserId};
use crate::platform::words::words;

words! {
    /// One thing that may be allowed. Each route of the API asks for one at most.
    pub enum Scope {
        /// Read accounts, mail, drafts, submissions and their states.
        MailRead = "mail:read",
        /// Change mail, mailboxes and drafts.
        MailWrite = "mail:write",
        /// Send, cancel and send again.
        MailSend = "mail:send",
        /// Connect, change, pause and remove accounts.
        AccountsManage = "accounts:manage",
        /// Make and change webhooks.
        WebhooksManage = "webhooks:manage",
        /// Read the audit trail.
        AuditRead = "audit:read",
        /// Make and change users, and the keys of others.
        UsersManage = "users:manage",
        /// Change the tenant's own settings.
        TenantManage = "tenant:manage",
    }
}

words! {
    /// What a user may do, as a set of scopes. The order is that of power.
    pub enum Role {
        /// Reads mail.
        Viewer = "viewer",
        /// Also changes and sends it.
        Member = "member",
        /// Also manages accounts and webhooks, and reads the audit trail.
        Admin = "admin",
        /// Everything.
        Owner = "owner",
    }
}

impl Role {
    /// The scopes of this role, in the order of [`Scope::ALL`]: each role has those of the weaker ones, too.
    #[must_use]
    pub fn scopes(self) -> &'static [Scope] {
        let many = match self {
            Self::Viewer => 1,
            Self::Member => 3,
            Self::Admin => 6,
            Self::Owner => Scope::ALL.len(),
        };
        Scope::ALL.get(..many).unwrap_or(Scope::ALL)
    }
}

impl std::str::FromStr for Role {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::from_word(text).ok_or("a role is owner, admin, member or viewer")
    }
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// For which tenant.
    pub tenant: TenantId,
    /// The user.
    pub user: UserId,
    /// What it may do.
    pub scopes: &'static [Scope],
    /// The accounts it may touch. Others do not exist for it; the database sees to that.
    pub reach: Reach,
}

impl Principal {
    /// A user who logged in. Its role decides; all accounts of the tenant are within its reach.
    #[must_use]
    pub fn user(tenant: TenantId, user: UserId, role: Role) -> Self {
        Self { tenant, user, scopes: role.scopes(), reach: Reach::All }
    }

    /// Whether it may do this.
    #[must_use]
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }

    /// `user:<id>`, as the audit trail and kept answers have it.
    #[must_use]
    pub fn actor(&self) -> String {
        format!("user:{}", self.user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_has_the_scopes_of_the_weaker_ones_and_more() {
        let words = |role: Role| role.scopes().iter().map(|s| s.as_str()).collect::<Vec<_>>().join(" ");
        assert_eq!(words(Role::Viewer), "mail:read");
        assert_eq!(words(Role::Member), "mail:read mail:write mail:send");
        assert_eq!(
            words(Role::Admin),
            "mail:read mail:write mail:send accounts:manage webhooks:manage audit:read"
        );
        assert_eq!(Role::Owner.scopes(), Scope::ALL);
        for pair in Role::ALL.windows(2) {
            assert!(pair[1].scopes().starts_with(pair[0].scopes()) && pair[0] < pair[1], "{pair:?}");
        }
    }
}
