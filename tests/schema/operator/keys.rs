//! `emailctl keys rotate`: every stored password gets under the newest key, whatever comes between.

use std::collections::BTreeMap;
use std::time::Duration;

use emailclient_core::domain::account::{self, NewAccount, NewServer, keys};
use emailclient_core::platform::config::{Config, Source};
use emailclient_core::platform::db::Db;
use emailclient_core::platform::id::{AccountId, TenantId, new_uuid};
use emailclient_core::platform::seal::{Keyring, Place, Sealed};
use sqlx::{Connection as _, Executor as _, PgConnection, Row as _};
use tests::database::Database;
use tests::eventually::eventually;
use wire::imap::Security;
use wire::secret::Secret;

use super::program::{ENCRYPTION_KEY as NEW, Settings};

const OLD: &str = "YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXoxMjM0NTY=";
const LOST: &str = "enl4d3Z1dHNycXBvbm1sa2ppaGdmZWRjYmE2NTQzMjE=";
const PATIENCE: Duration = Duration::from_secs(60);

fn keyring(current: &str, old: &[&str]) -> Keyring {
    let old: Vec<Secret> = old.iter().map(|key| Secret::new(*key)).collect();
    Keyring::new(&Secret::new(current), &old).unwrap()
}

fn id_of(key: &str) -> String {
    keyring(key, &[]).current_id().to_owned()
}

/// The settings while keys are exchanged: the new one seals, both open.
fn both(database: &Database) -> Settings {
    Settings::of(database).with("ENCRYPTION_KEYS_OLD", OLD)
}

/// A tenant with accounts sealed under `key`: `<id> in` reads, and `<id> out` sends but for every third account, which
/// has no password to send with.
async fn fill(database: &Database, key: &str, accounts: usize) -> (TenantId, Vec<AccountId>) {
    let (tenant, keyring) = (TenantId::new(), keyring(key, &[]));
    let mut conn = database.superuser().await;
    sqlx::query("INSERT INTO tenants (id, slug, name) VALUES ($1, $2, '')")
        .bind(tenant)
        .bind(format!("t{}", new_uuid().simple()))
        .execute(&mut conn)
        .await
        .unwrap();
    let ids: Vec<AccountId> = (0..accounts).map(|_| AccountId::new()).collect();
    let seal = |account: AccountId, field, word: &str| {
        keyring
            .seal(Place { tenant, row: account.0, field }, &Secret::new(format!("{account} {word}")))
            .unwrap()
            .bytes
    };
    let imap: Vec<Vec<u8>> = ids.iter().map(|id| seal(*id, "imap_password", "in")).collect();
    let smtp: Vec<Option<Vec<u8>>> = ids
        .iter()
        .enumerate()
        .map(|(n, id)| (n % 3 != 0).then(|| seal(*id, "smtp_password", "out")))
        .collect();
    sqlx::query(
        "INSERT INTO accounts (tenant_id, id, email, email_key, imap_host, imap_port, imap_security, imap_username,
           smtp_host, smtp_port, smtp_security, smtp_username, imap_password, imap_password_key, smtp_password, smtp_password_key)
         SELECT $1, id, id || '@x.test', id || '@x.test', 'x.test', 993, 'tls', 'a', 'x.test', 465, 'tls', 'a',
           imap, $5, smtp, CASE WHEN smtp IS NOT NULL THEN $5 END
         FROM unnest($2::uuid[], $3::bytea[], $4::bytea[]) AS n(id, imap, smtp)",
    )
    .bind(tenant)
    .bind(&ids)
    .bind(imap)
    .bind(smtp)
    .bind(keyring.current_id())
    .execute(&mut conn)
    .await
    .unwrap();
    conn.close().await.unwrap();
    (tenant, ids)
}

/// Every password of the database: by account, opened by `keyring`, with the id of its key.
async fn passwords(
    database: &Database,
    keyring: &Keyring,
) -> BTreeMap<(AccountId, &'static str), (String, String)> {
    let mut conn = database.superuser().await;
    let rows = sqlx::query(
        "SELECT tenant_id, id, imap_password, imap_password_key, smtp_password, smtp_password_key FROM accounts",
    )
    .fetch_all(&mut conn)
    .await
    .unwrap();
    let mut all = BTreeMap::new();
    for row in rows {
        let (tenant, account): (TenantId, AccountId) = (row.get("tenant_id"), row.get("id"));
        for (field, key) in [("imap_password", "imap_password_key"), ("smtp_password", "smtp_password_key")] {
            let (bytes, key_id): (Option<Vec<u8>>, Option<String>) = (row.get(field), row.get(key));
            let (Some(bytes), Some(key_id)) = (bytes, key_id) else { continue };
            let sealed = Sealed { key_id, bytes };
            let opened = keyring.open(Place { tenant, row: account.0, field }, &sealed).unwrap();
            all.insert((account, field), (opened.expose().to_owned(), sealed.key_id));
        }
    }
    all
}

