//! A browser that knows the authority's own pages, for tests and the demo.

use anyhow::{Context, Result, bail};
use reqwest::header::LOCATION;
use reqwest::{Client, Response, Url};

use super::page::unescape;

/// Opens an authorisation address, signs in as `user` and allows it. Gives back where the browser is sent, which is
/// not opened.
///
/// # Errors
/// The authority shows a page of its own that says what is wrong, or does not answer.
pub async fn consent(authorize_url: &str, user: &str) -> Result<Url> {
    decide(authorize_url, user, "allow").await
}

/// The same for a person who says no.
///
/// # Errors
/// As [`consent`].
pub async fn deny(authorize_url: &str) -> Result<Url> {
    decide(authorize_url, "", "deny").await
}

async fn decide(url: &str, user: &str, answer: &str) -> Result<Url> {
    let browser = browser()?;
    let first = browser.get(url).send().await?;
    let last = match first.status().is_redirection() {
        // The client's request was wrong; it is told so without a form.
        true => first,
        false => submit(&browser, first, user, answer).await?,
    };
    let status = last.status();
    if !status.is_redirection() {
        bail!("{status}: {}", words(&last.text().await?));
    }
    let location = last.headers().get(LOCATION).context("a redirect to nowhere")?.to_str()?;
    Ok(Url::parse(location)?)
}

/// Opens the page that a device names (`verification_uri_complete`), signs in as `user` and allows it.
///
/// # Errors
/// No device waits with this code, or the authority does not answer.
pub async fn activate(verification_uri_complete: &str, user: &str) -> Result<()> {
    decide_device(verification_uri_complete, user, "allow").await
}

/// The same for a person who says no.
///
/// # Errors
/// As [`activate`].
pub async fn deny_device(verification_uri_complete: &str) -> Result<()> {
    decide_device(verification_uri_complete, "", "deny").await
}

async fn decide_device(url: &str, user: &str, answer: &str) -> Result<()> {
    let browser = browser()?;
    let page = browser.get(url).send().await?;
    let last = submit(&browser, page, user, answer).await?;
    let status = last.status();
    if !status.is_success() {
        bail!("{status}: {}", words(&last.text().await?));
    }
    Ok(())
}

fn browser() -> Result<Client> {
    Ok(Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build()?)
}

/// Fills the page's form in and posts it.
async fn submit(browser: &Client, page: Response, user: &str, answer: &str) -> Result<Response> {
    let (status, url) = (page.status(), page.url().clone());
    let html = page.text().await?;
    if !status.is_success() {
        bail!("{status}: {}", words(&html));
    }
    let action = between(&html, "<form method=\"post\" action=\"", "\"").context("a form that is posted")?;
    let hidden = between(&html, "<input type=\"hidden\" name=\"", ">").context("a hidden field")?;
    let (name, value) = hidden.split_once("\" value=\"").context("a value")?;
    let value = unescape(value.trim_end_matches('"'));
    let fields = [(name, value.as_str()), ("user", user), ("answer", answer)];
    Ok(browser.post(url.join(action)?).form(&fields).send().await?)
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    rest.split_once(after).map(|(found, _)| found)
}

fn words(html: &str) -> String {
    let fault = between(html, "<p role=\"alert\">", "</p>").or_else(|| between(html, "<p>", "</p>"));
    unescape(fault.unwrap_or(html))
}
