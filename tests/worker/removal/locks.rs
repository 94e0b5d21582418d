//! How long anybody holds a lock, or waits for one, while an account that holds much is deleted, and what its neighbour notices.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Executor as _};
use tests::app::{App, Tenant};
use tests::mail;

use super::removed;

const MESSAGES: usize = 10_000;
/// Below a second in the figures of `make bench`; here others work on the same processors.
const LONGEST: Duration = Duration::from_secs(1);

pub(super) async fn account(app: &App, tenant: &Tenant) -> String {
    let settings = mail::settings(app, &mail::new_mailbox(app));
    let made = app.post(tenant, "/api/accounts?verify=false", &settings).await.expect(201);
    made["id"].as_str().unwrap().to_owned()
}

/// Gives an account messages, by SQL.
pub(super) async fn fill(app: &App, tenant: &Tenant, account: &str, messages: usize) {
    let sql = include_str!("fill.sql")
        .replace("{tenant}", &tenant.id.to_string())
        .replace("{account}", account)
        .replace("{prefix}", &account[account.len() - 8..])
        .replace("{messages}", &messages.to_string());
    app.database.superuser().await.execute(AssertSqlSafe(sql)).await.unwrap();
}

/// The longest that a transaction held locks, and that one was waited for, with what was said then.
#[derive(Debug, Default)]
pub(super) struct Locks {
    pub(super) held: (Duration, String),
    pub(super) awaited: (Duration, String),
}

/// Looks at all locks of the database until `over`.
pub(super) async fn watch(app: &App, over: Arc<AtomicBool>) -> tokio::task::JoinHandle<Locks> {
    let mut conn = app.database.superuser().await;
    tokio::spawn(async move {
        let (mut seen, mut holders) = (Locks::default(), HashMap::new());
        while !over.load(Ordering::Relaxed) {
            // A lock of a row is held until the end of its transaction.
            let held: Vec<(String, String)> = sqlx::query_as(
                "SELECT backend_xid::text, left(query, 160) FROM pg_stat_activity
                 WHERE backend_type = 'client backend' AND backend_xid IS NOT NULL AND datname = current_database()",
            )
            .fetch_all(&mut conn)
            .await
            .unwrap();
            let now = Instant::now();
            for (transaction, statement) in &held {
                let first = *holders.entry(transaction.clone()).or_insert(now);
                if now - first > seen.held.0 {
                    seen.held = (now - first, statement.clone());
                }
            }
            holders.retain(|transaction, _| held.iter().any(|(still, _)| still == transaction));
            let waits: Vec<(f64, String)> = sqlx::query_as(
                "SELECT extract(epoch FROM clock_timestamp() - l.waitstart)::float8, left(a.query, 160)
                 FROM pg_locks l JOIN pg_stat_activity a USING (pid)
                 WHERE NOT l.granted AND l.waitstart IS NOT NULL AND a.datname = current_database()",
            )
            .fetch_all(&mut conn)
            .await
            .unwrap();
            for (seconds, statement) in waits {
                let waited = Duration::try_from_secs_f64(seconds).unwrap_or_default();
                if waited > seen.awaited.0 {
                    seen.awaited = (waited, statement);
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        seen
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_an_account_that_holds_much_is_removed_nothing_is_locked_for_long_and_its_neighbour_is_read() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let (large, small) = (account(&app, &tenant).await, account(&app, &tenant).await);
    fill(&app, &tenant, &large, MESSAGES).await;
    fill(&app, &tenant, &small, 100).await;
    let over = Arc::new(AtomicBool::new(false));
    let watch = watch(&app, Arc::clone(&over)).await;
    let begun = Instant::now();
    assert_eq!(app.delete(&tenant, &format!("/api/accounts/{large}")).await.status, 204);
    let answered = begun.elapsed();
    let list = format!("/api/accounts/{small}/messages");
    let search = "/api/sync/search?query=everywhere&limit=20";
    let mut slowest = [Duration::ZERO; 3];
    let mut removal = Box::pin(removed(&app, &large));
    loop {
        for (path, slowest) in
            [&*list, search, "/api/sync/search?query=is:unread&limit=20"].into_iter().zip(&mut slowest)
        {
            let asked = Instant::now();
            let page = app.get(&tenant, path).await.expect(200);
            *slowest = (*slowest).max(asked.elapsed());
            let rows = page["data"].as_array().unwrap();
            assert!(!rows.is_empty(), "{path}");
            assert!(rows.iter().all(|row| row["account_id"] == small.as_str()), "{path}: {page}");
        }
        if tokio::time::timeout(Duration::from_millis(50), &mut removal).await.is_ok() {
            break;
        }
    }
    drop(removal);
    let took = begun.elapsed();
    over.store(true, Ordering::Relaxed);
    let locks = watch.await.unwrap();
    println!(
        "answered in {answered:?}, removed in {took:?}, slowest list and searches {slowest:?}, {locks:?}"
    );
    assert!(answered < LONGEST, "{answered:?}");
    assert!(locks.held.0 < LONGEST && locks.awaited.0 < LONGEST, "{locks:?}");
    app.finish().await;
}
