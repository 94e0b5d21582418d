//! Access and refresh tokens.
//!
//! An access token is a JWT (RFC 7519) under HS256, valid for 15 minutes, whose algorithm is fixed by the key and whose
//! header is trusted for nothing but a comparison. A refresh token is 256 random bits of which only the hash is kept.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use hmac::{Hmac, KeyInit as _, Mac as _};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::platform::id::{SessionId, TenantId, UserId};
use wire::secret::Secret;

/// How long an access token is good for.
pub const ACCESS_LIFETIME: TimeDelta = TimeDelta::minutes(15);
/// How long a session can be refreshed.
pub const SESSION_LIFETIME: TimeDelta = TimeDelta::days(30);

const ISSUER: &str = "emailclient";
const AUDIENCE: &str = "emailclient-api";
const TYPE: &str = "at+jwt";
/// Clocks of two machines may differ by this many seconds.
const LEEWAY: i64 = 60;
const TENANT_BYTES: usize = 16;
const RANDOM_BYTES: usize = 32;

/// What an access token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    iss: String,
    aud: String,
    /// Seconds since 1970 from which on it is refused.
    pub exp: i64,
    nbf: i64,
    iat: i64,
    /// The user.
    pub sub: UserId,
    /// The user's tenant.
    pub tid: TenantId,
    /// The log-in session.
    pub sid: SessionId,
}

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It was good once.
    #[error("the token has expired")]
    Expired,
    /// Malformed, of another kind, for another audience, or not ours.
    #[error("the token is not valid")]
    Invalid,
}

/// Signs and reads access tokens.
pub struct TokenKey {
    kid: String,
    encoding: EncodingKey,
    decoding: DecodingKey,
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

impl TokenKey {
    /// The key of this deployment. Its id is derived from it, so that a token of an earlier key is seen as such.
    #[must_use]
    pub fn new(secret: &Secret) -> Self {
        let bytes = secret.expose().as_bytes();
        let mut kid = hex::encode(Sha256::digest([b"kid\0".as_slice(), bytes].concat()));
        kid.truncate(8);
        Self { kid, encoding: EncodingKey::from_secret(bytes), decoding: DecodingKey::from_secret(bytes) }
    }

    /// A token for `user` that ends [`ACCESS_LIFETIME`] after `now`.
    ///
    /// # Errors
    /// [`TokenError::Invalid`] when the claims cannot be written, which does not happen.
    pub fn sign(
        &self,
        user: UserId,
        tenant: TenantId,
        session: SessionId,
        now: DateTime<Utc>,
    ) -> Result<String, TokenError> {
        let at = now.timestamp();
        let claims = Claims {
            iss: ISSUER.into(),
            aud: AUDIENCE.into(),
            exp: at + ACCESS_LIFETIME.num_seconds(),
            nbf: at,
            iat: at,
            sub: user,
            tid: tenant,
            sid: session,
        };
        let mut header = Header::new(Algorithm::HS256);
        header.typ = Some(TYPE.into());
        header.kid = Some(self.kid.clone());
        jsonwebtoken::encode(&header, &claims, &self.encoding).map_err(|_| TokenError::Invalid)
    }

    /// What `token` says, if we signed it and `now` lies in its time.
    ///
    /// # Errors
    /// [`TokenError::Expired`] for a genuine token after its end, else [`TokenError::Invalid`].
    pub fn read(&self, token: &str, now: DateTime<Utc>) -> Result<Claims, TokenError> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Invalid)?;
        if demands_an_extension(token) {
            return Err(TokenError::Invalid);
        }
        // Compared, never used to look anything up: `kid`, `jku`, `x5u` of a stranger lead nowhere.
        if header.kid.as_deref() != Some(self.kid.as_str()) || header.typ.as_deref() != Some(TYPE) {
            return Err(TokenError::Invalid);
        }
        let mut rules = Validation::new(Algorithm::HS256);
        rules.set_issuer(&[ISSUER]);
        rules.set_audience(&[AUDIENCE]);
        rules.set_required_spec_claims(&["exp", "nbf", "iss", "aud", "sub"]);
        // Times are judged below by our own clock.
        rules.validate_exp = false;
        rules.validate_nbf = false;
        let claims = jsonwebtoken::decode::<Claims>(token, &self.decoding, &rules)
            .map_err(|_| TokenError::Invalid)?
            .claims;
        let at = now.timestamp();
        if claims.nbf > at.saturating_add(LEEWAY) {
            return Err(TokenError::Invalid);
        }
        if claims.exp.saturating_add(LEEWAY) < at {
            return Err(TokenError::Expired);
        }
        Ok(claims)
    }
}

