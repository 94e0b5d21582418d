//! What waits in a database of the release before becomes edits: nothing our users asked for is lost by the update.

use emailclient_core::domain::edits;
use emailclient_core::platform::id::{AccountId, TenantId};
use sqlx::migrate::Migrator;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};
use tests::database::Database;
use uuid::Uuid;

static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");
/// The last migration of the release before.
const BEFORE: i64 = 20_261_122_000_017;

const TENANT: u128 = 0x0700_0000_0000_7000_8000_0000_0000_0001;
const ACCOUNT: u128 = 0x0700_0000_0000_7000_8000_0000_0000_0002;

fn id(n: u128) -> String {
    format!("'{}'", Uuid::from_u128(0x0700_0000_0000_7000_8000_0000_0000_0000 + n))
}

/// Placements of message `m`: mailbox, UID, flags, base flags, hidden.
fn placement(row: u128, m: u128, at: (u128, Option<u32>), flags: (i16, i16), hidden: bool) -> String {
    let uid = at.1.map_or_else(|| "NULL".to_owned(), |uid| uid.to_string());
    let hidden = if hidden { "now()" } else { "NULL" };
    format!(
        "INSERT INTO message_mailboxes (tenant_id, id, account_id, mailbox_id, generation, uid, message_id, flags, base_flags,
           internal_date, sort_at, hidden_at) VALUES ({}, {}, {}, {}, 1, {uid}, {}, {}, {}, now(), now(), {hidden})",
        id(1), id(row), id(2), id(at.0), id(m), flags.0, flags.1
    )
}

fn pending(n: u128, kind: &str, source: (u128, u128), target: Option<(u128, u128)>, data: &str) -> String {
    let of = |target: Option<u128>| target.map_or_else(|| "NULL".to_owned(), id);
    format!(
        "INSERT INTO pending_changes (tenant_id, id, account_id, kind, placement_id, mailbox_id, target_mailbox_id,
           target_placement_id, data) VALUES ({}, {}, {}, '{kind}', {}, {}, {}, {}, '{data}')",
        id(1), id(n), id(2), id(source.0), id(source.1), of(target.map(|t| t.1)), of(target.map(|t| t.0))
    )
}

const INBOX: u128 = 11;
const WORK: u128 = 12;
const TRASH: u128 = 13;

/// Everything that can wait in the release before, one message each.
fn waiting() -> Vec<String> {
    let mut all = vec![
        format!("INSERT INTO tenants (id, slug, name) VALUES ({}, 'acme', 'A')", id(1)),
        format!(
            "INSERT INTO accounts (tenant_id, id, email, email_key, imap_host, imap_port, imap_security, imap_username, smtp_host,
               smtp_port, smtp_security, smtp_username) VALUES ({}, {}, 'a@b', 'a@b', 'h', 1, 'tls', 'u', 'h', 1, 'tls', 'u')",
            id(1), id(2)
        ),
        format!("INSERT INTO blobs (tenant_id, account_id, hash, size_bytes, raw) VALUES ({}, {}, 'h', 1, 'x')", id(1), id(2)),
        format!("INSERT INTO threads (tenant_id, id, account_id, last_message_at) VALUES ({}, {}, {}, now())", id(1), id(3), id(2)),
    ];
    for (mailbox, name) in [(INBOX, "INBOX"), (WORK, "Work"), (TRASH, "Trash")] {
        all.push(format!(
            "INSERT INTO mailboxes (tenant_id, id, account_id, wire_name, path, name, generation, uidvalidity, tail_uid)
             VALUES ({}, {}, {}, '{name}', '{name}', '{name}', 1, 7, 1)",
            id(1), id(mailbox), id(2)
        ));
    }
    for m in 21..=27 {
        all.push(format!(
            "INSERT INTO messages (tenant_id, id, account_id, thread_id, blob_hash, size_bytes, received_at, sort_at, date_sort_at)
             VALUES ({}, {}, {}, {}, 'h', 1, now(), now(), now())",
            id(1), id(m), id(2), id(3)
        ));
    }
    all.extend([
        // Flags alone, keywords too.
        placement(31, 21, (INBOX, Some(1)), (5, 3), false),
        format!("UPDATE message_mailboxes SET keywords = '{{New}}', base_keywords = '{{Old}}' WHERE id = {}", id(31)),
        // Moved, then starred at its new place.
        placement(32, 22, (INBOX, Some(2)), (0, 0), true),
        placement(42, 22, (WORK, None), (4, 0), false),
        pending(51, "move", (32, INBOX), Some((42, WORK)), "{}"),
        // Its copy may have been made.
        placement(33, 23, (INBOX, Some(3)), (1, 1), false),
        placement(43, 23, (WORK, None), (1, 1), false),
        pending(52, "copy", (33, INBOX), Some((43, WORK)), "{\"copying\": true}"),
        placement(34, 24, (INBOX, Some(4)), (0, 0), true),
        pending(53, "expunge", (34, INBOX), None, "{}"),
        // Moved by the server, which did not tell the UID, and not read there yet.
        placement(45, 25, (WORK, None), (1, 1), false),
        // Deleted, and left as `\\Deleted`.
        placement(36, 26, (INBOX, Some(6)), (8, 8), true),
        // Moved on before the first move was sent.
        placement(37, 27, (INBOX, Some(7)), (0, 0), true),
        placement(47, 27, (WORK, None), (0, 0), true),
        placement(57, 27, (TRASH, None), (0, 0), false),
        pending(54, "move", (37, INBOX), Some((47, WORK)), "{}"),
        pending(55, "move", (47, WORK), Some((57, TRASH)), "{}"),
        format!(
            "INSERT INTO pending_changes (tenant_id, id, account_id, kind, mailbox_id) VALUES ({}, {}, {}, 'create_mailbox', {})",
            id(1), id(56), id(2), id(TRASH)
        ),
    ]);
    all
}

