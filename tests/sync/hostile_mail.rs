//! Mail that is too much or makes no sense, all of it in one mailbox: delivered by LMTP, synchronised, read by the API.
//!
//! Whatever a message holds, it is stored and listed, its source is what the server has, byte by byte, and the mailbox
//! goes on. Beyond a cap it is marked as degraded. A new trap is one more [`Trap`] in `traps`.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

use serde_json::Value;
use tests::app::{App, Tenant};
use tests::mail;

/// 100,000 zeros deflated, with a header that claims four gigabytes.
const ZIP_BOMB: &str = "\
    UEsDBBQAAAAIANCEdV19lRHUcgAAAPD///8BAAAAMO3BMQEAAADCoPVPbQ0PoAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\
    AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAIBXA1BLAQIU\
    AxQAAAAIANCEdV19lRHUcgAAAPD///8BAAAAAAAAAAAAAACAAQAAAAAwUEsFBgAAAAABAAEALwAAAJEAAAAAAA==";

struct Trap {
    subject: &'static str,
    /// Fields after `Subject`, then an empty line, then the body.
    rest: Vec<u8>,
    degraded: bool,
}

fn trap(subject: &'static str, degraded: bool, rest: impl Into<Vec<u8>>) -> Trap {
    Trap { subject, rest: rest.into(), degraded }
}

impl Trap {
    fn bytes(&self) -> Vec<u8> {
        let head = format!(
            "Subject: {}\r\nFrom: a@example.test\r\nMessage-ID: <{}@hostile.test>\r\n",
            self.subject,
            self.subject.replace(' ', "-")
        );
        [head.as_bytes(), &self.rest, b"\r\n"].concat()
    }
}

fn html(charset: &str, body: &[u8]) -> Vec<u8> {
    [format!("MIME-Version: 1.0\r\nContent-Type: text/html; charset={charset}\r\n\r\n").as_bytes(), body]
        .concat()
}

fn mixed(boundary: &str, parts: &str) -> String {
    format!(
        "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"{boundary}\"\r\n\r\n{parts}--{boundary}--\r\n"
    )
}

/// The caps of one message, each passed by a little.
fn beyond_caps() -> Vec<Trap> {
    let wide = format!(" {}\r\n", "x".repeat(900));
    let field = |n: usize, lines: usize| format!("X-{n}: y\r\n{}", wide.repeat(lines));
    let addresses = format!("To: a@b.test{}\r\n\r\nx", ",\r\n a@b.test".repeat(10_240));
    let parameters: String = (0..101).map(|n| format!(";\r\n p{n}=v")).collect();
    let deep: String =
        (0..101).map(|n| format!("Content-Type: multipart/mixed; boundary=b{n}\r\n\r\n--b{n}\r\n")).collect();
    vec![
        trap("nested messages", true, "Content-Type: message/rfc822\r\n\r\n".repeat(40_000)),
        trap("nested multiparts", true, format!("MIME-Version: 1.0\r\n{deep}")),
        trap("many parts", true, mixed("b", &"--b\r\n\r\nx\r\n".repeat(10_001))),
        trap("large headers", true, format!("{}\r\nx", (0..120).map(|n| field(n, 108)).collect::<String>())),
        trap("a large header", true, format!("{}\r\nx", field(1, 120))),
        trap("many headers", true, format!("{}\r\nx", "X-A: b\r\n".repeat(1001))),
        trap("a long boundary", true, mixed(&"b".repeat(3000), "")),
        trap("many addresses", true, addresses),
        trap(
            "many parameters",
            true,
            format!("MIME-Version: 1.0\r\nContent-Type: text/plain{parameters}\r\n\r\nx"),
        ),
    ]
}

