//! An event as it is sent out: the same envelope at every door, with what it happened to as that is at delivery.

use std::collections::HashMap;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;
use uuid::Uuid;

use super::log::Entry;
use crate::domain::event::{Event, EventKind};
use crate::domain::{account, mailbox, message, submission};
use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{AccountId, MailboxId, MessageId, SubmissionId, TenantId, ThreadId};
use crate::platform::words::words;
use crate::view::mailbox::MailboxView;
use crate::view::message::SummaryView;
use crate::view::submission::SubmissionView;

const PREFIX: &str = "evt_";
const CHECK_BYTES: usize = 8;
/// Addresses of a field that go with an event: of thousands, a client that wants them reads the message.
const PEOPLE: usize = 100;

/// An event as clients get it.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Event)]
pub struct Envelope {
    /// The same at every door and in every try: who has seen it may pass it over.
    pub id: String,
    /// Its kind, `noun.verb`.
    #[serde(rename = "type")]
    pub kind: String,
    /// When it happened.
    #[schema(value_type = String, format = DateTime)]
    pub timestamp: String,
    /// Whose; `null`: the tenant's.
    #[schema(value_type = Option<Uuid>)]
    pub account_id: Option<AccountId>,
    /// What it happened to, as that is now: `null` where it is gone.
    pub data: Value,
}

words! {
    /// How much of what an event happened to goes with it.
    pub enum Include {
        /// As lists show it.
        Summary = "summary",
        /// Its id alone.
        Ids = "ids",
    }
}

/// The id of the event at this position. As texts, ids of a tenant are in the order of its events.
#[must_use]
pub fn event_id(tenant: TenantId, position: i64) -> String {
    let place = position.to_be_bytes();
    let check = check(tenant, &place);
    format!("{PREFIX}{}", hex::encode([place.as_slice(), &check].concat()))
}

/// The position in an id that [`event_id`] made for this tenant. It is no secret, and whoever makes one up for its own tenant
/// gets no more than it may read anyway; the check tells a mistake from a place.
#[must_use]
pub fn position_of(tenant: TenantId, id: &str) -> Option<i64> {
    let bytes = hex::decode(id.strip_prefix(PREFIX)?).ok()?;
    let (place, rest) = bytes.split_first_chunk::<8>()?;
    (check(tenant, place) == *rest).then_some(i64::from_be_bytes(*place)).filter(|position| *position >= 0)
}

fn check(tenant: TenantId, place: &[u8]) -> Vec<u8> {
    let sum = Sha256::digest([tenant.0.as_bytes(), place].concat());
    sum.get(..CHECK_BYTES).unwrap_or_default().to_vec()
}

