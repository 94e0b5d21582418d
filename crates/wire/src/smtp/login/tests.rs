//! Logins against scripted servers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::super::SmtpError;
use super::super::connect::greet;
use super::super::script::{Server, deadlines, endpoint};
use crate::login::{Login, MAX_TOKEN_BYTES, TokenFault};
use crate::secret::Secret;

async fn login(server: Server) -> Result<(), SmtpError> {
    let mut connection = greet(server.start(), "us", deadlines()).await?;
    connection.login(&endpoint(), &Login::of("ann", Secret::new("pass word"))).await
}

#[tokio::test]
async fn plain_is_preferred_and_carries_user_and_password() {
    let server = Server::new().features(&["AUTH LOGIN PLAIN"]).answer("AUTH PLAIN", "235 ok\r\n");
    let heard = server.heard();
    login(server).await.unwrap();
    let line = heard.lock().unwrap().last().unwrap().clone();
    assert_eq!(line, format!("AUTH PLAIN {}", STANDARD.encode("\0ann\0pass word")));
}

#[tokio::test]
async fn login_is_used_where_plain_is_not_offered() {
    let server = Server::new()
        .features(&["AUTH LOGIN"])
        .answer("AUTH LOGIN", "334 VXNlcm5hbWU6\r\n")
        .answer(&STANDARD.encode("ann"), "334 UGFzc3dvcmQ6\r\n")
        .answer(&STANDARD.encode("pass word"), "235 ok\r\n");
    login(server).await.unwrap();
}

#[tokio::test]
async fn refused_credentials_are_told_apart_from_a_server_in_trouble() {
    let answer = |text: &str| login(Server::new().features(&["AUTH PLAIN"]).answer("AUTH", text));
    assert!(matches!(answer("535 5.7.8 no\r\n").await, Err(SmtpError::AuthRejected { refusal: None, .. })));
    let busy = answer("454 4.7.0 later\r\n").await.unwrap_err();
    assert!(matches!(&busy, SmtpError::Refused(r) if r.code == 454) && busy.is_temporary());
    assert!(matches!(answer("250 what\r\n").await, Err(SmtpError::Protocol(_))));
}

#[tokio::test]
async fn a_password_that_the_server_repeats_is_not_kept() {
    let coded = STANDARD.encode("\0ann\0pass word");
    let text = format!("535 5.7.8 pass word is wrong: {coded}\r\n");
    let refused = login(Server::new().features(&["AUTH PLAIN"]).answer("AUTH", &text)).await.unwrap_err();
    assert_eq!(refused.text(), "5.7.8 *** is wrong: ***");
}

#[tokio::test]
async fn a_password_is_not_sent_to_a_server_that_did_not_ask() {
    let server = Server::new().features(&["AUTH GSSAPI"]);
    let heard = server.heard();
    assert!(matches!(login(server).await, Err(SmtpError::Protocol(_))));
    assert!(heard.lock().unwrap().iter().all(|l| !l.starts_with("AUTH")));
}

const TOKEN: &str = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJtZSJ9.c2lnbmF0dXJl";

/// Logs in by a token; what the server heard after EHLO.
async fn by_token(server: Server, token: &str) -> (Result<(), SmtpError>, Vec<String>) {
    let heard = server.heard();
    let mut connection = greet(server.start(), "us", deadlines()).await.unwrap();
    let login = Login::Token { user: "me@example.com".into(), token: Secret::new(token) };
    let result = connection.login(&endpoint(), &login).await;
    let heard = heard.lock().unwrap()[1..].to_vec();
    (result, heard)
}

fn message(mechanism: &str, token: &str) -> String {
    STANDARD.encode(match mechanism {
        "XOAUTH2" => format!("user=me@example.com\x01auth=Bearer {token}\x01\x01"),
        _ => {
            format!("n,a=me@example.com,\x01host=smtp.example.com\x01port=587\x01auth=Bearer {token}\x01\x01")
        }
    })
}

fn offering(mechanisms: &str) -> Server {
    Server::new().features(&[&format!("AUTH {mechanisms}")])
}

#[tokio::test]
async fn both_mechanisms_for_tokens_are_spoken() {
    for (offer, mechanism) in [
        ("PLAIN LOGIN XOAUTH2", "XOAUTH2"),
        ("OAUTHBEARER", "OAUTHBEARER"),
        ("XOAUTH2 OAUTHBEARER PLAIN", "OAUTHBEARER"),
    ] {
        let (done, heard) = by_token(offering(offer).answer("AUTH", "235 in\r\n"), TOKEN).await;
        done.unwrap();
        assert_eq!(heard, [format!("AUTH {mechanism} {}", message(mechanism, TOKEN))]);
        // A server that does not read the initial response asks for it.
        let server =
            offering(offer).answer("AUTH", "334 \r\n").answer(&message(mechanism, TOKEN), "235 in\r\n");
        let (done, heard) = by_token(server, TOKEN).await;
        done.unwrap();
        assert_eq!(heard[1..], [message(mechanism, TOKEN)]);
    }
}

