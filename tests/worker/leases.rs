//! Three worker processes on the same accounts: one is killed, one stopped and continued, one cut off from the database.
//!
//! Every write of synchronised rows is logged by triggers of this test, with the process that made it and the lease that
//! was in force. `LEASE_TEST_ACCOUNTS` says how many accounts (24; the log of a change to leases should say 200).

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use sqlx::postgres::PgConnection;
use sqlx::{Executor as _, Row as _};
use tests::app::{App, JWT_SECRET};
use tests::eventually::eventually;
use tests::mail;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Of the workers in this test; as short as an operator may set it.
const LEASE: Duration = Duration::from_secs(4);
const PATIENCE: Duration = Duration::from_secs(120);
/// Messages of each mailbox before the first worker starts.
const OLD: usize = 30;

const LOG: &str = "
CREATE TABLE writes (n bigserial, at timestamptz DEFAULT clock_timestamp(), account uuid, writer text, owner uuid, epoch bigint);
CREATE FUNCTION log_write() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
  IF current_setting('application_name') LIKE 'worker-%' THEN
    INSERT INTO writes (account, writer, owner, epoch)
    SELECT l.account_id, current_setting('application_name'), l.owner, l.epoch FROM account_leases l
    WHERE l.tenant_id = NEW.tenant_id AND l.account_id = NEW.account_id;
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER log_write AFTER INSERT OR UPDATE ON message_mailboxes FOR EACH ROW EXECUTE FUNCTION log_write();
CREATE TRIGGER log_write AFTER INSERT OR UPDATE ON mailboxes FOR EACH ROW EXECUTE FUNCTION log_write();
";

/// `postgres://user@host:port/database`
fn port_of(url: &str) -> u16 {
    url.rsplit([':', '/']).nth(1).unwrap().parse().unwrap()
}

/// A worker process, known to the database by its name.
struct Worker {
    name: String,
    child: Child,
}

impl Worker {
    fn start(app: &App, name: &str, database_port: Option<u16>) -> Self {
        let program = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("emailclient-worker");
        assert!(program.exists(), "{} is not built: cargo build --workspace --bins", program.display());
        let url = |role: &str| {
            let url = app.database.url(role);
            let port = port_of(&url);
            let through = format!(":{}/", database_port.unwrap_or(port));
            format!("{}?application_name={name}", url.replace(&format!(":{port}/"), &through))
        };
        let child = Command::new(program)
            .env_clear()
            .env("DATABASE_URL", url("emailclient_app"))
            .env("DATABASE_SYSTEM_URL", url("emailclient_system"))
            .env("DATABASE_MAX_CONNECTIONS", "10")
            .env("REDIS_URL", &app.stack.redis_url)
            .env("JWT_SECRET", JWT_SECRET)
            .env("ENCRYPTION_KEY", base64::engine::general_purpose::STANDARD.encode([7u8; 32]))
            .env("OUTBOUND_ALLOW", "localhost:1-65535,127.0.0.1:1-65535")
            .env("TLS_EXTRA_CA_FILE", &app.stack.ca_file)
            .env("IMAP_CONNECTS_PER_SECOND", "1000")
            .env("IMAP_CONNECTS_PER_HOST_PER_SECOND", "1000")
            .env("WORKER_LEASE_SECONDS", LEASE.as_secs().to_string())
            .env("LOG_LEVEL", "error")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { name: name.to_owned(), child }
    }

    fn signal(&self, name: &str) {
        devstack::signal(name, self.child.id()).unwrap();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The way of one worker to the database, which can be cut without either end hearing of it.
struct Wire {
    port: u16,
    open: watch::Sender<bool>,
}

impl Wire {
    async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let (open, state) = watch::channel(true);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(("127.0.0.1", port)).await else { return };
                let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                tokio::spawn(pump(near_in, far_out, state.clone()));
                tokio::spawn(pump(far_in, near_out, state.clone()));
            }
        });
        Self { port: own, open }
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut open: watch::Receiver<bool>) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(size @ 1..) = from.read(&mut buffer).await {
        if open.wait_for(|open| *open).await.is_err() || to.write_all(&buffer[..size]).await.is_err() {
            return;
        }
    }
}