#[tokio::test]
async fn what_waits_in_a_database_of_the_release_before_becomes_edits() {
    // The roles belong to the cluster, and come with the first database that is migrated as a whole.
    Database::create().await.drop_it().await;
    let database = Database::empty().await;
    let mut conn = database.superuser().await;
    MIGRATIONS.run_to(BEFORE, &mut conn).await.unwrap();
    for statement in waiting() {
        conn.execute(AssertSqlSafe(statement.clone())).await.unwrap_or_else(|e| panic!("{statement}: {e}"));
    }
    let seen = "SELECT concat_ws(' ', m.id, b.path, p.flags, p.keywords) FROM message_mailboxes p JOIN messages m ON m.id = p.message_id
                JOIN mailboxes b ON b.id = p.mailbox_id WHERE p.hidden_at IS NULL ORDER BY 1";
    let before: Vec<String> = sqlx::query_scalar(seen).fetch_all(&mut conn).await.unwrap();
    MIGRATIONS.run(&mut conn).await.unwrap();
    let after: Vec<String> = sqlx::query_scalar(seen).fetch_all(&mut conn).await.unwrap();
    assert_eq!(after, before, "clients see what they saw");
    let edits: Vec<String> = sqlx::query_scalar(
        "SELECT concat_ws(' ', right(e.message_id::text, 2), e.kind, b.path, '>', t.path, e.flags_add, e.flags_remove, e.keywords_add,
           e.keywords_remove, e.state, e.carried_flags, s.path)
         FROM edits e LEFT JOIN mailboxes b ON b.id = e.mailbox_id LEFT JOIN mailboxes t ON t.id = e.target_mailbox_id
         LEFT JOIN mailboxes s ON s.id = e.sent_from ORDER BY e.id",
    )
    .fetch_all(&mut conn)
    .await
    .unwrap();
    let expected = [
        "16 move INBOX > Work 0 0 {} {} open 0",
        "17 copy INBOX > Work 0 0 {} {} in_doubt 1 INBOX",
        "18 remove INBOX > 0 0 {} {} open 0",
        "1b move INBOX > Work 0 0 {} {} open 0",
        "1b move Work > Trash 0 0 {} {} open 0",
        "19 copy Work > Work 0 0 {} {} done_unseen 1",
        "15 flags INBOX > 4 2 {New} {Old} open 0",
        "16 flags Work > 4 0 {} {} open 0",
    ];
    assert_eq!(edits, expected);
    let marked: i64 = sqlx::query_scalar("SELECT count(*) FROM message_mailboxes WHERE marked")
        .fetch_one(&mut conn)
        .await
        .unwrap();
    let tree: Vec<String> =
        sqlx::query_scalar("SELECT kind FROM pending_changes").fetch_all(&mut conn).await.unwrap();
    assert_eq!((marked, tree.as_slice()), (1, &["create_mailbox".to_owned()][..]));
    folds_to_what_is_seen(&database, &mut conn).await;
    conn.close().await.unwrap();
    database.drop_it().await;
}

/// The fold of what was carried over is what the rows show: nothing jumps when the first edit of a message is touched.
async fn folds_to_what_is_seen(database: &Database, conn: &mut PgConnection) {
    let messages: Vec<Uuid> =
        sqlx::query_scalar("SELECT id FROM messages ORDER BY id").fetch_all(&mut *conn).await.unwrap();
    let db = crate::plans::fill::db(database);
    let mut tx = db.tenant(TenantId(Uuid::from_u128(TENANT))).await.unwrap();
    let works = edits::load(&mut tx, AccountId(Uuid::from_u128(ACCOUNT)), &messages).await.unwrap();
    for work in works {
        let mut folded: Vec<(Uuid, i16)> = work
            .message
            .visible()
            .iter()
            .map(|p| (Uuid::from_u128(p.mailbox.0), p.flags.flags.bits()))
            .collect();
        folded.sort_unstable();
        let rows: Vec<(Uuid, i16)> = sqlx::query_as(
            "SELECT mailbox_id, flags FROM message_mailboxes WHERE message_id = $1 AND hidden_at IS NULL ORDER BY mailbox_id",
        )
        .bind(work.id.0)
        .fetch_all(&mut *conn)
        .await
        .unwrap();
        assert_eq!(folded, rows, "{}", work.id);
    }
    drop(tx);
    db.close().await;
}
