//! Sending to SMTP servers that refuse, defer, fall silent or hang up at the worst moment: nothing is lost, nothing is
//! sent twice unasked, and the user is told.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tests::app::{App, Tenant};
use tests::eventually::eventually;
use tests::scripted::{self, Scripted};
use tests::{database::Database, mail};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

const PATIENCE: Duration = Duration::from_secs(40);

/// Where a sink hangs up, on its first connection only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Banner,
    Ehlo,
    Auth,
    Mail,
    SecondRcpt,
    InsteadOf354,
    MidBody,
    AfterDot,
}

/// What a sink was given: recipients it accepted, and the bytes between DATA and the dot, unstuffed.
#[derive(Debug, Clone)]
struct Delivery {
    recipients: Vec<String>,
    bytes: Vec<u8>,
}

/// A submission server whose answers to RCPT and whose moment of hanging up are chosen by the test.
#[derive(Clone)]
struct Sink {
    taken: Arc<Mutex<Vec<Delivery>>>,
    connections: Arc<AtomicUsize>,
    cut: Option<Cut>,
    rcpt: fn(&str, usize) -> &'static str,
}

impl Sink {
    fn new(cut: Option<Cut>, rcpt: fn(&str, usize) -> &'static str) -> Self {
        Self { taken: Arc::default(), connections: Arc::default(), cut, rcpt }
    }

    async fn start(&self) -> Scripted {
        let sink = self.clone();
        scripted::serve(move |stream| {
            let sink = sink.clone();
            async move {
                let number = sink.connections.fetch_add(1, Ordering::SeqCst);
                let cut = sink.cut.filter(|_| number == 0);
                // The client hanging up is as good an end as QUIT.
                let _ = sink.session(stream, number, cut).await;
            }
        })
        .await
    }

    fn taken(&self) -> Vec<Delivery> {
        self.taken.lock().unwrap().clone()
    }

    async fn session(&self, stream: TcpStream, number: usize, cut: Option<Cut>) -> std::io::Result<()> {
        let (read, mut write) = stream.into_split();
        let mut read = BufReader::new(read);
        let mut accepted = Vec::new();
        let mut offered = 0;
        if cut == Some(Cut::Banner) {
            return Ok(());
        }
        write.write_all(b"220 sink ready\r\n").await?;
        loop {
            let mut line = String::new();
            if read.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let verb = line.split([' ', '\r']).next().unwrap_or_default().to_ascii_uppercase();
            offered += usize::from(verb == "RCPT");
            let here = match verb.as_str() {
                "EHLO" => Some(Cut::Ehlo),
                "AUTH" => Some(Cut::Auth),
                "MAIL" => Some(Cut::Mail),
                "RCPT" if offered == 2 => Some(Cut::SecondRcpt),
                "DATA" => Some(Cut::InsteadOf354),
                _ => None,
            };
            if cut.is_some() && cut == here {
                return Ok(());
            }
            let answer = match verb.as_str() {
                "EHLO" => "250-sink\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 AUTH PLAIN".to_owned(),
                "AUTH" => "235 2.7.0 welcome".to_owned(),
                "RCPT" => {
                    let address = line.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
                    let answer = (self.rcpt)(&address, number);
                    if answer.starts_with('2') {
                        accepted.push(address);
                    }
                    answer.to_owned()
                }
                "DATA" => {
                    write.write_all(b"354 go on\r\n").await?;
                    if cut == Some(Cut::MidBody) {
                        read.read_exact(&mut [0; 1000]).await?;
                        return Ok(());
                    }
                    let bytes = body(&mut read).await?;
                    let mut taken = self.taken.lock().unwrap();
                    taken.push(Delivery { recipients: std::mem::take(&mut accepted), bytes });
                    if cut == Some(Cut::AfterDot) {
                        return Ok(());
                    }
                    format!("250 2.0.0 Ok: queued as SINK{}", taken.len())
                }
                "QUIT" => "221 bye".to_owned(),
                _ => "250 2.1.0 ok".to_owned(),
            };
            write.write_all(format!("{answer}\r\n").as_bytes()).await?;
        }
    }
}

/// Reads up to the final dot and takes the stuffing out.
async fn body(read: &mut (impl tokio::io::AsyncBufRead + Unpin)) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        let mut line = Vec::new();
        if read.read_until(b'\n', &mut line).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if line == b".\r\n" {
            return Ok(bytes);
        }
        bytes.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
    }
}

