//! What is known of an address: its servers, and the app by which its person consents.

use emailclient_core::domain::account::Account;
use emailclient_core::domain::connect::{Found, Place};
use emailclient_core::domain::oauth::app::{self, App};
use emailclient_core::domain::oauth::provider::{MailServer, Provider};
use emailclient_core::platform::db::{DbError, TenantTx};
use wire::discover::{Candidate, Discovered, Note, Suggestion};

use crate::state::AppState;

/// Apps by which a person can consent: the tenant's own, then those of the deployment. One that has but the key of a service account
/// acts for organisations.
///
/// # Errors
/// Those of the database.
pub async fn apps(tx: &mut TenantTx, state: &AppState) -> Result<Vec<App>, DbError> {
    let own = app::list(tx).await?.into_iter();
    let for_people = |app: &App| app.has_client_secret || !app.has_private_key;
    Ok(own.chain(state.oauth_apps.list()).filter(for_people).collect())
}

/// The name of an app's provider, for people. `None`: it has none.
pub fn provider_name(app: &App) -> Option<String> {
    match app.said.provider {
        Provider::Google => Some("Google".to_owned()),
        Provider::Microsoft => Some("Microsoft".to_owned()),
        Provider::Yahoo => Some("Yahoo".to_owned()),
        Provider::Custom => Some(app.said.name.trim().to_owned()).filter(|name| !name.is_empty()),
    }
}

fn app_of<'a>(apps: &'a [App], imap_host: &str) -> Option<&'a App> {
    apps.iter().find(|app| {
        app.said.terms().is_some_and(|terms| terms.endpoints.imap.host.eq_ignore_ascii_case(imap_host))
    })
}

/// The best of what was found.
pub fn of_discovery(found: Discovered, apps: &[App]) -> Found {
    let host = |c: &Candidate| c.imap.as_ref().map(|imap| imap.endpoint.host.clone());
    let with_app =
        found.candidates.iter().find_map(|c| Some((c, app_of(apps, &host(c)?)?))).map(|(c, app)| (c, app.id));
    let whole = |c: &&Candidate| c.imap.is_some() && c.smtp.is_some();
    let (best, app) = match with_app {
        Some((candidate, app)) => (Some(candidate), Some(app)),
        None => (found.candidates.iter().find(whole).or(found.candidates.first()), None),
    };
    let Some(best) = best.cloned() else { return Found::default() };
    Found {
        provider: best.provider,
        imap: best.imap.map(place),
        smtp: best.smtp.map(place),
        notes: best.notes.into_iter().map(|note| note.code().to_owned()).collect(),
        app,
    }
}

fn place(suggestion: Suggestion) -> Place {
    let end = suggestion.endpoint;
    Place {
        server: MailServer { host: end.host, port: end.port, security: end.security },
        username: suggestion.username,
    }
}

/// What is known of an account that is renewed: it stays at its servers, and its person consents where they did, or can now.
pub fn of_account(account: &Account, apps: &[App]) -> Found {
    let place = |server: &emailclient_core::domain::account::Server| Place {
        server: MailServer { host: server.host.clone(), port: server.port, security: server.security },
        username: server.username.clone(),
    };
    let granted = account.grant.as_ref().map(|(_, grant)| grant.app_id);
    let granted = granted.filter(|id| apps.iter().any(|app| app.id == *id));
    Found {
        provider: None,
        imap: Some(place(&account.imap)),
        smtp: Some(place(&account.smtp)),
        notes: Vec::new(),
        app: granted.or_else(|| app_of(apps, &account.imap.host).map(|app| app.id)),
    }
}

/// What a person should know of it.
pub fn notes(found: &Found) -> Vec<Note> {
    found.notes.iter().filter_map(|code| Note::from_code(code)).collect()
}

/// Whether a password could do.
pub fn takes_password(found: &Found) -> bool {
    found.imap.is_some() && found.smtp.is_some() && !notes(found).contains(&Note::OAuthOnly)
}
