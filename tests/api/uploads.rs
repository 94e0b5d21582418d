//! Files on their way into a draft and out again: hostile names, hostile forms.

use std::time::Duration;

use percent_encoding::percent_encode_byte;
use serde_json::{Value, json};
use tests::app::{Answer, App, Tenant, send};
use tests::eventually::eventually;
use tests::mail;

/// One account and one draft that it sends to itself.
struct Draft {
    tenant: Tenant,
    account: String,
    id: String,
}

impl Draft {
    async fn new(app: &App) -> Self {
        let tenant = app.tenant().await;
        let user = mail::new_mailbox(app);
        let account = mail::connect(app, &tenant, &user).await;
        let body = json!({"account_id": account, "to": [user], "subject": "Names", "text": "x"});
        let draft = app.post(&tenant, "/api/compose", &body).await.expect(201);
        Self { tenant, account, id: draft["id"].as_str().unwrap().to_owned() }
    }

    async fn raw(&self, app: &App, name: &str) -> Answer {
        let path = format!("/api/compose/{}/attachments?filename={}", self.id, percent(name));
        let request = app.request(&self.tenant, "POST", &path);
        send(request.header("content-type", "application/octet-stream").body("content")).await
    }

    /// A form of these very bytes, with this content type.
    async fn form(&self, app: &App, content_type: &str, body: impl Into<Vec<u8>>) -> Answer {
        let path = format!("/api/compose/{}/attachments", self.id);
        let request = app.request(&self.tenant, "POST", &path).header("content-type", content_type);
        send(request.body(body.into())).await
    }

    async fn part(&self, app: &App, disposition: &[u8]) -> Answer {
        let body = [
            b"--b\r\nContent-Disposition: form-data; name=\"file\"; ",
            disposition,
            b"\r\n\r\ncontent\r\n--b--\r\n",
        ];
        self.form(app, "multipart/form-data; boundary=b", body.concat()).await
    }

    async fn names(&self, app: &App) -> Vec<String> {
        let draft = app.get(&self.tenant, &format!("/api/compose/{}", self.id)).await.expect(200);
        let all = draft["attachments"].as_array().unwrap();
        all.iter().map(|a| a["filename"].as_str().unwrap().to_owned()).collect()
    }

    /// Sends the draft and returns the message as it arrived.
    async fn delivered(&self, app: &App) -> Value {
        let path = format!("/api/compose/{}/send", self.id);
        let submission = app.post(&self.tenant, &path, &json!({})).await.expect(202);
        let header = submission["message_id_header"].as_str().unwrap().to_owned();
        let path = format!("/api/accounts/{}/messages?role=inbox", self.account);
        let found = eventually("the message has come back", Duration::from_secs(40), async || {
            let page = app.get(&self.tenant, &path).await.expect(200);
            page["data"]
                .as_array()
                .unwrap()
                .iter()
                .find(|m| m["message_id_header"] == header.as_str())
                .cloned()
        })
        .await;
        let path = format!("/api/messages/{}", found["id"].as_str().unwrap());
        app.get(&self.tenant, &path).await.expect(200)
    }
}

/// Every byte percent-encoded, for a query.
pub fn percent(text: &str) -> String {
    text.bytes().map(percent_encode_byte).collect()
}

