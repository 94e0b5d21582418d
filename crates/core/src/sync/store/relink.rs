//! A new UIDVALIDITY: the UIDs we hold mean nothing any more, the messages are most likely still there.
//!
//! The placements stay, visible, in their old generation; arrivals with the same bytes take them over one by one
//! (`resolve`), and what nobody claimed goes when the mailbox has been read completely
//! ([`super::vanish::drop_earlier_generations`]). So ids survive, and clients see no mailbox run empty and fill again.

use mail::sync::Checkpoint;

use super::{Target, attempts, checkpoint, keep};
use crate::domain::event::{self, MailboxReset};
use crate::platform::db::{DbError, TenantTx};
use crate::sync::run;

/// Begins the generation `at` describes, with one `mailbox.reset` event. Returns the mailbox in it.
///
/// Edits wait until their messages are found again. The server's last word on flags is forgotten with the mod-sequence, so
/// all of them are compared.
pub async fn begin_generation(
    tx: &mut TenantTx,
    target: &Target,
    at: &Checkpoint,
    exists: u32,
) -> Result<Target, DbError> {
    let target = Target { generation: at.generation, ..*target };
    checkpoint::write(tx, &target, at, exists).await?;
    attempts::forget_all(tx, &[target.mailbox]).await?;
    keep::clear(tx, &[target.mailbox]).await?;
    event::tell(tx, target.account, MailboxReset { id: target.mailbox });
    run::will_be_read_anew(tx, target.account).await?;
    Ok(target)
}
