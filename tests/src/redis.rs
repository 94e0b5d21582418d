//! A Redis of a test's own, for what the shared one must not be: evicting, closed, secretive.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Ends with this value.
pub struct PrivateRedis {
    /// Where it listens on 127.0.0.1.
    pub port: u16,
    child: Child,
}

impl PrivateRedis {
    /// Starts one with these further arguments of `redis-server`.
    ///
    /// # Panics
    /// When it is not installed, or does not listen within ten seconds.
    #[must_use]
    pub fn start(arguments: &[&str]) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "no"])
            .args(arguments)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is not installed");
        let redis = Self { port, child };
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(
                started.elapsed() < Duration::from_secs(10),
                "redis-server does not listen: {arguments:?}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        redis
    }

    /// Its address without a password.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }
}

impl Drop for PrivateRedis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
