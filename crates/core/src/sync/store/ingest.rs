//! Messages that arrived, stored in a dozen statements however many they are.
//!
//! Bytes, messages, conversations, placements, events and the job that makes them searchable. The checkpoint that
//! vouches for the batch is written by the caller in the same transaction. Storing a UID again is harmless.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use chrono::{DateTime, Utc};
use mail::flags::Flags;
use mail::uid::{Uid, UidSet};
use sqlx::{AssertSqlSafe, Row as _};
use uuid::Uuid;

use super::flags::{self, FlagState};
use super::resolve::{Candidate, Decision, Resolver, Seat, key_of};
use super::thread::{self, Joining};
use super::vanish::over;
use super::{Prepared, Target, bytes, sort_date};
use crate::domain::edits;
use crate::domain::event::{self, Event, MessageCreated, MessagePart, MessageUpdated};
use crate::domain::search::{self, index::Entry};
use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{MessageId, PlacementId};
use crate::queue::job::{Job, enqueue};

fn date_sort(arrival: &Prepared) -> DateTime<Utc> {
    sort_date(arrival.content.date.unwrap_or(arrival.internal_date))
}

/// What a batch came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ingested {
    /// Messages the account did not have.
    pub created: usize,
    /// Arrivals that were one of its messages: moved, copied, or after a new UIDVALIDITY.
    pub linked: usize,
    /// UIDs that were stored before.
    pub known: usize,
    /// UIDs of this mailbox whose messages have the bytes of one that was created: it may be the same, moved away and back.
    pub twins: UidSet,
    /// UIDs of messages that were here and are not any more: they were not stored, and their bytes are to be fetched.
    pub left_out: UidSet,
}

/// What the events of a batch say of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    /// It is news.
    New,
    /// Messages that are new to us are old mail; a further place of one that was here is news.
    Old,
    /// The account is read for the first time: all of it is old.
    First,
}

/// A placement to be inserted.
struct NewPlacement<'a> {
    message: Uuid,
    arrival: &'a Prepared,
    /// Of a message that is new with it; else a trigger copies the message's, one row at a time.
    date_sort_at: Option<DateTime<Utc>>,
}

/// A placement that gets its UID.
struct Seated<'a> {
    placement: Uuid,
    message: Uuid,
    /// The server keeps it as `\Deleted`, and our user does not see it.
    marked: bool,
    arrival: &'a Prepared,
}

/// Stores `batch`, in order of arrival; `ahead` is what [`bytes::store_ahead`] said of it.
///
/// Messages whose text was prepared are searchable at once; for the others a job is enqueued.
pub async fn ingest(
    tx: &mut TenantTx,
    target: &Target,
    batch: &[Prepared],
    ahead: &bytes::New,
    age: Age,
) -> Result<Ingested, DbError> {
    if batch.is_empty() {
        return Ok(Ingested::default());
    }
    let backfill = age != Age::New;
    let known = known_uids(tx, target, batch).await?;
    let mut seen = HashSet::new();
    let fresh: Vec<&Prepared> =
        batch.iter().filter(|p| !known.contains(&i64::from(p.uid)) && seen.insert(p.uid)).collect();
    let maybe_known: Vec<&Prepared> = fresh.iter().filter(|p| !ahead.has(p)).copied().collect();
    let candidates = candidates(tx, target, &maybe_known).await?;
    let mut resolver = Resolver::new(target.mailbox.0, target.generation, candidates);
    let mut arrivals = Arrivals::default();
    let (mut events, mut created, mut twins) = (Vec::new(), Vec::new(), BTreeSet::new());
    let mut left_out = BTreeSet::new();
    for arrival in fresh {
        let key = key_of(&arrival.hash, arrival.email_id.as_deref());
        match resolver.decide(&key, arrival.flags.contains(Flags::DELETED)) {
            Decision::Seat { placement, message, marked } => {
                arrivals.seated.push(Seated { placement, message, marked, arrival });
            }
            Decision::Place { message, revived } => {
                arrivals.placed.push((NewPlacement { message, arrival, date_sort_at: None }, revived));
            }
            Decision::New if arrival.known => _ = left_out.insert(arrival.uid),
            Decision::New => {
                twins.extend(resolver.twins(&key).filter_map(|uid| Uid::try_from(uid).ok()));
                let message = MessageId::new().0;
                created.push(is_seen(target, message));
                arrivals.new.push((message, arrival));
            }
        }
    }
    let linked = arrivals.placed.len() + arrivals.seated.len();
    let (twins, left_out) = (twins.into_iter().collect(), left_out.into_iter().collect());
    let done = Ingested { created: arrivals.new.len(), linked, known: known.len(), twins, left_out };
    learn_ids(tx, &arrivals).await?;
    fold(tx, target, &mut arrivals).await?;
    let Arrivals { new, placed, seated } = arrivals;
    let arrived: Vec<&Prepared> = new.iter().map(|(_, p)| *p).filter(|p| !ahead.has(p)).collect();
    bytes::store(tx, target, &arrived).await?;
    insert_messages(tx, target, &new, backfill).await?;
    let mut placements: Vec<NewPlacement<'_>> = new
        .iter()
        .map(|(message, arrival)| NewPlacement {
            message: *message,
            arrival,
            date_sort_at: Some(date_sort(arrival)),
        })
        .collect();
    for (placement, revived) in placed {
        events.push(if revived {
            is_seen(target, placement.message)
        } else {
            MessageUpdated { id: placement.message.into(), changed: vec![MessagePart::Mailboxes] }.into()
        });
        placements.push(placement);
    }
    insert_placements(tx, target, &placements).await?;
    seat_placements(tx, target, &seated).await?;
    if backfill {
        event::record_backfill(tx, target.account, &created);
    } else {
        event::record(tx, target.account, &created);
    }
    // What was here before is news, whichever mailbox it is found in, unless all of it is being found for the first time.
    if age == Age::First {
        event::record_backfill(tx, target.account, &events);
    } else {
        event::record(tx, target.account, &events);
    }
    index(tx, target, &new).await?;
    Ok(done)
}

