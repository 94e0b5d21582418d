//! What Linux knows of another process: memory and CPU.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use devstack::Endpoints;

use super::WORKER;
use crate::product::Product;

/// The unit of `/proc/<pid>/stat`: fixed at a hundredth of a second for user space on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;
/// Looks at a family until none of its members ended between two of them; one that never rests is counted as it is.
const LOOKS: usize = 20;

/// The process that a server's file names in its first line.
pub(crate) fn of_pid_file(file: &Path) -> Result<u32> {
    let text = std::fs::read_to_string(file).with_context(|| format!("{}", file.display()))?;
    Ok(text.lines().next().unwrap_or_default().trim().parse()?)
}

/// Resident now, in MB (10^6 bytes).
pub(crate) fn resident_mb(pid: u32) -> Result<f64> {
    status_mb(pid, "VmRSS:")
}

/// The most it ever had resident, in MB (10^6 bytes).
pub(crate) fn peak_mb(pid: u32) -> Result<f64> {
    status_mb(pid, "VmHWM:")
}

fn status_mb(pid: u32, field: &str) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("the process has ended")?;
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib: f64 =
        line.and_then(|l| l.split_whitespace().next()).ok_or_else(|| anyhow!("no {field}"))?.parse()?;
    Ok(kib * 1024.0 / 1e6)
}

/// User and system time of the children that have ended and were waited for.
pub(crate) fn ended_children_cpu_seconds(pid: u32) -> Result<f64> {
    Ok(Times::of(pid)?.ended_children)
}

/// User and system time of a server with all its processes, those that have ended included.
pub(crate) fn family_cpu_seconds(pid: u32) -> Result<f64> {
    let mut before = family(pid)?;
    // Linux shows one process after the other: one that ends meanwhile is missed, or counted with its parent once more.
    for _ in 0..LOOKS {
        let now = family(pid)?;
        let stood = |(id, times): (&u32, &Times)| {
            now.get(id).is_some_and(|later| later.ended_children <= times.ended_children)
        };
        if before.iter().all(stood) {
            break;
        }
        before = now;
    }
    Ok(before.values().map(|times| times.own + times.ended_children).sum())
}

/// The process and all that come from it, as far as their parents live.
fn family(pid: u32) -> Result<HashMap<u32, Times>> {
    let mut all = HashMap::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(id) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if let Ok(times) = Times::of(id) {
            all.insert(id, times);
        }
    }
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        family.extend(all.iter().filter(|(_, t)| t.parent == parent).map(|(id, _)| *id));
        next += 1;
    }
    all.retain(|id, _| family.contains(id));
    Ok(all)
}

struct Times {
    parent: u32,
    own: f64,
    ended_children: f64,
}

impl Times {
    fn of(pid: u32) -> Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("the process has ended")?;
        // The name in parentheses may hold anything; fields are counted from behind it.
        let fields: Vec<&str> =
            stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        let number = |at: usize| -> Result<f64> {
            Ok(fields.get(at).ok_or_else(|| anyhow!("odd stat: {stat}"))?.parse()?)
        };
        Ok(Self {
            parent: fields.get(1).unwrap_or(&"0").parse()?,
            own: (number(11)? + number(12)?) / TICKS_PER_SECOND,
            ended_children: (number(13)? + number(14)?) / TICKS_PER_SECOND,
        })
    }
}

/// Waits until they together have used less than a twentieth of a core for 8 seconds, a minute at most: work that is done
/// after the answer belongs to it, not to whatever is measured next. The text of a first synchronisation is indexed by a
/// job that starts 5 seconds later, so that a shorter silence proves nothing.
pub(crate) async fn settle(pids: &[u32]) -> Result<()> {
    let used = || pids.iter().map(|pid| family_cpu_seconds(*pid)).sum::<Result<f64>>();
    let until = Instant::now() + Duration::from_secs(60);
    let (mut quiet, mut before) = (0, used()?);
    while quiet < 8 && Instant::now() < until {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = used()?;
        quiet = if now - before < 0.05 { quiet + 1 } else { 0 };
        before = now;
    }
    Ok(())
}

