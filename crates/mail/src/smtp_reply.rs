//! SMTP replies (RFC 5321 §4.2) with their enhanced status (RFC 3463), and what they mean for a retry.
//!
//! Reading lines from the wire, with its limits, belongs to the SMTP client; here is a finished reply.

use serde::{Deserialize, Serialize};

/// Kept of a server's text: enough to explain, not enough to fill a table.
const MAX_TEXT_BYTES: usize = 1000;

/// What the sender of a command has to conclude.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplyClass {
    /// 2xx or 3xx: go on.
    Success,
    /// 4xx: the same later may succeed.
    Temporary,
    /// 5xx: the same will fail again.
    Permanent,
}

/// A parsed reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SmtpReply {
    /// 200 to 599.
    pub code: u16,
    /// `class.subject.detail`, where the text begins with one that fits the code.
    pub enhanced: Option<(u8, u16, u16)>,
    /// The text without code and enhanced status; lines joined by newline, no control characters, 1,000
    /// bytes at most.
    pub text: String,
    /// We refused by ourselves, and no server said this.
    #[serde(default)]
    pub own: bool,
}

/// The bytes are not an SMTP reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an SMTP reply")]
pub struct NotAReply;

impl SmtpReply {
    /// Reads a whole reply, one or more lines, with or without the final line end.
    ///
    /// # Errors
    /// [`NotAReply`] when a line does not begin with a code from 200 to 599 or the codes differ.
    pub fn parse(raw: &str) -> Result<Self, NotAReply> {
        let mut code = None;
        let mut lines = Vec::new();
        for line in raw.trim_end_matches(['\r', '\n']).split('\n') {
            let line = line.trim_end_matches('\r');
            let number = line.get(..3).ok_or(NotAReply)?;
            if !number.bytes().all(|b| b.is_ascii_digit()) {
                return Err(NotAReply);
            }
            let number: u16 = number.parse().map_err(|_| NotAReply)?;
            if !(200..=599).contains(&number) || code.is_some_and(|c| c != number) {
                return Err(NotAReply);
            }
            code = Some(number);
            match line.as_bytes().get(3) {
                None => {}
                Some(b' ' | b'-') => lines.push(line.get(4..).unwrap_or_default()),
                Some(_) => return Err(NotAReply),
            }
        }
        Ok(Self::from_parts(code.ok_or(NotAReply)?, lines))
    }

    /// From a code and text lines that a client library has split already.
    pub fn from_parts<'a>(code: u16, lines: impl IntoIterator<Item = &'a str>) -> Self {
        let mut enhanced = None;
        let mut text = String::new();
        for line in lines {
            let (status, rest) = split_enhanced(code, line);
            enhanced = enhanced.or(status);
            if !text.is_empty() {
                text.push('\n');
            }
            text.extend(rest.chars().filter(|c| !c.is_control()));
        }
        if text.len() > MAX_TEXT_BYTES {
            let cut = text.floor_char_boundary(MAX_TEXT_BYTES);
            text.truncate(cut);
        }
        Self { code, enhanced, text, own: false }
    }

    /// What follows from the code. A code outside 200 to 599 counts as temporary: nothing was promised.
    #[must_use]
    pub const fn class(&self) -> ReplyClass {
        match self.code {
            200..=399 => ReplyClass::Success,
            500..=599 => ReplyClass::Permanent,
            _ => ReplyClass::Temporary,
        }
    }

    /// The enhanced status as text, `5.1.1`.
    #[must_use]
    pub fn enhanced_text(&self) -> Option<String> {
        self.enhanced.map(|(a, b, c)| format!("{a}.{b}.{c}"))
    }
}

/// Takes the enhanced status off a line, if it is one and its class agrees with the code's.
fn split_enhanced(code: u16, line: &str) -> (Option<(u8, u16, u16)>, &str) {
    let (head, rest) = line.split_once(' ').unwrap_or((line, ""));
    let mut parts = head.split('.');
    let status = (|| {
        let class: u8 = number(parts.next()?)?.try_into().ok()?;
        let (subject, detail) = (number(parts.next()?)?, number(parts.next()?)?);
        let fits = matches!(class, 2 | 4 | 5) && u16::from(class) == code / 100;
        (parts.next().is_none() && fits).then_some((class, subject, detail))
    })();
    match status {
        Some(s) => (Some(s), rest),
        None => (None, line),
    }
}

fn number(text: &str) -> Option<u16> {
    ((1..=3).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::{NotAReply, ReplyClass, SmtpReply};

    #[test]
    fn a_reply_of_several_lines_is_one() {
        let r = SmtpReply::parse("550-5.1.1 No such user\r\n550 5.1.1 here\r\n").unwrap();
        assert_eq!((r.code, r.enhanced, r.text.as_str()), (550, Some((5, 1, 1)), "No such user\nhere"));
        assert_eq!(r.class(), ReplyClass::Permanent);
        assert_eq!(r.enhanced_text().as_deref(), Some("5.1.1"));
    }

    #[test]
    fn an_enhanced_status_of_another_class_is_text() {
        let r = SmtpReply::parse("450 5.1.1 odd").unwrap();
        assert_eq!((r.enhanced, r.text.as_str(), r.class()), (None, "5.1.1 odd", ReplyClass::Temporary));
    }

    #[test]
    fn a_bare_code_and_a_334_are_replies() {
        assert_eq!(SmtpReply::parse("250").unwrap().class(), ReplyClass::Success);
        assert_eq!(SmtpReply::parse("354 go").unwrap().class(), ReplyClass::Success);
    }

    #[test]
    fn gibberish_is_no_reply() {
        for raw in ["", "2", "abc", "99 x", "600 x", "250x", "250 a\r\n251 b", "+50 x", "2ä0 x"] {
            assert_eq!(SmtpReply::parse(raw), Err(NotAReply), "{raw:?}");
        }
    }

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        let r = SmtpReply::parse(&format!("250 {}", "ü".repeat(5000))).unwrap();
        assert_eq!(r.text.len(), 1000);
    }
}
