//! Encryption of credentials at rest: AES-256-GCM with a random 96-bit nonce (NIST SP 800-38D).
//!
//! The additional data binds a ciphertext to its tenant, row, field and key, so one that is copied into another row
//! or column does not open.

use std::collections::HashMap;

use aes_gcm::aead::{Aead, Generate, Key, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use base64::Engine as _;
use sha2::{Digest, Sha256};

use crate::platform::id::TenantId;
use uuid::Uuid;
use wire::secret::Secret;

const NONCE_BYTES: usize = 12;

/// Why a value could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The text of a key is not 32 bytes in base64.
    #[error("an encryption key must be 32 bytes in base64 (`openssl rand -base64 32`)")]
    BadKey,
    /// The row names a key that is not configured.
    #[error(
        "the row was encrypted under key {0}, which is neither ENCRYPTION_KEY nor in ENCRYPTION_KEYS_OLD"
    )]
    UnknownKey(String),
    /// The ciphertext was changed, cut or moved to another row.
    #[error("the ciphertext does not belong to this row or was changed")]
    Forged,
}

/// The current key and those that older rows still need.
pub struct Keyring {
    current: String,
    keys: HashMap<String, Aes256Gcm>,
}

/// What a sealed value belongs to.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Whose it is.
    pub tenant: TenantId,
    /// The account, or whatever else has the secret.
    pub row: Uuid,
    /// The column, for example `imap_password`.
    pub field: &'a str,
}

/// A ciphertext (nonce first) and the id of its key.
#[derive(Debug, Clone)]
pub struct Sealed {
    /// Id of the key.
    pub key_id: String,
    /// Nonce and ciphertext.
    pub bytes: Vec<u8>,
}

impl Keyring {
    /// Reads keys of 32 bytes in base64: the one new values are sealed under, and the earlier ones.
    pub fn new(current: &Secret, old: &[Secret]) -> Result<Self, SealError> {
        let (current_id, cipher) = read_key(current)?;
        let mut keys = HashMap::from([(current_id.clone(), cipher)]);
        for key in old {
            let (id, cipher) = read_key(key)?;
            keys.insert(id, cipher);
        }
        Ok(Self { current: current_id, keys })
    }

    /// Id of the key that new values are sealed under.
    #[must_use]
    pub fn current_id(&self) -> &str {
        &self.current
    }

    /// Encrypts `value` for `place` under the current key.
    pub fn seal(&self, place: Place<'_>, value: &Secret) -> Result<Sealed, SealError> {
        let cipher = self.keys.get(&self.current).ok_or(SealError::BadKey)?;
        let nonce = Nonce::generate();
        let aad = additional_data(place, &self.current);
        let ciphertext = cipher
            .encrypt(&nonce, Payload { msg: value.expose().as_bytes(), aad: &aad })
            .map_err(|_| SealError::Forged)?;
        let mut bytes = nonce.to_vec();
        bytes.extend_from_slice(&ciphertext);
        Ok(Sealed { key_id: self.current.clone(), bytes })
    }

    /// Decrypts what [`Keyring::seal`] made for the same `place`.
    pub fn open(&self, place: Place<'_>, sealed: &Sealed) -> Result<Secret, SealError> {
        let cipher =
            self.keys.get(&sealed.key_id).ok_or_else(|| SealError::UnknownKey(sealed.key_id.clone()))?;
        let (nonce, ciphertext) = sealed.bytes.split_at_checked(NONCE_BYTES).ok_or(SealError::Forged)?;
        let nonce = Nonce::try_from(nonce).map_err(|_| SealError::Forged)?;
        let aad = additional_data(place, &sealed.key_id);
        let plain =
            cipher.decrypt(&nonce, Payload { msg: ciphertext, aad: &aad }).map_err(|_| SealError::Forged)?;
        String::from_utf8(plain).map(Secret::new).map_err(|_| SealError::Forged)
    }
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyring").field("current", &self.current).finish_non_exhaustive()
    }
}

fn read_key(text: &Secret) -> Result<(String, Aes256Gcm), SealError> {
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(text.expose().trim())
        .map_err(|_| SealError::BadKey)?;
    let bytes: [u8; 32] = bytes.try_into().map_err(|_| SealError::BadKey)?;
    let mut id = hex::encode(Sha256::digest(bytes));
    id.truncate(8);
    Ok((id, Aes256Gcm::new(&Key::<Aes256Gcm>::from(bytes))))
}

fn additional_data(place: Place<'_>, key_id: &str) -> Vec<u8> {
    format!("{}\0{}\0{}\0{key_id}", place.tenant, place.row, place.field).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> Secret {
        Secret::new(base64::engine::general_purpose::STANDARD.encode([byte; 32]))
    }

    #[test]
    fn a_ciphertext_opens_only_in_its_own_row_and_column() {
        let ring = Keyring::new(&key(1), &[]).unwrap();
        let place =
            Place { tenant: TenantId::new(), row: crate::platform::id::new_uuid(), field: "imap_password" };
        let sealed = ring.seal(place, &Secret::new("hunter2")).unwrap();
        assert_eq!(ring.open(place, &sealed).unwrap().expose(), "hunter2");
        for other in [
            Place { tenant: TenantId::new(), ..place },
            Place { row: crate::platform::id::new_uuid(), ..place },
            Place { field: "smtp_password", ..place },
        ] {
            assert!(matches!(ring.open(other, &sealed), Err(SealError::Forged)));
        }
        let mut cut = sealed;
        cut.bytes.truncate(5);
        assert!(ring.open(place, &cut).is_err());
    }

    #[test]
    fn an_old_key_still_opens_what_it_sealed() {
        let place = Place { tenant: TenantId::new(), row: crate::platform::id::new_uuid(), field: "f" };
        let sealed = Keyring::new(&key(1), &[]).unwrap().seal(place, &Secret::new("x")).unwrap();
        assert!(Keyring::new(&key(2), &[key(1)]).unwrap().open(place, &sealed).is_ok());
        assert!(matches!(
            Keyring::new(&key(2), &[]).unwrap().open(place, &sealed),
            Err(SealError::UnknownKey(_))
        ));
    }
}
