//! Log-in with address and password.

use axum::extract::{FromRequest, Request, State};
use axum::response::{IntoResponse as _, Response};
use emailclient_core::access::audit::{self, Action, Entry};
use emailclient_core::access::password;
use emailclient_core::access::session;
use emailclient_core::access::tenant::{self, TenantKey};
use emailclient_core::access::token::{SESSION_LIFETIME, new_refresh};
use emailclient_core::access::user::{self, User};
use emailclient_core::platform::db::{DbError, TenantTx};
use http::{HeaderMap, HeaderValue, header};
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use wire::secret::Secret;

use super::guard::{self, Target};
use super::{LoginView, TenantView};
use crate::caller::{is_tenant_name, named_tenant};
use crate::context::Context;
use crate::error::{ApiError, Problem};
use crate::extract::{self, NoQuery, body};
use crate::form;
use crate::limits::{self, Limits};
use crate::negotiate;
use crate::refusals::Refused;
use crate::reply::Reply;
use crate::state::AppState;

const BODY_LIMIT: usize = 16 * 1024;

/// Who wants in.
#[derive(Debug, Deserialize, ToSchema)]
pub struct Login {
    /// The log-in name.
    email: String,
    /// The password.
    #[schema(value_type = String)]
    password: Secret,
    /// Slug or id; the tenant header says the same.
    tenant: Option<String>,
}

impl Login {
    fn check(&self) -> Result<(), ApiError> {
        let mut limits = Limits::default();
        limits.text("/email", &self.email, limits::EMAIL_BYTES);
        limits.text("/password", self.password.expose(), limits::PASSWORD_BYTES);
        limits.end()
    }
}

/// The body of a log-in: JSON, a form, or what curl sends when nobody says what it is.
#[derive(Debug)]
pub struct LoginBody {
    login: Login,
    headers: HeaderMap,
}

impl FromRequest<AppState> for LoginBody {
    type Rejection = ApiError;
    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        let (parts, content) = request.into_parts();
        guard::limit_client(state, &Context::of(&parts)).await?;
        let headers = &parts.headers;
        if !negotiate::admits_json(headers) && !negotiate::accepts(headers, "text", "plain") {
            return Err(ApiError::not_acceptable("a log-in answers application/json or text/plain"));
        }
        negotiate::check_encoding(headers)?;
        let (kind, charset) = negotiate::content_type(headers);
        if charset.is_some_and(|c| !c.eq_ignore_ascii_case("utf-8")) {
            return Err(ApiError::unsupported_media_type("the body is read as UTF-8"));
        }
        let guessed = match kind.as_str() {
            "application/json" => false,
            "application/x-www-form-urlencoded" => true,
            "" if !headers.contains_key(header::CONTENT_TYPE) => true,
            _ => {
                return Err(ApiError::unsupported_media_type(
                    "send application/json or application/x-www-form-urlencoded",
                ));
            }
        };
        // The query stands in logs: a password in it must not be taken for the body's.
        extract::from_query::<NoQuery>(parts.uri.query().unwrap_or_default())?;
        let bytes = body::read(&parts, content, BODY_LIMIT).await?;
        let looks_like_json = bytes.iter().find(|b| !b.is_ascii_whitespace()).is_some_and(|b| *b == b'{');
        let login: Login =
            if guessed && !looks_like_json { from_form(&bytes)? } else { extract::from_json(&bytes, false)? };
        login.check()?;
        Ok(Self { login, headers: parts.headers })
    }
}

fn from_form(bytes: &[u8]) -> Result<Login, ApiError> {
    let text = std::str::from_utf8(bytes).map_err(|_| ApiError::malformed_json("the form is not UTF-8"))?;
    let pairs = form::pairs(text.trim_end_matches(['\r', '\n'])).map_err(ApiError::malformed_json)?;
    let mut object = Map::new();
    for (name, value) in pairs {
        if object.insert(name, Value::String(value)).is_some() {
            return Err(ApiError::malformed_json("a field stands twice in the form"));
        }
    }
    extract::from_value(&Value::Object(object), false)
}

