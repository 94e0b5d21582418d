//! Who opens the page, and whether there is one: the link, its session, whom it was made by, and what the tenant looks like.

use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::response::Response;
use emailclient_core::access::principal::Scope;
use emailclient_core::access::tenant::{self, branding};
use emailclient_core::domain::connect::{self, Session};
use emailclient_core::platform::db::DbError;
use emailclient_core::platform::id::{AccountId, TenantId};
use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};
use url::Url;

use super::colour::{self, Colour};
use super::logo;
use super::look::{Link, Look, Message};
use super::words::{Language, Shut};
use crate::caller::Caller;
use crate::context::Context;
use crate::error::{ApiError, Busy};
use crate::state::AppState;

/// A person whose link is good.
pub struct Person {
    /// How far they are.
    pub session: Session,
    /// Who sent them: for whom everything is done.
    pub caller: Caller,
    /// How the page looks.
    pub look: Look,
}

/// There is no page to go on with.
#[derive(Debug)]
pub struct Closed {
    look: Box<Look>,
    why: Shut,
    way_back: Option<String>,
    wait: Option<u64>,
    busy: bool,
}

/// What stands in an address, as far as it can be read.
pub type Token = Result<Path<String>, PathRejection>;

/// The text of it; what cannot be read is none of ours.
pub fn token(path: Token) -> String {
    path.map(|Path(token)| token).unwrap_or_default()
}

/// The address of a page, for a browser.
pub fn page_url(public_url: &str, token: &str) -> String {
    format!("{public_url}/connect/{token}")
}

/// The part of our address before `/connect`, where there is one: a proxy may have put us below a path.
pub fn below(state: &AppState) -> String {
    let url = state.config.public_url.as_deref().and_then(|text| Url::parse(text).ok());
    url.map(|url| url.path().trim_end_matches('/').to_owned()).unwrap_or_default()
}

/// Where a person goes in the end: with the account, or with the word of why there is none.
pub fn way_back(session: &Session, end: Result<AccountId, &str>) -> Option<String> {
    let mut url = Url::parse(&session.redirect_url).ok()?;
    match end {
        Ok(id) => url.query_pairs_mut().append_pair("account_id", &id.to_string()),
        Err(code) => url.query_pairs_mut().append_pair("error", code),
    };
    if let Some(state) = &session.client_state {
        url.query_pairs_mut().append_pair("state", state);
    }
    Some(url.into())
}

/// The word for a caller of why there is no account.
pub const GIVEN_UP: &str = "access_denied";
/// The same for one who came too late.
const EXPIRED: &str = "expired";

/// Lets a person in.
///
/// # Errors
/// What is shown in place of the page.
pub async fn open(
    state: &AppState,
    context: Context,
    headers: &HeaderMap,
    token: &str,
) -> Result<Person, Closed> {
    let nobody = Look::nobody(Language::choose(None, headers));
    let Some(tenant) = connect::tenant_of(&state.config.jwt_secret, token) else {
        return Err(Closed::new(nobody, Shut::Unknown));
    };
    let read = read(state, tenant, token).await;
    let read = read.map_err(|error| Closed::of(nobody.clone(), &ApiError::from(error)))?;
    let Some((session, brand, registered)) = read else {
        return Err(Closed::new(nobody, Shut::Unknown));
    };
    let key = &state.config.jwt_secret;
    let base = below(state);
    let look = Look {
        language: Language::choose(session.locale.as_deref(), headers),
        colour: brand.colour.as_deref().and_then(Colour::parse).unwrap_or(colour::DEFAULT),
        logo: brand.logo_hash.as_deref().map(|hash| logo::path(&base, &logo::key(key, tenant, hash))),
        name: brand.name,
        path: format!("{base}/connect/{token}"),
        form: connect::form_token(key, token),
        onward: Url::parse(&session.redirect_url).ok().map(|url| url.origin().ascii_serialization()),
    };
    let close = |why, back: Option<String>| {
        let look = Look { path: String::new(), ..look.clone() };
        Closed { way_back: back.filter(|_| registered), ..Closed::new(look, why) }
    };
    if session.ended_at.is_some() {
        let end = session.connected_id.ok_or(GIVEN_UP);
        return Err(close(Shut::Used, way_back(&session, end)));
    }
    if session.expires_at <= state.clock.now() {
        return Err(close(Shut::Expired, way_back(&session, Err(EXPIRED))));
    }
    let who = (tenant, session.actor);
    let until = session.expires_at.timestamp();
    let caller = Caller::sent(state, context, who, Scope::AccountsManage, until).await;
    let caller = caller.map_err(|error| Closed::of(look.clone(), &error))?;
    if !registered {
        return Err(close(Shut::NoWayBack, None));
    }
    Ok(Person { session, caller, look })
}

