//! Questions to the database behind the product's back, as its superuser: one session of psql.

use std::collections::HashMap;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use devstack::Endpoints;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::milliseconds;

/// No row of ours is like it.
const END: &str = "=end=";
/// Between two looks at the locks.
const LOOK: Duration = Duration::from_millis(20);

/// What waits for a mail server, or is on its way there.
const WAITS: &str = "SELECT EXISTS (SELECT 1 FROM edits) OR EXISTS (
    SELECT 1 FROM jobs WHERE kind IN ('push_changes', 'sync_account') AND (state = 'running' OR state = 'ready' AND run_at <= now()))";

/// Transactions that have written or locked a row, and who has waited longest for a lock. A lock of a row is held until the
/// end of its transaction.
const LOCKS: &str = "SELECT 'held', backend_xid, 0, left(regexp_replace(query, '\\s+', ' ', 'g'), 120) FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND backend_xid IS NOT NULL;
    SELECT 'awaited', 0, round(extract(epoch FROM clock_timestamp() - l.waitstart) * 1000), left(regexp_replace(a.query, '\\s+', ' ', 'g'), 120)
    FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT l.granted AND l.waitstart IS NOT NULL ORDER BY l.waitstart LIMIT 1";

/// A session.
pub(super) struct Sql {
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    // Ends with this value.
    _child: Child,
}

/// What [`Sql::watch_locks`] saw.
#[derive(Default)]
pub(super) struct Locks {
    /// The longest that a transaction held locks.
    pub(super) held: Longest,
    /// The longest that somebody waited for one.
    pub(super) awaited: Longest,
}

/// The longest time, and what was said then.
#[derive(Default)]
pub(super) struct Longest {
    pub(super) milliseconds: f64,
    pub(super) statement: String,
}

impl Sql {
    pub(super) fn open(endpoints: &Endpoints) -> Result<Self> {
        let mut child = Command::new(devstack::psql()?)
            .args(["-X", "-q", "-A", "-t", "-F", "\t", "-v", "ON_ERROR_STOP=1", &endpoints.postgres_url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("psql")?;
        let input = child.stdin.take().context("psql has no input")?;
        let output = child.stdout.take().context("psql has no output")?;
        Ok(Self { input, output: BufReader::new(output).lines(), _child: child })
    }

    /// The rows of some statements, their columns apart by tabs. An error is told by psql itself.
    pub(super) async fn rows(&mut self, statements: &str) -> Result<Vec<String>> {
        self.input.write_all(format!("{statements};\n\\echo {END}\n").as_bytes()).await?;
        let mut rows = Vec::new();
        while let Some(line) = self.output.next_line().await? {
            if line == END {
                return Ok(rows);
            }
            rows.push(line);
        }
        bail!("psql has ended at {statements}")
    }

    /// Waits until the mail servers have everything that our users asked for.
    pub(super) async fn until_pushed(&mut self) -> Result<()> {
        while self.rows(WAITS).await?.iter().any(|row| row == "t") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Waits until nothing is left of the accounts that were deleted.
    pub(super) async fn until_removed(&mut self) -> Result<()> {
        while self.rows("SELECT EXISTS (SELECT 1 FROM account_removals)").await?.iter().any(|row| row == "t")
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Looks at the locks of the whole database until `over`.
    pub(super) async fn watch_locks(&mut self, over: &AtomicBool) -> Result<Locks> {
        let (mut seen, mut holders) = (Locks::default(), HashMap::new());
        while !over.load(Ordering::Relaxed) {
            let rows = self.rows(LOCKS).await?;
            let now = Instant::now();
            let columns: Vec<Vec<&str>> = rows.iter().map(|row| row.split('\t').collect()).collect();
            for row in &columns {
                let &[kind, transaction, waits, statement] = row.as_slice() else { continue };
                if kind == "held" {
                    // When it got its first lock its begin does not tell: it may have read for long before.
                    let first = *holders.entry(transaction.to_owned()).or_insert(now);
                    seen.held.note(milliseconds(now - first), statement);
                } else {
                    seen.awaited.note(waits.parse()?, statement);
                }
            }
            holders
                .retain(|transaction, _| columns.iter().any(|row| row.get(1) == Some(&transaction.as_str())));
            tokio::time::sleep(LOOK).await;
        }
        Ok(seen)
    }
}

impl Longest {
    fn note(&mut self, milliseconds: f64, statement: &str) {
        if milliseconds > self.milliseconds {
            *self = Self { milliseconds, statement: statement.to_owned() };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use devstack::{Options, Stack};

    use super::{Locks, Sql};

    #[tokio::test]
    async fn a_lock_that_is_held_and_one_that_is_waited_for_are_seen() {
        let stack = Stack::start(&Options { fsync: false, ..Options::default() }).unwrap();
        let open = || Sql::open(stack.endpoints()).unwrap();
        let (mut holder, mut waiter, mut watcher) = (open(), open(), open());
        holder.rows("CREATE TABLE t (n int); INSERT INTO t VALUES (1)").await.unwrap();
        assert_eq!(holder.rows("SELECT n, n + 1 FROM t").await.unwrap(), ["1\t2"]);
        holder.rows("BEGIN; UPDATE t SET n = 2").await.unwrap();
        let over = AtomicBool::new(false);
        let wait = async {
            tokio::select! {
                done = waiter.rows("UPDATE t SET n = 3") => panic!("it did not wait: {done:?}"),
                () = tokio::time::sleep(Duration::from_millis(500)) => {}
            }
            over.store(true, Ordering::Relaxed);
        };
        let ((), seen) = tokio::join!(wait, watcher.watch_locks(&over));
        let seen = seen.unwrap();
        let Locks { held, awaited } = seen;
        assert!(held.milliseconds > 300.0 && awaited.milliseconds > 200.0);
        assert!(held.milliseconds < 5_000.0, "{}", held.statement);
        assert!(awaited.statement.contains("SET n = 3"), "{}", awaited.statement);
    }
}