/// What a batch turned out to be.
#[derive(Default)]
struct Arrivals<'a> {
    /// Messages the account did not have.
    new: Vec<(Uuid, &'a Prepared)>,
    /// Further placements of its messages; `true`: of one that was in no mailbox.
    placed: Vec<(NewPlacement<'a>, bool)>,
    /// Placements that get their UID.
    seated: Vec<Seated<'a>>,
}

/// Arrivals of messages with edits, and of what is marked: what is shown of them is folded anew. They are taken out of
/// `arrivals`.
async fn fold(tx: &mut TenantTx, target: &Target, arrivals: &mut Arrivals<'_>) -> Result<(), DbError> {
    let known =
        arrivals.placed.iter().map(|(p, _)| p.message).chain(arrivals.seated.iter().map(|s| s.message));
    let known: Vec<Uuid> = known.collect();
    let mut folded = edits::edited(tx, target.account, &known).await?;
    folded.extend(arrivals.seated.iter().filter(|s| s.marked).map(|s| s.message));
    if folded.is_empty() {
        return Ok(());
    }
    let mut works = edits::load(tx, target.account, &folded).await?;
    let at = |arrival: &Prepared| edits::Arrived {
        mailbox: target.mailbox,
        uid: arrival.uid,
        internal_date: arrival.internal_date,
        sort_at: sort_date(arrival.internal_date),
        modseq: arrival.modseq,
    };
    let flags = |arrival: &Prepared| mail::sync::FlagState {
        flags: arrival.flags,
        keywords: arrival.keywords.clone(),
    };
    arrivals.placed.retain(|(placed, _)| {
        let Ok(n) = works.binary_search_by_key(&placed.message, |w| w.id.0) else { return true };
        if let Some(work) = works.get_mut(n) {
            work.arrived(at(placed.arrival), flags(placed.arrival));
        }
        false
    });
    arrivals.seated.retain(|seated| {
        let Ok(n) = works.binary_search_by_key(&seated.message, |w| w.id.0) else { return true };
        if let Some(work) = works.get_mut(n) {
            // A row without UID is an edit's: it is taken by what arrives.
            if work.message.server.iter().any(|h| h.row == Some(seated.placement.as_u128())) {
                work.found_again(seated.placement, at(seated.arrival), flags(seated.arrival));
            } else {
                work.arrived(at(seated.arrival), flags(seated.arrival));
            }
        }
        false
    });
    edits::save(tx, target.account, &works).await.map(drop)
}

fn is_seen(target: &Target, message: Uuid) -> Event {
    MessageCreated { id: message.into(), mailbox_id: target.mailbox }.into()
}

/// Those of the batch that are stored already. Asked for by ranges: a batch of a backfill is one, and its answer empty.
async fn known_uids(tx: &mut TenantTx, target: &Target, batch: &[Prepared]) -> Result<HashSet<i64>, DbError> {
    let mut uids: Vec<Uid> = batch.iter().map(|p| p.uid).collect();
    uids.sort_unstable();
    let uids: UidSet = uids.into_iter().collect();
    let (first, last): (Vec<i64>, Vec<i64>) =
        uids.ranges().map(|(a, b)| (i64::from(a), i64::from(b))).unzip();
    // Range by range, whatever the planner takes the table for.
    let known: Vec<i64> = sqlx::query_scalar(
        "SELECT p.uid FROM unnest($4::bigint[], $5::bigint[]) AS r(first, last)
         CROSS JOIN LATERAL (
           SELECT uid FROM message_mailboxes WHERE tenant_id = $1 AND mailbox_id = $2 AND generation = $3
             AND uid BETWEEN r.first AND r.last OFFSET 0) p",
    )
    .bind(tx.tenant())
    .bind(target.mailbox)
    .bind(target.generation)
    .bind(first)
    .bind(last)
    .fetch_all(tx.conn())
    .await?;
    Ok(known.into_iter().collect())
}

/// Messages that were stored before the server told its ids get theirs, and their conversations too.
async fn learn_ids(tx: &mut TenantTx, arrivals: &Arrivals<'_>) -> Result<(), DbError> {
    let placed = arrivals.placed.iter().map(|(p, _)| (p.message, p.arrival));
    let known = placed.chain(arrivals.seated.iter().map(|s| (s.message, s.arrival)));
    let told: Vec<(Uuid, &Prepared)> = known.filter(|(_, a)| !a.known && a.email_id.is_some()).collect();
    let messages: Vec<Uuid> = told.iter().map(|(m, _)| *m).collect();
    let key = |a: &Prepared| a.content.thread_keys.first().map(|key| key.to_vec());
    if !messages.is_empty() {
        sqlx::query(
            "WITH told AS (
               UPDATE messages m SET email_id = n.id FROM unnest($2::uuid[], $3::text[], $4::bytea[]) AS n(message, id, key)
               WHERE m.tenant_id = $1 AND m.id = n.message AND m.email_id IS NULL RETURNING m.account_id, m.thread_id, n.key)
             INSERT INTO thread_keys (tenant_id, account_id, key, thread_id)
             SELECT $1, account_id, key, thread_id FROM told WHERE key IS NOT NULL ON CONFLICT DO NOTHING",
        )
        .bind(tx.tenant())
        .bind(messages)
        .bind(told.iter().map(|(_, a)| a.email_id.as_deref()).collect::<Vec<_>>())
        .bind(told.iter().map(|(_, a)| key(a)).collect::<Vec<_>>())
        .execute(tx.conn())
        .await?;
    }
    Ok(())
}

