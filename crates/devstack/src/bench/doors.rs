//! How soon an event is told at each door after the server told us of the message. Dovecot 2.3 tells a client that waits in IDLE
//! up to half a second late; that is the floor, and it is read off our own connection.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use devstack::{Endpoints, Stack};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use super::figure::{Figure, percentile};
use super::mailbox::{self, Corpus, Filled};
use super::process::Servers;
use super::sink::Sink;
use super::{Plan, milliseconds, ours, progress};
use crate::product::{MAIL_PASSWORD, Product, Session, account, text};

/// Deliveries of a run.
const DELIVERIES: usize = 100;
const BACKFILL: usize = 50_000;
const MESSAGE_BYTES: usize = 4_096;
/// Mailboxes of old mail, which each further tenant reads one after the other.
const MAILBOXES: usize = 3;
/// A door that tells nothing for so long tells nothing.
const SILENCE: Duration = Duration::from_secs(30);
/// How the server tells of new mail (RFC 9051 §7.4.1).
const NEWS: &[u8] = b" EXISTS\r\n";
/// Between two questions for changes.
const POLL: Duration = Duration::from_millis(5);

const DOORS: [&str; 3] = ["stream", "webhook", "changes, asked every 5 ms"];

/// Someone who waits for new mail, and when they were told.
type Told = UnboundedReceiver<Instant>;

pub(super) async fn measure(stack: &Stack, plan: &Plan) -> Result<Vec<Figure>> {
    let endpoints = stack.endpoints();
    let mut old = Vec::new();
    for n in 0..MAILBOXES {
        let corpus = Corpus { messages: plan.scaled(BACKFILL), size: Some(MESSAGE_BYTES) };
        progress(&format!("doors: filling {} messages", corpus.messages))?;
        old.push(mailbox::fill(endpoints, &format!("old{n}"), corpus).await?);
    }
    let product = Product::start(stack, &plan.listen).await?;
    let session = Arc::new(product.log_in().await?);
    let user = "doors@lab.test";
    endpoints.add_mailbox(user, MAIL_PASSWORD)?;
    endpoints.deliver(user, &message(user, "first"))?;
    let mut waiting = JoinSet::new();
    let (port, floor) = tap(endpoints.imap_port, &mut waiting).await?;
    let mut settings = account(endpoints, user, "Doors");
    if let Some(imap) = settings.get_mut("imap").and_then(Value::as_object_mut) {
        imap.insert("port".to_owned(), port.into());
        imap.insert("security".to_owned(), "none".into());
    }
    let asked = Instant::now();
    let created = session.post("/api/accounts?verify=false", settings).await?;
    let account = ours::Asked { id: text(&created, "id")?, at: asked };
    ours::until_listed(&session, &account, 1).await?;
    let mut doors = Doors::open(floor, &session, &account.id, user, &mut waiting).await?;
    Servers::of(endpoints, &product)?.settle().await?;
    let mut figures = doors.figures(endpoints, plan, "quiet").await?;
    let others = read_old_mail(&product, endpoints, &old);
    figures.extend(tokio::select! {
        taken = doors.figures(endpoints, plan, "beside a first synchronisation of another tenant") => taken?,
        ended = others => bail!("the other tenants stopped: {ended:?}"),
    });
    waiting.shutdown().await;
    product.stop(stack).await;
    Ok(figures)
}

/// One tenant after the other has its accounts read, without an end.
async fn read_old_mail(product: &Product, endpoints: &Endpoints, old: &[Filled]) -> Result<()> {
    for n in 0.. {
        let session = product.tenant(&format!("other-{n}")).await?;
        for mailbox in old {
            let asked = ours::connect(&session, endpoints, &mailbox.user).await?;
            let seconds = ours::until_listed(&session, &asked, mailbox.messages).await?;
            progress(&format!(
                "doors: the other tenant has {} messages in {seconds:.1} s",
                mailbox.messages
            ))?;
        }
    }
    Ok(())
}

struct Doors {
    user: String,
    floor: Told,
    doors: [Told; DOORS.len()],
    delivered: usize,
}

impl Doors {
    async fn open(
        floor: Told,
        session: &Arc<Session>,
        account: &str,
        user: &str,
        waiting: &mut JoinSet<Result<()>>,
    ) -> Result<Self> {
        let (to, stream) = unbounded_channel();
        waiting.spawn(read_stream(Arc::clone(session), to));
        let (to, changes) = unbounded_channel();
        waiting.spawn(ask_for_changes(Arc::clone(session), account.to_owned(), to));
        let (to, webhook) = unbounded_channel();
        let heard = move |_: &str| {
            // Nobody listens any more when the measurement is over.
            let _ = to.send(Instant::now());
        };
        let sink = Sink::open(heard).await?;
        let body = json!({ "url": sink.url(), "types": ["message.created"] });
        session.post("/api/webhooks", body).await?;
        waiting.spawn(sink.serve());
        Ok(Self { user: user.to_owned(), floor, doors: [stream, webhook, changes], delivered: 0 })
    }

