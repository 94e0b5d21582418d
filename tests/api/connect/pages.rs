//! The page in a real Chromium that runs no scripts: each step and each failure, in English and German, on a telephone and at a desk,
//! in light and dark. `CONNECT_PICTURES=/some/folder` keeps a picture of each.

use devstack::oauth::{Authority, Client};
use serde_json::json;
use tests::app::{App, BASE, Tenant};
use tests::browser::Browser;
use tests::scripted::{self, Scripted};
use tests::visitor;
use tests::{mail, provider};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Where people go in the end: a page of another site.
async fn home() -> Scripted {
    scripted::serve(|mut stream| async move {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let Ok(byte) = stream.read_u8().await else { return };
            head.push(byte);
        }
        let body =
            "<!doctype html><html lang=\"en\"><title>Arrived</title><main><h1>Arrived</h1></main></html>";
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
        let _ = stream.shutdown().await;
    })
    .await
}

/// What a walk needs to know.
#[derive(Clone)]
struct Stage {
    home: String,
    imap: u16,
    smtp: u16,
    /// Known by its address.
    known: String,
    /// Of which nothing is known.
    unknown: String,
    /// Links: new, with the provider's app, a renewal, one that is too old.
    links: Links,
    language: &'static str,
}

#[derive(Clone)]
struct Links {
    plain: String,
    consent: String,
    renewal: String,
    expired: String,
    broken: String,
    branded: String,
}

async fn link(app: &App, tenant: &Tenant, home: &str, language: &str, account: Option<&str>) -> String {
    let body = json!({"redirect_url": home, "state": "s", "locale": language, "account_id": account});
    let made = app.post(tenant, "/api/connect/sessions", &body).await.expect(201);
    made["url"].as_str().unwrap().to_owned()
}

async fn tenant(app: &App, home: &str) -> Tenant {
    let tenant = app.tenant().await;
    app.patch(&tenant, "/api/tenant", &json!({"redirect_urls": [home]})).await.expect(200);
    tenant
}

fn walk(browser: &mut Browser, stage: &Stage) {
    let Stage { home, known, unknown, links, language, .. } = stage;
    let look = |browser: &mut Browser, name: &str| browser.look(&format!("{language}-{name}"));

    browser.speaks(language);
    browser.open(&links.plain);
    assert_eq!(browser.ask("document.documentElement.lang"), *language);
    browser.focused("email");
    look(browser, "1-address");
    browser.fill("email", "ann");
    browser.press("address");
    browser.focused("email");
    look(browser, "1-address-wrong");
    // The return key does what the first button does.
    browser.fill("email", known);
    browser.enter();
    browser.focused("password");
    look(browser, "2-password");
    browser.fill("password", "not the password");
    browser.press("password");
    browser.focused("password");
    assert_eq!(browser.ask("document.activeElement.value"), "");
    look(browser, "2-password-wrong");
    browser.click("a[href$=\"?step=address\"]");
    browser.fill("email", "ann@gmail.com");
    browser.press("address");
    look(browser, "2-app-password");
    browser.click("a[href$=\"?step=address\"]");
    browser.fill("email", "ann@proton.me");
    browser.press("address");
    look(browser, "2-no-way");
    browser.click("a[href$=\"?step=address\"]");
    browser.fill("email", unknown);
    browser.press("address");
    browser.focused("password");
    look(browser, "3-servers");
    servers(browser, stage, "imap.no-such-host.test");
    browser.focused("imap_host");
    look(browser, "3-servers-unknown-host");
    servers(browser, stage, "localhost");
    browser.focused("smtp_host");
    look(browser, "3-servers-half");
    browser.fill("password", mail::PASSWORD);
    browser.fill("smtp_port", &stage.smtp.to_string());
    browser.press("servers");
    let arrived = browser.address();
    assert!(
        arrived.starts_with(&format!("{home}?account_id=")) && arrived.ends_with("&state=s"),
        "{arrived}"
    );
    browser.open(&links.plain);
    look(browser, "5-used");

    browser.open(&links.consent);
    browser.fill("email", known);
    browser.press("address");
    look(browser, "2-consent");
    browser.click("main a.button");
    browser.click("button[value=\"deny\"]");
    assert_eq!(browser.address(), links.consent);
    look(browser, "2-consent-denied");
    browser.click("main a.button");
    browser.click("button[value=\"allow\"]");
    let arrived = browser.address();
    assert!(arrived.starts_with(&format!("{home}?account_id=")), "{arrived}");

    browser.open(&links.renewal);
    look(browser, "4-renewal");
    browser.press("cancel");
    assert_eq!(browser.address(), format!("{home}?error=access_denied&state=s"));
    browser.open(&links.expired);
    look(browser, "5-expired");
    browser.open(&links.broken);
    assert_eq!(browser.ask("document.documentElement.lang"), *language);
    look(browser, "5-unknown");
    browser.open(&links.branded);
    assert_eq!(browser.ask("document.images[0].naturalWidth"), 320);
    look(browser, "6-branded");
}

