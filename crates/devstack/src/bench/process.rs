//! What Linux knows of another process: memory and CPU.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

/// The unit of `/proc/<pid>/stat`: fixed at a hundredth of a second for user space on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

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

/// User and system time of all its threads so far.
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64> {
    Ok(Times::of(pid)?.own)
}

/// User and system time of the children that have ended and were waited for.
pub(crate) fn ended_children_cpu_seconds(pid: u32) -> Result<f64> {
    Ok(Times::of(pid)?.ended_children)
}

/// User and system time of a server with all its processes, those that have ended included.
pub(crate) fn family_cpu_seconds(pid: u32) -> Result<f64> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(id) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // One that ends while we look has given its time to its parent.
        if let Ok(times) = Times::of(id) {
            all.push((id, times));
        }
    }
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        family.extend(all.iter().filter(|(_, t)| t.parent == parent).map(|(id, _)| *id));
        next += 1;
    }
    let members = all.iter().filter(|(id, _)| family.contains(id));
    Ok(members.map(|(_, t)| t.own + t.ended_children).sum())
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

/// Waits until it has used less than a twentieth of a core for 8 seconds, a minute at most: work it does after the answer
/// belongs to it, not to whatever is measured next. The text of a first synchronisation is indexed by a job that starts 5
/// seconds later, so that a shorter silence proves nothing.
pub(crate) async fn settle(pid: u32) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(60);
    let (mut quiet, mut before) = (0, cpu_seconds(pid)?);
    while quiet < 8 && Instant::now() < until {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = cpu_seconds(pid)?;
        quiet = if now - before < 0.05 { quiet + 1 } else { 0 };
        before = now;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_process_has_memory_and_has_used_the_processor() {
        let pid = std::process::id();
        assert!(super::resident_mb(pid).unwrap() > 0.5);
        assert!(super::peak_mb(pid).unwrap() >= super::resident_mb(pid).unwrap() * 0.9);
        assert!(super::cpu_seconds(pid).unwrap() >= 0.0);
    }

    #[test]
    fn the_time_of_a_child_counts_while_it_runs_and_after_its_end() {
        let pid = std::process::id();
        let before = super::family_cpu_seconds(pid).unwrap();
        let mut child = std::process::Command::new("sh")
            .args(["-c", "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; echo; read line"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut done = [0];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut done).unwrap();
        let running = super::family_cpu_seconds(pid).unwrap();
        assert!(running > before);
        let ended_before = super::ended_children_cpu_seconds(pid).unwrap();
        child.wait().unwrap();
        assert!(super::ended_children_cpu_seconds(pid).unwrap() > ended_before);
        assert!(super::family_cpu_seconds(pid).unwrap() >= running);
    }
}
