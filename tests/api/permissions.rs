//! Who may what: every route of the description is asked without a token, as every role, and as another tenant.

use std::collections::{BTreeMap, BTreeSet};

use emailclient_core::access::audit::{self, Action, Entry};
use emailclient_core::access::principal::Role;
use serde_json::{Value, json};
use tests::app::{Answer, App, Tenant, send};
use tests::mail;

/// Routes that ask for no token.
const OPEN: [&str; 10] = [
    "get /connect/logo/{key}",
    "get /connect/{token}",
    "get /connect/{token}/consent/{app_id}",
    "get /health",
    "get /health/live",
    "get /health/ready",
    "get /oauth/callback",
    "post /auth/login",
    "post /auth/refresh",
    "post /connect/{token}",
];
/// An id of nobody's.
const NOBODY: &str = "01890000-0000-7000-8000-000000000000";

/// One route as the description has it.
#[derive(Debug, Clone)]
struct Route {
    method: String,
    path: String,
    /// What the description says is needed; `None`: no token.
    scopes: Option<Vec<String>>,
    has_body: bool,
}

impl Route {
    fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// The path with `id` wherever an id belongs.
    fn with(&self, id: impl Fn(&str, &str) -> String) -> String {
        let mut filled: Vec<String> = Vec::new();
        for part in self.path.split('/') {
            let name = part.strip_prefix('{').and_then(|p| p.strip_suffix('}'));
            let before = filled.last().cloned().unwrap_or_default();
            filled.push(name.map_or_else(|| part.to_owned(), |name| id(&before, name)));
        }
        filled.join("/")
    }
}

async fn routes(app: &App) -> Vec<Route> {
    let api: Value =
        app.http.get(format!("{}/openapi.json", app.base)).send().await.unwrap().json().await.unwrap();
    let mut routes = Vec::new();
    for (path, item) in api["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if !["get", "put", "post", "delete", "patch"].contains(&method.as_str()) {
                continue;
            }
            let scopes = operation["security"].as_array().map(|all| {
                let words = all[0]["bearer"].as_array().unwrap().iter();
                words.map(|word| word.as_str().unwrap().to_owned()).collect()
            });
            routes.push(Route {
                method: method.clone(),
                path: path.clone(),
                scopes,
                has_body: operation["requestBody"].is_object(),
            });
        }
    }
    // It ends the session with which the others are asked.
    routes.sort_by_key(|route| (route.path == "/auth/logout", route.name()));
    assert!(routes.len() > 45, "the description has lost routes: {}", routes.len());
    routes
}

async fn ask(app: &App, who: Option<&Tenant>, route: &Route, path: &str) -> Answer {
    let (method, upload) =
        (route.method.to_uppercase(), route.name() == "post /api/compose/{id}/attachments");
    // A stream would have no end.
    let stream = route.name() == "get /api/events";
    let path = match (upload, stream) {
        (true, _) => &format!("{path}?filename=a.txt"),
        (_, true) => &format!("{path}?last_event_id=none"),
        _ => path,
    };
    let mut request = match who {
        Some(who) => app.request(who, &method, path),
        None => app.http.request(method.parse().unwrap(), format!("{}{path}", app.base)),
    };
    if upload {
        request = request.body("a file");
    } else if route.has_body {
        request = request.json(&json!({}));
    }
    send(request).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_asks_for_the_scope_that_its_description_names() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let routes = routes(&app).await;
    let open: BTreeSet<String> = routes.iter().filter(|r| r.scopes.is_none()).map(Route::name).collect();
    assert_eq!(open, OPEN.map(str::to_owned).into(), "routes without a token");
    let nobody = |_: &str, name: &str| if name == "n" { "0".to_owned() } else { NOBODY.to_owned() };
    for route in routes.iter().filter(|r| r.scopes.is_some()) {
        let answer = ask(&app, None, route, &route.with(nobody)).await;
        answer.refused(401, "unauthenticated");
    }
    let mut refused = BTreeMap::new();
    for role in Role::ALL {
        let who = app.member(&tenant, *role).await;
        let told = app.get(&who, "/auth/me").await.expect(200);
        let scopes: Vec<&str> = role.scopes().iter().map(|s| s.as_str()).collect();
        assert_eq!(told["scopes"], json!(scopes), "{role}");
        for route in &routes {
            let Some(needed) = &route.scopes else { continue };
            let answer = ask(&app, Some(&who), route, &route.with(nobody)).await;
            let may = needed.iter().all(|scope| scopes.contains(&scope.as_str()));
            let code = answer.json()["code"].as_str().unwrap_or_default().to_owned();
            assert_eq!(code != "insufficient-scope", may, "{role}: {}: {}", route.name(), answer.text());
            assert!(may || answer.status == 403, "{role}: {}: {}", route.name(), answer.text());
            // Roles are sets that lie in each other: only the words tell which scope the route asked for.
            let asked = answer.json()["detail"].as_str().unwrap_or_default().to_owned();
            assert!(may || asked.ends_with(&format!("scope {}", needed[0])), "{}: {asked}", route.name());
            assert!(![401, 500].contains(&answer.status), "{role}: {}: {}", route.name(), answer.text());
            *refused.entry(*role).or_insert(0) += usize::from(!may);
        }
    }
    assert!(refused[&Role::Viewer] > refused[&Role::Member] && refused[&Role::Member] > 5, "{refused:?}");
    assert_eq!(
        (refused[&Role::Admin], refused[&Role::Owner]),
        (2, 0),
        "what the tenant says of itself is its owners'"
    );
    app.finish().await;
}

