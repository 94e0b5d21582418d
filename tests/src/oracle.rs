//! What a case of synchronisation must end with: our rows equal a fresh plain fetch of another client, a second round
//! plans nothing, and the event log tells each change once.
//!
//! - [`agrees`]: per mailbox {UID, flags, keywords, internal date, SHA-256 of the bytes} and UIDVALIDITY, in the rows and
//!   by another client; what the API lists and counts
//! - [`settled`]: that, and then a round that writes no row and no event and asks for no body
//! - [`Events`]: what was told since

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::Duration;

use chrono::DateTime;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use sqlx::{Executor as _, Row as _};
use uuid::Uuid;

use crate::app::{App, Tenant};
use crate::eventually::eventually;
use crate::imap::{Imap, Response, quoted};
use crate::mail;

/// One message in one mailbox.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Placed {
    /// The mailbox, as on the wire.
    pub mailbox: String,
    /// Its UID; 0 stands for a row of ours without one.
    pub uid: u32,
    /// System flags and keywords, sorted.
    pub flags: Vec<String>,
    /// INTERNALDATE in unix seconds; none where Dovecot cannot keep it (before 1970, from 2037-12-31 on).
    pub date: Option<i64>,
    /// SHA-256 of the bytes.
    pub hash: String,
}

/// All messages, and each selectable mailbox with its UIDVALIDITY.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// By mailbox and UID.
    pub placed: BTreeSet<Placed>,
    /// Mailbox (as on the wire) and UIDVALIDITY.
    pub mailboxes: BTreeMap<String, u32>,
    /// Mailboxes that hold no messages (`\Noselect`).
    pub noselect: BTreeSet<String>,
}

/// What another client reads, all of it.
pub async fn server(app: &App, user: &str) -> View {
    let mut client = Imap::login(app, user).await;
    let mut view = View::default();
    for (attributes, name) in client.ok("LIST \"\" \"*\"").await.listed() {
        if attributes.contains("\\Noselect") || attributes.contains("\\NonExistent") {
            view.noselect.insert(name);
            continue;
        }
        let opened = client.run(&format!("EXAMINE {}", quoted(&name))).await;
        if !opened.is_ok() {
            // The phantom of a parent that was deleted.
            view.noselect.insert(name);
            continue;
        }
        let code = opened.untagged.iter().find_map(|r| r.text.split_once("[UIDVALIDITY "));
        let uidvalidity = code.and_then(|(_, rest)| rest.split(']').next()?.parse().ok()).unwrap();
        view.mailboxes.insert(name.clone(), uidvalidity);
        let fetched = client.ok("UID FETCH 1:* (UID FLAGS INTERNALDATE BODY.PEEK[])").await;
        view.placed.extend(fetched.untagged.iter().filter_map(|r| fetched_message(&name, r)));
    }
    client.run("LOGOUT").await;
    view
}

fn fetched_message(mailbox: &str, response: &Response) -> Option<Placed> {
    let text = &response.text;
    let body = response.literals.last()?;
    let after = |word: &str, end: char| Some(text.split_once(word)?.1.split(end).next()?.to_owned());
    let mut flags: Vec<String> =
        after("FLAGS (", ')')?.split_whitespace().filter(|f| *f != "\\Recent").map(str::to_owned).collect();
    flags.sort();
    let date =
        DateTime::parse_from_str(after("INTERNALDATE \"", '"')?.trim(), "%e-%b-%Y %H:%M:%S %z").unwrap();
    Some(Placed {
        mailbox: mailbox.to_owned(),
        uid: after("UID ", ' ')?.trim_end_matches(')').parse().unwrap(),
        flags,
        date: kept(date.timestamp()),
        hash: hex::encode(Sha256::digest(body)),
    })
}

/// A date that Dovecot 2.3.19 gives back as it was given.
fn kept(seconds: i64) -> Option<i64> {
    const FROM_2037_12_31: i64 = 2_145_830_400;
    Some(seconds).filter(|at| (0..FROM_2037_12_31).contains(at))
}

const FLAGS: [(i16, &str); 5] =
    [(1, "\\Seen"), (2, "\\Answered"), (4, "\\Flagged"), (8, "\\Deleted"), (16, "\\Draft")];

