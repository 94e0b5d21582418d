//! The code flow, from the page to the tokens.

use reqwest::Url;
use serde_json::Value;

use super::super::{AUDIENCE, Client, Endpoint, KEY_ID, Switches, consent, deny, new_rsa_key};
use super::{BACK, Rig, SCOPE, SECRET, VERIFIER, ok, query, refused, text};

#[tokio::test]
async fn a_code_gives_tokens_that_the_published_key_verifies() {
    for rig in [Rig::new(), Rig::with_key(&new_rsa_key().unwrap())] {
        let url = consent(&rig.authorize_url(&[]), "Ada@Lab.test").await.unwrap();
        assert!(url.as_str().starts_with(BACK), "its own query is kept: {url}");
        assert_eq!(query(&url, "state").as_deref(), Some("st&te"));
        assert_eq!(query(&url, "iss").as_deref(), Some(rig.authority.base_url()), "RFC 9207");
        let answer = ok(rig.redeem(&query(&url, "code").unwrap()).await).await;
        assert_eq!((&answer["token_type"], &answer["expires_in"]), (&"Bearer".into(), &3600.into()));
        assert_eq!(answer["scope"], SCOPE);
        let ada = rig.authority.user("ada@lab.test").unwrap();

        let token = text(&answer, "access_token");
        let claims = rig.verified(token, AUDIENCE).await.unwrap();
        assert_eq!(
            (&claims["email"], &claims["preferred_username"]),
            (&"ada@lab.test".into(), &"ada@lab.test".into())
        );
        assert_eq!((&claims["client_id"], &claims["scope"]), (&"app".into(), &SCOPE.into()));
        assert_eq!(claims["sub"], ada.subject.as_str());
        assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 3600);
        assert_eq!(jsonwebtoken::decode_header(token).unwrap().kid.as_deref(), Some(KEY_ID));
        assert!(claims.get("azp").is_none());

        let claims = rig.verified(text(&answer, "id_token"), "app").await.unwrap();
        assert_eq!((&claims["nonce"], &claims["email_verified"]), (&"the nonce".into(), &true.into()));
        assert_eq!((&claims["sub"], &claims["email"]), (&ada.subject.into(), &"ada@lab.test".into()));

        let info: Value = rig.user_info(token).await.json().await.unwrap();
        assert_eq!((&info["sub"], &info["email"]), (&claims["sub"], &claims["email"]));
    }
}

#[tokio::test]
async fn only_the_verifier_of_the_challenge_redeems_and_it_has_one_try() {
    let rig = Rig::new();
    let wrong = VERIFIER.replace('Z', "z");
    for verifier in ["", &wrong, &super::keys::challenge(VERIFIER), "short"] {
        let code = rig.code("ada@lab.test", &[]).await;
        let fields = [
            ("grant_type", "authorization_code"),
            ("code", &code),
            ("redirect_uri", BACK),
            ("code_verifier", verifier),
        ];
        refused(rig.token(&fields).await, 400, "invalid_grant").await;
        refused(rig.redeem(&code).await, 400, "invalid_grant").await;
    }
}

#[tokio::test]
async fn a_code_is_good_once_and_a_second_use_takes_back_what_the_first_gave() {
    let rig = Rig::new();
    let code = rig.code("ada@lab.test", &[]).await;
    let answer = ok(rig.redeem(&code).await).await;
    let (access, refresh) = (text(&answer, "access_token"), text(&answer, "refresh_token"));
    assert_eq!(rig.user_info(access).await.status(), 200);
    refused(rig.redeem(&code).await, 400, "invalid_grant").await;
    assert_eq!(rig.user_info(access).await.status(), 401);
    refused(rig.refresh(refresh).await, 400, "invalid_grant").await;
}

#[tokio::test]
async fn a_code_is_for_its_client_its_redirect_and_a_minute() {
    let rig = Rig::new();
    let code = rig.code("ada@lab.test", &[]).await;
    let fields = [
        ("grant_type", "authorization_code"),
        ("client_id", "other"),
        ("client_secret", "other's"),
        ("code", &code),
        ("redirect_uri", BACK),
        ("code_verifier", VERIFIER),
    ];
    refused(rig.send(Endpoint::Token, &fields).await.unwrap(), 400, "invalid_grant").await;
    ok(rig.redeem(&code).await).await;
    for redirect in ["", "https://client.test/callback", "https://other.test/"] {
        let code = rig.code("ada@lab.test", &[]).await;
        let fields = [
            ("grant_type", "authorization_code"),
            ("code", &code),
            ("redirect_uri", redirect),
            ("code_verifier", VERIFIER),
        ];
        refused(rig.token(&fields).await, 400, "invalid_grant").await;
    }
    let code = rig.code("ada@lab.test", &[]).await;
    rig.authority.with(|s| s.clock_offset = chrono::TimeDelta::seconds(61));
    refused(rig.redeem(&code).await, 400, "invalid_grant").await;
}

