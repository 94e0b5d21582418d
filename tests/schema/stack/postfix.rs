//! The Postfix of the stack, with its own settings, in front of the tests' Dovecot: what has no destination is refused in the
//! dialogue, so that nothing is bounced to a sender who may be forged.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use emailclient_core::platform::id::new_uuid;
use tests::eventually::eventually;

use super::top;
use crate::operator::program::Folder;

/// Ends with this value.
struct Postfix {
    port: u16,
    folder: Folder,
    master: Child,
}

fn run(command: &mut Command) -> (bool, String) {
    let done = command.output().unwrap();
    let words = [done.stdout, done.stderr].concat();
    (done.status.success(), String::from_utf8_lossy(&words).into_owned())
}

/// Writes the settings as the container does.
fn settings(conf: &Path, variables: &[(&str, &str)]) -> (bool, String) {
    let from = top().join("deployment/docker/postfix");
    for file in ["main.cf", "master.cf", "sender_login"] {
        std::fs::copy(from.join(file), conf.join(file)).unwrap();
    }
    run(Command::new(from.join("settings.sh"))
        .arg(conf)
        .args(["/nonexistent.pem", "/nonexistent.key"])
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .envs([("MAIL_HOSTNAME", "mail.lab.test"), ("MAIL_DOMAINS", "lab.test, Second.Test")])
        .envs(variables.iter().copied()))
}

impl Postfix {
    async fn start(variables: &[(&str, &str)]) -> Self {
        let stack = devstack::Shared::get();
        let folder = Folder::new();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (conf, log) = (folder.0.join("etc"), folder.0.join("log"));
        for dir in [&conf, &folder.0.join("data"), &folder.0.join("spool"), &log] {
            std::fs::create_dir(dir).unwrap();
        }
        let (good, words) = settings(&conf, variables);
        assert!(good, "{words}");
        // Where this machine differs from the container.
        let master = std::fs::read_to_string(conf.join("master.cf")).unwrap();
        let services = master.split_once("\npickup").unwrap().1;
        let own = format!("127.0.0.1:{port} inet n - n - - smtpd\npickup{services}");
        std::fs::write(conf.join("master.cf"), own).unwrap();
        let at = |what: &str| folder.0.join(what).display().to_string();
        let mut own = vec![
            format!("queue_directory={}", at("spool")),
            format!("data_directory={}", at("data")),
            format!("maillog_file={}", at("log/postfix")),
            format!("maillog_file_prefixes={}", folder.0.display()),
            format!("virtual_transport=lmtp:inet:127.0.0.1:{}", stack.lmtp_port),
            format!("smtpd_sasl_path={}", stack.dir.join("dovecot/auth-client").display()),
            "inet_interfaces=127.0.0.1".to_owned(),
            "smtpd_tls_security_level=none".to_owned(),
        ];
        if !Path::new("/usr/lib/postfix/sbin").is_dir() {
            own.push("daemon_directory=/usr/libexec/postfix".to_owned());
        }
        let (good, words) = run(Command::new("/usr/sbin/postconf").arg("-c").arg(&conf).arg("-e").args(own));
        assert!(good, "{words}");
        assert!(run(Command::new("chown").arg("postfix").arg(folder.0.join("data"))).0);
        let (good, words) = run(Command::new("/usr/sbin/postfix").arg("-c").arg(&conf).arg("check"));
        assert!(good, "{words}");
        let daemons = ["/usr/lib/postfix/sbin/master", "/usr/libexec/postfix/master"];
        let master = Command::new(daemons.iter().find(|path| Path::new(path).exists()).unwrap())
            .arg("-c")
            .arg(&conf)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let postfix = Self { port, folder, master };
        eventually("Postfix greets", Duration::from_secs(30), async || {
            TcpStream::connect(("127.0.0.1", port)).ok().map(drop)
        })
        .await;
        postfix
    }

    /// A dialogue up to these recipients; the code and words of the answer to each.
    fn recipients(&self, recipients: &[&str]) -> Vec<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        let mut answer = move || loop {
            let line = lines.next().unwrap().unwrap();
            if line.as_bytes().get(3) != Some(&b'-') {
                return line;
            }
        };
        answer();
        let mut say = |words: &str| {
            stream.write_all(format!("{words}\r\n").as_bytes()).unwrap();
            answer()
        };
        say("EHLO client.example.org");
        assert!(say("MAIL FROM:<victim@forged.example>").starts_with("250"));
        let answers = recipients.iter().map(|to| say(&format!("RCPT TO:{to}"))).collect();
        say("QUIT");
        answers
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.0.join("log/postfix")).unwrap_or_default()
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        let _ = devstack::signal("TERM", self.master.id());
        let _ = self.master.wait();
    }
}

