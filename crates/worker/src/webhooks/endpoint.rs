//! One endpoint, from taking its lease to giving it up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use emailclient_core::events::log;
use emailclient_core::events::webhook::delivery;
use emailclient_core::events::webhook::lease::{self, Due, Held};
use emailclient_core::events::webhook::secret::Secrets;
use emailclient_core::events::webhook::send::{self, Outgoing};
use emailclient_core::platform::clock::SharedClock;
use emailclient_core::platform::db::DbError;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use wire::post::Poster;

use super::Whose;
use super::work::{Answer, Place, Work};
use crate::environment::Environment;

/// Connections to one endpoint.
const AT_ONCE: usize = 8;
/// Events made ready at once.
const READY: usize = 64;
/// Between two looks into the log while events are on their way, and nobody tells of news.
const LOOK: Duration = Duration::from_secs(1);
/// So long an endpoint has its place: others may wait for one, and it is the last in their line then.
const HOLD: Duration = Duration::from_secs(10);
/// Between two tries of a statement that failed.
const AGAIN: Duration = Duration::from_secs(1);
/// So long what was done is noted later than it was done.
const NOTE: Duration = Duration::from_millis(200);
/// So long nothing is noted where nothing was done; the lease is renewed by it, and found lost.
const RENEW: Duration = Duration::from_secs(1);

/// Sends what there is to send, and what comes meanwhile, of which `news` tells. `whole`: what is not on disk yet is brought there
/// and sent, too.
pub(super) async fn run(env: Environment, due: Due, news: Arc<Notify>, whole: bool) {
    let whose = Whose { tenant: due.tenant, webhook: due.webhook };
    if let Err(error) = send(&env, whose, news, whole).await {
        tracing::warn!(tenant = %whose.tenant, webhook = %whose.webhook, %error, "sending to an endpoint ended");
    }
}

async fn send(env: &Environment, whose: Whose, news: Arc<Notify>, whole: bool) -> Result<(), DbError> {
    let mut tx = env.db.tenant(whose.tenant).await?;
    let Some(held) = lease::acquire(&mut tx, whose.webhook, env.worker_id, env.config.worker_lease).await?
    else {
        return Ok(());
    };
    let waiting = delivery::waiting(&mut tx, whose.webhook).await?;
    tx.commit().await?;
    let (secrets, poster) =
        match (held.secrets.open(&env.keyring, env.clock.now()), send::poster(env, &held.url)) {
            (Ok(secrets), Ok(poster)) => (secrets, Arc::new(poster)),
            (Err(error), _) => return unusable(env, &held, "secret-unusable", &error).await,
            (_, Err(error)) => return unusable(env, &held, error.code(), &error).await,
        };
    let sending = Sending { env, clock: env.clock.clone(), poster, secrets: Arc::new(secrets), news };
    let mut work = Work::new(&held, waiting);
    if let Err(error) = sending.prepare(&held, &mut work, whole).await {
        // Nobody else could send until the lease runs out.
        sending.note_in_time(&held, &mut work, Some(true), Instant::now()).await?;
        return Err(error);
    }
    sending.all(&held, work).await
}

/// Nothing can be sent with what is stored: the endpoint waits as if it had failed.
async fn unusable(
    env: &Environment,
    held: &Held,
    word: &str,
    error: &(dyn std::error::Error + Sync),
) -> Result<(), DbError> {
    tracing::warn!(tenant = %held.lease.tenant, webhook = %held.lease.webhook, error = %error, "a webhook cannot be used");
    let now = env.clock.now();
    let mut work = Work::new(held, Vec::new());
    work.fail(word, None, (now, env.clock.unit()));
    let mut tx = env.db.tenant(held.lease.tenant).await?;
    lease::note(&mut tx, &held.lease, &work.progress(Some((now, false))), now).await?;
    tx.commit().await
}

/// What one endpoint is sent with.
struct Sending<'a> {
    env: &'a Environment,
    clock: SharedClock,
    poster: Arc<Poster>,
    secrets: Arc<Secrets>,
    news: Arc<Notify>,
}

