//! Access tokens at the real Dovecot and Postfix, as `wire` sends them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use devstack::{Endpoints, PLAIN_HOST, Shared};
use emailclient_core::platform::clock::{Clock as _, SystemClock};
use emailclient_core::platform::id::new_uuid;
use serde_json::json;
use tests::jwt::{claims, forged, signed};
use tests::mail::PASSWORD;
use tests::scripted::{Scripted, serve};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, copy};
use tokio::net::TcpStream;
use wire::diagnose::{Outcome, Step, Way};
use wire::dial::{Deadlines, Outbound, OutboundPolicy};
use wire::imap::{self, Endpoint, ImapError, Security};
use wire::login::{Login, TokenFault};
use wire::secret::Secret;
use wire::smtp::{self, Dialler, SmtpError, SmtpServer};
use wire::tls::TlsConfig;

struct Rig {
    stack: &'static Endpoints,
    outbound: Outbound,
    tls: TlsConfig,
    user: String,
}

impl Rig {
    fn new() -> Self {
        wire::tls::install_provider();
        let stack = Shared::get();
        let user = format!("{}@lab.test", new_uuid().simple());
        stack.add_mailbox(&user, PASSWORD).unwrap();
        let policy = OutboundPolicy::parse("localhost:1-65535,127.0.0.0/8:1-65535").unwrap();
        let tls = TlsConfig::new([stack.ca_file.as_path()]).unwrap();
        Self { stack, outbound: Outbound::new(policy), tls, user }
    }

    fn good(&self) -> Login {
        self.with(signed(self.stack, &claims(&self.user, 0)))
    }

    fn with(&self, token: String) -> Login {
        Login::Token { user: self.user.clone(), token: Secret::new(token) }
    }

    async fn imap(&self, endpoint: &Endpoint, login: &Login) -> Result<(), ImapError> {
        let connection = imap::connect(&self.outbound, &self.tls, endpoint, &Deadlines::default()).await?;
        let mut session = connection.login(endpoint, login).await?;
        // Whose mailbox it is shows by what is in it.
        let inbox = session.select(b"INBOX", None, true).await?;
        assert_eq!(inbox.exists, 0);
        session.logout().await;
        Ok(())
    }

    async fn smtp(&self, endpoint: &Endpoint, login: &Login) -> Result<(), SmtpError> {
        let (outbound, tls) = (&self.outbound, &self.tls);
        let dialler = Dialler { outbound, tls, helo_name: "us.example", deadlines: Deadlines::default() };
        let server = SmtpServer { endpoint: endpoint.clone(), login: login.clone() };
        smtp::connect(&dialler, &server).await?.quit().await;
        Ok(())
    }

    async fn diagnosed(&self, login: &Login) -> Vec<Step> {
        let at = |port| Endpoint { host: "localhost".into(), port, security: Security::Tls };
        let (imap_at, smtp_at) = (at(self.stack.imaps_port), at(self.stack.submissions_port));
        let way = |endpoint| Way { outbound: &self.outbound, tls: &self.tls, endpoint };
        let mut steps = imap::diagnose(way(&imap_at), Ok(login), &[]).await;
        steps.extend(smtp::diagnose(way(&smtp_at), "us.example", Ok(login)).await);
        steps
    }
}

fn at(host: &str, port: u16, security: Security) -> Endpoint {
    Endpoint { host: host.into(), port, security }
}

fn plain(port: u16) -> Endpoint {
    at("127.0.0.1", port, Security::Plain)
}

/// The server at `host:port`, which does not mention OAUTHBEARER.
async fn only_xoauth2(host: &'static str, port: u16) -> Scripted {
    serve(move |client| async move {
        let (from_client, mut to_client) = client.into_split();
        let server = TcpStream::connect((host, port)).await.unwrap();
        let (from_server, mut to_server) = server.into_split();
        let up = tokio::spawn(async move {
            let _ = copy(&mut BufReader::new(from_client), &mut to_server).await;
        });
        let mut lines = BufReader::new(from_server).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let line = line.replace("OAUTHBEARER", "X-NONE") + "\r\n";
            if to_client.write_all(line.as_bytes()).await.is_err() {
                break;
            }
        }
        up.abort();
    })
    .await
}

