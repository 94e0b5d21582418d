//! Each fault does what it says, where and as often as it says.

use std::time::{Duration, Instant};

use chrono::TimeDelta;
use serde_json::{Value, json};

use super::super::{Endpoint, ExpiresIn, Fault, FaultAt, Rotation, Switches};
use super::{Rig, ok, refused, text};

async fn with_a_grant() -> (Rig, String) {
    let rig = Rig::new();
    let answer = rig.signed_in("ada@lab.test", &[]).await;
    (rig, text(&answer, "refresh_token").to_owned())
}

impl Rig {
    fn faulty(&self, fault: Fault) {
        self.authority.heal();
        self.authority.fail(FaultAt::new(Endpoint::Token, fault));
    }

    async fn try_refresh(&self, token: &str) -> reqwest::Result<reqwest::Response> {
        let fields = [
            ("client_id", "app"),
            ("client_secret", super::SECRET),
            ("grant_type", "refresh_token"),
            ("refresh_token", token),
        ];
        self.send(Endpoint::Token, &fields).await
    }
}

#[tokio::test]
async fn answers_that_are_none() {
    let (rig, token) = with_a_grant().await;
    for (fault, status, of, has) in [
        (Fault::too_many_requests("7"), 429, "application/json", "rate_limit"),
        (Fault::server_error(), 500, "text/plain", "Internal"),
        (Fault::html(), 200, "text/html; charset=utf-8", "<!doctype html>"),
        (Fault::not_an_object(), 200, "application/json", "["),
        (Fault::empty(), 200, "application/json", ""),
    ] {
        rig.faulty(fault);
        let answer = rig.refresh(&token).await;
        assert_eq!(
            (answer.status().as_u16(), answer.headers()["content-type"].to_str().unwrap()),
            (status, of)
        );
        assert_eq!(
            answer.headers().get("retry-after").map(|v| v.as_bytes()),
            (status == 429).then_some(&b"7"[..])
        );
        assert!(answer.text().await.unwrap().contains(has));
    }
    rig.faulty(Fault::redirect(&rig.authority.url(Endpoint::Trap)));
    let answer = rig.refresh(&token).await;
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["location"]),
        (307, &rig.authority.url(Endpoint::Trap).parse().unwrap())
    );
    assert_eq!(rig.authority.count(Endpoint::Trap), 0);
    let follower = reqwest::Client::builder().no_proxy().build().unwrap();
    follower.post(rig.authority.url(Endpoint::Token)).form(&[("a", "b")]).send().await.unwrap();
    assert_eq!(rig.authority.count(Endpoint::Trap), 1);
    for (name, fault) in Fault::odd_errors() {
        rig.faulty(fault);
        let body = rig.refresh(&token).await.text().await.unwrap();
        assert!(!body.contains("invalid_grant"), "{name}");
    }
    assert_eq!(rig.authority.renewals("ada@lab.test"), 0);
    rig.authority.heal();
    ok(rig.refresh(&token).await).await;
}

#[tokio::test]
async fn a_connection_that_is_closed_before_and_one_after_the_work() {
    let (rig, token) = with_a_grant().await;
    rig.authority.with(|s| s.rotation = Rotation::Replace);
    rig.faulty(Fault::Closed);
    let error = rig.try_refresh(&token).await.unwrap_err();
    assert!(!error.is_timeout() && error.status().is_none(), "{error:?}");
    assert_eq!(rig.authority.renewals("ada@lab.test"), 0);
    rig.faulty(Fault::AnswerLost);
    assert!(rig.try_refresh(&token).await.is_err());
    assert_eq!(rig.authority.renewals("ada@lab.test"), 1);
    let last = rig.authority.asked().pop().unwrap();
    assert_eq!((last.user.as_deref(), last.status), (Some("ada@lab.test"), None));
    rig.authority.heal();
    refused(rig.refresh(&token).await, 400, "invalid_grant").await;
}

#[tokio::test]
async fn slow_answers() {
    let (rig, token) = with_a_grant().await;
    let impatient = |fault| {
        rig.faulty(fault);
        tokio::time::timeout(Duration::from_millis(200), rig.try_refresh(&token))
    };
    assert!(impatient(Fault::Slow(Duration::from_secs(60))).await.is_err());
    assert!(impatient(Fault::Silence).await.is_err());
    assert_eq!(rig.authority.renewals("ada@lab.test"), 0, "who hangs up first was not served");
    assert!(impatient(Fault::SlowAnswer(Duration::from_secs(60))).await.is_err());
    assert_eq!(rig.authority.renewals("ada@lab.test"), 1, "or was");
    for fault in [Fault::Slow(Duration::from_millis(300)), Fault::SlowAnswer(Duration::from_millis(300))] {
        rig.faulty(fault);
        let began = Instant::now();
        ok(rig.refresh(&token).await).await;
        assert!(began.elapsed() >= Duration::from_millis(300));
    }
}

