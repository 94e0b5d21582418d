//! What the server has, by a plain fetch of another client, against what we list.

use std::collections::BTreeSet;

use serde_json::Value;
use tests::app::{App, Tenant};
use tests::mail;

type Rows = BTreeSet<(String, String, String)>;

/// (mailbox, Message-ID, sorted flags) as doveadm sees them.
fn server(app: &App, user: &str) -> Rows {
    let out = mail::doveadm(app, &["-f", "json", "fetch", "-u", user, "mailbox flags hdr.message-id", "all"]);
    let rows: Vec<Value> = serde_json::from_str(&out).unwrap();
    rows.iter()
        .map(|r| {
            let mut flags: Vec<&str> = r["flags"]
                .as_str()
                .unwrap()
                .split(' ')
                .filter(|f| !f.is_empty() && *f != "\\Recent")
                .collect();
            flags.sort_unstable();
            let id = r["hdr.message-id"].as_str().unwrap().trim().trim_matches(['<', '>']).to_owned();
            (r["mailbox"].as_str().unwrap().to_owned(), id, flags.join(" "))
        })
        .collect()
}

/// The same as our API lists it.
async fn ours(app: &App, tenant: &Tenant, account: &str) -> Rows {
    let mut rows = Rows::new();
    let mailboxes =
        app.get(tenant, &format!("/api/accounts/{account}/mailboxes?limit=200")).await.expect(200);
    for mailbox in mailboxes["data"].as_array().unwrap() {
        let mut cursor = String::new();
        loop {
            let id = mailbox["id"].as_str().unwrap();
            let page = app
                .get(tenant, &format!("/api/accounts/{account}/messages?mailbox_id={id}&limit=200{cursor}"))
                .await
                .expect(200);
            for m in page["data"].as_array().unwrap() {
                let texts = |field: &str| {
                    m[field]
                        .as_array()
                        .unwrap()
                        .iter()
                        .map(|f| f.as_str().unwrap().to_owned())
                        .collect::<Vec<_>>()
                };
                let mut flags = [texts("flags"), texts("keywords")].concat();
                flags.sort_unstable();
                let header = m["message_id_header"].as_str().unwrap_or_default().to_owned();
                rows.insert((mailbox["path"].as_str().unwrap().to_owned(), header, flags.join(" ")));
            }
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
    }
    rows
}

/// Asserts that both are the same.
pub async fn agrees(app: &App, tenant: &Tenant, account: &str, user: &str) {
    let (theirs, ours) = (server(app, user), ours(app, tenant, account).await);
    let missing: Vec<_> = theirs.difference(&ours).take(5).collect();
    let extra: Vec<_> = ours.difference(&theirs).take(5).collect();
    assert!(missing.is_empty() && extra.is_empty(), "missing {missing:?}, extra {extra:?}");
}
