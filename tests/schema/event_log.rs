//! The event log when PostgreSQL crashes: what a reader was told of stays, at its place.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use emailclient_core::domain::event::{self, AccountUpdated};
use emailclient_core::events::log::{self, Filter};
use emailclient_core::platform::config::{Config, Source};
use emailclient_core::platform::db::Db;
use emailclient_core::platform::id::{AccountId, TenantId};
use tests::postgres::PrivatePostgres;
use uuid::Uuid;

const CRASHES: usize = 5;

fn db(server: &PrivatePostgres) -> Db {
    let url = |role: &str| server.url(role);
    let settings = [
        ("DATABASE_URL", url("emailclient_app")),
        ("DATABASE_SYSTEM_URL", url("emailclient_system")),
        ("REDIS_URL", "redis://127.0.0.1:1".to_owned()),
        ("JWT_SECRET", "0123456789abcdef0123456789abcdef".to_owned()),
        ("ENCRYPTION_KEY", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=".to_owned()),
    ];
    let settings = settings.map(|(name, value)| (name.to_owned(), value));
    Db::new(&Config::from_source(&Source::new(settings)).unwrap()).unwrap()
}

/// Writes until the database is gone, most of it without waiting for the disk; all of it from `relaxed` on.
async fn write(db: Db, tenant: TenantId, [over, relaxed]: [Arc<AtomicBool>; 2]) -> usize {
    let mut written = 0;
    while !over.load(Ordering::SeqCst) {
        let waits = written % 200 == 199 && !relaxed.load(Ordering::SeqCst);
        let begun = if waits { db.tenant(tenant).await } else { db.relaxed(tenant).await };
        let Ok(mut tx) = begun else { break };
        let id = AccountId::new();
        event::tell(&mut tx, id, AccountUpdated { id });
        if tx.commit().await.is_err() {
            break;
        }
        written += 1;
    }
    written
}

/// Reads what may be read, and fails when a place has another event than before.
async fn read(db: &Db, tenant: TenantId, seen: &mut BTreeMap<i64, Uuid>) -> Option<i64> {
    let mut tx = db.tenant(tenant).await.ok()?;
    let stream = log::stream(&mut tx).await.ok()?;
    let range = (seen.keys().next_back().copied().unwrap_or(0), stream.durable);
    let entries = log::read(&mut tx, range, &Filter::default(), 100_000).await.ok()?;
    for (n, entry) in (range.0 + 1..).zip(&entries) {
        assert_eq!(entry.position, n, "a gap");
        seen.insert(n, entry.object_id.unwrap());
    }
    tx.release();
    Some(stream.position)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_reader_was_told_stands_where_it_stood_after_crashes() {
    let server = PrivatePostgres::start().await;
    let tenant = TenantId::new();
    let mut seen = BTreeMap::new();
    let mut lost = 0;
    for crash in 0..CRASHES {
        let db = db(&server);
        let flags: [Arc<AtomicBool>; 2] = Default::default();
        let writers: Vec<_> =
            (0..4).map(|_| tokio::spawn(write(db.clone(), tenant, flags.clone()))).collect();
        let mut last = 0;
        for look in 0..30 {
            // What a fast machine writes in the last moments would all be on the disk.
            flags[1].store(look >= 20, Ordering::SeqCst);
            if look % 10 == 4 && look < 20 {
                log::make_durable(&db, tenant).await.unwrap();
            }
            last = read(&db, tenant, &mut seen).await.unwrap_or(last);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // What is surely on no disk: nobody waits for one any more.
        for _ in 0..5 {
            let mut tx = db.relaxed(tenant).await.unwrap();
            let id = AccountId::new();
            event::tell(&mut tx, id, AccountUpdated { id });
            tx.commit().await.unwrap();
        }
        last = read(&db, tenant, &mut seen).await.unwrap_or(last);
        server.crash();
        flags[0].store(true, Ordering::SeqCst);
        server.up();
        let written: usize = futures::future::join_all(writers).await.into_iter().map(Result::unwrap).sum();
        assert!(written > 50, "{written} were written");
        db.close().await;
        // From the beginning: each place has the event that was read there, and what was read is all there.
        let db = self::db(&server);
        let mut again = BTreeMap::new();
        let position = read(&db, tenant, &mut again).await.unwrap();
        for (place, object) in &seen {
            assert_eq!(again.get(place), Some(object), "place {place} after crash {crash}");
        }
        lost += usize::from(last > position);
        seen = again;
        db.close().await;
    }
    assert!(seen.len() > 200, "{}", seen.len());
    // Else nothing was tried: a crash has to take something that was committed and could not be read yet.
    assert!(lost > 0, "no crash lost anything");
}
