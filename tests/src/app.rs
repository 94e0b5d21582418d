//! The services in this process, on a database and Redis prefix of their own.

use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine as _;
use clap::Parser as _;
use devstack::{Endpoints, Shared};
use emailclient_core::access::principal::Role;
use emailclient_core::platform::config::{Config, Source};
use emailclient_core::platform::db::Db;
use emailclient_core::platform::id::{TenantId, new_uuid};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wire::secret::Secret;

use crate::database::Database;
use crate::eventually::eventually;

/// The key tokens are signed with in tests.
pub const JWT_SECRET: &str = "a test's signing key of at least thirty-two bytes";
/// Password of every user a test makes.
pub const PASSWORD: &str = "correct horse battery staple";

/// Stands in a setting for the address at which the API will listen.
pub const BASE: &str = "{base}";

/// Running services and the way to them.
pub struct App {
    /// Its database.
    pub database: Database,
    /// The services' own way to the database.
    pub db: Db,
    /// The way around the services, as superuser.
    pub behind: PgPool,
    /// Address of the API, `http://127.0.0.1:port`.
    pub base: String,
    /// A client that follows no redirects.
    pub http: reqwest::Client,
    /// The servers.
    pub stack: &'static Endpoints,
    config: Config,
    settings: Vec<(String, String)>,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<anyhow::Result<()>>>,
    working: CancellationToken,
    workers: Vec<JoinHandle<anyhow::Result<()>>>,
    finished: bool,
}

/// A tenant with one logged-in user.
#[derive(Debug, Clone)]
pub struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// Its slug.
    pub slug: String,
    /// The user's address.
    pub email: String,
    /// An access token.
    pub token: String,
    /// The refresh token that came with it.
    pub refresh_token: String,
}

/// An answer, read whole.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Headers.
    pub headers: reqwest::header::HeaderMap,
    /// The body as bytes.
    pub bytes: Vec<u8>,
}

impl Answer {
    /// The body as JSON; null when it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or(Value::Null)
    }
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
    /// One header as text, empty when it is absent.
    #[must_use]
    pub fn header(&self, name: &str) -> String {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned()
    }
    /// Asserts the status and returns the JSON.
    ///
    /// # Panics
    /// With the whole body when the status is another.
    #[track_caller]
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        self.json()
    }
    /// Asserts a problem+json answer with this status and code.
    ///
    /// # Panics
    /// With the whole body when it is another.
    #[track_caller]
    pub fn refused(&self, status: u16, code: &str) -> Value {
        let body = self.json();
        assert_eq!(
            (self.status, body["code"].as_str().unwrap_or_default()),
            (status, code),
            "{}",
            self.text()
        );
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(body["status"], status);
        for field in ["type", "title", "detail", "instance", "request_id"] {
            assert!(body[field].is_string(), "{field} is missing: {body}");
        }
        body
    }
}

impl App {
    /// The API alone.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The API with further settings.
    pub async fn start_with(settings: &[(&str, &str)]) -> Self {
        Self::start_on(Database::create().await, settings).await
    }

