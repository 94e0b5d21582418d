//! What the end of an attempt means: pure, so that every row of the table below is a test.
//!
//! | after the attempt | state |
//! | --- | --- |
//! | no word after the dot | `unknown` |
//! | some recipient may still be tried, time is left | `queued` |
//! | nobody left to try, somebody was accepted | `sent` |
//! | nobody left to try or no time, nobody accepted | `failed` |
//!
//! A refused login is the account's trouble, not the message's: everybody may still be tried (`credentials.rs`).
//! A recipient that was accepted once is never offered again.

use mail::smtp_reply::{ReplyClass, SmtpReply};

use crate::domain::states::{RecipientState, SubmissionState};
use crate::queue::suspension::HELD;
use wire::smtp::{SendError, Sent, SmtpError, reply_text};

/// What became of one recipient in this attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Accepted, deferred, refused, or pending where nothing was learned.
    pub state: RecipientState,
    /// SMTP code.
    pub code: Option<i32>,
    /// The server's words.
    pub text: Option<String>,
}

impl Verdict {
    fn of(reply: &SmtpReply) -> Self {
        let state = match reply.class() {
            ReplyClass::Success => RecipientState::Accepted,
            ReplyClass::Temporary => RecipientState::Deferred,
            ReplyClass::Permanent => RecipientState::Refused,
        };
        Self { state, code: (!reply.own).then_some(i32::from(reply.code)), text: Some(reply_text(reply)) }
    }

    fn failed(error: &SmtpError) -> Self {
        // A refused login says nothing about the message: it waits for other credentials.
        let later = error.is_temporary() || matches!(error, SmtpError::AuthRejected { .. });
        let state = if later { RecipientState::Deferred } else { RecipientState::Refused };
        Self { state, code: error.code().map(i32::from), text: Some(error.text()) }
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// One for each recipient that was offered, in that order.
    pub verdicts: Vec<Verdict>,
    /// True when only a search can tell whether the message arrived.
    pub in_doubt: bool,
    /// The code that ended the attempt.
    pub code: Option<i32>,
    /// Why it ended, or the server's thanks.
    pub text: Option<String>,
    /// The server's name for the message.
    pub queue_id: Option<String>,
    /// What the login came to, where the attempt got that far.
    pub login: Login,
    /// True when it was held back by a suspension, and is due again as soon as that is lifted.
    pub held: bool,
}

/// What the login of an attempt came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Login {
    /// The attempt ended before.
    #[default]
    Untried,
    /// The server let us in, or asked for no login.
    Accepted,
    /// The server refused the credentials.
    Refused {
        /// In these words.
        reply: SmtpReply,
        /// It said what is wrong with the token: that does not pass.
        meant: bool,
    },
}

impl Ending {
    /// Before the envelope was complete: all recipients share the fate.
    #[must_use]
    pub fn before(error: &SmtpError, recipients: usize) -> Self {
        let verdict = Verdict::failed(error);
        let login = match error {
            SmtpError::AuthRejected { reply, refusal } => {
                Login::Refused { reply: reply.clone(), meant: refusal.is_some() }
            }
            _ => Login::Untried,
        };
        Self {
            code: verdict.code,
            text: verdict.text.clone(),
            verdicts: vec![verdict; recipients],
            in_doubt: false,
            queue_id: None,
            login,
            held: false,
        }
    }

    /// Ended by ourselves before the message left: tried again.
    #[must_use]
    pub fn interrupted(recipients: usize) -> Self {
        Self::unready("the hand-over was interrupted on our side", recipients)
    }

    /// Ended on our side before a server was asked anything, over what is no fault of the message: tried again.
    #[must_use]
    pub fn unready(text: &str, recipients: usize) -> Self {
        let text = Some(text.to_owned());
        Self {
            verdicts: vec![
                Verdict { state: RecipientState::Deferred, code: None, text: text.clone() };
                recipients
            ],
            in_doubt: false,
            code: None,
            text,
            queue_id: None,
            login: Login::Untried,
            held: false,
        }
    }

