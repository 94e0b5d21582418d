//! A second client does as it pleases with thousands of steps, while a worker synchronises: after every pause our rows
//! are the server's, and each message has the id it had.
//!
//! `RANDOM_STEPS` (600) and `RANDOM_SEED` choose another run; the seed is printed. A failure names the steps since the
//! last pause.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use sqlx::Row as _;
use tests::dice::Dice;
use tests::follower::Follower;
use tests::oracle;
use uuid::Uuid;

use crate::case::Case;
use crate::traffic::{Traffic, seed, setting};

/// Steps between two pauses, at most.
const BURST: usize = 14;
/// A message that was in no mailbox for less than this has the same id when it comes back; ours keeps it for 120 s.
const GRACE: Duration = Duration::from_secs(100);
/// Of two identical messages one may go, and while ours still keeps its id, either may be the one that turns up elsewhere.
const TWINS_REMEMBERED: Duration = Duration::from_secs(180);

struct Run {
    case: Case,
    traffic: Traffic,
    /// The messages there were at the last pause, those that had just gone as well.
    old: BTreeSet<Uuid>,
    /// How often the id of a message was compared with what it was.
    checked: usize,
    /// A client that follows the changes.
    follower: Follower,
}

impl Run {
    /// The ids of each message, by its number, of those in a mailbox.
    async fn ids(&self) -> BTreeMap<u32, BTreeSet<Uuid>> {
        let rows = sqlx::query("SELECT id, message_id_header FROM messages WHERE gone_at IS NULL")
            .fetch_all(&mut self.case.app.database.superuser().await)
            .await
            .unwrap();
        let mut ids: BTreeMap<u32, BTreeSet<Uuid>> = BTreeMap::new();
        for row in rows {
            let header: String = row.get("message_id_header");
            let n = header.trim_start_matches('m').split('@').next().unwrap().parse().unwrap();
            ids.entry(n).or_default().insert(row.get("id"));
        }
        ids
    }

    /// Waits for a round and looks at everything. `known`: the id of each message that ever had one place only.
    async fn pause(&mut self, known: &mut BTreeMap<u32, Uuid>, whole: bool) {
        self.case.stay_logged_in().await;
        self.case.sync().await;
        if whole {
            self.case.settled().await;
        } else {
            oracle::rows_agree(&self.case.app, &self.case.account, &self.case.user).await;
        }
        let limit = 1 + self.traffic.dice.below(9);
        self.follower.follow(&self.case.app, &self.case.tenant, limit).await;
        self.follower.agrees(&self.case.app, &self.case.tenant).await;
        let ids = self.ids().await;
        let model = &mut self.traffic.model;
        // What was away for longer, by the time it was seen again, is another message.
        for (n, _) in std::mem::take(&mut model.returned).iter().filter(|(_, at)| at.elapsed() > GRACE) {
            known.remove(n);
        }
        for (n, ids) in &ids {
            let most = model.mailboxes.values().map(|held| held.iter().filter(|m| *m == n).count()).max();
            let most = most.unwrap_or_default();
            assert!(ids.len() >= most, "{n}: {ids:?} for {most} in one mailbox");
            if most > 1 {
                model.twins.insert(*n, Instant::now());
            }
            if model.twins.contains_key(n) {
                known.remove(n);
                continue;
            }
            // Two that once were twins keep their two ids wherever they go, and when one has gone, either may be the one that
            // turns up elsewhere; but neither is new.
            let of_old = ids.iter().all(|id| self.old.contains(id));
            if ids.len() > 1 {
                assert!(
                    of_old || !known.contains_key(n),
                    "message {n} was {:?} and has two ids: {ids:?}",
                    known[n]
                );
                known.remove(n);
                continue;
            }
            self.checked += 1;
            let id = *ids.first().unwrap();
            let before = *known.entry(*n).or_insert(id);
            if of_old {
                known.insert(*n, id);
            } else if id != before {
                let app = &self.case.app;
                let (was, is) = (oracle::history(app, before).await, oracle::history(app, id).await);
                panic!("message {n} has another id; {before}: {was:#?}; {id}: {is:#?}");
            }
        }
        let live: BTreeSet<u32> = model.mailboxes.values().flatten().copied().collect();
        assert_eq!(ids.into_keys().collect::<BTreeSet<_>>(), live);
        model.twins.retain(|_, at| at.elapsed() < TWINS_REMEMBERED);
        model.gone.retain(|_, at| at.elapsed() < GRACE / 2);
        known.retain(|n, _| live.contains(n) || model.gone.contains_key(n));
        let all: Vec<Uuid> = sqlx::query_scalar("SELECT id FROM messages")
            .fetch_all(&mut self.case.app.database.superuser().await)
            .await
            .unwrap();
        self.old = all.into_iter().collect();
        self.traffic.steps.clear();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_survive_whatever_another_client_does_and_our_rows_are_the_servers() {
    let steps = setting("RANDOM_STEPS").unwrap_or(600);
    let seed = seed();
    eprintln!("RANDOM_SEED={seed} RANDOM_STEPS={steps}");
    let case = Case::with(vec![]).await;
    let traffic = Traffic::alone(&case.app, &case.user, Dice::new(seed)).await;
    let follower = Follower::begin(&case.app, &case.tenant, &case.account).await;
    let mut run = Run { case, traffic, old: BTreeSet::new(), checked: 0, follower };
    let mut known = BTreeMap::new();
    let started = Instant::now();
    let (mut done, mut pauses) = (0, 0);
    while done < steps {
        let burst = 1 + run.traffic.dice.below(BURST);
        for _ in 0..burst {
            run.traffic.step(&run.case).await;
            // Rounds come at any moment, not only when all is quiet.
            if run.traffic.dice.below(10) == 0 {
                let path = format!("/api/sync/imap/{}", run.case.account);
                run.case.app.post(&run.case.tenant, &path, &serde_json::json!({})).await.expect(202);
            }
        }
        done += burst as u64;
        pauses += 1;
        run.pause(&mut known, pauses % 8 == 0).await;
        if pauses % 50 == 0 {
            eprintln!("{done} steps, {} ids compared, {:?}", run.checked, started.elapsed());
        }
    }
    run.pause(&mut known, true).await;
    let (made, checked, took) = (run.traffic.model.next, run.checked, started.elapsed());
    eprintln!("{done} steps, {pauses} pauses, {made} messages made, {checked} ids compared, {took:?}");
    assert!(checked as u64 > steps, "hardly anything was looked at");
    run.traffic.log_out().await;
    run.case.finish().await;
}
