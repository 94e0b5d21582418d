//! Logins by an access token, against scripted servers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::super::connect::greet;
use super::super::script::{REPLY, commands, endpoint, is_protocol, server};
use super::super::{ImapError, Session};
use crate::login::{Login, MAX_TOKEN_BYTES, TokenFault};
use crate::secret::Secret;

const TOKEN: &str = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJtZSJ9.c2lnbmF0dXJl";
const IN: &str = "$ OK [CAPABILITY IMAP4rev1 IDLE] in\r\n";

async fn log_in(
    capabilities: &str,
    answers: &[&str],
    token: &str,
) -> (Result<Session, ImapError>, Vec<String>) {
    let greeting = format!("* OK [CAPABILITY IMAP4rev1 {capabilities}] hi\r\n");
    let (stream, seen) = server(&greeting, answers, 1 << 16);
    let connection = greet(Box::new(stream), REPLY).await.unwrap();
    let login = Login::Token { user: "me@example.com".into(), token: Secret::new(token) };
    let result = connection.login(&endpoint(), &login).await;
    (result, commands(&seen))
}

fn message(mechanism: &str, token: &str) -> String {
    STANDARD.encode(match mechanism {
        "XOAUTH2" => format!("user=me@example.com\x01auth=Bearer {token}\x01\x01"),
        _ => {
            format!("n,a=me@example.com,\x01host=imap.example.com\x01port=993\x01auth=Bearer {token}\x01\x01")
        }
    })
}

#[tokio::test]
async fn both_mechanisms_are_spoken_with_and_without_an_initial_response() {
    for (offer, mechanism) in [
        ("AUTH=PLAIN AUTH=XOAUTH2", "XOAUTH2"),
        ("AUTH=OAUTHBEARER", "OAUTHBEARER"),
        ("AUTH=XOAUTH2 AUTH=OAUTHBEARER LOGINDISABLED", "OAUTHBEARER"),
    ] {
        let (session, seen) = log_in(&format!("SASL-IR {offer}"), &[IN], TOKEN).await;
        assert!(session.unwrap().capabilities().idle);
        assert_eq!(seen, [format!("AUTHENTICATE {mechanism} {}", message(mechanism, TOKEN))]);
        let (session, seen) = log_in(offer, &["+ \r\n", IN], TOKEN).await;
        session.unwrap();
        assert_eq!(seen, [format!("AUTHENTICATE {mechanism}"), message(mechanism, TOKEN)]);
        // A server that does not read the initial response asks for it.
        let (session, seen) = log_in(&format!("SASL-IR {offer}"), &["+\r\n", IN], TOKEN).await;
        session.unwrap();
        assert_eq!(seen[1..], [message(mechanism, TOKEN)]);
    }
}

