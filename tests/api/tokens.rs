//! Tokens that prove nothing: forged, spoilt, borrowed, or of another kind. All are refused alike, and none of them
//! makes the service call anybody.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use emailclient_core::platform::id::new_uuid;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tests::app::{App, JWT_SECRET, Tenant, send};
use tokio::net::TcpListener;

const FOREIGN_KEY: &[u8] = b"another key of more than thirty-two bytes, known to the attacker";

/// Header and claims of a good token, to be spoilt one at a time.
struct Genuine {
    header: Header,
    claims: Value,
}

impl Genuine {
    fn of(token: &str) -> Self {
        let parts: Vec<Vec<u8>> = token.split('.').map(|p| URL_SAFE_NO_PAD.decode(p).unwrap()).collect();
        Self {
            header: serde_json::from_slice(&parts[0]).unwrap(),
            claims: serde_json::from_slice(&parts[1]).unwrap(),
        }
    }

    fn signed(&self, key: &[u8]) -> String {
        encode(&self.header, &self.claims, &EncodingKey::from_secret(key)).unwrap()
    }

    /// Signed by the deployment's own key, after a change of the claims.
    fn with(&self, edit: impl FnOnce(&mut Value)) -> String {
        let mut claims = self.claims.clone();
        edit(&mut claims);
        Self { header: self.header.clone(), claims }.signed(JWT_SECRET.as_bytes())
    }

    /// Signed by `key`, after a change of the header.
    fn under(&self, key: &[u8], edit: impl FnOnce(&mut Header)) -> String {
        let mut header = self.header.clone();
        edit(&mut header);
        Self { header, claims: self.claims.clone() }.signed(key)
    }

    /// With this header as bytes, and this signature.
    fn assembled(&self, header: &Value, signature: &str) -> String {
        let part = |v: &Value| URL_SAFE_NO_PAD.encode(v.to_string());
        format!("{}.{}.{signature}", part(header), part(&self.claims))
    }
}

/// 401 with this code on a reading route, a writing one and the one about oneself.
async fn is_refused(app: &App, tenant: &Tenant, what: &str, token: &str, code: &str) {
    for (method, path) in [("GET", "/api/accounts"), ("POST", "/api/compose"), ("GET", "/auth/me")] {
        let request = app
            .http
            .request(method.parse().unwrap(), format!("{}{path}", app.base))
            .header("X-Tenant-ID", &tenant.slug)
            .header("Authorization", format!("Bearer {token}"));
        let request = if method == "POST" { request.json(&json!({})) } else { request };
        let answer = send(request).await;
        assert_eq!(answer.status, 401, "{what} at {method} {path}: {}", answer.text());
        answer.refused(401, code);
        assert!(answer.header("www-authenticate").starts_with("Bearer"), "{what}");
    }
}

#[tokio::test]
async fn another_algorithm_or_another_key_signs_nothing() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let good = Genuine::of(&tenant.token);
    let kid = good.header.kid.clone().unwrap();
    let signature = tenant.token.rsplit('.').next().unwrap().to_owned();
    let ours = JWT_SECRET.as_bytes();
    assert_eq!(
        app.get(&Tenant { token: good.signed(ours), ..tenant.clone() }, "/auth/me").await.status,
        200,
        "the unspoilt token"
    );
    let mut forged = Vec::new();
    for alg in ["none", "None", "NONE", "nOnE", "", "HS257", "RS256", "ES256", "EdDSA", "PS512"] {
        let header = json!({"alg": alg, "typ": good.header.typ, "kid": kid});
        for signature in ["", signature.as_str(), "AA"] {
            forged
                .push((format!("alg {alg:?}, signature {signature:?}"), good.assembled(&header, signature)));
        }
    }
    let no_alg = json!({"typ": good.header.typ, "kid": kid});
    forged.push(("no alg".into(), good.assembled(&no_alg, &signature)));
    for alg in [Algorithm::HS384, Algorithm::HS512] {
        forged.push((format!("{alg:?} with our key"), good.under(ours, |h| h.alg = alg)));
    }
    for key in [FOREIGN_KEY, b"", &ours[1..], kid.as_bytes()] {
        forged.push((format!("a key of {} bytes", key.len()), good.signed(key)));
    }
    for (what, token) in forged {
        is_refused(&app, &tenant, &what, &token, "invalid-token").await;
    }
    app.finish().await;
}

