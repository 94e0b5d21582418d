//! The product's own programs on top of a stack: schema, a tenant, a user, and the three services as children.
//!
//! They are driven as an operator would: by environment, command line and REST, never through their crates.

use std::fs::{self, File};
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use devstack::{Endpoints, Stack};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

pub(crate) const TENANT: &str = "acme-corp";
pub(crate) const USER: &str = "admin@acme-corp.test";
/// A second user, who may read and no more.
pub(crate) const VIEWER: &str = "viewer@acme-corp.test";
pub(crate) const PASSWORD: &str = "correct-horse-battery-staple";
/// Of the mailboxes, not of the product's user.
pub(crate) const MAIL_PASSWORD: &str = "mailbox-secret";

const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// The services promise to drain within 25 s; idle ones need no time at all.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// The running services.
pub(crate) struct Product {
    /// `http://host:port`, without a slash at the end.
    pub(crate) url: String,
    /// From exec of the API to the first yes of `/health/ready`.
    pub(crate) start_to_ready: Duration,
    programs: PathBuf,
    environment: Vec<(&'static str, String)>,
    owner_url: String,
    logs: PathBuf,
    services: Vec<Service>,
}

struct Service {
    name: &'static str,
    pid: u32,
    child: Child,
}

impl Product {
    /// Migrates, creates the tenant and the user (unless the stack's folder has them already), starts the services
    /// and waits until the API is ready. `listen` is `address:port`.
    pub(crate) async fn start(stack: &Stack, listen: &str) -> Result<Self> {
        Self::start_with(stack, listen, &[]).await
    }

