//! `POST /api/compose/{id}/attachments`

use std::time::Instant;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts as _, Multipart, Request, State};
use axum::response::Response;
use emailclient_core::db::{DbError, TenantTx};
use emailclient_core::draft::spool::{Contents, PIECE_BYTES, Spool};
use emailclient_core::draft::{self, Draft, NewAttachment};
use emailclient_core::id::DraftId;
use futures::StreamExt as _;
use http::{HeaderMap, StatusCode, header};
use mail::address::clean_text;
use mail::error::check_single_line;
use mail::mime::safe_filename;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use utoipa::IntoParams;

use super::create::{attach_refusal, reread};
use super::replace::editable;
use super::shape::{AttachmentView, tag};
use crate::again;
use crate::caller::Caller;
use crate::context::Context;
use crate::error::{ApiError, FieldError, Problem};
use crate::etag::Conditions;
use crate::extract::body::Arriving;
use crate::extract::{self, PathId, Query, escape, negotiate};
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

/// The body, unread, with the headers that tell what it is.
#[derive(Debug)]
pub(super) struct Upload {
    conditions: Conditions,
    headers: HeaderMap,
    body: Arriving,
    context: Context,
}

impl FromRequest<AppState> for Upload {
    type Rejection = ApiError;
    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        let (mut parts, body) = request.into_parts();
        negotiate::check_encoding(&parts.headers)?;
        let body = Arriving::new(&parts, body, extract::rules(&parts).body_limit)?;
        let Ok(conditions) = Conditions::from_request_parts(&mut parts, state).await;
        Ok(Self { conditions, body, context: Context::of(&parts), headers: parts.headers })
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
    let Upload { conditions, headers, body, context } = upload;
    // What nobody may upload is not read, but for what fits into one piece: of that, what is unreadable is told first, as of any
    // body. A repetition is read, for it is answered even when the draft is gone.
    if body.announced().is_none_or(|n| n > PIECE_BYTES) && !key.is_known(&state, &caller).await? {
        let mut look = caller.tx(&state).await?;
        let draft = draft::get(&mut look, id).await?.ok_or_else(ApiError::not_found)?;
        look.release();
        conditions.check_match(&tag(&draft))?;
        editable(&draft)?;
    }
    let mut spool = Spool::new(&state.db, caller.tenant);
    let held = state.lines.take(Some(caller.tenant), 2 * PIECE_BYTES).await?;
    let mut digest = Sha256::new();
    let files = read_files(&headers, body, &query, &mut spool, &mut digest).await;
    drop(held);
    // A body that did not arrive is nothing to be kept under a key.
    let files = match files {
        Err(error)
            if [StatusCode::REQUEST_TIMEOUT, StatusCode::SERVICE_UNAVAILABLE].contains(&error.status()) =>
        {
            return Err(error);
        }
        other => other,
    };
    context.set_body_hash(digest.finalize().into());
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

/// Reads the files of a body. `digest` takes what was sent, however it was wrapped: a form is its parts, not the boundary
/// between them.
async fn read_files(
    headers: &HeaderMap,
    body: Arriving,
    query: &AttachQuery,
    spool: &mut Spool,
    digest: &mut Sha256,
) -> Result<Vec<NewAttachment>, ApiError> {
    let essence = negotiate::content_type(headers).0;
    let content_id = query.content_id.as_deref().map(content_id).transpose()?;
    if query.inline && content_id.is_none() {
        let detail = "a file shown inside the HTML needs the content_id that the HTML names";
        return Err(ApiError::invalid_field("/content_id", "missing", detail));
    }
    let mut files = if essence == "multipart/form-data" {
        read_multipart(headers, body, spool, digest).await?
    } else {
        let name = query.filename.as_deref().ok_or_else(|| {
            ApiError::invalid_parameter(
                "name the file with filename=, or send it as a part of multipart/form-data",
            )
        })?;
        // What curl says unless told otherwise says nothing about the file.
        let unsaid = essence.is_empty() || essence == "application/x-www-form-urlencoded";
        let content_type = if unsaid { UNKNOWN_TYPE.to_owned() } else { essence };
        let named = Named::new(name, &content_type)?;
        let mut incoming = spool.file();
        let (mut pieces, refusal) = body.pieces();
        while let Some(piece) = pieces.next().await {
            incoming.push(&piece.map_err(|e| refusal.take(e))?).await?;
        }
        let (content, hash) = incoming.end().await?;
        digest.update(hash);
        vec![named.with(content)]
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
    let mut parts = Multipart::from_request(request, &()).await.map_err(|e| malformed(e.body_text()))?;
    let mut files = Vec::new();
    while let Some(mut part) = parts.next_field().await.map_err(|e| malformed(e.body_text()))? {
        let field = part.name().unwrap_or_default().to_owned();
        if field != "file" {
            return Err(ApiError::invalid_field(
                &format!("/{}", escape(&clean_text(&field, 100))),
                "unknown-field",
                "only parts named file are read here",
            ));
        }
        let named =
            Named::new(part.file_name().unwrap_or(NAMELESS), part.content_type().unwrap_or(UNKNOWN_TYPE))?;
        let mut incoming = spool.file();
        while let Some(piece) = part.chunk().await.map_err(|e| malformed(e.body_text()))? {
            incoming.push(&piece).await?;
        }
        let (content, hash) = incoming.end().await?;
        for told in [named.filename.as_bytes(), named.content_type.as_bytes(), &hash] {
            digest.update(told.len().to_be_bytes());
            digest.update(told);
        }
        files.push(named.with(content));
    }
    if files.is_empty() {
        return Err(ApiError::invalid_field("/file", "missing", "send at least one file"));
    }
    Ok(files)
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
mod tests {
    use bytes::Bytes;
    use emailclient_core::config::{Config, Source};
    use emailclient_core::db::Db;
    use emailclient_core::id::TenantId;

    use super::*;

    fn multipart(body: &'static str) -> (HeaderMap, Bytes) {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, "multipart/form-data; boundary=b".parse().unwrap());
        (headers, Bytes::from_static(body.as_bytes()))
    }

    /// What is small needs no database, so this one is never asked.
    async fn read(
        headers: &HeaderMap,
        body: Bytes,
        query: &AttachQuery,
    ) -> Result<Vec<NewAttachment>, ApiError> {
        let settings = [
            ("DATABASE_URL", "postgres://a@127.0.0.1:1/a"),
            ("DATABASE_SYSTEM_URL", "postgres://a@127.0.0.1:1/a"),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let db = Db::new(&Config::read(&Source::new(settings))).unwrap();
        let mut request = Request::new(Body::from(body));
        *request.headers_mut() = headers.clone();
        let (parts, body) = request.into_parts();
        let body = Arriving::new(&parts, body, 1 << 20).unwrap();
        read_files(headers, body, query, &mut Spool::new(&db, TenantId::new()), &mut Sha256::new()).await
    }

    fn here(file: &NewAttachment) -> &[u8] {
        match &file.content {
            Contents::Here(bytes) => bytes,
            Contents::Spooled { .. } => panic!("a small file was written to the database"),
        }
    }

    const QUERY: AttachQuery = AttachQuery { filename: None, inline: false, content_id: None };

    #[tokio::test]
    async fn parts_named_file_are_files() {
        let (headers, body) = multipart(
            "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\nContent-Type: text/plain\r\n\r\nhello\r\n--b--\r\n",
        );
        let files = read(&headers, body, &QUERY).await.unwrap();
        assert_eq!(
            (files[0].filename.as_str(), files[0].content_type.as_str(), here(&files[0])),
            ("a.txt", "text/plain", &b"hello"[..])
        );
    }

    #[tokio::test]
    async fn parts_of_another_name_are_refused_by_their_name() {
        let (headers, body) = multipart(
            "--b\r\nContent-Disposition: form-data; name=\"other\"; filename=\"a.txt\"\r\n\r\nhello\r\n--b--\r\n",
        );
        let error = read(&headers, body, &QUERY).await.unwrap_err();
        assert_eq!(
            (error.code(), error.problem().errors[0].pointer.as_str()),
            ("validation-error", "/other")
        );
    }

    #[tokio::test]
    async fn what_is_shown_inside_the_html_has_a_name_there() {
        let query = AttachQuery { filename: Some("a.png".into()), inline: true, content_id: None };
        let error = read(&HeaderMap::new(), Bytes::from_static(b"x"), &query).await.unwrap_err();
        assert_eq!(
            (error.code(), error.problem().errors[0].pointer.as_str()),
            ("validation-error", "/content_id")
        );
    }

    #[tokio::test]
    async fn a_form_without_files_is_422_and_what_cannot_be_read_400() {
        for body in ["--b--\r\n", "--b\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\n1\r\n--b--\r\n"] {
            let (headers, body) = multipart(body);
            assert_eq!(read(&headers, body, &QUERY).await.unwrap_err().code(), "validation-error");
        }
        for body in [
            "nonsense",
            "",
            "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\ncut off",
            "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n",
        ] {
            let (headers, body) = multipart(body);
            assert_eq!(read(&headers, body, &QUERY).await.unwrap_err().code(), "malformed-multipart");
        }
        let error = read(&HeaderMap::new(), Bytes::from_static(b"x"), &QUERY).await.unwrap_err();
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
            assert_eq!(Named::new(name, "").unwrap().filename, kept, "{name}");
        }
        let long = format!("{}.pdf", "ü".repeat(300));
        let kept = Named::new(&long, "").unwrap().filename;
        assert!(kept.len() <= 255 && kept.ends_with(".pdf"), "{kept}");
        let over = Named::new(&"x".repeat(1025), "").err().unwrap();
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
        let files = read(&HeaderMap::new(), Bytes::from_static(b"x"), &query).await.unwrap();
        assert_eq!((files[0].content_id.as_deref(), files[0].inline), (Some("logo@x"), true));
        let query = AttachQuery { filename: Some("a\r\nb".into()), ..query };
        assert_eq!(read(&HeaderMap::new(), Bytes::new(), &query).await.unwrap_err().code(), "invalid-header");
    }
}
