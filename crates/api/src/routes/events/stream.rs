//! `GET /api/events`
//!
//! A stream is a task that writes into a short channel, of which the answer is the other end. It first reads from the log what
//! its client missed, then goes on with what the hub tells all streams of the tenant.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequestParts, State};
use axum::response::Response;
use bytes::Bytes;
use emailclient_core::domain::event::EventKind;
use emailclient_core::domain::mailbox::account_exists;
use emailclient_core::events::envelope::{event_id, position_of};
use emailclient_core::events::log::Filter;
use emailclient_core::platform::db::{DbError, Reach};
use emailclient_core::platform::id::{AccountId, TenantId};
use futures::StreamExt as _;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, header};
use serde::{Deserialize, Deserializer};
use tokio::sync::{broadcast, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use utoipa::IntoParams;

use crate::caller::Caller;
use crate::error::{ApiError, Problem};
use crate::extract;
use crate::hub::{self, Place, Tail, Told};
use crate::permission::{MailFollow, May, Unaudited};
use crate::state::AppState;

/// How long a client waits before it comes back, in milliseconds.
const RETRY: &str = "retry: 5000\n";
/// Something is sent this often, so that nobody between takes the line for dead.
const COMMENT: Duration = Duration::from_secs(15);
/// Whether the client may still listen is asked this often; the answer may be three seconds old.
const RECHECK: Duration = Duration::from_secs(2);
/// A stream of old mail looks this often, and one whose database is away.
const LOOK: Duration = Duration::from_secs(1);
/// A client that takes nothing for so long is given up.
const STUCK: Duration = Duration::from_secs(30);
/// Where a tenant has as many streams as it may, one may be free after this, in seconds.
const PLACE_FREE: u64 = 30;
/// Frames on their way into the answer.
const IN_HAND: usize = 16;
/// Shortest and longest time between two `ping` events, in seconds.
const PINGS: (u64, u64) = (5, 600);
/// Most events of an answer that ends.
const CLOSE_AFTER: u32 = 10_000;
/// Accounts named in one request.
const ACCOUNTS: usize = 100;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct StreamQuery {
    /// Events of these kinds only, with commas between: `message.created,message.updated`.
    #[param(value_type = Option<String>)]
    types: Option<Kinds>,
    /// Events of this account only; may be there several times.
    #[param(value_type = Option<Vec<uuid::Uuid>>, style = Form, explode = true)]
    account_id: Option<Accounts>,
    /// The `id` of the last event seen, where the header `Last-Event-ID` cannot be set.
    last_event_id: Option<String>,
    /// Old mail that is read for the first time, too.
    #[serde(default)]
    #[param(value_type = Option<bool>, default = false)]
    backfill: bool,
    /// An event `ping` this often, in seconds: 5 to 600.
    #[param(minimum = 5, maximum = 600)]
    ping: Option<u64>,
    /// The answer ends after so many events, 1 to 10,000: for proxies that pass on whole answers only.
    #[param(minimum = 1, maximum = 10_000)]
    closeafter: Option<u32>,
    /// Of `POST /api/events/ticket`, in place of a token.
    #[expect(dead_code, reason = "read before all else, when the caller is let in")]
    ticket: Option<String>,
}

#[derive(Debug)]
struct Kinds(BTreeSet<EventKind>);

impl<'de> Deserialize<'de> for Kinds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let kind = |word: &str| {
            let unknown = || serde::de::Error::custom(format!("there are no events {word:?}"));
            EventKind::from_word(word.trim()).ok_or_else(unknown)
        };
        text.split(',').map(kind).collect::<Result<_, _>>().map(Self)
    }
}

#[derive(Debug)]
struct Accounts(BTreeSet<AccountId>);