/// Whatever is for the roles of a domain, in every spelling that Postfix takes for them.
const ROLES: [&str; 12] = [
    "<postmaster>",
    "<Postmaster>",
    "< postmaster >",
    "<\"postmaster\">",
    "<postmaster> NOTIFY=NEVER",
    "<postmaster@lab.test>",
    "<PostMaster@LAB.test>",
    "<postmaster@second.test>",
    "<abuse@lab.test>",
    "<abuse@second.test>",
    "<abuse+x@second.test>",
    "<\"abuse\"@lab.test>",
];
/// What has no destination, whatever the operator named.
const NOWHERE: [&str; 13] = [
    "<root@[127.0.0.1]>",
    "<root@[IPv6:::1]>",
    "<root@[IPv6:0:0:0:0:0:0:0:1]>",
    "<root@[ipv6:fd00::2]>",
    "<postmaster@[127.0.0.1]>",
    "<nobody-of-that-name@lab.test>",
    "<root>",
    "<abuse>",
    "<root@mail.lab.test>",
    "<postmaster@mail.lab.test>",
    "<root@localhost>",
    "<someone@example.net>",
    "<@lab.test:someone@example.net>",
];
/// Spellings of the bare name that nobody needs: Postfix accepts each, and asks nothing, unless it is kept from it.
const TWISTED: [&str; 11] = [
    "postmaster",
    "<@lab.test:postmaster>",
    "<@a.test,@b.test:postmaster>",
    "<@a.test:\"postmaster\">",
    "<\"post\\master\">",
    "<post\\master>",
    "<(c)postmaster>",
    "<(@)postmaster>",
    "<postmaster(@x)>",
    "\"a@b\" <postmaster>",
    "<postmaster>(@)",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_for_the_roles_goes_to_the_mailbox_that_the_operator_named() {
    let stack = devstack::Shared::get();
    let mailbox = format!("m-{}@lab.test", new_uuid().simple());
    stack.add_mailbox(&mailbox, "secret").unwrap();
    let postfix = Postfix::start(&[("MAIL_POSTMASTER", &mailbox)]).await;
    for (to, answer) in ROLES.iter().zip(postfix.recipients(&ROLES)) {
        assert!(answer.starts_with("250"), "{to}: {answer}\n{}", postfix.log());
    }
    for (to, answer) in NOWHERE.iter().zip(postfix.recipients(&NOWHERE)) {
        assert!(answer.starts_with('5'), "{to}: {answer}\n{}", postfix.log());
    }
    for (to, answer) in TWISTED.iter().zip(postfix.recipients(&TWISTED)) {
        assert!(answer.starts_with('5'), "{to}: {answer}\n{}", postfix.log());
    }
    assert!(postfix.recipients(&[&format!("<{mailbox}>")])[0].starts_with("250"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_for_the_roles_is_refused_in_the_dialogue_until_there_is_a_mailbox_for_it() {
    let nobody = format!("nobody-{}@lab.test", new_uuid().simple());
    // What catches the mail that would leave is there, and catches none of these.
    let caught = format!("c{}", new_uuid().simple());
    devstack::Shared::get().add_mailbox(&format!("{caught}@lab.test"), "secret").unwrap();
    let catch = format!("catch:{caught}");
    for variables in [
        vec![("MAIL_POSTMASTER", nobody.as_str())],
        vec![("MAIL_POSTMASTER", nobody.as_str()), ("MAIL_OUTSIDE", catch.as_str())],
    ] {
        let postfix = Postfix::start(&variables).await;
        for all in [&ROLES[..], &NOWHERE[..]] {
            for (to, answer) in all.iter().zip(postfix.recipients(all)) {
                assert!(answer.starts_with('5'), "{to}: {answer}\n{}", postfix.log());
            }
        }
        assert!(
            !postfix.log().contains("bounced (") || !postfix.log().contains("victim@forged"),
            "{}",
            postfix.log()
        );
    }
}

#[test]
fn a_postmaster_that_is_no_address_is_refused_at_the_start() {
    let folder = Folder::new();
    for wrong in ["a b@lab.test", "x@y@z", "@lab.test", "x@", "a,b@lab.test", "x@lab.test\ny@lab.test"] {
        let (good, words) = settings(&folder.0, &[("MAIL_POSTMASTER", wrong)]);
        assert!(!good && words.contains("MAIL_POSTMASTER"), "{wrong}: {words}");
    }
    let (good, words) = settings(&folder.0, &[("MAIL_POSTMASTER", "op")]);
    assert!(good, "{words}");
    let roles = std::fs::read_to_string(folder.0.join("roles")).unwrap();
    assert!(roles.contains("abuse@second.test op@lab.test\n"), "{roles}");
}
