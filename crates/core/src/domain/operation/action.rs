//! One thing done to many messages, by a request itself or in batches by a worker: the same code for both.

use mail::flags::Flags;
use mail::mailbox::Role;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::mailbox;
use crate::domain::message;
use crate::domain::message::edit::{self, FlagEdit};
use crate::domain::message::transfer::{self, Target, TransferError};
use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{MailboxId, MessageId};

/// What is done. Where `mailbox_id` is optional it narrows the action to the copies in that mailbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Action {
    /// Sets `\Seen`.
    MarkRead {
        /// Only the copies here.
        mailbox_id: Option<MailboxId>,
    },
    /// Clears `\Seen`.
    MarkUnread {
        /// Only the copies here.
        mailbox_id: Option<MailboxId>,
    },
    /// Sets `\Flagged`.
    Star {
        /// Only the copies here.
        mailbox_id: Option<MailboxId>,
    },
    /// Clears `\Flagged`.
    Unstar {
        /// Only the copies here.
        mailbox_id: Option<MailboxId>,
    },
    /// Sets a keyword.
    AddKeyword {
        /// Which.
        keyword: String,
        /// Only the copies here.
        mailbox_id: Option<MailboxId>,
    },
    /// Clears a keyword.
    RemoveKeyword {
        /// Which.
        keyword: String,
        /// Only the copies here.
        mailbox_id: Option<MailboxId>,
    },
    /// Out of every mailbox, into this one.
    Move {
        /// The target.
        mailbox_id: MailboxId,
    },
    /// Into this mailbox as well.
    Copy {
        /// The target.
        mailbox_id: MailboxId,
    },
    /// To the account's Archive.
    Archive {
        /// Only the copies here.
        mailbox_id: Option<MailboxId>,
    },
    /// To the account's Junk.
    Junk {
        /// Only the copies here.
        mailbox_id: Option<MailboxId>,
    },
    /// To the account's Trash.
    Trash {
        /// Only the copies here.
        mailbox_id: Option<MailboxId>,
    },
    /// To the account's Trash, and from there for good.
    Delete {
        /// Only the copies here.
        mailbox_id: Option<MailboxId>,
    },
}

