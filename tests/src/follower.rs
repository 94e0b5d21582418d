//! Clients that follow an account: one by its changes from state to state, one by a stream of events.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use crate::app::{App, Tenant};

/// What changes are asked for, and the lists that they lead to.
const TYPES: [&str; 3] = ["message", "mailbox", "thread"];

/// A client that listed once and then follows the changes.
#[derive(Debug, Default)]
pub struct Follower {
    account: String,
    states: BTreeMap<&'static str, String>,
    /// What it believes to be there, by type.
    pub there: BTreeMap<&'static str, BTreeSet<String>>,
    /// Answers with more to come.
    pub in_pieces: usize,
    /// Things happened between the states and the lists: what is listed may be told of once more.
    raced: bool,
}

async fn listed(app: &App, tenant: &Tenant, account: &str, of: &str) -> BTreeSet<String> {
    let list = if of == "mailbox" { "mailboxes".to_owned() } else { format!("{of}s") };
    let (mut all, mut cursor) = (BTreeSet::new(), String::new());
    loop {
        let path = format!("/api/accounts/{account}/{list}?limit=200{cursor}");
        let page = app.get(tenant, &path).await.expect(200);
        let ids = page["data"].as_array().unwrap().iter();
        all.extend(ids.map(|row| row["id"].as_str().unwrap().to_owned()));
        let Some(next) = page["next_cursor"].as_str() else { return all };
        cursor = format!("&cursor={next}");
    }
}

fn ids(changes: &Value, list: &str) -> BTreeSet<String> {
    let all = changes[list].as_array().unwrap();
    let id = |entry: &Value| entry.as_str().or_else(|| entry["id"].as_str()).unwrap().to_owned();
    let set: BTreeSet<String> = all.iter().map(id).collect();
    assert_eq!(set.len(), all.len(), "an id is there twice: {changes}");
    set
}

impl Follower {
    /// Asks for the states, then lists.
    pub async fn begin(app: &App, tenant: &Tenant, account: &str) -> Self {
        Self { raced: false, ..Self::begin_beside(app, tenant, account, async || ()).await }
    }

    /// Asks for the states, and lists after `between`.
    pub async fn begin_beside(
        app: &App,
        tenant: &Tenant,
        account: &str,
        between: impl AsyncFnOnce(),
    ) -> Self {
        let mut new = Self { account: account.to_owned(), raced: true, ..Self::default() };
        for of in TYPES {
            let path = format!("/api/accounts/{account}/changes?types={of}");
            let state = app.get(tenant, &path).await.expect(200);
            assert_eq!(
                (state["created"].to_string(), &state["old_state"]),
                ("[]".into(), &state["new_state"])
            );
            new.states.insert(of, state["new_state"].as_str().unwrap().to_owned());
        }
        between().await;
        for of in TYPES {
            new.there.insert(of, listed(app, tenant, account, of).await);
        }
        new
    }

    /// Follows the changes, `limit` objects in an answer, until there are no more.
    ///
    /// # Panics
    /// When an answer cannot be true: what is created was there, what is updated or destroyed was not.
    pub async fn follow(&mut self, app: &App, tenant: &Tenant, limit: usize) {
        for of in TYPES {
            let there = self.there.entry(of).or_default();
            loop {
                let path = format!(
                    "/api/accounts/{}/changes?types={of}&limit={limit}&since={}",
                    self.account, self.states[of]
                );
                let changes = app.get(tenant, &path).await.expect(200);
                let (created, updated, destroyed) =
                    (ids(&changes, "created"), ids(&changes, "updated"), ids(&changes, "destroyed"));
                let named = created.iter().chain(&updated).chain(&destroyed).collect::<BTreeSet<_>>().len();
                assert!(named <= limit.max(2), "{named} of {limit}");
                for id in created {
                    assert!(
                        there.insert(id.clone()) || self.raced,
                        "{of} {id} was there before it was created"
                    );
                }
                for id in updated {
                    assert!(there.contains(&id) || self.raced, "{of} {id} is updated and was never created");
                }
                for id in destroyed {
                    assert!(there.remove(&id) || self.raced, "{of} {id} is destroyed and was never created");
                }
                self.states.insert(of, changes["new_state"].as_str().unwrap().to_owned());
                if !changes["has_more"].as_bool().unwrap() {
                    break;
                }
                self.in_pieces += 1;
            }
        }
        self.raced = false;
    }

