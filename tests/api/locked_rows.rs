//! Requests that meet rows which others hold: they wait without a connection, and nobody else waits for them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::Executor as _;
use tests::app::{App, Tenant, send};
use tests::mail;

async fn account(app: &App, tenant: &Tenant) -> String {
    let settings = mail::settings(app, &mail::new_mailbox(app));
    let account = app.post(tenant, "/api/accounts?verify=false", &settings).await.expect(201);
    account["id"].as_str().unwrap().to_owned()
}

async fn draft(app: &App, tenant: &Tenant, account: &str) -> String {
    let body = json!({"account_id": account, "text": "x"});
    app.post(tenant, "/api/compose", &body).await.expect(201)["id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_uploads_to_one_draft_keep_nobody_else_waiting() {
    let app = App::start().await;
    let (tenant, other) = (app.tenant().await, app.tenant().await);
    let account = account(&app, &tenant).await;
    let draft = draft(&app, &tenant, &account).await;
    let uploads: Vec<_> = (0..60)
        .map(|n| {
            let path = format!("/api/compose/{draft}/attachments?filename={n}.bin");
            let request = app.request(&tenant, "POST", &path).header("content-type", "application/x-test");
            tokio::spawn(send(request.body(vec![b'x'; 300 * 1024])))
        })
        .collect();
    let mut slowest = Duration::ZERO;
    while !uploads.iter().all(tokio::task::JoinHandle::is_finished) {
        let asked = Instant::now();
        app.get(&other, "/api/accounts").await.expect(200);
        slowest = slowest.max(asked.elapsed());
    }
    for upload in uploads {
        upload.await.unwrap().expect(201);
    }
    assert!(slowest < Duration::from_secs(2), "another tenant waited {slowest:?}");
    let stored = app.get(&tenant, &format!("/api/compose/{draft}")).await.expect(200);
    assert_eq!(stored["attachments"].as_array().unwrap().len(), 60);
    app.finish().await;
}

/// What one tenant asks of its one account, draft and mailbox at once; the answer that is right.
fn edits(app: &App, tenant: &Tenant, account: &str, draft: &str) -> Vec<(reqwest::RequestBuilder, u16)> {
    let json = |method: &str, path: String, body: Value| app.request(tenant, method, &path).json(&body);
    vec![
        (json("PATCH", format!("/api/accounts/{account}"), json!({"name": "N"})), 200),
        (json("POST", format!("/api/accounts/{account}/pause"), json!({})), 200),
        (json("PUT", format!("/api/compose/{draft}"), json!({"text": "y"})).header("If-Match", "*"), 200),
        (json("POST", "/api/compose/draft".into(), json!({"id": draft, "text": "z"})), 200),
        (json("POST", format!("/api/accounts/{account}/mailboxes"), json!({"name": "M"})), 201),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_meets_a_locked_row_waits_without_a_connection_and_succeeds_when_it_is_free() {
    let app = App::start_with(&[("DATABASE_MAX_CONNECTIONS", "4")]).await;
    let (tenant, other) = (app.tenant().await, app.tenant().await);
    let account = account(&app, &tenant).await;
    let draft = draft(&app, &tenant, &account).await;
    let mut superuser = app.database.superuser().await;
    superuser
        .execute("BEGIN; SELECT 1 FROM account_leases FOR UPDATE; SELECT 1 FROM accounts FOR UPDATE; SELECT 1 FROM drafts FOR UPDATE")
        .await
        .unwrap();
    let asked: Vec<_> = edits(&app, &tenant, &account, &draft)
        .into_iter()
        .map(|(request, status)| (tokio::spawn(send(request)), status))
        .collect();
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        for who in [&tenant, &other] {
            let began = Instant::now();
            app.get(who, "/api/submissions").await.expect(200);
            assert!(began.elapsed() < Duration::from_secs(5), "a list waited {:?}", began.elapsed());
        }
    }
    assert!(asked.iter().any(|(task, _)| !task.is_finished()), "nothing was locked");
    superuser.execute("COMMIT").await.unwrap();
    for (task, status) in asked {
        let answer = task.await.unwrap();
        assert_eq!(answer.status, status, "{}", answer.text());
    }
    app.finish().await;
}

/// Every way to edit messages, of each of these once.
fn edits_of_messages(app: &App, tenant: &Tenant, ids: &[String]) -> Vec<(reqwest::RequestBuilder, u16)> {
    let mut all = Vec::new();
    for id in ids {
        let (path, star) = (format!("/api/messages/{id}"), json!({"ids": [id], "action": "star"}));
        all.push((app.request(tenant, "PATCH", &path).json(&json!({"unread": false})), 200));
        all.push((app.request(tenant, "POST", "/api/messages/actions").json(&star), 200));
    }
    let path = format!("/api/messages/{}", ids[0]);
    all.push((app.request(tenant, "DELETE", &path), 204));
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_all_who_edit_messages_of_an_account_one_at_a_time_has_a_connection() {
    let mut app = App::start().await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    let text = |n: u32| mail::message(&format!("M{n}"), &format!("m{n}@example.test"), "x");
    mail::fill(&app, &user, "INBOX", (1..=12).map(text).collect());
    app.add_worker();
    let account = mail::connect(&app, &tenant, &user).await;
    mail::synchronise(&app, &tenant, &account).await;
    let page = app.get(&tenant, &format!("/api/accounts/{account}/messages")).await.expect(200);
    let ids: Vec<String> =
        page["data"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap().to_owned()).collect();
    let (mut holder, mut looker) = (app.database.superuser().await, app.database.superuser().await);
    holder.execute("BEGIN; SELECT 1 FROM messages FOR UPDATE").await.unwrap();
    let asked: Vec<_> = edits_of_messages(&app, &tenant, &ids)
        .into_iter()
        .map(|(request, status)| (tokio::spawn(send(request)), status))
        .collect();
    let (mut most, until) = (Vec::new(), Instant::now() + Duration::from_secs(2));
    while Instant::now() < until {
        // The worker has its own ways to the account, and its own turns.
        let waiting = "SELECT query FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
                       AND query NOT LIKE '%epoch%' AND query NOT LIKE '%message_search%' AND query <> 'COMMIT'";
        let waiting: Vec<String> = sqlx::query_scalar(waiting).fetch_all(&mut looker).await.unwrap();
        if waiting.len() > most.len() {
            most = waiting;
        }
    }
    assert_eq!(most.len(), 1, "connections that waited for a row at once: {most:#?}");
    holder.execute("COMMIT").await.unwrap();
    for (task, status) in asked {
        let answer = task.await.unwrap();
        assert_eq!(answer.status, status, "{}", answer.text());
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_row_in_vain_is_told_so_after_ten_seconds_and_nothing_is_done() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let account = account(&app, &tenant).await;
    let draft = draft(&app, &tenant, &account).await;
    let mut superuser = app.database.superuser().await;
    superuser.execute("BEGIN; SELECT 1 FROM drafts FOR UPDATE").await.unwrap();
    let began = Instant::now();
    let request = app.request(&tenant, "POST", "/api/compose/draft").header("Idempotency-Key", "k");
    let answer = send(request.json(&json!({"id": draft, "text": "new"}))).await;
    answer.refused(503, "unavailable");
    assert_eq!(answer.header("retry-after"), "1");
    assert!((9..14).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    superuser.execute("COMMIT").await.unwrap();
    // The refusal was not kept under the key.
    let request = app.request(&tenant, "POST", "/api/compose/draft").header("Idempotency-Key", "k");
    let answer = send(request.json(&json!({"id": draft, "text": "new"}))).await.expect(200);
    assert_eq!(answer["text"], "new");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_only_reads_waits_for_a_migration_as_well() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let mut superuser = app.database.superuser().await;
    superuser.execute("BEGIN; LOCK TABLE accounts IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let asked = tokio::spawn(send(app.request(&tenant, "GET", "/api/accounts")));
    tests::eventually::eventually("it meets the lock", Duration::from_secs(5), async || {
        let waiting = "SELECT count(*) FROM pg_locks WHERE relation = 'accounts'::regclass AND NOT granted";
        let waiting: i64 = sqlx::query_scalar(waiting).fetch_one(&mut superuser).await.unwrap();
        (waiting > 0).then_some(())
    })
    .await;
    superuser.execute("COMMIT").await.unwrap();
    asked.await.unwrap().expect(200);
    app.finish().await;
}
