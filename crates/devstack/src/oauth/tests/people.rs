//! Whom ID tokens and userinfo name, and what can be wrong with it.

use serde_json::Value;

use super::super::{IdToken, Switches};
use super::{Rig, SCOPE, text};

fn claims(token: &str) -> Value {
    jsonwebtoken::dangerous::insecure_decode(token).unwrap().claims
}

#[tokio::test]
async fn each_wrong_id_token_is_wrong_in_one_thing() {
    let rig = Rig::new();
    let with = async |wrong: IdToken| {
        rig.authority.with(|s| s.id_token = wrong);
        rig.signed_in("ada@lab.test", &[]).await
    };
    let token = |answer: &Value| text(answer, "id_token").to_owned();
    rig.verified(&token(&with(IdToken::Honest).await), "app").await.unwrap();
    assert!(with(IdToken::Absent).await.get("id_token").is_none());

    for (wrong, why) in [
        (IdToken::OtherAudience, "InvalidAudience"),
        (IdToken::OtherIssuer, "InvalidIssuer"),
        (IdToken::OtherKey, "InvalidSignature"),
        (IdToken::Expired, "ExpiredSignature"),
    ] {
        let error = rig.verified(&token(&with(wrong).await), "app").await.unwrap_err();
        assert_eq!(error.to_string(), why);
    }
    // The signature and the rest are right.
    for (wrong, name, value) in [
        (IdToken::Unverified, "email_verified", Some(Value::Bool(false))),
        (IdToken::VerifiedAbsent, "email_verified", None),
        (IdToken::WithoutEmail, "email", None),
        (IdToken::OtherNonce, "nonce", Some("the-nonce-of-another".into())),
        (IdToken::WithoutNonce, "nonce", None),
    ] {
        let claims = rig.verified(&token(&with(wrong).await), "app").await.unwrap();
        assert_eq!(claims.get(name), value.as_ref(), "{wrong:?}");
    }
    let none = token(&with(IdToken::AlgNone).await);
    let header = super::keys::base64(br#"{"alg":"none","typ":"JWT"}"#);
    assert!(none.starts_with(&(header + ".")) && none.ends_with('.'), "{none}");
    let by_secret = token(&with(IdToken::Secret).await);
    let key = jsonwebtoken::DecodingKey::from_secret(super::SECRET.as_bytes());
    let mut rules = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::HS256);
    rules.set_audience(&["app"]);
    jsonwebtoken::decode::<Value>(&by_secret, &key, &rules).unwrap();
    assert!(jsonwebtoken::decode_header(token(&with(IdToken::Garbage).await)).is_err());
}

#[tokio::test]
async fn another_identity_is_told_than_the_one_that_consented() {
    let rig = Rig::new();
    rig.authority.with(|s| s.identity = Some("Eve@lab.test".into()));
    let answer = rig.signed_in("ada@lab.test", &[]).await;
    let told = claims(text(&answer, "id_token"));
    let info: Value = rig.user_info(text(&answer, "access_token")).await.json().await.unwrap();
    assert_eq!((&told["email"], &info["email"]), (&"eve@lab.test".into(), &"eve@lab.test".into()));
    assert_eq!(told["sub"], info["sub"]);
    assert_eq!(claims(text(&answer, "access_token"))["email"], "ada@lab.test");
    rig.authority.with(|s| *s = Switches::default());
    let info: Value = rig.user_info(text(&answer, "access_token")).await.json().await.unwrap();
    assert_eq!(info["email"], "ada@lab.test");
}

#[tokio::test]
async fn nobody_is_named_beyond_the_scope() {
    let rig = Rig::new();
    let answer = rig.signed_in("ada@lab.test", &[("scope", "mail")]).await;
    assert!(answer.get("id_token").is_none());
    let info = rig.user_info(text(&answer, "access_token")).await;
    assert_eq!(info.status(), 403);
    assert!(info.headers()["www-authenticate"].to_str().unwrap().contains("insufficient_scope"));
    let answer = rig.signed_in("ada@lab.test", &[("scope", "openid")]).await;
    assert!(claims(text(&answer, "id_token")).get("email").is_none());
    let info: Value = rig.user_info(text(&answer, "access_token")).await.json().await.unwrap();
    assert!(info.get("sub").is_some() && info.get("email").is_none());
    let answer = rig.signed_in("ada@lab.test", &[("scope", SCOPE)]).await;
    let forged = format!("{}x", text(&answer, "access_token"));
    assert_eq!(rig.user_info(&forged).await.status(), 401);
}
