//! One message must not hold up its mailbox: neither one that ends the worker nor one the server cannot deliver.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mail::uid::UidSet;
use serde_json::{Value, json};
use sqlx::{Executor as _, Row as _};
use tests::app::{App, Tenant};
use tests::eventually::eventually;
use tests::mail as rig;
use tests::scripted::{self, Scripted};
use tests::worker::Worker;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// Runs a worker until it waits to store what it fetched, because nobody may write messages, and gives it `signal`.
async fn stop_worker_before_it_commits(app: &App, signal: &str) {
    let mut holder = app.database.superuser().await;
    holder.execute("BEGIN; LOCK TABLE messages IN SHARE MODE").await.unwrap();
    let mut worker = Worker::start(app, &[]);
    let mut watcher = app.database.superuser().await;
    for _ in 0..3_000 {
        let waits: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM pg_locks l JOIN pg_database d ON d.oid = l.database
             WHERE d.datname = current_database() AND l.relation = 'messages'::regclass AND NOT l.granted)",
        )
        .fetch_one(&mut watcher)
        .await
        .unwrap();
        if waits {
            worker.signal(signal);
            assert!(!worker.ended(Duration::from_secs(60)).success() || signal == "-TERM");
            holder.execute("ROLLBACK").await.unwrap();
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the worker never came to storing messages");
}

/// What the scheduler does once the lease and the job of a dead worker have run out.
async fn let_time_pass_after_a_death(app: &App) {
    let mut conn = app.database.superuser().await;
    conn.execute("UPDATE account_leases SET expires_at = now() - interval '1 second'").await.unwrap();
    conn.execute(
        "UPDATE jobs SET state = 'ready', lease_owner = NULL, lease_until = NULL WHERE state = 'running'",
    )
    .await
    .unwrap();
}

/// Notes of what is being looked into, and (UID, deaths) of what was in the way.
async fn counted(app: &App) -> (Vec<String>, Vec<(i64, i32)>) {
    let mut conn = app.database.superuser().await;
    let notes =
        sqlx::query_scalar("SELECT uids FROM ingest_batches ORDER BY epoch").fetch_all(&mut conn).await;
    let rows = sqlx::query("SELECT uid, deaths FROM ingest_attempts ORDER BY uid").fetch_all(&mut conn).await;
    (notes.unwrap(), rows.unwrap().iter().map(|r| (r.get("uid"), r.get("deaths"))).collect())
}

async fn count(app: &App, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(&mut app.database.superuser().await).await.unwrap()
}

fn numbered(n: u32) -> Vec<u8> {
    rig::message(&format!("M{n}"), &format!("m{n}@example.test"), &format!("body {n}"))
}