/// Each protocol by each mechanism, without TLS.
struct Ways {
    imap: [Endpoint; 2],
    smtp: [Endpoint; 2],
    _relays: [Scripted; 2],
}

async fn ways(stack: &Endpoints) -> Ways {
    let relays = [
        only_xoauth2("127.0.0.1", stack.imap_port).await,
        only_xoauth2("127.0.0.1", stack.submission_port).await,
    ];
    Ways {
        imap: [plain(stack.imap_port), plain(relays[0].port)],
        smtp: [plain(stack.submission_port), plain(relays[1].port)],
        _relays: relays,
    }
}

#[tokio::test]
async fn a_token_is_taken_by_each_mechanism_and_at_each_port() {
    let rig = Rig::new();
    let (stack, login) = (rig.stack, rig.good());
    let ways = ways(stack).await;
    // The first has SASL-IR, the second has not.
    let without = only_xoauth2(PLAIN_HOST, stack.imap_port).await;
    let imap = [
        at("localhost", stack.imaps_port, Security::Tls),
        at("localhost", stack.imap_port, Security::StartTls),
        at(PLAIN_HOST, stack.imap_port, Security::Plain),
        plain(without.port),
    ];
    for endpoint in imap.iter().chain(&ways.imap) {
        rig.imap(endpoint, &login).await.unwrap_or_else(|e| panic!("{endpoint:?}: {e:?}"));
    }
    let smtp = [
        at("localhost", stack.submissions_port, Security::Tls),
        at("localhost", stack.submission_port, Security::StartTls),
    ];
    for endpoint in smtp.iter().chain(&ways.smtp) {
        rig.smtp(endpoint, &login).await.unwrap_or_else(|e| panic!("{endpoint:?}: {e:?}"));
    }
    for step in rig.diagnosed(&login).await {
        assert_eq!(step.outcome, Outcome::Ok, "{step:?}");
    }
}

#[tokio::test]
async fn a_token_that_is_not_good_is_refused_and_the_servers_words_are_told() {
    let rig = Rig::new();
    let ways = ways(rig.stack).await;
    let now = SystemClock.now().timestamp();
    let with = |name: &str, value: serde_json::Value| {
        let mut claims = claims(&rig.user, 0);
        claims[name] = value;
        signed(rig.stack, &claims)
    };
    let unknown = format!("nobody-{}", rig.user);
    let other = Rig::new();
    for (what, login) in [
        ("expired", rig.with(with("exp", json!(now - 60)))),
        ("not good yet", rig.with(with("nbf", json!(now + 300)))),
        ("of another user", rig.with(signed(rig.stack, &claims(&other.user, 0)))),
        (
            "of nobody",
            Login::Token {
                user: unknown.clone(),
                token: Secret::new(signed(rig.stack, &claims(&unknown, 0))),
            },
        ),
        ("signed by another", rig.with(forged(&claims(&rig.user, 0)))),
        ("not for mail", rig.with(with("scope", json!("openid calendar")))),
        ("no JWT", rig.with("ya29.a0AfH6SMBx".into())),
        ("the password", rig.with(PASSWORD.into())),
    ] {
        let secret = login.secret().unwrap().expose().to_owned();
        // Dovecot 2.3.19 gives one reason for all of it: 401 with its scope to XOAUTH2, `invalid_token` to OAUTHBEARER.
        for (endpoint, status) in ways.imap.iter().zip(["invalid_token", "401"]) {
            let error = rig.imap(endpoint, &login).await.unwrap_err();
            let ImapError::AuthRejected { refusal: Some(refusal), code, .. } = &error else {
                panic!("{what}: {error:?}")
            };
            assert_eq!(refusal.status.as_deref(), Some(status), "{what}");
            assert_eq!(refusal.scope.as_deref(), (status == "401").then_some("mail"), "{what}");
            assert_eq!(code.as_deref(), Some("AUTHENTICATIONFAILED"), "{what}");
            assert_eq!(error.token_fault(), Some(TokenFault::Invalid), "{what}");
            assert!(!format!("{error:?}").contains(&secret), "{what}");
        }
        for (endpoint, status) in ways.smtp.iter().zip(["invalid_token", "401"]) {
            let error = rig.smtp(endpoint, &login).await.unwrap_err();
            let SmtpError::AuthRejected { reply, refusal: Some(refusal) } = &error else {
                panic!("{what}: {error:?}")
            };
            assert_eq!((reply.code, refusal.status.as_deref()), (535, Some(status)), "{what}");
            assert_eq!(error.token_fault(), Some(TokenFault::Invalid), "{what}");
            assert!(!format!("{error:?}").contains(&secret), "{what}");
        }
        let failed = rig.diagnosed(&login).await.into_iter().filter(|s| s.outcome == Outcome::Failed);
        let failed: Vec<_> = failed.map(|s| (s.name, s.code)).collect();
        assert_eq!(failed, [("login", Some("upstream-auth-failed")); 2], "{what}");
    }
}

