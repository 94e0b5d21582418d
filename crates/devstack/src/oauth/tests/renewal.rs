//! Refresh tokens, expiry and revocation.

use std::collections::HashSet;

use chrono::TimeDelta;
use serde_json::Value;

use super::super::{AUDIENCE, Endpoint, Kind, Rotation};
use super::{Rig, SECRET, ok, refused, text};

#[tokio::test]
async fn a_renewal_gives_a_new_access_token_and_keeps_adds_or_replaces_the_refresh_token() {
    let rig = Rig::new();
    let first = rig.signed_in("ada@lab.test", &[]).await;
    let token = text(&first, "refresh_token");
    let kept = ok(rig.refresh(token).await).await;
    assert!(kept.get("refresh_token").is_none());
    assert_ne!(kept["access_token"], first["access_token"]);

    rig.authority.with(|s| s.rotation = Rotation::Add);
    let added = ok(rig.refresh(token).await).await;
    ok(rig.refresh(token).await).await;
    let second = text(&added, "refresh_token");

    rig.authority.with(|s| s.rotation = Rotation::Replace);
    let third = ok(rig.refresh(second).await).await;
    refused(rig.refresh(second).await, 400, "invalid_grant").await;
    let third = text(&third, "refresh_token");
    assert_eq!(HashSet::from([token, second, third]).len(), 3);
    let last = ok(rig.refresh(third).await).await;
    assert_eq!(rig.authority.renewals("ADA@lab.test"), 5);
    assert_eq!(rig.authority.live_grants("ada@lab.test"), 1);
    assert_eq!(rig.authority.count_grant("refresh_token"), 6);
    rig.verified(text(&last, "access_token"), AUDIENCE).await.unwrap();
}

#[tokio::test]
async fn a_replaced_token_has_its_grace_and_after_it_may_end_the_grant() {
    let rig = Rig::new();
    rig.authority.with(|s| {
        s.rotation = Rotation::Replace;
        s.refresh_grace = TimeDelta::seconds(30);
        s.reuse_revokes = true;
    });
    let first = rig.signed_in("ada@lab.test", &[]).await;
    let first = text(&first, "refresh_token");
    let second = ok(rig.refresh(first).await).await;
    let third = ok(rig.refresh(first).await).await;
    assert_ne!(second["refresh_token"], third["refresh_token"]);
    rig.authority.with(|s| s.clock_offset = TimeDelta::seconds(31));
    ok(rig.refresh(text(&second, "refresh_token")).await).await;
    refused(rig.refresh(first).await, 400, "invalid_grant").await;
    refused(rig.refresh(text(&third, "refresh_token")).await, 400, "invalid_grant").await;
    assert_eq!(rig.authority.live_grants("ada@lab.test"), 0);
}

#[tokio::test]
async fn of_many_who_renew_at_once_one_gets_the_successor() {
    let rig = Rig::new();
    rig.authority.with(|s| s.rotation = Rotation::Replace);
    let first = rig.signed_in("ada@lab.test", &[]).await;
    let token = text(&first, "refresh_token");
    let answers = futures::future::join_all((0..20).map(|_| rig.refresh(token))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status() == 200).count(), 1);
    assert_eq!(rig.authority.renewals("ada@lab.test"), 1);
}

#[tokio::test]
async fn a_refresh_token_is_its_clients_and_asks_for_no_more_than_was_granted() {
    let rig = Rig::new();
    let answer = rig.signed_in("ada@lab.test", &[]).await;
    let renewal = [("grant_type", "refresh_token"), ("refresh_token", text(&answer, "refresh_token"))];
    let other = [renewal[0], renewal[1], ("client_id", "other"), ("client_secret", "other's")];
    refused(rig.send(Endpoint::Token, &other).await.unwrap(), 400, "invalid_grant").await;
    let wider = [renewal[0], renewal[1], ("scope", "openid admin")];
    refused(rig.token(&wider).await, 400, "invalid_scope").await;
    let narrower = ok(rig.token(&[renewal[0], renewal[1], ("scope", "email")]).await).await;
    assert_eq!(narrower["scope"], "email");
    let again = ok(rig.token(&renewal).await).await;
    assert_eq!(again["scope"], answer["scope"]);
    refused(rig.refresh("1//nobody-was-given-this").await, 400, "invalid_grant").await;
}

#[tokio::test]
async fn tokens_end_by_the_clock_of_the_authority() {
    let rig = Rig::new();
    rig.authority.with(|s| s.access_lifetime = TimeDelta::seconds(90));
    let answer = rig.signed_in("ada@lab.test", &[]).await;
    let access = text(&answer, "access_token");
    assert_eq!(answer["expires_in"], 90);
    assert_eq!(rig.user_info(access).await.status(), 200);
    rig.authority.with(|s| s.clock_offset = TimeDelta::seconds(91));
    let late = rig.user_info(access).await;
    assert_eq!(late.status(), 401);
    assert!(late.headers()["www-authenticate"].to_str().unwrap().contains("invalid_token"));

    rig.authority.with(|s| {
        s.clock_offset = TimeDelta::zero();
        s.refresh_lifetime = Some(TimeDelta::days(7));
    });
    let refresh = text(&answer, "refresh_token");
    for day in [6, 12, 18] {
        rig.authority.with(|s| s.clock_offset = TimeDelta::days(day));
        ok(rig.refresh(refresh).await).await;
    }
    rig.authority.with(|s| s.clock_offset = TimeDelta::days(26));
    refused(rig.refresh(refresh).await, 400, "invalid_grant").await;
}

