//! The compiled programs, run with settings of the test's own and nothing else in their environment.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use emailclient_core::platform::id::new_uuid;
use tests::database::Database;

/// The key of these tests, 32 bytes in base64.
pub const ENCRYPTION_KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// The binary that `cargo build --bins` put beside the tests.
pub fn path(name: &str) -> PathBuf {
    let program = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join(name);
    assert!(program.exists(), "{} is not built: cargo build --workspace --bins", program.display());
    program
}

/// Settings by name.
#[derive(Clone)]
pub struct Settings(Vec<(String, String)>);

impl Settings {
    /// All that a service needs, on this database and the shared servers.
    pub fn of(database: &Database) -> Self {
        let url = |role| database.url(role);
        Self(vec![])
            .with("DATABASE_OWNER_URL", &url("postgres"))
            .with("DATABASE_URL", &url("emailclient_app"))
            .with("DATABASE_SYSTEM_URL", &url("emailclient_system"))
            .with("REDIS_URL", &devstack::Shared::get().redis_url)
            .with("JWT_SECRET", "0123456789abcdef0123456789abcdef")
            .with("ENCRYPTION_KEY", ENCRYPTION_KEY)
    }

    /// None at all.
    pub fn none() -> Self {
        Self(vec![])
    }

    /// With this one set; the empty value takes it away.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.0.retain(|(n, _)| n != name);
        if !value.is_empty() {
            self.0.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    /// As pairs.
    pub fn pairs(&self) -> Vec<(String, String)> {
        self.0.clone()
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(path(program));
        command.args(arguments).env_clear().envs(self.0.iter().map(|(k, v)| (k, v)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs `emailctl` to its end.
    pub fn emailctl(&self, arguments: &[&str], input: &str) -> Ended {
        let mut child = self.command("emailctl", arguments).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap().into()
    }

    /// Runs a service that is expected to give up by itself.
    ///
    /// # Panics
    /// When it has not after 30 seconds.
    pub fn refused(&self, service: &str) -> Ended {
        let mut child = self.command(service, &[]).spawn().unwrap();
        let started = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if started.elapsed() > Duration::from_secs(30) {
                let _ = child.kill();
                panic!("{service} runs with {:?}", self.0);
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let mut ended = Ended { code: status.code(), out: String::new(), err: String::new() };
        child.stdout.take().unwrap().read_to_string(&mut ended.out).unwrap();
        child.stderr.take().unwrap().read_to_string(&mut ended.err).unwrap();
        ended
    }

    /// Starts a service that is expected to stay.
    pub fn start(&self, service: &str) -> Running {
        self.start_with(service, &[])
    }

    /// Starts a program and leaves it to itself.
    pub fn start_with(&self, program: &str, arguments: &[&str]) -> Running {
        let mut command = self.command(program, arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
        Running(command.spawn().unwrap())
    }
}

/// What a program left behind.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status; `None` for a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Ended {
    /// True for the status 0.
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

/// A service that ends with this value.
pub struct Running(Child);

impl Running {
    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        devstack::signal(name, self.0.id()).unwrap();
    }

    /// Asks it to stop and waits.
    pub fn stop(self) -> Option<i32> {
        self.signal("TERM");
        self.wait()
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Option<i32> {
        self.0.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A folder of the test's own, deleted with this value.
pub struct Folder(pub PathBuf);

impl Folder {
    /// Empty.
    pub fn new() -> Self {
        let path = std::env::temp_dir().join(format!("emailclient-operator-{}", new_uuid().simple()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// The path of a file in it.
    pub fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
