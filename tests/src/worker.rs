//! A worker as a process of its own, so that it can be killed.

use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;

use crate::app::{App, JWT_SECRET};

/// A running worker that watches nothing; it is killed when this is dropped.
pub struct Worker(Child);

impl Worker {
    /// Starts one on the app's database, with further variables.
    ///
    /// # Panics
    /// When `emailclient-worker` is not built.
    #[must_use]
    pub fn start(app: &App, variables: &[(&str, &str)]) -> Self {
        let tests = std::env::current_exe().unwrap();
        let program = tests.ancestors().nth(2).unwrap().join("emailclient-worker");
        assert!(program.exists(), "{} is not built: cargo build --workspace --bins", program.display());
        let child = Command::new(program)
            .env_clear()
            .env("DATABASE_URL", app.database.url("emailclient_app"))
            .env("DATABASE_SYSTEM_URL", app.database.url("emailclient_system"))
            .env("DATABASE_MAX_CONNECTIONS", "8")
            .env("REDIS_URL", &app.stack.redis_url)
            .env("JWT_SECRET", JWT_SECRET)
            .env("ENCRYPTION_KEY", base64::engine::general_purpose::STANDARD.encode([7u8; 32]))
            .env("OUTBOUND_ALLOW", "localhost:1-65535,127.0.0.1:1-65535")
            .env("TLS_EXTRA_CA_FILE", &app.stack.ca_file)
            .env("IMAP_IDLE_ENABLED", "false")
            .envs(variables.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// The most memory it has had at once, in bytes.
    ///
    /// # Panics
    /// When it has ended already.
    #[must_use]
    pub fn peak_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// Sends a signal by name, such as `-KILL`.
    ///
    /// # Panics
    /// When it has ended already.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.0.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// How it ended, if it has.
    ///
    /// # Panics
    /// When the system does not say.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().unwrap()
    }

    /// Waits until it has ended.
    ///
    /// # Panics
    /// When it has not within `limit`.
    pub fn ended(&mut self, limit: Duration) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(started.elapsed() < limit, "the worker still runs after {limit:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
