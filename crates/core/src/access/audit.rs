//! The audit trail: who did what to which object, from where, and how it ended. Rows are only ever added.
//!
//! What was allowed is written in the transaction of the change; a transaction that owes its line does not commit without
//! it ([`TenantTx::owe_audit`]). What was refused is written in a transaction of its own. The next thing that is audited: a
//! word in [`Action`].

use chrono::{DateTime, Utc};
use sqlx::{Postgres, QueryBuilder};
use uuid::Uuid;

use crate::platform::db::{DbError, TenantTx};
use crate::platform::words::words;

words! {
    /// What was done or tried, `noun.verb`.
    pub enum Action {
        /// Log-in with a password.
        SessionLogin = "session.login",
        /// A refresh token that had been used before.
        SessionRefresh = "session.refresh",
        /// Log-out.
        SessionLogout = "session.logout",
        /// An account was connected.
        AccountCreate = "account.create",
        /// Its settings or credentials were changed.
        AccountUpdate = "account.update",
        /// It was removed.
        AccountDelete = "account.delete",
        /// Its synchronisation was stopped.
        AccountPause = "account.pause",
        /// It goes on.
        AccountResume = "account.resume",
        /// Its mail is read anew.
        AccountResync = "account.resync",
        /// A password was tried at a mail server, without success.
        AccountTry = "account.try",
        /// A mailbox was made.
        MailboxCreate = "mailbox.create",
        /// It was renamed, moved or subscribed to.
        MailboxUpdate = "mailbox.update",
        /// It was removed.
        MailboxDelete = "mailbox.delete",
        /// It is read anew.
        MailboxResync = "mailbox.resync",
        /// Many messages were deleted.
        MessageDelete = "message.delete",
        /// A message was deleted for good.
        MessageExpunge = "message.expunge",
        /// A draft was sent.
        DraftSend = "draft.send",
        /// A submission was cancelled or given up.
        SubmissionCancel = "submission.cancel",
        /// It was sent again.
        SubmissionResend = "submission.resend",
        /// A bulk action was stopped.
        JobCancel = "job.cancel",
        /// A webhook was made.
        WebhookCreate = "webhook.create",
        /// It was changed.
        WebhookUpdate = "webhook.update",
        /// It was removed.
        WebhookDelete = "webhook.delete",
        /// It has another secret.
        WebhookRotate = "webhook.rotate",
        /// Events are sent to it again.
        WebhookEnable = "webhook.enable",
        /// Nothing is sent to it any more, since it took nothing.
        WebhookDisable = "webhook.disable",
        /// Events of the past are sent again.
        WebhookReplay = "webhook.replay",
        /// An event that failed is sent again.
        WebhookRetry = "webhook.retry",
        /// An event was sent to try it.
        WebhookTest = "webhook.test",
        /// An app of an OAuth2 provider was named.
        OAuthAppCreate = "oauth_app.create",
        /// It was changed.
        OAuthAppUpdate = "oauth_app.update",
        /// It was removed.
        OAuthAppDelete = "oauth_app.delete",
        /// What a tenant says of itself was changed.
        TenantUpdate = "tenant.update",
        /// A tenant was made.
        TenantCreate = "tenant.create",
        /// Its request limits were changed.
        TenantLimits = "tenant.limits",
        /// Its requests are refused.
        TenantSuspend = "tenant.suspend",
        /// They are let in again.
        TenantResume = "tenant.resume",
        /// A user was made.
        UserCreate = "user.create",
        /// It is let in no more.
        UserDisable = "user.disable",
        /// It is let in again.
        UserEnable = "user.enable",
        /// It has another password.
        UserPassword = "user.password",
        /// It has another role.
        UserRole = "user.role",
        /// Its sessions were ended.
        UserSessionsEnd = "user.sessions.end",
        /// Stored passwords were sealed under another key.
        KeysRotate = "keys.rotate",
    }
}

