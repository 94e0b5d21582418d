//! Which conversation new messages join: by the ids they name (RFC 5322 §3.6.4), whatever mailbox they are in.
//!
//! A message that names ids of two conversations makes them one; the older thread stays. Only messages that are new to
//! the account come here. How ids are read out of headers is `mail::thread`; here keys are opaque.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, Utc};
use mail::thread::Placement;
use uuid::Uuid;

use super::prepare::key_of;
use crate::domain::event::{self, Event, MessagePart, MessageUpdated, ThreadMerged};
use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{AccountId, MessageId, ThreadId};

/// What threading needs to know of a new message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Joining<'a> {
    /// Its own id's first, if that tells anything.
    pub keys: &'a [[u8; 16]],
    /// Where `keys` is the server's: what the headers make of it.
    pub header_keys: &'a [[u8; 16]],
    pub message_id_header: Option<&'a str>,
    pub subject: Option<&'a str>,
    pub sort_at: DateTime<Utc>,
}

/// Threads to be made, kept and merged, as decided by [`group`].
#[derive(Debug, Default)]
struct Grouping {
    /// Thread of each message, in order.
    of_message: Vec<Uuid>,
    /// Threads that are new.
    made: Vec<Uuid>,
    /// `(absorbed, into)`.
    merged: Vec<(Uuid, Uuid)>,
    /// Keys and their thread, for keys that are new.
    keys: Vec<([u8; 16], Uuid)>,
}

/// Finds or makes the thread of each message, merging threads that turn out to be one. `backfill`: old mail, as its events say.
pub(super) async fn assign(
    tx: &mut TenantTx,
    account: AccountId,
    messages: &[Joining<'_>],
    backfill: bool,
) -> Result<Vec<Uuid>, DbError> {
    if messages.is_empty() {
        return Ok(Vec::new());
    }
    let known = known_threads(tx, account, messages).await?;
    let without_ids = without_ids(tx, messages, &known).await?;
    let wider = with_header_keys(messages, &known, &without_ids);
    let borrowed = borrowed_ids(tx, account, messages, &known).await?;
    let joining: Vec<Joining<'_>> = messages
        .iter()
        .enumerate()
        .map(|(n, m)| match wider.get(&n) {
            Some(keys) => Joining { keys, ..*m },
            None if borrowed.contains(&n) => m.without_own_key(),
            None => *m,
        })
        .collect();
    let grouping = group(&joining, &known, || ThreadId::new().0);
    store(tx, account, &joining, &grouping).await?;
    merge(tx, account, &grouping.merged, backfill).await?;
    Ok(grouping.of_message)
}

impl Joining<'_> {
    /// The key of its own Message-ID, if that tells anything.
    fn own_key(&self) -> Option<[u8; 16]> {
        let own = key_of(self.message_id_header?);
        self.keys.first().copied().filter(|first| Some(*first) == own)
    }

    fn without_own_key(&self) -> Self {
        Self { keys: self.keys.get(1..).unwrap_or_default(), ..*self }
    }
}

