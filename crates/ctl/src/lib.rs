//! `emailctl`: the operator's command line.
//!
//! [`command`] is the list of commands; each does its work through `emailclient-core`. The next command: a variant
//! there, an arm in [`run`], its section in `docs/emailctl.md`.

pub mod check;
pub mod command;
pub mod events;
pub mod health;
pub mod keys;
pub mod mailbox;
pub mod user;

use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Parser as _;
use emailclient_core::access::audit::{self, Action, Entry};
use emailclient_core::access::tenant::{self, TenantKey, removal};
use emailclient_core::domain::account;
use emailclient_core::platform::config::{Config, Source};
use emailclient_core::platform::db::inspect::Look;
use emailclient_core::platform::db::{Db, DbError, migrate};
use emailclient_core::platform::start;
use emailclient_core::queue::job::{self, Job};
use emailclient_core::queue::suspension;
use emailclient_core::sync::store::removal as mailbox_removal;
use wire::tls;

use crate::command::{Cli, Command, Tenant};

/// The program, from its command line and the settings in the environment to its exit status.
pub async fn main() -> ExitCode {
    tls::install_provider();
    match run(Cli::parse().command, &Source::from_env()).await {
        Ok(code) => code,
        Err(error) => start::exit("emailctl", Err(error)),
    }
}

/// Carries out one command. Success is the status 0, but for a check that found faults, which is 1.
///
/// # Errors
/// With the reason and, where there is one, the way out.
pub async fn run(command: Command, source: &Source) -> anyhow::Result<ExitCode> {
    match command {
        Command::Check { json, color } => return check::run(source, json, color).await,
        Command::Migrate { database, roles_only } => {
            bring_up_to_date(source, database.as_deref(), roles_only).await
        }
        Command::Healthcheck { service, address } => health::run(source, service, address).await,
        Command::Tenant(what) => with_db(source, async |db| run_tenant(what, db).await).await,
        Command::User(what) => with_db(source, async |db| user::run(what, db).await).await,
        Command::Events(what) => with_db(source, async |db| events::run(what, db).await).await,
        Command::Keys(command::Keys::Rotate) => keys::rotate(source).await,
        Command::Mailbox(args) => mailbox::run(source, args).await,
    }
    .map(|()| ExitCode::SUCCESS)
}

/// Who runs this program, as the audit trail has it: `emailctl:` and the name of the process's user, or its number where it
/// has no name.
pub(crate) fn actor() -> String {
    let number = std::fs::metadata("/proc/self").map(|of| of.uid()).unwrap_or_default().to_string();
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == number).then_some(name)
    });
    format!("emailctl:{}", name.unwrap_or(&number))
}

async fn bring_up_to_date(source: &Source, database: Option<&str>, roles_only: bool) -> anyhow::Result<()> {
    let owner = source.secret("DATABASE_OWNER_URL", 1);
    let app = source.secret("DATABASE_URL", 1);
    let system = source.secret("DATABASE_SYSTEM_URL", 1);
    source.finish()?;
    let owner = match database {
        Some(name) => migrate::in_database(&owner, name)
            .with_context(|| format!("--database {name}: a name of letters, digits and _ is expected"))?,
        None => owner,
    };
    let look = Look::open(&owner).await.map_err(|e| start::unreachable("DATABASE_OWNER_URL", &owner, &e))?;
    look.close().await;
    if roles_only {
        migrate::roles(&owner, &app, &system).await?;
        return say("the roles are there");
    }
    migrate::run(&owner, &app, &system).await?;
    say(&format!("schema is at version {}", migrate::expected()))
}

async fn with_db(source: &Source, work: impl AsyncFnOnce(&Db) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let config = Config::from_source(source)?;
    // Through one connection first, because a pool says only that it waited in vain.
    start::verify_database(&config).await?;
    let db = Db::new(&config)?;
    let done = work(&db).await;
    db.close().await;
    done
}

