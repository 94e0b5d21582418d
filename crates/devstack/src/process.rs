//! Starting one child and waiting until it answers.

use std::ffi::OsStr;
use std::fs::File;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::watchdog::Watchdog;

/// A busy two-core machine with a cold page cache needs several seconds; a broken server says so in its log.
pub(crate) const START_TIMEOUT: Duration = Duration::from_secs(40);

/// Starts children so that the watchdog knows each from its first moment, and reaps them.
pub(crate) struct Spawner {
    // Dropped first: it ends the children, which are reaped after that.
    watchdog: Watchdog,
    children: Mutex<Children>,
}

#[derive(Default)]
struct Children(Vec<Child>);

impl Drop for Children {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // Nothing is left to do for one that cannot be reaped.
            let _ = child.try_wait();
        }
    }
}

/// Whether a child gets a process group of its own, which keeps the terminal's Ctrl-C from it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    /// The usual way.
    Own,
    /// For Postfix's master(8): it wants to lead a session, which the leader of a group may not begin.
    ItMakesItsOwn,
}

impl Spawner {
    pub(crate) fn new(watchdog: Watchdog) -> Self {
        Self { watchdog, children: Mutex::default() }
    }

    pub(crate) fn watchdog(&self) -> &Watchdog {
        &self.watchdog
    }

    /// Starts a server whose output goes to `log`; it is ended by `signal` when the stack ends.
    pub(crate) fn server(&self, mut command: Command, log: &Path, signal: &str, group: Group) -> Result<u32> {
        if group == Group::Own {
            command.process_group(0);
        }
        let child = quiet(&mut command, log)?.spawn().with_context(|| describe(&command))?;
        let pid = child.id();
        self.watchdog.end_server(signal, pid)?;
        self.children.lock().map_err(|_| anyhow!("a starting thread panicked"))?.0.push(child);
        Ok(pid)
    }

    /// Runs a command to its end; an error holds the end of `log`, which it wrote to.
    pub(crate) fn finish(&self, mut command: Command, log: &Path) -> Result<()> {
        let mut child =
            quiet(&mut command, log)?.process_group(0).spawn().with_context(|| describe(&command))?;
        self.watchdog.end_server("TERM", child.id())?;
        let status = child.wait()?;
        self.watchdog.forget(child.id())?;
        if !status.success() {
            bail!("{} ended with {status}:\n{}", describe(&command), tail(log));
        }
        Ok(())
    }

    /// Waits until `ready` says yes; fails at once when `pid` has ended, else after [`START_TIMEOUT`].
    pub(crate) fn wait_ready(&self, pid: u32, log: &Path, mut ready: impl FnMut() -> bool) -> Result<()> {
        let until = Instant::now() + START_TIMEOUT;
        loop {
            if ready() {
                return Ok(());
            }
            if let Some(status) = self.ended(pid)? {
                bail!("it ended with {status}:\n{}", tail(log));
            }
            if Instant::now() > until {
                bail!("it does not answer after {} s:\n{}", START_TIMEOUT.as_secs(), tail(log));
            }
            std::thread::sleep(Duration::from_millis(15));
        }
    }

    /// How many children still run; reaps those that do not.
    pub(crate) fn running(&self) -> usize {
        let Ok(mut children) = self.children.lock() else { return 0 };
        children.0.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        children.0.len()
    }

    fn ended(&self, pid: u32) -> Result<Option<std::process::ExitStatus>> {
        let mut children = self.children.lock().map_err(|_| anyhow!("a starting thread panicked"))?;
        match children.0.iter_mut().find(|child| child.id() == pid) {
            Some(child) => Ok(child.try_wait()?),
            None => bail!("process {pid} is not ours"),
        }
    }
}

fn quiet<'a>(command: &'a mut Command, log: &Path) -> Result<&'a mut Command> {
    let file =
        File::options().create(true).append(true).open(log).with_context(|| log.display().to_string())?;
    Ok(command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file))
}

fn describe(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

/// The last lines of a log, for an error message.
pub(crate) fn tail(log: &Path) -> String {
    let text = std::fs::read(log).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let shown = lines.get(lines.len().saturating_sub(15)..).unwrap_or_default();
    format!("{}\n(from {})", shown.join("\n"), log.display())
}

/// Whether somebody accepts connections on that loopback port.
pub(crate) fn accepts(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// Sends signal `name` (such as `TERM`) to process `pid`. Errors when there is no such process, or it is not ours.
pub fn signal(name: &str, pid: u32) -> Result<()> {
    let status = Command::new("/bin/sh")
        .args(["-c", "kill -\"$0\" \"$1\"", name, &pid.to_string()])
        .stderr(Stdio::null())
        .status()?;
    if status.success() { Ok(()) } else { bail!("no process {pid}") }
}

/// Whether this process may do as root.
pub(crate) fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    // Real, effective, saved and file system user id.
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
    uids.split_whitespace().nth(1) == Some("0")
}

/// `program` run as the first of `users` that exists when we are root, as ourselves otherwise.
pub(crate) fn unprivileged(program: impl AsRef<OsStr>, users: &[&str]) -> Result<Command> {
    if !is_root() {
        return Ok(Command::new(program));
    }
    let user = account(users)?;
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={}", user.uid)).arg(format!("--regid={}", user.gid)).arg("--clear-groups");
    command.arg("--").arg(program);
    Ok(command)
}

/// A line of `/etc/passwd`.
pub(crate) struct Account {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// The first of `names` that the machine knows.
pub(crate) fn account(names: &[&str]) -> Result<Account> {
    let passwd = std::fs::read_to_string("/etc/passwd").context("/etc/passwd")?;
    for name in names {
        for line in passwd.lines() {
            let mut fields = line.split(':');
            if fields.next() == Some(name) {
                let mut number = |skip: usize| fields.nth(skip).and_then(|f| f.parse().ok());
                if let (Some(uid), Some(gid)) = (number(1), number(0)) {
                    return Ok(Account { uid, gid });
                }
            }
        }
    }
    bail!("none of the users {names:?} exists; `make deps` installs the packages that create them")
}

/// The first of `places` that exists, or the program by name on PATH.
pub(crate) fn find(name: &str, places: &[&str]) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = places.iter().map(PathBuf::from).chain(std::env::split_paths(&path));
    dirs.map(|dir| dir.join(name))
        .find(|file| file.is_file())
        .ok_or_else(|| anyhow!("{name} is not installed; run `make deps`"))
}
