//! Who calls: token, tenant and limit, judged before anything else of the request is read.
//!
//! `Caller` is the first argument after the state of every handler below `/api`. Its transaction is the only way to
//! the tenant's rows, so a handler without a caller cannot read any.

use std::time::Duration;

use axum::extract::FromRequestParts;
use emailclient_core::access::audit;
use emailclient_core::access::session;
use emailclient_core::access::tenant::{self, TenantKey};
use emailclient_core::access::token::{Claims, TokenError};
use emailclient_core::access::user::{Role, User};
use emailclient_core::domain::message;
use emailclient_core::platform::db::TenantTx;
use emailclient_core::platform::id::{MessageId, SessionId, TenantId, UserId};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use http::request::Parts;
use uuid::Uuid;

use crate::context::Context;
use crate::error::ApiError;
use crate::negotiate;
use crate::ratelimit::{self, Bucket};
use crate::state::AppState;

const TENANT_FRESH: Duration = Duration::from_secs(5);
const SESSION_FRESH: Duration = Duration::from_secs(3);

/// The authenticated caller of a request.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The tenant of the token, which is also the one that was named.
    pub tenant: TenantId,
    /// Its slug.
    pub tenant_slug: String,
    /// Who.
    pub user_id: UserId,
    /// The user as last seen, at most a few seconds ago.
    pub user: User,
    /// In which log-in session.
    pub session_id: SessionId,
    /// What the user may do.
    pub role: Role,
    /// Scopes of the token; a log-in has `*`.
    pub scopes: Vec<String>,
    /// Seconds since 1970 at which the token ends.
    pub token_expires: i64,
    /// The request.
    pub context: Context,
    actor: String,
}

impl Caller {
    /// Begins a transaction over the caller's tenant.
    ///
    /// # Errors
    /// 503 when the database does not answer.
    pub async fn tx(&self, state: &AppState) -> Result<TenantTx, ApiError> {
        Ok(state.db.tenant(self.tenant).await?)
    }

    /// Waits for the turn at a draft, a mailbox or an account, which this request has until it ends. Before the transaction that
    /// changes it, so that who waits holds no connection.
    ///
    /// # Errors
    /// 503 when others took ten seconds.
    pub async fn turn(&self, state: &AppState, what: Uuid) -> Result<(), ApiError> {
        self.context.hold(state.turns.take(self.tenant, what).await?);
        Ok(())
    }

    /// Waits for the turn at the account of a message: edits of an account change the same counts and threads. For a message
    /// that is not there nobody waits.
    ///
    /// # Errors
    /// As [`Caller::turn`].
    pub async fn turn_at_message(&self, state: &AppState, message: MessageId) -> Result<(), ApiError> {
        let account = message::account_of(&mut self.tx(state).await?, message).await?;
        match account {
            Some(account) => self.turn(state, account.0).await,
            None => Ok(()),
        }
    }

    /// Begins a transaction over the caller's tenant whose reads are all of one moment, for an answer of several parts.
    ///
    /// # Errors
    /// 503 when the database does not answer.
    pub async fn snapshot(&self, state: &AppState) -> Result<TenantTx, ApiError> {
        Ok(state.db.snapshot(self.tenant).await?)
    }

    /// `user:<id>`, as the audit trail and kept answers have it.
    #[must_use]
    pub fn actor(&self) -> &str {
        &self.actor
    }

    /// Adds a line to the audit trail, in the transaction that did the thing.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn audit(&self, tx: &mut TenantTx, action: &str, target: &str) -> Result<(), ApiError> {
        self.audit_as(tx, action, target, "ok").await
    }

    /// The same of something that did not succeed; `result` is the code of the refusal.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn audit_as(
        &self,
        tx: &mut TenantTx,
        action: &str,
        target: &str,
        result: &str,
    ) -> Result<(), ApiError> {
        let address = self.context.address().map(|a| a.to_string());
        let entry = audit::Entry {
            actor: &self.actor,
            action,
            target: Some(target),
            address: address.as_deref(),
            result,
            request_id: Some(self.context.request_id()),
        };
        Ok(audit::record(tx, &entry).await?)
    }
}

impl FromRequestParts<AppState> for Caller {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let context = Context::of(parts);
        let claims = claims(&parts.headers, state)?;
        let (tenant, user) = tokio::try_join!(known_tenant(state, claims.tid), live_user(state, &claims))?;
        let span = tracing::Span::current();
        span.record("tenant", tracing::field::display(claims.tid));
        span.record("user", tracing::field::display(claims.sub));
        check_tenant(&parts.headers, state, &tenant)?;
        if tenant.suspended {
            return Err(ApiError::tenant_suspended("the operator suspended this tenant"));
        }
        context.set_tenant(tenant.id);
        if context.count_once() {
            limit(state, &tenant, &context).await?;
        }
        negotiate::rules(parts).check(&parts.method, &parts.headers)?;
        let caller = Self {
            tenant: tenant.id,
            tenant_slug: tenant.slug,
            user_id: claims.sub,
            role: user.role,
            user,
            session_id: claims.sid,
            scopes: vec!["*".to_owned()],
            token_expires: claims.exp,
            context,
            actor: format!("user:{}", claims.sub),
        };
        // For the reader of the body, which keeps its refusals under the caller's Idempotency-Key.
        parts.extensions.insert(caller.clone());
        Ok(caller)
    }
}

