//! What only the database knows of all tenants together: how many accounts, jobs, submissions and webhooks are in which state.
//! Asked every now and then by one process, never at a scrape.

use std::collections::BTreeSet;

use metrics::gauge;

use crate::platform::db::{Db, DbError, SystemTx};
use crate::platform::metrics::table::{self, Metric};

/// Gauges by one label, of which each is 0 again when nothing is left of it.
#[derive(Debug, Default)]
pub struct Fleet {
    seen: BTreeSet<(&'static str, Vec<(&'static str, String)>)>,
    looked: bool,
}

type Found = Vec<(Vec<(&'static str, String)>, f64)>;

impl Fleet {
    /// Looks, and sets the gauges.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn look(&mut self, db: &Db) -> Result<(), DbError> {
        let mut tx = db.system().await?;
        let accounts = by_state(&mut tx, "SELECT state, count(*) FROM accounts GROUP BY state").await?;
        let webhooks = by_state(&mut tx, "SELECT state, count(*) FROM webhooks GROUP BY state").await?;
        let submissions = by_state(
            &mut tx,
            "SELECT state, count(*) FROM submissions WHERE state IN ('queued', 'sending', 'unknown') GROUP BY state",
        )
        .await?;
        let (jobs, oldest) = jobs(&mut tx).await?;
        let lag: Option<f64> = sqlx::query_scalar(
            "SELECT extract(epoch FROM now() - min(l.next_due_at))::float8 FROM account_leases l
             JOIN accounts a ON a.tenant_id = l.tenant_id AND a.id = l.account_id
             JOIN tenants t ON t.id = l.tenant_id
             WHERE a.state <> 'paused' AND t.suspended_at IS NULL",
        )
        .fetch_one(tx.conn())
        .await?;
        tx.release();
        self.looked = true;
        gauge!(table::SYNC_LAG.name).set(lag.unwrap_or_default().max(0.0));
        for (metric, found) in [
            (table::ACCOUNTS, accounts),
            (table::WEBHOOKS, webhooks),
            (table::SUBMISSIONS, submissions),
            (table::JOBS, jobs),
            (table::JOBS_OLDEST, oldest),
        ] {
            self.set(&metric, found);
        }
        Ok(())
    }

    /// Another process counts from now on: a sum over all is right with 0 from here.
    pub fn forget(&mut self) {
        if self.looked {
            gauge!(table::SYNC_LAG.name).set(0.0);
            for (name, labels) in std::mem::take(&mut self.seen) {
                gauge!(name, &labels).set(0.0);
            }
            self.looked = false;
        }
    }

    fn set(&mut self, metric: &Metric, found: Found) {
        let mut gone: BTreeSet<_> =
            self.seen.iter().filter(|(name, _)| *name == metric.name).cloned().collect();
        for (labels, value) in found {
            gauge!(metric.name, &labels).set(value);
            gone.remove(&(metric.name, labels.clone()));
            self.seen.insert((metric.name, labels));
        }
        for (name, labels) in gone {
            gauge!(name, &labels).set(0.0);
        }
    }
}

async fn by_state(tx: &mut SystemTx, sql: &'static str) -> Result<Found, DbError> {
    let rows: Vec<(String, i64)> = sqlx::query_as(sql).fetch_all(tx.conn()).await?;
    Ok(rows.into_iter().map(|(state, count)| (vec![("state", state)], count as f64)).collect())
}

/// How many of each kind are ready or running, and how long the first of each waits.
async fn jobs(tx: &mut SystemTx) -> Result<(Found, Found), DbError> {
    let rows: Vec<(String, String, i64, f64)> = sqlx::query_as(
        "SELECT kind, state, count(*), coalesce(extract(epoch FROM now() - min(run_at)), 0)::float8 FROM jobs
         WHERE state = 'running' OR (state = 'ready' AND run_at <= now()) GROUP BY kind, state",
    )
    .fetch_all(tx.conn())
    .await?;
    let oldest = rows.iter().filter(|row| row.1 == "ready");
    let oldest = oldest.map(|(kind, _, _, waits)| (vec![("kind", kind.clone())], waits.max(0.0))).collect();
    let counts = rows.into_iter();
    let counts = counts.map(|(kind, state, count, _)| (vec![("kind", kind), ("state", state)], count as f64));
    Ok((counts.collect(), oldest))
}
