//! A server that answers the question "what is there" with a refusal, half an answer or none. Nothing may be deleted on
//! the strength of that. In front of the real Dovecot stands a proxy that hides the extensions by which deletions are
//! told, so that the round has to ask, and spoils the answer.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tests::app::{App, Tenant};
use tests::eventually::eventually;
use tests::scripted::{self, Scripted};
use tests::{mail, mail::doveadm};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// What the proxy says instead of the server to `UID SEARCH`; `{tag}` is the command's. It hangs up afterwards when the
/// tagged line is missing.
#[derive(Clone, Default)]
struct Spoiler {
    answer: Arc<Mutex<Option<String>>>,
    used: Arc<AtomicUsize>,
}

impl Spoiler {
    fn set(&self, answer: Option<&str>) {
        *self.answer.lock().unwrap() = answer.map(str::to_owned);
        self.used.store(0, Ordering::SeqCst);
    }

    async fn before(&self, imap_port: u16) -> Scripted {
        let spoiler = self.clone();
        scripted::serve(move |client| {
            let spoiler = spoiler.clone();
            async move {
                let server = TcpStream::connect(("127.0.0.1", imap_port)).await.unwrap();
                // Either side hanging up ends both.
                let _ = spoiler.carry(client, server).await;
            }
        })
        .await
    }

    async fn carry(&self, client: TcpStream, server: TcpStream) -> std::io::Result<()> {
        let (from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        let mut lines = BufReader::new(from_client);
        let mut chunk = vec![0; 1 << 16];
        let mut line = Vec::new();
        loop {
            tokio::select! {
                read = lines.read_until(b'\n', &mut line) => {
                    if read? == 0 {
                        return Ok(());
                    }
                    let text = String::from_utf8_lossy(&line).into_owned();
                    let answer = self.answer.lock().unwrap().clone().filter(|_| text.contains(" UID SEARCH "));
                    match answer {
                        None => to_server.write_all(&line).await?,
                        Some(answer) => {
                            let tag = text.split(' ').next().unwrap_or_default();
                            to_client.write_all(answer.replace("{tag}", tag).as_bytes()).await?;
                            self.used.fetch_add(1, Ordering::SeqCst);
                            if !answer.contains("{tag}") {
                                return Ok(());
                            }
                        }
                    }
                    line.clear();
                }
                read = from_server.read(&mut chunk) => {
                    let read = read?;
                    if read == 0 {
                        return Ok(());
                    }
                    to_client.write_all(&without_extensions(&chunk[..read])).await?;
                }
            }
        }
    }
}

/// The same number of bytes, with the names of the extensions spoilt. The mails here do not contain them.
fn without_extensions(bytes: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for name in [b"QRESYNC".as_slice(), b"CONDSTORE", b"ESEARCH", b"NOTIFY", b"IDLE"] {
        for at in 0..out.len().saturating_sub(name.len() - 1) {
            if out[at..].starts_with(name) {
                out[at] = b'X';
            }
        }
    }
    out
}

async fn subjects(app: &App, tenant: &Tenant, account: &str) -> Vec<String> {
    let page =
        app.get(tenant, &format!("/api/accounts/{account}/messages?role=inbox&limit=50")).await.expect(200);
    let mut all: Vec<String> =
        page["data"].as_array().unwrap().iter().map(|m| m["subject"].as_str().unwrap().to_owned()).collect();
    all.sort();
    all
}

async fn ask_for_a_round(app: &App, tenant: &Tenant, account: &str) {
    let path = format!("/api/sync/imap/{account}");
    app.post(tenant, &path, &json!({})).await.expect(202);
}

fn settings(app: &App, user: &str, port: u16) -> Value {
    let mut body = mail::settings(app, user);
    body["imap"]["host"] = json!("127.0.0.1");
    body["imap"]["port"] = json!(port);
    body["imap"]["security"] = json!("none");
    body
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_or_broken_listing_deletes_nothing() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    let message = |n: u32| mail::message(&format!("M{n}"), &format!("m{n}@example.test"), "x");
    mail::fill(&app, &user, "INBOX", (0..8).map(message).collect());
    let spoiler = Spoiler::default();
    let proxy = spoiler.before(app.stack.imap_port).await;
    let account = app.post(&tenant, "/api/accounts", &settings(&app, &user, proxy.port)).await.expect(201);
    let account = account["id"].as_str().unwrap().to_owned();
    mail::synchronise(&app, &tenant, &account).await;
    let all: Vec<String> = (0..8).map(|n| format!("M{n}")).collect();
    assert_eq!(subjects(&app, &tenant, &account).await, all);

    doveadm(&app, &["expunge", "-u", &user, "mailbox", "INBOX", "uid", "3"]);
    for answer in [
        "{tag} NO [LIMIT] too many searches\r\n",
        "{tag} NO [SERVERBUG] try again\r\n",
        "{tag} NO [UNAVAILABLE] try again\r\n",
        "{tag} NO never\r\n",
        "{tag} BAD what\r\n",
        "{tag} OK done\r\n",
        "* SEARCH 1 2\r\n{tag} NO [LIMIT] cut short\r\n",
        "* SEARCH 1 x 2\r\n{tag} OK done\r\n",
        "* SEARCH 1 2\r\n",
        "* SEARCH 1 2",
        "* SEARCH\r\n* BYE over\r\n",
        "",
    ] {
        spoiler.set(Some(answer));
        // A worker that was told to be patient comes back when somebody asks.
        eventually("the round asks what is there", Duration::from_secs(60), async || {
            ask_for_a_round(&app, &tenant, &account).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            (spoiler.used.load(Ordering::SeqCst) > 0).then_some(())
        })
        .await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(subjects(&app, &tenant, &account).await, all, "after {answer:?}");
    }
    spoiler.set(None);
    eventually("the deletion is seen", Duration::from_secs(60), async || {
        ask_for_a_round(&app, &tenant, &account).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        (subjects(&app, &tenant, &account).await.len() == 7).then_some(())
    })
    .await;
    assert!(!subjects(&app, &tenant, &account).await.contains(&"M2".to_owned()));
    app.finish().await;
}
