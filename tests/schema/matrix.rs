//! The data matrix: for each table with a tenant_id, tenant B sees, changes and references nothing of tenant A.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, Row as _};
use tests::database::Database;

/// One row of everything for tenant `t`, ids derived from it.
async fn plant(conn: &mut PgConnection, t: &str) {
    // Ids of one tenant differ from another's in the first group only.
    let id = |n: u32| format!("'{t}-0000-7000-8000-{n:012}'");
    let (tenant, user, session, account, mailbox) = (id(1), id(2), id(3), id(4), id(5));
    let (thread, message, placement, draft, submission) = (id(6), id(7), id(8), id(9), id(10));
    let statements = [
        format!("INSERT INTO tenants (id, slug, name) VALUES ({tenant}, 't-{t}', 'T')"),
        format!("INSERT INTO users (tenant_id,id,email,email_key,role,password_hash) VALUES ({tenant},{user},'a@b','a@b','owner','x')"),
        format!("INSERT INTO sessions (tenant_id,id,user_id,expires_at) VALUES ({tenant},{session},{user},now())"),
        format!("INSERT INTO refresh_tokens (tenant_id,token_hash,session_id) VALUES ({tenant},'x',{session})"),
        format!("INSERT INTO login_networks (tenant_id,user_id,network) VALUES ({tenant},{user},'192.0.2.1')"),
        format!("INSERT INTO accounts (tenant_id,id,email,email_key,imap_host,imap_port,imap_security,imap_username,smtp_host,smtp_port,smtp_security,smtp_username)
                 VALUES ({tenant},{account},'a@b','a@b','h',1,'tls','u','h',1,'tls','u')"),
        format!("INSERT INTO oauth_apps (tenant_id,id,provider,client_id) VALUES ({tenant},{},'google','c')", id(20)),
        format!("INSERT INTO oauth_grants (tenant_id,id,app_id,provider,kind) VALUES ({tenant},{},{},'google','person')", id(21), id(20)),
        format!("UPDATE accounts SET grant_id = {} WHERE id = {account}", id(21)),
        format!("INSERT INTO connect_sessions (tenant_id,id,token_hash,redirect_url,account_id,actor,expires_at)
                 VALUES ({tenant},{},'h','u',{account},{user},now())", id(23)),
        format!("INSERT INTO tenant_branding (tenant_id,name) VALUES ({tenant},'T')"),
        format!("INSERT INTO oauth_flows (tenant_id,state_hash,app_id,account_id,redirect_url,actor,expires_at)
                 VALUES ({tenant},'h',{},{account},'u',{user},now())", id(20)),
        format!("INSERT INTO oauth_devices (tenant_id,id,app_id,account_id,actor,user_code,verification_uri,interval_seconds,next_poll_at,expires_at)
                 VALUES ({tenant},{},{},{account},{user},'u','v',5,now(),now())", id(22), id(20)),
        format!("INSERT INTO account_leases (tenant_id,account_id) VALUES ({tenant},{account})"),
        format!("INSERT INTO account_removals (tenant_id,account_id) VALUES ({tenant},{account})"),
        format!("INSERT INTO sync_runs (tenant_id,id,account_id,state) VALUES ({tenant},{},{account},'queued')", id(11)),
        format!("INSERT INTO mailboxes (tenant_id,id,account_id,wire_name,path,name) VALUES ({tenant},{mailbox},{account},'INBOX','INBOX','INBOX')"),
        format!("INSERT INTO mailbox_removals (tenant_id,account_id,mailbox_id) VALUES ({tenant},{account},{mailbox})"),
        format!("INSERT INTO mailbox_outside (tenant_id,account_id,mailbox_id,generation,first_uid,last_uid) VALUES ({tenant},{account},{mailbox},0,1,2)"),
        format!("INSERT INTO account_narrowings (tenant_id,account_id) VALUES ({tenant},{account})"),
        format!("INSERT INTO ingest_batches (tenant_id,mailbox_id,epoch,generation,uids) VALUES ({tenant},{mailbox},1,0,'1:5')"),
        format!("INSERT INTO ingest_attempts (tenant_id,mailbox_id,generation,uid,reason) VALUES ({tenant},{mailbox},0,1,'r')"),
        format!("INSERT INTO blobs (tenant_id,account_id,hash,size_bytes,raw) VALUES ({tenant},{account},'h',1,'x')"),
        format!("INSERT INTO threads (tenant_id,id,account_id,last_message_at) VALUES ({tenant},{thread},{account},now())"),
        format!("INSERT INTO thread_keys (tenant_id,account_id,key,thread_id) VALUES ({tenant},{account},'k',{thread})"),
        format!("INSERT INTO messages (tenant_id,id,account_id,thread_id,blob_hash,size_bytes,received_at,sort_at,date_sort_at)
                 VALUES ({tenant},{message},{account},{thread},'h',1,now(),now(),now())"),
        format!("INSERT INTO message_mailboxes (tenant_id,id,account_id,mailbox_id,generation,uid,message_id,internal_date,sort_at)
                 VALUES ({tenant},{placement},{account},{mailbox},0,1,{message},now(),now())"),
        format!("INSERT INTO message_search (tenant_id,message_id,account_id,sort_at,tsv) VALUES ({tenant},{message},{account},now(),'word')"),
        format!("INSERT INTO unindexed_batches (tenant_id,id,account_id,sort_at,message_ids) VALUES ({tenant},{},{account},now(),ARRAY[{message}]::uuid[])", id(17)),
        format!("INSERT INTO edits (tenant_id,account_id,message_id,kind,mailbox_id,target_mailbox_id) VALUES ({tenant},{account},{message},'move',{mailbox},{mailbox})"),
        format!("INSERT INTO pending_changes (tenant_id,id,account_id,kind,mailbox_id) VALUES ({tenant},{},{account},'subscribe',{mailbox})", id(12)),
        format!("INSERT INTO drafts (tenant_id,id,account_id,content) VALUES ({tenant},{draft},{account},'{{}}')"),
        format!("INSERT INTO draft_attachments (tenant_id,id,draft_id,position,filename,content_type,size_bytes,content) VALUES ({tenant},{},{draft},0,'f','t/t',1,'x')", id(13)),
        format!("INSERT INTO upload_pieces (tenant_id,upload_id,file,n,bytes) VALUES ({tenant},{draft},1,0,'x')"),
        format!("INSERT INTO submissions (tenant_id,id,account_id,state,message_id_header,envelope_from,mime,send_after,give_up_at)
                 VALUES ({tenant},{submission},{account},'queued','m','a@b','x',now(),now())"),
        format!("INSERT INTO submission_recipients (tenant_id,submission_id,position,address) VALUES ({tenant},{submission},0,'a@b')"),
        format!("INSERT INTO submission_attempts (tenant_id,submission_id,number,worker) VALUES ({tenant},{submission},1,{user})"),
        // As the release before writes them; its positions come from the tenant's stream.
        format!("INSERT INTO events (tenant_id,account_id,kind) VALUES ({tenant},{account},'x.y')"),
        format!("INSERT INTO event_tickets (tenant_id,ticket_hash,user_id,session_id,token_expires,expires_at) VALUES ({tenant},'h',{user},{session},0,now())"),
        format!("INSERT INTO audit_log (tenant_id,id,actor,action,result) VALUES ({tenant},{},'a','b','ok')", id(14)),
        format!("INSERT INTO idempotency_keys (tenant_id,caller,route,key,body_hash,status,headers,body) VALUES ({tenant},'c','r','k','h',200,'{{}}','x')"),
        format!("INSERT INTO jobs (tenant_id,id,kind,payload,max_attempts) VALUES ({tenant},{},'x','{{}}',1)", id(15)),
        format!("INSERT INTO operations (tenant_id,id,user_id,kind,action,selection,total) VALUES ({tenant},{},{user},'star','{{}}',ARRAY[{message}]::uuid[],1)", id(16)),
        format!("INSERT INTO connection_places (tenant_id,account_id,protocol,place,holder,held_until) VALUES ({tenant},{account},'smtp',1,{user},now())"),
        format!("INSERT INTO capabilities_off (tenant_id,host,port,capability,words,until) VALUES ({tenant},'h',1,'IDLE','w',now())"),
        format!("INSERT INTO webhooks (tenant_id,id,url,account_ids,secret,secret_key,position,seen) VALUES ({tenant},{},'u',ARRAY[{account}]::uuid[],'x','k',0,0)", id(18)),
        format!("INSERT INTO webhook_deliveries (tenant_id,id,webhook_id,position,replay,account_id,kind,event_at,state,updated_at)
                 VALUES ({tenant},{},{},1,false,{account},'x.y',now(),'failed',now())", id(19), id(18)),
    ];
    let mut tx = conn.begin().await.unwrap();
    tx.execute(AssertSqlSafe(format!("SELECT set_config('app.tenant_id', {tenant}, true)"))).await.unwrap();
    for statement in statements {
        tx.execute(AssertSqlSafe(statement.clone())).await.unwrap_or_else(|e| panic!("{statement}: {e}"));
    }
    tx.commit().await.unwrap();
}

/// All that have rows of tenants.
async fn tables(superuser: &mut PgConnection) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT c.relname::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id'
         WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' ORDER BY 1",
    )
    .fetch_all(superuser)
    .await
    .unwrap()
}

#[tokio::test]
async fn a_tenant_sees_changes_and_references_nothing_of_another() {
    let database = Database::create().await;
    let mut conn = PgConnection::connect(&database.url("emailclient_app")).await.unwrap();
    plant(&mut conn, "aaaaaaaa").await;
    plant(&mut conn, "bbbbbbbb").await;
    let mut superuser = database.superuser().await;
    let tables = tables(&mut superuser).await;
    for table in &tables {
        let rows = |tenant: Option<&'static str>| {
            let set = tenant.map(|t| {
                format!("SELECT set_config('app.tenant_id', '{t}-0000-7000-8000-000000000001', true)")
            });
            let sql = format!("SELECT DISTINCT tenant_id::text AS t FROM {table}");
            (set, sql)
        };
        let (_, sql) = rows(None);
        let all = superuser.fetch_all(AssertSqlSafe(sql)).await.unwrap();
        assert_eq!(all.len(), 2, "{table} was not planted for both tenants");
        let (_, sql) = rows(None);
        assert_eq!(
            conn.fetch_all(AssertSqlSafe(sql)).await.unwrap().len(),
            0,
            "{table} without a tenant shows rows"
        );
        let mut tx = conn.begin().await.unwrap();
        let (set, sql) = rows(Some("bbbbbbbb"));
        tx.execute(AssertSqlSafe(set.unwrap())).await.unwrap();
        let seen = tx.fetch_all(AssertSqlSafe(sql)).await.unwrap();
        assert_eq!(seen.len(), 1, "{table}");
        assert!(seen[0].get::<String, _>("t").starts_with("bbbbbbbb"), "{table} shows another tenant's row");
        if table != "audit_log" {
            let a = "'aaaaaaaa-0000-7000-8000-000000000001'";
            for sql in [
                format!("UPDATE {table} SET tenant_id = tenant_id WHERE tenant_id = {a}"),
                format!("DELETE FROM {table} WHERE tenant_id = {a}"),
            ] {
                let done = tx.execute(AssertSqlSafe(sql)).await.unwrap();
                assert_eq!(done.rows_affected(), 0, "{table}: another tenant's row was reached");
            }
            let mut inner = tx.begin().await.unwrap();
            let moved = inner.execute(AssertSqlSafe(format!("UPDATE {table} SET tenant_id = {a}"))).await;
            assert!(moved.is_err(), "{table}: a row could be given to another tenant");
            inner.rollback().await.unwrap();
        }
        tx.rollback().await.unwrap();
    }
    let mut tx = conn.begin().await.unwrap();
    tx.execute("SELECT set_config('app.tenant_id', 'bbbbbbbb-0000-7000-8000-000000000001', true)")
        .await
        .unwrap();
    let foreign = tx
        .execute("INSERT INTO drafts (tenant_id,id,account_id,content) VALUES ('bbbbbbbb-0000-7000-8000-000000000001','cccccccc-0000-7000-8000-000000000001','aaaaaaaa-0000-7000-8000-000000000004','{}')")
        .await;
    assert!(foreign.is_err(), "a draft may refer to another tenant's account");
    tx.rollback().await.unwrap();
    drop((conn, superuser));
    database.drop_it().await;
}

#[tokio::test]
async fn the_search_function_answers_for_the_tenant_of_the_transaction_only() {
    let database = Database::create().await;
    let mut conn = PgConnection::connect(&database.url("emailclient_app")).await.unwrap();
    plant(&mut conn, "aaaaaaaa").await;
    plant(&mut conn, "bbbbbbbb").await;
    let search = "SELECT message_id::text AS id FROM search_messages('word', NULL, NULL, NULL, NULL, 100)";
    assert_eq!(conn.fetch_all(search).await.unwrap().len(), 0);
    let mut tx = conn.begin().await.unwrap();
    tx.execute("SELECT set_config('app.tenant_id', 'bbbbbbbb-0000-7000-8000-000000000001', true)")
        .await
        .unwrap();
    let found = tx.fetch_all(search).await.unwrap();
    assert_eq!(found.len(), 1);
    assert!(found[0].get::<String, _>("id").starts_with("bbbbbbbb"));
    tx.rollback().await.unwrap();
    drop(conn);
    database.drop_it().await;
}

/// The grant of an account is forgotten when it is marked: it does not wait for the removal.
const FORGOTTEN: &str = "oauth_grants";

/// What is told of an account goes on being told when it is deleted.
const TOLD: [&str; 3] = ["events", "webhook_deliveries", "webhooks"];

#[tokio::test]
async fn nothing_of_an_account_that_is_deleted_is_seen_or_written_while_it_is_being_removed() {
    let database = Database::create().await;
    let mut conn = PgConnection::connect(&database.url("emailclient_app")).await.unwrap();
    plant(&mut conn, "aaaaaaaa").await;
    let mut superuser = database.superuser().await;
    let tables = tables(&mut superuser).await;
    let account = "aaaaaaaa-0000-7000-8000-000000000004";
    for reach in ["NULL".to_owned(), format!("'{{{account}}}'")] {
        let enter = format!("SELECT enter_tenant('aaaaaaaa-0000-7000-8000-000000000001', {reach})");
        for table in tables.iter().filter(|table| *table != FORGOTTEN) {
            let mut tx = conn.begin().await.unwrap();
            tx.execute(AssertSqlSafe(enter.clone())).await.unwrap();
            let all = OF_THE_TENANT.contains(&table.as_str()) || TOLD.contains(&table.as_str());
            let sql = format!("SELECT 1 FROM {table}");
            let seen = tx.fetch_all(AssertSqlSafe(sql)).await.unwrap();
            assert_eq!(seen.len(), usize::from(all), "{table}, reach {reach}");
            if !all {
                for sql in
                    [format!("UPDATE {table} SET tenant_id = tenant_id"), format!("DELETE FROM {table}")]
                {
                    let done = tx.execute(AssertSqlSafe(sql)).await.unwrap();
                    assert_eq!(done.rows_affected(), 0, "{table}: a row of a deleted account was reached");
                }
            }
            tx.rollback().await.unwrap();
        }
        let mut tx = conn.begin().await.unwrap();
        tx.execute(AssertSqlSafe(enter)).await.unwrap();
        if reach == "NULL" {
            let search = "SELECT * FROM search_messages('word', NULL, NULL, NULL, NULL, 100)";
            assert_eq!(tx.fetch_all(search).await.unwrap().len(), 0, "the search finds what is deleted");
        }
        let refused = tx
            .execute(AssertSqlSafe(format!(
                "INSERT INTO drafts (tenant_id,id,account_id,content)
                 VALUES ('aaaaaaaa-0000-7000-8000-000000000001','cccccccc-0000-7000-8000-000000000001','{account}','{{}}')"
            )))
            .await
            .unwrap_err();
        assert!(refused.to_string().contains("row-level security"), "{refused}");
        tx.rollback().await.unwrap();
    }
    drop((conn, superuser));
    database.drop_it().await;
}

#[tokio::test]
async fn nothing_of_a_mailbox_that_is_deleted_is_seen_or_written_while_it_is_being_removed() {
    let database = Database::create().await;
    let mut conn = PgConnection::connect(&database.url("emailclient_app")).await.unwrap();
    plant(&mut conn, "aaaaaaaa").await;
    let (tenant, account) = ("aaaaaaaa-0000-7000-8000-000000000001", "aaaaaaaa-0000-7000-8000-000000000004");
    let id = |n: u32| format!("'aaaaaaaa-0000-7000-8000-{n:012}'");
    let mut superuser = database.superuser().await;
    superuser.execute("DELETE FROM account_removals").await.unwrap();
    let hidden = ["mailboxes", "message_mailboxes", "messages", "ingest_batches", "ingest_attempts"];
    for reach in ["NULL".to_owned(), format!("'{{{account}}}'")] {
        let enter = format!("SELECT enter_tenant('{tenant}', {reach})");
        for table in hidden {
            let mut tx = conn.begin().await.unwrap();
            tx.execute(AssertSqlSafe(enter.clone())).await.unwrap();
            let sql = format!("SELECT 1 FROM {table}");
            assert_eq!(tx.fetch_all(AssertSqlSafe(sql)).await.unwrap().len(), 0, "{table}, reach {reach}");
            // As the services do: what reads no column asks no policy for reading.
            for sql in ["UPDATE {} SET tenant_id = tenant_id", "DELETE FROM {} WHERE tenant_id IS NOT NULL"] {
                let done = tx.execute(AssertSqlSafe(sql.replace("{}", table))).await.unwrap();
                assert_eq!(done.rows_affected(), 0, "{table}: a row of a deleted mailbox was reached");
            }
            assert_eq!(tx.fetch_all("SELECT 1 FROM accounts").await.unwrap().len(), 1, "the account stays");
            tx.rollback().await.unwrap();
        }
        let mut tx = conn.begin().await.unwrap();
        tx.execute(AssertSqlSafe(enter)).await.unwrap();
        // What has just come is there before its place is.
        let other = format!(
            "INSERT INTO mailboxes (tenant_id,id,account_id,wire_name,path,name) VALUES ('{tenant}',{},'{account}','New','New','New');
             INSERT INTO messages (tenant_id,id,account_id,thread_id,blob_hash,size_bytes,received_at,sort_at,date_sort_at)
             SELECT '{tenant}',{},'{account}',id,'h',1,now(),now(),now() FROM threads;
             INSERT INTO message_mailboxes (tenant_id,id,account_id,mailbox_id,generation,uid,message_id,internal_date,sort_at)
             VALUES ('{tenant}',{},'{account}',{},0,1,{},now(),now())",
            id(50), id(51), id(52), id(50), id(51)
        );
        tx.execute(AssertSqlSafe(other)).await.unwrap();
        assert_eq!(tx.fetch_all("SELECT 1 FROM messages").await.unwrap().len(), 1);
        tx.execute("UPDATE messages SET snippet = 'x'").await.unwrap();
        tx.execute("DELETE FROM message_mailboxes").await.unwrap();
        assert_eq!(tx.fetch_all("SELECT 1 FROM messages WHERE gone_at IS NOT NULL").await.unwrap().len(), 1);
        tx.rollback().await.unwrap();
    }
    drop((conn, superuser));
    database.drop_it().await;
}

/// Tables whose rows belong to the tenant and to none of its accounts: a principal with a limited reach sees them as others do.
const OF_THE_TENANT: [&str; 14] = [
    "audit_log",
    "capabilities_off",
    "event_tickets",
    "idempotency_keys",
    "jobs",
    "login_networks",
    "oauth_apps",
    "operations",
    "refresh_tokens",
    "sessions",
    "tenant_branding",
    "tenant_streams",
    "upload_pieces",
    "users",
];

#[tokio::test]
async fn who_may_touch_some_accounts_only_sees_and_changes_nothing_of_the_others() {
    let database = Database::create().await;
    let mut conn = PgConnection::connect(&database.url("emailclient_app")).await.unwrap();
    plant(&mut conn, "aaaaaaaa").await;
    let mut superuser = database.superuser().await;
    let tables = tables(&mut superuser).await;
    let own = "aaaaaaaa-0000-7000-8000-000000000004";
    let other = "aaaaaaaa-0000-7000-8000-000000000099";
    let limited = |accounts: &str| {
        format!(
            "SELECT set_config('app.tenant_id', 'aaaaaaaa-0000-7000-8000-000000000001', true);
             SELECT set_config('app.account_ids', '{accounts}', true); SET LOCAL ROLE emailclient_limited"
        )
    };
    for table in &tables {
        let everybodys = OF_THE_TENANT.contains(&table.as_str());
        for (accounts, wanted) in [
            (format!("{{{own}}}"), 1),
            (format!("{{{other},{own}}}"), 1),
            (format!("{{{other}}}"), usize::from(everybodys)),
            ("{}".to_owned(), usize::from(everybodys)),
            // A transaction that names none.
            (String::new(), usize::from(everybodys)),
        ] {
            let mut tx = conn.begin().await.unwrap();
            tx.execute(AssertSqlSafe(limited(&accounts))).await.unwrap();
            let sql = format!("SELECT 1 FROM {table}");
            let seen = tx.fetch_all(AssertSqlSafe(sql)).await.unwrap();
            assert_eq!(seen.len(), wanted, "{table} as seen by who may touch {accounts:?}");
            if wanted == 0 {
                for sql in
                    [format!("UPDATE {table} SET tenant_id = tenant_id"), format!("DELETE FROM {table}")]
                {
                    let done = tx.execute(AssertSqlSafe(sql)).await.unwrap();
                    assert_eq!(done.rows_affected(), 0, "{table}: a row of another account was reached");
                }
            }
            tx.rollback().await.unwrap();
        }
    }
    let mut tx = conn.begin().await.unwrap();
    tx.execute(AssertSqlSafe(limited(&format!("{{{other}}}")))).await.unwrap();
    let search = "SELECT g.id FROM search_messages('word', NULL, NULL, NULL, NULL, 100) s JOIN messages g ON g.id = s.message_id";
    assert_eq!(tx.fetch_all(search).await.unwrap().len(), 0, "the search shows mail out of reach");
    let refused = tx
        .execute(AssertSqlSafe(format!(
            "INSERT INTO drafts (tenant_id,id,account_id,content)
             VALUES ('aaaaaaaa-0000-7000-8000-000000000001','cccccccc-0000-7000-8000-000000000001','{own}','{{}}')"
        )))
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("row-level security"), "{refused}");
    tx.rollback().await.unwrap();
    drop((conn, superuser));
    database.drop_it().await;
}