async fn run_tenant(what: Tenant, db: &Db) -> anyhow::Result<()> {
    match what {
        Tenant::Create { slug, name } => {
            if !tenant::is_slug(&slug) {
                bail!("{slug:?} is no slug: 2 to 63 characters of a-z, 0-9 and -, not beginning with -");
            }
            let name = name.unwrap_or_else(|| slug.clone());
            match tenant::create(db, &actor(), &slug, &name).await {
                Ok(id) => say(&id.to_string()),
                Err(DbError::Duplicate(_)) => bail!("there is a tenant {slug} already"),
                Err(error) => Err(error.into()),
            }
        }
        Tenant::Limits { slug, per_minute, per_hour } => {
            let key = find(db, &slug).await?;
            let mut tx = db.tenant(key.id).await?;
            tenant::set_limits(&mut tx, per_minute, per_hour).await?;
            audit::record(&mut tx, &Entry::here(&actor(), Action::TenantLimits, &slug)).await?;
            tx.commit().await?;
            Ok(())
        }
        Tenant::Suspend { slug } => set_suspended(db, &slug, true).await,
        Tenant::Resume { slug } => set_suspended(db, &slug, false).await,
        Tenant::Delete { slug, yes } => delete(db, &slug, yes).await,
        Tenant::Removals => removals(db).await,
    }
}

async fn delete(db: &Db, slug: &str, yes: bool) -> anyhow::Result<()> {
    let key = find(db, slug).await?;
    if !yes {
        say(&format!("{} and all that it has will be gone for good. Its slug once more:", key.slug))?;
        if read_line()? != key.slug {
            bail!("nothing was deleted: that is not {}", key.slug);
        }
    }
    let mut tx = db.tenant(key.id).await?;
    if !removal::delete(&mut tx).await? {
        bail!("{slug} is deleted already; `emailctl tenant removals` says how far that is");
    }
    job::enqueue(&mut tx, &Job::RemoveTenant { tenant_id: key.id }, Duration::ZERO).await?;
    tx.commit().await?;
    say(&format!("{slug} ({}) is deleted; workers remove what it has", key.id))?;
    suspension::stop(db, key.id).await?;
    Ok(())
}

async fn removals(db: &Db) -> anyhow::Result<()> {
    let mut tx = db.system().await?;
    let found = removal::all(&mut tx).await?;
    tx.release();
    for (tenant, deleted_at) in found {
        if let Some(at) = deleted_at {
            say(&format!("{tenant}\ttenant\t\t\t{}", at.to_rfc3339()))?;
        }
        for one in account::removal::list(db, tenant).await? {
            let (account, at) = (one.account, one.asked_at.to_rfc3339());
            say(&format!("{tenant}\t{account}\t{}\t{}\t{at}", one.removed, one.total))?;
        }
        for one in mailbox_removal::list(db, tenant, None).await? {
            let (mailbox, at) = (one.mailbox, one.asked_at.to_rfc3339());
            say(&format!("{tenant}\tmailbox {mailbox}\t{}\t{}\t{at}", one.removed, one.total))?;
        }
    }
    Ok(())
}

async fn set_suspended(db: &Db, slug: &str, suspended: bool) -> anyhow::Result<()> {
    let key = find(db, slug).await?;
    let mut tx = db.tenant(key.id).await?;
    let action = if suspended {
        suspension::suspend(&mut tx).await?;
        Action::TenantSuspend
    } else {
        suspension::lift(&mut tx).await?;
        Action::TenantResume
    };
    audit::record(&mut tx, &Entry::here(&actor(), action, slug)).await?;
    tx.commit().await?;
    if suspended && suspension::stop(db, key.id).await? > 0 {
        say("suspended; a round that is under way could not be stopped and ends by itself")?;
    }
    Ok(())
}

async fn find(db: &Db, slug: &str) -> anyhow::Result<TenantKey> {
    let mut tx = db.system().await?;
    tenant::find(&mut tx, slug).await?.with_context(|| format!("there is no tenant {slug}"))
}

fn read_line() -> anyhow::Result<String> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let line = line.trim_end_matches(['\r', '\n']).to_owned();
    if line.is_empty() {
        bail!("nothing was given");
    }
    Ok(line)
}

/// Writes one line of result; a closed pipe is an error, not a panic.
fn say(line: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}
