//! A webhook and its deliveries as clients see them.

use chrono::{DateTime, Utc};
use emailclient_core::events::envelope::Include;
use emailclient_core::events::envelope::{event_id, timestamp};
use emailclient_core::events::webhook::delivery::{Delivery, DeliveryState};
use emailclient_core::events::webhook::outcome::{FAILING_TOO_LONG, GONE};
use emailclient_core::events::webhook::{Webhook, WebhookState};
use emailclient_core::platform::id::TenantId;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa::openapi::schema::Object;
use utoipa::openapi::{ObjectBuilder, Type};
use uuid::Uuid;
use wire::secret::Secret;

use crate::etag::ETag;

/// Why nothing arrives.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WebhookCause)]
pub struct CauseView {
    /// `gone`, `failing-too-long`, `status-` and the status of the last answer, or a word of the table of troubles.
    code: String,
    /// For people.
    text: String,
    /// When it began to fail.
    since: Option<DateTime<Utc>>,
    /// When it is tried again; none: when a client enables it.
    next_try_at: Option<DateTime<Utc>>,
}

/// An address that events are sent to.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Webhook)]
pub struct WebhookView {
    id: Uuid,
    url: String,
    /// Kinds of events; empty: all.
    types: Vec<String>,
    /// Events of these accounts; empty: of all, and those of the tenant.
    account_ids: Vec<Uuid>,
    description: String,
    /// How much goes with an event: `summary` as in lists, `ids` ids alone.
    #[schema(schema_with = includes)]
    include: &'static str,
    /// Whether old mail that is read for the first time is told.
    backfill: bool,
    /// `enabled`, `failing` (it is tried again) or `disabled` (until it is enabled).
    #[schema(schema_with = states)]
    state: &'static str,
    cause: Option<CauseView>,
    /// Events that were taken.
    delivered: i64,
    /// Events that were given up.
    failed: i64,
    last_success_at: Option<DateTime<Utc>>,
    /// Until when the secret before the last change signs, too.
    previous_secret_until: Option<DateTime<Utc>>,
    /// Whether events of the past are being sent again.
    replaying: bool,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

/// A webhook, with its secret.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WebhookWithSecret)]
pub struct SecretView {
    #[serde(flatten)]
    webhook: WebhookView,
    /// What its events are signed with. Told once; `null` in the answer to a request that is repeated under its
    /// `Idempotency-Key`.
    secret: Option<String>,
}

impl SecretView {
    /// For the answer to the request that made the secret.
    pub fn telling(webhook: Webhook, secret: &Secret) -> Self {
        Self { webhook: webhook.into(), secret: Some(secret.expose().to_owned()) }
    }

    /// For its repetitions: secrets are not kept in answers.
    pub fn hiding(self) -> Self {
        Self { secret: None, ..self }
    }
}

/// The schema of a set of words.
fn words_schema(words: impl Iterator<Item = &'static str>) -> Object {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words)).build()
}

pub(super) fn includes() -> Object {
    words_schema(Include::ALL.iter().map(|w| w.as_str()))
}

fn states() -> Object {
    words_schema(WebhookState::ALL.iter().map(|w| w.as_str()))
}

pub(super) fn delivery_states() -> Object {
    words_schema(DeliveryState::ALL.iter().map(|w| w.as_str()))
}

fn text(code: &str) -> String {
    match code {
        GONE => "The endpoint answered that it is gone (410).".to_owned(),
        FAILING_TOO_LONG => "The endpoint took nothing for five days.".to_owned(),
        "secret-unusable" => "The stored secret cannot be used; make another one.".to_owned(),
        "upstream-timeout" => "The endpoint did not answer within 15 seconds.".to_owned(),
        "upstream-unreachable" => "The endpoint cannot be reached.".to_owned(),
        "upstream-closed" => "The endpoint ended the connection without an answer.".to_owned(),
        "upstream-protocol" => "The endpoint's answer is no HTTP.".to_owned(),
        "tls-certificate" => "The certificate of the endpoint was not accepted.".to_owned(),
        "tls-handshake" => "No encrypted connection to the endpoint could be made.".to_owned(),
        "host-not-found" => "The host was not found.".to_owned(),
        "host-not-allowed" => "This host may not be connected to.".to_owned(),
        "port-not-allowed" => "This port may not be connected to.".to_owned(),
        other => match other.strip_prefix("status-") {
            Some(status) => format!("The endpoint answered {status}."),
            None => "The endpoint took nothing.".to_owned(),
        },
    }
}

impl From<Webhook> for WebhookView {
    fn from(w: Webhook) -> Self {
        let (since, next_try_at) = (w.failing_since, w.next_try_at);
        let cause = w.cause.map(|code| CauseView { text: text(&code), code, since, next_try_at });
        Self {
            id: w.id.0,
            url: w.url,
            types: w.types.unwrap_or_default(),
            account_ids: w.account_ids.unwrap_or_default().into_iter().map(|a| a.0).collect(),
            description: w.description,
            include: w.include.as_str(),
            backfill: w.backfill,
            state: w.state.as_str(),
            cause,
            delivered: w.delivered,
            failed: w.failed,
            last_success_at: w.last_success_at,
            previous_secret_until: w.previous_until,
            replaying: w.replaying,
            created_at: w.created_at,
            updated_at: w.updated_at,
        }
    }
}

/// The tag over what a client can write.
pub fn etag(webhook: &Webhook) -> ETag {
    ETag::version(webhook.id, webhook.version)
}

/// An event that failed at least once.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WebhookDelivery)]
pub struct DeliveryView {
    id: Uuid,
    /// The event's `webhook-id`.
    event_id: String,
    /// Its kind.
    #[serde(rename = "type")]
    kind: String,
    /// When it happened.
    #[schema(value_type = String, format = DateTime)]
    timestamp: String,
    account_id: Option<Uuid>,
    /// A replay sent it.
    replay: bool,
    /// `waiting` (it is tried again), `failed` (it was given up) or `delivered` (in the end).
    #[schema(schema_with = delivery_states)]
    state: &'static str,
    /// When it is tried again; none: when its endpoint is.
    next_try_at: Option<DateTime<Utc>>,
    /// The last 20: `at`, `status`, `error`, `duration_ms`.
    #[schema(value_type = Vec<Object>)]
    attempts: Value,
    updated_at: DateTime<Utc>,
}

impl DeliveryView {
    /// A delivery of this tenant.
    pub fn of(tenant: TenantId, d: Delivery) -> Self {
        Self {
            id: d.id,
            event_id: event_id(tenant, d.position),
            kind: d.kind,
            timestamp: timestamp(d.event_at),
            account_id: d.account_id.map(|a| a.0),
            replay: d.replay,
            state: d.state.as_str(),
            next_try_at: d.next_try_at,
            attempts: d.attempts,
            updated_at: d.updated_at,
        }
    }
}