/// A token whose message to this server has just no more than `most` bytes of base64.
fn longest(rig: &Rig, endpoint: &Endpoint, most: usize) -> Login {
    let Endpoint { host, port, .. } = endpoint;
    let of = |bytes| {
        let token = signed(rig.stack, &claims(&rig.user, bytes));
        let message =
            format!("n,a={},\x01host={host}\x01port={port}\x01auth=Bearer {token}\x01\x01", rig.user);
        (STANDARD.encode(message).len(), token)
    };
    let (length, token) = (0..most * 9 / 16).rev().map(of).find(|(length, _)| *length <= most).unwrap();
    assert!(length > most - 16, "{length}");
    rig.with(token)
}

#[tokio::test]
async fn a_token_may_be_as_long_as_the_servers_take() {
    let rig = Rig::new();
    let imap_at = at("localhost", rig.stack.imaps_port, Security::Tls);
    // Dovecot 2.3.19 reads 8,192 bytes of a response, its CR among them, and hangs up at more.
    rig.imap(&imap_at, &longest(&rig, &imap_at, 8_188)).await.unwrap();
    let long = rig.with(signed(rig.stack, &claims(&rig.user, (12 << 10) / 4 * 3)));
    let refused = rig.imap(&imap_at, &long).await.unwrap_err();
    assert!(matches!(refused, ImapError::Closed { .. }), "{refused:?}");
    let smtp_at = at("localhost", rig.stack.submissions_port, Security::Tls);
    rig.smtp(&smtp_at, &longest(&rig, &smtp_at, 12_286)).await.unwrap();
    let refused = rig.smtp(&smtp_at, &long).await.unwrap_err();
    assert!(matches!(&refused, SmtpError::Refused(reply) if reply.own), "{refused:?}");
}

#[tokio::test]
async fn a_password_lets_in_as_ever() {
    let rig = Rig::new();
    let imap_at = at("localhost", rig.stack.imap_port, Security::StartTls);
    let smtp_at = at("localhost", rig.stack.submission_port, Security::StartTls);
    let right = Login::of(&rig.user, Secret::new(PASSWORD));
    rig.imap(&imap_at, &right).await.unwrap();
    rig.smtp(&smtp_at, &right).await.unwrap();
    // A token is no password.
    for wrong in [Secret::new("wrong"), Secret::new(signed(rig.stack, &claims(&rig.user, 0)))] {
        let wrong = Login::of(&rig.user, wrong);
        let error = rig.imap(&imap_at, &wrong).await.unwrap_err();
        assert!(matches!(error, ImapError::AuthRejected { refusal: None, .. }), "{error:?}");
        let error = rig.smtp(&smtp_at, &wrong).await.unwrap_err();
        assert!(matches!(error, SmtpError::AuthRejected { refusal: None, .. }), "{error:?}");
    }
}