/// Enters servers with the right password, but for the port of sending, at which nobody listens.
fn servers(browser: &mut Browser, stage: &Stage, imap: &str) {
    browser.fill("password", mail::PASSWORD);
    browser.fill("imap_host", imap);
    // Other ports are for hosts that the operator named.
    let port = if imap == "localhost" { stage.imap } else { 993 };
    browser.fill("imap_port", &port.to_string());
    browser.fill("smtp_host", "localhost");
    browser.fill("smtp_port", "1");
    browser.press("servers");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_step_and_failure_is_fit_to_be_seen_and_heard_in_a_real_browser() {
    let home = home().await;
    let home_url = format!("http://127.0.0.1:{}/connected", home.port);
    let (app, _names) = visitor::start_with(&[("PUBLIC_URL", BASE)]).await;
    let authority = Authority::start(&app.stack.oauth_key).unwrap();
    let back = format!("{}/oauth/callback", app.base);
    authority.register(Client::confidential("our-app", provider::SECRET).redirect(&back));
    for language in ["en", "de"] {
        let plain = tenant(&app, &home_url).await;
        let with_app = tenant(&app, &home_url).await;
        app.post(&with_app, "/api/oauth/apps", &provider::app_settings(&app, &authority)).await.expect(201);
        let branded = tenant(&app, &home_url).await;
        let picture = include_bytes!("logo.png");
        let logo = super::branding::web(vec![(
            "/logo.png",
            super::branding::answer("200 OK", "image/png", picture),
        )])
        .await;
        let brand = json!({"name": "Fjordline", "colour": "#0f8a5f", "logo_url": format!("http://127.0.0.1:{}/logo.png", logo.port)});
        app.patch(&branded, "/api/tenant", &json!({"branding": brand})).await.expect(200);
        let known = visitor::new_mailbox(&app);
        let renewed = mail::connect(&app, &plain, &mail::new_mailbox(&app)).await;
        let expired = link(&app, &plain, &home_url, language, None).await;
        sqlx::query("UPDATE connect_sessions SET expires_at = now() - interval '1 second'")
            .execute(&mut app.database.superuser().await)
            .await
            .unwrap();
        let links = Links {
            plain: link(&app, &plain, &home_url, language, None).await,
            consent: link(&app, &with_app, &home_url, language, None).await,
            renewal: link(&app, &plain, &home_url, language, Some(&renewed)).await,
            expired,
            broken: format!("{}/connect/nonsense", app.base),
            branded: link(&app, &branded, &home_url, language, None).await,
        };
        let unknown = mail::new_mailbox(&app);
        let stage = Stage {
            home: home_url.clone(),
            imap: app.stack.imaps_port,
            smtp: app.stack.submissions_port,
            known,
            unknown,
            links,
            language,
        };
        let there = format!("http://127.0.0.1:{}/", home.port);
        let own = [app.base.clone(), there, authority.base_url().to_owned(), "about:".to_owned()];
        let seen = tokio::task::spawn_blocking(move || {
            let mut browser = Browser::start();
            walk(&mut browser, &stage);
            assert!(browser.looks >= 15 * 4, "{} looks", browser.looks);
            assert_eq!(browser.complaints(), Vec::<&str>::new());
            let own: Vec<&str> = own.iter().map(String::as_str).collect();
            assert_eq!(browser.outside(&own), Vec::<&str>::new());
            browser.would_notice();
        });
        seen.await.unwrap();
    }
    app.finish().await;
}
