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
use utoipa::IntoParams;

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
        // What cannot be read at all is told at once, what it means only after the draft was found.
        let files = match read_files(&headers, body, &query).await {
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

async fn read_files(
    headers: &HeaderMap,
    body: Bytes,
    query: &AttachQuery,
) -> Result<Vec<NewAttachment>, ApiError> {
    let essence = negotiate::content_type(headers).0;
    let content_id = query.content_id.as_deref().map(content_id).transpose()?;
    if query.inline && content_id.is_none() {
        let detail = "a file shown inside the HTML needs the content_id that the HTML names";
        return Err(ApiError::invalid_field("/content_id", "missing", detail));
    }
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
        // The parser's words may repeat a header of the part.
        ApiError::malformed_multipart(format!("the form cannot be read: {}", clean_text(&text, 200)))
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
        if field != "file" {
            return Err(ApiError::invalid_field(
                &format!("/{}", escape(&clean_text(&field, 100))),
                "unknown-field",
                "only parts named file are read here",
            ));
        }
        let name = part.file_name().unwrap_or(NAMELESS).to_owned();
        let content_type = part.content_type().unwrap_or(UNKNOWN_TYPE).to_owned();
        let content = part.bytes().await.map_err(|e| malformed(e.body_text()))?;
        files.push(file(&name, content_type, content)?);
    }
    if files.is_empty() {
        return Err(ApiError::invalid_field("/file", "missing", "send at least one file"));
    }
    Ok(files)
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
mod tests {
    use super::*;

    fn multipart(body: &'static str) -> (HeaderMap, Bytes) {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, "multipart/form-data; boundary=b".parse().unwrap());
        (headers, Bytes::from_static(body.as_bytes()))
    }

    const QUERY: AttachQuery = AttachQuery { filename: None, inline: false, content_id: None };

    #[tokio::test]
    async fn parts_named_file_are_files() {
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
    async fn parts_of_another_name_are_refused_by_their_name() {
        let (headers, body) = multipart(
            "--b\r\nContent-Disposition: form-data; name=\"other\"; filename=\"a.txt\"\r\n\r\nhello\r\n--b--\r\n",
        );
        let error = read_files(&headers, body, &QUERY).await.unwrap_err();
        assert_eq!(
            (error.code(), error.problem().errors[0].pointer.as_str()),
            ("validation-error", "/other")
        );
    }

    #[tokio::test]
    async fn what_is_shown_inside_the_html_has_a_name_there() {
        let query = AttachQuery { filename: Some("a.png".into()), inline: true, content_id: None };
        let error = read_files(&HeaderMap::new(), Bytes::from_static(b"x"), &query).await.unwrap_err();
        assert_eq!(
            (error.code(), error.problem().errors[0].pointer.as_str()),
            ("validation-error", "/content_id")
        );
    }

    #[tokio::test]
    async fn a_form_without_files_is_422_and_what_cannot_be_read_400() {
        for body in ["--b--\r\n", "--b\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\n1\r\n--b--\r\n"] {
            let (headers, body) = multipart(body);
            assert_eq!(read_files(&headers, body, &QUERY).await.unwrap_err().code(), "validation-error");
        }
        for body in [
            "nonsense",
            "",
            "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\ncut off",
            "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n",
        ] {
            let (headers, body) = multipart(body);
            assert_eq!(read_files(&headers, body, &QUERY).await.unwrap_err().code(), "malformed-multipart");
        }
        let error = read_files(&HeaderMap::new(), Bytes::from_static(b"x"), &QUERY).await.unwrap_err();
        assert_eq!(error.code(), "invalid-parameter");
    }

    #[test]
    fn names_and_types_are_kept_in_their_safe_form() {
        for (name, kept) in [
            ("../../etc/passwd", "passwd"),
            ("..", "attachment"),
            ("CON.txt", "_CON.txt"),
            ("a\u{202e}gpj.exe", "agpj.exe"),
            ("\"x\".pdf", "_x_.pdf"),
        ] {
            assert_eq!(file(name, String::new(), Bytes::new()).unwrap().filename, kept, "{name}");
        }
        let long = format!("{}.pdf", "ü".repeat(300));
        let kept = file(&long, String::new(), Bytes::new()).unwrap().filename;
        assert!(kept.len() <= 255 && kept.ends_with(".pdf"), "{kept}");
        let over = file(&"x".repeat(1025), String::new(), Bytes::new()).unwrap_err();
        assert_eq!(
            (over.code(), over.problem().errors[0].pointer.as_str()),
            ("validation-error", "/filename")
        );
        for (given, kept) in
            [("Image/PNG; q=1", "image/png"), ("no type", UNKNOWN_TYPE), ("a/b\" x", UNKNOWN_TYPE)]
        {
            assert_eq!(media_type(given), kept);
        }
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
