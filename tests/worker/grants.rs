//! Tokens of accounts: renewed once, however many ask, kept when an answer is lost, and a consent that was withdrawn.

use std::time::{Duration, Instant};

use chrono::TimeDelta;
use devstack::oauth::{Authority, Endpoint, ExpiresIn, Fault, FaultAt, Rotation};
use emailclient_core::connect::oauth;
use emailclient_core::platform::id::GrantId;
use serde_json::json;
use tests::app::{App, Tenant};
use tests::eventually::eventually;
use tests::mail;
use tests::provider;

/// What there is, with an account that was connected by consent.
async fn connected() -> (App, Tenant, Authority, String, String) {
    let app = provider::start().await;
    let (tenant, authority) = (app.tenant().await, provider::authority(&app));
    let app_id = provider::named(&app, &tenant, &authority).await;
    let (user, account) = provider::connect(&app, &tenant, &app_id).await;
    (app, tenant, authority, user, account)
}

/// All access tokens end at this moment, seconds from now, and are due to be renewed.
async fn end_in(app: &App, seconds: i32) {
    sqlx::query("UPDATE oauth_grants SET expires_at = now() + make_interval(secs => $1), renew_at = now(), used = true")
        .bind(f64::from(seconds))
        .execute(&mut app.database.superuser().await)
        .await
        .unwrap();
}

async fn all_renewed(app: &App) {
    eventually("all tokens are renewed", Duration::from_secs(60), async || {
        let old: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM oauth_grants WHERE expires_at < now() + interval '10 min'",
        )
        .fetch_one(&mut app.database.superuser().await)
        .await
        .unwrap();
        (old == 0).then_some(())
    })
    .await;
}

/// One round from its request to its end, however it ends.
async fn round(app: &App, tenant: &Tenant, account: &str) {
    let run = app.post(tenant, &format!("/api/sync/imap/{account}"), &json!({})).await.expect(202);
    mail::run_is_over(app, account, run["id"].as_str().unwrap(), Duration::from_secs(60)).await;
}

/// The provider may be asked, as after so many failures.
async fn may_be_asked(app: &App, failures: i32) {
    sqlx::query("UPDATE oauth_grants SET next_try_at = NULL, failures = $1")
        .bind(failures)
        .execute(&mut app.database.superuser().await)
        .await
        .unwrap();
}

/// Whole seconds from the last request for a token until the provider may be asked again.
async fn pause(app: &App) -> Option<i64> {
    sqlx::query_scalar("SELECT extract(epoch FROM next_try_at - now())::bigint FROM oauth_grants")
        .fetch_one(&mut app.database.superuser().await)
        .await
        .unwrap()
}

