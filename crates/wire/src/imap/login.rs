//! Proving who we are: LOGIN, AUTHENTICATE PLAIN (RFC 4616) and XOAUTH2.
//!
//! Mechanisms implement [`async_imap::Authenticator`]; a new one is an implementation below and an arm in
//! [`Connection::login`]. Nothing here is ever logged.

use async_imap::Authenticator;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::ImapError;
use super::command::{Command, Session};
use super::connect::Connection;
use super::parse::{Condition, Response};
use super::verdict::judge;
use crate::secret::Secret;

/// Challenges in one exchange; no mechanism needs more than three.
const MAX_CHALLENGES: usize = 8;
const ANSWER_BYTES: u64 = 1 << 20;

/// What proves the identity.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// A user name and a password.
    Password {
        /// User name.
        user: String,
        /// Password.
        password: Secret,
    },
    /// An OAuth access token, as Google and Microsoft take it (XOAUTH2).
    XOAuth2 {
        /// User name, usually the address.
        user: String,
        /// Access token.
        token: Secret,
    },
}

struct Plain<'a> {
    user: &'a str,
    password: &'a Secret,
}

impl Authenticator for Plain<'_> {
    type Response = Zeroizing<String>;

    fn process(&mut self, _challenge: &[u8]) -> Self::Response {
        Zeroizing::new(format!("\0{}\0{}", self.user, self.password.expose()))
    }
}

struct XOAuth2<'a> {
    user: &'a str,
    token: &'a Secret,
    sent: bool,
}

impl Authenticator for XOAuth2<'_> {
    type Response = Zeroizing<String>;

    /// A second challenge is the server's error in JSON; an empty answer makes it say NO.
    fn process(&mut self, _challenge: &[u8]) -> Self::Response {
        let again = std::mem::replace(&mut self.sent, true);
        Zeroizing::new(if again {
            String::new()
        } else {
            format!("user={}\x01auth=Bearer {}\x01\x01", self.user, self.token.expose())
        })
    }
}

impl Connection {
    /// Logs in and learns what the server can do afterwards.
    ///
    /// # Errors
    /// [`ImapError::AuthRejected`] for wrong credentials, [`ImapError::Throttled`] when the server cannot judge
    /// them now, [`ImapError::Refused`] when it offers no way that fits them, or any other [`ImapError`].
    pub async fn login(self, credentials: &Credentials) -> Result<Session, ImapError> {
        let (secret, sent) = match credentials {
            Credentials::Password { user, password } => (password, Plain { user, password }.process(b"")),
            Credentials::XOAuth2 { user, token } => {
                (token, XOAuth2 { user, token, sent: false }.process(b""))
            }
        };
        let sent = Secret::new(sent.as_str());
        // Some servers repeat what they refuse, and these words are kept and shown.
        self.log_in(credentials).await.map_err(|error| error.without(secret).without(&sent))
    }

    async fn log_in(self, credentials: &Credentials) -> Result<Session, ImapError> {
        let Self { mut session, preauth, capabilities_known, .. } = self;
        if preauth {
            // Somebody else's identity is not the one that was asked for.
            return Err(ImapError::protocol("the server logged us in without asking who we are"));
        }
        if !capabilities_known {
            session.refresh_capabilities().await?;
        }
        let condition = match credentials {
            Credentials::Password { user, password } => {
                check(user)?;
                check(password.expose())?;
                session.log_in_with_password(user, password).await?
            }
            Credentials::XOAuth2 { user, token } => {
                check(user)?;
                check(token.expose())?;
                session.authenticate("XOAUTH2", XOAuth2 { user, token, sent: false }).await?
            }
        };
        let done = session.finish(condition).map_err(as_rejection)?;
        // RFC 9051 §6.1.1: what was announced before login no longer counts.
        if !done.code.is_some_and(|code| session.note_capability_code(&code)) {
            session.refresh_capabilities().await?;
        }
        Ok(session)
    }
}