/// Those whose work a synchronisation is.
pub(crate) struct Servers {
    pub(crate) worker: u32,
    postgres: u32,
    dovecot: u32,
}

impl Servers {
    pub(crate) fn of(endpoints: &Endpoints, product: &Product) -> Result<Self> {
        Ok(Self {
            worker: product.pid(WORKER).context("the worker has no process id")?,
            postgres: of_pid_file(&endpoints.dir.join("postgres/postmaster.pid"))?,
            dovecot: of_pid_file(&endpoints.dir.join("dovecot/master.pid"))?,
        })
    }

    /// [`settle`], for all of them.
    pub(crate) async fn settle(&self) -> Result<()> {
        settle(&[self.worker, self.postgres, self.dovecot]).await
    }

    /// Of the worker, PostgreSQL and Dovecot, so far.
    pub(crate) fn cpu_seconds(&self) -> Result<[f64; 3]> {
        let [worker, postgres, dovecot] = [self.worker, self.postgres, self.dovecot].map(family_cpu_seconds);
        Ok([worker?, postgres?, dovecot?])
    }

    /// The same since a reading of before.
    pub(crate) fn cpu_seconds_since(&self, [worker, postgres, dovecot]: [f64; 3]) -> Result<[f64; 3]> {
        let now = self.cpu_seconds()?;
        Ok([now[0] - worker, now[1] - postgres, now[2] - dovecot])
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    #[test]
    fn this_process_has_memory() {
        let pid = std::process::id();
        assert!(super::resident_mb(pid).unwrap() > 0.5);
        assert!(super::peak_mb(pid).unwrap() >= super::resident_mb(pid).unwrap() * 0.9);
    }

    /// The family is of the test's own: the tests beside it in this process have children too, which come and go.
    #[test]
    fn the_time_of_a_child_counts_while_it_runs_and_after_its_end() {
        let work = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; echo; read line";
        let mut parent = std::process::Command::new("sh")
            .args(["-c", &format!("sh -c '{work}'; echo; read line")])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let (pid, mut said) = (parent.id(), [0]);
        let (mut hears, mut says) = (parent.stdin.take().unwrap(), parent.stdout.take().unwrap());
        says.read_exact(&mut said).unwrap();
        let ended_before = super::ended_children_cpu_seconds(pid).unwrap();
        let running = super::family_cpu_seconds(pid).unwrap();
        assert!(running > super::Times::of(pid).unwrap().own);
        hears.write_all(b"\n").unwrap();
        says.read_exact(&mut said).unwrap();
        assert!(super::ended_children_cpu_seconds(pid).unwrap() > ended_before);
        assert!(super::family_cpu_seconds(pid).unwrap() >= running);
        drop(hears);
        parent.wait().unwrap();
    }

    /// Of children that end all the time none is missed and none is counted twice.
    #[test]
    fn the_time_of_a_family_never_goes_back_while_children_end() {
        let work = "sh -c 'i=0; while [ $i -lt 3000 ]; do i=$((i+1)); done'";
        let mut parent = std::process::Command::new("sh")
            .args(["-c", &format!("n=0; while [ $n -lt 300 ]; do {work} & {work}; wait; n=$((n+1)); done")])
            .spawn()
            .unwrap();
        let (mut looks, mut before) = (0, 0.0);
        while parent.try_wait().unwrap().is_none() {
            let Ok(now) = super::family_cpu_seconds(parent.id()) else { break };
            // It is gone, but not yet waited for by us, or it was.
            assert!(now >= before || super::Times::of(parent.id()).is_err(), "{now} after {before}");
            (looks, before) = (looks + 1, now);
        }
        assert!(looks > 20);
    }
}
