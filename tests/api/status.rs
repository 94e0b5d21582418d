//! What an answer that several statements make is of: one moment.

use std::time::Duration;

use serde_json::json;
use sqlx::Executor as _;
use tests::app::App;
use tests::eventually::eventually;

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
         INSERT INTO sync_runs (tenant_id, id, account_id, state, started_at)
         SELECT tenant_id, gen_random_uuid(), id, 'running', now() FROM accounts",
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
