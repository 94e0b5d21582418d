//! Login: SASL PLAIN, else LOGIN (RFC 4954, 4616).
//!
//! Only reached over TLS, or without it where the operator named the host: `connect.rs` sees to that.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mail::smtp_reply::{ReplyClass, SmtpReply};
use zeroize::Zeroizing;

use super::SmtpError;
use super::connect::{Connection, unexpected};
use crate::secret::Secret;

impl Connection {
    /// Logs in, unless `username` is empty.
    ///
    /// # Errors
    /// [`SmtpError::AuthRejected`] for a 5xx, [`SmtpError::Refused`] for a 4xx, [`SmtpError::Protocol`] when the server
    /// offers no mechanism of ours, and those of the connection.
    pub(super) async fn login(&mut self, username: &str, password: &Secret) -> Result<(), SmtpError> {
        if username.is_empty() {
            return Ok(());
        }
        let offers = |name: &str| self.features.auth.iter().any(|m| m == name);
        let mut reply = if offers("PLAIN") {
            self.plain(username, password).await?
        } else if offers("LOGIN") {
            self.plain_in_two_steps(username, password).await?
        } else {
            return Err(SmtpError::protocol("the server offers no login by password (PLAIN or LOGIN)"));
        };
        // Some servers repeat what they refuse, and these words are kept and shown.
        let sent = Secret::new(format!("\0{username}\0{}", password.expose()));
        reply.text = sent.strike_out(&password.strike_out(&reply.text));
        match reply.class() {
            ReplyClass::Success if reply.code == 235 => Ok(()),
            ReplyClass::Permanent => Err(SmtpError::AuthRejected(reply)),
            _ => Err(unexpected(reply)),
        }
    }

    async fn plain(&mut self, username: &str, password: &Secret) -> Result<SmtpReply, SmtpError> {
        let mut message = Zeroizing::new(Vec::with_capacity(username.len() + password.expose().len() + 2));
        for part in [username, password.expose()] {
            message.push(0);
            message.extend_from_slice(part.as_bytes());
        }
        let encoded = Zeroizing::new(STANDARD.encode(message.as_slice()));
        let reply = self.say(format!("AUTH PLAIN {}\r\n", encoded.as_str())).await?;
        // Some servers ignore the initial response and ask for it again (RFC 4954 §4).
        if reply.code == 334 { self.say(format!("{}\r\n", encoded.as_str())).await } else { Ok(reply) }
    }

    async fn plain_in_two_steps(
        &mut self,
        username: &str,
        password: &Secret,
    ) -> Result<SmtpReply, SmtpError> {
        let mut reply = self.say("AUTH LOGIN\r\n".to_owned()).await?;
        for part in [username, password.expose()] {
            if reply.code != 334 {
                break;
            }
            reply = self.say(format!("{}\r\n", STANDARD.encode(part))).await?;
        }
        Ok(reply)
    }

    async fn say(&mut self, line: String) -> Result<SmtpReply, SmtpError> {
        Ok(self.stream.command(line, self.deadlines.reply).await?.reply)
    }
}

#[cfg(test)]
mod tests {
    use super::super::connect::greet;
    use super::super::script::{Server, deadlines};
    use super::*;

    async fn login(server: Server) -> Result<(), SmtpError> {
        let mut connection = greet(server.start(), "us", deadlines()).await?;
        connection.login("ann", &Secret::new("pass word")).await
    }

    #[tokio::test]
    async fn plain_is_preferred_and_carries_user_and_password() {
        let server = Server::new().features(&["AUTH LOGIN PLAIN"]).answer("AUTH PLAIN", "235 ok\r\n");
        let heard = server.heard();
        login(server).await.unwrap();
        let line = heard.lock().unwrap().last().unwrap().clone();
        assert_eq!(line, format!("AUTH PLAIN {}", STANDARD.encode("\0ann\0pass word")));
    }

    #[tokio::test]
    async fn login_is_used_where_plain_is_not_offered() {
        let server = Server::new()
            .features(&["AUTH LOGIN"])
            .answer("AUTH LOGIN", "334 VXNlcm5hbWU6\r\n")
            .answer(&STANDARD.encode("ann"), "334 UGFzc3dvcmQ6\r\n")
            .answer(&STANDARD.encode("pass word"), "235 ok\r\n");
        login(server).await.unwrap();
    }

    #[tokio::test]
    async fn refused_credentials_are_told_apart_from_a_server_in_trouble() {
        let answer = |text: &str| login(Server::new().features(&["AUTH PLAIN"]).answer("AUTH", text));
        assert!(matches!(answer("535 5.7.8 no\r\n").await, Err(SmtpError::AuthRejected(_))));
        let busy = answer("454 4.7.0 later\r\n").await.unwrap_err();
        assert!(matches!(&busy, SmtpError::Refused(r) if r.code == 454) && busy.is_temporary());
        assert!(matches!(answer("250 what\r\n").await, Err(SmtpError::Protocol(_))));
    }

    #[tokio::test]
    async fn a_password_that_the_server_repeats_is_not_kept() {
        let coded = STANDARD.encode("\0ann\0pass word");
        let text = format!("535 5.7.8 pass word is wrong: {coded}\r\n");
        let refused = login(Server::new().features(&["AUTH PLAIN"]).answer("AUTH", &text)).await.unwrap_err();
        assert_eq!(refused.text(), "5.7.8 *** is wrong: ***");
    }

    #[tokio::test]
    async fn a_password_is_not_sent_to_a_server_that_did_not_ask() {
        let server = Server::new().features(&["AUTH GSSAPI"]);
        let heard = server.heard();
        assert!(matches!(login(server).await, Err(SmtpError::Protocol(_))));
        assert!(heard.lock().unwrap().iter().all(|l| !l.starts_with("AUTH")));
    }
}