/// What an arrival may turn out to be, of the account's messages with the same bytes, oldest first: with their placements in
/// this mailbox, or not in this mailbox. Of each such kind no more than arrivals, which may be a few
/// among tens of thousands of equal messages.
async fn candidates(
    tx: &mut TenantTx,
    target: &Target,
    fresh: &[&Prepared],
) -> Result<HashMap<Vec<u8>, Vec<Candidate>>, DbError> {
    if fresh.is_empty() {
        return Ok(HashMap::new());
    }
    let mut arrivals: HashMap<(&[u8], Option<&str>), i64> = HashMap::new();
    for arrival in fresh {
        *arrivals.entry((arrival.hash.as_slice(), arrival.email_id.as_deref())).or_default() += 1;
    }
    let (asked, counts): (Vec<_>, Vec<i64>) = arrivals.into_iter().unzip();
    let (hashes, ids): (Vec<&[u8]>, Vec<Option<&str>>) = asked.into_iter().unzip();
    // The order in each kind is that in which `Resolver` takes them.
    let rows = sqlx::query(AssertSqlSafe(format!(
        "SELECT c.blob_hash, c.email_id, c.same_id, c.message_id, c.gone, c.placement_id, c.mailbox_id, c.generation, c.uid, c.marked FROM (
           SELECT m.blob_hash, a.email_id, coalesce(m.email_id = a.email_id, false) AS same_id, m.id AS message_id, m.gone_at AS gone,
                  p.id AS placement_id, p.mailbox_id, p.generation, p.uid, p.marked, a.arrivals,
                  row_number() OVER (
                    PARTITION BY m.blob_hash, a.email_id, m.email_id IS NULL, p.id IS NULL, p.uid IS NULL, p.marked, p.generation = $6, p.id IS NULL AND m.gone_at IS NULL
                    ORDER BY CASE WHEN p.id IS NULL THEN m.gone_at END DESC, m.id, p.id) AS number
           FROM unnest($3::bytea[], $4::bigint[], $7::text[]) AS a(hash, arrivals, email_id)
           JOIN messages m ON m.tenant_id = $1 AND m.account_id = $2 AND m.blob_hash = a.hash
             AND (m.email_id = a.email_id OR m.email_id IS NULL OR a.email_id IS NULL)
           LEFT JOIN message_mailboxes p ON p.tenant_id = m.tenant_id AND p.message_id = m.id AND p.mailbox_id = $5
             AND (NOT p.marked OR p.generation <> $6)
           WHERE (m.gone_at IS NULL OR m.gone_at >= {over} OR EXISTS (
               SELECT 1 FROM message_mailboxes q WHERE q.tenant_id = m.tenant_id AND q.message_id = m.id))) c
         WHERE c.number <= c.arrivals ORDER BY c.email_id, c.message_id, c.placement_id",
        over = over("$1", "$2")
    )))
    .bind(tx.tenant())
    .bind(target.account)
    .bind(hashes)
    .bind(counts)
    .bind(target.mailbox)
    .bind(target.generation)
    .bind(ids)
    .fetch_all(tx.conn())
    .await?;
    let mut found: HashMap<Vec<u8>, Vec<Candidate>> = HashMap::new();
    for row in rows {
        let (hash, id): (Vec<u8>, Option<String>) = (row.try_get("blob_hash")?, row.try_get("email_id")?);
        let list = found.entry(key_of(&hash, id.as_deref())).or_default();
        let message: Uuid = row.try_get("message_id")?;
        if list.last().is_none_or(|c| c.message != message) {
            let (gone, same_id) = (row.try_get("gone")?, row.try_get("same_id")?);
            list.push(Candidate { message, gone, seats: Vec::new(), same_id });
        }
        if let (Some(id), Some(c)) = (row.try_get::<Option<Uuid>, _>("placement_id")?, list.last_mut()) {
            let (mailbox, generation, uid) =
                (row.try_get("mailbox_id")?, row.try_get("generation")?, row.try_get("uid")?);
            c.seats.push(Seat { id, mailbox, generation, uid, marked: row.try_get("marked")? });
        }
    }
    Ok(found)
}

