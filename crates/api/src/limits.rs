//! How long what clients write may be. Each limit has a name, and a row under that name in `docs/api.md` (a unit test
//! compares them). Lengths of texts are in bytes of UTF-8.
//!
//! A text over its limit is 422 `validation-error` with the code `too-long` at its pointer, a list `too-many`. Here are
//! the limits that the API sets itself; those of the formats (an address, a keyword, a mailbox's name, a search) are
//! judged where the format is read and stand in the same table.

use crate::error::{ApiError, FieldError};

macro_rules! limits {
    ($($(#[$doc:meta])* $name:ident = $value:expr;)*) => {
        $($(#[$doc])* pub const $name: usize = $value;)*
        /// All of them, by name.
        #[cfg(test)]
        const ALL: &[(&str, usize)] = &[$((stringify!($name), $name)),*];
    };
}

limits! {
    /// A log-in name.
    EMAIL_BYTES = 254;
    /// A password, at log-in or of a mail server.
    PASSWORD_BYTES = 1024;
    /// A refresh token; ours have about a hundred.
    REFRESH_TOKEN_BYTES = 512;
    /// The name of an account or of an identity.
    NAME_BYTES = 200;
    /// The user name at a mail server.
    USERNAME_BYTES = 512;
    /// The name or address of a mail server (RFC 1035 §2.3.4).
    HOST_BYTES = 253;
    /// Identities of an account.
    IDENTITIES = 100;
    /// The signature of an identity, each of text and HTML.
    SIGNATURE_BYTES = 64 * 1024;
    /// Entries in `include`, and in `exclude`, of an account's `sync`.
    SYNC_MAILBOXES = 100;
    /// Such an entry.
    SYNC_MAILBOX_BYTES = 256;
    /// The subject of a draft: what one line of a header may hold (RFC 5322 §2.1.1).
    SUBJECT_BYTES = emailclient_core::domain::draft::MAX_SUBJECT_BYTES;
    /// Addresses in one field of a draft. A message that is sent has 500 recipients at most, all fields together.
    ADDRESSES = 1000;
    /// Further headers of a draft.
    HEADERS = 100;
    /// The name of such a header.
    HEADER_NAME_BYTES = 100;
    /// The value of such a header.
    HEADER_VALUE_BYTES = 8 * 1024;
    /// The name of an uploaded file; it is kept, and sent, in 255.
    FILENAME_BYTES = 1024;
    /// The address of a webhook.
    WEBHOOK_URL_BYTES = wire::post::ADDRESS_BYTES;
    /// The description of a webhook.
    WEBHOOK_DESCRIPTION_BYTES = 500;
    /// Kinds of events that a webhook names.
    WEBHOOK_TYPES = 100;
    /// Accounts that a webhook names.
    WEBHOOK_ACCOUNTS = 100;
    /// The client id of an OAuth app.
    OAUTH_CLIENT_BYTES = 512;
    /// The private key of a service account, in PEM.
    OAUTH_KEY_BYTES = 16 * 1024;
    /// Scopes of an OAuth app.
    OAUTH_SCOPES = 50;
    /// One of them.
    OAUTH_SCOPE_BYTES = 500;
    /// The state that a caller gets back.
    OAUTH_STATE_BYTES = 1024;
    /// Redirect URLs of a tenant.
    REDIRECT_URLS = 50;
    /// The language of a person who is sent to the page (RFC 5646).
    LOCALE_BYTES = 35;
    /// The logo of a tenant, as a file.
    LOGO_BYTES = 256 * 1024;
    /// Its width and its height.
    LOGO_PIXELS = 4096;
    /// One parameter of a query string, decoded.
    PARAMETER_BYTES = 16 * 1024;
}

/// What was found too long so far.
#[derive(Debug, Default)]
pub struct Limits(Vec<FieldError>);

impl Limits {
    /// Judges a text.
    pub fn text(&mut self, pointer: impl Into<String>, text: &str, max_bytes: usize) {
        if text.len() > max_bytes {
            self.0.push(FieldError::new(pointer, "too-long", format!("at most {max_bytes} bytes")));
        }
    }

    /// Judges the length of a list.
    pub fn count(&mut self, pointer: impl Into<String>, count: usize, max: usize) {
        if count > max {
            self.0.push(FieldError::new(pointer, "too-many", format!("at most {max}")));
        }
    }

    /// What was found.
    pub fn faults(self) -> Vec<FieldError> {
        self.0
    }

    /// Ends the judgement.
    ///
    /// # Errors
    /// 422 `validation-error` with a pointer to everything that is over its limit.
    pub fn end(self) -> Result<(), ApiError> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(ApiError::validation("see errors for the fields").with_errors(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_has_a_row_of_its_name_and_value_in_the_docs() {
        let page = include_str!("../../../docs/api.md");
        for (name, value) in ALL {
            let row = page.lines().find(|line| line.starts_with(&format!("| `{name}` |")));
            let row = row.unwrap_or_else(|| panic!("{name} is not in docs/api.md"));
            let told: String = row.split('|').nth(2).unwrap().chars().filter(char::is_ascii_digit).collect();
            assert_eq!(told, value.to_string(), "{name}");
        }
    }

    #[test]
    fn a_text_may_have_its_limit_and_not_one_byte_more() {
        let mut limits = Limits::default();
        limits.text("/a", &"x".repeat(10), 10);
        limits.text("/b", &"ü".repeat(6), 10);
        limits.count("/c", 3, 2);
        let error = limits.end().unwrap_err();
        let found: Vec<_> =
            error.problem().errors.iter().map(|e| (e.pointer.as_str(), e.code.as_str())).collect();
        assert_eq!((error.code(), found), ("validation-error", vec![("/b", "too-long"), ("/c", "too-many")]));
    }
}
