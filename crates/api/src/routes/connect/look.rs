//! How the page looks: templates, and the headers under which they leave.
//!
//! The templates are askama's. They are compiled: one that names what is not there does not build, and everything that is put into
//! one is escaped unless it says otherwise, which the style sheet and the fields do, that are templates themselves.

use askama::Template;
use askama::filters::HtmlSafe;
use axum::response::{Html, IntoResponse as _, Redirect, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::header::{CACHE_CONTROL, CONTENT_LANGUAGE, CONTENT_SECURITY_POLICY, HeaderName, REFERRER_POLICY};
use http::{HeaderValue, StatusCode};
use sha2::{Digest as _, Sha256};

use super::colour::{self, Colour, Palette};
use super::words::{Language, Words};
use crate::headers;

/// Whom a page is for, in which language, and where it is.
#[derive(Debug, Clone)]
pub struct Look {
    /// What is said.
    pub language: Language,
    /// The name people know; empty: none.
    pub name: String,
    /// What buttons and links are coloured by.
    pub colour: Colour,
    /// Where the logo is.
    pub logo: Option<String>,
    /// Where the page is; empty: it takes no forms.
    pub path: String,
    /// What its forms carry.
    pub form: String,
    /// Where it may send its forms on to, as an origin.
    pub onward: Option<String>,
}

impl Look {
    /// Without a tenant.
    pub fn nobody(language: Language) -> Self {
        Self {
            language,
            name: String::new(),
            colour: colour::DEFAULT,
            logo: None,
            path: String::new(),
            form: String::new(),
            onward: None,
        }
    }

    /// What is said.
    pub fn words(&self) -> &'static Words {
        self.language.words()
    }

    /// The name, or what stands for one.
    pub fn shown_name(&self) -> &str {
        if self.name.is_empty() { self.words().nameless } else { &self.name }
    }

    /// The frame of a page.
    pub fn frame(&self, heading: impl Into<String>, lead: impl Into<String>) -> Frame {
        let style = Style { palette: Palette::of(self.colour) }.render().unwrap_or_default();
        let name = self.shown_name().to_owned();
        Frame {
            words: self.words(),
            title: String::new(),
            initial: name.chars().next().map(|c| c.to_uppercase().collect()).unwrap_or_default(),
            name,
            style,
            logo: self.logo.clone(),
            path: self.path.clone(),
            form: self.form.clone(),
            heading: heading.into(),
            lead: lead.into(),
            alert: None,
            wrong: false,
            can_cancel: true,
        }
    }

    /// Sends a browser on.
    pub fn go(url: &str) -> Response {
        let mut response = Redirect::to(url).into_response();
        seal(&mut response);
        response
    }

    /// A page as an answer. `own` is all of it.
    pub fn page(&self, status: StatusCode, frame: &Frame, own: Result<String, askama::Error>) -> Response {
        let html = match own {
            Ok(html) => html,
            Err(error) => {
                tracing::error!(%error, "a page could not be written");
                return StatusCode::INTERNAL_SERVER_ERROR.into_response();
            }
        };
        let mut response = (status, Html(html)).into_response();
        let hash = BASE64_STANDARD.encode(Sha256::digest(frame.style.as_bytes()));
        let images = if self.logo.is_some() { " img-src 'self';" } else { "" };
        let onward = self.onward.as_deref().map(|origin| format!(" {origin}")).unwrap_or_default();
        // Browsers hold the way on from a form to this as well: the address that a person is sent back to has to stand here.
        let forms = if self.path.is_empty() { "'none'".to_owned() } else { format!("'self'{onward}") };
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{hash}';{images} form-action {forms}; frame-ancestors 'none'; base-uri 'none'"
        );
        let fields = response.headers_mut();
        if let Ok(policy) = HeaderValue::from_str(&policy) {
            fields.insert(CONTENT_SECURITY_POLICY, policy);
        }
        fields.insert(CONTENT_LANGUAGE, HeaderValue::from_static(self.words().code));
        fields.insert(HeaderName::from_static("x-frame-options"), HeaderValue::from_static("DENY"));
        response.extensions_mut().insert(headers::Page);
        seal(&mut response);
        response
    }
}