async fn insert_messages(
    tx: &mut TenantTx,
    target: &Target,
    new: &[(Uuid, &Prepared)],
    backfill: bool,
) -> Result<(), DbError> {
    let joining: Vec<Joining<'_>> = new
        .iter()
        .map(|(_, p)| Joining {
            keys: &p.content.thread_keys,
            header_keys: &p.content.header_keys,
            message_id_header: p.content.message_id_header.as_deref(),
            subject: p.content.thread_subject.as_deref(),
            sort_at: sort_date(p.internal_date),
        })
        .collect();
    let threads = thread::assign(tx, target.account, &joining, backfill).await?;
    if new.is_empty() {
        return Ok(());
    }
    let text = |pick: fn(&Prepared) -> &str| -> Vec<&str> { new.iter().map(|(_, p)| pick(p)).collect() };
    // A header id holds no line end, so one separates them: arrays of arrays cannot be ragged.
    let lines = |pick: fn(&Prepared) -> &[String]| -> Vec<String> {
        new.iter().map(|(_, p)| pick(p).join("\n")).collect()
    };
    let dates = |pick: fn(&Prepared) -> DateTime<Utc>| -> Vec<DateTime<Utc>> {
        new.iter().map(|(_, p)| pick(p)).collect()
    };
    sqlx::query(
        "INSERT INTO messages (tenant_id, account_id, id, thread_id, blob_hash, size_bytes, email_id, message_id_header,
           in_reply_to, refs, subject, from_addresses, to_addresses, cc_addresses, bcc_addresses, reply_to_addresses,
           date, received_at, sort_at, date_sort_at, snippet, attachments, has_attachments, degraded,
           never_parse, date_zone_unknown, indexed_at)
         SELECT $1, $2, m.id, m.thread, m.hash, m.size, m.email_id, m.header, string_to_array(m.reply, E'\\n'),
           string_to_array(m.refs, E'\\n'), m.subject, m.f::jsonb, m.t::jsonb, m.c::jsonb, m.b::jsonb, m.r::jsonb,
           m.date, m.received, m.sort, m.date_sort, m.snippet, m.attachments::jsonb, m.has, m.degraded, m.never,
           m.no_zone, now()
         FROM unnest($3::uuid[], $4::uuid[], $5::bytea[], $6::bigint[], $7::text[], $8::text[], $9::text[], $10::text[],
           $11::text[], $12::text[], $13::text[], $14::text[], $15::text[], $16::text[], $17::timestamptz[],
           $18::timestamptz[], $19::timestamptz[], $20::timestamptz[], $21::text[], $22::text[], $23::bool[], $24::bool[],
           $25::bool[], $26::bool[])
           AS m(id, thread, hash, size, email_id, header, reply, refs, subject, f, t, c, b, r, date, received, sort,
                date_sort, snippet, attachments, has, degraded, never, no_zone)",
    )
    .bind(tx.tenant())
    .bind(target.account)
    .bind(new.iter().map(|(id, _)| *id).collect::<Vec<_>>())
    .bind(threads)
    .bind(new.iter().map(|(_, p)| p.hash.as_slice()).collect::<Vec<_>>())
    .bind(new.iter().map(|(_, p)| i64::try_from(p.size_bytes).unwrap_or(i64::MAX)).collect::<Vec<_>>())
    .bind(new.iter().map(|(_, p)| p.email_id.as_deref()).collect::<Vec<_>>())
    .bind(new.iter().map(|(_, p)| p.content.message_id_header.as_deref()).collect::<Vec<_>>())
    .bind(lines(|p| &p.content.in_reply_to))
    .bind(lines(|p| &p.content.refs))
    .bind(new.iter().map(|(_, p)| p.content.subject.as_deref()).collect::<Vec<_>>())
    .bind(text(|p| &p.content.from))
    .bind(text(|p| &p.content.to))
    .bind(text(|p| &p.content.cc))
    .bind(text(|p| &p.content.bcc))
    .bind(text(|p| &p.content.reply_to))
    .bind(new.iter().map(|(_, p)| p.content.date).collect::<Vec<_>>())
    .bind(dates(|p| p.internal_date))
    .bind(dates(|p| sort_date(p.internal_date)))
    .bind(dates(date_sort))
    .bind(text(|p| &p.content.snippet))
    .bind(text(|p| &p.content.attachments))
    .bind(new.iter().map(|(_, p)| p.content.has_attachments).collect::<Vec<_>>())
    .bind(new.iter().map(|(_, p)| p.content.degraded).collect::<Vec<_>>())
    .bind(new.iter().map(|(_, p)| p.content.never_parse).collect::<Vec<_>>())
    .bind(new.iter().map(|(_, p)| p.content.date_zone_unknown).collect::<Vec<_>>())
    .execute(tx.conn())
    .await?;
    Ok(())
}

