//! Addresses of a message's parts that a browser can load: it sends no headers with the pictures of a page.
//!
//! `?part_token=` stands for the access token and the tenant header at one part of one message. It names the tenant, the user
//! and the log-in session of whoever was given it, and its end, with an authentication code over these and the part. So it
//! shows no more than that user may see at the moment it is used, and nothing once the session is over.

use chrono::{DateTime, TimeDelta, Utc};
use emailclient_core::access::token::{self, TokenError};
use emailclient_core::platform::id::{MessageId, SessionId, TenantId, UserId};
use uuid::Uuid;
use wire::secret::Secret;

/// The parameter of the query.
pub const PARAMETER: &str = "part_token";
/// No token lasts longer.
const LONGEST: TimeDelta = TimeDelta::hours(1);
/// Tokens of one such span end together, so that a page that is asked for again is the same one.
const SPAN: i64 = 30 * 60;

/// Whom a token speaks for, and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whose {
    /// The tenant.
    pub tenant: TenantId,
    /// The user.
    pub user: UserId,
    /// The log-in session.
    pub session: SessionId,
    /// Seconds since 1970 from which on it is refused.
    pub until: i64,
}

impl Whose {
    fn words(&self) -> Vec<u8> {
        let ids = [self.tenant.0, self.user.0, self.session.0];
        let mut words = ids.iter().flat_map(Uuid::as_bytes).copied().collect::<Vec<u8>>();
        words.extend_from_slice(&self.until.to_be_bytes());
        words
    }

    fn from_words(words: &[u8]) -> Option<Self> {
        let mut rest = words;
        let mut id = || {
            let (id, tail) = rest.split_first_chunk::<16>()?;
            rest = tail;
            Some(Uuid::from_bytes(*id))
        };
        let (tenant, user, session) = (id()?.into(), id()?.into(), id()?.into());
        Some(Self { tenant, user, session, until: i64::from_be_bytes(rest.try_into().ok()?) })
    }
}

/// When a token that is made now ends: between half an hour and [`LONGEST`] from now.
#[must_use]
pub fn until(now: DateTime<Utc>) -> i64 {
    (now.timestamp().div_euclid(SPAN) + 2) * SPAN
}

/// A token for one part.
#[must_use]
pub fn sign(key: &Secret, whose: &Whose, message: MessageId, part: u32) -> String {
    token::seal(key, &purpose(message, part), &whose.words())
}

/// Whom a token speaks for at this part.
///
/// # Errors
/// [`TokenError::Expired`] for one of ours after its end; [`TokenError::Invalid`] for one of another part, and for what is none.
pub fn read(
    key: &Secret,
    text: &str,
    message: MessageId,
    part: u32,
    now: DateTime<Utc>,
) -> Result<Whose, TokenError> {
    let words = token::open(key, &purpose(message, part), text).ok_or(TokenError::Invalid)?;
    let whose = Whose::from_words(&words).ok_or(TokenError::Invalid)?;
    let at = now.timestamp();
    if whose.until > at + LONGEST.num_seconds() {
        return Err(TokenError::Invalid);
    }
    if whose.until <= at { Err(TokenError::Expired) } else { Ok(whose) }
}

fn purpose(message: MessageId, part: u32) -> String {
    format!("part {part} of the message {message}")
}

/// The token in a query, as it stands there.
#[must_use]
pub fn in_query(query: Option<&str>) -> Option<&str> {
    query?.split('&').find_map(|pair| pair.strip_prefix(PARAMETER)?.strip_prefix('='))
}

/// Which part a path names.
#[must_use]
pub fn part_of(path: &str) -> Option<(MessageId, u32)> {
    let (message, part) = path.strip_prefix("/api/messages/")?.split_once("/attachments/")?;
    Some((Uuid::parse_str(message).ok()?.into(), part.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_123, 0).unwrap()
    }

    #[test]
    fn a_token_opens_its_own_part_in_its_time_only() {
        let key = Secret::new("k".repeat(32));
        let now = moment();
        let whose = Whose {
            tenant: TenantId::new(),
            user: UserId::new(),
            session: SessionId::new(),
            until: until(now),
        };
        let message = MessageId::new();
        let token = sign(&key, &whose, message, 3);
        assert_eq!(read(&key, &token, message, 3, now), Ok(whose));
        assert_eq!(read(&key, &token, message, 2, now), Err(TokenError::Invalid));
        assert_eq!(read(&key, &token, MessageId::new(), 3, now), Err(TokenError::Invalid));
        assert_eq!(read(&Secret::new("l".repeat(32)), &token, message, 3, now), Err(TokenError::Invalid));
        assert_eq!(read(&key, &token, message, 3, now + LONGEST), Err(TokenError::Expired));
        assert_eq!(read(&key, &token, message, 3, now - LONGEST), Err(TokenError::Invalid));
        for at in 0..token.len() {
            let mut other = token.clone().into_bytes();
            other[at] = if other[at] == b'A' { b'B' } else { b'A' };
            let other = String::from_utf8(other).unwrap();
            assert!(read(&key, &other, message, 3, now).is_err(), "{at}");
        }
        let cut = token.split_at(1).1;
        for bad in ["", "A", cut, &format!("{token}AAAA"), &"A".repeat(5000)] {
            assert_eq!(read(&key, bad, message, 3, now), Err(TokenError::Invalid), "{bad}");
        }
    }

    #[test]
    fn a_token_lasts_for_half_an_hour_at_least_and_an_hour_at_most() {
        for second in 0..4000 {
            let now = moment() + TimeDelta::seconds(second);
            let left = until(now) - now.timestamp();
            assert!((SPAN + 1..=LONGEST.num_seconds()).contains(&left), "{left}");
        }
    }

    #[test]
    fn parts_and_tokens_are_found_where_they_stand() {
        let id = MessageId::new();
        assert_eq!(part_of(&format!("/api/messages/{id}/attachments/7")), Some((id, 7)));
        for path in ["/api/messages/x/attachments/7", "/api/messages", "/x"] {
            assert_eq!(part_of(path), None, "{path}");
        }
        assert_eq!(part_of(&format!("/api/messages/{id}/attachments/-1")), None);
        assert_eq!(in_query(Some("a=b&part_token=x")), Some("x"));
        assert_eq!(in_query(Some("a_part_token=x&part_tokens=y")), None);
        assert_eq!(in_query(None), None);
    }
}
