//! Servers that answer in time and with OK, and say what is not so. The numbers first, then single messages.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use tests::imapd::{Imapd, Times, without_lines};
use wire::imap::MAX_LITERAL_BYTES;

use crate::case::numbered;
use crate::odd::{CONDSTORE, FULL, Odd, PLAIN, Rig};

/// `text` without the number that follows `name`, and without the name.
fn without_item(text: &str, name: &str) -> String {
    let mut out = text.to_owned();
    while let Some(at) = out.find(name) {
        let digits = out[at + name.len()..].find(|c: char| !c.is_ascii_digit()).unwrap_or_default();
        out.replace_range(at..at + name.len() + digits, "");
    }
    out
}

/// `text` with `number` in place of each number that follows `name`.
fn with_number(text: &str, name: &str, number: u64) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(name) {
        out.push_str(&rest[..at + name.len()]);
        out.push_str(&number.to_string());
        rest = rest[at + name.len()..].trim_start_matches(|c: char| c.is_ascii_digit());
    }
    out + rest
}

fn without_modseqs(text: &str) -> String {
    let mut out = text.to_owned();
    while let Some(at) = out.find(" MODSEQ (") {
        let end = out[at..].find(')').unwrap_or_default();
        out.replace_range(at..=at + end, "");
    }
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_uidvalidity_is_one_generation_and_its_coming_loses_no_id() {
    let rig = Rig::start().await;
    for capabilities in [FULL, PLAIN] {
        let server = Imapd::start(capabilities).await;
        server.lock().mailbox("INBOX").fill(1, 8);
        server.spoil("SELECT", Times::Each, |sane| without_lines(sane, "[UIDVALIDITY"));
        server.spoil("*UIDVALIDITY", Times::Each, |sane| without_item(sane, " UIDVALIDITY "));
        let mut odd = rig.odd_on(server).await;
        odd.settled().await;
        odd.server.lock().mailbox("INBOX").fill(9, 10);
        odd.server.lock().mailbox("INBOX").expunge([2]);
        odd.healthy().await;
        odd.settled_after(&["message.created", "message.created", "message.deleted"]).await;
        let ids = odd.ids().await;
        assert!(odd.server.sane() > 0);
        odd.healthy().await;
        odd.settled_after(&["mailbox.reset"]).await;
        assert_eq!(odd.ids().await, ids);
    }
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_uidvalidity_that_flips_at_each_select_loses_no_id_and_doubles_nothing() {
    let rig = Rig::start().await;
    let mut odd = rig.odd(FULL, |s| s.mailbox("INBOX").fill(1, 8)).await;
    odd.settled().await;
    let ids = odd.ids().await;
    let selects = AtomicUsize::new(0);
    odd.server.spoil("SELECT", Times::Each, move |sane| {
        let n = selects.fetch_add(1, Ordering::SeqCst) as u64;
        with_number(sane, "[UIDVALIDITY ", 5_000 + n % 2)
    });
    odd.server.lock().mailbox("INBOX").flag(3, "\\Seen", true);
    odd.healthy().await;
    for _ in 0..3 {
        odd.healthy().await;
        assert_eq!(odd.ids().await, ids);
        assert_eq!(odd.uids("INBOX").await.len(), 8);
    }
    odd.server.sane();
    odd.healthy().await;
    let told = odd.told().await;
    let flags = told.iter().filter(|kind| *kind == "message.updated").count();
    assert!(flags == 1 && told.iter().filter(|kind| *kind != "mailbox.reset").count() == 1, "{told:?}");
    assert_eq!(odd.ids().await, ids);
    odd.settled().await;
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_uidnext_that_is_absent_or_too_low_or_far_too_high_hides_no_mail() {
    let rig = Rig::start().await;
    for capabilities in [FULL, PLAIN] {
        for next in [None, Some(1), Some(3), Some(4_294_967_295), Some(99_999_999_999)] {
            let server = Imapd::start(capabilities).await;
            server.lock().mailbox("INBOX").fill(1, 6);
            server.spoil("*", Times::Each, move |sane| match next {
                None => without_item(&without_lines(sane, "[UIDNEXT"), " UIDNEXT "),
                Some(n) => with_number(&with_number(sane, "[UIDNEXT ", n), " UIDNEXT ", n),
            });
            let mut odd = rig.odd_on(server).await;
            odd.settled().await;
            odd.server.lock().mailbox("INBOX").fill(7, 9);
            odd.healthy().await;
            odd.settled_after(&["message.created"; 3]).await;
            odd.server.lock().mailbox("INBOX").expunge([1, 8]);
            odd.server.lock().mailbox("INBOX").fill(10, 11);
            odd.healthy().await;
            let told = ["message.created", "message.created", "message.deleted", "message.deleted"];
            odd.settled_after(&told).await;
        }
    }
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_answers_empty_ranges_with_its_last_message_doubles_nothing() {
    let rig = Rig::start().await;
    for capabilities in [FULL, PLAIN] {
        let mut odd = rig.odd(capabilities, |s| s.mailbox("INBOX").fill(1, 4)).await;
        odd.settled().await;
        // Its UIDNEXT runs ahead, so that ranges without messages are asked for.
        odd.server.lock().mailbox("INBOX").uidnext = 20;
        let last = odd.server.lock().mailbox("INBOX").message(4).bytes.clone();
        let last = String::from_utf8(last).unwrap();
        odd.server.spoil("UID FETCH", Times::Each, move |sane| match sane.contains(" FETCH (") {
            true => sane.to_owned(),
            false => format!(
                "* 4 FETCH (UID 4 FLAGS () INTERNALDATE \"05-Jan-2026 10:00:00 +0000\" BODY[] {{{}}}\r\n{last})\r\n{sane}",
                last.len()
            ),
        });
        odd.healthy().await;
        odd.settled_after(&[]).await;
        assert!(odd.server.used() > 0);
        odd.server.lock().mailbox("INBOX").fill(5, 6);
        odd.healthy().await;
        odd.settled_after(&["message.created"; 2]).await;
    }
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listing_of_far_more_messages_than_there_are_costs_that_mailbox_and_is_told() {
    let rig = Rig::start().await;
    for capabilities in [FULL, PLAIN] {
        let server = Imapd::start(capabilities).await;
        server.lock().mailbox("INBOX").fill(1, 3);
        server.lock().add("Work").fill(1, 2);
        server.spoil("UID SEARCH", Times::Each, |sane| {
            let many: String = (1..=2_000).map(|uid| format!(" {uid}")).collect();
            sane.replace(" ALL 1:3\r\n", " ALL 1:4294967295\r\n")
                .replace("SEARCH 1 2 3\r\n", &format!("SEARCH{many}\r\n"))
        });
        let mut odd = rig.odd_on(server).await;
        assert!(odd.server.used() > 0);
        for _ in 0..2 {
            let status = odd.round().await;
            let inbox =
                status["mailboxes"].as_array().unwrap().iter().find(|m| m["name"] == "INBOX").unwrap();
            assert_eq!(inbox["cause"]["code"], "upstream-protocol", "{status}");
            assert_eq!(odd.uids("Work").await, [1, 2], "{status}");
        }
        odd.server.sane();
        odd.healthy().await;
        odd.settled().await;
    }
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mod_sequences_that_are_zero_run_backwards_or_pass_every_number_hide_no_change() {
    let rig = Rig::start().await;
    for capabilities in [FULL, CONDSTORE] {
        for (before, after) in [
            (0, 0),
            (500, 20),
            (1 << 53, (1 << 53) + 1),
            (i64::MAX as u64 - 1, i64::MAX as u64 + 1),
            (u64::MAX, 7),
        ] {
            let at = move |server: &Imapd, modseq: u64| {
                server.sane();
                server.spoil("*", Times::Each, move |sane| {
                    let told = with_number(sane, "[HIGHESTMODSEQ ", modseq);
                    with_number(&with_number(&told, " HIGHESTMODSEQ ", modseq), " MODSEQ (", modseq)
                });
                // CHANGEDSINCE goes by what it said.
                let mut state = server.lock();
                for message in &mut state.mailbox("INBOX").messages {
                    message.modseq = modseq;
                }
            };
            let server = Imapd::start(capabilities).await;
            server.lock().mailbox("INBOX").fill(1, 6);
            at(&server, before);
            let mut odd = rig.odd_on(server).await;
            odd.settled().await;
            odd.server.lock().mailbox("INBOX").flag(2, "\\Flagged", true);
            odd.server.lock().mailbox("INBOX").flag(3, "$Work", true);
            at(&odd.server, after);
            odd.healthy().await;
            odd.settled_after(&["message.updated"; 2]).await;
            odd.server.lock().mailbox("INBOX").expunge([5]);
            odd.healthy().await;
            odd.settled_after(&["message.deleted"]).await;
        }
    }
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_answer_about_changes_hides_no_flag_and_costs_one_command() {
    let rig = Rig::start().await;
    for capabilities in [FULL, CONDSTORE] {
        let mut odd = rig.odd(capabilities, |s| s.mailbox("INBOX").fill(1, 6)).await;
        odd.settled().await;
        // The second time only the mod-sequence rises, as it may on an honest server.
        for changed in [true, false] {
            if changed {
                odd.server.instead("*CHANGEDSINCE", Times::Each, "{tag} OK\r\n");
                odd.server.lock().mailbox("INBOX").flag(2, "\\Flagged", true);
            } else {
                odd.server.lock().mailbox("INBOX").modseq += 1;
            }
            odd.server.lock().heard.clear();
            odd.healthy().await;
            for asked in ["*CHANGEDSINCE", "*(UID FLAGS MODSEQ)"] {
                assert_eq!(odd.server.lock().count(asked), 1, "{capabilities} {asked}");
            }
            odd.settled_after(if changed { &["message.updated"] } else { &[] }).await;
            assert_eq!(odd.server.lock().count("*FLAGS"), 0, "{capabilities}: once for a mod-sequence");
            odd.server.sane();
        }
    }
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_without_their_mod_sequence_are_read_all_the_same() {
    let rig = Rig::start().await;
    for capabilities in [FULL, CONDSTORE] {
        let server = Imapd::start(capabilities).await;
        server.lock().mailbox("INBOX").fill(1, 6);
        server.spoil("UID FETCH", Times::Each, without_modseqs);
        let mut odd = rig.odd_on(server).await;
        odd.settled().await;
        odd.server.lock().mailbox("INBOX").flag(2, "\\Seen", true);
        odd.server.lock().mailbox("INBOX").fill(7, 7);
        odd.healthy().await;
        odd.settled_after(&["message.created", "message.updated"]).await;
        assert!(odd.server.used() > 0);
    }
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vanished_that_is_huge_or_unknown_or_misplaced_or_wrong_removes_what_is_gone_and_nothing_else() {
    let rig = Rig::start().await;
    for vanished in [
        "* VANISHED (EARLIER) 1:4294967295\r\n",
        "* VANISHED (EARLIER) 500:900,4000000000\r\n",
        "* VANISHED 3\r\n",
        "* VANISHED 1:4294967295\r\n",
        "* VANISHED (EARLIER) 1:2\r\n",
        "* VANISHED (EARLIER)\r\n",
        "* VANISHED (EARLIER) 0:x\r\n",
        "* 3 EXPUNGE\r\n* 1 EXPUNGE\r\n",
        "",
    ] {
        let mut odd = rig.odd(FULL, |s| s.mailbox("INBOX").fill(1, 12)).await;
        odd.settled().await;
        odd.server.lock().mailbox("INBOX").expunge([3]);
        odd.server.spoil("*CHANGEDSINCE", Times::Each, move |sane| {
            assert!(sane.contains("VANISHED (EARLIER) 3"), "{sane}");
            format!("{vanished}{}", without_lines(sane, "VANISHED"))
        });
        odd.healthy().await;
        assert!(odd.server.sane() > 0, "{vanished:?}");
        let told = odd.told().await;
        assert_eq!(told, ["message.deleted"], "{vanished:?}");
        odd.settled().await;
    }
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_come_twice_or_unasked_or_without_uid_or_with_a_false_size_are_stored_once_and_whole() {
    let rig = Rig::start().await;
    for capabilities in [FULL, PLAIN] {
        let server = Imapd::start(capabilities).await;
        server.lock().mailbox("INBOX").fill(1, 6);
        server.spoil("*BODY.PEEK[]", Times::Each, |sane| {
            let (messages, tagged) = sane.trim_end().rsplit_once("\r\n").unwrap();
            let unasked = "* 9 FETCH (UID 999 FLAGS (\\Deleted) BODY[] {4}\r\nevil)\r\n\
                           * 1 FETCH (FLAGS () BODY[] {4}\r\nevil)\r\n* 2 FETCH (UID 2 FLAGS () BODY[] NIL)\r\n";
            let messages = with_number(messages, "RFC822.SIZE ", 3);
            format!("{unasked}{messages}\r\n{messages}\r\n{unasked}{tagged}\r\n")
        });
        let mut odd = rig.odd_on(server).await;
        odd.settled().await;
        odd.server.lock().mailbox("INBOX").fill(7, 8);
        odd.healthy().await;
        odd.settled_after(&["message.created"; 2]).await;
        assert!(odd.server.used() > 0);
    }
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_whose_uid_is_never_told_waits_and_holds_up_no_other() {
    let rig = Rig::start().await;
    for capabilities in [FULL, PLAIN] {
        let server = Imapd::start(capabilities).await;
        server.lock().mailbox("INBOX").fill(1, 6);
        server.spoil("*BODY.PEEK[]", Times::Each, |sane| sane.replace("FETCH (UID 4 ", "FETCH ("));
        let mut odd = rig.odd_on(server).await;
        odd.healthy().await;
        assert_eq!(odd.uids("INBOX").await, [1, 2, 3, 5, 6]);
        odd.told().await;
        odd.server.sane();
        odd.healthy().await;
        odd.settled_after(&["message.created"]).await;
    }
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_no_byte_of_one_with_nul_and_of_sixty_megabytes_are_all_there() {
    let rig = Rig::start().await;
    let contents: [&[u8]; 6] = [b"", b"x", b"\0", b"\r\n", b"Subject: n\0l\r\n\r\na\0b\0", b"\xff\xfe"];
    for binary in [false, true] {
        let server = Imapd::start(CONDSTORE).await;
        for bytes in contents {
            server.lock().mailbox("INBOX").deliver(bytes);
        }
        server.lock().mailbox("INBOX").fill(7, 7);
        if binary {
            // Of these, those that are text: `spoil` knows no others.
            server.lock().mailbox("INBOX").expunge([6]);
            server.spoil("*BODY.PEEK[]", Times::Each, |sane| sane.replace("BODY[] {", "BODY[] ~{"));
        }
        let mut odd = rig.odd_on(server).await;
        odd.settled().await;
        assert_eq!(odd.server.used() > 0, binary);
        if !binary {
            odd.server.lock().mailbox("INBOX").deliver(vec![b'x'; 60 << 20]);
            odd.server.lock().mailbox("INBOX").fill(9, 9);
            odd.healthy().await;
            odd.settled_after(&["message.created"; 2]).await;
        }
    }
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_too_large_to_be_kept_are_known_again_wherever_they_are_moved() {
    let rig = Rig::start().await;
    let large = |last: u8| {
        let mut bytes = numbered(1);
        bytes.resize(MAX_LITERAL_BYTES + 1, b'x');
        bytes.push(last);
        bytes
    };
    let mut odd = rig
        .odd(FULL, |s| {
            s.add("Work");
            let inbox = s.mailbox("INBOX");
            // Two that differ in their last byte alone, then one that is there twice.
            for last in [b'a', b'b', b'c', b'c'] {
                let uid = inbox.deliver(large(last));
                inbox.message(uid).date = "01-Jan-2026 10:00:00 +0000".to_owned();
            }
        })
        .await;
    odd.settled().await;
    let by_uid = async |odd: &Odd<'_>, mailbox: &str| -> Vec<(i64, String)> {
        sqlx::query_as(
            "SELECT p.uid, p.message_id::text FROM message_mailboxes p JOIN mailboxes b ON b.id = p.mailbox_id
             WHERE p.account_id = $1::uuid AND b.wire_name = $2 ORDER BY 1",
        )
        .bind(&odd.account)
        .bind(mailbox.as_bytes())
        .fetch_all(&mut rig.app.database.superuser().await)
        .await
        .unwrap()
    };
    let before = by_uid(&odd, "INBOX").await;
    assert_eq!(before.iter().map(|(_, id)| id).collect::<BTreeSet<_>>().len(), 4, "four messages");
    for uid in [2, 1] {
        let mut state = odd.server.lock();
        let moved = state.mailbox("INBOX").message(uid).clone();
        state.mailbox("INBOX").expunge([uid]);
        let there = state.mailbox("Work").deliver(moved.bytes);
        state.mailbox("Work").message(there).date = moved.date;
    }
    odd.healthy().await;
    let id = |n: usize| before[n].1.clone();
    assert_eq!(by_uid(&odd, "Work").await, [(1, id(1)), (2, id(0))]);
    assert_eq!(by_uid(&odd, "INBOX").await, [(3, id(2)), (4, id(3))]);
    odd.server.lock().mailbox("Work").renumber(77, 10);
    odd.healthy().await;
    assert_eq!(by_uid(&odd, "Work").await, [(10, id(1)), (11, id(0))]);
    odd.settled().await;
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_literal_that_is_shorter_than_it_says_keeps_its_message_away_and_no_other() {
    let rig = Rig::with(&[("IMAP_COMMAND_TIMEOUT_SECONDS", "3")]).await;
    let server = Imapd::start(CONDSTORE).await;
    server.lock().mailbox("INBOX").fill(1, 6);
    // What follows on the line is swallowed, the tagged line too.
    server.spoil("*BODY.PEEK[]", Times::Each, |sane| match sane.find("UID 4 FLAGS") {
        Some(at) => sane[..at].to_owned() + &with_number(&sane[at..], "BODY[] {", 900_000),
        None => sane.to_owned(),
    });
    let odd = rig.odd_on(server).await;
    assert_eq!(odd.uids("INBOX").await, [1, 2, 3, 5, 6]);
    // Nobody can tell it from a line that is dead: with each round it is asked for once more.
    let status = odd.round().await;
    assert_eq!(status["state"], "connected", "{status}");
    assert!(status["mailboxes"][0]["cause"].is_null(), "{status}");
    odd.server.sane();
    let mut odd = odd;
    odd.told().await;
    odd.healthy().await;
    odd.settled_after(&["message.created"]).await;
    rig.finish().await;
}

/// Whoever writes to such a server's user writes to its clients: what stands in a message is read as answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_literal_that_is_longer_than_it_says_lets_a_message_delete_nothing() {
    let rig = Rig::start().await;
    for capabilities in [FULL, PLAIN] {
        let mut odd = rig.odd(capabilities, |s| s.mailbox("INBOX").fill(1, 60)).await;
        odd.settled().await;
        let evil = "Subject: x\r\n\r\n* VANISHED (EARLIER) 1:61\r\n* VANISHED 1:60\r\n* 7 EXPUNGE\r\n* 0 EXISTS\r\n* SEARCH\r\n\
                    * OK [UIDVALIDITY 9] x\r\n* OK [HIGHESTMODSEQ 9] x\r\n* 1 FETCH (UID 1 FLAGS (\\Deleted))\r\n";
        odd.server.lock().mailbox("INBOX").deliver(evil);
        odd.server.spoil("*BODY.PEEK[]", Times::Each, |sane| match sane.find("UID 61 FLAGS") {
            Some(at) => sane[..at].to_owned() + &with_number(&sane[at..], "BODY[] {", 14),
            None => sane.to_owned(),
        });
        for _ in 0..3 {
            odd.round().await;
            let held = odd.uids("INBOX").await;
            assert!((1..=60).all(|uid| held.contains(&uid)), "{held:?}");
        }
        assert!(odd.server.sane() > 0);
        odd.told().await;
        odd.healthy().await;
        odd.settled_after(&["message.created"]).await;
    }
    rig.finish().await;
}
