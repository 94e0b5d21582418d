//! A service refuses a database whose schema or role it should not trust.

use emailclient_core::platform::config::{Config, Source};
use emailclient_core::platform::db::Db;
use emailclient_core::platform::db::migrate::Refusal;
use sqlx::Executor as _;
use tests::database::Database;

fn db(app_url: &str, system_url: &str) -> Db {
    let values = [
        ("DATABASE_URL", app_url),
        ("DATABASE_SYSTEM_URL", system_url),
        ("REDIS_URL", "redis://127.0.0.1:1/"),
        ("JWT_SECRET", "0123456789abcdef0123456789abcdef"),
        ("ENCRYPTION_KEY", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="),
    ];
    let source = Source::new(values.map(|(k, v)| (k.to_owned(), v.to_owned())));
    Db::new(&Config::from_source(&source).unwrap()).unwrap()
}

#[tokio::test]
async fn a_role_that_could_pass_the_wall_is_refused() {
    let database = Database::create().await;
    let (app, system) = (database.url("emailclient_app"), database.url("emailclient_system"));
    let good = db(&app, &system);
    good.verify().await.unwrap();
    good.close().await;
    for (app_url, system_url) in [
        (database.url("postgres"), system.clone()),
        (system.clone(), app.clone()),
        (app.clone(), database.url("postgres")),
    ] {
        let wrong = db(&app_url, &system_url);
        let refusal = wrong.verify().await.unwrap_err();
        assert!(matches!(refusal, Refusal::Role { .. }), "{refusal}");
        wrong.close().await;
    }
    database.drop_it().await;
}

#[tokio::test]
async fn another_schema_version_is_refused() {
    let database = Database::create().await;
    let mut superuser = database.superuser().await;
    superuser
        .execute("DELETE FROM _sqlx_migrations WHERE version = (SELECT max(version) FROM _sqlx_migrations)")
        .await
        .unwrap();
    let db = db(&database.url("emailclient_app"), &database.url("emailclient_system"));
    let refusal = db.verify().await.unwrap_err();
    assert!(matches!(refusal, Refusal::Schema { .. }), "{refusal}");
    assert!(refusal.to_string().contains("emailctl migrate"));
    db.close().await;
    drop(superuser);
    database.drop_it().await;
}
