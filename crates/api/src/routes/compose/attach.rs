//! `POST /api/compose/{id}/attachments`

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts as _, Multipart, Request, State};
use axum::response::Response;
use bytes::Bytes;
use emailclient_core::draft::{self, NewAttachment};
use emailclient_core::id::DraftId;
use http::{HeaderMap, header};
use mail::error::check_single_line;
use serde::Deserialize;
use utoipa::IntoParams;

use super::create::{attach_refusal, reread};
use super::replace::editable;
use super::shape::{AttachmentView, tag};
use crate::caller::Caller;
use crate::error::{ApiError, FieldError, Problem};
use crate::etag::Conditions;
use crate::extract::{PathId, Query, Raw, negotiate};
use crate::idempotency::IdempotencyKey;
use crate::page::Page;
use crate::reply::Reply;
use crate::state::AppState;

const UNKNOWN_TYPE: &str = "application/octet-stream";
/// Longest file name that common file systems take.
const MAX_NAME_BYTES: usize = 255;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct AttachQuery {
    /// The file's name; needed when the body is the file itself.
    filename: Option<String>,
    /// Shown inside the HTML, which names it by `cid:`.
    #[serde(default)]
    inline: bool,
    /// Content-ID without angle brackets.
    content_id: Option<String>,
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

/// Attaches files: parts of `multipart/form-data` with a file name, or the body itself with `filename=`. One file is
/// answered by itself, several as a list; the answer carries the draft's new ETag.
#[utoipa::path(post, path = "/api/compose/{id}/attachments", tag = "compose", security(("bearer" = [])),
    params(("id" = Uuid, Path), AttachQuery), request_body(content = Vec<u8>, content_type = "multipart/form-data"),
    responses((status = 201, body = AttachmentView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn attach_file(
    State(state): State<AppState>,
    caller: Caller,
    PathId(id): PathId<DraftId>,
    Query(query): Query<AttachQuery>,
    key: IdempotencyKey,
    upload: Upload,
) -> Result<Response, ApiError> {
    key.once(&state, &caller, async {
        let Upload { conditions, headers, body } = upload;
        let files = read_files(&headers, body, &query).await;
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

async fn read_files(
    headers: &HeaderMap,
    body: Bytes,
    query: &AttachQuery,
) -> Result<Vec<NewAttachment>, ApiError> {
    let essence = negotiate::content_type(headers).0;
    let content_id = query.content_id.as_deref().map(content_id).transpose()?;
    let mut files = if essence == "multipart/form-data" {
        read_multipart(headers, body).await?
    } else {
        let name = query.filename.as_deref().ok_or_else(|| {
            ApiError::invalid_parameter(
                "name the file with filename=, or send it as a part of multipart/form-data",
            )
        })?;
        // What curl says unless told otherwise says nothing about the file.
        let unsaid = essence.is_empty() || essence == "application/x-www-form-urlencoded";
        let content_type = if unsaid { UNKNOWN_TYPE.to_owned() } else { essence };
        vec![file(name, content_type, body)?]
    };
    if content_id.is_some() && files.len() > 1 {
        return Err(ApiError::invalid_parameter("content_id belongs to one file"));
    }
    for file in &mut files {
        file.inline = query.inline;
        file.content_id.clone_from(&content_id);
    }
    Ok(files)
}

async fn read_multipart(headers: &HeaderMap, body: Bytes) -> Result<Vec<NewAttachment>, ApiError> {
    let malformed = |text: String| {
        ApiError::invalid_field("", "malformed", &format!("the multipart body cannot be read: {text}"))
    };
    let mut request = Request::new(Body::from(body));
    if let Some(value) = headers.get(header::CONTENT_TYPE) {
        request.headers_mut().insert(header::CONTENT_TYPE, value.clone());
    }
    // The body is in memory already, within the limit of the route.
    DefaultBodyLimit::disable().apply(&mut request);
    let mut parts = Multipart::from_request(request, &()).await.map_err(|e| malformed(e.body_text()))?;
    let mut files = Vec::new();
    while let Some(part) = parts.next_field().await.map_err(|e| malformed(e.body_text()))? {
        let field = part.name().unwrap_or_default().to_owned();
        let name = match part.file_name() {
            Some(name) => name.to_owned(),
            None if field == "file" => "attachment".to_owned(),
            None => {
                return Err(ApiError::invalid_field(
                    &format!("/{field}"),
                    "unknown-field",
                    "only files are read here",
                ));
            }
        };
        let content_type = part.content_type().unwrap_or(UNKNOWN_TYPE).to_owned();
        let content = part.bytes().await.map_err(|e| malformed(e.body_text()))?;
        files.push(file(&name, content_type, content)?);
    }
    if files.is_empty() {
        return Err(ApiError::invalid_field("/file", "missing", "send at least one file"));
    }
    Ok(files)
}

fn file(name: &str, content_type: String, content: Bytes) -> Result<NewAttachment, ApiError> {
    let bad = name.trim().is_empty() || name.len() > MAX_NAME_BYTES || check_single_line(name).is_err();
    if bad {
        let detail = "a file name has 1 to 255 bytes and no line breaks";
        return Err(ApiError::invalid_header(detail).with_errors([FieldError::new(
            "/filename",
            "invalid-header",
            detail,
        )]));
    }
    Ok(NewAttachment { filename: name.to_owned(), content_type, inline: false, content_id: None, content })
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
mod tests {
    use super::*;

    fn multipart(body: &'static str) -> (HeaderMap, Bytes) {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, "multipart/form-data; boundary=b".parse().unwrap());
        (headers, Bytes::from_static(body.as_bytes()))
    }

    const QUERY: AttachQuery = AttachQuery { filename: None, inline: false, content_id: None };

    #[tokio::test]
    async fn parts_with_a_file_name_are_files() {
        let (headers, body) = multipart(
            "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\nContent-Type: text/plain\r\n\r\nhello\r\n--b--\r\n",
        );
        let files = read_files(&headers, body, &QUERY).await.unwrap();
        assert_eq!(
            (files[0].filename.as_str(), files[0].content_type.as_str(), &files[0].content[..]),
            ("a.txt", "text/plain", &b"hello"[..])
        );
    }

    #[tokio::test]
    async fn a_broken_or_empty_form_is_422_and_a_nameless_body_400() {
        for body in [
            "--b--\r\n",
            "nonsense",
            "--b\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\n1\r\n--b--\r\n",
        ] {
            let (headers, body) = multipart(body);
            assert_eq!(read_files(&headers, body, &QUERY).await.unwrap_err().status(), 422);
        }
        let error = read_files(&HeaderMap::new(), Bytes::from_static(b"x"), &QUERY).await.unwrap_err();
        assert_eq!(error.code(), "invalid-parameter");
    }

    #[tokio::test]
    async fn a_raw_body_takes_name_and_content_id_from_the_query() {
        let query =
            AttachQuery {
                filename: Some("ü.png".into()), inline: true, content_id: Some("<logo@x>".into())
            };
        let files = read_files(&HeaderMap::new(), Bytes::from_static(b"x"), &query).await.unwrap();
        assert_eq!((files[0].content_id.as_deref(), files[0].inline), (Some("logo@x"), true));
        let query = AttachQuery { filename: Some("a\r\nb".into()), ..query };
        assert_eq!(
            read_files(&HeaderMap::new(), Bytes::new(), &query).await.unwrap_err().code(),
            "invalid-header"
        );
    }
}
