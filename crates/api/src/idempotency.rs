//! `Idempotency-Key`: a POST that is sent twice takes effect once and is answered alike.
//!
//! The answer is kept in the transaction of the effect. Every POST handler is wrapped so:
//!
//! ```text
//! key.once(&state, &caller, async {
//!     // anything slow (network) first
//!     let mut tx = key.tx(&state, &caller).await?;
//!     let thing = core::thing::insert(&mut tx, …).await?;
//!     Ok((tx, Reply::created(&format!("/api/things/{}", thing.id), &view(&thing))?))
//! })
//! .await
//! ```

use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use emailclient_core::access::idempotency::{self, Kept, Slot};
use emailclient_core::access::token::authenticate;
use emailclient_core::platform::config::Config;
use emailclient_core::platform::db::TenantTx;
use http::request::Parts;
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Map, Value};
use wire::trouble::Trouble;

use crate::caller::Caller;
use crate::context::Context;
use crate::error::ApiError;
use crate::reply::Reply;
use crate::state::AppState;

const NAME: &str = "idempotency-key";
const MAX_CHARS: usize = 255;
const IN_PROGRESS: &str = "idempotency-in-progress";
/// How often, and after which pauses, is looked whether a transaction that was dropped has given its key back.
const ROLLBACK_LOOKS: usize = 50;
const ROLLBACK_PAUSE: Duration = Duration::from_millis(20);
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The key of a request, if it has one. Refuses 400 `invalid-idempotency-key`.
#[derive(Debug, Clone)]
pub struct IdempotencyKey {
    key: Option<String>,
    route: String,
    query: String,
    context: Context,
    config: Arc<Config>,
}

impl FromRequestParts<AppState> for IdempotencyKey {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let key = Self::read(parts, state)?;
        // For the reader of the body, which comes next.
        parts.extensions.insert(key.clone());
        Ok(key)
    }
}

/// Keeps the refusal of a body that cannot be read, as the handler keeps its own. Without a key, and where the refusal
/// is none that would be the same next time, it is handed back as it came.
pub(crate) async fn keep_refusal(state: &AppState, parts: &Parts, refused: ApiError) -> ApiError {
    let (Some(key), Some(caller)) =
        (parts.extensions.get::<IdempotencyKey>(), parts.extensions.get::<Caller>())
    else {
        return refused;
    };
    if key.key.is_none() || !is_final(&refused) {
        return refused;
    }
    match key.answer(state, caller, async { Err(refused) }).await {
        Ok(reply) => ApiError::replay(reply),
        Err(error) => error,
    }
}

impl IdempotencyKey {
    fn read(parts: &Parts, state: &AppState) -> Result<Self, ApiError> {
        let mut values = parts.headers.get_all(NAME).iter();
        let key = match (values.next(), values.next()) {
            (None, _) => None,
            (Some(_), Some(_)) => return Err(ApiError::invalid_idempotency_key("the key is there twice")),
            (Some(value), None) => {
                let printable = |t: &&str| t.bytes().all(|b| (b' '..=b'~').contains(&b));
                let fits = |t: &&str| (1..=MAX_CHARS).contains(&t.len());
                let text = value.to_str().ok().map(str::trim).filter(fits).filter(printable);
                let bad =
                    || ApiError::invalid_idempotency_key("a key is 1 to 255 printable ASCII characters");
                Some(text.ok_or_else(bad)?.to_owned())
            }
        };
        Ok(Self {
            key,
            route: format!("{} {}", parts.method, parts.uri.path()),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            context: Context::of(parts),
            config: Arc::clone(&state.config),
        })
    }

    fn slot<'a>(&'a self, caller: &'a Caller) -> Option<Slot<'a>> {
        self.key.as_deref().map(|key| Slot { caller: caller.actor(), route: &self.route, key })
    }

    /// The query string belongs to what was asked. Keyed, because a body may hold a password worth guessing.
    fn hash(&self) -> Vec<u8> {
        let body = self.context.body_hash().unwrap_or_default();
        let asked = [self.query.as_bytes(), &[0], &body].concat();
        authenticate(&self.config.jwt_secret, "idempotency", &asked).to_vec()
    }

    /// Begins the transaction of the effect and holds the key until it ends.
    ///
    /// # Errors
    /// The kept answer (through `?`), 409 `idempotency-in-progress`, 422 `idempotency-key-reused`, 503.
    pub async fn tx(&self, state: &AppState, caller: &Caller) -> Result<TenantTx, ApiError> {
        let mut tx = caller.tx(state).await?;
        if let Some(slot) = self.slot(caller) {
            if !idempotency::lock(&mut tx, &slot).await? {
                return Err(ApiError::idempotency_in_progress());
            }
            self.refuse_known(&mut tx, &slot).await?;
        }
        Ok(tx)
    }

    /// Whether an answer is kept under this key already.
    ///
    /// # Errors
    /// 503 when the database does not answer.
    pub async fn is_known(&self, state: &AppState, caller: &Caller) -> Result<bool, ApiError> {
        let Some(slot) = self.slot(caller) else { return Ok(false) };
        let mut look = caller.aside(state).await?;
        let known = idempotency::find(&mut look, &slot).await?.is_some();
        look.release();
        Ok(known)
    }

