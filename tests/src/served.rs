//! The API as a process of its own, so that its memory can be read.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;

use crate::app::{App, JWT_SECRET};

/// A running API on the database of an [`App`]; it is killed when this is dropped.
pub struct Served {
    child: Child,
    /// `127.0.0.1:port`.
    pub address: String,
}

impl Served {
    /// Starts one.
    ///
    /// # Panics
    /// When `emailclient-api` is not built or does not get ready.
    #[must_use]
    pub fn start(app: &App) -> Self {
        let tests = std::env::current_exe().unwrap();
        let program = tests.ancestors().nth(2).unwrap().join("emailclient-api");
        assert!(program.exists(), "{} is not built: cargo build --workspace --bins", program.display());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let child = Command::new(program)
            .env_clear()
            .env("API_LISTEN", &address)
            .env("DATABASE_URL", app.database.url("emailclient_app"))
            .env("DATABASE_SYSTEM_URL", app.database.url("emailclient_system"))
            .env("REDIS_URL", &app.stack.redis_url)
            .env("JWT_SECRET", JWT_SECRET)
            .env("ENCRYPTION_KEY", base64::engine::general_purpose::STANDARD.encode([7u8; 32]))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let served = Self { child, address };
        let started = Instant::now();
        while !served.is_ready() {
            assert!(started.elapsed() < Duration::from_secs(20), "the API is not ready");
            std::thread::sleep(Duration::from_millis(50));
        }
        served
    }

    fn is_ready(&self) -> bool {
        use std::io::Write as _;
        let Ok(mut line) = std::net::TcpStream::connect(&self.address) else { return false };
        let asked = write!(line, "GET /health/ready HTTP/1.1\r\nHost: {}\r\n\r\n", self.address);
        let mut first = String::new();
        asked.is_ok() && BufReader::new(line).read_line(&mut first).is_ok() && first.contains(" 200 ")
    }

    /// What it holds now, in bytes (`VmRSS`).
    ///
    /// # Panics
    /// When it has ended.
    #[must_use]
    pub fn resident(&self) -> usize {
        self.memory("VmRSS:")
    }

    /// The most it has held since it was started, in bytes (`VmHWM`).
    ///
    /// # Panics
    /// When it has ended.
    #[must_use]
    pub fn peak(&self) -> usize {
        self.memory("VmHWM:")
    }

    fn memory(&self, name: &str) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|l| l.starts_with(name)).expect("the API has ended");
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