impl Session {
    async fn log_in_with_password(&mut self, user: &str, password: &Secret) -> Result<Condition, ImapError> {
        // PLAIN carries any character; LOGIN is for servers without it, and for those that only offer it.
        if self.capabilities.has_auth("PLAIN") {
            let condition = self.authenticate("PLAIN", Plain { user, password }).await?;
            let lacking = matches!(judge(condition.clone()), Err(ImapError::Protocol(_)));
            if !lacking || self.capabilities.login_disabled {
                return Ok(condition);
            }
            self.settle();
        }
        if self.capabilities.login_disabled {
            return Err(ImapError::refused("the server offers no way to log in with a password"));
        }
        let command = Command::new("LOGIN").string(user.as_bytes())?.string(password.expose().as_bytes())?;
        self.run_to_condition(command, ANSWER_BYTES, &mut Some).await
    }

    /// One SASL exchange (RFC 9051 §6.2.2); its tagged line is returned unjudged.
    async fn authenticate<A: Authenticator>(
        &mut self,
        mechanism: &str,
        mut authenticator: A,
    ) -> Result<Condition, ImapError> {
        if !self.capabilities.has_auth(mechanism) {
            return Err(ImapError::Refused {
                code: None,
                text: format!("the server does not offer {mechanism}"),
            });
        }
        let tag = self.begin(ANSWER_BYTES)?;
        let mut line = Zeroizing::new(format!("{tag} AUTHENTICATE {mechanism}").into_bytes());
        if self.capabilities.sasl_ir {
            line.push(b' ');
            line.extend_from_slice(&encode(&mut authenticator, b""));
        }
        line.extend_from_slice(b"\r\n");
        self.framer.write(&line).await?;
        for _ in 0..MAX_CHALLENGES {
            let challenge = loop {
                match self.step(&tag).await? {
                    Step::Done(condition) => return Ok(condition),
                    Step::Challenge(c) => break c,
                    Step::News => {}
                }
            };
            let challenge = STANDARD.decode(challenge).unwrap_or_default();
            let mut answer = encode(&mut authenticator, &challenge);
            answer.extend_from_slice(b"\r\n");
            self.framer.write(&answer).await?;
        }
        Err(self.broken("the server does not stop asking"))
    }

    async fn step(&mut self, tag: &str) -> Result<Step, ImapError> {
        match self.next().await? {
            Response::Tagged { tag: t, condition } if t.as_ref() == tag.as_bytes() => {
                Ok(Step::Done(condition))
            }
            Response::Continue(challenge) => Ok(Step::Challenge(challenge)),
            Response::Tagged { .. } => Ok(Step::News),
            Response::Untagged(u) => self.dispatch(Some(u)).map_or(Ok(Step::News), Err),
        }
    }
}

enum Step {
    Done(Condition),
    Challenge(bytes::Bytes),
    News,
}

fn encode<A: Authenticator>(authenticator: &mut A, challenge: &[u8]) -> Zeroizing<Vec<u8>> {
    let plain = authenticator.process(challenge);
    let mut out = Zeroizing::new(vec![0; plain.as_ref().len().div_ceil(3) * 4]);
    let written = STANDARD.encode_slice(plain.as_ref(), &mut out).unwrap_or(0);
    out.truncate(written);
    out
}

/// A NUL would end PLAIN's fields early, a `^A` XOAUTH2's, a line end any command.
fn check(value: &str) -> Result<(), ImapError> {
    if value.bytes().any(|b| matches!(b, 0 | 1 | b'\r' | b'\n')) {
        return Err(ImapError::refused("a credential with a control character cannot be sent"));
    }
    Ok(())
}

/// During login a bare NO means the credentials, whatever else it might mean later.
fn as_rejection(error: ImapError) -> ImapError {
    match error {
        ImapError::Refused { code, text } => ImapError::AuthRejected { code, text },
        other => other,
    }
}
