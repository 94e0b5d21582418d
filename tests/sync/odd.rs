//! Accounts on servers that misbehave, and the oracle for them. Nothing watches and nothing is scheduled here: a round
//! comes when a test asks for one, so that what a round did can be told.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, Utc};
use emailclient_core::platform::id::AccountId;
use emailclient_core::sync::store::vanish;
use mail::flags::{Keywords, parse_flag_list};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Row as _};
use tests::app::{App, Tenant};
use tests::eventually::eventually;
use tests::imapd::{Imapd, State};

/// What the large servers offer.
pub const FULL: &str =
    "CONDSTORE QRESYNC ENABLE UIDPLUS MOVE ESEARCH LIST-EXTENDED LIST-STATUS SPECIAL-USE UNSELECT LITERAL-";
/// Mod-sequences and nothing else.
pub const CONDSTORE: &str = "CONDSTORE";
/// Nothing at all.
pub const PLAIN: &str = "";

/// The largest message that is kept whole.
const KEPT_BYTES: usize = wire::imap::MAX_LITERAL_BYTES;
const PATIENCE: Duration = Duration::from_secs(180);

/// The product, without watching and schedule.
pub struct Rig {
    pub app: App,
    pub tenant: Tenant,
}

/// One placement: mailbox, UID, system flags, keywords, INTERNALDATE, size, bytes where they are kept.
type Placed = (Vec<u8>, i64, i16, Vec<String>, DateTime<Utc>, usize, Vec<u8>);

impl Rig {
    pub async fn start() -> Self {
        Self::with(&[("IMAP_COMMAND_TIMEOUT_SECONDS", "20")]).await
    }

    pub async fn with(settings: &[(&str, &str)]) -> Self {
        let mut all = vec![("IMAP_IDLE_ENABLED", "false")];
        all.extend(settings);
        let mut app = App::start_with(&all).await;
        app.add_worker();
        let tenant = app.tenant().await;
        Self { app, tenant }
    }

