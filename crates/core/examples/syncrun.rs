#![allow(clippy::all, clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::disallowed_methods, clippy::indexing_slicing, missing_docs)]
use std::sync::Arc;
use emailclient_core::{clock::SystemClock, config::{Config, Source}, db::Db, dial::{Outbound, OutboundPolicy}, id::*, imap::MemoryBudget, imap::execute::*, seal::{Keyring, Place}, secret::Secret, tls::TlsConfig};
use mail::sync::Depth;
use sqlx::Connection;
#[tokio::main]
async fn main() {
    emailclient_core::tls::install_provider();
    tracing_subscriber::fmt().with_env_filter(std::env::var("RUST_LOG").unwrap_or("info".into())).init();
    let get = |n: &str| std::env::var(n).unwrap();
    let vars = [("DATABASE_URL", get("DATABASE_URL")), ("DATABASE_SYSTEM_URL", get("DATABASE_SYSTEM_URL")), ("REDIS_URL", "redis://x".into()),
        ("JWT_SECRET", "0123456789abcdef0123456789abcdef".into()), ("ENCRYPTION_KEY", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=".into()), ("OUTBOUND_ALLOW", "127.0.0.0/8".into())];
    let config = Config::from_source(&Source::new(vars.map(|(a, b)| (a.to_owned(), b)))).unwrap();
    let db = Db::new(&config).unwrap();
    let keyring = Arc::new(Keyring::new(&config.encryption_key, &[]).unwrap());
    let args: Vec<String> = std::env::args().collect();
    let (tenant, account): (TenantId, AccountId) = if args.len() > 3 { (args[2].parse().unwrap(), args[3].parse().unwrap()) } else {
        let slug = format!("t{}", &new_uuid().simple().to_string()[20..]);
        let tenant = emailclient_core::tenant::create(&db, &slug, "T").await.unwrap();
        let account = AccountId::new();
        let sealed = keyring.seal(Place { tenant, account, field: "imap_password" }, &Secret::new("bench")).unwrap();
        let user = std::env::var("IMAP_USER").unwrap_or("bench@lab.test".into());
        let mut c = sqlx::PgConnection::connect(&get("DATABASE_OWNER_URL")).await.unwrap();
        sqlx::query("INSERT INTO accounts (tenant_id,id,email,email_key,imap_host,imap_port,imap_security,imap_username,imap_password,imap_password_key,smtp_host,smtp_port,smtp_security,smtp_username) VALUES ($1,$2,$5,$5,'127.0.0.1',$6,'none',$5,$3,$4,'127.0.0.1',25,'none','x')")
            .bind(tenant).bind(account).bind(&sealed.bytes).bind(&sealed.key_id).bind(&user).bind(get("IMAP_PORT").parse::<i32>().unwrap()).execute(&mut c).await.unwrap();
        sqlx::query("INSERT INTO account_leases (tenant_id,account_id) VALUES ($1,$2)").bind(tenant).bind(account).execute(&mut c).await.unwrap();
        (tenant, account)
    };
    println!("{tenant} {account}");
    let ctx = SyncContext { db, config: Arc::new(config), clock: Arc::new(SystemClock), keyring, outbound: Arc::new(Outbound::new(OutboundPolicy::parse("127.0.0.0/8").unwrap())),
        tls: TlsConfig::new(None).unwrap(), worker_id: new_uuid(), memory: MemoryBudget::new(MEMORY_BYTES), shutdown: Default::default() };
    let t = std::time::Instant::now();
    match args.get(1).map(String::as_str) {
        Some("push") => println!("{:?}", push_changes(&ctx, tenant, account).await),
        Some("audit") => println!("{:?}", sync_account(&ctx, tenant, account, Depth::Audit).await),
        Some("delete") => {
            let mut tx = ctx.db.tenant(tenant).await.unwrap();
            let ids: Vec<MessageId> = args[4..].iter().map(|s| s.parse().unwrap()).collect();
            println!("{:?}", emailclient_core::message::transfer::delete(&mut tx, &ids, None, false).await);
            tx.commit().await.unwrap();
        }
        Some("flag") => {
            let mut tx = ctx.db.tenant(tenant).await.unwrap();
            let ids: Vec<MessageId> = args[4..].iter().map(|s| s.parse().unwrap()).collect();
            let e = emailclient_core::message::edit::FlagEdit { add: mail::flags::Flags::FLAGGED, keywords_add: vec!["Work".into()], ..Default::default() };
            println!("{:?}", emailclient_core::message::edit::flags(&mut tx, &ids, None, &e).await);
            tx.commit().await.unwrap();
        }
        Some("watch") => {
            let mut session = open(&ctx, tenant, account).await.unwrap();
            let inbox: MailboxId = args[4].parse().unwrap();
            for _ in 0..3 {
                let selected = session.select(b"INBOX", None, true).await.unwrap();
                println!("{:?}", session.idle(std::time::Duration::from_secs(5), std::future::pending()).await);
                let t = std::time::Instant::now();
                let (s, r) = fetch_new(&ctx, (tenant, account), inbox, session, &selected).await;
                println!("{r:?} {:?} {:?}", t.elapsed(), s.is_usable());
                session = s;
                session.take_unsolicited();
            }
        }
        Some("sweep") => {
            let mut tx = ctx.db.tenant(tenant).await.unwrap();
            println!("{:?}", emailclient_core::sync_store::vanish::sweep_gone(&mut tx, account).await);
            tx.commit().await.unwrap();
        }
        _ => println!("{:?}", sync_account(&ctx, tenant, account, Depth::Full).await),
    }
    println!("{:?}", t.elapsed());
}
