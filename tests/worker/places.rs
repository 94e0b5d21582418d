//! Places of a worker: who may take how many, and who has to give one back.

use std::time::Duration;

use emailclient_core::platform::db::Db;
use emailclient_core::platform::id::{AccountId, JobId, TenantId, new_uuid};
use emailclient_core::queue::job::queue::{self, Claimed, Outcome, Room};
use emailclient_core::queue::job::{self, Job, enqueue_as, priority};
use tests::app::App;

const ROOM: Room = Room { total: 32, free: 32 };

async fn add(db: &Db, tenant: TenantId, jobs: usize, priority: i16) {
    let mut tx = db.tenant(tenant).await.unwrap();
    for _ in 0..jobs {
        let job = Job::IndexText { account_id: AccountId::new() };
        enqueue_as(&mut tx, &job, Duration::ZERO, priority).await.unwrap();
    }
    tx.commit().await.unwrap();
}

async fn claim(db: &Db, owner: uuid::Uuid, room: Room) -> Vec<Claimed> {
    let mut tx = db.system().await.unwrap();
    let claimed = queue::claim(&mut tx, owner, room, Duration::from_secs(60)).await.unwrap();
    tx.commit().await.unwrap();
    claimed
}

fn of(claimed: &[Claimed], tenant: TenantId) -> usize {
    claimed.iter().filter(|c| c.tenant == tenant).count()
}

pub async fn clear(app: &App) {
    sqlx::query("DELETE FROM jobs").execute(&mut app.database.superuser().await).await.unwrap();
}

#[tokio::test]
async fn tenants_take_turns_whatever_the_length_of_their_queues() {
    let app = App::start().await;
    let (crowd, few) = (app.tenant().await.id, app.tenant().await.id);
    add(&app.db, crowd, 500, priority::ROUND).await;
    add(&app.db, few, 3, priority::ROUND).await;
    let me = new_uuid();
    let first = claim(&app.db, me, Room { free: 6, ..ROOM }).await;
    assert_eq!((of(&first, crowd), of(&first, few)), (3, 3), "equal shares though the crowd came first");
    let second = claim(&app.db, me, Room { free: 26, ..ROOM }).await;
    assert_eq!(second.len(), 13, "the crowd stops at half of the places");
    add(&app.db, few, 2, priority::ROUND).await;
    assert_eq!(of(&claim(&app.db, me, Room { free: 13, ..ROOM }).await, few), 2);
    // What the crowd has running elsewhere counts against it, too.
    let other = new_uuid();
    add(&app.db, few, 20, priority::ROUND).await;
    let elsewhere = claim(&app.db, other, Room { free: 8, ..ROOM }).await;
    assert_eq!((of(&elsewhere, crowd), of(&elsewhere, few)), (0, 8));
    clear(&app).await;
    app.finish().await;
}

#[tokio::test]
async fn some_places_are_kept_for_what_somebody_waits_for() {
    let app = App::start().await;
    let me = new_uuid();
    for _ in 0..4 {
        add(&app.db, app.tenant().await.id, 40, priority::ROUND).await;
    }
    assert_eq!(claim(&app.db, me, ROOM).await.len(), 24);
    assert!(claim(&app.db, me, Room { free: 8, ..ROOM }).await.is_empty());
    let user = app.tenant().await.id;
    add(&app.db, user, 1, priority::USER).await;
    let quick = claim(&app.db, me, Room { free: 8, ..ROOM }).await;
    assert_eq!((quick.len(), of(&quick, user)), (1, 1));
    clear(&app).await;
    app.finish().await;
}

async fn ask(db: &Db, tenant: TenantId, account_id: AccountId, priority: i16) {
    let mut tx = db.tenant(tenant).await.unwrap();
    enqueue_as(&mut tx, &Job::SyncAccount { account_id }, Duration::ZERO, priority).await.unwrap();
    tx.commit().await.unwrap();
}

async fn connect_many(db: &Db, tenant: TenantId, accounts: usize) {
    for _ in 0..accounts {
        ask(db, tenant, AccountId::new(), priority::USER).await;
    }
}

async fn come_to_old_mail(db: &Db, claimed: &[Claimed]) {
    for c in claimed {
        let mut tx = db.tenant(c.tenant).await.unwrap();
        job::slow_down(&mut tx, account(c)).await.unwrap();
        tx.commit().await.unwrap();
    }
}

