//! What a client may say about a webhook, and whether it can be used.

use emailclient_core::domain::event::EventKind;
use emailclient_core::domain::mailbox::account_exists;
use emailclient_core::events::envelope::Include;
use emailclient_core::events::webhook::NewWebhook;
use emailclient_core::platform::db::{Reach, TenantTx};
use emailclient_core::platform::id::AccountId;
use serde::Deserialize;
use utoipa::ToSchema;
use wire::post::Address;

use super::view::includes;
use crate::error::{ApiError, FieldError};
use crate::limits::{self, Limits};
use crate::state::AppState;

/// A new webhook.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct WebhookIn {
    /// HTTPS on port 443 or 8443.
    url: String,
    /// Kinds of events; left out or empty: all.
    types: Option<Vec<String>>,
    /// Events of these accounts; left out or empty: of all, and those of the tenant.
    #[schema(value_type = Option<Vec<uuid::Uuid>>)]
    account_ids: Option<Vec<AccountId>>,
    description: Option<String>,
    /// How much goes with an event; left out: `summary`.
    #[schema(schema_with = includes)]
    include: Option<Include>,
    /// Whether old mail that is read for the first time is told; left out, it is not.
    backfill: Option<bool>,
}

/// Some fields of a webhook; what is left out stays.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct WebhookPatch {
    url: Option<String>,
    /// Kinds of events; empty: all.
    types: Option<Vec<String>>,
    /// Events of these accounts; empty: of all, and those of the tenant.
    #[schema(value_type = Option<Vec<uuid::Uuid>>)]
    account_ids: Option<Vec<AccountId>>,
    description: Option<String>,
    #[schema(schema_with = includes)]
    include: Option<Include>,
    backfill: Option<bool>,
}

impl From<WebhookIn> for NewWebhook {
    fn from(w: WebhookIn) -> Self {
        Self {
            url: w.url,
            types: w.types.unwrap_or_default(),
            account_ids: w.account_ids.unwrap_or_default(),
            description: w.description.unwrap_or_default(),
            include: w.include.unwrap_or(Include::Summary),
            backfill: w.backfill.unwrap_or_default(),
        }
    }
}

impl WebhookPatch {
    /// `old` with these fields replaced.
    pub fn over(self, old: NewWebhook) -> NewWebhook {
        NewWebhook {
            url: self.url.unwrap_or(old.url),
            types: self.types.unwrap_or(old.types),
            account_ids: self.account_ids.unwrap_or(old.account_ids),
            description: self.description.unwrap_or(old.description),
            include: self.include.unwrap_or(old.include),
            backfill: self.backfill.unwrap_or(old.backfill),
        }
    }
}

/// Faults of a list of kinds of events.
pub fn check_types(types: &[String], faults: &mut Vec<FieldError>) {
    for (n, word) in types.iter().enumerate().take(limits::WEBHOOK_TYPES) {
        if EventKind::from_word(word).is_none() {
            let known: Vec<&str> = EventKind::ALL.iter().map(|kind| kind.as_str()).collect();
            let detail = format!("one of {} is expected", known.join(", "));
            faults.push(FieldError::new(format!("/types/{n}"), "unknown", detail));
        }
    }
}

/// Judges everything but accounts and the host.
///
/// # Errors
/// 422 `validation-error` with pointers.
pub fn check(new: &NewWebhook) -> Result<Address, ApiError> {
    let mut limits = Limits::default();
    limits.text("/url", &new.url, limits::WEBHOOK_URL_BYTES);
    limits.text("/description", &new.description, limits::WEBHOOK_DESCRIPTION_BYTES);
    limits.count("/types", new.types.len(), limits::WEBHOOK_TYPES);
    limits.count("/account_ids", new.account_ids.len(), limits::WEBHOOK_ACCOUNTS);
    let mut faults = limits.faults();
    check_types(&new.types, &mut faults);
    let address = Address::parse(&new.url);
    if let Err(error) = &address
        && new.url.len() <= limits::WEBHOOK_URL_BYTES
    {
        faults.push(FieldError::new("/url", error.code(), error.to_string()));
    }
    match address {
        Ok(address) if faults.is_empty() => Ok(address),
        _ => Err(ApiError::validation("see errors for the fields").with_errors(faults)),
    }
}

/// Judges the address by what its name resolves to now.
///
/// # Errors
/// 422 `validation-error` at `/url`.
pub async fn check_host(state: &AppState, address: &Address) -> Result<(), ApiError> {
    let refused =
        |error: wire::post::AddressError| ApiError::invalid_field("/url", error.code(), &error.to_string());
    address.check(&state.outbound).await.map_err(refused)
}

/// Judges the accounts. Who may touch some accounts only names them: events of all would show more.
///
/// # Errors
/// 422 `validation-error` with pointers.
pub async fn check_accounts(tx: &mut TenantTx, new: &NewWebhook) -> Result<(), ApiError> {
    if new.account_ids.is_empty() && *tx.reach() != Reach::All {
        let detail = "name the accounts: not all of them are within reach";
        return Err(ApiError::invalid_field("/account_ids", "missing", detail));
    }
    for (n, account) in new.account_ids.iter().enumerate() {
        if !account_exists(tx, *account).await? {
            return Err(ApiError::unknown_reference(&format!("/account_ids/{n}")));
        }
    }
    Ok(())
}
