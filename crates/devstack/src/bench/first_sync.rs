//! A first synchronisation against mbsync, as shipped and without fsync, and against reading alone.
//!
//! A mailbox of its own for every run, read by all four in turn: who is first changes, so that none always finds the
//! caches warm. Each begins when what the others left behind is done.

use anyhow::{Result, bail};
use devstack::Stack;
use tokio::task::spawn_blocking;

use super::figure::Figure;
use super::mailbox::{self, Corpus, Filled};
use super::mbsync::Mbsync;
use super::process::{self, Servers};
use super::{Plan, imap, ours, progress};
use crate::product::{Product, Session};

/// What is synchronised and what it has to reach.
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) corpus: Corpus,
    /// Times as fast as mbsync as shipped.
    pub(super) to_mbsync: &'static str,
    /// Share of the speed of reading alone.
    pub(super) to_raw: Option<&'static str>,
    /// Processor seconds of all until everything is searchable.
    pub(super) to_cpu: Option<&'static str>,
}

impl Kind {
    /// Corpus M.
    pub(super) fn realistic(plan: &Plan) -> Self {
        let corpus = Corpus { messages: plan.scaled(20_000), size: None };
        Self { name: "m", corpus, to_mbsync: ">= 2", to_raw: None, to_cpu: Some("<= 26") }
    }

    /// Many small ones.
    pub(super) fn small(plan: &Plan) -> Self {
        let corpus = Corpus { messages: plan.scaled(50_000), size: Some(4_096) };
        Self { name: "small", corpus, to_mbsync: ">= 4", to_raw: Some(">= 0.3"), to_cpu: None }
    }

    /// Mostly files.
    pub(super) fn large(plan: &Plan) -> Self {
        let corpus = Corpus { messages: plan.scaled(20_000), size: Some(62_000) };
        Self { name: "large", corpus, to_mbsync: ">= 1", to_raw: None, to_cpu: None }
    }
}

#[derive(Clone, Copy)]
enum Reader {
    Ours,
    Mbsync,
    MbsyncWithoutFsync,
    Raw,
}

/// One value for each run.
#[derive(Default)]
struct Taken {
    megabytes: Vec<f64>,
    listed: Vec<f64>,
    searchable: Vec<f64>,
    worker_cpu: Vec<f64>,
    postgres_cpu: Vec<f64>,
    dovecot_cpu: Vec<f64>,
    mbsync: Vec<f64>,
    mbsync_cpu: Vec<f64>,
    without_fsync: Vec<f64>,
    raw: Vec<f64>,
}

pub(super) async fn measure(stack: &Stack, plan: &Plan, kind: &Kind) -> Result<Vec<Figure>> {
    let product = Product::start(stack, &plan.listen).await?;
    let session = product.log_in().await?;
    let servers = Servers::of(stack.endpoints(), &product)?;
    let mut taken = Taken::default();
    for run in 0..plan.few() {
        let name = format!("{}{run}", kind.name);
        progress(&format!("{name}: filling {} messages", kind.corpus.messages))?;
        let filled = mailbox::fill(stack.endpoints(), &name, kind.corpus).await?;
        taken.megabytes.push(filled.megabytes());
        let mut turns = [Reader::Ours, Reader::Mbsync, Reader::MbsyncWithoutFsync, Reader::Raw];
        if run % 2 == 1 {
            turns.reverse();
        }
        for reader in turns {
            taken.take(reader, stack, &session, &servers, &filled).await?;
        }
    }
    let peak = process::peak_mb(servers.worker)?;
    product.stop(stack).await;
    Ok(taken.figures(kind, peak))
}

impl Taken {
    async fn take(
        &mut self,
        reader: Reader,
        stack: &Stack,
        session: &Session,
        servers: &Servers,
        filled: &Filled,
    ) -> Result<()> {
        let endpoints = stack.endpoints();
        servers.settle().await?;
        mailbox::flush().await?;
        match reader {
            Reader::Ours => {
                let before = servers.cpu_seconds()?;
                let asked = ours::connect(session, endpoints, &filled.user).await?;
                let listed = ours::until_listed(session, &asked, filled.messages).await?;
                let [worker, postgres, dovecot] = servers.cpu_seconds_since(before)?;
                progress(&format!(
                    "ours {listed:.2} s, processor {worker:.1} + {postgres:.1} + {dovecot:.1} s"
                ))?;
                self.listed.push(listed);
                self.searchable.push(ours::until_searchable(session, &asked, &filled.oldest_token).await?);
                let [worker, postgres, dovecot] = servers.cpu_seconds_since(before)?;
                self.worker_cpu.push(worker);
                self.postgres_cpu.push(postgres);
                self.dovecot_cpu.push(dovecot);
            }
            Reader::Mbsync | Reader::MbsyncWithoutFsync => {
                let fsync = matches!(reader, Reader::Mbsync);
                let peer = Mbsync::new(endpoints, &filled.user, "INBOX", fsync)?;
                let pulled = peer.pull(filled.messages).await?;
                progress(&format!("mbsync, fsync {fsync}, {:.2} s", pulled.seconds))?;
                if fsync {
                    self.mbsync.push(pulled.seconds);
                    self.mbsync_cpu.push(pulled.cpu_seconds);
                } else {
                    self.without_fsync.push(pulled.seconds);
                }
                peer.remove().await?;
            }
            Reader::Raw => {
                let (stack, user) = (endpoints.clone(), filled.user.clone());
                let whole = spawn_blocking(move || imap::read_all(&stack, &user)).await??;
                if whole.bytes < filled.bytes {
                    bail!("the server gave {} of {} bytes", whole.bytes, filled.bytes);
                }
                progress(&format!("raw {:.2} s", whole.seconds))?;
                self.raw.push(whole.seconds);
            }
        }
        Ok(())
    }

    fn figures(self, kind: &Kind, peak: f64) -> Vec<Figure> {
        let faster = |other: &[f64]| -> Vec<f64> {
            other.iter().zip(&self.listed).map(|(theirs, ours)| theirs / ours).collect()
        };
        let per_run = self.worker_cpu.iter().zip(&self.postgres_cpu).zip(&self.dovecot_cpu);
        let together = per_run.map(|((worker, postgres), dovecot)| worker + postgres + dovecot).collect();
        let what = format!("{} messages", kind.corpus.messages);
        vec![
            Figure::new(&format!("bytes of {what}"), "MB", None, self.megabytes.clone()),
            Figure::new("times as fast as mbsync", "ratio", Some(kind.to_mbsync), faster(&self.mbsync)),
            Figure::new("the same, mbsync without fsync", "ratio", None, faster(&self.without_fsync)),
            Figure::new("share of the speed of reading alone", "ratio", kind.to_raw, faster(&self.raw)),
            Figure::new("first synchronisation, listed", "s", None, self.listed),
            Figure::new("mbsync as shipped", "s", None, self.mbsync),
            Figure::new("mbsync without fsync", "s", None, self.without_fsync),
            Figure::new("reading alone, without TLS", "s", None, self.raw),
            Figure::new("worker, peak of all runs", "MB", Some("<= 150"), vec![peak]),
            Figure::new("until everything is searchable", "s", None, self.searchable),
            Figure::new("CPU until then: worker, PostgreSQL, Dovecot", "s", kind.to_cpu, together),
            Figure::new("the worker's part", "s", None, self.worker_cpu),
            Figure::new("PostgreSQL's part", "s", None, self.postgres_cpu),
            Figure::new("Dovecot's part", "s", None, self.dovecot_cpu),
            Figure::new("mbsync's own CPU", "s", None, self.mbsync_cpu),
        ]
    }
}
