//! What Gmail does at its limits, and what it does itself: the rig is dialled by Gmail's own name.

use std::time::Duration;

use emailclient_core::connect::places;
use emailclient_core::domain::account::credential::Protocol;
use emailclient_core::platform::id::AccountId;
use serde_json::{Value, json};
use tests::eventually::eventually;
use tests::imapd::gmail::SENT;
use tests::imapd::{Imapd, Reply, Times};
use tests::mail;
use tests::name_server::{self, NameServer, a};

use crate::odd::{Odd, Rig};

const HOST: &str = "imap.gmail.com";

/// The product, which finds these hosts on the loopback.
pub async fn named(hosts: &[&str]) -> (Rig, NameServer) {
    let mut records: Vec<_> = hosts.iter().map(|host| a(host, "127.0.0.1")).collect();
    records.push(a("localhost", "127.0.0.1"));
    let dns = name_server::serve(records).await;
    // By its network: a host that is allowed by its name is looked up as the system does.
    let allow = "localhost:1-65535,127.0.0.0/8:1-65535";
    let rig = Rig::with(&[
        ("DNS_SERVERS", &dns.address.to_string()),
        ("OUTBOUND_ALLOW", allow),
        ("IMAP_COMMAND_TIMEOUT_SECONDS", "20"),
    ])
    .await;
    (rig, dns)
}

fn bytes(n: u32) -> Vec<u8> {
    mail::message(&format!("M{n}"), &format!("g{n}@example.test"), &format!("body {n}"))
}

async fn gmail(rig: &Rig) -> Odd<'_> {
    let server = Imapd::start("").await;
    {
        let mut state = server.lock();
        state.become_gmail();
        state.arrive(&["INBOX"], bytes(1), None);
    }
    let mut odd = rig.odd_at(server, HOST).await;
    odd.settled().await;
    odd
}

/// Seconds until the account is tried again.
async fn wait(odd: &Odd<'_>) -> i64 {
    let seconds = "SELECT extract(epoch FROM next_due_at - now())::bigint FROM account_leases WHERE account_id = $1::uuid";
    odd.rig.count(seconds, &odd.account).await
}