impl<'de> Deserialize<'de> for Accounts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let ids: Result<BTreeSet<AccountId>, _> = text.split(',').map(str::parse).collect();
        let ids = ids.map_err(|_| serde::de::Error::custom("a UUID is expected"))?;
        if ids.len() > ACCOUNTS {
            return Err(serde::de::Error::custom("at most 100 accounts"));
        }
        Ok(Self(ids))
    }
}

/// The query, in which `account_id` may stand several times.
#[derive(Debug)]
pub(super) struct Wanted {
    query: StreamQuery,
    last: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Wanted {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let query: StreamQuery = extract::from_query(&joined(parts.uri.query().unwrap_or_default()))?;
        if query.ping.is_some_and(|n| !(PINGS.0..=PINGS.1).contains(&n)) {
            return Err(ApiError::invalid_parameter("ping: 5 to 600 seconds"));
        }
        if query.closeafter.is_some_and(|n| !(1..=CLOSE_AFTER).contains(&n)) {
            return Err(ApiError::invalid_parameter("closeafter: 1 to 10,000 events"));
        }
        // A browser that comes back sends the header with the URL it began with.
        let last = last_seen(&parts.headers)?.or_else(|| query.last_event_id.clone());
        Ok(Self { query, last })
    }
}

fn last_seen(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get("last-event-id") else { return Ok(None) };
    let text = value.to_str().map_err(|_| ApiError::invalid_state("Last-Event-ID is no id of an event"))?;
    // What a browser sends that has seen no id yet.
    Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty()))
}

/// A parameter that may be repeated, as one.
fn joined(query: &str) -> String {
    const NAME: &str = "account_id=";
    let (accounts, others): (Vec<&str>, Vec<&str>) =
        query.split('&').filter(|piece| !piece.is_empty()).partition(|piece| piece.starts_with(NAME));
    let ids: Vec<&str> = accounts.iter().filter_map(|piece| piece.strip_prefix(NAME)).collect();
    let all = if ids.is_empty() { None } else { Some(format!("{NAME}{}", ids.join(","))) };
    others.into_iter().map(str::to_owned).chain(all).collect::<Vec<_>>().join("&")
}

