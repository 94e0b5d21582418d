//! Users, as the operator manages them. Each change is in the audit, and the API knows of it within 5 seconds.

use anyhow::{Context as _, bail};
use chrono::{DateTime, SecondsFormat, Utc};
use emailclient_core::access::audit::{self, Action, Entry};
use emailclient_core::access::password;
use emailclient_core::access::principal::Role;
use emailclient_core::access::session;
use emailclient_core::access::user;
use emailclient_core::platform::clock::{Clock as _, SystemClock};
use emailclient_core::platform::db::{Db, DbError, TenantTx};
use emailclient_core::platform::id::{SessionId, UserId};
use wire::secret::Secret;

use crate::command::{Sessions, User, Who};
use crate::{actor, find, read_line, say};

/// A shorter password is refused.
const SHORTEST: usize = 8;

/// Carries out one command about users.
///
/// # Errors
/// When there is no such tenant or user, or the password is too short.
pub async fn run(what: User, db: &Db) -> anyhow::Result<()> {
    match what {
        User::Create { tenant, email, name, role, password } => {
            create(db, Who { tenant, email }, &name.unwrap_or_default(), role.into(), password).await
        }
        User::List { tenant } => list(db, &tenant).await,
        User::Disable(who) => disable(db, &who, true).await,
        User::Enable(who) => disable(db, &who, false).await,
        User::Password { who, password } => {
            let hash = new_password(password).await?;
            change(db, &who, Action::UserPassword, async |tx| user::set_password(tx, &who.email, &hash).await)
                .await
        }
        User::Role { who, role } => {
            let role: Role = role.into();
            change(db, &who, Action::UserRole, async |tx| user::set_role(tx, &who.email, role).await).await
        }
        User::Sessions(Sessions::List(who)) => list_sessions(db, &who).await,
        User::Sessions(Sessions::End { who, session }) => {
            end_sessions(db, &who, session.map(SessionId)).await
        }
    }
}

async fn create(db: &Db, who: Who, name: &str, role: Role, password: Option<String>) -> anyhow::Result<()> {
    let Who { tenant, email } = who;
    if !email.contains('@') || email.chars().any(char::is_control) {
        bail!("{email:?} is no address");
    }
    let hash = new_password(password).await?;
    let mut tx = db.tenant(find(db, &tenant).await?.id).await?;
    let id = match user::create(&mut tx, &email, name, role, &hash).await {
        Err(DbError::Duplicate(_)) => bail!("{tenant} has a user {email} already"),
        created => created?,
    };
    audit::record(&mut tx, &Entry::here(&actor(), Action::UserCreate, &id.to_string())).await?;
    tx.commit().await?;
    say(&id.to_string())
}

/// The hash of the password that was given, or of a line of standard input.
async fn new_password(given: Option<String>) -> anyhow::Result<String> {
    let password = match given {
        Some(password) => Secret::new(password),
        None => Secret::new(
            read_line().context("the password is read from standard input, or given by --password")?,
        ),
    };
    if password.expose().chars().count() < SHORTEST {
        bail!("a password has at least {SHORTEST} characters");
    }
    Ok(password::hash(password).await?)
}

async fn disable(db: &Db, who: &Who, disabled: bool) -> anyhow::Result<()> {
    let action = if disabled { Action::UserDisable } else { Action::UserEnable };
    change(db, who, action, async |tx| user::set_disabled(tx, &who.email, disabled).await).await
}

/// One change of one user, with its line in the audit.
async fn change(
    db: &Db,
    who: &Who,
    action: Action,
    work: impl AsyncFnOnce(&mut TenantTx) -> Result<Option<UserId>, DbError>,
) -> anyhow::Result<()> {
    let mut tx = db.tenant(find(db, &who.tenant).await?.id).await?;
    let id = work(&mut tx).await?.with_context(|| nobody(who))?;
    audit::record(&mut tx, &Entry::here(&actor(), action, &id.to_string())).await?;
    tx.commit().await?;
    Ok(())
}

fn nobody(who: &Who) -> String {
    format!("{} has no user {}", who.tenant, who.email)
}

async fn list(db: &Db, tenant: &str) -> anyhow::Result<()> {
    let mut tx = db.tenant(find(db, tenant).await?.id).await?;
    let users = user::list(&mut tx).await?;
    tx.release();
    for user in users {
        let state = if user.disabled { "disabled" } else { "active" };
        // A tab or a line end in a name would be read as the next field or line.
        let name: String = user.name.chars().filter(|c| !c.is_control()).collect();
        say(&format!("{}\t{}\t{state}\t{}\t{name}", user.email, user.role.as_str(), user.id))?;
    }
    Ok(())
}

async fn list_sessions(db: &Db, who: &Who) -> anyhow::Result<()> {
    let mut tx = db.tenant(find(db, &who.tenant).await?.id).await?;
    let user = user::find(&mut tx, &who.email).await?.with_context(|| nobody(who))?;
    let open = session::list(&mut tx, user.id, SystemClock.now()).await?;
    tx.release();
    let instant = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Secs, true);
    for s in open {
        let (from, last, until) = (instant(s.created_at), instant(s.refreshed_at), instant(s.expires_at));
        say(&format!("{}\t{from}\t{last}\t{until}", s.id))?;
    }
    Ok(())
}

async fn end_sessions(db: &Db, who: &Who, only: Option<SessionId>) -> anyhow::Result<()> {
    const WHY: &str = "ended by the operator";
    let mut tx = db.tenant(find(db, &who.tenant).await?.id).await?;
    let user = user::find(&mut tx, &who.email).await?.with_context(|| nobody(who))?;
    let ended = match only {
        None => user::end_sessions(&mut tx, user.id, WHY).await?,
        Some(id) if session::end(&mut tx, user.id, id, WHY).await? => 1,
        Some(id) => bail!("{} has no session {id} that is not over", who.email),
    };
    let target = only.map_or_else(|| user.id.to_string(), |id| id.to_string());
    audit::record(&mut tx, &Entry::here(&actor(), Action::UserSessionsEnd, &target)).await?;
    tx.commit().await?;
    say(&format!("{ended} sessions have ended"))
}
