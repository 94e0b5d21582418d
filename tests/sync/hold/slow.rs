//! Servers that take an hour over a command of an edit: they do it at once and do not say so, they never do it, or they do
//! it long after everybody has hung up.

use serde_json::json;
use tests::eventually::eventually;
use tests::imapd::{Reply, Times};

use super::PATIENCE;
use super::servers::{act, cause, on_server, places, status};
use crate::edits::{change, filled, mailbox_id, message, pushed};
use crate::odd::{FULL, Odd, PLAIN, Rig};

/// What becomes of a command that is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slow {
    /// It was done at once.
    Done,
    /// It is never done.
    Never,
    /// It is done after we have looked what became of it.
    Late,
}

/// What our user asks of M2, the command that takes so long, and where the message is in the end.
struct Case {
    asked: &'static str,
    command: &'static str,
    ends_in: &'static [&'static str],
}

const CASES: [(&str, Case); 6] = [
    (FULL, Case { asked: "star", command: "UID STORE", ends_in: &["INBOX"] }),
    (FULL, Case { asked: "move", command: "UID MOVE", ends_in: &["Work"] }),
    (FULL, Case { asked: "copy", command: "UID COPY", ends_in: &["INBOX", "Work"] }),
    (FULL, Case { asked: "delete", command: "UID EXPUNGE", ends_in: &[] }),
    (PLAIN, Case { asked: "star", command: "UID STORE", ends_in: &["INBOX"] }),
    (PLAIN, Case { asked: "copy", command: "UID COPY", ends_in: &["INBOX", "Work"] }),
];

async fn ask(odd: &Odd<'_>, what: &str, work: &str) {
    let id = message(odd, 2).await["id"].as_str().unwrap().to_owned();
    match what {
        "star" => change(odd, 2, json!({"starred": true})).await,
        "move" => change(odd, 2, json!({"move_to": work})).await,
        "copy" => act(odd, 2, "copy", work).await,
        _ => {
            let path = format!("/api/messages/{id}?permanent=true");
            assert_eq!(odd.rig.app.delete(&odd.rig.tenant, &path).await.status, 204);
        }
    }
}

/// What the server does of its own accord when the hour is over.
fn catch_up(odd: &Odd<'_>, asked: &str) {
    let mut state = odd.server.lock();
    match asked {
        "star" => state.mailbox("INBOX").flag(2, "\\Flagged", true),
        "copy" => {
            let bytes = state.mailbox("INBOX").message(2).bytes.clone();
            state.mailbox("Work").deliver(bytes);
        }
        "move" => {
            let bytes = state.mailbox("INBOX").message(2).bytes.clone();
            state.mailbox("Work").deliver(bytes);
            state.mailbox("INBOX").expunge([2]);
        }
        _ => state.mailbox("INBOX").expunge([2]),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_takes_an_hour_over_an_edit_loses_nothing_and_is_told_and_other_mailboxes_go_on() {
    let rig = Rig::with(&[("IMAP_COMMAND_TIMEOUT_SECONDS", "1")]).await;
    for (capabilities, case) in CASES {
        // Three servers at once: most of it is waiting for them.
        let on = |slow| takes_an_hour(&rig, capabilities, &case, slow);
        tokio::join!(on(Slow::Done), on(Slow::Never), on(Slow::Late));
    }
    rig.finish().await;
}

async fn takes_an_hour(rig: &Rig, capabilities: &str, case: &Case, slow: Slow) {
    let what = format!("{} {slow:?} {capabilities}", case.asked);
    let mut odd = filled(rig, capabilities).await;
    let (work, before) = (mailbox_id(&odd, "Work").await, odd.ids().await);
    if slow == Slow::Done {
        odd.server.spoil(case.command, Times::Each, |_| Reply::hang(""));
    } else {
        odd.server.instead(case.command, Times::Each, Reply::hang(""));
    }
    ask(&odd, case.asked, &work).await;
    // Shown at once, whatever the server does.
    let starred = async |odd: &Odd<'_>| message(odd, 2).await["starred"] == true;
    let shown = async |odd: &Odd<'_>| {
        assert_eq!(places(odd, 2).await, case.ends_in, "{what}");
        assert!(case.asked != "star" || starred(odd).await, "{what}");
    };
    shown(&odd).await;
    eventually("it is told", PATIENCE, async || {
        (cause(&status(&odd).await, "INBOX")["code"] == "upstream-timeout").then_some(())
    })
    .await;
    for n in 10..12 {
        odd.server.lock().mailbox("Work").fill(n, n);
        odd.round().await;
        shown(&odd).await;
        assert_eq!(places(&odd, n).await, ["Work"], "{what}: other mailboxes go on");
    }
    if slow == Slow::Late {
        catch_up(&odd, case.asked);
    }
    assert!(odd.server.sane() > 0);
    for _ in 0..3 {
        odd.round().await;
    }
    if case.ends_in.is_empty() {
        // A removal that was not answered waits for the message to turn up elsewhere, until the message is over.
        rig.over(&odd.account).await;
    }
    pushed(&odd).await;
    odd.round().await;
    shown(&odd).await;
    let after = odd.ids().await;
    let lost = before.iter().filter(|m| !after.contains(m)).count();
    assert_eq!(lost, usize::from(case.ends_in.is_empty()), "{what}: ids stay");
    let in_work = 2 + usize::from(case.ends_in.contains(&"Work"));
    assert_eq!(on_server(&odd, "INBOX"), 2 + usize::from(case.ends_in.contains(&"INBOX")), "{what}");
    let once = on_server(&odd, "Work") == in_work;
    // A copy that is made twice is no loss, and nobody can know of a server that does it once everybody has looked.
    assert!(once || slow == Slow::Late && on_server(&odd, "Work") == in_work + 1, "{what}");
    odd.told().await;
    odd.settled().await;
}
