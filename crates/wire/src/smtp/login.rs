//! Login: SASL PLAIN, else LOGIN (RFC 4954, 4616); the mechanisms for access tokens are `crate::login::sasl`'s.
//!
//! Only reached over TLS, or without it where the operator named the host: `connect.rs` sees to that.

use async_imap::Authenticator as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mail::smtp_reply::{ReplyClass, SmtpReply};
use zeroize::Zeroizing;

use super::connect::{Connection, unexpected};
use super::send::local_refusal;
use super::stream::RawReply;
use super::{Endpoint, SmtpError};
use crate::login::sasl::{self, Bearer, MAX_CHALLENGES, Mechanism, plain};
use crate::login::{Login, Refusal};
use crate::secret::Secret;

/// A command's line, its end included (RFC 5321 §4.5.3.1.4): old servers take no more, Postfix 3.7 has 2,048.
const MAX_COMMAND_BYTES: usize = 512;
/// A line of an exchange, its end included (RFC 4954 §4). Postfix 3.7 ends the exchange at a longer one.
const MAX_RESPONSE_BYTES: usize = 12_288;

impl Connection {
    /// Logs in, unless there is nobody to be. `endpoint` is where the connection leads: a mechanism tells it.
    ///
    /// # Errors
    /// [`SmtpError::AuthRejected`] for a 5xx, [`SmtpError::Refused`] for a 4xx and for what cannot be sent,
    /// [`SmtpError::Protocol`] when the server offers no mechanism of ours, and those of the connection.
    pub(super) async fn login(&mut self, endpoint: &Endpoint, login: &Login) -> Result<(), SmtpError> {
        let at = (endpoint.host.as_str(), endpoint.port);
        self.log_in(at, login).await.map_err(|error| {
            // Some servers repeat what they refuse, and these words are kept and shown.
            login.hidden(at.0, at.1).iter().fold(error, SmtpError::without)
        })
    }

    async fn log_in(&mut self, at: (&str, u16), login: &Login) -> Result<(), SmtpError> {
        let (reply, refusal) = match login {
            Login::Nobody => return Ok(()),
            Login::Password { user, password } => (self.by_password(user, password).await?, None),
            Login::Token { user, token } => {
                if let Some(fault) = login.fault() {
                    return Err(local_refusal(&format!("554 5.7.8 {fault}")));
                }
                self.by_token(user, token, at).await?
            }
        };
        match reply.class() {
            ReplyClass::Success if reply.code == 235 => Ok(()),
            ReplyClass::Permanent => Err(SmtpError::AuthRejected { reply, refusal: refusal.map(Box::new) }),
            _ => Err(unexpected(reply)),
        }
    }

    fn offers(&self, mechanism: &str) -> bool {
        self.features.auth.iter().any(|m| m == mechanism)
    }

    async fn by_password(&mut self, username: &str, password: &Secret) -> Result<SmtpReply, SmtpError> {
        if self.offers("PLAIN") {
            self.plain(username, password).await
        } else if self.offers("LOGIN") {
            self.plain_in_two_steps(username, password).await
        } else {
            Err(SmtpError::protocol("the server offers no login by password (PLAIN or LOGIN)"))
        }
    }

    async fn plain(&mut self, username: &str, password: &Secret) -> Result<SmtpReply, SmtpError> {
        let encoded = Zeroizing::new(STANDARD.encode(plain(username, password).as_bytes()));
        let reply = self.say(format!("AUTH PLAIN {}\r\n", encoded.as_str())).await?.reply;
        // Some servers ignore the initial response and ask for it again (RFC 4954 §4).
        if reply.code == 334 {
            Ok(self.say(format!("{}\r\n", encoded.as_str())).await?.reply)
        } else {
            Ok(reply)
        }
    }

    async fn plain_in_two_steps(
        &mut self,
        username: &str,
        password: &Secret,
    ) -> Result<SmtpReply, SmtpError> {
        let mut reply = self.say("AUTH LOGIN\r\n".to_owned()).await?.reply;
        for part in [username, password.expose()] {
            if reply.code != 334 {
                break;
            }
            reply = self.say(format!("{}\r\n", STANDARD.encode(part))).await?.reply;
        }
        Ok(reply)
    }

    /// By the first mechanism that the server knows of those that it offers; also what it said of the token.
    async fn by_token(
        &mut self,
        user: &str,
        token: &Secret,
        at: (&str, u16),
    ) -> Result<(SmtpReply, Option<Refusal>), SmtpError> {
        let offered = Mechanism::offered(|name| self.offers(name));
        if offered.is_empty() {
            return Err(SmtpError::protocol("the server offers no login by token (OAUTHBEARER or XOAUTH2)"));
        }
        let mut ways = offered
            .into_iter()
            .map(|mechanism| (mechanism, mechanism.message(user, token, at)))
            .filter(|(_, message)| message.len().div_ceil(3) * 4 + 2 <= MAX_RESPONSE_BYTES)
            .peekable();
        while let Some((mechanism, message)) = ways.next() {
            let mut exchange = Bearer::new(mechanism, message.clone());
            let reply = self.exchange(mechanism.name(), &message, &mut exchange).await?;
            // Who says what is wrong with the token knows the mechanism.
            if exchange.challenged || !lacks_mechanism(&reply) || ways.peek().is_none() {
                return Ok((reply, exchange.refusal));
            }
        }
        Err(local_refusal("554 5.7.8 the access token is too long to be sent by SMTP (RFC 4954)"))
    }

    /// One SASL exchange (RFC 4954 §4), which begins with `message`.
    async fn exchange(
        &mut self,
        mechanism: &str,
        message: &str,
        exchange: &mut Bearer,
    ) -> Result<SmtpReply, SmtpError> {
        let first = Zeroizing::new(STANDARD.encode(message));
        let fits = "AUTH  \r\n".len() + mechanism.len() + first.len() <= MAX_COMMAND_BYTES;
        let command = if fits {
            format!("AUTH {mechanism} {}\r\n", first.as_str())
        } else {
            format!("AUTH {mechanism}\r\n")
        };
        let mut answer = self.say(command).await?;
        for _ in 0..MAX_CHALLENGES {
            if answer.reply.code != 334 {
                return Ok(answer.reply);
            }
            let challenge = sasl::challenge(answer.lines.concat().as_bytes());
            let response = Zeroizing::new(STANDARD.encode(exchange.process(&challenge).as_bytes()));
            answer = self.say(format!("{}\r\n", response.as_str())).await?;
        }
        Err(SmtpError::protocol("the server does not stop asking"))
    }

    async fn say(&mut self, line: String) -> Result<RawReply, SmtpError> {
        self.stream.command(line, self.deadlines.reply).await
    }
}

/// Whether a server that offers a mechanism says that it does not know it after all, or not here: that is not about the
/// credentials.
fn lacks_mechanism(reply: &SmtpReply) -> bool {
    matches!(reply.code, 500..=502 | 504)
        || (reply.class() == ReplyClass::Permanent && matches!(reply.enhanced, Some((5, 7, 4) | (5, 5, 4))))
}

#[cfg(test)]
mod tests;