#[tokio::test]
async fn a_gigabyte_stops_when_nobody_reads_it() {
    let (rig, token) = with_a_grant().await;
    rig.faulty(Fault::Gigabyte);
    let mut answer = rig.refresh(&token).await;
    let mut read = 0;
    while read < 10 << 20 {
        read += answer.chunk().await.unwrap().unwrap().len();
    }
    drop(answer);
    let poured = rig.authority.poured();
    assert!((10 << 20..30 << 20).contains(&poured), "{poured}");
}

#[tokio::test]
async fn a_fault_is_for_so_many_for_one_user_and_for_one_endpoint() {
    let (rig, ada) = with_a_grant().await;
    let eve = rig.signed_in("eve@lab.test", &[]).await;
    let eve = text(&eve, "refresh_token");
    rig.authority.fail(FaultAt::new(Endpoint::Token, Fault::server_error()).times(2).of("Ada@lab.test"));
    for status in [500, 500, 200] {
        ok(rig.refresh(eve).await).await;
        assert_eq!(rig.refresh(&ada).await.status(), status);
    }
    rig.authority.fail(FaultAt::new(Endpoint::Keys, Fault::html()));
    ok(rig.refresh(&ada).await).await;
    let keys = rig.http.get(rig.authority.url(Endpoint::Keys)).send().await.unwrap();
    assert!(keys.text().await.unwrap().starts_with("<!doctype"));
    let of_ada: Vec<_> = rig
        .authority
        .asked()
        .into_iter()
        .filter(|a| {
            a.grant_type.as_deref() == Some("refresh_token") && a.user.as_deref() == Some("ada@lab.test")
        })
        .map(|a| (a.client.unwrap(), a.status.unwrap()))
        .collect();
    assert_eq!(of_ada, [500, 500, 200, 200].map(|status| ("app".to_owned(), status)));
}

#[tokio::test]
async fn token_answers_in_other_shapes() {
    let (rig, token) = with_a_grant().await;
    for (shape, expected) in [
        (ExpiresIn::Number, Some(json!(3600))),
        (ExpiresIn::Text, Some(json!("3600"))),
        (ExpiresIn::Absent, None),
        (ExpiresIn::Other(json!(-5)), Some(json!(-5))),
        (ExpiresIn::Other(json!(1e300)), Some(json!(1e300))),
        (ExpiresIn::Other(Value::Null), Some(Value::Null)),
    ] {
        rig.authority.with(|s| s.expires_in = shape);
        assert_eq!(ok(rig.refresh(&token).await).await.get("expires_in"), expected.as_ref());
    }
    rig.authority
        .with(|s| *s = Switches { token_type: "bEARER".into(), padding: 12_000, ..Switches::default() });
    let answer = ok(rig.refresh(&token).await).await;
    assert_eq!(answer["token_type"], "bEARER");
    let long = text(&answer, "access_token");
    assert!((16_000..17_000).contains(&long.len()), "{}", long.len());
    let claims = rig.verified(long, super::super::AUDIENCE).await.unwrap();
    assert_eq!(claims["email"], "ada@lab.test");
}

#[tokio::test]
async fn a_token_without_a_flow_is_like_one_with() {
    let rig = Rig::new();
    rig.authority.with(|s| s.azp = true);
    let token = rig.authority.token_for("Ada@lab.test", TimeDelta::minutes(5), "openid email").unwrap();
    let claims = rig.verified(&token, super::super::AUDIENCE).await.unwrap();
    assert_eq!((&claims["email"], &claims["azp"]), (&"ada@lab.test".into(), &"devstack".into()));
    assert_eq!(rig.user_info(&token).await.status(), 200);
    let ended = rig.authority.token_for("ada@lab.test", TimeDelta::minutes(-5), "openid").unwrap();
    let error = rig.verified(&ended, super::super::AUDIENCE).await.unwrap_err();
    assert_eq!(error.to_string(), "ExpiredSignature");
    assert_eq!(rig.user_info(&ended).await.status(), 401);
}
