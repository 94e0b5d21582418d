//! The steps of a walk that SMTP knows: banner, STARTTLS, EHLO, login. No mail is begun.

use super::connect::{Connection, banner, ehlo, upgrade};
use super::stream::LineStream;
use super::{Features, Security, SmtpError};
use crate::diagnose::{Detail, Fault, Step, Walk, Way};
use crate::login::Login;
use crate::trouble::Trouble;

const OVER_TLS: &[&str] = &["dns", "tcp", "tls", "greeting", "ehlo", "login"];
const BY_STARTTLS: &[&str] = &["dns", "tcp", "greeting", "starttls", "tls", "ehlo", "login"];
const IN_CLEAR: &[&str] = &["dns", "tcp", "greeting", "ehlo", "login"];

impl From<SmtpError> for Fault {
    fn from(error: SmtpError) -> Self {
        let server = match &error {
            SmtpError::NotAllowed(_) | SmtpError::Timeout | SmtpError::Closed => None,
            said => Some(said.text()),
        };
        let response_code = error.code().map(|code| code.to_string());
        Self {
            detail: Box::new(Detail { server, response_code, ..Detail::default() }),
            ..Self::of(error.trouble())
        }
    }
}

/// Walks to a submission server and logs in by `login`. Where there is none to be used, it goes as far as the login, which
/// fails with what is the matter.
pub async fn diagnose(way: Way<'_>, helo_name: &str, login: Result<&Login, Trouble>) -> Vec<Step> {
    let mut walk = Walk::new(login.ok().and_then(Login::secret).cloned());
    let plan = match way.endpoint.security {
        Security::Tls => OVER_TLS,
        Security::StartTls => BY_STARTTLS,
        Security::Plain => IN_CLEAR,
    };
    if let Some(connection) = go(&mut walk, way, helo_name, login).await {
        connection.quit().await;
    }
    walk.end(plan)
}

async fn go(
    walk: &mut Walk,
    way: Way<'_>,
    helo_name: &str,
    login: Result<&Login, Trouble>,
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
    if matches!(login, Ok(Login::Nobody)) {
        walk.skip("login", "no-user-name", "The account sends without logging in.");
        return Some(connection);
    }
    walk.step("login", async {
        connection.login(way.endpoint, login.map_err(Fault::of)?).await?;
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
