//! What an answer that several statements make is of: one moment.

use std::time::Duration;

use emailclient_core::sync::run;
use serde_json::{Value, json};
use sqlx::Executor as _;
use tests::app::{App, Tenant};
use tests::eventually::eventually;
use tests::mail;

/// A round ends in one transaction: whoever looks meanwhile must not find an account that is at it and a round that is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_state_of_an_account_and_its_round_are_of_one_moment() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let server =
        json!({"host": "127.0.0.1", "port": 1, "security": "none", "username": "u", "password": "p"});
    let settings = json!({"email": "a@lab.test", "imap": server, "smtp": server});
    let account = app.post(&tenant, "/api/accounts?verify=false", &settings).await.expect(201);
    let path = format!("/api/sync/status/{}", account["id"].as_str().unwrap());
    let mut conn = app.database.superuser().await;
    conn.execute(
        "DELETE FROM sync_runs; UPDATE accounts SET state = 'syncing';
         INSERT INTO sync_runs (tenant_id, id, account_id, state, requested_at, started_at)
         SELECT tenant_id, gen_random_uuid(), id, 'running', now() - interval '1 second', now() FROM accounts",
    )
    .await
    .unwrap();
    // The answer is held up between the two.
    conn.execute("BEGIN; LOCK TABLE sync_runs IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let asked = app.request(&tenant, "GET", &path);
    let answer = tokio::spawn(tests::app::send(asked));
    eventually("the answer waits for the rounds", Duration::from_secs(3), async || {
        let waiting = "SELECT count(*) FROM pg_locks WHERE relation = 'sync_runs'::regclass AND NOT granted";
        let waiting: i64 = sqlx::query_scalar(waiting).fetch_one(&mut conn).await.unwrap();
        (waiting > 0).then_some(())
    })
    .await;
    conn.execute(
        "UPDATE accounts SET state = 'connected'; UPDATE sync_runs SET state = 'done', finished_at = now();
         COMMIT",
    )
    .await
    .unwrap();
    let both = |status: serde_json::Value| (status["state"].clone(), status["run"]["state"].clone());
    assert_eq!(both(answer.await.unwrap().expect(200)), (json!("syncing"), json!("running")));
    assert_eq!(both(app.get(&tenant, &path).await.expect(200)), (json!("connected"), json!("done")));
    app.finish().await;
}

#[tokio::test]
async fn fifty_thousand_mailboxes_are_told_of_in_pages() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let server =
        json!({"host": "127.0.0.1", "port": 1, "security": "none", "username": "u", "password": "p"});
    let settings = json!({"email": "a@lab.test", "imap": server, "smtp": server});
    let account = app.post(&tenant, "/api/accounts?verify=false", &settings).await.expect(201)["id"].clone();
    let account = account.as_str().unwrap();
    let mut superuser = app.database.superuser().await;
    // Paths as long as servers let them be: a cursor must not carry one.
    sqlx::query(
        "INSERT INTO mailboxes (tenant_id, id, account_id, wire_name, path, name, state, total, exists_seen)
         SELECT $1, gen_random_uuid(), $2, p::bytea, p, p, 'backfill', 2, 3 FROM
         (SELECT repeat('x', 2000) || lpad(n::text, 6, '0') AS p FROM generate_series(1, 2500) n) t",
    )
    .bind(tenant.id.0)
    .bind(account.parse::<uuid::Uuid>().unwrap())
    .execute(&mut superuser)
    .await
    .unwrap();
    let path = format!("/api/sync/status/{account}");
    let (mut sizes, mut seen, mut asked) = (Vec::new(), std::collections::BTreeSet::new(), path.clone());
    loop {
        let page = app.get(&tenant, &asked).await.expect(200);
        assert_eq!(
            (&page["progress"]["messages_synced"], &page["progress"]["messages_total"]),
            (&json!(5000), &json!(7500)),
            "sums are of all mailboxes"
        );
        let mailboxes = page["mailboxes"].as_array().unwrap();
        sizes.push(mailboxes.len());
        seen.extend(mailboxes.iter().map(|m| m["id"].as_str().unwrap().to_owned()));
        let Some(cursor) = page["mailboxes_next_cursor"].as_str() else { break };
        asked = format!("{path}?mailboxes_cursor={cursor}");
    }
    assert_eq!((sizes, seen.len()), (vec![1000, 1000, 500], 2500));
    app.get(&tenant, &format!("{path}?mailboxes_cursor=x")).await.refused(400, "invalid-cursor");
    app.finish().await;
}

