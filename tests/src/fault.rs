//! A line that misbehaves: a proxy in front of any TCP port, whose faults are switched while it runs.
//!
//! Each direction has its own [`Line`] (latency, bandwidth, slices, black hole) and at most one [`Cut`] that waits for its
//! pattern. Everything else passes unchanged and in order, the end of either side included. A new fault: a field of
//! [`Line`] and its place in `Shared::forward`, or a variant of [`End`] and its arm in `Shared::end`; then a test below.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// What may be the beginning of a pattern is kept back for so long.
const HOLD: Duration = Duration::from_millis(100);
/// Chunks between the reading and the delayed writing side: enough that latency does not limit the bandwidth of tests.
const UNDER_WAY: usize = 64;
const CHUNK: usize = 16 << 10;

/// A direction of the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Toward {
    /// What the client says.
    Server,
    /// What the server says.
    Client,
}

/// The state of one direction.
#[derive(Debug, Clone, Copy, Default)]
pub struct Line {
    /// Time a byte is under way.
    pub latency: Duration,
    /// Bytes a second; none: as fast as it goes.
    pub bandwidth: Option<usize>,
    /// At most so many bytes are written at once, each as a segment of its own.
    pub slice: Option<usize>,
    /// Nothing passes, and nobody is told: bytes wait until it is false again.
    pub hole: bool,
}

/// How a line ends at a [`Cut`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// RST to both sides.
    Reset,
    /// FIN to both sides.
    Close,
    /// FIN to the receiver of this direction; the other direction goes on.
    HalfClose,
    /// This direction delivers nothing any more and neither side is told, for this connection only.
    Hole,
}

/// Where a direction ends, once.
#[derive(Debug, Clone)]
pub struct Cut {
    /// What is waited for; empty: any byte.
    pub pattern: Vec<u8>,
    /// Which occurrence, counted over all connections from when it was set; 1: the first.
    pub nth: usize,
    /// Whether the pattern itself is still delivered.
    pub deliver: bool,
    /// What happens then.
    pub end: End,
}

impl Cut {
    /// Ends the line before the first occurrence of `pattern`.
    #[must_use]
    pub fn before(pattern: impl Into<Vec<u8>>, end: End) -> Self {
        Self { pattern: pattern.into(), nth: 1, deliver: false, end }
    }

    /// Ends the line after the first occurrence of `pattern`.
    #[must_use]
    pub fn after(pattern: impl Into<Vec<u8>>, end: End) -> Self {
        Self { deliver: true, ..Self::before(pattern, end) }
    }

    /// Ends the line after so many bytes: what is encrypted has no pattern.
    #[must_use]
    pub fn after_bytes(bytes: usize, end: End) -> Self {
        Self { pattern: Vec::new(), nth: bytes, deliver: true, end }
    }

    /// At the `nth` occurrence instead.
    #[must_use]
    pub fn nth(self, nth: usize) -> Self {
        Self { nth, ..self }
    }
}

/// A proxy on 127.0.0.1; it and all its connections end when it is dropped.
pub struct Proxy {
    /// Where it listens.
    pub port: u16,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    lines: [watch::Sender<Line>; 2],
    /// With the occurrences seen so far.
    cuts: Mutex<[Option<(Cut, usize)>; 2]>,
    hang_up: Notify,
    accepted: AtomicUsize,
    fired: Mutex<Vec<Cut>>,
}

/// Why a connection is over.
enum Over {
    Broken,
    Ended(End),
}

impl From<io::Error> for Over {
    fn from(_: io::Error) -> Self {
        Self::Broken
    }
}

impl Proxy {
    /// In front of `port` on 127.0.0.1.
    ///
    /// # Panics
    /// When no port is free.
    pub async fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            lines: [watch::Sender::new(Line::default()), watch::Sender::new(Line::default())],
            cuts: Mutex::default(),
            hang_up: Notify::new(),
            accepted: AtomicUsize::new(0),
            fired: Mutex::default(),
        });
        let task = tokio::spawn(accept(listener, port, shared.clone()));
        Self { port: own, shared, task }
    }

    /// Changes a direction, of connections that exist too.
    pub fn line(&self, toward: Toward, change: impl FnOnce(&mut Line)) {
        self.shared.lines[toward as usize].send_modify(change);
    }

    /// Changes both directions.
    pub fn both(&self, change: impl Fn(&mut Line)) {
        self.line(Toward::Server, &change);
        self.line(Toward::Client, &change);
    }

    /// Sets the cut of a direction, in place of one that has not happened.
    ///
    /// # Panics
    /// When `nth` is 0.
    pub fn cut(&self, toward: Toward, cut: Cut) {
        assert!(cut.nth > 0);
        self.shared.cuts.lock().unwrap()[toward as usize] = Some((cut, 0));
    }

    /// Takes back cuts that have not happened.
    pub fn no_cuts(&self) {
        *self.shared.cuts.lock().unwrap() = [None, None];
    }

    /// Resets every connection there is.
    pub fn hang_up(&self) {
        self.shared.hang_up.notify_waiters();
    }

    /// How many cuts have happened.
    ///
    /// # Panics
    /// When a connection did.
    #[must_use]
    pub fn fired(&self) -> usize {
        self.shared.fired.lock().unwrap().len()
    }

    /// The cuts that have happened, in order.
    ///
    /// # Panics
    /// When a connection did.
    #[must_use]
    pub fn cuts(&self) -> Vec<Cut> {
        self.shared.fired.lock().unwrap().clone()
    }

    /// Connections accepted so far.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.hang_up();
    }
}