/// What stands in the address lets in: nobody keeps it or hears of it.
fn seal(response: &mut Response) {
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
}

/// The style sheet. Nothing of it comes from outside but colours, which are digits.
#[derive(Template)]
#[template(path = "connect/style.css", escape = "none")]
struct Style {
    palette: Palette,
}

/// What is around each step.
#[derive(Debug)]
pub struct Frame {
    words: &'static Words,
    title: String,
    name: String,
    initial: String,
    style: String,
    logo: Option<String>,
    path: String,
    form: String,
    heading: String,
    lead: String,
    alert: Option<Alert>,
    wrong: bool,
    can_cancel: bool,
}

impl Frame {
    /// With what went wrong.
    pub fn alert(mut self, alert: Option<Alert>) -> Self {
        self.wrong = self.wrong || alert.is_some();
        self.alert = alert;
        self
    }

    /// With something wrong that is told at a field.
    pub fn wrong(mut self, wrong: bool) -> Self {
        self.wrong = self.wrong || wrong;
        self
    }

    /// Without the button that ends it.
    pub fn final_word(mut self) -> Self {
        self.can_cancel = false;
        self
    }

    /// The title tells the step, and an error first: it is what is read out when the page has loaded.
    fn titled(mut self) -> Self {
        let error = if self.wrong { format!("{}: ", self.words.error_title) } else { String::new() };
        self.title = format!("{error}{} – {}", self.heading, self.name);
        self
    }
}

/// What went wrong.
#[derive(Debug, Default)]
pub struct Alert {
    /// In a few words.
    pub title: String,
    /// And what to do.
    pub text: String,
    /// What was answered.
    pub said: String,
    /// Step by step.
    pub checks: Vec<Check>,
}

/// How one step went.
#[derive(Debug)]
pub struct Check {
    /// Its name.
    pub step: &'static str,
    /// Whether it went well.
    pub ok: bool,
    /// The same as a word.
    pub outcome: &'static str,
    /// Why not, and what to do.
    pub text: &'static str,
    /// Where.
    pub place: String,
    /// What was answered.
    pub said: String,
}

/// One field of a form with its label, hint and error.
#[derive(Debug, Template)]
#[template(path = "connect/field.html")]
pub struct Field {
    id: &'static str,
    label: &'static str,
    kind: &'static str,
    autocomplete: &'static str,
    mode: &'static str,
    value: String,
    hint: &'static str,
    required: bool,
    focus: bool,
    wrong: Option<&'static str>,
    described: String,
}

impl HtmlSafe for Field {}

impl Field {
    /// A text.
    pub fn text(id: &'static str, label: &'static str, value: impl Into<String>) -> Self {
        Self {
            id,
            label,
            kind: "text",
            autocomplete: "off",
            mode: "",
            value: value.into(),
            hint: "",
            required: true,
            focus: false,
            wrong: None,
            described: String::new(),
        }
    }

    /// A password: never shown again.
    pub fn password(id: &'static str, label: &'static str) -> Self {
        Self { kind: "password", autocomplete: "current-password", ..Self::text(id, label, "") }
    }

    /// A mail address.
    pub fn email(id: &'static str, label: &'static str, value: impl Into<String>) -> Self {
        Self { kind: "email", autocomplete: "email", mode: "email", ..Self::text(id, label, value) }
    }

    /// A number.
    pub fn number(id: &'static str, label: &'static str, value: impl Into<String>) -> Self {
        Self { mode: "numeric", ..Self::text(id, label, value) }
    }

    /// With what a browser fills in.
    pub fn filled_with(mut self, autocomplete: &'static str) -> Self {
        self.autocomplete = autocomplete;
        self
    }

    /// With a hint.
    pub fn hint(mut self, hint: &'static str) -> Self {
        self.hint = hint;
        self
    }

    /// It may stay empty.
    pub fn optional(mut self) -> Self {
        self.required = false;
        self
    }

