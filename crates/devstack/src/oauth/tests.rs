//! A client of the authority over real HTTP, and what it gets.

mod consent;
mod device;
mod faults;
mod machines;
mod people;
mod renewal;

use anyhow::Result;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{DecodingKey, Validation};
use reqwest::{Response, Url};
use serde_json::Value;

use super::{Authority, Client, Endpoint, consent as allow, keys};

const BACK: &str = "https://client.test/callback?kept=1";
/// Signs that a form and a header treat differently.
const SECRET: &str = "s3cr+t %:&=ü";
const VERIFIER: &str = "dBjftJeZ4CVP-mBs92K27uhbUJU1p1r_wW1gFWFOEjXk";
const SCOPE: &str = "openid email https://mail.test/all";

/// An authority with the client `app`, and who speaks to it.
struct Rig {
    authority: Authority,
    http: reqwest::Client,
}

impl Rig {
    fn new() -> Self {
        Self::with_key(&keys::new_key().unwrap())
    }

    fn with_key(pem: &str) -> Self {
        let authority = Authority::start_with(pem, 0).unwrap();
        authority.register(Client::confidential("app", SECRET).redirect(BACK));
        authority.register(Client::confidential("other", "other's").redirect("https://other.test/"));
        authority.register(Client::public("device"));
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .unwrap();
        Self { authority, http }
    }

    /// Where a browser is sent: what `app` asks for, with changes. An empty value leaves a parameter out.
    fn authorize_url(&self, changes: &[(&str, &str)]) -> String {
        let challenge = keys::challenge(VERIFIER);
        let mut fields = vec![
            ("response_type", "code"),
            ("client_id", "app"),
            ("redirect_uri", BACK),
            ("scope", SCOPE),
            ("state", "st&te"),
            ("nonce", "the nonce"),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
            ("access_type", "offline"),
        ];
        for (name, value) in changes {
            fields.retain(|(n, _)| n != name);
            fields.push((name, value));
        }
        fields.retain(|(_, value)| !value.is_empty());
        Url::parse_with_params(&self.authority.url(Endpoint::Authorize), fields).unwrap().into()
    }

    async fn code(&self, user: &str, changes: &[(&str, &str)]) -> String {
        let url = allow(&self.authorize_url(changes), user).await.unwrap();
        query(&url, "code").unwrap_or_else(|| panic!("{url}"))
    }

    /// As `app`, which sends its secret in the body.
    async fn token(&self, fields: &[(&str, &str)]) -> Response {
        let mut all = vec![("client_id", "app"), ("client_secret", SECRET)];
        all.extend_from_slice(fields);
        self.send(Endpoint::Token, &all).await.unwrap()
    }

    async fn send(&self, endpoint: Endpoint, fields: &[(&str, &str)]) -> reqwest::Result<Response> {
        self.http.post(self.authority.url(endpoint)).form(fields).send().await
    }

    async fn redeem(&self, code: &str) -> Response {
        let grant = ("grant_type", "authorization_code");
        self.token(&[grant, ("code", code), ("redirect_uri", BACK), ("code_verifier", VERIFIER)]).await
    }

    /// All that a user who consents gives to `app`.
    async fn signed_in(&self, user: &str, changes: &[(&str, &str)]) -> Value {
        let code = self.code(user, changes).await;
        ok(self.redeem(&code).await).await
    }

    async fn refresh(&self, token: &str) -> Response {
        self.token(&[("grant_type", "refresh_token"), ("refresh_token", token)]).await
    }

    /// What a token says, if the published key signed it and it has not ended.
    async fn verified(&self, token: &str, audience: &str) -> Result<Value> {
        let keys: JwkSet = self.http.get(self.authority.url(Endpoint::Keys)).send().await?.json().await?;
        let header = jsonwebtoken::decode_header(token)?;
        let key = keys.find(header.kid.as_deref().unwrap_or_default()).expect("a key of that name");
        let mut rules = Validation::new(header.alg);
        rules.leeway = 0;
        rules.set_audience(&[audience]);
        rules.set_issuer(&[self.authority.base_url()]);
        rules.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        rules.validate_nbf = true;
        Ok(jsonwebtoken::decode::<Value>(token, &DecodingKey::from_jwk(key)?, &rules)?.claims)
    }

    async fn user_info(&self, token: &str) -> Response {
        self.http.get(self.authority.url(Endpoint::UserInfo)).bearer_auth(token).send().await.unwrap()
    }
}

fn query(url: &Url, name: &str) -> Option<String> {
    url.query_pairs().find(|(n, _)| n == name).map(|(_, value)| value.into_owned())
}

fn text<'a>(answer: &'a Value, name: &str) -> &'a str {
    answer[name].as_str().unwrap_or_else(|| panic!("no {name} in {answer}"))
}

async fn ok(response: Response) -> Value {
    assert_eq!(response.headers()["cache-control"], "no-store");
    let (status, body) = (response.status(), response.text().await.unwrap());
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

async fn refused(response: Response, status: u16, error: &str) {
    let (got, body) = (response.status(), response.text().await.unwrap());
    assert_eq!(got, status, "{body}");
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(answer["error"], error, "{body}");
    assert!(!text(&answer, "error_description").is_empty());
}

#[test]
fn an_authority_that_is_dropped_is_gone() {
    let rig = Rig::new();
    let url = Url::parse(rig.authority.base_url()).unwrap();
    let address = url.socket_addrs(|| None).unwrap()[0];
    let held = std::net::TcpStream::connect(address).unwrap();
    drop(rig);
    assert!(std::net::TcpStream::connect(address).is_err());
    assert_eq!(std::io::Read::read(&mut &held, &mut [0]).unwrap_or(0), 0, "the connection is closed");
}

#[test]
fn a_key_that_is_none_is_told() {
    let file = std::env::temp_dir().join(format!("devstack-oauth-{}.pem", std::process::id()));
    assert!(Authority::start(&file).is_err());
    std::fs::write(&file, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").unwrap();
    let error = Authority::start(&file).err().unwrap();
    assert!(error.to_string().contains(file.to_str().unwrap()), "{error:#}");
    std::fs::write(&file, keys::new_key().unwrap()).unwrap();
    assert!(Authority::start(&file).is_ok());
    std::fs::remove_file(file).unwrap();
}
