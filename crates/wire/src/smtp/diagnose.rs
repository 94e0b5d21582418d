//! The steps of a walk that SMTP knows: banner, STARTTLS, EHLO, login. No mail is begun.

use super::connect::{Connection, banner, ehlo, upgrade};
use super::stream::LineStream;
use super::{Features, Security, SmtpError};
use crate::diagnose::{Detail, Fault, Step, Walk, Way};
use crate::secret::Secret;

const OVER_TLS: &[&str] = &["dns", "tcp", "tls", "greeting", "ehlo", "login"];
const BY_STARTTLS: &[&str] = &["dns", "tcp", "greeting", "starttls", "tls", "ehlo", "login"];
const IN_CLEAR: &[&str] = &["dns", "tcp", "greeting", "ehlo", "login"];

impl From<SmtpError> for Fault {
    fn from(error: SmtpError) -> Self {
        let (code, text) = match &error {
            SmtpError::Unreachable(_) => ("upstream-unreachable", "The mail server cannot be reached."),
            SmtpError::NotAllowed(_) => ("host-not-allowed", "This host may not be connected to."),
            SmtpError::AuthRejected(_) => {
                ("upstream-auth-failed", "The mail server does not accept the credentials.")
            }
            SmtpError::Refused(_) => ("upstream-refused", "The mail server refused a command."),
            SmtpError::Timeout => ("upstream-timeout", "The mail server does not answer in time."),
            SmtpError::Protocol(_) => {
                ("upstream-protocol", "The mail server's answer could not be understood.")
            }
            SmtpError::Closed => ("upstream-closed", "The mail server ended the connection."),
        };
        let server = match &error {
            SmtpError::NotAllowed(_) | SmtpError::Timeout | SmtpError::Closed => None,
            said => Some(said.text()),
        };
        let response_code = error.code().map(|code| code.to_string());
        Self {
            detail: Box::new(Detail { server, response_code, ..Detail::default() }),
            ..Self::new(code, text)
        }
    }
}

/// Walks to a submission server as `user`; without a password (there is none, or it cannot be opened) as far as the login,
/// which is left out where `user` is empty.
pub async fn diagnose(way: Way<'_>, helo_name: &str, user: &str, password: Option<&Secret>) -> Vec<Step> {
    let mut walk = Walk::new(password.cloned());
    let plan = match way.endpoint.security {
        Security::Tls => OVER_TLS,
        Security::StartTls => BY_STARTTLS,
        Security::Plain => IN_CLEAR,
    };
    if let Some(connection) = go(&mut walk, way, helo_name, (user, password)).await {
        connection.quit().await;
    }
    walk.end(plan)
}

async fn go(
    walk: &mut Walk,
    way: Way<'_>,
    helo_name: &str,
    (user, password): (&str, Option<&Secret>),
) -> Option<Connection> {
    let deadlines = way.deadlines();
    let socket = way.connect(walk).await?;
    let mut stream = match way.endpoint.security {
        Security::Tls => {
            let mut stream = LineStream::new(Box::new(way.encrypt(walk, socket).await?));
            greeting(walk, way, &mut stream).await?;
            stream
        }
        Security::Plain => {
            let mut stream = LineStream::new(Box::new(socket));
            greeting(walk, way, &mut stream).await?;
            stream
        }
        Security::StartTls => {
            let mut clear = LineStream::new(Box::new(socket));
            greeting(walk, way, &mut clear).await?;
            let io = walk
                .step("starttls", async {
                    let lines = ehlo(&mut clear, helo_name, deadlines).await?;
                    let features = Features::from_lines(&lines);
                    let connection = Connection { stream: clear, features, deadlines };
                    Ok((upgrade(connection).await?, Detail::default()))
                })
                .await?;
            LineStream::new(Box::new(way.encrypt(walk, io).await?))
        }
    };
    let lines = walk
        .step("ehlo", async {
            let lines = ehlo(&mut stream, helo_name, deadlines).await?;
            let capabilities = lines.iter().skip(1).cloned().collect();
            let detail = Detail { server: lines.first().cloned(), capabilities, ..Detail::default() };
            Ok((lines, detail))
        })
        .await?;
    let mut connection = Connection { stream, features: Features::from_lines(&lines), deadlines };
    if user.is_empty() {
        walk.skip("login", "no-user-name", "The account sends without logging in.");
        return Some(connection);
    }
    walk.step("login", async {
        let unusable =
            || Fault::new("credentials-unusable", "There is no password that can be used; enter it again.");
        connection.login(user, password.ok_or_else(unusable)?).await?;
        Ok(((), Detail::default()))
    })
    .await?;
    Some(connection)
}

async fn greeting(walk: &mut Walk, way: Way<'_>, stream: &mut LineStream) -> Option<()> {
    walk.step("greeting", async {
        let said = banner(stream, way.deadlines()).await?;
        Ok(((), Detail { server: Some(said.text), ..Detail::default() }))
    })
    .await
}