    /// With what is wrong with it.
    pub fn wrong(mut self, wrong: Option<&'static str>) -> Self {
        self.wrong = wrong;
        self
    }

    /// Where the person begins.
    pub fn focus(mut self, focus: bool) -> Self {
        self.focus = focus;
        self
    }

    fn finished(mut self) -> Self {
        let parts = [(self.wrong.is_some(), "wrong"), (!self.hint.is_empty(), "hint")];
        let ids = parts.iter().filter(|(there, _)| *there).map(|(_, part)| format!("{}-{part}", self.id));
        self.described = ids.collect::<Vec<_>>().join(" ");
        self
    }
}

/// Somewhere else to go.
#[derive(Debug, Clone)]
pub struct Link {
    /// Where.
    pub href: String,
    /// As it is shown.
    pub text: String,
}

/// A server in a form.
#[derive(Debug)]
pub struct ServerFields {
    /// Its name.
    pub host: Field,
    /// Its port.
    pub port: Field,
    /// How it is protected.
    pub starttls: bool,
}

impl ServerFields {
    fn finished(self) -> Self {
        Self { host: self.host.finished(), port: self.port.finished(), ..self }
    }
}

fn made_ready<P>(page: P, ready: impl FnOnce(P) -> P) -> P {
    ready(page)
}

macro_rules! pages {
    ($($(#[$doc:meta])* $name:ident($path:tt) { $($(#[$each:meta])* $field:ident: $kind:ty,)* } ready $ready:expr;)+) => {$(
        $(#[$doc])*
        #[derive(Debug, Template)]
        #[template(path = $path)]
        pub struct $name {
            /// What is around it.
            pub frame: Frame,
            $($(#[$each])* pub $field: $kind,)*
        }

        impl $name {
            /// As an answer.
            pub fn answer(self, look: &Look, status: StatusCode) -> Response {
                let mut page = made_ready(self, $ready);
                page.frame = page.frame.titled();
                let html = page.render();
                look.page(status, &page.frame, html)
            }
        }
    )+};
}

pages! {
    /// The address is asked for.
    Address("connect/address.html") {
        /// The field.
        email: Field,
    } ready |mut page| { page.email = page.email.finished(); page };
    /// A person is sent to a provider.
    Consent("connect/consent.html") {
        /// Where to.
        link: String,
        /// On the button.
        button: String,
        /// Whether the button has the focus.
        focus: bool,
        /// Elsewhere.
        links: Vec<Link>,
    } ready |page| page;
    /// The password is asked for.
    Password("connect/password.html") {
        /// For whom.
        address: String,
        /// The field.
        password: Field,
        /// Where it goes.
        servers: Vec<String>,
        /// What is good to know.
        notes: Vec<&'static str>,
        /// Elsewhere.
        links: Vec<Link>,
    } ready |mut page| { page.password = page.password.finished(); page };
    /// The servers are asked for.
    Servers("connect/servers.html") {
        /// For whom.
        address: String,
        /// Who logs in.
        username: Field,
        /// With what.
        password: Field,
        /// Where mail is read.
        imap: ServerFields,
        /// Where it is sent.
        smtp: ServerFields,
        /// Who logs in there.
        smtp_username: Field,
        /// With what.
        smtp_password: Field,
        /// Whether these two are shown at once.
        other_login: bool,
        /// What is good to know.
        notes: Vec<&'static str>,
        /// Where one may sign in instead.
        apps: Vec<Link>,
        /// Elsewhere.
        links: Vec<Link>,
    } ready |mut page| {
        page.imap = page.imap.finished();
        page.smtp = page.smtp.finished();
        page.username = page.username.finished();
        page.password = page.password.finished();
        page.smtp_username = page.smtp_username.finished();
        page.smtp_password = page.smtp_password.finished();
        page
    };
    /// Something is said.
    Message("connect/message.html") {
        /// More of it.
        notes: Vec<&'static str>,
        /// Where to go on.
        link: Option<Link>,
    } ready |page| page;
}
