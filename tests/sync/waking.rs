//! Which edits have a server tried that is in trouble, and what that changes: nothing but the time of that one try.

use std::time::Duration;

use serde_json::json;
use tests::eventually::eventually;
use tests::imapd::{Reply, Times};

use crate::edits::{change, message};
use crate::odd::{FULL, Odd, Rig};

/// Stars M1 or takes the star away; returns how many connections that made, once nothing could make another.
async fn edit(odd: &Odd<'_>) -> usize {
    let before = odd.server.lock().connections;
    let starred = message(odd, 1).await["starred"] == true;
    change(odd, 1, json!({"starred": !starred})).await;
    let due = "SELECT count(*) FROM jobs WHERE kind IN ('sync_account', 'push_changes') AND dedupe_key = $1
               AND (state = 'running' OR (state = 'ready' AND run_at <= now()))";
    eventually("nothing is due", Duration::from_secs(60), async || {
        (odd.rig.count(due, &odd.account).await == 0).then_some(())
    })
    .await;
    odd.server.lock().connections - before
}

/// Runs a statement that changes the account's lease.
async fn set(odd: &Odd<'_>, change: &'static str) {
    let done = odd.rig.count(change, &odd.account).await;
    assert_eq!(done, 1);
}

/// Milliseconds to the next turn.
const TURN: &str = "SELECT (1000 * extract(epoch FROM next_due_at - now()))::bigint FROM account_leases WHERE account_id = $1::uuid";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edits_have_an_unreachable_server_tried_once_a_minute_and_put_nothing_off() {
    let rig = Rig::start().await;
    let mut odd = rig.odd(FULL, |s| s.mailbox("INBOX").fill(1, 2)).await;
    odd.settled().await;
    odd.server.lock().greeting = Reply::close("* BYE go away\r\n");
    assert_eq!(edit(&odd).await, 1, "nobody knew");
    let first = rig.count(TURN, &odd.account).await;
    assert!(first <= 2_000, "{first}");
    assert_eq!(edit(&odd).await, 1, "it may be back");
    for _ in 0..4 {
        assert_eq!(edit(&odd).await, 0, "once a minute");
    }
    // An outage of ten minutes: a failure now would wait for a minute, and the next turn is in ten seconds.
    let later = "WITH l AS (UPDATE account_leases SET failing_since = now() - interval '10 minutes', woken_at = now() - interval '61 seconds',
                   next_due_at = now() + interval '10 seconds' WHERE account_id = $1::uuid RETURNING 1) SELECT count(*) FROM l";
    set(&odd, later).await;
    assert_eq!(edit(&odd).await, 1);
    let next = rig.count(TURN, &odd.account).await;
    assert!(next <= 10_000, "{next}");
    let status = rig.app.get(&rig.tenant, &format!("/api/sync/status/{}", odd.account)).await.expect(200);
    assert_eq!(
        (&status["state"], &status["cause"]["next_try_at"]),
        (&json!("unreachable"), &status["next_due_at"])
    );
    // Our user asks: that is tried at once, and brings the edits along.
    odd.server.lock().greeting = Reply::from("* OK ready\r\n");
    let starred = message(&odd, 1).await["starred"] == true;
    odd.healthy().await;
    assert_eq!(
        odd.server.lock().mailbox("INBOX").message(1).flags.contains(&"\\Flagged".to_owned()),
        starred
    );
    assert_eq!(edit(&odd).await, 1, "all is well");
    assert_eq!(edit(&odd).await, 1);
    odd.healthy().await;
    odd.settled().await;
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edits_try_no_server_that_asked_for_patience_or_refuses_the_password() {
    let rig = Rig::start().await;
    for (greeting, state) in [
        (Reply::close("* BYE Too many connections from your address\r\n"), "throttled"),
        (Reply::from("* OK ready\r\n"), "needs_reauth"),
    ] {
        let mut odd = rig.odd(FULL, |s| s.mailbox("INBOX").fill(1, 2)).await;
        odd.settled().await;
        odd.server.lock().greeting = greeting;
        odd.server.instead("LOGIN", Times::Each, "{tag} NO [AUTHENTICATIONFAILED] wrong\r\n");
        assert_eq!(edit(&odd).await, 1, "nobody knew");
        let before = rig.count(TURN, &odd.account).await;
        for _ in 0..3 {
            assert_eq!(edit(&odd).await, 0, "{state}");
        }
        let status = rig.app.get(&rig.tenant, &format!("/api/sync/status/{}", odd.account)).await.expect(200);
        assert_eq!(status["state"], state, "{status}");
        let after = rig.count(TURN, &odd.account).await;
        assert!(after <= before && after > before - 30_000, "{before} {after}");
        odd.server.lock().greeting = Reply::from("* OK ready\r\n");
        odd.server.sane();
        odd.healthy().await;
        odd.settled().await;
    }
    rig.finish().await;
}

/// A host that comes back lets nobody in until its directory is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_after_a_long_outage_is_a_first_refusal() {
    let rig = Rig::start().await;
    let mut odd = rig.odd(FULL, |s| s.mailbox("INBOX").fill(1, 2)).await;
    odd.settled().await;
    odd.server.lock().greeting = Reply::close("* BYE go away\r\n");
    odd.round().await;
    let for_hours = "WITH l AS (UPDATE account_leases SET failing_since = now() - interval '3 hours' WHERE account_id = $1::uuid RETURNING 1)
                     SELECT count(*) FROM l";
    set(&odd, for_hours).await;
    odd.server.lock().greeting = Reply::from("* OK ready\r\n");
    odd.server.instead("LOGIN", Times::Each, "{tag} NO [AUTHENTICATIONFAILED] wrong\r\n");
    for _ in 0..3 {
        odd.round().await;
        let minutes = rig.count(TURN, &odd.account).await / 60_000;
        assert!(minutes <= 10, "{minutes} minutes");
    }
    // The wait is over: a user who asks before that does not lengthen it.
    let and_due = "WITH l AS (UPDATE account_leases SET failing_since = now() - interval '3 hours', wait_until = now(), next_due_at = now()
                   WHERE account_id = $1::uuid RETURNING 1) SELECT count(*) FROM l";
    set(&odd, and_due).await;
    odd.round().await;
    let hours = rig.count(TURN, &odd.account).await / 3_600_000;
    assert!(hours >= 23, "the user has to act: {hours}");
    odd.server.sane();
    odd.healthy().await;
    odd.settled().await;
    rig.finish().await;
}
