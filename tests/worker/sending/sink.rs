//! A submission server that keeps what it is given and hangs up where it is told to.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tests::scripted::{self, Scripted};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// Where a sink hangs up, on its first connection only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    Banner,
    Ehlo,
    Auth,
    Mail,
    SecondRcpt,
    InsteadOf354,
    MidBody,
    AfterDot,
}

/// What a sink was given: recipients it accepted, and the bytes between DATA and the dot, unstuffed.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub recipients: Vec<String>,
    pub bytes: Vec<u8>,
}

/// A submission server whose answers to RCPT and whose moment of hanging up are chosen by the test.
#[derive(Clone)]
pub struct Sink {
    taken: Arc<Mutex<Vec<Delivery>>>,
    pub connections: Arc<AtomicUsize>,
    cut: Option<Cut>,
    rcpt: fn(&str, usize) -> &'static str,
}

impl Sink {
    pub fn new(cut: Option<Cut>, rcpt: fn(&str, usize) -> &'static str) -> Self {
        Self { taken: Arc::default(), connections: Arc::default(), cut, rcpt }
    }

    pub async fn start(&self) -> Scripted {
        let sink = self.clone();
        scripted::serve(move |stream| {
            let sink = sink.clone();
            async move {
                let number = sink.connections.fetch_add(1, Ordering::SeqCst);
                let cut = sink.cut.filter(|_| number == 0);
                // The client hanging up is as good an end as QUIT.
                let _ = sink.session(stream, number, cut).await;
            }
        })
        .await
    }

    pub fn taken(&self) -> Vec<Delivery> {
        self.taken.lock().unwrap().clone()
    }

    async fn session(&self, stream: TcpStream, number: usize, cut: Option<Cut>) -> std::io::Result<()> {
        let (read, mut write) = stream.into_split();
        let mut read = BufReader::new(read);
        let mut accepted = Vec::new();
        let mut offered = 0;
        if cut == Some(Cut::Banner) {
            return Ok(());
        }
        write.write_all(b"220 sink ready\r\n").await?;
        loop {
            let mut line = String::new();
            if read.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let verb = line.split([' ', '\r']).next().unwrap_or_default().to_ascii_uppercase();
            offered += usize::from(verb == "RCPT");
            let here = match verb.as_str() {
                "EHLO" => Some(Cut::Ehlo),
                "AUTH" => Some(Cut::Auth),
                "MAIL" => Some(Cut::Mail),
                "RCPT" if offered == 2 => Some(Cut::SecondRcpt),
                "DATA" => Some(Cut::InsteadOf354),
                _ => None,
            };
            if cut.is_some() && cut == here {
                return Ok(());
            }
            let answer = match verb.as_str() {
                "EHLO" => "250-sink\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 AUTH PLAIN".to_owned(),
                "AUTH" => "235 2.7.0 welcome".to_owned(),
                "RCPT" => {
                    let address = line.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
                    let answer = (self.rcpt)(&address, number);
                    if answer.starts_with('2') {
                        accepted.push(address);
                    }
                    answer.to_owned()
                }
                "DATA" => {
                    write.write_all(b"354 go on\r\n").await?;
                    if cut == Some(Cut::MidBody) {
                        read.read_exact(&mut [0; 1000]).await?;
                        return Ok(());
                    }
                    let bytes = body(&mut read).await?;
                    let mut taken = self.taken.lock().unwrap();
                    taken.push(Delivery { recipients: std::mem::take(&mut accepted), bytes });
                    if cut == Some(Cut::AfterDot) {
                        return Ok(());
                    }
                    format!("250 2.0.0 Ok: queued as SINK{}", taken.len())
                }
                "QUIT" => "221 bye".to_owned(),
                _ => "250 2.1.0 ok".to_owned(),
            };
            write.write_all(format!("{answer}\r\n").as_bytes()).await?;
        }
    }
}

/// Reads up to the final dot and takes the stuffing out.
async fn body(read: &mut (impl tokio::io::AsyncBufRead + Unpin)) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        let mut line = Vec::new();
        if read.read_until(b'\n', &mut line).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if line == b".\r\n" {
            return Ok(bytes);
        }
        bytes.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
    }
}

pub fn everybody(_: &str, _: usize) -> &'static str {
    "250 2.1.5 ok"
}