/// What may not stand in a name that somebody saves a file under.
fn is_safe(name: &str) -> bool {
    let bad =
        |c: char| c.is_control() || "/\\<>:\"|?*\u{202e}\u{202d}\u{2066}\u{200f}\u{200b}\u{feff}".contains(c);
    !name.is_empty()
        && name.len() <= 255
        && !name.contains(bad)
        && !name.starts_with('.')
        && !name.ends_with(['.', ' '])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_of_files_are_safe_where_they_are_kept_sent_and_downloaded() {
    let app = App::start_all().await;
    let draft = Draft::new(&app).await;
    let long = format!("{}.pdf", "ü".repeat(300));
    let cut = format!("{}.pdf", "ü".repeat(125));
    let cases = [
        ("../../etc/passwd", "passwd"),
        ("..\\..\\Windows\\win.ini", "win.ini"),
        ("/", "attachment"),
        ("...", "attachment"),
        (".bashrc", "bashrc"),
        ("invoice\u{202e}fdp.exe", "invoicefdp.exe"),
        ("\u{2066}a\u{200f}\u{200b}\u{feff}.txt", "a.txt"),
        ("say \"hi\".txt", "say _hi_.txt"),
        ("a;b=c%22.txt", "a;b=c%22.txt"),
        ("NUL.txt", "_NUL.txt"),
        ("Änderung 100 %.pdf", "Änderung 100 %.pdf"),
        (long.as_str(), cut.as_str()),
    ];
    let mut kept = Vec::new();
    for (given, expected) in cases {
        let added = draft.raw(&app, given).await.expect(201);
        assert_eq!(added["filename"], expected, "{given}");
        kept.push(expected.to_owned());
    }
    for (given, expected) in [
        (&b"filename=\"../../etc/passwd\""[..], "passwd"),
        ("filename=\"invoice\u{202e}fdp.exe\"".as_bytes(), "invoicefdp.exe"),
        (b"filename=\"..\"", "attachment"),
        (b"filename=\"C:\\\\boot.ini\"", "boot.ini"),
    ] {
        let added = draft.part(&app, given).await.expect(201);
        assert_eq!(added["filename"], expected, "{}", String::from_utf8_lossy(given));
        kept.push(expected.to_owned());
    }
    // RFC 7578 §4.2 forbids `filename*`; whatever is made of it is safe.
    let extended = draft.part(&app, b"filename=\"a.txt\"; filename*=UTF-8''..%2F..%2Fevil%0D%0A.txt").await;
    if extended.status == 201 {
        kept.push(extended.json()["filename"].as_str().unwrap().to_owned());
    } else {
        assert_eq!(extended.status, 422, "{}", extended.text());
    }
    assert!(kept.iter().all(|name| is_safe(name)), "{kept:?}");
    assert_eq!(draft.names(&app).await, kept);

    let message = draft.delivered(&app).await;
    let listed: Vec<String> = message["attachments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| a["filename"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(listed, kept);
    let id = message["id"].as_str().unwrap();
    let raw = app.get(&draft.tenant, &format!("/api/messages/{id}/raw")).await.text();
    assert!(!raw.contains("..") && !raw.contains("etc/"), "{raw}");
    assert!(raw.contains("filename*=UTF-8''%C3%84nderung%20100%20%25.pdf"), "RFC 2231: {raw}");
    let mut lines = raw.lines().filter(|line| line.contains("filename"));
    assert!(lines.all(|line| line.len() <= 78), "a line is longer than RFC 5322 recommends: {raw}");
    for (index, name) in kept.iter().enumerate() {
        let file = app.get(&draft.tenant, &format!("/api/messages/{id}/attachments/{index}")).await;
        assert_eq!((file.status, file.text().as_str()), (200, "content"));
        let header = file.header("content-disposition");
        let value = header.strip_prefix("attachment; filename=\"").unwrap_or_else(|| panic!("{header:?}"));
        let (plain, rest) = value.split_once('"').unwrap();
        assert!(is_safe(plain) && plain.is_ascii(), "{header}");
        if plain == name {
            assert_eq!(rest, "", "{header}");
        } else {
            let coded = rest.strip_prefix("; filename*=UTF-8''").unwrap_or_else(|| panic!("{header}"));
            assert!(coded.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~%".contains(&b)), "{header}");
        }
        assert_eq!(file.header("x-content-type-options"), "nosniff");
        assert!(file.header("content-security-policy").contains("sandbox"), "{:?}", file.headers);
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_would_break_a_header_are_refused_and_nothing_is_kept() {
    let app = App::start().await;
    let draft = Draft::new(&app).await;
    for name in ["a\r\nBcc: x@y.test", "a\nb", "a\rb", " ", ""] {
        draft.raw(&app, name).await.refused(422, "invalid-header");
    }
    // A NUL in a query is no name at all.
    draft.raw(&app, "a\0b").await.refused(400, "invalid-parameter");
    let problem = draft.raw(&app, &"x".repeat(1025)).await.refused(422, "validation-error");
    assert_eq!(
        (&problem["errors"][0]["pointer"], &problem["errors"][0]["code"]),
        (&json!("/filename"), &json!("too-long"))
    );
    for disposition in [&b"filename=\"\""[..], b"filename=\"a\0b\"", b"filename=\"a\rb\""] {
        let answer = draft.part(&app, disposition).await;
        assert!([400, 422].contains(&answer.status), "{disposition:?}: {} {}", answer.status, answer.text());
        let code = answer.json()["code"].as_str().unwrap().to_owned();
        answer.refused(answer.status, &code);
    }
    assert!(draft.names(&app).await.is_empty());
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_form_that_cannot_be_read_is_400_and_one_without_files_422() {
    let app = App::start().await;
    let draft = Draft::new(&app).await;
    let whole = "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\n\r\ncontent\r\n--b--\r\n";
    let type_b = "multipart/form-data; boundary=b";
    let mut unreadable: Vec<(&str, Vec<u8>)> = vec![
        ("multipart/form-data", whole.into()),
        ("multipart/form-data; boundary=", whole.into()),
        ("multipart/form-data; boundary=other", whole.into()),
        (type_b, Vec::new()),
        (type_b, b"nonsense".to_vec()),
        (type_b, vec![0xff; 5000]),
        (type_b, b"--b\r\n\xff\xfe: \x00\r\n\r\nx\r\n--b--\r\n".to_vec()),
        (type_b, [b"--b\r\n".to_vec(), b"X: y\r\n".repeat(2000), b"\r\nx\r\n--b--\r\n".to_vec()].concat()),
    ];
    // Cut off at every place from the first header on.
    unreadable.extend((5..whole.len() - 4).step_by(3).map(|end| (type_b, whole.as_bytes()[..end].to_vec())));
    for (content_type, body) in unreadable {
        let answer = draft.form(&app, content_type, body.clone()).await;
        assert_eq!(
            answer.status,
            400,
            "{content_type} {:?}: {}",
            String::from_utf8_lossy(&body),
            answer.text()
        );
        answer.refused(400, "malformed-multipart");
    }
    for (body, pointer) in [
        ("--b--\r\n", "/file"),
        ("--b\r\nContent-Disposition: form-data; name=\"a/b~c\"\r\n\r\n1\r\n--b--\r\n", "/a~1b~0c"),
        ("--b\r\nContent-Type: text/plain\r\n\r\n1\r\n--b--\r\n", "/"),
        (
            "--b\r\nContent-Disposition: form-data; name=\"other\"; filename=\"a.txt\"\r\n\r\n1\r\n--b--\r\n",
            "/other",
        ),
    ] {
        let problem = draft.form(&app, type_b, body).await.refused(422, "validation-error");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    }
    assert!(draft.names(&app).await.is_empty());
    // Unreadable comes before the draft's existence, meaning after it.
    let nobody =
        Draft { id: uuid::Uuid::nil().to_string(), tenant: draft.tenant.clone(), account: String::new() };
    nobody.form(&app, type_b, "nonsense").await.refused(400, "malformed-multipart");
    nobody.form(&app, type_b, "--b--\r\n").await.refused(404, "not-found");
    // A large body is not read for that.
    nobody.form(&app, type_b, "nonsense".repeat(10_000)).await.refused(404, "not-found");
    draft.form(&app, type_b, whole).await.expect(201);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_uploaded_file_is_readable_where_its_location_says() {
    let app = App::start().await;
    let draft = Draft::new(&app).await;
    let made = draft.raw(&app, "ü \"x\".txt").await;
    made.expect(201);
    let at = made.header("location");
    let file = app.get(&draft.tenant, &at).await;
    assert_eq!((file.status, file.text().as_str()), (200, "content"), "{}", file.text());
    assert_eq!(file.header("content-type"), "application/octet-stream");
    assert!(file.header("content-disposition").starts_with("attachment; filename"), "{:?}", file.headers);
    assert!(file.header("content-security-policy").contains("sandbox"), "{:?}", file.headers);
    assert_eq!(file.header("cache-control"), "private, immutable");
    let asked = |name: &str, value: &str| app.request(&draft.tenant, "GET", &at).header(name, value);
    let part = send(asked("Range", "bytes=3-4")).await;
    assert_eq!((part.status, part.text().as_str()), (206, "te"));
    assert_eq!(send(asked("If-None-Match", &file.header("etag"))).await.status, 304);
    let head = send(app.request(&draft.tenant, "HEAD", &at)).await;
    assert_eq!((head.status, head.header("content-length").as_str()), (200, "7"));
    // By its form, among several, and for nobody else.
    let form = "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.html\"\r\nContent-Type: text/html\r\n\r\n<p>\r\n--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"b\"\r\n\r\n2\r\n--b--\r\n";
    let several = draft.form(&app, "multipart/form-data; boundary=b", form).await.expect(201);
    for (file, content) in several["data"].as_array().unwrap().iter().zip(["<p>", "2"]) {
        let path = format!("/api/compose/{}/attachments/{}", draft.id, file["id"].as_str().unwrap());
        assert_eq!(app.get(&draft.tenant, &path).await.text(), content);
    }
    let stranger = app.tenant().await;
    app.get(&stranger, &at).await.refused(404, "not-found");
    let other = Draft::new(&app).await;
    let elsewhere = at.replace(&draft.id, &other.id);
    app.get(&other.tenant, &elsewhere).await.refused(404, "not-found");
    assert_eq!(app.delete(&draft.tenant, &at).await.status, 204);
    app.get(&draft.tenant, &at).await.refused(404, "not-found");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draft_that_waits_to_be_sent_is_not_thrown_away() {
    let app = App::start().await;
    let draft = Draft::new(&app).await;
    let path = format!("/api/compose/{}", draft.id);
    let order = json!({"undo_seconds": 100});
    let sent = app.post(&draft.tenant, &format!("{path}/send"), &order).await.expect(202);
    let delete = async || send(app.request(&draft.tenant, "DELETE", &path).header("If-Match", "*")).await;
    delete().await.refused(409, "already-sending");
    app.delete(&draft.tenant, &path).await.refused(428, "precondition-required");
    let cancel = format!("/api/submissions/{}/cancel", sent["id"].as_str().unwrap());
    app.post(&draft.tenant, &cancel, &json!({})).await.expect(200);
    assert_eq!(delete().await.status, 204);
    delete().await.refused(404, "not-found");
    app.finish().await;
}