/// The messages, by their place, whose Message-ID belongs to another one of the account: some programs write the same one into
/// all that they send, and strangers' threads must not become one by that. Another message is one with another subject; list
/// tags and marks of answers do not count, so that a copy by way of a list is the same.
async fn borrowed_ids(
    tx: &mut TenantTx,
    account: AccountId,
    messages: &[Joining<'_>],
    known: &HashMap<[u8; 16], Uuid>,
) -> Result<HashSet<usize>, DbError> {
    // Few: of those that answer nothing, the ones that are known already.
    let begins = |m: &Joining<'_>| m.keys.len() == 1 && m.own_key().is_some();
    let asked: Vec<&str> = messages
        .iter()
        .filter(|m| begins(m) && m.own_key().is_some_and(|k| known.contains_key(&k)))
        .filter_map(|m| m.message_id_header)
        .collect();
    let mut subjects: HashMap<String, String> = HashMap::new();
    if !asked.is_empty() {
        let rows: Vec<(String, Option<String>)> = sqlx::query_as(
            "SELECT DISTINCT ON (message_id_header) message_id_header, subject FROM messages
             WHERE tenant_id = $1 AND account_id = $2 AND message_id_header = ANY ($3) ORDER BY message_id_header, id",
        )
        .bind(tx.tenant())
        .bind(account)
        .bind(asked)
        .fetch_all(tx.conn())
        .await?;
        let base = |subject: Option<String>| mail::thread::base_subject(&subject.unwrap_or_default());
        subjects.extend(rows.into_iter().map(|(id, subject)| (id, base(subject))));
    }
    let mut borrowed = HashSet::new();
    for (n, message) in messages.iter().enumerate() {
        let Some(id) = message.message_id_header else { continue };
        let own = message.subject.unwrap_or_default();
        let first = subjects.entry(id.to_owned()).or_insert_with(|| own.to_owned());
        if begins(message) && first != own {
            borrowed.insert(n);
        }
    }
    Ok(borrowed)
}

async fn known_threads(
    tx: &mut TenantTx,
    account: AccountId,
    messages: &[Joining<'_>],
) -> Result<HashMap<[u8; 16], Uuid>, DbError> {
    let keys = messages.iter().flat_map(|m| m.keys.iter().chain(m.header_keys));
    let keys: Vec<&[u8]> = keys.map(<[u8; 16]>::as_slice).collect();
    let rows: Vec<(Vec<u8>, Uuid)> = sqlx::query_as(
        "SELECT key, thread_id FROM thread_keys WHERE tenant_id = $1 AND account_id = $2 AND key = ANY ($3)",
    )
    .bind(tx.tenant())
    .bind(account)
    .bind(keys)
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().filter_map(|(key, thread)| Some((key.try_into().ok()?, thread))).collect())
}

/// Of the threads that messages name by their headers alone, because the server's key is new here: those in which no message
/// has an id of the server, which were stored before it told any.
async fn without_ids(
    tx: &mut TenantTx,
    messages: &[Joining<'_>],
    known: &HashMap<[u8; 16], Uuid>,
) -> Result<HashSet<Uuid>, DbError> {
    let begins = messages.iter().filter(|m| !m.keys.iter().any(|k| known.contains_key(k)));
    let named: HashSet<Uuid> =
        begins.flat_map(|m| m.header_keys).filter_map(|k| known.get(k)).copied().collect();
    if named.is_empty() {
        return Ok(HashSet::new());
    }
    let rows: Vec<Uuid> = sqlx::query_scalar(
        "SELECT t.id FROM unnest($2::uuid[]) AS t(id) WHERE NOT EXISTS (
           SELECT 1 FROM messages WHERE tenant_id = $1 AND thread_id = t.id AND email_id IS NOT NULL)",
    )
    .bind(tx.tenant())
    .bind(named.into_iter().collect::<Vec<_>>())
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().collect())
}