    /// Compares what it believes with the lists, while nobody changes anything.
    ///
    /// # Panics
    /// When they differ.
    pub async fn agrees(&self, app: &App, tenant: &Tenant) {
        for of in TYPES {
            let listed = listed(app, tenant, &self.account, of).await;
            let (more, less): (Vec<_>, Vec<_>) =
                (self.there[of].difference(&listed).collect(), listed.difference(&self.there[of]).collect());
            assert!(
                more.is_empty() && less.is_empty(),
                "{of}: only followed: {more:?}; only listed: {less:?}"
            );
        }
    }
}

/// An event of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// To resume from.
    pub id: String,
    /// Its kind.
    pub kind: String,
    /// Its data, as text.
    pub data: String,
}

impl Sent {
    /// The envelope.
    ///
    /// # Panics
    /// When it is no JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap()
    }
}

/// An open stream of events, read as a browser does (WHATWG HTML §9.2.6).
#[derive(Debug)]
pub struct Listener {
    answer: reqwest::Response,
    text: String,
    /// The last id that came, with or without an event.
    pub last_id: String,
}

impl Listener {
    /// Opens a stream.
    ///
    /// # Panics
    /// When there is none.
    pub async fn open(request: reqwest::RequestBuilder) -> Self {
        let answer = request.timeout(Duration::from_secs(600)).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{:?}", answer.text().await);
        Self::of(answer)
    }

    /// A stream that was answered.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn of(answer: reqwest::Response) -> Self {
        assert!(answer.headers()["content-type"].to_str().unwrap().starts_with("text/event-stream"));
        Self { answer, text: String::new(), last_id: String::new() }
    }

    /// The next event; `None`: the stream ended.
    pub async fn next(&mut self) -> Option<Sent> {
        loop {
            while let Some(end) = self.text.find("\n\n") {
                let block: String = self.text.drain(..end + 2).collect();
                if let Some(sent) = self.dispatch(&block) {
                    return Some(sent);
                }
            }
            let piece = self.answer.chunk().await.ok().flatten()?;
            self.text.push_str(std::str::from_utf8(&piece).unwrap());
        }
    }

    fn dispatch(&mut self, block: &str) -> Option<Sent> {
        let (mut kind, mut data) = (String::new(), Vec::new());
        for line in block.lines() {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "id" => self.last_id = value.to_owned(),
                "event" => kind = value.to_owned(),
                "data" => data.push(value),
                _ => {}
            }
        }
        (!data.is_empty()).then(|| Sent { id: self.last_id.clone(), kind, data: data.join("\n") })
    }

    /// The next event of this kind within ten seconds; others are passed over.
    ///
    /// # Panics
    /// When none comes.
    pub async fn wait_for(&mut self, kind: &str) -> Sent {
        let wait = async {
            loop {
                let sent = self.next().await.expect("the stream ended");
                if sent.kind == kind {
                    return sent;
                }
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(10), wait).await;
        waited.unwrap_or_else(|_| panic!("no {kind} came"))
    }

    /// Waits until the stream ends, and says how long that took.
    ///
    /// # Panics
    /// When it does not within `limit`.
    pub async fn ends(&mut self, limit: Duration) -> Duration {
        let begun = std::time::Instant::now();
        let end = async { while self.next().await.is_some() {} };
        tokio::time::timeout(limit, end).await.expect("the stream goes on");
        begun.elapsed()
    }
}