/// One line of the trail.
#[derive(Debug, Clone)]
pub struct Entry<'a> {
    /// `user:<id>`, `emailctl:<user of the operating system>`, `service:<part>` for what nobody asked for, or `anonymous`.
    pub actor: &'a str,
    /// What was done.
    pub action: Action,
    /// The object's id or name.
    pub target: Option<&'a str>,
    /// The client's address.
    pub address: Option<&'a str>,
    /// `ok` or the code of the refusal.
    pub result: &'a str,
    /// The request's id.
    pub request_id: Option<&'a str>,
    /// How many refusals this line stands for; 1 for anything else.
    pub times: u32,
}

impl<'a> Entry<'a> {
    /// Something that `actor` did on this machine and not by a request.
    #[must_use]
    pub fn here(actor: &'a str, action: Action, target: &'a str) -> Self {
        Self { actor, action, target: Some(target), address: None, result: "ok", request_id: None, times: 1 }
    }
}

/// Adds a line, in the transaction that did the thing.
pub async fn record(tx: &mut TenantTx, entry: &Entry<'_>) -> Result<(), DbError> {
    sqlx::query("INSERT INTO audit_log (tenant_id, id, actor, action, target, address, result, request_id, times) VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9)")
        .bind(tx.tenant())
        .bind(crate::platform::id::new_uuid())
        .bind(entry.actor)
        .bind(entry.action)
        .bind(entry.target)
        .bind(entry.address)
        .bind(entry.result)
        .bind(entry.request_id)
        .bind(i32::try_from(entry.times).unwrap_or(i32::MAX))
        .execute(tx.conn())
        .await?;
    tx.settle_audit(entry.action.as_str());
    Ok(())
}

/// A line as it is read.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Line {
    /// Its id.
    pub id: Uuid,
    /// When.
    pub at: DateTime<Utc>,
    /// Who: `user:<id>`, `emailctl:<user of the operating system>` or `anonymous`.
    pub actor: String,
    /// What: a word of [`Action`], or one of another release.
    pub action: String,
    /// The object's id or name.
    pub target: Option<String>,
    /// The client's address.
    pub address: Option<String>,
    /// `ok` or the code of the refusal.
    pub result: String,
    /// The request's id.
    pub request_id: Option<String>,
    /// How many refusals this line stands for.
    pub times: i32,
}

/// Which lines are read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this actor.
    pub actor: Option<String>,
    /// Of this action.
    pub action: Option<String>,
    /// About this object.
    pub target: Option<String>,
    /// Not before this.
    pub from: Option<DateTime<Utc>>,
    /// Before this.
    pub to: Option<DateTime<Utc>>,
}

/// Up to `limit` lines, newest first, after the last one seen.
///
/// # Errors
/// Those of the database.
pub async fn list(
    tx: &mut TenantTx,
    filter: &Filter,
    after: Option<(DateTime<Utc>, Uuid)>,
    limit: i64,
) -> Result<Vec<Line>, DbError> {
    let mut sql = QueryBuilder::<Postgres>::new(
        "SELECT id, at, actor, action, target, address, result, request_id, times FROM audit_log WHERE tenant_id = ",
    );
    sql.push_bind(tx.tenant());
    for (column, text) in [("actor", &filter.actor), ("action", &filter.action), ("target", &filter.target)] {
        if let Some(text) = text {
            sql.push(format!(" AND {column} = ")).push_bind(text);
        }
    }
    if let Some(from) = filter.from {
        sql.push(" AND at >= ").push_bind(from);
    }
    if let Some(to) = filter.to {
        sql.push(" AND at < ").push_bind(to);
    }
    if let Some((at, id)) = after {
        sql.push(" AND (at, id) < (").push_bind(at).push(", ").push_bind(id).push(")");
    }
    sql.push(" ORDER BY at DESC, id DESC LIMIT ").push_bind(limit);
    Ok(sql.build_query_as().fetch_all(tx.conn()).await?)
}
