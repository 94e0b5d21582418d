//! Messages that go by the ten thousand: a statement has fifteen seconds, a transaction until the lease wants to be renewed,
//! and each row costs its triggers.

use sqlx::{AssertSqlSafe, Executor as _};

use crate::case::{Case, numbered};

/// Two portions and a half.
const MANY: u32 = 25_000;

/// Rows of ours as if `mailbox` had held this many messages of its own beside those that it has, in the generation that is
/// `older` by so many, from UID 1001 on. Without triggers, which would take a minute.
async fn hold(case: &Case, mailbox: &str, many: u32, older: u32) {
    let sql = format!(
        "SET LOCAL session_replication_role = replica;
         CREATE TEMP TABLE gone ON COMMIT DROP AS
           SELECT b.tenant_id, b.account_id, b.id AS mailbox_id, b.generation - {older} AS generation, gen_random_uuid() AS id,
             1000 + n AS uid, sha256(format('%s %s {older}', b.id, n)::bytea) AS hash
           FROM mailboxes b CROSS JOIN generate_series(1, {many}) n WHERE b.path = '{mailbox}';
         INSERT INTO blobs (tenant_id, account_id, hash, size_bytes, raw) SELECT tenant_id, account_id, hash, 1, 'x' FROM gone;
         INSERT INTO threads (tenant_id, id, account_id, last_message_at) SELECT tenant_id, id, account_id, now() FROM gone;
         INSERT INTO messages (tenant_id, id, account_id, thread_id, blob_hash, size_bytes, received_at, sort_at, date_sort_at,
                               indexed_at, created_at)
           SELECT tenant_id, id, account_id, id, hash, 1, now(), now(), now(), now(), now() - interval '1 day' FROM gone;
         INSERT INTO message_mailboxes (tenant_id, id, account_id, mailbox_id, generation, uid, message_id, internal_date, sort_at,
                                        date_sort_at)
           SELECT tenant_id, id, account_id, mailbox_id, generation, uid, id, now(), now(), now() FROM gone;
         UPDATE mailboxes SET total = total + {many}, unread = unread + {many}, exists_seen = total + {many}
         WHERE path = '{mailbox}'"
    );
    let mut conn = case.app.database.superuser().await;
    conn.execute(AssertSqlSafe(sql)).await.unwrap();
    // As the scheduler does, of tables that grew.
    conn.execute("ANALYZE").await.unwrap();
}

/// A round, after which our rows are the server's and each message that went was told once.
async fn they_go(case: &Case, many: u32) {
    let events = case.events().await;
    case.sync().await;
    let mut told: Vec<String> = events
        .told(&case.app)
        .await
        .into_iter()
        .filter(|(k, _)| k == "message.deleted")
        .map(|(_, id)| id)
        .collect();
    assert_eq!(told.len(), many as usize);
    told.sort();
    told.dedup();
    assert_eq!(told.len(), many as usize, "one was told twice");
    case.settled().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tens_of_thousands_of_messages_go_in_portions_of_a_transaction_each() {
    let case = Case::with(vec![numbered(1)]).await;
    let mut client = case.client().await;
    for mailbox in ["Work", "Work2"] {
        client.ok(&format!("CREATE {mailbox}")).await;
    }
    case.doveadm("mailbox update", &["--min-next-uid", "100000", "INBOX"]);
    case.sync().await;
    let portions = "CREATE TABLE portions (xid xid8, rows bigint);
         CREATE FUNCTION portion() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
           INSERT INTO portions SELECT pg_current_xact_id(), count(*) FROM old_rows;
           RETURN NULL;
         END $$;
         CREATE TRIGGER portion AFTER DELETE ON message_mailboxes REFERENCING OLD TABLE AS old_rows
           FOR EACH STATEMENT EXECUTE FUNCTION portion()";
    case.app.database.superuser().await.execute(portions).await.unwrap();

    hold(&case, "INBOX", MANY, 0).await;
    they_go(&case, MANY).await;

    hold(&case, "INBOX", MANY, 1).await;
    client.append("INBOX", "", None, &numbered(2)).await;
    they_go(&case, MANY).await;

    // A tenth of them in both mailboxes, and both go at once.
    hold(&case, "Work", MANY, 0).await;
    let both = "INSERT INTO message_mailboxes (tenant_id, id, account_id, mailbox_id, generation, uid, message_id, internal_date, sort_at)
         SELECT p.tenant_id, gen_random_uuid(), p.account_id, b.id, b.generation, p.uid, p.message_id, now(), now()
         FROM message_mailboxes p JOIN mailboxes w ON w.id = p.mailbox_id AND w.path = 'Work' JOIN mailboxes b ON b.path = 'Work2'
         WHERE p.uid % 10 = 0";
    case.app.database.superuser().await.execute(both).await.unwrap();
    for mailbox in ["Work", "Work2"] {
        client.ok(&format!("DELETE {mailbox}")).await;
    }
    they_go(&case, MANY).await;
    // A portion of messages, of which none is in more than two mailboxes.
    let most =
        "SELECT max(rows)::bigint FROM (SELECT sum(rows) AS rows FROM portions GROUP BY xid) AS transactions";
    assert!((1_000..=4_000).contains(&case.count(most).await));
    case.finish().await;
}