impl Sending<'_> {
    /// What is to be done before the first event.
    async fn prepare(&self, held: &Held, work: &mut Work, whole: bool) -> Result<(), DbError> {
        let (db, tenant) = (&self.env.db, held.lease.tenant);
        if whole {
            log::make_durable(db, tenant).await?;
        }
        let mut tx = db.tenant(tenant).await?;
        work.recall(&mut tx, self.clock.now()).await?;
        tx.release();
        Ok(())
    }

    async fn all(&self, held: &Held, mut work: Work) -> Result<(), DbError> {
        let mut on_their_way: JoinSet<(Place, Answer)> = JoinSet::new();
        let (begun, mut noted) = (Instant::now(), Instant::now());
        let mut looked: Option<Instant> = None;
        loop {
            let now = self.clock.now();
            let ends = begun.elapsed() >= HOLD || self.env.shutdown.is_cancelled();
            let free = if ends { 0 } else { work.allowed(AT_ONCE) }.saturating_sub(on_their_way.len());
            let mut further = false;
            let nothing = on_their_way.is_empty() && work.ready(now, 1).is_empty();
            if free > 0 {
                let stale = looked.is_none_or(|at| at.elapsed() >= LOOK);
                if nothing || stale && work.ready(now, free).len() < free || work.lacks_bodies(now, free) {
                    further = self.look_in_time(held, &mut work, noted).await?;
                    looked = Some(Instant::now());
                }
                for (place, event) in work.start(now, free) {
                    on_their_way.spawn(self.post(place, event));
                }
            }
            if on_their_way.is_empty() && !further {
                return self.note_in_time(held, &mut work, Some(ends), noted).await.map(drop);
            }
            let wait = if work.is_dirty() { NOTE } else { RENEW }.saturating_sub(noted.elapsed());
            tokio::select! {
                Some(done) = on_their_way.join_next() => {
                    self.take(&mut work, done);
                    while let Some(done) = on_their_way.try_join_next() {
                        self.take(&mut work, done);
                    }
                }
                () = self.news.notified() => looked = None,
                // All that was read is settled, or waits: what may be sent stands further on.
                () = std::future::ready(()), if on_their_way.is_empty() => {}
                () = tokio::time::sleep(wait) => {}
            }
            let pause = if work.is_dirty() { NOTE } else { RENEW };
            if work.is_urgent() || noted.elapsed() >= pause {
                if !self.note_in_time(held, &mut work, None, noted).await? {
                    // Somebody else sends, or a client changed it: what is on its way is sent once more.
                    return Ok(());
                }
                noted = Instant::now();
            }
        }
    }

    /// As [`Sending::look`], again while the lease that was noted then holds: one statement that fails stops no endpoint.
    async fn look_in_time(&self, held: &Held, work: &mut Work, noted: Instant) -> Result<bool, DbError> {
        loop {
            match self.look(held, work).await {
                Err(error) if noted.elapsed() + AGAIN < held.lease.ttl => self.passes(&error).await,
                done => return done,
            }
        }
    }

    /// As [`Sending::note`], likewise.
    async fn note_in_time(
        &self,
        held: &Held,
        work: &mut Work,
        release: Option<bool>,
        noted: Instant,
    ) -> Result<bool, DbError> {
        loop {
            match self.note(held, work, release).await {
                Err(error) if noted.elapsed() + AGAIN < held.lease.ttl => self.passes(&error).await,
                done => return done,
            }
        }
    }

    async fn passes(&self, error: &DbError) {
        tracing::debug!(%error, "an endpoint waits for the database");
        tokio::time::sleep(AGAIN).await;
    }

    /// Reads the log further and makes events ready. Whether it came further.
    async fn look(&self, held: &Held, work: &mut Work) -> Result<bool, DbError> {
        let mut tx = self.env.db.tenant(held.lease.tenant).await?;
        let durable = log::stream(&mut tx).await?.durable;
        let further = work.read(&mut tx, durable, self.clock.now()).await?;
        work.make_ready(&mut tx, held.include, (self.clock.now(), READY)).await?;
        tx.release();
        Ok(further)
    }

    fn post(&self, place: Place, event: Outgoing) -> impl Future<Output = (Place, Answer)> + use<> {
        let (clock, poster, secrets) = (self.clock.clone(), self.poster.clone(), self.secrets.clone());
        async move {
            let (at, started) = (clock.now(), Instant::now());
            let head = send::head(&event, &secrets, at);
            let answer = poster.post(&head, &event.body).await;
            let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
            (place, Answer { at, duration_ms, answer })
        }
    }

    fn take(&self, work: &mut Work, done: Result<(Place, Answer), tokio::task::JoinError>) {
        match done {
            Ok((place, answer)) => work.take(place, &answer, (self.clock.now(), self.clock.unit())),
            // It is still on its way for us: the lease is given up without it, and it is sent again.
            Err(error) => tracing::error!(%error, "an attempt to send broke off"),
        }
    }

    /// Notes what was done. `release`: the lease is given up, perhaps (`true`) with events left that could be sent. `false`: it was
    /// lost.
    async fn note(&self, held: &Held, work: &mut Work, release: Option<bool>) -> Result<bool, DbError> {
        let now = self.clock.now();
        let progress = work.progress(release.map(|left| (now, left)));
        let light = progress.notes.is_empty() && progress.disabled.is_none();
        let db = &self.env.db;
        let tenant = held.lease.tenant;
        let mut tx = if light { db.relaxed(tenant).await? } else { db.tenant(tenant).await? };
        let holds = lease::note(&mut tx, &held.lease, &progress, now).await?;
        if holds {
            tx.commit().await?;
            work.noted();
        }
        Ok(holds)
    }
}
