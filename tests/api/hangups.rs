//! Clients that hang up, and a database that ends connections, cost nobody else a request.

use std::io::Write as _;
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use serde_json::json;
use tests::app::{App, Tenant};
use tests::eventually::eventually;
use tests::postgres::PrivatePostgres;

/// Sends the head of a request and hangs up after `wait`.
fn hang_up(app: &App, tenant: &Tenant, path: &str, wait: Duration) {
    let address = app.base.trim_start_matches("http://");
    let mut line = TcpStream::connect(address).unwrap();
    write!(
        line,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {}\r\nX-Tenant-ID: {}\r\n\r\n",
        tenant.token, tenant.slug
    )
    .unwrap();
    std::thread::sleep(wait);
    let _ = line.shutdown(Shutdown::Both);
}

async fn thirty_reads_and_a_write_succeed(app: &App, tenant: &Tenant) {
    for n in 0..30 {
        let path = ["/api/accounts", "/api/submissions", "/api/compose", "/auth/me"][n % 4];
        app.get(tenant, path).await.expect(200);
    }
    app.post(tenant, "/auth/logout", &json!({})).await.expect(204);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_clients_that_hang_up_leave_nothing_open_in_the_database() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let paths = ["/api/compose", "/api/accounts", "/auth/me", "/api/submissions?limit=200"];
    for round in 0..25u64 {
        std::thread::scope(|scope| {
            for n in 0..40u64 {
                let (app, tenant) = (&app, &tenant);
                let path = paths[usize::try_from(n % 4).unwrap()];
                scope.spawn(move || hang_up(app, tenant, path, Duration::from_micros((round * 40 + n) * 20)));
            }
        });
    }
    let mut superuser = app.database.superuser().await;
    eventually("no connection stands in a transaction", Duration::from_secs(5), async || {
        let open: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND usename LIKE 'emailclient%' AND state <> 'idle'",
        )
        .bind(&app.database.name)
        .fetch_one(&mut superuser)
        .await
        .unwrap();
        (open == 0).then_some(())
    })
    .await;
    thirty_reads_and_a_write_succeed(&app, &tenant).await;
    app.finish().await;
}

#[tokio::test]
async fn connections_that_the_server_ended_cost_no_request() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    // The pool is full of connections.
    let reads = (0..24).map(|_| app.get(&tenant, "/api/submissions"));
    for answer in futures::future::join_all(reads).await {
        answer.expect(200);
    }
    let mut superuser = app.database.superuser().await;
    let ended: i64 = sqlx::query_scalar(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = $1 AND usename LIKE 'emailclient%'",
    )
    .bind(&app.database.name)
    .fetch_one(&mut superuser)
    .await
    .unwrap();
    assert!(ended > 4, "{ended} connections were open");
    thirty_reads_and_a_write_succeed(&app, &tenant).await;
    app.finish().await;
}

#[tokio::test]
async fn requests_wait_for_a_database_that_restarts() {
    let postgres = PrivatePostgres::start().await;
    let settings = [
        ("DATABASE_URL", postgres.url("emailclient_app")),
        ("DATABASE_SYSTEM_URL", postgres.url("emailclient_system")),
    ];
    let app = App::start_with(&settings.each_ref().map(|(name, value)| (*name, value.as_str()))).await;
    let tenant = app.tenant().await;
    for answer in futures::future::join_all((0..24).map(|_| app.get(&tenant, "/api/submissions"))).await {
        answer.expect(200);
    }
    postgres.down();
    let waiting = tokio::spawn(tests::app::send(app.request(&tenant, "GET", "/api/submissions")));
    // It meets a database that is not there.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!waiting.is_finished(), "it was refused at once");
    let postgres = tokio::task::spawn_blocking(move || {
        postgres.up();
        postgres
    })
    .await
    .unwrap();
    waiting.await.unwrap().expect(200);
    thirty_reads_and_a_write_succeed(&app, &tenant).await;
    app.finish().await;
    drop(postgres);
}
