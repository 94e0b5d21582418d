//! The walk to an account's servers: each step is told, and nothing behind the one that failed.

use serde_json::{Value, json};
use tests::app::{Answer, App, Tenant, send};
use tests::eventually::eventually;
use tests::imapd::Imapd;
use tests::{mail, scripted};
use tokio::io::AsyncWriteExt as _;

async fn diagnose(app: &App, tenant: &Tenant, account: &str) -> Answer {
    send(app.request(tenant, "POST", &format!("/api/accounts/{account}/diagnose"))).await
}

/// Connects without trying, with changes to what would work.
async fn connect(app: &App, tenant: &Tenant, change: impl FnOnce(&mut Value)) -> String {
    let mut settings = mail::settings(app, &mail::new_mailbox(app));
    change(&mut settings);
    let account = app.post(tenant, "/api/accounts?verify=false", &settings).await.expect(201);
    account["id"].as_str().unwrap().to_owned()
}

/// `step outcome code` of each step.
fn steps(way: &Value) -> Vec<String> {
    let word = |v: &Value| v.as_str().unwrap_or("-").to_owned();
    way["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| {
            assert!(s["duration_ms"].is_u64(), "{s}");
            format!("{} {} {}", word(&s["step"]), word(&s["outcome"]), word(&s["code"]))
        })
        .collect()
}

