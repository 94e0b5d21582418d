//! From the greeting to the first command, throttling at any moment, and extensions that are offered and not there.

use serde_json::{Value, json};
use tests::imapd::{Imapd, Reply, Times};
use tests::tls::{Authority, Fault};

use crate::odd::{FULL, Odd, PLAIN, Rig, settings};

async fn filled<'a>(rig: &'a Rig, capabilities: &str) -> Odd<'a> {
    let mut odd = rig
        .odd(capabilities, |s| {
            s.mailbox("INBOX").fill(1, 5);
            s.add("Work").fill(1, 3);
        })
        .await;
    odd.settled().await;
    odd
}

/// Mail comes, then the server is told to misbehave.
fn something_happens(odd: &Odd<'_>) {
    let mut state = odd.server.lock();
    let next = state.mailbox("INBOX").uidnext;
    state.mailbox("INBOX").fill(next, next);
    state.mailbox("Work").flag(1, "\\Seen", next.is_multiple_of(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_says_instead_of_letting_us_in_changes_the_state_and_never_the_mail() {
    let rig = Rig::with(&[("IMAP_COMMAND_TIMEOUT_SECONDS", "3")]).await;
    let mut odd = filled(&rig, FULL).await;
    let ids = odd.ids().await;
    for (greeting, state, code) in [
        (Reply::close("* BYE Too many connections from your address\r\n"), "throttled", "upstream-throttled"),
        (Reply::close("* BYE [UNAVAILABLE] maintenance\r\n"), "throttled", "upstream-throttled"),
        (Reply::close("* BYE go away\r\n"), "unreachable", "upstream-closed"),
        (Reply::from("* PREAUTH welcome, whoever you are\r\n"), "unreachable", "upstream-protocol"),
        (Reply::close(""), "unreachable", "upstream-closed"),
        (Reply::close("* OK rea"), "unreachable", "upstream-closed"),
        (Reply::hang(""), "unreachable", "upstream-timeout"),
        (Reply::hang("* OK no line end"), "unreachable", "upstream-timeout"),
        (Reply::from("220 mail.example ESMTP\r\n"), "unreachable", "upstream-protocol"),
    ] {
        let what = format!("{greeting:?}");
        odd.server.lock().greeting = greeting;
        let status = odd.round().await;
        assert_eq!(
            (&status["state"], &status["cause"]["code"]),
            (&json!(state), &json!(code)),
            "{what}: {status}"
        );
        assert!(!status["next_due_at"].is_null());
    }
    odd.server.lock().greeting = "* OK ready\r\n".into();
    for (reply, state, code) in [
        (Reply::from("{tag} NO [AUTHENTICATIONFAILED] wrong\r\n"), "needs_reauth", "AUTHENTICATIONFAILED"),
        (Reply::from("{tag} NO [AUTHORIZATIONFAILED] not you\r\n"), "needs_reauth", "AUTHORIZATIONFAILED"),
        (Reply::from("{tag} NO [EXPIRED] old\r\n"), "needs_reauth", "EXPIRED"),
        (Reply::from("{tag} NO [UNAVAILABLE] no directory\r\n"), "throttled", "UNAVAILABLE"),
        (Reply::from("{tag} NO [LIMIT] too many\r\n"), "throttled", "LIMIT"),
        (Reply::from("{tag} NO [INUSE] the other one\r\n"), "throttled", "INUSE"),
        (Reply::from("{tag} NO Maximum number of connections exceeded\r\n"), "throttled", ""),
        (
            Reply::from("{tag} NO [ALERT] Too many simultaneous connections. (Failure)\r\n"),
            "throttled",
            "ALERT",
        ),
        (
            Reply::from("{tag} BAD User is throttled. Suggested Backoff Time: 9 milliseconds\r\n"),
            "throttled",
            "",
        ),
        (Reply::close("* BYE Too many simultaneous connections\r\n"), "throttled", ""),
        (Reply::close("* BYE internal error\r\n"), "unreachable", ""),
    ] {
        let what = format!("{reply:?}");
        odd.server.instead("LOGIN", Times::Each, reply);
        let status = odd.round().await;
        assert_eq!(status["state"], state, "{what}: {status}");
        let told = status["cause"]["upstream"]["response_code"].as_str().unwrap_or_default();
        assert_eq!(told, code, "{what}: {status}");
        odd.server.sane();
    }
    assert_eq!(odd.ids().await, ids);
    assert_eq!(odd.told().await, Vec::<String>::new(), "nothing happened to the mail");
    something_happens(&odd);
    odd.healthy().await;
    odd.settled_after(&["message.created", "message.updated"]).await;
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn throttling_in_the_middle_of_a_round_ends_it_keeps_what_came_and_is_waited_out() {
    let rig = Rig::start().await;
    for (capabilities, command) in [
        (FULL, "LIST"),
        (FULL, "ENABLE"),
        (FULL, "SELECT"),
        (FULL, "*CHANGEDSINCE"),
        (FULL, "*BODY.PEEK[]"),
        (PLAIN, "STATUS"),
        (PLAIN, "UID SEARCH"),
        (PLAIN, "*(UID FLAGS"),
    ] {
        let mut odd = filled(&rig, capabilities).await;
        for reply in [
            Reply::from("{tag} NO [LIMIT] not so fast\r\n"),
            Reply::from("{tag} BAD Request is throttled. Suggested Backoff Time: 299961 milliseconds\r\n"),
            Reply::close("* BYE [UNAVAILABLE] Too many connections\r\n"),
            Reply::close("* BYE Account exceeded command or bandwidth limits. \r\n"),
        ] {
            let what = format!("{capabilities} {command} {reply:?}");
            let waits = what.contains("299961");
            something_happens(&odd);
            if capabilities == PLAIN {
                // Of a mailbox whose count fits nobody asks for the listing.
                let last = odd.server.lock().mailbox("INBOX").uidnext - 1;
                odd.server.lock().mailbox("INBOX").expunge([last - 1]);
            }
            odd.server.instead(command, Times::Each, reply);
            let status = odd.round().await;
            assert!(odd.server.sane() > 0, "{what}");
            assert_eq!(
                (&status["state"], &status["run"]["state"]),
                (&json!("throttled"), &json!("failed")),
                "{what}: {status}"
            );
            assert_eq!(status["cause"]["code"], "upstream-throttled");
            if waits {
                let seconds = "SELECT extract(epoch FROM next_due_at - now())::bigint FROM account_leases WHERE account_id = $1::uuid";
                let seconds = rig.count(seconds, &odd.account).await;
                assert!((200..=600).contains(&seconds), "{seconds}");
            }
        }
        odd.healthy().await;
        odd.settled().await;
    }
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_extension_that_is_offered_and_answered_with_bad_is_done_without() {
    let rig = Rig::start().await;
    for command in [
        "ENABLE",
        "*RETURN (SUBSCRIBED",
        "*(CONDSTORE)",
        "*CHANGEDSINCE",
        "*VANISHED)",
        "*MODSEQ",
        "*RFC822.SIZE MODSEQ",
        "UID SEARCH RETURN",
        "UID MOVE",
        "UID EXPUNGE",
        "AUTHENTICATE",
    ] {
        let server = Imapd::start(&format!("{FULL} AUTH=PLAIN SASL-IR")).await;
        {
            let mut state = server.lock();
            state.mailbox("INBOX").fill(1, 8);
            state.add("Work").fill(1, 3);
        }
        server.instead(command, Times::Each, "{tag} BAD unknown command\r\n");
        let mut odd = rig.odd_on(server).await;
        let status = odd.healthy().await;
        odd.settled().await;
        {
            let mut state = odd.server.lock();
            let inbox = state.mailbox("INBOX");
            inbox.flag(3, "\\Seen", true);
            inbox.expunge([5]);
            inbox.fill(9, 9);
        }
        odd.healthy().await;
        odd.settled_after(&["message.created", "message.deleted", "message.updated"]).await;
        move_and_delete(&odd, &status).await;
        assert!(odd.server.used() > 0, "{command}");
        // What waited for the extension is not broken by its coming.
        odd.server.sane();
        odd.healthy().await;
        odd.settled().await;
    }
    rig.finish().await;
}

/// Moves the first message to Work and deletes the second for good, and waits until the server has done both.
async fn move_and_delete(odd: &Odd<'_>, status: &Value) {
    let (rig, account) = (odd.rig, &odd.account);
    let work = status["mailboxes"].as_array().unwrap().iter().find(|m| m["name"] == "Work").unwrap();
    let page = format!("/api/accounts/{account}/messages?role=inbox&limit=200");
    let page = rig.app.get(&rig.tenant, &page).await.expect(200);
    let path = |subject: &str| {
        let found = page["data"].as_array().unwrap().iter().find(|m| m["subject"] == subject).unwrap();
        format!("/api/messages/{}", found["id"].as_str().unwrap())
    };
    rig.app.patch(&rig.tenant, &path("M1"), &json!({"move_to": work["id"]})).await.expect(200);
    assert_eq!(rig.app.delete(&rig.tenant, &format!("{}?permanent=true", path("M2"))).await.status, 204);
    let done = async || {
        odd.round().await;
        let mut state = odd.server.lock();
        let is_gone = |uid| {
            let inbox = &state.mailboxes[0].messages;
            inbox.iter().find(|m| m.uid == uid).is_none_or(|m| m.flags.contains(&"\\Deleted".to_owned()))
        };
        let gone = is_gone(1) && is_gone(2);
        (gone && state.mailbox("Work").messages.len() == 4).then_some(())
    };
    tests::eventually::eventually("both are done", std::time::Duration::from_secs(120), done).await;
    // Without UID EXPUNGE they stay there, marked, until somebody else expunges.
    odd.server.lock().mailbox("INBOX").expunge([1, 2]);
    odd.round().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_is_not_to_be_trusted_gets_no_password() {
    let authority = Authority::new();
    let rig = Rig::with(&[("TLS_EXTRA_CA_FILE", authority.file.to_str().unwrap())]).await;
    for fault in [Fault::Expired, Fault::NotYetValid, Fault::OtherName, Fault::SelfSigned, Fault::None] {
        let server = Imapd::start(FULL).await;
        server.lock().mailbox("INBOX").fill(1, 2);
        let front = authority.before(server.port, fault).await;
        let mut body = settings(front.port);
        (body["imap"]["host"], body["imap"]["security"]) = (json!("localhost"), json!("tls"));
        let account = rig.connect(&body).await;
        let status = rig.round(&account).await;
        if fault == Fault::None {
            assert_eq!(status["state"], "connected", "{status}");
            rig.agrees(&account, &server).await;
            continue;
        }
        assert_eq!(status["state"], "unreachable", "{fault:?}: {status}");
        let told = status["cause"]["upstream"]["text"].as_str().unwrap();
        assert!(told.contains("certificate"), "{fault:?}: {told}");
        assert_eq!(server.lock().connections, 0, "{fault:?}");
    }
    rig.finish().await;
}