#[tokio::test]
async fn nobody_is_sent_to_an_address_that_is_not_the_clients() {
    let rig = Rig::new();
    let longer = format!("{BACK}/");
    let other = "https://other.test/";
    for changes in [
        ("redirect_uri", ""),
        ("redirect_uri", "https://client.test/callback"),
        ("redirect_uri", longer.as_str()),
        ("redirect_uri", other),
        ("client_id", ""),
        ("client_id", "<script>"),
    ] {
        let error = consent(&rig.authorize_url(&[changes]), "ada@lab.test").await.unwrap_err();
        assert!(error.to_string().starts_with("400"), "{changes:?}: {error}");
    }
    assert!(rig.authority.issued().is_empty());
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_told_to_the_client() {
    let rig = Rig::new();
    for (change, error) in [
        (("response_type", "token"), "unsupported_response_type"),
        (("response_type", ""), "invalid_request"),
        (("code_challenge", ""), "invalid_request"),
        (("code_challenge", "short"), "invalid_request"),
        (("code_challenge_method", ""), "invalid_request"),
        (("code_challenge_method", "plain"), "invalid_request"),
        (("scope", ""), "invalid_scope"),
        (("scope", "a\"b"), "invalid_scope"),
        (("prompt", "none"), "login_required"),
        (("access_type", "always"), "invalid_request"),
    ] {
        let url = consent(&rig.authorize_url(&[change]), "ada@lab.test").await.unwrap();
        assert!(url.as_str().starts_with(BACK), "{url}");
        assert_eq!(query(&url, "error").as_deref(), Some(error), "{change:?}");
        assert_eq!(query(&url, "state").as_deref(), Some("st&te"));
        assert_eq!(query(&url, "iss").as_deref(), Some(rig.authority.base_url()));
    }
    let twice = rig.authorize_url(&[]) + "&state=second";
    let url = consent(&twice, "ada@lab.test").await.unwrap();
    assert_eq!((query(&url, "error").as_deref(), query(&url, "state")), (Some("invalid_request"), None));
}

#[tokio::test]
async fn a_person_who_says_no_is_believed() {
    let rig = Rig::new();
    let url = deny(&rig.authorize_url(&[])).await.unwrap();
    assert_eq!(query(&url, "error").as_deref(), Some("access_denied"));
    assert_eq!((query(&url, "code"), query(&url, "state").as_deref()), (None, Some("st&te")));
}

#[tokio::test]
async fn the_page_escapes_what_it_was_given_and_is_answered_once() {
    let rig = Rig::new();
    let hint = "\"><script>alert(1)</script>@lab.test";
    let page =
        rig.http.get(rig.authorize_url(&[("login_hint", hint), ("scope", "<b>")])).send().await.unwrap();
    assert!(page.headers()["content-security-policy"].to_str().unwrap().contains("frame-ancestors 'none'"));
    let html = page.text().await.unwrap();
    assert!(!html.contains("<script") && !html.contains("<b>"), "{html}");
    assert!(html.contains("&lt;script&gt;"));
    let ticket = html.split("name=\"ticket\" value=\"").nth(1).unwrap().split('"').next().unwrap();
    for (user, status) in
        [("nobody", 400), ("@", 400), ("a b@lab.test", 400), ("ada@lab.test", 303), ("ada@lab.test", 400)]
    {
        let fields = [("ticket", ticket), ("user", user), ("answer", "allow")];
        let answer = rig.send(Endpoint::Authorize, &fields).await.unwrap();
        assert_eq!(answer.status(), status, "{user}");
    }
}

#[tokio::test]
async fn a_client_proves_itself_in_one_of_two_ways() {
    let rig = Rig::new();
    let token = rig.signed_in("ada@lab.test", &[]).await;
    let renewal = [("grant_type", "refresh_token"), ("refresh_token", text(&token, "refresh_token"))];
    let encoded = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let basic = |id: &str, secret: Option<String>| {
        rig.http.post(rig.authority.url(Endpoint::Token)).basic_auth(id, secret).form(&renewal).send()
    };
    ok(rig.token(&renewal).await).await;
    ok(basic("app", Some(encoded(SECRET))).await.unwrap()).await;
    for (id, secret) in [("app", Some("wrong")), ("app", None), ("nobody", Some("s")), ("device", Some("s"))]
    {
        let answer = basic(id, secret.map(str::to_owned)).await.unwrap();
        assert!(answer.headers().contains_key("www-authenticate"));
        refused(answer, 401, "invalid_client").await;
    }
    for fields in [vec![], vec![("client_id", "app")], vec![("client_id", "app"), ("client_secret", "s3cr")]]
    {
        let all: Vec<_> = fields.into_iter().chain(renewal).collect();
        refused(rig.send(Endpoint::Token, &all).await.unwrap(), 401, "invalid_client").await;
    }
    let url = rig.authority.url(Endpoint::Token);
    let both = [renewal[0], renewal[1], ("client_secret", SECRET)];
    let answer =
        rig.http.post(&url).basic_auth("app", Some(encoded(SECRET))).form(&both).send().await.unwrap();
    refused(answer, 400, "invalid_request").await;
    let json =
        rig.http.post(&url).json(&serde_json::json!({ "grant_type": "refresh_token" })).send().await.unwrap();
    refused(json, 400, "invalid_request").await;
    let twice = [renewal[0], renewal[1], renewal[1]];
    refused(rig.token(&twice).await, 400, "invalid_request").await;
    refused(rig.token(&[("grant_type", "password")]).await, 400, "unsupported_grant_type").await;
}

#[tokio::test]
async fn a_refresh_token_comes_for_offline_access_only_and_once_unless_the_person_is_asked_again() {
    let rig = Rig::new();
    let has = async |changes: &[(&str, &str)]| {
        rig.signed_in("ada@lab.test", changes).await.get("refresh_token").is_some()
    };
    assert!(!has(&[("access_type", "")]).await);
    assert!(has(&[]).await);
    assert!(!has(&[]).await, "Google gives it at the first consent only");
    assert!(has(&[("prompt", "consent")]).await);
    assert!(has(&[("access_type", ""), ("scope", "openid offline_access")]).await, "as at Microsoft");
    rig.authority.withdraw("ada@lab.test");
    assert!(has(&[]).await);
}

#[tokio::test]
async fn a_public_client_needs_no_secret_and_has_none_that_fits() {
    let rig = Rig::new();
    rig.authority.register(Client::public("app").redirect(BACK));
    let code = rig.code("ada@lab.test", &[]).await;
    refused(rig.redeem(&code).await, 401, "invalid_client").await;
    let fields = [
        ("grant_type", "authorization_code"),
        ("client_id", "app"),
        ("code", &code),
        ("redirect_uri", BACK),
        ("code_verifier", VERIFIER),
    ];
    ok(rig.send(Endpoint::Token, &fields).await.unwrap()).await;
}

#[tokio::test]
async fn fewer_scopes_than_asked_are_granted_and_told() {
    let rig = Rig::new();
    rig.authority.with(|s| s.granted_scopes = Some(vec!["openid".into(), "email".into()]));
    let answer = rig.signed_in("ada@lab.test", &[]).await;
    assert_eq!(answer["scope"], "openid email");
    let claims = rig.verified(text(&answer, "access_token"), AUDIENCE).await.unwrap();
    assert_eq!(claims["scope"], "openid email");
    rig.authority.with(|s| s.granted_scopes = Some(vec!["openid".into()]));
    let renewed = ok(rig.refresh(text(&answer, "refresh_token")).await).await;
    assert_eq!(renewed["scope"], "openid", "also of what was granted before");
    rig.authority.with(|s| *s = Switches::default());
    let renewed = ok(rig.refresh(text(&answer, "refresh_token")).await).await;
    assert_eq!(renewed["scope"], "openid email", "a renewal gives no more than the consent");
}

#[tokio::test]
async fn discovery_names_what_is_there() {
    let rig = Rig::new();
    let url = rig.authority.url(Endpoint::Discovery);
    let about: Value = rig.http.get(url).send().await.unwrap().json().await.unwrap();
    assert_eq!(about["issuer"], rig.authority.base_url());
    for (name, endpoint) in [
        ("authorization_endpoint", Endpoint::Authorize),
        ("token_endpoint", Endpoint::Token),
        ("device_authorization_endpoint", Endpoint::Device),
        ("revocation_endpoint", Endpoint::Revoke),
        ("userinfo_endpoint", Endpoint::UserInfo),
        ("jwks_uri", Endpoint::Keys),
    ] {
        let url = text(&about, name);
        assert_eq!(url, rig.authority.url(endpoint));
        let answer = rig.http.get(Url::parse(url).unwrap()).send().await.unwrap();
        assert_ne!(answer.status(), 404, "{url}");
    }
}