#[tokio::test]
async fn a_header_of_a_stranger_leads_nowhere() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let app = App::start().await;
    let tenant = app.tenant().await;
    let good = Genuine::of(&tenant.token);
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    let jwk = json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode(FOREIGN_KEY)});
    let mut forged = vec![
        ("jku", good.under(FOREIGN_KEY, |h| h.jku = Some(url.clone()))),
        ("x5u", good.under(FOREIGN_KEY, |h| h.x5u = Some(url.clone()))),
        ("x5c", good.under(FOREIGN_KEY, |h| h.x5c = Some(vec!["MIIB".into()]))),
        ("jwk", good.under(FOREIGN_KEY, |h| h.jwk = serde_json::from_value(jwk).ok())),
        ("kid is an address", good.under(FOREIGN_KEY, |h| h.kid = Some(url.clone()))),
        ("kid is an address, our key", good.under(JWT_SECRET.as_bytes(), |h| h.kid = Some(url.clone()))),
    ];
    for kid in ["", "0", "../../../../dev/null", "' OR 1=1 --", "key\0", "attacker"] {
        // Signed by what such a look-up might have found.
        for key in [b"".as_slice(), b"\0", FOREIGN_KEY, JWT_SECRET.as_bytes()] {
            forged.push(("kid", good.under(key, |h| h.kid = Some(kid.into()))));
        }
    }
    forged.push(("no kid", good.under(JWT_SECRET.as_bytes(), |h| h.kid = None)));
    for typ in [None, Some("JWT"), Some("rt+jwt"), Some("id+jwt"), Some("")] {
        forged.push(("typ", good.under(JWT_SECRET.as_bytes(), |h| h.typ = typ.map(str::to_owned))));
    }
    for (what, token) in forged {
        is_refused(&app, &tenant, what, &token, "invalid-token").await;
    }
    let called = tokio::time::timeout(Duration::from_millis(500), listener.accept()).await;
    assert!(called.is_err(), "the service called {url}");
    app.finish().await;
}

#[tokio::test]
async fn claims_that_are_missing_untimely_or_for_somebody_else_are_refused() {
    let app = App::start().await;
    let (tenant, other) = (app.tenant().await, app.tenant().await);
    let good = Genuine::of(&tenant.token);
    let theirs = Genuine::of(&other.token).claims;
    let now = good.claims["iat"].as_i64().unwrap();
    // Both sessions are remembered now, so that a claim of one cannot be answered from what is known of the other.
    for t in [&tenant, &other] {
        app.get(t, "/auth/me").await.expect(200);
    }
    for claim in ["exp", "nbf", "iss", "aud", "sub", "tid", "sid"] {
        let token = good.with(|c| drop(c.as_object_mut().unwrap().remove(claim)));
        is_refused(&app, &tenant, &format!("no {claim}"), &token, "invalid-token").await;
        for odd in [Value::Null, json!(""), json!([]), json!({}), json!(true), json!(-1.5)] {
            let token = good.with(|c| c[claim] = odd.clone());
            is_refused(&app, &tenant, &format!("{claim} {odd}"), &token, "invalid-token").await;
        }
    }
    for (claim, value, code) in [
        ("exp", json!(now - 62), "token-expired"),
        ("exp", json!(0), "token-expired"),
        ("exp", json!(format!("{}", now + 900)), "invalid-token"),
        ("exp", json!(u64::MAX), "invalid-token"),
        ("nbf", json!(now + 120), "invalid-token"),
        ("nbf", json!(i64::MAX), "invalid-token"),
        ("aud", json!("elsewhere"), "invalid-token"),
        ("aud", json!(["emailclient-api", "elsewhere"]), "invalid-token"),
        ("iss", json!("elsewhere"), "invalid-token"),
        ("iss", json!(["emailclient"]), "invalid-token"),
        ("sub", json!(new_uuid()), "invalid-token"),
        ("tid", json!(new_uuid()), "invalid-token"),
        ("sid", json!(new_uuid()), "invalid-token"),
        ("sub", theirs["sub"].clone(), "invalid-token"),
        ("tid", theirs["tid"].clone(), "invalid-token"),
        ("sid", theirs["sid"].clone(), "invalid-token"),
    ] {
        let token = good.with(|c| c[claim] = value.clone());
        is_refused(&app, &tenant, &format!("{claim} {value}"), &token, code).await;
    }
    let borrowed = good.with(|c| c["tid"] = theirs["tid"].clone());
    is_refused(&app, &other, "my session under their name", &borrowed, "invalid-token").await;
    let mut twice = good.claims.to_string();
    twice.truncate(twice.len() - 1);
    let twice = RawValue::from_string(format!("{twice},\"tid\":{}}}", theirs["tid"])).unwrap();
    let token = encode(&good.header, &twice, &EncodingKey::from_secret(JWT_SECRET.as_bytes())).unwrap();
    for slug in [&tenant, &other] {
        is_refused(&app, slug, "two tid", &token, "invalid-token").await;
    }
    app.finish().await;
}

