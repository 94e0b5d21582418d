//! The steps of a walk that IMAP knows: greeting, STARTTLS, login, capabilities, and INBOX opened for reading only.

use std::time::Duration;

use super::command::{Command, Session};
use super::connect::{Connection, greet, upgrade};
use super::guard::Transport;
use super::login::Credentials;
use super::parse::Untagged;
use super::{ImapError, Security};
use crate::diagnose::{Detail, Fault, Step, Walk, Way};
use crate::secret::Secret;

const OVER_TLS: &[&str] = &["dns", "tcp", "tls", "greeting", "login", "capabilities", "select"];
const BY_STARTTLS: &[&str] =
    &["dns", "tcp", "greeting", "starttls", "tls", "login", "capabilities", "select"];
const IN_CLEAR: &[&str] = &["dns", "tcp", "greeting", "login", "capabilities", "select"];

impl From<ImapError> for Fault {
    fn from(error: ImapError) -> Self {
        let (code, text) = error.explained();
        let (server, response_code) = (error.text(), error.response_code());
        let detail = Detail {
            server: server.map(str::to_owned),
            response_code: response_code.map(str::to_owned),
            ..Detail::default()
        };
        Self { detail: Box::new(detail), ..Self::new(code, text) }
    }
}

/// Walks to an IMAP server as `user`; without a password (there is none, or it cannot be opened) as far as the login.
pub async fn diagnose(way: Way<'_>, user: &str, password: Option<&Secret>) -> Vec<Step> {
    let mut walk = Walk::new(password.cloned());
    let plan = match way.endpoint.security {
        Security::Tls => OVER_TLS,
        Security::StartTls => BY_STARTTLS,
        Security::Plain => IN_CLEAR,
    };
    if let Some(session) = go(&mut walk, way, user, password).await
        && session.is_usable()
    {
        // The goodbye is a courtesy; nobody waits for its answer.
        let _ = tokio::time::timeout(Duration::from_secs(1), session.logout()).await;
    }
    walk.end(plan)
}

async fn go(walk: &mut Walk, way: Way<'_>, user: &str, password: Option<&Secret>) -> Option<Session> {
    let reply = way.deadlines().reply;
    let socket = way.connect(walk).await?;
    let connection = match way.endpoint.security {
        Security::Tls => {
            let stream = way.encrypt(walk, socket).await?;
            greeting(walk, Box::new(stream), reply).await?
        }
        Security::Plain => greeting(walk, Box::new(socket), reply).await?,
        Security::StartTls => {
            let clear = greeting(walk, Box::new(socket), reply).await?;
            let stream =
                walk.step("starttls", async { Ok((upgrade(clear).await?, Detail::default())) }).await?;
            let stream = way.encrypt(walk, stream).await?;
            Connection::over(Box::new(stream), reply)
        }
    };
    let mut session = walk
        .step("login", async {
            let Some(password) = password.cloned() else {
                return Err(Fault::new(
                    "credentials-unusable",
                    "There is no password that can be used; enter it again.",
                ));
            };
            let credentials = Credentials::Password { user: user.to_owned(), password };
            Ok((connection.login(&credentials).await?, Detail::default()))
        })
        .await?;
    walk.step("capabilities", async {
        let capabilities = capabilities(&mut session).await?;
        Ok(((), Detail { capabilities, ..Detail::default() }))
    })
    .await?;
    walk.step("select", async {
        let selected = session.select(b"INBOX", None, true).await?;
        Ok(((), Detail { messages: Some(selected.exists), ..Detail::default() }))
    })
    .await?;
    Some(session)
}

async fn greeting(walk: &mut Walk, stream: Box<dyn Transport>, reply: Duration) -> Option<Connection> {
    walk.step("greeting", async {
        let connection = greet(stream, reply).await?;
        let detail = Detail { server: Some(connection.greeting.clone()), ..Detail::default() };
        Ok((connection, detail))
    })
    .await
}

async fn capabilities(session: &mut Session) -> Result<Vec<String>, ImapError> {
    let mut names = Vec::new();
    session
        .run(Command::new("CAPABILITY"), |untagged| match untagged {
            Untagged::Data(name, mut cursor) if name == "CAPABILITY" => {
                while let Some(value) = cursor.value() {
                    names.extend(value.text().map(str::to_owned));
                }
                None
            }
            other => Some(other),
        })
        .await?;
    Ok(names)
}
