//! The one stack that all tests of a process share.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, bail};

use crate::Endpoints;

/// See [`Shared::get`].
pub struct Shared {
    endpoints: Endpoints,
    // Its standard input is a pipe that only this process holds: the supervisor ends when we do.
    _supervisor: Option<Child>,
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
        let program = supervisor()?;
        let mut child = Command::new(&program)
            .args(["up", "--no-fsync", "--until-eof"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| program.display().to_string())?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        if line.is_empty() {
            bail!("{} ended with {}", program.display(), child.wait()?);
        }
        let endpoints =
            serde_json::from_str(&line).with_context(|| format!("{} said {line:?}", program.display()))?;
        Ok(Self { endpoints, _supervisor: Some(child) })
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
