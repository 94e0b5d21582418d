//! The watch over mailboxes: what it notices, how it comes back, and what it learns about a server. No periodic round
//! helps in these tests.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tests::app::{App, Tenant};
use tests::eventually::eventually;
use tests::mail::{self, doveadm};
use tests::scripted;

const NEVER: [(&str, &str); 1] = [("SYNC_INTERVAL_SECONDS", "86400")];
const SOON: Duration = Duration::from_secs(40);

async fn start() -> (App, Tenant) {
    let mut app = App::start_with(&NEVER).await;
    app.add_worker();
    app.add_scheduler();
    let tenant = app.tenant().await;
    (app, tenant)
}

/// Waits until the account is synchronised, watched, and nothing is left to do.
async fn at_rest(app: &App, account: &str) {
    eventually("the account is watched and at rest", SOON, async || {
        let mut conn = app.database.superuser().await;
        let busy: i64 = sqlx::query_scalar("SELECT count(*) FROM jobs WHERE state IN ('ready', 'running')")
            .fetch_one(&mut conn)
            .await
            .unwrap();
        let watched: bool = sqlx::query_scalar(
            "SELECT watch_expires_at > now() FROM account_leases WHERE account_id = $1::uuid AND watch_owner IS NOT NULL",
        )
        .bind(account)
        .fetch_optional(&mut conn)
        .await
        .unwrap()
        .unwrap_or_default();
        (watched && busy == 0).then_some(())
    })
    .await;
}

/// Dovecot has a session of this user that idles.
async fn idles(app: &App, user: &str) {
    eventually("the watch connection stands", SOON, async || {
        doveadm(app, &["who", "-1", user]).contains(user).then_some(())
    })
    .await;
}

async fn subjects(app: &App, tenant: &Tenant, account: &str) -> Vec<String> {
    let page = app.get(tenant, &format!("/api/accounts/{account}/messages?limit=50")).await.expect(200);
    let text = |m: &Value| {
        let flags = m["flags"].as_array().unwrap().iter().any(|f| f == "\\Flagged");
        format!("{}{}", m["subject"].as_str().unwrap(), if flags { " *" } else { "" })
    };
    page["data"].as_array().unwrap().iter().map(text).collect()
}

