//! What Linux knows of another process: memory and CPU.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

/// The unit of `/proc/<pid>/stat`: fixed at a hundredth of a second for user space on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

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
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("the process has ended")?;
    // The name in parentheses may hold anything; fields are counted from behind it.
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    let mut times = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    let (Some(user), Some(system)) = (times.next(), times.next()) else {
        return Err(anyhow!("odd stat: {stat}"));
    };
    Ok((user? + system?) / TICKS_PER_SECOND)
}

/// Waits until it uses less than a twentieth of a core, half a minute at most: work it does after the answer (the
/// search index) belongs to it, not to whatever is measured next.
pub(crate) async fn settle(pid: u32) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(30);
    while Instant::now() < until {
        let before = cpu_seconds(pid)?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        if cpu_seconds(pid)? - before < 0.05 {
            break;
        }
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
}