#[tokio::test]
async fn a_refusal_is_answered_and_read_and_told() {
    for (mechanism, goodbye) in [("XOAUTH2", ""), ("OAUTHBEARER", "AQ==")] {
        for (said, fault, status) in [
            (r#"{"status":"401","schemes":"bearer","scope":"mail"}"#, TokenFault::Invalid, "401"),
            (r#"{"status":"invalid_token"}"#, TokenFault::Invalid, "invalid_token"),
            (r#"{"status":"insufficient_scope","scope":"mail"}"#, TokenFault::Scope, "insufficient_scope"),
            (
                r#"{"status":"400","schemes":"Bearer","scope":"https://mail.google.com/"}"#,
                TokenFault::Scope,
                "400",
            ),
            (r#"{"status":"500"}"#, TokenFault::Other, "500"),
        ] {
            let unpadded = STANDARD.encode(said).trim_end_matches('=').to_owned();
            for challenge in [STANDARD.encode(said), unpadded, said.to_owned()] {
                for end in ["NO [AUTHENTICATIONFAILED] no", "NO no", "BAD no"] {
                    let answers = [format!("+ {challenge}\r\n"), format!("$ {end}\r\n")];
                    let (refused, seen) =
                        log_in(&format!("SASL-IR AUTH={mechanism}"), &[&answers[0], &answers[1]], TOKEN)
                            .await;
                    let error = refused.unwrap_err();
                    assert_eq!(error.token_fault(), Some(fault), "{said} {end}: {error:?}");
                    assert_eq!(error.text().as_deref(), Some("no"));
                    let ImapError::AuthRejected { refusal: Some(refusal), .. } = error else {
                        panic!("{error:?}")
                    };
                    assert_eq!(refusal.status.as_deref(), Some(status));
                    assert_eq!(seen[1..], [goodbye]);
                }
            }
        }
    }
}

#[tokio::test]
async fn a_refusal_without_reasons_is_one_and_a_plea_for_patience_is_none() {
    let of = async |end: &str| log_in("SASL-IR AUTH=XOAUTH2", &[end], TOKEN).await.0.unwrap_err();
    let error = of("$ NO AUTHENTICATE failed.\r\n").await;
    assert!(matches!(&error, ImapError::AuthRejected { refusal: None, .. }), "{error:?}");
    assert_eq!(error.token_fault(), None);
    assert!(matches!(of("$ NO [UNAVAILABLE] later\r\n").await, ImapError::Throttled { .. }));
    let challenge = format!("+ {}\r\n", STANDARD.encode(r#"{"status":"401"}"#));
    for end in ["$ NO [UNAVAILABLE] later\r\n", "$ BAD User is throttled\r\n"] {
        let (refused, _) = log_in("SASL-IR AUTH=XOAUTH2", &[&challenge, end], TOKEN).await;
        assert!(matches!(refused, Err(ImapError::Throttled { .. })), "{refused:?}");
    }
}

#[tokio::test]
async fn the_other_mechanism_is_for_a_server_that_does_not_know_the_first_after_all() {
    let both = "SASL-IR AUTH=XOAUTH2 AUTH=OAUTHBEARER";
    for unknown in [
        "$ BAD Unknown mechanism\r\n",
        "$ NO Unsupported authentication mechanism.\r\n",
        "$ NO [CANNOT] not here\r\n",
    ] {
        let (session, seen) = log_in(both, &[unknown, IN], TOKEN).await;
        session.unwrap();
        assert!(seen[0].starts_with("AUTHENTICATE OAUTHBEARER "), "{seen:?}");
        assert_eq!(seen[1..], [format!("AUTHENTICATE XOAUTH2 {}", message("XOAUTH2", TOKEN))]);
        let (refused, seen) = log_in("SASL-IR AUTH=XOAUTH2", &[unknown, IN], TOKEN).await;
        assert!(refused.is_err());
        assert_eq!(seen.len(), 1);
    }
    for failure in ["$ NO [AUTHENTICATIONFAILED] wrong\r\n", "$ NO [UNAVAILABLE] later\r\n", "$ NO wrong\r\n"]
    {
        let (refused, seen) = log_in(both, &[failure, IN], TOKEN).await;
        assert!(refused.is_err());
        assert_eq!(seen.len(), 1, "{failure}");
    }
    // Who says what is wrong with the token knows the mechanism.
    let challenge = format!("+ {}\r\n", STANDARD.encode(r#"{"status":"401"}"#));
    let (refused, seen) = log_in(both, &[&challenge, "$ BAD what\r\n", IN], TOKEN).await;
    assert!(matches!(refused, Err(ImapError::AuthRejected { .. })), "{refused:?}");
    assert_eq!(seen.len(), 2, "{seen:?}");
}

#[tokio::test]
async fn a_token_goes_to_nobody_who_did_not_ask_for_one() {
    for offer in ["SASL-IR AUTH=PLAIN AUTH=LOGIN", "", "AUTH=OAUTH"] {
        let (refused, seen) = log_in(offer, &[IN], TOKEN).await;
        assert!(matches!(refused, Err(ImapError::Refused { .. })), "{refused:?}");
        assert_eq!(seen, [""; 0]);
    }
}

#[tokio::test]
async fn a_line_that_would_be_too_long_is_sent_when_it_is_asked_for() {
    for mechanism in ["XOAUTH2", "OAUTHBEARER"] {
        let offer = format!("SASL-IR AUTH={mechanism}");
        // The tag, the command and the end of the line.
        let room = 8_192 - format!("A1 AUTHENTICATE {mechanism} \r\n").len();
        let longest = (0..room).rev().find(|n| message(mechanism, &"x".repeat(*n)).len() <= room).unwrap();
        let (session, seen) = log_in(&offer, &[IN], &"x".repeat(longest)).await;
        session.unwrap();
        assert!(seen[0].len() > 8_000, "{}", seen[0].len());
        for length in [longest + 4, 12 << 10, MAX_TOKEN_BYTES] {
            let token = "x".repeat(length);
            let (session, seen) = log_in(&offer, &["+ \r\n", IN], &token).await;
            session.unwrap();
            assert_eq!(seen, [format!("AUTHENTICATE {mechanism}"), message(mechanism, &token)]);
        }
        for unfit in ["x".repeat(MAX_TOKEN_BYTES + 1), String::new(), "a\r\nA1 LOGOUT".to_owned()] {
            let (refused, seen) = log_in(&offer, &["+ \r\n", IN], &unfit).await;
            assert!(matches!(refused, Err(ImapError::Refused { .. })), "{refused:?}");
            assert_eq!(seen, [""; 0]);
        }
    }
}

#[tokio::test]
async fn a_server_that_does_not_stop_asking_is_left() {
    for challenge in ["+ \r\n", "+ e30=\r\n", "+ !!!\r\n"] {
        let (refused, seen) = log_in("SASL-IR AUTH=XOAUTH2", &[challenge; 30], TOKEN).await;
        assert!(is_protocol(&refused), "{refused:?}");
        assert!(seen.len() < 12);
        assert!(
            seen.iter().filter(|line| line.contains(&message("XOAUTH2", TOKEN))).count() <= 2,
            "{seen:?}"
        );
    }
}

#[tokio::test]
async fn no_token_that_a_server_repeats_is_kept() {
    // Long, so that a server's words are cut within it.
    let token: String = (0..600).map(|i| format!("{i:x}.")).collect();
    let (xoauth2, bearer) = (message("XOAUTH2", &token), message("OAUTHBEARER", &token));
    let plain = STANDARD.encode(&token);
    let halves = format!("{} {}", token.get(..40).unwrap(), token.get(40..80).unwrap());
    for said in [&token, &xoauth2, &bearer, &plain, &halves, &token.to_uppercase()] {
        let json = STANDARD
            .encode(format!(r#"{{"status":"{said}","scope":"{said}","openid-configuration":"{said}"}}"#));
        for answers in [
            [format!("+ {json}\r\n"), format!("$ NO [AUTHENTICATIONFAILED] no: {said}\r\n")],
            [format!("+ {said}\r\n"), format!("$ BAD no: {said}\r\n")],
            ["+ \r\n".to_owned(), format!("* BYE no: {said}\r\n")],
            ["+ \r\n".to_owned(), format!("$ NO [LIMIT] no: {said}\r\n")],
        ] {
            let (refused, _) = log_in("SASL-IR AUTH=XOAUTH2", &[&answers[0], &answers[1]], &token).await;
            let error = refused.unwrap_err();
            let told = format!("{error:?} {error}").to_lowercase();
            assert!(told.contains("no: ***"), "{told}");
            for secret in [&token, &xoauth2, &bearer, &plain] {
                let secret = secret.to_lowercase();
                let left = secret.as_bytes().windows(16).filter_map(|w| std::str::from_utf8(w).ok());
                assert_eq!(left.filter(|piece| told.contains(piece)).count(), 0, "{told}");
            }
        }
    }
}
