//! The API as a process of its own, so that its memory can be read.

use std::io::{BufRead as _, BufReader};
use std::time::{Duration, Instant};

use crate::app::App;
use crate::service::Service;

/// A running API on the database of an [`App`]; it is killed when this is dropped.
pub struct Served {
    service: Service,
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
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let service = Service::start(
            app,
            "emailclient-api",
            &[("API_LISTEN", &address), ("DATABASE_MAX_CONNECTIONS", "20")],
        );
        let served = Self { service, address };
        let started = Instant::now();
        while !served.is_ready() {
            assert!(started.elapsed() < Duration::from_secs(60), "the API is not ready");
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

    /// What it holds now, in bytes.
    ///
    /// # Panics
    /// When it has ended.
    #[must_use]
    pub fn resident(&self) -> usize {
        self.service.memory("VmRSS")
    }

    /// The most it has held since it was started, in bytes.
    ///
    /// # Panics
    /// When it has ended.
    #[must_use]
    pub fn peak(&self) -> usize {
        self.service.memory("VmHWM")
    }
}