    /// A server with these extensions and the mailboxes `fill` makes, and an account on it after its first round.
    pub async fn odd(&self, capabilities: &str, fill: impl FnOnce(&mut State)) -> Odd<'_> {
        let server = Imapd::start(capabilities).await;
        fill(&mut server.lock());
        self.odd_on(server).await
    }

    /// The account on a server that may have been told to misbehave already.
    pub async fn odd_on(&self, server: Imapd) -> Odd<'_> {
        let port = server.port;
        self.odd_behind(server, port).await
    }

    /// The same through another port.
    pub async fn odd_behind(&self, server: Imapd, port: u16) -> Odd<'_> {
        let account = self.connect(&settings(port)).await;
        let mut odd = Odd { rig: self, server, account, told: 0 };
        odd.told().await;
        odd
    }

    /// The account on a server that is known by this name.
    pub async fn odd_at(&self, server: Imapd, host: &str) -> Odd<'_> {
        let mut settings = settings(server.port);
        settings["imap"]["host"] = json!(host);
        let account = self.connect(&settings).await;
        let mut odd = Odd { rig: self, server, account, told: 0 };
        odd.told().await;
        odd
    }

    /// Makes an account and waits for the end of its first round, however that ends.
    pub async fn connect(&self, settings: &Value) -> String {
        let made = self.app.post(&self.tenant, "/api/accounts?verify=false", settings).await.expect(201);
        let id = made["id"].as_str().unwrap().to_owned();
        self.ended(&id, None).await;
        id
    }

    /// Asks for a round; the status once it has ended.
    pub async fn round(&self, account: &str) -> Value {
        let path = format!("/api/sync/imap/{account}");
        let run = self.app.post(&self.tenant, &path, &json!({})).await.expect(202);
        self.ended(account, run["id"].as_str()).await
    }

    async fn ended(&self, account: &str, run: Option<&str>) -> Value {
        let path = format!("/api/sync/status/{account}");
        eventually("the round is over", PATIENCE, async || {
            let status = self.app.get(&self.tenant, &path).await.expect(200);
            // Or a later one: what else had been asked for before it began is done in a round of its own.
            let last = tests::mail::last_round(&status);
            let is_it = run.is_none_or(|run| last["id"].as_str() >= Some(run));
            let over = last["state"] == "done" || last["state"] == "failed";
            (is_it && over).then_some(status)
        })
        .await
    }

    /// Asserts that what another client would see equals our rows of `account`.
    pub async fn agrees(&self, account: &str, server: &Imapd) {
        let (ours, theirs) = (self.ours(account).await, theirs(&mut server.lock()));
        let brief = |p: &Placed| {
            format!("{} {} {} {:?} {} {}", String::from_utf8_lossy(&p.0), p.1, p.2, p.3, p.4, p.5)
        };
        let missing: Vec<_> = theirs.difference(&ours).take(5).map(brief).collect();
        let extra: Vec<_> = ours.difference(&theirs).take(5).map(brief).collect();
        assert!(missing.is_empty() && extra.is_empty(), "missing {missing:?}, extra {extra:?}");
        let pending = "SELECT count(*) FROM message_mailboxes WHERE account_id = $1::uuid
                         AND (flags <> base_flags OR keywords <> base_keywords OR hidden_at IS NOT NULL OR uid IS NULL
                              OR EXISTS (SELECT 1 FROM edits e WHERE e.account_id = $1::uuid))";
        assert_eq!(self.count(pending, account).await, 0, "edits wait");
    }

    async fn ours(&self, account: &str) -> BTreeSet<Placed> {
        let rows = sqlx::query(
            "SELECT b.wire_name, p.uid, p.flags, p.keywords, p.internal_date, m.size_bytes, d.raw
             FROM message_mailboxes p JOIN mailboxes b ON b.id = p.mailbox_id AND b.generation = p.generation
             JOIN messages m ON m.id = p.message_id
             JOIN blobs d ON d.account_id = m.account_id AND d.hash = m.blob_hash
             WHERE p.account_id = $1::uuid",
        )
        .bind(account)
        .fetch_all(&mut self.app.database.superuser().await)
        .await
        .unwrap();
        let placed = rows.iter().map(|r| {
            let size: i64 = r.get("size_bytes");
            let (uid, flags, raw) =
                (r.get::<Option<i64>, _>("uid").unwrap_or(0), r.get("flags"), r.get("raw"));
            let size = usize::try_from(size).unwrap();
            (r.get("wire_name"), uid, flags, r.get("keywords"), r.get("internal_date"), size, raw)
        });
        let (count, set) = placed.fold((0, BTreeSet::new()), |(n, mut set), p| {
            set.insert(p);
            (n + 1, set)
        });
        assert_eq!(count, set.len(), "a placement is there twice");
        set
    }

    pub async fn count(&self, sql: &'static str, account: &str) -> i64 {
        sqlx::query_scalar(sql)
            .bind(account)
            .fetch_one(&mut self.app.database.superuser().await)
            .await
            .unwrap()
    }

    /// Everything a round may change of `account`: with the transaction that wrote it, where nothing but a round writes.
    async fn rows(&self, account: &str) -> Vec<String> {
        let mut conn = self.app.database.superuser().await;
        let mut all = Vec::new();
        for (columns, table) in [
            ("xmin, *", "message_mailboxes"),
            ("id, thread_id, blob_hash, subject, gone_at", "messages"),
            (
                "id, wire_name, path, delimiter, role, selectable, subscribed, generation, uidvalidity, uidnext, head_uid, \
              tail_uid, modseq, exists_seen, total, unread, state, cause_code, cause_text",
                "mailboxes",
            ),
            ("*", "pending_changes"),
            ("*", "edits"),
        ] {
            let sql = format!(
                "SELECT '{table} ' || t::text FROM (SELECT {columns} FROM {table} WHERE account_id = $1::uuid) t ORDER BY 1"
            );
            let rows: Vec<String> =
                sqlx::query_scalar(AssertSqlSafe(sql)).bind(account).fetch_all(&mut conn).await.unwrap();
            all.extend(rows);
        }
        all
    }

    /// As if minutes had passed since the server refused an edit: refusals that come together count as one.
    pub async fn minutes_later(&self) {
        sqlx::query("UPDATE edits SET refused_at = refused_at - interval '2 minutes'")
            .execute(&mut self.app.database.superuser().await)
            .await
            .unwrap();
    }

    /// As if messages that are in no mailbox had been so for minutes, and the scheduler had removed them.
    pub async fn over(&self, account: &str) {
        sqlx::query(
            "UPDATE messages SET gone_at = gone_at - interval '121 seconds' WHERE gone_at IS NOT NULL",
        )
        .execute(&mut self.app.database.superuser().await)
        .await
        .unwrap();
        let mut tx = self.app.db.tenant(self.tenant.id).await.unwrap();
        vanish::sweep_gone(&mut tx, AccountId(account.parse().unwrap())).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// Asserts that one more round succeeds and changes no row.
    pub async fn rests(&self, account: &str) {
        let before = self.rows(account).await;
        let status = self.round(account).await;
        assert_eq!(status["run"]["state"], "done", "{status}");
        let after = self.rows(account).await;
        let changed: Vec<&String> = after.iter().filter(|row| !before.contains(row)).collect();
        assert!(before == after, "a second round changed rows: {changed:?}");
    }

    pub async fn finish(self) {
        self.app.finish().await;
    }
}

