//! Mail servers and mail that would break a careless client: the process lives, other tenants are served, nothing is lost.

use std::time::Duration;

use serde_json::json;
use tests::app::{App, Tenant};
use tests::eventually::eventually;
use tests::{mail, scripted};

fn odd_account(port: u16, security: &str) -> serde_json::Value {
    // A user of its own: tries are counted for each host and user name.
    let user = format!("odd{port}@lab.test");
    json!({
        "email": user,
        "imap": {"host": "127.0.0.1", "port": port, "security": security, "username": user, "password": "p"},
        "smtp": {"host": "127.0.0.1", "port": port, "security": security, "username": user, "password": "p"},
    })
}

/// Creates an account on an odd IMAP server, unverified, and waits until the worker has given its verdict on it.
async fn state_of_odd_account(app: &App, tenant: &Tenant, port: u16) -> serde_json::Value {
    let body = odd_account(port, "none");
    let account = app.post(tenant, "/api/accounts?verify=false", &body).await.expect(201);
    verdict(app, tenant, account["id"].as_str().unwrap()).await
}

/// The worker's word on an account that cannot work.
async fn verdict(app: &App, tenant: &Tenant, account: &str) -> serde_json::Value {
    let path = format!("/api/sync/status/{account}");
    eventually("the worker has met the odd server", Duration::from_secs(30), async || {
        let status = app.get(tenant, &path).await.expect(200);
        (!status["cause"].is_null()).then_some(status)
    })
    .await
}

