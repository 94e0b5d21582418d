//! What of an account is kept here, in the rows: which mailboxes are synchronised, and which messages of those are outside. How what is
//! outside leaves is in [`super::narrow`].

use std::time::Duration;

use mail::keep::Keep;
use mail::mailbox::Role;
use mail::uid::UidSet;
use sqlx::Row as _;

use super::Target;
use crate::domain::account::keep::wanted;
use crate::domain::event::{self, Event, MailboxPart, MailboxUpdated};
use crate::domain::states::mailbox_role;
use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{AccountId, MailboxId};
use crate::queue::job::{Job, enqueue};
use crate::queue::lease;
use crate::sync::run;

/// The UIDs of a mailbox that are outside.
pub async fn outside(tx: &mut TenantTx, target: &Target) -> Result<UidSet, DbError> {
    // One text of all: joined one by one, a hundred thousand ranges would be copied as often.
    let text: Option<String> = sqlx::query_scalar(
        "SELECT string_agg(first_uid || ':' || last_uid, ',' ORDER BY first_uid) FROM mailbox_outside
         WHERE tenant_id = $1 AND mailbox_id = $2 AND generation = $3",
    )
    .bind(tx.tenant())
    .bind(target.mailbox)
    .bind(target.generation)
    .fetch_one(tx.conn())
    .await?;
    Ok(text.and_then(|text| UidSet::parse(&text).ok()).unwrap_or_default())
}

/// These are outside, too.
pub async fn put_outside(tx: &mut TenantTx, target: &Target, uids: &UidSet) -> Result<(), DbError> {
    let (first, last): (Vec<i64>, Vec<i64>) =
        uids.ranges().map(|(a, b)| (i64::from(a), i64::from(b))).unzip();
    sqlx::query(
        "INSERT INTO mailbox_outside (tenant_id, account_id, mailbox_id, generation, first_uid, last_uid)
         SELECT $1, $2, $3, $4, r.first, r.last FROM unnest($5::bigint[], $6::bigint[]) AS r(first, last)
         ON CONFLICT (tenant_id, mailbox_id, generation, first_uid)
           DO UPDATE SET last_uid = greatest(mailbox_outside.last_uid, excluded.last_uid)",
    )
    .bind(tx.tenant())
    .bind(target.account)
    .bind(target.mailbox)
    .bind(target.generation)
    .bind(first)
    .bind(last)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Whether a message of ours is on its way into the mailbox, or there without our knowing its UID.
pub async fn expects(tx: &mut TenantTx, target: &Target) -> Result<bool, DbError> {
    Ok(sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM edits WHERE tenant_id = $1 AND target_mailbox_id = $3)
           OR EXISTS (SELECT 1 FROM message_mailboxes WHERE tenant_id = $1 AND account_id = $2 AND mailbox_id = $3 AND uid IS NULL)",
    )
    .bind(tx.tenant())
    .bind(target.account)
    .bind(target.mailbox)
    .fetch_one(tx.conn())
    .await?)
}

/// The server has none of these any more.
pub async fn forget(tx: &mut TenantTx, target: &Target, uids: &UidSet) -> Result<(), DbError> {
    let before = outside(tx, target).await?;
    let after = before.difference(uids);
    if after != before {
        clear(tx, &[target.mailbox]).await?;
        put_outside(tx, target, &after).await?;
    }
    Ok(())
}

