//! The set of servers as one thing that starts and ends.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::endpoints::Endpoints;
use crate::process::{Account, Spawner, account, is_root};
use crate::shared::Supervisor;
use crate::watchdog::Watchdog;
use crate::{certificates, dovecot, ports, postfix, postgres, redis, token_key};

/// How a stack is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where all data lies. `None`: a new folder under the temporary directory, deleted at the end. A folder that
    /// was used before keeps its database, its mail and its ports; certificates are new each time.
    pub dir: Option<PathBuf>,
    /// Whether PostgreSQL makes commits durable. Tests do without; the demo and measurements do not.
    pub fsync: bool,
    /// `host:port` that takes mail for other domains than `lab.test`; without it such mail is refused.
    pub relay: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { dir: None, fsync: true, relay: None }
    }
}

/// Unix sockets lie up to 27 bytes below this, and their paths end at 107.
const LONGEST_DIR_BYTES: usize = 75;

/// Four running servers. Dropping it ends them and waits until they are gone; so does the death of this process by
/// whatever cause, for which a watchdog stands by.
pub struct Stack {
    endpoints: Endpoints,
    // Its drop ends the servers.
    spawner: Option<Spawner>,
    // Holds the servers when we are not root; the spawner then has only what was adopted.
    supervisor: Option<Mutex<Supervisor>>,
}

const SERVERS: usize = 4;

impl Stack {
    /// Starts all four at once and returns when each answers. Postfix and Dovecot change users, which
    /// only root may: anybody else gets the servers through `sudo -n devstack up`, and the mail is theirs.
    ///
    /// # Errors
    /// A server that is not installed (`make deps`), or does not start: the message has the end of its log. What
    /// had started is ended again.
    pub fn start(options: &Options) -> Result<Self> {
        if !is_root() {
            return Self::through_sudo(options);
        }
        let plan = Plan::new(options)?;
        let watchdog = Watchdog::start()?;
        if options.dir.is_none() {
            watchdog.remove(&plan.dir)?;
        }
        let spawner = Spawner::new(watchdog);
        let certificates = certificates::create(&plan.dir.join("tls")).context("certificates")?;
        // doveadm reads the whole configuration, keys included, also when the owner of the mail runs it.
        chown(&certificates.key, Some(plan.mail_owner.uid), Some(plan.mail_owner.gid))?;
        token_key::create(&plan).context("the key of tokens")?;
        std::thread::scope(|scope| {
            let starting = [
                ("PostgreSQL", scope.spawn(|| postgres::start(&plan, &spawner))),
                ("Redis", scope.spawn(|| redis::start(&plan, &spawner))),
                ("Dovecot", scope.spawn(|| dovecot::start(&plan, &certificates, &spawner))),
                ("Postfix", scope.spawn(|| postfix::start(&plan, &certificates, &spawner))),
            ];
            // All are joined before the first error is told: none may still be spawning when the watchdog ends.
            let results: Vec<Result<()>> = starting
                .into_iter()
                .map(|(name, thread)| {
                    let result = thread.join().map_err(|_| anyhow!("its starter panicked")).flatten();
                    result.with_context(|| format!("{name} did not start"))
                })
                .collect();
            results.into_iter().collect::<Result<()>>()
        })?;
        Ok(Self { endpoints: plan.endpoints(&certificates.ca), spawner: Some(spawner), supervisor: None })
    }

    fn through_sudo(options: &Options) -> Result<Self> {
        let mut arguments = Vec::new();
        if let Some(dir) = &options.dir {
            arguments
                .extend(["--dir", dir.to_str().ok_or_else(|| anyhow!("{} is not UTF-8", dir.display()))?]);
        }
        if !options.fsync {
            arguments.push("--no-fsync");
        }
        if let Some(relay) = &options.relay {
            arguments.extend(["--relay", relay]);
        }
        let spawner = Some(Spawner::new(Watchdog::start()?));
        let (supervisor, endpoints) = Supervisor::start(&arguments)?;
        Ok(Self { endpoints, spawner, supervisor: Some(Mutex::new(supervisor)) })
    }

    /// Where everything listens.
    pub fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// Has another child of this process ended (by SIGTERM, after 5 s by SIGKILL to its process group)
    /// when the stack ends, before its servers are.
    ///
    /// # Errors
    /// Only when the watchdog was killed by somebody.
    pub fn adopt(&self, child: &Child) -> Result<()> {
        self.adopt_pid(child.id())
    }

    /// [`Stack::adopt`] by number, for children that are no [`std::process::Child`].
    ///
    /// # Errors
    /// Only when the watchdog was killed by somebody.
    pub fn adopt_pid(&self, pid: u32) -> Result<()> {
        let spawner = self.spawner.as_ref().ok_or_else(|| anyhow!("the stack is ending"))?;
        spawner.watchdog().end_user(pid)
    }

    /// Takes back [`Stack::adopt`] for a child that has ended.
    ///
    /// # Errors
    /// Only when the watchdog was killed by somebody.
    pub fn forget_pid(&self, pid: u32) -> Result<()> {
        let spawner = self.spawner.as_ref().ok_or_else(|| anyhow!("the stack is ending"))?;
        spawner.watchdog().forget(pid)
    }

