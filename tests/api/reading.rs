//! Odd mail through the API, as a person sees it: the grammars have their tests in `mail::mime`, here each root shows once.

use std::time::Duration;

use serde_json::{Value, json};
use tests::app::{Answer, App, Tenant};
use tests::eventually::eventually;
use tests::mail;

/// An account whose INBOX holds these messages, and their ids in that order.
async fn filled(app: &App, tenant: &Tenant, messages: &[&[u8]]) -> (String, Vec<String>) {
    let user = mail::new_mailbox(app);
    mail::fill(app, &user, "INBOX", messages.iter().map(|m| m.to_vec()).collect());
    let account = mail::connect(app, tenant, &user).await;
    mail::synchronise(app, tenant, &account).await;
    let listed =
        app.get(tenant, &format!("/api/accounts/{account}/messages?role=inbox&limit=200")).await.expect(200);
    let id_of = |n: usize| {
        let wanted = format!("{n}@odd.test");
        let found = listed["data"].as_array().unwrap().iter().find(|m| m["message_id_header"] == wanted);
        found.unwrap_or_else(|| panic!("{wanted} in {listed}"))["id"].as_str().unwrap().to_owned()
    };
    (account, (0..messages.len()).map(id_of).collect())
}

async fn alone(app: &App, tenant: &Tenant, id: &str) -> Value {
    app.get(tenant, &format!("/api/messages/{id}")).await.expect(200)
}