/// How many passwords are under each key, all of them opened.
async fn under_keys(database: &Database) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for ((account, field), (password, key)) in passwords(database, &keyring(NEW, &[OLD])).await {
        let word = if field == "imap_password" { "in" } else { "out" };
        assert_eq!(password, format!("{account} {word}"));
        *counts.entry(key).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn all_passwords_get_under_the_newest_key_and_the_old_one_may_go() {
    let database = Database::create().await;
    // More than one batch, and a tenant that has nothing to do.
    fill(&database, OLD, 150).await;
    fill(&database, OLD, 150).await;
    fill(&database, NEW, 3).await;
    let check = both(&database).emailctl(&["check"], "");
    assert!(check.success() && check.out.contains("500 of them under an earlier key"), "{check:?}");

    let rotated = both(&database).emailctl(&["keys", "rotate"], "");
    assert!(rotated.success(), "{rotated:?}");
    let told = format!("500 passwords were sealed anew under {} (500 were under {})", id_of(NEW), id_of(OLD));
    assert!(rotated.out.contains(&told), "{rotated:?}");
    assert_eq!(under_keys(&database).await, BTreeMap::from([(id_of(NEW), 505)]));
    let mut conn = database.superuser().await;
    let audited: Vec<String> = sqlx::query_scalar(
        "SELECT target FROM audit_log WHERE action = 'keys.rotate' AND actor LIKE 'emailctl:%'",
    )
    .fetch_all(&mut conn)
    .await
    .unwrap();
    let passwords: i64 = audited.iter().map(|t| t.split(' ').next().unwrap().parse::<i64>().unwrap()).sum();
    assert_eq!((audited.len(), passwords), (4, 500), "{audited:?}");
    // Nothing that a client sees has changed.
    let seen: i64 =
        sqlx::query_scalar("SELECT count(*) FROM accounts WHERE version <> 1 OR updated_at <> created_at")
            .fetch_one(&mut conn)
            .await
            .unwrap();
    assert_eq!(seen, 0);

    let check = both(&database).emailctl(&["check"], "");
    assert!(check.success() && check.out.contains("none needs ENCRYPTION_KEYS_OLD"), "{check:?}");
    let without = Settings::of(&database);
    let check = without.emailctl(&["check"], "");
    assert!(
        check.success() && check.out.contains(&format!("505 in 3 tenants under {}", id_of(NEW))),
        "{check:?}"
    );
    let again = without.emailctl(&["keys", "rotate"], "");
    assert!(again.success() && again.out.starts_with("0 passwords"), "{again:?}");
    conn.close().await.unwrap();
    database.drop_it().await;
}

#[tokio::test]
async fn a_rotation_that_was_killed_is_taken_up_where_it_ended() {
    let database = Database::create().await;
    fill(&database, OLD, 300).await;
    let mut conn = database.superuser().await;
    // The second batch has written its rows and comes to its line of the audit, where it stays.
    conn.execute(
        "CREATE FUNCTION be_slow() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
           IF EXISTS (SELECT 1 FROM audit_log) THEN PERFORM pg_sleep(14); END IF; RETURN NEW; END $$;
         CREATE TRIGGER be_slow BEFORE INSERT ON audit_log FOR EACH ROW EXECUTE FUNCTION be_slow()",
    )
    .await
    .unwrap();
    let running = both(&database).start_with("emailctl", &["keys", "rotate"]);
    eventually("the second batch is under way", PATIENCE, async || {
        let there: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep')",
        )
        .fetch_one(&mut conn)
        .await
        .unwrap();
        there.then_some(())
    })
    .await;
    running.signal("KILL");
    assert_eq!(running.wait(), None);
    conn.execute(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep';
         DROP TRIGGER be_slow ON audit_log",
    )
    .await
    .unwrap();
    let after = under_keys(&database).await;
    assert_eq!(after.values().sum::<usize>(), 500);
    let (done, left) = (after[&id_of(NEW)], after[&id_of(OLD)]);
    assert_eq!(done, 166, "the first batch is 100 accounts, every third of them with one password");
    let again = both(&database).emailctl(&["keys", "rotate"], "");
    assert!(again.success() && again.out.starts_with(&format!("{left} passwords")), "{again:?}");
    assert_eq!(under_keys(&database).await, BTreeMap::from([(id_of(NEW), 500)]));
    conn.close().await.unwrap();
    database.drop_it().await;
}

