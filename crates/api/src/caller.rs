//! Who calls: token, tenant and limit, judged before anything else of the request is read.
//!
//! A handler takes its caller as [`crate::permission::May`], which names the permission. The caller's transaction is the only way
//! to the tenant's rows, and shows the accounts within its reach only.

use std::time::Duration;

use emailclient_core::access::audit::{self, Action};
use emailclient_core::access::principal::{Principal, Scope};
use emailclient_core::access::session;
use emailclient_core::access::tenant::{self, TenantKey};
use emailclient_core::access::ticket;
use emailclient_core::access::token::TokenError;
use emailclient_core::access::user::{self, User};
use emailclient_core::domain::message;
use emailclient_core::platform::db::TenantTx;
use emailclient_core::platform::id::{MessageId, SessionId, TenantId, UserId};
use emailclient_core::platform::metrics::table;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use http::request::Parts;
use uuid::Uuid;

use crate::context::Context;
use crate::error::ApiError;
use crate::form;
use crate::negotiate;
use crate::part_token::{self, Whose};
use crate::ratelimit::{self, Bucket};
use crate::state::AppState;

/// The authenticated caller of a request.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who, for which tenant (that of the token, which is also the one that was named), and what that one may do.
    pub principal: Principal,
    /// The tenant's slug.
    pub tenant_slug: String,
    /// The user as last seen, at most a few seconds ago.
    pub user: User,
    /// In which log-in session.
    pub session_id: SessionId,
    /// Seconds since 1970 at which the token ends.
    pub token_expires: i64,
    /// The request.
    pub context: Context,
    /// The line that the handler owes the audit trail.
    action: Option<Action>,
    actor: String,
}

/// What in the address of a request may say who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address {
    /// Nothing: a header has to.
    Silent,
    /// The token of a part ([`crate::part_token`]).
    Part,
    /// A ticket for a stream of events.
    Ticket,
}

impl Caller {
    /// The tenant.
    #[must_use]
    pub fn tenant(&self) -> TenantId {
        self.principal.tenant
    }

    /// Begins the transaction of the handler's effect, or of its reads. Where the handler is audited, it commits only with its
    /// line.
    ///
    /// # Errors
    /// 503 when the database does not answer.
    pub async fn tx(&self, state: &AppState) -> Result<TenantTx, ApiError> {
        let mut tx = self.aside(state).await?;
        if let Some(action) = self.action {
            tx.owe_audit(action.as_str());
        }
        Ok(tx)
    }

    /// Begins a transaction beside that of the effect: to look, or for a line about what was refused.
    ///
    /// # Errors
    /// 503 when the database does not answer.
    pub async fn aside(&self, state: &AppState) -> Result<TenantTx, ApiError> {
        Ok(state.db.within(self.principal.tenant, &self.principal.reach).await?)
    }

    /// Whether the caller would still be let in: the token has not ended, the session is open, the tenant is not suspended, and the
    /// user has the same role. At most a few seconds old. What cannot be asked at present counts as before.
    pub async fn is_still_let_in(&self, state: &AppState) -> bool {
        if state.clock.now().timestamp() >= self.token_expires {
            return false;
        }
        let whose = Whose {
            tenant: self.principal.tenant,
            user: self.user.id,
            session: self.session_id,
            until: self.token_expires,
        };
        let (tenant, user) = tokio::join!(known_tenant(state, whose.tenant), live_user(state, &whose));
        match (tenant, user) {
            (Ok(tenant), Ok(user)) => !tenant.suspended && user.role == self.user.role,
            (Err(error), _) | (_, Err(error)) => !error.status().is_client_error(),
        }
    }

    /// Waits for the turn at a draft, a mailbox or an account, which this request has until it ends. Before the transaction that
    /// changes it, so that who waits holds no connection.
    ///
    /// # Errors
    /// 503 when others took ten seconds.
    pub async fn turn(&self, state: &AppState, what: Uuid) -> Result<(), ApiError> {
        self.context.hold(state.turns.take(self.principal.tenant, what).await?);
        Ok(())
    }

