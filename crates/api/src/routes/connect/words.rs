//! All that the page says, in each language. A language that lacks a text, a trouble or a note does not compile.
//!
//! The next text: a field of [`Words`]. The next language: a file beside `en.rs` with its `WORDS`, a value of [`Language`].

mod de;
mod en;

use http::HeaderMap;
use http::header::ACCEPT_LANGUAGE;
use wire::discover::Note;
use wire::trouble::Trouble;

/// A language of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// English.
    English,
    /// German.
    German,
}

impl Language {
    const ALL: [Self; 2] = [Self::English, Self::German];

    /// What is said in it.
    pub const fn words(self) -> &'static Words {
        match self {
            Self::English => &en::WORDS,
            Self::German => &de::WORDS,
        }
    }

    /// That of a tag such as `de-AT` (RFC 5646), by its first part.
    fn of_tag(tag: &str) -> Option<Self> {
        let language = tag.trim().split(['-', '_']).next().unwrap_or_default();
        Self::ALL.into_iter().find(|known| known.words().code.eq_ignore_ascii_case(language))
    }

    /// The one that was asked for, else the one that the browser likes best (RFC 9110 §12.5.4), else English.
    pub fn choose(locale: Option<&str>, headers: &HeaderMap) -> Self {
        locale.and_then(Self::of_tag).or_else(|| liked(headers)).unwrap_or(Self::English)
    }
}

fn liked(headers: &HeaderMap) -> Option<Language> {
    let mut best: Option<(f32, Language)> = None;
    let fields = headers.get_all(ACCEPT_LANGUAGE).iter().filter_map(|value| value.to_str().ok());
    for range in fields.flat_map(|value| value.split(',')).take(32) {
        let mut parts = range.split(';');
        let Some(language) = parts.next().and_then(Language::of_tag) else { continue };
        let weight =
            parts.find_map(|part| part.trim().strip_prefix("q=")?.parse::<f32>().ok()).unwrap_or(1.0);
        if weight > 0.0 && best.is_none_or(|(most, _)| weight > most) {
            best = Some((weight, language));
        }
    }
    best.map(|(_, language)| language)
}

/// How a person came back from a provider without an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Returned {
    /// They, or their administrator's rules, said no.
    Denied,
    /// The way there was taken twice, or took too long.
    TooLate,
    /// The app may not work while they are away.
    NoLastingAccess,
    /// The provider does not say, or not credibly, whose mailbox it is.
    WhoIsIt,
    /// The consent is of another mailbox.
    AnotherMailbox,
    /// The provider does not take the app.
    App,
    /// The provider refused for a reason of its own.
    Provider,
    /// The provider cannot answer.
    Later,
    /// The account, or the app, is not there any more.
    Gone,
    /// The mail server refused what the provider gave.
    Server(Trouble),
    /// On our side.
    Ours,
}

impl Returned {
    /// That of a word of docs/connecting.md.
    pub fn of(code: &str) -> Self {
        match code {
            "access-denied" => Self::Denied,
            "code-refused" | "no-code" => Self::TooLate,
            "no-refresh-token" => Self::NoLastingAccess,
            "identity-untrusted" | "identity-unknown" | "issuer-mismatch" => Self::WhoIsIt,
            "identity-mismatch" => Self::AnotherMailbox,
            "app-refused" => Self::App,
            "provider-refused" => Self::Provider,
            "provider-unavailable" => Self::Later,
            "account-gone" | "app-gone" => Self::Gone,
            other => Trouble::ALL.iter().find(|t| t.code() == other).map_or(Self::Ours, |t| Self::Server(*t)),
        }
    }
}

/// What is wrong with one field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// It is empty.
    Missing,
    /// It is too long.
    TooLong,
    /// It is no address.
    Address,
    /// It is no port.
    Port,
    /// It cannot be used.
    Invalid,
    /// The server of that name, or at that port.
    Server(Trouble),
}

/// Why there is no page to go on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shut {
    /// No such address was ever given out.
    Unknown,
    /// It was used.
    Used,
    /// It is too old.
    Expired,
    /// The tenant is suspended.
    Suspended,
    /// Who sent the person may connect no accounts any more.
    NotAllowed,
    /// There is nowhere to go in the end.
    NoWayBack,
    /// Too many requests.
    Slow,
    /// The form is not the page's own.
    Form,
    /// On our side, for a moment.
    Ours,
}

/// Heading and explanation.
pub type Said = (&'static str, &'static str);

