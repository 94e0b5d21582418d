//! Sending to SMTP servers that refuse, defer, fall silent or hang up at the worst moment: nothing is lost, nothing is
//! sent twice unasked, and the user is told.

pub mod sender;
pub mod sink;

use std::sync::atomic::Ordering;
use std::time::Duration;

use emailclient_core::jobs::{file_sent_copy, probe_submission, send_submission};
use emailclient_core::platform::db::Db;
use serde_json::{Value, json};
use tests::app::App;
use tests::eventually::eventually;
use tests::{mail, scripted};
use tokio::io::AsyncWriteExt as _;

use self::sender::{let_time_pass, nothing_is_near, sender, start};
use self::sink::{Cut, Sink, everybody};

const PATIENCE: Duration = Duration::from_secs(40);

fn recipients(submission: &Value) -> Vec<(String, Option<i64>)> {
    let all = submission["recipients"].as_array().unwrap();
    all.iter().map(|r| (r["state"].as_str().unwrap().to_owned(), r["code"].as_i64())).collect()
}

async fn sweep(db: &Db) {
    send_submission::sweep(db).await.unwrap();
    file_sent_copy::sweep(db).await.unwrap();
    probe_submission::sweep(db).await.unwrap();
}

fn message_id(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let line = text.lines().find(|l| l.to_ascii_lowercase().starts_with("message-id:")).unwrap().to_owned();
    line.split(['<', '>']).nth(1).unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_recipient_is_named_and_the_others_get_the_message_once() {
    let app = start(1, &[]).await;
    let sink =
        Sink::new(
            None,
            |address, _| {
                if address.starts_with("gone") { "550 5.1.1 no such user" } else { "250 2.1.5 ok" }
            },
        );
    let server = sink.start().await;
    let alice = sender(&app, server.port).await;
    let sent = alice.send(&app, &["one@x.test", "gone@x.test", "two@x.test"], "Partly").await;
    let sent = alice.ends(&app, &sent, "sent").await;
    let states = recipients(&sent);
    let expected = [("accepted", Some(250)), ("refused", Some(550)), ("accepted", Some(250))];
    assert_eq!(states, expected.map(|(s, c)| (s.to_owned(), c)));
    let words = sent["recipients"][1]["text"].as_str().unwrap();
    assert!(words.contains("5.1.1") && words.contains("no such user"), "{words}");
    alice.copies(&app, 1).await;
    let taken = sink.taken();
    assert_eq!(taken.len(), 1);
    assert_eq!(taken[0].recipients, ["one@x.test", "two@x.test"]);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_nobody_may_have_has_failed_and_leaves_no_copy() {
    let app = start(1, &[]).await;
    let sink = Sink::new(None, |_, _| "550 5.7.1 not welcome");
    let server = sink.start().await;
    let alice = sender(&app, server.port).await;
    let failed = alice.send(&app, &["one@x.test"], "Nobody").await;
    let failed = alice.ends(&app, &failed, "failed").await;
    assert_eq!(recipients(&failed), [("refused".to_owned(), Some(550))]);
    assert_eq!(failed["sent_copy"], "none");
    assert_eq!((sink.taken().len(), alice.sent_on_server(&app)), (0, 0));
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deferred_recipient_waits_for_a_later_attempt_that_goes_to_it_alone() {
    let app = start(1, &[]).await;
    let sink = Sink::new(None, |address, connection| {
        if address.starts_with("grey") && connection == 0 {
            "451 4.7.1 come back later"
        } else {
            "250 2.1.5 ok"
        }
    });
    let server = sink.start().await;
    let alice = sender(&app, server.port).await;
    let first = alice.send(&app, &["one@x.test", "grey@x.test"], "Greylisted").await;
    let queued = alice.ends(&app, &first, "queued").await;
    let expected = [("accepted", Some(250)), ("deferred", Some(451))];
    assert_eq!(recipients(&queued), expected.map(|(s, c)| (s.to_owned(), c)));
    let instant =
        |v: &Value| chrono::DateTime::parse_from_rfc3339(v["send_after"].as_str().unwrap()).unwrap();
    let wait = instant(&queued) - instant(&first);
    assert!((50..120).contains(&wait.num_seconds()), "{wait}");
    nothing_is_near(&app).await;
    assert_eq!(sink.taken().len(), 1, "not before its time");

    let_time_pass(&app.database, &first).await;
    let sent = alice.ends(&app, &first, "sent").await;
    let expected = [("accepted", Some(250)), ("accepted", Some(250))];
    assert_eq!(recipients(&sent), expected.map(|(s, c)| (s.to_owned(), c)));
    let taken = sink.taken();
    assert_eq!(taken.len(), 2);
    assert_eq!(taken[1].recipients, ["grey@x.test"]);
    assert_eq!(taken[0].bytes, taken[1].bytes, "every attempt has the same bytes");
    alice.copies(&app, 1).await;
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_cut_after_the_dot_is_unknown_until_the_user_sends_again() {
    let app = start(1, &[]).await;
    let sink = Sink::new(Some(Cut::AfterDot), everybody);
    let server = sink.start().await;
    let alice = sender(&app, server.port).await;
    let first = alice.send(&app, &["one@x.test"], "In doubt").await;
    let unknown = alice.ends(&app, &first, "unknown").await;
    assert!(unknown["failure"].is_string(), "{unknown}");
    assert_eq!(unknown["attempts"][0]["phase"], "dot");
    // The search finds nothing, and nothing is sent by it.
    let_time_pass(&app.database, &first).await;
    let mut conn = app.database.superuser().await;
    eventually("the mailbox was searched", PATIENCE, async || {
        let searches: i32 =
            sqlx::query_scalar("SELECT probes FROM submissions").fetch_one(&mut conn).await.unwrap();
        (searches == 1).then_some(())
    })
    .await;
    nothing_is_near(&app).await;
    let still = alice.now(&app, first["id"].as_str().unwrap()).await;
    assert_eq!(still["state"], "unknown", "{still}");
    assert_eq!(
        (sink.taken().len(), sink.connections.load(Ordering::SeqCst)),
        (1, 1),
        "no second attempt by itself"
    );

    let path = format!("/api/submissions/{}/resend", first["id"].as_str().unwrap());
    app.post(&alice.tenant, &path, &json!({})).await.expect(202);
    let sent = alice.ends(&app, &first, "sent").await;
    assert_eq!(sent["message_id_header"], first["message_id_header"]);
    let taken = sink.taken();
    assert_eq!(taken.len(), 2);
    assert_eq!(taken[0].bytes, taken[1].bytes);
    assert_eq!(message_id(&taken[1].bytes), first["message_id_header"].as_str().unwrap());
    app.post(&alice.tenant, &path, &json!({})).await.refused(409, "already-sending");
    alice.copies(&app, 1).await;
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_message_that_shows_up_in_the_mailbox_was_sent() {
    let app = start(1, &[]).await;
    let sink = Sink::new(Some(Cut::AfterDot), everybody);
    let server = sink.start().await;
    let alice = sender(&app, server.port).await;
    let first = alice.send(&app, &["one@x.test"], "Found again").await;
    alice.ends(&app, &first, "unknown").await;
    mail::deliver(&app, &alice.user, &sink.taken()[0].bytes);
    let_time_pass(&app.database, &first).await;
    let sent = alice.ends(&app, &first, "sent").await;
    assert_eq!(recipients(&sent)[0].0, "accepted");
    assert_eq!(sink.taken().len(), 1, "found, not sent again");
    app.finish().await;
}

/// Sends through a server that hangs up at `cut`, a place where it cannot have taken the message.
async fn survives(app: &App, cut: Cut) {
    let sink = Sink::new(Some(cut), everybody);
    let server = sink.start().await;
    let alice = sender(app, server.port).await;
    let draft = alice.draft(app, &["one@x.test", "two@x.test"], "Cut").await;
    if cut == Cut::MidBody {
        // More than the sockets hold, so that the break is noticed before the dot.
        let path = format!("/api/compose/{draft}/attachments?filename=big.bin");
        let upload =
            app.request(&alice.tenant, "POST", &path).header("content-type", "application/octet-stream");
        let answer = tests::app::send(upload.body(vec![b'x'; 12 << 20])).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
    }
    let first = alice.order(app, &draft, json!({})).await;
    let queued = alice.ends(app, &first, "queued").await;
    assert_eq!(queued["recipients"][0]["state"], "deferred", "{cut:?}: {queued}");
    assert_ne!(queued["attempts"][0]["phase"], "dot", "{cut:?}: {queued}");
    assert_eq!(sink.taken().len(), 0, "{cut:?}");
    let_time_pass(&app.database, &first).await;
    let sent = alice.ends(app, &first, "sent").await;
    assert_eq!(sent["attempts"].as_array().unwrap().len(), 2, "{cut:?}: {sent}");
    alice.copies(app, 1).await;
    assert_eq!(sink.taken().len(), 1, "{cut:?}: delivered exactly once");
    assert_eq!(sink.taken()[0].recipients, ["one@x.test", "two@x.test"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_cut_anywhere_before_the_dot_is_tried_again_and_delivers_once() {
    let app = start(1, &[]).await;
    for cut in
        [Cut::Banner, Cut::Ehlo, Cut::Auth, Cut::Mail, Cut::SecondRcpt, Cut::InsteadOf354, Cut::MidBody]
    {
        survives(&app, cut).await;
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_accepted_message_has_its_queue_id_and_one_identical_copy_in_sent() {
    let app = start(1, &[]).await;
    let sink = Sink::new(None, everybody);
    let server = sink.start().await;
    let alice = sender(&app, server.port).await;
    let body = json!({"account_id": alice.account, "to": ["one@x.test"], "cc": ["two@x.test"],
        "bcc": ["secret@hidden.test"], "subject": "Grüße", "text": ".dot first\n..two\n\n.\nend", "html": "<p>ü</p>"});
    let draft = app.post(&alice.tenant, "/api/compose", &body).await.expect(201);
    let first = alice.order(&app, draft["id"].as_str().unwrap(), json!({})).await;
    let sent = alice.ends(&app, &first, "sent").await;
    assert_eq!(sent["queue_id"], "SINK1");
    let taken = sink.taken();
    assert_eq!(taken.len(), 1);
    assert_eq!(taken[0].recipients, ["one@x.test", "two@x.test", "secret@hidden.test"]);
    let bytes = String::from_utf8_lossy(&taken[0].bytes).into_owned();
    assert!(!bytes.contains("hidden.test") && !bytes.to_ascii_lowercase().contains("bcc:"), "{bytes}");
    assert!(bytes.contains("two@x.test"), "{bytes}");

    alice.copies(&app, 1).await;
    let path = format!("/api/accounts/{}/messages?role=sent", alice.account);
    let copy = eventually("the copy is listed", PATIENCE, async || {
        let page = app.get(&alice.tenant, &path).await.expect(200);
        page["data"].get(0).cloned()
    })
    .await;
    assert_eq!(copy["unread"], false);
    let raw = app.get(&alice.tenant, &format!("/api/messages/{}/raw", copy["id"].as_str().unwrap())).await;
    let kept = format!("Bcc: secret@hidden.test\r\n{bytes}");
    assert_eq!(raw.text(), kept, "the copy is what was sent, byte by byte, and tells who got a blind one");
    app.finish().await;
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    status.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_replies_and_silence_cost_neither_memory_nor_the_message() {
    let app = start(1, &[("SMTP_COMMAND_TIMEOUT_SECONDS", "2")]).await;
    let endless_line =
        scripted::serve(|mut stream| async move { while stream.write_all(&[b'2'; 65536]).await.is_ok() {} })
            .await;
    let endless_reply = scripted::serve(|mut stream| async move {
        let lines = b"220-go on\r\n".repeat(4096);
        while stream.write_all(&lines).await.is_ok() {}
    })
    .await;
    let silent = scripted::serve(|mut stream| async move {
        // Reads and never says a word.
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    })
    .await;
    let before = resident_bytes();
    for (server, cause) in [(&endless_line, "too long"), (&endless_reply, "too long"), (&silent, "in time")] {
        let alice = sender(&app, server.port).await;
        let first = alice.send(&app, &["one@x.test"], "Patience").await;
        let queued = alice.ends(&app, &first, "queued").await;
        let failure = queued["failure"].as_str().unwrap();
        assert!(failure.contains(cause), "{failure}");
        assert_eq!(recipients(&queued)[0].0, "deferred");
    }
    let grown = resident_bytes().saturating_sub(before);
    // Other tests run in this process too; an unbounded reader would have taken gigabytes.
    assert!(grown < 300 << 20, "{grown} bytes more");
    let sink = Sink::new(None, everybody);
    let server = sink.start().await;
    let bob = sender(&app, server.port).await;
    let sent = bob.send(&app, &["one@x.test"], "Still alive").await;
    bob.ends(&app, &sent, "sent").await;
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_workers_deliver_each_of_twenty_messages_exactly_once() {
    let app = start(2, &[]).await;
    let sink = Sink::new(None, everybody);
    let server = sink.start().await;
    let alice = sender(&app, server.port).await;
    let mut all = Vec::new();
    for n in 0..20 {
        all.push(alice.send(&app, &["one@x.test"], &format!("Number {n}")).await);
    }
    for one in &all {
        let sent = alice.ends(&app, one, "sent").await;
        assert_eq!(sent["attempts"].as_array().unwrap().len(), 1, "{sent}");
    }
    alice.copies(&app, 20).await;
    let mut delivered: Vec<String> = sink.taken().iter().map(|d| message_id(&d.bytes)).collect();
    let mut expected: Vec<String> =
        all.iter().map(|s| s["message_id_header"].as_str().unwrap().to_owned()).collect();
    delivered.sort();
    expected.sort();
    assert_eq!(delivered, expected);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_cancelled_in_time_is_never_delivered_and_one_that_went_cannot_be() {
    let app = start(1, &[]).await;
    let sink = Sink::new(None, everybody);
    let server = sink.start().await;
    let alice = sender(&app, server.port).await;
    let draft = alice.draft(&app, &["one@x.test"], "Undo").await;
    let first = alice.order(&app, &draft, json!({"undo_seconds": 3})).await;
    assert_eq!(first["state"], "queued");
    let path = format!("/api/submissions/{}/cancel", first["id"].as_str().unwrap());
    let cancelled = app.post(&alice.tenant, &path, &json!({})).await.expect(200);
    assert_eq!(cancelled["state"], "cancelled");
    app.post(&alice.tenant, &path, &json!({})).await.refused(409, "already-sending");
    // The job of the hand-over comes when the time for undoing is over, and finds nothing to do.
    nothing_is_near(&app).await;
    assert_eq!((sink.taken().len(), alice.sent_on_server(&app)), (0, 0));
    assert_eq!(alice.now(&app, first["id"].as_str().unwrap()).await["state"], "cancelled");

    let second = alice.order(&app, &draft, json!({})).await;
    assert_ne!(second["id"], first["id"], "a cancelled draft can be sent again");
    alice.ends(&app, &second, "sent").await;
    let path = format!("/api/submissions/{}/cancel", second["id"].as_str().unwrap());
    app.post(&alice.tenant, &path, &json!({})).await.refused(409, "already-sending");
    assert_eq!(sink.taken().len(), 1);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draft_that_was_sent_anew_is_not_sent_by_its_old_submission_as_well() {
    let app = start(1, &[]).await;
    let sink = Sink::new(None, everybody);
    let server = sink.start().await;
    let alice = sender(&app, server.port).await;
    let draft = alice.draft(&app, &["one@x.test"], "Once").await;
    let act = async |submission: &Value, verb: &str| {
        let path = format!("/api/submissions/{}/{verb}", submission["id"].as_str().unwrap());
        app.post(&alice.tenant, &path, &json!({})).await
    };
    let later = json!({"send_at": "2027-03-01T12:00:00Z"});
    let first = alice.order(&app, &draft, later.clone()).await;
    act(&first, "cancel").await.expect(200);
    let second = alice.order(&app, &draft, later).await;
    assert_ne!(second["id"], first["id"]);
    act(&first, "resend").await.refused(409, "already-sending");

    // With the second one undone, the first may go; then it is the draft's, and neither the draft nor the second go too.
    act(&second, "cancel").await.expect(200);
    act(&first, "resend").await.expect(202);
    alice.ends(&app, &first, "sent").await;
    act(&second, "resend").await.refused(409, "already-sending");
    let path = format!("/api/compose/{draft}/send");
    let again = app.post(&alice.tenant, &path, &json!({})).await.expect(200);
    assert_eq!(again["id"], first["id"]);
    act(&first, "resend").await.refused(409, "already-sending");
    assert_eq!(sink.taken().len(), 1);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draft_that_is_sent_by_many_at_the_same_moment_is_one_submission() {
    let app = start(1, &[]).await;
    let sink = Sink::new(None, everybody);
    let server = sink.start().await;
    let alice = sender(&app, server.port).await;
    let later = json!({"send_at": "2027-03-01T12:00:00Z"});
    for round in 0..5 {
        let draft = alice.draft(&app, &["one@x.test"], &format!("Race {round}")).await;
        let path = format!("/api/compose/{draft}/send");
        let once = || app.post(&alice.tenant, &path, &later);
        let (a, b, c, d) = tokio::join!(once(), once(), once(), once());
        let mut statuses = [&a, &b, &c, &d].map(|answer| answer.status);
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 200, 200, 202], "round {round}");
        let id = a.json()["id"].clone();
        assert!([&b, &c, &d].iter().all(|answer| answer.json()["id"] == id), "round {round}");
    }
    app.finish().await;
}

fn full(_: &str, _: usize) -> &'static str {
    "452 4.3.1 Insufficient system storage"
}

fn greylisted(_: &str, _: usize) -> &'static str {
    "451 4.7.1 Greylisted, come back later"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_waits_two_minutes_at_most_for_the_operators_own_server_whose_spool_is_full() {
    let app = start(1, &[]).await;
    for (answer, own) in [(full as fn(&str, usize) -> &'static str, true), (greylisted, false)] {
        let server = Sink::new(None, answer).start().await;
        let somebody = sender(&app, server.port).await;
        let submission = somebody.send(&app, &["one@x.test"], "Waits").await;
        somebody.ends(&app, &submission, "queued").await;
        // The sixth attempt: others wait for two hours after it.
        let id = submission["id"].as_str().unwrap();
        sqlx::query("UPDATE submissions SET attempt = 5 WHERE id = $1::uuid")
            .bind(id)
            .execute(&mut app.database.superuser().await)
            .await
            .unwrap();
        let_time_pass(&app.database, &submission).await;
        let seconds = eventually("the sixth has ended", std::time::Duration::from_secs(40), async || {
            let waits: Option<f64> = sqlx::query_scalar(
                "SELECT extract(epoch FROM send_after - now())::float8 FROM submissions WHERE id = $1::uuid AND attempt = 6 AND state = 'queued'",
            )
            .bind(id)
            .fetch_optional(&mut app.database.superuser().await)
            .await
            .unwrap();
            waits
        })
        .await;
        assert_eq!(seconds <= 120.0, own, "{seconds} s");
        app.post(&somebody.tenant, &format!("/api/submissions/{id}/cancel"), &json!({})).await;
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_and_a_search_that_lost_their_jobs_get_them_again_and_what_is_over_gets_none() {
    let app = start(1, &[]).await;
    let sink = Sink::new(None, everybody);
    let server = sink.start().await;
    let alice = sender(&app, server.port).await;
    let sent = alice.send(&app, &["one@x.test"], "Lost").await;
    alice.ends(&app, &sent, "sent").await;
    alice.copies(&app, 1).await;
    let mut conn = app.database.superuser().await;
    for (state, copy, probes, job) in [
        ("sent", "pending", 0, Some("file_sent_copy")),
        ("unknown", "done", 0, Some("probe_submission")),
        ("unknown", "done", 4, None),
    ] {
        sqlx::query("DELETE FROM jobs").execute(&mut conn).await.unwrap();
        sqlx::query("UPDATE submissions SET state = $1, sent_copy = $2, probes = $3, updated_at = now() - interval '1 minute'")
            .bind(state)
            .bind(copy)
            .bind(probes)
            .execute(&mut conn)
            .await
            .unwrap();
        sweep(&app.db).await;
        let kinds: Vec<String> =
            sqlx::query_scalar("SELECT kind FROM jobs WHERE kind LIKE '%su%mi%' OR kind LIKE '%copy'")
                .fetch_all(&mut conn)
                .await
                .unwrap();
        assert_eq!(kinds.first().map(String::as_str), job, "{state}, {copy}, {probes}");
        if job.is_some() {
            alice.ends(&app, &sent, "sent").await;
            eventually("the copy is there", PATIENCE, async || {
                let copy: String = sqlx::query_scalar("SELECT sent_copy FROM submissions")
                    .fetch_one(&mut conn)
                    .await
                    .unwrap();
                (copy == "done").then_some(())
            })
            .await;
        }
    }
    // What got nowhere for a day is left, and a copy over which workers died too often has failed.
    let jobs = "SELECT count(*) FROM jobs WHERE kind IN ('file_sent_copy', 'probe_submission')";
    sqlx::query("DELETE FROM jobs").execute(&mut conn).await.unwrap();
    for (copy, state) in [("pending", "sent"), ("done", "unknown")] {
        sqlx::query("UPDATE submissions SET state = $1, sent_copy = $2, probes = 0, updated_at = now() - interval '25 hours'")
            .bind(state)
            .bind(copy)
            .execute(&mut conn)
            .await
            .unwrap();
        sweep(&app.db).await;
        assert_eq!(
            sqlx::query_scalar::<_, i64>(jobs).fetch_one(&mut conn).await.unwrap(),
            0,
            "{state}, {copy}"
        );
    }
    sqlx::query("UPDATE submissions SET state = 'sent', sent_copy = 'pending', sent_copy_attempts = 12, updated_at = now() - interval '1 minute'")
        .execute(&mut conn)
        .await
        .unwrap();
    sweep(&app.db).await;
    eventually("the copy has failed", PATIENCE, async || {
        let copy: String =
            sqlx::query_scalar("SELECT sent_copy FROM submissions").fetch_one(&mut conn).await.unwrap();
        (copy == "failed").then_some(())
    })
    .await;
    assert_eq!((sink.taken().len(), alice.sent_on_server(&app)), (1, 1), "sent once, filed once");
    app.finish().await;
}
