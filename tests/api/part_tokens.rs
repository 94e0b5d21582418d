//! Pictures of a message that a browser loads by their address alone.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use emailclient_api::part_token::{self, Whose};
use emailclient_core::platform::clock::{Clock as _, SystemClock};
use serde_json::{Value, json};
use tests::app::{Answer, App, Tenant, send};
use tests::chromium::Chromium;
use tests::eventually::eventually;
use tests::mail;

/// One pixel.
const PNG: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

fn message(n: usize) -> Vec<u8> {
    format!(
        "Message-ID: <{n}@odd.test>\r\nSubject: {n}\r\nContent-Type: multipart/mixed; boundary=m\r\n\r\n--m\r\n\
         Content-Type: multipart/related; boundary=b\r\n\r\n--b\r\nContent-Type: text/html\r\n\r\n<p>look</p><img src=\"cid:p@x\">\r\n\
         --b\r\nContent-Type: image/png\r\nContent-ID: <p@x>\r\nContent-Transfer-Encoding: base64\r\n\r\n{PNG}\r\n--b--\r\n\
         --m\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment; filename=a.pdf\r\n\r\nPDF\r\n--m--\r\n"
    )
    .into_bytes()
}

/// The ids of an account's messages.
async fn filled(app: &App, tenant: &Tenant, count: usize) -> Vec<String> {
    let user = mail::new_mailbox(app);
    mail::fill(app, &user, "INBOX", (0..count).map(message).collect());
    let account = mail::connect(app, tenant, &user).await;
    mail::synchronise(app, tenant, &account).await;
    let listed = app.get(tenant, &format!("/api/accounts/{account}/messages?role=inbox")).await.expect(200);
    listed["data"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap().to_owned()).collect()
}

/// The address of the picture in a message's HTML.
async fn address(app: &App, tenant: &Tenant, id: &str) -> String {
    let html = app.get(tenant, &format!("/api/messages/{id}/html")).await;
    assert_eq!(html.status, 200, "{}", html.text());
    let html = html.text();
    html.split("src=\"")
        .nth(1)
        .and_then(|t| t.split('"').next())
        .unwrap_or_else(|| panic!("{html}"))
        .to_owned()
}

