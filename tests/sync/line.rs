//! The real server at the other end of a line that is slow, cut, silent or half open.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::fault::{Cut, End, Proxy, Toward};
use tests::mail as rig_mail;

use crate::odd::Rig;
use crate::oracle::agrees;

/// A mailbox on the real server with a proxy in front of it, and an account that goes through that.
struct Line<'a> {
    rig: &'a Rig,
    proxy: Proxy,
    user: String,
    account: String,
}

impl<'a> Line<'a> {
    /// Made before the first round: `prepare` sets the faults that one meets.
    async fn new(rig: &'a Rig, tls: bool, messages: u32, prepare: impl FnOnce(&Proxy)) -> Self {
        let user = rig_mail::new_mailbox(&rig.app);
        let mail = (0..messages).map(numbered).collect();
        rig_mail::fill(&rig.app, &user, "INBOX", mail);
        let stack = rig.app.stack;
        let proxy = Proxy::before(if tls { stack.imaps_port } else { stack.imap_port }).await;
        prepare(&proxy);
        let mut body = rig_mail::settings(&rig.app, &user);
        body["imap"]["port"] = json!(proxy.port);
        if !tls {
            (body["imap"]["host"], body["imap"]["security"]) = (json!("127.0.0.1"), json!("none"));
        }
        let account = rig.connect(&body).await;
        Self { rig, proxy, user, account }
    }

    fn deliver(&self, n: u32) {
        rig_mail::deliver(&self.rig.app, &self.user, &numbered(n));
    }

    /// A round through a line that is well again, and the oracle: our rows are what the server has, each message was
    /// announced once, one more round changes nothing.
    async fn settled(&self, messages: usize) {
        let status = self.rig.round(&self.account).await;
        assert_eq!(
            (&status["run"]["state"], &status["state"]),
            (&json!("done"), &json!("connected")),
            "{status}"
        );
        agrees(&self.rig.app, &self.rig.tenant, &self.account, &self.user).await;
        let created = "SELECT count(*) FROM events WHERE account_id = $1::uuid AND kind = 'message.created'";
        assert_eq!(self.rig.count(created, &self.account).await, messages as i64, "each message once");
        let others = "SELECT count(*) FROM events WHERE account_id = $1::uuid AND kind IN ('message.deleted', 'message.updated', 'mailbox.reset')";
        assert_eq!(self.rig.count(others, &self.account).await, 0);
        self.rig.rests(&self.account).await;
    }
}

fn numbered(n: u32) -> Vec<u8> {
    rig_mail::message(&format!("M{n}"), &format!("m{n}@line.test"), &format!("body {n}"))
}

