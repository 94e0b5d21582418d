//! Who guesses passwords of ours is held up, and nobody else is: not the user, not other tenants.

use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use serde_json::json;
use tests::app::{Answer, App, PASSWORD, Tenant, send};

use crate::edges::{NEXT, networks};

const SETTINGS: [(&str, &str); 2] =
    [("RATE_LIMIT_LOGIN_PER_MINUTE", "10"), ("API_TRUSTED_PROXIES", "127.0.0.1")];

async fn login(app: &App, from: u128, tenant: &str, (email, password): (&str, &str)) -> Answer {
    let request = app
        .http
        .post(format!("{}/auth/login", app.base))
        .header("X-Forwarded-For", Ipv6Addr::from(from).to_string())
        .header("X-Tenant-ID", tenant);
    send(request.json(&json!({"email": email, "password": password}))).await
}

async fn refresh(app: &App, tenant: &Tenant) -> Answer {
    let body = json!({"refresh_token": tenant.refresh_token});
    send(app.http.post(format!("{}/auth/refresh", app.base)).json(&body)).await
}

/// The ways to write a tenant's id down.
fn spellings(tenant: &Tenant) -> Vec<String> {
    let id = tenant.id.0;
    let (plain, hyphens) = (id.simple().to_string(), id.hyphenated().to_string());
    let mut all = vec![tenant.slug.clone(), plain.to_uppercase(), hyphens.to_uppercase(), plain, hyphens];
    all.push(id.urn().to_string());
    all.push(id.braced().to_string());
    let mixed = id.simple().to_string();
    for n in 1..12 {
        let (front, back) = mixed.split_at(n);
        all.push(format!("{}{back}", front.to_uppercase()));
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_is_one_tenant_however_it_is_spelt() {
    let app = App::start_with(&SETTINGS).await;
    let tenant = app.tenant().await;
    let net = networks();
    let mut tried = 0;
    for name in spellings(&tenant) {
        for email in [tenant.email.clone(), tenant.email.to_uppercase(), format!(" {}", tenant.email)] {
            let answer = login(&app, net, &name, (&email, "wrong")).await;
            match answer.status {
                401 => tried += 1,
                429 => {}
                // A spelling that is none.
                400 => {}
                other => panic!("{name}: {other} {}", answer.text()),
            }
        }
    }
    // A token comes back every twelve seconds.
    assert!((5..=7).contains(&tried), "{tried} tries of one client for one user");
    // From elsewhere in the same /64, too.
    login(&app, net + 77, &tenant.slug, (&tenant.email, PASSWORD)).await.refused(429, "rate-limited");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_tries_from_anywhere_lock_the_user_out_nowhere() {
    let app = App::start_with(&SETTINGS).await;
    let tenant = app.tenant().await;
    let net = networks();
    let home = net + 100 * NEXT;
    login(&app, home, &tenant.slug, (&tenant.email, PASSWORD)).await.expect(200);
    // Ten networks, five tries each.
    for n in 0..10 {
        for _ in 0..5 {
            let guess = app.http.post(format!("{}/auth/login", app.base));
            let guess = guess
                .header("X-Forwarded-For", Ipv6Addr::from(net + n * NEXT).to_string())
                .header("X-Tenant-ID", &tenant.slug)
                .json(&json!({"email": tenant.email, "password": "wrong"}));
            tokio::spawn(send(guess));
        }
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let began = Instant::now();
    login(&app, home + 1, &tenant.slug, (&tenant.email, PASSWORD)).await.expect(200);
    assert!(began.elapsed() < Duration::from_secs(8), "a known address waited {:?}", began.elapsed());
    refresh(&app, &tenant).await.expect(200);
    // From where it never was it takes longer, and succeeds.
    let began = Instant::now();
    let mut abroad = login(&app, net + 101 * NEXT, &tenant.slug, (&tenant.email, PASSWORD)).await;
    while abroad.status == 503 && began.elapsed() < Duration::from_secs(15) {
        // On a busy machine the password work of the tenant's strangers may be full: the answer says when to come back.
        let wait = abroad.header("retry-after").parse().unwrap();
        tokio::time::sleep(Duration::from_secs(wait)).await;
        abroad = login(&app, net + 102 * NEXT, &tenant.slug, (&tenant.email, PASSWORD)).await;
    }
    abroad.expect(200);
    let waited = began.elapsed();
    assert!(waited > Duration::from_secs(1) && waited < Duration::from_secs(25), "{waited:?}");
    // Another user of the tenant is not slowed down.
    let other = format!("other@{}.test", tenant.slug);
    app.user(tenant.id, &other).await;
    let began = Instant::now();
    login(&app, net + 103 * NEXT, &tenant.slug, (&other, PASSWORD)).await.expect(200);
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_log_ins_at_once_delay_no_other_tenant() {
    let app = App::start().await;
    let (flooded, other) = (app.tenant().await, app.tenant().await);
    let names = [flooded.slug.clone(), "no-such-tenant".to_owned(), "nor-this-one".to_owned()];
    let mut flood = Vec::new();
    for n in 0..300 {
        let request = app
            .http
            .post(format!("{}/auth/login", app.base))
            .header("X-Tenant-ID", &names[n % 3])
            .json(&json!({"email": format!("nobody-{n}@x.test"), "password": "wrong"}));
        flood.push(tokio::spawn(send(request)));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let began = Instant::now();
    app.login(&other.slug, &other.email).await;
    let waited = began.elapsed();
    let mut statuses = std::collections::BTreeMap::new();
    for answer in flood {
        let answer = answer.await.unwrap();
        *statuses.entry(answer.status).or_insert(0) += 1;
        if answer.status == 503 {
            answer.refused(503, "unavailable");
            assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 1);
        }
    }
    assert!(statuses.keys().all(|s| [401, 503].contains(s)), "{statuses:?}");
    assert!(statuses.get(&503).is_some_and(|n| *n > 100), "most of them were turned away: {statuses:?}");
    assert!(waited < Duration::from_secs(8), "another tenant's user waited {waited:?}");
    app.finish().await;
}