    /// Held back before the message left, since its tenant was suspended.
    #[must_use]
    pub fn held(recipients: usize) -> Self {
        Self { login: Login::Accepted, held: true, ..Self::unready(HELD, recipients) }
    }

    /// Why the submission is not simply sent: the first recipient's refusal, else what ended the attempt.
    #[must_use]
    pub fn trouble(&self) -> Option<&str> {
        let refused = self
            .verdicts
            .iter()
            .find(|v| matches!(v.state, RecipientState::Deferred | RecipientState::Refused));
        refused.filter(|_| !self.in_doubt).and_then(|v| v.text.as_deref()).or(self.text.as_deref())
    }

    /// The server itself is not well, such as one whose spool is full: a status X.3.X (RFC 3463 §3.4) that passes.
    #[must_use]
    pub fn server_is_ill(&self) -> bool {
        let ill = |v: &Verdict| {
            v.state == RecipientState::Deferred && v.text.as_ref().is_some_and(|t| t.starts_with("4.3."))
        };
        !self.in_doubt && self.verdicts.iter().any(ill)
    }

    /// From what the conversation gave; `offered` are the replies to RCPT that the hand-over had recorded, `None` where it
    /// did not come that far.
    #[must_use]
    pub fn of(result: &Result<Sent, SendError>, offered: Option<&[SmtpReply]>, recipients: usize) -> Self {
        let ending = Self::of_conversation(result, offered, recipients);
        Self { login: Login::Accepted, ..ending }
    }

    fn of_conversation(
        result: &Result<Sent, SendError>,
        offered: Option<&[SmtpReply]>,
        recipients: usize,
    ) -> Self {
        match result {
            Ok(sent) => Self::told(sent),
            Err(SendError::Before(error)) => Self::before(error, recipients),
            Err(SendError::Stopped(_)) => Self::interrupted(recipients),
            Err(SendError::InDoubt(error)) => {
                let verdict = |reply: &SmtpReply| match reply.class() {
                    // Its fate is the message's.
                    ReplyClass::Success => {
                        Verdict { state: RecipientState::Pending, code: None, text: Some(error.text()) }
                    }
                    _ => Verdict::of(reply),
                };
                Self {
                    verdicts: offered.unwrap_or_default().iter().map(verdict).collect(),
                    in_doubt: true,
                    code: error.code().map(i32::from),
                    text: Some(error.text()),
                    queue_id: None,
                    login: Login::default(),
                    held: false,
                }
            }
        }
    }

    fn told(sent: &Sent) -> Self {
        let dot = sent.dot.as_ref();
        let verdict = |reply: &SmtpReply| match (reply.class(), dot) {
            (ReplyClass::Success, Some(dot)) => Verdict::of(dot),
            _ => Verdict::of(reply),
        };
        let last = dot.or(sent.recipients.last());
        Self {
            verdicts: sent.recipients.iter().map(verdict).collect(),
            in_doubt: false,
            code: last.filter(|r| !r.own).map(|r| i32::from(r.code)),
            text: last.map(reply_text),
            queue_id: dot.filter(|r| r.class() == ReplyClass::Success).and_then(|r| queue_id(&r.text)),
            login: Login::default(),
            held: false,
        }
    }
}

/// The name after `queued as`, as Postfix, Exim, Sendmail's heirs and Gmail's relatives give it.
fn queue_id(text: &str) -> Option<String> {
    let at = text.to_ascii_lowercase().find("queued as ")?;
    let id: String = text
        .get(at + 10..)?
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c))
        .take(128)
        .collect();
    (!id.is_empty()).then_some(id)
}

/// Counts over all recipients of a submission, those of earlier attempts included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Taken by the server.
    pub accepted: i64,
    /// May be tried again.
    pub open: i64,
}

