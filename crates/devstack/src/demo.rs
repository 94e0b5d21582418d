//! `devstack demo`: the whole product on this machine, with three mailboxes, a provider of tokens and lines to paste.

mod tour;

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use devstack::corpus::Generator;
use devstack::oauth::{Authority, Client};
use devstack::{Endpoints, Stack};
use tokio::process::Command;

use crate::interrupts::Interrupts;
use crate::product::{MAIL_PASSWORD, PASSWORD, Product, TENANT, USER};
use crate::{StackArguments, start};

/// The last one is connected on the page for people, by OAuth2.
const MAILBOXES: [&str; 3] = ["alice@lab.test", "bob@lab.test", "carol@lab.test"];
/// Id and secret of the app that is registered at the demo's provider.
const APP: [&str; 2] = ["demo-app", "demo-app-secret"];

/// Arguments of `devstack demo`.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    stack: StackArguments,
    /// Where the API listens.
    #[arg(long, default_value = "127.0.0.1:5000")]
    listen: SocketAddr,
    /// Messages in the inbox of each of the mailboxes; a third as many lie in others.
    #[arg(long, default_value_t = 300)]
    messages: usize,
    /// Run the printed lines once and end, with their exit code.
    #[arg(long)]
    tour: bool,
}

pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    let mut interrupts = Interrupts::new()?;
    let Some(stack) = start(arguments.stack.options(), &mut interrupts).await? else {
        return Ok(ExitCode::from(130));
    };
    let listen = arguments.listen.to_string();
    tokio::select! {
        result = present(&stack, &listen, arguments.messages, arguments.tour) => result,
        () = interrupts.next() => {
            say("ending")?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Ends only by a failure or by the tour's end; Ctrl-C cancels it, and the stack's drop ends the services.
async fn present(stack: &Stack, listen: &str, messages: usize, tour: bool) -> Result<ExitCode> {
    let endpoints = stack.endpoints().clone();
    let to_fill = endpoints.clone();
    let filling = tokio::task::spawn_blocking(move || fill(&to_fill, messages));
    let public_url = format!("http://{listen}");
    let mut product = Product::start_with(stack, listen, &[("PUBLIC_URL", &public_url)]).await?;
    // The provider of the demo's own, at which a person consents.
    let authority = Authority::start(&endpoints.oauth_key)?;
    authority
        .register(Client::confidential(APP[0], APP[1]).redirect(&format!("{public_url}/oauth/callback")));
    filling.await??;
    let token = product.log_in().await?.token;
    let lines = tour::lines(&product.url, &endpoints, &MAILBOXES, &authority);
    let script = endpoints.dir.join("tour.sh");
    fs::write(&script, &lines)?;
    if tour {
        let status = Command::new("bash").arg(&script).stdin(Stdio::null()).status().await.context("bash")?;
        product.check()?;
        product.stop(stack).await;
        let code = status.code().and_then(|code| u8::try_from(code).ok());
        return Ok(code.map_or(ExitCode::FAILURE, ExitCode::from));
    }
    say(&introduction(&product, &endpoints, &token))?;
    say(&lines)?;
    say("# Ctrl-C ends everything.")?;
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        product.check()?;
        if !stack.is_running() {
            bail!("a server has ended by itself; see {}", endpoints.dir.join("log").display());
        }
    }
}

fn introduction(product: &Product, endpoints: &Endpoints, token: &str) -> String {
    let [alice, bob, carol] = MAILBOXES;
    format!(
        "
The API is at {url}, its explorer at {url}/docs; it was ready {ready} ms after its start.

  tenant     {TENANT}
  login      {USER}
  password   {PASSWORD}
  mailboxes  {alice}, {bob}, {carol}   password {MAIL_PASSWORD}
  IMAP       localhost:{imap} (TLS)   submission localhost:{smtp} (TLS)   CA {ca}
  logs       {dir}/log
  token      {token}

Paste these into another terminal, or run them all: bash {dir}/tour.sh
",
        url = product.url,
        ready = product.start_to_ready.as_millis(),
        imap = endpoints.imaps_port,
        smtp = endpoints.submissions_port,
        ca = endpoints.ca_file.display(),
        dir = endpoints.dir.display(),
    )
}

/// All mailboxes, each with mail of its own. In a folder that was used before they are left as they are.
fn fill(endpoints: &Endpoints, messages: usize) -> Result<()> {
    for (seed, user) in (1..).zip(MAILBOXES) {
        if endpoints.mail_root.join(user).exists() {
            continue;
        }
        endpoints.add_mailbox(user, MAIL_PASSWORD)?;
        let inbox = Generator::new(seed, "inbox").to(user).messages(messages).map(|m| ("INBOX", m));
        let lists = Generator::new(seed, "lists").to(user).messages(messages / 6).map(|m| ("Lists/Rust", m));
        let archive = Generator::new(seed, "archive").to(user).messages(messages / 6).map(|m| ("Archive", m));
        let all = inbox.chain(lists).chain(archive);
        endpoints.fill(user, all.map(|(mailbox, m)| (mailbox, m.flags, m.internal_date, m.bytes)))?;
    }
    Ok(())
}

fn say(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush().context("standard output")
}