    /// [`Product::start`], with settings that go before those for the demo.
    pub(crate) async fn start_with(
        stack: &Stack,
        listen: &str,
        settings: &[(&'static str, &str)],
    ) -> Result<Self> {
        TcpListener::bind(listen)
            .with_context(|| format!("{listen} is taken; choose another by --listen"))?;
        let endpoints = stack.endpoints();
        let programs = std::env::current_exe()?.parent().map(Path::to_owned).unwrap_or_default();
        let mut product = Self {
            url: format!("http://{listen}"),
            start_to_ready: Duration::ZERO,
            programs,
            environment: settings_of(endpoints, listen, settings)?,
            owner_url: endpoints.postgres_url.clone(),
            logs: endpoints.dir.join("log"),
            services: Vec::new(),
        };
        product.set_up(&endpoints.dir.join("product-is-set-up")).await?;
        let started = Instant::now();
        for name in ["emailclient-api", "emailclient-worker", "emailclient-scheduler"] {
            product.spawn(stack, name)?;
        }
        product.wait_ready().await?;
        product.start_to_ready = started.elapsed();
        Ok(product)
    }

    async fn set_up(&self, done: &Path) -> Result<()> {
        self.ctl(&["migrate"]).await?;
        if done.exists() {
            return Ok(());
        }
        self.add_tenant(TENANT, "Acme Corp").await?;
        self.add_user(TENANT, VIEWER, "viewer").await?;
        fs::write(done, "")?;
        Ok(())
    }

    async fn ctl(&self, arguments: &[&str]) -> Result<()> {
        // The owner's address is for the migration alone.
        let owner = arguments.first() == Some(&"migrate");
        let owner = owner.then_some(("DATABASE_OWNER_URL", self.owner_url.as_str()));
        let output =
            self.program("emailctl")?.envs(owner).args(arguments).stdin(Stdio::null()).output().await?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("emailctl {}: {}\n{said}", arguments.first().unwrap_or(&""), output.status);
        }
        Ok(())
    }

    fn program(&self, name: &str) -> Result<Command> {
        let path = self.programs.join(name);
        if !path.is_file() {
            bail!("{} is not built; use `make demo` or `make bench`", path.display());
        }
        let mut command = Command::new(path);
        command.env_remove("DATABASE_OWNER_URL").envs(self.environment.iter().map(|(k, v)| (k, v)));
        Ok(command)
    }

    fn spawn(&mut self, stack: &Stack, name: &'static str) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.log(name))?;
        let mut command = self.program(name)?;
        // A group of their own: Ctrl-C is for us, and we end them in order.
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let child = command.spawn().with_context(|| name.to_owned())?;
        let pid = child.id().ok_or_else(|| anyhow!("{name} ended at once"))?;
        stack.adopt_pid(pid)?;
        self.services.push(Service { name, pid, child });
        Ok(())
    }

    fn log(&self, name: &str) -> PathBuf {
        self.logs.join(format!("{name}.log"))
    }

    async fn wait_ready(&mut self) -> Result<()> {
        let client = client()?;
        let until = Instant::now() + READY_TIMEOUT;
        loop {
            let answer = client.get(format!("{}/health/ready", self.url)).send().await;
            if answer.as_ref().is_ok_and(|a| a.status().is_success()) {
                return Ok(());
            }
            self.check()?;
            if Instant::now() > until {
                bail!(
                    "the API is not ready after {READY_TIMEOUT:?}:\n{}",
                    tail(&self.log("emailclient-api"))
                );
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Fails when a service has ended by itself, with the end of its log.
    pub(crate) fn check(&mut self) -> Result<()> {
        for service in &mut self.services {
            if let Some(status) = service.child.try_wait()? {
                let log = self.logs.join(format!("{}.log", service.name));
                bail!("{} ended with {status}:\n{}", service.name, tail(&log));
            }
        }
        Ok(())
    }

    /// Asks the services to end and waits for them; the stack's watchdog takes care of those that do not.
    pub(crate) async fn stop(mut self, stack: &Stack) {
        for service in &self.services {
            // One that has ended already is what we want.
            let _ = devstack::signal("TERM", service.pid);
        }
        for service in &mut self.services {
            if tokio::time::timeout(STOP_TIMEOUT, service.child.wait()).await.is_ok() {
                let _ = stack.forget_pid(service.pid);
            }
        }
    }

    /// Process id of a service, by its program's name.
    pub(crate) fn pid(&self, name: &str) -> Option<u32> {
        self.services.iter().find(|s| s.name == name).map(|s| s.pid)
    }

    /// Another tenant, with a user of its own who is logged in.
    pub(crate) async fn tenant(&self, slug: &str) -> Result<Session> {
        self.add_tenant(slug, slug).await?;
        self.log_in_to(slug).await
    }

    async fn add_tenant(&self, slug: &str, name: &str) -> Result<()> {
        self.ctl(&["tenant", "create", "--slug", slug, "--name", name]).await?;
        self.ctl(&["tenant", "limits", slug, "--per-minute", "0", "--per-hour", "0"]).await?;
        self.add_user(slug, USER, "owner").await
    }

    async fn add_user(&self, tenant: &str, email: &str, role: &str) -> Result<()> {
        let user = ["--tenant", tenant, "--email", email, "--role", role, "--password", PASSWORD];
        self.ctl(&[&["user", "create"], &user[..]].concat()).await
    }

    /// Logs in as [`USER`].
    pub(crate) async fn log_in(&self) -> Result<Session> {
        self.log_in_to(TENANT).await
    }

    async fn log_in_to(&self, tenant: &str) -> Result<Session> {
        let session = Session {
            client: client()?,
            url: self.url.clone(),
            tenant: tenant.to_owned(),
            token: String::new(),
        };
        let body = json!({ "email": USER, "password": PASSWORD });
        let answer = session.call(reqwest::Method::POST, "/auth/login", Some(body)).await?;
        let token = text(&answer, "access_token")?;
        Ok(Session { token, ..session })
    }
}

/// A logged-in client of the API.
pub(crate) struct Session {
    client: reqwest::Client,
    url: String,
    tenant: String,
    pub(crate) token: String,
}

impl Session {
    /// One request; an answer that is no success is an error with the problem's text.
    pub(crate) async fn call(
        &self,
        method: reqwest::Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Value> {
        let mut request =
            self.client.request(method, format!("{}{path}", self.url)).header("X-Tenant-ID", &self.tenant);
        if !self.token.is_empty() {
            request = request.bearer_auth(&self.token);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await?;
        let status = answer.status();
        let bytes = answer.bytes().await?;
        if !status.is_success() {
            bail!("{path}: {status}: {}", String::from_utf8_lossy(&bytes));
        }
        if bytes.is_empty() {
            Ok(Value::Null)
        } else {
            serde_json::from_slice(&bytes).context(path.to_owned())
        }
    }

    /// GET, for an answer that goes on and on: a day at most.
    pub(crate) async fn open(&self, path: &str) -> Result<reqwest::Response> {
        let request = self.client.get(format!("{}{path}", self.url)).header("X-Tenant-ID", &self.tenant);
        let request = request.bearer_auth(&self.token).timeout(Duration::from_secs(86_400));
        Ok(request.send().await?.error_for_status()?)
    }

    /// GET.
    pub(crate) async fn get(&self, path: &str) -> Result<Value> {
        self.call(reqwest::Method::GET, path, None).await
    }

    /// POST.
    pub(crate) async fn post(&self, path: &str, body: Value) -> Result<Value> {
        self.call(reqwest::Method::POST, path, Some(body)).await
    }

    /// PATCH.
    pub(crate) async fn patch(&self, path: &str, body: Value) -> Result<Value> {
        self.call(reqwest::Method::PATCH, path, Some(body)).await
    }

    /// DELETE.
    pub(crate) async fn delete(&self, path: &str) -> Result<()> {
        self.call(reqwest::Method::DELETE, path, None).await.map(|_| ())
    }
}

/// A field of an answer that must be a string.
pub(crate) fn text(answer: &Value, field: &str) -> Result<String> {
    answer
        .get(field)
        .and_then(Value::as_str)
        .map(str::to_owned)
        .ok_or_else(|| anyhow!("no {field} in {answer}"))
}

/// What `POST /api/accounts` takes for a mailbox of this stack.
pub(crate) fn account(endpoints: &Endpoints, email: &str, name: &str) -> Value {
    let server = |port: u16| json!({ "host": "localhost", "port": port, "security": "tls", "username": email, "password": MAIL_PASSWORD });
    json!({ "email": email, "name": name, "imap": server(endpoints.imaps_port), "smtp": server(endpoints.submissions_port) })
}

fn client() -> Result<reqwest::Client> {
    // The API closes connections that are idle for some seconds; ours must never be the one it is just closing.
    let idle = Duration::from_secs(2);
    Ok(reqwest::Client::builder()
        .no_proxy()
        .pool_idle_timeout(idle)
        .timeout(Duration::from_secs(60))
        .build()?)
}

fn environment(endpoints: &Endpoints, listen: &str) -> Result<Vec<(&'static str, String)>> {
    let as_role = |role: &str| endpoints.postgres_url.replacen("postgres@", &format!("{role}@"), 1);
    Ok(vec![
        ("DATABASE_URL", as_role("emailclient_app")),
        ("DATABASE_SYSTEM_URL", as_role("emailclient_system")),
        ("REDIS_URL", endpoints.redis_url.clone()),
        ("JWT_SECRET", secret(&endpoints.dir.join("jwt-secret"))?),
        ("ENCRYPTION_KEY", secret(&endpoints.dir.join("encryption-key"))?),
        ("API_LISTEN", listen.to_owned()),
        ("OUTBOUND_ALLOW", "localhost:1-65535,127.0.0.1:1-65535".to_owned()),
        ("TLS_EXTRA_CA_FILE", endpoints.ca_file.display().to_string()),
        (
            "LOG_LEVEL",
            std::env::var_os("LOG_LEVEL").and_then(|v| v.into_string().ok()).unwrap_or("info".to_owned()),
        ),
        // As in the image.
        ("MIMALLOC_PURGE_DELAY", "100".to_owned()),
        // The watcher notices at once; rounds are the net beneath it.
        ("SYNC_INTERVAL_SECONDS", "60".to_owned()),
        // All accounts are on one server, which is ours.
        ("IMAP_CONNECTS_PER_HOST_PER_SECOND", "50".to_owned()),
    ])
}

fn settings_of(
    endpoints: &Endpoints,
    listen: &str,
    more: &[(&'static str, &str)],
) -> Result<Vec<(&'static str, String)>> {
    let mut all = environment(endpoints, listen)?;
    all.retain(|(name, _)| !more.iter().any(|(other, _)| other == name));
    all.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
    Ok(all)
}

/// 32 random bytes in base64, kept beside the data that they protect.
fn secret(file: &Path) -> Result<String> {
    if let Ok(text) = fs::read_to_string(file) {
        return Ok(text);
    }
    let mut bytes = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let text = STANDARD.encode(bytes);
    fs::write(file, &text)?;
    fs::set_permissions(file, fs::Permissions::from_mode(0o600))?;
    Ok(text)
}

fn tail(log: &Path) -> String {
    let text = fs::read(log).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    format!(
        "{}\n(from {})",
        lines.get(lines.len().saturating_sub(15)..).unwrap_or_default().join("\n"),
        log.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_services_are_not_given_the_owners_address() {
        let dir = std::env::temp_dir().join(format!("devstack-product-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let stack = json!({ "postgres_url": "postgres://postgres@127.0.0.1:1/postgres", "redis_url": "redis://127.0.0.1:1/",
            "imap_port": 1, "imaps_port": 1, "lmtp_port": 1, "smtp_port": 1, "submission_port": 1, "submissions_port": 1,
            "ca_file": dir, "dovecot_conf": dir, "postfix_conf_dir": dir, "users_dir": dir, "mail_root": dir,
            "oauth_key": dir, "dir": dir });
        let given = settings_of(&serde_json::from_value(stack).unwrap(), "127.0.0.1:1", &[]).unwrap();
        fs::remove_dir_all(&dir).unwrap();
        for (name, value) in given {
            assert!(name != "DATABASE_OWNER_URL" && !value.contains("postgres@"), "{name}={value}");
        }
    }
}