fn claims(headers: &HeaderMap, state: &AppState) -> Result<Claims, ApiError> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(ApiError::unauthenticated());
    };
    let (scheme, token) =
        value.to_str().ok().and_then(|v| v.split_once(' ')).ok_or_else(ApiError::unauthenticated)?;
    let token = token.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
        return Err(ApiError::unauthenticated());
    }
    state.tokens.read(token, state.clock.now()).map_err(|e| match e {
        TokenError::Expired => ApiError::token_expired(),
        TokenError::Invalid => ApiError::invalid_token(),
    })
}

async fn known_tenant(state: &AppState, id: TenantId) -> Result<TenantKey, ApiError> {
    if let Some(tenant) = state.known.tenants.get(&id, TENANT_FRESH) {
        return Ok(tenant);
    }
    let mut tx = state.db.system().await?;
    let found = tenant::find(&mut tx, &id.to_string()).await?;
    tx.release();
    let tenant = found.ok_or_else(ApiError::invalid_token)?;
    state.known.tenants.put(id, tenant.clone());
    Ok(tenant)
}

async fn live_user(state: &AppState, claims: &Claims) -> Result<User, ApiError> {
    match state.known.sessions.get(&claims.sid, SESSION_FRESH) {
        Some((tenant, user)) if tenant == claims.tid && user.id == claims.sub => return Ok(user),
        _ => {}
    }
    let mut tx = state.db.tenant(claims.tid).await?;
    let found = session::live(&mut tx, claims.sid, claims.sub, state.clock.now()).await?;
    tx.release();
    let user = found.ok_or_else(ApiError::invalid_token)?;
    state.known.sessions.put(claims.sid, (claims.tid, user.clone()));
    Ok(user)
}

/// The tenant a request names in its header, or the deployment's default.
///
/// # Errors
/// 400 `invalid-tenant` when the header is there twice or malformed.
pub fn named_tenant(headers: &HeaderMap, state: &AppState) -> Result<Option<String>, ApiError> {
    let mut values = headers.get_all(state.config.tenant_id_header.as_str()).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(_), Some(_)) => Err(ApiError::invalid_tenant("the tenant header is there twice")),
        (Some(value), None) => {
            let text = value.to_str().unwrap_or_default().trim().to_owned();
            if is_tenant_name(&text) {
                Ok(Some(text))
            } else {
                Err(ApiError::invalid_tenant("a tenant is named by its slug or id"))
            }
        }
    }
}

/// True for a slug or a UUID.
#[must_use]
pub fn is_tenant_name(text: &str) -> bool {
    tenant::is_slug(text) || uuid::Uuid::parse_str(text).is_ok()
}

fn check_tenant(headers: &HeaderMap, state: &AppState, tenant: &TenantKey) -> Result<(), ApiError> {
    let named = named_tenant(headers, state)?.or_else(|| state.config.default_tenant_id.clone());
    let named = named.ok_or_else(|| ApiError::tenant_required("name the tenant in the tenant header"))?;
    // Compared with the token's tenant, never looked up: what exists elsewhere cannot be asked.
    let same = named == tenant.slug || uuid::Uuid::parse_str(&named).is_ok_and(|id| id == tenant.id.0);
    if same { Ok(()) } else { Err(ApiError::tenant_forbidden()) }
}

async fn limit(state: &AppState, tenant: &TenantKey, context: &Context) -> Result<(), ApiError> {
    let defaults = state.config.rate_limit;
    if !defaults.enabled {
        return Ok(());
    }
    let bucket = |name: &'static str, quota: u32, seconds: u64| Bucket {
        key: format!("{}:{name}", tenant.id),
        name,
        quota,
        window: Duration::from_secs(seconds),
    };
    let buckets: Vec<Bucket> = [
        bucket("minute", tenant.per_minute.unwrap_or(defaults.per_minute), 60),
        bucket("hour", tenant.per_hour.unwrap_or(defaults.per_hour), 3600),
    ]
    .into_iter()
    .filter(|b| b.quota > 0)
    .collect();
    if buckets.is_empty() {
        return Ok(());
    }
    let verdict = state.limiter.take(&buckets).await;
    let (policy, left) = ratelimit::headers(&buckets, &verdict);
    context.add_rate_headers(&policy, &left);
    if verdict.allowed {
        return Ok(());
    }
    Err(ApiError::rate_limited(verdict.retry_after.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX)))
}
