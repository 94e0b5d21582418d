//! The event log as an operator has it: `emailctl events tail`, and what is cut off.

use chrono::TimeDelta;
use emailclient_core::domain::event::{self, AccountUpdated};
use emailclient_core::events::log::{self, Filter};
use emailclient_core::jobs::cut_event_log;
use emailclient_core::platform::clock::{Clock as _, SystemClock};
use emailclient_core::platform::config::{Config, Source};
use emailclient_core::platform::db::Db;
use emailclient_core::platform::id::{AccountId, TenantId};
use serde_json::Value;
use tests::database::Database;

use super::program::Settings;

/// A tenant whose log has this many events, half of them of the account.
async fn tenant(database: &Database, db: &Db, slug: &str, events: usize) -> (TenantId, AccountId) {
    let (id, account) = (TenantId::new(), AccountId::new());
    sqlx::query("INSERT INTO tenants (id, slug, name) VALUES ($1, $2, '')")
        .bind(id)
        .bind(slug)
        .execute(&mut database.superuser().await)
        .await
        .unwrap();
    let mut tx = db.tenant(id).await.unwrap();
    for n in 0..events {
        let whose = if n % 2 == 0 { account } else { AccountId::new() };
        event::tell(&mut tx, whose, AccountUpdated { id: whose });
    }
    tx.commit().await.unwrap();
    (id, account)
}

fn db(settings: &Settings) -> Db {
    Db::new(&Config::from_source(&Source::new(settings.pairs())).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_events_are_printed_in_order_a_line_each() {
    let database = Database::create().await;
    let settings = Settings::of(&database);
    let db = db(&settings);
    let (_, account) = tenant(&database, &db, "tailed", 30).await;
    db.close().await;
    let lines = |arguments: &[&str]| -> Vec<Value> {
        let all = [&["events", "tail", "--tenant", "tailed"], arguments].concat();
        let ended = settings.emailctl(&all, "");
        assert_eq!(ended.code, Some(0), "{}", ended.err);
        ended.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    assert_eq!(lines(&[]).len(), 20);
    assert_eq!(lines(&["-n", "0"]).len(), 0);
    let all = lines(&["-n", "100"]);
    assert_eq!(all.len(), 30);
    let ids: Vec<&str> = all.iter().map(|line| line["id"].as_str().unwrap()).collect();
    assert_eq!(lines(&["-n", "3"]), all[27..]);
    assert!(ids.is_sorted(), "{ids:?}");
    let of_one = lines(&["--account", &account.to_string(), "-n", "100"]);
    assert_eq!(of_one.len(), 15);
    assert!(of_one.iter().all(|line| line["account_id"] == account.to_string()));
    let nobody = settings.emailctl(&["events", "tail", "--tenant", "nobody"], "");
    assert!(nobody.code == Some(1) && nobody.err.contains("no tenant nobody"), "{}", nobody.err);
    database.drop_it().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_old_is_cut_off_in_portions_and_the_log_says_where_it_begins() {
    let database = Database::create().await;
    let db = db(&Settings::of(&database));
    let (id, _) = tenant(&database, &db, "cut", 12_000).await;
    let (young, _) = tenant(&database, &db, "young", 10).await;
    let day = TimeDelta::days(1);
    let before = SystemClock.now() - TimeDelta::days(30);
    let due = async || cut_event_log::due(&mut db.system().await.unwrap(), before).await.unwrap();
    assert_eq!(due().await, []);
    sqlx::query("UPDATE events SET created_at = created_at - interval '40 days' WHERE tenant_id = $1 AND position <= 11000")
        .bind(id)
        .execute(&mut database.superuser().await)
        .await
        .unwrap();
    assert_eq!(due().await, [id]);
    let mut portions = 0;
    while cut_event_log::portion(&db, id, before).await.unwrap() {
        portions += 1;
        // Whoever reads meanwhile sees a log without a gap.
        let mut tx = db.tenant(id).await.unwrap();
        let stream = log::stream(&mut tx).await.unwrap();
        let first =
            log::read(&mut tx, (stream.oldest - 1, stream.durable), &Filter::default(), 1).await.unwrap();
        assert_eq!(first[0].position, stream.oldest);
        tx.release();
    }
    assert_eq!(portions, 3);
    let mut tx = db.tenant(id).await.unwrap();
    let stream = log::stream(&mut tx).await.unwrap();
    assert_eq!((stream.oldest, stream.position), (11_001, 12_000));
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM events WHERE tenant_id = $1")
        .bind(id)
        .fetch_one(&mut database.superuser().await)
        .await
        .unwrap();
    assert_eq!(left, 1_000);
    // Positions go on where they were, and a log that was cut off whole begins after its end.
    sqlx::query("UPDATE events SET created_at = created_at - interval '40 days' WHERE tenant_id = $1")
        .bind(id)
        .execute(&mut database.superuser().await)
        .await
        .unwrap();
    while cut_event_log::portion(&db, id, before).await.unwrap() {}
    let stream = log::stream(&mut tx).await.unwrap();
    assert_eq!((stream.oldest, stream.position), (12_001, 12_000));
    tx.release();
    assert_eq!(due().await, []);
    let mut tx = db.tenant(id).await.unwrap();
    event::tell(&mut tx, AccountId::new(), AccountUpdated { id: AccountId::new() });
    tx.commit().await.unwrap();
    let mut tx = db.tenant(id).await.unwrap();
    assert_eq!(log::stream(&mut tx).await.unwrap().position, 12_001);
    // Where the log stood at a moment.
    let now = log::position_at(&mut tx, SystemClock.now() + day).await.unwrap();
    let then = log::position_at(&mut tx, SystemClock.now() - day).await.unwrap();
    assert_eq!((now, then), (12_001, 12_000));
    tx.release();
    let mut tx = db.tenant(young).await.unwrap();
    assert_eq!(log::stream(&mut tx).await.unwrap().oldest, 1);
    tx.release();
    db.close().await;
    database.drop_it().await;
}
