//! A second mail client: raw IMAP commands on a real connection, so that what our own client cannot say is said too.

use std::io::ErrorKind;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::app::App;
use crate::mail::PASSWORD;

/// Dovecot on a loaded machine answers within this.
const ANSWER: Duration = Duration::from_secs(60);

/// One logged-in connection.
pub struct Imap {
    stream: BufReader<TcpStream>,
    tag: u32,
    at: (String, u16),
    user: String,
    /// Whether the server said BYE, or ended the connection without it.
    pub ended: bool,
}

/// One untagged response.
#[derive(Debug, Clone, Default)]
pub struct Response {
    /// Its text without `* ` and line end; of a literal only the `{size}` is left.
    pub text: String,
    /// The literals, in order.
    pub literals: Vec<Vec<u8>>,
}

impl Response {
    /// Attributes and name of a LIST response.
    fn listed(&self) -> Option<(String, String)> {
        let (attributes, rest) = self.text.strip_prefix("LIST (")?.split_once(") ")?;
        let (_, name) = rest.split_once(' ')?;
        let name = match (self.literals.first(), name.strip_prefix('"')) {
            (Some(literal), _) => String::from_utf8_lossy(literal).into_owned(),
            (None, Some(quoted)) => quoted.trim_end_matches('"').replace("\\\"", "\"").replace("\\\\", "\\"),
            (None, None) => name.to_owned(),
        };
        Some((attributes.to_owned(), name))
    }
}

/// What one command brought.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The untagged responses before it ended.
    pub untagged: Vec<Response>,
    /// The tagged line without its tag: `OK [COPYUID …] done`.
    pub status: String,
}

impl Outcome {
    /// Whether the server agreed.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.status.starts_with("OK")
    }

    /// Attributes and name of each `* LIST`.
    #[must_use]
    pub fn listed(&self) -> Vec<(String, String)> {
        self.untagged.iter().filter_map(Response::listed).collect()
    }

    /// The numbers of `* SEARCH`.
    #[must_use]
    pub fn numbers(&self) -> Vec<u32> {
        let lines = self.untagged.iter().filter_map(|r| r.text.strip_prefix("SEARCH"));
        lines.flat_map(str::split_whitespace).map(|n| n.parse().unwrap()).collect()
    }
}

impl Imap {
    /// Connects to the private Dovecot as `user`.
    pub async fn login(app: &App, user: &str) -> Self {
        Self::login_at(app, "127.0.0.1", user).await
    }

    /// The same through another address of the server.
    pub async fn login_at(app: &App, host: &str, user: &str) -> Self {
        Self::connect((host.to_owned(), app.stack.imap_port), user.to_owned()).await
    }

    async fn connect(at: (String, u16), user: String) -> Self {
        let stream = TcpStream::connect((at.0.as_str(), at.1)).await.unwrap();
        let login = format!("LOGIN {user} {PASSWORD}");
        let mut client = Self { stream: BufReader::new(stream), tag: 0, at, user, ended: false };
        assert!(client.response().await.text.starts_with("OK"), "a greeting");
        client.ok(&login).await;
        client
    }

    /// Another connection of the same user in the place of this one.
    pub async fn again(&mut self) {
        *self = Self::connect(self.at.clone(), self.user.clone()).await;
    }

    /// Sends a command and reads to its tagged line, whatever it says, or to BYE, which then is its status. So is the end of
    /// the connection: Dovecot 2.3.19 dies of a segmentation fault now and then while others change what it has open.
    ///
    /// # Panics
    /// When the line breaks in the middle of an answer or nothing comes for a minute.
    pub async fn run(&mut self, command: &str) -> Outcome {
        self.tag += 1;
        let line = format!("t{} {command}\r\n", self.tag);
        // A server that is gone already is seen as such when its answer is read.
        let _ = self.stream.get_mut().write_all(line.as_bytes()).await;
        self.finish(command).await
    }

    /// [`Imap::run`] of a command that must succeed.
    ///
    /// # Panics
    /// When it does not.
    pub async fn ok(&mut self, command: &str) -> Outcome {
        let done = self.run(command).await;
        assert!(done.is_ok(), "{command}: {}", done.status);
        done
    }

