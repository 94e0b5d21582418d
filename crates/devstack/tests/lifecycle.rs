//! The promise of this crate: servers that work, and none of them left behind, however their owner ends.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use devstack::{Endpoints, Options, Shared, Stack};

/// All living processes below `root`, by `/proc`.
fn descendants(root: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        if let Some(parent) = status.lines().find_map(|l| l.strip_prefix("PPid:")) {
            children.entry(parent.trim().parse().unwrap()).or_default().push(pid);
        }
    }
    let (mut found, mut open) = (Vec::new(), vec![root]);
    while let Some(pid) = open.pop() {
        let below = children.remove(&pid).unwrap_or_default();
        found.extend(&below);
        open.extend(below);
    }
    found
}

fn alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|s| !s.contains("State:\tZ"))
}

fn name(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

/// A child that a failing test does not leave behind.
struct Held(Child);

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn up(arguments: &[&str]) -> (Held, Endpoints) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_devstack"))
        .args(["up", "--no-fsync"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let endpoints = serde_json::from_str(&line).unwrap();
    (Held(child), endpoints)
}

fn assert_all_gone(pids: &[u32], endpoints: &Endpoints) {
    let until = Instant::now() + Duration::from_secs(15);
    loop {
        let left: Vec<String> =
            pids.iter().filter(|p| alive(**p)).map(|p| format!("{p} {}", name(*p))).collect();
        if left.is_empty() && !endpoints.dir.exists() {
            return;
        }
        assert!(Instant::now() < until, "left behind: {left:?}, folder: {}", endpoints.dir.exists());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// All processes below `root`, once each of `names` is among them: servers go on forking after they answer.
fn complete(root: u32, names: &[&str]) -> Vec<u32> {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let pids = descendants(root);
        let found: Vec<String> = pids.iter().map(|p| name(*p)).collect();
        if names.iter().all(|wanted| found.iter().any(|n| n == wanted)) {
            return pids;
        }
        assert!(Instant::now() < until, "not all of {names:?} among {found:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

const SERVERS: [&str; 6] = ["postgres", "redis-server", "dovecot", "master", "qmgr", "imap-login"];

#[test]
fn a_killed_supervisor_leaves_no_process_and_no_folder_behind() {
    let (mut supervisor, endpoints) = up(&[]);
    let pids = complete(supervisor.0.id(), &SERVERS);
    supervisor.0.kill().unwrap();
    supervisor.0.wait().unwrap();
    assert_all_gone(&pids, &endpoints);
}

#[test]
fn a_supervisor_bound_to_its_reader_ends_when_the_pipe_closes() {
    let (mut supervisor, endpoints) = up(&["--until-eof"]);
    let pids = complete(supervisor.0.id(), &SERVERS);
    drop(supervisor.0.stdin.take());
    assert!(supervisor.0.wait().unwrap().success());
    assert_all_gone(&pids, &endpoints);
}

#[test]
fn a_terminated_run_ends_its_command_and_its_servers() {
    let run = Command::new(env!("CARGO_BIN_EXE_devstack"))
        .args(["run", "--no-fsync", "--", "sh", "-c", "echo \"$DEVSTACK\"; exec sleep 1000"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut run = Held(run);
    let mut line = String::new();
    BufReader::new(run.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let endpoints: Endpoints = serde_json::from_str(&line).unwrap();
    let pids = complete(run.0.id(), &["sleep", "postgres"]);
    devstack::signal("TERM", run.0.id()).unwrap();
    run.0.wait().unwrap();
    assert_all_gone(&pids, &endpoints);
}

#[test]
fn run_exits_as_its_command_did() {
    let status = Command::new(env!("CARGO_BIN_EXE_devstack"))
        .args(["run", "--no-fsync", "--", "sh", "-c", "exit 7"])
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(7));
}

#[test]
fn tests_share_one_stack_whether_or_not_they_run_under_one() {
    let first = Shared::get();
    assert_eq!(first.dir, Shared::get().dir);
    for port in [first.imap_port, first.imaps_port, first.lmtp_port, first.smtp_port, first.submissions_port]
    {
        TcpStream::connect(("127.0.0.1", port)).unwrap();
    }
}

fn doveadm(endpoints: &Endpoints, arguments: &[&str]) -> String {
    let output = endpoints.doveadm(arguments).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn talk(stream: &mut TcpStream, line: &str) -> String {
    stream.write_all(line.as_bytes()).unwrap();
    let mut buffer = [0; 2000];
    let n = stream.read(&mut buffer).unwrap();
    String::from_utf8_lossy(&buffer[..n]).into_owned()
}

#[test]
fn filled_and_delivered_mail_is_in_the_mailbox_and_a_changed_password_counts() {
    let stack = Stack::start(&Options { fsync: false, ..Options::default() }).unwrap();
    let at = stack.endpoints();
    at.add_mailbox("carol@lab.test", "first").unwrap();
    let message = |n: u32| format!("Subject: no {n}\n\nbody\n").into_bytes();
    let filled = [
        ("INBOX", vec!["\\Seen".to_owned(), "$Work".to_owned()], 1_500_000_000, message(1)),
        ("INBOX", vec![], 1_400_000_000, message(2)),
        ("Lists/Grün", vec!["\\Flagged".to_owned()], 1_300_000_000, message(3)),
    ];
    assert_eq!(at.fill("carol@lab.test", filled).unwrap(), 3);

    let fields = "uid flags date.received size.virtual";
    let inbox = doveadm(at, &["-f", "tab", "fetch", "-u", "carol@lab.test", fields, "mailbox", "INBOX"]);
    let rows: Vec<&str> = inbox.lines().skip(1).collect();
    assert_eq!(rows.len(), 2, "{inbox}");
    assert!(rows[0].starts_with("1\t") && rows[0].contains("\\Seen") && rows[0].contains("$Work"), "{inbox}");
    assert!(rows[0].contains("2017-07-14") && rows[1].contains("2014-05-13"), "{inbox}");
    assert!(rows[0].ends_with("\t23"), "{inbox}");
    let lists = doveadm(at, &["mailbox", "list", "-u", "carol@lab.test"]);
    for mailbox in ["Sent", "Drafts", "Trash", "Junk", "Archive", "INBOX"] {
        assert!(lists.lines().any(|l| l == mailbox), "{lists}");
    }
    assert!(lists.contains("Lists/Gr"), "{lists}");

    let mut smtp = TcpStream::connect(("127.0.0.1", at.smtp_port)).unwrap();
    talk(&mut smtp, "");
    talk(&mut smtp, "EHLO test\r\n");
    talk(&mut smtp, "MAIL FROM:<x@elsewhere.test>\r\n");
    assert!(talk(&mut smtp, "RCPT TO:<y@elsewhere.test>\r\n").starts_with("554"), "an open relay");
    assert!(talk(&mut smtp, "RCPT TO:<carol@lab.test>\r\n").starts_with("250"));
    talk(&mut smtp, "DATA\r\n");
    assert!(talk(&mut smtp, "Subject: delivered\r\n\r\nhello\r\n.\r\n").starts_with("250"));
    let until = Instant::now() + Duration::from_secs(10);
    while doveadm(at, &["search", "-u", "carol@lab.test", "subject", "delivered"]).is_empty() {
        assert!(Instant::now() < until, "not delivered; see the logs in {}", at.dir.display());
        std::thread::sleep(Duration::from_millis(50));
    }

    let login =
        |password: &str| at.doveadm(&["auth", "test", "carol@lab.test", password]).unwrap().status.success();
    assert!(login("first"));
    for password in ["other", "third", "fifth"] {
        at.set_password("carol@lab.test", password).unwrap();
        assert!(login(password) && !login("first"), "after the change to {password}");
    }
    assert!(stack.is_running());
}

#[test]
fn a_folder_that_is_used_again_has_its_mail_at_the_same_ports() {
    let dir = std::env::temp_dir().join(format!("devstack-again-{}", std::process::id()));
    let options = Options { fsync: false, dir: Some(dir.clone()), ..Options::default() };
    let ports = |at: &Endpoints| [at.imap_port, at.imaps_port, at.smtp_port, at.submissions_port];
    let stack = Stack::start(&options).unwrap();
    let first = ports(stack.endpoints());
    stack.endpoints().add_mailbox("dora@lab.test", "secret").unwrap();
    let second = Stack::start(&options).err().map(|e| format!("{e:#}")).unwrap_or_default();
    assert!(second.contains("another devstack"), "{second:?}");
    assert!(stack.is_running());
    drop(stack);
    let stack = Stack::start(&options).unwrap();
    assert_eq!(ports(stack.endpoints()), first);
    assert!(
        stack.endpoints().doveadm(&["auth", "test", "dora@lab.test", "secret"]).unwrap().status.success()
    );
    drop(stack);
    fs::remove_dir_all(&dir).unwrap();
}
