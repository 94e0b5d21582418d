//! A person on the page on which mailboxes are connected, with a browser that knows forms and links and runs no scripts.

use emailclient_core::platform::id::new_uuid;
use serde_json::{Value, json};

use crate::app::{Answer, App, Tenant, send};
use crate::mail;
use crate::name_server::{self, NameServer, srv};
use crate::provider::{HOME, PUBLIC_URL};

/// The API at an address of its own, and a name server by which nothing is found but the servers of `known.test`: the stack's.
pub async fn start() -> (App, NameServer) {
    start_with(&[]).await
}

/// The same with further settings.
pub async fn start_with(settings: &[(&str, &str)]) -> (App, NameServer) {
    let stack = devstack::Shared::get();
    let names = name_server::serve(vec![
        srv("_imaps._tcp.known.test", (0, 0), stack.imaps_port, "localhost"),
        srv("_submissions._tcp.known.test", (0, 0), stack.submissions_port, "localhost"),
        srv("_imaps._tcp.lost.test", (0, 0), stack.imaps_port, "localhost"),
        // Nobody listens on it.
        srv("_submissions._tcp.lost.test", (0, 0), 1, "localhost"),
    ])
    .await;
    let dns = names.address.to_string();
    let mut all = vec![("PUBLIC_URL", PUBLIC_URL), ("DNS_SERVERS", dns.as_str())];
    all.retain(|(name, _)| !settings.iter().any(|(other, _)| other == name));
    all.extend_from_slice(settings);
    (App::start_with(&all).await, names)
}

/// A new mailbox whose servers are found by its address.
#[must_use]
pub fn new_mailbox(app: &App) -> String {
    let user = format!("u{}@known.test", new_uuid().simple());
    app.stack.add_mailbox(&user, mail::PASSWORD).unwrap();
    user
}

/// The tenant may be sent back to [`HOME`].
pub async fn registered(app: &App) -> Tenant {
    let tenant = app.tenant().await;
    app.patch(&tenant, "/api/tenant", &json!({"redirect_urls": [HOME]})).await.expect(200);
    tenant
}

/// The address that a person is sent to.
pub async fn link(app: &App, tenant: &Tenant, more: &Value) -> String {
    let mut body = json!({"redirect_url": HOME, "state": "our state"});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let made = app.post(tenant, "/api/connect/sessions", &body).await.expect(201);
    made["url"].as_str().unwrap().to_owned()
}

/// A person with the page open.
pub struct Visitor<'a> {
    app: &'a App,
    /// Where the page is, without the host.
    pub path: String,
    /// What is seen.
    pub page: Answer,
}

impl<'a> Visitor<'a> {
    /// Opens an address of ours.
    pub async fn open(app: &'a App, url: &str) -> Self {
        let path = url.strip_prefix(PUBLIC_URL).unwrap_or(url).to_owned();
        let page = send(app.http.get(format!("{}{path}", app.base))).await;
        Self { app, path, page }
    }

    /// A person whom the tenant has just sent.
    pub async fn sent(app: &'a App, tenant: &Tenant, more: &Value) -> Self {
        Self::open(app, &link(app, tenant, more).await).await
    }

    /// Loads the page anew, with a query or without.
    pub async fn load(&mut self, query: &str) {
        self.page = send(self.app.http.get(format!("{}{}{query}", self.app.base, self.path))).await;
    }

    /// What the page's forms carry.
    ///
    /// # Panics
    /// When it has none.
    #[must_use]
    pub fn form(&self) -> String {
        let html = self.page.text();
        let found = html.split("name=\"form\" value=\"").nth(1).and_then(|rest| rest.split('"').next());
        found.unwrap_or_else(|| panic!("no form: {html}")).to_owned()
    }

    /// Fills in a form and sends it. The page after it is shown, unless it is elsewhere: then this is where.
    pub async fn submit(&mut self, wanted: &str, fields: &[(&str, &str)]) -> Option<String> {
        let form = self.form();
        let mut all = vec![("form", form.as_str()), ("do", wanted)];
        all.extend_from_slice(fields);
        let answer = self.post(&all).await;
        let location = answer.header("location");
        if answer.status == 303 && location != self.path {
            return Some(location);
        }
        self.page = answer;
        if self.page.status == 303 {
            self.load("").await;
        }
        None
    }

    /// Sends a form as it is.
    pub async fn post(&self, fields: &[(&str, &str)]) -> Answer {
        send(self.app.http.post(format!("{}{}", self.app.base, self.path)).form(fields)).await
    }

    /// The answer to a password for this address, on the page that asks for it.
    pub async fn password(&mut self, email: &str, password: &str) -> Option<String> {
        self.submit("password", &[("email", email), ("password", password)]).await
    }

    /// Where a link on the page with this text leads.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn link(&self, text: &str) -> String {
        let html = self.page.text();
        let before = html.split(&format!(">{text}</a>")).next().filter(|before| before.len() < html.len());
        let before = before.unwrap_or_else(|| panic!("no link {text:?}: {html}"));
        let href = before.rsplit("href=\"").next().unwrap().split('"').next().unwrap();
        href.replace("&#38;", "&").replace("&amp;", "&")
    }

    /// Asserts that the page is one, of this status and with this text.
    ///
    /// # Panics
    /// With the page when it is not.
    #[track_caller]
    pub fn shows(&self, status: u16, text: &str) {
        shows(&self.page, status, text);
    }
}

/// Asserts that an answer is a page of ours, of this status and with this text, under all of its headers.
///
/// # Panics
/// With the page when it is not.
#[track_caller]
pub fn shows(page: &Answer, status: u16, text: &str) {
    let html = page.text();
    assert_eq!(page.status, status, "{html}");
    assert!(html.contains(text), "{text:?} is missing: {html}");
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert_eq!(page.header("cache-control"), "no-store");
    assert_eq!(page.header("referrer-policy"), "no-referrer");
    assert_eq!(page.header("x-content-type-options"), "nosniff");
    let policy = page.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
    for part in ["frame-ancestors 'none'", "base-uri 'none'", "form-action "] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe") && !policy.contains('*') && !policy.contains("script"), "{policy}");
    assert!(!html.contains("<script") && !html.contains("style=\""), "{html}");
    assert_eq!(page.header("set-cookie"), "");
}
