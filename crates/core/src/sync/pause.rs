//! Pausing an account and going on with it.
//!
//! A paused account is neither read nor watched and nothing is pushed to its server; its mail can be read, edits wait in
//! the rows, and messages are sent all the same. Workers learn of it by their lease, which pausing takes away.

use crate::domain::account::{Account, get};
use crate::domain::event;
use crate::domain::states::AccountState;
use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::AccountId;
use crate::queue::lease;
use crate::sync::run;

const CODE: &str = "paused";
const TEXT: &str = "Synchronisation was paused by a user.";

/// Stops the synchronisation of an account: a round that is under way can write nothing from here on. Harmless when it is
/// paused already. `None`: there is no such account.
pub async fn pause(tx: &mut TenantTx, id: AccountId) -> Result<Option<Account>, DbError> {
    lease::lock(tx, &[id]).await?;
    let done = sqlx::query(
        "UPDATE accounts SET state = 'paused', cause_code = $3, cause_text = $4, cause_upstream = NULL,
           cause_since = now(), cause_next_try_at = NULL
         WHERE tenant_id = $1 AND id = $2 AND state <> 'paused'",
    )
    .bind(tx.tenant())
    .bind(id)
    .bind(CODE)
    .bind(TEXT)
    .execute(tx.conn())
    .await?;
    if done.rows_affected() == 1 {
        lease::close(tx, id).await?;
        run::interrupt(tx, id, CODE).await?;
        event::tell_state(tx, id, AccountState::Paused, Some(CODE));
    }
    get(tx, id).await
}

/// Goes on with a paused account: what it needs of its server is found by a round, which is asked for. Harmless when it is
/// not paused. `None`: there is no such account.
pub async fn resume(tx: &mut TenantTx, id: AccountId) -> Result<Option<Account>, DbError> {
    lease::lock(tx, &[id]).await?;
    let done = sqlx::query(
        "UPDATE accounts SET state = 'connecting', cause_code = NULL, cause_text = NULL, cause_upstream = NULL,
           cause_since = NULL, cause_next_try_at = NULL
         WHERE tenant_id = $1 AND id = $2 AND state = 'paused'",
    )
    .bind(tx.tenant())
    .bind(id)
    .execute(tx.conn())
    .await?;
    if done.rows_affected() == 1 {
        lease::reopen(tx, id).await?;
        run::request(tx, id).await?;
        event::tell_state(tx, id, AccountState::Connecting, None);
    }
    get(tx, id).await
}
