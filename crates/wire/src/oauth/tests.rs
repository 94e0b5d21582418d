use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::dial::OutboundPolicy;
use crate::tls::install_provider;

/// A server that answers each request with these bytes, and what it was asked.
async fn server(answer: &str) -> (Way, Address, Arc<Mutex<String>>) {
    install_provider();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (heard, answer) = (Arc::new(Mutex::new(String::new())), answer.to_owned());
    let asked = Arc::clone(&heard);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let (mut read, mut some) = (Vec::new(), [0u8; 4096]);
            loop {
                let text = String::from_utf8_lossy(&read).into_owned();
                let length =
                    text.lines().find_map(|l| l.strip_prefix("content-length: ")?.parse::<usize>().ok());
                if let (Some((_, body)), Some(length)) = (text.split_once("\r\n\r\n"), length)
                    && body.len() >= length
                {
                    *asked.lock().unwrap() = text;
                    break;
                }
                match socket.read(&mut some).await {
                    Ok(n) if n > 0 => read.extend_from_slice(&some[..n]),
                    _ => break,
                }
            }
            let _ = socket.write_all(answer.as_bytes()).await;
            if answer.contains("content-length: 999999") {
                let more = "x".repeat(65_536);
                while socket.write_all(more.as_bytes()).await.is_ok() {}
            }
        }
    });
    let policy = OutboundPolicy::parse(&format!("127.0.0.1:{port}")).unwrap();
    let way = Way {
        outbound: Arc::new(Outbound::new(policy)),
        tls: TlsConfig::new(None).unwrap(),
        patience: Duration::from_secs(5),
    };
    (way, Address::parse(&format!("http://127.0.0.1:{port}/token")).unwrap(), heard)
}

