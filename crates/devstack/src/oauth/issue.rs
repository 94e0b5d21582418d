//! Tokens as they are given out.

use anyhow::Result;
use axum::Json;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::TimeDelta;
use serde_json::{Map, Value};

use super::model::{Client, Kind, User};
use super::server::Shared;
use super::state::{Access, State, right_now};
use super::switches::{ExpiresIn, IdToken};
use super::{claims, keys};

/// Whose token it will be.
pub(super) struct Holder<'a> {
    pub(super) client: &'a str,
    pub(super) user: Option<&'a User>,
    pub(super) grant: Option<usize>,
}

/// Signs an access token and remembers it.
pub(super) fn access(
    shared: &Shared,
    state: &mut State,
    holder: &Holder<'_>,
    scope: &[String],
    lifetime: TimeDelta,
) -> Result<String> {
    // A provider's mail servers go by the provider's clock. Ours go by the right one, and refuse what begins later.
    let now = right_now();
    let id = keys::random(12)?;
    let about = claims::Access {
        issuer: &shared.base,
        client: holder.client,
        user: holder.user,
        scope,
        now,
        ends: now + lifetime,
        id: &id,
    };
    let token = shared.keys.own.sign(&claims::access(&about, &state.switches))?;
    let user = holder.user.map(|user| user.email.clone());
    state.note(Kind::Access, &token, user.as_deref());
    let client = holder.client.to_owned();
    let ends = state.now() + lifetime;
    let remembered =
        Access { grant: holder.grant, client, user, scope: scope.to_vec(), ends, revoked: false };
    state.access.insert(token.clone(), remembered);
    Ok(token)
}

/// A successful answer (RFC 6749 §5.1).
pub(super) struct Answer(Map<String, Value>);

impl Answer {
    /// With an access token.
    pub(super) fn new(
        shared: &Shared,
        state: &mut State,
        holder: &Holder<'_>,
        scope: &[String],
    ) -> Result<Self> {
        let lifetime = state.switches.access_lifetime;
        let mut fields = Map::new();
        fields.insert("access_token".into(), access(shared, state, holder, scope, lifetime)?.into());
        fields.insert("token_type".into(), state.switches.token_type.as_str().into());
        let expires_in = match &state.switches.expires_in {
            ExpiresIn::Number => Some(lifetime.num_seconds().into()),
            ExpiresIn::Text => Some(lifetime.num_seconds().to_string().into()),
            ExpiresIn::Absent => None,
            ExpiresIn::Other(value) => Some(value.clone()),
        };
        fields.extend(expires_in.map(|value| ("expires_in".to_owned(), value)));
        fields.insert("scope".into(), scope.join(" ").into());
        Ok(Self(fields))
    }

    pub(super) fn refresh(&mut self, token: String) {
        self.0.insert("refresh_token".into(), token.into());
    }

    /// With an ID token, if the scope has `openid`.
    pub(super) fn id(
        &mut self,
        shared: &Shared,
        state: &mut State,
        client: &Client,
        who: (&User, &[String], Option<&str>),
    ) -> Result<()> {
        let (user, scope, nonce) = who;
        let wrong = state.switches.id_token;
        if wrong == IdToken::Absent || !scope.iter().any(|scope| scope == "openid") {
            return Ok(());
        }
        let user = shown(state, user)?;
        let now = state.now();
        let about = claims::Id { issuer: &shared.base, client: &client.id, user: &user, scope, nonce, now };
        let claims = claims::id(&about, wrong);
        let token = match wrong {
            IdToken::OtherKey => shared.keys.other.sign(&claims)?,
            IdToken::AlgNone => keys::sign_by_nobody(&claims),
            IdToken::Secret => keys::sign_by_secret(&claims, client.secret.as_deref().unwrap_or_default()),
            IdToken::Garbage => "no.id.token".to_owned(),
            _ => shared.keys.own.sign(&claims)?,
        };
        state.note(Kind::Id, &token, Some(&user.email));
        self.0.insert("id_token".into(), token.into());
        Ok(())
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        ([(header::CACHE_CONTROL, "no-store")], Json(Value::Object(self.0))).into_response()
    }
}

/// Who a client is told that this is: the user, unless the switch names another.
pub(super) fn shown(state: &mut State, user: &User) -> Result<User> {
    match state.switches.identity.clone() {
        Some(other) => state.user(&other),
        None => Ok(user.clone()),
    }
}

/// `sub` of an assertion, unproved: for the list of requests.
pub(super) fn claimed_subject(assertion: &str) -> Option<String> {
    let claims = URL_SAFE_NO_PAD.decode(assertion.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    claims.get("sub")?.as_str().map(str::to_lowercase)
}
