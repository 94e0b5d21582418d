//! What Prometheus reads of the real services: as the table and docs/metrics.md say, clean, and without labels that grow.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use emailclient_core::platform::metrics::table::{self, Kind, Metric};
use serde_json::{Value, json};
use tests::app::{App, Tenant};
use tests::eventually::eventually;
use tests::mail;
use tests::service::Service;

/// Docs have one line of a table for each metric: name, kind, labels, help.
#[test]
fn the_document_has_each_metric_and_no_other() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let text = std::fs::read_to_string(path).unwrap();
    let told: BTreeSet<String> =
        text.lines().filter(|line| line.starts_with("| `emailclient_")).map(str::to_owned).collect();
    let wanted: BTreeSet<String> = table::ALL.iter().flat_map(|rows| rows.iter()).map(row).collect();
    let (more, less): (Vec<_>, Vec<_>) =
        (told.difference(&wanted).collect(), wanted.difference(&told).collect());
    assert!(more.is_empty() && less.is_empty(), "only in the document: {more:#?}; missing in it: {less:#?}");
}

fn row(metric: &Metric) -> String {
    let kind = match metric.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram(_) => "histogram",
    };
    let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
    format!("| `{}` | {kind} | {} | {} |", metric.name, labels.join(", "), metric.help)
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The three services, each with a listener for scrapes.
struct Services {
    running: Vec<Service>,
    ports: Vec<(&'static str, u16)>,
}

impl Services {
    fn start(app: &App) -> Self {
        let names = ["emailclient-api", "emailclient-worker", "emailclient-scheduler"];
        let (mut running, mut ports) = (Vec::new(), Vec::new());
        for name in names {
            let (port, api) = (free_port(), format!("127.0.0.1:{}", free_port()));
            let listen = format!("127.0.0.1:{port}");
            running.push(Service::start(app, name, &[("METRICS_LISTEN", &listen), ("API_LISTEN", &api)]));
            ports.push((name, port));
        }
        Self { running, ports }
    }

    /// Where the API is reached.
    fn api(&self) -> String {
        format!("http://{}", self.running[0].variable("API_LISTEN"))
    }

