//! Passwords of mail servers cannot be guessed through this service.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tests::app::{App, Tenant, send};
use tests::scripted;

/// A server that refuses every password, and how many it was asked.
async fn server() -> (scripted::Scripted, Arc<AtomicUsize>) {
    let tried = Arc::new(AtomicUsize::new(0));
    let counter = tried.clone();
    let server = scripted::imap(move |tag, command| {
        let verb = command.split(' ').next().unwrap_or_default().to_ascii_uppercase();
        match verb.as_str() {
            "CAPABILITY" => format!("* CAPABILITY IMAP4rev1\r\n{tag} OK\r\n").into_bytes(),
            "LOGIN" | "AUTHENTICATE" => {
                counter.fetch_add(1, Ordering::SeqCst);
                format!("{tag} NO [AUTHENTICATIONFAILED] no\r\n").into_bytes()
            }
            _ => format!("{tag} OK\r\n").into_bytes(),
        }
    })
    .await;
    (server, tried)
}

fn account(host: &str, port: u16, user: &str, password: &str) -> Value {
    let imap =
        json!({"host": host, "port": port, "security": "none", "username": user, "password": password});
    // Nobody logs in there: an empty user name.
    let smtp =
        json!({"host": "127.0.0.1", "port": port, "security": "none", "username": "", "password": "none"});
    json!({"email": "me@lab.test", "imap": imap, "smtp": smtp})
}

async fn audited(app: &App, tenant: &Tenant) -> Vec<(String, String, i64)> {
    let mut conn = app.database.superuser().await;
    sqlx::query_as(
        "SELECT target, result, count(*) FROM audit_log WHERE tenant_id = $1 AND action = 'account.try' AND target LIKE 'imap %'
         GROUP BY 1, 2 ORDER BY 1, 2",
    )
    .bind(tenant.id)
    .fetch_all(&mut conn)
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_five_passwords_in_a_minute_no_door_tries_a_sixth() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let (server, tried) = server().await;
    let port = server.port;
    let saved = account("127.0.0.1", port, "another", "x");
    let saved = app.post(&tenant, "/api/accounts?verify=false", &saved).await.expect(201);
    let saved = format!("/api/accounts/{}", saved["id"].as_str().unwrap());
    let guess = |n: usize| account("127.0.0.1", port, "victim", &format!("guess {n}"));
    for n in 0..5 {
        let told = app.post(&tenant, "/api/accounts/verify", &guess(n)).await.expect(200);
        assert_eq!(told["imap"]["code"], "upstream-auth-failed", "{told}");
    }
    assert_eq!(tried.load(Ordering::SeqCst), 5);
    // Nor under another spelling of host or user.
    for (host, user) in [
        ("127.0.0.1", "victim"),
        ("127.0.0.1", "VICTIM"),
        ("127.0.0.1", " victim"),
        ("127.0.0.1.", "victim"),
        ("localhost", "victim"),
        ("LOCALHOST", "Victim"),
    ] {
        for query in ["", "?verify=false"] {
            let whole = account(host, port, user, "one more");
            let mut new = whole.clone();
            new["email"] = json!("new@lab.test");
            let refused = [
                app.post(&tenant, "/api/accounts/verify", &whole).await,
                app.post(&tenant, &format!("/api/accounts{query}"), &new).await,
                send(app.request(&tenant, "PUT", &format!("{saved}{query}")).json(&whole)).await,
                app.patch(&tenant, &format!("{saved}{query}"), &json!({"imap": whole["imap"]})).await,
            ];
            for answer in refused {
                answer.refused(429, "rate-limited");
                assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 1);
            }
        }
    }
    assert_eq!(tried.load(Ordering::SeqCst), 5, "the server was not asked again");
    // Others are not held up: another user of that server, and another tenant.
    let other = account("127.0.0.1", port, "somebody", "x");
    app.post(&tenant, "/api/accounts/verify", &other).await.expect(200);
    let (stranger, own) = (app.tenant().await, guess(9));
    app.post(&stranger, "/api/accounts/verify", &own).await.expect(200);

    let trail = audited(&app, &tenant).await;
    let of = |user: &str, result: &str| {
        trail
            .iter()
            .find(|(t, r, _)| t.ends_with(&format!("127.0.0.1:{port} {user}")) && r == result)
            .map_or(0, |t| t.2)
    };
    assert_eq!(
        (of("victim", "upstream-auth-failed"), of("somebody", "upstream-auth-failed")),
        (5, 1),
        "{trail:?}"
    );
    assert!(of("victim", "rate-limited") >= 4, "{trail:?}");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_door_counts_and_so_does_what_is_saved_untried() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let (server, _) = server().await;
    let guess = |password: &str| account("127.0.0.1", server.port, "victim", password);
    let made = app.post(&tenant, "/api/accounts?verify=false", &guess("1")).await.expect(201);
    let path = format!("/api/accounts/{}", made["id"].as_str().unwrap());
    app.patch(&tenant, &format!("{path}?verify=false"), &json!({"imap": {"password": "2"}}))
        .await
        .expect(200);
    app.patch(&tenant, &path, &json!({"imap": {"password": "3"}})).await.refused(422, "upstream-auth-failed");
    let mut whole = guess("4");
    whole["email"] = json!("other@lab.test");
    app.post(&tenant, "/api/accounts", &whole).await.refused(422, "upstream-auth-failed");
    send(app.request(&tenant, "PUT", &path).json(&guess("5"))).await.refused(422, "upstream-auth-failed");
    app.post(&tenant, "/api/accounts/verify", &guess("6")).await.refused(429, "rate-limited");
    // What gives no password tries none that was not there.
    app.patch(&tenant, &path, &json!({"name": "x"})).await.expect(200);
    app.finish().await;
}