async fn listed(app: &App, tenant: &Tenant, account: &str) -> Vec<Value> {
    let page = app.get(tenant, &format!("/api/accounts/{account}/messages?limit=200")).await.expect(200);
    page["data"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_at_which_two_workers_were_killed_is_stored_raw_and_the_mailbox_goes_on() {
    let mut app = App::start().await;
    let tenant = app.tenant().await;
    let user = rig::new_mailbox(&app);
    rig::fill(&app, &user, "INBOX", (1..=8).map(numbered).collect());
    let account = rig::connect(&app, &tenant, &user).await;

    stop_worker_before_it_commits(&app, "-KILL").await;
    assert_eq!(counted(&app).await, (vec!["1:8".to_owned()], vec![]), "counted before the rows were stored");
    let_time_pass_after_a_death(&app).await;
    stop_worker_before_it_commits(&app, "-KILL").await;
    let once: Vec<(i64, i32)> = (1..=8).map(|uid| (uid, 1)).collect();
    assert_eq!(counted(&app).await, (vec!["8".to_owned()], once), "one at a time, newest first");
    assert_eq!(count(&app, "SELECT count(*) FROM messages").await, 0);
    let_time_pass_after_a_death(&app).await;

    app.add_worker();
    rig::synchronise(&app, &tenant, &account).await;
    let mut raw = Vec::new();
    for summary in listed(&app, &tenant, &account).await {
        let path = format!("/api/messages/{}", summary["id"].as_str().unwrap());
        let message = app.get(&tenant, &path).await.expect(200);
        if message["degraded"] == true {
            raw.push(message);
        } else {
            assert!(message["subject"].as_str().unwrap().starts_with('M'), "{message}");
        }
    }
    assert_eq!(raw.len(), 1, "{raw:?}");
    assert_eq!(raw[0]["size_bytes"], numbered(8).len(), "{}", raw[0]);
    assert!(raw[0]["received_at"].is_string() && raw[0]["flags"].is_array(), "{}", raw[0]);
    let source = app.get(&tenant, &format!("/api/messages/{}/raw", raw[0]["id"].as_str().unwrap())).await;
    assert_eq!(source.bytes, numbered(8), "nothing is lost");
    assert_eq!(count(&app, "SELECT count(DISTINCT uid) FROM message_mailboxes").await, 8);
    let unindexed = "SELECT count(*) FROM messages m JOIN unindexed_batches u ON m.id = ANY (u.message_ids) WHERE m.degraded";
    assert_eq!(count(&app, unindexed).await, 0, "no job may look into it");
    assert_eq!(counted(&app).await, (vec![], vec![]));

    let events = count(&app, "SELECT count(*) FROM events WHERE kind LIKE 'message.%'").await;
    let selected = "SELECT count(*) FROM mailboxes WHERE role = 'inbox' AND tail_uid = 1 AND exists_seen = 8 AND state = 'synced'";
    assert_eq!(count(&app, selected).await, 1);
    rig::synchronise(&app, &tenant, &account).await;
    assert_eq!(count(&app, "SELECT count(*) FROM events WHERE kind LIKE 'message.%'").await, events);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_told_to_stop_leaves_no_suspicion_behind() {
    let mut app = App::start().await;
    let tenant = app.tenant().await;
    let user = rig::new_mailbox(&app);
    rig::fill(&app, &user, "INBOX", (1..=3).map(numbered).collect());
    let account = rig::connect(&app, &tenant, &user).await;
    stop_worker_before_it_commits(&app, "-TERM").await;
    assert_eq!(counted(&app).await, (vec![], vec![]));
    assert_eq!(count(&app, "SELECT count(*) FROM messages").await, 0, "it was stopped before it stored");
    let_time_pass_after_a_death(&app).await;
    app.add_worker();
    rig::synchronise(&app, &tenant, &account).await;
    assert_eq!(listed(&app, &tenant, &account).await.len(), 3);
    assert_eq!(count(&app, "SELECT count(*) FROM messages WHERE degraded").await, 0);
    app.finish().await;
}

/// What the scripted server does with one message.
#[derive(Clone, Copy, PartialEq)]
enum Broken {
    No,
    /// The line is cut in the middle of its bytes.
    Cuts,
    /// The same, with a word about it, as Dovecot does.
    SaysGoodbye,
    /// Any FETCH that names it is refused.
    Refuses,
}

struct Script {
    messages: u32,
    odd: Vec<u32>,
    broken: Broken,
    /// How often the contents of an odd message were asked for.
    asked: usize,
    /// The odd messages that were asked for alone.
    asked_alone: Vec<u32>,
    selects: usize,
}

type Shared = Arc<Mutex<Script>>;

fn script(broken: Broken) -> Shared {
    Arc::new(Mutex::new(Script {
        messages: 12,
        odd: vec![5],
        broken,
        asked: 0,
        asked_alone: vec![],
        selects: 0,
    }))
}

async fn serve(script: Shared) -> Scripted {
    scripted::serve(move |stream| converse(stream, script.clone())).await
}

async fn converse(stream: TcpStream, script: Shared) {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    let greeting = b"* OK [CAPABILITY IMAP4rev1 CONDSTORE] ready\r\n";
    if write.write_all(greeting).await.is_err() {
        return;
    }
    while let Ok(Some(line)) = lines.next_line().await {
        let (tag, command) = line.split_once(' ').unwrap_or((&line, ""));
        let (answer, goes_on) = reply(&mut script.lock().unwrap(), tag, command);
        if write.write_all(&answer).await.is_err() || !goes_on {
            return;
        }
    }
}

/// The answer to one command, and whether the line stays.
fn reply(script: &mut Script, tag: &str, command: &str) -> (Vec<u8>, bool) {
    let n = script.messages;
    let next = n + 1;
    let data = match command.split(' ').next().unwrap_or_default() {
        "CAPABILITY" => "* CAPABILITY IMAP4rev1 CONDSTORE\r\n".to_owned(),
        "LIST" => "* LIST () \"/\" INBOX\r\n".to_owned(),
        "STATUS" => format!(
            "* STATUS INBOX (MESSAGES {n} UIDNEXT {next} UIDVALIDITY 7 HIGHESTMODSEQ 3 UNSEEN {n})\r\n"
        ),
        "SELECT" => {
            script.selects += 1;
            format!(
                "* {n} EXISTS\r\n* FLAGS (\\Seen)\r\n* OK [UIDVALIDITY 7] v\r\n* OK [UIDNEXT {next}] n\r\n* OK [HIGHESTMODSEQ 3] m\r\n"
            )
        }
        "LOGOUT" => "* BYE bye\r\n".to_owned(),
        "UID" if command.starts_with("UID SEARCH") => {
            let all: Vec<String> = (1..=n).map(|uid| uid.to_string()).collect();
            format!("* SEARCH {}\r\n", all.join(" "))
        }
        "UID" if command.contains("BODY.PEEK[]") => return bodies(script, tag, command),
        _ => String::new(),
    };
    (format!("{data}{tag} OK done\r\n").into_bytes(), true)
}

fn bodies(script: &mut Script, tag: &str, command: &str) -> (Vec<u8>, bool) {
    let uids = UidSet::parse(command.split(' ').nth(2).unwrap()).unwrap();
    let odd = uids.iter().any(|uid| script.odd.contains(&uid.get()));
    script.asked += usize::from(odd);
    if let (true, 1, Some(uid)) = (odd, uids.len(), uids.first()) {
        script.asked_alone.push(uid.get());
    }
    if odd && script.broken == Broken::Refuses {
        return (format!("{tag} NO that message is damaged\r\n").into_bytes(), true);
    }
    let mut out = Vec::new();
    for uid in uids.iter().map(|uid| uid.get()).filter(|uid| *uid <= script.messages) {
        let bytes = numbered(uid);
        let head = format!(
            "* {uid} FETCH (UID {uid} FLAGS () INTERNALDATE \"01-Jan-2026 10:00:00 +0000\" RFC822.SIZE {} MODSEQ (1) BODY[] {{{}}}\r\n",
            bytes.len(),
            bytes.len()
        );
        out.extend_from_slice(head.as_bytes());
        let is_odd = script.odd.contains(&uid);
        if is_odd && script.broken == Broken::Cuts {
            out.extend_from_slice(&bytes[..bytes.len() / 2]);
            return (out, false);
        }
        if is_odd && script.broken == Broken::SaysGoodbye {
            out.truncate(out.len() - head.len());
            out.extend_from_slice(b"* BYE FETCH failed: Internal error occurred.\r\n");
            return (out, false);
        }
        out.extend_from_slice(&bytes);
        out.extend_from_slice(b")\r\n");
    }
    out.extend_from_slice(format!("{tag} OK done\r\n").as_bytes());
    (out, true)
}

async fn app_without_watching() -> App {
    let mut app =
        App::start_with(&[("IMAP_IDLE_ENABLED", "false"), ("IMAP_COMMAND_TIMEOUT_SECONDS", "10")]).await;
    app.add_worker();
    app
}

async fn connect(app: &App, tenant: &Tenant, port: u16, expected: &str) -> String {
    let body = json!({
        "email": "odd@lab.test",
        "imap": {"host": "127.0.0.1", "port": port, "security": "none", "username": "u", "password": "p"},
        "smtp": {"host": "127.0.0.1", "port": port, "security": "none", "username": "u", "password": "p"},
    });
    let account = app.post(tenant, "/api/accounts?verify=false", &body).await.expect(201);
    let id = account["id"].as_str().unwrap().to_owned();
    assert_eq!(is_over(app, tenant, &id, "").await, expected);
    id
}

/// Waits for the end of the round `run`, or of a later one. How it ended.
async fn is_over(app: &App, tenant: &Tenant, account: &str, run: &str) -> String {
    eventually("the round is over", Duration::from_secs(30), async || {
        let status = app.get(tenant, &format!("/api/sync/status/{account}")).await.expect(200);
        let last = rig::last_round(&status);
        let (id, state) = (last["id"].as_str()?, last["state"].as_str()?);
        (id >= run && ["done", "failed"].contains(&state)).then(|| state.to_owned())
    })
    .await
}

/// A round that may fail.
async fn round(app: &App, tenant: &Tenant, account: &str) {
    let run = app.post(tenant, &format!("/api/sync/imap/{account}"), &json!({})).await.expect(202);
    is_over(app, tenant, account, run["id"].as_str().unwrap()).await;
}

/// As if the time until the next try had passed.
async fn let_the_retry_be_due(app: &App) {
    let mut conn = app.database.superuser().await;
    conn.execute("UPDATE ingest_attempts SET next_try_at = now() - interval '1 second'").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_cuts_the_line_holds_up_no_other_and_is_asked_for_in_each_round() {
    let app = app_without_watching().await;
    let tenant = app.tenant().await;
    let script = script(Broken::Cuts);
    let server = serve(script.clone()).await;
    let account = connect(&app, &tenant, server.port, "done").await;
    assert_eq!(script.lock().unwrap().asked, 2, "with others, then alone");
    for asked in 3..=5 {
        let status = rig::synchronise(&app, &tenant, &account).await;
        assert_eq!(script.lock().unwrap().asked, asked, "once in a round");
        assert_eq!(listed(&app, &tenant, &account).await.len(), 11, "all others are here");
        let inbox = &status["mailboxes"][0];
        assert_eq!((&status["state"], &inbox["state"]), (&json!("connected"), &json!("synced")));
        assert!(inbox["cause"].is_null(), "a line that breaks is no fault of the message: {status}");
        assert_eq!((&inbox["messages_synced"], &inbox["messages_total"]), (&json!(11), &json!(12)));
    }
    let waits = "SELECT count(*) FROM ingest_attempts WHERE uid = 5 AND refusals = 0 AND deaths = 0 AND next_try_at IS NULL";
    assert_eq!(count(&app, waits).await, 1);

    script.lock().unwrap().broken = Broken::No;
    let status = rig::synchronise(&app, &tenant, &account).await;
    assert_eq!(listed(&app, &tenant, &account).await.len(), 12);
    assert_eq!(script.lock().unwrap().asked, 6);
    assert_eq!(status["progress"]["messages_total"], 12);
    assert_eq!(count(&app, "SELECT count(*) FROM messages WHERE degraded").await, 0);
    assert_eq!(counted(&app).await, (vec![], vec![]));
    let selects = script.lock().unwrap().selects;
    rig::synchronise(&app, &tenant, &account).await;
    assert_eq!(script.lock().unwrap().selects, selects, "nothing is left to do");
    app.finish().await;
}

/// Each costs a connection, and a round has six.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_messages_that_cut_the_line_use_up_no_round_and_each_has_its_turn() {
    let app = app_without_watching().await;
    let tenant = app.tenant().await;
    let script = script(Broken::Cuts);
    let odd: Vec<u32> = (2..=11).collect();
    script.lock().unwrap().odd = odd.clone();
    let server = serve(script.clone()).await;
    let account = connect(&app, &tenant, server.port, "failed").await;
    for _ in 0..10 {
        round(&app, &tenant, &account).await;
    }
    script.lock().unwrap().asked_alone.clear();
    for _ in 0..10 {
        let status = rig::synchronise(&app, &tenant, &account).await;
        assert_eq!(status["state"], "connected", "{status}");
    }
    assert_eq!(listed(&app, &tenant, &account).await.len(), 2, "the others are here");
    let asked: BTreeSet<u32> = script.lock().unwrap().asked_alone.iter().copied().collect();
    assert_eq!(asked.into_iter().collect::<Vec<_>>(), odd, "each had its turn");
    script.lock().unwrap().broken = Broken::No;
    rig::synchronise(&app, &tenant, &account).await;
    assert_eq!(listed(&app, &tenant, &account).await.len(), 12);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_over_which_the_server_says_goodbye_is_left_out_named_and_read_once_it_has_mended_itself() {
    let app = app_without_watching().await;
    let tenant = app.tenant().await;
    let script = script(Broken::SaysGoodbye);
    let server = serve(script.clone()).await;
    let account = connect(&app, &tenant, server.port, "done").await;

    let status = rig::synchronise(&app, &tenant, &account).await;
    assert_eq!(listed(&app, &tenant, &account).await.len(), 11, "all others are here");
    let inbox = &status["mailboxes"][0];
    assert_eq!(inbox["cause"]["code"], "unreadable-messages", "{status}");
    assert!(inbox["cause"]["text"].as_str().unwrap().contains("(UID 5)"), "{status}");
    assert_eq!((&status["state"], &inbox["state"]), (&json!("connected"), &json!("synced")));
    assert_eq!((&inbox["messages_synced"], &inbox["messages_total"]), (&json!(11), &json!(12)));
    assert_eq!(script.lock().unwrap().asked, 2, "with others, then alone; not again in the second round");
    let waits = "SELECT count(*) FROM ingest_attempts WHERE uid = 5 AND refusals = 1 AND next_try_at > now()";
    assert_eq!(count(&app, waits).await, 1);

    let selects = script.lock().unwrap().selects;
    let status = rig::synchronise(&app, &tenant, &account).await;
    assert_eq!(script.lock().unwrap().selects, selects, "nothing is left to do");
    assert_eq!(status["mailboxes"][0]["cause"]["code"], "unreadable-messages", "it is still missing");

    script.lock().unwrap().broken = Broken::No;
    let_the_retry_be_due(&app).await;
    let status = rig::synchronise(&app, &tenant, &account).await;
    assert_eq!(listed(&app, &tenant, &account).await.len(), 12);
    assert_eq!(script.lock().unwrap().asked, 3);
    assert!(status["mailboxes"][0]["cause"].is_null(), "{status}");
    assert_eq!(status["progress"]["messages_total"], 12);
    assert_eq!(count(&app, "SELECT count(*) FROM messages WHERE degraded").await, 0);
    assert_eq!(counted(&app).await, (vec![], vec![]));
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_refused_is_tried_again_at_growing_distances_and_forgotten_when_it_goes() {
    let app = app_without_watching().await;
    let tenant = app.tenant().await;
    let script = script(Broken::Refuses);
    let server = serve(script.clone()).await;
    let account = connect(&app, &tenant, server.port, "done").await;
    assert_eq!(listed(&app, &tenant, &account).await.len(), 11);
    let seconds = "SELECT extract(epoch FROM next_try_at - last_at)::bigint FROM ingest_attempts";
    for distance in [900, 7_200, 86_400, 86_400] {
        assert_eq!(count(&app, seconds).await, distance);
        let_the_retry_be_due(&app).await;
        rig::synchronise(&app, &tenant, &account).await;
    }
    // Most of the mailbox is expunged, the damaged one with it.
    {
        let mut script = script.lock().unwrap();
        (script.messages, script.odd, script.broken) = (4, vec![], Broken::No);
    }
    rig::synchronise(&app, &tenant, &account).await;
    assert_eq!(listed(&app, &tenant, &account).await.len(), 4);
    assert_eq!(counted(&app).await, (vec![], vec![]));
    app.finish().await;
}