    /// The API on this database, with further settings.
    pub async fn start_on(database: Database, settings: &[(&str, &str)]) -> Self {
        let stack = Shared::get();
        wire::tls::install_provider();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let mut settings = settings_of(stack, &database, settings);
        for (_, value) in &mut settings {
            *value = value.replace(BASE, &format!("http://{address}"));
        }
        let config = Config::from_source(&Source::new(settings.clone())).unwrap();
        let stop = CancellationToken::new();
        let api = tokio::spawn(emailclient_api::serve(config.clone(), listener, stop.clone()));
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(60))
            .no_proxy()
            .build()
            .unwrap();
        let db = Db::new(&config).unwrap();
        let behind = database.behind();
        let app = Self {
            database,
            db,
            behind,
            base: format!("http://{address}"),
            http,
            stack,
            config,
            settings,
            working: stop.child_token(),
            workers: Vec::new(),
            stop,
            tasks: vec![api],
            finished: false,
        };
        eventually("the API is ready", Duration::from_secs(20), async || {
            let up = app.http.get(format!("{}/health/ready", app.base)).send().await.ok()?;
            (up.status() == 200).then_some(())
        })
        .await;
        app
    }

    /// API, worker and scheduler.
    pub async fn start_all() -> Self {
        let mut app = Self::start().await;
        app.add_worker();
        app.add_scheduler();
        app
    }

    /// One more copy of the API: where it listens, as the start of a URL.
    ///
    /// # Panics
    /// When there is no port for it.
    pub async fn add_api(&mut self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        self.tasks.push(tokio::spawn(emailclient_api::serve(
            self.config.clone(),
            listener,
            self.stop.clone(),
        )));
        base
    }

    /// One more worker.
    pub fn add_worker(&mut self) {
        let worker = emailclient_worker::serve(self.config.clone(), self.working.clone());
        self.workers.push(tokio::spawn(worker));
    }

    /// One more scheduler.
    pub fn add_scheduler(&mut self) {
        let scheduler = emailclient_scheduler::serve(self.config.clone(), self.working.clone());
        self.workers.push(tokio::spawn(scheduler));
    }

    /// Stops workers and schedulers; others can be added.
    ///
    /// # Panics
    /// When one of them failed.
    pub async fn stop_workers(&mut self) {
        self.working.cancel();
        end(std::mem::take(&mut self.workers)).await;
        self.working = self.stop.child_token();
    }

    /// The settings the services run with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Runs `emailctl` with the settings of the services.
    ///
    /// # Panics
    /// When it does not succeed.
    pub async fn emailctl(&self, arguments: &[&str]) {
        let line = std::iter::once("emailctl").chain(arguments.iter().copied());
        let command = emailctl::command::Cli::try_parse_from(line).unwrap().command;
        let done = emailctl::run(command, &Source::new(self.settings.clone())).await;
        done.unwrap_or_else(|e| panic!("emailctl {arguments:?}: {e:#}"));
    }

    /// Makes a tenant without limits, with one owner who is logged in.
    pub async fn tenant(&self) -> Tenant {
        let slug = format!("t-{}", new_uuid().simple());
        let id = emailclient_core::access::tenant::create(&self.db, "emailctl:test", &slug, "A tenant")
            .await
            .unwrap();
        let mut tx = self.db.tenant(id).await.unwrap();
        emailclient_core::access::tenant::set_limits(&mut tx, Some(0), Some(0)).await.unwrap();
        tx.commit().await.unwrap();
        let email = format!("owner@{slug}.test");
        self.user(id, &email).await;
        let login = self.login(&slug, &email).await;
        Tenant {
            id,
            slug,
            email,
            token: login["access_token"].as_str().unwrap().to_owned(),
            refresh_token: login["refresh_token"].as_str().unwrap().to_owned(),
        }
    }

    /// Adds an owner to a tenant.
    pub async fn user(&self, tenant: TenantId, email: &str) {
        self.user_as(tenant, email, Role::Owner).await;
    }

    /// Adds a user to a tenant.
    pub async fn user_as(&self, tenant: TenantId, email: &str, role: Role) {
        let hash = emailclient_core::access::password::hash(Secret::new(PASSWORD)).await.unwrap();
        let mut tx = self.db.tenant(tenant).await.unwrap();
        emailclient_core::access::user::create(&mut tx, email, "A User", role, &hash).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// One more user of a tenant, who is logged in.
    pub async fn member(&self, tenant: &Tenant, role: Role) -> Tenant {
        let email = format!("{role}-{}@{}.test", new_uuid().simple(), tenant.slug);
        self.user_as(tenant.id, &email, role).await;
        let login = self.login(&tenant.slug, &email).await;
        let text = |name: &str| login[name].as_str().unwrap().to_owned();
        Tenant { email, token: text("access_token"), refresh_token: text("refresh_token"), ..tenant.clone() }
    }

    /// Logs in and returns the answer's JSON.
    pub async fn login(&self, slug: &str, email: &str) -> Value {
        let answer = self
            .http
            .post(format!("{}/auth/login", self.base))
            .header("X-Tenant-ID", slug)
            .json(&json!({"email": email, "password": PASSWORD}));
        send(answer).await.expect(200)
    }

    /// A request as `tenant`'s user.
    pub fn request(&self, tenant: &Tenant, method: &str, path: &str) -> reqwest::RequestBuilder {
        self.request_to(&self.base, tenant, method, path)
    }

    /// The same to another copy of the API.
    pub fn request_to(
        &self,
        base: &str,
        tenant: &Tenant,
        method: &str,
        path: &str,
    ) -> reqwest::RequestBuilder {
        self.http
            .request(method.parse().unwrap(), format!("{}{path}", base))
            .bearer_auth(&tenant.token)
            .header("X-Tenant-ID", &tenant.slug)
    }

    /// GET as `tenant`'s user.
    pub async fn get(&self, tenant: &Tenant, path: &str) -> Answer {
        send(self.request(tenant, "GET", path)).await
    }

    /// POST of JSON as `tenant`'s user.
    pub async fn post(&self, tenant: &Tenant, path: &str, body: &Value) -> Answer {
        send(self.request(tenant, "POST", path).json(body)).await
    }

    /// PATCH of JSON as `tenant`'s user.
    pub async fn patch(&self, tenant: &Tenant, path: &str, body: &Value) -> Answer {
        send(self.request(tenant, "PATCH", path).json(body)).await
    }

    /// DELETE as `tenant`'s user.
    pub async fn delete(&self, tenant: &Tenant, path: &str) -> Answer {
        send(self.request(tenant, "DELETE", path)).await
    }

    /// Stops the services and leaves the database, for a test that looks at what they wrote at their end.
    ///
    /// # Panics
    /// When one of them failed.
    pub async fn stop_services(mut self) {
        self.finished = true;
        self.stop.cancel();
        end(std::mem::take(&mut self.tasks).into_iter().chain(std::mem::take(&mut self.workers))).await;
        tokio::join!(self.db.close(), self.behind.close());
    }

    /// Stops the services and fails when one failed, or left connections or running jobs behind.
    ///
    /// # Panics
    /// Then.
    pub async fn finish(self) {
        let database = self.database.clone();
        self.stop_services().await;
        let mut conn = database.superuser().await;
        let running: i64 = sqlx::query_scalar("SELECT count(*) FROM jobs WHERE state = 'running'")
            .fetch_one(&mut conn)
            .await
            .unwrap();
        assert_eq!(running, 0, "jobs are still marked as running");
        drop(conn);
        eventually("all connections are closed", Duration::from_secs(5), async || {
            (database.open_connections().await == 0).then_some(())
        })
        .await;
        database.drop_it().await;
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.stop.cancel();
        assert!(self.finished || std::thread::panicking(), "end a test with app.finish().await");
    }
}

