//! What is read of a submission is of one moment, whatever a worker commits meanwhile.

use emailclient_core::domain::submission;
use emailclient_core::platform::id::{SubmissionId, TenantId, new_uuid};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Executor as _};
use tests::database::Database;

use crate::plans::fill;

const CHANGES: usize = 400;

/// A submission with one recipient and nothing else: foreign keys are off while it is planted.
async fn plant(superuser: &mut PgConnection, tenant: TenantId, id: SubmissionId) {
    let account = new_uuid();
    let sql = format!(
        "SET session_replication_role = replica;
         INSERT INTO tenants (id, slug, name) VALUES ('{tenant}', 'moment', 'T');
         INSERT INTO submissions (tenant_id, id, account_id, state, message_id_header, envelope_from, mime, send_after, give_up_at)
         VALUES ('{tenant}', '{id}', '{account}', 'sending', 'm', 'a@b', 'x', now(), now());
         INSERT INTO submission_recipients (tenant_id, submission_id, position, address) VALUES ('{tenant}', '{id}', 0, 'a@b')"
    );
    superuser.execute(AssertSqlSafe(sql)).await.unwrap();
}

#[tokio::test]
async fn state_recipients_and_attempts_of_a_submission_are_of_one_moment() {
    let database = Database::create().await;
    let mut superuser = database.superuser().await;
    let (tenant, id) = (TenantId::new(), SubmissionId::new());
    plant(&mut superuser, tenant, id).await;
    let db = fill::db(&database);
    let writing = async {
        for n in 0..CHANGES {
            let (state, recipient) = if n % 2 == 0 { ("sent", "accepted") } else { ("sending", "pending") };
            // Number 1 is there while the message is sent.
            let attempt = if n % 2 == 0 {
                format!(
                    "INSERT INTO submission_attempts (tenant_id, submission_id, number, worker) VALUES ('{tenant}', '{id}', 1, '{id}')"
                )
            } else {
                format!("DELETE FROM submission_attempts WHERE submission_id = '{id}'")
            };
            let sql = format!(
                "BEGIN; UPDATE submissions SET state = '{state}' WHERE id = '{id}';
                 UPDATE submission_recipients SET state = '{recipient}' WHERE submission_id = '{id}'; {attempt}; COMMIT"
            );
            superuser.execute(AssertSqlSafe(sql)).await.unwrap();
        }
    };
    let reading = async {
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..CHANGES {
            let mut tx = db.tenant(tenant).await.unwrap();
            let found = submission::get(&mut tx, id).await.unwrap().unwrap();
            let moment = (found.state.as_str(), found.recipients[0].state.as_str(), found.attempts.len());
            assert!([("sending", "pending", 0), ("sent", "accepted", 1)].contains(&moment), "{moment:?}");
            seen.insert(found.state);
        }
        assert_eq!(seen.len(), 2, "nothing changed while it was read");
    };
    tokio::join!(writing, reading);
    db.close().await;
    drop(superuser);
    database.drop_it().await;
}
