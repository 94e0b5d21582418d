//! The way to an account's servers, walked step by step for a person who wants to know where it ends.
//!
//! Here: what a step is, the time it may take, and the steps both protocols share (name, connection, TLS). The others are in
//! `imap/diagnose.rs` and `smtp/diagnose.rs`. Nothing is stored and nothing at the servers is changed; the way out is
//! [`Outbound`]'s, so a host that may not be dialled says that and nothing more. The next step: a call of `Walk::step` and
//! its name in the plan of its protocol.

use std::future::Future;
use std::net::IpAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::client::TlsStream;

use crate::dial::{Deadlines, DialError, Outbound};
use crate::imap::{Endpoint, Security};
use crate::secret::Secret;
use crate::tls::{Certificate, TlsConfig};
use crate::trouble::{Forbidden, NoLine, Trouble, Unopened};

/// The longest one step may take.
const STEP: Duration = Duration::from_secs(10);
/// The longest all steps of one server may take: a person waits, and a process that stops gives requests 25 s.
const WHOLE: Duration = Duration::from_secs(22);
/// One address of several that does not answer must not use up the step.
const CONNECT: Duration = Duration::from_secs(4);
/// Entries of a list and characters of a text that are shown of what a server said.
const MAX_LISTED: usize = 100;
const MAX_SHOWN: usize = 500;

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It works.
    Ok,
    /// It does not, and nothing behind it was tried.
    Failed,
    /// It was not tried.
    Skipped,
}

/// What was seen in a step; empty where there was nothing to see.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Detail {
    /// Addresses of the host. Those that are not public are left out, also where the operator allows them.
    pub addresses: Vec<IpAddr>,
    /// The server's words, on one line.
    pub server: Option<String>,
    /// Its response code: IMAP's in capitals, SMTP's number.
    pub response_code: Option<String>,
    /// What it can do, as it says.
    pub capabilities: Vec<String>,
    /// The certificate it showed.
    pub certificate: Option<Certificate>,
    /// Messages in INBOX.
    pub messages: Option<u32>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// `dns`, `tcp`, `tls`, `greeting`, `starttls`, `ehlo`, `login`, `capabilities` or `select`.
    pub name: &'static str,
    /// How it ended.
    pub outcome: Outcome,
    /// How long it took.
    pub took: Duration,
    /// What went wrong, for programs.
    pub code: Option<&'static str>,
    /// What went wrong, for people.
    pub text: Option<String>,
    /// What was seen.
    pub detail: Detail,
}

/// Why a step failed.
#[derive(Debug)]
pub(crate) struct Fault {
    pub code: &'static str,
    pub text: String,
    pub detail: Box<Detail>,
}

impl Fault {
    pub fn new(code: &'static str, text: impl Into<String>) -> Self {
        Self { code, text: text.into(), detail: Box::default() }
    }

    pub fn of(trouble: Trouble) -> Self {
        Self::new(trouble.code(), trouble.text())
    }
}

impl From<Unopened> for Fault {
    fn from(error: Unopened) -> Self {
        let code = error.trouble().code();
        match error {
            // The reason is for whoever runs the server.
            Unopened::NoLine(
                why @ (NoLine::Connection(_) | NoLine::Certificate(_) | NoLine::Handshake(_)),
            ) => Self::new(code, why.to_string()),
            other => Self::of(other.trouble()),
        }
    }
}

impl From<DialError> for Fault {
    fn from(error: DialError) -> Self {
        Unopened::from(error).into()
    }
}

/// The steps of one server so far.
#[derive(Debug)]
pub(crate) struct Walk {
    steps: Vec<Step>,
    /// The longest time for one step, and the end of all.
    step: Duration,
    until: Instant,
    /// Servers repeat what they refuse; none of that is shown.
    secret: Option<Secret>,
}

impl Walk {
    pub fn new(secret: Option<Secret>) -> Self {
        Self::within(secret, STEP, WHOLE)
    }

    fn within(secret: Option<Secret>, step: Duration, whole: Duration) -> Self {
        Self { steps: Vec::new(), step, until: Instant::now() + whole, secret }
    }

    /// Does one step within its time and notes how it ended. `None`: it failed, and the walk ends here.
    pub async fn step<T>(
        &mut self,
        name: &'static str,
        work: impl Future<Output = Result<(T, Detail), Fault>>,
    ) -> Option<T> {
        let began = Instant::now();
        let ended = timeout(self.step.min(self.until.saturating_duration_since(began)), work).await;
        let took = began.elapsed();
        match ended.unwrap_or_else(|_| Err(Fault::of(Trouble::Timeout))) {
            Ok((found, detail)) => {
                self.note(Step { name, outcome: Outcome::Ok, took, code: None, text: None, detail });
                Some(found)
            }
            Err(Fault { code, text, detail }) => {
                let (code, text) = (Some(code), Some(text));
                self.note(Step { name, outcome: Outcome::Failed, took, code, text, detail: *detail });
                None
            }
        }
    }

    /// Notes a step that there is nothing to do in.
    pub fn skip(&mut self, name: &'static str, code: &'static str, text: &str) {
        let (outcome, took, detail) = (Outcome::Skipped, Duration::ZERO, Detail::default());
        self.note(Step { name, outcome, took, code: Some(code), text: Some(text.to_owned()), detail });
    }

