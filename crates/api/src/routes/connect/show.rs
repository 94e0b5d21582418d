//! Which step a person sees.

use axum::response::Response;
use emailclient_core::domain::connect::{Found, Place};
use emailclient_core::domain::oauth::app::App;
use http::StatusCode;
use http::header::RETRY_AFTER;
use wire::discover::Note;
use wire::imap::Security;

use super::form::Form;
use super::known;
use super::look::{Address, Alert, Consent, Field, Link, Message, Password, ServerFields, Servers};
use super::person::Person;
use super::refused::Refused;
use super::words::Returned;
use crate::error::Busy;

/// A step, as a link names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The address is asked for.
    Address,
    /// The person is sent to a provider.
    Consent,
    /// The password is asked for.
    Password,
    /// The servers are asked for.
    Servers,
    /// The provider lets nobody in.
    NoWay,
}

impl Step {
    /// The fields that it shows.
    const fn fields(self) -> &'static [&'static str] {
        match self {
            Self::Address => &["email"],
            Self::Password => &["password"],
            Self::Servers => &[
                "username",
                "password",
                "imap_host",
                "imap_port",
                "smtp_host",
                "smtp_port",
                "smtp_username",
                "smtp_password",
            ],
            Self::Consent | Self::NoWay => &[],
        }
    }
}

/// What is known when a step is shown.
pub struct Scene<'a> {
    /// The person.
    pub person: &'a Person,
    /// What is known of the address: of the account, where one is renewed.
    pub found: Option<&'a Found>,
    /// The address.
    pub email: &'a str,
    /// Apps by which one can consent.
    pub apps: &'a [App],
    /// What was entered, where a form was refused.
    pub form: Option<&'a Form>,
    /// Why it was.
    pub refused: Option<Refused>,
}