    /// As [`Self::tx`], after the transaction of the refusal was dropped: it holds the key until its connection has rolled
    /// back, which is soon and not at once.
    async fn tx_after(&self, state: &AppState, caller: &Caller) -> Result<TenantTx, ApiError> {
        for _ in 0..ROLLBACK_LOOKS {
            match self.tx(state, caller).await {
                Err(held) if held.code() == IN_PROGRESS => tokio::time::sleep(ROLLBACK_PAUSE).await,
                other => return other,
            }
        }
        Err(ApiError::idempotency_in_progress())
    }

    async fn refuse_known(&self, tx: &mut TenantTx, slot: &Slot<'_>) -> Result<(), ApiError> {
        match idempotency::find(tx, slot).await? {
            None => Ok(()),
            Some(kept) if kept.body_hash != self.hash() => {
                Err(ApiError::idempotency_key_reused("the key was used with another body or query"))
            }
            Some(kept) => Err(ApiError::replay(unpack(kept)?)),
        }
    }

    /// Runs `work`, keeps its answer with its effect, and commits. `work` hands back the transaction it wrote in;
    /// a refusal that would be the same next time (4xx, but not 401, 408, 429 and a running twin) is kept as well.
    ///
    /// # Errors
    /// What `work` refused with, and as [`IdempotencyKey::tx`].
    pub async fn once(
        &self,
        state: &AppState,
        caller: &Caller,
        work: impl Future<Output = Result<(TenantTx, Reply), ApiError>> + Send,
    ) -> Result<Response, ApiError> {
        self.answer(state, caller, work).await.map(IntoResponse::into_response)
    }

    async fn answer(
        &self,
        state: &AppState,
        caller: &Caller,
        work: impl Future<Output = Result<(TenantTx, Reply), ApiError>> + Send,
    ) -> Result<Reply, ApiError> {
        let Some(slot) = self.slot(caller) else {
            let (tx, reply) = work.await?;
            tx.commit().await?;
            return Ok(reply);
        };
        // A repetition is answered before anything slow is done for it.
        let mut look = caller.aside(state).await?;
        self.refuse_known(&mut look, &slot).await?;
        look.release();
        let (mut tx, reply) = match work.await {
            Ok(done) => done,
            Err(error) if is_final(&error) => {
                let reply = written_out(&error, &self.context)?;
                self.context.set_refused(error.code());
                let mut tx = self.tx_after(state, caller).await?;
                tx.nothing_to_audit();
                (tx, reply)
            }
            Err(error) => return Err(error),
        };
        let kept = pack(&reply, self.hash(), self.context.request_id());
        if !idempotency::keep(&mut tx, &slot, &kept).await? {
            // A twin was faster: its effect stands, ours is rolled back.
            drop(tx);
            let mut look = caller.aside(state).await?;
            self.refuse_known(&mut look, &slot).await?;
            return Err(ApiError::idempotency_in_progress());
        }
        tx.commit().await?;
        Ok(reply)
    }
}

fn is_final(error: &ApiError) -> bool {
    let transient = [StatusCode::UNAUTHORIZED, StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
    let about_keys = [IN_PROGRESS, "idempotency-key-reused"];
    // A mail server in trouble may be well when the request is sent again.
    let passes = Trouble::ALL.iter().any(|trouble| !trouble.lasts() && trouble.code() == error.code());
    error.status().is_client_error()
        && !error.is_replay()
        && !error.is_broken_off()
        && !transient.contains(&error.status())
        && !about_keys.contains(&error.code())
        && !passes
}

fn written_out(error: &ApiError, context: &Context) -> Result<Reply, ApiError> {
    let mut problem = error.problem().clone();
    context.request_id().clone_into(&mut problem.request_id);
    context.path().clone_into(&mut problem.instance);
    let body = serde_json::to_vec(&problem).map_err(ApiError::internal)?;
    let kind = HeaderValue::from_static("application/problem+json");
    Ok(Reply::raw(error.status(), vec![(header::CONTENT_TYPE, kind)], body))
}

/// The name under which a kept answer has the id of the request it was first given to.
const FIRST_ID: HeaderName = HeaderName::from_static("x-request-id");

fn pack(reply: &Reply, body_hash: Vec<u8>, request_id: &str) -> Kept {
    let pair = |(name, value): &(HeaderName, HeaderValue)| {
        Some((name.to_string(), Value::String(value.to_str().ok()?.to_owned())))
    };
    let mut headers: Map<String, Value> = reply.headers().iter().filter_map(pair).collect();
    headers.insert(FIRST_ID.to_string(), Value::String(request_id.to_owned()));
    let status = i16::try_from(reply.status().as_u16()).unwrap_or(200);
    Kept { body_hash, status, headers: Value::Object(headers), body: reply.kept().to_vec() }
}

fn unpack(kept: Kept) -> Result<Reply, ApiError> {
    let status = u16::try_from(kept.status).ok().and_then(|s| StatusCode::from_u16(s).ok());
    let status = status.ok_or_else(|| ApiError::internal(anyhow::anyhow!("a kept answer has no status")))?;
    let pairs = kept.headers.as_object().into_iter().flatten();
    let mut headers: Vec<_> =
        pairs.filter_map(|(n, v)| Some((n.parse().ok()?, v.as_str()?.parse().ok()?))).collect();
    headers.push((REPLAYED, HeaderValue::from_static("true")));
    Ok(Reply::raw(status, headers, kept.body))
}
