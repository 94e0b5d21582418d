//! A PostgreSQL of a test's own, for what the shared one must not do: stop, and start again.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use emailclient_core::platform::db::migrate;
use emailclient_core::platform::id::new_uuid;
use wire::secret::Secret;

/// Runs, migrated, until this value ends.
pub struct PrivatePostgres {
    /// Where it listens on 127.0.0.1.
    pub port: u16,
    dir: PathBuf,
    bin: PathBuf,
    user: Option<(u32, u32)>,
}

impl PrivatePostgres {
    /// Makes a cluster, starts it and brings the schema up to date.
    ///
    /// # Panics
    /// When PostgreSQL is not installed or does not start.
    pub async fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let dir = std::env::temp_dir().join(format!("private-postgres-{}", new_uuid().simple()));
        fs::create_dir(&dir).unwrap();
        // PostgreSQL refuses to run as root, which owns what is under /proc/self in a container and on CI.
        let root = fs::metadata("/proc/self").unwrap().uid() == 0;
        let user = root.then(|| account("postgres"));
        if let Some((uid, gid)) = user {
            chown(&dir, Some(uid), Some(gid)).unwrap();
        }
        let server = Self { port, dir, bin: binaries(), user };
        server.run("initdb", &["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-sync"]);
        server.up();
        let url = |user: &str| Secret::new(server.url(user));
        migrate::run(&url("postgres"), &url("emailclient_app"), &url("emailclient_system")).await.unwrap();
        server
    }

    /// Its address for `user`.
    #[must_use]
    pub fn url(&self, user: &str) -> String {
        format!("postgres://{user}@127.0.0.1:{}/postgres", self.port)
    }

    /// Stops it as `pg_ctl stop -m fast` does: every connection ends at once.
    pub fn down(&self) {
        self.run("pg_ctl", &["stop", "-m", "fast", "-w"]);
    }

    /// Stops it as a crash does: what was not written by then is lost.
    pub fn crash(&self) {
        self.run("pg_ctl", &["stop", "-m", "immediate", "-w"]);
    }

    /// Starts it and waits until it answers.
    pub fn up(&self) {
        let options = format!(
            // What is committed without waiting for the disk stays in memory for long: a crash takes it.
            "-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off -c wal_writer_delay=9s \
             -c wal_writer_flush_after=2GB -c wal_buffers=64MB",
            self.port
        );
        self.run("pg_ctl", &["start", "-w", "-o", &options, "-l", self.dir.join("log").to_str().unwrap()]);
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let mut command = Command::new(self.bin.join(program));
        command.args(arguments).arg("-D").arg(self.dir.join("data")).current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        let status = command.status().unwrap();
        assert!(status.success(), "{program} {arguments:?}: {status}");
    }
}

impl Drop for PrivatePostgres {
    fn drop(&mut self) {
        if !std::thread::panicking() || self.dir.join("data/postmaster.pid").exists() {
            let mut stop = Command::new(self.bin.join("pg_ctl"));
            stop.args(["stop", "-m", "immediate", "-D"]).arg(self.dir.join("data")).current_dir("/");
            stop.stdout(Stdio::null()).stderr(Stdio::null());
            if let Some((uid, gid)) = self.user {
                stop.uid(uid).gid(gid);
            }
            let _ = stop.status();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// User and group of a name in /etc/passwd.
fn account(name: &str) -> (u32, u32) {
    let table = fs::read_to_string("/etc/passwd").unwrap();
    let line = table.lines().find(|l| l.split(':').next() == Some(name));
    let fields: Vec<&str> = line.unwrap_or_else(|| panic!("there is no user {name}")).split(':').collect();
    (fields[2].parse().unwrap(), fields[3].parse().unwrap())
}

/// Debian keeps each major version apart; the newest is taken.
fn binaries() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is not installed").flatten();
    let newest = versions.filter_map(|d| d.file_name().to_str()?.parse::<u32>().ok()).max().unwrap();
    format!("/usr/lib/postgresql/{newest}/bin").into()
}