    fn note(&mut self, mut step: Step) {
        let shown = |text: &str| {
            let text = self.secret.as_ref().map_or_else(|| text.to_owned(), |s| s.strike_out(text));
            let visible = |c: &char| !mail::address::is_invisible(*c);
            let line = text.chars().map(|c| if c.is_control() { ' ' } else { c }).filter(visible);
            line.take(MAX_SHOWN).collect::<String>()
        };
        step.text = step.text.as_deref().map(shown);
        step.detail.server = step.detail.server.as_deref().map(shown).filter(|s| !s.is_empty());
        step.detail.capabilities =
            step.detail.capabilities.iter().take(MAX_LISTED).map(|c| shown(c)).collect();
        self.steps.push(step);
    }

    /// All steps of `plan`: those behind the one that failed were not tried.
    pub fn end(mut self, plan: &[&'static str]) -> Vec<Step> {
        for name in plan.iter().skip(self.steps.len()) {
            self.skip(name, "not-reached", "An earlier step failed.");
        }
        self.steps
    }
}

/// Where a walk goes, and by what means.
#[derive(Debug, Clone, Copy)]
pub struct Way<'a> {
    /// The one way out.
    pub outbound: &'a Outbound,
    /// Trust for TLS.
    pub tls: &'a TlsConfig,
    /// The server.
    pub endpoint: &'a Endpoint,
}

impl Way<'_> {
    /// Deadlines that leave the judgement of time to the steps.
    pub(crate) fn deadlines(&self) -> Deadlines {
        Deadlines { resolve: STEP, connect: CONNECT, tls: STEP, reply: STEP }
    }

    /// `dns` and `tcp`.
    pub(crate) async fn connect(&self, walk: &mut Walk) -> Option<TcpStream> {
        let (host, port) = (self.endpoint.host.as_str(), self.endpoint.port);
        let deadlines = self.deadlines();
        let resolved = walk
            .step("dns", async {
                let resolved = self.outbound.resolve(host, port, deadlines.resolve).await?;
                if self.endpoint.security == Security::Plain
                    && !self.outbound.allows_plain(host, port).await?
                {
                    let text = "A connection without TLS is only made to hosts the operator allowed.";
                    return Err(Fault::new(Forbidden::Plain.trouble().code(), text));
                }
                let detail = Detail { addresses: resolved.public_addresses(), ..Detail::default() };
                Ok((resolved, detail))
            })
            .await?;
        walk.step("tcp", async {
            let socket = self.outbound.dial_resolved(&resolved, &deadlines).await?;
            Ok((socket, Detail::default()))
        })
        .await
    }

    /// `tls`, with the certificate the server showed, whether or not it was accepted.
    pub(crate) async fn encrypt<S>(&self, walk: &mut Walk, stream: S) -> Option<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        walk.step("tls", async {
            let (result, certificate) = self.tls.inspect(&self.endpoint.host, stream, STEP).await;
            let detail = Detail { certificate, ..Detail::default() };
            match result {
                Ok(stream) => Ok((stream, detail)),
                Err(error) => Err(Fault { detail: Box::new(detail), ..Fault::from(Unopened::from(error)) }),
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_step_and_all_of_them_have_their_time_and_nothing_behind_a_failure_is_tried() {
        let plan = ["a", "b", "c"];
        let mut walk = Walk::within(None, Duration::from_millis(200), WHOLE);
        walk.step("a", async { Ok(((), Detail::default())) }).await.unwrap();
        assert!(walk.step::<()>("b", std::future::pending()).await.is_none());
        let steps = walk.end(&plan);
        let told: Vec<_> = steps.iter().map(|s| (s.name, s.outcome, s.code)).collect();
        assert_eq!(
            told,
            [
                ("a", Outcome::Ok, None),
                ("b", Outcome::Failed, Some("upstream-timeout")),
                ("c", Outcome::Skipped, Some("not-reached"))
            ]
        );
        let mut walk = Walk::within(None, Duration::from_secs(3600), Duration::from_millis(200));
        assert!(walk.step::<()>("a", std::future::pending()).await.is_none());
        assert!(walk.end(&["a"])[0].took >= Duration::from_millis(200));
    }

    #[tokio::test]
    async fn no_secret_and_no_control_character_of_a_server_is_shown() {
        let mut walk = Walk::new(Some(Secret::new("hunter2!")));
        let detail = Detail {
            server: Some("no, hunter2! is\r\nwrong\u{202e}".into()),
            capabilities: vec!["X-hunter2!".into(); 300],
            ..Detail::default()
        };
        let fault = Fault { code: "x", text: "said hunter2!".into(), detail: Box::new(detail) };
        assert!(walk.step::<()>("a", async { Err(fault) }).await.is_none());
        let step = walk.end(&["a"]).remove(0);
        assert_eq!(step.text.as_deref(), Some("said ***"));
        assert_eq!(step.detail.server.as_deref(), Some("no, *** is  wrong"));
        assert_eq!(step.detail.capabilities, vec!["X-***".to_owned(); MAX_LISTED]);
    }
}
