//! What a test can change while the authority runs.

use std::time::Duration;

use chrono::TimeDelta;
use serde_json::Value;

use super::Endpoint;

/// All of it, changed by [`super::Authority::with`]. The default is a provider that behaves.
#[derive(Debug, Clone)]
pub struct Switches {
    /// How long access tokens live. Negative: they have ended when they are given.
    pub access_lifetime: TimeDelta,
    /// How long a code can be redeemed.
    pub code_lifetime: TimeDelta,
    /// How long a refresh token lives unused; without it, for ever.
    pub refresh_lifetime: Option<TimeDelta>,
    /// What a renewal does to the refresh token.
    pub rotation: Rotation,
    /// How long a refresh token that was replaced is still taken.
    pub refresh_grace: TimeDelta,
    /// Whether a replaced refresh token that comes after its grace ends the whole grant (RFC 9700 §4.14.2).
    pub reuse_revokes: bool,
    /// How far the authority's clock is off: times in ID tokens, what has expired, the `Date` of its answers. Access tokens
    /// are for mail servers, whose clock is right.
    pub clock_offset: TimeDelta,
    /// All that is granted of what was asked; without it, everything.
    pub granted_scopes: Option<Vec<String>>,
    /// How a token answer tells the lifetime.
    pub expires_in: ExpiresIn,
    /// `token_type` of a token answer; its case does not count (RFC 6749 §5.1).
    pub token_type: String,
    /// What is wrong with ID tokens.
    pub id_token: IdToken,
    /// Who ID tokens and userinfo name, whoever consented.
    pub identity: Option<String>,
    /// How long a device code lives.
    pub device_lifetime: TimeDelta,
    /// How long a device waits between two polls; each `slow_down` adds five seconds (RFC 8628 §3.5).
    pub device_interval: Duration,
    /// By how many letters access tokens are longer than they need to be. Dovecot 2.3.19 closes the connection at a SASL
    /// response of more than 8,192 bytes, on the line of the command or after it: a token of about 6,100.
    pub padding: usize,
    /// Whether access tokens have the claim `azp` beside `client_id`. With it Dovecot looks for a key of that client's own.
    pub azp: bool,
    /// What goes wrong; of several that fit a request, the first.
    pub faults: Vec<FaultAt>,
}

impl Default for Switches {
    fn default() -> Self {
        Self {
            access_lifetime: TimeDelta::hours(1),
            code_lifetime: TimeDelta::seconds(60),
            refresh_lifetime: None,
            rotation: Rotation::Keep,
            refresh_grace: TimeDelta::zero(),
            reuse_revokes: false,
            clock_offset: TimeDelta::zero(),
            granted_scopes: None,
            expires_in: ExpiresIn::Number,
            token_type: "Bearer".to_owned(),
            id_token: IdToken::Honest,
            identity: None,
            device_lifetime: TimeDelta::minutes(10),
            device_interval: Duration::from_secs(5),
            padding: 0,
            azp: false,
            faults: Vec::new(),
        }
    }
}

/// What a renewal does to the refresh token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// It stays, and the answer names none, as at Google.
    Keep,
    /// The answer has a new one, and both are good, as at Microsoft.
    Add,
    /// The answer has a new one, and the old one is used up (RFC 9700 §4.14.2).
    Replace,
}

/// `expires_in` of a token answer.
#[derive(Debug, Clone, PartialEq)]
pub enum ExpiresIn {
    /// Seconds, as RFC 6749 §5.1 wants it.
    Number,
    /// Seconds in a string, as Microsoft's v1 endpoint did it.
    Text,
    /// Left out, which is allowed.
    Absent,
    /// Something else instead.
    Other(Value),
}

/// What is wrong with ID tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdToken {
    /// Nothing.
    Honest,
    /// There is none.
    Absent,
    /// For another client.
    OtherAudience,
    /// Of another issuer.
    OtherIssuer,
    /// Signed by a key that is not in the key set, under the name of the one that is.
    OtherKey,
    /// Signed by nobody (`alg: none`).
    AlgNone,
    /// Signed with the client's secret (`alg: HS256`) instead of the authority's key.
    Secret,
    /// Its end lies an hour back.
    Expired,
    /// The claim is missing.
    WithoutEmail,
    /// `email_verified: false`.
    Unverified,
    /// `email_verified` is missing, as at Microsoft.
    VerifiedAbsent,
    /// The nonce of somebody else's sign-in.
    OtherNonce,
    /// The claim is missing though a nonce was sent.
    WithoutNonce,
    /// No JWT at all.
    Garbage,
}

/// A fault and the requests it is for.
#[derive(Debug, Clone)]
pub struct FaultAt {
    /// Where.
    pub endpoint: Endpoint,
    /// What.
    pub fault: Fault,
    /// How many requests more; without it, until it is taken away.
    pub times: Option<u32>,
    /// Only what concerns this user's grants.
    pub user: Option<String>,
}

