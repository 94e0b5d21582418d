//! The scripts beside the stack in containers, run as an operator runs them. What would be a container is a process here: a
//! program called `docker-compose` in front of the path hands each command to PostgreSQL, Postfix or `emailctl` themselves.

mod backup;
mod choice;
mod database;
mod guide;
mod postfix;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::operator::program::{self, Ended, Folder};

/// The checkout.
pub fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A host with an engine on which the services of the stack are processes.
pub struct Host {
    /// Where its programs are, and what they note.
    pub folder: Folder,
    variables: Vec<(String, String)>,
}

/// Notes each call, leaves out what is said of files, and does what a container would do.
const COMPOSE: &str = r#"#!/bin/bash
set -euo pipefail
here=$(dirname "$0")
echo "docker-compose $* [COMPOSE_FILE=${COMPOSE_FILE-} COMPOSE_PROJECT_NAME=${COMPOSE_PROJECT_NAME-}]" >>"$here/calls"
while [ $# -gt 0 ]; do
  case $1 in -f | --env-file) shift 2 ;; *) break ;; esac
done
what=$1
shift
while [[ "${1-}" == -* ]]; do shift; done
case $what in
  exec) shift; exec "$@" ;;
  run)
    shift
    if [ -s "$here/fail-at" ] && [ "$(grep -c '^docker-compose .*run ' "$here/calls")" = "$(cat "$here/fail-at")" ]; then
      echo "this migration fails" >&2
      exit 1
    fi
    [ -n "${DATABASE_URL-}" ] || exit 0
    exec emailctl "$@"
    ;;
  ps) cat "$here/containers" 2>/dev/null || true ;;
  # Takes its time, as what compiles does.
  up) for _ in {1..100}; do ! grep -q ' logs -f' "$here/calls" || break; sleep 0.1; done ;;
esac
"#;

/// An engine that has the containers it was told of.
const DOCKER: &str = r#"#!/bin/bash
here=$(dirname "$0")
echo "docker $*" >>"$here/calls"
case $1 in
  compose) [ -e "$here/plugin" ] && shift && exec "$here/docker-compose" "$@"; exit 1 ;;
  inspect) case $* in *StartedAt*) date -u +%FT%T.%NZ ;; *) cat "$here/image" ;; esac ;;
  logs) echo "Compiling emailclient-core" ;;
  port) echo 0.0.0.0:5003 ;;
  image) [ "$2" != inspect ] || grep -qx "$3" "$here/images" ;;
  run)
    # As the container would see it, below a folder of this test.
    while [ "$1" != tar ]; do shift; done
    shift 3
    exec tar -C "$here/root" "$@"
    ;;
esac
"#;

impl Host {
    /// With the older `docker-compose`, and these variables.
    pub fn new(variables: Vec<(String, String)>) -> Self {
        let host = Self { folder: Folder::new(), variables };
        host.program("docker-compose", COMPOSE);
        host.program("docker", DOCKER);
        host
    }

    /// Adds a program of this name, or replaces it.
    pub fn program(&self, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.folder.0.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Writes a file beside the programs.
    pub fn note(&self, name: &str, text: &str) {
        std::fs::write(self.folder.0.join(name), text).unwrap();
    }

    /// What was called since this was asked last.
    pub fn calls(&self) -> Vec<String> {
        let path = self.folder.0.join("calls");
        let calls = std::fs::read_to_string(&path).unwrap_or_default();
        let _ = std::fs::remove_file(path);
        calls.lines().map(str::to_owned).collect()
    }

    /// Runs a program of the checkout at `top`, with further variables.
    pub fn run_at(&self, top: &Path, command: &[&str], variables: &[(&str, &str)]) -> Ended {
        let programs = program::path("emailctl").parent().unwrap().to_owned();
        let path = format!("{}:{}:/usr/local/bin:/usr/bin:/bin", self.folder.0.display(), programs.display());
        let done = Command::new(command[0])
            .args(&command[1..])
            .current_dir(top)
            .env_clear()
            .env("PATH", path)
            .env("HOME", &self.folder.0)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        done.into()
    }
}