#[tokio::test]
async fn a_refusal_of_a_token_is_answered_and_read_and_told() {
    for (mechanism, goodbye) in [("XOAUTH2", ""), ("OAUTHBEARER", "AQ==")] {
        for (said, fault) in [
            (r#"{"status":"401","schemes":"bearer","scope":"mail"}"#, TokenFault::Invalid),
            (r#"{"status":"invalid_token"}"#, TokenFault::Invalid),
            (r#"{"status":"400","schemes":"Bearer","scope":"https://mail.google.com/"}"#, TokenFault::Scope),
            (r#"{"status":"403"}"#, TokenFault::Scope),
            (r#"{"status":"500"}"#, TokenFault::Other),
        ] {
            for challenge in [STANDARD.encode(said), said.to_owned()] {
                let server = offering(mechanism)
                    .answer("AUTH", &format!("334 {challenge}\r\n"))
                    .answer(goodbye, "535 5.7.8 no\r\n");
                let (refused, heard) = by_token(server, TOKEN).await;
                let error = refused.unwrap_err();
                assert_eq!((error.token_fault(), error.code()), (Some(fault), Some(535)), "{said}");
                assert_eq!(error.text(), "5.7.8 no");
                assert_eq!(heard[1..], [goodbye]);
            }
        }
        let server = offering(mechanism)
            .answer("AUTH", &format!("334 {}\r\n", STANDARD.encode(r#"{"status":"401"}"#)))
            .answer(goodbye, "454 4.7.0 later\r\n");
        let (busy, _) = by_token(server, TOKEN).await;
        assert!(matches!(&busy, Err(SmtpError::Refused(r)) if r.code == 454), "{busy:?}");
    }
    let (refused, _) = by_token(offering("XOAUTH2").answer("AUTH", "535 5.7.3 no\r\n"), TOKEN).await;
    let error = refused.unwrap_err();
    assert!(matches!(error, SmtpError::AuthRejected { refusal: None, .. }), "{error:?}");
    assert_eq!(error.token_fault(), None);
}

#[tokio::test]
async fn the_other_mechanism_is_for_a_server_that_does_not_know_the_first_after_all() {
    for unknown in
        ["504 5.5.4 unknown", "501 what", "500 what", "502 what", "535 5.7.4 not supported", "550 5.7.4 no"]
    {
        let unknown = format!("{unknown}\r\n");
        let server = offering("XOAUTH2 OAUTHBEARER")
            .answer("AUTH OAUTHBEARER", &unknown)
            .answer("AUTH XOAUTH2", "235 in\r\n");
        let (done, heard) = by_token(server, TOKEN).await;
        done.unwrap();
        assert_eq!(heard[1..], [format!("AUTH XOAUTH2 {}", message("XOAUTH2", TOKEN))], "{unknown}");
        let (refused, heard) = by_token(offering("XOAUTH2").answer("AUTH", &unknown), TOKEN).await;
        assert!(matches!(refused, Err(SmtpError::AuthRejected { .. })), "{refused:?}");
        assert_eq!(heard.len(), 1);
    }
    for failure in ["535 5.7.8 wrong", "535 wrong", "534 5.7.9 too weak", "454 4.7.0 later", "421 bye"] {
        let server = offering("XOAUTH2 OAUTHBEARER")
            .answer("AUTH OAUTHBEARER", &format!("{failure}\r\n"))
            .answer("AUTH XOAUTH2", "235 in\r\n");
        let (refused, heard) = by_token(server, TOKEN).await;
        assert!(refused.is_err());
        assert_eq!(heard.len(), 1, "{failure}");
    }
    // Who says what is wrong with the token knows the mechanism.
    let server = offering("XOAUTH2 OAUTHBEARER")
        .answer("AUTH OAUTHBEARER", &format!("334 {}\r\n", STANDARD.encode(r#"{"status":"401"}"#)))
        .answer("AQ==", "501 5.5.4 what\r\n")
        .answer("AUTH XOAUTH2", "235 in\r\n");
    let (refused, heard) = by_token(server, TOKEN).await;
    assert_eq!(refused.unwrap_err().token_fault(), Some(TokenFault::Invalid));
    assert_eq!(heard.len(), 2);
}

#[tokio::test]
async fn a_token_goes_to_nobody_who_did_not_ask_for_one() {
    for offer in ["PLAIN LOGIN", "GSSAPI", "OAUTH"] {
        let (refused, heard) = by_token(offering(offer).answer("AUTH", "235 in\r\n"), TOKEN).await;
        assert!(matches!(refused, Err(SmtpError::Protocol(_))), "{refused:?}");
        assert_eq!(heard, [""; 0]);
    }
}

#[tokio::test]
async fn a_token_that_does_not_fit_in_a_command_is_sent_when_it_is_asked_for() {
    for mechanism in ["XOAUTH2", "OAUTHBEARER"] {
        let longest_for = |room: usize| {
            (0..room).rev().find(|n| message(mechanism, &"x".repeat(*n)).len() <= room).unwrap()
        };
        let server = || offering(mechanism).answer(&format!("AUTH {mechanism} "), "235 in\r\n");
        let at_once = longest_for(512 - format!("AUTH {mechanism} \r\n").len());
        let (done, heard) = by_token(server(), &"x".repeat(at_once)).await;
        done.unwrap();
        assert!(heard[0].len() > 500 && heard[0].len() <= 510, "{}", heard[0].len());
        let longest = longest_for(12_288 - 2);
        for length in [at_once + 4, 4 << 10, longest] {
            let token = "x".repeat(length);
            let server =
                server().answer("AUTH", "334 \r\n").answer(&message(mechanism, &token), "235 in\r\n");
            let (done, heard) = by_token(server, &token).await;
            done.unwrap();
            assert_eq!(heard, [format!("AUTH {mechanism}"), message(mechanism, &token)]);
        }
        for length in [longest + 4, 12 << 10, MAX_TOKEN_BYTES, MAX_TOKEN_BYTES + 1, 0] {
            let server = server().answer("AUTH", "334 \r\n");
            let (refused, heard) = by_token(server, &"x".repeat(length)).await;
            let error = refused.unwrap_err();
            assert!(matches!(&error, SmtpError::Refused(reply) if reply.own), "{error:?}");
            assert!(!error.is_temporary() && error.code().is_none() && error.server_text().is_none());
            assert_eq!(heard, [""; 0], "nothing was sent");
        }
    }
    // XOAUTH2's message is the shorter one.
    let token = "x".repeat(9_150);
    assert!(message("OAUTHBEARER", &token).len() > 12_286 && message("XOAUTH2", &token).len() <= 12_286);
    let server = offering("OAUTHBEARER XOAUTH2")
        .answer("AUTH", "334 \r\n")
        .answer(&message("XOAUTH2", &token), "235 in\r\n");
    let (done, heard) = by_token(server, &token).await;
    done.unwrap();
    assert_eq!(heard[0], "AUTH XOAUTH2");
}

#[tokio::test]
async fn a_server_that_does_not_stop_asking_for_a_token_is_left() {
    for challenge in ["334 \r\n", "334 e30=\r\n", "334 !!!\r\n"] {
        let server =
            offering("XOAUTH2").answer("AUTH", challenge).answer("", challenge).answer("dXN", challenge);
        let (refused, heard) = by_token(server, TOKEN).await;
        assert!(matches!(refused, Err(SmtpError::Protocol(_))), "{refused:?}");
        assert!(heard.len() < 12, "{heard:?}");
        let whole = message("XOAUTH2", TOKEN);
        assert!(heard.iter().filter(|line| line.contains(&whole)).count() <= 2, "{heard:?}");
    }
}

#[tokio::test]
async fn no_token_that_a_server_repeats_is_kept() {
    // Long, so that a server's words are cut within it.
    let token: String = (0..600).map(|i| format!("{i:x}.")).collect();
    let (xoauth2, bearer) = (message("XOAUTH2", &token), message("OAUTHBEARER", &token));
    let plain = STANDARD.encode(&token);
    let folded =
        format!("535-5.7.8 no: {}\r\n535 5.7.8 {}", token.get(..70).unwrap(), token.get(70..140).unwrap());
    for said in [&token, &xoauth2, &bearer, &plain, &token.to_uppercase()] {
        let json = STANDARD.encode(format!(r#"{{"status":"{said}","scope":"{said}"}}"#));
        let json = json.get(..4_000).unwrap_or(&json);
        for (challenge, end) in [
            (json, format!("535 5.7.8 no: {said}")),
            ("", format!("454 4.7.0 no: {said}")),
            ("", format!("421 4.7.0 no: {said}")),
            ("", folded.clone()),
        ] {
            let server = offering("XOAUTH2")
                .answer("AUTH", &format!("334 {challenge}\r\n"))
                .answer("", &format!("{end}\r\n"))
                .answer("dXN", &format!("{end}\r\n"));
            let (refused, _) = by_token(server, &token).await;
            let error = refused.unwrap_err();
            let told = format!("{error:?} {error} {}", error.text()).to_lowercase();
            assert!(told.contains("no: ***"), "{told}");
            for secret in [&token, &xoauth2, &bearer, &plain] {
                let secret = secret.to_lowercase();
                let left = secret.as_bytes().windows(16).filter_map(|w| std::str::from_utf8(w).ok());
                assert_eq!(left.filter(|piece| told.contains(piece)).count(), 0, "{told}");
            }
        }
    }
}
