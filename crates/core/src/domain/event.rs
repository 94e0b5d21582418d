//! The event log: every change that a client can see, written in the change's own transaction.
//!
//! An event says what happened to which object; its payload holds ids and states that tell a reader where to look, never
//! contents. What is recorded here gets its position when the transaction commits. How the log is read stands in
//! [`crate::events`]. The next kind of event: an entry in `events!`, which makes its payload struct, its place in [`Event`] and its
//! word.

use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::domain::states::{AccountState, SubmissionState};
use crate::platform::db::{Line, TenantTx};
use crate::platform::id::{AccountId, DraftId, MailboxId, MessageId, SubmissionId, ThreadId, WebhookId};
use crate::platform::words::words;

words! {
    /// What of a message is another than before.
    pub enum MessagePart {
        /// System flags.
        Flags = "flags",
        /// Keywords.
        Keywords = "keywords",
        /// The mailboxes it is in.
        Mailboxes = "mailboxes",
        /// Its conversation.
        Thread = "thread",
    }
}

words! {
    /// What of a mailbox is another than before.
    pub enum MailboxPart {
        /// Name or path.
        Name = "name",
        /// Why it does not work, or that it does again.
        Cause = "cause",
        /// Whether it can hold messages.
        Selectable = "selectable",
        /// Role or subscription, as listed by the server or set by a client.
        Attributes = "attributes",
    }
}

/// A value for the example of an event in the description of the API.
trait Example {
    fn example() -> Self;
}

macro_rules! examples {
    ($($type:ty = $value:expr;)+) => {
        $(impl Example for $type {
            fn example() -> Self {
                $value
            }
        })+
    };
}

/// An id that is nobody's.
const SOMETHING: Uuid = Uuid::from_u128(0x01a2_3000_0000_7000_8000_0000_0000_0001);

examples! {
    AccountId = Self(SOMETHING);
    DraftId = Self(SOMETHING);
    MailboxId = Self(SOMETHING);
    MessageId = Self(SOMETHING);
    SubmissionId = Self(SOMETHING);
    ThreadId = Self(SOMETHING);
    WebhookId = Self(SOMETHING);
    Vec<MessagePart> = vec![MessagePart::Flags];
    &'static [MailboxPart] = &[MailboxPart::Name];
    AccountState = Self::NeedsReauth;
    Option<&'static str> = Some("auth-failed");
    &'static str = "five days without success";
    bool = false;
}

