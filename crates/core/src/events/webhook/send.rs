//! What goes out: the body of an event, the fields of its head, and the way to the endpoint (Standard Webhooks 1.0.0, "Payload
//! structure" and "Headers").

use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderValue};
use serde_json::{Value, json};

use super::secret::Secrets;
use crate::connect::Process;
use crate::events::envelope::{self, Envelope, Include};
use crate::events::log::Entry;
use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{WebhookId, new_uuid};
use wire::post::{Address, AddressError, PATIENCE, Poster};

/// An event as it goes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Its id, the same in every try.
    pub id: String,
    /// `{type, timestamp, data}`.
    pub body: Bytes,
}

fn outgoing(event: Envelope) -> Outgoing {
    let mut data = event.data;
    if let (Value::Object(data), Some(account)) = (&mut data, event.account_id) {
        data.insert("account_id".to_owned(), json!(account));
    }
    let body = json!({ "type": event.kind, "timestamp": event.timestamp, "data": data });
    Outgoing { id: event.id, body: Bytes::from(body.to_string()) }
}

/// These events, in their order, with what they happened to as it is now.
///
/// # Errors
/// Those of the database.
pub async fn outgoing_of(
    tx: &mut TenantTx,
    entries: &[Entry],
    include: Include,
) -> Result<Vec<Outgoing>, DbError> {
    Ok(envelope::envelopes(tx, entries, include).await?.into_iter().map(outgoing).collect())
}

/// An event that nothing happened for, to try an endpoint with.
#[must_use]
pub fn test_event(webhook: WebhookId, now: DateTime<Utc>) -> Outgoing {
    let data = json!({ "webhook_id": webhook });
    let timestamp = envelope::timestamp(now);
    let body = json!({ "type": "webhook.test", "timestamp": timestamp, "data": data });
    Outgoing { id: format!("evt_test_{}", new_uuid().simple()), body: Bytes::from(body.to_string()) }
}

/// The head of one attempt at `now`.
#[must_use]
pub fn head(event: &Outgoing, secrets: &Secrets, now: DateTime<Utc>) -> HeaderMap {
    let mut head = HeaderMap::new();
    head.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    head.insert(USER_AGENT, HeaderValue::from_static(concat!("emailclient/", env!("CARGO_PKG_VERSION"))));
    // Ids are base64, so all of these are values that a head can have.
    for (name, value) in [
        ("webhook-id", event.id.clone()),
        ("webhook-timestamp", now.timestamp().to_string()),
        ("webhook-signature", secrets.sign(&event.id, now, &event.body)),
    ] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            head.insert(name, value);
        }
    }
    head
}

/// The way to an endpoint.
///
/// # Errors
/// When its address is none.
pub fn poster(process: &Process, url: &str) -> Result<Poster, AddressError> {
    Ok(Poster::new(process.outbound.clone(), process.tls.clone(), Address::parse(url)?, PATIENCE))
}
