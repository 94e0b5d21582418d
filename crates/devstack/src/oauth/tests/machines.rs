//! Tokens without a person: apps and service accounts.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::super::token::BEARER;
use super::super::{AUDIENCE, Client, Endpoint, ServiceAccount, keys, new_rsa_key};
use super::{Rig, SECRET, ok, refused, text};

#[tokio::test]
async fn an_app_gets_a_token_for_itself_and_nothing_to_renew() {
    let rig = Rig::new();
    let fields = [("grant_type", "client_credentials"), ("scope", "https://mail.test/.default")];
    let answer = ok(rig.token(&fields).await).await;
    assert!(answer.get("refresh_token").is_none() && answer.get("id_token").is_none());
    let claims = rig.verified(text(&answer, "access_token"), AUDIENCE).await.unwrap();
    assert_eq!((&claims["sub"], &claims["client_id"]), (&"app".into(), &"app".into()));
    assert!(claims.get("email").is_none());
    assert_eq!(rig.user_info(text(&answer, "access_token")).await.status(), 403);

    rig.authority.register(Client::confidential("app", SECRET).mailbox("Shared@lab.test"));
    let answer = ok(rig.token(&fields).await).await;
    let claims = rig.verified(text(&answer, "access_token"), AUDIENCE).await.unwrap();
    assert_eq!(claims["email"], "shared@lab.test");

    let public = [("client_id", "device"), fields[0], fields[1]];
    refused(rig.send(Endpoint::Token, &public).await.unwrap(), 400, "unauthorized_client").await;
}

/// As Google's libraries make one, with changes.
fn assertion(account: &ServiceAccount, pem: &str, changes: Value) -> String {
    let now = super::super::state::State::default().now().timestamp();
    let mut claims = json!({
        "iss": account.email,
        "sub": "ada@lab.test",
        "scope": "https://mail.test/all",
        "aud": account.token_uri,
        "iat": now,
        "exp": now + 3600,
    });
    for (name, value) in changes.as_object().unwrap() {
        let number = value.as_i64().map(|seconds| Value::from(now + seconds));
        claims[name] = number.unwrap_or_else(|| value.clone());
    }
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    let key = keys::SigningKey::from_pem(pem, &account.key_id).unwrap();
    key.sign(&claims).unwrap()
}

async fn assert(rig: &Rig, assertion: &str) -> reqwest::Response {
    rig.send(Endpoint::Token, &[("grant_type", BEARER), ("assertion", assertion)]).await.unwrap()
}

#[tokio::test]
async fn a_service_account_acts_for_the_mailboxes_of_its_domains() {
    let rig = Rig::new();
    let robot = rig.authority.service_account("robot@project.test", &["Lab.test"]).unwrap();
    assert_eq!(robot.to_json()["private_key"], robot.private_key.as_str());
    let send = async |changes: Value| assert(&rig, &assertion(&robot, &robot.private_key, changes)).await;

    let answer = ok(send(json!({})).await).await;
    assert!(answer.get("refresh_token").is_none());
    let claims = rig.verified(text(&answer, "access_token"), AUDIENCE).await.unwrap();
    assert_eq!(
        (&claims["email"], &claims["client_id"]),
        (&"ada@lab.test".into(), &"robot@project.test".into())
    );
    assert_eq!(rig.authority.asked()[0].user.as_deref(), Some("ada@lab.test"));
    let own = ok(send(json!({ "sub": null })).await).await;
    let claims = rig.verified(text(&own, "access_token"), AUDIENCE).await.unwrap();
    assert!(claims.get("email").is_none());
    ok(send(json!({ "aud": rig.authority.base_url() })).await).await;

    for sub in ["ada@other.test", "ada@evil-lab.test", "ada"] {
        refused(send(json!({ "sub": sub })).await, 401, "unauthorized_client").await;
    }
    for wrong in [
        json!({ "aud": "https://elsewhere.test/token" }),
        json!({ "aud": null }),
        json!({ "iss": "nobody@project.test" }),
        json!({ "iat": -7200, "exp": -3600 }),
        json!({ "iat": 300, "exp": 900 }),
        json!({ "nbf": 300 }),
        json!({ "exp": 7200 }),
        json!({ "exp": null }),
    ] {
        refused(send(wrong).await, 400, "invalid_grant").await;
    }
    refused(send(json!({ "scope": null })).await, 400, "invalid_scope").await;
    ok(send(json!({ "jti": "once" })).await).await;
    refused(send(json!({ "jti": "once" })).await, 400, "invalid_grant").await;
    rig.authority.dismiss("robot@project.test");
    refused(send(json!({})).await, 400, "invalid_grant").await;
}

#[tokio::test]
async fn an_assertion_that_another_key_signed_or_nobody_is_refused() {
    let rig = Rig::new();
    let robot = rig.authority.service_account("robot@project.test", &["lab.test"]).unwrap();
    let good = assertion(&robot, &robot.private_key, json!({}));
    let claims: Value = jsonwebtoken::dangerous::insecure_decode(&good).unwrap().claims;
    let by_secret = EncodingKey::from_secret(rig.authority.jwk().to_string().as_bytes());
    let other_id = ServiceAccount { key_id: "another".into(), ..robot.clone() };
    for forged in [
        assertion(&robot, &new_rsa_key().unwrap(), json!({})),
        assertion(&robot, &keys::new_key().unwrap(), json!({})),
        assertion(&other_id, &robot.private_key, json!({})),
        keys::sign_by_nobody(&claims),
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &by_secret).unwrap(),
        format!("{}.", good.rsplit_once('.').unwrap().0),
        "no.assertion.at-all".to_owned(),
    ] {
        refused(assert(&rig, &forged).await, 400, "invalid_grant").await;
    }
    ok(assert(&rig, &good).await).await;
}