/// Events as they happen, as a stream of server-sent events (WHATWG HTML §9.2). Each has the `id` to resume from.
#[utoipa::path(get, path = "/api/events", tag = "events", security(("bearer" = ["mail:read"])), params(StreamQuery, ("Last-Event-ID" = Option<String>, Header, description = "The `id` of the last event seen: what came after it is sent first.")),
    responses((status = 200, content_type = "text/event-stream", body = String),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn follow_events(
    State(state): State<AppState>,
    caller: May<MailFollow, Unaudited>,
    Wanted { query, last }: Wanted,
) -> Result<Response, ApiError> {
    let tenant = caller.tenant();
    let named = query.account_id.map(|accounts| accounts.0);
    let mut tx = caller.aside(&state).await?;
    for account in named.iter().flatten() {
        if !account_exists(&mut tx, *account).await? {
            return Err(ApiError::not_found());
        }
    }
    tx.release();
    let within = match &caller.principal.reach {
        Reach::All => None,
        Reach::Only(accounts) => Some(accounts.iter().copied().collect()),
    };
    let filter = Filter {
        accounts: named.or(within),
        kinds: query.types.map(|kinds| kinds.0),
        backfill: query.backfill,
    };
    let since = last
        .map(|id| {
            position_of(tenant, &id).ok_or_else(|| ApiError::invalid_state("this is no id of an event"))
        })
        .transpose()?;
    let tail = state.hub.tail(&state.db, tenant).await?;
    let place = tail.place(&state.hub).ok_or_else(|| ApiError::rate_limited(PLACE_FREE))?;
    let (out, frames) = mpsc::channel(IN_HAND);
    let stream = Following {
        ping: query.ping.map(Duration::from_secs),
        left: query.closeafter,
        position: begin(&state, tenant, since, &out).await?,
        caller: (*caller).clone(),
        tail,
        _place: place,
        state,
        filter,
        out,
    };
    tokio::spawn(stream.run());
    let frames = tokio_stream_of(frames).map(Ok::<Bytes, Infallible>);
    let mut response = Response::new(Body::from_stream(frames));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // nginx keeps what it passes on until it has a buffer full.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

fn tokio_stream_of(mut frames: mpsc::Receiver<Bytes>) -> impl futures::Stream<Item = Bytes> {
    futures::stream::poll_fn(move |cx| frames.poll_recv(cx))
}

/// Where a stream begins; says so in its first frame. A place that the log does not reach back to, or that never was, gives one
/// `reset`, and the stream goes on from now.
async fn begin(
    state: &AppState,
    tenant: TenantId,
    since: Option<i64>,
    out: &mpsc::Sender<Bytes>,
) -> Result<i64, ApiError> {
    // A ticket is good once: this does not fail because others commit at this moment.
    let stream = hub::stands(&state.db, tenant, true).await?;
    let lost = since.is_some_and(|since| !stream.reaches_back_to(since) || since > stream.durable);
    let position = since.filter(|_| !lost).unwrap_or(stream.durable);
    let id = event_id(tenant, position);
    let first = match lost {
        true => format!("{RETRY}{}", reset(&id)),
        // Without data nothing is dispatched, but a browser keeps the id.
        false => format!("{RETRY}id: {id}\n\n"),
    };
    let _ = out.send(first.into()).await;
    Ok(position)
}

/// What was missed is not there any more.
fn reset(id: &str) -> String {
    let reason = "the log does not reach back to the last event seen; list anew";
    format!("id: {id}\nevent: reset\ndata: {{\"reason\":\"{reason}\"}}\n\n")
}

/// A stream is over.
struct Ended;

/// Why a stream does not go on at this moment.
enum Stop {
    /// It is over.
    Ended,
    /// The database did not answer.
    Failed,
}

impl From<DbError> for Stop {
    fn from(_: DbError) -> Self {
        Self::Failed
    }
}

struct Following {
    state: AppState,
    tail: Arc<Tail>,
    _place: Place,
    caller: Caller,
    filter: Filter,
    /// Everything up to here was sent or is not wanted.
    position: i64,
    ping: Option<Duration>,
    /// Events until the end, where there is one.
    left: Option<u32>,
    out: mpsc::Sender<Bytes>,
}

impl Following {
    async fn run(mut self) {
        let (state, out) = (self.state.clone(), self.out.clone());
        let caller = self.caller.clone();
        let left = caller.token_expires.saturating_sub(state.clock.now().timestamp());
        let expires = tokio::time::sleep(Duration::from_secs(u64::try_from(left).unwrap_or_default()));
        let refused = async {
            let mut ticks = interval_at(Instant::now() + RECHECK, RECHECK);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                // Here and below: what is needed now and then is not kept room for in each of thousands of streams.
                if !Box::pin(caller.is_still_let_in(&state)).await {
                    return;
                }
            }
        };
        tokio::select! {
            () = expires => {}
            () = refused => {}
            () = state.drained() => {}
            () = out.closed() => {}
            () = beats(&out, self.ping) => {}
            _ = self.follow() => {}
        }
    }

    async fn follow(&mut self) -> Result<(), Ended> {
        loop {
            match if self.filter.backfill { Box::pin(self.read_on()).await } else { self.listen().await } {
                Ok(()) => {}
                Err(Stop::Ended) => return Err(Ended),
                // The database is away, or somebody was before us: what is missed now is read then.
                Err(Stop::Failed) => tokio::time::sleep(LOOK).await,
            }
        }
    }

    /// Reads from the log by itself whatever is on disk: who wants old mail too is not to hold up the others.
    async fn read_on(&mut self) -> Result<(), Stop> {
        let stream = hub::stands(&self.state.db, self.caller.tenant(), false).await?;
        self.catch_up(stream.durable).await?;
        tokio::time::sleep(LOOK).await;
        Ok(())
    }

    /// Takes what the hub tells, until that was too quick for it: then what is missing is in the log.
    async fn listen(&mut self) -> Result<(), Stop> {
        let (reached, mut told) = self.tail.subscribe().await;
        Box::pin(self.catch_up(reached)).await?;
        loop {
            match told.recv().await {
                Ok(event) => self.send(&event).await?,
                Err(broadcast::error::RecvError::Lagged(_)) => return Ok(()),
                Err(broadcast::error::RecvError::Closed) => return Err(Stop::Ended),
            }
        }
    }

    /// Sends from the log what is wanted up to the position `until`.
    async fn catch_up(&mut self, until: i64) -> Result<(), Stop> {
        let (db, tenant) = (self.state.db.clone(), self.caller.tenant());
        while self.position < until {
            // A reader may be slower than what cuts the log.
            let stream = hub::stands(&db, tenant, false).await?;
            if !stream.reaches_back_to(self.position) {
                self.position = stream.durable;
                return self.pass(reset(&event_id(tenant, stream.durable)).into()).await;
            }
            let (told, reached) = hub::read(&db, tenant, (self.position, until), &self.filter).await?;
            let last = told.last().map(|told| told.entry.position);
            for event in told.into_iter().map(Arc::new) {
                self.send(&event).await?;
            }
            self.position = self.position.max(reached);
            // Who comes back need not go through all of it again.
            if last != Some(reached) && reached < until {
                let id = event_id(tenant, reached);
                self.pass(format!("id: {id}\n\n").into()).await?;
            }
        }
        Ok(())
    }

    /// Hands a frame on; a client that takes nothing for long is given up.
    async fn pass(&self, frame: Bytes) -> Result<(), Stop> {
        let sent = tokio::time::timeout(STUCK, self.out.send(frame)).await;
        if matches!(sent, Ok(Ok(()))) { Ok(()) } else { Err(Stop::Ended) }
    }

    async fn send(&mut self, event: &Told) -> Result<(), Stop> {
        if event.entry.position <= self.position {
            return Ok(());
        }
        if self.filter.wants(&event.entry) {
            self.pass(event.frame.clone()).await?;
            if let Some(left) = &mut self.left {
                *left -= 1;
                if *left == 0 {
                    return Err(Stop::Ended);
                }
            }
        }
        self.position = event.entry.position;
        Ok(())
    }
}

/// Signs of life, until nobody takes them.
async fn beats(out: &mpsc::Sender<Bytes>, ping: Option<Duration>) {
    let comments = every(COMMENT, out, ": \n\n".to_owned());
    match ping {
        None => comments.await,
        Some(period) => {
            let text = format!("event: ping\ndata: {{\"interval\":{}}}\n\n", period.as_secs());
            tokio::select! {
                () = comments => {}
                () = every(period, out, text) => {}
            }
        }
    }
}

async fn every(period: Duration, out: &mpsc::Sender<Bytes>, text: String) {
    let frame = Bytes::from(text);
    let mut ticks = interval_at(Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if out.send(frame.clone()).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_may_be_named_several_times_and_nothing_else() {
        assert_eq!(joined(""), "");
        assert_eq!(
            joined("types=a&account_id=1&backfill=true&account_id=2"),
            "types=a&backfill=true&account_id=1,2"
        );
        let id = AccountId::new();
        let query: StreamQuery =
            extract::from_query(&joined(&format!("account_id={id}&account_id={id}"))).unwrap();
        assert_eq!(query.account_id.unwrap().0.len(), 1);
        for bad in ["types=x", "types=message.created&types=a", "account_id=1", "backfill=yes", "x=1"] {
            assert!(extract::from_query::<StreamQuery>(&joined(bad)).is_err(), "{bad}");
        }
        let kinds = extract::from_query::<StreamQuery>("types=message.created,account.synced").unwrap();
        assert_eq!(kinds.types.unwrap().0.len(), 2);
    }
}