impl Scene<'_> {
    fn renews(&self) -> bool {
        self.person.session.account_id.is_some()
    }

    /// The step that is due, or the one that was asked for, if there is a way to it.
    pub fn step(&self, asked: Option<&str>) -> Step {
        let Some(found) = self.found else { return Step::Address };
        let whole = found.imap.is_some() && found.smtp.is_some();
        match asked {
            Some("address") if !self.renews() => return Step::Address,
            Some("servers") if !self.renews() => return Step::Servers,
            Some("password") if known::takes_password(found) => return Step::Password,
            _ => {}
        }
        if self.app().is_some() {
            Step::Consent
        } else if whole {
            Step::Password
        } else if found.imap.is_none() && !found.notes.is_empty() {
            Step::NoWay
        } else {
            Step::Servers
        }
    }

    fn app(&self) -> Option<&App> {
        let id = self.found?.app?;
        self.apps.iter().find(|app| app.id == id)
    }

    fn link(&self, step: &str, text: &str) -> Link {
        Link { href: format!("{}?step={step}", self.person.look.path), text: text.to_owned() }
    }

    fn wrong(&self, field: &str) -> Option<&'static str> {
        self.refused.as_ref()?.fields.get(field).copied()
    }

    fn notes(&self) -> Vec<&'static str> {
        let words = self.person.look.words();
        let notes = self.found.map(known::notes).unwrap_or_default();
        notes.into_iter().map(|note| (words.note)(note)).collect()
    }

    /// Why the person came back from a provider, unless they went on since.
    fn returned(&self) -> Option<Alert> {
        let fault = self.person.session.fault.as_ref()?;
        let words = self.person.look.words();
        let meaning = Returned::of(&fault.code);
        let quoted = matches!(meaning, Returned::Provider | Returned::Server(_));
        let said = fault.text.trim();
        Some(Alert {
            title: words.failed.to_owned(),
            text: (words.returned)(meaning).to_owned(),
            said: if quoted && !said.is_empty() { (words.said)(said) } else { String::new() },
            checks: Vec::new(),
        })
    }

    /// The page of a step.
    pub fn page(mut self, step: Step) -> Response {
        let (status, wait, busy) = match &self.refused {
            Some(refused) => (refused.status, refused.wait, refused.busy),
            None => (StatusCode::OK, None, false),
        };
        let alert = match &mut self.refused {
            Some(refused) => refused.head(step.fields()),
            None => self.returned(),
        };
        let mut response = match step {
            Step::Address => self.address(alert, status),
            Step::Consent => self.consent(alert, status),
            Step::Password => self.password(alert, status),
            Step::Servers => self.servers(alert, status),
            Step::NoWay => self.no_way(alert, status),
        };
        if let Some(wait) = wait {
            response.headers_mut().insert(RETRY_AFTER, wait.max(1).into());
        }
        if busy {
            response.extensions_mut().insert(Busy);
        }
        response
    }

    fn address(&self, alert: Option<Alert>, status: StatusCode) -> Response {
        let look = &self.person.look;
        let words = look.words();
        let entered = self.form.map_or_else(|| self.email.to_owned(), |form| form.text("email"));
        let email = Field::email("email", words.address, entered)
            .hint(words.address_hint)
            .wrong(self.wrong("email"))
            .focus(true);
        let frame = look.frame(words.connect, (words.connect_lead)(look.shown_name())).alert(alert);
        let frame = frame.wrong(self.refused.is_some());
        Address { frame, email }.answer(look, status)
    }

    fn consent(&self, alert: Option<Alert>, status: StatusCode) -> Response {
        let look = &self.person.look;
        let words = look.words();
        let Some(app) = self.app() else { return self.servers(alert, status) };
        let name = known::provider_name(app);
        let subject = name.as_deref().unwrap_or(words.your_provider);
        let at = name.as_deref().unwrap_or(words.at_your_provider);
        let (heading, lead) = if self.renews() {
            (words.renew.to_owned(), (words.renew_lead)(look.shown_name(), self.email))
        } else {
            ((words.sign_in)(at), (words.sign_in_lead)(subject, self.email))
        };
        let mut links = Vec::new();
        if self.found.is_some_and(known::takes_password) {
            links.push(self.link("password", words.password_instead));
        }
        if !self.renews() {
            links.push(self.link("address", words.another_address));
        }
        let focus = alert.is_none();
        let frame = look.frame(heading, lead).alert(alert);
        let link = format!("{}/consent/{}", look.path, app.id);
        Consent { frame, link, button: (words.sign_in_button)(at), focus, links }.answer(look, status)
    }

    fn password(&self, alert: Option<Alert>, status: StatusCode) -> Response {
        let look = &self.person.look;
        let words = look.words();
        let (heading, lead) = if self.renews() {
            (words.renew, (words.renew_lead)(look.shown_name(), self.email))
        } else {
            (words.password_title, (words.password_lead)(self.email))
        };
        let needs_app_password = self.found.is_some_and(|f| known::notes(f).contains(&Note::AppPassword));
        let label = if needs_app_password { words.app_password } else { words.password };
        let password = Field::password("password", label).wrong(self.wrong("password")).focus(true);
        let places = self.found.map(|found| [(words.reading, &found.imap), (words.sending, &found.smtp)]);
        let places = places.into_iter().flatten().filter_map(|(step, place)| Some((step, place.as_ref()?)));
        let servers = places.map(|(step, place)| format!("{step}: {}", shown(place))).collect();
        let links = if self.renews() {
            Vec::new()
        } else {
            vec![self.link("address", words.another_address), self.link("servers", words.servers_yourself)]
        };
        let frame = look.frame(heading, lead).alert(alert).wrong(self.refused.is_some());
        let address = self.email.to_owned();
        Password { frame, address, password, servers, notes: self.notes(), links }.answer(look, status)
    }

    fn servers(&self, alert: Option<Alert>, status: StatusCode) -> Response {
        let look = &self.person.look;
        let words = look.words();
        let found = self.found;
        let (imap, smtp) = (found.and_then(|f| f.imap.as_ref()), found.and_then(|f| f.smtp.as_ref()));
        let nothing = imap.is_none() && smtp.is_none();
        let lead = if nothing { words.servers_unknown } else { words.servers_lead };
        // The password is the first field that is empty.
        let focus = self.refused.as_ref().and_then(|refused| refused.first_of(Step::Servers.fields()));
        let focus = focus.unwrap_or("password");
        let entered =
            |name: &str, known: &str| self.form.map_or_else(|| known.to_owned(), |form| form.text(name));
        let known_user = imap.map_or(self.email, |place| place.username.as_str());
        let dress = |field: Field, name: &str| field.wrong(self.wrong(name)).focus(focus == name);
        let username = Field::text("username", words.username, entered("username", known_user));
        let username = username.filled_with("username").hint(words.username_hint);
        let username = dress(username, "username");
        let password = dress(Field::password("password", words.password), "password");
        let smtp_username = Field::text("smtp_username", words.smtp_username, entered("smtp_username", ""));
        let smtp_username = dress(smtp_username.optional(), "smtp_username");
        let smtp_password =
            Field::password("smtp_password", words.smtp_password).filled_with("off").optional();
        let smtp_password = dress(smtp_password, "smtp_password");
        let other_login = self.form.is_some_and(|form| !form.text("smtp_username").is_empty());
        let [imap, smtp] = [
            (["imap_host", "imap_port", "imap_security"], imap, "993"),
            (["smtp_host", "smtp_port", "smtp_security"], smtp, "465"),
        ]
        .map(|([host, port, security], place, usual)| {
            let known = place.map(|place| &place.server);
            let known_port = known.map_or_else(|| usual.to_owned(), |server| server.port.to_string());
            let known_security = known.map_or("tls", |server| server.security.as_str());
            let known_host = known.map_or("", |server| server.host.as_str());
            ServerFields {
                host: dress(Field::text(host, words.host, entered(host, known_host)), host),
                port: dress(Field::number(port, words.port, entered(port, &known_port)), port),
                starttls: entered(security, known_security) == Security::StartTls.as_str(),
            }
        });
        let consent = |app: &App| {
            let name = known::provider_name(app);
            let at = name.as_deref().unwrap_or(words.at_your_provider);
            Link { href: format!("{}/consent/{}", look.path, app.id), text: (words.sign_in)(at) }
        };
        // One of a known provider would not serve an address of which nothing is known.
        let custom = |app: &&App| app.said.endpoints.is_some();
        let apps = if nothing { self.apps.iter().filter(custom).map(consent).collect() } else { Vec::new() };
        Servers {
            frame: look
                .frame(words.servers_title, lead(self.email))
                .alert(alert)
                .wrong(self.refused.is_some()),
            address: self.email.to_owned(),
            username,
            password,
            imap,
            smtp,
            smtp_username,
            smtp_password,
            other_login,
            notes: self.notes(),
            apps,
            links: vec![self.link("address", words.another_address)],
        }
        .answer(look, status)
    }

    fn no_way(&self, alert: Option<Alert>, status: StatusCode) -> Response {
        let look = &self.person.look;
        let words = look.words();
        let provider = self.found.and_then(|found| found.provider.as_deref());
        let lead = (words.no_way_lead)(provider.unwrap_or(words.at_your_provider), self.email);
        let frame = look.frame(words.no_way, lead).alert(alert);
        let link = Some(self.link("address", words.another_address));
        Message { frame, notes: self.notes(), link }.answer(look, status)
    }
}

/// A server, as a person reads it.
fn shown(place: &Place) -> String {
    format!("{}:{}", place.server.host, place.server.port)
}
