//! A worker that dies between two steps, at places that are named: nothing is lost, nothing is done twice.

use std::time::Duration;

use mail::uid::{Uid, UidSet};
use serde_json::json;
use sqlx::Executor as _;
use tests::oracle;

use crate::audit::audit;
use crate::case::{Case, large, numbered};

/// What the scheduler does once the lease and the job of a dead worker have run out.
pub async fn let_time_pass(case: &Case) {
    let behind = &case.app.behind;
    behind.execute("UPDATE account_leases SET expires_at = now() - interval '1 second'").await.unwrap();
    behind
        .execute("UPDATE jobs SET state = 'ready', lease_owner = NULL, lease_until = NULL, run_at = now() WHERE state = 'running'")
        .await
        .unwrap();
}

/// Runs a worker that dies at this place.
async fn die_at(case: &Case, failpoint: &str) {
    let mut worker = case.process(&[("FAILPOINT", failpoint)]);
    let ended = tokio::task::block_in_place(|| worker.ended(Duration::from_secs(60)));
    assert!(!ended.success() && ended.code().is_none(), "it was to die by a signal at {failpoint}: {ended}");
    let_time_pass(case).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_between_fetch_and_commit_and_after_it_each_message_is_there_once() {
    // Before the first batch is committed, after it, in the second, and before the job is acknowledged.
    for failpoint in
        ["fetched-before-commit", "committed-batch", "fetched-before-commit:2", "committed-before-ack"]
    {
        let mut case = Case::unserved("127.0.0.1", None, (1..=120).map(numbered).collect()).await;
        let events = case.events().await;
        die_at(&case, failpoint).await;
        case.app.add_worker();
        case.sync().await;
        assert_eq!(case.listed().await.len(), 120, "{failpoint}");
        let told = events.kinds(&case.app).await;
        assert_eq!(told.iter().filter(|k| *k == "message.created").count(), 120, "{failpoint}: one each");
        assert!(!told.iter().any(|k| k == "message.deleted"), "{failpoint}: {told:?}");
        assert_eq!(case.count("SELECT count(*) FROM messages WHERE degraded").await, 0, "{failpoint}");
        case.settled().await;
        case.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_between_bytes_and_their_rows_nothing_is_lost_and_orphans_are_swept() {
    let mut case = Case::unserved("127.0.0.1", None, (1..=40).map(large).collect()).await;
    let events = case.events().await;
    die_at(&case, "bytes-before-rows").await;
    let bytes = async |case: &Case| case.count("SELECT count(*) FROM blobs").await;
    assert_eq!((bytes(&case).await, case.count("SELECT count(*) FROM messages").await), (40, 0));
    // Nobody will come for the bytes of these.
    let mut client = case.client().await;
    client.select("INBOX").await;
    client.ok("UID STORE 3:7 +FLAGS (\\Deleted)").await;
    client.ok("UID EXPUNGE 3:7").await;
    client.ok("UNSELECT").await;
    case.app.add_worker();
    case.sync().await;
    assert_eq!((case.listed().await.len(), bytes(&case).await), (35, 40));
    let told = events.kinds(&case.app).await;
    assert_eq!(told.iter().filter(|k| *k == "message.created").count(), 35, "one each");
    assert_eq!(case.count("SELECT count(*) FROM messages WHERE degraded").await, 0);
    case.settled().await;
    case.app.add_scheduler();
    let audited = audit(&case.app, &case.tenant, &case.account).await;
    assert_eq!((bytes(&case).await, &audited["audit"]["repairs"]), (35, &json!(0)));
    case.settled().await;
    case.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_a_long_backfill_only_what_was_under_way_is_suspected() {
    let all = 9_000;
    let case = Case::unserved("127.0.0.1", None, (1..=all).map(numbered).collect()).await;
    // The first page and eight batches show how fast the server is; the rest is asked for in one go.
    die_at(&case, "committed-batch:10").await;
    let mut conn = case.app.database.superuser().await;
    let noted: String =
        sqlx::query_scalar("SELECT uids FROM ingest_batches").fetch_one(&mut conn).await.unwrap();
    let stored: Vec<i64> = sqlx::query_scalar("SELECT uid FROM message_mailboxes ORDER BY uid")
        .fetch_all(&mut conn)
        .await
        .unwrap();
    let stored: UidSet = stored.into_iter().map(|uid| Uid::new(uid.try_into().unwrap()).unwrap()).collect();
    assert!(stored.len() > 50 + 8, "{stored} are stored");
    let suspected = UidSet::parse(&noted).unwrap().difference(&stored);
    assert!((1..=6_000).contains(&suspected.len()), "{suspected} are suspected");
    assert!(stored.len() + suspected.len() < all.into(), "not all of the rest is suspected");
    case.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_after_an_edit_reached_the_server_it_is_done_once() {
    for host in ["127.0.0.1", devstack::CONDSTORE_HOST] {
        for edit in ["flags", "move", "delete", "copy"] {
            let mut case = Case::unserved(host, None, (1..=3).map(numbered).collect()).await;
            {
                // A worker for the first round only.
                let _worker = case.process(&[]);
                case.sync().await;
                oracle::at_rest(&case.app, &case.account).await;
            }
            let_time_pass(&case).await;
            let before = case.ids().await;
            let archive = case.mailbox("Archive").await;
            match edit {
                "flags" => case.patch(&before["M1"], &json!({"starred": true})).await,
                "move" => case.patch(&before["M1"], &json!({"move_to": archive})).await,
                "delete" => {
                    let path = format!("/api/messages/{}?permanent=true", before["M1"]);
                    assert_eq!(case.app.delete(&case.tenant, &path).await.status, 204);
                }
                _ => {
                    let copy = json!({"ids": [before["M1"]], "action": "copy", "mailbox_id": archive});
                    case.app.post(&case.tenant, "/api/messages/actions", &copy).await.expect(200);
                }
            }
            die_at(&case, "pushed-before-recorded").await;
            case.app.add_worker();
            case.sync().await;
            case.sync().await;
            let (now, total) =
                (case.ids().await, case.mailboxes().await["Archive"]["total"].as_u64().unwrap());
            let expected = match edit {
                "flags" => (3, 0),
                "delete" => (2, 0),
                _ => (3, 1),
            };
            assert_eq!((now.len(), total), expected, "{edit} at {host}");
            assert!(now.iter().all(|(m, id)| before[m] == *id), "{edit} at {host}");
            case.settled().await;
            case.finish().await;
        }
    }
}