async fn accept(listener: TcpListener, port: u16, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        shared.accepted.fetch_add(1, Ordering::SeqCst);
        let shared = shared.clone();
        tokio::spawn(async move {
            // A server that refuses is seen by the client as a line that ends.
            if let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await {
                shared.connect(client, server).await;
            }
        });
    }
}

impl Shared {
    async fn connect(&self, client: TcpStream, server: TcpStream) {
        for stream in [&client, &server] {
            let _ = stream.set_nodelay(true);
        }
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        let over = tokio::select! {
            over = async { tokio::try_join!(
                self.carry(Toward::Server, &mut from_client, &mut to_server),
                self.carry(Toward::Client, &mut from_server, &mut to_client),
            ).err() } => over,
            () = self.hang_up.notified() => Some(Over::Ended(End::Reset)),
        };
        if matches!(over, Some(Over::Ended(End::Reset))) {
            let _ = to_client.as_ref().set_zero_linger();
            let _ = to_server.as_ref().set_zero_linger();
            // Dropped, they would say FIN first.
            to_client.forget();
            to_server.forget();
        }
    }

    async fn carry(
        &self,
        toward: Toward,
        from: &mut OwnedReadHalf,
        to: &mut OwnedWriteHalf,
    ) -> Result<(), Over> {
        let (out, inbox) = mpsc::channel(UNDER_WAY);
        tokio::try_join!(self.read(toward, from, out), self.write(toward, to, inbox)).map(drop)
    }

    async fn read(
        &self,
        toward: Toward,
        from: &mut OwnedReadHalf,
        out: mpsc::Sender<(Instant, Vec<u8>)>,
    ) -> Result<(), Over> {
        loop {
            let mut chunk = vec![0; CHUNK];
            let read = from.read(&mut chunk).await?;
            chunk.truncate(read);
            let due = Instant::now() + self.lines[toward as usize].borrow().latency;
            if read == 0 || out.send((due, chunk)).await.is_err() {
                return Ok(());
            }
        }
    }

    async fn write(
        &self,
        toward: Toward,
        to: &mut OwnedWriteHalf,
        mut inbox: mpsc::Receiver<(Instant, Vec<u8>)>,
    ) -> Result<(), Over> {
        let mut held: Vec<u8> = Vec::new();
        loop {
            let next =
                if held.is_empty() { Ok(inbox.recv().await) } else { timeout(HOLD, inbox.recv()).await };
            match next {
                Ok(Some((due, chunk))) => {
                    sleep_until(due).await;
                    held.extend(chunk);
                }
                Ok(None) => {
                    self.forward(toward, to, &held).await?;
                    return Ok(to.shutdown().await?);
                }
                Err(_) => {
                    self.forward(toward, to, &std::mem::take(&mut held)).await?;
                    continue;
                }
            }
            let (passes, cut) = self.look(toward, &held);
            let rest = held.split_off(passes);
            self.forward(toward, to, &std::mem::replace(&mut held, rest)).await?;
            if let Some(cut) = cut {
                let end = cut.end;
                self.fired.lock().unwrap().push(cut);
                return self.end(end, to).await;
            }
        }
    }

    /// How many of `bytes` may pass now, and the cut that ends the line then.
    fn look(&self, toward: Toward, bytes: &[u8]) -> (usize, Option<Cut>) {
        let waiting = &mut self.cuts.lock().unwrap()[toward as usize];
        let Some((cut, seen)) = waiting else { return (bytes.len(), None) };
        if cut.pattern.is_empty() {
            let left = cut.nth - *seen;
            if left > bytes.len() {
                *seen += bytes.len();
                return (bytes.len(), None);
            }
            return (left, waiting.take().map(|(cut, _)| cut));
        }
        let mut from = 0;
        while let Some(at) = bytes[from..].windows(cut.pattern.len()).position(|w| w == cut.pattern) {
            let (start, after) = (from + at, from + at + cut.pattern.len());
            *seen += 1;
            if *seen == cut.nth {
                let passes = if cut.deliver { after } else { start };
                return (passes, waiting.take().map(|(cut, _)| cut));
            }
            from = after;
        }
        let may_begin = |n: &usize| bytes[from..].ends_with(&cut.pattern[..*n]);
        let kept = (1..cut.pattern.len()).rev().find(may_begin).unwrap_or(0);
        (bytes.len() - kept, None)
    }

    async fn forward(&self, toward: Toward, to: &mut OwnedWriteHalf, mut bytes: &[u8]) -> Result<(), Over> {
        let line = &self.lines[toward as usize];
        while !bytes.is_empty() {
            // The sender lives as long as this does.
            let _ = line.subscribe().wait_for(|l| !l.hole).await;
            let Line { bandwidth, slice, .. } = *line.borrow();
            let most =
                bandwidth.map_or(usize::MAX, |b| (b / 20).max(1)).min(slice.unwrap_or(usize::MAX)).max(1);
            let (now, later) = bytes.split_at(bytes.len().min(most));
            to.write_all(now).await?;
            bytes = later;
            match bandwidth {
                Some(b) => sleep(Duration::from_secs_f64(now.len() as f64 / b.max(1) as f64)).await,
                // The receiver gets its turn, or the kernel joins the slices.
                None if slice.is_some() => tokio::task::yield_now().await,
                None => {}
            }
        }
        Ok(())
    }

    async fn end(&self, end: End, to: &mut OwnedWriteHalf) -> Result<(), Over> {
        match end {
            End::HalfClose => Ok(to.shutdown().await?),
            End::Hole => std::future::pending().await,
            End::Reset | End::Close => Err(Over::Ended(end)),
        }
    }
}

pub mod weather;

#[cfg(test)]
mod tests;
