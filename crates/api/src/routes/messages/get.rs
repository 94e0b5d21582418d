//! `GET /api/messages/{id}`

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use emailclient_core::domain::blob;
use emailclient_core::domain::message::{self, Message};
use emailclient_core::platform::db::TenantTx;
use emailclient_core::platform::id::MessageId;
use mail::mime::html;
use mail::mime::text::truncate;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::content::{Pictures, Readable, blocking, readable, unchanged};
use super::fields::Fields;
use super::shape::{ALONE_FIELDS, AttachmentView, HeaderView, MessageView, etag};
use super::source::in_hand;
use crate::caller::Caller;
use crate::error::{ApiError, Problem};
use crate::etag::{Conditions, ETag};
use crate::extract::{PathId, Query};
use crate::permission::{MailRead, May, Unaudited};
use crate::reply::Reply;
use crate::state::AppState;
use emailclient_core::view::message::SUMMARY_FIELDS;

/// Which bodies are in the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum BodyChoice {
    /// Neither.
    None,
    /// The text part.
    Text,
    /// The HTML part, made safe.
    Html,
    /// Both.
    #[default]
    Both,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct GetQuery {
    /// `none`, `text`, `html` or `both` (default).
    #[serde(default)]
    #[param(inline)]
    body: BodyChoice,
    /// Longest `text` and `html` in bytes, each; `truncated` tells that one was cut. HTML is cut between elements or
    /// characters, and what is open there is closed.
    #[param(maximum = 4294967295_u64)]
    max_body_bytes: Option<u32>,
    /// Names of the fields to answer with, separated by commas; `headers` only when named.
    fields: Option<String>,
}

/// What of a message is asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted {
    body: BodyChoice,
    max_body_bytes: Option<usize>,
    headers: bool,
}

impl Wanted {
    fn text(&self) -> bool {
        matches!(self.body, BodyChoice::Text | BodyChoice::Both)
    }
    fn html(&self) -> bool {
        matches!(self.body, BodyChoice::Html | BodyChoice::Both)
    }
}

/// Reads what is wanted of a message and ends the transaction before anything is parsed.
pub(super) async fn read(
    state: &AppState,
    caller: &Caller,
    mut tx: TenantTx,
    message: Message,
    wanted: Wanted,
) -> Result<(MessageView, ETag), ApiError> {
    let (id, tag) = (message.summary.id, etag(&message));
    let mut view = MessageView::new(message);
    if !(wanted.text() || wanted.html() || wanted.headers) {
        tx.release();
        return Ok((view, tag));
    }
    let Some(stored) = blob::find(&mut tx, id).await? else { return Ok((view, tag)) };
    if let Some(found) = in_hand(state, caller, tx, stored).await? {
        let with_html = wanted.html();
        let parse = move || {
            if with_html {
                readable(id, found.source.readable(), false, &Pictures::Linked)
            } else {
                Readable { body: mail::mime::body(found.source.readable()), html: None }
            }
        };
        fill(&mut view, blocking(parse).await?, &wanted);
    }
    Ok((view, tag))
}

fn fill(view: &mut MessageView, read: Readable, wanted: &Wanted) {
    let limit = wanted.max_body_bytes.unwrap_or(usize::MAX);
    // As the source is understood today, which is how the route of an attachment counts.
    view.attachments = read.body.attachments.iter().map(AttachmentView::from).collect();
    view.degraded |= read.body.limited.is_some();
    view.degraded_reason = read.body.limited.map(|limit| limit.to_string());
    view.summary.date_zone_unknown = read.body.date_zone_unknown;
    let text = read.body.text.filter(|_| wanted.text());
    let html = read.html.filter(|_| wanted.html());
    let cut = html.as_ref().is_some_and(|safe| safe.cut);
    let html = html.map(|safe| safe.html);
    let over = |part: &Option<String>| part.as_ref().is_some_and(|t| t.len() > limit);
    view.truncated = cut || over(&text) || over(&html);
    view.text = text.map(|t| truncate(t, limit));
    view.html = html.map(|h| html::truncate(&h, limit));
    if wanted.headers {
        let headers = read.body.headers.into_iter().map(|(name, value)| HeaderView { name, value });
        view.headers = Some(headers.collect());
    }
}

/// One message.
#[utoipa::path(get, path = "/api/messages/{id}", tag = "messages", security(("bearer" = ["mail:read"])), params(("id" = Uuid, Path), GetQuery),
    responses((status = 200, body = MessageView), (status = 304),
              (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn get_message(
    State(state): State<AppState>,
    caller: May<MailRead, Unaudited>,
    PathId(id): PathId<MessageId>,
    Query(query): Query<GetQuery>,
    conditions: Conditions,
) -> Result<Response, ApiError> {
    let known: Vec<&str> = SUMMARY_FIELDS.into_iter().chain(ALONE_FIELDS).collect();
    let fields = Fields::parse(query.fields.as_deref(), &known)?;
    let body = match (query.body, fields.keep("text"), fields.keep("html")) {
        (BodyChoice::Both, true, false) => BodyChoice::Text,
        (BodyChoice::Both, false, true) => BodyChoice::Html,
        (_, false, false) | (BodyChoice::Text, false, _) | (BodyChoice::Html, _, false) => BodyChoice::None,
        (choice, ..) => choice,
    };
    let max_body_bytes = query.max_body_bytes.and_then(|n| usize::try_from(n).ok());
    let wanted = Wanted { body, max_body_bytes, headers: fields.name("headers") };
    let mut tx = caller.tx(&state).await?;
    // Asked first: a client that has the message costs no parsing.
    let message = message::get(&mut tx, id).await?.ok_or_else(ApiError::not_found)?;
    if let Some(response) = unchanged(&etag(&message), &conditions) {
        return Ok(response);
    }
    let (view, tag) = read(&state, &caller, tx, message, wanted).await?;
    Ok(Reply::ok(&fields.cut(&view)?)?.etag(&tag).into_response())
}
