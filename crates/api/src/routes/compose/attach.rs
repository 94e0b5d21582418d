//! `POST /api/compose/{id}/attachments`

use std::time::Instant;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts as _, Multipart, Request, State};
use axum::response::Response;
use emailclient_core::domain::draft::spool::{Contents, PIECE_BYTES, Spool};
use emailclient_core::domain::draft::{self, Draft, NewAttachment};
use emailclient_core::platform::db::{DbError, TenantTx};
use emailclient_core::platform::id::DraftId;
use futures::StreamExt as _;
use http::{HeaderMap, StatusCode, header};
use mail::address::clean_text;
use mail::error::check_single_line;
use mail::mime::safe_filename;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use utoipa::{IntoParams, ToSchema};

use super::create::{attach_refusal, reread};
use super::replace::editable;
use super::shape::{AttachmentView, tag};
use crate::again;
use crate::caller::Caller;
use crate::context::Context;
use crate::error::{ApiError, FieldError, Problem};
use crate::etag::Conditions;
use crate::extract::body::Arriving;
use crate::extract::{self, PathId, Query, escape};
use crate::idempotency::IdempotencyKey;
use crate::limits::{FILENAME_BYTES, Limits};
use crate::negotiate;
use crate::page::Page;
use crate::permission::{MailWrite, May, Unaudited};
use crate::reply::Reply;
use crate::state::AppState;

const UNKNOWN_TYPE: &str = "application/octet-stream";
/// A draft has a hundred files; more parts than that are not remembered.
const MOST_PARTS: usize = 1000;
/// The name of a file whose own leaves nothing that is safe, or that has none.
const NAMELESS: &str = "attachment";

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct AttachQuery {
    /// The file's name; needed when the body is the file itself.
    filename: Option<String>,
    /// Shown inside the HTML, which names it by `cid:`; needs `content_id`.
    #[serde(default)]
    inline: bool,
    /// Content-ID without angle brackets.
    content_id: Option<String>,
}

/// A form with files.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes the form; the parts are read one by one")]
struct FileForm {
    /// One part each.
    #[schema(value_type = Vec<String>, format = Binary, min_items = 1, max_items = 100)]
    file: Vec<Vec<u8>>,
}

/// The body, unread, with the headers that tell what it is.
#[derive(Debug)]
pub(super) struct Upload {
    conditions: Conditions,
    headers: HeaderMap,
    body: Arriving,
}

impl FromRequest<AppState> for Upload {
    type Rejection = ApiError;
    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        let (mut parts, body) = request.into_parts();
        extract::unread(&Context::of(&parts));
        let limit = crate::negotiate::rules(&parts).body_limit;
        let arriving =
            negotiate::check_encoding(&parts.headers).and_then(|()| Arriving::new(&parts, body, limit));
        let body = extract::settled(arriving, state, &parts).await?;
        let Ok(conditions) = Conditions::from_request_parts(&mut parts, state).await;
        Ok(Self { conditions, body, headers: parts.headers })
    }
}

