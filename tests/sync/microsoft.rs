//! Exchange Online: throttled by BAD and BYE, a mailbox that is not open though the log-in was right, tokens that are good and
//! refused, UIDs that jump, a Sent mailbox that has the copy or has not. The rig is dialled by its own name.

use std::time::Duration;

use devstack::oauth::Authority;
use serde_json::{Value, json};
use tests::eventually::eventually;
use tests::imapd::{Imapd, Reply, Times};
use tests::{mail, provider};

use crate::gmail_limits::named;
use crate::odd::{Odd, Rig};

const HOST: &str = "outlook.office365.com";
/// As its users' logs have it after the log-in (2022).
const CAPABILITIES: &str = "AUTH=PLAIN AUTH=XOAUTH2 SASL-IR UIDPLUS MOVE ID UNSELECT CLIENTACCESSRULES CLIENTNETWORKPRESENCELOCATION BACKENDAUTHENTICATE CHILDREN IDLE NAMESPACE LITERAL+";

async fn exchange(rig: &Rig) -> Odd<'_> {
    let server = Imapd::start(CAPABILITIES).await;
    {
        let mut state = server.lock();
        state.greeting = "* OK The Microsoft Exchange IMAP4 service is ready. [TABWAA==]\r\n".into();
        state.mailbox("INBOX").fill(1, 5);
        state.add("Sent Items");
    }
    let mut odd = rig.odd_at(server, HOST).await;
    odd.settled().await;
    odd
}

fn arrives(odd: &Odd<'_>) {
    let mut state = odd.server.lock();
    let next = state.mailbox("INBOX").uidnext;
    state.mailbox("INBOX").fill(next, next);
}

async fn wait(rig: &Rig, account: &str) -> i64 {
    let seconds = "SELECT extract(epoch FROM next_due_at - now())::bigint FROM account_leases WHERE account_id = $1::uuid";
    rig.count(seconds, account).await
}

