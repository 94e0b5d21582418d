//! The steps of a walk that IMAP knows: greeting, STARTTLS, login, capabilities, and INBOX opened for reading only.

use std::time::Duration;

use super::command::{Command, Session};
use super::connect::{Connection, greet, upgrade};
use super::guard::Transport;
use super::parse::Untagged;
use super::{ImapError, Security};
use crate::diagnose::{Detail, Fault, Step, Walk, Way};
use crate::login::Login;
use crate::trouble::Trouble;

const OVER_TLS: &[&str] = &["dns", "tcp", "tls", "greeting", "login", "capabilities", "select"];
const BY_STARTTLS: &[&str] =
    &["dns", "tcp", "greeting", "starttls", "tls", "login", "capabilities", "select"];
const IN_CLEAR: &[&str] = &["dns", "tcp", "greeting", "login", "capabilities", "select"];

impl From<ImapError> for Fault {
    fn from(error: ImapError) -> Self {
        let response_code = error.response_code().map(str::to_owned);
        let detail = Detail { server: error.text(), response_code, ..Detail::default() };
        Self { detail: Box::new(detail), ..Self::of(error.trouble()) }
    }
}

/// Walks to an IMAP server and logs in by `login`. Where there is none to be used, it goes as far as the login, which fails
/// with what is the matter. The extensions in `off` are told with the others, and not relied on.
pub async fn diagnose(way: Way<'_>, login: Result<&Login, Trouble>, off: &[String]) -> Vec<Step> {
    let mut walk = Walk::new(login.ok().and_then(Login::secret).cloned());
    let plan = match way.endpoint.security {
        Security::Tls => OVER_TLS,
        Security::StartTls => BY_STARTTLS,
        Security::Plain => IN_CLEAR,
    };
    if let Some(session) = go(&mut walk, way, login, off).await
        && session.is_usable()
    {
        // The goodbye is a courtesy; nobody waits for its answer.
        let _ = tokio::time::timeout(Duration::from_secs(1), session.logout()).await;
    }
    walk.end(plan)
}

async fn go(
    walk: &mut Walk,
    way: Way<'_>,
    login: Result<&Login, Trouble>,
    off: &[String],
) -> Option<Session> {
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
            let login = login.map_err(Fault::of)?;
            if matches!(login, Login::Nobody) {
                return Err(Fault::of(Trouble::CredentialsUnusable));
            }
            Ok((connection.login(way.endpoint, login).await?, Detail::default()))
        })
        .await?;
    session.do_without(off);
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