fn account(claimed: &Claimed) -> AccountId {
    let Job::SyncAccount { account_id } = claimed.job else { panic!("{claimed:?}") };
    account_id
}

async fn take_over(db: &Db, tenant: TenantId, account: AccountId) -> bool {
    let mut tx = db.tenant(tenant).await.unwrap();
    let taken = job::take_over(&mut tx, account).await.unwrap();
    tx.commit().await.unwrap();
    taken
}

async fn surplus(db: &Db, owner: uuid::Uuid) -> Vec<JobId> {
    let mut tx = db.system().await.unwrap();
    let surplus = queue::surplus(&mut tx, owner, ROOM).await.unwrap();
    tx.commit().await.unwrap();
    surplus
}

async fn finish(db: &Db, owner: uuid::Uuid, job: &Claimed, outcome: Outcome) {
    let mut tx = db.system().await.unwrap();
    assert!(queue::finish(&mut tx, owner, job, &outcome).await.unwrap());
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn rounds_that_come_to_their_old_mail_leave_the_places_kept_for_others() {
    let app = App::start().await;
    let (crowd, other, me) = (app.tenant().await.id, app.tenant().await.id, new_uuid());
    connect_many(&app.db, crowd, 28).await;
    let rounds = claim(&app.db, me, ROOM).await;
    assert_eq!(rounds.len(), 28);
    connect_many(&app.db, other, 4).await;
    let others = claim(&app.db, me, Room { free: 4, ..ROOM }).await;
    assert_eq!(others.len(), 4);
    come_to_old_mail(&app.db, &rounds).await;
    come_to_old_mail(&app.db, &others).await;
    let surplus = surplus(&app.db, me).await;
    let mut latest: Vec<_> = rounds[12..].iter().map(|c| c.id).collect();
    let mut back = surplus.clone();
    latest.sort_unstable();
    back.sort_unstable();
    assert_eq!(back, latest, "the first twelve of the one, all four of the other stay");
    let last = account(&rounds[27]);
    ask(&app.db, crowd, last, priority::USER).await;
    assert!(take_over(&app.db, crowd, last).await);
    assert!(!self::surplus(&app.db, me).await.contains(&rounds[27].id), "a user waits for it");
    come_to_old_mail(&app.db, &rounds[27..]).await;
    assert_eq!(self::surplus(&app.db, me).await.len(), 16);
    for job in rounds.iter().filter(|c| surplus.contains(&c.id)) {
        finish(&app.db, me, job, Outcome::Postpone { after: Duration::ZERO }).await;
    }
    add(&app.db, crowd, 3, priority::ROUND).await;
    let due = claim(&app.db, me, Room { free: 16, ..ROOM }).await;
    assert_eq!(due.len(), 3, "what is due has places that old mail has not");
    add(&app.db, crowd, 3, priority::ROUND).await;
    assert_eq!(claim(&app.db, me, Room { free: 13, ..ROOM }).await.len(), 1, "the crowd has its slow places");
    add(&app.db, crowd, 3, priority::USER).await;
    add(&app.db, other, 3, priority::SEND).await;
    assert_eq!(claim(&app.db, me, Room { free: 12, ..ROOM }).await.len(), 6);
    for job in rounds[..4].iter().chain(&due) {
        finish(&app.db, me, job, Outcome::Done).await;
    }
    let again = claim(&app.db, me, Room { free: 13, ..ROOM }).await;
    let old_mail = again.iter().filter(|c| c.priority == priority::BACKFILL).count();
    assert_eq!((again.len(), old_mail), (6, 4), "two more are due, then the others go on in their turn");
    clear(&app).await;
    app.finish().await;
}

#[tokio::test]
async fn old_mail_of_many_accounts_leaves_places_for_indexing_and_for_a_tenant_that_comes_later() {
    let app = App::start().await;
    let (crowd, other, single) = (app.tenant().await.id, app.tenant().await.id, app.tenant().await.id);
    let me = new_uuid();
    for (tenant, accounts, free) in [(crowd, 12, 32), (other, 4, 20), (single, 1, 16)] {
        connect_many(&app.db, tenant, accounts).await;
        let rounds = claim(&app.db, me, Room { free, ..ROOM }).await;
        assert_eq!(rounds.len(), accounts);
        come_to_old_mail(&app.db, &rounds).await;
    }
    let back = surplus(&app.db, me).await;
    let of: uuid::Uuid = sqlx::query_scalar("SELECT tenant_id FROM jobs WHERE id = $1")
        .bind(back[0])
        .fetch_one(&mut app.database.superuser().await)
        .await
        .unwrap();
    assert_eq!((back.len(), of), (1, crowd.0), "who has most makes way");
    add(&app.db, crowd, 1, priority::BACKGROUND).await;
    assert_eq!(claim(&app.db, me, Room { free: 15, ..ROOM }).await.len(), 1);
    clear(&app).await;
    app.finish().await;
}

#[tokio::test]
async fn a_round_that_took_over_an_edit_and_is_stopped_is_as_urgent_as_the_edit() {
    let app = App::start().await;
    let (tenant, me) = (app.tenant().await.id, new_uuid());
    connect_many(&app.db, tenant, 1).await;
    let rounds = claim(&app.db, me, ROOM).await;
    come_to_old_mail(&app.db, &rounds).await;
    let account_id = account(&rounds[0]);
    assert!(!take_over(&app.db, tenant, account_id).await, "nothing was asked");
    let mut tx = app.db.tenant(tenant).await.unwrap();
    enqueue_as(&mut tx, &Job::PushChanges { account_id }, Duration::ZERO, priority::PUSH).await.unwrap();
    tx.commit().await.unwrap();
    assert!(take_over(&app.db, tenant, account_id).await);
    assert!(claim(&app.db, me, ROOM).await.is_empty(), "no job stands for it any more");
    finish(&app.db, me, &rounds[0], Outcome::Postpone { after: Duration::ZERO }).await;
    let again = claim(&app.db, me, ROOM).await;
    assert_eq!((again.len(), again[0].id, again[0].priority), (1, rounds[0].id, priority::PUSH));
    // Done with it, and stopped once more.
    come_to_old_mail(&app.db, &again).await;
    finish(&app.db, me, &again[0], Outcome::Postpone { after: Duration::ZERO }).await;
    assert_eq!(claim(&app.db, me, ROOM).await[0].priority, priority::BACKFILL);
    clear(&app).await;
    app.finish().await;
}

#[tokio::test]
async fn a_slow_round_that_is_asked_for_while_it_runs_stays_slow_and_is_urgent_once_it_is_ready() {
    let app = App::start().await;
    let (tenant, me) = (app.tenant().await.id, new_uuid());
    let accounts: Vec<AccountId> = (0..16).map(|_| AccountId::new()).collect();
    for account in &accounts {
        ask(&app.db, tenant, *account, priority::ROUND).await;
    }
    let rounds = claim(&app.db, me, ROOM).await;
    assert_eq!(rounds.len(), 16);
    for account in &accounts {
        ask(&app.db, tenant, *account, priority::HEAD).await;
    }
    ask(&app.db, tenant, accounts[0], priority::USER).await;
    ask(&app.db, tenant, accounts[0], priority::ROUND).await;
    add(&app.db, tenant, 10, priority::ROUND).await;
    assert!(claim(&app.db, me, Room { free: 16, ..ROOM }).await.is_empty(), "all slow places are taken");
    // Coming to its old mail does not forget it either.
    come_to_old_mail(&app.db, &rounds).await;
    for job in &rounds {
        finish(&app.db, me, job, Outcome::Done).await;
    }
    let again = claim(&app.db, me, ROOM).await;
    assert!(
        matches!(again[0].job, Job::SyncAccount { account_id } if account_id == accounts[0]),
        "{again:?}"
    );
    let asked: Vec<i16> = again.iter().take(17).map(|c| c.priority).collect();
    let expected: Vec<i16> =
        [priority::USER].into_iter().chain([priority::HEAD; 15]).chain([priority::ROUND]).collect();
    assert_eq!(asked, expected);
    clear(&app).await;
    app.finish().await;
}

#[tokio::test]
async fn a_worker_with_one_place_takes_everything_in_its_turn() {
    let app = App::start().await;
    let tenant = app.tenant().await.id;
    add(&app.db, tenant, 1, priority::BACKGROUND).await;
    assert_eq!(claim(&app.db, new_uuid(), Room { total: 1, free: 1 }).await.len(), 1);
    clear(&app).await;
    app.finish().await;
}