/// What our rows say, whether our users may see it or not. The hash is that of the bytes stored, taken anew.
pub async fn ours(app: &App, account: &str) -> View {
    let account = Uuid::parse_str(account).unwrap();
    let mut view = View::default();
    let rows = sqlx::query(
        "SELECT convert_from(wire_name, 'UTF8') AS name, uidvalidity, selectable FROM mailboxes
             WHERE account_id = $1 AND id NOT IN (SELECT mailbox_id FROM mailbox_removals)",
    )
    .bind(account)
    .fetch_all(&app.behind)
    .await
    .unwrap();
    for row in rows {
        match row.get("selectable") {
            true => {
                let known = row.get::<Option<i64>, _>("uidvalidity").map_or(0, |v| u32::try_from(v).unwrap());
                view.mailboxes.insert(row.get("name"), known);
            }
            false => _ = view.noselect.insert(row.get("name")),
        }
    }
    let rows = sqlx::query(
        "SELECT convert_from(b.wire_name, 'UTF8') AS name, p.uid, p.flags, p.keywords, p.base_flags, p.base_keywords,
           floor(extract(epoch FROM p.internal_date))::bigint AS date, encode(sha256(l.raw), 'hex') AS hash,
           p.generation = b.generation AS current
         FROM message_mailboxes p JOIN mailboxes b ON b.id = p.mailbox_id JOIN messages m ON m.id = p.message_id
         JOIN blobs l ON l.tenant_id = m.tenant_id AND l.account_id = m.account_id AND l.hash = m.blob_hash
         WHERE p.account_id = $1",
    )
    .bind(account)
    .fetch_all(&app.behind)
    .await
    .unwrap();
    for row in rows {
        let words = |bits: &str, keywords: &str| {
            let bits: i16 = row.get(bits);
            let system = FLAGS.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| (*name).to_owned());
            let mut words: Vec<String> = system.chain(row.get::<Vec<String>, _>(keywords)).collect();
            words.sort();
            words
        };
        let uid = row.get::<Option<i64>, _>("uid").map_or(0, |uid| u32::try_from(uid).unwrap());
        let placed = Placed {
            mailbox: row.get("name"),
            uid,
            flags: words("flags", "keywords"),
            date: kept(row.get("date")),
            hash: row.get("hash"),
        };
        assert!(row.get::<bool, _>("current"), "of an earlier generation: {placed:?}");
        assert_eq!(words("base_flags", "base_keywords"), placed.flags, "not pushed: {placed:?}");
        view.placed.insert(placed);
    }
    view
}

/// The first few of what one side has and the other lacks.
fn assert_same<T: Ord + Debug>(what: &str, theirs: &BTreeSet<T>, ours: &BTreeSet<T>) {
    let missing: Vec<_> = theirs.difference(ours).take(5).collect();
    let extra: Vec<_> = ours.difference(theirs).take(5).collect();
    assert!(missing.is_empty() && extra.is_empty(), "{what}: missing {missing:#?}, extra {extra:#?}");
}

/// Asserts that our rows are what another client reads, and that the API lists and counts the same.
///
/// # Panics
/// With the first differences.
pub async fn agrees(app: &App, tenant: &Tenant, account: &str, user: &str) {
    let rows = rows_agree(app, account, user).await;
    shown(app, tenant, account, &rows).await;
}

/// The first half of [`agrees`]; returns the rows.
///
/// # Panics
/// With the first differences.
pub async fn rows_agree(app: &App, account: &str, user: &str) -> View {
    at_rest(app, account).await;
    let (theirs, ours) = (server(app, user).await, ours(app, account).await);
    assert_same("mailboxes", &theirs.mailboxes.keys().collect(), &ours.mailboxes.keys().collect());
    assert_same("mailboxes without messages", &theirs.noselect, &ours.noselect);
    assert_same("messages", &theirs.placed, &ours.placed);
    assert_same("UIDVALIDITY", &theirs.mailboxes.iter().collect(), &ours.mailboxes.iter().collect());
    ours
}