/// How an instant is written in envelopes: RFC 3339 with milliseconds.
#[must_use]
pub fn timestamp(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// What events happened to, as it is now.
#[derive(Default)]
struct Now {
    messages: HashMap<Uuid, Value>,
    mailboxes: HashMap<Uuid, Value>,
    submissions: HashMap<Uuid, Value>,
    accounts: HashMap<Uuid, Value>,
}

impl Now {
    async fn load(tx: &mut TenantTx, entries: &[Entry]) -> Result<Self, DbError> {
        let of = |noun: &str| {
            let mut ids: Vec<Uuid> = entries
                .iter()
                .filter(|e| e.kind.split('.').next() == Some(noun) && !e.kind.ends_with(".deleted"))
                .filter_map(|e| e.object_id)
                .collect();
            ids.sort_unstable();
            ids.dedup();
            ids
        };
        let mut now = Self::default();
        let messages: Vec<MessageId> = of("message").into_iter().map(MessageId).collect();
        for mut found in message::by_ids(tx, &messages).await? {
            for people in [&mut found.from, &mut found.to, &mut found.cc] {
                people.truncate(PEOPLE);
            }
            now.messages.insert(found.id.0, json_of(&SummaryView::new(found, None)));
        }
        for id in of("mailbox") {
            if let Some(found) = mailbox::get(tx, MailboxId(id)).await? {
                now.mailboxes.insert(id, json_of(&MailboxView::from(found)));
            }
        }
        for id in of("submission") {
            if let Some(found) = submission::get(tx, SubmissionId(id)).await? {
                now.submissions.insert(id, json_of(&SubmissionView::from(found)));
            }
        }
        for id in of("account") {
            if let Some(found) = account::get(tx, AccountId(id)).await? {
                let cause = found.cause.map(|cause| cause.code);
                now.accounts.insert(id, json!({ "state": found.state, "cause": cause }));
            }
        }
        Ok(now)
    }
}

/// Views are structs of words, numbers and lists, which always are JSON.
fn json_of(view: &impl Serialize) -> Value {
    serde_json::to_value(view).unwrap_or_default()
}

/// An event of this kind as it might be sent, with ids alone.
#[must_use]
pub fn example(kind: EventKind) -> Envelope {
    let event = Event::example(kind);
    let is_of = |noun: &str| kind.as_str().split('.').next() == Some(noun);
    let entry = Entry {
        position: 1,
        kind: kind.to_string(),
        account_id: (!is_of("webhook")).then_some(AccountId(event.object())),
        object_id: Some(event.object()),
        thread_id: is_of("message").then_some(ThreadId(event.object())),
        thread_shown: None,
        backfill: false,
        data: event.data(),
        created_at: DateTime::UNIX_EPOCH,
    };
    envelope(TenantId(Uuid::nil()), &entry, &Now::default(), Include::Ids)
}

fn envelope(tenant: TenantId, entry: &Entry, now: &Now, include: Include) -> Envelope {
    Envelope {
        id: event_id(tenant, entry.position),
        kind: entry.kind.clone(),
        timestamp: timestamp(entry.created_at),
        account_id: entry.account_id,
        data: Value::Object(data(entry, now, include)),
    }
}

/// The envelopes of these events, in their order.
///
/// # Errors
/// Those of the database.
pub async fn envelopes(
    tx: &mut TenantTx,
    entries: &[Entry],
    include: Include,
) -> Result<Vec<Envelope>, DbError> {
    let now = match include {
        Include::Summary => Now::load(tx, entries).await?,
        Include::Ids => Now::default(),
    };
    let tenant = tx.tenant();
    Ok(entries.iter().map(|entry| envelope(tenant, entry, &now, include)).collect())
}

fn data(entry: &Entry, now: &Now, include: Include) -> Map<String, Value> {
    let mut data = entry.data.as_object().cloned().unwrap_or_default();
    let noun = entry.kind.split('.').next().unwrap_or_default();
    let Some(object) = entry.object_id else { return data };
    data.insert(format!("{noun}_id"), json!(object));
    let of = |all: &HashMap<Uuid, Value>| all.get(&object).cloned().unwrap_or_default();
    let with = include == Include::Summary && !entry.kind.ends_with(".deleted");
    match noun {
        "message" => {
            data.insert("thread_id".to_owned(), json!(entry.thread_id));
            data.insert("backfill".to_owned(), json!(entry.backfill));
            if with {
                data.insert("message".to_owned(), of(&now.messages));
            }
        }
        "mailbox" if with => _ = data.insert("mailbox".to_owned(), of(&now.mailboxes)),
        "submission" if with => {
            let submission = of(&now.submissions);
            let recipients = submission.get("recipients").cloned().unwrap_or_default();
            data.insert("recipients".to_owned(), recipients);
            data.insert("submission".to_owned(), submission);
        }
        "account" if with => {
            // Of a change of state, the state it changed to.
            for (name, value) in of(&now.accounts).as_object().into_iter().flatten() {
                data.entry(name.clone()).or_insert_with(|| value.clone());
            }
        }
        _ => {}
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_by_its_own_tenant_only() {
        let (tenant, other) = (TenantId::new(), TenantId::new());
        for position in [0, 1, 77, i64::MAX] {
            let id = event_id(tenant, position);
            assert_eq!(position_of(tenant, &id), Some(position));
            assert_eq!(id, event_id(tenant, position));
            assert_eq!(position_of(other, &id), None);
            assert_eq!(position_of(tenant, &id.to_uppercase()), None);
            assert_eq!(position_of(tenant, &format!("{id}00")), None);
            assert_eq!(position_of(tenant, id.trim_start_matches(PREFIX)), None);
        }
        for bad in ["", "evt_", "evt_00ff", "7", "evt_____"] {
            assert_eq!(position_of(tenant, bad), None, "{bad}");
        }
    }

    #[test]
    fn ids_alone_have_no_content_and_a_deleted_message_has_its_id() {
        let entry = |kind: &str| Entry {
            position: 1,
            kind: kind.to_owned(),
            account_id: None,
            object_id: Some(Uuid::nil()),
            thread_id: None,
            thread_shown: None,
            backfill: false,
            data: json!({ "changed": ["flags"] }),
            created_at: DateTime::UNIX_EPOCH,
        };
        let now = Now::default();
        let ids = data(&entry("message.updated"), &now, Include::Ids);
        assert!(!ids.contains_key("message") && ids["changed"] == json!(["flags"]));
        let gone = data(&entry("message.created"), &now, Include::Summary);
        assert_eq!(gone["message"], Value::Null);
        let deleted = data(&entry("message.deleted"), &now, Include::Summary);
        assert!(!deleted.contains_key("message") && deleted["message_id"] == json!(Uuid::nil()));
    }
}