/// Accounts whose lease is in force and held by this worker, as (account, epoch).
async fn holds(conn: &mut PgConnection, worker: &str) -> Vec<(uuid::Uuid, i64)> {
    let sql = "SELECT account_id, epoch FROM account_leases WHERE expires_at > clock_timestamp() + interval '1 second'
               AND owner IN (SELECT owner FROM writes WHERE writer = $1)";
    let rows = sqlx::query(sql).bind(worker).fetch_all(conn).await.unwrap();
    rows.iter().map(|r| (r.get(0), r.get(1))).collect()
}

/// Has `fault` happen at a moment when the worker holds an account, and returns what it held.
async fn amid(
    conn: &mut PgConnection,
    worker: &str,
    fault: impl Fn(),
    undo: impl Fn(),
) -> Vec<(uuid::Uuid, i64)> {
    let started = std::time::Instant::now();
    loop {
        if !holds(conn, worker).await.is_empty() {
            fault();
            // What it sent before may still arrive.
            tokio::time::sleep(Duration::from_millis(100)).await;
            let held = holds(conn, worker).await;
            if !held.is_empty() {
                return held;
            }
            undo();
        }
        assert!(started.elapsed() < PATIENCE, "{worker} never had an account in hand");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until other workers have taken over all that was held.
async fn taken_over(conn: &mut PgConnection, held: &[(uuid::Uuid, i64)]) {
    for (account, epoch) in held {
        let started = std::time::Instant::now();
        while sqlx::query_scalar::<_, i64>("SELECT epoch FROM account_leases WHERE account_id = $1")
            .bind(account)
            .fetch_one(&mut *conn)
            .await
            .unwrap()
            <= *epoch
        {
            assert!(started.elapsed() < PATIENCE, "nobody took over");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn last_write(conn: &mut PgConnection) -> i64 {
    sqlx::query_scalar("SELECT coalesce(max(n), 0) FROM writes").fetch_one(conn).await.unwrap()
}

async fn works_again(app: &App, worker: &str, since: i64) {
    eventually("the worker works again", PATIENCE, async || {
        let sql = "SELECT count(*) FROM writes WHERE writer = $1 AND n > $2";
        let mut conn = app.database.superuser().await;
        let writes: i64 =
            sqlx::query_scalar(sql).bind(worker).bind(since).fetch_one(&mut conn).await.unwrap();
        (writes > 0).then_some(())
    })
    .await;
}

/// Delivers to one account after the other until told to stop; returns how many each got.
async fn traffic(app: &App, users: &[String], stop: &AtomicBool, delivered: &Mutex<BTreeMap<String, usize>>) {
    for user in users.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let n = delivered.lock().unwrap().get(user).copied().unwrap_or_default();
        let (stack, to) = (app.stack, user.clone());
        let bytes = mail::message(&format!("New {n}"), &format!("new{n}.{user}"), "new");
        tokio::task::spawn_blocking(move || stack.deliver(&to, &bytes).unwrap()).await.unwrap();
        *delivered.lock().unwrap().entry(user.clone()).or_default() += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The Message-IDs of an account's placements; twice what is there twice. From the bytes, because a message at which two
/// workers ended is stored without being looked into.
async fn listed(conn: &mut PgConnection, account: uuid::Uuid) -> Vec<String> {
    let sql = "SELECT substring(convert_from(b.raw, 'UTF8') FROM 'Message-ID: <([^>]+)>') FROM message_mailboxes p
               JOIN messages m ON m.tenant_id = p.tenant_id AND m.id = p.message_id
               JOIN blobs b ON b.tenant_id = m.tenant_id AND b.account_id = m.account_id AND b.hash = m.blob_hash
               WHERE p.account_id = $1 AND p.hidden_at IS NULL";
    sqlx::query_scalar(sql).bind(account).fetch_all(conn).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_three_workers_one_killed_one_stopped_and_one_cut_off_one_writes_at_a_time_and_nothing_is_lost() {
    let accounts =
        std::env::var_os("LEASE_TEST_ACCOUNTS").map_or(24, |n| n.to_str().unwrap().parse().unwrap());
    let mut app = App::start_with(&[("SYNC_INTERVAL_SECONDS", "3")]).await;
    let tenant = app.tenant().await;
    let mut conn = app.database.superuser().await;
    conn.execute(LOG).await.unwrap();
    let mut users = vec![];
    let mut ids = vec![];
    for _ in 0..accounts {
        let user = mail::new_mailbox(&app);
        let old = (0..OLD).map(|n| mail::message("Old", &format!("old{n}.{user}"), "old"));
        mail::fill(&app, &user, "INBOX", old.collect());
        let created = app.post(&tenant, "/api/accounts?verify=false", &mail::settings(&app, &user)).await;
        ids.push(created.expect(201)["id"].as_str().unwrap().parse::<uuid::Uuid>().unwrap());
        users.push(user);
    }
    let wire = Wire::to(port_of(&app.database.url("postgres"))).await;
    let killed = Worker::start(&app, "worker-1", None);
    let stopped = Worker::start(&app, "worker-2", None);
    let cut = Worker::start(&app, "worker-3", Some(wire.port));
    app.add_scheduler();
    let (stop, delivered) = (Arc::new(AtomicBool::new(false)), Mutex::new(BTreeMap::new()));
    let faults = async {
        let held = amid(&mut conn, &killed.name, || killed.signal("STOP"), || killed.signal("CONT")).await;
        killed.signal("KILL");
        taken_over(&mut conn, &held).await;

        let held = amid(&mut conn, &stopped.name, || stopped.signal("STOP"), || stopped.signal("CONT")).await;
        taken_over(&mut conn, &held).await;
        let since = last_write(&mut conn).await;
        stopped.signal("CONT");
        works_again(&app, &stopped.name, since).await;

        let set = |open| {
            wire.open.send_replace(open);
        };
        let (close, open) = (|| set(false), || set(true));
        let held = amid(&mut conn, &cut.name, close, open).await;
        taken_over(&mut conn, &held).await;
        let since = last_write(&mut conn).await;
        open();
        works_again(&app, &cut.name, since).await;
        stop.store(true, Ordering::Relaxed);
    };
    tokio::join!(faults, traffic(&app, &users, &stop, &delivered));

    let well = std::time::Instant::now();
    let mut conn = app.database.superuser().await;
    for (user, account) in users.iter().zip(&ids) {
        let new = delivered.lock().unwrap().get(user).copied().unwrap_or_default();
        let mut wanted: Vec<String> = (0..OLD).map(|n| format!("old{n}.{user}")).collect();
        wanted.extend((0..new).map(|n| format!("new{n}.{user}")));
        wanted.sort_unstable();
        let started = std::time::Instant::now();
        loop {
            let mut have = listed(&mut conn, *account).await;
            have.sort_unstable();
            if have == wanted {
                break;
            }
            assert!(started.elapsed() < PATIENCE, "{user}: {} of {} are here", have.len(), wanted.len());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    let (all, took) = (delivered.lock().unwrap().values().sum::<usize>(), well.elapsed());
    eprintln!("{all} messages came meanwhile; all were here {took:.1?} after the last fault");
    drop((killed, stopped, cut));
    let (messages, events): (i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM messages), (SELECT count(*) FROM events WHERE kind = 'message.created')",
    )
    .fetch_one(&mut conn)
    .await
    .unwrap();
    assert_eq!(messages, events, "each message was told once");
    one_writer_at_a_time(&mut conn).await;
    sqlx::query("UPDATE jobs SET state = 'ready' WHERE state = 'running'").execute(&mut conn).await.unwrap();
    app.finish().await;
}

async fn one_writer_at_a_time(conn: &mut PgConnection) {
    let rows = sqlx::query("SELECT account, writer, owner, epoch FROM writes ORDER BY n")
        .fetch_all(conn)
        .await
        .unwrap();
    let mut owners: BTreeMap<uuid::Uuid, String> = BTreeMap::new();
    let mut latest: BTreeMap<uuid::Uuid, (i64, String)> = BTreeMap::new();
    let (mut handed_over, mut writers) = (0, BTreeSet::new());
    for row in &rows {
        let (account, writer, epoch): (uuid::Uuid, String, i64) = (row.get(0), row.get(1), row.get(3));
        let owner: Option<uuid::Uuid> = row.get(2);
        let owner = owner.unwrap_or_else(|| panic!("{writer} wrote {account} while nobody had its lease"));
        assert_eq!(
            owners.entry(owner).or_insert_with(|| writer.clone()),
            &writer,
            "{writer} wrote under another's lease"
        );
        if let Some((before, by)) = latest.insert(account, (epoch, writer.clone())) {
            assert!(epoch >= before, "{writer} wrote {account} with epoch {epoch} after {by} with {before}");
            assert!(epoch > before || by == writer, "two writers in epoch {epoch} of {account}");
            handed_over += usize::from(by != writer);
        }
        writers.insert(writer);
    }
    assert_eq!(writers.len(), 3);
    eprintln!("{} writes, {} accounts, {handed_over} changes of the writer", rows.len(), latest.len());
    assert!(handed_over > 0);
}
