//! Servers on which a user's own mailboxes stand under a prefix (RFC 2342): what is made is made there, and mailboxes of others
//! are not ours.

use std::time::Duration;

use serde_json::{Value, json};
use tests::eventually::eventually;
use tests::imap::Imap;

use crate::case::{Case, numbered};
use crate::edits::{ROUNDS, mailbox_id, message, pushed};
use crate::odd::{FULL, Odd, PLAIN, Rig};

const SOON: Duration = Duration::from_secs(40);

/// As Dovecot names them without a prefix: the same mail on another address.
fn on_server(case: &Case, mailbox: &str) -> usize {
    case.doveadm("search", &["mailbox", mailbox, "all"]).lines().count()
}

async fn case() -> Case {
    let case = Case::at(devstack::PREFIX_HOST, None, (1..=6).map(numbered).collect()).await;
    case.sync().await;
    case
}

async fn act(case: &Case, action: &str, subject: &str) {
    let body = json!({"ids": [case.ids().await[subject]], "action": action});
    case.app.post(&case.tenant, "/api/messages/actions", &body).await.expect(200);
}

/// The mailbox of a role: path and name.
async fn of_role(case: &Case, role: &str) -> Option<(String, String)> {
    let all = case.mailboxes().await;
    let found = all.values().find(|m| m["role"] == role)?;
    Some((found["path"].as_str().unwrap().to_owned(), found["name"].as_str().unwrap().to_owned()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_names_begin_with_inbox_the_mailboxes_of_roles_are_made_under_it_and_mail_reaches_them() {
    let case = case().await;
    assert_eq!(case.mailboxes().await.into_keys().collect::<Vec<_>>(), ["INBOX"], "nothing is there yet");
    for (action, subject, role, name) in [
        ("archive", "M1", "archive", "Archive"),
        ("junk", "M2", "junk", "Junk"),
        ("delete", "M3", "trash", "Trash"),
        ("archive", "M4", "archive", "Archive"),
    ] {
        act(&case, action, subject).await;
        let made = of_role(&case, role).await;
        assert_eq!(made, Some((format!("INBOX.{name}"), name.to_owned())), "{action}");
    }
    for (mailbox, count) in [("Archive", 2), ("Junk", 1), ("Trash", 1), ("INBOX", 2)] {
        eventually(&format!("{count} in {mailbox}"), SOON, async || {
            (on_server(&case, mailbox) == count).then_some(())
        })
        .await;
    }
    let sync = case.sync().await;
    assert!(sync["mailboxes"].as_array().unwrap().iter().all(|m| m["cause"].is_null()), "{sync}");
    assert_eq!(case.ids().await.len(), 6);
    assert_eq!(of_role(&case, "archive").await, Some(("INBOX.Archive".to_owned(), "Archive".to_owned())));
    // Nothing is left to do, and a second round plans nothing.
    let events = case.events().await;
    case.sync().await;
    assert_eq!(events.kinds(&case.app).await, Vec::<String>::new());
    case.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_our_user_makes_stands_under_the_prefix_and_can_be_renamed_moved_and_deleted() {
    let case = case().await;
    let all = format!("/api/accounts/{}/mailboxes", case.account);
    let make = async |body: Value| case.app.post(&case.tenant, &all, &body).await.expect(201);
    let path = |m: &Value| (m["path"].as_str().unwrap().to_owned(), m["name"].as_str().unwrap().to_owned());
    let is = |path: &str, name: &str| (path.to_owned(), name.to_owned());
    let top = make(json!({"name": "Größe"})).await;
    assert_eq!(path(&top), is("INBOX.Größe", "Größe"));
    let child = make(json!({"name": "Child", "parent_id": top["id"]})).await;
    assert_eq!(path(&child), is("INBOX.Größe.Child", "Child"));
    let inbox = case.mailbox("INBOX").await;
    let below = make(json!({"name": "Below", "parent_id": inbox})).await;
    assert_eq!(path(&below), is("INBOX.Below", "Below"));
    for name in ["inbox", "a.b", "Below"] {
        let refused = case.app.post(&case.tenant, &all, &json!({"name": name})).await;
        assert!(matches!(refused.status, 409 | 422), "{name}: {}", refused.text());
    }
    let there = async |name: &str, is_there: bool| {
        eventually(&format!("{name}: {is_there}"), SOON, async || {
            let list = case.doveadm("mailbox list -8", &[]);
            (list.lines().any(|l| l == name) == is_there).then_some(())
        })
        .await;
    };
    for name in ["Größe", "Größe/Child", "Below"] {
        there(name, true).await;
    }
    case.sync().await;
    let one = |m: &Value| format!("/api/mailboxes/{}", m["id"].as_str().unwrap());
    let change =
        async |m: &Value, body: Value| case.app.patch(&case.tenant, &one(m), &body).await.expect(200);
    assert_eq!(path(&change(&below, json!({"name": "Beside"})).await), is("INBOX.Beside", "Beside"));
    there("Beside", true).await;
    let moved = change(&below, json!({"parent_id": top["id"]})).await;
    assert_eq!(path(&moved), is("INBOX.Größe.Beside", "Beside"));
    there("Größe/Beside", true).await;
    case.patch(&case.ids().await["M1"], &json!({"move_to": child["id"]})).await;
    eventually("it is moved", SOON, async || (on_server(&case, "Größe/Child") == 1).then_some(())).await;
    case.sync().await;
    assert_eq!(case.app.delete(&case.tenant, &one(&below)).await.status, 204);
    there("Größe/Beside", false).await;
    let status = case.sync().await;
    assert!(status["mailboxes"].as_array().unwrap().iter().all(|m| m["cause"].is_null()), "{status}");
    case.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shared_mailboxes_are_left_out_until_the_account_asks_for_them() {
    let case = Case::unserved(devstack::PREFIX_HOST, None, vec![numbered(1)]).await;
    case.doveadm("mailbox create", &["Work"]);
    let mut client = Imap::login_at(&case.app, devstack::PREFIX_HOST, &case.user).await;
    client.ok("CREATE Public.Board").await;
    client.append("Public.Board", "", None, &numbered(7)).await;
    let mut case = case;
    case.app.add_worker();
    case.sync().await;
    let paths = async || case.mailboxes().await.into_keys().collect::<Vec<_>>();
    assert_eq!(paths().await, ["INBOX", "INBOX.Work"]);
    let account = format!("/api/accounts/{}", case.account);
    let shown = case.app.get(&case.tenant, &account).await.expect(200);
    assert_eq!(shown["shared_mailboxes"], false);
    case.app.patch(&case.tenant, &account, &json!({"shared_mailboxes": true})).await.expect(200);
    eventually("they are read", SOON, async || {
        (case.ids().await.contains_key("M7") && paths().await.iter().any(|p| p == "Public.Board"))
            .then_some(())
    })
    .await;
    case.app.patch(&case.tenant, &account, &json!({"shared_mailboxes": false})).await.expect(200);
    eventually("they are left out again", SOON, async || {
        (!case.ids().await.contains_key("M7") && paths().await == ["INBOX", "INBOX.Work"]).then_some(())
    })
    .await;
    case.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_copy_of_what_is_sent_goes_into_a_sent_mailbox_under_the_prefix() {
    let case = case().await;
    let draft =
        json!({"account_id": case.account, "to": [{"address": case.user}], "subject": "Hello", "text": "x"});
    let draft = case.app.post(&case.tenant, "/api/compose", &draft).await.expect(201);
    let path = format!("/api/compose/{}/send", draft["id"].as_str().unwrap());
    case.app.post(&case.tenant, &path, &json!({})).await.expect(202);
    eventually("the copy is filed", Duration::from_secs(90), async || {
        (on_server(&case, "Sent") == 1).then_some(())
    })
    .await;
    assert_eq!(of_role(&case, "sent").await, Some(("INBOX.Sent".to_owned(), "Sent".to_owned())));
    case.finish().await;
}

async fn archive(odd: &Odd<'_>, n: u32) {
    let body = json!({"ids": [message(odd, n).await["id"]], "action": "archive"});
    odd.rig.app.post(&odd.rig.tenant, "/api/messages/actions", &body).await.expect(200);
}

async fn odd<'a>(rig: &'a Rig, namespaces: &str, made_under: &str, delimiter: char) -> Odd<'a> {
    rig.odd(&format!("{FULL} NAMESPACE"), |s| {
        s.namespaces = namespaces.to_owned();
        s.made_under = made_under.to_owned();
        s.delimiter = Some(delimiter);
        s.mailbox("INBOX").fill(1, 3);
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_server_says_of_its_namespaces_an_archive_is_made_where_it_takes_one() {
    let rig = Rig::start().await;
    for (told, under, delimiter, wanted) in [
        (r#"(("INBOX." ".")) (("user." ".")) (("" "."))"#, "INBOX.", '.', "INBOX.Archive"),
        (r#"(("INBOX." ".")("Other." ".")) NIL NIL"#, "INBOX.", '.', "INBOX.Archive"),
        (r#"(("Mine/" "/")) NIL NIL"#, "Mine/", '/', "Mine/Archive"),
        (r#"(("INBOX" ".")) NIL NIL"#, "INBOX.", '.', "INBOX.Archive"),
        (r##"(("" "/")("#mh/" "/")) (("~" "/")) NIL"##, "", '/', "Archive"),
        (r#"((NIL "/")) NIL NIL"#, "", '/', "Archive"),
        (r#"(("" NIL)) NIL NIL"#, "", '/', "Archive"),
        (r#"NIL NIL (("" "/"))"#, "", '/', "Archive"),
        (r#"NIL NIL NIL"#, "", '/', "Archive"),
        (r#"what ((( is "this"#, "", '/', "Archive"),
        ("", "", '/', "Archive"),
    ] {
        let mut odd = odd(&rig, told, under, delimiter).await;
        archive(&odd, 2).await;
        // What was moved into a mailbox that is new is seen there by the next round.
        odd.healthy().await;
        pushed(&odd).await;
        odd.healthy().await;
        assert_eq!(odd.server.lock().mailbox(wanted).messages.len(), 1, "{told}");
        assert_eq!(message(&odd, 2).await["mailboxes"][0]["role"], "archive", "{told}");
        odd.settled().await;
    }
    for refusal in ["{tag} BAD unknown command\r\n", "{tag} NO not for you\r\n", "{tag} OK\r\n"] {
        let server = tests::imapd::Imapd::start(&format!("{FULL} NAMESPACE")).await;
        server.lock().mailbox("INBOX").fill(1, 3);
        server.instead("NAMESPACE", tests::imapd::Times::Each, refusal);
        let odd = rig.odd_on(server).await;
        odd.healthy().await;
        assert!(odd.server.used() > 0, "it was asked");
        archive(&odd, 1).await;
        odd.healthy().await;
        pushed(&odd).await;
        assert_eq!(odd.server.lock().mailbox("Archive").messages.len(), 1, "{refusal}");
    }
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mailboxes_of_other_users_are_not_the_accounts() {
    let rig = Rig::start().await;
    let mut odd = rig
        .odd(&format!("{FULL} NAMESPACE"), |s| {
            s.namespaces = r#"(("INBOX." ".")) (("user." ".")) (("" "."))"#.to_owned();
            s.delimiter = Some('.');
            s.mailbox("INBOX").fill(1, 2);
            for name in ["INBOX.Sent", "user.anna", "user.anna.Sent", "Board"] {
                s.add(name).fill(1, 1);
            }
        })
        .await;
    let paths = async |odd: &Odd<'_>| -> Vec<String> {
        let page =
            rig.app.get(&rig.tenant, &format!("/api/accounts/{}/mailboxes", odd.account)).await.expect(200);
        page["data"].as_array().unwrap().iter().map(|m| m["path"].as_str().unwrap().to_owned()).collect()
    };
    odd.healthy().await;
    assert_eq!(paths(&odd).await, ["INBOX", "INBOX.Sent"]);
    assert!(odd.told().await.iter().all(|kind| kind != "mailbox.deleted"));
    let selected =
        odd.server.lock().heard.iter().any(|c| c.contains("SELECT \"user") || c.contains("SELECT \"Board"));
    assert!(!selected, "nobody looks into them");
    let patch = json!({"shared_mailboxes": true});
    rig.app.patch(&rig.tenant, &format!("/api/accounts/{}", odd.account), &patch).await.expect(200);
    odd.healthy().await;
    assert_eq!(paths(&odd).await, ["INBOX", "Board", "INBOX.Sent", "user.anna", "user.anna.Sent"]);
    odd.settled().await;
    rig.finish().await;
}

/// Without NAMESPACE nothing tells where names begin.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nothing_tells_of_the_prefix_the_refusal_is_told_and_the_message_is_back() {
    let rig = Rig::start().await;
    let mut odd = rig
        .odd(PLAIN, |s| {
            s.made_under = "INBOX.".to_owned();
            s.delimiter = Some('.');
            s.mailbox("INBOX").fill(1, 3);
            s.add("INBOX.Work");
        })
        .await;
    archive(&odd, 2).await;
    let all = format!("/api/accounts/{}/mailboxes", odd.account);
    let made = rig.app.post(&rig.tenant, &all, &json!({"name": "Mine"})).await.expect(201);
    let cause = |status: &Value, id: &Value| {
        let all = status["mailboxes"].as_array().unwrap();
        all.iter().find(|m| m["id"] == *id).unwrap()["cause"].clone()
    };
    let wanted = message(&odd, 2).await["mailboxes"][0]["id"].clone();
    let told = eventually("it is told while it is tried", SOON, async || {
        let path = format!("/api/sync/status/{}", odd.account);
        let status = rig.app.get(&rig.tenant, &path).await.expect(200);
        Some(cause(&status, &wanted)).filter(|cause| cause["code"] == "refused")
    })
    .await;
    assert!(told["upstream"]["text"].as_str().unwrap().contains("prefixed"), "{told}");
    for _ in 0..ROUNDS {
        odd.round().await;
        rig.minutes_later().await;
    }
    assert_eq!(message(&odd, 2).await["mailboxes"][0]["role"], "inbox");
    let status = odd.round().await;
    assert_eq!(cause(&status, &made["id"])["code"], "refused", "{status}");
    let inbox = mailbox_id(&odd, "INBOX").await;
    assert_eq!(odd.server.lock().mailbox("INBOX").messages.len(), 3);
    // Below what is there it goes.
    let below = json!({"name": "Mine", "parent_id": inbox});
    rig.app.post(&rig.tenant, &all, &below).await.expect(201);
    eventually("it is made", SOON, async || {
        odd.server.lock().mailboxes.iter().any(|m| m.name == b"INBOX.Mine").then_some(())
    })
    .await;
    odd.told().await;
    rig.finish().await;
}

/// An account that an earlier release connected: names at the top wait, and were refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_made_at_the_top_before_the_prefix_was_known_goes_under_it() {
    let rig = Rig::start().await;
    let odd = odd(&rig, r#"(("INBOX." ".")) NIL NIL"#, "INBOX.", '.').await;
    let forget = "UPDATE account_leases SET namespaces = NULL, namespaces_at = now()";
    sqlx::query(forget).execute(&mut rig.app.database.superuser().await).await.unwrap();
    let all = format!("/api/accounts/{}/mailboxes", odd.account);
    let made = rig.app.post(&rig.tenant, &all, &json!({"name": "Mine"})).await.expect(201);
    assert_eq!(made["path"], "Mine");
    for _ in 0..ROUNDS {
        odd.round().await;
    }
    sqlx::query("UPDATE account_leases SET namespaces_at = NULL")
        .execute(&mut rig.app.database.superuser().await)
        .await
        .unwrap();
    odd.healthy().await;
    assert!(odd.server.lock().mailboxes.iter().any(|m| m.name == b"INBOX.Mine"));
    let now = rig.app.get(&rig.tenant, &all).await.expect(200);
    let now = now["data"].as_array().unwrap().iter().find(|m| m["id"] == made["id"]).cloned().unwrap();
    assert_eq!(
        (&now["path"], &now["name"], &now["selectable"]),
        (&json!("INBOX.Mine"), &json!("Mine"), &json!(true))
    );
    rig.finish().await;
}
