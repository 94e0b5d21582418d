//! The SMTP envelope (RFC 5321 §2.3.1): who is told to be the sender, and who gets a copy.
//!
//! Made once, when a submission is frozen, from all of To, Cc and Bcc; the bytes of the message hold no Bcc,
//! so only this list knows about it.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::address::{Address, AddressError, mailbox_key, validate, with_ascii_domain};

/// Sender and recipients, checked, each recipient once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// MAIL FROM.
    pub sender: String,
    /// RCPT TO, in the order To, Cc, Bcc.
    pub recipients: Vec<String>,
}

/// Why there is no envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// The sender or a recipient cannot be sent.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Nobody to send to.
    #[error("there are no recipients")]
    NoRecipients,
    /// More than the limit given.
    #[error("there are too many recipients")]
    TooManyRecipients,
}

impl Envelope {
    /// Gathers the recipients, leaving out repetitions (case ignored).
    ///
    /// # Errors
    /// [`EnvelopeError`]; `max_recipients` counts different addresses.
    pub fn new<'a>(
        sender: &str,
        recipients: impl IntoIterator<Item = &'a Address>,
        max_recipients: usize,
    ) -> Result<Self, EnvelopeError> {
        validate(sender)?;
        let mut seen = HashSet::new();
        let mut out = Vec::new();
        for r in recipients {
            validate(&r.address)?;
            if seen.insert(mailbox_key(&r.address)) {
                if out.len() >= max_recipients {
                    return Err(EnvelopeError::TooManyRecipients);
                }
                out.push(r.address.clone());
            }
        }
        if out.is_empty() {
            return Err(EnvelopeError::NoRecipients);
        }
        Ok(Self { sender: sender.to_owned(), recipients: out })
    }

    /// Whether any address needs SMTPUTF8 (RFC 6531): one whose domain has an ASCII form does not.
    #[must_use]
    pub fn needs_smtputf8(&self) -> bool {
        let needs = |address: &String| !with_ascii_domain(address).is_ascii();
        needs(&self.sender) || self.recipients.iter().any(needs)
    }
}

#[cfg(test)]
mod tests {
    use super::{Envelope, EnvelopeError};
    use crate::address::Address;

    fn list(addresses: &[&str]) -> Vec<Address> {
        addresses.iter().map(|a| Address { name: None, address: (*a).to_owned() }).collect()
    }

    #[test]
    fn a_recipient_named_twice_gets_one_copy() {
        let e = Envelope::new("me@a.example", &list(&["x@b.example", "X@B.example", "ü@b.example"]), 500)
            .unwrap();
        assert_eq!(e.recipients, ["x@b.example", "ü@b.example"]);
        assert!(e.needs_smtputf8());
    }

    #[test]
    fn an_envelope_without_or_with_too_many_recipients_is_none() {
        assert_eq!(Envelope::new("me@a", &[], 500), Err(EnvelopeError::NoRecipients));
        assert_eq!(Envelope::new("me@a", &list(&["a@b", "c@d"]), 1), Err(EnvelopeError::TooManyRecipients));
        assert!(matches!(Envelope::new("me@a", &list(&["a@b>\r\nX"]), 9), Err(EnvelopeError::Address(_))));
    }
}
