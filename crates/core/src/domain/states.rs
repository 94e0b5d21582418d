//! The states of accounts and submissions, and the roles of mailboxes, as columns and answers have them. Other modules of the domain know them; they know
//! none of those.
//!
//! A state more: a value here, and in the CHECK of its column by a migration.

use mail::mailbox::Role;
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::platform::words::{unknown, words};

/// The role of a mailbox, out of the column `role`.
///
/// # Errors
/// When it is none that this release knows.
pub(crate) fn mailbox_role(row: &PgRow) -> Result<Option<Role>, sqlx::Error> {
    let Some(word) = row.try_get::<Option<&str>, _>("role")? else { return Ok(None) };
    let role = Role::parse(word).ok_or_else(|| sqlx::Error::Decode(unknown("role", word).into()))?;
    Ok(Some(role))
}

words! {
    /// How an account stands with its server.
    pub enum AccountState {
        /// Never connected yet.
        Connecting = "connecting",
        /// A round is under way.
        Syncing = "syncing",
        /// The last round succeeded.
        Connected = "connected",
        /// The server does not answer or speaks no IMAP.
        Unreachable = "unreachable",
        /// The server asked for patience.
        Throttled = "throttled",
        /// The user has to give new credentials.
        NeedsReauth = "needs_reauth",
        /// A user stopped its synchronisation.
        Paused = "paused",
    }
}

words! {
    /// How a submission stands (RFC 8621 §7).
    pub enum SubmissionState {
        /// It waits: for its time, for another try, or to be cancelled.
        Queued = "queued",
        /// A worker hands it over.
        Sending = "sending",
        /// A server took it for everybody who could be served.
        Sent = "sent",
        /// It will not be sent.
        Failed = "failed",
        /// The line broke after the dot: nobody knows.
        Unknown = "unknown",
        /// Its sender took it back in time.
        Cancelled = "cancelled",
    }
}

words! {
    /// What became of a recipient.
    pub enum RecipientState {
        /// Nothing was learned yet.
        Pending = "pending",
        /// The server took the message for it.
        Accepted = "accepted",
        /// The server refused it with a temporary error (4xx, RFC 5321 §4.2.1): it is tried again.
        Deferred = "deferred",
        /// The server refused it with a permanent error (5xx).
        Refused = "refused",
        /// A notification says that it arrived.
        Delivered = "delivered",
        /// A notification says that it did not.
        Bounced = "bounced",
    }
}

words! {
    /// How far a hand-over came. Before the dot nothing was sent; from the dot on a broken line leaves it unknown.
    pub enum Phase {
        /// Connection, TLS, log-in.
        Connect = "connect",
        /// MAIL and RCPT.
        Envelope = "envelope",
        /// The message is written.
        Data = "data",
        /// The final dot is written, or may be.
        Dot = "dot",
        /// It is over.
        Done = "done",
    }
}

words! {
    /// The copy of a sent message in Sent.
    pub enum CopyState {
        /// Nobody has the message yet.
        None = "none",
        /// It is to be filed.
        Pending = "pending",
        /// It is there.
        Done = "done",
        /// The provider files it itself.
        Skipped = "skipped",
        /// It could not be filed.
        Failed = "failed",
    }
}