/// As a browser loads a picture: no header of ours.
async fn load(app: &App, address: &str) -> Answer {
    send(app.http.get(format!("{}{address}", app.base)).header("Accept", "image/avif,image/webp,*/*;q=0.8"))
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_picture_is_loaded_by_its_address_alone_and_nothing_else_is() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let ids = filled(&app, &tenant, 2).await;
    let picture = address(&app, &tenant, &ids[0]).await;
    let (path, token) = picture.split_once("?part_token=").unwrap();
    assert_eq!(path, format!("/api/messages/{}/attachments/0", ids[0]));
    let loaded = load(&app, &picture).await;
    assert_eq!(loaded.status, 200, "{}", loaded.text());
    assert_eq!(loaded.bytes, STANDARD.decode(PNG).unwrap());
    assert_eq!(loaded.header("content-type"), "image/png");
    assert_eq!(loaded.header("x-content-type-options"), "nosniff");
    assert_eq!(
        loaded.header("content-security-policy"),
        "default-src 'none'; frame-ancestors 'none'; sandbox"
    );
    assert_eq!(loaded.header("cache-control"), "private, immutable");
    assert!(loaded.header("content-disposition").starts_with("attachment"));

    load(&app, path).await.refused(401, "unauthenticated");
    for other in
        [format!("/api/messages/{}/attachments/1", ids[0]), format!("/api/messages/{}/attachments/0", ids[1])]
    {
        load(&app, &format!("{other}?part_token={token}")).await.refused(401, "invalid-token");
    }
    for place in (0..token.len()).step_by(7) {
        let (before, rest) = token.split_at(place);
        let letter = if rest.starts_with('A') { "B" } else { "A" };
        let changed = format!("{before}{letter}{}", rest.split_at(1).1);
        load(&app, &format!("{path}?part_token={changed}")).await.refused(401, "invalid-token");
    }
    for bad in ["", "x", "%00", &tenant.token] {
        load(&app, &format!("{path}?part_token={bad}")).await.refused(401, "invalid-token");
    }
    for place in ["", "/html", "/raw", "/text"] {
        let refused = load(&app, &format!("/api/messages/{}{place}?part_token={token}", ids[0])).await;
        refused.refused(401, "unauthenticated");
    }
    let stranger = app.tenant().await;
    let named = app.http.get(format!("{}{picture}", app.base)).header("X-Tenant-ID", &stranger.slug);
    send(named).await.refused(403, "tenant-forbidden");
    app.get(&stranger, &picture).await.refused(404, "not-found");
    assert_eq!(app.get(&tenant, &picture).await.status, 200, "with the headers too");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_ends_with_its_time_with_the_session_and_with_the_message() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let ids = filled(&app, &tenant, 2).await;
    let (picture, gone) = (address(&app, &tenant, &ids[0]).await, address(&app, &tenant, &ids[1]).await);
    let (path, token) = picture.split_once("?part_token=").unwrap();
    // Behind the authentication code.
    let words = URL_SAFE_NO_PAD.decode(token).unwrap().split_off(16);
    let id = |n: usize| uuid::Uuid::from_slice(&words[n * 16..(n + 1) * 16]).unwrap();
    let until = i64::from_be_bytes(words[48..56].try_into().unwrap());
    let left = until - SystemClock.now().timestamp();
    assert!((1..=3600).contains(&left), "{left}");
    assert_eq!(id(0), tenant.id.0);
    for (until, code) in [(until, None), (SystemClock.now().timestamp(), Some("token-expired"))] {
        let whose = Whose { tenant: id(0).into(), user: id(1).into(), session: id(2).into(), until };
        let message = ids[0].parse::<uuid::Uuid>().unwrap().into();
        let signed = part_token::sign(&app.config().jwt_secret, &whose, message, 0);
        let answer = load(&app, &format!("{path}?part_token={signed}")).await;
        match code {
            None => assert_eq!(answer.status, 200),
            Some(code) => drop(answer.refused(401, code)),
        }
    }
    assert_eq!(load(&app, &gone).await.status, 200);
    app.delete(&tenant, &format!("/api/messages/{}?permanent=true", ids[1])).await;
    load(&app, &gone).await.refused(404, "not-found");
    app.post(&tenant, "/auth/logout", &json!({})).await;
    let over = eventually("the session is over", Duration::from_secs(30), async || {
        Some(load(&app, &picture).await).filter(|answer| answer.status != 200)
    });
    over.await.refused(401, "invalid-token");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_shows_the_pictures_of_a_message() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let ids = filled(&app, &tenant, 1).await;
    let mut pages = Vec::new();
    for asked in ["", "?inline_images=data"] {
        pages.push(app.get(&tenant, &format!("/api/messages/{}/html{asked}", ids[0])).await.text());
    }
    let base = app.base.clone();
    let walk = move || {
        let mut browser = Chromium::start();
        browser.call("Page.navigate", &json!({ "url": format!("{base}/docs/") }));
        browser.evaluate("new Promise(done => document.readyState === 'complete' ? done(1) : addEventListener('load', () => done(1)))");
        let show = |browser: &mut Chromium, html: &str| {
            let script = format!(
                "(async () => {{ document.body.innerHTML = {}; const shown = [...document.images]; \
                 await Promise.all(shown.map(i => i.decode())); return shown.map(i => i.naturalWidth); }})()",
                json!(html)
            );
            browser.evaluate(&script)
        };
        pages.iter().map(|html| show(&mut browser, html)).collect::<Vec<Value>>()
    };
    let widths = tokio::task::spawn_blocking(walk).await.unwrap();
    assert_eq!(widths, [json!([1]), json!([1])]);
    app.finish().await;
}
