//! A stored password is shown to the server that it was given for, as the user that it was given for, and to nobody else.

use serde_json::{Value, json};
use tests::app::{Answer, App, Tenant, send};
use tokio::net::TcpListener;

/// An account at a listener of the test's.
fn account(port: u16) -> Value {
    let server = json!({"host": "localhost", "port": port, "security": "starttls", "username": "me", "password": "stored"});
    json!({"email": "me@lab.test", "imap": server, "smtp": server})
}

async fn saved(app: &App, tenant: &Tenant, port: u16) -> String {
    let made = app.post(tenant, "/api/accounts?verify=false", &account(port)).await.expect(201);
    format!("/api/accounts/{}", made["id"].as_str().unwrap())
}

/// What is wrong with a password, by its pointer.
#[track_caller]
fn password_fault(answer: &Answer, field: &str, code: &str) {
    let told = answer.refused(422, "validation-error");
    let wanted = json!({"pointer": format!("/{field}/password"), "code": code});
    let found = told["errors"]
        .as_array()
        .unwrap()
        .iter()
        .any(|e| e["pointer"] == wanted["pointer"] && e["code"] == wanted["code"]);
    assert!(found, "{wanted} is not in {told}");
}

#[tokio::test]
async fn another_destination_needs_the_password_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let other = elsewhere.local_addr().unwrap().port();
    let app = App::start().await;
    let tenant = app.tenant().await;
    let path = saved(&app, &tenant, port).await;
    for field in ["imap", "smtp"] {
        for change in [
            json!({"host": "127.0.0.1"}),
            json!({"port": other}),
            json!({"security": "tls"}),
            json!({"security": "none"}),
            json!({"username": "somebody"}),
            json!({"username": "ME"}),
            json!({"host": "127.0.0.1", "port": other, "security": "none", "username": "somebody"}),
            json!({"port": other, "password": null}),
        ] {
            for query in ["", "?verify=false"] {
                let path = format!("{path}{query}");
                let patched = app.patch(&tenant, &path, &json!({ field: change })).await;
                password_fault(&patched, field, "missing");
                let mut whole = account(port);
                for server in ["imap", "smtp"] {
                    whole[server].as_object_mut().unwrap().remove("password");
                }
                for (name, value) in change.as_object().unwrap() {
                    whole[field][name] = value.clone();
                }
                let put = send(app.request(&tenant, "PUT", &path).json(&whole)).await;
                password_fault(&put, field, "missing");
            }
        }
    }
    for listener in [listener, elsewhere] {
        let called = tokio::time::timeout(std::time::Duration::from_millis(200), listener.accept()).await;
        assert!(called.is_err(), "somebody called: {called:?}");
    }
    // What is not another destination asks for none, and with the password any destination may be set.
    app.patch(&tenant, &path, &json!({"name": "x", "imap": {"host": "LOCALHOST."}})).await.expect(200);
    app.patch(&tenant, &path, &json!({"imap": {"port": port, "username": "me"}})).await.expect(200);
    let moved = json!({"smtp": {"port": other, "password": "given again"}});
    app.patch(&tenant, &format!("{path}?verify=false"), &moved).await.expect(200);
    app.finish().await;
}

#[tokio::test]
async fn an_empty_password_is_none() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let path = saved(&app, &tenant, 993).await;
    for field in ["imap", "smtp"] {
        let mut whole = account(993);
        whole[field]["password"] = json!("");
        for query in ["", "?verify=false"] {
            let made = app.post(&tenant, &format!("/api/accounts{query}"), &whole).await;
            password_fault(&made, field, "empty");
            let path = format!("{path}{query}");
            let put = send(app.request(&tenant, "PUT", &path).json(&whole)).await;
            password_fault(&put, field, "empty");
            let patched = app.patch(&tenant, &path, &json!({field: {"password": ""}})).await;
            password_fault(&patched, field, "empty");
        }
        let tried = app.post(&tenant, "/api/accounts/verify", &whole).await;
        password_fault(&tried, field, "empty");
    }
    app.finish().await;
}
