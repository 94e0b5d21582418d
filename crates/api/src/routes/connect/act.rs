//! What the page's forms ask for.

use axum::response::Response;
use emailclient_core::domain::account::{self, Account, NewAccount, NewServer, email_key};
use emailclient_core::domain::connect::{self, Found, Standing};
use emailclient_core::domain::oauth::app::App;
use wire::imap::Security;

use super::form::Form;
use super::known;
use super::look::Look;
use super::person::{Closed, GIVEN_UP, Person, way_back};
use super::refused::Refused;
use super::show::{Scene, Step};
use super::store::{self, Stored};
use super::words::Wrong;
use crate::error::ApiError;
use crate::routes::accounts::input::{check, check_hosts};
use crate::routes::accounts::{discover, trial, tries};
use crate::state::AppState;

/// What a form asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// An address was entered.
    Address,
    /// A password was entered.
    Password,
    /// Servers and a password were entered.
    Servers,
    /// The person gives up.
    Cancel,
}

impl Act {
    /// That of a form.
    pub fn of(form: &Form) -> Option<Self> {
        match form.text("do").as_str() {
            "address" => Some(Self::Address),
            "password" => Some(Self::Password),
            "servers" => Some(Self::Servers),
            "cancel" => Some(Self::Cancel),
            _ => None,
        }
    }
}

/// What is known when a person asks for something.
struct Known {
    found: Option<Found>,
    apps: Vec<App>,
    /// The account that is renewed.
    account: Option<Account>,
    email: String,
}

async fn known(state: &AppState, person: &Person) -> Result<Known, ApiError> {
    let mut tx = person.caller.aside(state).await?;
    let apps = known::apps(&mut tx, state).await?;
    let account = match person.session.account_id {
        // It cannot be missing: with the account goes the session.
        Some(id) => Some(account::get(&mut tx, id).await?.ok_or_else(ApiError::not_found)?),
        None => None,
    };
    tx.release();
    let found = match &account {
        Some(account) => Some(known::of_account(account, &apps)),
        None => person.session.found.clone(),
    };
    let email = account.as_ref().map(|account| account.email.clone());
    let email = email.or_else(|| person.session.email.clone()).unwrap_or_default();
    Ok(Known { found, apps, account, email })
}

impl Known {
    fn scene<'a>(
        &'a self,
        person: &'a Person,
        form: Option<&'a Form>,
        refused: Option<Refused>,
    ) -> Scene<'a> {
        Scene { person, found: self.found.as_ref(), email: &self.email, apps: &self.apps, form, refused }
    }
}

/// The step that is due, or the one that was asked for.
///
/// # Errors
/// When the database refuses.
pub async fn show(state: &AppState, person: &Person, asked: Option<&str>) -> Result<Response, ApiError> {
    let known = known(state, person).await?;
    let scene = known.scene(person, None, None);
    let step = scene.step(asked);
    Ok(scene.page(step))
}

/// A form that cannot be read, of whoever it is.
pub fn unreadable(opened: Result<Person, Closed>, error: &ApiError) -> Response {
    match opened {
        Ok(person) if error.status().is_client_error() => {
            let mut response = Closed::form(person.look).answer();
            *response.status_mut() = error.status();
            response
        }
        Ok(person) => Closed::of(person.look, error).answer(),
        Err(closed) => closed.answer(),
    }
}

/// How a step ended.
enum Ended {
    /// The next one is due.
    Next,
    /// The person goes on.
    Away(String),
    /// The link was used meanwhile, without an account.
    Over,
}

/// Does what a form asks for: the next page, the way on, or the same step with what went wrong.
pub async fn act(state: &AppState, person: &Person, (wanted, form): (Act, &Form)) -> Response {
    let known = match known(state, person).await {
        Ok(known) => known,
        Err(error) => return Closed::of(person.look.clone(), &error).answer(),
    };
    let renews = known.account.is_some();
    let (step, done) = match wanted {
        Act::Cancel => (Step::Address, cancel(state, person).await),
        // A renewal keeps address and servers.
        Act::Address | Act::Servers if renews => (Step::Password, Ok(Ended::Next)),
        Act::Address => (Step::Address, address(state, person, &known, form).await),
        Act::Password => (Step::Password, password(state, person, &known, form).await),
        Act::Servers => (Step::Servers, servers(state, person, &known, form).await),
    };
    match done {
        Ok(Ended::Next) => Look::go(&person.look.path),
        Ok(Ended::Away(url)) => Look::go(&url),
        Ok(Ended::Over) => Closed::over(person).answer(),
        Err(refused) => {
            let scene = known.scene(person, Some(form), Some(refused));
            // What was forged, or is about an earlier address, is told at the step that is due.
            let step = match (step, scene.step(None)) {
                (Step::Password, Step::Address | Step::NoWay) => scene.step(None),
                (Step::Servers, Step::Address) => Step::Address,
                (step, _) => step,
            };
            scene.page(step)
        }
    }
}

type Outcome = Result<Ended, Refused>;

async fn cancel(state: &AppState, person: &Person) -> Outcome {
    let refuse = |error: ApiError| Refused::of(person.look.words(), &error, false);
    let mut tx = person.caller.tx(state).await.map_err(refuse)?;
    let standing = connect::take(&mut tx, person.session.id).await.map_err(|e| refuse(e.into()))?;
    let end = match standing {
        Standing::Open => {
            let now = state.clock.now();
            connect::end(&mut tx, person.session.id, None, now).await.map_err(|e| refuse(e.into()))?;
            None
        }
        Standing::Over(connected) => connected,
    };
    tx.commit().await.map_err(|e| refuse(e.into()))?;
    Ok(way_back(&person.session, end.ok_or(GIVEN_UP)).map_or(Ended::Over, Ended::Away))
}

