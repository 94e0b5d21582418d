//! What went wrong with a step, for the page.

use std::collections::HashMap;

use http::StatusCode;
use wire::trouble::Trouble;

use super::look::{Alert, Check};
use super::words::{Words, Wrong};
use crate::error::{ApiError, FieldError};
use crate::routes::accounts::trial::{Failure, Outcomes};

/// Why a step was not done.
#[derive(Debug)]
pub struct Refused {
    /// The status of the answer.
    pub status: StatusCode,
    /// At the head of the page.
    alert: Option<Box<Alert>>,
    /// At fields.
    pub fields: HashMap<&'static str, &'static str>,
    /// Seconds to wait.
    pub wait: Option<u64>,
    /// Others had what was to be changed: the same may succeed at once.
    pub busy: bool,
}

/// Fields in the order in which a person meets them.
const FIELDS: [&str; 9] = [
    "email",
    "username",
    "password",
    "imap_host",
    "imap_port",
    "smtp_host",
    "smtp_port",
    "smtp_username",
    "smtp_password",
];

impl Refused {
    fn alone(words: &Words, status: StatusCode, text: String) -> Self {
        let alert = Alert { title: words.failed.to_owned(), text, ..Alert::default() };
        Self { status, alert: Some(Box::new(alert)), fields: HashMap::new(), wait: None, busy: false }
    }

    /// The address is connected at other servers.
    pub fn exists(words: &Words) -> Self {
        Self::alone(words, StatusCode::CONFLICT, words.exists.to_owned())
    }

    /// The form was for another mailbox.
    pub fn mismatch(words: &Words, form: &str, session: &str) -> Self {
        Self::alone(words, StatusCode::CONFLICT, (words.mismatch)(form, session))
    }

    /// The account is gone.
    pub fn gone(words: &Words) -> Self {
        Self::alone(words, StatusCode::GONE, (words.returned)(super::words::Returned::Gone).to_owned())
    }

    /// Fields that are wrong.
    pub fn fields(words: &Words, wrong: impl IntoIterator<Item = (&'static str, Wrong)>) -> Self {
        let fields: HashMap<_, _> =
            wrong.into_iter().map(|(field, wrong)| (field, (words.wrong)(wrong))).collect();
        let text = first(&fields).unwrap_or_default().to_owned();
        let alert = Alert { title: words.look_again.to_owned(), text, ..Alert::default() };
        let alert = Some(Box::new(alert));
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        Self { status, alert, fields, wait: None, busy: false }
    }

    /// What the API would answer to the same.
    pub fn of(words: &Words, error: &ApiError, own_smtp_login: bool) -> Self {
        let problem = error.problem();
        if error.status() == StatusCode::TOO_MANY_REQUESTS {
            let wait = error.retry_after().unwrap_or(60);
            let refused = Self::alone(words, StatusCode::TOO_MANY_REQUESTS, (words.slow)(wait));
            return Self { wait: Some(wait), ..refused };
        }
        if error.code() == "account-exists" {
            return Self::exists(words);
        }
        let known =
            problem.errors.iter().filter_map(|fault| Some((field(fault, own_smtp_login)?, wrong(fault))));
        let known: Vec<_> = known.collect();
        if !known.is_empty() {
            return Self::fields(words, known);
        }
        if error.status().is_server_error() && !error.is_busy() {
            tracing::error!(code = error.code(), cause = ?error, "a mailbox was not connected");
        }
        let refused = Self::alone(words, StatusCode::SERVICE_UNAVAILABLE, words.unavailable.to_owned());
        Self { busy: error.is_busy(), ..refused }
    }

    /// How the mail servers answered, one of which did not let the person in. `places`: where they are.
    pub fn tried(
        words: &'static Words,
        outcomes: &Outcomes,
        places: [String; 2],
        own_smtp_login: bool,
    ) -> Self {
        let [reading, sending] = places;
        let steps = [
            (words.reading, &outcomes.imap, reading, ["imap_host", "imap_port", "password"]),
            (
                words.sending,
                &outcomes.smtp,
                sending,
                ["smtp_host", "smtp_port", if own_smtp_login { "smtp_password" } else { "password" }],
            ),
        ];
        let mut fields = HashMap::new();
        let mut checks = Vec::new();
        for (step, outcome, place, [host, port, password]) in steps {
            if let Err(failure) = outcome {
                let field = match failure.trouble {
                    Trouble::AuthFailed | Trouble::CredentialsUnusable => password,
                    Trouble::PortNotAllowed => port,
                    _ => host,
                };
                fields.entry(field).or_insert((words.trouble)(failure.trouble));
            }
            checks.push(check(words, step, outcome.as_ref().err(), place));
        }
        let alert = Alert { title: words.failed.to_owned(), checks, ..Alert::default() };
        let alert = Some(Box::new(alert));
        Self { status: StatusCode::UNPROCESSABLE_ENTITY, alert, fields, wait: None, busy: false }
    }

    /// What stands at the head of a page that shows these fields: what is told at one of them is not said twice.
    pub fn head(&mut self, shown: &[&str]) -> Option<Alert> {
        let alert = *self.alert.take()?;
        let told = self.fields.keys().filter(|field| shown.contains(field)).count();
        let whole = !alert.checks.is_empty() || told < self.fields.len() || told == 0;
        match told {
            _ if whole => Some(alert),
            1 => None,
            _ => Some(Alert { text: String::new(), ..alert }),
        }
    }

    /// Where the person should look first, among these fields.
    pub fn first_of(&self, shown: &[&str]) -> Option<&'static str> {
        FIELDS.into_iter().find(|field| self.fields.contains_key(field) && shown.contains(field))
    }
}

fn first(fields: &HashMap<&'static str, &'static str>) -> Option<&'static str> {
    FIELDS.iter().find_map(|field| fields.get(field).copied())
}

fn check(words: &'static Words, step: &'static str, failure: Option<&Failure>, place: String) -> Check {
    let ok = failure.is_none();
    let said = failure.and_then(|failure| failure.upstream.text.as_deref()).unwrap_or_default();
    Check {
        step,
        ok,
        outcome: if ok { words.step_done } else { words.step_failed },
        text: failure.map(|failure| (words.trouble)(failure.trouble)).unwrap_or_default(),
        place,
        said: if said.is_empty() { String::new() } else { (words.said)(said) },
    }
}

/// The field of the page that a fault of the API's input is about.
fn field(fault: &FieldError, own_smtp_login: bool) -> Option<&'static str> {
    Some(match fault.pointer.as_str() {
        "/email" => "email",
        "/imap/username" => "username",
        "/imap/password" => "password",
        "/imap/host" | "/imap/security" => "imap_host",
        "/imap/port" => "imap_port",
        "/smtp/username" if own_smtp_login => "smtp_username",
        "/smtp/username" => "username",
        "/smtp/password" if own_smtp_login => "smtp_password",
        "/smtp/password" => "password",
        "/smtp/host" | "/smtp/security" => "smtp_host",
        "/smtp/port" => "smtp_port",
        _ => return None,
    })
}

fn wrong(fault: &FieldError) -> Wrong {
    let trouble = Trouble::ALL.iter().find(|trouble| trouble.code() == fault.code);
    match (fault.code.as_str(), trouble) {
        ("missing" | "empty", _) => Wrong::Missing,
        ("too-long", _) => Wrong::TooLong,
        ("invalid-address", _) => Wrong::Address,
        (_, Some(trouble)) => Wrong::Server(*trouble),
        _ => Wrong::Invalid,
    }
}
