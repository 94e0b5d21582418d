//! RFC 8628: one device asks, another consents.

use std::time::Duration;

use chrono::TimeDelta;
use serde_json::Value;

use super::super::token::DEVICE;
use super::super::{AUDIENCE, Endpoint, activate, deny_device};
use super::{Rig, ok, refused, text};

impl Rig {
    async fn begun(&self) -> Value {
        ok(self.send(Endpoint::Device, &[("client_id", "device"), ("scope", "openid email")]).await.unwrap())
            .await
    }

    async fn poll(&self, begun: &Value) -> reqwest::Response {
        let code = text(begun, "device_code");
        let fields = [("client_id", "device"), ("grant_type", DEVICE), ("device_code", code)];
        self.send(Endpoint::Token, &fields).await.unwrap()
    }

    fn later(&self, seconds: i64) {
        self.authority.with(|s| s.clock_offset += TimeDelta::seconds(seconds));
    }
}

#[tokio::test]
async fn a_device_waits_until_the_person_allows_it() {
    let rig = Rig::new();
    let begun = rig.begun().await;
    assert_eq!((&begun["expires_in"], &begun["interval"]), (&600.into(), &5.into()));
    refused(rig.poll(&begun).await, 400, "authorization_pending").await;
    rig.later(5);
    refused(rig.poll(&begun).await, 400, "authorization_pending").await;
    let page = text(&begun, "verification_uri_complete");
    assert!(page.ends_with(text(&begun, "user_code")) && page.starts_with(text(&begun, "verification_uri")));
    activate(page, "ada@lab.test").await.unwrap();
    assert!(activate(page, "eve@lab.test").await.is_err(), "it is answered once");
    rig.later(5);
    let answer = ok(rig.poll(&begun).await).await;
    let claims = rig.verified(text(&answer, "access_token"), AUDIENCE).await.unwrap();
    assert_eq!((&claims["client_id"], &claims["email"]), (&"device".into(), &"ada@lab.test".into()));
    let claims = jsonwebtoken::dangerous::insecure_decode::<Value>(text(&answer, "id_token")).unwrap().claims;
    assert_eq!((&claims["aud"], &claims["email"]), (&"device".into(), &"ada@lab.test".into()));
    rig.later(5);
    refused(rig.poll(&begun).await, 400, "invalid_grant").await;
    let renewal = [
        ("client_id", "device"),
        ("grant_type", "refresh_token"),
        ("refresh_token", text(&answer, "refresh_token")),
    ];
    ok(rig.send(Endpoint::Token, &renewal).await.unwrap()).await;
}

#[tokio::test]
async fn who_polls_too_fast_waits_five_seconds_longer() {
    let rig = Rig::new();
    rig.authority.with(|s| s.device_interval = Duration::from_secs(2));
    let begun = rig.begun().await;
    refused(rig.poll(&begun).await, 400, "authorization_pending").await;
    refused(rig.poll(&begun).await, 400, "slow_down").await;
    rig.later(6);
    refused(rig.poll(&begun).await, 400, "slow_down").await;
    rig.later(12);
    refused(rig.poll(&begun).await, 400, "authorization_pending").await;
}

#[tokio::test]
async fn a_device_that_is_denied_or_late_gets_nothing() {
    let rig = Rig::new();
    let begun = rig.begun().await;
    deny_device(text(&begun, "verification_uri_complete")).await.unwrap();
    refused(rig.poll(&begun).await, 400, "access_denied").await;

    let begun = rig.begun().await;
    rig.later(600);
    refused(rig.poll(&begun).await, 400, "expired_token").await;
    assert!(activate(text(&begun, "verification_uri_complete"), "ada@lab.test").await.is_err());

    let begun = rig.begun().await;
    let of_another = [
        ("grant_type", DEVICE),
        ("device_code", text(&begun, "device_code")),
        ("client_id", "other"),
        ("client_secret", "other's"),
    ];
    refused(rig.send(Endpoint::Token, &of_another).await.unwrap(), 400, "invalid_grant").await;
    let unknown = [("client_id", "device"), ("grant_type", DEVICE), ("device_code", "none")];
    refused(rig.send(Endpoint::Token, &unknown).await.unwrap(), 400, "invalid_grant").await;
}

#[tokio::test]
async fn a_person_types_the_code_as_it_comes() {
    let rig = Rig::new();
    let begun = rig.begun().await;
    let typed = text(&begun, "user_code").to_lowercase().replace('-', " ");
    let page = format!("{}?user_code={}", text(&begun, "verification_uri"), typed.replace(' ', "%20"));
    activate(&page, "ada@lab.test").await.unwrap();
    ok(rig.poll(&begun).await).await;
    let empty = rig.http.get(rig.authority.url(Endpoint::Activate)).send().await.unwrap();
    assert!(empty.text().await.unwrap().contains("name=\"user_code\""));
}
