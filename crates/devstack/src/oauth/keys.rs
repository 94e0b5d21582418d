//! What tokens are signed with, and randomness.

use anyhow::{Context, Result, anyhow, bail};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
    RsaPublicKeyComponents,
};
use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// A private key with its name: the `kid` of tokens and of the key set.
pub(super) struct SigningKey {
    pair: Pair,
    id: String,
}

enum Pair {
    Ec(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl SigningKey {
    /// Of a PKCS#8 PEM. The key decides the algorithm: P-256 signs ES256, RSA signs RS256.
    pub(super) fn from_pem(pem: &str, id: &str) -> Result<Self> {
        let pair = rcgen::KeyPair::from_pem(pem).context("a PKCS#8 private key in PEM")?;
        let der = pair.serialized_der();
        let pair = if let Ok(pair) = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der) {
            Pair::Ec(pair)
        } else if let Ok(pair) = RsaKeyPair::from_pkcs8(der) {
            Pair::Rsa(pair)
        } else {
            bail!("neither a P-256 nor an RSA key in PKCS#8");
        };
        Ok(Self { pair, id: id.to_owned() })
    }

    /// As in the header of a token (RFC 7518 §3.1).
    pub(super) fn algorithm(&self) -> &'static str {
        match self.pair {
            Pair::Ec(_) => "ES256",
            Pair::Rsa(_) => "RS256",
        }
    }

    /// A compact JWS (RFC 7515 §7.1) of `claims`.
    pub(super) fn sign(&self, claims: &Value) -> Result<String> {
        let header = json!({ "alg": self.algorithm(), "typ": "JWT", "kid": self.id });
        let text = unsigned(&header, claims);
        let random = SystemRandom::new();
        let signature = match &self.pair {
            Pair::Ec(pair) => pair.sign(&random, text.as_bytes()).map(|s| s.as_ref().to_vec()),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, text.as_bytes(), &mut signature).map(|()| signature)
            }
        };
        let signature = signature.map_err(|_| anyhow!("the key does not sign"))?;
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// The public half (RFC 7517).
    pub(super) fn jwk(&self) -> Value {
        let mut jwk = match &self.pair {
            Pair::Ec(pair) => {
                // Uncompressed: 4, then two coordinates of 32 bytes.
                let point = pair.public_key().as_ref().get(1..).unwrap_or_default();
                let (x, y) = point.split_at(point.len() / 2);
                json!({ "kty": "EC", "crv": "P-256", "x": base64(x), "y": base64(y) })
            }
            Pair::Rsa(pair) => {
                let public = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                json!({ "kty": "RSA", "n": base64(&public.n), "e": base64(&public.e) })
            }
        };
        if let Some(fields) = jwk.as_object_mut() {
            fields.insert("use".into(), "sig".into());
            fields.insert("alg".into(), self.algorithm().into());
            fields.insert("kid".into(), self.id.as_str().into());
        }
        jwk
    }

    /// Modulus and exponent of an RSA key in base64url.
    pub(super) fn rsa_components(&self) -> Option<(String, String)> {
        match &self.pair {
            Pair::Ec(_) => None,
            Pair::Rsa(pair) => {
                let public = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                Some((base64(&public.n), base64(&public.e)))
            }
        }
    }
}

/// A new P-256 key, PKCS#8 in PEM: what [`super::Authority::start`] reads from its file.
///
/// # Errors
/// The system gives no randomness.
pub fn new_key() -> Result<String> {
    Ok(rcgen::KeyPair::generate()?.serialize_pem())
}

/// The same of an RSA key: the authority then signs RS256.
///
/// # Errors
/// The system gives no randomness.
pub fn new_rsa_key() -> Result<String> {
    let pair = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048)?;
    Ok(pair.serialize_pem())
}

/// Header and claims of a token that nobody signed (`alg: none`, RFC 7518 §3.6).
pub(super) fn sign_by_nobody(claims: &Value) -> String {
    unsigned(&json!({ "alg": "none", "typ": "JWT" }), claims) + "."
}

/// A token signed HS256 with a secret that both sides know.
pub(super) fn sign_by_secret(claims: &Value, secret: &str) -> String {
    let text = unsigned(&json!({ "alg": "HS256", "typ": "JWT" }), claims);
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signature = hmac::sign(&key, text.as_bytes());
    format!("{text}.{}", base64(signature.as_ref()))
}

fn unsigned(header: &Value, claims: &Value) -> String {
    format!("{}.{}", base64(header.to_string().as_bytes()), base64(claims.to_string().as_bytes()))
}

/// `S256` of RFC 7636 §4.2.
pub(super) fn challenge(verifier: &str) -> String {
    base64(digest::digest(&digest::SHA256, verifier.as_bytes()).as_ref())
}

/// Letters that nobody guesses, in base64url.
pub(super) fn random(bytes: usize) -> Result<String> {
    let mut random = vec![0; bytes];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| anyhow!("the system gives no randomness"))?;
    Ok(base64(&random))
}

/// What a person reads from one device and types at another: letters that form no words (RFC 8628 §6.1).
pub(super) fn random_user_code() -> Result<String> {
    const LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
    let mut random = [0; 8];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| anyhow!("the system gives no randomness"))?;
    let mut code: String = random
        .iter()
        .filter_map(|byte| LETTERS.get(usize::from(*byte) % LETTERS.len()))
        .map(|letter| char::from(*letter))
        .collect();
    code.insert(4, '-');
    Ok(code)
}

pub(super) fn base64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