fn all_ok(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| format!("{name} ok -")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_that_works_passes_every_step_and_nothing_is_saved() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    mail::fill(&app, &user, "INBOX", vec![mail::message("One", "1@example.test", "x")]);
    let account = app.post(&tenant, "/api/accounts", &mail::settings(&app, &user)).await.expect(201);
    let account = account["id"].as_str().unwrap();
    let mut conn = app.database.superuser().await;
    let rows = "SELECT (SELECT count(*) FROM events) + (SELECT count(*) FROM audit_log) + (SELECT count(*) FROM jobs)
                     + (SELECT count(*) FROM mailboxes) + (SELECT sum(version) FROM accounts)::bigint";
    let before: i64 = sqlx::query_scalar(rows).fetch_one(&mut conn).await.unwrap();
    let told = diagnose(&app, &tenant, account).await.expect(200);
    assert_eq!(
        (&told["account_id"], &told["imap"]["ok"], &told["smtp"]["ok"]),
        (&json!(account), &json!(true), &json!(true))
    );
    assert_eq!(
        steps(&told["imap"]),
        all_ok(&["dns", "tcp", "tls", "greeting", "login", "capabilities", "select"])
    );
    assert_eq!(steps(&told["smtp"]), all_ok(&["dns", "tcp", "tls", "greeting", "ehlo", "login"]));
    let detail = |way: &str, at: usize| told[way]["steps"][at]["detail"].clone();
    // The address is of this host's own network: that it is one is not told, allowed or not.
    assert_eq!(detail("imap", 0), json!({}));
    let certificate = &detail("imap", 2)["certificate"];
    assert_eq!(certificate["names"], json!(["localhost", "127.0.0.1"]));
    assert!(certificate["issuer"].as_str().unwrap().contains("devstack private CA"), "{certificate}");
    assert!(certificate["not_after"].as_str() > certificate["not_before"].as_str(), "{certificate}");
    assert!(detail("imap", 3)["server"].as_str().unwrap().contains("Dovecot"));
    let can = detail("imap", 5)["capabilities"].clone();
    assert!(can.as_array().unwrap().contains(&json!("QRESYNC")), "{can}");
    assert_eq!(detail("imap", 6)["messages"], 1);
    let can = detail("smtp", 4)["capabilities"].to_string();
    assert!(can.contains("AUTH") && can.contains("8BITMIME"), "{can}");
    let after: i64 = sqlx::query_scalar(rows).fetch_one(&mut conn).await.unwrap();
    assert_eq!(before, after, "something was saved");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn starttls_is_a_step_of_its_own_and_a_refused_password_ends_the_walk() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let account = connect(&app, &tenant, |settings| {
        for (protocol, port) in [("imap", app.stack.imap_port), ("smtp", app.stack.submission_port)] {
            settings[protocol]["port"] = json!(port);
            settings[protocol]["security"] = json!("starttls");
            settings[protocol]["password"] = json!("not-the-password");
        }
    })
    .await;
    let told = diagnose(&app, &tenant, &account).await.expect(200);
    let mut imap = all_ok(&["dns", "tcp", "greeting", "starttls", "tls"]);
    imap.push("login failed upstream-auth-failed".into());
    imap.extend(["capabilities", "select"].map(|name| format!("{name} skipped not-reached")));
    assert_eq!(steps(&told["imap"]), imap);
    let login = &told["imap"]["steps"][5]["detail"];
    assert_eq!(login["response_code"], "AUTHENTICATIONFAILED");
    assert!(login["server"].as_str().unwrap().contains("Authentication failed"), "{login}");
    let mut smtp = all_ok(&["dns", "tcp", "greeting", "starttls", "tls", "ehlo"]);
    smtp.push("login failed upstream-auth-failed".into());
    assert_eq!(steps(&told["smtp"]), smtp);
    assert_eq!(told["smtp"]["steps"][6]["detail"]["response_code"], "535");
    assert!(!told.to_string().contains("not-the-password"));
    assert_eq!((&told["imap"]["ok"], &told["smtp"]["ok"]), (&json!(false), &json!(false)));
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_is_not_trusted_is_shown() {
    let app = App::start_with(&[("TLS_EXTRA_CA_FILE", "")]).await;
    let tenant = app.tenant().await;
    let account = connect(&app, &tenant, |_| {}).await;
    let told = diagnose(&app, &tenant, &account).await.expect(200);
    for way in ["imap", "smtp"] {
        let found = steps(&told[way]);
        assert_eq!(
            found[..4],
            ["dns ok -", "tcp ok -", "tls failed tls-certificate", "greeting skipped not-reached"]
        );
        let certificate = &told[way]["steps"][2]["detail"]["certificate"];
        assert_eq!(certificate["names"], json!(["localhost", "127.0.0.1"]), "{told}");
        assert!(certificate["not_after"].is_string());
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_may_not_be_dialled_is_refused_without_a_word_about_it() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let account = connect(&app, &tenant, |_| {}).await;
    let mut conn = app.database.superuser().await;
    // As if the name had become one of the inside after it was saved.
    sqlx::query("UPDATE accounts SET imap_host = '192.168.1.1', imap_port = 993")
        .execute(&mut conn)
        .await
        .unwrap();
    let told = diagnose(&app, &tenant, &account).await.expect(200);
    let found = steps(&told["imap"]);
    assert_eq!(found[0], "dns failed host-not-allowed");
    assert!(found[1..].iter().all(|s| s.ends_with("skipped not-reached")), "{found:?}");
    assert_eq!(told["imap"]["steps"][0]["detail"], json!({}));
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_server_costs_one_step_and_a_rude_one_is_quoted() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let silent = scripted::serve(|stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let rude = scripted::serve(|mut stream| async move {
        let _ = stream.write_all(b"554 5.7.1 we do not talk to you\r\n").await;
    })
    .await;
    let account = connect(&app, &tenant, |settings| {
        for (protocol, port) in [("imap", silent.port), ("smtp", rude.port)] {
            settings[protocol]["port"] = json!(port);
            settings[protocol]["security"] = json!("none");
        }
    })
    .await;
    let told = diagnose(&app, &tenant, &account).await.expect(200);
    assert_eq!(steps(&told["imap"])[..3], ["dns ok -", "tcp ok -", "greeting failed upstream-timeout"]);
    let waited = told["imap"]["steps"][2]["duration_ms"].as_u64().unwrap();
    assert!((9_000..22_000).contains(&waited), "{waited} ms");
    assert_eq!(steps(&told["smtp"])[..3], ["dns ok -", "tcp ok -", "greeting failed upstream-refused"]);
    let detail = &told["smtp"]["steps"][2]["detail"];
    assert_eq!(detail["response_code"], "554");
    assert!(detail["server"].as_str().unwrap().contains("we do not talk to you"), "{detail}");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_is_diagnosed_a_few_times_a_minute_and_others_are_not_held_up() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let rude = scripted::serve(|mut stream| async move {
        let _ = stream.write_all(b"* BYE no\r\n").await;
    })
    .await;
    let change = |settings: &mut Value| {
        for protocol in ["imap", "smtp"] {
            settings[protocol]["port"] = json!(rude.port);
            settings[protocol]["security"] = json!("none");
        }
    };
    let (one, other) = (connect(&app, &tenant, change).await, connect(&app, &tenant, change).await);
    for _ in 0..4 {
        diagnose(&app, &tenant, &one).await.expect(200);
    }
    let refused = diagnose(&app, &tenant, &one).await;
    refused.refused(429, "rate-limited");
    assert!(refused.header("retry-after").parse::<u64>().unwrap() <= 15);
    diagnose(&app, &tenant, &other).await.expect(200);
    app.finish().await;
}

/// An extension that the rounds do without, because the server answered it with BAD, is listed and not relied on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_switched_off_for_the_rounds_is_off_in_a_diagnosis_too() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let server = Imapd::start("IMAP4rev1 CONDSTORE").await;
    let account = connect(&app, &tenant, |settings| {
        settings["imap"]["host"] = json!("127.0.0.1");
        settings["imap"]["port"] = json!(server.port);
        settings["imap"]["security"] = json!("none");
    })
    .await;
    let asked = || server.lock().heard.iter().filter(|c| c.contains("CONDSTORE")).count();
    assert_eq!(diagnose(&app, &tenant, &account).await.expect(200)["imap"]["ok"], true);
    assert_eq!(asked(), 1);
    sqlx::query(
        "INSERT INTO capabilities_off (tenant_id, host, port, capability, words, until)
         SELECT tenant_id, imap_host, imap_port, 'CONDSTORE', 'BAD', now() + interval '1 day' FROM accounts",
    )
    .execute(&mut app.database.superuser().await)
    .await
    .unwrap();
    let told = diagnose(&app, &tenant, &account).await.expect(200);
    assert_eq!((&told["imap"]["ok"], asked()), (&json!(true), 1), "{told}");
    let listed =
        told["imap"]["steps"].as_array().unwrap().iter().find(|s| s["step"] == "capabilities").unwrap();
    assert!(listed["detail"]["capabilities"].to_string().contains("CONDSTORE"), "{listed}");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_fault_has_one_word_at_every_door() {
    let mut app = App::start_with(&[("TLS_EXTRA_CA_FILE", "")]).await;
    app.add_worker();
    app.add_scheduler();
    let tenant = app.tenant().await;
    let settings = mail::settings(&app, &mail::new_mailbox(&app));
    let word = "tls-certificate";
    let tried = app.post(&tenant, "/api/accounts/verify", &settings).await.expect(200);
    assert_eq!((&tried["imap"]["code"], &tried["smtp"]["code"]), (&json!(word), &json!(word)), "{tried}");
    let refused = app.post(&tenant, "/api/accounts", &settings).await.refused(422, "upstream-unreachable");
    assert_eq!(refused["errors"][0]["code"], word);
    let account = connect(&app, &tenant, |_| {}).await;
    let told = diagnose(&app, &tenant, &account).await.expect(200);
    for way in ["imap", "smtp"] {
        assert_eq!(steps(&told[way])[2], format!("tls failed {word}"));
    }
    let status = eventually("the round has told", std::time::Duration::from_secs(60), async || {
        let status = app.get(&tenant, &format!("/api/sync/status/{account}")).await.expect(200);
        (status["state"] == "unreachable").then_some(status)
    })
    .await;
    assert_eq!(status["cause"]["code"], word, "{status}");
    app.finish().await;
}
