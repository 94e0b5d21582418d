//! People on their way to a provider and back: what `state` stands for (RFC 6749 §10.12). It is random, good once and for ten
//! minutes, and names its tenant under a code, so that nobody asks the database for one that was made up.
//!
//! The verifier of PKCE (RFC 7636) and the nonce of the ID token are made of the state under our key: they need no place.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use sha2::{Digest as _, Sha256};

use crate::access::token::{authenticate, tenant_in, with_tenant};
use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{AccountId, AppId, ConnectId, TenantId, UserId};
use wire::secret::Secret;

/// How long a person may take.
pub const LIFETIME: TimeDelta = TimeDelta::minutes(10);
/// What the code in a state is for.
const PURPOSE: &str = "oauth state";

/// What a person was sent away for.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Flow {
    /// The app that asks.
    pub app_id: AppId,
    /// The account that is renewed; none: a new one.
    pub account_id: Option<AccountId>,
    /// Who it is expected to be; a hint only.
    pub email: Option<String>,
    /// Where the person is sent in the end.
    pub redirect_url: String,
    /// The caller's own state, given back as it is.
    pub client_state: Option<String>,
    /// Who sent the person.
    pub actor: UserId,
    /// The page that the person set out from.
    pub connect_id: Option<ConnectId>,
}

/// What goes along with a person, and what proves it at the end.
#[derive(Debug, Clone)]
pub struct Proofs {
    /// `code_verifier`.
    pub verifier: Secret,
    /// `nonce` of the ID token.
    pub nonce: String,
}

impl Proofs {
    /// Those of a state.
    #[must_use]
    pub fn of(key: &Secret, state: &str) -> Self {
        let text = |purpose| BASE64_URL_SAFE_NO_PAD.encode(authenticate(key, purpose, state.as_bytes()));
        Self { verifier: Secret::new(text("oauth verifier")), nonce: text("oauth nonce") }
    }

    /// `code_challenge` by S256.
    #[must_use]
    pub fn challenge(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(self.verifier.expose().as_bytes()))
    }
}

fn hash(state: &str) -> Vec<u8> {
    Sha256::digest(state.as_bytes()).to_vec()
}

/// Keeps a flow and gives its state. Those that nobody came back from in time are swept away.
///
/// # Errors
/// Those of the database.
pub async fn begin(
    tx: &mut TenantTx,
    key: &Secret,
    flow: &Flow,
    now: DateTime<Utc>,
) -> Result<String, DbError> {
    let state = with_tenant(key, PURPOSE, tx.tenant());
    sqlx::query("DELETE FROM oauth_flows WHERE tenant_id = $1 AND expires_at < $2")
        .bind(tx.tenant())
        .bind(now)
        .execute(tx.conn())
        .await?;
    sqlx::query(
        "INSERT INTO oauth_flows (tenant_id, state_hash, app_id, account_id, email, redirect_url, client_state, actor, expires_at, connect_id)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(tx.tenant())
    .bind(hash(&state))
    .bind(flow.app_id)
    .bind(flow.account_id)
    .bind(&flow.email)
    .bind(&flow.redirect_url)
    .bind(&flow.client_state)
    .bind(flow.actor)
    .bind(now + LIFETIME)
    .bind(flow.connect_id)
    .execute(tx.conn())
    .await?;
    Ok(state)
}

/// The tenant that a state names; `None`: it is none of ours.
#[must_use]
pub fn tenant_of(key: &Secret, state: &str) -> Option<TenantId> {
    tenant_in(key, PURPOSE, state)
}

/// Uses a state up. `None`: it was used, is too old, or never was one.
///
/// # Errors
/// Those of the database.
pub async fn end(tx: &mut TenantTx, state: &str, now: DateTime<Utc>) -> Result<Option<Flow>, DbError> {
    Ok(sqlx::query_as(
        "DELETE FROM oauth_flows WHERE tenant_id = $1 AND state_hash = $2 AND expires_at > $3
         RETURNING app_id, account_id, email, redirect_url, client_state, actor, connect_id",
    )
    .bind(tx.tenant())
    .bind(hash(state))
    .bind(now)
    .fetch_optional(tx.conn())
    .await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_challenge_is_the_hash_of_the_verifier_and_both_belong_to_the_state() {
        let key = Secret::new("k".repeat(32));
        let (a, b) = (Proofs::of(&key, "a"), Proofs::of(&key, "b"));
        // RFC 7636 §4.1: 43 to 128 characters.
        assert!((43..=128).contains(&a.verifier.expose().len()));
        assert_ne!(a.verifier.expose(), b.verifier.expose());
        assert_ne!((a.nonce.as_str(), a.verifier.expose()), (b.nonce.as_str(), a.nonce.as_str()));
        assert_eq!(a.challenge(), Proofs::of(&key, "a").challenge());
    }
}
