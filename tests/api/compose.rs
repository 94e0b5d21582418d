//! Replies, forwards, files and blind copies, sent through the real servers and looked at in the mailbox they reach.

use std::time::Duration;

use serde_json::{Value, json};
use tests::app::{App, Tenant, send};
use tests::eventually::eventually;
use tests::mail;

const PATIENCE: Duration = Duration::from_secs(40);

/// Three connected mailboxes of one tenant.
struct People {
    tenant: Tenant,
    alice: Person,
    bob: Person,
    carol: Person,
}

struct Person {
    address: String,
    account: String,
}

async fn person(app: &App, tenant: &Tenant, address: String) -> Person {
    let account = mail::connect(app, tenant, &address).await;
    mail::synchronise(app, tenant, &account).await;
    Person { address, account }
}

/// `inbox` is what lies in Alice's INBOX, given all three addresses.
async fn people(app: &App, inbox: impl Fn(&str, &str, &str) -> Vec<Vec<u8>>) -> People {
    let tenant = app.tenant().await;
    let [alice, bob, carol] = [(); 3].map(|()| mail::new_mailbox(app));
    mail::fill(app, &alice, "INBOX", inbox(&alice, &bob, &carol));
    People {
        alice: person(app, &tenant, alice).await,
        bob: person(app, &tenant, bob).await,
        carol: person(app, &tenant, carol).await,
        tenant,
    }
}

impl People {
    /// The id of the message with this subject in a mailbox of a role.
    async fn find(&self, app: &App, whose: &Person, role: &str, field: &str, value: &str) -> Value {
        let path = format!("/api/accounts/{}/messages?role={role}", whose.account);
        let found = eventually("the message is listed", PATIENCE, async || {
            let page = app.get(&self.tenant, &path).await.expect(200);
            page["data"].as_array().unwrap().iter().find(|m| m[field] == value).cloned()
        })
        .await;
        app.get(&self.tenant, &format!("/api/messages/{}", found["id"].as_str().unwrap())).await.expect(200)
    }

    async fn original(&self, app: &App, subject: &str) -> String {
        let message = self.find(app, &self.alice, "inbox", "subject", subject).await;
        message["id"].as_str().unwrap().to_owned()
    }

    /// Makes a draft of Alice's from these fields.
    async fn draft(&self, app: &App, mut fields: Value) -> Value {
        fields["account_id"] = json!(self.alice.account);
        app.post(&self.tenant, "/api/compose", &fields).await.expect(201)
    }

    /// Sends the draft and returns the submission once its copy is filed.
    async fn send(&self, app: &App, draft: &Value) -> Value {
        let path = format!("/api/compose/{}/send", draft["id"].as_str().unwrap());
        let submission = app.post(&self.tenant, &path, &json!({})).await.expect(202);
        let path = format!("/api/submissions/{}", submission["id"].as_str().unwrap());
        eventually("the message was sent and its copy filed", PATIENCE, async || {
            let now = app.get(&self.tenant, &path).await.expect(200);
            assert_ne!(now["state"], "failed", "{now}");
            (now["state"] == "sent" && now["sent_copy"] == "done").then_some(now)
        })
        .await
    }

    /// The message as it reached somebody's INBOX.
    async fn arrived(&self, app: &App, whose: &Person, submission: &Value) -> Value {
        let id = submission["message_id_header"].as_str().unwrap();
        self.find(app, whose, "inbox", "message_id_header", id).await
    }

    async fn raw(&self, app: &App, message: &Value) -> Vec<u8> {
        let raw =
            app.get(&self.tenant, &format!("/api/messages/{}/raw", message["id"].as_str().unwrap())).await;
        assert_eq!(raw.status, 200);
        raw.bytes
    }

    async fn file(&self, app: &App, message: &Value, name: &str) -> Vec<u8> {
        let all = message["attachments"].as_array().unwrap();
        let meta = all.iter().find(|a| a["filename"] == name).unwrap_or_else(|| panic!("no {name}: {all:?}"));
        let path = format!("/api/messages/{}/attachments/{}", message["id"].as_str().unwrap(), meta["index"]);
        let file = app.get(&self.tenant, &path).await;
        assert_eq!(file.status, 200, "{}", file.text());
        assert_eq!(meta["size_bytes"], file.bytes.len());
        file.bytes
    }
}

impl People {
    /// Waits until a message has the mark of what was done with it.
    async fn marked(&self, app: &App, id: &str, has: impl Fn(&Value) -> bool) {
        let path = format!("/api/messages/{id}?body=none");
        eventually("the original is marked", PATIENCE, async || {
            let message = app.get(&self.tenant, &path).await.expect(200);
            has(&message).then_some(())
        })
        .await;
    }
}

fn addresses(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|a| a["address"].as_str().unwrap()).collect()
}

