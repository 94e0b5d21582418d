//! `/api/jobs/{id}` and the actions that answer with one.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor as _};
use tests::app::{App, Tenant, send};
use tests::eventually::eventually;
use tests::mail;

const NOBODY: &str = "01890000-0000-7000-8000-000000000000";

async fn act(app: &App, tenant: &Tenant, body: &Value) -> tests::app::Answer {
    app.post(tenant, "/api/messages/actions", body).await
}

/// The ids of all messages of an account, page by page.
async fn ids(app: &App, tenant: &Tenant, account: &str) -> Vec<String> {
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("/api/accounts/{account}/messages?limit=200{cursor}");
        let page = app.get(tenant, &path).await.expect(200);
        found.extend(page["data"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap().to_owned()));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return found,
        }
    }
}

async fn finished(app: &App, tenant: &Tenant, location: &str) -> Value {
    eventually("the job is over", Duration::from_secs(30), async || {
        let job = app.get(tenant, location).await.expect(200);
        job["finished_at"].is_string().then_some(job)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_action_on_501_messages_is_a_job_that_reaches_the_mail_server() {
    let app = App::start_all().await;
    let (tenant, other) = (app.tenant().await, app.tenant().await);
    let user = mail::new_mailbox(&app);
    let one = |n| mail::message(&format!("Number {n}"), &format!("{n}@bulk.test"), "words");
    mail::fill(&app, &user, "INBOX", (0..501).map(one).collect());
    let account = mail::connect(&app, &tenant, &user).await;
    mail::synchronise(&app, &tenant, &account).await;

    let body = json!({"query": "in:inbox", "action": "mark_read"});
    let keyed = || {
        let request = app.request(&tenant, "POST", "/api/messages/actions");
        send(request.header("Idempotency-Key", "all-of-it").json(&body))
    };
    let first = keyed().await;
    let told = first.expect(202);
    let location = first.header("location");
    assert_eq!(location, format!("/api/jobs/{}", told["id"].as_str().unwrap()));
    assert_eq!((&told["state"], &told["kind"]), (&json!("queued"), &json!("mark_read")));
    assert_eq!(told["progress"], json!({"done": 0, "total": 501}));
    assert!(told["created_at"].is_string() && told["started_at"].is_null() && told["error"].is_null());

    let job = finished(&app, &tenant, &location).await;
    assert_eq!((&job["state"], &job["updated"], &job["error"]), (&json!("done"), &json!(501), &Value::Null));
    assert_eq!(job["progress"], json!({"done": 501, "total": 501}));
    assert!(job["started_at"].is_string());
    let unread = format!("/api/accounts/{account}/messages?unread=true");
    assert_eq!(app.get(&tenant, &unread).await.expect(200)["data"], json!([]));
    eventually("the server has the flags", Duration::from_secs(30), async || {
        let status = mail::doveadm(&app, &["mailbox", "status", "-u", &user, "messages unseen", "INBOX"]);
        status.contains("messages=501 unseen=0").then_some(())
    })
    .await;

    let again = keyed().await;
    assert_eq!(again.expect(202), told, "the same key made another job");
    assert_eq!(
        (again.header("location"), again.header("idempotency-replayed")),
        (location.clone(), "true".into())
    );
    let mut conn = app.database.superuser().await;
    let jobs: i64 = sqlx::query_scalar("SELECT count(*) FROM operations").fetch_one(&mut conn).await.unwrap();
    assert_eq!(jobs, 1);

    let without = |mut body: Value, id: &str| {
        body.as_object_mut().unwrap().remove("request_id");
        body.to_string().replace(id, "ID")
    };
    for method in ["GET", "DELETE"] {
        let id = told["id"].as_str().unwrap();
        let theirs = send(app.request(&other, method, &location)).await.refused(404, "not-found");
        let nobodys = send(app.request(&other, method, &format!("/api/jobs/{NOBODY}"))).await;
        assert_eq!(without(theirs, id), without(nobodys.refused(404, "not-found"), NOBODY));
    }
    app.get(&tenant, "/api/jobs/one").await.refused(400, "invalid-parameter");
    assert_eq!(app.delete(&tenant, &location).await.status, 204);
    assert_eq!(app.get(&tenant, &location).await.expect(200), job, "what is over stays as it is");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_messages_are_changed_at_once_and_one_more_is_a_job() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    let one = |n| mail::message(&format!("Number {n}"), &format!("{n}@bulk.test"), "words");
    mail::fill(&app, &user, "INBOX", (0..501).map(one).collect());
    let account = mail::connect(&app, &tenant, &user).await;
    mail::synchronise(&app, &tenant, &account).await;
    let ids = ids(&app, &tenant, &account).await;
    assert_eq!(ids.len(), 501);
    // A message that is named twice is one.
    let most: Vec<&String> = ids[1..].iter().chain(&ids[1..2]).collect();
    let done = act(&app, &tenant, &json!({"ids": most, "action": "star"})).await.expect(200);
    assert_eq!(done, json!({"updated": 500}));
    let starred = "/api/sync/search?query=is:starred&limit=1";
    assert_eq!(app.get(&tenant, starred).await.expect(200)["has_more"], true);

    let answer = act(&app, &tenant, &json!({"ids": ids, "action": "archive"})).await;
    answer.expect(202);
    let job = finished(&app, &tenant, &answer.header("location")).await;
    assert_eq!((&job["state"], &job["updated"]), (&json!("done"), &json!(501)));
    eventually("the server moved them", Duration::from_secs(30), async || {
        let status = mail::doveadm(&app, &["mailbox", "status", "-u", &user, "messages", "*"]);
        (status.contains("Archive messages=501") && status.contains("INBOX messages=0")).then_some(())
    })
    .await;
    app.finish().await;
}

/// Statements that add an account with `count` messages that never were on a server.
fn planted(tenant: &str, account: &str, count: usize) -> String {
    format!(
        "INSERT INTO accounts (tenant_id,id,email,email_key,imap_host,imap_port,imap_security,imap_username,smtp_host,smtp_port,smtp_security,smtp_username)
           VALUES ('{tenant}','{account}','{account}','{account}','h',1,'tls','u','h',1,'tls','u');
         INSERT INTO mailboxes (tenant_id,id,account_id,wire_name,path,name) VALUES ('{tenant}','{account}','{account}','INBOX','INBOX','INBOX');
         INSERT INTO blobs (tenant_id,account_id,hash,size_bytes,raw) VALUES ('{tenant}','{account}','h',1,'x');
         INSERT INTO threads (tenant_id,id,account_id,last_message_at) VALUES ('{tenant}','{account}','{account}',now());
         INSERT INTO messages (tenant_id,id,account_id,thread_id,blob_hash,size_bytes,received_at,sort_at,date_sort_at,indexed_at)
           SELECT '{tenant}', gen_random_uuid(), '{account}', '{account}', 'h', 1, at, at, at, at
           FROM generate_series(1, {count}) AS n, LATERAL (SELECT now() - make_interval(secs => n)) AS t(at);
         ANALYZE messages"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_job_could_not_do_is_refused_before_it_begins() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let (large, small) = ("01890000-0000-7000-8000-00000000000a", "01890000-0000-7000-8000-00000000000b");
    let mut conn = app.database.superuser().await;
    // Without looking up each row's references again.
    conn.execute("SET session_replication_role = replica").await.unwrap();
    for (account, count) in [(large, 100_000), (small, 501)] {
        let rows = planted(&tenant.id.to_string(), account, count);
        conn.execute(AssertSqlSafe(rows)).await.unwrap();
    }
    let all = json!({"query": "in:anywhere", "action": "star"});
    let refused = act(&app, &tenant, &all).await.refused(422, "validation-error");
    assert_eq!(refused["errors"][0]["pointer"], "/query");
    assert!(refused.to_string().contains("100000"), "{refused}");

    let of = |account: &str| format!("in:anywhere account:{account}");
    let target = |id: &str| json!({"query": of(small), "action": "move", "mailbox_id": id});
    let foreign = act(&app, &tenant, &target(large)).await.refused(422, "validation-error");
    assert_eq!(foreign["errors"][0]["code"], "other-account");
    conn.execute("UPDATE mailboxes SET selectable = false").await.unwrap();
    let parent = act(&app, &tenant, &target(small)).await.refused(422, "validation-error");
    assert_eq!(parent["errors"][0]["code"], "not-selectable");
    let unknown = act(&app, &tenant, &target(NOBODY)).await.refused(422, "validation-error");
    assert_eq!(unknown["errors"][0]["pointer"], "/mailbox_id");
    let many: Vec<String> = (0..600).map(|n| format!("01890000-0000-7000-8000-{n:012}")).collect();
    let unknown = act(&app, &tenant, &json!({"ids": many, "action": "star"})).await;
    assert_eq!(unknown.refused(422, "validation-error")["errors"].as_array().unwrap().len(), 100);
    for table in ["operations", "jobs"] {
        let sql = format!("SELECT count(*) FROM {table}");
        let rows: i64 = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut conn).await.unwrap();
        assert_eq!(rows, 0, "something was left in {table}");
    }

    let most = act(&app, &tenant, &json!({"query": of(large), "action": "star"})).await.expect(202);
    assert_eq!(most["progress"]["total"], 100_000);
    drop(conn);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_action_narrowed_to_a_mailbox_counts_only_what_is_there() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    let one = |n| mail::message(&format!("Number {n}"), &format!("{n}@narrow.test"), "words");
    mail::fill(&app, &user, "INBOX", (0..2).map(one).collect());
    mail::fill(&app, &user, "Work", vec![one(2)]);
    let account = mail::connect(&app, &tenant, &user).await;
    mail::synchronise(&app, &tenant, &account).await;
    let ids = ids(&app, &tenant, &account).await;
    assert_eq!(ids.len(), 3);
    let listed = app.get(&tenant, &format!("/api/accounts/{account}/mailboxes")).await.expect(200);
    let find = |name: &str| {
        let all = listed["data"].as_array().unwrap();
        all.iter().find(|m| m["name"] == name).unwrap()["id"].clone()
    };
    let (inbox, work) = (find("INBOX"), find("Work"));
    for (mailbox, action, expected) in [
        (&inbox, "star", 2),
        (&work, "star", 1),
        (&work, "mark_read", 1),
        (&work, "trash", 1),
        (&work, "trash", 0),
        (&work, "unstar", 0),
        (&inbox, "unstar", 2),
    ] {
        let body = json!({"ids": ids, "action": action, "mailbox_id": mailbox});
        let done = act(&app, &tenant, &body).await.expect(200);
        assert_eq!(done, json!({"updated": expected}), "{action} in {mailbox}");
    }
    app.finish().await;
}
