//! The hand-over of one message: envelope, body, final dot. [`send`] is the only function of the program that writes the
//! final dot, and it asks its caller first.
//!
//! Until the dot is written the server cannot have taken the message, so every failure before it may be repeated. From
//! then on only a reply tells; without one the outcome is [`SendError::InDoubt`].

use std::borrow::Cow;

use lettre::Address;
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::{MailBodyParameter, MailParameter};
use mail::address::with_ascii_domain;
use mail::envelope::Envelope;
use mail::smtp_reply::{ReplyClass, SmtpReply};

use super::SmtpError;
use super::connect::{Connection, unexpected};

/// The server may have to file the message before it answers the dot: five times the patience of a command, as RFC 5321
/// §4.5.3.2.6 gives it ten minutes against five.
const DOT_PATIENCE: u32 = 5;

/// A place in the conversation that the caller records before it is passed.
#[derive(Clone, Copy, Debug)]
pub enum Point<'a> {
    /// Logged in; the envelope comes next.
    Envelope,
    /// The server said 354; the body comes next. With the replies to RCPT in the order of the envelope.
    Data(&'a [SmtpReply]),
    /// The body is out; the final dot comes next.
    Dot,
}

/// The caller does not let the conversation go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the hand-over was stopped by its owner")]
pub struct Stopped;

/// Told of each [`Point`] before it is passed; the conversation waits for the answer.
pub trait Progress: Send {
    /// Records `point`.
    ///
    /// # Errors
    /// [`Stopped`] ends the conversation there; nothing that comes after the point is sent.
    fn reached(&mut self, point: Point<'_>) -> impl Future<Output = Result<(), Stopped>> + Send;
}

/// How the conversation ended, when the server told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Replies to RCPT, in the order of the envelope.
    pub recipients: Vec<SmtpReply>,
    /// The reply to the final dot; `None` when no recipient was accepted and so nothing was sent.
    pub dot: Option<SmtpReply>,
}

/// How the conversation ended without the server's word on the message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Before the dot: the server has not taken the message.
    #[error(transparent)]
    Before(SmtpError),
    /// Before the dot, by our own [`Progress`].
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// From the dot on: nobody knows. Never repeat it unasked.
    #[error("the line broke while the server had the message: {0}")]
    InDoubt(SmtpError),
}

impl From<SmtpError> for SendError {
    fn from(error: SmtpError) -> Self {
        Self::Before(error)
    }
}

/// Hands `message` over. Bare CR and LF become CRLF, dots are stuffed; nothing else is changed.
///
/// # Errors
/// [`SendError`]; a refusal of MAIL or DATA is [`SendError::Before`], one of single recipients is in [`Sent`].
pub async fn send(
    connection: &mut Connection,
    envelope: &Envelope,
    message: &[u8],
    progress: &mut impl Progress,
) -> Result<Sent, SendError> {
    progress.reached(Point::Envelope).await?;
    let limit = connection.deadlines.reply;
    let utf8 = connection.features.smtputf8 && (envelope.needs_smtputf8() || !header_is_ascii(message));
    let parameters = mail_parameters(connection, envelope, message, utf8)?;
    let sender = address(&as_sent(&envelope.sender, utf8))
        .ok_or_else(|| local_refusal("553 5.1.7 the sender's address cannot be sent"))?;
    let reply =
        connection.stream.command(Mail::new(Some(sender), parameters).to_string(), limit).await?.reply;
    if reply.code / 100 != 2 {
        return Err(unexpected(reply).into());
    }
    let recipients = offer_recipients(connection, envelope, utf8).await?;
    if !recipients.iter().any(|r| r.class() == ReplyClass::Success) {
        return Ok(Sent { recipients, dot: None });
    }
    let reply = connection.stream.command(Data.to_string(), limit).await?.reply;
    if reply.code != 354 {
        return Err(unexpected(reply).into());
    }
    progress.reached(Point::Data(&recipients)).await?;
    write_body(connection, message).await?;
    connection.stream.expect_silence()?;
    progress.reached(Point::Dot).await?;
    let reply = finish(connection).await.map_err(SendError::InDoubt)?;
    Ok(Sent { recipients, dot: Some(reply) })
}

async fn finish(connection: &mut Connection) -> Result<SmtpReply, SmtpError> {
    let limit = connection.deadlines.reply;
    connection.stream.write(b".\r\n", limit).await?;
    let reply = connection.stream.reply(limit * DOT_PATIENCE).await?.reply;
    // A 3xx promises nothing and refuses nothing.
    if (300..400).contains(&reply.code) { Err(unexpected(reply)) } else { Ok(reply) }
}

