//! The lease table: who holds a job, who may end it, and what happens to a job whose worker died.

use std::time::Duration;

use emailclient_core::platform::db::Db;
use emailclient_core::platform::id::{AccountId, TenantId, new_uuid};
use emailclient_core::queue::job::queue::{self, Claimed, Outcome, Room};
use emailclient_core::queue::job::{Job, enqueue_as, priority};
use sqlx::Row as _;
use tests::app::App;

const LEASE: Duration = Duration::from_secs(30);

async fn add(db: &Db, tenant: TenantId, account_id: AccountId, delay: Duration, priority: i16) {
    let mut tx = db.tenant(tenant).await.unwrap();
    enqueue_as(&mut tx, &Job::IndexText { account_id }, delay, priority).await.unwrap();
    tx.commit().await.unwrap();
}

async fn claim(db: &Db, owner: uuid::Uuid, slots: usize, lease: Duration) -> Vec<Claimed> {
    let mut tx = db.system().await.unwrap();
    let room = Room { total: slots, free: slots };
    let claimed = queue::claim(&mut tx, owner, room, lease).await.unwrap();
    tx.commit().await.unwrap();
    claimed
}

async fn finish(db: &Db, owner: uuid::Uuid, job: &Claimed, outcome: Outcome) -> bool {
    let mut tx = db.system().await.unwrap();
    let written = queue::finish(&mut tx, owner, job, &outcome).await.unwrap();
    tx.commit().await.unwrap();
    written
}

async fn reap(db: &Db) -> u64 {
    let mut tx = db.system().await.unwrap();
    let reaped = queue::reap(&mut tx).await.unwrap();
    tx.commit().await.unwrap();
    reaped
}

async fn states(app: &App) -> Vec<(String, i32)> {
    let mut conn = app.database.superuser().await;
    let rows = sqlx::query("SELECT state, attempt FROM jobs ORDER BY id").fetch_all(&mut conn).await.unwrap();
    rows.iter().map(|r| (r.get("state"), r.get("attempt"))).collect()
}

#[tokio::test]
async fn a_job_asked_for_five_times_waits_once_and_runs_again_if_asked_while_running() {
    let app = App::start().await;
    let (tenant, account, me) = (app.tenant().await.id, AccountId::new(), new_uuid());
    for _ in 0..5 {
        add(&app.db, tenant, account, Duration::ZERO, priority::BACKGROUND).await;
    }
    let claimed = claim(&app.db, me, 10, LEASE).await;
    assert_eq!(claimed.len(), 1);
    add(&app.db, tenant, account, Duration::ZERO, priority::USER).await;
    assert!(claim(&app.db, me, 10, LEASE).await.is_empty(), "it must not run twice at once");
    assert!(finish(&app.db, me, &claimed[0], Outcome::Done).await);
    let again = claim(&app.db, me, 10, LEASE).await;
    assert_eq!(again.len(), 1, "what was asked for during the run is done after it");
    assert!(finish(&app.db, me, &again[0], Outcome::Done).await);
    assert!(claim(&app.db, me, 10, LEASE).await.is_empty());
    app.finish().await;
}

#[tokio::test]
async fn the_urgent_is_claimed_first_and_the_future_not_at_all() {
    let app = App::start().await;
    let (tenant, me) = (app.tenant().await.id, new_uuid());
    let ids: Vec<AccountId> = (0..4).map(|_| AccountId::new()).collect();
    add(&app.db, tenant, ids[0], Duration::ZERO, priority::BACKGROUND).await;
    add(&app.db, tenant, ids[1], Duration::ZERO, priority::USER).await;
    add(&app.db, tenant, ids[2], Duration::ZERO, priority::ROUND).await;
    add(&app.db, tenant, ids[3], Duration::from_secs(60), priority::USER).await;
    let order: Vec<Job> = claim(&app.db, me, 10, LEASE).await.into_iter().map(|c| c.job).collect();
    assert_eq!(order, [ids[1], ids[2], ids[0]].map(|account_id| Job::IndexText { account_id }));
    for job in states(&app).await {
        assert!(job.0 == "running" || job.0 == "ready");
    }
    let mut tx = app.db.system().await.unwrap();
    queue::prune(&mut tx, Duration::ZERO).await.unwrap();
    tx.commit().await.unwrap();
    let mut conn = app.database.superuser().await;
    sqlx::query("DELETE FROM jobs").execute(&mut conn).await.unwrap();
    app.finish().await;
}

#[tokio::test]
async fn a_dead_workers_job_goes_to_another_and_the_dead_one_can_end_nothing() {
    let app = App::start().await;
    let (tenant, account, dead, alive) = (app.tenant().await.id, AccountId::new(), new_uuid(), new_uuid());
    add(&app.db, tenant, account, Duration::ZERO, priority::ROUND).await;
    let first = claim(&app.db, dead, 1, Duration::from_millis(50)).await;
    tokio::time::sleep(Duration::from_millis(120)).await;
    assert_eq!(reap(&app.db).await, 1);
    let mut conn = app.database.superuser().await;
    sqlx::query("UPDATE jobs SET run_at = now()").execute(&mut conn).await.unwrap();
    let second = claim(&app.db, alive, 1, LEASE).await;
    assert_eq!((second.len(), second[0].attempt), (1, 2), "the attempt of the dead worker counts");
    assert!(!finish(&app.db, dead, &first[0], Outcome::Done).await, "a lost lease ends nothing");
    assert!(finish(&app.db, alive, &second[0], Outcome::Done).await);
    assert_eq!(states(&app).await, [("done".to_owned(), 2)]);
    app.finish().await;
}

