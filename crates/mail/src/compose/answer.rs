//! Replies and forwards: whom, under which subject, in which thread, with which quote.

use chrono::{DateTime, Utc};

use crate::address::Address;
use crate::mime::html::{Policy, escape, sanitize, to_text_limited};
use crate::mime::text::truncate;
use crate::mime::{Body, ParsedMessage};
use crate::thread::{forward_subject, reply_subject};

/// Text quoted at most: more is no quote but a burden.
const MAX_QUOTE_BYTES: usize = 512 * 1024;

/// The message that is answered or passed on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Original {
    /// Message-ID without angle brackets.
    pub message_id: Option<String>,
    /// In-Reply-To.
    pub in_reply_to: Vec<String>,
    /// References, oldest first.
    pub references: Vec<String>,
    /// Subject.
    pub subject: String,
    /// From.
    pub from: Vec<Address>,
    /// Reply-To.
    pub reply_to: Vec<Address>,
    /// To.
    pub to: Vec<Address>,
    /// Cc.
    pub cc: Vec<Address>,
    /// Date.
    pub date: Option<DateTime<Utc>>,
    /// Its plain text, if it has one.
    pub text: Option<String>,
    /// Its HTML as it came, if it has one.
    pub html: Option<String>,
}

impl Original {
    /// From a parsed message and its body.
    #[must_use]
    pub fn new(message: &ParsedMessage, body: Body) -> Self {
        Self {
            message_id: message.message_id.clone(),
            in_reply_to: message.in_reply_to.clone(),
            references: message.references.clone(),
            subject: message.subject.clone().unwrap_or_default(),
            from: message.from.clone(),
            reply_to: message.reply_to.clone(),
            to: message.to.clone(),
            cc: message.cc.clone(),
            date: message.date,
            text: body.text,
            html: body.html,
        }
    }

    fn plain(&self) -> String {
        let text = match (&self.text, &self.html) {
            (Some(text), _) if !text.trim().is_empty() => text.clone(),
            (_, Some(html)) => to_text_limited(html),
            _ => String::new(),
        };
        truncate(text, MAX_QUOTE_BYTES)
    }

    /// The HTML made safe, with nothing remote in it: who quotes must not be made to load.
    fn safe_html(&self, cid_base: &dyn Fn(&str) -> Option<String>) -> Option<String> {
        let html = self.html.as_deref()?;
        Some(sanitize(html, &Policy { allow_remote: false, cid_base }).html)
    }

    fn date_text(&self) -> Option<String> {
        self.date.map(|d| d.format("%a, %-d %b %Y at %H:%M UTC").to_string())
    }
}

/// What a reply begins with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplyParts {
    /// To.
    pub to: Vec<Address>,
    /// Cc; empty unless all are answered.
    pub cc: Vec<Address>,
    /// With `Re:` once.
    pub subject: String,
    /// The id that is answered.
    pub in_reply_to: Vec<String>,
    /// The thread so far.
    pub references: Vec<String>,
    /// The quote as plain text, with room above for the answer.
    pub text: String,
    /// The quote as HTML, if the original had HTML.
    pub html: Option<String>,
}

/// What a forward begins with. The original's attachments are the caller's to carry over; images that its
/// HTML shows keep their `cid:`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForwardParts {
    /// With `Fwd:` once.
    pub subject: String,
    /// The thread so far, so that the forward stands beside what it forwards.
    pub references: Vec<String>,
    /// The original below a block of its headers.
    pub text: String,
    /// The same as HTML, if the original had HTML.
    pub html: Option<String>,
}

/// Prepares a reply. `own` are the addresses of the account; they are taken out of the recipients unless
/// nobody else is left. A reply to one's own message goes to whom that went to.
#[must_use]
pub fn reply(original: &Original, all: bool, own: &[String]) -> ReplyParts {
    let is_own = |a: &Address| own.iter().any(|o| a.same_mailbox(o));
    let author = if original.reply_to.is_empty() { &original.from } else { &original.reply_to };
    let from_self =
        !original.from.is_empty() && original.from.iter().all(is_own) && original.reply_to.iter().all(is_own);
    let mut to = Vec::new();
    if from_self && original.to.iter().any(|a| !is_own(a)) {
        add(&mut to, &[], &original.to, is_own);
    } else {
        add(&mut to, &[], author, |_| false);
    }
    let mut cc = Vec::new();
    if all {
        add(&mut cc, &to, &original.to, is_own);
        add(&mut cc, &to, &original.cc, is_own);
    }
    let text = original.plain();
    let quoted: String = text
        .trim_end()
        .lines()
        .map(|l| if l.starts_with('>') { format!(">{l}\n") } else { format!("> {l}\n") })
        .collect();
    let who = original.from.first().map(ToString::to_string).unwrap_or_else(|| "someone".to_owned());
    let intro = match original.date_text() {
        Some(date) => format!("On {date}, {who} wrote:"),
        None => format!("{who} wrote:"),
    };
    let html = original.safe_html(&|_| None).map(|html| {
        format!("<br><div>{}</div><blockquote style=\"margin:0 0 0 6px;border-left:2px solid #ccc;padding-left:8px\">{html}</blockquote>", escape(&intro))
    });
    ReplyParts {
        to,
        cc,
        subject: reply_subject(&original.subject),
        in_reply_to: original.message_id.iter().cloned().collect(),
        references: references(original),
        text: format!("\n\n{intro}\n\n{quoted}"),
        html,
    }
}

/// Prepares an inline forward.
#[must_use]
pub fn forward(original: &Original) -> ForwardParts {
    let list = |l: &[Address]| l.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let rows = [
        ("From", list(&original.from)),
        ("Date", original.date_text().unwrap_or_default()),
        ("Subject", original.subject.clone()),
        ("To", list(&original.to)),
        ("Cc", list(&original.cc)),
    ];
    let rows: Vec<_> = rows.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    let head: String = rows.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
    let html = original.safe_html(&|id| Some(format!("cid:{id}"))).map(|html| {
        let head: String =
            rows.iter().map(|(name, value)| format!("<b>{name}:</b> {}<br>", escape(value))).collect();
        format!("<br><div>---------- Forwarded message ----------<br>{head}</div><br>{html}")
    });
    ForwardParts {
        subject: forward_subject(&original.subject),
        references: references(original),
        text: format!("\n\n---------- Forwarded message ----------\n{head}\n{}", original.plain()),
        html,
    }
}

/// Adds addresses that are in neither list, leaving out what `skip` says.
fn add(list: &mut Vec<Address>, others: &[Address], more: &[Address], skip: impl Fn(&Address) -> bool) {
    for a in more {
        let known = list.iter().chain(others).any(|b| b.same_mailbox(&a.address));
        if !known && !skip(a) && a.validate().is_ok() {
            list.push(a.clone());
        }
    }
}

/// RFC 5322 §3.6.4: the original's References (or its one In-Reply-To) and its own id.
fn references(original: &Original) -> Vec<String> {
    let mut ids = original.references.clone();
    if ids.is_empty()
        && let [one] = original.in_reply_to.as_slice()
    {
        ids.push(one.clone());
    }
    if let Some(own) = &original.message_id {
        ids.retain(|id| id != own);
        ids.push(own.clone());
    }
    ids
}
