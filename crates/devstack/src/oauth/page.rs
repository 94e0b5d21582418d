//! The pages that people see.

use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};

/// A page that no other may frame, and that loads nothing.
pub(super) fn page(status: StatusCode, title: &str, body: &str) -> Response {
    let html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n\
         <style>main {{ font: 1.1em/1.5 system-ui; max-width: 30em; margin: 3em auto; padding: 0 1em }}</style>\n\
         <main>\n<h1>{title}</h1>\n{body}</main>\n</html>\n"
    );
    let policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";
    let headers = [
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (status, headers, Html(html)).into_response()
}

/// A page that says what is wrong, and goes no further.
pub(super) fn wrong(what: &str) -> Response {
    page(StatusCode::BAD_REQUEST, "This does not work", &format!("<p>{}</p>\n", escape(what)))
}

/// The form that asks who it is, and for what the client asked.
pub(super) struct Consent<'a> {
    pub(super) action: &'a str,
    /// Name and value of what the form brings back.
    pub(super) hidden: (&'a str, &'a str),
    pub(super) client: &'a str,
    pub(super) scope: &'a [String],
    pub(super) user: &'a str,
    /// What was wrong with the last try.
    pub(super) fault: Option<&'a str>,
}

impl IntoResponse for Consent<'_> {
    fn into_response(self) -> Response {
        let scope: String = self.scope.iter().map(|s| format!("<li>{}</li>\n", escape(s))).collect();
        let fault = self.fault.map(|f| format!("<p role=\"alert\">{}</p>\n", escape(f))).unwrap_or_default();
        let body = format!(
            "{fault}<form method=\"post\" action=\"{}\">\n\
             <input type=\"hidden\" name=\"{}\" value=\"{}\">\n\
             <p><label for=\"user\">Your mailbox</label><br>\n\
             <input id=\"user\" name=\"user\" type=\"email\" autocomplete=\"username\" value=\"{}\"></p>\n\
             <p><strong>{}</strong> wants:</p>\n<ul>\n{scope}</ul>\n\
             <p><button name=\"answer\" value=\"allow\">Allow</button>\n\
             <button name=\"answer\" value=\"deny\" formnovalidate>Deny</button></p>\n</form>\n",
            self.action,
            self.hidden.0,
            escape(self.hidden.1),
            escape(self.user),
            escape(self.client),
        );
        let status = if self.fault.is_some() { StatusCode::BAD_REQUEST } else { StatusCode::OK };
        page(status, "Sign in at devstack", &body)
    }
}

pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

pub(super) fn unescape(text: &str) -> String {
    let unquoted = text.replace("&#39;", "'").replace("&quot;", "\"");
    unquoted.replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&")
}

/// Whether this can be an address: there are no passwords, so anybody who has one signs in.
pub(super) fn is_address(text: &str) -> bool {
    let parts = text.rsplit_once('@');
    text.len() <= 254
        && parts.is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty())
        && text.chars().all(|c| !c.is_control() && !c.is_whitespace())
}