async fn told(app: &App, tenant: &Tenant, path: &str) -> Value {
    app.get(tenant, path).await.expect(200)
}

/// A client that waits for the round it asked for finds it, whatever else goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_round_that_was_asked_for_stays_readable_beside_those_that_nobody_asked_for() {
    let mut app = App::start().await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    let account = mail::connect(&app, &tenant, &user).await;
    let status = format!("/api/sync/status/{account}");
    let first = app.get(&tenant, &status).await.expect(200);
    assert_eq!((&first["run"]["state"], &first["background"]), (&json!("queued"), &json!(null)), "{first}");
    let asked = app.post(&tenant, &format!("/api/sync/imap/{account}"), &json!({})).await.expect(202);
    assert_eq!(
        (&asked["id"], &asked["account_id"]),
        (&first["run"]["id"], &json!(account)),
        "one that waits is it"
    );
    let run = format!("/api/sync/runs/{}", asked["id"].as_str().unwrap());
    assert_eq!(app.get(&tenant, &run).await.expect(200), asked);
    app.add_worker();
    eventually("the round is done", Duration::from_secs(30), async || {
        (told(&app, &tenant, &run).await["state"] == "done").then_some(())
    })
    .await;

    // Rounds that nobody asked for: the account is due.
    let mut conn = app.database.superuser().await;
    app.add_scheduler();
    for _ in 0..2 {
        let before = told(&app, &tenant, &status).await["background"]["id"].clone();
        conn.execute("UPDATE account_leases SET next_due_at = now()").await.unwrap();
        eventually("the scheduler starts a round", Duration::from_secs(30), async || {
            let now = told(&app, &tenant, &status).await;
            (now["background"]["state"] == "done" && now["background"]["id"] != before).then_some(())
        })
        .await;
        let now = told(&app, &tenant, &status).await;
        assert_eq!((&now["run"]["id"], &now["run"]["state"]), (&asked["id"], &json!("done")), "{now}");
        let other = format!("/api/sync/runs/{}", now["background"]["id"].as_str().unwrap());
        assert_eq!(told(&app, &tenant, &other).await, now["background"]);
    }
    let next = app.post(&tenant, &format!("/api/sync/imap/{account}"), &json!({})).await.expect(202);
    assert_eq!(told(&app, &tenant, &status).await["run"]["id"], next["id"], "until another is asked for");
    assert_eq!(told(&app, &tenant, &run).await["state"], "done");

    let stranger = app.tenant().await;
    app.get(&stranger, &run).await.refused(404, "not-found");
    app.get(&tenant, "/api/sync/runs/x").await.refused(400, "invalid-parameter");
    app.get(&tenant, &format!("{run}?a=b")).await.refused(400, "invalid-parameter");
    let nobody = uuid::Uuid::nil();
    app.get(&tenant, &format!("/api/sync/runs/{nobody}")).await.refused(404, "not-found");

    // After a day only the last of either kind are kept.
    eventually("all rounds are over", Duration::from_secs(30), async || {
        let open: i64 =
            sqlx::query_scalar("SELECT count(*) FROM sync_runs WHERE state IN ('queued', 'running')")
                .fetch_one(&mut conn)
                .await
                .unwrap();
        (open == 0).then_some(())
    })
    .await;
    conn.execute("UPDATE sync_runs SET finished_at = now() - interval '23 hours'").await.unwrap();
    let kept = async || {
        let mut tx = app.db.system().await.unwrap();
        run::prune(&mut tx).await.unwrap();
        tx.commit().await.unwrap();
        app.get(&tenant, &run).await.status
    };
    assert_eq!(kept().await, 200, "a day is not over");
    let last = told(&app, &tenant, &status).await;
    conn.execute("UPDATE sync_runs SET finished_at = now() - interval '25 hours'").await.unwrap();
    assert_eq!(kept().await, 404);
    let after = told(&app, &tenant, &status).await;
    assert_eq!(
        (&after["run"]["id"], &after["background"]["id"]),
        (&last["run"]["id"], &last["background"]["id"])
    );
    app.finish().await;
}
