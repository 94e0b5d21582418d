//! What single requests take, one after the other on one connection.

use std::time::Instant;

use anyhow::{Context, Result};
use devstack::Stack;

use super::figure::{Figure, percentile};
use super::mailbox::{self, Corpus};
use super::process::{self, Servers};
use super::{API, Plan, milliseconds, ours, progress};
use crate::product::{Product, Session};

const MESSAGES: usize = 2_000;

pub(super) async fn measure(stack: &Stack, plan: &Plan) -> Result<Vec<Figure>> {
    let product = Product::start(stack, &plan.listen).await?;
    let session = product.log_in().await?;
    let corpus = Corpus { messages: plan.scaled(MESSAGES), size: None };
    let filled = mailbox::fill(stack.endpoints(), "latency", corpus).await?;
    let asked = ours::connect(&session, stack.endpoints(), &filled.user).await?;
    ours::until_listed(&session, &asked, filled.messages).await?;
    ours::until_searchable(&session, &asked, &filled.oldest_token).await?;
    Servers::of(stack.endpoints(), &product)?.settle().await?;
    let list = format!("/api/accounts/{}/messages?role=inbox&limit=50", asked.id);
    let mut figures = Vec::new();
    let [median, worst] = times(plan, &session, &list).await?;
    figures.push(Figure::new(&format!("list 50 of {} messages, p50", filled.messages), "ms", None, median));
    figures.push(Figure::new("the same, p99", "ms", Some("<= 10"), worst));
    let [median, worst] = times(plan, &session, "/health").await?;
    figures.push(Figure::new("health, p50", "ms", Some("<= 5"), median));
    figures.push(Figure::new("health, p99", "ms", None, worst));
    let api = product.pid(API).context("the API has no process id")?;
    figures.push(Figure::new("api after all this, resident", "MB", None, vec![process::resident_mb(api)?]));
    product.stop(stack).await;
    Ok(figures)
}

/// Each run's median and 99th percentile, in milliseconds.
async fn times(plan: &Plan, session: &Session, path: &str) -> Result<[Vec<f64>; 2]> {
    progress(path)?;
    let (mut median, mut worst) = (Vec::new(), Vec::new());
    for _ in 0..50 {
        session.get(path).await?;
    }
    for _ in 0..plan.runs {
        let mut times = Vec::with_capacity(plan.requests);
        for _ in 0..plan.requests {
            let started = Instant::now();
            session.get(path).await?;
            times.push(milliseconds(started.elapsed()));
        }
        median.push(percentile(&times, 0.5));
        worst.push(percentile(&times, 0.99));
    }
    Ok([median, worst])
}
