//! Tenant B with A's ids where no path names them: in bodies and queries, and as the tenant of a request. Paths are in
//! `permissions`.

use serde_json::json;
use tests::app::{App, send};
use tests::mail;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_tenants_ids_in_bodies_and_queries_are_those_of_nobody() {
    let app = App::start_all().await;
    let (a, b) = (app.tenant().await, app.tenant().await);
    let user = mail::new_mailbox(&app);
    mail::fill(&app, &user, "INBOX", vec![mail::message("Private", "p@example.test", "secret words")]);
    let account = mail::connect(&app, &a, &user).await;
    mail::synchronise(&app, &a, &account).await;
    let messages = app.get(&a, &format!("/api/accounts/{account}/messages")).await.expect(200);
    let message = messages["data"][0]["id"].as_str().unwrap().to_owned();
    let nobody = "01890000-0000-7000-8000-000000000000";

    let found = app.get(&b, "/api/sync/search?query=in:anywhere").await.expect(200);
    assert_eq!(found["data"], json!([]));
    assert_eq!(app.get(&b, "/api/accounts").await.expect(200)["data"], json!([]));
    for path in [
        "/api/sync/search?query=secret&account_id=",
        "/api/compose?account_id=",
        "/api/submissions?account_id=",
    ] {
        let answers =
            [app.get(&b, &format!("{path}{account}")).await, app.get(&b, &format!("{path}{nobody}")).await];
        assert_eq!(answers[0].status, answers[1].status, "{path}");
        assert_eq!(answers[0].json()["code"], answers[1].json()["code"], "{path}");
    }
    for (id, message) in [(account.as_str(), message.as_str()), (nobody, nobody)] {
        let draft = json!({"account_id": id, "to": ["x@lab.test"]});
        let refused = app.post(&b, "/api/compose", &draft).await.refused(422, "validation-error");
        assert_eq!(refused["errors"][0]["pointer"], "/account_id");
        let star = json!({"ids": [message], "action": "star"});
        let refused = app.post(&b, "/api/messages/actions", &star).await.refused(422, "validation-error");
        assert_eq!(refused["errors"][0]["pointer"], "/ids/0");
    }
    app.get(&a, &format!("/api/messages/{message}")).await.expect(200);
    app.finish().await;
}

#[tokio::test]
async fn a_token_opens_its_own_tenant_only() {
    let app = App::start().await;
    let (a, b) = (app.tenant().await, app.tenant().await);
    let call = |slug: &str| {
        app.http.get(format!("{}/api/accounts", app.base)).bearer_auth(&a.token).header("X-Tenant-ID", slug)
    };
    assert_eq!(send(call(&a.slug)).await.status, 200);
    assert_eq!(send(call(&a.id.to_string())).await.status, 200);
    let known = send(call(&b.slug)).await.refused(403, "tenant-forbidden");
    let unknown = send(call("no-such-tenant")).await.refused(403, "tenant-forbidden");
    assert_eq!(known["detail"], unknown["detail"]);
    app.finish().await;
}