fn state(status: &Value) -> (&str, &str) {
    (status["state"].as_str().unwrap(), status["cause"]["code"].as_str().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_that_arrives_byte_by_byte_is_the_same_conversation() {
    let rig = Rig::start().await;
    let line = Line::new(&rig, false, 20, |proxy| proxy.both(|l| l.slice = Some(1))).await;
    line.settled(20).await;
    line.deliver(20);
    line.settled(21).await;
    assert_eq!(line.proxy.fired(), 0);
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_cut_anywhere_loses_nothing_and_doubles_nothing() {
    let rig = Rig::with(&[("IMAP_COMMAND_TIMEOUT_SECONDS", "5")]).await;
    let line = Line::new(&rig, false, 5, |_| ()).await;
    line.settled(5).await;
    let cuts = [
        (Toward::Client, Cut::before("* OK", End::Reset)),
        (Toward::Client, Cut::after("* OK", End::Close)),
        (Toward::Server, Cut::before("AUTHENTICATE", End::Reset)),
        (Toward::Client, Cut::after("CAPABILITY", End::HalfClose)),
        (Toward::Server, Cut::before("LIST", End::Close)),
        (Toward::Client, Cut::after("* LIST", End::Reset).nth(3)),
        (Toward::Client, Cut::before("* STATUS", End::HalfClose).nth(2)),
        (Toward::Server, Cut::after("SELECT", End::Reset)),
        (Toward::Client, Cut::before("[UIDVALIDITY", End::Close)),
        (Toward::Client, Cut::before("EXISTS", End::Reset)),
        (Toward::Server, Cut::before("UID FETCH", End::HalfClose)),
        (Toward::Client, Cut::before("FETCH (", End::Reset)),
        (Toward::Client, Cut::after("BODY[] {", End::Close)),
        (Toward::Client, Cut::after("Subject: ", End::Reset)),
        (Toward::Client, Cut::after("body ", End::HalfClose)),
        (Toward::Client, Cut::before(" OK Fetch completed", End::Reset)),
        (Toward::Client, Cut::after(" OK Fetch compl", End::Close)),
        (Toward::Server, Cut::before("LOGOUT", End::Reset)),
    ];
    let mut messages = 5;
    for (toward, cut) in cuts {
        let what = format!("{toward:?} {} {cut:?}", String::from_utf8_lossy(&cut.pattern));
        line.deliver(messages);
        messages += 1;
        let fired = line.proxy.fired();
        line.proxy.cut(toward, cut);
        let started = Instant::now();
        line.rig.round(&line.account).await;
        assert_eq!(line.proxy.fired(), fired + 1, "it did not happen: {what}");
        assert!(started.elapsed() < Duration::from_secs(60), "{what}: {:?}", started.elapsed());
    }
    line.settled(messages as usize).await;
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_on_which_nothing_comes_any_more_ends_the_round_in_time_and_holds_up_no_other_account() {
    let rig = Rig::with(&[("IMAP_COMMAND_TIMEOUT_SECONDS", "3")]).await;
    let (line, other) = (Line::new(&rig, false, 3, |_| ()).await, Line::new(&rig, false, 3, |_| ()).await);
    line.settled(3).await;
    let mut messages = 3;
    for (toward, cut) in [
        (Toward::Client, Some(Cut::after("* LIST", End::Hole))),
        (Toward::Server, Some(Cut::before("SELECT", End::Hole))),
        (Toward::Client, Some(Cut::after("BODY[] {", End::Hole))),
        (Toward::Server, Some(Cut::after("AUTHENTICATE", End::Hole))),
        // Half open: both ends think that they are connected, before anything was said.
        (Toward::Client, None),
    ] {
        line.deliver(messages);
        messages += 1;
        match cut.clone() {
            Some(cut) => line.proxy.cut(toward, cut),
            None => line.proxy.both(|l| l.hole = true),
        }
        let stuck = line.rig.round(&line.account);
        let free = async {
            other.deliver(messages);
            let started = Instant::now();
            other.rig.round(&other.account).await;
            started.elapsed()
        };
        let (status, took) = tokio::join!(stuck, free);
        if cut.is_none() {
            assert_eq!(state(&status), ("unreachable", "upstream-timeout"), "{cut:?}: {status}");
        }
        assert!(took < Duration::from_secs(60), "the other account waited {took:?}");
        line.proxy.both(|l| l.hole = false);
    }
    assert_eq!(line.proxy.fired(), 4);
    line.settled(messages as usize).await;
    rig.finish().await;
}

/// What is asked for and comes steadily is no silence, however long the whole of it takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_message_over_a_slow_line_takes_longer_than_one_answer_may_and_is_read() {
    let rig = Rig::with(&[("IMAP_COMMAND_TIMEOUT_SECONDS", "3")]).await;
    let line = Line::new(&rig, false, 2, |_| ()).await;
    line.settled(2).await;
    let large =
        rig_mail::message("Large", "large@line.test", &"a line of no meaning at all\r\n".repeat(40_000));
    rig_mail::deliver(&rig.app, &line.user, &large);
    line.proxy.line(Toward::Client, |l| l.bandwidth = Some(100_000));
    let started = Instant::now();
    rig.round(&line.account).await;
    assert!(started.elapsed() > Duration::from_secs(9), "the line was not slow: {:?}", started.elapsed());
    let degraded =
        "SELECT count(*) FROM messages WHERE account_id = $1::uuid AND size_bytes > 1000000 AND NOT degraded";
    assert_eq!(rig.count(degraded, &line.account).await, 1);
    line.proxy.line(Toward::Client, |l| l.bandwidth = None);
    line.settled(3).await;
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn latency_costs_time_and_nothing_else() {
    let rig = Rig::start().await;
    let line =
        Line::new(&rig, true, 10, |proxy| proxy.both(|l| l.latency = Duration::from_millis(150))).await;
    line.deliver(10);
    line.settled(11).await;
    rig.finish().await;
}

/// Under TLS an end without close_notify may be an attacker's: no answer that was cut so may be taken for whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_that_ends_without_close_notify_is_no_end_of_an_answer() {
    let rig = Rig::with(&[("IMAP_COMMAND_TIMEOUT_SECONDS", "10")]).await;
    let line = Line::new(&rig, true, 30, |_| ()).await;
    line.settled(30).await;
    let mut messages = 30;
    for bytes in [1_000, 2_500, 3_200, 3_600, 4_000, 4_400, 4_800, 5_500, 7_000] {
        for end in [End::Close, End::HalfClose] {
            for _ in 0..5 {
                line.deliver(messages);
                messages += 1;
            }
            line.proxy.cut(Toward::Client, Cut::after_bytes(bytes, end));
            rig.round(&line.account).await;
            let held = "SELECT count(*) FROM message_mailboxes WHERE account_id = $1::uuid";
            assert!(rig.count(held, &line.account).await >= 30, "after {bytes} bytes");
        }
    }
    assert!(line.proxy.fired() >= 10, "{}", line.proxy.fired());
    line.proxy.no_cuts();
    line.settled(messages as usize).await;
    rig.finish().await;
}
