use bytes::Bytes;
use emailclient_core::platform::config::{Config, Source};
use emailclient_core::platform::db::Db;
use emailclient_core::platform::id::TenantId;

use super::*;

/// What is small needs no database, so this one is never asked.
async fn read(
    headers: &HeaderMap,
    body: Bytes,
    query: &AttachQuery,
) -> (Result<Vec<NewAttachment>, ApiError>, Option<[u8; 32]>) {
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
    super::read_files(headers, body, query, &mut Spool::new(&db, TenantId::new())).await
}

async fn read_files(
    headers: &HeaderMap,
    body: Bytes,
    query: &AttachQuery,
) -> Result<Vec<NewAttachment>, ApiError> {
    read(headers, body, query).await.0
}

fn here(file: &NewAttachment) -> &[u8] {
    match &file.content {
        Contents::Here(bytes) => bytes,
        Contents::Spooled { .. } => panic!("a small file was written to the database"),
    }
}

#[tokio::test]
async fn a_form_is_told_apart_by_its_parts_and_not_by_its_boundary() {
    let hash = async |boundary: &str, parts: &[(&str, &str)]| {
        let mut headers = HeaderMap::new();
        let kind = format!("multipart/form-data; boundary={boundary}");
        headers.insert(header::CONTENT_TYPE, kind.parse().unwrap());
        let mut body = String::new();
        for (head, content) in parts {
            body.push_str(&format!(
                "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; {head}\r\n\r\n{content}\r\n"
            ));
        }
        body.push_str(&format!("--{boundary}--\r\n"));
        read(&headers, body.into(), &QUERY).await.1.unwrap()
    };
    let parts = [("filename=\"a\"", "one"), ("filename=\"b\"", "two")];
    let first = hash("b", &parts).await;
    assert_eq!(first, hash("another", &parts).await);
    for other in [
        &[("filename=\"a\"", "one")][..],
        &[("filename=\"b\"", "two"), ("filename=\"a\"", "one")],
        &[("filename=\"a\"", "onet"), ("filename=\"b\"", "wo")],
        &[("filename=\"c\"", "one"), ("filename=\"b\"", "two")],
        &[("filename=\"a\"\r\nContent-Type: text/plain", "one"), ("filename=\"b\"", "two")],
    ] {
        assert_ne!(first, hash("b", other).await, "{other:?}");
    }
}

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
        (files[0].filename.as_str(), files[0].content_type.as_str(), here(&files[0])),
        ("a.txt", "text/plain", &b"hello"[..])
    );
}

#[tokio::test]
async fn parts_of_another_name_are_refused_by_their_name() {
    let (headers, body) = multipart(
        "--b\r\nContent-Disposition: form-data; name=\"other\"; filename=\"a.txt\"\r\n\r\nhello\r\n--b--\r\n",
    );
    let error = read_files(&headers, body, &QUERY).await.unwrap_err();
    assert_eq!((error.code(), error.problem().errors[0].pointer.as_str()), ("validation-error", "/other"));
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
        assert_eq!(Named::new(name, "").unwrap().filename, kept, "{name}");
    }
    let long = format!("{}.pdf", "ü".repeat(300));
    let kept = Named::new(&long, "").unwrap().filename;
    assert!(kept.len() <= 255 && kept.ends_with(".pdf"), "{kept}");
    let over = Named::new(&"x".repeat(1025), "").err().unwrap();
    assert_eq!((over.code(), over.problem().errors[0].pointer.as_str()), ("validation-error", "/filename"));
    for (given, kept) in
        [("Image/PNG; q=1", "image/png"), ("no type", UNKNOWN_TYPE), ("a/b\" x", UNKNOWN_TYPE)]
    {
        assert_eq!(media_type(given), kept);
    }
}

#[tokio::test]
async fn a_raw_body_takes_name_and_content_id_from_the_query() {
    let query =
        AttachQuery { filename: Some("ü.png".into()), inline: true, content_id: Some("<logo@x>".into()) };
    let files = read_files(&HeaderMap::new(), Bytes::from_static(b"x"), &query).await.unwrap();
    assert_eq!((files[0].content_id.as_deref(), files[0].inline), (Some("logo@x"), true));
    let query = AttachQuery { filename: Some("a\r\nb".into()), ..query };
    assert_eq!(
        read_files(&HeaderMap::new(), Bytes::new(), &query).await.unwrap_err().code(),
        "invalid-header"
    );
}