#[tokio::test]
async fn what_is_no_access_token_is_refused() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let parts: Vec<&str> = tenant.token.split('.').collect();
    let [header, claims, signature] = parts.as_slice() else { panic!("{}", tenant.token) };
    let mut flipped = URL_SAFE_NO_PAD.decode(signature).unwrap();
    flipped[0] ^= 1;
    for (what, token) in [
        ("a refresh token", tenant.refresh_token.clone()),
        ("one word", "abc".to_owned()),
        ("dots", "..".to_owned()),
        ("no signature", format!("{header}.{claims}")),
        ("an empty signature", format!("{header}.{claims}.")),
        ("a short signature", format!("{header}.{claims}.{}", &signature[..signature.len() - 4])),
        ("one bit", format!("{header}.{claims}.{}", URL_SAFE_NO_PAD.encode(flipped))),
        ("a padded signature", format!("{header}.{claims}.{signature}=")),
        ("four parts", format!("{}.{signature}", tenant.token)),
        ("five parts", format!("{header}.{claims}.{claims}.{claims}.{signature}")),
        ("swapped parts", format!("{claims}.{header}.{signature}")),
        ("a word behind", format!("{} x", tenant.token)),
        ("much", "a".repeat(7000)),
        ("many dots", ".".repeat(7000)),
    ] {
        is_refused(&app, &tenant, what, &token, "invalid-token").await;
    }
    app.finish().await;
}

#[tokio::test]
async fn a_request_without_one_bearer_token_is_unauthenticated() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let call = |values: &[&[u8]]| {
        let mut request =
            app.http.get(format!("{}/api/accounts", app.base)).header("X-Tenant-ID", &tenant.slug);
        for value in values {
            let value = http::HeaderValue::from_bytes(value).unwrap();
            request = request.header("Authorization", value);
        }
        request
    };
    let good = format!("Bearer {}", tenant.token);
    let other_scheme = format!("Token {}", tenant.token);
    let cases: [&[&[u8]]; 11] = [
        &[],
        &[b""],
        &[b"Bearer"],
        &[b"Bearer "],
        &[b"Bearer    "],
        &[b"Basic dTpw"],
        &[b"Bearer \xff\xfe"],
        &[other_scheme.as_bytes()],
        &[tenant.token.as_bytes()],
        &[good.as_bytes(), good.as_bytes()],
        &[b"Basic dTpw", good.as_bytes()],
    ];
    for values in cases {
        let answer = send(call(values)).await;
        assert_eq!(answer.status, 401, "{values:?}: {}", answer.text());
        answer.refused(401, "unauthenticated");
    }
    // A token in the address would end up in logs and histories.
    let path = format!("{}/api/accounts?access_token={}", app.base, tenant.token);
    send(app.http.get(path).header("X-Tenant-ID", &tenant.slug)).await.refused(401, "unauthenticated");
    app.finish().await;
}

#[tokio::test]
async fn refreshing_takes_refresh_tokens_only() {
    let app = App::start().await;
    let (tenant, other) = (app.tenant().await, app.tenant().await);
    let refresh = |token: &str| {
        app.http.post(format!("{}/auth/refresh", app.base)).json(&json!({"refresh_token": token}))
    };
    let (_, random) = tenant.refresh_token.split_once('.').unwrap();
    let (theirs, _) = other.refresh_token.split_once('.').unwrap();
    for (what, token) in [
        ("an access token", tenant.token.clone()),
        ("the other tenant's name in front", format!("{theirs}.{random}")),
        ("an unknown tenant's", format!("{}.{random}", new_uuid().simple())),
        ("random", format!("{theirs}.{}", URL_SAFE_NO_PAD.encode([7; 32]))),
        ("empty", String::new()),
        ("half", random.to_owned()),
        ("padded", format!("{}=", tenant.refresh_token)),
        ("upper case", tenant.refresh_token.to_uppercase()),
    ] {
        let answer = send(refresh(&token)).await;
        assert_eq!(answer.status, 401, "{what}: {}", answer.text());
        answer.refused(401, "invalid-token");
    }
    // None of that was a use of the good one.
    send(refresh(&tenant.refresh_token)).await.expect(200);
    app.finish().await;
}

#[tokio::test]
async fn a_token_of_another_tenant_opens_nothing_of_mine() {
    let app = App::start().await;
    let (mine, theirs) = (app.tenant().await, app.tenant().await);
    let crossed = Tenant { token: theirs.token.clone(), ..mine.clone() };
    for (method, path) in [
        ("GET", "/api/accounts"),
        ("GET", "/auth/me"),
        ("POST", "/auth/logout"),
        ("POST", "/api/accounts"),
        ("POST", "/api/compose"),
        ("GET", "/api/sync/search?query=x"),
    ] {
        let known = send(app.request(&crossed, method, path)).await;
        let nobody = Tenant { slug: "no-such-tenant".into(), ..crossed.clone() };
        let unknown = send(app.request(&nobody, method, path)).await;
        let (known, unknown) =
            (known.refused(403, "tenant-forbidden"), unknown.refused(403, "tenant-forbidden"));
        assert_eq!((&known["title"], &known["detail"]), (&unknown["title"], &unknown["detail"]), "{path}");
    }
    app.get(&theirs, "/auth/me").await.expect(200);
    app.finish().await;
}