async fn offer_recipients(
    connection: &mut Connection,
    envelope: &Envelope,
    utf8: bool,
) -> Result<Vec<SmtpReply>, SmtpError> {
    let mut replies = Vec::with_capacity(envelope.recipients.len());
    for recipient in &envelope.recipients {
        let recipient = as_sent(recipient, utf8);
        let reply = match address(&recipient) {
            None => local_reply("553 5.1.3 the address cannot be sent"),
            Some(_) if !recipient.is_ascii() && !utf8 => {
                local_reply("553 5.6.7 the server does not take addresses in other scripts")
            }
            Some(to) => {
                let command = Rcpt::new(to, Vec::new()).to_string();
                connection.stream.command(command, connection.deadlines.reply).await?.reply
            }
        };
        // 421 ends the whole conversation, whatever it was said to.
        if reply.code == 421 || (300..400).contains(&reply.code) {
            return Err(unexpected(reply));
        }
        replies.push(reply);
    }
    Ok(replies)
}

fn mail_parameters(
    connection: &Connection,
    envelope: &Envelope,
    message: &[u8],
    utf8: bool,
) -> Result<Vec<MailParameter>, SmtpError> {
    let features = &connection.features;
    let mut parameters = Vec::new();
    if let Some(limit) = features.size_bytes {
        let size = u64::try_from(message.len()).unwrap_or(u64::MAX);
        if limit > 0 && size > limit {
            return Err(local_refusal("552 5.3.4 the message is larger than the server takes"));
        }
        parameters.push(MailParameter::Size(message.len()));
    }
    if !message.is_ascii() {
        if features.eight_bit_mime {
            parameters.push(MailParameter::Body(MailBodyParameter::EightBitMime));
        } else {
            return Err(local_refusal("554 5.6.3 the server does not take messages with 8-bit text"));
        }
    }
    if utf8 {
        parameters.push(MailParameter::SmtpUtfEight);
    } else if !header_is_ascii(message) || !with_ascii_domain(&envelope.sender).is_ascii() {
        return Err(local_refusal("553 5.6.7 the server does not take addresses in other scripts"));
    }
    Ok(parameters)
}

fn header_is_ascii(message: &[u8]) -> bool {
    let end = message.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or(message.len());
    message.get(..end).unwrap_or_default().is_ascii()
}

/// The address as it stands in a command. Other scripts may stand there only after MAIL had the SMTPUTF8 parameter (RFC 6531
/// §3.4), which `utf8` says. Without it the domain has its ASCII form; a local part has none.
fn as_sent(address: &str, utf8: bool) -> Cow<'_, str> {
    if utf8 { Cow::Borrowed(address) } else { with_ascii_domain(address) }
}

async fn write_body(connection: &mut Connection, message: &[u8]) -> Result<(), SmtpError> {
    let limit = connection.deadlines.reply;
    let mut stuffer = Stuffer::default();
    let mut out = Vec::with_capacity(72 << 10);
    for piece in message.chunks(64 << 10) {
        out.clear();
        stuffer.push(piece, &mut out);
        connection.stream.write(&out, limit).await?;
    }
    out.clear();
    stuffer.end(&mut out);
    connection.stream.write(&out, limit).await
}

/// RFC 5321 §4.5.2, and CRLF for every line end (§2.3.8).
#[derive(Debug, Default)]
struct Stuffer {
    after_cr: bool,
    in_line: bool,
}

impl Stuffer {
    fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for &b in bytes {
            if std::mem::take(&mut self.after_cr) && b == b'\n' {
                continue;
            }
            match b {
                b'\r' | b'\n' => {
                    out.extend_from_slice(b"\r\n");
                    self.after_cr = b == b'\r';
                    self.in_line = false;
                }
                _ => {
                    if b == b'.' && !self.in_line {
                        out.push(b'.');
                    }
                    out.push(b);
                    self.in_line = true;
                }
            }
        }
    }

    fn end(&self, out: &mut Vec<u8>) {
        if self.in_line {
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// lettre's own check on top of ours: what it refuses must not be written into a command.
fn address(text: &str) -> Option<Address> {
    mail::address::validate(text).ok()?;
    text.parse().ok()
}

fn local_reply(text: &str) -> SmtpReply {
    let (code, rest) = text.split_once(' ').unwrap_or((text, ""));
    SmtpReply { own: true, ..SmtpReply::from_parts(code.parse().unwrap_or(554), [rest]) }
}

pub(super) fn local_refusal(text: &str) -> SmtpError {
    SmtpError::Refused(local_reply(text))
}

#[cfg(test)]
mod tests;