type Read = Option<(Session, branding::Branding, bool)>;

async fn read(state: &AppState, tenant: TenantId, token: &str) -> Result<Read, DbError> {
    let mut tx = state.db.tenant(tenant).await?;
    let Some(session) = connect::find(&mut tx, token).await? else { return Ok(None) };
    let brand = match branding::get(&mut tx).await? {
        Some(brand) => brand,
        None => branding::Branding {
            name: tenant::name(&mut tx).await?.unwrap_or_default(),
            ..branding::Branding::default()
        },
    };
    let registered = tenant::redirect_urls(&mut tx).await?.contains(&session.redirect_url);
    tx.release();
    Ok(Some((session, brand, registered)))
}

impl Closed {
    fn new(look: Look, why: Shut) -> Self {
        Self { look: Box::new(look), why, way_back: None, wait: None, busy: false }
    }

    /// What a refusal means for a person.
    pub fn of(look: Look, error: &ApiError) -> Self {
        let why = match (error.code(), error.status()) {
            ("tenant-suspended", _) => Shut::Suspended,
            ("insufficient-scope", _) => Shut::NotAllowed,
            (_, StatusCode::TOO_MANY_REQUESTS) => Shut::Slow,
            // The tenant was deleted.
            (_, StatusCode::UNAUTHORIZED) => Shut::Unknown,
            _ => Shut::Ours,
        };
        if why == Shut::Ours {
            tracing::error!(code = error.code(), cause = ?error, "a page could not be shown");
        }
        let look = Look { path: String::new(), ..look };
        Self { wait: error.retry_after(), busy: error.is_busy(), ..Self::new(look, why) }
    }

    /// One that was used while the page was open.
    pub fn over(person: &Person) -> Self {
        Self::new(Look { path: String::new(), ..person.look.clone() }, Shut::Used)
    }

    /// Where the person was sent on to, if the link was used.
    pub fn already(&self) -> Option<&str> {
        self.way_back.as_deref().filter(|_| self.why == Shut::Used)
    }

    /// A form that is not of the page.
    pub fn form(look: Look) -> Self {
        Self::new(Look { path: String::new(), ..look }, Shut::Form)
    }

    /// The page that says so.
    pub fn answer(self) -> Response {
        let status = match self.why {
            Shut::Unknown => StatusCode::NOT_FOUND,
            Shut::Used | Shut::Expired | Shut::NoWayBack => StatusCode::GONE,
            Shut::Suspended | Shut::NotAllowed | Shut::Form => StatusCode::FORBIDDEN,
            Shut::Slow => StatusCode::TOO_MANY_REQUESTS,
            Shut::Ours => StatusCode::SERVICE_UNAVAILABLE,
        };
        let words = self.look.words();
        let (heading, text) = (words.shut)(self.why);
        let link = self.way_back.map(|href| Link { href, text: (words.back_to)(self.look.shown_name()) });
        let frame = self.look.frame(heading, text).final_word();
        let mut response = Message { frame, notes: Vec::new(), link }.answer(&self.look, status);
        if let Some(wait) = self.wait {
            response.headers_mut().insert(RETRY_AFTER, wait.max(1).into());
        }
        if self.busy {
            response.extensions_mut().insert(Busy);
        }
        response
    }
}
