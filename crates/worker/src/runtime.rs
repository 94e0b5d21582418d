//! The only file that names apalis: its workers, driven from our lease table.
//!
//! The published back ends lose or double jobs (apalis-redis 1.0 cannot read a backlog over 8,000; apalis-postgres 1.0
//! declares live workers dead). apalis sees a back end with three poll functions; claim, lease, renewal and the fenced
//! acknowledgement are `emailclient_core::queue::job::queue`.

mod held;

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use apalis::layers::WorkerBuilderExt as _;
use apalis::prelude::{Data, Monitor, ParallelizeExt as _, WorkerBuilder};
use apalis_core::backend::finalize::Ephemeral;
use apalis_core::backend::{Backend, BackendConfig};
use apalis_core::error::BoxDynError;
use apalis_core::task::Task;
use apalis_core::task::builder::TaskBuilder;
use apalis_core::task::task_id::TaskId;
use apalis_core::worker::context::WorkerContext;
use emailclient_core::jobs::{self, JobError, Then};
use emailclient_core::platform::db::{Db, DbError};
use emailclient_core::platform::failpoint;
use emailclient_core::platform::heartbeat::Heartbeat;
use emailclient_core::platform::id::JobId;
use emailclient_core::platform::metrics::table;
use emailclient_core::queue::job::queue::{self, Claimed, Outcome, Room};
use emailclient_core::queue::job::{self, priority};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use metrics::{counter, histogram};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;
use uuid::Uuid;
use wire::pace::Haste;

use self::held::{Entry, Held, Signals};
use crate::environment::Environment;
use crate::part;

/// Jobs in hand for each place to work in bulk: most of them wait for a mail server, and two hundred servers that do not
/// answer must not keep others waiting.
const IN_HAND: usize = 8;
/// A lost NOTIFY delays a job by at most this.
const POLL: Duration = Duration::from_secs(1);
/// Time for running jobs to end after the signal; orchestrators kill at 30 s.
const DRAIN: Duration = Duration::from_secs(25);

/// Time to give back what was claimed and not begun.
const GIVE_BACK: Duration = Duration::from_secs(3);

/// A claimed job and what holds its place: freed when the job ends, however it ends.
#[derive(Clone)]
struct Lease {
    claimed: Claimed,
    _slot: Arc<OwnedSemaphorePermit>,
    _entry: Arc<Entry>,
    signals: Arc<Signals>,
}

/// Works until the environment's shutdown fires; running jobs get 25 s to end.
///
/// # Errors
/// When apalis gives up.
pub async fn work(env: &Environment, heartbeat: &Heartbeat) -> anyhow::Result<()> {
    let signal = env.shutdown.clone();
    let (env, heartbeat, claims) = (env.clone(), heartbeat.clone(), TaskTracker::new());
    let tasks = claims.clone();
    Monitor::new()
        .register(move |restarts| {
            let backend = LeaseQueue::new(&env, heartbeat.clone(), tasks.clone());
            WorkerBuilder::new(format!("{}-{restarts}", env.worker_id))
                .backend(backend)
                .data(env.clone())
                .catch_panic()
                .parallelize(tokio::spawn)
                .build(handle)
        })
        .should_restart(|_, _| true)
        .shutdown_timeout(DRAIN)
        .run_with_signal(async move {
            signal.cancelled().await;
            Ok(())
        })
        .await?;
    // What was claimed in the moment of the signal is given back before the database is closed.
    claims.close();
    if tokio::time::timeout(GIVE_BACK, claims.wait()).await.is_err() {
        tracing::warn!("claimed jobs could not be given back; their leases run out instead");
    }
    Ok(())
}

fn handle(
    job: Claimed,
    env: Data<Environment>,
    lease: Data<Lease>,
) -> BoxFuture<'static, Result<(), BoxDynError>> {
    let span = tracing::info_span!("job", kind = job.job.declaration().kind, job = %job.id, tenant = %job.tenant, attempt = job.attempt);
    let mut env = (*env).clone();
    env.shutdown = lease.signals.stop.clone();
    let user_waits = job.priority >= priority::PUSH && job.priority != priority::HEAD;
    env.haste = if user_waits { Haste::User } else { Haste::Round };
    async move {
        jobs::run(&env, job.tenant, job.job).await.map_err(|error| Box::new(JobFailure(error)) as BoxDynError)
    }
    .instrument(span)
    .boxed()
}

