//! What a person should know before they enter anything: a word for programs, and a sentence in English. Who speaks another
//! language translates the words; a note that is new is then missing there at compile time.

macro_rules! notes {
    ($($(#[$doc:meta])+ $name:ident = $code:literal, $text:literal;)+) => {
        /// What a person should know of a provider.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Note {
            $($(#[$doc])+ $name,)+
        }

        impl Note {
            /// Every note.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The word for programs.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self {
                    $(Self::$name => $code,)+
                }
            }

            /// The sentence for people.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }

            /// The note of a word; `None`: it is none of these.
            #[must_use]
            pub fn from_code(code: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|note| note.code() == code)
            }
        }
    };
}

notes! {
    /// The account's own password is refused.
    AppPassword = "app-password", "Needs an app password, made in the provider's security settings, instead of the account's own.";
    /// The same, for those who sign in in two steps.
    AppPasswordForTwoFactor = "app-password-two-factor", "With two-factor sign-in an app password is needed.";
    /// IMAP is off until the user switches it on.
    SwitchOn = "switch-on", "Access by IMAP must be switched on in the provider's settings first.";
    /// No password will do.
    OAuthOnly = "oauth-only", "The provider accepts OAuth2 only; passwords, app passwords included, are refused.";
    /// The domain's own document says so.
    OAuthPreferred = "oauth-preferred", "The provider asks for OAuth2 and may refuse passwords.";
    /// The organisation may have switched mail programs off.
    Administrator = "administrator", "An administrator may have to permit IMAP and authenticated SMTP for the mailbox.";
    /// The user name for reading may be shorter than the address.
    LocalPart = "local-part", "If the address is refused as user name for reading, use the part before the @.";
    /// Organisations have other servers at zoho.com.
    ZohoOrganisations = "zoho-organisations", "Accounts of organisations use imappro.zoho.com and smtppro.zoho.com.";
    /// And at zoho.eu.
    ZohoOrganisationsEu = "zoho-organisations-eu", "Accounts of organisations use imappro.zoho.eu and smtppro.zoho.eu.";
    /// Proton's bridge runs on the user's machine.
    ProtonBridge = "proton-bridge", "Proton Mail is read by IMAP only through Proton Mail Bridge, a program on the user's own computer, which cannot be reached from here.";
    /// There is no IMAP.
    TutaNoImap = "tuta-no-imap", "Tuta offers no IMAP.";
    /// There is no IMAP.
    HeyNoImap = "hey-no-imap", "HEY offers no IMAP.";
    /// A password for mail programs alone.
    MailPassword = "mail-password", "Needs the password for mail programs, which is set in the customer centre and is not that of the login.";
    /// A code in place of the password.
    AuthorisationCode = "authorisation-code", "Needs the authorisation code that the settings show, instead of the password.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_note_has_a_word_of_its_own() {
        for note in Note::ALL {
            assert_eq!(Note::from_code(note.code()), Some(*note));
        }
        assert_eq!(Note::from_code("of another release"), None);
    }
}