/// Whether the header names extensions that must be understood (`crit`, RFC 7515 §4.1.11): we know none, and jsonwebtoken
/// 11.1 does not look at it.
fn demands_an_extension(token: &str) -> bool {
    let header = token.split('.').next().unwrap_or_default();
    let header = URL_SAFE_NO_PAD.decode(header).unwrap_or_default();
    let fields: Result<serde_json::Map<String, serde_json::Value>, _> = serde_json::from_slice(&header);
    fields.is_ok_and(|fields| fields.contains_key("crit"))
}

/// A new refresh token and the hash to keep of it. The tenant stands in front, since its owner sends nothing else.
#[must_use]
pub fn new_refresh(tenant: TenantId) -> (Secret, Vec<u8>) {
    let random: [u8; 32] = rand::random();
    let text = format!("{}.{}", tenant.0.simple(), URL_SAFE_NO_PAD.encode(random));
    let hash = hash_refresh(&text);
    (Secret::new(text), hash)
}

/// Tenant and hash of a refresh token as a client sent it; nothing when it does not have the form of one.
#[must_use]
pub fn read_refresh(text: &str) -> Option<(TenantId, Vec<u8>)> {
    let (tenant, random) = text.split_once('.')?;
    let well_formed = URL_SAFE_NO_PAD.decode(random).is_ok_and(|bytes| bytes.len() == 32);
    (tenant.len() == 32 && well_formed).then_some(())?;
    Some((tenant.parse().ok()?, hash_refresh(text)))
}

fn hash_refresh(text: &str) -> Vec<u8> {
    Sha256::digest(text.as_bytes()).to_vec()
}

/// An authentication code over `data` for one `purpose`, under a key derived from the deployment's secret.
#[must_use]
pub fn authenticate(secret: &Secret, purpose: &str, data: &[u8]) -> [u8; 32] {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()) else {
        return [0; 32];
    };
    mac.update(purpose.as_bytes());
    mac.update(&[0]);
    mac.update(data);
    mac.finalize().into_bytes().into()
}

/// Bytes of a code in a text that [`seal`] made: half of HMAC-SHA256 (RFC 2104 §5).
const CODE_BYTES: usize = 16;

/// `body` as text for a URL, which only this deployment can have made, for one `purpose`: what it is bound to stands there.
#[must_use]
pub fn seal(secret: &Secret, purpose: &str, body: &[u8]) -> String {
    let code = authenticate(secret, purpose, body);
    URL_SAFE_NO_PAD.encode([code.get(..CODE_BYTES).unwrap_or(&code), body].concat())
}

/// The body of a text that [`seal`] made for this `purpose`; `None`: it is none.
#[must_use]
pub fn open(secret: &Secret, purpose: &str, text: &str) -> Option<Vec<u8>> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (code, body) = bytes.split_at_checked(CODE_BYTES)?;
    let expected = authenticate(secret, purpose, body);
    bool::from(expected.get(..CODE_BYTES)?.ct_eq(code)).then(|| body.to_vec())
}

/// A random text of one use that names its tenant under a code, for [`tenant_in`].
#[must_use]
pub fn with_tenant(key: &Secret, purpose: &str, tenant: TenantId) -> String {
    let random: [u8; RANDOM_BYTES] = rand::random();
    seal(key, purpose, &[tenant.0.as_bytes().as_slice(), &random].concat())
}

