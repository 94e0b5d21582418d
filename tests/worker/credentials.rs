//! Passwords that a mail server refuses, while reading and while sending: the account says so in the server's own words,
//! nothing that waits is lost, and the right password mends it.

use std::time::Duration;

use serde_json::{Value, json};
use tests::app::{App, Tenant};
use tests::eventually::eventually;
use tests::mail;
use tests::scripted::{self, Scripted};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use crate::sending::sender::nothing_is_near;

const PATIENCE: Duration = Duration::from_secs(40);
const RIGHT: &str = "the right password";
const WRONG: &str = "the wrong password";

/// An IMAP server that answers every login with this line, without its tag.
async fn refusing(answer: &'static str) -> Scripted {
    scripted::imap(move |tag, command| match command.split(' ').next().unwrap_or_default() {
        "CAPABILITY" => format!("* CAPABILITY IMAP4rev1\r\n{tag} OK done\r\n").into_bytes(),
        "LOGIN" => format!("{tag} {answer}\r\n").into_bytes(),
        _ => format!("{tag} OK done\r\n").into_bytes(),
    })
    .await
}

async fn account_at(app: &App, tenant: &Tenant, port: u16) -> String {
    let server =
        json!({"host": "127.0.0.1", "port": port, "security": "none", "username": "u", "password": WRONG});
    let body = json!({"email": format!("p{port}@lab.test"), "imap": server, "smtp": server});
    let account = app.post(tenant, "/api/accounts?verify=false", &body).await.expect(201);
    account["id"].as_str().unwrap().to_owned()
}

async fn account(app: &App, tenant: &Tenant, id: &str) -> Value {
    app.get(tenant, &format!("/api/accounts/{id}")).await.expect(200)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_login_is_told_with_the_servers_code_and_without_what_it_must_not_say() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    for (answer, state, code) in [
        (
            "NO [AUTHENTICATIONFAILED] LOGIN u \"the wrong password\"\u{7}\u{202e} failed",
            "needs_reauth",
            json!("AUTHENTICATIONFAILED"),
        ),
        ("NO [UNAVAILABLE] no directory", "throttled", json!("UNAVAILABLE")),
        ("NO [PRIVACYREQUIRED] use TLS", "needs_reauth", json!("PRIVACYREQUIRED")),
        ("NO no", "needs_reauth", Value::Null),
        ("NO [\u{7f}\u{1b}[2J] odd", "needs_reauth", Value::Null),
    ] {
        let server = refusing(answer).await;
        let id = account_at(&app, &tenant, server.port).await;
        let told = eventually("the worker has met the server", PATIENCE, async || {
            let now = account(&app, &tenant, &id).await;
            (!now["cause"].is_null()).then_some(now)
        })
        .await;
        assert_eq!(told["state"], state, "{answer:?}: {told}");
        let upstream = &told["cause"]["upstream"];
        assert_eq!((&upstream["protocol"], &upstream["response_code"]), (&json!("imap"), &code), "{told}");
        assert_eq!(upstream["retryable"], state == "throttled");
        let text = upstream["text"].as_str().unwrap();
        assert!(
            !text.contains(WRONG) && !text.chars().any(|c| c.is_control() || c == '\u{202e}'),
            "{text:?}"
        );
        // The same words where credentials are tried.
        let user = emailclient_core::platform::id::new_uuid();
        let trial = json!({"host": "127.0.0.1", "port": server.port, "security": "none", "username": user, "password": WRONG});
        let body = json!({"email": "trial@lab.test", "imap": trial, "smtp": trial});
        let tried = app.post(&tenant, "/api/accounts/verify", &body).await.expect(200);
        assert!(!tried.to_string().contains(WRONG), "{tried}");
    }
    app.finish().await;
}