/// What is odd and still within every cap.
fn within_caps() -> Vec<Trap> {
    let divs = format!("{}deep{}", "<div>".repeat(18_000), "</div>".repeat(18_000));
    let part = |kind: &str, name: &str, data: &str| {
        format!(
            "--b\r\nContent-Type: {kind}; name={name}\r\nContent-Disposition: attachment; filename={name}\r\n\
                 Content-Transfer-Encoding: base64\r\n\r\n{data}\r\n"
        )
    };
    let archives = part("application/zip", "bomb.zip", ZIP_BOMB)
        + &part("application/ms-tnef", "winmail.dat", "eJ8+IgAA");
    vec![
        trap("nested blocks", false, html("utf-8", divs.as_bytes())),
        trap("archives", false, mixed("b", &archives)),
        trap("nuls", false, b"X-Nul: a\0b\r\nTo: \"n\0l\" <n@x.test>\r\n\r\nbefore\0after\0\0".to_vec()),
        trap("bare line ends", false, b"X-Bare: a\rb\r\n\r\none\rtwo\nthree\r\r\nfour\n\nfive".to_vec()),
        trap("invalid utf-8", false, b"To: \"\xff\xfe\xc3\" <n@x.test>\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n\xc3(\xa0\xff \xed\xa0\x80 end".to_vec()),
        trap("utf-7", false, html("utf-7", b"+ADw-script+AD4-alert(1)+ADw-/script+AD4- <p>seven</p>")),
        trap("iso-2022-jp", false, html("iso-2022-jp", b"<p>\x1b$B$3$s$K$A$O\x1b(B</p><i title='\x1b$B'><img src=https://evil.example/\x1b(B onerror=x>")),
        trap("iso-2022-kr", false, html("iso-2022-kr", b"\x1b$)C<p>\x0e\x30\x21\x0f</p>\x0e<script>\x0f<script>x</script>")),
        trap("hz", false, html("hz-gb-2312", b"<p>~{<:Ky2;~}</p>~<script>x</script>")),
        trap("utf-16 by name", false, html("utf-16le", b"<script>alert(1)</script>")),
        trap("an unknown charset", false, html("x-user-defined\"; x=\"<script>", b"<p>what</p>")),
        trap("a lying encoding", false, "Content-Transfer-Encoding: base64\r\n\r\n!!not base64!! \u{1b}[31m"),
        trap("controls", false, b"From: \"\x1b[31mred\x07\" <x@x.test>\r\n\r\n\x1b]0;title\x07\x08\x7f".to_vec()),
        trap("one line without end", false, format!("\r\n{}", "x".repeat(300_000))),
        trap("no body", false, ""),
        trap("ordinary", false, "\r\nstill read"),
    ]
}

/// Source of each message in INBOX by its subject, as the server gives it to a plain fetch.
fn on_server(app: &App, user: &str) -> HashMap<String, Vec<u8>> {
    let mut stream = TcpStream::connect(("127.0.0.1", app.stack.imap_port)).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap());
    let mut found = HashMap::new();
    write!(
        stream,
        "a LOGIN {user} {}\r\nb EXAMINE INBOX\r\nc FETCH 1:* BODY.PEEK[]\r\nd LOGOUT\r\n",
        mail::PASSWORD
    )
    .unwrap();
    loop {
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        assert!(!line.is_empty() && !line.contains(" NO ") && !line.contains(" BAD "), "{line}");
        if line.starts_with("d ") {
            return found;
        }
        if let Some(size) = line.trim_end().strip_suffix('}').and_then(|l| l.rsplit('{').next()?.parse().ok())
        {
            let mut bytes = vec![0; size];
            lines.read_exact(&mut bytes).unwrap();
            let head = String::from_utf8_lossy(&bytes[..bytes.len().min(4000)]).into_owned();
            let subject = head.lines().find_map(|l| l.strip_prefix("Subject: ")).unwrap().to_owned();
            found.insert(subject, bytes);
        }
    }
}