/// Waits for the ends of services that were told to stop.
async fn end(services: impl IntoIterator<Item = JoinHandle<anyhow::Result<()>>>) {
    for task in services {
        let ended = tokio::time::timeout(Duration::from_secs(35), task).await;
        ended.expect("a service did not stop within 35 s").unwrap().unwrap();
    }
}

/// Sends and reads the whole answer.
///
/// # Panics
/// When the line breaks.
pub async fn send(request: reqwest::RequestBuilder) -> Answer {
    let answer = request.send().await.unwrap();
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    Answer { status, headers, bytes: answer.bytes().await.unwrap().to_vec() }
}

fn settings_of(stack: &Endpoints, database: &Database, more: &[(&str, &str)]) -> Vec<(String, String)> {
    let key = base64::engine::general_purpose::STANDARD.encode([7u8; 32]);
    let mut values: Vec<(String, String)> = [
        ("DATABASE_URL", database.url("emailclient_app").as_str()),
        ("DATABASE_SYSTEM_URL", &database.url("emailclient_system")),
        ("DATABASE_MAX_CONNECTIONS", "8"),
        ("REDIS_URL", &stack.redis_url),
        ("JWT_SECRET", JWT_SECRET),
        ("ENCRYPTION_KEY", &key),
        ("OUTBOUND_ALLOW", "localhost:1-65535,127.0.0.1:1-65535"),
        ("TLS_EXTRA_CA_FILE", stack.ca_file.to_str().unwrap()),
        ("RATE_LIMIT_LOGIN_PER_MINUTE", "100000"),
        // All accounts of a test are on one host.
        ("IMAP_CONNECTS_PER_HOST_PER_SECOND", "200"),
        ("IMAP_CONNECTS_PER_SECOND", "200"),
    ]
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .into();
    values.retain(|(k, _)| !more.iter().any(|(name, _)| name == k));
    values.extend(more.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
    values
}
