//! A receiver of webhooks: remembers what arrives and answers as it is told.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::eventually::eventually;
use crate::scripted::{self, Scripted};
use crate::tls::{Authority, Fault};

/// A request that arrived.
#[derive(Debug, Clone)]
pub struct Received {
    /// Its line, such as `POST /hook HTTP/1.1`.
    pub line: String,
    /// Its fields, names in lower case.
    pub fields: HashMap<String, String>,
    /// Its body.
    pub body: String,
    /// When it was whole.
    pub at: Instant,
}

impl Received {
    /// A field; empty where there is none.
    #[must_use]
    pub fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    /// The event's id.
    #[must_use]
    pub fn id(&self) -> &str {
        self.field("webhook-id")
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// Whether one of its signatures is of this secret, computed from the specification without our code.
    #[must_use]
    pub fn is_signed_with(&self, secret: &str) -> bool {
        let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
        let text = format!("{}.{}.{}", self.id(), self.field("webhook-timestamp"), self.body);
        let wanted = format!("v1,{}", STANDARD.encode(hmac(&key, text.as_bytes())));
        self.field("webhook-signature").split(' ').any(|one| one == wanted)
    }
}

/// HMAC with SHA-256 for a key of at most 64 bytes (RFC 2104).
fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
    let mut block = key.to_vec();
    block.resize(64, 0);
    let pad = |with: u8| block.iter().map(|b| b ^ with).collect::<Vec<_>>();
    let inner = Sha256::digest([pad(0x36).as_slice(), text].concat());
    Sha256::digest([pad(0x5c).as_slice(), &inner].concat()).to_vec()
}

/// How a request is answered.
#[derive(Debug, Clone)]
pub enum Answer {
    /// With this status, and these further fields.
    Status(u16, &'static str),
    /// With 200, after a while.
    Slow(Duration),
    /// Not at all.
    Never,
    /// With 200 and a body that does not end.
    Endless,
    /// By hanging up.
    HangUp,
}

/// 204.
pub const TAKEN: Answer = Answer::Status(204, "");

type Decide = dyn Fn(&Received) -> Answer + Send + Sync;

struct Inner {
    all: Mutex<Vec<Received>>,
    decide: Mutex<Arc<Decide>>,
    open: Mutex<(usize, usize)>,
}

/// See the module; it ends when this is dropped.
pub struct Sink {
    inner: Arc<Inner>,
    server: Scripted,
    front: Option<Scripted>,
}

impl Sink {
    /// One over HTTP.
    pub async fn plain(decide: impl Fn(&Received) -> Answer + Send + Sync + 'static) -> Self {
        let inner = Arc::new(Inner {
            all: Mutex::default(),
            decide: Mutex::new(Arc::new(decide)),
            open: Mutex::default(),
        });
        let shared = Arc::clone(&inner);
        let server = scripted::serve(move |stream| serve(Arc::clone(&shared), stream)).await;
        Self { inner, server, front: None }
    }

    /// One behind TLS with a certificate of `authority` for `localhost`.
    pub async fn behind_tls(
        authority: &Authority,
        fault: Fault,
        decide: impl Fn(&Received) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let mut sink = Self::plain(decide).await;
        sink.front = Some(authority.before(sink.server.port, fault).await);
        sink
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> String {
        match &self.front {
            Some(front) => format!("https://localhost:{}/hook", front.port),
            None => format!("http://127.0.0.1:{}/hook", self.server.port),
        }
    }

    /// From now on requests are answered so.
    ///
    /// # Panics
    /// When an earlier answer did.
    pub fn answer(&self, decide: impl Fn(&Received) -> Answer + Send + Sync + 'static) {
        *self.inner.decide.lock().unwrap() = Arc::new(decide);
    }

    /// Everything that arrived so far.
    ///
    /// # Panics
    /// When an answer did.
    #[must_use]
    pub fn all(&self) -> Vec<Received> {
        self.inner.all.lock().unwrap().clone()
    }

    /// The most requests that were open at once.
    ///
    /// # Panics
    /// When an answer did.
    #[must_use]
    pub fn most_at_once(&self) -> usize {
        self.inner.open.lock().unwrap().1
    }

    /// Waits until so many arrived, and gives back all.
    ///
    /// # Panics
    /// When they have not within 20 seconds.
    pub async fn got(&self, count: usize) -> Vec<Received> {
        eventually(&format!("{count} requests arrived"), Duration::from_secs(20), async || {
            let all = self.all();
            (all.len() >= count).then_some(all)
        })
        .await
    }
}

async fn read(stream: &mut TcpStream) -> Option<Received> {
    let (mut head, mut byte) = (Vec::new(), [0u8; 1]);
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).await.ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?;
    let mut lines = head.lines();
    let line = lines.next()?.to_owned();
    let fields: HashMap<String, String> = lines
        .filter_map(|l| l.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let mut body = vec![0; fields.get("content-length")?.parse().ok()?];
    stream.read_exact(&mut body).await.ok()?;
    Some(Received { line, fields, body: String::from_utf8(body).ok()?, at: Instant::now() })
}

async fn serve(inner: Arc<Inner>, mut stream: TcpStream) {
    while let Some(request) = read(&mut stream).await {
        {
            let mut open = inner.open.lock().unwrap();
            open.0 += 1;
            open.1 = open.1.max(open.0);
        }
        let decide = Arc::clone(&inner.decide.lock().unwrap());
        let answer = decide(&request);
        inner.all.lock().unwrap().push(request);
        let kept = respond(&mut stream, answer).await;
        inner.open.lock().unwrap().0 -= 1;
        if !kept {
            return;
        }
    }
}

async fn respond(stream: &mut TcpStream, answer: Answer) -> bool {
    match answer {
        Answer::Status(status, fields) => {
            let text = format!("HTTP/1.1 {status} X\r\n{fields}content-length: 0\r\n\r\n");
            // 204 has no length; a client may take it for a fault.
            let text = if status == 204 { text.replace("content-length: 0\r\n", "") } else { text };
            stream.write_all(text.as_bytes()).await.is_ok()
        }
        Answer::Slow(time) => {
            tokio::time::sleep(time).await;
            stream.write_all(b"HTTP/1.1 200 X\r\ncontent-length: 2\r\n\r\nok").await.is_ok()
        }
        Answer::Never => {
            let _ = stream.read(&mut [0u8; 1]).await;
            false
        }
        Answer::Endless => {
            let _ = stream.write_all(b"HTTP/1.1 200 X\r\ncontent-length: 99999999999\r\n\r\n").await;
            while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
            false
        }
        Answer::HangUp => false,
    }
}
