//! The one stack that all tests of a process share, and stacks held by another process than the one that uses them.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, bail};

use crate::Endpoints;
use crate::process::is_root;

/// See [`Shared::get`].
pub struct Shared {
    endpoints: Endpoints,
    // Never dropped, being in a static: the supervisor ends by the death of this process.
    _supervisor: Option<Supervisor>,
}

static SHARED: OnceLock<Result<Shared>> = OnceLock::new();

impl Shared {
    /// The stack that this process runs under (`devstack run -- …`); without one, the first call starts a
    /// supervisor process beside this one, which ends with it however it ends.
    ///
    /// # Panics
    /// When there is no stack to be had: a test without its servers has failed. The message says what to do.
    pub fn get() -> &'static Endpoints {
        match Self::try_get() {
            Ok(endpoints) => endpoints,
            Err(error) => panic!("no servers to test against: {error:#}"),
        }
    }

    /// [`Shared::get`] with the failure as a value.
    ///
    /// # Errors
    /// The supervisor is not built (`cargo build -p devstack`) or could not start the servers.
    pub fn try_get() -> Result<&'static Endpoints> {
        match SHARED.get_or_init(Self::start) {
            Ok(shared) => Ok(&shared.endpoints),
            Err(error) => Err(anyhow!("{error:#}")),
        }
    }

    fn start() -> Result<Self> {
        if let Some(endpoints) = Endpoints::from_env() {
            return Ok(Self { endpoints, _supervisor: None });
        }
        let (supervisor, endpoints) = Supervisor::start(&["--no-fsync"])?;
        Ok(Self { endpoints, _supervisor: Some(supervisor) })
    }
}

/// A `devstack up` process that ends when this value is dropped or this process dies: its standard input is a pipe
/// that only we hold.
pub(crate) struct Supervisor(Child);

impl Supervisor {
    /// Starts it with further arguments, through sudo unless we are root, and waits for the servers.
    pub(crate) fn start(arguments: &[&str]) -> Result<(Self, Endpoints)> {
        let program = supervisor()?;
        let mut command = Command::new(if is_root() { program.as_os_str() } else { "sudo".as_ref() });
        if !is_root() {
            command.arg("-n").arg(&program);
        }
        let mut child = command
            .args(["up", "--until-eof"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A Ctrl-C is for us; it follows by the pipe.
            .process_group(0)
            .spawn()
            .with_context(|| format!("{} for {}", command.get_program().display(), program.display()))?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        if line.is_empty() {
            bail!("{} ended with {}", program.display(), child.wait()?);
        }
        let endpoints =
            serde_json::from_str(&line).with_context(|| format!("{} said {line:?}", program.display()))?;
        Ok((Self(child), endpoints))
    }

    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // It ends within its own time limits; there is nothing to do about one that was killed.
        let _ = self.0.wait();
    }
}

/// Test binaries lie in `target/<profile>/deps`, the supervisor one level up.
fn supervisor() -> Result<PathBuf> {
    let this = std::env::current_exe()?;
    let found = this.ancestors().skip(1).take(3).map(|dir| dir.join("devstack")).find(|file| file.is_file());
    found.ok_or_else(|| {
        anyhow!("the supervisor is not built; run `cargo build -p devstack`, or the tests by `make test`")
    })
}