    async fn scrape(&self, app: &App, name: &str) -> Option<String> {
        let port = self.ports.iter().find(|(service, _)| *service == name)?.1;
        let answer = app.http.get(format!("http://127.0.0.1:{port}/metrics")).send().await.ok()?;
        assert_eq!(answer.status(), 200);
        assert!(answer.headers()["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
        answer.text().await.ok()
    }
}

/// Name and labels of each series → its value.
fn series(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| {
            line.rsplit_once(' ').map(|(name, value)| (name.to_owned(), value.parse().unwrap())).unwrap()
        })
        .collect()
}

fn promtool(text: &str) {
    use std::io::Write as _;
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is of Debian's package prometheus");
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let done = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
    assert!(done.status.success() && said.trim().is_empty(), "{said}");
}

/// A real Prometheus, which scrapes these ports every second.
struct Prometheus {
    child: Child,
    url: String,
    dir: std::path::PathBuf,
}

impl Prometheus {
    fn start(ports: &[(&str, u16)]) -> Self {
        let dir = std::env::temp_dir()
            .join(format!("prometheus-{}", emailclient_core::platform::id::new_uuid().simple()));
        std::fs::create_dir(&dir).unwrap();
        let jobs: Vec<Value> = ports
            .iter()
            .map(|(name, port)| json!({"job_name": name, "static_configs": [{"targets": [format!("127.0.0.1:{port}")]}]}))
            .collect();
        let config =
            json!({"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": jobs});
        // JSON is YAML.
        std::fs::write(dir.join("prometheus.yml"), config.to_string()).unwrap();
        let listen = format!("127.0.0.1:{}", free_port());
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", dir.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
            .arg(format!("--web.listen-address={listen}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("Debian's package prometheus");
        Self { child, url: format!("http://{listen}"), dir }
    }

    async fn ask(&self, app: &App, query: &str) -> Vec<Value> {
        let url =
            url::Url::parse_with_params(&format!("{}/api/v1/query", self.url), [("query", query)]).unwrap();
        let Ok(answer) = app.http.get(url).send().await else { return Vec::new() };
        let answer: Value = answer.json().await.unwrap_or_default();
        answer.pointer("/data/result").and_then(Value::as_array).cloned().unwrap_or_default()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// An account is connected, read and sent from by the services.
async fn use_it(app: &App, tenant: &Tenant) {
    let user = mail::new_mailbox(app);
    mail::fill(
        app,
        &user,
        "INBOX",
        (0..3).map(|n| mail::message(&format!("M{n}"), &format!("m{n}@x.test"), "x")).collect(),
    );
    let account = mail::connect(app, tenant, &user).await;
    mail::synchronise(app, tenant, &account).await;
    let draft = json!({"account_id": account, "to": [user], "subject": "S", "text": "x"});
    let draft = app.post(tenant, "/api/compose", &draft).await.expect(201);
    app.post(
        tenant,
        &format!("/api/compose/{}/send", draft["id"].as_str().unwrap()),
        &json!({"undo_seconds": 0}),
    )
    .await
    .expect(202);
    eventually("the message is sent", Duration::from_secs(60), async || {
        let all = app.get(tenant, "/api/submissions").await.expect(200);
        (all["data"][0]["state"] == "sent").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_prometheus_scrapes_the_real_services() {
    let mut app = App::start().await;
    let services = Services::start(&app);
    app.base = services.api();
    eventually("the API is ready", Duration::from_secs(30), async || {
        let ready = app.http.get(format!("{}/health/ready", app.base)).send().await.ok()?;
        (ready.status() == 200).then_some(())
    })
    .await;
    let prometheus = Prometheus::start(&services.ports);
    let tenant = app.tenant().await;
    use_it(&app, &tenant).await;
    for (query, least) in [
        ("sum(up)", 3.0),
        ("sum(emailclient_http_requests_total{status=\"2xx\"})", 5.0),
        ("sum(emailclient_sync_rounds_total{outcome=\"done\"})", 1.0),
        ("sum(emailclient_sync_messages_stored_total)", 3.0),
        ("sum(emailclient_imap_commands_total{outcome=\"ok\"})", 5.0),
        ("sum(emailclient_mail_connects_total{protocol=\"smtp\",outcome=\"ok\"})", 1.0),
        ("sum(emailclient_submission_attempts_total{state=\"sent\"})", 1.0),
        ("sum(emailclient_job_runs_total{kind=\"sync_account\",outcome=\"done\"})", 1.0),
        ("sum(emailclient_accounts)", 1.0),
        ("sum(emailclient_db_connections)", 1.0),
        ("sum(process_resident_memory_bytes)", 1.0),
    ] {
        eventually(query, Duration::from_secs(60), async || {
            let found = prometheus.ask(&app, query).await;
            let value: f64 = found.first()?["value"][1].as_str()?.parse().ok()?;
            (value >= least).then_some(())
        })
        .await;
    }
    let known: BTreeMap<&str, &Metric> =
        table::ALL.iter().flat_map(|rows| rows.iter()).map(|metric| (metric.name, metric)).collect();
    for (name, _) in &services.ports {
        let text = services.scrape(&app, name).await.unwrap();
        promtool(&text);
        for (series, _) in series(&text) {
            let (metric, labels) = series.split_once('{').unwrap_or((&series, ""));
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| metric.strip_suffix(end));
            let ours = known.get(metric).or_else(|| known.get(base?));
            assert!(ours.is_some() || metric.starts_with("process_"), "{series} stands in no table");
            let allowed = ours.map_or(&[][..], |metric| metric.labels);
            for label in labels.split("\",").filter_map(|label| label.split_once('=')).map(|(label, _)| label)
            {
                assert!(allowed.contains(&label) || label == "le", "{series}: the label {label}");
            }
            assert!(!series.contains('@') && !series.contains("lab.test"), "{series}");
        }
    }
    services.running.into_iter().for_each(Service::end);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_asked_for_there_are_no_more_series() {
    let mut app = App::start().await;
    let services = Services::start(&app);
    app.base = services.api();
    eventually("the API is ready", Duration::from_secs(30), async || {
        let ready = app.http.get(format!("{}/health/ready", app.base)).send().await.ok()?;
        (ready.status() == 200).then_some(())
    })
    .await;
    let tenant = app.tenant().await;
    let strange = async |n: usize| {
        let method = format!("M{}", n % 7);
        for path in [
            format!("/nothing/{n}"),
            format!("/api/messages/{n}"),
            format!("/api/accounts/{n}?x={n}"),
            format!("/{n}"),
        ] {
            let _ =
                app.request(&tenant, if n.is_multiple_of(2) { "GET" } else { &method }, &path).send().await;
        }
    };
    for n in 0..20 {
        strange(n).await;
    }
    let before = series(&services.scrape(&app, "emailclient-api").await.unwrap()).len();
    for n in 20..120 {
        strange(n).await;
    }
    let after = series(&services.scrape(&app, "emailclient-api").await.unwrap()).len();
    assert_eq!(before, after);
    // Nothing else is served there.
    let port = services.ports[0].1;
    let other = app.http.get(format!("http://127.0.0.1:{port}/")).send().await.unwrap();
    assert_eq!(other.status(), 404);
    let posted = app.http.post(format!("http://127.0.0.1:{port}/metrics")).send().await.unwrap();
    assert_eq!(posted.status(), 405);
    services.running.into_iter().for_each(Service::end);
    app.finish().await;
}

/// Who holds connections and says nothing keeps no scraper away for long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_who_say_nothing_keep_nobody_from_scraping() {
    let app = App::start().await;
    let services = Services::start(&app);
    let port = services.ports[0].1;
    eventually("metrics are served", Duration::from_secs(30), async || {
        services.scrape(&app, "emailclient-api").await
    })
    .await;
    let held: Vec<_> = (0..50).map(|_| std::net::TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
    eventually("a scrape is answered", Duration::from_secs(60), async || {
        services.scrape(&app, "emailclient-api").await
    })
    .await;
    drop(held);
    services.running.into_iter().for_each(Service::end);
    app.finish().await;
}