    /// Waits for the turn at the account of a message: edits of an account change the same counts and threads. For a message
    /// that is not there nobody waits.
    ///
    /// # Errors
    /// As [`Caller::turn`].
    pub async fn turn_at_message(&self, state: &AppState, message: MessageId) -> Result<(), ApiError> {
        let account = message::account_of(&mut self.aside(state).await?, message).await?;
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
        Ok(state.db.snapshot(self.principal.tenant, &self.principal.reach).await?)
    }

    /// `user:<id>`, as the audit trail and kept answers have it.
    #[must_use]
    pub fn actor(&self) -> &str {
        &self.actor
    }

    /// Adds a line to the audit trail; `result` is `ok` or the code of the refusal.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn record(
        &self,
        tx: &mut TenantTx,
        action: Action,
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
            times: 1,
        };
        Ok(audit::record(tx, &entry).await?)
    }

    /// Lets in whom a caller has sent here with a link, as that caller and with no more rights than it has now: tenant, user,
    /// permission and limit, in this order. `until`: seconds since 1970 at which the link ends.
    ///
    /// # Errors
    /// 403 `tenant-suspended`, 403 `insufficient-scope` also for a user who is not let in any more, 429, 503.
    pub(crate) async fn sent(
        state: &AppState,
        context: Context,
        (tenant, user): (TenantId, UserId),
        scope: Scope,
        until: i64,
    ) -> Result<Self, ApiError> {
        let tenant = known_tenant(state, tenant).await?;
        let span = tracing::Span::current();
        span.record("tenant", tracing::field::display(tenant.id));
        span.record("user", tracing::field::display(user));
        if tenant.suspended {
            return Err(ApiError::tenant_suspended("the operator suspended this tenant"));
        }
        context.set_tenant(tenant.id);
        let mut tx = state.db.tenant(tenant.id).await?;
        let user = user::let_in(&mut tx, user).await?;
        tx.release();
        let gone = || ApiError::insufficient_scope("who made this link is not let in any more");
        let user = user.ok_or_else(gone)?;
        let principal = Principal::user(tenant.id, user.id, user.role);
        if !principal.may(scope) {
            return Err(ApiError::insufficient_scope(format!("this needs the scope {scope}")));
        }
        if context.count_once() {
            limit(state, &tenant, &context).await?;
        }
        let actor = principal.actor();
        // In no log-in session: the link stands for it.
        let session_id = SessionId(Uuid::nil());
        let tenant_slug = tenant.slug;
        Ok(Self {
            principal,
            tenant_slug,
            user,
            session_id,
            token_expires: until,
            context,
            action: None,
            actor,
        })
    }

    /// Lets a request in: token, tenant, permission, limit, `Accept` and content type, in this order. `address` may say who asks,
    /// where no header does.
    ///
    /// # Errors
    /// 401, 400, 403, 429, 406 and 415.
    pub(crate) async fn admit(
        parts: &mut Parts,
        state: &AppState,
        scope: Option<Scope>,
        action: Option<Action>,
        address: Address,
    ) -> Result<Self, ApiError> {
        let context = Context::of(parts);
        let by_address = match address {
            _ if parts.headers.contains_key(AUTHORIZATION) => None,
            Address::Silent => None,
            Address::Part => part_token::in_query(parts.uri.query())
                .map(|token| by_part(token, context.path(), state))
                .transpose()?,
            Address::Ticket => by_ticket(parts, state).await?,
        };
        // An address that says who asks says for which tenant.
        let says_tenant = by_address.is_some();
        let whose = match by_address {
            Some(whose) => whose,
            None => claims(&parts.headers, state)?,
        };
        let (tenant, user) = tokio::try_join!(known_tenant(state, whose.tenant), live_user(state, &whose))?;
        let span = tracing::Span::current();
        span.record("tenant", tracing::field::display(whose.tenant));
        span.record("user", tracing::field::display(whose.user));
        if !says_tenant || named_tenant(&parts.headers, state)?.is_some() {
            check_tenant(&parts.headers, state, &tenant)?;
        }
        if tenant.suspended {
            return Err(ApiError::tenant_suspended("the operator suspended this tenant"));
        }
        context.set_tenant(tenant.id);
        let principal = Principal::user(tenant.id, whose.user, user.role);
        let actor = principal.actor();
        if let Some(action) = action {
            context.set_audited(&actor, action);
        }
        if let Some(scope) = scope.filter(|scope| !principal.may(*scope)) {
            return Err(ApiError::insufficient_scope(format!("this needs the scope {scope}")));
        }
        if context.count_once() {
            limit(state, &tenant, &context).await?;
        }
        negotiate::rules(parts).check(&parts.method, &parts.headers)?;
        let caller = Self {
            principal,
            tenant_slug: tenant.slug,
            user,
            session_id: whose.session,
            token_expires: whose.until,
            context,
            action,
            actor,
        };
        // For the reader of the body, which keeps its refusals under the caller's Idempotency-Key.
        parts.extensions.insert(caller.clone());
        Ok(caller)
    }
}