/// Opens a session.
#[utoipa::path(post, path = "/auth/login", tag = "auth", request_body = Login,
    responses((status = 200, body = LoginView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn login(
    State(state): State<AppState>,
    context: Context,
    LoginBody { login, headers }: LoginBody,
) -> Result<Response, ApiError> {
    let name = tenant_name(&state, &headers, login.tenant.as_deref())?;
    let mut system = state.db.system().await?;
    let mut found = tenant::find(&mut system, &name.0).await?;
    system.commit().await?;
    if let Some(other) = name.1 {
        let same =
            |t: &TenantKey| t.slug == other || uuid::Uuid::parse_str(&other).is_ok_and(|id| id == t.id.0);
        if !found.as_ref().is_some_and(same) {
            return Err(ApiError::invalid_tenant("the tenant header and the field tenant disagree"));
        }
    }
    let target = Target::new(found.as_ref(), &name.0, &login.email);
    guard::limit_pair(&state, &context, &target).await?;
    let Some(tenant) = found.take() else {
        guard::slow_down(&state, &target).await?;
        password::verify(login.password, None, guard::share(None, false)).await?;
        return Err(ApiError::invalid_credentials());
    };
    let user = check(&state, &tenant, (&context, &target), &login).await?;
    if tenant.suspended {
        return Err(ApiError::tenant_suspended("the operator suspended this tenant"));
    }
    let view = open(&state, &tenant, &context, &user).await?;
    let bare =
        negotiate::accepts(&headers, "text", "plain") && !negotiate::accepts(&headers, "application", "json");
    if bare {
        let plain = [(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"))];
        return Ok((plain, view.access_token).into_response());
    }
    Ok(Reply::ok(&view)?.into_response())
}

/// The tenant's name, and a second name that must mean the same.
fn tenant_name(
    state: &AppState,
    headers: &HeaderMap,
    field: Option<&str>,
) -> Result<(String, Option<String>), ApiError> {
    let in_header = named_tenant(headers, state)?;
    if let Some(field) = field.filter(|f| !is_tenant_name(f)) {
        return Err(ApiError::invalid_tenant(format!(
            "a tenant is named by its slug or id, not {} characters of that",
            field.len()
        )));
    }
    match (in_header, field) {
        (Some(header), Some(field)) if header != field => Ok((header, Some(field.to_owned()))),
        (Some(name), _) => Ok((name, None)),
        (None, Some(name)) => Ok((name.to_owned(), None)),
        (None, None) => {
            let default = state.config.default_tenant_id.clone();
            let missing =
                || ApiError::tenant_required("name the tenant in the tenant header or the field tenant");
            default.map(|name| (name, None)).ok_or_else(missing)
        }
    }
}

/// The user, if the password is right. Takes the same time if there is none.
async fn check(
    state: &AppState,
    tenant: &TenantKey,
    (context, target): (&Context, &Target<'_>),
    login: &Login,
) -> Result<User, ApiError> {
    let mut tx = state.db.tenant(tenant.id).await?;
    let found = user::for_login(&mut tx, &login.email).await?;
    let known = match &found {
        Some((user, _)) => user::knows_network(&mut tx, user.id, &context.network()).await?,
        None => false,
    };
    tx.commit().await?;
    let (user, stored) = found.map_or((None, None), |(user, hash)| (Some(user), Some(hash)));
    // No transaction is open while it waits and the hash is computed.
    if !known {
        guard::slow_down(state, target).await?;
    }
    let right = password::verify(login.password.clone(), stored, guard::share(Some(tenant), known)).await?;
    match user {
        Some(user) if right && !user.disabled => Ok(user),
        user => {
            let refused = Refused {
                tenant: tenant.id,
                actor: actor_of(user.as_ref()),
                action: Action::SessionLogin,
                result: "invalid-credentials".to_owned(),
            };
            if state.refusals.admit(&context.network(), &refused) {
                let mut tx = state.db.tenant(tenant.id).await?;
                trail(&mut tx, context, user.as_ref(), &refused.result).await?;
                tx.commit().await?;
            }
            Err(ApiError::invalid_credentials())
        }
    }
}

async fn open(
    state: &AppState,
    tenant: &TenantKey,
    context: &Context,
    user: &User,
) -> Result<LoginView, ApiError> {
    let (refresh, hash) = new_refresh(tenant.id);
    let mut tx = state.db.tenant(tenant.id).await?;
    let session = session::open(&mut tx, user.id, &hash, state.clock.now() + SESSION_LIFETIME).await?;
    user::remember_network(&mut tx, user.id, &context.network()).await?;
    let name = tenant::name(&mut tx).await?.unwrap_or_default();
    trail(&mut tx, context, Some(user), "ok").await?;
    tx.commit().await?;
    let tenant = TenantView { id: tenant.id.0, slug: tenant.slug.clone(), name };
    LoginView::new(state, user, tenant, session, &refresh)
}

fn actor_of(user: Option<&User>) -> String {
    user.map_or_else(|| "anonymous".to_owned(), |u| format!("user:{}", u.id))
}

async fn trail(
    tx: &mut TenantTx,
    context: &Context,
    user: Option<&User>,
    result: &str,
) -> Result<(), DbError> {
    let actor = actor_of(user);
    let address = context.address().map(|a| a.to_string());
    let entry = Entry {
        actor: &actor,
        action: Action::SessionLogin,
        target: None,
        address: address.as_deref(),
        result,
        request_id: Some(context.request_id()),
        times: 1,
    };
    audit::record(tx, &entry).await
}