async fn text(app: &App, tenant: &Tenant, path: &str) -> String {
    let answer: Answer = app.get(tenant, path).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.text()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_of_a_message_is_seen_and_nothing_that_is_none_is_an_attachment() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let messages: [&[u8]; 6] = [
        b"Message-ID: <0@odd.test>\r\nFrom: root\r\nSubject: =?utf-8?Q?Gr=C3?= =?utf-8?Q?=BC=C3=9Fe?=\r\nDate: Mon, 2 Nov 2026 10:00:00 XYZT\r\n\
          Content-Type: multipart/mixed; boundary=\r\n\t\"b\"\r\n\r\n--b\r\nContent-Type: text/html\r\n\r\n<p>the news</p>\r\n--b\r\n\
          Content-Type: text/plain\r\n\r\nlist footer\r\n--b--\r\n",
        b"Message-ID: <1@odd.test>\r\nFrom: Ann <a@x.test> Ben <b@x.test>\r\nContent-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\
          Content-Type: text/plain; name=body.txt\r\n\r\nsigned words\r\n--b\r\nContent-Type: application/pkcs7-signature; name=smime.p7s\r\n\r\nx\r\n--b--\r\n",
        b"Message-ID: <2@odd.test>\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nsee there\r\n--b\r\n\
          Content-Type: text/calendar; method=REQUEST\r\n\r\nBEGIN:VCALENDAR\r\n--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: Minutes\r\n\r\nzanzibar\r\n--b\r\n\
          Content-Type: application/pdf\r\nContent-Disposition: attachment; filename*0*=utf-8''K%C3; filename*1*=%BCche.pdf\r\n\r\nPDF\r\n--b--\r\n",
        b"Message-ID: <3@odd.test>\r\nContent-Type: multipart/related; boundary=b\r\n\r\n--b\r\nContent-Type: text/html\r\n\r\n\
          <body bgcolor=#123456><p style=\"background:url(x) #123;color:white\">hi <a href=\"#part2\">down</a><a id=part2>here</a><img src=\"cid:logo.png\"></p>\r\n--b\r\n\
          Content-Type: image/png\r\nContent-Disposition: inline; filename=logo.png\r\n\r\nPNG\r\n--b--\r\n",
        b"Message-ID: <4@odd.test>\r\nSubject: Gr\xfc\xdfe\r\nContent-Type: text/plain; charset=cp850\r\n\r\nGr\x81\xe1e \x94\r\n",
        "Message-ID: <5@odd.test>\r\nSubject: 회의록을\r\nContent-Type: text/plain; charset=utf-8\r\n\r\ndie Größe\r\n".as_bytes(),
    ];
    let (account, ids) = filled(&app, &tenant, &messages).await;

    let footer = alone(&app, &tenant, &ids[0]).await;
    assert_eq!(footer["from"], json!([{"name": "root", "address": null}]));
    assert_eq!((&footer["subject"], &footer["snippet"]), (&json!("Grüße"), &json!("the news list footer")));
    assert_eq!(
        (&footer["text"], &footer["date_zone_unknown"]),
        (&json!("the news\n\nlist footer"), &json!(true))
    );
    assert!(text(&app, &tenant, &format!("/api/messages/{}/html", ids[0])).await.contains("list footer"));
    assert!(text(&app, &tenant, &format!("/api/messages/{}/text", ids[0])).await.contains("the news"));

    let signed = alone(&app, &tenant, &ids[1]).await;
    assert_eq!((&signed["text"], &signed["has_attachments"]), (&json!("signed words"), &json!(false)));
    assert_eq!(signed["from"].as_array().unwrap().len(), 2, "{signed}");

    let files = alone(&app, &tenant, &ids[2]).await;
    let seen: Vec<_> =
        files["attachments"].as_array().unwrap().iter().map(|a| (&a["filename"], &a["method"])).collect();
    assert_eq!(
        seen,
        [
            (&json!("invite.ics"), &json!("REQUEST")),
            (&json!("Minutes.eml"), &json!(null)),
            (&json!("Küche.pdf"), &json!(null)),
        ]
    );
    let stored = app.get(&tenant, &format!("/api/messages/{}?body=none", ids[2])).await.expect(200);
    assert_eq!(stored["attachments"], files["attachments"], "what was stored is what is read");
    for (n, contents) in [(0, "BEGIN:VCALENDAR"), (2, "PDF")] {
        let path = format!("/api/messages/{}/attachments/{n}", ids[2]);
        assert_eq!(text(&app, &tenant, &path).await, contents);
    }

    let path = format!("/api/messages/{}/html", ids[3]);
    let html = text(&app, &tenant, &path).await;
    assert!(
        html.contains("background:#123;color:white") && html.contains("background-color:#123456"),
        "{html}"
    );
    assert!(
        html.contains("href=\"#m")
            && html.contains(&format!("src=\"/api/messages/{}/attachments/0?part_token=", ids[3])),
        "{html}"
    );
    let embedded = text(&app, &tenant, &format!("{path}?inline_images=data")).await;
    assert!(embedded.contains("src=\"data:image/png;base64,UE5H\""), "{embedded}");
    assert_eq!(alone(&app, &tenant, &ids[3]).await["has_attachments"], false);

    let dos = alone(&app, &tenant, &ids[4]).await;
    assert_eq!((&dos["text"], &dos["degraded_reason"]), (&json!("Grüße ö\n"), &json!(null)));

    for (query, id) in [
        ("zanzibar", &ids[2]),
        ("회의", &ids[5]),
        ("groesse", &ids[5]),
        ("Größe", &ids[5]),
        ("footer", &ids[0]),
    ] {
        let path = format!("/api/sync/search?account_id={account}&query={query}");
        let found = eventually(query, Duration::from_secs(60), async || {
            let found = app.get(&tenant, &path).await.expect(200);
            Some(found).filter(|f| f["data"].as_array().is_some_and(|hits| !hits.is_empty()))
        })
        .await;
        let hits: Vec<_> =
            found["data"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap()).collect();
        assert_eq!(hits, [id.as_str()], "{query}");
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_answered_by_whom_it_was_written_to() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let message = b"Message-ID: <0@odd.test>\r\nFrom: Ann <ann@x.test>\r\nTo: sales@own.test\r\nSubject: [list] Re: Ref: 4711\r\n\
        Content-Type: text/html\r\n\r\n<p>See <a href=https://x.test/a>this</a></p><pre>one\ntwo</pre>";
    let (account, ids) = filled(&app, &tenant, &[message]).await;
    let shown = app.get(&tenant, &format!("/api/accounts/{account}")).await.expect(200);
    let own = shown["email"].as_str().unwrap();
    let identities = json!({"identities": [
        {"email": own, "name": "Me"},
        {"email": "sales@own.test", "name": "Sales", "signature_text": "The sales team"},
    ]});
    app.patch(&tenant, &format!("/api/accounts/{account}?verify=false"), &identities).await.expect(200);
    let reply = json!({"account_id": account, "reply_to_message_id": ids[0], "text": "Yes."});
    let draft = app.post(&tenant, "/api/compose", &reply).await.expect(201);
    assert_eq!(draft["from"]["address"], "sales@own.test");
    assert_eq!(draft["subject"], "Re: [list] Ref: 4711");
    let text = draft["text"].as_str().unwrap();
    assert!(text.starts_with("Yes.\n\n-- \nThe sales team\n"), "{text}");
    assert!(text.contains("> See this <https://x.test/a>\n> \n> one\n> two\n"), "{text}");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_id_or_an_address_that_strangers_share_joins_nothing() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let with = |n: usize, rest: &str| {
        format!("Message-ID: <{n}@odd.test>\r\n{rest}\r\n\r\nbody {n}\r\n").into_bytes()
    };
    let messages = [
        with(0, "Subject: Invoice"),
        with(1, "Subject: Lunch\r\nIn-Reply-To: Message from Bob <bob@x.test>"),
        with(2, "Subject: Dinner\r\nIn-Reply-To: Message from Bob <bob@x.test>"),
        with(3, "Subject: Re: Invoice\r\nReferences: <0@odd.test>"),
    ];
    let twin = |subject: &str| {
        format!("Message-ID: <always@odd.test>\r\nSubject: {subject}\r\n\r\nx {subject}").into_bytes()
    };
    let user = mail::new_mailbox(&app);
    let all = messages.iter().cloned().chain(["One", "Two", "[list] One"].map(twin)).collect();
    mail::fill(&app, &user, "INBOX", all);
    let account = mail::connect(&app, &tenant, &user).await;
    mail::synchronise(&app, &tenant, &account).await;
    let listed = app.get(&tenant, &format!("/api/accounts/{account}/messages?role=inbox")).await.expect(200);
    let thread = |subject: &str| {
        let found = listed["data"].as_array().unwrap().iter().find(|m| m["subject"] == subject);
        found.unwrap_or_else(|| panic!("{subject} in {listed}"))["thread_id"].clone()
    };
    assert_ne!(thread("Lunch"), thread("Dinner"));
    assert_eq!(thread("Invoice"), thread("Re: Invoice"));
    assert_ne!(thread("One"), thread("Two"));
    assert_eq!(thread("One"), thread("[list] One"), "a copy by way of a list");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_known_and_what_is_left_out_is_told() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let message = |n: usize, fields: &str, body: &str| {
        format!("Message-ID: <{n}@odd.test>\r\nFrom: Ann <ann@x.test>\r\n{fields}\r\n\r\n{body}").into_bytes()
    };
    let people: String =
        (0..3000).map(|n| format!("\r\n \"Person of the long list {n}\" <p{n}@x.test>,")).collect();
    let deep: String = (0..101)
        .map(|n| format!("--b{n}\r\nContent-Type: multipart/mixed; boundary=b{}\r\n\r\n", n + 1))
        .collect();
    let messages = [
        message(0, "Subject: quagga\r\nDate: Mon, 2 Nov 2026 10:00:00 XYZT", "no zone"),
        message(1, "Subject: okapi\r\nDate: Mon, 2 Nov 2026 10:00:00 +0100", "a zone"),
        message(2, &format!("Subject: all\r\nTo:{people}\r\n p@x.test"), "to very many"),
        message(
            3,
            "Content-Type: multipart/mixed; boundary=b0",
            &format!("--b0\r\n\r\nfirst words\r\n{deep}"),
        ),
        message(4, "Content-Type: text/html", &"<p>word".repeat(160_000)),
        message(5, "Content-Type: text/html", "<p>one</p><p>two</p>"),
    ];
    let messages: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
    let (account, ids) = filled(&app, &tenant, &messages).await;

    let (quagga, okapi) = (alone(&app, &tenant, &ids[0]).await, alone(&app, &tenant, &ids[1]).await);
    let stored = app.get(&tenant, &format!("/api/messages/{}?body=none", ids[0])).await.expect(200);
    assert_eq!(
        (&quagga["date_zone_unknown"], &stored["date_zone_unknown"], &okapi["date_zone_unknown"]),
        (&json!(true), &json!(true), &json!(false))
    );
    let thread = quagga["thread_id"].as_str().unwrap();
    for path in [
        format!("/api/accounts/{account}/messages?role=inbox"),
        format!("/api/threads/{thread}"),
        "/api/sync/search?query=quagga".to_owned(),
    ] {
        let seen = eventually(&path, Duration::from_secs(60), async || {
            let answer = app.get(&tenant, &path).await.expect(200);
            let list = answer.get("data").or_else(|| answer.get("messages")).and_then(Value::as_array);
            list.and_then(|all| all.iter().find(|m| m["id"] == ids[0].as_str())).cloned()
        })
        .await;
        assert_eq!(seen["date_zone_unknown"], true, "{path}: {seen}");
    }

    let many = alone(&app, &tenant, &ids[2]).await;
    assert_eq!(
        (&many["degraded"], &many["degraded_reason"], &many["truncated"]),
        (&json!(true), &json!("a header field is larger than 102400 bytes"), &json!(false))
    );
    assert_eq!((&many["subject"], &many["text"]), (&json!("all"), &json!("to very many")));
    let deep = alone(&app, &tenant, &ids[3]).await;
    assert_eq!(
        (&deep["degraded"], &deep["degraded_reason"]),
        (&json!(true), &json!("parts are nested deeper than 100"))
    );
    assert_eq!(deep["text"], "first words");
    let stored = app.get(&tenant, &format!("/api/messages/{}?body=none", ids[3])).await.expect(200);
    assert_eq!((&stored["degraded"], &stored["degraded_reason"]), (&json!(true), &json!(null)));

    let long = alone(&app, &tenant, &ids[4]).await;
    assert_eq!((&long["truncated"], &long["degraded"]), (&json!(true), &json!(false)));
    assert!(long["html"].as_str().unwrap().contains("word\n\nword"));
    let whole = alone(&app, &tenant, &ids[5]).await;
    assert_eq!((&whole["truncated"], &whole["html"]), (&json!(false), &json!("<p>one</p><p>two</p>")));
    let cut = app.get(&tenant, &format!("/api/messages/{}?max_body_bytes=12", ids[5])).await.expect(200);
    assert_eq!((&cut["truncated"], &cut["html"]), (&json!(true), &json!("<p>one</p>")));
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_somebody_passed_on_shows_whom_it_was_written_to() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let message = b"Resent-From: Bob <bob@x.test>\r\nResent-To: Carl <carl@x.test>, me@own.test\r\nResent-Cc: Dora <dora@x.test>\r\n\
        Resent-Date: Tue, 3 Nov 2026 10:00:00 +0000\r\nResent-Message-ID: <again@x.test>\r\nMessage-ID: <0@odd.test>\r\n\
        From: Ann <ann@x.test>\r\nTo: Team <team@x.test>\r\nCc: Eve <eve@x.test>\r\nDate: Mon, 2 Nov 2026 10:00:00 +0000\r\n\
        Subject: Minutes\r\n\r\nx";
    let (_, ids) = filled(&app, &tenant, &[message]).await;
    let path = format!("/api/messages/{}?fields=from,to,cc,date,message_id_header,headers", ids[0]);
    let shown = app.get(&tenant, &path).await.expect(200);
    let person = |name: &str, address: &str| json!([{"name": name, "address": address}]);
    assert_eq!(shown["from"], person("Ann", "ann@x.test"));
    assert_eq!(shown["to"], person("Team", "team@x.test"));
    assert_eq!(shown["cc"], person("Eve", "eve@x.test"));
    assert_eq!(shown["date"], "2026-11-02T10:00:00Z");
    assert_eq!(shown["message_id_header"], "0@odd.test");
    let fields = shown["headers"].as_array().unwrap();
    let value = |name: &str| fields.iter().find(|f| f["name"] == name).map(|f| f["value"].as_str().unwrap());
    assert_eq!(value("Resent-From"), Some("Bob <bob@x.test>"));
    assert_eq!(value("Resent-To"), Some("Carl <carl@x.test>, me@own.test"));
    assert_eq!(value("Resent-Cc"), Some("Dora <dora@x.test>"));
    assert_eq!(value("Resent-Date"), Some("Tue, 3 Nov 2026 10:00:00 +0000"));
    app.finish().await;
}
