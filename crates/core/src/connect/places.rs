//! Places for an account's connections: so few are open at once, whichever processes open them.
//!
//! A place is a row with a number, so the key of the table allows no more than there are numbers. Who has one renews it while
//! the connection stands, and gives it up when it has ended; what a dead process held is free within a minute. Rounds and
//! watches need none: the leases of the account give it one of each.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::Of;
use crate::domain::account::credential::Protocol;
use crate::platform::db::{Db, DbError, TenantTx};
use crate::platform::id::{AccountId, new_uuid};
use wire::provider;

/// Connections of one account for one protocol at most; fewer where its provider allows fewer ([`wire::provider`]).
pub const PLACES: i16 = 4;
/// Of an account's connections to its IMAP server the round and the watch have one each, and need no place.
const WITHOUT_PLACE: u16 = 2;
/// How long a place stays its holder's without a renewal; renewed every third, so two may fail.
const HELD_FOR: Duration = Duration::from_secs(60);
/// Between two looks of one who waits.
const LOOK: Duration = Duration::from_millis(250);

/// A place that is held until it is released or dropped.
#[derive(Debug)]
pub struct Place {
    db: Db,
    of: Of,
    holder: Uuid,
    renewal: JoinHandle<()>,
    released: bool,
}

/// Takes a place if there is one. It counts from the commit of `tx` on; where that is not committed, there is none.
pub async fn take(
    tx: &mut TenantTx,
    db: &Db,
    account: AccountId,
    protocol: Protocol,
) -> Result<Option<Place>, DbError> {
    let (tenant, holder) = (tx.tenant(), new_uuid());
    let places = allowed(tx, account, protocol).await?;
    // Whoever takes the same number at the same moment is waited for, and then it is seen as taken.
    for _ in 0..places {
        let free: Option<i16> = sqlx::query_scalar(
            "SELECT n::smallint FROM generate_series(1, $4) n WHERE NOT EXISTS (
               SELECT 1 FROM connection_places p WHERE p.tenant_id = $1 AND p.account_id = $2 AND p.protocol = $3 AND p.place = n
                 AND p.held_until > clock_timestamp() AND p.held_until <= clock_timestamp() + make_interval(secs => $5))
             ORDER BY n LIMIT 1",
        )
        .bind(tenant)
        .bind(account)
        .bind(protocol.as_str())
        .bind(i32::from(places))
        .bind(HELD_FOR.as_secs_f64())
        .fetch_optional(tx.conn())
        .await?;
        let Some(free) = free else { return Ok(None) };
        let taken = sqlx::query(
            "INSERT INTO connection_places AS p (tenant_id, account_id, protocol, place, holder, held_until)
             SELECT tenant_id, id, $3, $4, $5, clock_timestamp() + make_interval(secs => $6) FROM accounts
             WHERE tenant_id = $1 AND id = $2
             ON CONFLICT (tenant_id, account_id, protocol, place) DO UPDATE
               SET holder = excluded.holder, held_until = excluded.held_until
               WHERE NOT (p.held_until > clock_timestamp() AND p.held_until <= clock_timestamp() + make_interval(secs => $6))",
        )
        .bind(tenant)
        .bind(account)
        .bind(protocol.as_str())
        .bind(free)
        .bind(holder)
        .bind(HELD_FOR.as_secs_f64())
        .execute(tx.conn())
        .await?;
        if taken.rows_affected() == 1 {
            let of = (tenant, account);
            let renewal = tokio::spawn(keep(db.clone(), of, holder));
            return Ok(Some(Place { db: db.clone(), of, holder, renewal, released: false }));
        }
    }
    Ok(None)
}

/// How many places the account has, by what its provider allows.
async fn allowed(tx: &mut TenantTx, account: AccountId, protocol: Protocol) -> Result<i16, DbError> {
    let host: Option<Option<String>> = sqlx::query_scalar(
        "SELECT CASE $3 WHEN 'imap' THEN imap_host ELSE smtp_host END FROM accounts WHERE tenant_id = $1 AND id = $2",
    )
    .bind(tx.tenant())
    .bind(account)
    .bind(protocol.as_str())
    .fetch_optional(tx.conn())
    .await?;
    let provider = provider::of(&host.flatten().unwrap_or_default());
    let connections = match protocol {
        Protocol::Imap => provider.imap_connections.saturating_sub(WITHOUT_PLACE),
        Protocol::Smtp => provider.smtp_connections,
    };
    Ok(i16::try_from(connections).unwrap_or(PLACES).min(PLACES))
}

/// The same in a transaction of its own, waiting for a place for `patience`.
pub(super) async fn wait(
    db: &Db,
    (tenant, account): Of,
    protocol: Protocol,
    patience: Duration,
) -> Result<Option<Place>, DbError> {
    let until = Instant::now() + patience;
    loop {
        let mut tx = db.tenant(tenant).await?;
        // Others that take a place are done in a moment.
        tx.wait_for_rows().await?;
        let place = take(&mut tx, db, account, protocol).await?;
        tx.commit().await?;
        if place.is_some() || Instant::now() >= until {
            return Ok(place);
        }
        sleep(LOOK).await;
    }
}

async fn keep(db: Db, (tenant, account): Of, holder: Uuid) {
    loop {
        sleep(HELD_FOR / 3).await;
        let renewed = async {
            let mut tx = db.tenant(tenant).await?;
            sqlx::query(
                "UPDATE connection_places SET held_until = clock_timestamp() + make_interval(secs => $4)
                 WHERE tenant_id = $1 AND account_id = $2 AND holder = $3",
            )
            .bind(tenant)
            .bind(account)
            .bind(holder)
            .bind(HELD_FOR.as_secs_f64())
            .execute(tx.conn())
            .await?;
            tx.commit().await
        };
        if let Err(error) = renewed.await {
            tracing::warn!(account_id = %account, %error, "the place of a connection was not renewed");
        }
    }
}

async fn give_up(db: &Db, (tenant, account): Of, holder: Uuid) {
    let given = async {
        let mut tx = db.tenant(tenant).await?;
        sqlx::query("DELETE FROM connection_places WHERE tenant_id = $1 AND account_id = $2 AND holder = $3")
            .bind(tenant)
            .bind(account)
            .bind(holder)
            .execute(tx.conn())
            .await?;
        tx.commit().await
    };
    if let Err(error) = given.await {
        tracing::debug!(account_id = %account, %error, "the place of a connection was not given up; it runs out");
    }
}

impl Place {
    /// Gives the place up; the connection has ended.
    pub async fn release(mut self) {
        self.released = true;
        self.renewal.abort();
        give_up(&self.db, self.of, self.holder).await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.renewal.abort();
        // Outside a runtime nothing is open any more, and the place runs out.
        if let (false, Ok(runtime)) = (self.released, tokio::runtime::Handle::try_current()) {
            let (db, of, holder) = (self.db.clone(), self.of, self.holder);
            runtime.spawn(async move { give_up(&db, of, holder).await });
        }
    }
}