    /// APPEND of `message` with these flags (`\Seen $Work`) and, where given, an INTERNALDATE as IMAP writes it.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn append(&mut self, mailbox: &str, flags: &str, date: Option<&str>, message: &[u8]) {
        let done = self.try_append(mailbox, flags, date, message).await;
        assert!(done.is_ok(), "APPEND {mailbox}: {}", done.status);
    }

    /// [`Imap::append`], whatever the server says.
    ///
    /// # Panics
    /// As [`Imap::run`].
    pub async fn try_append(
        &mut self,
        mailbox: &str,
        flags: &str,
        date: Option<&str>,
        message: &[u8],
    ) -> Outcome {
        self.tag += 1;
        let date = date.map(|d| format!("\"{d}\" ")).unwrap_or_default();
        let head =
            format!("t{} APPEND {} ({flags}) {date}{{{}}}\r\n", self.tag, quoted(mailbox), message.len());
        self.stream.get_mut().write_all(head.as_bytes()).await.unwrap();
        loop {
            let (text, _) = self.line().await;
            if text.starts_with('+') {
                break;
            }
            if let Some(status) = self.farewell(&text) {
                return Outcome { untagged: Vec::new(), status };
            }
            assert!(text.starts_with("* "), "APPEND {mailbox}: {text}");
        }
        self.stream.get_mut().write_all(&[message, b"\r\n"].concat()).await.unwrap();
        self.finish("APPEND").await
    }

    /// SELECT; the command after it sees the mailbox as it is then.
    pub async fn select(&mut self, mailbox: &str) -> Outcome {
        self.ok(&format!("SELECT {}", quoted(mailbox))).await
    }

    async fn finish(&mut self, command: &str) -> Outcome {
        let tag = format!("t{} ", self.tag);
        let mut untagged = Vec::new();
        loop {
            let (text, literals) = self.line().await;
            if let Some(status) = text.strip_prefix(&tag) {
                return Outcome { untagged, status: status.to_owned() };
            }
            if (command != "LOGOUT" || self.ended)
                && let Some(status) = self.farewell(&text)
            {
                return Outcome { untagged, status };
            }
            let text = text.strip_prefix("* ").unwrap_or_else(|| panic!("{command}: {text}")).to_owned();
            untagged.push(Response { text, literals });
        }
    }

    fn farewell(&mut self, line: &str) -> Option<String> {
        let text = line.strip_prefix("* ").filter(|text| text.starts_with("BYE"))?;
        self.ended = true;
        Some(text.to_owned())
    }

    async fn response(&mut self) -> Response {
        let (text, literals) = self.line().await;
        Response { text: text.strip_prefix("* ").unwrap_or(&text).to_owned(), literals }
    }

    /// A line with its literals, of which only the `{size}` stays in the text.
    async fn line(&mut self) -> (String, Vec<Vec<u8>>) {
        let (mut text, mut literals) = (String::new(), Vec::new());
        loop {
            let mut line = Vec::new();
            let read = timeout(ANSWER, self.stream.read_until(b'\n', &mut line)).await.expect("no answer");
            let over = match read {
                Err(e) if e.kind() == ErrorKind::ConnectionReset => true,
                read => read.unwrap() == 0,
            };
            if over && text.is_empty() && line.is_empty() {
                self.ended = true;
                return ("* BYE, though the server did not say so".to_owned(), literals);
            }
            assert!(!over, "the server ended the connection after {text:?}");
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches(['\r', '\n']);
            text.push_str(line);
            let size =
                line.strip_suffix('}').and_then(|l| l.rsplit_once('{')).and_then(|(_, n)| n.parse().ok());
            let Some(size) = size else { return (text, literals) };
            let mut literal = vec![0; size];
            timeout(ANSWER, self.stream.read_exact(&mut literal)).await.expect("no literal").unwrap();
            literals.push(literal);
        }
    }
}

/// A name as a quoted string.
#[must_use]
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))
}
