//! `emailctl healthcheck`: well is who serves; hanging, ended or without a database is not.

use std::fs::File;
use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tests::database::Database;
use tests::eventually::eventually;

use super::program::{Folder, Settings};

/// What no service would survive in its file: older than any may be.
fn make_old(file: &str) {
    let file = File::options().write(true).open(file).unwrap();
    let touched = file.metadata().unwrap().modified().unwrap();
    file.set_modified(touched - Duration::from_secs(31)).unwrap();
}

async fn is_well(settings: &Settings, service: &str) {
    eventually(&format!("{service} is well"), Duration::from_secs(30), async || {
        (settings.emailctl(&["healthcheck", "--service", service], "").code == Some(0)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_is_well_when_it_is_ready_and_not_without_its_database() {
    let database = Database::create().await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let settings = Settings::of(&database).with("API_LISTEN", &format!("0.0.0.0:{port}"));
    let before = settings.emailctl(&["healthcheck"], "");
    assert_eq!(before.code, Some(1), "{before:?}");
    assert!(before.err.contains(&format!("127.0.0.1:{port} does not answer")), "{before:?}");
    let api = settings.start("emailclient-api");
    is_well(&settings, "api").await;
    close(&database, true).await;
    let address = format!("127.0.0.1:{port}");
    let without = Settings::none().emailctl(&["healthcheck", "--address", &address], "");
    assert_eq!(without.code, Some(1), "{without:?}");
    assert!(without.err.contains("is not ready") && without.err.contains("503"), "{without:?}");
    close(&database, false).await;
    is_well(&settings, "api").await;
    assert_eq!(api.stop(), Some(0));
    database.drop_it().await;
}

/// Lets nobody into the database and ends who is in, or lets them in again.
async fn close(database: &Database, closed: bool) {
    let server = database.url("postgres").replace(&database.name, "postgres");
    let mut conn = PgConnection::connect(&server).await.unwrap();
    let name = &database.name;
    conn.execute(AssertSqlSafe(format!("ALTER DATABASE {name} ALLOW_CONNECTIONS {}", !closed)))
        .await
        .unwrap();
    if closed {
        conn.execute(AssertSqlSafe(format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        )))
        .await
        .unwrap();
    }
    conn.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_and_scheduler_are_well_only_while_they_go_round_with_their_database() {
    let database = Database::create().await;
    let folder = Folder::new();
    let settings = Settings::of(&database).with("HEARTBEAT_DIR", folder.0.to_str().unwrap());
    for service in ["worker", "scheduler"] {
        let ask = || settings.emailctl(&["healthcheck", "--service", service], "");
        let file = folder.file(&format!("emailclient-{service}.alive"));
        let before = ask();
        assert_eq!(before.code, Some(1), "{before:?}");
        assert!(before.err.contains("has not gone round yet"), "{before:?}");
        let running = settings.start(&format!("emailclient-{service}"));
        is_well(&settings, service).await;
        // A healthy one brings an old file up to date by itself.
        make_old(&file);
        is_well(&settings, service).await;
        // One that hangs does not.
        running.signal("STOP");
        make_old(&file);
        let hanging = ask();
        assert_eq!(hanging.code, Some(1), "{hanging:?}");
        assert!(hanging.err.contains("it hangs, has died, or has lost its database"), "{hanging:?}");
        running.signal("CONT");
        is_well(&settings, service).await;
        // Nor does one without a database.
        close(&database, true).await;
        eventually("it has no connection", Duration::from_secs(5), async || {
            (database.open_connections().await == 0).then_some(())
        })
        .await;
        make_old(&file);
        // Some rounds long no look may find it well.
        let until = Instant::now() + Duration::from_secs(3);
        while Instant::now() < until {
            assert_eq!(ask().code, Some(1), "{service} is called well without its database");
        }
        close(&database, false).await;
        is_well(&settings, service).await;
        assert_eq!(running.stop(), Some(0), "{service}");
        assert!(!std::path::Path::new(&file).exists(), "{service} left its sign of life");
    }
    database.drop_it().await;
}

#[tokio::test]
async fn a_healthcheck_without_the_folder_names_the_setting() {
    let ended = Settings::none().emailctl(&["healthcheck", "--service", "worker"], "");
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err.starts_with("emailctl: HEARTBEAT_DIR: missing"), "{ended:?}");
}