/// What clients see: counts of each mailbox, and as many messages in its list.
async fn shown(app: &App, tenant: &Tenant, account: &str, rows: &View) {
    let mut mailboxes = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/api/accounts/{account}/mailboxes?limit=200{cursor}");
        let page = app.get(tenant, &path).await.expect(200);
        mailboxes.extend(page["data"].as_array().unwrap().iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(mailboxes.len(), rows.mailboxes.len() + rows.noselect.len());
    let hidden = hidden(app, account).await;
    for mailbox in mailboxes {
        let wire = mail_name(&mailbox);
        let here =
            || rows.placed.iter().filter(|p| p.mailbox == wire && !hidden.contains(&(wire.clone(), p.uid)));
        let unread = here().filter(|p| !p.flags.contains(&"\\Seen".to_owned())).count();
        assert_eq!(
            (mailbox["total"].as_u64(), mailbox["unread"].as_u64()),
            (Some(here().count() as u64), Some(unread as u64)),
            "{mailbox}"
        );
        assert_eq!(
            listed_by_api(app, tenant, account, mailbox["id"].as_str().unwrap()).await,
            here().count()
        );
    }
}

async fn listed_by_api(app: &App, tenant: &Tenant, account: &str, mailbox: &str) -> usize {
    let (mut count, mut cursor) = (0, String::new());
    loop {
        let path = format!("/api/accounts/{account}/messages?mailbox_id={mailbox}&limit=200{cursor}");
        let page = app.get(tenant, &path).await.expect(200);
        count += page["data"].as_array().unwrap().len();
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return count,
        }
    }
}

fn mail_name(mailbox: &Value) -> String {
    let path = mailbox["path"].as_str().unwrap();
    ::mail::mailbox::encode_name(path).unwrap()
}

/// Placements that the server keeps, marked `\Deleted`, and our user deleted or moved away.
async fn hidden(app: &App, account: &str) -> BTreeSet<(String, u32)> {
    let rows = sqlx::query(
        "SELECT convert_from(b.wire_name, 'UTF8') AS name, p.uid, p.marked OR EXISTS (
           SELECT 1 FROM edits e WHERE e.message_id = p.message_id) AS goes
         FROM message_mailboxes p JOIN mailboxes b ON b.id = p.mailbox_id
         WHERE p.account_id = $1 AND p.hidden_at IS NOT NULL AND p.uid IS NOT NULL",
    )
    .bind(Uuid::parse_str(account).unwrap())
    .fetch_all(&app.behind)
    .await
    .unwrap();
    let name = |r: &sqlx::postgres::PgRow| (r.get("name"), u32::try_from(r.get::<i64, _>("uid")).unwrap());
    let lost: Vec<(String, u32)> = rows.iter().filter(|r| !r.get::<bool, _>("goes")).map(name).collect();
    assert!(lost.is_empty(), "nobody sees these and nobody deletes them: {lost:?}");
    rows.iter().map(name).collect()
}

/// What was told of a message so far and where it is, for the message of a test that fails.
pub async fn history(app: &App, message: Uuid) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT concat_ws(' ', created_at::time, kind, data) FROM events WHERE object_id = $1
         UNION ALL SELECT concat_ws(' ', 'in', b.path, p.uid, p.created_at::time) FROM message_mailboxes p
           JOIN mailboxes b ON b.id = p.mailbox_id WHERE p.message_id = $1
         UNION ALL SELECT concat_ws(' ', 'gone', gone_at::time) FROM messages WHERE id = $1
         UNION ALL SELECT concat_ws(' ', 'mailbox', id, path) FROM mailboxes",
    )
    .bind(message)
    .fetch_all(&app.behind)
    .await
    .unwrap()
}

/// Waits until no round and no push of the account waits or is under way.
pub async fn at_rest(app: &App, account: &str) {
    eventually("nothing is left to do", Duration::from_secs(60), async || {
        let busy: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM jobs WHERE kind IN ('sync_account', 'push_changes')
                            AND state IN ('ready', 'running') AND dedupe_key = $1)",
        )
        .bind(account)
        .fetch_one(&app.behind)
        .await
        .unwrap();
        (!busy).then_some(())
    })
    .await;
}

