//! What a tenant shows of itself on the page.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Value, json};
use tests::app::{App, Tenant, send};
use tests::scripted::{self, Scripted};
use tests::tls::{Authority, Fault};
use tests::visitor::{self, Visitor};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// A ring and three bars.
const LOGO: &[u8] = include_bytes!("logo.png");
const SVG: &[u8] = b"<svg xmlns=\"http://www.w3.org/2000/svg\"><script>alert(1)</script></svg>";

/// A web server that has these answers, by path.
pub async fn web(pages: Vec<(&'static str, Vec<u8>)>) -> Scripted {
    let pages: Arc<HashMap<&str, Vec<u8>>> = Arc::new(pages.into_iter().collect());
    scripted::serve(move |mut stream| {
        let pages = Arc::clone(&pages);
        async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let Ok(byte) = stream.read_u8().await else { return };
                head.push(byte);
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            let path = head.split(' ').nth(1).unwrap_or_default();
            let nothing = answer("404 Not Found", "text/plain", b"");
            let _ = stream.write_all(pages.get(path).unwrap_or(&nothing)).await;
            let _ = stream.shutdown().await;
        }
    })
    .await
}

pub fn answer(status: &str, kind: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

async fn set(app: &App, tenant: &Tenant, branding: &Value) -> Value {
    app.patch(tenant, "/api/tenant", &json!({"branding": branding})).await.expect(200)
}

/// The code of the refusal at this place.
async fn refused(app: &App, tenant: &Tenant, branding: &Value, pointer: &str) -> String {
    let answer = app.patch(tenant, "/api/tenant", &json!({"branding": branding})).await;
    let problem = answer.refused(422, "validation-error");
    let errors = problem["errors"].as_array().unwrap();
    let error = errors.iter().find(|error| error["pointer"] == pointer);
    error.unwrap_or_else(|| panic!("{branding}: {problem}"))["code"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_has_the_tenants_name_colour_and_logo_which_is_served_from_here() {
    let authority = Authority::new();
    let plain = web(vec![("/logo.png", answer("200 OK", "image/png", LOGO))]).await;
    let behind_tls = authority.before(plain.port, Fault::None).await;
    let ca = authority.file.to_str().unwrap().to_owned();
    let (app, _names) = visitor::start_with(&[("TLS_EXTRA_CA_FILE", &ca)]).await;
    let tenant = visitor::registered(&app).await;
    assert_eq!(app.get(&tenant, "/api/tenant").await.expect(200)["branding"], Value::Null);
    let person = Visitor::sent(&app, &tenant, &json!({})).await;
    person.shows(200, "A tenant will be able to read and send your email");
    assert!(!person.page.header("content-security-policy").contains("img-src"));
    let url = format!("https://localhost:{}/logo.png", behind_tls.port);
    let told =
        set(&app, &tenant, &json!({"name": " Fjord & Sons <b>", "logo_url": url, "colour": "#FC0"})).await;
    let expected = json!({"name": "Fjord & Sons <b>", "logo_url": url, "colour": "#ffcc00"});
    assert_eq!((&told["branding"], told["redirect_urls"].as_array().unwrap().len()), (&expected, 1));
    assert_eq!(app.get(&tenant, "/api/tenant").await.expect(200)["branding"], expected);
    // Its host is not asked again by anybody.
    drop((behind_tls, plain));
    let person = Visitor::sent(&app, &tenant, &json!({})).await;
    person.shows(200, "Fjord &#38; Sons &#60;b&#62; will be able to read");
    person.shows(200, "<title>Connect your mailbox – Fjord &#38; Sons &#60;b&#62;</title>");
    person.shows(200, "--button: #ffcc00; --on-button: #101318;");
    assert!(!person.page.text().contains("localhost"), "{}", person.page.text());
    assert!(person.page.header("content-security-policy").contains("img-src 'self';"));
    let html = person.page.text();
    let src = html.split("<img src=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let logo = send(app.http.get(format!("{}{src}", app.base))).await;
    assert_eq!(
        (logo.status, logo.bytes.as_slice(), logo.header("content-type").as_str()),
        (200, LOGO, "image/png")
    );
    assert_eq!(logo.header("x-content-type-options"), "nosniff");
    assert!(logo.header("content-security-policy").starts_with("default-src 'none'; sandbox"));
    assert!(logo.header("cache-control").contains("immutable"));
    let (stem, last) = src.split_at(src.len() - 1);
    let forged = format!("{stem}{}", if last == "A" { "B" } else { "A" });
    for wrong in [forged.as_str(), "/connect/logo/x", "/connect/logo/%00"] {
        send(app.http.get(format!("{}{wrong}", app.base))).await.refused(404, "not-found");
    }
    // What is left out is not shown any more; an old address of the logo is none.
    let told = set(&app, &tenant, &json!({"name": "Fjord"})).await;
    assert_eq!(told["branding"], json!({"name": "Fjord", "logo_url": null, "colour": null}));
    send(app.http.get(format!("{}{src}", app.base))).await.refused(404, "not-found");
    // Another tenant's page has nothing of it.
    let other = visitor::registered(&app).await;
    let person = Visitor::sent(&app, &other, &json!({})).await;
    assert!(!person.page.text().contains("Fjord"));
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_branding_that_cannot_be_shown_is_refused_with_its_place() {
    let large = [LOGO, &vec![0; 300 * 1024]].concat();
    let endless =
        b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 1000000000\r\n\r\n".to_vec();
    let web = web(vec![
        ("/svg", answer("200 OK", "image/svg+xml", SVG)),
        ("/svg-as-png", answer("200 OK", "image/png", SVG)),
        ("/png-as-html", answer("200 OK", "text/html", LOGO)),
        ("/html", answer("200 OK", "text/html", b"<!doctype html><script>alert(1)</script>")),
        ("/gone", answer("410 Gone", "image/png", LOGO)),
        (
            "/moved",
            b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n".to_vec(),
        ),
        ("/empty", answer("200 OK", "image/png", b"")),
        ("/large", answer("200 OK", "image/png", &large)),
        ("/endless", endless),
        ("/half", answer("200 OK", "image/png", LOGO)[..200].to_vec()),
        ("/noise", b"what?\r\n\r\n".to_vec()),
        ("/unnamed", answer("200 OK", "application/octet-stream", LOGO)),
    ])
    .await;
    let (app, _names) = visitor::start().await;
    let tenant = visitor::registered(&app).await;
    let logo = |path: &str| json!({"name": "x", "logo_url": format!("http://127.0.0.1:{}{path}", web.port)});
    for path in [
        "/svg",
        "/svg-as-png",
        "/png-as-html",
        "/html",
        "/gone",
        "/moved",
        "/empty",
        "/large",
        "/noise",
        "/none",
    ] {
        assert_eq!(
            refused(&app, &tenant, &logo(path), "/branding/logo_url").await,
            "not-a-picture",
            "{path}"
        );
    }
    for path in ["/endless", "/half"] {
        let code = refused(&app, &tenant, &logo(path), "/branding/logo_url").await;
        assert!(["not-a-picture", "upstream-closed"].contains(&code.as_str()), "{path}: {code}");
    }
    for (url, code) in [
        ("http://8.8.8.8/logo.png", "https-required"),
        ("https://10.0.0.1/logo.png", "host-not-allowed"),
        ("https://169.254.169.254/latest", "host-not-allowed"),
        ("https://user:secret@localhost/logo.png", "credentials"),
        ("https://no-such-host.test/logo.png", "host-not-found"),
        ("javascript:alert(1)", "https-required"),
        ("data:image/png;base64,AAAA", "https-required"),
        ("logo.png", "invalid"),
        ("https://localhost:1/logo.png", "upstream-unreachable"),
    ] {
        let brand = json!({"name": "x", "logo_url": url});
        assert_eq!(refused(&app, &tenant, &brand, "/branding/logo_url").await, code, "{url}");
    }
    for colour in ["red", "#12345", "#1234567", "1a5fc4", "#fff;}body{display:none", "", "#ggg"] {
        let brand = json!({"name": "x", "colour": colour});
        assert_eq!(refused(&app, &tenant, &brand, "/branding/colour").await, "invalid", "{colour}");
    }
    for (name, code) in [("", "empty"), ("  ", "empty"), ("a\nb", "invalid"), (&*"x".repeat(201), "too-long")]
    {
        assert_eq!(refused(&app, &tenant, &json!({"name": name}), "/branding/name").await, code, "{name:?}");
    }
    assert_eq!(refused(&app, &tenant, &json!({"colour": "#fff"}), "/branding/name").await, "missing");
    assert_eq!(app.get(&tenant, "/api/tenant").await.expect(200)["branding"], Value::Null);
    assert_eq!(set(&app, &tenant, &logo("/unnamed")).await["branding"]["name"], "x");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_was_said_becomes_part_of_the_page() {
    let (app, _names) = visitor::start().await;
    let tenant = visitor::registered(&app).await;
    let script = "</style></title>\"'><script>alert(1)</script>{{7*7}}";
    set(&app, &tenant, &json!({"name": script})).await;
    let mut person = Visitor::sent(&app, &tenant, &json!({"email": script, "state": script})).await;
    person.shows(200, "&#60;script&#62;alert(1)");
    person.shows(200, "value=\"&#60;/style&#62;");
    assert!(person.page.text().contains("{{7*7}}"));
    person.submit("address", &[("email", "\"<script>alert(1)</script>\"@lab.test")]).await;
    assert!([200, 422].contains(&person.page.status), "{}", person.page.status);
    let status = person.page.status;
    person.shows(status, "&#60;script&#62;alert(1)");
    let location = person.submit("cancel", &[]).await.unwrap();
    assert!(!location.contains(['<', '"', '\'']), "{location}");
    let person = Visitor::open(&app, &person.path).await;
    person.shows(410, "Back to &#60;/style&#62;");
    app.finish().await;
}
