//! What our user asks of a message holds, whatever other clients, lines and servers do meanwhile.
//!
//! Looked at from outside alone: the API, another client, the oracle. What our rows look like in between is not asked.
//!
//! - `order`: edits of one message that follow each other, and a line that dies among them
//! - `clients`: another client was there first
//! - `names`: mailboxes that get other names
//! - `emptied`: mailboxes that our user deletes
//! - `servers`: servers that refuse, lie or let nobody in
//! - `slow`: servers that take an hour

mod clients;
mod emptied;
mod names;
mod order;
mod servers;
mod slow;

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tests::eventually::eventually;
use tests::fault::Proxy;
use tests::relay::Relay;
use tests::{mail, oracle};

use crate::case::{Case, numbered};

/// All extensions; without QRESYNC and MOVE; nothing but IMAP4rev1.
const HOSTS: [&str; 3] = ["127.0.0.1", devstack::CONDSTORE_HOST, devstack::PLAIN_HOST];
const PATIENCE: Duration = Duration::from_secs(60);

/// Mailboxes and the system flags in each, sorted.
type Places = Vec<(String, String)>;

fn places(expected: &[(&str, &str)]) -> Places {
    expected.iter().map(|(name, flags)| ((*name).to_owned(), (*flags).to_owned())).collect()
}

/// Where a message is for our user; nowhere when there is none of this id. Names stand for paths: these are all at the top.
async fn here(case: &Case, id: &str) -> Places {
    let answer = case.app.get(&case.tenant, &format!("/api/messages/{id}")).await;
    if answer.status == 404 {
        return Places::new();
    }
    let message = answer.expect(200);
    let place = |m: &Value| {
        let mut flags: Vec<&str> = m["flags"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        flags.sort_unstable();
        (m["name"].as_str().unwrap().to_owned(), flags.join(" "))
    };
    let mut found: Places = message["mailboxes"].as_array().unwrap().iter().map(place).collect();
    found.sort();
    found
}

/// Where the message of this number is for another client. What is only marked as deleted counts as gone.
async fn there(case: &Case, n: u32) -> Places {
    let hash = hex::encode(Sha256::digest(numbered(n)));
    let all = oracle::server(&case.app, &case.user).await.placed;
    let is_it = |p: &&oracle::Placed| p.hash == hash && !p.flags.contains(&"\\Deleted".to_owned());
    let mut found: Places =
        all.iter().filter(is_it).map(|p| (p.mailbox.clone(), p.flags.join(" "))).collect();
    found.sort();
    found
}

/// Asserts that a message is where it should be, for our user and for everybody else.
async fn assert_both(case: &Case, (id, n): (&str, u32), expected: &[(&str, &str)], what: &str) {
    let found = (there(case, n).await, here(case, id).await);
    assert_eq!(found, (places(expected), places(expected)), "M{n} there and here, {what}");
}

/// `pause` or `resume`.
async fn turn(case: &Case, what: &str) {
    case.app
        .post(&case.tenant, &format!("/api/accounts/{}/{what}", case.account), &json!({}))
        .await
        .expect(200);
}

/// An action on one message, narrowed to a mailbox or with a target.
async fn act(case: &Case, id: &str, action: &str, mailbox: &str) {
    let body = json!({"ids": [id], "action": action, "mailbox_id": mailbox});
    let done = case.app.post(&case.tenant, "/api/messages/actions", &body).await.expect(200);
    assert_eq!(done["updated"], 1, "{action}");
}

/// Two rounds: what the first one leaves to be looked at is looked at by the second.
async fn two_rounds(case: &Case) {
    case.sync().await;
    case.sync().await;
}

/// Mailboxes at the top that another client makes.
async fn make(case: &Case, names: &[&str]) {
    let mut client = case.client().await;
    for name in names {
        client.ok(&format!("CREATE {name}")).await;
    }
}

/// A wire to the server that can be cut, and on which some of its words are others.
struct Wire {
    proxy: Proxy,
    _relay: Relay,
}

/// An account behind such a wire, with this many messages in INBOX and these other mailboxes.
async fn wired(messages: u32, mailboxes: &[&str], words: &[(&str, &str)]) -> (Case, Wire) {
    let app = Case::app().await;
    let user = mail::new_mailbox(&app);
    mail::fill(&app, &user, "INBOX", (1..=messages).map(numbered).collect());
    let relay = Relay::replacing(app.stack.imap_port, words).await;
    let proxy = Proxy::before(relay.port).await;
    let mut case = Case::of(app, user, "127.0.0.1", Some(proxy.port)).await;
    make(&case, mailboxes).await;
    case.app.add_worker();
    case.sync().await;
    (case, Wire { proxy, _relay: relay })
}

impl Wire {
    /// Waits for the cut that was set.
    async fn is_cut(&self) {
        eventually("the line was cut", PATIENCE, async || (self.proxy.fired() > 0).then_some(())).await;
    }
}

/// Every message our user sees, page by page.
async fn all_here(case: &Case) -> Vec<Value> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("/api/accounts/{}/messages?limit=200{cursor}", case.account);
        let page = case.app.get(&case.tenant, &path).await.expect(200);
        all.extend(page["data"].as_array().unwrap().iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

/// The ids our user sees; none twice.
async fn ids_here(case: &Case) -> BTreeSet<String> {
    let all = all_here(case).await;
    let ids: BTreeSet<String> = all.iter().map(|m| m["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids.len(), all.len(), "a message is listed twice");
    ids
}

/// How many messages another client sees with this flag.
async fn flagged_there(case: &Case, flag: &str) -> usize {
    let all = oracle::server(&case.app, &case.user).await.placed;
    all.iter().filter(|p| p.flags.contains(&flag.to_owned())).count()
}