/// Nothing is known to be outside in these mailboxes.
pub async fn clear(tx: &mut TenantTx, mailboxes: &[MailboxId]) -> Result<(), DbError> {
    sqlx::query("DELETE FROM mailbox_outside WHERE tenant_id = $1 AND mailbox_id = ANY ($2)")
        .bind(tx.tenant())
        .bind(mailboxes.iter().map(|id| id.0).collect::<Vec<_>>())
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Sees to it that those mailboxes are synchronised that the account wants. For whoever has written the tree, or the choice; of
/// those that are `made` just now nothing is told.
///
/// # Errors
/// Those of the database.
pub async fn choose(tx: &mut TenantTx, account: AccountId, made: &[MailboxId]) -> Result<(), DbError> {
    let keep = wanted(tx, account).await?;
    let rows = sqlx::query(
        "SELECT id, path, delimiter, role, synchronised FROM mailboxes
         WHERE tenant_id = $1 AND account_id = $2 AND ($3 OR NOT synchronised)",
    )
    .bind(tx.tenant())
    .bind(account)
    .bind(!keep.mailboxes.is_all())
    .fetch_all(tx.conn())
    .await?;
    let (mut kept, mut left) = (Vec::new(), Vec::new());
    for row in rows {
        let delimiter: Option<String> = row.try_get("delimiter")?;
        let delimiter = delimiter.and_then(|d| d.chars().next());
        let role: Option<Role> = mailbox_role(&row)?;
        let wanted = keep.mailboxes.keeps(row.try_get("path")?, delimiter, role);
        if wanted != row.try_get::<bool, _>("synchronised")? {
            if wanted { &mut kept } else { &mut left }.push(row.try_get::<MailboxId, _>("id")?);
        }
    }
    if kept.is_empty() && left.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "UPDATE mailboxes SET synchronised = NOT synchronised WHERE tenant_id = $1 AND id = ANY ($2)",
    )
    .bind(tx.tenant())
    .bind(kept.iter().chain(&left).map(|id| id.0).collect::<Vec<_>>())
    .execute(tx.conn())
    .await?;
    let told: Vec<Event> = kept
        .iter()
        .chain(&left)
        .filter(|id| !made.contains(id))
        .map(|id| MailboxUpdated { id: *id, changed: &[MailboxPart::Attributes] }.into())
        .collect();
    event::record(tx, account, &told);
    look_again(tx, account, &kept).await?;
    if left.iter().any(|id| !made.contains(id)) {
        narrow(tx, account).await?;
    }
    Ok(())
}

/// What our users moved to a mailbox that is not synchronised leaves our copy, once the server has it there.
///
/// # Errors
/// Those of the database.
pub async fn follow_up(tx: &mut TenantTx, account: AccountId) -> Result<(), DbError> {
    let some: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM mailboxes b JOIN message_mailboxes p ON p.tenant_id = b.tenant_id AND p.mailbox_id = b.id
                        WHERE b.tenant_id = $1 AND b.account_id = $2 AND NOT b.synchronised AND NOT p.marked)
           AND NOT EXISTS (SELECT 1 FROM account_narrowings WHERE tenant_id = $1 AND account_id = $2)",
    )
    .bind(tx.tenant())
    .bind(account)
    .fetch_one(tx.conn())
    .await?;
    if some { narrow(tx, account).await } else { Ok(()) }
}

/// What is not here of these mailboxes is looked at again, newest first, as old mail is.
async fn look_again(tx: &mut TenantTx, account: AccountId, mailboxes: &[MailboxId]) -> Result<(), DbError> {
    if mailboxes.is_empty() {
        return Ok(());
    }
    clear(tx, mailboxes).await?;
    sqlx::query(
        "UPDATE mailboxes SET tail_uid = head_uid + 1, state = CASE WHEN head_uid = 0 THEN state WHEN state = 'failed' THEN state ELSE 'backfill' END
         WHERE tenant_id = $1 AND id = ANY ($2) AND tail_uid > 0",
    )
    .bind(tx.tenant())
    .bind(mailboxes.iter().map(|id| id.0).collect::<Vec<_>>())
    .execute(tx.conn())
    .await?;
    run::will_be_read_anew(tx, account).await
}

/// The account's user wants another part of it kept: what may now be outside is looked for, and what may no longer be. The caller
/// has written it, and holds the account's lease row; whatever worker was at the account by what was wanted before writes nothing
/// any more. Asking for a round is the caller's.
///
/// # Errors
/// Those of the database.
pub async fn changed(tx: &mut TenantTx, account: AccountId, before: &Keep) -> Result<(), DbError> {
    let now = wanted(tx, account).await?;
    lease::take_away(tx, account).await?;
    run::interrupt(tx, account, "changed").await?;
    choose(tx, account, &[]).await?;
    if (now.since, now.max_message_bytes) == (before.since, before.max_message_bytes) {
        return Ok(());
    }
    let some: Vec<MailboxId> = sqlx::query_scalar(
        "SELECT DISTINCT mailbox_id FROM mailbox_outside WHERE tenant_id = $1 AND account_id = $2",
    )
    .bind(tx.tenant())
    .bind(account)
    .fetch_all(tx.conn())
    .await?;
    look_again(tx, account, &some).await?;
    narrow(tx, account).await
}

