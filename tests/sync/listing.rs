//! What is there, asked of servers that refuse, leave out, cut short or name strangely. Nothing is deleted for it.

use serde_json::json;
use tests::imapd::{Reply, Times, without_lines};

use crate::odd::{CONDSTORE, FULL, Odd, PLAIN, Rig};

/// The command that is answered wrongly, where it is a part of rounds with all these extensions.
const COMMANDS: [(&str, &str); 9] = [
    (FULL, "LIST"),
    (FULL, "SELECT"),
    (FULL, "*CHANGEDSINCE"),
    (CONDSTORE, "*CHANGEDSINCE"),
    (CONDSTORE, "UID SEARCH"),
    (PLAIN, "STATUS"),
    (PLAIN, "LIST"),
    (PLAIN, "*(UID FLAGS"),
    (PLAIN, "UID SEARCH"),
];

async fn changed_behind_our_back<'a>(rig: &'a Rig, capabilities: &str) -> Odd<'a> {
    let mut odd = rig
        .odd(capabilities, |s| {
            s.mailbox("INBOX").fill(1, 12);
            s.add("Work").fill(1, 4);
        })
        .await;
    odd.settled().await;
    let mut state = odd.server.lock();
    state.mailbox("INBOX").expunge([3]);
    state.mailbox("INBOX").flag(5, "\\Seen", true);
    drop(state);
    odd
}

