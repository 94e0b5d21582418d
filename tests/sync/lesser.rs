//! Servers that can less, that forget, or that do not let us write.

use std::fs;
use std::os::unix::fs::chown;

use serde_json::json;
use tests::imap::Imap;
use tests::oracle;
use tests::relay::Relay;
use tests::{app::App, mail};

use crate::case::{Case, numbered};

/// Everything another client may do to a mailbox of ten.
async fn change_much(client: &mut Imap, app: &App, user: &str) {
    client.select("INBOX").await;
    client.ok("UID STORE 1:3 +FLAGS (\\Seen \\Answered $Work)").await;
    client.ok("UID STORE 4 +FLAGS (\\Deleted)").await;
    client.ok("UID EXPUNGE 4").await;
    client.ok("UID MOVE 5:6 Archive").await;
    client.ok("UNSELECT").await;
    mail::deliver(app, user, &numbered(11));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_condstore_or_qresync_the_same_changes_are_found() {
    for host in [devstack::CONDSTORE_HOST, devstack::PLAIN_HOST] {
        let case = Case::at(host, None, (1..=10).map(numbered).collect()).await;
        case.sync().await;
        case.settled().await;
        let before = case.ids().await;
        let events = case.events().await;
        change_much(&mut case.client().await, &case.app, &case.user).await;
        case.sync().await;
        let now = case.ids().await;
        assert_eq!(now.len(), 10, "{host}");
        assert!(before.iter().filter(|(m, _)| *m != "M4").all(|(m, id)| now.get(m) == Some(id)), "{host}");
        let told = events.kinds(&case.app).await;
        let of = |kind: &str| told.iter().filter(|k| *k == kind).count();
        // Three with flags and two moved away and back into view; one expunged, one new.
        assert_eq!((of("message.updated") >= 3, told.len()), (true, 3 + 1 + 1 + 2 * 2), "{host}: {told:?}");
        case.settled().await;
        case.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expunge_and_an_arrival_that_leave_the_count_equal_are_both_found() {
    for host in ["127.0.0.1", devstack::CONDSTORE_HOST, devstack::PLAIN_HOST] {
        let case = Case::at(host, None, (1..=5).map(numbered).collect()).await;
        case.sync().await;
        let mut client = case.client().await;
        client.select("INBOX").await;
        client.ok("UID STORE 2 +FLAGS (\\Deleted)").await;
        client.ok("UID EXPUNGE 2").await;
        client.append("INBOX", "", None, &numbered(6)).await;
        let events = case.events().await;
        case.sync().await;
        assert_eq!(
            case.ids().await.into_keys().collect::<Vec<_>>(),
            ["M1", "M3", "M4", "M5", "M6"],
            "{host}"
        );
        assert_eq!(events.kinds(&case.app).await, ["message.created", "message.deleted"], "{host}");
        case.settled().await;
        case.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_edits_reach_a_server_that_can_do_nothing_but_imap4rev1() {
    let case = Case::at(devstack::PLAIN_HOST, None, (1..=4).map(numbered).collect()).await;
    case.sync().await;
    let ids = case.ids().await;
    let archive = case.mailbox("Archive").await;
    case.patch(&ids["M1"], &json!({"starred": true, "keywords_add": ["Work"]})).await;
    case.patch(&ids["M2"], &json!({"move_to": archive})).await;
    let path = format!("/api/messages/{}?permanent=true", ids["M3"]);
    assert_eq!(case.app.delete(&case.tenant, &path).await.status, 204);
    case.sync().await;
    let server = oracle::server(&case.app, &case.user).await;
    let seen: Vec<(&str, u32, String)> =
        server.placed.iter().map(|p| (p.mailbox.as_str(), p.uid, p.flags.join(" "))).collect();
    let deleted = "\\Deleted".to_owned();
    assert_eq!(
        seen,
        [
            ("Archive", 1, String::new()),
            ("INBOX", 1, "Work \\Flagged".to_owned()),
            // Without UIDPLUS nothing may be expunged: it could be what somebody else has marked.
            ("INBOX", 2, deleted.clone()),
            ("INBOX", 3, deleted),
            ("INBOX", 4, String::new()),
        ]
    );
    let now = case.ids().await;
    assert_eq!(now.get("M2"), ids.get("M2"), "moved");
    assert!(!now.contains_key("M3"), "deleted for our user");
    case.settled().await;
    // Somebody else expunges what was left standing.
    let mut client = case.client().await;
    client.select("INBOX").await;
    client.ok("EXPUNGE").await;
    case.sync().await;
    assert_eq!(case.ids().await, now);
    case.settled().await;
    case.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_our_user_deleted_where_it_can_only_be_marked_is_back_once_somebody_unmarks_it() {
    let case = Case::at(devstack::PLAIN_HOST, None, (1..=3).map(numbered).collect()).await;
    case.sync().await;
    let ids = case.ids().await;
    let path = format!("/api/messages/{}?permanent=true", ids["M3"]);
    assert_eq!(case.app.delete(&case.tenant, &path).await.status, 204);
    case.sync().await;
    case.settled().await;
    assert!(!case.ids().await.contains_key("M3"));
    let events = case.events().await;
    let mut client = case.client().await;
    client.select("INBOX").await;
    client.ok("UID STORE 3 -FLAGS (\\Deleted)").await;
    case.sync().await;
    assert_eq!(case.ids().await, ids);
    assert_eq!(events.kinds(&case.app).await, ["message.created"]);
    case.settled().await;
    case.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_moves_without_copyuid_keep_their_ids() {
    for host in ["MOVE", "COPY"] {
        let app = Case::app().await;
        let user = mail::new_mailbox(&app);
        mail::fill(&app, &user, "INBOX", (1..=5).map(numbered).collect());
        let mut words = vec![("COPYUID", "XOPYUID")];
        if host == "COPY" {
            words.push((" MOVE", " XOVE"));
        }
        let relay = Relay::replacing(app.stack.imap_port, &words).await;
        let mut case = Case::of(app, user, "127.0.0.1", Some(relay.port)).await;
        case.app.add_worker();
        case.sync().await;
        let before = case.ids().await;
        let archive = case.mailbox("Archive").await;
        for name in ["M1", "M2"] {
            case.patch(&before[name], &json!({"move_to": archive})).await;
        }
        let copy = json!({"ids": [before["M3"]], "action": "copy", "mailbox_id": archive});
        case.app.post(&case.tenant, "/api/messages/actions", &copy).await.expect(200);
        case.sync().await;
        case.sync().await;
        assert_eq!(case.ids().await, before, "{host}");
        assert_eq!(case.mailboxes().await["Archive"]["total"], 3, "{host}");
        case.settled().await;
        case.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mod_sequence_of_the_far_future_is_followed_and_forgotten_again() {
    let case = Case::with((1..=6).map(numbered).collect()).await;
    let before = case.ids().await;
    // Over 2⁵³, where programs that read numbers as floats lose changes.
    case.doveadm("mailbox update", &["--min-highest-modseq", "9007199254740993", "INBOX"]);
    case.sync().await;
    case.settled().await;
    let mut client = case.client().await;
    client.select("INBOX").await;
    client.ok("UID STORE 1 +FLAGS (\\Seen)").await;
    let events = case.events().await;
    case.sync().await;
    assert_eq!(events.kinds(&case.app).await, ["message.updated"]);
    case.settled().await;
    client.run("LOGOUT").await;
    // The server loses its index, and with it counts from the beginning: ours is a sequence that it has yet to reach.
    let folder = case.app.stack.mail_root.join(&case.user).join("Maildir");
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_name().to_string_lossy().starts_with("dovecot.index") {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    let mut client = case.client().await;
    let opened = client.select("INBOX").await;
    let told = opened
        .untagged
        .iter()
        .find_map(|r| r.text.split_once("[HIGHESTMODSEQ ")?.1.split(']').next()?.parse().ok());
    assert!(told.is_none_or(|n: u64| n < 1_000), "{told:?}");
    client.ok("UID STORE 2 +FLAGS (\\Flagged)").await;
    client.ok("UID STORE 3 +FLAGS (\\Deleted)").await;
    client.ok("UID EXPUNGE 3").await;
    case.sync().await;
    let now = case.ids().await;
    assert_eq!(now.len(), 5);
    assert!(now.iter().all(|(m, id)| before[m] == *id));
    case.settled().await;
    case.finish().await;
}

/// Gives the owner of a mailbox these rights (RFC 4314) where the server looks at them.
fn grant(case: &Case, mailbox: &str, rights: &str) {
    let file = case.app.stack.mail_root.join(&case.user).join(format!("Maildir/.{mailbox}/dovecot-acl"));
    fs::write(&file, format!("owner {rights}\n")).unwrap();
    let owner = fs::metadata(file.parent().unwrap()).unwrap();
    use std::os::unix::fs::MetadataExt as _;
    chown(&file, Some(owner.uid()), Some(owner.gid())).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_mailbox_does_not_permit_is_taken_back_or_waits() {
    let app = Case::app().await;
    let user = mail::new_mailbox(&app);
    mail::fill(&app, &user, "Shared", vec![numbered(1), numbered(2)]);
    mail::fill(&app, &user, "Readable", vec![numbered(3), numbered(4)]);
    let mut case = Case::of(app, user, devstack::RIGHTS_HOST, None).await;
    grant(&case, "Shared", "lrs");
    grant(&case, "Readable", "lr");
    case.app.add_worker();
    case.sync().await;
    let ids = case.ids().await;
    assert_eq!(ids.len(), 4);
    // Only \Seen may be kept in Shared; the rest of the edit is undone.
    case.patch(&ids["M1"], &json!({"unread": false, "starred": true, "keywords_add": ["Work"]})).await;
    case.sync().await;
    let row = case.app.get(&case.tenant, &format!("/api/messages/{}", ids["M1"])).await.expect(200);
    assert_eq!(
        (&row["unread"], &row["starred"], &row["keywords"]),
        (&json!(false), &json!(false), &json!([]))
    );
    case.settled().await;
    // Nothing can be changed in Readable: the edit waits, and goes when it may.
    case.patch(&ids["M3"], &json!({"unread": false})).await;
    case.sync().await;
    let seen = async |subject: &str| {
        let hash = case.listed().await.into_iter().find(|m| m["subject"] == subject).unwrap();
        hash["unread"] == false
    };
    assert!(seen("M3").await);
    let flags = async || oracle::server(&case.app, &case.user).await.placed;
    assert!(flags().await.iter().filter(|p| p.mailbox == "Readable").all(|p| p.flags.is_empty()));
    grant(&case, "Readable", "lrs");
    case.sync().await;
    assert!(flags().await.iter().any(|p| p.mailbox == "Readable" && p.flags == ["\\Seen"]));
    case.settled().await;
    case.finish().await;
}