/// One object of each kind that a path can name.
async fn objects(app: &App, a: &Tenant) -> BTreeMap<&'static str, String> {
    let user = mail::new_mailbox(app);
    mail::fill(app, &user, "INBOX", vec![mail::message("Private", "p@example.test", "secret words")]);
    let account = mail::connect(app, a, &user).await;
    mail::synchronise(app, a, &account).await;
    let first = |value: &Value| value["data"][0]["id"].as_str().unwrap().to_owned();
    let of = |value: &Value| value["id"].as_str().unwrap().to_owned();
    let mailbox = first(&app.get(a, &format!("/api/accounts/{account}/mailboxes")).await.expect(200));
    let message = first(&app.get(a, &format!("/api/accounts/{account}/messages")).await.expect(200));
    let thread = first(&app.get(a, &format!("/api/accounts/{account}/threads")).await.expect(200));
    let new = json!({"account_id": account, "to": ["x@lab.test"]});
    let draft = of(&app.post(a, "/api/compose", &new).await.expect(201));
    let upload = app.request(a, "POST", &format!("/api/compose/{draft}/attachments?filename=a.txt"));
    let attachment = of(&send(upload.header("content-type", "text/plain").body("file")).await.expect(201));
    let run = of(&app.post(a, &format!("/api/sync/imap/{account}"), &json!({})).await.expect(202));
    let sent = of(&app.post(a, "/api/compose", &new).await.expect(201));
    let order = json!({"undo_seconds": 100});
    let submission = of(&app.post(a, &format!("/api/compose/{sent}/send"), &order).await.expect(202));
    let operation: uuid::Uuid = {
        let (tenant, user): (uuid::Uuid, uuid::Uuid) =
            sqlx::query_as("SELECT tenant_id, id FROM users WHERE email = $1")
                .bind(&a.email)
                .fetch_one(&app.behind)
                .await
                .unwrap();
        sqlx::query_scalar(
            "INSERT INTO operations (tenant_id, id, user_id, kind, action, selection, total)
             VALUES ($1, gen_random_uuid(), $2, 'star', '{\"kind\": \"star\"}', '{}', 0) RETURNING id",
        )
        .bind(tenant)
        .bind(user)
        .fetch_one(&app.behind)
        .await
        .unwrap()
    };
    let hook = of(&app.post(a, "/api/webhooks", &json!({"url": "https://localhost:4/"})).await.expect(201));
    let delivery: uuid::Uuid = sqlx::query_scalar(
        "INSERT INTO webhook_deliveries (tenant_id, id, webhook_id, position, replay, kind, event_at, state, updated_at)
         SELECT tenant_id, gen_random_uuid(), id, 1, false, 'x.y', now(), 'failed', now() FROM webhooks RETURNING id",
    )
    .fetch_one(&app.behind)
    .await
    .unwrap();
    let oauth = json!({"provider": "google", "client_id": "c"});
    let oauth = of(&app.post(a, "/api/oauth/apps", &oauth).await.expect(201));
    let device: uuid::Uuid = sqlx::query_scalar(
        "INSERT INTO oauth_devices (tenant_id, id, app_id, actor, user_code, verification_uri, interval_seconds, next_poll_at, expires_at)
         SELECT tenant_id, gen_random_uuid(), id, id, 'u', 'v', 5, now() + interval '1 hour', now() + interval '1 hour' FROM oauth_apps
         RETURNING id",
    )
    .fetch_one(&app.behind)
    .await
    .unwrap();
    BTreeMap::from([
        ("apps", oauth),
        ("device", device.to_string()),
        ("webhooks", hook),
        ("deliveries", delivery.to_string()),
        ("accounts", account.clone()),
        ("imap", account.clone()),
        ("status", account),
        ("mailboxes", mailbox),
        ("messages", message),
        ("threads", thread),
        ("compose", draft),
        ("attachments", attachment),
        ("runs", run),
        ("submissions", submission),
        ("jobs", operation.to_string()),
    ])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_called_with_another_tenants_ids_answers_as_for_ids_of_nobody() {
    let app = App::start_all().await;
    let (a, b) = (app.tenant().await, app.tenant().await);
    let objects = objects(&app, &a).await;
    let strip = |answer: &Answer, path: &str| {
        let mut body = answer.json();
        for field in ["request_id", "instance"] {
            body.as_object_mut().unwrap_or_else(|| panic!("{path}: {}", answer.text())).remove(field);
        }
        (answer.status, body)
    };
    let mut asked = 0;
    for route in routes(&app).await.iter().filter(|r| r.path.contains('{') && r.scopes.is_some()) {
        let theirs = route.with(|before, name| match name {
            "n" => "0".to_owned(),
            _ => objects
                .get(before)
                .unwrap_or_else(|| panic!("{}: no object for {before}", route.name()))
                .clone(),
        });
        let nobodys = route.with(|_, name| if name == "n" { "0".to_owned() } else { NOBODY.to_owned() });
        let (one, other) =
            (ask(&app, Some(&b), route, &theirs).await, ask(&app, Some(&b), route, &nobodys).await);
        assert_eq!(strip(&one, &theirs), strip(&other, &nobodys), "{}", route.name());
        assert_eq!(one.status, 404, "{}: {}", route.name(), one.text());
        asked += 1;
    }
    assert!(asked > 30, "only {asked} routes with ids said 404");
    // Nothing of it reached the objects.
    for (kind, path) in
        [("accounts", "/api/accounts"), ("messages", "/api/messages"), ("compose", "/api/compose")]
    {
        app.get(&a, &format!("{path}/{}", objects[kind])).await.expect(200);
    }
    let state = app.get(&a, &format!("/api/submissions/{}", objects["submissions"])).await.expect(200);
    assert_eq!(state["state"], "queued");
    app.post(&a, &format!("/api/submissions/{}/cancel", objects["submissions"]), &json!({}))
        .await
        .expect(200);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_role_is_refused_stands_in_the_audit_ten_times_a_minute_and_then_as_a_count() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let viewer = app.member(&tenant, Role::Viewer).await;
    let path = format!("/api/accounts/{NOBODY}");
    for _ in 0..25 {
        app.delete(&viewer, &path).await.refused(403, "insufficient-scope");
    }
    // What is not audited leaves no refusal either.
    app.patch(&viewer, &format!("/api/messages/{NOBODY}"), &json!({}))
        .await
        .refused(403, "insufficient-scope");
    app.get(&viewer, &path).await.refused(404, "not-found");
    let database = app.database.clone();
    type Line = (String, Option<String>, String, i32, Option<String>);
    let lines = async || -> Vec<Line> {
        let mut conn = database.superuser().await;
        sqlx::query_as(
            "SELECT action, target, result, times, address FROM audit_log
             WHERE actor LIKE 'user:%' AND result <> 'ok' ORDER BY at, id",
        )
        .fetch_all(&mut conn)
        .await
        .unwrap()
    };
    let told = lines().await;
    assert_eq!(told.len(), 10, "{told:?}");
    for (action, target, result, times, address) in &told {
        assert_eq!((action.as_str(), result.as_str(), *times), ("account.delete", "insufficient-scope", 1));
        assert_eq!((target.as_deref(), address.as_deref()), (Some(path.as_str()), Some("127.0.0.1")));
    }
    let mut conn = app.database.superuser().await;
    let kept = app.database.clone();
    app.stop_services().await;
    let counted: Vec<(String, String, i32)> =
        sqlx::query_as("SELECT action, result, times FROM audit_log WHERE times > 1")
            .fetch_all(&mut conn)
            .await
            .unwrap();
    assert_eq!(counted, [("account.delete".to_owned(), "insufficient-scope".to_owned(), 15)]);
    drop(conn);
    kept.drop_it().await;
}

#[tokio::test]
async fn a_transaction_that_owes_a_line_in_the_audit_does_not_commit_without_it() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let rename = async |line: Option<Action>| {
        let mut tx = app.db.tenant(tenant.id).await.unwrap();
        tx.owe_audit(Action::TenantLimits.as_str());
        emailclient_core::access::tenant::set_limits(&mut tx, Some(7), None).await.unwrap();
        if let Some(action) = line {
            audit::record(&mut tx, &Entry::here("emailctl:test", action, "x")).await.unwrap();
        }
        tx.commit().await
    };
    let limit = async || -> Option<i32> {
        sqlx::query_scalar("SELECT per_minute FROM tenants WHERE id = $1")
            .bind(tenant.id.0)
            .fetch_one(&app.behind)
            .await
            .unwrap()
    };
    for line in [None, Some(Action::TenantResume)] {
        let refused = rename(line).await.unwrap_err();
        assert!(refused.to_string().contains("tenant.limits"), "{refused}");
        assert_eq!(limit().await, Some(0), "{line:?}");
    }
    rename(Some(Action::TenantLimits)).await.unwrap();
    assert_eq!(limit().await, Some(7));
    app.finish().await;
}