/// Everything a round may write but the times it looked: the rows of each table.
const ROWS: [(&str, &str); 6] = [
    ("placements", "SELECT concat_ws(' ', id, xmin) FROM message_mailboxes ORDER BY id"),
    (
        "mailboxes",
        "SELECT concat_ws(' ', id, wire_name, 'generation', generation, 'uidvalidity', uidvalidity, 'uidnext', uidnext, 'head', head_uid,
           'tail', tail_uid, 'modseq', modseq, 'exists', exists_seen, total, unread, role, subscribed, selectable, state, cause_code)
         FROM mailboxes ORDER BY id",
    ),
    ("messages", "SELECT concat_ws(' ', id, thread_id, blob_hash, gone_at) FROM messages WHERE gone_at IS NULL ORDER BY id"),
    ("pending changes", "SELECT concat_ws(' ', id, kind) FROM pending_changes ORDER BY id"),
    // Those of a message that is nowhere sleep, and go with it when its time is over.
    (
        "edits",
        "SELECT concat_ws(' ', e.id, e.kind, e.state) FROM edits e JOIN messages m ON m.id = e.message_id WHERE m.gone_at IS NULL ORDER BY e.id",
    ),
    ("events", "SELECT concat_ws(' ', kind, object_id, data) FROM events ORDER BY position"),
];

/// Counts each batch of bodies that is asked for from now on: all are noted in `ingest_batches` before.
const COUNT_FETCHES: &str = "
    CREATE TABLE IF NOT EXISTS counted_fetches (uids text);
    CREATE OR REPLACE FUNCTION count_fetch() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
      $$ BEGIN INSERT INTO public.counted_fetches VALUES (NEW.uids); RETURN NULL; END $$;
    CREATE OR REPLACE TRIGGER count_fetch AFTER INSERT OR UPDATE ON ingest_batches FOR EACH ROW EXECUTE FUNCTION count_fetch();
    TRUNCATE counted_fetches";

/// [`agrees`], and then one more round, which must find nothing to do: no row is written, no event told, no body asked
/// for.
///
/// # Panics
/// When it is not so.
pub async fn settled(app: &App, tenant: &Tenant, account: &str, user: &str) {
    agrees(app, tenant, account, user).await;
    app.behind.execute(COUNT_FETCHES).await.unwrap();
    let before = rows(app).await;
    mail::synchronise(app, tenant, account).await;
    at_rest(app, account).await;
    for ((what, before), (_, after)) in before.into_iter().zip(rows(app).await) {
        if before != after {
            let set = |rows: Vec<String>| rows.into_iter().collect::<BTreeSet<_>>();
            assert_same(
                &format!("a second round found something to do to {what}"),
                &set(before),
                &set(after),
            );
            panic!("a second round told the same again");
        }
    }
    let asked: Vec<String> =
        sqlx::query_scalar("SELECT uids FROM counted_fetches").fetch_all(&app.behind).await.unwrap();
    assert!(asked.is_empty(), "a second round asked for the bodies of {asked:?}");
}

async fn rows(app: &App) -> Vec<(&'static str, Vec<String>)> {
    let mut found = Vec::new();
    for (table, sql) in ROWS {
        found.push((table, sqlx::query_scalar(sql).fetch_all(&app.behind).await.unwrap()));
    }
    found
}

/// The event log of an account from one moment on.
pub struct Events {
    account: Uuid,
    after: i64,
}

impl Events {
    /// From now on.
    pub async fn from_now(app: &App, account: &str) -> Self {
        let last: Option<i64> =
            sqlx::query_scalar("SELECT max(position) FROM events").fetch_one(&app.behind).await.unwrap();
        Self { account: Uuid::parse_str(account).unwrap(), after: last.unwrap_or(0) }
    }

    /// Kinds and objects of what was told of messages and mailboxes since, in order.
    pub async fn told(&self, app: &App) -> Vec<(String, String)> {
        let rows = sqlx::query(
            "SELECT kind, object_id FROM events WHERE account_id = $1 AND position > $2 AND kind ~ '^(message|mailbox)[.]' ORDER BY position",
        )
        .bind(self.account)
        .bind(self.after)
        .fetch_all(&app.behind)
        .await
        .unwrap();
        rows.iter().map(|r| (r.get("kind"), r.get::<Uuid, _>("object_id").to_string())).collect()
    }

    /// The kinds alone, sorted.
    pub async fn kinds(&self, app: &App) -> Vec<String> {
        let mut kinds: Vec<String> = self.told(app).await.into_iter().map(|(kind, _)| kind).collect();
        kinds.sort();
        kinds
    }
}