fn text(status: &Value) -> &str {
    status["cause"]["text"].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exchange_that_throttles_by_bad_or_bye_is_left_alone_as_long_as_it_says_and_no_mail_is_lost() {
    let (rig, _dns) = named(&[HOST]).await;
    let mut odd = exchange(&rig).await;
    let closed = "Microsoft let us in and does not open the mailbox at present";
    for (command, reply, says, waits) in [
        (
            "LIST",
            Reply::from("{tag} BAD Request is throttled. Suggested Backoff Time: 299961 milliseconds\r\n"),
            "",
            299..=330,
        ),
        (
            "*BODY.PEEK[]",
            Reply::from("{tag} BAD Request is throttled. Suggested Backoff Time: 120000 milliseconds\r\n"),
            "",
            119..=132,
        ),
        ("SELECT", Reply::close("* BYE Session invalidated\r\n"), "", 20..=1800),
        ("SELECT", Reply::close("* BYE Connection is closed. 13\r\n"), "", 20..=1800),
        (
            "NAMESPACE",
            Reply::from("{tag} BAD User is authenticated but not connected.\r\n"),
            closed,
            20..=1800,
        ),
        (
            "LIST",
            Reply::close(
                "{tag} BAD User is authenticated but not connected.\r\n* BYE Connection closed. 14\r\n",
            ),
            closed,
            20..=1800,
        ),
        ("SELECT", Reply::from("{tag} NO User is authenticated but not connected.\r\n"), closed, 20..=1800),
    ] {
        let what = format!("{command} {reply:?}");
        arrives(&odd);
        if command == "NAMESPACE" {
            sqlx::query("UPDATE account_leases SET namespaces_at = NULL")
                .execute(&mut rig.app.database.superuser().await)
                .await
                .unwrap();
        }
        odd.server.instead(command, Times::Each, reply);
        let status = odd.round().await;
        assert!(odd.server.sane() > 0, "{what}");
        assert_eq!(
            (&status["state"], &status["cause"]["code"]),
            (&json!("throttled"), &json!("upstream-throttled")),
            "{what}: {status}"
        );
        assert!(text(&status).starts_with(says), "{what}: {status}");
        let seconds = wait(&rig, &odd.account).await;
        assert!(waits.contains(&seconds), "{what}: {seconds}");
        odd.healthy().await;
        odd.settled().await;
    }
    // None of it was blamed on an extension.
    let off = "SELECT count(*) FROM capabilities_off WHERE $1::text IS NOT NULL";
    assert_eq!(rig.count(off, &odd.account).await, 0);
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_ends_with_its_token_is_followed_by_another_at_once() {
    let (rig, _dns) = named(&[HOST]).await;
    let mut odd = exchange(&rig).await;
    arrives(&odd);
    odd.server.instead(
        "SELECT",
        Times::First(1),
        Reply::close("* BYE Session invalidated - AccessTokenExpired\r\n"),
    );
    odd.healthy().await;
    assert!(odd.server.sane() > 0);
    odd.settled().await;
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uids_that_jump_cost_one_listing_and_lose_nothing() {
    let (rig, _dns) = named(&[HOST]).await;
    let mut odd = exchange(&rig).await;
    for jump in [10, 50_000, 2_000_000_000] {
        odd.server.lock().mailbox("INBOX").uidnext += jump;
        arrives(&odd);
        odd.healthy().await;
        odd.settled_after(&["message.created"]).await;
    }
    rig.finish().await;
}

/// An account with tokens whose mail is at the rig.
async fn with_tokens(rig: &Rig, port: u16) -> (String, Authority) {
    let authority = provider::authority(&rig.app);
    let app_id = provider::named(&rig.app, &rig.tenant, &authority).await;
    let (_, account) = provider::connect(&rig.app, &rig.tenant, &app_id).await;
    rig.round(&account).await;
    sqlx::query(
        "UPDATE accounts SET imap_host = $2, imap_port = $3, imap_security = 'none' WHERE id = $1::uuid",
    )
    .bind(&account)
    .bind(HOST)
    .bind(i32::from(port))
    .execute(&mut rig.app.database.superuser().await)
    .await
    .unwrap();
    (account, authority)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn good_tokens_that_exchange_refuses_for_a_while_are_no_reason_to_ask_a_person_before_an_hour_is_over()
{
    let dns = tests::name_server::serve(vec![
        tests::name_server::a(HOST, "127.0.0.1"),
        tests::name_server::a("localhost", "127.0.0.1"),
    ])
    .await;
    let allow = "localhost:1-65535,127.0.0.0/8:1-65535";
    let rig = Rig::with(&[
        ("DNS_SERVERS", &dns.address.to_string()),
        ("OUTBOUND_ALLOW", allow),
        ("PUBLIC_URL", provider::PUBLIC_URL),
    ])
    .await;
    let server = Imapd::start(CAPABILITIES).await;
    server.lock().mailbox("INBOX").fill(1, 2);
    let (account, _authority) = with_tokens(&rig, server.port).await;
    server.instead("AUTHENTICATE", Times::Each, "{tag} NO AUTHENTICATE failed.\r\n");
    let status = rig.round(&account).await;
    assert_eq!(
        (&status["state"], &status["cause"]["code"]),
        (&json!("throttled"), &json!("upstream-auth-failed")),
        "{status}"
    );
    assert!(text(&status).starts_with("Microsoft does not accept a token that is new"), "{status}");
    let seconds = wait(&rig, &account).await;
    assert!((200..=900).contains(&seconds), "{seconds}");
    assert!(server.lock().count("AUTHENTICATE") >= 2, "another token was tried");
    // It passes.
    server.sane();
    let status = rig.round(&account).await;
    assert_eq!(status["state"], "connected", "{status}");
    // It does not pass. What was the matter before, for hours, counts for nothing.
    server.instead("AUTHENTICATE", Times::Each, Reply::close("* BYE Try again later\r\n"));
    assert_eq!(rig.round(&account).await["state"], "unreachable");
    sqlx::query(
        "UPDATE account_leases SET failing_since = failing_since - interval '3 hours', wait_until = NULL",
    )
    .execute(&mut rig.app.database.superuser().await)
    .await
    .unwrap();
    server.sane();
    server.instead("AUTHENTICATE", Times::Each, "{tag} NO AUTHENTICATE failed.\r\n");
    assert_eq!(rig.round(&account).await["state"], "throttled");
    sqlx::query(
        "UPDATE account_leases SET failing_since = failing_since - interval '61 minutes', wait_until = NULL",
    )
    .execute(&mut rig.app.database.superuser().await)
    .await
    .unwrap();
    for _ in 0..2 {
        let status = rig.round(&account).await;
        assert_eq!(status["state"], "needs_reauth", "{status}");
    }
    server.sane();
    assert_eq!(rig.round(&account).await["state"], "connected");
    // A server that says what is wrong with the token means it.
    let said = "{\"status\":\"401\",\"schemes\":\"bearer\"}";
    let challenge = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, said);
    server.instead(
        "AUTHENTICATE",
        Times::Each,
        format!("+ {challenge}\r\n{{tag}} NO AUTHENTICATE failed.\r\n"),
    );
    assert_eq!(rig.round(&account).await["state"], "needs_reauth");
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_exchange_has_not_filed_itself_is_filed_once_it_was_looked_for() {
    let (rig, _dns) = named(&[HOST, "smtp.office365.com"]).await;
    let server = Imapd::start(CAPABILITIES).await;
    server.lock().add("Sent Items");
    let user = mail::new_mailbox(&rig.app);
    let mut settings = mail::settings(&rig.app, &user);
    settings["imap"] =
        json!({"host": HOST, "port": server.port, "security": "none", "username": user, "password": "p"});
    settings["smtp"]["host"] = json!("smtp.office365.com");
    settings["smtp"]["port"] = json!(rig.app.stack.submission_port);
    settings["smtp"]["security"] = json!("none");
    let account = rig.connect(&settings).await;
    for theirs in [true, false] {
        let draft =
            json!({"account_id": account, "to": [{"address": user}], "subject": "Hello", "text": "x"});
        let draft = rig.app.post(&rig.tenant, "/api/compose", &draft).await.expect(201);
        let path = format!("/api/compose/{}/send", draft["id"].as_str().unwrap());
        let sent = rig.app.post(&rig.tenant, &path, &json!({})).await.expect(202);
        let path = format!("/api/submissions/{}", sent["id"].as_str().unwrap());
        let state = async || rig.app.get(&rig.tenant, &path).await.expect(200);
        eventually("it is sent", Duration::from_secs(90), async || {
            (state().await["state"] == "sent").then_some(())
        })
        .await;
        assert_eq!(state().await["sent_copy"], "pending", "it is looked for in a minute");
        let due = "SELECT count(*) FROM jobs WHERE kind = 'file_sent_copy' AND run_at > now() + interval '20 seconds' AND $1::text IS NOT NULL";
        assert_eq!(rig.count(due, &account).await, 1);
        if theirs {
            let id = state().await["message_id_header"].as_str().unwrap_or_default().to_owned();
            let copy = mail::message("Hello", id.trim_matches(['<', '>']), "x");
            server.lock().mailbox("Sent Items").deliver(copy);
        }
        sqlx::query("UPDATE jobs SET run_at = now() WHERE kind = 'file_sent_copy'")
            .execute(&mut rig.app.database.superuser().await)
            .await
            .unwrap();
        eventually("it is there", Duration::from_secs(60), async || {
            (state().await["sent_copy"] == "done").then_some(())
        })
        .await;
        let expected = if theirs { (1, 0) } else { (2, 1) };
        let mut now = server.lock();
        assert_eq!((now.mailbox("Sent Items").messages.len(), now.count("APPEND")), expected);
    }
    rig.finish().await;
}