impl Action {
    /// The name, as the column `kind` and the API have it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::MarkRead { .. } => "mark_read",
            Self::MarkUnread { .. } => "mark_unread",
            Self::Star { .. } => "star",
            Self::Unstar { .. } => "unstar",
            Self::AddKeyword { .. } => "add_keyword",
            Self::RemoveKeyword { .. } => "remove_keyword",
            Self::Move { .. } => "move",
            Self::Copy { .. } => "copy",
            Self::Archive { .. } => "archive",
            Self::Junk { .. } => "junk",
            Self::Trash { .. } => "trash",
            Self::Delete { .. } => "delete",
        }
    }

    /// The mailbox whose copies alone are meant.
    fn source(&self) -> Option<MailboxId> {
        match self {
            Self::Move { .. } | Self::Copy { .. } => None,
            Self::MarkRead { mailbox_id }
            | Self::MarkUnread { mailbox_id }
            | Self::Star { mailbox_id }
            | Self::Unstar { mailbox_id }
            | Self::AddKeyword { mailbox_id, .. }
            | Self::RemoveKeyword { mailbox_id, .. }
            | Self::Archive { mailbox_id }
            | Self::Junk { mailbox_id }
            | Self::Trash { mailbox_id }
            | Self::Delete { mailbox_id } => *mailbox_id,
        }
    }

    fn change(&self) -> Change {
        let none = FlagEdit::default();
        match self {
            Self::MarkRead { .. } => Change::Flags(FlagEdit { add: Flags::SEEN, ..none }),
            Self::MarkUnread { .. } => Change::Flags(FlagEdit { remove: Flags::SEEN, ..none }),
            Self::Star { .. } => Change::Flags(FlagEdit { add: Flags::FLAGGED, ..none }),
            Self::Unstar { .. } => Change::Flags(FlagEdit { remove: Flags::FLAGGED, ..none }),
            Self::AddKeyword { keyword, .. } => {
                Change::Flags(FlagEdit { keywords_add: vec![keyword.clone()], ..none })
            }
            Self::RemoveKeyword { keyword, .. } => {
                Change::Flags(FlagEdit { keywords_remove: vec![keyword.clone()], ..none })
            }
            Self::Move { mailbox_id } => Change::Move(Target::Mailbox(*mailbox_id)),
            Self::Copy { mailbox_id } => Change::Copy(*mailbox_id),
            Self::Archive { .. } => Change::Move(Target::Role(Role::Archive)),
            Self::Junk { .. } => Change::Move(Target::Role(Role::Junk)),
            Self::Trash { .. } => Change::Move(Target::Role(Role::Trash)),
            Self::Delete { .. } => Change::Delete,
        }
    }

    /// Refuses at once what would be refused at some message later: nothing is done in the meantime.
    ///
    /// # Errors
    /// [`TransferError`].
    pub async fn check(&self, tx: &mut TenantTx, ids: &[MessageId]) -> Result<(), TransferError> {
        let (Self::Move { mailbox_id } | Self::Copy { mailbox_id }) = self else {
            return self.check_source(tx).await;
        };
        let target = mailbox::get(tx, *mailbox_id).await?.ok_or(TransferError::NoSuchMailbox)?;
        if !target.selectable {
            return Err(TransferError::NotSelectable);
        }
        let raw: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
        let foreign: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM messages WHERE tenant_id = $1 AND id = ANY ($2) AND account_id <> $3)",
        )
        .bind(tx.tenant())
        .bind(&raw)
        .bind(target.account_id)
        .fetch_one(tx.conn())
        .await
        .map_err(DbError::from)?;
        if foreign { Err(TransferError::OtherAccount) } else { Ok(()) }
    }

    async fn check_source(&self, tx: &mut TenantTx) -> Result<(), TransferError> {
        match self.source() {
            Some(source) if mailbox::get(tx, source).await?.is_none() => Err(TransferError::NoSuchMailbox),
            _ => Ok(()),
        }
    }

    /// Does it to those of `ids` that are still there (in the mailbox it is narrowed to, if any), with their events and
    /// what the servers are to follow. Returns how many those were.
    ///
    /// # Errors
    /// [`TransferError`]; then the transaction must not be committed.
    pub async fn apply(&self, tx: &mut TenantTx, ids: &[MessageId]) -> Result<usize, TransferError> {
        // What is limited to a mailbox that is gone would count messages that it does not touch.
        self.check_source(tx).await?;
        let there = match self.source() {
            Some(source) => message::visible_in(tx, ids, source).await?,
            None => message::visible(tx, ids).await?,
        };
        match self.change() {
            Change::Flags(edit) => {
                edit::flags(tx, &there, self.source(), &edit).await?;
            }
            Change::Move(target) => {
                transfer::move_to(tx, &there, self.source(), target).await?;
            }
            Change::Copy(target) => {
                transfer::copy_to(tx, &there, target).await?;
            }
            Change::Delete => {
                transfer::delete(tx, &there, self.source(), false).await?;
            }
        }
        Ok(there.len())
    }
}

/// What an action does to a message, whatever its name.
enum Change {
    Flags(FlagEdit),
    Move(Target),
    Copy(MailboxId),
    Delete,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_read_back_and_carries_the_name_of_its_kind() {
        let mailbox_id = MailboxId::new();
        let keyword = "work".to_owned();
        for action in [
            Action::MarkRead { mailbox_id: None },
            Action::AddKeyword { keyword, mailbox_id: Some(mailbox_id) },
            Action::Move { mailbox_id },
            Action::Delete { mailbox_id: Some(mailbox_id) },
        ] {
            let stored = serde_json::to_value(&action).unwrap();
            assert_eq!(stored["action"], action.name());
            assert_eq!(serde_json::from_value::<Action>(stored).unwrap(), action);
        }
    }

    #[test]
    fn a_move_without_a_target_cannot_be_read() {
        let stored = serde_json::json!({ "action": "move", "mailbox_id": null });
        assert!(serde_json::from_value::<Action>(stored).is_err());
    }
}