/// Carries a [`JobError`] through apalis, which passes boxed errors only.
#[derive(Debug)]
struct JobFailure(JobError);

impl std::fmt::Display for JobFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for JobFailure {}

struct LeaseQueue {
    db: Db,
    owner: Uuid,
    slots: usize,
    lease: Duration,
    incoming: Option<mpsc::Receiver<Task<Claimed>>>,
    held: Held,
    stop: CancellationToken,
    heartbeat: Heartbeat,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    _stop_on_drop: DropGuard,
}

impl LeaseQueue {
    fn new(env: &Environment, heartbeat: Heartbeat, tasks: TaskTracker) -> Self {
        // One owner per start of the back end: what an earlier one left running must expire, not be renewed by us.
        let stop = env.shutdown.child_token();
        Self {
            db: env.db.clone(),
            owner: emailclient_core::platform::id::new_uuid(),
            slots: env.config.worker_concurrency * IN_HAND,
            lease: env.config.worker_lease,
            incoming: None,
            held: Held::default(),
            shutdown: env.shutdown.clone(),
            _stop_on_drop: stop.clone().drop_guard(),
            stop,
            heartbeat,
            tasks,
        }
    }

    fn start(&self) -> mpsc::Receiver<Task<Claimed>> {
        let (tx, rx) = mpsc::channel(self.slots);
        let (db, held, heartbeat) = (self.db.clone(), self.held.clone(), self.heartbeat.clone());
        tokio::spawn(held::hand_back(db.clone(), self.owner, self.slots, held.clone(), self.stop.clone()));
        tokio::spawn(held::renew_leases(db, (self.owner, self.lease), held, self.stop.clone(), heartbeat));
        let claimer = Claimer {
            db: self.db.clone(),
            owner: self.owner,
            slots: self.slots,
            lease: self.lease,
            free: Arc::new(Semaphore::new(self.slots)),
            held: self.held.clone(),
            out: tx,
            heartbeat: self.heartbeat.clone(),
            shutdown: self.shutdown.clone(),
        };
        self.tasks.spawn(claimer.run(self.stop.clone()));
        rx
    }
}

struct Claimer {
    db: Db,
    owner: Uuid,
    slots: usize,
    lease: Duration,
    free: Arc<Semaphore>,
    held: Held,
    out: mpsc::Sender<Task<Claimed>>,
    heartbeat: Heartbeat,
    shutdown: CancellationToken,
}

impl Claimer {
    async fn run(self, stop: CancellationToken) {
        let mut listener = None;
        loop {
            let first = tokio::select! {
                permit = self.free.clone().acquire_owned() => match permit { Ok(p) => p, Err(_) => return },
                () = stop.cancelled() => return,
            };
            if stop.is_cancelled() {
                return;
            }
            let mut permits = vec![first];
            while permits.len() < self.slots {
                let Ok(permit) = self.free.clone().try_acquire_owned() else { break };
                permits.push(permit);
            }
            let claimed = match self.claim(permits.len()).await {
                Ok(claimed) => {
                    self.heartbeat.beat(part::JOBS);
                    claimed
                }
                Err(error) => {
                    tracing::warn!(%error, "no jobs could be claimed");
                    listener = None;
                    tokio::time::sleep(POLL).await;
                    continue;
                }
            };
            if claimed.is_empty() {
                drop(permits);
                if listener.is_none() {
                    listener = self.db.listener(job::CHANNEL).await.ok();
                    if listener.is_some() {
                        // A NOTIFY may have come before the listener stood: look once more.
                        continue;
                    }
                }
                if !wait(&mut listener, &stop).await {
                    return;
                }
                continue;
            }
            for (job, permit) in claimed.into_iter().zip(permits) {
                self.hand_over(job, permit).await;
            }
        }
    }

    async fn claim(&self, free: usize) -> Result<Vec<Claimed>, DbError> {
        let mut tx = self.db.system().await?;
        let room = Room { total: self.slots, free };
        let claimed = queue::claim(&mut tx, self.owner, room, self.lease).await?;
        tx.commit().await?;
        Ok(claimed)
    }

