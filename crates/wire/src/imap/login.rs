//! Proving who we are: LOGIN, AUTHENTICATE PLAIN, and the mechanisms for access tokens (`crate::login::sasl`).
//!
//! Nothing here is ever logged.

use async_imap::Authenticator;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::ImapError;
use super::command::{Command, Session};
use super::connect::{Connection, Endpoint};
use super::parse::{Condition, Response};
use super::verdict::{judge, lacks_mechanism, of_reading};
use crate::login::sasl::{self, Bearer, MAX_CHALLENGES, Mechanism, Plain, plain};
use crate::login::{Login, Refusal};
use crate::secret::Secret;

const ANSWER_BYTES: u64 = 1 << 20;
/// What a server must take in a line, its end included (RFC 7162 §4); an initial response that does not fit waits until it is
/// asked for.
const MAX_LINE_BYTES: usize = 8_192;

impl Connection {
    /// Logs in and learns what the server can do afterwards. `endpoint` is where the connection leads: a mechanism tells it.
    ///
    /// # Errors
    /// [`ImapError::AuthRejected`] for wrong credentials, [`ImapError::Throttled`] when the server cannot judge
    /// them now, [`ImapError::Refused`] when it offers no way that fits them or they cannot be sent, or any other
    /// [`ImapError`].
    pub async fn login(self, endpoint: &Endpoint, login: &Login) -> Result<Session, ImapError> {
        let at = (endpoint.host.as_str(), endpoint.port);
        self.log_in(at, login).await.map_err(|error| {
            // Some servers repeat what they refuse, and these words are kept and shown.
            login.hidden(at.0, at.1).iter().fold(error, ImapError::without)
        })
    }

    async fn log_in(self, at: (&str, u16), login: &Login) -> Result<Session, ImapError> {
        let Self { mut session, preauth, capabilities_known, .. } = self;
        if preauth {
            // Somebody else's identity is not the one that was asked for.
            return Err(ImapError::protocol("the server logged us in without asking who we are"));
        }
        if let Some(fault) = login.fault() {
            return Err(ImapError::refused(fault));
        }
        if !capabilities_known {
            session.refresh_capabilities().await?;
        }
        let done = match login {
            Login::Nobody => return Err(ImapError::refused("IMAP needs a login")),
            Login::Password { user, password } => {
                let condition = session.log_in_with_password(user, password).await?;
                session.finish(condition).map_err(as_rejection)
            }
            Login::Token { user, token } => {
                let (condition, refusal) = session.log_in_with_token(user, token, at).await?;
                session.finish(condition).map_err(|error| as_refusal(error, refusal))
            }
        }?;
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
            let message = plain(user, password);
            let condition = self.authenticate("PLAIN", &message, &mut Plain { user, password }).await?;
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

    /// By the first mechanism that the server knows of those that it offers; also what it said of the token.
    async fn log_in_with_token(
        &mut self,
        user: &str,
        token: &Secret,
        at: (&str, u16),
    ) -> Result<(Condition, Option<Refusal>), ImapError> {
        let mut ways = Mechanism::offered(|name| self.capabilities.has_auth(name)).into_iter().peekable();
        while let Some(mechanism) = ways.next() {
            let message = mechanism.message(user, token, at);
            let mut exchange = Bearer::new(mechanism, message.clone());
            let condition = self.authenticate(mechanism.name(), &message, &mut exchange).await?;
            // Who says what is wrong with the token knows the mechanism.
            let lacking =
                !exchange.challenged && judge(condition.clone()).is_err_and(|error| lacks_mechanism(&error));
            if !lacking || ways.peek().is_none() {
                return Ok((condition, exchange.refusal));
            }
            self.settle();
        }
        Err(ImapError::refused("the server offers no way to log in with a token (OAUTHBEARER or XOAUTH2)"))
    }

    /// One SASL exchange (RFC 9051 §6.2.2), which begins with `message`; its tagged line is returned unjudged.
    async fn authenticate(
        &mut self,
        mechanism: &str,
        message: &str,
        authenticator: &mut impl Authenticator,
    ) -> Result<Condition, ImapError> {
        let tag = self.begin(ANSWER_BYTES)?;
        let mut line = Zeroizing::new(format!("{tag} AUTHENTICATE {mechanism}").into_bytes());
        if self.capabilities.sasl_ir {
            let first = encode(message.as_bytes());
            if line.len() + 1 + first.len() + 2 <= MAX_LINE_BYTES {
                // As long as it gets: a line that grows leaves its bytes where nobody wipes them.
                line.reserve_exact(first.len() + 3);
                line.push(b' ');
                line.extend_from_slice(&first);
            }
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
            let mut answer = encode(authenticator.process(&sasl::challenge(&challenge)).as_ref());
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

fn encode(plain: &[u8]) -> Zeroizing<Vec<u8>> {
    // Two bytes more for the end of the line.
    let length = plain.len().div_ceil(3) * 4;
    let mut out = Zeroizing::new(Vec::with_capacity(length + 2));
    out.resize(length, 0);
    let written = STANDARD.encode_slice(plain, &mut out).unwrap_or(0);
    out.truncate(written);
    out
}

/// During login a bare NO means the credentials, whatever else it might mean later.
fn as_rejection(error: ImapError) -> ImapError {
    match of_reading(error) {
        ImapError::Refused { code, text } => ImapError::AuthRejected { code, text, refusal: None },
        other => other,
    }
}

/// A server that said what is wrong with the token has refused it, also where it ends the exchange with BAD.
fn as_refusal(error: ImapError, said: Option<Refusal>) -> ImapError {
    let refusal = said.map(Box::new);
    match of_reading(error) {
        ImapError::Refused { code, text } | ImapError::AuthRejected { code, text, .. } => {
            ImapError::AuthRejected { code, text, refusal }
        }
        ImapError::Protocol(text) if refusal.is_some() => {
            ImapError::AuthRejected { code: None, text, refusal }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests;