    /// Whether all servers still run.
    pub fn is_running(&self) -> bool {
        match &self.supervisor {
            Some(supervisor) => supervisor.lock().is_ok_and(|mut s| s.is_running()),
            None => self.spawner.as_ref().is_some_and(|s| s.running() == SERVERS),
        }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // What uses the servers goes first.
        drop(self.spawner.take());
        drop(self.supervisor.take());
    }
}

/// What the servers need to know of each other before they start.
pub(crate) struct Plan {
    pub(crate) dir: PathBuf,
    pub(crate) fsync: bool,
    pub(crate) relay: Option<String>,
    pub(crate) mail_owner: Account,
    pub(crate) postgres: u16,
    pub(crate) redis: u16,
    pub(crate) imap: u16,
    pub(crate) imaps: u16,
    pub(crate) lmtp: u16,
    pub(crate) smtp: u16,
    pub(crate) submission: u16,
    pub(crate) submissions: u16,
}

impl Plan {
    fn new(options: &Options) -> Result<Self> {
        let dir = match &options.dir {
            Some(dir) => dir.clone(),
            None => temporary()?,
        };
        fs::create_dir_all(dir.join("log")).with_context(|| dir.display().to_string())?;
        let dir = dir.canonicalize()?;
        // Each server is a user of its own and must reach its part, whatever our umask is.
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755))?;
        let text = dir.to_str().ok_or_else(|| anyhow!("{} is not UTF-8", dir.display()))?;
        if text.len() > LONGEST_DIR_BYTES
            || text.contains(|c: char| c.is_whitespace() || "%$#,:\"'".contains(c))
        {
            bail!("{text}: unfit for the servers' sockets and configuration; use a short, plain path");
        }
        let names = ["postgres", "redis", "imap", "imaps", "lmtp", "smtp", "submission", "submissions"];
        let [postgres, redis, imap, imaps, lmtp, smtp, submission, submissions] =
            ports::kept(&dir.join("ports"), names)?;
        let (fsync, relay) = (options.fsync, options.relay.clone());
        let mail_owner = mail_owner()?;
        Ok(Self {
            dir,
            fsync,
            relay,
            mail_owner,
            postgres,
            redis,
            imap,
            imaps,
            lmtp,
            smtp,
            submission,
            submissions,
        })
    }

    pub(crate) fn log(&self, server: &str) -> PathBuf {
        self.dir.join("log").join(format!("{server}.log"))
    }

    pub(crate) fn mail_root(&self) -> PathBuf {
        self.dir.join("mail")
    }

    pub(crate) fn users_dir(&self) -> PathBuf {
        self.dir.join("users")
    }

    pub(crate) fn dovecot_conf(&self) -> PathBuf {
        self.dir.join("dovecot.conf")
    }

    /// Private, PKCS#8 in PEM.
    pub(crate) fn oauth_key(&self) -> PathBuf {
        self.dir.join("oauth2/private.pem")
    }

    /// Public ones, where Dovecot looks for them.
    pub(crate) fn oauth_keys(&self) -> PathBuf {
        self.dir.join("oauth2/keys")
    }

    pub(crate) fn postfix_conf_dir(&self) -> PathBuf {
        self.dir.join("postfix/etc")
    }

    fn endpoints(&self, ca: &Path) -> Endpoints {
        Endpoints {
            postgres_url: format!("postgres://postgres@127.0.0.1:{}/postgres", self.postgres),
            redis_url: format!("redis://127.0.0.1:{}/", self.redis),
            imap_port: self.imap,
            imaps_port: self.imaps,
            lmtp_port: self.lmtp,
            smtp_port: self.smtp,
            submission_port: self.submission,
            submissions_port: self.submissions,
            ca_file: ca.to_owned(),
            dovecot_conf: self.dovecot_conf(),
            postfix_conf_dir: self.postfix_conf_dir(),
            users_dir: self.users_dir(),
            mail_root: self.mail_root(),
            oauth_key: self.oauth_key(),
            dir: self.dir.clone(),
        }
    }
}

/// Debian's `mail`, or whoever called sudo, so that an unprivileged test can still write Maildirs.
fn mail_owner() -> Result<Account> {
    let id = |name| std::env::var_os(name).and_then(|v| v.to_str()?.parse().ok()).filter(|id| *id > 0);
    match (id("SUDO_UID"), id("SUDO_GID")) {
        (Some(uid), Some(gid)) => Ok(Account { uid, gid }),
        _ => account(&["mail", "nobody"]),
    }
}

/// A new folder that only root writes to and everybody may pass through: each server runs as a user of its own.
fn temporary() -> Result<PathBuf> {
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(5) {
        let [number] = ports::free::<1>()?;
        let dir = std::env::temp_dir().join(format!("devstack-{}-{number}", std::process::id()));
        if fs::create_dir(&dir).is_ok() {
            return Ok(dir);
        }
    }
    bail!("cannot make a folder under {}", std::env::temp_dir().display())
}