async fn insert_placements(
    tx: &mut TenantTx,
    target: &Target,
    placed: &[NewPlacement<'_>],
) -> Result<(), DbError> {
    if placed.is_empty() {
        return Ok(());
    }
    let arrivals = || placed.iter().map(|p| p.arrival);
    // A keyword holds no blank.
    sqlx::query(
        "INSERT INTO message_mailboxes (tenant_id, account_id, mailbox_id, generation, id, message_id, uid, flags,
           base_flags, keywords, base_keywords, modseq, internal_date, sort_at, date_sort_at)
         SELECT $1, $2, $3, $4, p.id, p.message, p.uid, p.flags, p.flags, string_to_array(p.keywords, ' '),
           string_to_array(p.keywords, ' '), p.modseq, p.date, p.sort, p.date_sort
         FROM unnest($5::uuid[], $6::uuid[], $7::bigint[], $8::smallint[], $9::text[], $10::bigint[],
           $11::timestamptz[], $12::timestamptz[], $13::timestamptz[])
           AS p(id, message, uid, flags, keywords, modseq, date, sort, date_sort)",
    )
    .bind(tx.tenant())
    .bind(target.account)
    .bind(target.mailbox)
    .bind(target.generation)
    .bind(placed.iter().map(|_| PlacementId::new().0).collect::<Vec<_>>())
    .bind(placed.iter().map(|p| p.message).collect::<Vec<_>>())
    .bind(arrivals().map(|a| i64::from(a.uid)).collect::<Vec<_>>())
    .bind(arrivals().map(|a| a.flags.bits()).collect::<Vec<_>>())
    .bind(arrivals().map(|a| a.keywords.as_slice().join(" ")).collect::<Vec<_>>())
    .bind(arrivals().map(|a| a.modseq).collect::<Vec<_>>())
    .bind(arrivals().map(|a| a.internal_date).collect::<Vec<_>>())
    .bind(arrivals().map(|a| sort_date(a.internal_date)).collect::<Vec<_>>())
    .bind(placed.iter().map(|p| p.date_sort_at).collect::<Vec<_>>())
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Gives waiting placements their UID, and takes over what the server says of their flags as in any mailbox it told of.
async fn seat_placements(tx: &mut TenantTx, target: &Target, seated: &[Seated<'_>]) -> Result<(), DbError> {
    if seated.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "UPDATE message_mailboxes p SET uid = s.uid, generation = $3, modseq = s.modseq, internal_date = s.date,
           sort_at = s.sort
         FROM unnest($4::uuid[], $5::bigint[], $6::bigint[], $7::timestamptz[], $8::timestamptz[])
           AS s(id, uid, modseq, date, sort)
         WHERE p.tenant_id = $1 AND p.mailbox_id = $2 AND p.id = s.id",
    )
    .bind(tx.tenant())
    .bind(target.mailbox)
    .bind(target.generation)
    .bind(seated.iter().map(|s| s.placement).collect::<Vec<_>>())
    .bind(seated.iter().map(|s| i64::from(s.arrival.uid)).collect::<Vec<_>>())
    .bind(seated.iter().map(|s| s.arrival.modseq).collect::<Vec<_>>())
    .bind(seated.iter().map(|s| s.arrival.internal_date).collect::<Vec<_>>())
    .bind(seated.iter().map(|s| sort_date(s.arrival.internal_date)).collect::<Vec<_>>())
    .execute(tx.conn())
    .await?;
    tracing::debug!(linked = seated.len(), first = ?seated.first().map(|s| s.message), "arrivals linked");
    let states: Vec<FlagState> = seated
        .iter()
        .map(|s| FlagState {
            uid: s.arrival.uid,
            flags: s.arrival.flags,
            keywords: s.arrival.keywords.clone(),
            modseq: Some(s.arrival.modseq),
        })
        .collect();
    flags::apply(tx, target, &states).await.map(drop)
}

/// Makes prepared texts searchable now and leaves the others to a job.
async fn index(tx: &mut TenantTx, target: &Target, new: &[(Uuid, &Prepared)]) -> Result<(), DbError> {
    let ready: Vec<Entry> = new
        .iter()
        .filter_map(|(id, p)| Some(Entry { message: MessageId(*id), tsvector: p.content.tsvector.clone()? }))
        .collect();
    search::index::write(tx, &ready).await?;
    let later: Vec<&(Uuid, &Prepared)> = new.iter().filter(|(_, p)| p.content.tsvector.is_none()).collect();
    let newest = later.iter().map(|(_, p)| sort_date(p.internal_date)).max();
    if let Some(newest) = newest {
        let messages: Vec<(Uuid, u64)> = later.iter().map(|(id, p)| (*id, p.size_bytes)).collect();
        search::index::postpone(tx, target.account, newest, &messages).await?;
        // Later: one job serves many batches, and waits for the last of them.
        let job = Job::IndexText { account_id: target.account };
        enqueue(tx, &job, Duration::from_secs(2)).await?;
    }
    Ok(())
}
