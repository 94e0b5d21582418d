//! What goes wrong on the page, and what the person reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tests::app::{App, Tenant};
use tests::mail;
use tests::scripted;
use tests::tls::{Authority, Fault};
use tests::visitor::{self, Visitor};

use super::{accounts, connected};

/// A person at the form for servers, with an address of which nothing is known.
async fn at_servers<'a>(app: &'a App, tenant: &Tenant, user: &str) -> Visitor<'a> {
    let mut person = Visitor::sent(app, tenant, &json!({"locale": "en"})).await;
    person.submit("address", &[("email", user)]).await;
    person.shows(200, "Enter your mail servers");
    person
}

/// Enters these servers with the right password: nothing is connected.
async fn servers(person: &mut Visitor<'_>, user: &str, imap: (&str, u16), smtp: (&str, u16)) {
    let (imap_port, smtp_port) = (imap.1.to_string(), smtp.1.to_string());
    let fields = [
        ("email", user),
        ("username", user),
        ("password", mail::PASSWORD),
        ("imap_host", imap.0),
        ("imap_port", imap_port.as_str()),
        ("imap_security", "tls"),
        ("smtp_host", smtp.0),
        ("smtp_port", smtp_port.as_str()),
        ("smtp_security", "tls"),
    ];
    let elsewhere = person.submit("servers", &fields).await;
    assert_eq!(elsewhere, None, "{imap:?} {smtp:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_told_at_its_field_and_the_page_goes_on() {
    let (app, _names) = visitor::start().await;
    let tenant = visitor::registered(&app).await;
    let user = visitor::new_mailbox(&app);
    let mut person = Visitor::sent(&app, &tenant, &json!({})).await;
    person.submit("address", &[("email", &user)]).await;
    assert_eq!(person.password(&user, "wrong-canary").await, None);
    for text in [
        "<title>Error: Enter your password",
        "role=\"alert\"",
        "Reading mail: failed",
        "aria-invalid=\"true\" aria-describedby=\"password-wrong\"",
        "id=\"password-wrong\">The server does not accept the user name and password.",
        " autofocus",
    ] {
        person.shows(422, text);
    }
    assert!(!person.page.text().contains("canary"), "{}", person.page.text());
    assert_eq!(person.password(&user, "").await, None);
    person.shows(422, "Please fill this in");
    let tried = app.get(&tenant, "/api/audit?action=account.try").await.expect(200);
    assert_eq!(tried["data"][0]["result"], "upstream-auth-failed", "{tried}");
    assert!(!tried.to_string().contains("canary"));
    assert!(accounts(&app, &tenant).await.is_empty());
    connected(person.password(&user, mail::PASSWORD).await);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_cannot_be_used_is_named_with_the_step_that_failed() {
    let authority = Authority::new();
    let stack = devstack::Shared::get();
    let (app, _names) = visitor::start().await;
    let tenant = visitor::registered(&app).await;
    let user = mail::new_mailbox(&app);
    let foreign = authority.before(stack.imaps_port, Fault::None).await;
    let (good_imap, good_smtp) = (("localhost", stack.imaps_port), ("localhost", stack.submissions_port));
    let cases = [
        (("no-such-host.test", 993), good_smtp, "There is no server of this name"),
        (good_imap, ("no-such-host.test", 465), "There is no server of this name"),
        (("10.0.0.1", 993), good_smtp, "This server may not be used here"),
        (("169.254.169.254", 993), good_smtp, "This server may not be used here"),
        (("localhost", foreign.port), good_smtp, "its certificate was not accepted"),
        // Nobody listens on the port.
        (("localhost", 1), good_smtp, "The server cannot be reached"),
        (good_imap, ("localhost", 1), "The server cannot be reached"),
    ];
    for (imap, smtp, text) in cases {
        let mut person = at_servers(&app, &tenant, &user).await;
        servers(&mut person, &user, imap, smtp).await;
        person.shows(422, text);
        person.shows(422, "aria-invalid=\"true\"");
        let html = person.page.text();
        if html.contains("Reading mail: ") {
            let [reading, sending] = if smtp == good_smtp {
                ["Reading mail: failed", "Sending mail: works"]
            } else {
                ["Reading mail: works", "Sending mail: failed"]
            };
            assert!(html.contains(reading) && html.contains(sending), "{imap:?} {smtp:?}: {html}");
        }
    }
    assert!(accounts(&app, &tenant).await.is_empty());
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_that_cannot_be_used_are_told_one_by_one() {
    let (app, _names) = visitor::start().await;
    let tenant = visitor::registered(&app).await;
    let user = mail::new_mailbox(&app);
    let mut person = Visitor::sent(&app, &tenant, &json!({})).await;
    let long = format!("{}@lab.test", "x".repeat(300));
    for (email, text) in [
        ("", "Please fill this in"),
        ("ann", "Enter an email address"),
        ("ann@localhost", "Enter an email address"),
        ("ann@127.0.0.1", "Enter an email address"),
        ("<script>alert(1)</script>@x", "Enter an email address"),
        ("\"><script>alert(1)</script>", "Enter an email address"),
        ("a\r\nBcc: b@lab.test", "Enter an email address"),
        ("a\0b@lab.test", "Enter an email address"),
        (long.as_str(), "Enter an email address"),
    ] {
        assert_eq!(person.submit("address", &[("email", email)]).await, None);
        person.shows(422, text);
        person.shows(422, "aria-describedby=\"email-wrong email-hint\"");
    }
    let mut person = at_servers(&app, &tenant, &user).await;
    let fields = |name: &'static str, value: &'static str| {
        let mut all = vec![
            ("email", user.as_str()),
            ("username", user.as_str()),
            ("password", "x"),
            ("imap_host", "localhost"),
            ("imap_port", "993"),
            ("imap_security", "tls"),
            ("smtp_host", "localhost"),
            ("smtp_port", "465"),
            ("smtp_security", "tls"),
        ];
        all.retain(|(field, _)| *field != name);
        all.push((name, value));
        all
    };
    for (name, value, text) in [
        ("username", " ", "Please fill this in"),
        ("password", "", "Please fill this in"),
        ("password", "a\nb", "This cannot be used"),
        ("imap_host", "", "Please fill this in"),
        ("imap_host", "local\0host", "This server may not be used here"),
        ("imap_host", "\"><script>alert(1)</script>", "This server may not be used here"),
        ("imap_port", "0", "Enter a number from 1 to 65535"),
        ("imap_port", "65536", "Enter a number from 1 to 65535"),
        ("smtp_port", "-1", "Enter a number from 1 to 65535"),
        ("smtp_port", "many", "Enter a number from 1 to 65535"),
    ] {
        assert_eq!(person.submit("servers", &fields(name, value)).await, None, "{name} {value:?}");
        person.shows(422, text);
        person.shows(422, &format!("id=\"{name}-wrong\""));
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_lets_nobody_guess_passwords() {
    let (app, _names) = visitor::start().await;
    let tenant = visitor::registered(&app).await;
    let tried = Arc::new(AtomicUsize::new(0));
    let counter = tried.clone();
    let plain = scripted::imap(move |tag, command| {
        let verb = command.split(' ').next().unwrap_or_default().to_ascii_uppercase();
        match verb.as_str() {
            "CAPABILITY" => format!("* CAPABILITY IMAP4rev1\r\n{tag} OK\r\n").into_bytes(),
            "LOGIN" | "AUTHENTICATE" => {
                counter.fetch_add(1, Ordering::SeqCst);
                format!("{tag} NO [AUTHENTICATIONFAILED] <script>no</script>\r\n").into_bytes()
            }
            _ => format!("{tag} OK\r\n").into_bytes(),
        }
    })
    .await;
    let saved = json!({
        "email": "victim@lab.test",
        "imap": {"host": "127.0.0.1", "port": plain.port, "security": "none", "username": "victim", "password": "x"},
        "smtp": {"host": "127.0.0.1", "port": plain.port, "security": "none", "username": "", "password": "none"},
    });
    let saved = app.post(&tenant, "/api/accounts?verify=false", &saved).await.expect(201);
    let renew = json!({"account_id": saved["id"], "locale": "en"});
    // Each try by a link of its own: they count together, with the one above.
    for n in 0..4 {
        let mut person = Visitor::sent(&app, &tenant, &renew).await;
        assert_eq!(person.password("victim@lab.test", &format!("guess {n}")).await, None);
        // What the server says is quoted and no more.
        person.shows(422, "&#60;script&#62;no&#60;/script&#62;");
    }
    let asked = tried.load(Ordering::SeqCst);
    let mut person = Visitor::sent(&app, &tenant, &renew).await;
    assert_eq!(person.password("victim@lab.test", "guess 5").await, None);
    person.shows(429, "There were too many attempts");
    assert!(person.page.header("retry-after").parse::<u64>().unwrap() > 0);
    assert_eq!(tried.load(Ordering::SeqCst), asked, "the sixth password was tried");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_form_about_an_earlier_address_shows_no_password_to_the_servers_of_a_later_one() {
    let (app, _names) = visitor::start().await;
    let tenant = visitor::registered(&app).await;
    let user = visitor::new_mailbox(&app);
    let mut person = Visitor::sent(&app, &tenant, &json!({})).await;
    person.submit("address", &[("email", "ann@elsewhere.test")]).await;
    person.submit("address", &[("email", &user)]).await;
    assert_eq!(person.password("ann@elsewhere.test", mail::PASSWORD).await, None);
    person.shows(409, "Begin with the right mailbox");
    assert!(accounts(&app, &tenant).await.is_empty());
    let tried = app.get(&tenant, "/api/audit?action=account.try").await.expect(200);
    assert_eq!(tried["data"], json!([]));
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_lets_nobody_in_is_told_so_and_another_address_can_be_given() {
    let (app, _names) = visitor::start().await;
    let tenant = visitor::registered(&app).await;
    let mut person = Visitor::sent(&app, &tenant, &json!({"locale": "en"})).await;
    person.submit("address", &[("email", "ann@proton.me")]).await;
    person.shows(200, "This mailbox cannot be connected");
    person.shows(200, "Bridge");
    let again = person.link("Use another address");
    assert_eq!(again, format!("{}?step=address", person.path));
    person.load("?step=address").await;
    person.shows(200, "Connect your mailbox");
    person.submit("address", &[("email", "ann@gmail.com")]).await;
    // Without an app of Google's a password is the way, and not the usual one.
    person.shows(200, "App password");
    person.shows(200, "Your usual password is not accepted");
    app.finish().await;
}