/// Another tenant's account still synchronises.
async fn others_are_served(app: &App) {
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(app);
    mail::fill(app, &user, "INBOX", vec![mail::message("Still here", "s@example.test", "x")]);
    let account = mail::connect(app, &tenant, &user).await;
    let status = mail::synchronise(app, &tenant, &account).await;
    assert_eq!(status["progress"]["messages_synced"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_hundred_open_parentheses_endless_lines_and_gibberish_end_in_a_cause() {
    // The gibberish never ends a line: only the deadline ends the wait for one.
    let mut app = App::start_with(&[("IMAP_COMMAND_TIMEOUT_SECONDS", "5")]).await;
    app.add_worker();
    app.add_scheduler();
    let tenant = app.tenant().await;
    let parentheses = scripted::imap(|tag, command| match command.split(' ').next().unwrap_or_default() {
        "LIST" => [
            format!("* LIST {} \"/\" INBOX\r\n", "(".repeat(400)).as_bytes(),
            format!("{tag} OK done\r\n").as_bytes(),
        ]
        .concat(),
        "CAPABILITY" => format!("* CAPABILITY IMAP4rev1\r\n{tag} OK done\r\n").into_bytes(),
        _ => format!("{tag} OK done\r\n").into_bytes(),
    })
    .await;
    let gibberish = scripted::imap(|_, _| vec![0xff; 4096]).await;
    let endless = scripted::serve(|mut stream| async move {
        use tokio::io::AsyncWriteExt as _;
        while stream.write_all(&[b'a'; 65536]).await.is_ok() {}
    })
    .await;
    for port in [parentheses.port, gibberish.port, endless.port] {
        let status = state_of_odd_account(&app, &tenant, port).await;
        assert!(status["cause"]["code"].is_string() && status["cause"]["text"].is_string(), "{status}");
        assert_ne!(status["state"], "connected");
    }
    others_are_served(&app).await;
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forty_thousand_nested_messages_are_stored_raw_and_the_mailbox_goes_on() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    let mut nested = b"Subject: Nested\r\nMessage-ID: <nested@example.test>\r\n".to_vec();
    for _ in 0..40_000 {
        nested.extend_from_slice(b"Content-Type: message/rfc822\r\n\r\n");
    }
    nested.extend_from_slice(b"end\r\n");
    let divs = format!(
        "From: a@example.test\r\nSubject: Divs\r\nMessage-ID: <divs@example.test>\r\nMIME-Version: 1.0\r\nContent-Type: text/html\r\n\r\n{}deep{}\r\n",
        "<div>".repeat(20_000),
        "</div>".repeat(20_000)
    );
    let after = mail::message("After", "after@example.test", "still read");
    mail::fill(&app, &user, "INBOX", vec![nested.clone(), divs.into_bytes(), after]);
    let account = mail::connect(&app, &tenant, &user).await;
    mail::synchronise(&app, &tenant, &account).await;
    let page = app.get(&tenant, &format!("/api/accounts/{account}/messages?role=inbox")).await.expect(200);
    let find = |subject: &str| {
        let all = page["data"].as_array().unwrap();
        all.iter().find(|m| m["subject"] == subject).unwrap_or_else(|| panic!("{subject} is missing: {page}"))
            ["id"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let alone = app.get(&tenant, &format!("/api/messages/{}", find("Nested"))).await.expect(200);
    assert_eq!(alone["degraded"], true);
    let raw = app.get(&tenant, &format!("/api/messages/{}/raw", find("Nested"))).await;
    assert_eq!(raw.bytes, nested, "nothing is lost");
    let start = std::time::Instant::now();
    let html = app.get(&tenant, &format!("/api/messages/{}/html", find("Divs"))).await;
    assert_eq!(html.status, 200);
    assert!(html.text().contains("deep"));
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    app.get(&tenant, &format!("/api/messages/{}", find("After"))).await.expect(200);
    app.finish().await;
}

/// A greeting, then one answer to every command; `{tag}` stands for the command's tag.
async fn parrot(greeting: &'static str, answer: String) -> scripted::Scripted {
    scripted::serve(move |stream| {
        let answer = answer.clone();
        async move {
            use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _};
            let (read, mut write) = stream.into_split();
            let mut lines = tokio::io::BufReader::new(read).lines();
            let mut said = write.write_all(greeting.as_bytes()).await;
            while let (Ok(()), Ok(Some(line))) = (&said, lines.next_line().await) {
                let tag = line.split(' ').next().unwrap_or_default();
                said = write.write_all(answer.replace("{tag}", tag).as_bytes()).await;
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_lie_or_say_nothing_get_a_cause() {
    let mut app = App::start_with(&[("IMAP_COMMAND_TIMEOUT_SECONDS", "3")]).await;
    app.add_worker();
    app.add_scheduler();
    let tenant = app.tenant().await;
    let ok = "{tag} OK done\r\n";
    let long = format!("* LIST () \"/\" \"{}\"\r\n{ok}", "x".repeat(70 << 10));
    let mut accounts = Vec::new();
    let mut servers = Vec::new();
    for (what, security, greeting, answer) in [
        ("silence", "none", "", ""),
        ("silence after the greeting", "none", "* OK hi\r\n", ""),
        ("a literal that never comes", "none", "* OK hi\r\n", "* LIST () \"/\" {100}\r\nabc"),
        ("a literal beyond the cap", "none", "* OK hi\r\n", "* LIST () \"/\" {99999999999}\r\n"),
        ("a long line", "none", "* OK hi\r\n", long.as_str()),
        ("another tag", "none", "* OK hi\r\n", "Z9 OK done\r\n"),
        ("bye", "none", "* BYE go away\r\n", ok),
        ("smtp", "none", "220 mail ESMTP\r\n", "250 ok\r\n"),
        ("no starttls", "starttls", "* OK hi\r\n", "{tag} BAD no\r\n"),
        ("preauth", "starttls", "* PREAUTH hi\r\n", ok),
        ("words before tls", "starttls", "* OK hi\r\n", "{tag} OK go\r\n* CAPABILITY IMAP4rev1\r\n"),
        ("no tls after starttls", "starttls", "* OK hi\r\n", "{tag} OK go\r\n"),
    ] {
        let server = parrot(greeting, answer.to_owned()).await;
        let body = odd_account(server.port, security);
        let account = app.post(&tenant, "/api/accounts?verify=false", &body).await.expect(201);
        accounts.push((what, account["id"].as_str().unwrap().to_owned()));
        servers.push(server);
    }
    for (what, account) in accounts {
        let status = verdict(&app, &tenant, &account).await;
        assert!(
            status["cause"]["code"].is_string() && status["cause"]["text"].is_string(),
            "{what}: {status}"
        );
        assert_ne!(status["state"], "connected", "{what}");
    }
    others_are_served(&app).await;
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_tries_an_odd_server_is_told_in_plain_words_and_in_time() {
    let app =
        App::start_with(&[("IMAP_COMMAND_TIMEOUT_SECONDS", "2"), ("SMTP_COMMAND_TIMEOUT_SECONDS", "2")])
            .await;
    let tenant = app.tenant().await;
    for (what, greeting, answer, smtp_code) in [
        (
            "colours",
            "220 \u{1b}[31mred\u{1b}[0m\r\n",
            "535 5.7.8 \u{1b}[31mno\0\u{9b}0m\r\n",
            "upstream-refused",
        ),
        ("a reply without end", "220-go on\r\n", "", "upstream-timeout"),
        ("endless lines", "220 hi\r\n", "250-more\r\n", "upstream-timeout"),
        ("a refusal", "554 5.3.2 \u{7}closed\u{8}\r\n", "", "upstream-refused"),
        ("plain imap", "* OK \u{1b}]0;x\u{7}\r\n", "{tag} NO \u{1b}[2Jx\r\n", "upstream-protocol"),
    ] {
        let server = parrot(greeting, answer.to_owned()).await;
        let start = std::time::Instant::now();
        let told = app.post(&tenant, "/api/accounts/verify", &odd_account(server.port, "none")).await;
        assert!(start.elapsed() < Duration::from_secs(20), "{what}: {:?}", start.elapsed());
        let body = told.expect(200);
        assert_eq!(body["smtp"]["code"], smtp_code, "{what}: {body}");
        for protocol in ["imap", "smtp"] {
            assert_eq!(body[protocol]["ok"], false, "{what}: {body}");
            let upstream = &body[protocol]["upstream"];
            assert_eq!(upstream["protocol"], protocol, "{what}: {body}");
            // The server's words, or none: ours are beside it.
            let said = upstream.get("text").map(|text| text.as_str().unwrap());
            let refused =
                body[protocol]["code"] == "upstream-auth-failed" || what == "a refusal" && protocol == "smtp";
            assert!(!refused || said.is_some(), "{what}: {body}");
            for text in [body[protocol]["text"].as_str().unwrap()].into_iter().chain(said) {
                assert!(!text.is_empty() && !text.chars().any(char::is_control), "{what}: {text:?}");
            }
        }
    }
    app.finish().await;
}