/// Attaches files: parts of `multipart/form-data` named `file`, or the body itself with `filename=`. One file is
/// answered by itself, several as a list; the answer carries the draft's new ETag.
#[utoipa::path(post, path = "/api/compose/{id}/attachments", tag = "compose", security(("bearer" = ["mail:write"])),
    params(("id" = Uuid, Path), AttachQuery, ("If-Match" = Option<String>, Header, description = "the ETag that was read")), request_body(content((FileForm = "multipart/form-data"), (Vec<u8> = "application/octet-stream"))),
    responses((status = 201, body = AttachmentView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn attach_file(
    State(state): State<AppState>,
    caller: May<MailWrite, Unaudited>,
    PathId(id): PathId<DraftId>,
    Query(query): Query<AttachQuery>,
    key: IdempotencyKey,
    upload: Upload,
) -> Result<Response, ApiError> {
    let Upload { conditions, headers, body } = upload;
    // What nobody may upload is not read, but for what fits into one piece: of that, what is unreadable is told first, as of any
    // body. A repetition is read, for it is answered even when the draft is gone.
    if body.announced().is_none_or(|n| n > PIECE_BYTES) && !key.is_known(&state, &caller).await? {
        let mut look = caller.aside(&state).await?;
        let draft = draft::get(&mut look, id).await?.ok_or_else(ApiError::not_found)?;
        look.release();
        conditions.check_match(&tag(&draft))?;
        editable(&draft)?;
    }
    let mut spool = Spool::new(&state.db, caller.tenant());
    let held = state.lines.take(Some(caller.tenant()), 2 * PIECE_BYTES).await?;
    let (files, hash) = read_files(&headers, body, &query, &mut spool).await;
    drop(held);
    // A body that did not arrive, or a database that did not take it, is nothing to be kept under a key.
    let files = match files {
        Err(error) if error.status() == StatusCode::REQUEST_TIMEOUT || error.status().is_server_error() => {
            return Err(error);
        }
        other => other,
    };
    // Known before the key is looked up: a form is told apart by its parts.
    if let Some(hash) = hash {
        caller.context.set_body_hash(hash);
    }
    key.once(&state, &caller, async {
        // What cannot be read at all is told at once, what it means only after the draft was found.
        let files = match files {
            Err(unreadable) if unreadable.status() == StatusCode::BAD_REQUEST => return Err(unreadable),
            other => other,
        };
        caller.turn(&state, id.0).await?;
        let (mut tx, current) = held_draft(&state, &caller, &key, id).await?;
        conditions.check_match(&tag(&current))?;
        let files = files?;
        editable(&current)?;
        let added = draft::attachment::add(&mut tx, id, &files).await.map_err(attach_refusal)?;
        let stored = reread(&mut tx, id).await?;
        let mut views: Vec<AttachmentView> = added.into_iter().map(AttachmentView::from).collect();
        let reply = match (views.pop(), views.is_empty()) {
            (Some(one), true) => Reply::created(&format!("/api/compose/{id}/attachments/{}", one.id), &one)?,
            (last, _) => {
                views.extend(last);
                Reply::created(
                    &format!("/api/compose/{id}"),
                    &Page { data: views, next_cursor: None, has_more: false },
                )?
            }
        };
        Ok((tx, reply.etag(&tag(&stored))))
    })
    .await
}

/// The draft, locked. A body that was read as it came cannot be read again, so this handler runs once, and tries again here.
async fn held_draft(
    state: &AppState,
    caller: &Caller,
    key: &IdempotencyKey,
    id: DraftId,
) -> Result<(TenantTx, Draft), ApiError> {
    let until = Instant::now() + again::PATIENCE;
    loop {
        let mut tx = key.tx(state, caller).await?;
        match draft::get_for_update(&mut tx, id).await {
            Ok(found) => return Ok((tx, found.ok_or_else(ApiError::not_found)?)),
            Err(DbError::Busy(_)) if Instant::now() < until => drop(tx),
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(again::PAUSE).await;
    }
}

/// Reads the files of a body, and what it is told apart by: the bytes, or of a form its parts and not the boundary between
/// them. None when it is over the limit.
async fn read_files(
    headers: &HeaderMap,
    body: Arriving,
    query: &AttachQuery,
    spool: &mut Spool,
) -> (Result<Vec<NewAttachment>, ApiError>, Option<[u8; 32]>) {
    let mut digest = Sha256::new();
    let read = if negotiate::content_type(headers).0 == "multipart/form-data" {
        read_multipart(headers, body, spool, &mut digest).await
    } else {
        read_whole(headers, body, query, spool, &mut digest).await
    };
    let over = matches!(&read, Err(error) if error.status() == StatusCode::PAYLOAD_TOO_LARGE);
    let hash = (!over).then(|| digest.finalize().into());
    (read.and_then(|files| placed(files, query)), hash)
}

/// The files as the query places them.
fn placed(mut files: Vec<NewAttachment>, query: &AttachQuery) -> Result<Vec<NewAttachment>, ApiError> {
    let content_id = query.content_id.as_deref().map(content_id).transpose()?;
    if query.inline && content_id.is_none() {
        let detail = "a file shown inside the HTML needs the content_id that the HTML names";
        return Err(ApiError::invalid_field("/content_id", "missing", detail));
    }
    if content_id.is_some() && files.len() > 1 {
        return Err(ApiError::invalid_parameter("content_id belongs to one file"));
    }
    for file in &mut files {
        file.inline = query.inline;
        file.content_id.clone_from(&content_id);
    }
    Ok(files)
}

async fn read_whole(
    headers: &HeaderMap,
    body: Arriving,
    query: &AttachQuery,
    spool: &mut Spool,
    digest: &mut Sha256,
) -> Result<Vec<NewAttachment>, ApiError> {
    let name = query.filename.as_deref().ok_or_else(|| {
        ApiError::invalid_parameter(
            "name the file with filename=, or send it as a part of multipart/form-data",
        )
    });
    let essence = negotiate::content_type(headers).0;
    // What curl says unless told otherwise says nothing about the file.
    let unsaid = essence.is_empty() || essence == "application/x-www-form-urlencoded";
    let named = name.and_then(|name| Named::new(name, if unsaid { UNKNOWN_TYPE } else { &essence }));
    let mut incoming = spool.file();
    let (mut pieces, refusal) = body.pieces();
    while let Some(piece) = pieces.next().await {
        incoming.push(&piece.map_err(|e| refusal.take(e))?).await?;
    }
    let (content, hash) = incoming.end().await?;
    digest.update(hash);
    Ok(vec![named?.with(content)])
}

async fn read_multipart(
    headers: &HeaderMap,
    body: Arriving,
    spool: &mut Spool,
    digest: &mut Sha256,
) -> Result<Vec<NewAttachment>, ApiError> {
    let (pieces, refusal) = body.pieces();
    let malformed = |text: String| {
        // The parser's words may repeat a header of the part.
        let malformed =
            ApiError::malformed_multipart(format!("the form cannot be read: {}", clean_text(&text, 200)));
        refusal.first_or(malformed)
    };
    let mut request = Request::new(Body::from_stream(pieces));
    if let Some(value) = headers.get(header::CONTENT_TYPE) {
        request.headers_mut().insert(header::CONTENT_TYPE, value.clone());
    }
    // What arrives is bounded already.
    DefaultBodyLimit::disable().apply(&mut request);
    let mut form = Multipart::from_request(request, &()).await.map_err(|e| malformed(e.body_text()))?;
    // Read to its end whatever it means, so that the same form is the same however it is refused.
    let mut files: Vec<Result<NewAttachment, ApiError>> = Vec::new();
    while let Some(mut part) = form.next_field().await.map_err(|e| malformed(e.body_text()))? {
        for told in [part.name(), part.file_name(), part.content_type()] {
            digest.update([u8::from(told.is_some())]);
            digest.update(told.map_or(0, str::len).to_be_bytes());
            digest.update(told.unwrap_or_default());
        }
        let named = match part.name().unwrap_or_default() {
            "file" => {
                Named::new(part.file_name().unwrap_or(NAMELESS), part.content_type().unwrap_or(UNKNOWN_TYPE))
            }
            other => Err(ApiError::invalid_field(
                &format!("/{}", escape(&clean_text(other, 100))),
                "unknown-field",
                "only parts named file are read here",
            )),
        };
        let mut incoming = spool.file();
        while let Some(piece) = part.chunk().await.map_err(|e| malformed(e.body_text()))? {
            incoming.push(&piece).await?;
        }
        let (content, hash) = incoming.end().await?;
        digest.update(hash);
        if files.len() >= MOST_PARTS {
            return Err(ApiError::malformed_multipart("the form has too many parts"));
        }
        files.push(named.map(|named| named.with(content)));
    }
    if files.is_empty() {
        return Err(ApiError::invalid_field("/file", "missing", "send at least one file"));
    }
    files.into_iter().collect()
}

/// What a file is called and is, before its first byte is read.
struct Named {
    filename: String,
    content_type: String,
}

impl Named {
    /// The file under a name that is safe to save under wherever it arrives: no path, nothing invisible or reordering,
    /// nothing that a file system reads as its own (`safe_filename`).
    fn new(name: &str, content_type: &str) -> Result<Self, ApiError> {
        if name.trim().is_empty() || check_single_line(name).is_err() {
            let detail = "a file name is not empty and has no line breaks";
            return Err(ApiError::invalid_header(detail).with_errors([FieldError::new(
                "/filename",
                "invalid-header",
                detail,
            )]));
        }
        let mut limits = Limits::default();
        limits.text("/filename", name, FILENAME_BYTES);
        limits.end()?;
        let safe = safe_filename(name);
        let filename = if safe.is_empty() { NAMELESS.to_owned() } else { safe };
        Ok(Self { filename, content_type: media_type(content_type) })
    }

    fn with(self, content: Contents) -> NewAttachment {
        let Self { filename, content_type } = self;
        NewAttachment { filename, content_type, inline: false, content_id: None, content }
    }
}

/// Type and subtype in lower case; one that is none, or too long for any registry (RFC 6838 §4.2), is unknown.
fn media_type(text: &str) -> String {
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let token = |t: &str| {
        (1..=127).contains(&t.len())
            && t.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b))
    };
    let usable = essence.split_once('/').is_some_and(|(kind, sub)| token(kind) && token(sub));
    if usable { essence } else { UNKNOWN_TYPE.to_owned() }
}

fn content_id(text: &str) -> Result<String, ApiError> {
    let id = text.trim().trim_start_matches('<').trim_end_matches('>');
    if mail::compose::is_id(id) {
        return Ok(id.to_owned());
    }
    let detail = "not a usable content id";
    Err(ApiError::invalid_header(detail).with_errors([FieldError::new(
        "/content_id",
        "invalid-header",
        detail,
    )]))
}

#[cfg(test)]
mod tests;
