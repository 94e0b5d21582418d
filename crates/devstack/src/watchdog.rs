//! The process that outlives us by a moment to end what we started.
//!
//! A shell in a process group of its own reads a pipe whose other end only this process holds. The kernel closes
//! that end however this process goes (return, panic, abort, SIGKILL), so the shell's reads end exactly then. It is
//! the only thing that ends servers, in every case, so the orderly way and the violent one are the same tested code.
//! Parent-death signals are not used: they are bound to the thread that forked and are lost when a server changes
//! its user.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

/// Lines in: `server SIGNAL PID`, `user SIGNAL PID` (signal it at the end), `forget PID`, `remove DIR` (delete it at
/// the very end). At the end the users of the servers get their signals first, then the servers; what is alive of
/// either after 5 s is killed with its process group.
const SCRIPT: &str = r#"
trap '' INT TERM HUP QUIT PIPE
servers= users= remove=
without() { for e in $2; do [ "${e%%:*}" = "$1" ] || printf '%s ' "$e"; done; }
while read -r verb a b; do
  case $verb in
    server) servers="$b:$a $servers" ;;
    user) users="$b:$a $users" ;;
    forget) servers=$(without "$a" "$servers") users=$(without "$a" "$users") ;;
    remove) remove="$a${b:+ $b}" ;;
  esac
done
alive() { kill -0 "$1" 2>/dev/null && ! grep -q '^State:.Z' "/proc/$1/status" 2>/dev/null; }
finish() {
  for e in $1; do kill -"${e#*:}" "${e%%:*}" 2>/dev/null; done
  tries=0
  while [ $tries -lt 100 ]; do
    left=; for e in $1; do alive "${e%%:*}" && left=1; done
    [ -n "$left" ] || break
    tries=$((tries + 1)); sleep 0.05
  done
  for e in $1; do
    if alive "${e%%:*}"; then kill -KILL "${e%%:*}" 2>/dev/null; fi
    kill -KILL -- "-${e%%:*}" 2>/dev/null
  done
}
finish "$users"
finish "$servers"
[ -z "$remove" ] || { rm -rf -- "$remove" 2>/dev/null || { sleep 0.3; rm -rf -- "$remove"; }; }
exit 0
"#;

/// How long an orderly end may take before we stop waiting for it; the shell itself gives users and servers
/// 5 s each.
const PATIENCE: Duration = Duration::from_secs(15);

/// A running watchdog; dropping it ends everything registered and waits for that.
pub(crate) struct Watchdog {
    shell: Child,
    pipe: Mutex<Option<ChildStdin>>,
}

impl Watchdog {
    /// Starts the shell. Errors when `/bin/sh` cannot be started.
    pub(crate) fn start() -> Result<Self> {
        let mut shell = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "devstack-watchdog"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            .process_group(0)
            .spawn()
            .context("/bin/sh for the watchdog")?;
        let pipe = Mutex::new(shell.stdin.take());
        Ok(Self { shell, pipe })
    }

    /// Has the server `pid` (and at last its process group) ended by `name`, a signal such as `TERM`.
    pub(crate) fn end_server(&self, name: &str, pid: u32) -> Result<()> {
        self.say(&format!("server {name} {pid}\n"))
    }

    /// Has a user of the servers ended by SIGTERM, before they are.
    pub(crate) fn end_user(&self, pid: u32) -> Result<()> {
        self.say(&format!("user TERM {pid}\n"))
    }

    /// `pid` has ended and was reaped: its number may now belong to a stranger.
    pub(crate) fn forget(&self, pid: u32) -> Result<()> {
        self.say(&format!("forget {pid}\n"))
    }

    /// Deletes `dir` once all servers are gone.
    pub(crate) fn remove(&self, dir: &std::path::Path) -> Result<()> {
        self.say(&format!("remove {}\n", dir.display()))
    }

    fn say(&self, line: &str) -> Result<()> {
        let mut pipe =
            self.pipe.lock().map_err(|_| anyhow!("another thread panicked while telling the watchdog"))?;
        let pipe = pipe.as_mut().ok_or_else(|| anyhow!("the watchdog is already ending"))?;
        pipe.write_all(line.as_bytes()).context("the watchdog is gone")
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        if let Ok(mut pipe) = self.pipe.lock() {
            pipe.take();
        }
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if !matches!(self.shell.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