/// A submission server that knows [`RIGHT`] only, and repeats what it refuses.
async fn sink() -> Scripted {
    use base64::Engine as _;
    let right = base64::engine::general_purpose::STANDARD.encode(format!("\0u\0{RIGHT}"));
    scripted::serve(move |stream| {
        let right = right.clone();
        async move {
            let (read, mut write) = stream.into_split();
            let mut lines = BufReader::new(read).lines();
            let mut next = "220 sink ready\r\n".to_owned();
            let mut in_body = false;
            while write.write_all(next.as_bytes()).await.is_ok() {
                let Ok(Some(line)) = lines.next_line().await else { return };
                next = match line.split(' ').next().unwrap_or_default() {
                    _ if in_body && line != "." => String::new(),
                    "." => {
                        in_body = false;
                        "250 2.0.0 Ok: queued as SINK\r\n".to_owned()
                    }
                    "EHLO" => "250-sink\r\n250 AUTH PLAIN\r\n".to_owned(),
                    "AUTH" if line.ends_with(&right) => "235 2.7.0 welcome\r\n".to_owned(),
                    "AUTH" => format!("535 5.7.8 {WRONG} is wrong ({line})\r\n"),
                    "DATA" => {
                        in_body = true;
                        "354 go on\r\n".to_owned()
                    }
                    _ => "250 2.1.0 ok\r\n".to_owned(),
                };
            }
        }
    })
    .await
}

/// A real mailbox to read, and a message that waits because the sink refused the password.
struct Waiting {
    tenant: Tenant,
    account: String,
    submission: String,
}

impl Waiting {
    async fn start(app: &App, smtp: &Scripted) -> Self {
        let tenant = app.tenant().await;
        let user = mail::new_mailbox(app);
        let mut settings = mail::settings(app, &user);
        settings["smtp"] = json!({"host": "127.0.0.1", "port": smtp.port, "security": "none", "username": "u", "password": WRONG});
        let account = app.post(&tenant, "/api/accounts?verify=false", &settings).await.expect(201);
        let account = account["id"].as_str().unwrap().to_owned();
        mail::synchronise(app, &tenant, &account).await;
        let draft = json!({"account_id": account, "to": ["one@x.test"], "subject": "Waits", "text": "x"});
        let draft = app.post(&tenant, "/api/compose", &draft).await.expect(201);
        let path = format!("/api/compose/{}/send", draft["id"].as_str().unwrap());
        let submission = app.post(&tenant, &path, &json!({})).await.expect(202);
        let submission = submission["id"].as_str().unwrap().to_owned();
        Self { tenant, account, submission }
    }

    async fn submission(&self, app: &App) -> Value {
        app.get(&self.tenant, &format!("/api/submissions/{}", self.submission)).await.expect(200)
    }

    async fn account(&self, app: &App) -> Value {
        account(app, &self.tenant, &self.account).await
    }

    async fn until_refused(&self, app: &App) -> Value {
        eventually("the account needs another password", PATIENCE, async || {
            let now = self.account(app).await;
            (now["state"] == "needs_reauth").then_some(now)
        })
        .await
    }

    async fn until_sent(&self, app: &App) -> Value {
        eventually("the message was sent", PATIENCE, async || {
            let now = self.submission(app).await;
            assert_ne!(now["state"], "failed", "{now}");
            (now["state"] == "sent").then_some(now)
        })
        .await
    }