fn everybody(_: &str, _: usize) -> &'static str {
    "250 2.1.5 ok"
}

/// A connected person: real mailboxes to read, an odd server to send through.
struct Sender {
    tenant: Tenant,
    user: String,
    account: String,
}

async fn sender(app: &App, smtp_port: u16) -> Sender {
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(app);
    let mut settings = mail::settings(app, &user);
    settings["smtp"] =
        json!({"host": "127.0.0.1", "port": smtp_port, "security": "none", "username": "u", "password": "p"});
    let account = app.post(&tenant, "/api/accounts?verify=false", &settings).await.expect(201);
    let account = account["id"].as_str().unwrap().to_owned();
    mail::synchronise(app, &tenant, &account).await;
    Sender { tenant, user, account }
}

async fn start(workers: usize, settings: &[(&str, &str)]) -> App {
    let mut app = App::start_with(settings).await;
    for _ in 0..workers {
        app.add_worker();
    }
    app.add_scheduler();
    app
}

impl Sender {
    async fn draft(&self, app: &App, to: &[&str], subject: &str) -> String {
        let body = json!({"account_id": self.account, "to": to, "subject": subject, "text": ".dot first\n\nThe text.\n"});
        app.post(&self.tenant, "/api/compose", &body).await.expect(201)["id"].as_str().unwrap().to_owned()
    }

    /// Sends the draft; returns the submission as it was accepted.
    async fn order(&self, app: &App, draft: &str, order: Value) -> Value {
        app.post(&self.tenant, &format!("/api/compose/{draft}/send"), &order).await.expect(202)
    }

    async fn send(&self, app: &App, to: &[&str], subject: &str) -> Value {
        let draft = self.draft(app, to, subject).await;
        self.order(app, &draft, json!({})).await
    }

    async fn now(&self, app: &App, id: &str) -> Value {
        app.get(&self.tenant, &format!("/api/submissions/{id}")).await.expect(200)
    }

    /// Waits for an attempt to end in `state`.
    async fn ends(&self, app: &App, submission: &Value, state: &str) -> Value {
        let id = submission["id"].as_str().unwrap();
        let mut last = Value::Null;
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                last = self.now(app, id).await;
                if last["state"] == state && !last["attempts"].as_array().unwrap().is_empty() {
                    // The claim may fall between the reading of the state and that of the attempts: look once more.
                    last = self.now(app, id).await;
                    if last["state"] == state {
                        return last.clone();
                    }
                }
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
        })
        .await;
        found.unwrap_or_else(|_| panic!("never {state}: {last}"))
    }

    /// Waits until the copy is filed, and asserts that there is one of each message and no more than `count`.
    async fn copies(&self, app: &App, count: usize) {
        eventually("the copies are filed", PATIENCE, async || {
            (self.sent_on_server(app) >= count).then_some(())
        })
        .await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(self.sent_on_server(app), count, "copies in Sent");
    }

    fn sent_on_server(&self, app: &App) -> usize {
        mail::doveadm(app, &["search", "-u", &self.user, "mailbox", "Sent", "all"]).lines().count()
    }
}

/// Lets a submission's waiting jobs be due now, as if the minutes had passed.
async fn let_time_pass(database: &Database, submission: &Value) {
    let mut conn = database.superuser().await;
    let id = submission["id"].as_str().unwrap();
    sqlx::query("UPDATE submissions SET send_after = now() WHERE id = $1::uuid AND state = 'queued'")
        .bind(id)
        .execute(&mut conn)
        .await
        .unwrap();
    sqlx::query(
        "UPDATE jobs SET run_at = now() WHERE payload::text LIKE '%' || $1 || '%' AND state = 'ready'",
    )
    .bind(id)
    .execute(&mut conn)
    .await
    .unwrap();
}

fn recipients(submission: &Value) -> Vec<(String, Option<i64>)> {
    let all = submission["recipients"].as_array().unwrap();
    all.iter().map(|r| (r["state"].as_str().unwrap().to_owned(), r["code"].as_i64())).collect()
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
    tokio::time::sleep(Duration::from_secs(2)).await;
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
    tokio::time::sleep(Duration::from_secs(4)).await;
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
    assert_eq!(raw.text(), bytes, "the copy is what was sent, byte by byte");
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
    tokio::time::sleep(Duration::from_secs(5)).await;
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
