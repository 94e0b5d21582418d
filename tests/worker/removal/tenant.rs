//! A tenant that the operator deletes: refused within seconds, and nothing is left of it in the end.

use std::time::Duration;

use serde_json::json;
use sqlx::Connection as _;
use tests::app::{App, Tenant};
use tests::eventually::eventually;
use tests::mail;
use tests::worker::Worker;

use super::{PATIENCE, connected, count, locks};

/// Tables with rows of the tenant, by the catalogue.
async fn left(app: &App, tenant: &Tenant) -> Vec<String> {
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT c.relname::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id'
         WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' ORDER BY 1",
    )
    .fetch_all(&app.behind)
    .await
    .unwrap();
    let mut found = Vec::new();
    for table in tables {
        if count(app, &format!("SELECT count(*) FROM {table} WHERE tenant_id = '{}'", tenant.id)).await > 0 {
            found.push(table);
        }
    }
    if count(app, &format!("SELECT count(*) FROM tenants WHERE id = '{}'", tenant.id)).await > 0 {
        found.push("tenants".to_owned());
    }
    found
}

/// A tenant with something of nearly everything.
async fn busy(app: &App) -> (Tenant, String) {
    let tenant = app.tenant().await;
    let (_, account) = connected(app, &tenant, 30).await;
    mail::synchronise(app, &tenant, &account).await;
    super::searchable(app, &tenant).await;
    let hook = json!({"url": "http://127.0.0.1:9/hook"});
    app.post(&tenant, "/api/webhooks", &hook).await.expect(201);
    let draft = json!({"account_id": account, "to": ["a@x.test"], "subject": "S", "text": "T"});
    let draft = app.post(&tenant, "/api/compose", &draft).await.expect(201);
    let send = format!("/api/compose/{}/send", draft["id"].as_str().unwrap());
    app.post(&tenant, &send, &json!({"undo_seconds": 100})).await.expect(202);
    let key = app.request(&tenant, "POST", "/api/compose").header("Idempotency-Key", "k");
    let again = key.json(&json!({"account_id": account, "subject": "Again"}));
    assert_eq!(again.send().await.unwrap().status(), 201);
    app.post(&tenant, "/api/events/ticket", &json!({})).await.expect(201);
    (tenant, account)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_tenant_is_refused_within_seconds_and_leaves_no_row() {
    let mut app = App::start_all().await;
    let (tenant, account) = busy(&app).await;
    let (other, _) = busy(&app).await;
    let large = locks::account(&app, &tenant).await;
    locks::fill(&app, &tenant, &large, 3_000).await;
    let others = left(&app, &other).await;
    let had = left(&app, &tenant).await;
    assert!(had.len() >= 24, "{had:?}");
    let mut stream = app.request(&tenant, "GET", "/api/events").send().await.unwrap();
    assert_eq!(stream.status(), 200);
    app.stop_workers().await;
    app.emailctl(&["tenant", "delete", &tenant.slug, "--yes"]).await;
    eventually("its requests are refused", Duration::from_secs(10), async || {
        let status = app.get(&tenant, &format!("/api/accounts/{account}")).await.status;
        (status == 401 || status == 403).then_some(())
    })
    .await;
    let ended = async { while let Ok(Some(_)) = stream.chunk().await {} };
    tokio::time::timeout(Duration::from_secs(10), ended).await.expect("its stream goes on");
    // Its slug is free, and nobody lifts what is for good.
    let id = tenant.id.to_string();
    app.emailctl(&["tenant", "create", "--slug", &tenant.slug]).await;
    app.emailctl(&["tenant", "resume", &id]).await;
    let suspended = format!("SELECT count(*) FROM tenants WHERE id = '{id}' AND suspended_at IS NOT NULL");
    assert_eq!(count(&app, &suspended).await, 1);
    app.emailctl(&["tenant", "removals"]).await;
    // A worker dies at it, and its job is lost.
    let mut worker = Worker::start(&app, &[("FAILPOINT", "removed-portion:3")]);
    let ended = tokio::task::block_in_place(|| worker.ended(PATIENCE));
    assert!(!ended.success() && ended.code().is_none(), "{ended}");
    sqlx::query("DELETE FROM jobs WHERE kind = 'remove_tenant'").execute(&app.behind).await.unwrap();
    app.add_worker();
    app.add_scheduler();
    eventually("nothing is left of it", PATIENCE, async || {
        left(&app, &tenant).await.is_empty().then_some(())
    })
    .await;
    let mut still = left(&app, &other).await;
    still.retain(|table| others.contains(table));
    assert_eq!(still, others, "the other tenant has what it had");
    assert_eq!(app.get(&other, "/api/accounts").await.status, 200);
    app.finish().await;
}

/// No service deletes a tenant that the operator did not delete, whatever it is told.
#[tokio::test]
async fn a_tenant_that_is_not_deleted_cannot_be_removed() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let mut conn = sqlx::PgConnection::connect(&app.database.url("emailclient_app")).await.unwrap();
    for deleted in ["NULL", "now()"] {
        sqlx::query(sqlx::AssertSqlSafe(format!("UPDATE tenants SET removed_at = {deleted}")))
            .execute(&app.behind)
            .await
            .unwrap();
        let enter = format!("SELECT set_config('app.tenant_id', '{}', false)", tenant.id);
        sqlx::query(sqlx::AssertSqlSafe(enter)).execute(&mut conn).await.unwrap();
        let (trail, row): (i64, bool) =
            sqlx::query_as("SELECT remove_tenant_trail(100), remove_tenant_row()")
                .fetch_one(&mut conn)
                .await
                .unwrap();
        assert_eq!((trail, row), (0, false), "{deleted}");
    }
    assert!(count(&app, "SELECT count(*) FROM audit_log").await > 0);
    drop(conn);
    app.finish().await;
}