    /// Deliveries one after the other: for each, by how much each door was told later than the floor. Milliseconds.
    async fn figures(&mut self, endpoints: &Endpoints, plan: &Plan, when: &str) -> Result<Vec<Figure>> {
        // Thrown away: the first of a kind plans its statements and opens connections.
        self.run(endpoints, 5).await?;
        let mut shares: [[Vec<f64>; 2]; DOORS.len() + 1] = Default::default();
        for run in 1..=plan.few() {
            progress(&format!("doors: {when}, run {run}"))?;
            for (times, [median, worst]) in
                self.run(endpoints, plan.scaled(DELIVERIES)).await?.iter().zip(&mut shares)
            {
                median.push(percentile(times, 0.5));
                worst.push(percentile(times, 0.99));
            }
        }
        let mut figures = Vec::new();
        let names = ["delivery until the server tells us (the floor)"].into_iter().chain(DOORS);
        for (n, (name, [median, worst])) in names.zip(shares).enumerate() {
            let to_reach = if n == 0 { [None, None] } else { [Some("<= 20"), Some("<= 100")] };
            let what = if n == 0 {
                format!("{name}, {when}, p50")
            } else {
                format!("{name}: later than the floor, {when}, p50")
            };
            figures.push(Figure::new(&what, "ms", to_reach[0], median));
            figures.push(Figure::new("the same, p99", "ms", to_reach[1], worst));
        }
        Ok(figures)
    }

    /// The floor's time since the delivery, and by how much each door was told later.
    async fn run(&mut self, endpoints: &Endpoints, deliveries: usize) -> Result<[Vec<f64>; DOORS.len() + 1]> {
        let mut times: [Vec<f64>; DOORS.len() + 1] = Default::default();
        for _ in 0..deliveries {
            self.delivered += 1;
            let (stack, user) = (endpoints.clone(), self.user.clone());
            let bytes = message(&user, &format!("event {}", self.delivered));
            while self.floor.try_recv().is_ok() {}
            tokio::task::spawn_blocking(move || stack.deliver(&user, &bytes)).await??;
            let delivered = Instant::now();
            let floor = told(&mut self.floor, "the server").await?;
            let [first, rest @ ..] = &mut times;
            first.push(milliseconds(floor.saturating_duration_since(delivered)));
            for ((door, name), times) in self.doors.iter_mut().zip(DOORS).zip(rest) {
                let at = told(door, name).await?;
                // Told first, it is told no later.
                times.push(milliseconds(at.saturating_duration_since(floor)));
            }
        }
        Ok(times)
    }
}

async fn told(door: &mut Told, name: &str) -> Result<Instant> {
    let told = tokio::time::timeout(SILENCE, door.recv()).await;
    told.ok().flatten().with_context(|| format!("{name}: nothing is told of a delivery"))
}

/// A way to the server, by its port, that notes when the server tells of new mail.
async fn tap(server: u16, waiting: &mut JoinSet<Result<()>>) -> Result<(u16, Told)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let (to, told) = unbounded_channel();
    waiting.spawn(async move {
        let mut lines = JoinSet::new();
        loop {
            let (client, _) = listener.accept().await?;
            lines.spawn(pass_on(client, server, to.clone()));
        }
    });
    Ok((port, told))
}

async fn pass_on(client: TcpStream, server: u16, to: UnboundedSender<Instant>) -> Result<()> {
    let server = TcpStream::connect(("127.0.0.1", server)).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let listening = async {
        let mut piece = vec![0; 64 * 1024];
        loop {
            let length = from_server.read(&mut piece).await?;
            let Some(news) = piece.get(..length).filter(|news| !news.is_empty()) else { return Ok(()) };
            // Nobody listens any more when the measurement is over.
            if news.windows(NEWS.len()).any(|window| window == NEWS) {
                let _ = to.send(Instant::now());
            }
            to_client.write_all(news).await?;
        }
    };
    let asking = async {
        tokio::io::copy(&mut from_client, &mut to_server).await?;
        Ok(())
    };
    tokio::select! {
        ended = listening => ended,
        ended = asking => ended,
    }
}

async fn read_stream(session: Arc<Session>, to: UnboundedSender<Instant>) -> Result<()> {
    let mut stream = session.open("/api/events?types=message.created").await?;
    let mut text = Vec::new();
    while let Some(chunk) = stream.chunk().await? {
        text.extend_from_slice(&chunk);
        while let Some(end) = text.windows(2).position(|two| two == b"\n\n") {
            let event: Vec<u8> = text.drain(..end + 2).collect();
            if String::from_utf8_lossy(&event).contains("event: message.created") {
                to.send(Instant::now())?;
            }
        }
    }
    bail!("the stream has ended")
}

async fn ask_for_changes(session: Arc<Session>, account: String, to: UnboundedSender<Instant>) -> Result<()> {
    let path = format!("/api/accounts/{account}/changes");
    let mut state = text(&session.get(&path).await?, "new_state")?;
    loop {
        let changes = session.get(&format!("{path}?since={state}")).await?;
        for _ in changes.pointer("/created").and_then(Value::as_array).into_iter().flatten() {
            to.send(Instant::now())?;
        }
        state = text(&changes, "new_state")?;
        tokio::time::sleep(POLL).await;
    }
}

fn message(user: &str, subject: &str) -> Vec<u8> {
    format!(
        "From: Bench <bench@example.test>\r\nTo: {user}\r\nSubject: {subject}\r\nMessage-ID: <{}.{user}>\r\n\
         Date: Sat, 21 Nov 2026 10:00:00 +0000\r\n\r\nbody\r\n",
        subject.replace(' ', ".")
    )
    .into_bytes()
}