#[tokio::test]
async fn a_clock_that_is_off_shows_in_id_tokens_and_in_the_date() {
    let rig = Rig::new();
    for minutes in [-7, 7] {
        let off = TimeDelta::minutes(minutes);
        rig.authority.with(|s| s.clock_offset = TimeDelta::zero());
        let right = rig.http.get(rig.authority.url(Endpoint::Keys)).send().await.unwrap();
        rig.authority.with(|s| s.clock_offset = off);
        let wrong = rig.http.get(rig.authority.url(Endpoint::Keys)).send().await.unwrap();
        let date = |r: &reqwest::Response| {
            chrono::DateTime::parse_from_rfc2822(r.headers()["date"].to_str().unwrap()).unwrap()
        };
        let between = date(&wrong) - date(&right);
        assert!((between - off).abs() <= TimeDelta::seconds(5), "{between}");
        let answer = rig.signed_in("ada@lab.test", &[]).await;
        let told: Value = jsonwebtoken::dangerous::insecure_decode(text(&answer, "id_token")).unwrap().claims;
        let issued = chrono::DateTime::from_timestamp(told["iat"].as_i64().unwrap(), 0).unwrap();
        assert!((issued.fixed_offset() - date(&wrong)).abs() <= TimeDelta::seconds(5));
        // The mail servers' clock is right, and so is what they are shown.
        rig.verified(text(&answer, "access_token"), AUDIENCE).await.unwrap();
        assert_eq!(rig.user_info(text(&answer, "access_token")).await.status(), 200);
    }
}

#[tokio::test]
async fn consent_that_is_withdrawn_ends_everything_of_that_user_and_nothing_else() {
    let rig = Rig::new();
    let ada = rig.signed_in("ada@lab.test", &[]).await;
    let eve = rig.signed_in("eve@lab.test", &[]).await;
    let open = rig.code("ada@lab.test", &[]).await;
    rig.authority.withdraw("Ada@lab.test");
    refused(rig.refresh(text(&ada, "refresh_token")).await, 400, "invalid_grant").await;
    refused(rig.redeem(&open).await, 400, "invalid_grant").await;
    assert_eq!(rig.user_info(text(&ada, "access_token")).await.status(), 401);
    ok(rig.refresh(text(&eve, "refresh_token")).await).await;
    assert_eq!(
        (rig.authority.live_grants("ada@lab.test"), rig.authority.live_grants("eve@lab.test")),
        (0, 1)
    );
}

#[tokio::test]
async fn revoking_either_token_ends_the_grant_and_a_stranger_revokes_nothing() {
    for which in ["refresh_token", "access_token"] {
        let rig = Rig::new();
        let answer = rig.signed_in("ada@lab.test", &[]).await;
        let token = text(&answer, which);
        let other = [("client_id", "other"), ("client_secret", "other's"), ("token", token)];
        refused(rig.send(Endpoint::Revoke, &other).await.unwrap(), 400, "unauthorized_client").await;
        refused(rig.send(Endpoint::Revoke, &[("token", token)]).await.unwrap(), 401, "invalid_client").await;
        ok(rig.refresh(text(&answer, "refresh_token")).await).await;

        let client = [("client_id", "app"), ("client_secret", SECRET)];
        for token in [token, token, "nobody-was-given-this"] {
            let fields = [client[0], client[1], ("token", token), ("token_type_hint", "refresh_token")];
            assert_eq!(rig.send(Endpoint::Revoke, &fields).await.unwrap().status(), 200);
        }
        refused(rig.refresh(text(&answer, "refresh_token")).await, 400, "invalid_grant").await;
        assert_eq!(rig.user_info(text(&answer, "access_token")).await.status(), 401);
        assert_eq!(rig.authority.live_grants("ada@lab.test"), 0);
        let asked = rig.authority.asked();
        let revoked = asked.iter().find(|a| a.endpoint == Endpoint::Revoke).unwrap();
        assert_eq!(revoked.user.as_deref(), Some("ada@lab.test"));
    }
}

#[tokio::test]
async fn every_secret_is_on_the_list() {
    let rig = Rig::new();
    rig.authority.with(|s| s.rotation = Rotation::Replace);
    let code = rig.code("ada@lab.test", &[]).await;
    let first = ok(rig.redeem(&code).await).await;
    let second = ok(rig.refresh(text(&first, "refresh_token")).await).await;
    let direct = rig.authority.token_for("ada@lab.test", TimeDelta::hours(1), "mail").unwrap();
    let mut expected = vec![(Kind::Code, code), (Kind::Access, direct)];
    for answer in [&first, &second] {
        for (kind, name) in
            [(Kind::Access, "access_token"), (Kind::Refresh, "refresh_token"), (Kind::Id, "id_token")]
        {
            expected.push((kind, text(answer, name).to_owned()));
        }
    }
    let issued = rig.authority.issued();
    assert_eq!(issued.len(), expected.len());
    for (kind, value) in expected {
        let found = issued.iter().find(|i| i.value == value).unwrap();
        assert_eq!((found.kind, found.user.as_deref()), (kind, Some("ada@lab.test")));
    }
}