#[tokio::test]
async fn what_does_not_open_is_told_and_keeps_nothing_else_back() {
    let database = Database::create().await;
    let (_, good) = fill(&database, OLD, 3).await;
    let (_, lost) = fill(&database, LOST, 2).await;
    let (_, forged) = fill(&database, OLD, 1).await;
    let mut conn = database.superuser().await;
    sqlx::query("UPDATE accounts SET imap_password = set_byte(imap_password, 15, 255 - get_byte(imap_password, 15)) WHERE id = $1")
        .bind(forged[0])
        .execute(&mut conn)
        .await
        .unwrap();
    let ended = both(&database).emailctl(&["keys", "rotate"], "");
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.out.starts_with("5 passwords"), "{ended:?}");
    for parts in [
        format!("emailctl: 3 are under key {}, which the settings lack", id_of(LOST)),
        format!("emailctl: 1 do not open though their key is there (account {} for one)", forged[0]),
    ] {
        assert!(ended.err.contains(&parts), "{parts} in {ended:?}");
    }
    for id in good.iter().chain(&lost).chain(&forged) {
        assert!(!format!("{ended:?}").contains(&format!("{id} in")), "a password is shown: {ended:?}");
    }
    let keys: Vec<(AccountId, String)> =
        sqlx::query_as("SELECT id, imap_password_key FROM accounts ORDER BY id")
            .fetch_all(&mut conn)
            .await
            .unwrap();
    for (account, key) in keys {
        let wanted = if good.contains(&account) {
            NEW
        } else if lost.contains(&account) {
            LOST
        } else {
            OLD
        };
        assert_eq!(key, id_of(wanted), "{account}");
    }
    let found = both(&database).with("ENCRYPTION_KEYS_OLD", &format!("{OLD},{LOST}"));
    let ended = found.emailctl(&["keys", "rotate"], "");
    assert!(ended.code == Some(1) && ended.out.starts_with("3 passwords"), "{ended:?}");
    assert!(!ended.err.contains("lack"), "{ended:?}");
    conn.close().await.unwrap();
    database.drop_it().await;
}

fn account_with(id: AccountId, password: &str) -> NewAccount {
    let server = |port| NewServer {
        host: "x.test".into(),
        port,
        security: Security::Tls,
        username: "a".into(),
        password: Some(Secret::new(password)),
    };
    NewAccount {
        shared_mailboxes: false,
        email: format!("{id}@x.test"),
        name: String::new(),
        imap: server(993),
        smtp: server(465),
        identities: vec![],
        keep: mail::keep::Keep::default(),
        grant: None,
    }
}

/// Gives each of these accounts another password `times` times, as the API does.
async fn change(db: Db, keyring: Keyring, tenant: TenantId, accounts: Vec<AccountId>, times: usize) {
    for time in 1..=times {
        for id in &accounts {
            let mut tx = db.tenant(tenant).await.unwrap();
            let new = account_with(*id, &format!("{id} change {time}"));
            account::replace(&mut tx, &keyring, *id, &new, false).await.unwrap().unwrap();
            tx.commit().await.unwrap();
        }
    }
}

async fn hold(conn: &mut PgConnection, account: AccountId) {
    conn.execute("BEGIN").await.unwrap();
    sqlx::query("SELECT 1 FROM accounts WHERE id = $1 FOR UPDATE").bind(account).execute(conn).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passwords_changed_meanwhile_stay_as_changed_and_held_rows_are_waited_for() {
    let database = Database::create().await;
    let (tenant, ids) = fill(&database, OLD, 220).await;
    let config = Config::from_source(&Source::new(both(&database).pairs())).unwrap();
    let db = Db::new(&config).unwrap();
    let mut conn = database.superuser().await;
    hold(&mut conn, ids[219]).await;
    let mut changing = vec![];
    for (part, current) in [(0, NEW), (1, NEW), (2, OLD)] {
        // The third has not been restarted with the new key yet, and seals under the old one.
        let ring = keyring(current, &[if current == NEW { OLD } else { NEW }]);
        let mine = ids[part * 20..(part + 1) * 20].to_vec();
        changing.push(tokio::spawn(change(db.clone(), ring, tenant, mine, 10)));
    }
    let (ring, of_ours) = (keyring(NEW, &[OLD]), db.clone());
    let rotation = tokio::spawn(async move { keys::rotate(&of_ours, &ring, "emailctl:test").await.unwrap() });
    eventually("all but the held one are done", PATIENCE, async || {
        let left: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM accounts WHERE imap_password_key <> $1 AND id <> ALL ($2)",
        )
        .bind(id_of(NEW))
        .bind(&ids[40..60])
        .fetch_one(&mut conn)
        .await
        .unwrap();
        (left == 1).then_some(())
    })
    .await;
    assert!(!rotation.is_finished(), "it does not wait for the row that is held");
    for task in changing {
        task.await.unwrap();
    }
    conn.execute("COMMIT").await.unwrap();
    let done = tokio::time::timeout(PATIENCE, rotation).await.unwrap().unwrap();
    assert!(done.is_whole(), "{done:?}");
    for ((account, field), (password, key)) in passwords(&database, &keyring(NEW, &[OLD])).await {
        assert_eq!(key, id_of(NEW), "{account}");
        let word = if field == "imap_password" { "in" } else { "out" };
        let wanted = if ids[..60].contains(&account) {
            format!("{account} change 10")
        } else {
            format!("{account} {word}")
        };
        assert_eq!(password, wanted);
    }
    db.close().await;
    conn.close().await.unwrap();
    database.drop_it().await;
}
