//! `POST /api/compose/{id}/attachments`

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts as _, Multipart, Request, State};
use axum::response::Response;
use bytes::Bytes;
use emailclient_core::draft::{self, NewAttachment};
use emailclient_core::id::DraftId;
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
use crate::caller::Caller;
use crate::error::{ApiError, FieldError, Problem};
use crate::etag::Conditions;
use crate::extract::{PathId, Query, Raw, escape, negotiate};
use crate::idempotency::IdempotencyKey;
use crate::limits::{FILENAME_BYTES, Limits};
use crate::page::Page;
use crate::reply::Reply;
use crate::state::AppState;

const UNKNOWN_TYPE: &str = "application/octet-stream";
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

/// The body with the headers that tell what it is.
#[derive(Debug)]
pub(super) struct Upload {
    conditions: Conditions,
    headers: HeaderMap,
    body: Bytes,
}

impl FromRequest<AppState> for Upload {
    type Rejection = ApiError;
    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        let (mut parts, body) = request.into_parts();
        let headers = parts.headers.clone();
        let Ok(conditions) = Conditions::from_request_parts(&mut parts, state).await;
        let Raw(body) = Raw::from_request(Request::from_parts(parts, body), state).await?;
        Ok(Self { conditions, headers, body })
    }
}

/// Attaches files: parts of `multipart/form-data` named `file`, or the body itself with `filename=`. One file is
/// answered by itself, several as a list; the answer carries the draft's new ETag.
#[utoipa::path(post, path = "/api/compose/{id}/attachments", tag = "compose", security(("bearer" = [])),
    params(("id" = Uuid, Path), AttachQuery, ("If-Match" = Option<String>, Header, description = "the ETag that was read")), request_body(content((FileForm = "multipart/form-data"), (Vec<u8> = "application/octet-stream"))),
    responses((status = 201, body = AttachmentView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn attach_file(
    State(state): State<AppState>,
    caller: Caller,
    PathId(id): PathId<DraftId>,
    Query(query): Query<AttachQuery>,
    key: IdempotencyKey,
    upload: Upload,
) -> Result<Response, ApiError> {
    let Upload { conditions, headers, body } = upload;
    let (files, hash) = read_files(&headers, body, &query).await;
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
        let mut tx = key.tx(&state, &caller).await?;
        let current = draft::get_for_update(&mut tx, id).await?.ok_or_else(ApiError::not_found)?;
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

/// The files of a request, and what a form is told apart by.
async fn read_files(
    headers: &HeaderMap,
    body: Bytes,
    query: &AttachQuery,
) -> (Result<Vec<NewAttachment>, ApiError>, Option<[u8; 32]>) {
    let essence = negotiate::content_type(headers).0;
    if essence != "multipart/form-data" {
        return (one_file(essence, body, query).and_then(|f| placed(vec![f], query)), None);
    }
    match read_multipart(headers, body).await {
        Ok(parts) => (files_of(&parts).and_then(|files| placed(files, query)), Some(form_hash(&parts))),
        Err(malformed) => (Err(malformed), None),
    }
}

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

fn one_file(essence: String, body: Bytes, query: &AttachQuery) -> Result<NewAttachment, ApiError> {
    let name = query.filename.as_deref().ok_or_else(|| {
        ApiError::invalid_parameter(
            "name the file with filename=, or send it as a part of multipart/form-data",
        )
    })?;
    // What curl says unless told otherwise says nothing about the file.
    let unsaid = essence.is_empty() || essence == "application/x-www-form-urlencoded";
    file(name, if unsaid { UNKNOWN_TYPE.to_owned() } else { essence }, body)
}

/// A part of a form, as it was sent.
#[derive(Debug)]
struct Part {
    field: String,
    filename: Option<String>,
    content_type: Option<String>,
    content: Bytes,
}

async fn read_multipart(headers: &HeaderMap, body: Bytes) -> Result<Vec<Part>, ApiError> {
    let malformed = |text: String| {
        // The parser's words may repeat a header of the part.
        ApiError::malformed_multipart(format!("the form cannot be read: {}", clean_text(&text, 200)))
    };
    let mut request = Request::new(Body::from(body));
    if let Some(value) = headers.get(header::CONTENT_TYPE) {
        request.headers_mut().insert(header::CONTENT_TYPE, value.clone());
    }
    // The body is in memory already, within the limit of the route.
    DefaultBodyLimit::disable().apply(&mut request);
    let mut form = Multipart::from_request(request, &()).await.map_err(|e| malformed(e.body_text()))?;
    let mut parts = Vec::new();
    while let Some(part) = form.next_field().await.map_err(|e| malformed(e.body_text()))? {
        parts.push(Part {
            field: part.name().unwrap_or_default().to_owned(),
            filename: part.file_name().map(str::to_owned),
            content_type: part.content_type().map(str::to_owned),
            content: part.bytes().await.map_err(|e| malformed(e.body_text()))?,
        });
    }
    Ok(parts)
}

fn files_of(parts: &[Part]) -> Result<Vec<NewAttachment>, ApiError> {
    if let Some(other) = parts.iter().find(|p| p.field != "file") {
        return Err(ApiError::invalid_field(
            &format!("/{}", escape(&clean_text(&other.field, 100))),
            "unknown-field",
            "only parts named file are read here",
        ));
    }
    if parts.is_empty() {
        return Err(ApiError::invalid_field("/file", "missing", "send at least one file"));
    }
    let read = |part: &Part| {
        let content_type = part.content_type.clone().unwrap_or_else(|| UNKNOWN_TYPE.to_owned());
        file(part.filename.as_deref().unwrap_or(NAMELESS), content_type, part.content.clone())
    };
    parts.iter().map(read).collect()
}

/// A form's boundary is made anew each time it is sent; its parts tell whether it is the same form. Lengths stand before
/// texts, so that no two lists of parts run together alike.
fn form_hash(parts: &[Part]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        for text in [Some(&part.field), part.filename.as_ref(), part.content_type.as_ref()] {
            let bytes = text.map(|t| t.as_bytes());
            hash.update([u8::from(bytes.is_some())]);
            hash.update(bytes.map_or(0, <[u8]>::len).to_be_bytes());
            hash.update(bytes.unwrap_or_default());
        }
        hash.update(part.content.len().to_be_bytes());
        hash.update(&part.content);
    }
    hash.finalize().into()
}

/// The file under a name that is safe to save under wherever it arrives: no path, nothing invisible or reordering, nothing
/// that a file system reads as its own (`safe_filename`).
fn file(name: &str, content_type: String, content: Bytes) -> Result<NewAttachment, ApiError> {
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
    Ok(NewAttachment {
        filename,
        content_type: media_type(&content_type),
        inline: false,
        content_id: None,
        content,
    })
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