/// A message from Bob to Alice and Carol, second in its thread.
fn from_bob(subject: &str, id: &str, alice: &str, bob: &str, carol: &str) -> Vec<u8> {
    let head = format!(
        "From: Bob <{bob}>\r\nTo: Alice <{alice}>\r\nCc: Carol <{carol}>\r\nReferences: <root@example.test>\r\nSubject: {subject}\r\n"
    );
    let rest = "Date: Sat, 21 Nov 2026 10:00:00 +0000\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nShall we meet at noon?\r\n";
    format!("{head}Message-ID: <{id}>\r\n{rest}").into_bytes()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_reaches_the_author_in_his_thread_with_the_quote() {
    let app = App::start_all().await;
    let all = people(&app, |a, b, c| vec![from_bob("Plan", "plan@example.test", a, b, c)]).await;
    let original = all.original(&app, "Plan").await;
    let draft = all.draft(&app, json!({"reply_to_message_id": original, "text": "Yes!"})).await;
    assert_eq!((addresses(&draft["to"]), addresses(&draft["cc"])), (vec![all.bob.address.as_str()], vec![]));
    let submission = all.send(&app, &draft).await;
    let arrived = all.arrived(&app, &all.bob, &submission).await;
    assert_eq!(arrived["subject"], "Re: Plan");
    assert_eq!(arrived["in_reply_to"], json!(["plan@example.test"]));
    assert_eq!(arrived["references"], json!(["root@example.test", "plan@example.test"]));
    let text = arrived["text"].as_str().unwrap();
    assert!(text.starts_with("Yes!") && text.contains("> Shall we meet at noon?"), "{text}");
    assert_eq!(addresses(&arrived["from"]), [all.alice.address.as_str()]);
    all.marked(&app, &original, |m| m["answered"] == true).await;
    // Carol was not asked.
    let path = format!("/api/accounts/{}/messages?role=inbox", all.carol.account);
    mail::synchronise(&app, &all.tenant, &all.carol.account).await;
    assert_eq!(app.get(&all.tenant, &path).await.expect(200)["data"], json!([]));
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_to_all_leaves_oneself_out_and_says_re_once() {
    let app = App::start_all().await;
    let all = people(&app, |a, b, c| vec![from_bob("Re: Plan", "two@example.test", a, b, c)]).await;
    let original = all.original(&app, "Re: Plan").await;
    let draft = all.draft(&app, json!({"reply_all_to_message_id": original, "text": "All right."})).await;
    let submission = all.send(&app, &draft).await;
    for reader in [&all.bob, &all.carol] {
        let arrived = all.arrived(&app, reader, &submission).await;
        assert_eq!(arrived["subject"], "Re: Plan");
        assert_eq!(addresses(&arrived["to"]), [all.bob.address.as_str()]);
        assert_eq!(addresses(&arrived["cc"]), [all.carol.address.as_str()]);
        assert_eq!(arrived["in_reply_to"], json!(["two@example.test"]));
    }
    mail::synchronise(&app, &all.tenant, &all.alice.account).await;
    let path = format!("/api/accounts/{}/messages?role=inbox", all.alice.account);
    let own = app.get(&all.tenant, &path).await.expect(200);
    assert_eq!(own["data"].as_array().unwrap().len(), 1, "nothing was sent to oneself: {own}");
    app.finish().await;
}

fn bytes_of_every_value(length: usize) -> Vec<u8> {
    // Steps through all values with line ends and dots at every phase of the encoding.
    (0..length).map(|n| ((n * 7 + n / 256) % 256) as u8).chain(*b"\r\n.\r\n\n..\r").collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forward_passes_the_files_on_byte_by_byte() {
    use base64::Engine as _;
    let app = App::start_all().await;
    let content = bytes_of_every_value(5000);
    let encoded = base64::engine::general_purpose::STANDARD.encode(&content);
    let lines: Vec<&str> = encoded.as_bytes().chunks(76).map(|c| std::str::from_utf8(c).unwrap()).collect();
    let original = format!(
        "From: sender@example.test\r\nTo: x@lab.test\r\nSubject: Menu\r\nMessage-ID: <menu@example.test>\r\n\
         Date: Sat, 21 Nov 2026 10:00:00 +0000\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n\
         --b\r\nContent-Type: text/plain\r\n\r\nhungry?\r\n--b\r\nContent-Type: application/pdf\r\n\
         Content-Disposition: attachment; filename=\"menu.pdf\"\r\nContent-Transfer-Encoding: base64\r\n\r\n{}\r\n--b--\r\n",
        lines.join("\r\n")
    );
    let all = people(&app, |_, _, _| vec![original.clone().into_bytes()]).await;
    let id = all.original(&app, "Menu").await;
    let fields = json!({"forward_message_id": id, "to": [all.bob.address], "text": "See below."});
    let draft = all.draft(&app, fields).await;
    assert_eq!(draft["attachments"][0]["filename"], "menu.pdf");
    let submission = all.send(&app, &draft).await;
    let arrived = all.arrived(&app, &all.bob, &submission).await;
    assert_eq!(arrived["subject"], "Fwd: Menu");
    assert_eq!(arrived["in_reply_to"], json!([]));
    let text = arrived["text"].as_str().unwrap();
    assert!(text.starts_with("See below.") && text.contains("hungry?"), "{text}");
    assert!(text.contains("sender@example.test") && text.contains("Menu"), "{text}");
    assert_eq!(all.file(&app, &arrived, "menu.pdf").await, content);
    assert_eq!(arrived["attachments"].as_array().unwrap().len(), 1);
    let forwarded = |m: &Value| m["keywords"].as_array().is_some_and(|k| k.contains(&json!("$Forwarded")));
    all.marked(&app, &id, forwarded).await;
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploaded_files_arrive_as_they_were_by_form_and_by_body() {
    let app = App::start_all().await;
    let all = people(&app, |_, _, _| Vec::new()).await;
    let draft = all.draft(&app, json!({"to": [all.bob.address], "subject": "Files", "text": "two"})).await;
    let path = format!("/api/compose/{}/attachments", draft["id"].as_str().unwrap());
    let (by_form, by_body) = (bytes_of_every_value(100_000), bytes_of_every_value(70_001));
    let form = [
        &b"--limit\r\nContent-Disposition: form-data; name=\"file\"; filename=\"form.bin\"\r\nContent-Type: application/zip\r\n\r\n"[..],
        &by_form,
        b"\r\n--limit--\r\n",
    ]
    .concat();
    let upload =
        app.request(&all.tenant, "POST", &path).header("content-type", "multipart/form-data; boundary=limit");
    let added = send(upload.body(form)).await.expect(201);
    assert_eq!((&added["filename"], &added["size_bytes"]), (&json!("form.bin"), &json!(by_form.len())));
    let upload = app.request(&all.tenant, "POST", &format!("{path}?filename=gr%C3%BC%C3%9Fe.png"));
    let added = send(upload.header("content-type", "image/png").body(by_body.clone())).await.expect(201);
    assert_eq!((&added["filename"], &added["content_type"]), (&json!("grüße.png"), &json!("image/png")));

    let submission = all.send(&app, &draft).await;
    let arrived = all.arrived(&app, &all.bob, &submission).await;
    assert_eq!(arrived["has_attachments"], true);
    // Compared by hand: a failure shall not print a hundred thousand numbers.
    assert!(all.file(&app, &arrived, "form.bin").await == by_form, "the form's file is another");
    assert!(all.file(&app, &arrived, "grüße.png").await == by_body, "the body's file is another");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blind_copies_arrive_unseen_and_the_sent_copy_is_what_was_delivered() {
    let app = App::start_all().await;
    let all = people(&app, |_, _, _| Vec::new()).await;
    let fields = json!({"to": [all.carol.address], "bcc": [all.bob.address], "subject": "Grüße an alle",
        "text": ".a dot\n\nFrom here\n..\n", "html": "<p>ü</p>"});
    let draft = all.draft(&app, fields).await;
    let submission = all.send(&app, &draft).await;
    let id = submission["message_id_header"].as_str().unwrap();
    let copy = all.find(&app, &all.alice, "sent", "message_id_header", id).await;
    let sent = all.raw(&app, &copy).await;
    let kept = String::from_utf8_lossy(&sent).into_owned();
    let text = kept
        .strip_prefix(&format!("Bcc: {}\r\n", all.bob.address))
        .unwrap_or_else(|| panic!("{kept}"))
        .to_owned();
    assert!(text.contains(&all.carol.address), "{text}");
    // Not the three letters, which ids of random digits may have too.
    let blind = text.lines().any(|line| line.to_ascii_lowercase().starts_with("bcc:"));
    assert!(!text.contains(&all.bob.address) && !blind, "{text}");
    for reader in [&all.bob, &all.carol] {
        let arrived = all.arrived(&app, reader, &submission).await;
        assert_eq!(arrived["bcc"], json!([]));
        let delivered = all.raw(&app, &arrived).await;
        // Servers on the way put their trace in front and change nothing else.
        let delivered = String::from_utf8_lossy(&delivered).into_owned();
        assert!(delivered.ends_with(&text), "sent:\n{text}\ndelivered:\n{delivered}");
        let trace = &delivered[..delivered.len() - text.len()];
        assert!(!trace.contains("\r\n\r\n") && trace.to_ascii_lowercase().contains("received:"), "{trace}");
    }
    let carols = all.arrived(&app, &all.carol, &submission).await;
    let carols = String::from_utf8_lossy(&all.raw(&app, &carols).await).into_owned();
    assert!(!carols.contains(&all.bob.address), "{carols}");
    app.finish().await;
}
