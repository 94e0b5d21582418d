//! Access tokens as Dovecot and Postfix of the stack take them: JWTs, signed with its key or with another.

use devstack::{Endpoints, OAUTH_SCOPE};
use emailclient_core::platform::clock::{Clock as _, SystemClock};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};

/// The claims of a token for `user` that is good for ten minutes, of about `bytes` more than it needs.
#[must_use]
pub fn claims(user: &str, bytes: usize) -> Value {
    let now = SystemClock.now().timestamp();
    let scope = format!("openid {OAUTH_SCOPE}");
    json!({"sub": "subject", "email": user, "scope": scope, "exp": now + 600, "iat": now - 5, "padding": "x".repeat(bytes)})
}

/// `claims`, signed with the key of the stack.
///
/// # Panics
/// When the key cannot be read.
#[must_use]
pub fn signed(stack: &Endpoints, claims: &Value) -> String {
    sign(&PrivatePkcs8KeyDer::from_pem_file(&stack.oauth_key).unwrap(), claims)
}

/// `claims`, signed with a key of nobody.
///
/// # Panics
/// When there is no randomness.
#[must_use]
pub fn forged(claims: &Value) -> String {
    sign(&PrivatePkcs8KeyDer::from(rcgen::KeyPair::generate().unwrap().serialize_der()), claims)
}

fn sign(key: &PrivatePkcs8KeyDer<'_>, claims: &Value) -> String {
    let key = EncodingKey::from_ec_der(key.secret_pkcs8_der());
    encode(&Header::new(Algorithm::ES256), claims, &key).unwrap()
}