    async fn until_connected(&self, app: &App) -> Value {
        eventually("the account is connected", PATIENCE, async || {
            let now = self.account(app).await;
            (now["state"] == "connected").then_some(now)
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_waits_for_another_password_and_goes_when_it_comes() {
    let app = App::start_all().await;
    let smtp = sink().await;
    let waiting = Waiting::start(&app, &smtp).await;
    let told = waiting.until_refused(&app).await;
    let cause = &told["cause"];
    assert_eq!(cause["code"], "upstream-auth-failed", "{told}");
    assert!(cause["since"].is_string() && cause["next_try_at"].is_string(), "{told}");
    let upstream = &cause["upstream"];
    assert_eq!(
        (&upstream["protocol"], &upstream["response_code"]),
        (&json!("smtp"), &json!("535")),
        "{told}"
    );
    assert_eq!(upstream["retryable"], false);

    let queued = waiting.submission(&app).await;
    assert_eq!(queued["state"], "queued", "{queued}");
    let attempts = queued["attempts"].as_array().unwrap();
    assert_eq!((attempts.len(), &attempts[0]["code"]), (1, &json!(535)), "{queued}");
    assert_eq!(queued["recipients"][0]["state"], "deferred");
    for shown in [&told, &queued] {
        assert!(!shown.to_string().contains(WRONG), "{shown}");
    }

    // Reading still works, and does not make anybody believe that all is well.
    let status = mail::synchronise(&app, &waiting.tenant, &waiting.account).await;
    assert_eq!(
        (&status["state"], &status["cause"]["upstream"]["protocol"]),
        (&json!("needs_reauth"), &json!("smtp"))
    );

    let path = format!("/api/accounts/{}", waiting.account);
    let again = json!({"smtp": {"password": "another wrong one"}});
    app.patch(&waiting.tenant, &path, &again).await.refused(422, "upstream-auth-failed");
    let mended = app.patch(&waiting.tenant, &path, &json!({"smtp": {"password": RIGHT}})).await.expect(200);
    assert_eq!(mended["cause"], Value::Null, "{mended}");
    let sent = waiting.until_sent(&app).await;
    assert_eq!(sent["attempts"].as_array().unwrap().len(), 2, "{sent}");
    assert_eq!(sent["recipients"][0]["state"], "accepted");
    waiting.until_connected(&app).await;
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_wrong_password_is_tried_once_and_told_again() {
    let app = App::start_all().await;
    let smtp = sink().await;
    let waiting = Waiting::start(&app, &smtp).await;
    waiting.until_refused(&app).await;
    let path = format!("/api/accounts/{}?verify=false", waiting.account);
    app.patch(&waiting.tenant, &path, &json!({"smtp": {"password": "as wrong"}})).await.expect(200);
    let twice = eventually("it was tried again", PATIENCE, async || {
        let now = waiting.submission(&app).await;
        (now["attempts"].as_array().unwrap().len() == 2 && now["state"] == "queued").then_some(now)
    })
    .await;
    assert_eq!(twice["attempts"][1]["code"], 535, "{twice}");
    waiting.until_refused(&app).await;
    nothing_is_near(&app).await;
    assert_eq!(waiting.submission(&app).await["attempts"].as_array().unwrap().len(), 2, "no third try");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_lets_us_in_after_all_mends_the_account_too() {
    let app = App::start_all().await;
    let smtp = sink().await;
    let waiting = Waiting::start(&app, &smtp).await;
    waiting.until_refused(&app).await;
    // The right password is stored without anybody having been told, as if the server had changed its mind.
    let mut conn = app.database.superuser().await;
    let (state, cause): (String, Value) =
        sqlx::query_as("SELECT state, cause_upstream FROM accounts WHERE id = $1::uuid")
            .bind(&waiting.account)
            .fetch_one(&mut conn)
            .await
            .unwrap();
    let path = format!("/api/accounts/{}?verify=false", waiting.account);
    sqlx::query("UPDATE submissions SET state = 'cancelled' WHERE id = $1::uuid")
        .bind(&waiting.submission)
        .execute(&mut conn)
        .await
        .unwrap();
    app.patch(&waiting.tenant, &path, &json!({"smtp": {"password": RIGHT}})).await.expect(200);
    waiting.until_connected(&app).await;
    sqlx::query("UPDATE accounts SET state = $2, cause_code = 'upstream-auth-failed', cause_text = 'x', cause_upstream = $3 WHERE id = $1::uuid")
        .bind(&waiting.account)
        .bind(state)
        .bind(cause)
        .execute(&mut conn)
        .await
        .unwrap();
    let resend = format!("/api/submissions/{}/resend", waiting.submission);
    app.post(&waiting.tenant, &resend, &json!({})).await.expect(202);
    waiting.until_sent(&app).await;
    let mended = waiting.until_connected(&app).await;
    assert_eq!(mended["cause"], Value::Null, "{mended}");
    app.finish().await;
}