fn text(status: &Value) -> String {
    status["cause"]["text"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_of_gmail_pause_the_account_as_long_as_gmail_does_and_say_so() {
    let (rig, _dns) = named(&[HOST]).await;
    let mut odd = gmail(&rig).await;
    let volume = "Gmail limits to 2.5 GB a day what may be read";
    let hours = 2_600..=86_400;
    let minutes = 20..=1_800;
    for (command, reply, says, waits) in [
        (
            "LOGIN",
            Reply::from("{tag} NO [ALERT] Too many simultaneous connections. (Failure)\r\n"),
            "Gmail allows 15 connections",
            &minutes,
        ),
        (
            "LOGIN",
            Reply::from("{tag} NO [OVERQUOTA] Account exceeded command or bandwidth limits.\r\n"),
            volume,
            &hours,
        ),
        (
            "SELECT",
            Reply::from("{tag} NO [OVERQUOTA] Account exceeded command or bandwidth limits.\r\n"),
            volume,
            &hours,
        ),
        ("*BODY.PEEK[]", Reply::from("{tag} NO [OVERQUOTA] enough\r\n"), volume, &hours),
        (
            "*X-GM-MSGID",
            Reply::close("* BYE [OVERQUOTA] Account exceeded command or bandwidth limits.\r\n"),
            volume,
            &hours,
        ),
    ] {
        let next = odd.server.lock().mailbox("INBOX").uidnext;
        odd.server.lock().arrive(&["INBOX"], bytes(next), None);
        odd.server.instead(command, Times::Each, reply);
        let status = odd.round().await;
        assert!(odd.server.sane() > 0, "{command}");
        assert_eq!(
            (&status["state"], &status["cause"]["code"]),
            (&json!("throttled"), &json!("upstream-throttled")),
            "{command}: {status}"
        );
        assert!(text(&status).starts_with(says), "{command}: {status}");
        assert!(waits.contains(&wait(&odd).await), "{command}: {}", wait(&odd).await);
        assert!(!status["cause"]["next_try_at"].is_null());
        // What a user asks for is tried at once, and all is well when the limit is over.
        odd.healthy().await;
        odd.settled().await;
    }
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_gmails_connections_others_may_have_all_and_then_there_is_waited() {
    let (rig, _dns) = named(&[HOST]).await;
    let mut odd = gmail(&rig).await;
    odd.server.lock().store().connections = 0;
    odd.server.lock().arrive(&["INBOX"], bytes(2), None);
    let status = odd.round().await;
    assert_eq!(status["state"], "throttled", "{status}");
    assert_eq!(status["cause"]["upstream"]["response_code"], "ALERT");
    odd.server.lock().store().connections = 15;
    odd.healthy().await;
    odd.settled().await;
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_has_as_many_places_as_its_provider_allows() {
    let rig = Rig::start().await;
    let odd = rig.odd("", |_| ()).await;
    for (imap, smtp, wanted) in [
        (HOST, "smtp.gmail.com", (4, 4)),
        ("outlook.office365.com", "smtp.office365.com", (4, 3)),
        ("imap.mail.yahoo.com", "smtp.mail.yahoo.com", (2, 2)),
        ("mail.example.org", "mail.example.org", (4, 4)),
    ] {
        sqlx::query("UPDATE accounts SET imap_host = $2, smtp_host = $3 WHERE id = $1::uuid")
            .bind(&odd.account)
            .bind(imap)
            .bind(smtp)
            .execute(&mut rig.app.database.superuser().await)
            .await
            .unwrap();
        let account = AccountId(odd.account.parse().unwrap());
        let mut held = Vec::new();
        let mut counts = (0, 0);
        for protocol in [Protocol::Imap, Protocol::Smtp] {
            loop {
                let mut tx = rig.app.db.tenant(rig.tenant.id).await.unwrap();
                let place = places::take(&mut tx, &rig.app.db, account, protocol).await.unwrap();
                tx.commit().await.unwrap();
                let Some(place) = place else { break };
                held.push(place);
                let count = if protocol == Protocol::Imap { &mut counts.0 } else { &mut counts.1 };
                *count += 1;
            }
        }
        assert_eq!(counts, wanted, "{imap}");
        for place in held {
            place.release().await;
        }
    }
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_what_another_server_than_gmails_sends_is_looked_for_and_filed_where_it_is_missing() {
    let rig = Rig::start().await;
    let server = Imapd::start("").await;
    server.lock().become_gmail();
    let user = mail::new_mailbox(&rig.app);
    let mut settings = mail::settings(&rig.app, &user);
    settings["imap"] = json!({"host": "127.0.0.1", "port": server.port, "security": "none", "username": user, "password": "p"});
    let account = rig.connect(&settings).await;
    for filed in [true, false] {
        let draft =
            json!({"account_id": account, "to": [{"address": user}], "subject": "Hello", "text": "x"});
        let draft = rig.app.post(&rig.tenant, "/api/compose", &draft).await.expect(201);
        let path = format!("/api/compose/{}/send", draft["id"].as_str().unwrap());
        let sent = rig.app.post(&rig.tenant, &path, &json!({})).await.expect(202);
        let path = format!("/api/submissions/{}", sent["id"].as_str().unwrap());
        let state = async || rig.app.get(&rig.tenant, &path).await.expect(200);
        let sent = eventually("it is sent", Duration::from_secs(90), async || {
            Some(state().await).filter(|now| now["state"] == "sent")
        })
        .await;
        assert_eq!(sent["sent_copy"], "pending", "it is looked for in a minute: {sent}");
        if filed {
            let id = sent["message_id_header"].as_str().unwrap_or_default();
            let copy = mail::message("Hello", id.trim_matches(['<', '>']), "x");
            server.lock().arrive(&[SENT], copy, None);
        }
        sqlx::query("UPDATE jobs SET run_at = now() WHERE kind = 'file_sent_copy'")
            .execute(&mut rig.app.database.superuser().await)
            .await
            .unwrap();
        eventually("it is there", Duration::from_secs(60), async || {
            (state().await["sent_copy"] == "done").then_some(())
        })
        .await;
        assert_eq!(server.lock().count("APPEND"), usize::from(!filed));
    }
    rig.finish().await;
}
