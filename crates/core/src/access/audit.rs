//! The audit trail: who did what to which object, from where, and how it ended. Rows are only ever added.

use crate::platform::db::{DbError, TenantTx};

/// One line of the trail.
#[derive(Debug, Clone, Default)]
pub struct Entry<'a> {
    /// `user:<id>`, `operator` or `system`.
    pub actor: &'a str,
    /// What was done, `noun.verb`.
    pub action: &'a str,
    /// The object's id or name.
    pub target: Option<&'a str>,
    /// The client's address.
    pub address: Option<&'a str>,
    /// `ok` or the code of the refusal.
    pub result: &'a str,
    /// The request's id.
    pub request_id: Option<&'a str>,
}

impl<'a> Entry<'a> {
    /// Something the operator did with `emailctl`.
    #[must_use]
    pub fn by_operator(action: &'a str, target: &'a str) -> Self {
        Self { actor: "operator", action, target: Some(target), result: "ok", ..Self::default() }
    }
}

/// Adds a line, in the transaction that did the thing.
pub async fn record(tx: &mut TenantTx, entry: &Entry<'_>) -> Result<(), DbError> {
    sqlx::query("INSERT INTO audit_log (tenant_id, id, actor, action, target, address, result, request_id) VALUES ($1,$2,$3,$4,$5,$6,$7,$8)")
        .bind(tx.tenant())
        .bind(crate::platform::id::new_uuid())
        .bind(entry.actor)
        .bind(entry.action)
        .bind(entry.target)
        .bind(entry.address)
        .bind(entry.result)
        .bind(entry.request_id)
        .execute(tx.conn())
        .await?;
    Ok(())
}