/// Asks for the job that takes what is outside out of our copy. It begins anew by what is wanted now, also one that is at it.
async fn narrow(tx: &mut TenantTx, account_id: AccountId) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO account_narrowings (tenant_id, account_id, asked_at) VALUES ($1, $2, now())
         ON CONFLICT (tenant_id, account_id) DO UPDATE SET total = NULL, removed = 0, asked_at = now(), bounds_at = NULL",
    )
    .bind(tx.tenant())
    .bind(account_id)
    .execute(tx.conn())
    .await?;
    enqueue(tx, &Job::NarrowAccount { account_id }, Duration::ZERO).await?;
    Ok(())
}

/// The numbers of a mailbox as a listing has them.
#[derive(Debug, Clone, Copy)]
pub struct Numbers {
    /// Which mailbox.
    pub mailbox: MailboxId,
    /// UIDVALIDITY; 0 stands for a server that names none.
    pub uidvalidity: i64,
    /// UIDNEXT.
    pub uidnext: i64,
    /// MESSAGES.
    pub messages: i64,
}

/// All that a listing has of mailboxes that are not synchronised is outside: what is read of them later is what comes after it, so
/// that what our users move there is recognised. Not while edits lead there, whose messages have yet to be found, nor before what
/// is here has left.
///
/// # Errors
/// Those of the database.
pub async fn pass_over(tx: &mut TenantTx, listed: &[Numbers]) -> Result<(), DbError> {
    if listed.is_empty() {
        return Ok(());
    }
    let passed: Vec<(MailboxId, AccountId, i32, i64)> = sqlx::query_as(
        "UPDATE mailboxes b SET generation = b.generation + CASE WHEN b.uidvalidity <> n.uidvalidity THEN 1 ELSE 0 END,
           uidvalidity = n.uidvalidity, uidnext = n.uidnext, head_uid = n.uidnext - 1, tail_uid = 1, modseq = NULL, base_modseq = NULL,
           exists_seen = n.messages, state = 'synced', last_synced_at = now()
         FROM unnest($2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[]) AS n(id, uidvalidity, uidnext, messages)
         WHERE b.tenant_id = $1 AND b.id = n.id AND NOT b.synchronised
           AND (b.uidvalidity, b.head_uid, b.tail_uid, b.exists_seen) IS DISTINCT FROM (n.uidvalidity, n.uidnext - 1, 1::bigint, n.messages)
           AND NOT EXISTS (SELECT 1 FROM edits e WHERE e.tenant_id = $1 AND (e.target_mailbox_id = b.id OR e.mailbox_id = b.id))
           AND NOT EXISTS (SELECT 1 FROM message_mailboxes p WHERE p.tenant_id = $1 AND p.mailbox_id = b.id AND NOT p.marked)
         RETURNING b.id, b.account_id, b.generation, b.head_uid",
    )
    .bind(tx.tenant())
    .bind(listed.iter().map(|n| n.mailbox.0).collect::<Vec<_>>())
    .bind(listed.iter().map(|n| n.uidvalidity).collect::<Vec<_>>())
    .bind(listed.iter().map(|n| n.uidnext).collect::<Vec<_>>())
    .bind(listed.iter().map(|n| n.messages).collect::<Vec<_>>())
    .fetch_all(tx.conn())
    .await?;
    let ids: Vec<MailboxId> = passed.iter().map(|(id, ..)| *id).collect();
    if ids.is_empty() {
        return Ok(());
    }
    clear(tx, &ids).await?;
    super::attempts::forget_all(tx, &ids).await?;
    let filled: Vec<_> = passed.iter().filter(|(.., head)| *head > 0).collect();
    sqlx::query(
        "INSERT INTO mailbox_outside (tenant_id, account_id, mailbox_id, generation, first_uid, last_uid)
         SELECT $1, n.account, n.id, n.generation, 1, n.head
         FROM unnest($2::uuid[], $3::uuid[], $4::integer[], $5::bigint[]) AS n(id, account, generation, head)",
    )
    .bind(tx.tenant())
    .bind(filled.iter().map(|(id, ..)| id.0).collect::<Vec<_>>())
    .bind(filled.iter().map(|(_, account, ..)| account.0).collect::<Vec<_>>())
    .bind(filled.iter().map(|(_, _, generation, _)| *generation).collect::<Vec<_>>())
    .bind(filled.iter().map(|(.., head)| *head).collect::<Vec<_>>())
    .execute(tx.conn())
    .await?;
    Ok(())
}
