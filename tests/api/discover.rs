//! Servers found from an address: by records of a real name server and documents of a real web server.

use std::collections::HashMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use emailclient_core::platform::id::new_uuid;
use serde_json::{Value, json};
use tests::app::{App, Tenant};
use tests::name_server::{self, a, mx, srv};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use wire::dial::{Outbound, OutboundPolicy};
use wire::discover::{Answer, Confidence, Discovered, Discovery, Source, discover};
use wire::dns::Dns;
use wire::tls::TlsConfig;

/// Public, and never dialled here: a suggestion is looked up, not tried.
const PUBLIC: &str = "8.8.8.8";

async fn found(app: &App, tenant: &Tenant, email: &str) -> Value {
    app.post(tenant, "/api/accounts/discover", &json!({"email": email})).await.expect(200)
}

/// `protocol host:port security` of both servers.
fn servers(candidate: &Value) -> [String; 2] {
    ["imap", "smtp"].map(|protocol| {
        let s = &candidate[protocol];
        let word = |field: &str| s[field].as_str().unwrap_or("-").to_owned();
        format!("{}:{} {}", word("host"), s["port"], word("security"))
    })
}

fn outcomes(told: &Value) -> Vec<String> {
    let all = told["sources"].as_array().unwrap().iter();
    all.map(|s| format!("{} {}", s["source"].as_str().unwrap(), s["outcome"].as_str().unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_are_found_by_the_table_by_records_and_by_who_takes_the_mail() {
    let dns = name_server::serve(vec![
        srv("_imaps._tcp.example.test", (10, 0), 993, "second.example.test"),
        srv("_imaps._tcp.example.test", (1, 5), 993, "imap.example.test"),
        srv("_imap._tcp.example.test", (0, 0), 143, "imap.example.test"),
        srv("_submission._tcp.example.test", (0, 0), 587, "smtp.example.test"),
        srv("_submissions._tcp.example.test", (0, 0), 0, "."),
        a("imap.example.test", PUBLIC),
        a("second.example.test", PUBLIC),
        a("smtp.example.test", PUBLIC),
        srv("_imaps._tcp.hosted.test", (0, 0), 993, "imap.example.test"),
        mx("hosted.test", 10, "in1-smtp.messagingengine.com"),
        mx("own.test", 10, "mail.own.test"),
        srv("_imaps._tcp.inside.test", (0, 0), 993, "imap.inside.test"),
        a("imap.inside.test", "10.1.2.3"),
        a("autoconfig.inside.test", "169.254.169.254"),
    ])
    .await;
    let app = App::start_with(&[("DNS_SERVERS", &dns.address.to_string())]).await;
    let tenant = app.tenant().await;

    let told = found(&app, &tenant, "ann@gmail.com").await;
    assert_eq!(servers(&told["candidates"][0]), ["imap.gmail.com:993 tls", "smtp.gmail.com:465 tls"]);
    assert!(told["candidates"][0]["notes"][0].as_str().unwrap().contains("app password"), "{told}");
    assert_eq!((outcomes(&told), &told["cause"]), (vec!["table found".to_owned()], &Value::Null));
    let told = found(&app, &tenant, "ann@proton.me").await;
    assert!(told["candidates"][0]["imap"].is_null(), "{told}");
    assert!(told["candidates"][0]["notes"][0].as_str().unwrap().contains("Bridge"), "{told}");

    let told = found(&app, &tenant, "Ann@Example.Test").await;
    let candidates = told["candidates"].as_array().unwrap();
    assert_eq!(candidates.len(), 2, "{told}");
    assert_eq!(servers(&candidates[0]), ["imap.example.test:993 tls", "smtp.example.test:587 starttls"]);
    assert_eq!(servers(&candidates[1]), ["imap.example.test:143 starttls", "smtp.example.test:587 starttls"]);
    assert_eq!((&candidates[0]["source"], &candidates[0]["confidence"]), (&json!("srv"), &json!("high")));
    assert_eq!(candidates[0]["imap"]["username"], "Ann@Example.Test");
    assert_eq!(outcomes(&told), ["table nothing", "autoconfig nothing", "srv found", "mx nothing"]);

    let told = found(&app, &tenant, "ann@hosted.test").await;
    let known: Vec<_> = told["candidates"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| {
            format!(
                "{} {} {}",
                c["source"].as_str().unwrap(),
                c["confidence"].as_str().unwrap(),
                c["provider"]
            )
        })
        .collect();
    // The record names a host of somebody else's, which a forger could do as well.
    assert_eq!(known, ["srv medium null", "mx medium \"Fastmail\""], "{told}");

    let told = found(&app, &tenant, "ann@own.test").await;
    assert_eq!(
        (&told["candidates"], &told["cause"]["code"]),
        (&json!([]), &json!("nothing-found")),
        "{told}"
    );

    let told = found(&app, &tenant, "ann@inside.test").await;
    assert_eq!(told["candidates"], json!([]), "a host of the inside is not suggested: {told}");
    // As if there were none of that name, which is nobody's business.
    assert_eq!(outcomes(&told), ["table nothing", "autoconfig nothing", "srv nothing", "mx nothing"]);
    let nowhere = found(&app, &tenant, "ann@nowhere.test").await;
    assert_eq!((&told["sources"], &told["cause"]), (&nowhere["sources"], &nowhere["cause"]));

    for email in ["ann", "ann@localhost", "ann@127.0.0.1", "ann@[127.0.0.1]"] {
        let refused = app.post(&tenant, "/api/accounts/discover", &json!({"email": email})).await;
        let problem = refused.refused(422, "invalid-address");
        assert_eq!(problem["errors"][0]["pointer"], "/email", "{problem}");
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_server_that_is_silent_costs_seconds_and_is_told() {
    let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let app = App::start_with(&[("DNS_SERVERS", &silent.local_addr().unwrap().to_string())]).await;
    let tenant = app.tenant().await;
    let start = Instant::now();
    let told = found(&app, &tenant, "ann@example.test").await;
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    assert_eq!(
        (&told["candidates"], &told["cause"]["code"]),
        (&json!([]), &json!("sources-failed")),
        "{told}"
    );
    assert_eq!(told["sources"][2]["outcome"], "failed");
    app.finish().await;
}

/// An authority of our own, trusted by [`Self::trust`], and a web server under it.
struct Web {
    port: u16,
    trust: TlsConfig,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Web {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves `pages`: (host and path without query) to the whole answer. Anything else is 404.
async fn web(hosts: &[&str], pages: impl Fn(u16) -> HashMap<String, Vec<u8>>) -> Web {
    wire::tls::install_provider();
    let names: Vec<String> = hosts.iter().map(|h| (*h).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let file = std::env::temp_dir().join(format!("discover-{}.pem", new_uuid()));
    std::fs::File::create(&file).unwrap().write_all(made.cert.pem().as_bytes()).unwrap();
    let trust = TlsConfig::new(Some(file.as_path())).unwrap();
    std::fs::remove_file(file).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let pages = Arc::new(pages(port));
    let task = tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (acceptor, pages) = (acceptor.clone(), pages.clone());
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(socket).await else { return };
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = stream.read_u8().await else { return };
                    head.push(byte);
                }
                let head = String::from_utf8(head).unwrap();
                let path = head.split(' ').nth(1).unwrap().split('?').next().unwrap();
                let host = head.lines().find_map(|l| l.strip_prefix("host: ")).unwrap();
                let host = host.split(':').next().unwrap();
                let nothing = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec();
                let answer = pages.get(&format!("{host}{path}")).unwrap_or(&nothing);
                let _ = stream.write_all(answer).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    Web { port, trust, task }
}

fn page(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}

fn moved(to: &str) -> Vec<u8> {
    format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n").into_bytes()
}

fn document(host: &str) -> String {
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<clientConfig version="1.1"><emailProvider id="docs.test"><displayName>Docs</displayName>
<incomingServer type="imap"><hostname>{host}</hostname><port>993</port><socketType>SSL</socketType><username>%EMAILLOCALPART%</username></incomingServer>
<outgoingServer type="smtp"><hostname>{host}</hostname><port>465</port><socketType>SSL</socketType><username>%EMAILADDRESS%</username></outgoingServer>
</emailProvider></clientConfig>"#
    )
}

const FIRST: &str = "/mail/config-v1.1.xml";
const SECOND: &str = "/.well-known/autoconfig/mail/config-v1.1.xml";

async fn ask(web: &Web, dns: SocketAddr, domain: &str) -> Discovered {
    let dns = Dns::new(&[dns]);
    let policy = OutboundPolicy::parse("127.0.0.1:1-65535").unwrap();
    let outbound = Outbound::with_dns(policy, &dns);
    let way = Discovery { dns: &dns, outbound: &outbound, tls: &web.trust, https_port: web.port };
    discover(way, &format!("ann@{domain}")).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_domains_own_document_is_read_wherever_it_may_be_and_agreement_is_told() {
    let hosts = ["autoconfig.docs.test", "known.test", "autoconfig.moved.test", "other.test"];
    let web = web(&hosts, |port| {
        HashMap::from([
            (format!("autoconfig.docs.test{FIRST}"), page(&document("imap.docs.test"))),
            (format!("known.test{SECOND}"), page(&document("imap.docs.test"))),
            (format!("autoconfig.moved.test{FIRST}"), moved(&format!("https://other.test:{port}/a"))),
            ("other.test/a".to_owned(), moved("/b")),
            ("other.test/b".to_owned(), page(&document("imap.docs.test"))),
        ])
    })
    .await;
    let mut records: Vec<_> = hosts.iter().map(|host| a(host, "127.0.0.1")).collect();
    records.push(a("imap.docs.test", PUBLIC));
    records.push(srv("_imaps._tcp.docs.test", (0, 0), 993, "imap.docs.test"));
    records.push(srv("_submissions._tcp.docs.test", (0, 0), 465, "imap.docs.test"));
    let dns = name_server::serve(records).await;
    for domain in ["docs.test", "known.test", "moved.test"] {
        let told = ask(&web, dns.address, domain).await;
        let first = &told.candidates[0];
        assert_eq!((first.source, first.confidence), (Source::Autoconfig, Confidence::High), "{told:?}");
        let imap = first.imap.as_ref().unwrap();
        assert_eq!((imap.endpoint.host.as_str(), imap.endpoint.port), ("imap.docs.test", 993));
        assert_eq!(imap.username, "ann");
        assert_eq!(first.smtp.as_ref().unwrap().username, format!("ann@{domain}"));
        assert_eq!(first.provider.as_deref(), Some("Docs"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_that_leads_inside_or_astray_or_is_no_document_is_refused() {
    let domains =
        ["inside", "nowhere", "address", "clear", "loop", "large", "bomb", "broken", "private-server"];
    let hosts: Vec<String> = domains.iter().map(|d| format!("autoconfig.{d}.test")).collect();
    let names: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let bomb = "<!DOCTYPE c [<!ENTITY a \"x\"><!ENTITY b \"&a;&a;\">]><clientConfig>&b;</clientConfig>";
    let web = web(&names, |port| {
        HashMap::from([
            (format!("autoconfig.inside.test{FIRST}"), moved(&format!("https://secret.inside.test:{port}/"))),
            (
                format!("autoconfig.nowhere.test{FIRST}"),
                moved(&format!("https://secret.nowhere.test:{port}/")),
            ),
            (format!("autoconfig.address.test{FIRST}"), moved(&format!("https://10.0.0.1:{port}/"))),
            (format!("autoconfig.clear.test{FIRST}"), moved("http://autoconfig.clear.test/x")),
            (format!("autoconfig.loop.test{FIRST}"), moved(FIRST)),
            (format!("autoconfig.large.test{FIRST}"), page(&format!("<a>{}</a>", "x".repeat(100_000)))),
            (format!("autoconfig.bomb.test{FIRST}"), page(bomb)),
            (
                format!("autoconfig.broken.test{FIRST}"),
                b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n<client".to_vec(),
            ),
            (format!("autoconfig.private-server.test{FIRST}"), page(&document("imap.secret.test"))),
        ])
    })
    .await;
    let mut records: Vec<_> = names.iter().map(|host| a(host, "127.0.0.1")).collect();
    records.push(a("secret.inside.test", "10.0.0.1"));
    records.push(a("imap.secret.test", "192.168.0.1"));
    let dns = name_server::serve(records).await;
    for (domain, words) in [
        ("address", "this host may not be connected to"),
        ("clear", "a redirect leads away from HTTPS"),
        ("loop", "too many redirects"),
        ("large", "the document is too large, or was cut off"),
        ("bomb", "the document cannot be read"),
        ("broken", "the document is too large, or was cut off"),
    ] {
        let told = ask(&web, dns.address, &format!("{domain}.test")).await;
        assert_eq!(told.candidates, [], "{domain}");
        let (source, answer) = &told.sources[1];
        assert!(
            *source == Source::Autoconfig
                && matches!(answer, Answer::Failed(text) if text.starts_with(words)),
            "{domain}: {told:?}"
        );
    }
    // A name of the inside is told from one of nowhere by nothing.
    let inside = ask(&web, dns.address, "inside.test").await;
    let nowhere = ask(&web, dns.address, "nowhere.test").await;
    assert_eq!((&inside.candidates, &inside.sources), (&nowhere.candidates, &nowhere.sources));
    assert_eq!(inside.candidates, []);
    let told = ask(&web, dns.address, "private-server.test").await;
    assert_eq!(told.candidates, [], "a server of the inside is not suggested");
}