fn json(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn client(auth: ClientAuth) -> Client {
    Client { id: "app/1".into(), secret: Some(Secret::new("s3cr:t+")), auth }
}

async fn refresh(answer: &str) -> Result<Tokens, TokenError> {
    let (way, address, _) = server(answer).await;
    token(&way, &address, &client(ClientAuth::Post), &Grant::Refresh(Secret::new("refresh-canary"))).await
}

#[tokio::test]
async fn each_grant_and_way_of_showing_the_secret_is_a_form() {
    let good = json("200 OK", r#"{"access_token": "a", "token_type": "Bearer"}"#);
    let (way, address, heard) = server(&good).await;
    let grants = [
        (
            Grant::Code {
                code: Secret::new("c&d"),
                redirect_uri: "https://us.example/oauth/callback".into(),
                verifier: Secret::new("v"),
            },
            "grant_type=authorization_code&code=c%26d&redirect_uri=https%3A%2F%2Fus.example%2Foauth%2Fcallback&code_verifier=v",
        ),
        (Grant::Refresh(Secret::new("r")), "grant_type=refresh_token&refresh_token=r"),
        (Grant::Client { scope: "a b".into() }, "grant_type=client_credentials&scope=a+b"),
        (
            Grant::Device(Secret::new("d")),
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code&device_code=d",
        ),
        (
            Grant::Assertion(Secret::new("e.f.g")),
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=e.f.g",
        ),
    ];
    for (grant, form) in &grants {
        token(&way, &address, &client(ClientAuth::Post), grant).await.unwrap();
        let asked = heard.lock().unwrap().clone();
        assert!(asked.starts_with("POST /token HTTP/1.1"), "{asked}");
        assert!(asked.ends_with(&format!("{form}&client_id=app%2F1&client_secret=s3cr%3At%2B")), "{asked}");
    }
    let (grant, form) = &grants[1];
    token(&way, &address, &client(ClientAuth::Basic), grant).await.unwrap();
    let asked = heard.lock().unwrap().clone();
    let pair = STANDARD.encode("app%2F1:s3cr%3At%2B");
    assert!(asked.contains(&format!("authorization: Basic {pair}\r\n")) && asked.ends_with(form), "{asked}");
    let public = Client { id: "app".into(), secret: None, auth: ClientAuth::Basic };
    token(&way, &address, &public, grant).await.unwrap();
    assert!(heard.lock().unwrap().ends_with(&format!("{form}&client_id=app")));
}

#[tokio::test]
async fn tokens_are_read_as_providers_write_them() {
    let tokens = refresh(&json(
        "200 OK",
        r#"{"access_token": "a", "token_type": "BEARER", "expires_in": "3599", "refresh_token": "r2", "scope": "x y", "id_token": "i.j.k", "more": [1]}"#,
    ))
    .await
    .unwrap();
    assert_eq!((tokens.access.expose(), tokens.refresh.unwrap().expose().to_owned()), ("a", "r2".into()));
    assert_eq!((tokens.expires_in, tokens.scope.as_deref()), (Duration::from_secs(3599), Some("x y")));
    for (expires, seconds) in [
        ("", 3_600),
        (r#", "expires_in": 0"#, 0),
        (r#", "expires_in": -5"#, 3_600),
        (r#", "expires_in": 1e300"#, 30 * 86_400),
        (r#", "expires_in": "soon""#, 3_600),
        (r#", "expires_in": null"#, 3_600),
        (r#", "expires_in": 59.9"#, 59),
    ] {
        let tokens = refresh(&json("200 OK", &format!(r#"{{"access_token": "a"{expires}}}"#))).await.unwrap();
        assert_eq!(tokens.expires_in.as_secs(), seconds, "{expires}");
        assert!(tokens.refresh.is_none() && tokens.id_token.is_none());
    }
}

#[tokio::test]
async fn what_is_no_token_is_told_by_its_kind_and_shows_no_secret() {
    let long = format!(r#"{{"access_token": "{}"}}"#, "a".repeat(TOKEN_BYTES + 1));
    for (answer, error, temporary) in [
        (json("200 OK", "{}"), TokenError::Nonsense("no access token"), true),
        (json("200 OK", "[]"), TokenError::Nonsense("no JSON object"), true),
        (json("200 OK", "<html>"), TokenError::Nonsense("no JSON object"), true),
        (json("200 OK", ""), TokenError::Nonsense("no JSON object"), true),
        (json("200 OK", &long), TokenError::Nonsense("no access token"), true),
        (json("200 OK", r#"{"access_token": "a\nb"}"#), TokenError::Nonsense("no access token"), true),
        (json("200 OK", r#"{"access_token": ["a"]}"#), TokenError::Nonsense("no access token"), true),
        (
            json("200 OK", r#"{"access_token": "a", "token_type": "mac"}"#),
            TokenError::Nonsense("the token is no bearer token"),
            true,
        ),
        (json("500 Oops", "{}"), TokenError::Status(500), true),
        (json("404 Not Found", "<html>"), TokenError::Status(404), false),
        (json("302 Found\r\nlocation: http://127.0.0.1:1/", ""), TokenError::Status(302), false),
        (
            json("429 Slow\r\nretry-after: 7", "{}"),
            TokenError::Busy { after: Some(Duration::from_secs(7)) },
            true,
        ),
        (json("503 Later\r\nretry-after: Mon, 1 Jan", ""), TokenError::Busy { after: None }, true),
        (String::new(), TokenError::NoAnswer(Trouble::Closed), true),
        ("SSH-2.0-OpenSSH\r\n\r\n".into(), TokenError::NoAnswer(Trouble::Protocol), true),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 999999999\r\n\r\n".into(),
            TokenError::NoAnswer(Trouble::Protocol),
            true,
        ),
        (
            json(
                "400 Bad",
                r#"{"error": "invalid_grant", "error_description": "refresh-canary has\r\nexpired"}"#,
            ),
            TokenError::Refused { error: "invalid_grant".into(), description: "*** has expired".into() },
            false,
        ),
        (
            json("200 OK", r#"{"error": {"type": "OAuthException", "message": "s3cr:t+"}}"#),
            TokenError::Refused { error: "OAuthException".into(), description: "***".into() },
            false,
        ),
        (
            json("401 No", r#"{"error": "temporarily_unavailable"}"#),
            TokenError::Refused { error: "temporarily_unavailable".into(), description: String::new() },
            true,
        ),
    ] {
        let got = refresh(&answer).await.unwrap_err();
        assert_eq!((&got, got.is_temporary()), (&error, temporary), "{answer}");
        assert!(!format!("{got} {got:?}").contains("canary") && !got.to_string().contains("s3cr"));
    }
    let invalid = TokenError::Refused { error: "invalid_grant".into(), description: String::new() };
    assert!(invalid.needs_consent());
}

#[tokio::test]
async fn a_server_that_says_nothing_or_lies_inside_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (mut way, _, _) = server("").await;
    way.patience = Duration::from_millis(300);
    let policy = OutboundPolicy::parse(&format!("127.0.0.1:{port}")).unwrap();
    way.outbound = Arc::new(Outbound::new(policy));
    let grant = Grant::Refresh(Secret::new("r"));
    let silent = Address::parse(&format!("http://127.0.0.1:{port}/")).unwrap();
    let error = token(&way, &silent, &client(ClientAuth::Post), &grant).await.unwrap_err();
    assert_eq!(error, TokenError::NoAnswer(Trouble::Timeout));
    let inside = Address::parse("https://127.0.0.2/token").unwrap();
    let error = token(&way, &inside, &client(ClientAuth::Post), &grant).await.unwrap_err();
    assert_eq!(error, TokenError::NoAnswer(Trouble::HostNotAllowed));
}

#[tokio::test]
async fn a_device_learns_its_codes_and_a_token_is_revoked() {
    let (way, address, heard) = server(&json(
        "200 OK",
        r#"{"device_code": "d", "user_code": "AB-CD", "verification_url": "https://x.example/go", "expires_in": 900, "interval": 5}"#,
    ))
    .await;
    let code = device_code(&way, &address, &client(ClientAuth::Post), "mail").await.unwrap();
    assert_eq!((code.user_code.as_str(), code.verification_uri.as_str()), ("AB-CD", "https://x.example/go"));
    assert_eq!((code.expires_in.as_secs(), code.interval.as_secs()), (900, 5));
    revoke(&way, &address, &client(ClientAuth::Post), &Secret::new("r")).await.unwrap();
    assert!(heard.lock().unwrap().contains("token=r&token_type_hint=refresh_token"));
    let (way, address, _) = server(&json("200 OK", r#"{"device_code": "d"}"#)).await;
    let error = device_code(&way, &address, &client(ClientAuth::Post), "mail").await.unwrap_err();
    assert_eq!(error, TokenError::Nonsense("no device code"));
}