async fn listed(app: &App, tenant: &Tenant, account: &str) -> HashMap<String, Value> {
    let page =
        app.get(tenant, &format!("/api/accounts/{account}/messages?role=inbox&limit=200")).await.expect(200);
    assert!(page["next_cursor"].is_null());
    let rows = page["data"].as_array().unwrap().iter();
    rows.map(|m| (m["subject"].as_str().unwrap_or_default().to_owned(), m.clone())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mailbox_full_of_traps_is_stored_listed_and_given_back_byte_by_byte() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    let traps: Vec<Trap> = beyond_caps().into_iter().chain(within_caps()).collect();
    for trap in &traps {
        mail::deliver(&app, &user, &trap.bytes());
    }
    let sources = on_server(&app, &user);
    assert_eq!(sources.len(), traps.len());
    let account = mail::connect(&app, &tenant, &user).await;
    mail::synchronise(&app, &tenant, &account).await;
    let rows = listed(&app, &tenant, &account).await;
    for trap in &traps {
        let what = trap.subject;
        let row = rows.get(what).unwrap_or_else(|| panic!("{what} is not listed: {:?}", rows.keys()));
        let path = format!("/api/messages/{}", row["id"].as_str().unwrap());
        let whole = app.get(&tenant, &path).await;
        assert_eq!(whole.expect(200)["degraded"], trap.degraded, "{what}: {}", whole.text());
        assert!(!whole.text().contains("\\u0000"), "{what}: {}", whole.text());
        let raw = app.get(&tenant, &format!("{path}/raw")).await;
        assert_eq!(raw.status, 200, "{what}");
        assert!(raw.bytes == sources[what], "{what}: {} bytes, not the server's", raw.bytes.len());
        for view in ["text", "html"] {
            let answer = app.get(&tenant, &format!("{path}/{view}")).await;
            assert!(answer.status < 500, "{what}, {view}: {}", answer.text());
            let shown = answer.text().to_ascii_lowercase();
            let alive = ["<script", "src=\"http", "src=\"//", "url(http"];
            assert!(view == "text" || !alive.iter().any(|a| shown.contains(a)), "{what}: {shown}");
        }
    }
    archives_are_given_back_as_they_came(&app, &tenant, &rows["archives"]).await;
    let seven = format!("/api/messages/{}/html", rows["nested blocks"]["id"].as_str().unwrap());
    assert!(app.get(&tenant, &seven).await.text().contains("deep"));
    assert_eq!(app.http.get(format!("{}/health/ready", app.base)).send().await.unwrap().status(), 200);
    // The next round finds nothing new and nothing lost.
    mail::deliver(&app, &user, &mail::message("After", "after@hostile.test", "x"));
    mail::synchronise(&app, &tenant, &account).await;
    assert_eq!(listed(&app, &tenant, &account).await.len(), traps.len() + 1);
    app.finish().await;
}

async fn archives_are_given_back_as_they_came(app: &App, tenant: &Tenant, row: &Value) {
    use base64::Engine as _;
    let path = format!("/api/messages/{}", row["id"].as_str().unwrap());
    let whole = app.get(tenant, &path).await.expect(200);
    let files = whole["attachments"].as_array().unwrap();
    let names: Vec<&str> = files.iter().map(|f| f["filename"].as_str().unwrap_or_default()).collect();
    assert_eq!(names, ["bomb.zip", "winmail.dat"], "nothing was unpacked: {whole}");
    for (n, data) in [ZIP_BOMB, "eJ8+IgAA"].iter().enumerate() {
        let file = app.get(tenant, &format!("{path}/attachments/{n}")).await;
        assert_eq!(file.status, 200, "{}", file.text());
        assert!(file.bytes == base64::engine::general_purpose::STANDARD.decode(data).unwrap());
        assert!(file.header("content-disposition").starts_with("attachment"));
        assert_eq!(file.header("x-content-type-options"), "nosniff");
        assert!(file.header("content-security-policy").contains("sandbox"));
    }
}