impl FaultAt {
    /// For everybody and until it is taken away.
    #[must_use]
    pub fn new(endpoint: Endpoint, fault: Fault) -> Self {
        Self { endpoint, fault, times: None, user: None }
    }

    /// For so many requests only.
    #[must_use]
    pub fn times(self, times: u32) -> Self {
        Self { times: Some(times), ..self }
    }

    /// For this user's grants only.
    #[must_use]
    pub fn of(self, user: &str) -> Self {
        Self { user: Some(user.to_lowercase()), ..self }
    }
}

/// What goes wrong with one request.
#[derive(Debug, Clone)]
pub enum Fault {
    /// It waits, then it is worked off. Whoever hangs up meanwhile was not served.
    Slow(Duration),
    /// It is worked off, then the answer waits. Whoever hangs up meanwhile was served all the same.
    SlowAnswer(Duration),
    /// Nothing ever comes.
    Silence,
    /// The connection is closed; nothing was done.
    Closed,
    /// It is worked off, and the connection is closed instead of an answer.
    AnswerLost,
    /// This answer instead; nothing was done.
    Answer {
        /// Its status.
        status: u16,
        /// Its header fields.
        headers: Vec<(String, String)>,
        /// Its body.
        body: String,
    },
    /// A token answer that does not end for 1 GB; [`super::Authority::poured`] counts the bytes that were taken.
    Gigabyte,
}

impl Fault {
    /// Some answer with some body.
    #[must_use]
    pub fn answer(status: u16, content_type: &str, body: &str) -> Self {
        let headers = vec![("content-type".to_owned(), content_type.to_owned())];
        Self::Answer { status, headers, body: body.to_owned() }
    }

    /// JSON as it stands.
    #[must_use]
    pub fn json(status: u16, body: &str) -> Self {
        Self::answer(status, "application/json", body)
    }

    /// 429 with this `Retry-After`, which may be a number, a date or nonsense.
    #[must_use]
    pub fn too_many_requests(retry_after: &str) -> Self {
        Self::Answer {
            status: 429,
            headers: vec![
                ("content-type".to_owned(), "application/json".to_owned()),
                ("retry-after".to_owned(), retry_after.to_owned()),
            ],
            body: r#"{"error":"rate_limit_exceeded"}"#.to_owned(),
        }
    }

    /// 500 without a word that a client could read.
    #[must_use]
    pub fn server_error() -> Self {
        Self::answer(500, "text/plain", "Internal Server Error")
    }

    /// 200 with a page, as a portal in front of the network or a proxy answers.
    #[must_use]
    pub fn html() -> Self {
        Self::answer(200, "text/html; charset=utf-8", "<!doctype html><title>Sign in to the network</title>")
    }

    /// JSON that is no object.
    #[must_use]
    pub fn not_an_object() -> Self {
        Self::json(200, r#"["access_token","expires_in"]"#)
    }

    /// 200 and no byte of a body.
    #[must_use]
    pub fn empty() -> Self {
        Self::json(200, "")
    }

    /// A redirect that keeps method and body: whoever follows it hands them to somebody else.
    #[must_use]
    pub fn redirect(to: &str) -> Self {
        Self::Answer {
            status: 307,
            headers: vec![("location".to_owned(), to.to_owned())],
            body: String::new(),
        }
    }

    /// Refusals that are no RFC 6749 §5.2, each with its name. None of them says `invalid_grant` as a client may
    /// believe it.
    #[must_use]
    pub fn odd_errors() -> Vec<(&'static str, Self)> {
        let long = format!(r#"{{"error":"server_error","error_description":"{}"}}"#, "x".repeat(100_000));
        vec![
            ("an object", Self::json(400, r#"{"error":{"code":400,"message":"Bad Request","status":"X"}}"#)),
            ("a number", Self::json(400, r#"{"error":400}"#)),
            ("an array", Self::json(400, r#"{"error":["invalid_request"]}"#)),
            ("null", Self::json(400, r#"{"error":null,"error_description":null}"#)),
            ("nothing but words", Self::json(400, r#"{"error_description":"it did not work"}"#)),
            ("an error with 200", Self::json(200, r#"{"error":"temporarily_unavailable"}"#)),
            ("an error nobody knows", Self::json(400, r#"{"error":"interaction_needed","error_codes":[7]}"#)),
            ("words of 100,000 letters", Self::json(400, &long)),
            (
                "words with line ends and tags",
                Self::json(
                    400,
                    r#"{"error":"server_error","error_description":"a\r\nX: y\u0000<script>alert(1)</script>"}"#,
                ),
            ),
            ("text", Self::answer(400, "text/plain", "error=server_error")),
            ("half of the JSON", Self::json(400, r#"{"error":"inval"#)),
            ("a form", Self::answer(400, "application/x-www-form-urlencoded", "error=server_error")),
        ]
    }
}