    async fn hand_over(&self, claimed: Claimed, permit: OwnedSemaphorePermit) {
        let (id, attempt, max) = (claimed.id, claimed.attempt, claimed.max_attempts);
        let signals = Arc::new(Signals { lost: CancellationToken::new(), stop: self.shutdown.child_token() });
        let entry = Arc::new(Entry::new(id, &self.held, signals.clone()));
        let lease = Lease { claimed: claimed.clone(), _slot: Arc::new(permit), _entry: entry, signals };
        let task = TaskBuilder::new(claimed)
            // With the attempt: apalis 1.0 refuses a second task of one id while the first, its lease lost, winds down.
            .task_id(TaskId::String(format!("{id}/{attempt}")))
            .attempt(usize::try_from(attempt - 1).unwrap_or(0))
            .max_attempts(usize::try_from(max).unwrap_or(1))
            .data(lease)
            .build();
        if self.out.send(task).await.is_err() {
            give_back(&self.db, self.owner, &[id]).await;
        }
    }
}

/// Sleeps until a NOTIFY, the poll interval, or the stop; `false` for the last.
async fn wait(
    listener: &mut Option<emailclient_core::queue::job::Listener>,
    stop: &CancellationToken,
) -> bool {
    let notified = async {
        match listener.as_mut() {
            Some(l) => l.recv().await.is_ok(),
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = tokio::time::sleep(POLL) => {}
        () = stop.cancelled() => return false,
        alive = notified => {
            if !alive {
                *listener = None;
            }
        }
    }
    true
}

async fn give_back(db: &Db, owner: Uuid, ids: &[JobId]) {
    let given = async {
        let mut tx = db.system().await?;
        queue::give_back(&mut tx, owner, ids).await?;
        tx.commit().await
    };
    if let Err(error) = given.await {
        tracing::warn!(%error, "unstarted jobs could not be given back; their leases run out instead");
    }
}

impl Backend for LeaseQueue {
    type Task = Task<Claimed>;
    type Error = DbError;

    fn poll_ready(&mut self, _: &mut Context<'_>, _: &WorkerContext) -> Poll<Result<(), DbError>> {
        Poll::Ready(Ok(()))
    }

    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        _: &WorkerContext,
    ) -> Poll<Option<Result<Task<Claimed>, DbError>>> {
        let mut incoming = self.incoming.take().unwrap_or_else(|| self.start());
        let next = incoming.poll_recv(cx).map(|task| task.map(Ok));
        self.incoming = Some(incoming);
        next
    }

    fn poll_close(&mut self, _: &mut Context<'_>, _: &WorkerContext) -> Poll<Result<(), DbError>> {
        self.stop.cancel();
        if let Some(mut incoming) = self.incoming.take() {
            incoming.close();
            let mut ids = vec![];
            while let Ok(task) = incoming.try_recv() {
                if let Some(lease) = task.data().get::<Lease>() {
                    ids.push(lease.claimed.id);
                }
            }
            if !ids.is_empty() {
                let (db, owner) = (self.db.clone(), self.owner);
                self.tasks.spawn(async move { give_back(&db, owner, &ids).await });
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl BackendConfig for LeaseQueue {
    type Args = Claimed;
    type Id = Uuid;
    type Kind = Ephemeral;
    type Config = usize;
    type Layer = AckLayer;

    fn config(&self) -> &usize {
        &self.slots
    }

    fn middleware(&mut self, _: &mut WorkerContext) -> AckLayer {
        AckLayer { db: self.db.clone(), owner: self.owner }
    }
}

/// Wraps each job: lets go of it when its lease is lost, and records how it ended.
#[derive(Clone)]
struct AckLayer {
    db: Db,
    owner: Uuid,
}

impl<S> tower::Layer<S> for AckLayer {
    type Service = AckService<S>;
    fn layer(&self, inner: S) -> AckService<S> {
        AckService { inner, ack: self.clone() }
    }
}

#[derive(Clone)]
struct AckService<S> {
    inner: S,
    ack: AckLayer,
}

impl<S> tower::Service<Task<Claimed>> for AckService<S>
where
    S: tower::Service<Task<Claimed>>,
    S::Future: Send + 'static,
    S::Error: Into<BoxDynError>,
    S::Response: Send + 'static,
{
    type Response = ();
    type Error = BoxDynError;
    type Future = BoxFuture<'static, Result<(), BoxDynError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxDynError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, task: Task<Claimed>) -> Self::Future {
        let lease = task.data().get::<Lease>().cloned();
        let work = self.inner.call(task);
        let ack = self.ack.clone();
        async move {
            let begun = Instant::now();
            let Some(lease) = lease else { return work.await.map(drop).map_err(Into::into) };
            let result = tokio::select! {
                result = work => result.map(drop).map_err(Into::into),
                // Its task goes on: a round ends at the signal that came with this one, a submission has a lease of its own.
                () = lease.signals.lost.cancelled() => {
                    counter!(table::LEASES_LOST.name).increment(1);
                    return Err("the lease was lost".into());
                }
            };
            let outcome = outcome(&lease.claimed, &result);
            measure(&lease.claimed, &outcome, begun.elapsed());
            ack.record(&lease.claimed, &outcome).await;
            result
        }
        .boxed()
    }
}

/// Exponential with jitter, unless the job said when.
fn outcome(job: &Claimed, result: &Result<(), BoxDynError>) -> Outcome {
    let Err(error) = result else { return Outcome::Done };
    let text = error.to_string();
    let backoff = || {
        let seconds = 2f64.powi(job.attempt.clamp(1, 12)).min(3600.0);
        Duration::from_secs_f64(seconds * (0.75 + 0.5 * emailclient_core::platform::clock::unit()))
    };
    match error.downcast_ref::<JobFailure>().map(|f| f.0.then) {
        Some(Then::Fail) => Outcome::Dead { error: text },
        Some(Then::Postpone(after)) => Outcome::Postpone { after },
        Some(Then::RetryAfter(after)) => Outcome::Retry { after, error: text },
        Some(Then::Retry) | None => Outcome::Retry { after: backoff(), error: text },
    }
}

fn measure(job: &Claimed, outcome: &Outcome, took: Duration) {
    let kind = job.job.declaration().kind;
    let word = match outcome {
        Outcome::Done => "done",
        Outcome::Postpone { .. } => "postponed",
        Outcome::Retry { .. } => "retry",
        Outcome::Dead { .. } => "failed",
    };
    counter!(table::JOB_RUNS.name, "kind" => kind, "outcome" => word).increment(1);
    histogram!(table::JOB_DURATION.name, "kind" => kind).record(took.as_secs_f64());
}

impl AckLayer {
    async fn record(&self, job: &Claimed, outcome: &Outcome) {
        failpoint::pass("committed-before-ack");
        match outcome {
            Outcome::Done => tracing::debug!(job = %job.id, kind = job.job.declaration().kind, "job done"),
            Outcome::Postpone { .. } => {
                tracing::debug!(job = %job.id, kind = job.job.declaration().kind, "job postponed")
            }
            Outcome::Retry { after, error } => {
                tracing::warn!(job = %job.id, kind = job.job.declaration().kind, tenant = %job.tenant, attempt = job.attempt, after_ms = after.as_millis() as u64, %error, "job will be tried again");
            }
            Outcome::Dead { error } => {
                tracing::error!(job = %job.id, kind = job.job.declaration().kind, tenant = %job.tenant, attempt = job.attempt, %error, "job failed for good");
            }
        }
        for wait_ms in [0, 200, 400, 800, 1600] {
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
            match self.try_record(job, outcome).await {
                Ok(true) => return,
                Ok(false) => {
                    tracing::warn!(job = %job.id, "the lease was lost before the job's end was recorded");
                    return;
                }
                Err(error) => tracing::warn!(job = %job.id, %error, "the job's end could not be recorded"),
            }
        }
    }

    async fn try_record(&self, job: &Claimed, outcome: &Outcome) -> Result<bool, DbError> {
        let mut tx = self.db.system().await?;
        let written = queue::finish(&mut tx, self.owner, job, outcome).await?;
        tx.commit().await?;
        Ok(written)
    }
}
