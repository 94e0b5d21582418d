//! The receivers of `docs/examples`: they take what is signed, once, and nothing else.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use chrono::TimeDelta;
use emailclient_core::events::webhook::secret::{self, Secrets};
use emailclient_core::platform::clock::{Clock as _, SystemClock};
use emailclient_core::platform::seal::Keyring;
use serde_json::json;
use tests::app::{App, Tenant};
use tests::eventually::eventually;

/// A receiver that runs; it is killed when this is dropped.
struct Example {
    process: Child,
    said: Receiver<String>,
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Example {
    fn start(program: &str, file: &str, port: u16, secret: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples").join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        let page = path.parent().unwrap().with_file_name("events.md");
        assert!(
            std::fs::read_to_string(page).unwrap().contains(&text),
            "docs/events.md shows another {file}"
        );
        assert!(text.lines().filter(|line| !line.is_empty()).count() <= 22, "{file} is no short example");
        let mut process = Command::new(program)
            .arg(path)
            .env("WEBHOOK_SECRET", secret)
            .env("PORT", port.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{program} is needed for this test: {error}"));
        let (sender, said) = channel();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { process, said }
    }

    fn next(&self) -> String {
        self.said.recv_timeout(Duration::from_secs(10)).unwrap()
    }
}

async fn secrets(app: &App, tenant: &Tenant, id: &str) -> Secrets {
    let keyring = Keyring::new(&app.config().encryption_key, &[]).unwrap();
    let mut tx = app.db.tenant(tenant.id).await.unwrap();
    let stored = secret::stored(&mut tx, id.parse().unwrap()).await.unwrap();
    tx.release();
    stored.open(&keyring, SystemClock.now()).unwrap()
}

async fn receives(program: &str, file: &str) {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}/");
    let made = app.post(&tenant, "/api/webhooks", &json!({ "url": url })).await.expect(201);
    let id = made["id"].as_str().unwrap();
    let example = Example::start(program, file, port, made["secret"].as_str().unwrap());
    let test = format!("/api/webhooks/{id}/test");
    let told = eventually("the example takes a test", Duration::from_secs(20), async || {
        let told = app.post(&tenant, &test, &json!({})).await.expect(200);
        (told["delivered"] == true).then_some(told)
    })
    .await;
    let line = |event: &str| format!("webhook.test {event}");
    assert_eq!(example.next(), line(told["event_id"].as_str().unwrap()));

    let signer = secrets(&app, &tenant, id).await;
    let now = SystemClock.now();
    let body = r#"{"type": "webhook.test", "data": {}}"#;
    let send = async |event: &str, at: chrono::DateTime<chrono::Utc>, signature: String, body: &str| {
        let request = app.http.post(&url).header("webhook-id", event).header("webhook-signature", signature);
        let request = request.header("webhook-timestamp", at.timestamp().to_string());
        request.body(body.to_owned()).send().await.unwrap().status().as_u16()
    };
    let good = signer.sign("evt_a", now, body.as_bytes());
    let old = now - TimeDelta::minutes(6);
    for (what, wanted, sent) in [
        ("another body", 400, send("evt_a", now, good.clone(), "{\"type\": \"x\"}").await),
        ("another id", 400, send("evt_b", now, good.clone(), body).await),
        ("an old stamp", 400, send("evt_a", old, signer.sign("evt_a", old, body.as_bytes()), body).await),
        ("no signature of ours", 400, send("evt_a", now, "v1,AAAA ümlaut".to_owned(), body).await),
        ("two signatures", 204, send("evt_a", now, format!("v1,AAAA {good}"), body).await),
        ("the same again", 204, send("evt_a", now, good, body).await),
        ("another one", 204, send("evt_c", now, signer.sign("evt_c", now, body.as_bytes()), body).await),
    ] {
        assert_eq!(sent, wanted, "{what}");
    }
    assert_eq!([example.next(), example.next()], [line("evt_a"), line("evt_c")], "each once");
    drop(example);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_in_python_verifies_answers_and_takes_each_event_once() {
    receives("python3", "webhook_receiver.py").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_in_javascript_verifies_answers_and_takes_each_event_once() {
    receives("node", "webhook_receiver.js").await;
}