/// Every text of the page.
#[derive(Debug)]
pub struct Words {
    /// `lang` of the page.
    pub code: &'static str,
    /// Before a title of a page with an error.
    pub error_title: &'static str,
    /// Who has no name.
    pub nameless: &'static str,
    /// Heading of the first step.
    pub connect: &'static str,
    /// What it is about; whom the mailbox is connected to.
    pub connect_lead: fn(&str) -> String,
    /// Heading where an account is renewed.
    pub renew: &'static str,
    /// Who has lost which mailbox.
    pub renew_lead: fn(&str, &str) -> String,
    /// Label.
    pub address: &'static str,
    /// Below it.
    pub address_hint: &'static str,
    /// Button.
    pub go_on: &'static str,
    /// Button that ends it.
    pub cancel: &'static str,
    /// Link back to the first step.
    pub another_address: &'static str,
    /// Heading: at whom to sign in.
    pub sign_in: fn(&str) -> String,
    /// Whom the provider asks about which mailbox.
    pub sign_in_lead: fn(&str, &str) -> String,
    /// Button.
    pub sign_in_button: fn(&str) -> String,
    /// Link.
    pub password_instead: &'static str,
    /// A provider without a name, at the beginning of a sentence.
    pub your_provider: &'static str,
    /// The same behind a preposition.
    pub at_your_provider: &'static str,
    /// Heading.
    pub password_title: &'static str,
    /// For which mailbox.
    pub password_lead: fn(&str) -> String,
    /// Label.
    pub password: &'static str,
    /// Label where the account's own is refused.
    pub app_password: &'static str,
    /// Button.
    pub connect_button: &'static str,
    /// What becomes of the password.
    pub password_use: &'static str,
    /// Link.
    pub servers_yourself: &'static str,
    /// Heading.
    pub servers_title: &'static str,
    /// Nothing was found for this address.
    pub servers_unknown: fn(&str) -> String,
    /// They are entered by choice, for this address.
    pub servers_lead: fn(&str) -> String,
    /// Before buttons of apps.
    pub or_sign_in: &'static str,
    /// Label.
    pub username: &'static str,
    /// Below it.
    pub username_hint: &'static str,
    /// Legend.
    pub incoming: &'static str,
    /// Legend.
    pub outgoing: &'static str,
    /// Label.
    pub host: &'static str,
    /// Label.
    pub port: &'static str,
    /// Label.
    pub encryption: &'static str,
    /// Choice.
    pub tls: &'static str,
    /// Choice.
    pub starttls: &'static str,
    /// What opens the next two.
    pub other_login: &'static str,
    /// Label.
    pub smtp_username: &'static str,
    /// Label.
    pub smtp_password: &'static str,
    /// Heading.
    pub no_way: &'static str,
    /// Provider and address.
    pub no_way_lead: fn(&str, &str) -> String,
    /// Heading of what went wrong.
    pub failed: &'static str,
    /// Heading where fields are wrong.
    pub look_again: &'static str,
    /// Name of a step.
    pub reading: &'static str,
    /// Name of a step.
    pub sending: &'static str,
    /// How it went.
    pub step_done: &'static str,
    /// How it went.
    pub step_failed: &'static str,
    /// What a server or provider said.
    pub said: fn(&str) -> String,
    /// The address belongs to an account at other servers.
    pub exists: &'static str,
    /// The form was for the first mailbox, it is about the second.
    pub mismatch: fn(&str, &str) -> String,
    /// How many seconds.
    pub slow: fn(u64) -> String,
    /// On our side.
    pub unavailable: &'static str,
    /// Link to whom.
    pub back_to: fn(&str) -> String,
    /// Hint before notes.
    pub good_to_know: &'static str,
    /// What went wrong at a mail server.
    pub trouble: fn(Trouble) -> &'static str,
    /// What a person should know.
    pub note: fn(Note) -> &'static str,
    /// What is wrong with a field.
    pub wrong: fn(Wrong) -> &'static str,
    /// What a return from a provider means.
    pub returned: fn(Returned) -> &'static str,
    /// Why there is no page.
    pub shut: fn(Shut) -> Said,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_language_is_the_one_that_was_asked_for_or_the_one_the_browser_likes_best() {
        let headers = |text: &str| HeaderMap::from_iter([(ACCEPT_LANGUAGE, text.parse().unwrap())]);
        let choose = |locale: Option<&str>, text: &str| Language::choose(locale, &headers(text));
        assert_eq!(choose(Some("de-AT"), "en"), Language::German);
        assert_eq!(choose(Some("EN_us"), "de"), Language::English);
        assert_eq!(choose(Some("fr"), "de"), Language::German);
        assert_eq!(choose(None, "fr, de;q=0.8, en;q=0.9"), Language::English);
        assert_eq!(choose(None, "de-CH,de;q=0.9,en;q=0.8"), Language::German);
        assert_eq!(choose(None, "de;q=0, fr"), Language::English);
        assert_eq!(choose(None, ";;q=,,x"), Language::English);
        assert_eq!(Language::choose(None, &HeaderMap::new()), Language::English);
    }

    #[test]
    fn languages_differ_in_every_note_and_trouble() {
        let (en, de) = (Language::English.words(), Language::German.words());
        for note in Note::ALL {
            assert_ne!((en.note)(*note), (de.note)(*note), "{note:?}");
        }
        for trouble in Trouble::ALL {
            assert_ne!((en.trouble)(*trouble), (de.trouble)(*trouble), "{trouble:?}");
            assert_eq!(Returned::of(trouble.code()), Returned::Server(*trouble));
        }
        assert_eq!(Returned::of("of another release"), Returned::Ours);
    }
}
