//! The audit trail as its readers see it.

use emailclient_core::access::principal::Role;
use serde_json::{Value, json};
use tests::app::{App, send};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_trail_is_read_newest_first_by_who_what_and_when_and_by_those_who_may() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let member = app.member(&tenant, Role::Member).await;
    app.get(&member, "/api/audit").await.refused(403, "insufficient-scope");
    let logins = app.get(&tenant, "/api/audit?action=session.login").await.expect(200);
    let first = &logins["data"][0];
    for field in ["id", "at", "actor", "action", "target", "address", "result", "request_id", "times"] {
        assert!(first.get(field).is_some(), "{field}: {first}");
    }
    let whole = app.get(&tenant, "/api/audit?limit=200").await.expect(200);
    let all = whole["data"].as_array().unwrap();
    assert!(all.len() >= 3, "{whole}");
    let times: Vec<&str> = all.iter().map(|line| line["at"].as_str().unwrap()).collect();
    assert!(times.is_sorted_by(|a, b| a >= b), "{times:?}");
    // Page by page it is the same.
    let (mut paged, mut path) = (Vec::new(), "/api/audit?limit=1".to_owned());
    loop {
        let page = app.get(&tenant, &path).await.expect(200);
        paged.extend(page["data"].as_array().unwrap().clone());
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/api/audit?limit=1&cursor={cursor}");
    }
    assert_eq!(&paged, all);
    let actor = first["actor"].as_str().unwrap();
    let of_actor = app.get(&tenant, &format!("/api/audit?actor={actor}")).await.expect(200);
    assert!(of_actor["data"].as_array().unwrap().iter().all(|line| line["actor"] == actor));
    // `to` leaves out its own moment.
    let newest = times[0].replace('+', "%2B");
    let before = app.get(&tenant, &format!("/api/audit?limit=200&to={newest}")).await.expect(200);
    let later = all.iter().filter(|line| line["at"] == all[0]["at"]).count();
    assert_eq!(before["data"].as_array().unwrap().len(), all.len() - later);
    let since = app.get(&tenant, &format!("/api/audit?from={newest}")).await.expect(200);
    assert_eq!(since["data"].as_array().unwrap().len(), later);
    assert_eq!(app.get(&tenant, "/api/audit?target=nothing").await.expect(200)["data"], json!([]));
    for bad in ["from=yesterday", "limit=0", "cursor=x", "who=me"] {
        assert_eq!(app.get(&tenant, &format!("/api/audit?{bad}")).await.status, 400, "{bad}");
    }
    // Another tenant has a trail of its own.
    let other = app.tenant().await;
    let theirs = app.get(&other, "/api/audit?limit=200").await.expect(200);
    let ids = |page: &Value| -> Vec<String> {
        page["data"].as_array().unwrap().iter().map(|line| line["id"].to_string()).collect()
    };
    assert!(ids(&theirs).iter().all(|id| !ids(&whole).contains(id)));
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_of_the_trail_comes_a_line_each_to_who_accepts_that() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    sqlx::query(
        "INSERT INTO audit_log (tenant_id, id, actor, action, result, at)
         SELECT t.id, gen_random_uuid(), 'emailctl:root', 'user.role', 'ok', now() - n * interval '1 second'
         FROM tenants t, generate_series(1, 2500) n WHERE t.slug = $1",
    )
    .bind(&tenant.slug)
    .execute(&app.behind)
    .await
    .unwrap();
    let ask = |accept: &'static str| {
        let request = app.request(&tenant, "GET", "/api/audit?action=user.role");
        send(request.header("accept", accept))
    };
    let answer = ask("application/x-ndjson").await;
    assert_eq!((answer.status, answer.header("content-type").as_str()), (200, "application/x-ndjson"));
    let lines: Vec<Value> = answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2500);
    let times: Vec<&str> = lines.iter().map(|line| line["at"].as_str().unwrap()).collect();
    assert!(times.is_sorted_by(|a, b| a > b));
    ask("text/html").await.refused(406, "not-acceptable");
    app.finish().await;
}