/// Whom an access token speaks for.
fn claims(headers: &HeaderMap, state: &AppState) -> Result<Whose, ApiError> {
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
    let claims = state.tokens.read(token, state.clock.now()).map_err(refused)?;
    Ok(Whose { tenant: claims.tid, user: claims.sub, session: claims.sid, until: claims.exp })
}

/// Whom the address of a part was made for.
fn by_part(token: &str, path: &str, state: &AppState) -> Result<Whose, ApiError> {
    let (message, part) = part_token::part_of(path).ok_or_else(ApiError::invalid_token)?;
    part_token::read(&state.config.jwt_secret, token, message, part, state.clock.now()).map_err(refused)
}

/// Whom a ticket in the query was made for, where there is one. It is used up.
async fn by_ticket(parts: &Parts, state: &AppState) -> Result<Option<Whose>, ApiError> {
    let pairs = form::pairs(parts.uri.query().unwrap_or_default());
    let pairs = pairs.map_err(|e| ApiError::invalid_parameter(format!("the query is not valid: {e}")))?;
    let Some((_, text)) = pairs.into_iter().find(|(name, _)| name == "ticket") else { return Ok(None) };
    let tenant = ticket::tenant_of(&state.config.jwt_secret, &text).ok_or_else(ApiError::invalid_token)?;
    let mut tx = state.db.tenant(tenant).await?;
    let found = ticket::redeem(&mut tx, &text, state.clock.now()).await?;
    tx.commit().await?;
    let ticket::Bearer { user_id, session_id, token_expires } = found.ok_or_else(ApiError::invalid_token)?;
    Ok(Some(Whose { tenant, user: user_id, session: session_id, until: token_expires }))
}

fn refused(error: TokenError) -> ApiError {
    match error {
        TokenError::Expired => ApiError::token_expired(),
        TokenError::Invalid => ApiError::invalid_token(),
    }
}

async fn known_tenant(state: &AppState, id: TenantId) -> Result<TenantKey, ApiError> {
    if let Some(tenant) = state.known.tenants.get(&id) {
        return Ok(tenant);
    }
    let mut tx = state.db.system().await?;
    let found = tenant::find(&mut tx, &id.to_string()).await?;
    tx.release();
    let tenant = found.ok_or_else(ApiError::invalid_token)?;
    state.known.tenants.insert(id, tenant.clone());
    Ok(tenant)
}

async fn live_user(state: &AppState, whose: &Whose) -> Result<User, ApiError> {
    match state.known.sessions.get(&whose.session) {
        Some((tenant, user)) if tenant == whose.tenant && user.id == whose.user => return Ok(user),
        _ => {}
    }
    let mut tx = state.db.tenant(whose.tenant).await?;
    let found = session::live(&mut tx, whose.session, whose.user, state.clock.now()).await?;
    tx.release();
    let user = found.ok_or_else(ApiError::invalid_token)?;
    state.known.sessions.insert(whose.session, (whose.tenant, user.clone()));
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
    metrics::counter!(table::HTTP_RATE_LIMITED.name, "limit" => "requests").increment(1);
    Err(ApiError::rate_limited(verdict.retry_after.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX)))
}