async fn state(app: &App, tenant: &Tenant, account: &str) -> (String, String) {
    let seen = app.get(tenant, &format!("/api/accounts/{account}")).await.expect(200);
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    (text(&seen["state"]), text(&seen["cause"]["code"]))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_that_end_in_the_same_minute_are_renewed_once_each_by_three_workers_though_the_provider_is_slow()
 {
    let mut app = provider::start().await;
    let (tenant, authority) = (app.tenant().await, provider::authority(&app));
    authority.with(|s| s.rotation = Rotation::Replace);
    let app_id = provider::named(&app, &tenant, &authority).await;
    let mut users = Vec::new();
    for _ in 0..200 {
        users.push(provider::connect(&app, &tenant, &app_id).await.0);
    }
    end_in(&app, 60).await;
    authority.fail(FaultAt::new(Endpoint::Token, Fault::SlowAnswer(Duration::from_millis(700))));
    for _ in 0..3 {
        app.add_worker();
    }
    app.add_scheduler();
    all_renewed(&app).await;
    for user in &users {
        assert_eq!(authority.renewals(user), 1, "{user}");
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_who_need_the_token_one_asks_and_the_others_get_what_it_got() {
    let (app, tenant, authority, user, _) = connected().await;
    end_in(&app, -5).await;
    authority.fail(FaultAt::new(Endpoint::Token, Fault::SlowAnswer(Duration::from_secs(1))));
    let grant: GrantId = sqlx::query_scalar("SELECT id FROM oauth_grants")
        .fetch_one(&mut app.database.superuser().await)
        .await
        .unwrap();
    let process = emailclient_core::connect::Process::new(app.config().clone(), app.db.clone()).unwrap();
    let asked = (0..30).map(|_| oauth::token(&process, (tenant.id, grant), None));
    let tokens = futures::future::join_all(asked).await;
    let first = tokens[0].as_ref().unwrap().expose().to_owned();
    assert!(tokens.iter().all(|token| token.as_ref().unwrap().expose() == first));
    assert_eq!(authority.renewals(&user), 1);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_a_mail_server_refuses_is_replaced_before_anybody_is_asked() {
    let mut app = provider::start().await;
    let (tenant, authority) = (app.tenant().await, provider::authority(&app));
    let app_id = provider::named(&app, &tenant, &authority).await;
    let (user, account) = provider::connect(&app, &tenant, &app_id).await;
    // The provider says that it is good for an hour, and the mail server knows better.
    authority.with(|s| {
        s.access_lifetime = TimeDelta::minutes(-1);
        s.expires_in = ExpiresIn::Other(json!(3600));
    });
    end_in(&app, -5).await;
    let grant: GrantId = sqlx::query_scalar("SELECT id FROM oauth_grants")
        .fetch_one(&mut app.database.superuser().await)
        .await
        .unwrap();
    let process = emailclient_core::connect::Process::new(app.config().clone(), app.db.clone()).unwrap();
    oauth::token(&process, (tenant.id, grant), None).await.unwrap();
    authority.with(|s| {
        s.access_lifetime = TimeDelta::hours(1);
        s.expires_in = ExpiresIn::Number;
    });
    app.add_worker();
    mail::synchronise(&app, &tenant, &account).await;
    assert_eq!(authority.renewals(&user), 2);
    assert_ne!(state(&app, &tenant, &account).await.0, "needs_reauth");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consent_that_was_withdrawn_is_told_within_a_minute_in_the_providers_words_and_a_new_one_mends_it()
{
    let (mut app, tenant, authority, user, account) = connected().await;
    app.add_worker();
    app.add_scheduler();
    mail::synchronise(&app, &tenant, &account).await;
    let log = app.get(&tenant, &format!("/api/accounts/{account}/changes")).await.expect(200);
    assert!(log["new_state"].is_string());
    authority.withdraw(&user);
    end_in(&app, -5).await;
    let begun = Instant::now();
    app.post(&tenant, &format!("/api/sync/imap/{account}"), &json!({})).await.expect(202);
    let told = eventually("the account needs its person", Duration::from_secs(60), async || {
        let (state, cause) = state(&app, &tenant, &account).await;
        (state == "needs_reauth").then_some(cause)
    })
    .await;
    assert_eq!(told, "consent-withdrawn", "after {:?}", begun.elapsed());
    let seen = app.get(&tenant, &format!("/api/accounts/{account}")).await.expect(200);
    assert!(seen["cause"]["text"].as_str().unwrap().contains("invalid_grant"), "{seen}");
    let asked = authority.count_grant("refresh_token");
    assert_eq!(asked, 2, "the provider is asked twice and then left alone");
    round(&app, &tenant, &account).await;
    assert_eq!(authority.count_grant("refresh_token"), asked);
    let kinds: Vec<String> = sqlx::query_scalar("SELECT kind FROM events ORDER BY position")
        .fetch_all(&mut app.database.superuser().await)
        .await
        .unwrap();
    assert!(kinds.iter().any(|kind| kind == "account.state_changed"), "{kinds:?}");
    let app_id = seen["auth"]["app_id"].clone();
    let url = provider::sent_to(&app, &tenant, &json!({"app_id": app_id, "account_id": account})).await;
    let back_to = devstack::oauth::consent(&url, &user).await.unwrap();
    let (_, _, query) = provider::back(&app, back_to.as_str()).await;
    assert_eq!(provider::value(&query, "account_id"), Some(account.as_str()));
    eventually("it is connected again", Duration::from_secs(30), async || {
        (state(&app, &tenant, &account).await.0 == "connected").then_some(())
    })
    .await;
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_is_away_takes_nothing_from_a_token_that_is_good_and_is_asked_more_and_more_seldom() {
    let (mut app, tenant, authority, user, account) = connected().await;
    app.add_worker();
    mail::synchronise(&app, &tenant, &account).await;
    authority.fail(FaultAt::new(Endpoint::Token, Fault::server_error()));
    // It is due, and good for a minute yet.
    end_in(&app, 60).await;
    app.add_scheduler();
    mail::synchronise(&app, &tenant, &account).await;
    assert_eq!(state(&app, &tenant, &account).await.0, "connected");
    end_in(&app, -5).await;
    app.post(&tenant, &format!("/api/sync/imap/{account}"), &json!({})).await.expect(202);
    eventually("it says why", Duration::from_secs(30), async || {
        (state(&app, &tenant, &account).await == ("unreachable".into(), "oauth-token-unavailable".into()))
            .then_some(())
    })
    .await;
    // A round asks the provider when it may be asked, and no other does. Each failure makes the pause longer.
    let mut pauses = Vec::new();
    for failures in 2..5 {
        let asked = authority.count_grant("refresh_token");
        may_be_asked(&app, failures).await;
        round(&app, &tenant, &account).await;
        // The scheduler may have been faster than the round.
        eventually("the provider is asked once", Duration::from_secs(30), async || {
            let pause = (authority.count_grant("refresh_token") > asked).then_some(pause(&app).await);
            pause.flatten().map(|pause| pauses.push(pause))
        })
        .await;
        assert_eq!(authority.count_grant("refresh_token"), asked + 1);
        round(&app, &tenant, &account).await;
        assert_eq!(authority.count_grant("refresh_token"), asked + 1, "{pauses:?}");
    }
    assert!(pauses.is_sorted() && pauses[2] > 2 * pauses[0], "{pauses:?}");
    authority.heal();
    may_be_asked(&app, 0).await;
    mail::deliver(&app, &user, &mail::message("Back", "back@example.test", "x"));
    app.post(&tenant, &format!("/api/sync/imap/{account}"), &json!({})).await.expect(202);
    eventually("it is connected again", Duration::from_secs(60), async || {
        (state(&app, &tenant, &account).await.0 == "connected").then_some(())
    })
    .await;
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_its_provider_does_not_take_is_told_at_its_accounts_and_a_new_secret_mends_them() {
    let (mut app, tenant, authority, _, account) = connected().await;
    authority.register(devstack::oauth::Client::confidential("our-app", "another secret"));
    end_in(&app, -5).await;
    app.add_worker();
    app.post(&tenant, &format!("/api/sync/imap/{account}"), &json!({})).await.expect(202);
    eventually("it says why", Duration::from_secs(30), async || {
        (state(&app, &tenant, &account).await == ("unreachable".into(), "oauth-app-refused".into()))
            .then_some(())
    })
    .await;
    let seen = app.get(&tenant, &format!("/api/accounts/{account}")).await.expect(200);
    let path = format!("/api/oauth/apps/{}", seen["auth"]["app_id"].as_str().unwrap());
    app.patch(&tenant, &path, &json!({"client_secret": "another secret"})).await.expect(200);
    mail::synchronise(&app, &tenant, &account).await;
    app.finish().await;
}