/// Everything that was not deleted is held, whatever was said.
async fn nothing_is_lost(odd: &Odd<'_>, what: &str) {
    let held = odd.uids("INBOX").await;
    assert!((1..=12).filter(|uid| *uid != 3).all(|uid| held.contains(&uid)), "{what}: {held:?}");
    assert_eq!(odd.uids("Work").await, [1, 2, 3, 4], "{what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_and_half_answers_to_any_question_delete_nothing_and_are_made_up_for() {
    let rig = Rig::with(&[("IMAP_COMMAND_TIMEOUT_SECONDS", "3")]).await;
    for (capabilities, command) in COMMANDS {
        let odd = changed_behind_our_back(&rig, capabilities).await;
        let mut toggled = true;
        for reply in [
            Reply::from("{tag} NO never\r\n"),
            Reply::from("{tag} NO [SERVERBUG] oops\r\n"),
            Reply::from("{tag} BAD what\r\n"),
            Reply::from("{tag} OK\r\n"),
            Reply::close("* BYE over\r\n"),
            Reply::close("* LIST () \"/\" INBOX\r\n* SEARCH 1\r\n* 0 EXISTS\r\n* 1 FE"),
            Reply::from(
                "* LIST () \"/\" INBOX\r\n* SEARCH 1\r\n* 1 FETCH (UID 1 FLAGS ())\r\n{tag} NO cut short\r\n",
            ),
        ] {
            let what = format!("{capabilities} {command} {reply:?}");
            // However the round before ended, there is something to ask for.
            odd.server.lock().mailbox("INBOX").flag(5, "$Again", toggled);
            toggled = !toggled;
            odd.server.instead(command, Times::Each, reply);
            odd.round().await;
            assert!(odd.server.sane() > 0, "{what}");
            nothing_is_lost(&odd, &what).await;
        }
        let mut odd = odd;
        odd.healthy().await;
        let told = odd.told().await;
        assert_eq!(told.iter().filter(|kind| *kind == "message.deleted").count(), 1, "{told:?}");
        let others = ["message.deleted", "message.updated", "mailbox.updated"];
        assert!(told.iter().all(|kind| others.contains(&kind.as_str())), "{told:?}");
        odd.settled().await;
    }
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listing_cut_short_with_ok_deletes_nothing() {
    let rig = Rig::start().await;
    for capabilities in [FULL, PLAIN] {
        let mut odd = rig.odd(capabilities, |s| s.mailbox("INBOX").fill(1, 300)).await;
        odd.settled().await;
        odd.server.lock().mailbox("INBOX").expunge([7]);
        // By SEARCH only, by both ways alike, and by neither but with a count that does not fit.
        for (search, fetch) in [(true, false), (true, true), (false, true)] {
            if search {
                odd.server.spoil("UID SEARCH", Times::Each, |sane| {
                    let tagged = sane.trim_end().rsplit("\r\n").next().unwrap().to_owned();
                    match sane.contains("ESEARCH") {
                        true => format!("* ESEARCH UID ALL 1:6,8:20\r\n{tagged}\r\n"),
                        false => format!("* SEARCH 1 2 3 4 5 6 8 9\r\n{tagged}\r\n"),
                    }
                });
            }
            if fetch {
                odd.server.spoil("UID FETCH 1:* (UID", Times::Each, |sane| {
                    let tagged = sane.trim_end().rsplit("\r\n").next().unwrap().to_owned();
                    let lines: String = sane.split_inclusive("\r\n").take(9).collect();
                    format!("{}{tagged}\r\n", without_lines(&lines, &tagged))
                });
            }
            // What QRESYNC says is enough for one deletion: something else must ask for the listing.
            let expunged = [40 + u32::from(search) * 2 + u32::from(fetch)];
            odd.server.spoil("*CHANGEDSINCE", Times::Each, |sane| without_lines(sane, "VANISHED"));
            odd.server.lock().mailbox("INBOX").expunge(expunged);
            odd.round().await;
            let held = odd.uids("INBOX").await.len();
            assert!(held >= 296, "{capabilities} {search} {fetch}: {held}");
            odd.server.sane();
        }
        odd.healthy().await;
        odd.settled_after(&["message.deleted"; 4]).await;
    }
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_without_inbox_or_without_anything_keeps_the_tree_and_its_mail() {
    let rig = Rig::start().await;
    for capabilities in [FULL, PLAIN] {
        let mut odd = changed_behind_our_back(&rig, capabilities).await;
        for kept in ["", "Work", "INBOX"] {
            odd.server.spoil("LIST", Times::Each, move |sane| {
                let keep = |line: &&str| {
                    !line.starts_with("* ") || (!kept.is_empty() && line.contains(&format!("\"{kept}\"")))
                };
                sane.split_inclusive("\r\n").filter(keep).collect::<String>()
            });
            odd.round().await;
            assert!(odd.server.sane() > 0);
            nothing_is_lost(&odd, kept).await;
        }
        odd.healthy().await;
        odd.settled_after(&["message.deleted", "message.updated"]).await;
    }
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mailbox_that_refuses_to_be_selected_is_kept_and_holds_up_no_other() {
    let rig = Rig::start().await;
    for capabilities in [FULL, PLAIN] {
        let mut odd = changed_behind_our_back(&rig, capabilities).await;
        odd.server.lock().mailbox("Work").phantom = true;
        odd.healthy().await;
        let told = odd.told().await;
        assert_eq!(told, ["mailbox.updated", "message.deleted", "message.updated"]);
        nothing_is_lost(&odd, "a phantom").await;
        rig.rests(&odd.account).await;
        {
            let mut state = odd.server.lock();
            state.mailbox("Work").phantom = false;
            state.mailbox("Work").fill(5, 5);
        }
        odd.healthy().await;
        odd.settled_after(&["mailbox.updated", "message.created"]).await;
        // STATUS gives numbers, SELECT says no.
        odd.server.lock().mailbox("Work").fill(6, 6);
        odd.server.lock().mailbox("INBOX").fill(13, 13);
        odd.server.instead("SELECT \"Work\"", Times::Each, "{tag} NO Mailbox doesn't exist: Work\r\n");
        let status = odd.round().await;
        let work = status["mailboxes"].as_array().unwrap().iter().find(|m| m["name"] == "Work").unwrap();
        assert_eq!(work["cause"]["code"], "no-such-mailbox", "{status}");
        assert_eq!(odd.uids("Work").await.len(), 5);
        assert_eq!(odd.uids("INBOX").await.len(), 12, "others are read");
        odd.server.sane();
        odd.healthy().await;
        odd.settled_after(&["message.created"; 2]).await;
    }
    rig.finish().await;
}

/// Every name a server might send, each with a message in it.
fn strange_names() -> Vec<Vec<u8>> {
    let long: String = (0..700u32).map(|n| format!("{:x}", n.wrapping_mul(2_654_435_761))).collect();
    vec![
        b"say \"cheese\"".to_vec(),
        b"back\\slash".to_vec(),
        "Entwürfe".as_bytes().to_vec(),
        b"\xff\xfe8-bit".to_vec(),
        b"broken &ZZ utf-7".to_vec(),
        b"&".to_vec(),
        b"&AOk-t&AOk-".to_vec(),
        b"&2AA-".to_vec(),
        b"star*and%".to_vec(),
        b"NIL".to_vec(),
        b" ".to_vec(),
        b"{5}".to_vec(),
        b"(x) [y]".to_vec(),
        b"a.b/c\\d".to_vec(),
        b"tab\there".to_vec(),
        b"inbox.sub".to_vec(),
        long.as_bytes()[..1_000].to_vec(),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_in_every_spelling_and_delimiters_of_every_kind_are_read_and_written_back() {
    let rig = Rig::start().await;
    for (capabilities, delimiter) in
        [(FULL, None), (PLAIN, Some('.')), (FULL, Some('\\')), (PLAIN, Some('/'))]
    {
        let mut odd = rig
            .odd(capabilities, |s| {
                s.delimiter = delimiter;
                s.mailbox("INBOX").fill(1, 2);
                for name in strange_names() {
                    s.add(name).fill(1, 1);
                }
            })
            .await;
        odd.settled().await;
        let count = strange_names().len() as i64 + 1;
        let mailboxes =
            "SELECT count(*) FROM mailboxes WHERE account_id = $1::uuid AND selectable AND state = 'synced'";
        assert_eq!(rig.count(mailboxes, &odd.account).await, count, "{delimiter:?}");
        // What a client sees of it is text without control characters, and what it does reaches the mailbox.
        let path = format!("/api/accounts/{}/mailboxes?limit=200", odd.account);
        let page = rig.app.get(&rig.tenant, &path).await.expect(200);
        assert_eq!(page["data"].as_array().unwrap().len() as i64, count);
        let messages = format!("/api/accounts/{}/messages?limit=200", odd.account);
        let page = rig.app.get(&rig.tenant, &messages).await.expect(200);
        for message in page["data"].as_array().unwrap() {
            let path = format!("/api/messages/{}", message["id"].as_str().unwrap());
            rig.app.patch(&rig.tenant, &path, &json!({"starred": true})).await.expect(200);
        }
        odd.healthy().await;
        assert_eq!(
            rig.app.get(&rig.tenant, &messages).await.expect(200)["data"][0]["flags"],
            json!(["\\Flagged"])
        );
        {
            let state = odd.server.lock();
            for mailbox in &state.mailboxes {
                assert_eq!(
                    mailbox.messages[0].flags,
                    ["\\Flagged"],
                    "{:?}",
                    String::from_utf8_lossy(&mailbox.name)
                );
            }
        }
        odd.settled().await;
    }
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_no_mailbox_can_have_cost_that_mailbox_and_not_the_account() {
    let rig = Rig::start().await;
    for capabilities in [FULL, PLAIN] {
        let mut odd = rig
            .odd(capabilities, |s| {
                s.mailbox("INBOX").fill(1, 2);
                s.add("Work").fill(1, 2);
            })
            .await;
        odd.settled().await;
        let long: String = (0..9_000u32).map(|n| format!("{:x}", n.wrapping_mul(2_654_435_761))).collect();
        let names = [
            "\"\"".to_owned(),
            "{3}\r\na\0b".to_owned(),
            "{4}\r\na\r\nb".to_owned(),
            format!("\"{}\"", &long[..5_000]),
            format!("{{{}}}\r\n{long}", long.len()),
            "(not a name)".to_owned(),
            "\"inbox\"".to_owned(),
            "\"Work\"".to_owned(),
        ];
        odd.server.spoil("LIST", Times::Each, move |sane| {
            let lines: String = names.iter().map(|n| format!("* LIST () \"/\" {n}\r\n")).collect();
            let others = "* LIST () {3}\r\n\0\r\n \"d\"\r\n* LIST\r\n* LIST (\r\n* LIST () \"/\"\r\n* STATUS \"Work\"\r\n* STATUS (\r\n";
            format!("{lines}{others}{sane}")
        });
        odd.server.lock().mailbox("Work").fill(3, 3);
        let status = odd.round().await;
        assert_eq!(status["run"]["state"], "done", "{status}");
        assert_eq!(odd.uids("Work").await, [1, 2, 3], "{status}");
        rig.agrees(&odd.account, &odd.server).await;
        odd.server.sane();
        odd.round().await;
        odd.healthy().await;
        odd.settled().await;
    }
    rig.finish().await;
}
