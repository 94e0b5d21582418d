//! Secrets of webhooks, and what is signed with them (Standard Webhooks 1.0.0, "Signature scheme").

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{TenantId, WebhookId};
use crate::platform::seal::{Keyring, Place, SealError, Sealed};
use wire::secret::Secret;

const PREFIX: &str = "whsec_";
/// The column that a secret is sealed to.
pub(super) const CURRENT: &str = "secret";
/// The column of those before it, parted by blanks.
pub(super) const PREVIOUS: &str = "previous_secret";
/// Secrets that sign beside the current one.
const OLDER: usize = 3;

/// A secret of 256 random bits, as receivers are given it.
pub(super) fn generate() -> Secret {
    Secret::new(format!("{PREFIX}{}", STANDARD.encode(rand::random::<[u8; 32]>())))
}

pub(super) fn seal(
    keyring: &Keyring,
    (tenant, id): (TenantId, WebhookId),
    field: &str,
    secret: &Secret,
) -> Result<Sealed, SealError> {
    keyring.seal(Place { tenant, row: id.0, field }, secret)
}

/// Secrets as they lie in the row of their webhook.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Of which tenant.
    pub(super) tenant: TenantId,
    /// Of which webhook.
    pub(super) id: WebhookId,
    /// The one that receivers should know.
    pub(super) current: Sealed,
    /// Those before, and until when they sign.
    pub(super) previous: Option<(Sealed, DateTime<Utc>)>,
}

/// Secrets that sign.
#[derive(Debug, Clone)]
pub struct Secrets {
    /// The one that receivers should know.
    pub current: Secret,
    /// Those before, parted by blanks, and until when they sign.
    pub previous: Option<(Secret, DateTime<Utc>)>,
}

/// Of many, the oldest stays: the answers that told of the others may have been lost.
fn bounded(mut oldest_first: Vec<&str>) -> Vec<&str> {
    while oldest_first.len() > OLDER {
        oldest_first.remove(1);
    }
    oldest_first
}

type Columns = (Vec<u8>, String, Option<Vec<u8>>, Option<String>, Option<DateTime<Utc>>);

impl Stored {
    /// From the columns `secret`, `secret_key`, `previous_secret`, `previous_secret_key`, `previous_until`.
    pub(super) fn of((tenant, id): (TenantId, WebhookId), columns: Columns) -> Self {
        let (bytes, key_id, previous, previous_key, until) = columns;
        let previous = previous.zip(previous_key).zip(until);
        let previous = previous.map(|((bytes, key_id), until)| (Sealed { key_id, bytes }, until));
        Self { tenant, id, current: Sealed { key_id, bytes }, previous }
    }

    /// Opens what is sealed and signs at `now`.
    ///
    /// # Errors
    /// When the keyring cannot.
    pub fn open(&self, keyring: &Keyring, now: DateTime<Utc>) -> Result<Secrets, SealError> {
        let previous = match self.signing(now) {
            Some((sealed, until)) => Some((self.open_one(keyring, PREVIOUS, sealed)?, *until)),
            None => None,
        };
        Ok(Secrets { current: self.open_one(keyring, CURRENT, &self.current)?, previous })
    }

    /// What signs beside the next secret, as it is kept: all that receivers may know now. What cannot be opened signs nothing, and
    /// another secret is the way out of that.
    pub(super) fn older(&self, keyring: &Keyring, now: DateTime<Utc>) -> Option<Secret> {
        let before = self.signing(now).and_then(|(sealed, _)| self.open_one(keyring, PREVIOUS, sealed).ok());
        let current = self.open_one(keyring, CURRENT, &self.current).ok();
        let each: Vec<&str> =
            before.iter().chain(&current).flat_map(|secret| secret.expose().split(' ')).collect();
        (!each.is_empty()).then(|| Secret::new(bounded(each).join(" ")))
    }

    fn signing(&self, now: DateTime<Utc>) -> Option<&(Sealed, DateTime<Utc>)> {
        self.previous.as_ref().filter(|(_, until)| now < *until)
    }

    fn open_one(&self, keyring: &Keyring, field: &str, sealed: &Sealed) -> Result<Secret, SealError> {
        keyring.open(Place { tenant: self.tenant, row: self.id.0, field }, sealed)
    }
}

/// The secrets of a webhook that is there.
///
/// # Errors
/// Those of the database; it has a row for the webhook, or this is one.
pub async fn stored(tx: &mut TenantTx, id: WebhookId) -> Result<Stored, DbError> {
    let columns = sqlx::query_as(
        "SELECT secret, secret_key, previous_secret, previous_secret_key, previous_until FROM webhooks
         WHERE tenant_id = $1 AND id = $2",
    )
    .bind(tx.tenant())
    .bind(id)
    .fetch_one(tx.conn())
    .await?;
    Ok(Stored::of((tx.tenant(), id), columns))
}

impl Secrets {
    /// The value of `webhook-signature`: one signature for each secret that is good at `at`.
    #[must_use]
    pub fn sign(&self, id: &str, at: DateTime<Utc>, body: &[u8]) -> String {
        let previous = self.previous.as_ref().filter(|(_, until)| at < *until).map(|(secret, _)| secret);
        let each =
            std::iter::once(&self.current).chain(previous).flat_map(|secret| secret.expose().split(' '));
        let signatures: Vec<String> = each.map(|secret| sign(secret, id, at, body)).collect();
        signatures.join(" ")
    }
}

fn sign(text: &str, id: &str, at: DateTime<Utc>, body: &[u8]) -> String {
    let key = STANDARD.decode(text.strip_prefix(PREFIX).unwrap_or(text)).unwrap_or_default();
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&key) else { return String::new() };
    mac.update(format!("{id}.{}.", at.timestamp()).as_bytes());
    mac.update(body);
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    /// The example of the specification's libraries.
    #[test]
    fn a_signature_is_that_of_the_specification() {
        let secrets =
            Secrets { current: Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), previous: None };
        let at = DateTime::from_timestamp(1_614_265_330, 0).unwrap();
        let signed = secrets.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", at, br#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn of_many_older_secrets_the_oldest_and_the_newest_stay() {
        assert_eq!(bounded(vec!["a", "b", "c", "d", "e"]), ["a", "d", "e"]);
        assert_eq!(bounded(vec!["a", "b"]), ["a", "b"]);
    }

    #[test]
    fn the_secret_before_signs_beside_for_its_time_and_no_longer() {
        let now = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
        let until = now + TimeDelta::hours(24);
        let secrets = Secrets { current: generate(), previous: Some((generate(), until)) };
        let count = |at| secrets.sign("evt_1", at, b"{}").split(' ').filter(|s| s.starts_with("v1,")).count();
        assert_eq!((count(now), count(until - TimeDelta::seconds(1)), count(until)), (2, 2, 1));
        let both = Secret::new(format!("{} {}", generate().expose(), generate().expose()));
        let secrets = Secrets { current: generate(), previous: Some((both, until)) };
        assert_eq!(
            secrets.sign("evt_1", now, b"{}").split(' ').collect::<std::collections::BTreeSet<_>>().len(),
            3
        );
        let secret = generate();
        let bytes = STANDARD.decode(secret.expose().strip_prefix(PREFIX).unwrap()).unwrap();
        assert_eq!(bytes.len(), 32);
    }
}