#[tokio::test]
async fn a_job_that_kills_its_workers_is_dead_after_its_attempts() {
    let app = App::start().await;
    let (tenant, account) = (app.tenant().await.id, AccountId::new());
    add(&app.db, tenant, account, Duration::ZERO, priority::ROUND).await;
    let mut conn = app.database.superuser().await;
    sqlx::query("UPDATE jobs SET max_attempts = 2").execute(&mut conn).await.unwrap();
    for _ in 0..2 {
        sqlx::query("UPDATE jobs SET run_at = now()").execute(&mut conn).await.unwrap();
        assert_eq!(claim(&app.db, new_uuid(), 1, Duration::from_millis(20)).await.len(), 1);
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert_eq!(reap(&app.db).await, 1);
    }
    assert_eq!(states(&app).await, [("dead".to_owned(), 2)]);
    app.finish().await;
}

#[tokio::test]
async fn two_workers_never_hold_the_same_job() {
    let app = App::start().await;
    let tenant = app.tenant().await.id;
    for _ in 0..60 {
        add(&app.db, tenant, AccountId::new(), Duration::ZERO, priority::ROUND).await;
    }
    let (a, b) = (new_uuid(), new_uuid());
    let (mut seen, mut total) = (std::collections::HashSet::new(), 0);
    loop {
        let (x, y) = tokio::join!(claim(&app.db, a, 7, LEASE), claim(&app.db, b, 7, LEASE));
        if x.is_empty() && y.is_empty() {
            break;
        }
        for (owner, job) in x.iter().map(|j| (a, j)).chain(y.iter().map(|j| (b, j))) {
            total += 1;
            assert!(seen.insert(job.id), "a job was claimed twice");
            assert!(finish(&app.db, owner, job, Outcome::Done).await);
        }
    }
    assert_eq!(total, 60);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_of_a_kind_from_the_future_stays_ready_beside_a_worker_of_today() {
    let mut app = App::start().await;
    let tenant = app.tenant().await.id;
    let mut conn = app.database.superuser().await;
    // More than a worker looks at in one go, and more urgent than what it can do.
    sqlx::query(
        "INSERT INTO jobs (tenant_id, id, kind, payload, priority, run_at, max_attempts, dedupe_key)
         SELECT $1, gen_random_uuid(), 'from_the_future', '{\"job\": \"from_the_future\", \"n\": 1}', 50, now(), 5, n::text
         FROM generate_series(1, 300) n",
    )
    .bind(tenant)
    .execute(&mut conn)
    .await
    .unwrap();
    add(&app.db, tenant, AccountId::new(), Duration::ZERO, priority::AUDIT).await;
    app.add_worker();
    tests::eventually::eventually("what it knows is done", Duration::from_secs(20), async || {
        let open = "SELECT count(*) FROM jobs WHERE kind = 'index_text' AND state <> 'done'";
        let open: i64 = sqlx::query_scalar(open).fetch_one(&mut conn).await.unwrap();
        (open == 0).then_some(())
    })
    .await;
    let untouched =
        "SELECT count(*) FROM jobs WHERE kind = 'from_the_future' AND state = 'ready' AND attempt = 0";
    let untouched: i64 = sqlx::query_scalar(untouched).fetch_one(&mut conn).await.unwrap();
    assert_eq!(untouched, 300);
    app.finish().await;
}

#[tokio::test]
async fn a_payload_that_cannot_be_read_waits_and_is_read_once_it_can_be() {
    let app = App::start().await;
    let (tenant, account, me) = (app.tenant().await.id, AccountId::new(), new_uuid());
    add(&app.db, tenant, account, Duration::ZERO, priority::ROUND).await;
    let mut conn = app.database.superuser().await;
    let unreadable = "UPDATE jobs SET payload = '{\"job\": \"index_text\", \"of\": [\"all\"]}'";
    sqlx::query(unreadable).execute(&mut conn).await.unwrap();
    for _ in 0..3 {
        assert!(claim(&app.db, me, 10, LEASE).await.is_empty());
        assert_eq!(states(&app).await, [("ready".to_owned(), 0)]);
        let later =
            "SELECT run_at > now() + interval '30 seconds' AND last_error LIKE '%account_id%' FROM jobs";
        assert!(sqlx::query_scalar::<_, bool>(later).fetch_one(&mut conn).await.unwrap());
        sqlx::query("UPDATE jobs SET run_at = now()").execute(&mut conn).await.unwrap();
    }
    // Whoever asks for the same writes what this release can read.
    add(&app.db, tenant, account, Duration::ZERO, priority::ROUND).await;
    let claimed = claim(&app.db, me, 10, LEASE).await;
    assert_eq!((claimed.len(), claimed[0].attempt), (1, 1));
    assert!(finish(&app.db, me, &claimed[0], Outcome::Done).await);
    app.finish().await;
}