async fn listed(app: &App, tenant: &Tenant, account: &str, subject: &str) {
    eventually(&format!("{subject:?} is listed"), SOON, async || {
        subjects(app, tenant, account).await.iter().any(|s| s == subject).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn news_of_every_mailbox_is_noticed_and_the_tree_as_well() {
    let (app, tenant) = start().await;
    let user = mail::new_mailbox(&app);
    mail::fill(&app, &user, "Archive", vec![mail::message("Old", "old@example.test", "x")]);
    let account = mail::connect(&app, &tenant, &user).await;
    mail::synchronise(&app, &tenant, &account).await;
    at_rest(&app, &account).await;
    idles(&app, &user).await;
    mail::deliver(&app, &user, &mail::message("Inbox", "inbox@example.test", "x"));
    listed(&app, &tenant, &account, "Inbox").await;
    at_rest(&app, &account).await;
    doveadm(&app, &["flags", "add", "-u", &user, "\\Flagged", "mailbox", "Archive", "all"]);
    listed(&app, &tenant, &account, "Old *").await;
    at_rest(&app, &account).await;
    doveadm(&app, &["copy", "-u", &user, "Sent", "mailbox", "INBOX", "all"]);
    doveadm(&app, &["expunge", "-u", &user, "mailbox", "Archive", "all"]);
    eventually("what went from another mailbox is gone", SOON, async || {
        (!subjects(&app, &tenant, &account).await.iter().any(|s| s.starts_with("Old"))).then_some(())
    })
    .await;
    at_rest(&app, &account).await;
    doveadm(&app, &["mailbox", "create", "-s", "-u", &user, "Fresh"]);
    eventually("the new mailbox is there", SOON, async || {
        let all = app.get(&tenant, &format!("/api/accounts/{account}/mailboxes?limit=200")).await.expect(200);
        all["data"].as_array().unwrap().iter().any(|m| m["path"] == "Fresh").then_some(())
    })
    .await;
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_mail_of_inbox_comes_by_the_watch_connection_and_the_next_round_agrees() {
    let (app, tenant) = start().await;
    let user = mail::new_mailbox(&app);
    mail::fill(&app, &user, "INBOX", vec![mail::message("Old", "old@example.test", "x")]);
    let account = mail::connect(&app, &tenant, &user).await;
    mail::synchronise(&app, &tenant, &account).await;
    at_rest(&app, &account).await;
    idles(&app, &user).await;
    let rounds = async || -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM sync_runs")
            .fetch_one(&mut app.database.superuser().await)
            .await
            .unwrap()
    };
    let before = rounds().await;
    for n in 0..3 {
        let subject = format!("Fresh {n}");
        mail::deliver(&app, &user, &mail::message(&subject, &format!("{n}@example.test"), "x"));
        listed(&app, &tenant, &account, &subject).await;
    }
    assert_eq!(rounds().await, before, "no round was needed");
    doveadm(&app, &["expunge", "-u", &user, "mailbox", "INBOX", "subject", "Fresh 1"]);
    mail::synchronise(&app, &tenant, &account).await;
    let mut left = subjects(&app, &tenant, &account).await;
    left.sort_unstable();
    assert_eq!(left, ["Fresh 0", "Fresh 2", "Old"]);
    let events: i64 = sqlx::query_scalar("SELECT count(*) FROM events WHERE kind = 'message.created'")
        .fetch_one(&mut app.database.superuser().await)
        .await
        .unwrap();
    assert_eq!(events, 4, "each was told once");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_was_kicked_comes_back_and_finds_what_it_missed() {
    let (app, tenant) = start().await;
    let user = mail::new_mailbox(&app);
    let account = mail::connect(&app, &tenant, &user).await;
    mail::synchronise(&app, &tenant, &account).await;
    for n in 0..2 {
        at_rest(&app, &account).await;
        idles(&app, &user).await;
        doveadm(&app, &["kick", &user]);
        let subject = format!("Missed {n}");
        mail::deliver(&app, &user, &mail::message(&subject, &format!("{n}@example.test"), "x"));
        listed(&app, &tenant, &account, &subject).await;
    }
    app.finish().await;
}

/// An empty account on a server that offers IDLE and NOTIFY and answers BAD to both.
fn boaster(tag: &str, command: &str) -> Vec<u8> {
    let upper = command.to_ascii_uppercase();
    let first = upper.split(' ').next().unwrap_or_default();
    let said = match first {
        "CAPABILITY" => "* CAPABILITY IMAP4rev1 AUTH=PLAIN IDLE NOTIFY\r\n",
        "LIST" => "* LIST () \"/\" INBOX\r\n",
        "LSUB" => "* LSUB () \"/\" INBOX\r\n",
        "STATUS" => "* STATUS INBOX (MESSAGES 0 UIDNEXT 1 UIDVALIDITY 7 UNSEEN 0)\r\n",
        "SELECT" | "EXAMINE" => "* 0 EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n* OK [UIDNEXT 1] x\r\n",
        "UID" => "* SEARCH\r\n",
        "AUTHENTICATE" => return b"+ \r\n".to_vec(),
        "IDLE" | "NOTIFY" => return format!("{tag} BAD {first} is not for you\r\n").into_bytes(),
        _ => "",
    };
    format!("{said}{tag} OK done\r\n").into_bytes()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_offers_and_answers_with_bad_is_left_alone_for_a_week() {
    let (app, tenant) = start().await;
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let logins = Arc::new(AtomicUsize::new(0));
    let (heard, counted, tags) = (seen.clone(), logins.clone(), Arc::new(Mutex::new(String::new())));
    let server = scripted::imap(move |tag, command| {
        if command.is_empty() {
            // The initial response that AUTHENTICATE without SASL-IR waits for.
            counted.fetch_add(1, Ordering::SeqCst);
            return format!("{} OK in\r\n", tags.lock().unwrap()).into_bytes();
        }
        if command.starts_with("AUTHENTICATE") {
            *tags.lock().unwrap() = tag.to_owned();
        }
        heard.lock().unwrap().push(command.split(' ').next().unwrap().to_owned());
        boaster(tag, command)
    })
    .await;
    let mut settings = mail::settings(&app, "boaster@lab.test");
    settings["imap"] = json!({"host": "localhost", "port": server.port, "security": "none", "username": "u", "password": "p"});
    app.post(&tenant, "/api/accounts?verify=false", &settings).await.expect(201);
    let off = async || -> Vec<(String, String)> {
        let sql = "SELECT capability, words FROM capabilities_off
                   WHERE until BETWEEN now() + interval '6 days' AND now() + interval '8 days' ORDER BY 1";
        sqlx::query_as(sql).fetch_all(&mut app.database.superuser().await).await.unwrap()
    };
    eventually("both are noted", SOON, async || (off().await.len() == 2).then_some(())).await;
    let noted = off().await;
    assert_eq!(noted[0], ("IDLE".to_owned(), "IDLE is not for you".to_owned()));
    assert_eq!(noted[1], ("NOTIFY".to_owned(), "NOTIFY is not for you".to_owned()));
    let before = logins.load(Ordering::SeqCst);
    eventually("the watch comes back", SOON, async || (logins.load(Ordering::SeqCst) > before).then_some(()))
        .await;
    let asked = |word: &str| seen.lock().unwrap().iter().filter(|c| *c == word).count();
    assert_eq!((asked("NOTIFY"), asked("IDLE")), (1, 1), "neither is asked for again");
    let state: String = sqlx::query_scalar("SELECT state FROM accounts")
        .fetch_one(&mut app.database.superuser().await)
        .await
        .unwrap();
    assert!(matches!(state.as_str(), "connected" | "syncing"), "{state}");
    app.finish().await;
}
