//! What is outside leaves in portions: what may happen between two of them, and when the next pass is due.

use std::sync::atomic::{AtomicUsize, Ordering};

use emailclient_core::jobs::narrow_account::{Narrowed, all};
use emailclient_core::platform::clock::ShiftedClock;
use emailclient_core::platform::id::{AccountId, TenantId};
use emailclient_core::sync::store::narrow;

use super::*;

fn of(case: &Case) -> (TenantId, AccountId) {
    (case.tenant.id, AccountId(case.account.parse().unwrap()))
}

async fn patch(case: &Case, sync: Value) {
    let path = format!("/api/accounts/{}", case.account);
    case.app.patch(&case.tenant, &path, &json!({ "sync": sync })).await.expect(200);
}

/// The job, with something done before its portion of this number.
async fn with(case: &Case, clock: &ShiftedClock, turn: usize, what: impl Fn() + Sync) -> Narrowed {
    let passed = AtomicUsize::new(0);
    let over = || {
        if passed.fetch_add(1, Ordering::SeqCst) == turn {
            what();
        }
        false
    };
    let narrowed = all(&case.app.db, clock, of(case), &over).await.unwrap();
    assert!(passed.into_inner() > turn, "it was over before");
    narrowed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn widening_while_it_narrows_hides_nothing() {
    let app = Case::app().await;
    let user = tests::mail::new_mailbox(&app);
    tests::mail::fill(&app, &user, "INBOX", (1..=300).map(numbered).collect());
    let mut case = Case::of(app, user, "127.0.0.1", None).await;
    case.app.add_worker();
    case.sync().await;
    let before = oracle::server(&case.app, &case.user).await;
    for wider in [Value::Null, json!({"since": "1990-01-01"})] {
        case.app.stop_workers().await;
        patch(&case, json!({"since": "20d"})).await;
        let (handle, patched) = (tokio::runtime::Handle::current(), AtomicUsize::new(0));
        let wait = |what: &str| {
            tokio::task::block_in_place(|| {
                handle.block_on(async {
                    let left = case.count("SELECT count(*) FROM messages").await;
                    if left < 300 && patched.load(Ordering::SeqCst) == 0 {
                        assert!(left > 0, "{what}");
                        patch(&case, wider.clone()).await;
                        patched.store(1, Ordering::SeqCst);
                    }
                });
            });
            false
        };
        let clock = ShiftedClock::default();
        let narrowed = all(&case.app.db, &clock, of(&case), &|| wait("all went in one portion")).await;
        assert_eq!((narrowed.unwrap(), patched.into_inner()), (Narrowed::All, 1));
        assert_eq!(case.count("SELECT count(*) FROM mailbox_outside").await, 0, "with {wider}");
        case.app.add_worker();
        narrowed_and_read(&case).await;
        holds(&case, &before, |_| true).await;
    }
    case.settled().await;
    case.finish().await;
}

async fn narrowed_and_read(case: &Case) {
    narrowed(case).await;
    case.sync().await;
}

/// Takes one step per slice.
async fn slices(case: &Case) -> (Narrowed, usize) {
    let clock = ShiftedClock::default();
    for turn in 1..60 {
        let passed = AtomicUsize::new(0);
        let over = || passed.fetch_add(1, Ordering::SeqCst) > 0;
        let narrowed = all(&case.app.db, &clock, of(case), &over).await.unwrap();
        if narrowed != Narrowed::Some {
            return (narrowed, turn);
        }
    }
    panic!("it begins with its first mailbox in each slice")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_comes_to_an_end_however_short_its_slices_are_and_looks_at_nothing_twice_while_edits_wait() {
    let mut case = spread().await;
    let large = |n: u32| [numbered(n), vec![b'x'; 900], b"\r\n".to_vec()].concat();
    let mut client = case.client().await;
    for (n, mailbox) in (300..).zip(["INBOX", "Entw&APw-rfe 2026", "Work/Old"]) {
        client.append(mailbox, "", None, &large(n)).await;
    }
    case.sync().await;
    let ids = case.ids().await;
    case.app.stop_workers().await;
    case.patch(&ids["M301"], &json!({"starred": true})).await;
    patch(&case, json!({"max_message_bytes": 1024})).await;
    let (narrowed, _) = slices(&case).await;
    assert_eq!(narrowed, Narrowed::EditsWait);
    let left = case.ids().await;
    assert_eq!(["M300", "M301", "M302"].map(|m| left.contains_key(m)), [false, true, false]);
    assert_eq!(slices(&case).await, (Narrowed::EditsWait, 1), "nothing is looked at again");
    // The edit is over: it goes.
    sqlx::query("DELETE FROM edits").execute(&case.app.behind).await.unwrap();
    assert_eq!(slices(&case).await.0, Narrowed::All);
    assert!(!case.ids().await.contains_key("M301"));
    case.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pass_over_midnight_is_one_of_the_day_before() {
    let mut case = Case::at("127.0.0.1", None, Vec::new()).await;
    let mut client = case.client().await;
    for (n, at) in [(1, midnight(91)), (2, midnight(90)), (3, midnight(89))] {
        client.append("INBOX", "", Some(&written(at, 0)), &numbered(n)).await;
    }
    case.sync().await;
    case.app.stop_workers().await;
    let clock = ShiftedClock::default();
    let noon = midnight(0) + TimeDelta::hours(12);
    clock.advance(noon - SystemClock.now());
    patch(&case, json!({"since": "90d"})).await;
    let here = async || case.ids().await.into_keys().collect::<Vec<_>>();
    let day = async || {
        sqlx::query_scalar::<_, DateTime<Utc>>("SELECT narrowed_at FROM accounts")
            .fetch_one(&case.app.behind)
            .await
            .unwrap()
            .date_naive()
    };
    let over_midnight = with(&case, &clock, 1, || clock.advance(TimeDelta::days(1))).await;
    assert_eq!(over_midnight, Narrowed::All);
    assert_eq!((here().await, day().await), (vec!["M2".to_owned(), "M3".to_owned()], noon.date_naive()));
    let next = all(&case.app.db, &clock, of(&case), &|| false).await.unwrap();
    assert_eq!(next, Narrowed::All);
    assert_eq!(
        (here().await, day().await),
        (vec!["M3".to_owned()], (noon + TimeDelta::days(1)).date_naive())
    );
    case.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_not_kept_a_pass_is_due_once_a_day_and_mailboxes_with_a_cause_widen_nothing() {
    let case = Case::unserved("127.0.0.1", None, Vec::new()).await;
    let run = async |sql: &'static str| {
        sqlx::query(sql).execute(&case.app.behind).await.unwrap();
    };
    let due = async || {
        let mut tx = case.app.db.system().await.unwrap();
        narrow::due(&mut tx).await.unwrap().contains(&of(&case))
    };
    assert!(!due().await);
    for set in [
        "UPDATE accounts SET keep_since = '2026-01-01', keep_mailboxes = NULL, keep_max_bytes = NULL",
        "UPDATE accounts SET keep_since = '90d', keep_mailboxes = NULL, keep_max_bytes = NULL",
        "UPDATE accounts SET keep_since = NULL, keep_mailboxes = NULL, keep_max_bytes = 5000",
        "UPDATE accounts SET keep_since = NULL, keep_mailboxes = '{\"exclude\": [\"junk\"]}', keep_max_bytes = NULL",
    ] {
        run(set).await;
        run("UPDATE accounts SET narrowed_at = now() - interval '1 day'").await;
        assert!(due().await, "{set}");
        run("UPDATE accounts SET narrowed_at = NULL").await;
        assert!(due().await, "{set}");
        all(&case.app.db, &SystemClock, of(&case), &|| false).await.unwrap();
        assert!(!due().await, "{set}");
    }
    let state = async || account(&case).await["sync"]["progress"]["state"].as_str().unwrap().to_owned();
    run("INSERT INTO mailboxes (tenant_id, id, account_id, path, wire_name, name) SELECT tenant_id, gen_random_uuid(), id, 'Locked', 'Locked', 'Locked' FROM accounts").await;
    assert_eq!(state().await, "widening");
    run("UPDATE mailboxes SET cause_code = 'refused', cause_text = 'no', cause_since = now() WHERE path = 'Locked'").await;
    assert_eq!(state().await, "done");
    case.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_put_into_a_mailbox_that_is_not_kept_is_not_told_when_our_user_moves_something_there() {
    let case = Case::at("127.0.0.1", None, vec![numbered(1), numbered(2)]).await;
    let mut client = case.client().await;
    client.ok("CREATE Cellar").await;
    case.sync().await;
    keep(&case, json!({"mailboxes": {"exclude": ["Cellar"]}})).await;
    case.sync().await;
    let (ids, cellar) = (case.ids().await, case.mailbox("Cellar").await);
    let events = case.events().await;
    for n in 5..8 {
        client.append("Cellar", "", None, &numbered(n)).await;
    }
    let body = json!({"ids": [ids["M1"]], "action": "move", "mailbox_id": cellar});
    case.app.post(&case.tenant, "/api/messages/actions", &body).await.expect(200);
    eventually("the server has it there", PATIENCE, async || stands(&case, "Cellar", 1).await.then_some(()))
        .await;
    case.sync().await;
    case.sync().await;
    narrowed(&case).await;
    assert!(!events.kinds(&case.app).await.iter().any(|kind| kind == "message.created"));
    let before = oracle::server(&case.app, &case.user).await;
    holds(&case, &before, |p| p.mailbox != "Cellar").await;
    case.finish().await;
}