/// The tenant that such a text names; `None`: it is none of ours. Nobody asks the database for one that was made up.
#[must_use]
pub fn tenant_in(key: &Secret, purpose: &str, text: &str) -> Option<TenantId> {
    let body = open(key, purpose, text)?;
    let (tenant, random) = body.split_first_chunk::<TENANT_BYTES>()?;
    (random.len() == RANDOM_BYTES).then(|| TenantId(uuid::Uuid::from_bytes(*tenant)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_text_opens_for_its_purpose_under_its_key_and_in_one_piece() {
        let (key, other) = (secret('k'), secret('l'));
        let text = seal(&key, "a", b"body");
        assert_eq!(open(&key, "a", &text).as_deref(), Some(b"body".as_slice()));
        assert!(open(&key, "b", &text).is_none() && open(&other, "a", &text).is_none());
        for n in 0..text.len() {
            let changed = if text.as_bytes()[n] == b'A' { "B" } else { "A" };
            let mut bad = text.clone();
            bad.replace_range(n..=n, changed);
            assert!(open(&key, "a", &bad).is_none(), "{bad}");
            assert!(text.get(..n).is_none_or(|cut| open(&key, "a", cut).is_none()));
        }
        assert_eq!(open(&key, "a", &seal(&key, "a", b"")), Some(Vec::new()));
    }

    fn secret(byte: char) -> Secret {
        Secret::new(byte.to_string().repeat(32))
    }

    fn moment() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).unwrap()
    }

    fn forge(header: &str, claims: &serde_json::Value) -> String {
        let b64 = |t: &str| URL_SAFE_NO_PAD.encode(t);
        format!("{}.{}.", b64(header), b64(&claims.to_string()))
    }

    #[test]
    fn a_token_is_read_in_its_time_and_by_its_own_key_only() {
        let key = TokenKey::new(&secret('a'));
        let (user, tenant, session) = (UserId::new(), TenantId::new(), SessionId::new());
        let token = key.sign(user, tenant, session, moment()).unwrap();
        let claims = key.read(&token, moment()).unwrap();
        assert_eq!((claims.sub, claims.tid, claims.sid), (user, tenant, session));
        assert!(key.read(&token, moment() + TimeDelta::seconds(15 * 60 + 60)).is_ok());
        assert_eq!(key.read(&token, moment() + TimeDelta::seconds(15 * 60 + 61)), Err(TokenError::Expired));
        assert_eq!(key.read(&token, moment() - TimeDelta::seconds(61)), Err(TokenError::Invalid));
        assert_eq!(TokenKey::new(&secret('b')).read(&token, moment()), Err(TokenError::Invalid));
    }

    #[test]
    fn tokens_of_another_algorithm_type_audience_or_key_id_are_refused() {
        let key = TokenKey::new(&secret('a'));
        let at = moment().timestamp();
        let good = serde_json::json!({ "iss": ISSUER, "aud": AUDIENCE, "exp": at + 900, "nbf": at, "iat": at,
            "sub": UserId::new(), "tid": TenantId::new(), "sid": SessionId::new() });
        let kid = key.kid.clone();
        let none = forge(&format!(r#"{{"alg":"none","typ":"at+jwt","kid":"{kid}"}}"#), &good);
        assert_eq!(key.read(&none, moment()), Err(TokenError::Invalid));
        let signed = |edit: &dyn Fn(&mut Header, &mut serde_json::Value)| {
            let (mut header, mut claims) = (Header::new(Algorithm::HS256), good.clone());
            header.typ = Some(TYPE.into());
            header.kid = Some(kid.clone());
            edit(&mut header, &mut claims);
            key.read(&jsonwebtoken::encode(&header, &claims, &key.encoding).unwrap(), moment()).is_ok()
        };
        assert!(signed(&|_, _| ()));
        assert!(!signed(&|h, _| h.typ = Some("JWT".into())));
        assert!(!signed(&|h, _| h.kid = Some("../../etc/passwd".into())));
        assert!(!signed(&|h, _| h.kid = None));
        assert!(!signed(&|_, c| c["aud"] = "other".into()));
        assert!(!signed(&|_, c| c["iss"] = "other".into()));
        for missing in ["exp", "nbf", "iss", "aud", "sub", "tid", "sid"] {
            assert!(!signed(&|_, c| drop(c.as_object_mut().unwrap().remove(missing))), "{missing}");
        }
    }

    #[test]
    fn a_token_that_demands_an_extension_is_refused_whatever_it_is() {
        let key = TokenKey::new(&secret('a'));
        let (user, tenant, session) = (UserId::new(), TenantId::new(), SessionId::new());
        let good = key.sign(user, tenant, session, moment()).unwrap();
        let claims = good.split('.').nth(1).unwrap();
        for crit in
            ["[\"b64\"]", "[\"exp\"]", "[\"http://example.com/UNDEFINED\"]", "[]", "null", "\"b64\"", "{}"]
        {
            for more in ["", ",\"b64\":false", ",\"exp\":1"] {
                let kid = &key.kid;
                let header = format!(r#"{{"typ":"{TYPE}","alg":"HS256","kid":"{kid}","crit":{crit}{more}}}"#);
                let signed = format!("{}.{claims}", URL_SAFE_NO_PAD.encode(&header));
                let signature =
                    jsonwebtoken::crypto::sign(signed.as_bytes(), &key.encoding, Algorithm::HS256).unwrap();
                let token = format!("{signed}.{signature}");
                assert_eq!(key.read(&token, moment()), Err(TokenError::Invalid), "{header}");
            }
        }
        // The same way of signing, without it.
        let header = format!(r#"{{"typ":"{TYPE}","alg":"HS256","kid":"{}"}}"#, key.kid);
        let signed = format!("{}.{claims}", URL_SAFE_NO_PAD.encode(header));
        let signature =
            jsonwebtoken::crypto::sign(signed.as_bytes(), &key.encoding, Algorithm::HS256).unwrap();
        assert!(key.read(&format!("{signed}.{signature}"), moment()).is_ok());
    }

    #[test]
    fn a_refresh_token_names_its_tenant_and_is_kept_as_a_hash() {
        let tenant = TenantId::new();
        let (token, hash) = new_refresh(tenant);
        assert_eq!(read_refresh(token.expose()), Some((tenant, hash)));
        for bad in ["", ".", "x.y", &format!("{}.short", tenant.0.simple()), &format!("{}z", token.expose())]
        {
            assert!(read_refresh(bad).is_none(), "{bad}");
        }
    }
}
