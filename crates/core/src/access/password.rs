//! Passwords of users: argon2id (RFC 9106) with a random salt, in PHC string form.
//!
//! Both directions take tens of milliseconds of one core and 19 MiB. They run on the blocking pool, a few at a time, and
//! log-ins wait for that in a bounded queue ([`queue`]), so that a flood of them stalls neither the rest nor each other.
//! Passwords of mail accounts are not here: those must be readable again (`seal.rs`).

mod queue;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};

pub use queue::Share;

use wire::secret::Secret;

/// 19 MiB, 2 passes, 1 lane: the first recommendation of the OWASP list for argon2id.
const MEMORY_KIB: u32 = 19 * 1024;

/// Why a password could not be hashed or compared.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// The stored hash is not one, or argon2 refused its parameters.
    #[error("the password hash cannot be used: {0}")]
    Hash(String),
    /// The process is shutting down.
    #[error("the hashing task was cancelled")]
    Cancelled,
    /// Too many wait already: of this share, or of all.
    #[error("too many passwords wait to be compared")]
    Busy,
}

fn hasher() -> Result<Argon2<'static>, PasswordError> {
    let params = Params::new(MEMORY_KIB, 2, 1, None).map_err(|e| PasswordError::Hash(e.to_string()))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

async fn apart<T: Send + 'static>(
    share: Share,
    work: impl FnOnce() -> Result<T, PasswordError> + Send + 'static,
) -> Result<T, PasswordError> {
    let place = queue::PLACES.enter(share).await?;
    let task = tokio::task::spawn_blocking(move || {
        let done = work();
        // Held by the work and not by who waits for it: a client that hangs up frees no core.
        drop(place);
        done
    });
    task.await.map_err(|_| PasswordError::Cancelled)?
}

/// The PHC string to store for `password`. Waits for its turn however long the queue is.
///
/// # Errors
/// [`PasswordError`] when the process is ending.
pub async fn hash(password: Secret) -> Result<String, PasswordError> {
    apart(Share::Operator, move || {
        let hashed = hasher()?.hash_password(password.expose().as_bytes());
        Ok(hashed.map_err(|e| PasswordError::Hash(e.to_string()))?.to_string())
    })
    .await
}

/// A password that nobody can guess: 128 random bits as 32 hexadecimal digits, which no shell, file or client mangles.
#[must_use]
pub fn draw() -> Secret {
    Secret::new(hex::encode(rand::random::<[u8; 16]>()))
}

/// Whether `password` is the one that `stored` was made of. Without a stored hash the answer is `false` after the
/// same work, so that the time does not tell whether the user exists.
///
/// # Errors
/// [`PasswordError::Busy`] when too many wait, of this share or of all; [`PasswordError::Hash`] when `stored` is not a PHC
/// string.
pub async fn verify(password: Secret, stored: Option<String>, share: Share) -> Result<bool, PasswordError> {
    apart(share, move || {
        let hasher = hasher()?;
        let Some(stored) = stored else {
            let _ = hasher.hash_password(password.expose().as_bytes());
            return Ok(false);
        };
        let parsed = PasswordHash::new(&stored).map_err(|e| PasswordError::Hash(e.to_string()))?;
        Ok(hasher.verify_password(password.expose().as_bytes(), &parsed).is_ok())
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_same_password_verifies_and_no_two_hashes_are_equal() {
        let verify = |password: &str, stored: Option<String>| {
            super::verify(Secret::new(password), stored, Share::Nobody)
        };
        let stored = hash(Secret::new("correct horse")).await.unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        assert_ne!(stored, hash(Secret::new("correct horse")).await.unwrap());
        assert!(verify("correct horse", Some(stored.clone())).await.unwrap());
        assert!(!verify("correct horsf", Some(stored)).await.unwrap());
        assert!(!verify("x", None).await.unwrap());
        assert!(verify("x", Some("plain".into())).await.is_err());
    }
}
