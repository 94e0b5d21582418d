//! A service as a process of its own, so that it can be killed and looked at from outside.

use std::collections::BTreeMap;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;

use crate::app::{App, JWT_SECRET};

/// A running program of ours; it is killed when this is dropped.
pub struct Service {
    child: Child,
    name: &'static str,
    variables: BTreeMap<String, String>,
}

impl Service {
    /// Starts `name` on the app's database, with further variables. It serves no metrics unless they say where.
    ///
    /// # Panics
    /// When it is not built.
    #[must_use]
    pub fn start(app: &App, name: &'static str, variables: &[(&str, &str)]) -> Self {
        let tests = std::env::current_exe().unwrap();
        let program = tests.ancestors().nth(2).unwrap().join(name);
        assert!(program.exists(), "{} is not built: cargo build --workspace --bins", program.display());
        let (app_url, system_url) =
            (app.database.url("emailclient_app"), app.database.url("emailclient_system"));
        let key = base64::engine::general_purpose::STANDARD.encode([7u8; 32]);
        let usual = [
            ("DATABASE_URL", app_url.as_str()),
            ("DATABASE_SYSTEM_URL", &system_url),
            ("DATABASE_MAX_CONNECTIONS", "8"),
            ("REDIS_URL", &app.stack.redis_url),
            ("JWT_SECRET", JWT_SECRET),
            ("ENCRYPTION_KEY", &key),
            ("OUTBOUND_ALLOW", "localhost:1-65535,127.0.0.1:1-65535"),
            ("TLS_EXTRA_CA_FILE", app.stack.ca_file.to_str().unwrap()),
            ("IMAP_IDLE_ENABLED", "false"),
            ("METRICS_LISTEN", "off"),
        ];
        let all = usual.iter().chain(variables);
        let variables: BTreeMap<String, String> =
            all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let child = Command::new(program)
            .env_clear()
            .envs(&variables)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, name, variables }
    }

    /// What it was started with.
    ///
    /// # Panics
    /// When it has no such variable.
    #[must_use]
    pub fn variable(&self, name: &str) -> &str {
        &self.variables[name]
    }

    /// Of its memory, in bytes, as `/proc` has it: `VmRSS` is what it holds now, `VmHWM` the most it has held.
    ///
    /// # Panics
    /// When it has ended.
    #[must_use]
    pub fn memory(&self, name: &str) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
        let line = line.unwrap_or_else(|| panic!("{} has ended", self.name));
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
    }

    /// Sends a signal by name, such as `-KILL`.
    ///
    /// # Panics
    /// When it has ended already.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// How it ended, if it has.
    ///
    /// # Panics
    /// When the system does not say.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits until it has ended.
    ///
    /// # Panics
    /// When it has not within `limit`.
    pub fn ended(&mut self, limit: Duration) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(started.elapsed() < limit, "{} still runs after {limit:?}", self.name);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Tells it to end, and waits until it has.
    ///
    /// # Panics
    /// When it does not, or not in good order.
    pub fn end(mut self) {
        self.signal("-TERM");
        let ended = self.ended(Duration::from_secs(40));
        assert!(ended.success(), "{}: {ended}", self.name);
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