async fn address(state: &AppState, person: &Person, known: &Known, form: &Form) -> Outcome {
    let words = person.look.words();
    let email = form.text("email");
    if email.is_empty() {
        return Err(Refused::fields(words, [("email", Wrong::Missing)]));
    }
    let refuse = |error: ApiError| Refused::of(words, &error, false);
    let discovered = discover::find(state, &person.caller, &email).await.map_err(refuse)?;
    let found = known::of_discovery(discovered, &known.apps);
    let mut tx = person.caller.tx(state).await.map_err(refuse)?;
    connect::entered(&mut tx, person.session.id, &email, &found).await.map_err(|e| refuse(e.into()))?;
    tx.commit().await.map_err(|e| refuse(e.into()))?;
    Ok(Ended::Next)
}

/// The form has to be about the mailbox that the page is about now: another tab may have gone on to another one, whose servers would
/// be shown this one's password.
fn same_mailbox(person: &Person, known: &Known, form: &Form) -> Result<(), Refused> {
    let given = form.text("email");
    if known.found.is_some() && email_key(&given) == email_key(&known.email) {
        return Ok(());
    }
    Err(Refused::mismatch(person.look.words(), &given, &known.email))
}

async fn password(state: &AppState, person: &Person, known: &Known, form: &Form) -> Outcome {
    let words = person.look.words();
    same_mailbox(person, known, form)?;
    let Some(password) = form.secret("password") else {
        return Err(Refused::fields(words, [("password", Wrong::Missing)]));
    };
    let places = known.found.as_ref().and_then(|found| found.imap.as_ref().zip(found.smtp.as_ref()));
    let Some((imap, smtp)) = places else { return Ok(Ended::Next) };
    // One who is let in elsewhere for sending has a password of its own there, which stays.
    let one_login = known.account.as_ref().is_none_or(|old| old.imap.username == old.smtp.username);
    let server = |place: &connect::Place, with: bool| NewServer {
        host: place.server.host.clone(),
        port: place.server.port,
        security: place.server.security,
        username: place.username.clone(),
        password: with.then(|| password.clone()),
    };
    let new =
        store::account(&known.email, known.account.as_ref(), server(imap, true), server(smtp, one_login));
    connect(state, person, known, (new, false)).await
}

async fn servers(state: &AppState, person: &Person, known: &Known, form: &Form) -> Outcome {
    let words = person.look.words();
    same_mailbox(person, known, form)?;
    let mut wrong = Vec::new();
    for field in ["username", "imap_host", "smtp_host"] {
        if form.text(field).is_empty() {
            wrong.push((field, Wrong::Missing));
        }
    }
    let password = form.secret("password");
    if password.is_none() {
        wrong.push(("password", Wrong::Missing));
    }
    let mut port = |field: &'static str| {
        let port = form.text(field).parse::<u16>().ok().filter(|port| *port > 0);
        if port.is_none() {
            wrong.push((field, Wrong::Port));
        }
        port.unwrap_or_default()
    };
    let (imap_port, smtp_port) = (port("imap_port"), port("smtp_port"));
    if !wrong.is_empty() {
        return Err(Refused::fields(words, wrong));
    }
    let own_login = !form.text("smtp_username").is_empty();
    let server = |name: &str, port: u16, login: (String, Option<wire::secret::Secret>)| NewServer {
        host: form.text(&format!("{name}_host")).trim_end_matches('.').to_owned(),
        port,
        security: match form.text(&format!("{name}_security")).as_str() {
            "starttls" => Security::StartTls,
            _ => Security::Tls,
        },
        username: login.0,
        password: login.1,
    };
    let login = (form.text("username"), password);
    let sending = match own_login {
        true => (form.text("smtp_username"), form.secret("smtp_password").or_else(|| login.1.clone())),
        false => login.clone(),
    };
    let (imap, smtp) = (server("imap", imap_port, login), server("smtp", smtp_port, sending));
    let new = store::account(&known.email, None, imap, smtp);
    connect(state, person, known, (new, own_login)).await
}

/// Tries the servers and saves the account, by the rules of `POST /api/accounts`, and of its PATCH where one is renewed.
async fn connect(
    state: &AppState,
    person: &Person,
    known: &Known,
    (new, own_smtp_login): (NewAccount, bool),
) -> Outcome {
    let words = person.look.words();
    let refuse = |error: ApiError| Refused::of(words, &error, own_smtp_login);
    check(&new, known.account.as_ref(), state.clock.now()).map_err(refuse)?;
    if known.account.is_none() {
        store::look(state, person, &new).await?;
    }
    check_hosts(state, &new, false).await.map_err(refuse)?;
    tries::admit(state, &person.caller, &new).await.map_err(refuse)?;
    let kept = known.account.as_ref().map(|account| account.id);
    let outcomes = trial::both(state, &person.caller, &new, kept).await.map_err(refuse)?;
    let failures = (outcomes.imap.as_ref().err(), outcomes.smtp.as_ref().err());
    tries::record(state, &person.caller, &new, failures).await.map_err(refuse)?;
    if failures.0.is_some() || failures.1.is_some() {
        let places = [&new.imap, &new.smtp].map(|server| format!("{}:{}", server.host, server.port));
        return Err(Refused::tried(words, &outcomes, places, own_smtp_login));
    }
    match store::store(state, person, &new).await? {
        Stored::Account(id) => Ok(way_back(&person.session, Ok(id)).map_or(Ended::Over, Ended::Away)),
        Stored::Over => Ok(Ended::Over),
    }
}
