//! Servers that tell more than there is room for: it costs their accounts, and nobody else.

use std::time::Duration;

use serde_json::{Value, json};
use tests::app::{App, Tenant};
use tests::eventually::eventually;
use tests::imapd::{Imapd, Reply, Times};
use tests::scripted::{self, Scripted};
use tests::worker::Worker;

const SOON: Duration = Duration::from_secs(60);
const QUICK: [(&str, &str); 3] = [
    ("IMAP_CONNECTS_PER_HOST_PER_SECOND", "200"),
    ("IMAP_CONNECTS_PER_SECOND", "200"),
    ("SYNC_INTERVAL_SECONDS", "86400"),
];
const MIB: u64 = 1 << 20;

async fn connect(app: &App, tenant: &Tenant, name: &str, port: u16) -> String {
    let server =
        json!({"host": "127.0.0.1", "port": port, "security": "none", "username": name, "password": "p"});
    let body = json!({"email": format!("{name}@lab.test"), "imap": server, "smtp": server});
    let made = app.post(tenant, "/api/accounts?verify=false", &body).await.expect(201);
    made["id"].as_str().unwrap().to_owned()
}

async fn status(app: &App, tenant: &Tenant, account: &str) -> Value {
    app.get(tenant, &format!("/api/sync/status/{account}")).await.expect(200)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_answer_idle_with_a_line_without_end_cost_64_kib_each_and_are_told() {
    let app = App::start_with(&[]).await;
    let tenant = app.tenant().await;
    let endless: String = (1..2_000_000).map(|n| format!("{n},")).collect();
    let server = Imapd::start("IDLE CONDSTORE QRESYNC ENABLE ESEARCH UIDPLUS").await;
    server.instead("IDLE", Times::Each, Reply::hang(format!("+ idling\r\n* VANISHED {endless}")));
    let mut accounts = Vec::new();
    for n in 0..40 {
        accounts.push(connect(&app, &tenant, &format!("idle{n}"), server.port).await);
    }
    let worker = Worker::start(&app, &[&QUICK[..], &[("IMAP_IDLE_ENABLED", "true")]].concat());
    for account in &accounts {
        let told = eventually("the account tells of it", SOON, async || {
            let told = status(&app, &tenant, account).await;
            (told["cause"]["code"] == "watch-failed").then_some(told)
        })
        .await;
        assert_eq!(told["state"], "connected", "it is read all the same: {told}");
        assert!(told["cause"]["upstream"]["text"].as_str().unwrap().contains("line"), "{told}");
        assert!(told["cause"]["next_try_at"].is_string() && told["cause"]["since"].is_string(), "{told}");
    }
    let peak = worker.peak_bytes();
    assert!(peak < 250 * MIB, "{} MiB", peak / MIB);
    // A round that succeeds does not take it for mended.
    let path = format!("/api/sync/imap/{}", accounts[0]);
    let run = app.post(&tenant, &path, &json!({})).await.expect(202);
    let told = eventually("the round is over", SOON, async || {
        let told = status(&app, &tenant, &accounts[0]).await;
        (told["run"]["id"] == run["id"] && told["run"]["state"] == "done").then_some(told)
    })
    .await;
    assert_eq!(
        (&told["state"], &told["cause"]["code"]),
        (&json!("connected"), &json!("watch-failed")),
        "{told}"
    );
    drop(worker);
    app.finish().await;
}

/// An account whose server lists so many names of 1,990 bytes.
async fn lister(count: usize) -> Scripted {
    scripted::imap(move |tag, command| {
        let word = command.split(' ').next().unwrap_or_default();
        let mut said = match word {
            "CAPABILITY" => b"* CAPABILITY IMAP4rev1 LIST-EXTENDED LIST-STATUS\r\n".to_vec(),
            "LIST" => {
                let name = "n".repeat(1_983);
                (0..count)
                    .flat_map(|n| format!("* LIST (\\Noselect) \"/\" {name}{n:07}\r\n").into_bytes())
                    .collect()
            }
            _ => Vec::new(),
        };
        said.extend(format!("{tag} OK done\r\n").into_bytes());
        said
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_servers_that_list_thirty_thousand_long_names_take_no_ones_memory_and_no_ones_time() {
    let app = App::start_with(&[]).await;
    let (tenant, other) = (app.tenant().await, app.tenant().await);
    let server = lister(30_000).await;
    let mut accounts = Vec::new();
    for n in 0..8 {
        accounts.push(connect(&app, &tenant, &format!("list{n}"), server.port).await);
    }
    let sane = Imapd::start("LIST-EXTENDED LIST-STATUS").await;
    sane.lock().mailbox("INBOX").fill(1, 3);
    let theirs = connect(&app, &other, "sane", sane.port).await;
    let worker = Worker::start(&app, &QUICK);
    eventually("the other tenant's round is over", Duration::from_secs(60), async || {
        (status(&app, &other, &theirs).await["run"]["state"] == "done").then_some(())
    })
    .await;
    for account in &accounts {
        let told = eventually("the account tells of it", Duration::from_secs(120), async || {
            let told = status(&app, &tenant, account).await;
            told["cause"].is_object().then_some(told)
        })
        .await;
        assert_eq!(told["cause"]["code"], "upstream-protocol", "{told}");
        assert!(told["cause"]["upstream"]["text"].as_str().unwrap().contains("limit"), "{told}");
    }
    let peak = worker.peak_bytes();
    assert!(peak < 350 * MIB, "{} MiB", peak / MIB);
    drop(worker);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_trees_that_fit_one_after_the_other_are_all_taken_over() {
    let app = App::start_with(&[]).await;
    let tenant = app.tenant().await;
    let server = lister(4_000).await;
    let worker = Worker::start(&app, &QUICK);
    let mut accounts = Vec::new();
    for n in 0..4 {
        accounts.push(connect(&app, &tenant, &format!("tree{n}"), server.port).await);
    }
    for account in &accounts {
        let told = eventually("the round is over", Duration::from_secs(120), async || {
            let told = status(&app, &tenant, account).await;
            matches!(told["run"]["state"].as_str(), Some("done" | "failed")).then_some(told)
        })
        .await;
        assert_eq!((&told["run"]["state"], &told["cause"]), (&json!("done"), &Value::Null));
    }
    let held: i64 = sqlx::query_scalar("SELECT count(*) FROM mailboxes")
        .fetch_one(&mut app.database.superuser().await)
        .await
        .unwrap();
    assert_eq!(held, 16_000);
    drop(worker);
    app.finish().await;
}