/// The keys of those messages, by their place, that join such a thread by their headers. One thread becomes one conversation
/// of the server, the first that names it.
fn with_header_keys(
    messages: &[Joining<'_>],
    known: &HashMap<[u8; 16], Uuid>,
    without_ids: &HashSet<Uuid>,
) -> HashMap<usize, Vec<[u8; 16]>> {
    let mut taken: HashMap<Uuid, &[[u8; 16]]> = HashMap::new();
    let mut wider = HashMap::new();
    for (n, message) in messages.iter().enumerate() {
        // Its own id alone may be a borrowed one, and the server knows better.
        let own = message.message_id_header.and_then(key_of);
        let answers_none = matches!(message.header_keys, [only] if Some(*only) == own);
        if answers_none || message.keys.iter().any(|k| known.contains_key(k)) {
            continue;
        }
        let mut keys = message.keys.to_vec();
        for key in message.header_keys {
            let Some(thread) = known.get(key).filter(|thread| without_ids.contains(thread)) else { continue };
            if *taken.entry(*thread).or_insert(message.keys) == message.keys {
                keys.push(*key);
            }
        }
        if keys.len() > message.keys.len() {
            wider.insert(n, keys);
        }
    }
    wider
}

/// Unites messages over their keys. `new_id` makes ids of new threads.
fn group(
    messages: &[Joining<'_>],
    known: &HashMap<[u8; 16], Uuid>,
    mut new_id: impl FnMut() -> Uuid,
) -> Grouping {
    let mut of_key: HashMap<[u8; 16], Uuid> = HashMap::new();
    // Thread → the one it became part of.
    let mut became: HashMap<Uuid, Uuid> = HashMap::new();
    let root = |became: &HashMap<Uuid, Uuid>, mut id: Uuid| {
        while let Some(next) = became.get(&id) {
            id = *next;
        }
        id
    };
    let mut made = Vec::new();
    let mut chosen = Vec::with_capacity(messages.len());
    for message in messages {
        let named = message.keys.iter().filter_map(|k| of_key.get(k).or_else(|| known.get(k)));
        let found: Vec<Uuid> = named.map(|id| root(&became, *id)).collect();
        let thread = match mail::thread::merge(&found) {
            Placement::New => {
                let id = new_id();
                made.push(id);
                id
            }
            Placement::Join(id) => id,
            Placement::Merge { into, absorbed } => {
                became.extend(absorbed.into_iter().map(|id| (id, into)));
                into
            }
        };
        for key in message.keys {
            of_key.entry(*key).or_insert(thread);
        }
        chosen.push(thread);
    }
    let of_message = chosen.into_iter().map(|id| root(&became, id)).collect();
    let (mut merged, mut fresh): (Vec<_>, Vec<Uuid>) = (Vec::new(), Vec::new());
    for id in became.keys().filter(|id| !made.contains(id)) {
        merged.push((*id, root(&became, *id)));
    }
    fresh.extend(made.iter().filter(|id| !became.contains_key(id)));
    let keys = of_key.iter().filter(|(k, _)| !known.contains_key(*k));
    let keys = keys.map(|(k, id)| (*k, root(&became, *id))).collect();
    Grouping { of_message, made: fresh, merged, keys }
}

async fn store(
    tx: &mut TenantTx,
    account: AccountId,
    messages: &[Joining<'_>],
    grouping: &Grouping,
) -> Result<(), DbError> {
    let mut newest: BTreeMap<Uuid, (DateTime<Utc>, Option<&str>)> = BTreeMap::new();
    for (message, thread) in messages.iter().zip(&grouping.of_message) {
        let entry = newest.entry(*thread).or_insert((message.sort_at, message.subject));
        entry.0 = entry.0.max(message.sort_at);
    }
    let ids: Vec<Uuid> = newest.keys().copied().collect();
    let dates: Vec<DateTime<Utc>> = newest.values().map(|v| v.0).collect();
    let subjects: Vec<Option<&str>> = newest.values().map(|v| v.1).collect();
    let (keys, threads): (Vec<&[u8]>, Vec<Uuid>) =
        grouping.keys.iter().map(|(k, t)| (k.as_slice(), *t)).unzip();
    // Existing threads only move forward in time; new ones are inserted with their first message's subject.
    sqlx::query(
        "WITH t AS (SELECT * FROM unnest($3::uuid[], $4::timestamptz[], $5::text[]) AS t(id, at, subject)),
              made AS (INSERT INTO threads (tenant_id, id, account_id, subject, last_message_at)
                       SELECT $1, t.id, $2, t.subject, t.at FROM t WHERE t.id = ANY ($6)),
              named AS (INSERT INTO thread_keys (tenant_id, account_id, key, thread_id)
                        SELECT $1, $2, k.key, k.thread FROM unnest($7::bytea[], $8::uuid[]) AS k(key, thread)
                        ON CONFLICT DO NOTHING)
         UPDATE threads o SET last_message_at = t.at FROM t
         WHERE o.tenant_id = $1 AND o.id = t.id AND o.last_message_at < t.at",
    )
    .bind(tx.tenant())
    .bind(account)
    .bind(ids)
    .bind(dates)
    .bind(subjects)
    .bind(&grouping.made)
    .bind(keys)
    .bind(threads)
    .execute(tx.conn())
    .await?;
    Ok(())
}

async fn merge(
    tx: &mut TenantTx,
    account: AccountId,
    merged: &[(Uuid, Uuid)],
    backfill: bool,
) -> Result<(), DbError> {
    if merged.is_empty() {
        return Ok(());
    }
    let (from, into): (Vec<Uuid>, Vec<Uuid>) = merged.iter().copied().unzip();
    let moved: Vec<(MessageId, ThreadId, ThreadId)> = sqlx::query_as(
        "WITH seen AS (
           SELECT o.id, m.from_id FROM messages o JOIN unnest($2::uuid[], $3::uuid[]) AS m(from_id, into_id) ON o.thread_id = m.from_id
           WHERE o.tenant_id = $1 AND o.gone_at IS NULL),
         moved AS (
           UPDATE messages o SET thread_id = m.into_id FROM unnest($2::uuid[], $3::uuid[]) AS m(from_id, into_id)
           WHERE o.tenant_id = $1 AND o.thread_id = m.from_id RETURNING o.id, o.thread_id)
         SELECT o.id, s.from_id, o.thread_id FROM moved o JOIN seen s ON s.id = o.id ORDER BY o.id",
    )
    .bind(tx.tenant())
    .bind(&from)
    .bind(&into)
    .fetch_all(tx.conn())
    .await?;
    // A thread without a message in sight was known to nobody.
    let seen: BTreeMap<ThreadId, ThreadId> = moved.iter().map(|(_, from, into)| (*from, *into)).collect();
    let changed = |(id, ..): &(MessageId, ThreadId, ThreadId)| {
        Event::from(MessageUpdated { id: *id, changed: vec![MessagePart::Thread] })
    };
    let merged = seen.into_iter().map(|(id, into)| ThreadMerged { id, into }.into());
    let events: Vec<Event> = moved.iter().map(changed).chain(merged).collect();
    if backfill {
        event::record_backfill(tx, account, &events);
    } else {
        event::record(tx, account, &events);
    }
    // Those of mailboxes that are being removed follow, and nothing is told of them.
    let hidden = tx.unhide().await?;
    for statement in [
        "UPDATE messages o SET thread_id = m.into_id FROM unnest($2::uuid[], $3::uuid[]) AS m(from_id, into_id)
         WHERE o.tenant_id = $1 AND o.thread_id = m.from_id",
        "UPDATE thread_keys o SET thread_id = m.into_id FROM unnest($2::uuid[], $3::uuid[]) AS m(from_id, into_id)
         WHERE o.tenant_id = $1 AND o.thread_id = m.from_id",
        "UPDATE threads o SET last_message_at = greatest(o.last_message_at, g.at)
         FROM (SELECT m.into_id, max(t.last_message_at) AS at
               FROM unnest($2::uuid[], $3::uuid[]) AS m(from_id, into_id)
               JOIN threads t ON t.tenant_id = $1 AND t.id = m.from_id GROUP BY 1) g
         WHERE o.tenant_id = $1 AND o.id = g.into_id",
        "DELETE FROM threads o USING unnest($2::uuid[], $3::uuid[]) AS m(from_id, into_id)
         WHERE o.tenant_id = $1 AND o.id = m.from_id",
    ] {
        sqlx::query(statement).bind(tx.tenant()).bind(&from).bind(&into).execute(tx.conn()).await?;
    }
    tx.hide_again(hidden).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joining(keys: &[[u8; 16]]) -> Joining<'_> {
        Joining {
            keys,
            header_keys: &[],
            message_id_header: None,
            subject: None,
            sort_at: DateTime::UNIX_EPOCH,
        }
    }

    fn ids() -> impl FnMut() -> Uuid {
        let mut n = 1000;
        move || {
            n += 1;
            Uuid::from_u128(n)
        }
    }

    #[test]
    fn messages_that_share_an_id_share_a_thread_and_others_do_not() {
        let (a, b) = ([1; 16], [2; 16]);
        let g = group(&[joining(&[a]), joining(&[b]), joining(&[a]), joining(&[])], &HashMap::new(), ids());
        assert_eq!(g.of_message[0], g.of_message[2]);
        assert_ne!(g.of_message[0], g.of_message[1]);
        assert_eq!(g.made.len(), 3);
        assert!(g.merged.is_empty());
    }

    #[test]
    fn headers_lead_to_what_was_stored_before_the_server_told_its_ids_and_to_nothing_else() {
        let (told, other, old, new) = ([1; 16], [2; 16], [3; 16], [4; 16]);
        let (before, since) = (Uuid::from_u128(5), Uuid::from_u128(6));
        let known = HashMap::from([(old, before), (new, since)]);
        let headers = [old, new];
        let of = |keys| Joining { header_keys: &headers, ..joining(keys) };
        let (first, second) = ([told], [other]);
        let messages = [of(&first), of(&second), of(&first)];
        let wider = with_header_keys(&messages, &known, &HashSet::from([before]));
        assert_eq!(wider, HashMap::from([(0, vec![told, old]), (2, vec![told, old])]));
        let known = HashMap::from([(old, before), (told, since)]);
        assert!(with_header_keys(&messages[..1], &known, &HashSet::from([before])).is_empty());
    }

    #[test]
    fn a_reply_that_names_two_known_threads_merges_them_into_the_older() {
        let (a, b) = ([1; 16], [2; 16]);
        let known = HashMap::from([(a, Uuid::from_u128(7)), (b, Uuid::from_u128(5))]);
        let g = group(&[joining(&[a]), joining(&[a, b])], &known, ids());
        assert_eq!(g.of_message, [Uuid::from_u128(5); 2]);
        assert_eq!(g.merged, [(Uuid::from_u128(7), Uuid::from_u128(5))]);
        assert!(g.made.is_empty() && g.keys.is_empty());
    }

    #[test]
    fn a_thread_made_and_merged_in_one_batch_is_never_stored() {
        let (a, b) = ([1; 16], [2; 16]);
        let known = HashMap::from([(b, Uuid::from_u128(5))]);
        let g = group(&[joining(&[a]), joining(&[a, b])], &known, ids());
        assert_eq!(g.of_message, [Uuid::from_u128(5); 2]);
        assert!(g.made.is_empty() && g.merged.is_empty());
        assert_eq!(g.keys, [(a, Uuid::from_u128(5))]);
    }
}