macro_rules! events {
    ($($(#[$doc:meta])* $name:ident = $kind:literal, $id:ident {
        $($(#[$field_doc:meta])* $field:ident: $type:ty,)*
    })+) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, PartialEq, Eq, Serialize)]
            pub struct $name {
                /// The object it happened to; a column of its own in the log.
                #[serde(skip)]
                pub id: $id,
                $($(#[$field_doc])* pub $field: $type,)*
            }

            impl From<$name> for Event {
                fn from(event: $name) -> Self {
                    Self::$name(event)
                }
            }
        )+

        /// One event, of one kind.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Event { $($(#[$doc])* $name($name),)+ }

        words! {
            /// The kinds of events, `noun.verb`.
            pub enum EventKind { $($(#[$doc])* $name = $kind,)+ }
        }

        impl Event {
            /// Its kind.
            #[must_use]
            pub const fn kind(&self) -> EventKind {
                match self { $(Self::$name(_) => EventKind::$name,)+ }
            }

            /// The object it happened to.
            #[must_use]
            pub const fn object(&self) -> Uuid {
                match self { $(Self::$name(event) => event.id.0,)+ }
            }

            /// One of this kind, as it might be.
            #[must_use]
            pub fn example(kind: EventKind) -> Self {
                match kind {
                    $(EventKind::$name => $name { id: Example::example(), $($field: Example::example(),)* }.into(),)+
                }
            }

            /// Its payload. Structs of ids and words always are JSON.
            pub(crate) fn data(&self) -> Value {
                match self { $(Self::$name(event) => serde_json::to_value(event).unwrap_or_default(),)+ }
            }
        }
    };
}

events! {
    /// A message is seen that was not.
    MessageCreated = "message.created", MessageId {
        /// Where it was seen.
        mailbox_id: MailboxId,
    }
    /// A message is seen differently.
    MessageUpdated = "message.updated", MessageId {
        /// What differs.
        changed: Vec<MessagePart>,
    }
    /// A message is seen no more.
    MessageDeleted = "message.deleted", MessageId {}
    /// A conversation turned out to be part of another one, which has its messages now.
    ThreadMerged = "thread.merged", ThreadId {
        /// The other one.
        into: ThreadId,
    }
    /// A draft was begun.
    DraftCreated = "draft.created", DraftId {}
    /// Its content, its files or its submission is another.
    DraftUpdated = "draft.updated", DraftId {}
    /// It was thrown away.
    DraftDeleted = "draft.deleted", DraftId {}
    /// There is a new mailbox.
    MailboxCreated = "mailbox.created", MailboxId {}
    /// A mailbox is another.
    MailboxUpdated = "mailbox.updated", MailboxId {
        /// What differs.
        changed: &'static [MailboxPart],
    }
    /// A mailbox is gone.
    MailboxDeleted = "mailbox.deleted", MailboxId {}
    /// The server began the numbers of a mailbox anew: all of it is read again.
    MailboxReset = "mailbox.reset", MailboxId {}
    /// An account was connected.
    AccountCreated = "account.created", AccountId {}
    /// What a client can write of it was changed.
    AccountUpdated = "account.updated", AccountId {}
    /// It stands otherwise with its server.
    AccountStateChanged = "account.state_changed", AccountId {
        /// How.
        state: AccountState,
        /// The code of the cause, where there is trouble.
        cause: Option<&'static str>,
    }
    /// All of its mail is here, for the first time or after it was read anew.
    AccountSynced = "account.synced", AccountId {}
    /// An account was removed.
    AccountDeleted = "account.deleted", AccountId {}
    /// A submission waits to be handed over.
    SubmissionQueued = "submission.queued", SubmissionId {
        /// It was there before: its sender gave it another try.
        again: bool,
    }
    /// A server took it.
    SubmissionSent = "submission.sent", SubmissionId {}
    /// It will not be sent.
    SubmissionFailed = "submission.failed", SubmissionId {}
    /// Nobody knows whether a server took it.
    SubmissionUnknown = "submission.unknown", SubmissionId {}
    /// Its sender took it back.
    SubmissionCancelled = "submission.cancelled", SubmissionId {}
    /// Nothing is sent to a webhook any more.
    WebhookDisabled = "webhook.disabled", WebhookId {
        /// Why.
        reason: &'static str,
    }
}

impl Event {
    /// The event of a submission that came into this state; a hand-over that is under way is told by its end. `again`: it waits
    /// once more.
    #[must_use]
    pub fn of_submission(id: SubmissionId, state: SubmissionState, again: bool) -> Option<Self> {
        Some(match state {
            SubmissionState::Queued => SubmissionQueued { id, again }.into(),
            SubmissionState::Sending => return None,
            SubmissionState::Sent => SubmissionSent { id }.into(),
            SubmissionState::Failed => SubmissionFailed { id }.into(),
            SubmissionState::Unknown => SubmissionUnknown { id }.into(),
            SubmissionState::Cancelled => SubmissionCancelled { id }.into(),
        })
    }
}

impl Event {
    /// By how many the conversation of this event's message has more messages in sight; `None`: it is of no message.
    fn gain(&self) -> Option<i16> {
        match self {
            Self::MessageCreated(_) => Some(1),
            Self::MessageUpdated(event) => Some(i16::from(event.changed.contains(&MessagePart::Thread))),
            Self::MessageDeleted(_) => Some(-1),
            _ => None,
        }
    }

    fn line(&self, account: Option<AccountId>, backfill: bool) -> Line {
        let (kind, object, data) = (self.kind().as_str(), self.object(), self.data());
        Line { kind, account, object, data, gain: self.gain(), backfill }
    }
}

/// Adds events of one account, in order.
pub fn record(tx: &mut TenantTx, account: AccountId, events: &[Event]) {
    tx.log(events.iter().map(|event| event.line(Some(account), false)));
}

/// The same of old mail that is read for the first time: who follows the news is spared it.
pub fn record_backfill(tx: &mut TenantTx, account: AccountId, events: &[Event]) {
    tx.log(events.iter().map(|event| event.line(Some(account), true)));
}

/// Adds one event of an account.
pub fn tell(tx: &mut TenantTx, account: AccountId, event: impl Into<Event>) {
    record(tx, account, &[event.into()]);
}

/// Adds an event of the tenant that concerns no account.
pub fn tell_tenant(tx: &mut TenantTx, event: impl Into<Event>) {
    tx.log([event.into().line(None, false)]);
}

/// Adds the event of an account that stands otherwise with its server than before.
pub fn tell_state(tx: &mut TenantTx, id: AccountId, state: AccountState, cause: Option<&'static str>) {
    tell(tx, id, AccountStateChanged { id, state, cause });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_written_as_its_kind_its_object_and_what_differs() {
        let id = MessageId::new();
        let event =
            Event::from(MessageUpdated { id, changed: vec![MessagePart::Flags, MessagePart::Mailboxes] });
        assert_eq!((event.kind().as_str(), event.object()), ("message.updated", id.0));
        assert_eq!(event.data().to_string(), r#"{"changed":["flags","mailboxes"]}"#);
        assert_eq!(Event::from(MessageDeleted { id }).data().to_string(), "{}");
    }

    #[test]
    fn each_state_of_a_submission_has_its_event_but_that_of_the_hand_over() {
        for state in SubmissionState::ALL {
            let told = Event::of_submission(SubmissionId::new(), *state, false).map(|e| e.kind().to_string());
            let wanted = (*state != SubmissionState::Sending).then(|| format!("submission.{state}"));
            assert_eq!(told, wanted);
        }
    }
}
