//! Whether size matters: one mailbox of a thousand, ten thousand and a hundred thousand messages, many accounts at once,
//! and how long a user looks at an empty list in each.

use anyhow::Result;
use devstack::Stack;

use super::figure::Figure;
use super::mailbox::{self, Corpus};
use super::process::Servers;
use super::{Plan, ours, progress};
use crate::product::{Product, Session};

const SIZES: [usize; 3] = [1_000, 10_000, 100_000];
/// With whose rate the others are compared: neither its beginning nor its end counts much.
const BASE: usize = 1;
const ACCOUNTS: usize = 20;
const MESSAGES_OF_EACH: usize = 2_000;
const PAGE: usize = 50;
const MESSAGE_BYTES: usize = 4_096;

pub(super) async fn measure(stack: &Stack, plan: &Plan) -> Result<Vec<Figure>> {
    let product = Product::start(stack, &plan.listen).await?;
    let session = product.log_in().await?;
    let servers = Servers::of(stack.endpoints(), &product)?;
    // Thrown away: services that have just started prepare their statements and know no host yet.
    one(stack, &session, &servers, "warm", PAGE).await?;
    let sizes = SIZES.map(|size| plan.scaled(size));
    let mut rates: [Vec<f64>; 3] = Default::default();
    let mut pages: [Vec<f64>; 3] = Default::default();
    let mut together = Vec::new();
    for run in 0..plan.few() {
        let mut turns: Vec<_> = sizes.into_iter().zip(rates.iter_mut().zip(&mut pages)).collect();
        if run % 2 == 1 {
            turns.reverse();
        }
        for (n, (size, (rates, pages))) in turns.into_iter().enumerate() {
            let (rate, page) = one(stack, &session, &servers, &format!("one{n}run{run}"), size).await?;
            progress(&format!("{size} messages: {rate:.0} a second, first page after {page:.0} ms"))?;
            rates.push(rate);
            pages.push(page);
        }
        let rate = many(stack, &session, &servers, run, plan.scaled(MESSAGES_OF_EACH)).await?;
        progress(&format!("{ACCOUNTS} accounts: {rate:.0} a second"))?;
        together.push(rate);
    }
    product.stop(stack).await;
    Ok(figures(sizes, rates, pages, (together, plan.scaled(MESSAGES_OF_EACH))))
}

/// Messages a second, and milliseconds until the first page is full.
async fn one(
    stack: &Stack,
    session: &Session,
    servers: &Servers,
    name: &str,
    messages: usize,
) -> Result<(f64, f64)> {
    let corpus = Corpus { messages, size: Some(MESSAGE_BYTES) };
    let filled = mailbox::fill(stack.endpoints(), name, corpus).await?;
    servers.settle().await?;
    let asked = ours::connect(session, stack.endpoints(), &filled.user).await?;
    let page = ours::until_first_page(session, &asked, PAGE.min(messages), &filled.newest).await?;
    let seconds = ours::until_listed(session, &asked, messages).await?;
    ours::until_searchable(session, &asked, &filled.oldest_token).await?;
    Ok((messages as f64 / seconds, page))
}

/// Messages a second of all accounts, from the first that is created to the last that is listed.
async fn many(
    stack: &Stack,
    session: &Session,
    servers: &Servers,
    run: usize,
    messages: usize,
) -> Result<f64> {
    let corpus = Corpus { messages, size: Some(MESSAGE_BYTES) };
    let mut mailboxes = Vec::with_capacity(ACCOUNTS);
    for n in 0..ACCOUNTS {
        mailboxes.push(mailbox::fill(stack.endpoints(), &format!("many{n}run{run}"), corpus).await?);
    }
    servers.settle().await?;
    let mut accounts = Vec::with_capacity(ACCOUNTS);
    for filled in &mailboxes {
        accounts.push(ours::connect(session, stack.endpoints(), &filled.user).await?);
    }
    for asked in &accounts {
        ours::until_listed(session, asked, messages).await?;
    }
    let seconds = accounts.first().map_or(0.0, |first| first.at.elapsed().as_secs_f64());
    for (asked, filled) in accounts.iter().zip(&mailboxes) {
        ours::until_searchable(session, asked, &filled.oldest_token).await?;
    }
    Ok((ACCOUNTS * messages) as f64 / seconds)
}

fn figures(
    sizes: [usize; 3],
    rates: [Vec<f64>; 3],
    pages: [Vec<f64>; 3],
    (together, each): (Vec<f64>, usize),
) -> Vec<Figure> {
    let names = sizes.map(|size| format!("{size} in one mailbox"));
    let base = rates[BASE].clone();
    let flat =
        |rates: &[f64]| -> Vec<f64> { rates.iter().zip(&base).map(|(rate, base)| rate / base).collect() };
    let many = format!("{ACCOUNTS} accounts of {each} at once");
    let named = names.into_iter().chain([many]).zip(rates.into_iter().chain([together]));
    let mut figures = Vec::new();
    for (n, (name, rates)) in named.enumerate() {
        let compared =
            Figure::new(&format!("{name} : {}", sizes[BASE]), "ratio", Some("0.8 to 1.2"), flat(&rates));
        figures.push(Figure::new(&name, "msg/s", None, rates));
        figures.extend((n != BASE).then_some(compared));
    }
    for (size, pages) in sizes.into_iter().zip(pages) {
        let what = format!("newest {PAGE} of {size} listed after the account is created");
        figures.push(Figure::new(&what, "ms", Some("<= 1000"), pages));
    }
    figures
}