/// The state that follows.
#[must_use]
pub fn next_state(tally: Tally, in_doubt: bool, time_left: bool) -> SubmissionState {
    match tally {
        _ if in_doubt => SubmissionState::Unknown,
        Tally { open: 1.., .. } if time_left => SubmissionState::Queued,
        Tally { accepted: 1.., .. } => SubmissionState::Sent,
        Tally { .. } => SubmissionState::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(text: &str) -> SmtpReply {
        SmtpReply::parse(text).unwrap()
    }

    fn states(ending: &Ending) -> Vec<&'static str> {
        ending.verdicts.iter().map(|v| v.state.as_str()).collect()
    }

    #[test]
    fn accepted_recipients_share_the_answer_to_the_dot() {
        let recipients = vec![reply("250 ok"), reply("550 5.1.1 no"), reply("451 later")];
        let with = |dot: &str| {
            let sent = Sent { recipients: recipients.clone(), dot: Some(reply(dot)) };
            Ending::of(&Ok(sent), None, 3)
        };
        let ending = with("250 2.0.0 Ok: queued as 4F2A9");
        assert_eq!(states(&ending), ["accepted", "refused", "deferred"]);
        assert_eq!(ending.queue_id.as_deref(), Some("4F2A9"));
        assert_eq!(ending.trouble(), Some("5.1.1 no"));
        assert_eq!(states(&with("554 spam")), ["refused", "refused", "deferred"]);
        assert_eq!(states(&with("452 full")), ["deferred", "refused", "deferred"]);
    }

    #[test]
    fn doubt_leaves_open_only_who_was_in_the_envelope() {
        let offered = [reply("250 ok"), reply("550 no"), reply("451 later")];
        let ending = Ending::of(&Err(SendError::InDoubt(SmtpError::Closed)), Some(&offered), 3);
        assert_eq!(states(&ending), ["pending", "refused", "deferred"]);
        assert!(ending.in_doubt);
    }

    #[test]
    fn an_early_failure_is_shared_by_all() {
        let ending = Ending::before(&SmtpError::Timeout, 2);
        assert_eq!(states(&ending), ["deferred", "deferred"]);
        let ending = Ending::before(&SmtpError::Refused(reply("554 5.7.1 no service")), 1);
        assert_eq!(
            (states(&ending), ending.code, ending.text.as_deref()),
            (vec!["refused"], Some(554), Some("5.7.1 no service"))
        );
    }

    #[test]
    fn a_refused_login_defers_the_message_and_tells_of_the_account() {
        let no = reply("535 5.7.8 no");
        let ending = Ending::before(&SmtpError::AuthRejected { reply: no.clone(), refusal: None }, 2);
        assert_eq!(
            (states(&ending), ending.code, ending.text.as_deref()),
            (vec!["deferred", "deferred"], Some(535), Some("5.7.8 no"))
        );
        assert_eq!(ending.login, Login::Refused { reply: no, meant: false });
        let later = Ending::of(&Err(SendError::Before(SmtpError::Timeout)), None, 1);
        assert_eq!((later.login, Ending::interrupted(1).login), (Login::Accepted, Login::Untried));
    }

    #[test]
    fn the_next_state_follows_the_table() {
        let tally = |accepted, open| Tally { accepted, open };
        for (t, doubt, time, state) in [
            (tally(0, 1), true, true, "unknown"),
            (tally(1, 1), false, true, "queued"),
            (tally(1, 1), false, false, "sent"),
            (tally(1, 0), false, true, "sent"),
            (tally(0, 1), false, false, "failed"),
            (tally(0, 0), false, true, "failed"),
        ] {
            assert_eq!(next_state(t, doubt, time).as_str(), state, "{t:?}");
        }
    }

    #[test]
    fn queue_ids_are_taken_from_where_servers_put_them() {
        assert_eq!(queue_id("Ok: queued as <x>"), None);
        assert_eq!(queue_id("OK Queued as a-B.1 (x)").as_deref(), Some("a-B.1"));
        assert_eq!(queue_id("İİ queued as 77").as_deref(), Some("77"));
        assert_eq!(queue_id("thanks"), None);
    }
}