/// What a client sends to connect to a server on this port.
pub fn settings(port: u16) -> Value {
    // A user of its own: tries are counted for each host and user name.
    let user = format!("p{port}@lab.test");
    let server =
        json!({"host": "127.0.0.1", "port": port, "security": "none", "username": user, "password": "p"});
    json!({"email": user, "imap": server, "smtp": server})
}

fn theirs(state: &mut State) -> BTreeSet<Placed> {
    let mut all = BTreeSet::new();
    for mailbox in
        state.mailboxes.iter().filter(|m| !m.phantom && !m.is_view() && !m.attributes.contains("\\Noselect"))
    {
        for message in &mailbox.messages {
            let (flags, keywords) = parse_flag_list(message.flags.iter().map(String::as_str));
            let date = DateTime::parse_from_str(&message.date, "%d-%b-%Y %H:%M:%S %z").unwrap().to_utc();
            let size = message.bytes.len();
            let kept = if size > KEPT_BYTES { Vec::new() } else { message.bytes.clone() };
            let keywords = Keywords::as_slice(&keywords).to_vec();
            let name = mailbox.name.clone();
            all.insert((name, i64::from(message.uid), flags.bits(), keywords, date, size, kept));
        }
    }
    all
}

/// An account on a scripted server.
pub struct Odd<'a> {
    pub rig: &'a Rig,
    pub server: Imapd,
    pub account: String,
    /// The last event that was looked at.
    told: i64,
}

impl Odd<'_> {
    /// A round, however it ends.
    pub async fn round(&self) -> Value {
        self.rig.round(&self.account).await
    }

    /// A round that must succeed, and leave no complaint.
    pub async fn healthy(&self) -> Value {
        let status = self.round().await;
        assert_eq!(
            (&status["run"]["state"], &status["state"]),
            (&json!("done"), &json!("connected")),
            "{status}"
        );
        for mailbox in status["mailboxes"].as_array().unwrap() {
            assert!(mailbox["cause"].is_null(), "{status}");
        }
        status
    }

    /// Events about messages and mailboxes since the last call, sorted.
    pub async fn told(&mut self) -> Vec<String> {
        let rows = sqlx::query(
            "SELECT position, kind FROM events WHERE account_id = $1::uuid AND position > $2 AND kind NOT LIKE 'account.%'",
        )
        .bind(&self.account)
        .bind(self.told)
        .fetch_all(&mut self.rig.app.database.superuser().await)
        .await
        .unwrap();
        self.told = rows.iter().map(|r| r.get("position")).max().unwrap_or(self.told);
        let mut kinds: Vec<String> = rows.iter().map(|r| r.get("kind")).collect();
        kinds.sort();
        kinds
    }

    /// Id of each message with the header it has on the server, sorted.
    pub async fn ids(&self) -> Vec<(String, String)> {
        sqlx::query_as(
            "SELECT coalesce(message_id_header, ''), id::text FROM messages WHERE account_id = $1::uuid AND gone_at IS NULL
             ORDER BY 1, 2",
        )
        .bind(&self.account)
        .fetch_all(&mut self.rig.app.database.superuser().await)
        .await
        .unwrap()
    }

    /// UIDs we hold of a mailbox.
    pub async fn uids(&self, mailbox: &str) -> Vec<i64> {
        sqlx::query_scalar(
            "SELECT p.uid FROM message_mailboxes p JOIN mailboxes b ON b.id = p.mailbox_id AND b.generation = p.generation
             WHERE p.account_id = $1::uuid AND b.wire_name = $2 ORDER BY 1",
        )
        .bind(&self.account)
        .bind(mailbox.as_bytes())
        .fetch_all(&mut self.rig.app.database.superuser().await)
        .await
        .unwrap()
    }

    /// The oracle: our rows are what the server has, and one more round reads no message, changes no row, tells nothing.
    pub async fn settled(&mut self) {
        self.rig.agrees(&self.account, &self.server).await;
        self.told().await;
        self.server.lock().heard.clear();
        self.rig.rests(&self.account).await;
        let heard = self.server.lock().heard.clone();
        assert!(!heard.iter().any(|command| command.contains("BODY")), "{heard:?}");
        assert_eq!(self.told().await, Vec::<String>::new());
    }

    /// As [`Odd::settled`], after a round in which these events came and no others.
    pub async fn settled_after(&mut self, events: &[&str]) {
        assert_eq!(self.told().await, events);
        self.settled().await;
    }
}
