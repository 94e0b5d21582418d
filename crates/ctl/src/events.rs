//! The event log, as an operator looks at it.

use std::collections::BTreeSet;
use std::time::Duration;

use emailclient_core::events::envelope::{self, Include};
use emailclient_core::events::log::{self, Filter};
use emailclient_core::platform::db::Db;
use emailclient_core::platform::id::{AccountId, TenantId};

use crate::command::Events;
use crate::{find, say};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Events read at once.
const AT_ONCE: usize = 500;

/// Carries out one command about events.
///
/// # Errors
/// When there is no such tenant, or the database does not answer.
pub async fn run(what: Events, db: &Db) -> anyhow::Result<()> {
    let Events::Tail { tenant, account, lines, follow } = what;
    let tenant = find(db, &tenant).await?.id;
    let accounts = account.map(|id| BTreeSet::from([AccountId(id)]));
    let filter = Filter { accounts, kinds: None, backfill: true };
    let until = log::make_durable(db, tenant).await?.durable;
    let mut at = begin(db, tenant, (until, i64::from(lines)), &filter).await?;
    loop {
        let until = log::make_durable(db, tenant).await?.durable;
        while at < until {
            at = print(db, tenant, (at, until), &filter).await?;
        }
        if !follow {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The position after which `lines` events follow that the filter lets through, as far as the log reaches back.
async fn begin(
    db: &Db,
    tenant: TenantId,
    (until, lines): (i64, i64),
    filter: &Filter,
) -> anyhow::Result<i64> {
    let mut tx = db.tenant(tenant).await?;
    let at = log::before_last(&mut tx, until, filter, lines).await?;
    tx.release();
    Ok(at)
}

async fn print(db: &Db, tenant: TenantId, range: (i64, i64), filter: &Filter) -> anyhow::Result<i64> {
    let mut tx = db.tenant(tenant).await?;
    let entries = log::read(&mut tx, range, filter, AT_ONCE).await?;
    let told = envelope::envelopes(&mut tx, &entries, Include::Ids).await?;
    tx.release();
    for event in told {
        say(&serde_json::to_string(&event)?)?;
    }
    Ok(entries.last().filter(|_| entries.len() == AT_ONCE).map_or(range.1, |last| last.position))
}
