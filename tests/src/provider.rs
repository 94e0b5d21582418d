//! A provider of tokens, and an app that is registered there: what the tests of OAuth2 share.

use devstack::oauth::{Authority, Client, Endpoint};
use serde_json::{Value, json};

use crate::app::{App, Tenant};
use crate::mail;

/// Where browsers reach the API, as far as the API knows.
pub const PUBLIC_URL: &str = "https://us.example";
/// Where people are sent in the end.
pub const HOME: &str = "https://app.example/connected?from=mail";
/// What the app shows the authority.
pub const SECRET: &str = "app-secret-canary";

/// The API, with an address of its own.
pub async fn start() -> App {
    App::start_with(&[("PUBLIC_URL", PUBLIC_URL)]).await
}

/// An authority whose tokens the mail servers take.
///
/// # Panics
/// When it does not start.
#[must_use]
pub fn authority(app: &App) -> Authority {
    let authority = Authority::start(&app.stack.oauth_key).unwrap();
    let back = format!("{PUBLIC_URL}/oauth/callback");
    authority.register(Client::confidential("our-app", SECRET).redirect(&back));
    authority
}

/// What a client says to name the app.
#[must_use]
pub fn app_settings(app: &App, authority: &Authority) -> Value {
    let server = |port: u16| json!({"host": "localhost", "port": port, "security": "tls"});
    json!({
        "provider": "custom", "name": "Ours", "client_id": "our-app", "client_secret": SECRET,
        "scopes": ["mail", "openid", "email", "offline_access"],
        "endpoints": {
            "issuer": authority.base_url(),
            "authorization_endpoint": authority.url(Endpoint::Authorize),
            "token_endpoint": authority.url(Endpoint::Token),
            "revocation_endpoint": authority.url(Endpoint::Revoke),
            "device_authorization_endpoint": authority.url(Endpoint::Device),
            "userinfo_endpoint": authority.url(Endpoint::UserInfo),
            "jwks_uri": authority.url(Endpoint::Keys),
            "imap": server(app.stack.imaps_port), "smtp": server(app.stack.submissions_port),
        },
    })
}

/// The id of the app, named by this tenant, which may be sent back to [`HOME`].
pub async fn named(app: &App, tenant: &Tenant, authority: &Authority) -> String {
    let made = app.post(tenant, "/api/oauth/apps", &app_settings(app, authority)).await.expect(201);
    app.patch(tenant, "/api/tenant", &json!({"redirect_urls": [HOME]})).await.expect(200);
    made["id"].as_str().unwrap().to_owned()
}

/// Where a person is sent for the app.
pub async fn sent_to(app: &App, tenant: &Tenant, more: &Value) -> String {
    let mut body = json!({"redirect_url": HOME, "state": "our state"});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let sent = app.post(tenant, "/api/oauth/authorize", &body).await.expect(200);
    sent["authorize_url"].as_str().unwrap().to_owned()
}

/// The person comes back by this address: the status, where they are sent then, and its query.
pub async fn back(app: &App, url: &str) -> (u16, String, Vec<(String, String)>) {
    let local = url.replacen(PUBLIC_URL, &app.base, 1);
    let answer = crate::app::send(app.http.get(local)).await;
    let location = answer.header("location");
    let query = url::Url::parse(&location)
        .map(|url| url.query_pairs().map(|(k, v)| (k.into_owned(), v.into_owned())).collect())
        .unwrap_or_default();
    (answer.status, location, query)
}

/// One value of such a query.
#[must_use]
pub fn value<'a>(query: &'a [(String, String)], name: &str) -> Option<&'a str> {
    query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// Connects a new mailbox by a person's consent: its address and the account's id.
pub async fn connect(app: &App, tenant: &Tenant, app_id: &str) -> (String, String) {
    let user = mail::new_mailbox(app);
    let url = sent_to(app, tenant, &json!({"app_id": app_id})).await;
    let back_to = devstack::oauth::consent(&url, &user).await.unwrap();
    let (status, location, query) = back(app, back_to.as_str()).await;
    let account = value(&query, "account_id").unwrap_or_else(|| panic!("{status} {location}"));
    (user, account.to_owned())
}
