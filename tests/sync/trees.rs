//! Mailboxes that other clients make, rename, delete and make again.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::json;
use tests::app::send;
use tests::imapd::{Reply, Times};
use tests::mail;

use crate::case::{Case, numbered};
use crate::edits::mailbox_id;
use crate::odd::{FULL, Odd, PLAIN, Rig};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renamed_mailbox_keeps_its_id_and_its_messages_theirs() {
    let case = Case::with(vec![numbered(1)]).await;
    let mut client = case.client().await;
    client.ok("CREATE Work/Old").await;
    client.append("Work/Old", "\\Seen", None, &numbered(2)).await;
    client.append("Work/Old", "\\Flagged", None, &numbered(3)).await;
    case.sync().await;
    let (ids, mailbox) = (case.ids().await, case.mailbox("Work/Old").await);
    // The mailbox alone, then with mail that comes and goes at the same time.
    client.ok("RENAME Work/Old Work/New").await;
    case.sync().await;
    assert_eq!((case.ids().await, case.mailbox("Work/New").await), (ids.clone(), mailbox.clone()));
    case.settled().await;
    client.ok("RENAME Work/New \"Elsewhere/Gr&APYA3w-e\"").await;
    client.append("Elsewhere/Gr&APYA3w-e", "", None, &numbered(4)).await;
    client.select("Elsewhere/Gr&APYA3w-e").await;
    client.ok("UID STORE 1 +FLAGS (\\Deleted)").await;
    client.ok("UID EXPUNGE 1").await;
    client.ok("UNSELECT").await;
    case.sync().await;
    let now = case.ids().await;
    assert_eq!((now.get("M3"), now.get("M2"), now.len()), (ids.get("M3"), None, 3));
    assert_eq!(case.mailbox("Elsewhere/Größe").await, mailbox);
    case.settled().await;
    // The parent's name carries those below it along.
    client.ok("RENAME Elsewhere Third").await;
    case.sync().await;
    assert_eq!((case.ids().await, case.mailbox("Third/Größe").await), (now, mailbox));
    case.settled().await;
    case.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_mailboxes_that_swap_their_names_keep_what_is_in_them() {
    let case = Case::with(vec![]).await;
    let mut client = case.client().await;
    for (name, n) in [("A", 1), ("B", 2)] {
        client.ok(&format!("CREATE {name}")).await;
        client.append(name, "", None, &numbered(n)).await;
    }
    case.sync().await;
    let before = case.ids().await;
    client.ok("RENAME A C").await;
    client.ok("RENAME B A").await;
    client.ok("RENAME C B").await;
    case.sync().await;
    assert_eq!(case.ids().await, before);
    case.settled().await;
    case.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_message_in_two_mailboxes_that_go_together_one_thing_is_told() {
    let case = Case::with(vec![numbered(1)]).await;
    let mut client = case.client().await;
    for name in ["One", "Two"] {
        client.ok(&format!("CREATE {name}")).await;
    }
    client.append("One", "", None, &numbered(2)).await;
    client.select("One").await;
    client.ok("UID COPY 1 Two").await;
    client.ok("UNSELECT").await;
    case.sync().await;
    let events = case.events().await;
    client.ok("DELETE One").await;
    client.ok("DELETE Two").await;
    case.sync().await;
    let mut told = events.kinds(&case.app).await;
    told.sort();
    assert_eq!(told, ["mailbox.deleted", "mailbox.deleted", "message.deleted"]);
    case.settled().await;
    case.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mailbox_deleted_and_made_again_holds_what_the_new_one_holds() {
    let case = Case::with(vec![]).await;
    let mut client = case.client().await;
    client.ok("CREATE Again").await;
    for n in 1..=3 {
        client.append("Again", "", None, &numbered(n)).await;
    }
    case.sync().await;
    let before = case.ids().await;
    client.ok("DELETE Again").await;
    client.ok("CREATE Again").await;
    // One message is other mail under an old UID, one is the same bytes as before.
    client.append("Again", "", None, &numbered(9)).await;
    client.append("Again", "", None, &numbered(2)).await;
    case.sync().await;
    let now = case.ids().await;
    assert_eq!(now.keys().collect::<Vec<_>>(), ["M2", "M9"]);
    assert_eq!(now["M2"], before["M2"]);
    case.settled().await;
    let events = case.events().await;
    client.ok("DELETE Again").await;
    case.sync().await;
    assert_eq!(events.kinds(&case.app).await, ["mailbox.deleted", "message.deleted", "message.deleted"]);
    assert!(!case.mailboxes().await.contains_key("Again"));
    case.settled().await;
    case.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inbox_is_one_mailbox_however_it_is_spelt() {
    let case = Case::with(vec![numbered(1)]).await;
    let inbox = case.mailbox("INBOX").await;
    let mut client = case.client().await;
    client.append("iNbOx", "", None, &numbered(2)).await;
    client.ok("CREATE inbox/Below").await;
    client.append("InBox/Below", "", None, &numbered(3)).await;
    case.sync().await;
    assert_eq!(case.mailbox("INBOX").await, inbox);
    assert_eq!(case.mailboxes().await["INBOX"]["total"], 2);
    case.settled().await;
    let spellings = case.mailboxes().await.into_keys().filter(|p| p.eq_ignore_ascii_case("INBOX")).count();
    assert_eq!(spellings, 1);
    let same = json!({"name": "inbox"});
    let path = format!("/api/accounts/{}/mailboxes", case.account);
    let refused = case.app.post(&case.tenant, &path, &same).await;
    assert_eq!(refused.status, 422, "{}", refused.text());
    case.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parents_that_hold_no_messages_come_and_go() {
    let case = Case::with(vec![]).await;
    let mut client = case.client().await;
    client.ok("CREATE Parent/Middle/Leaf").await;
    client.append("Parent/Middle/Leaf", "", None, &numbered(1)).await;
    case.sync().await;
    let selectable = async || -> BTreeMap<String, bool> {
        let all = case.mailboxes().await.into_iter().filter(|(path, _)| path.starts_with("Parent"));
        all.map(|(path, m)| (path, m["selectable"] == true)).collect()
    };
    let named =
        |rows: &[(&str, bool)]| rows.iter().map(|(p, s)| ((*p).to_owned(), *s)).collect::<BTreeMap<_, _>>();
    assert_eq!(
        selectable().await,
        named(&[("Parent", false), ("Parent/Middle", false), ("Parent/Middle/Leaf", true)])
    );
    case.settled().await;
    // A parent becomes a mailbox, and is deleted while one below it stays.
    client.ok("CREATE Parent/Middle").await;
    client.append("Parent/Middle", "", None, &numbered(2)).await;
    case.sync().await;
    assert!(selectable().await["Parent/Middle"]);
    assert_eq!(case.listed().await.len(), 2);
    case.settled().await;
    client.ok("DELETE Parent/Middle").await;
    case.sync().await;
    assert!(!selectable().await["Parent/Middle"]);
    assert_eq!(case.ids().await.into_keys().collect::<Vec<_>>(), ["M1"]);
    case.settled().await;
    client.ok("DELETE Parent/Middle/Leaf").await;
    case.sync().await;
    case.settled().await;
    assert_eq!(case.listed().await.len(), 0);
    case.finish().await;
}

/// While nobody tells the server, or after it was told and its answer was lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mailbox_that_got_the_name_of_one_our_user_deletes_or_renames_is_neither_deleted_nor_renamed() {
    let case = Case::with(vec![numbered(1)]).await;
    let mut client = case.client().await;
    for (name, n) in [("Old", 2), ("Plan", 3), ("Current", 4)] {
        client.ok(&format!("CREATE {name}")).await;
        client.append(name, "", None, &numbered(n)).await;
    }
    case.sync().await;
    let (ids, plan, current) = (case.ids().await, case.mailbox("Plan").await, case.mailbox("Current").await);
    let turn = async |what: &str| {
        let path = format!("/api/accounts/{}/{what}", case.account);
        send(case.app.request(&case.tenant, "POST", &path)).await.expect(200);
    };
    turn("pause").await;
    let old = format!("/api/mailboxes/{}?with_messages=true", case.mailbox("Old").await);
    assert_eq!(case.app.delete(&case.tenant, &old).await.status, 204);
    let renamed = json!({"name": "Done"});
    case.app.patch(&case.tenant, &format!("/api/mailboxes/{plan}"), &renamed).await.expect(200);
    for command in ["DELETE Old", "CREATE Old", "RENAME Plan Kept", "RENAME Current Plan"] {
        client.ok(command).await;
    }
    client.append("Old", "", None, &numbered(5)).await;
    turn("resume").await;
    case.sync().await;
    let now = case.ids().await;
    assert_eq!(now.keys().collect::<Vec<_>>(), ["M1", "M3", "M4", "M5"]);
    assert_eq!((&now["M3"], &now["M4"]), (&ids["M3"], &ids["M4"]));
    assert_eq!((case.mailbox("Kept").await, case.mailbox("Plan").await), (plan, current));
    assert!(!case.mailboxes().await.contains_key("Done"));
    assert_eq!(case.count("SELECT count(*) FROM pending_changes").await, 0);
    case.settled().await;
    case.finish().await;
}

/// More than any listing shows on one page, few enough for two busy processors.
const MANY: u32 = 1_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_mailboxes_are_listed_in_one_command_and_only_what_changed_is_opened() {
    let app = Case::app().await;
    let user = mail::new_mailbox(&app);
    let rows = (0..MANY)
        .filter(|n| n % 50 == 0)
        .map(|n| (format!("F{}/Box {n}", n % 7), vec![], 1_700_000_000, numbered(n)));
    app.stack.fill(&user, rows).unwrap();
    app.stack.make_mailboxes(&user, (0..MANY).map(|n| format!("F{}/Box {n}", n % 7))).unwrap();
    // Dovecot makes its index of a mailbox when it is first looked at, which takes it minutes for so many.
    mail::doveadm(&app, &["mailbox", "status", "-u", &user, "messages", "*"]);
    let mut case = Case::of(app, user, "127.0.0.1", None).await;
    case.app.add_worker();
    let started = Instant::now();
    case.sync().await;
    let first = started.elapsed();
    assert_eq!(
        case.count("SELECT count(*) FROM mailboxes WHERE selectable AND state = 'synced'").await,
        i64::from(MANY) + 6
    );
    assert_eq!(case.count("SELECT count(*) FROM message_mailboxes").await, i64::from(MANY / 50));
    let started = Instant::now();
    case.sync().await;
    let second = started.elapsed();
    // What is not opened is marked as fresh by one statement.
    assert!(case.count("SELECT count(DISTINCT xmin::text) FROM mailboxes WHERE selectable").await <= 1);
    eprintln!("{MANY} mailboxes: first round {first:?}, second {second:?}");
    mail::deliver(&case.app, &case.user, &numbered(9_999));
    case.sync().await;
    assert!(case.ids().await.contains_key("M9999"));
    case.settled().await;
    case.finish().await;
}

/// As many as the largest real trees have.
const CROWD: usize = 5_000;
/// One mailbox in so many holds mail.
const FILLED: usize = 500;

/// Prints how long the last round took, which is not asserted.
async fn print_time(odd: &Odd<'_>, what: &str) {
    let last = "SELECT (extract(epoch FROM finished_at - started_at) * 1000)::bigint FROM sync_runs
                WHERE account_id = $1::uuid ORDER BY requested_at DESC, id DESC LIMIT 1";
    eprintln!("{CROWD} mailboxes: {what} took {} ms", odd.rig.count(last, &odd.account).await);
}

/// How often each command was heard in one more round, which must leave our rows as they were.
async fn quiet_round(odd: &Odd<'_>) -> BTreeMap<String, usize> {
    odd.server.lock().heard.clear();
    odd.rig.rests(&odd.account).await;
    print_time(odd, "a round without changes").await;
    let mut heard = BTreeMap::new();
    for command in &odd.server.lock().heard {
        *heard.entry(command.split(' ').next().unwrap().to_owned()).or_default() += 1;
    }
    for once in ["LOGIN", "LOGOUT", "LIST"] {
        assert_eq!(heard.remove(once), Some(1), "{once}: {heard:?}");
    }
    heard.retain(|command, _| command != "CAPABILITY" && command != "ENABLE");
    heard
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_five_thousand_mailboxes_only_those_that_hold_mail_are_opened() {
    let rig = Rig::start().await;
    for capabilities in [FULL, PLAIN] {
        let mut odd = rig
            .odd(capabilities, |s| {
                for n in 0..CROWD {
                    let mailbox = s.add(format!("F{}/Box {n}", n % 7));
                    mailbox.fill(1, u32::from(n % FILLED == 0) * 2);
                }
            })
            .await;
        print_time(&odd, "the first round").await;
        rig.agrees(&odd.account, &odd.server).await;
        let synced = "SELECT count(*) FROM mailboxes WHERE account_id = $1::uuid AND state = 'synced'
                        AND uidvalidity IS NOT NULL AND last_synced_at IS NOT NULL AND tail_uid = 1";
        assert_eq!(rig.count(synced, &odd.account).await, CROWD as i64 + 1);
        let selects = odd.server.lock().count("SELECT");
        assert_eq!(selects, CROWD / FILLED, "{capabilities}");
        let heard = quiet_round(&odd).await;
        match capabilities {
            FULL => assert_eq!(heard, BTreeMap::new()),
            // Only of what holds mail can it not be known whether flags changed.
            _ => assert_eq!(
                (heard["STATUS"], heard["SELECT"], heard["LSUB"], heard["UID"], heard.len()),
                (CROWD + 1, CROWD / FILLED, 1, CROWD / FILLED, 4)
            ),
        }
        // Mail for one that was empty, a branch that is deleted, and one that is renamed.
        let left = {
            let mut state = odd.server.lock();
            state.mailbox("F0/Box 7").fill(1, 1);
            state.mailboxes.retain(|m| !m.name.starts_with(b"F1/"));
            for mailbox in state.mailboxes.iter_mut().filter(|m| m.name.starts_with(b"F2/")) {
                mailbox.name[0] = b'G';
            }
            state.heard.clear();
            state.mailboxes.len() as i64
        };
        odd.healthy().await;
        print_time(&odd, "a round with one branch deleted and one renamed").await;
        rig.agrees(&odd.account, &odd.server).await;
        assert_eq!(rig.count(synced, &odd.account).await, left);
        let told = odd.told().await;
        let count = |kind: &str| told.iter().filter(|k| *k == kind).count();
        let of = |branch: usize| (0..CROWD).filter(move |n| n % 7 == branch);
        let filled = |branch: usize| of(branch).filter(|n| n % FILLED == 0).count();
        assert_eq!((count("mailbox.deleted"), count("mailbox.updated")), (of(1).count(), of(2).count()));
        assert_eq!((count("mailbox.created"), count("mailbox.reset")), (0, 0));
        assert_eq!((count("message.created"), count("message.deleted")), (1, 2 * filled(1)));
        // Those that are renamed are known by their numbers, and by what they hold if they hold anything.
        let opened = match capabilities {
            FULL => 1,
            _ => 1 + CROWD / FILLED - filled(1),
        };
        let looks = ["SELECT", "EXAMINE"].map(|command| odd.server.lock().count(command));
        assert_eq!(looks, [opened, filled(2)], "{capabilities}");
        odd.settled().await;
    }
    rig.finish().await;
}

/// What a server says when it is asked who a mailbox is by what it holds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_a_mailbox_is_is_found_out_though_the_server_lies_on_sizes_or_breaks_the_line() {
    let rig = Rig::start().await;
    let fetch = "*(UID RFC822.SIZE INTERNALDATE)";
    for capabilities in [FULL, PLAIN] {
        let mut odd = rig
            .odd(capabilities, |s| {
                for name in ["A", "B"] {
                    s.add(name).fill(1, 30);
                }
            })
            .await;
        odd.settled().await;
        let swapped = || {
            for mailbox in &mut odd.server.lock().mailboxes {
                let other =
                    [(&b"A"[..], &b"B"[..]), (b"B", b"A")].into_iter().find(|(old, _)| *old == mailbox.name);
                mailbox.name = other.map_or(mailbox.name.clone(), |(_, new)| new.to_vec());
            }
        };
        let ids = async || (mailbox_id(&odd, "A").await, mailbox_id(&odd, "B").await);
        let (a, b) = ids().await;
        odd.server.spoil(fetch, Times::Each, |sane| sane.replace("RFC822.SIZE ", "RFC822.SIZE 1"));
        swapped();
        odd.healthy().await;
        assert_eq!(ids().await, (b.clone(), a.clone()), "it lies");
        assert_eq!(odd.server.sane(), 2);
        // Once is an accident.
        odd.server.instead(fetch, Times::Nth(1), Reply::close(""));
        swapped();
        odd.healthy().await;
        assert_eq!(ids().await, (a.clone(), b.clone()), "the line breaks once");
        assert_eq!(odd.server.sane(), 1);
        // A server that cannot be asked keeps nothing else from being done: the names decide.
        for reply in [Reply::close(""), "{tag} NO never\r\n".into(), "{tag} BAD what\r\n".into()] {
            odd.server.instead(fetch, Times::Each, reply);
            swapped();
            odd.server.lock().mailbox("INBOX").fill(1, 1);
            let messages = odd.ids().await;
            odd.healthy().await;
            assert_eq!(ids().await, (a.clone(), b.clone()), "nobody knows");
            assert!(odd.server.sane() >= 2);
            let now = odd.ids().await;
            assert!(messages.iter().all(|m| now.contains(m)) && now.len() == messages.len() + 1);
        }
        odd.settled().await;
    }
    rig.finish().await;
}
