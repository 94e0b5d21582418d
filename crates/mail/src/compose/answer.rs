//! Replies and forwards: whom, under which subject, in which thread, with which quote.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};

use crate::address::{Address, mailbox_key, validate};
use crate::mime::html::escape;
use crate::mime::text::truncate;
use crate::mime::{AttachmentMeta, Body, ParsedMessage};
use crate::thread::{forward_subject, reply_subject};

/// Text quoted at most: more is no quote but a burden.
const MAX_QUOTE_BYTES: usize = 512 * 1024;
/// Fields of one name, and addresses in one of them, that are looked at to find whom a message was delivered to.
const MAX_DELIVERIES: usize = 100;

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
    /// Its text, its HTML, its pictures.
    pub body: Body,
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
            body,
        }
    }

    fn plain(&self) -> String {
        let text = match (&self.body.text, &self.body.html) {
            (Some(text), _) if !text.trim().is_empty() => text.clone(),
            (_, Some(html)) => html.to_text(),
            _ => String::new(),
        };
        truncate(text, MAX_QUOTE_BYTES)
    }

    /// The HTML made safe, its own pictures named so that [`carried_id`] finds them. With `whole` pictures of other servers
    /// stay; without, nothing remote: who quotes must not be made to load. Style sheets go: their classes are taken out of
    /// the HTML, and rules for elements would change the text around it too.
    fn safe_html(&self, whole: bool) -> Option<String> {
        Some(self.body.safe_html(whole, &|meta| Some(format!("cid:{}", carried_id(meta))))?.html)
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

/// The Content-ID under which a picture of the original goes along with a quote that shows it.
#[must_use]
pub fn carried_id(meta: &AttachmentMeta) -> String {
    let own = meta.content_id.clone().filter(|id| super::is_id(id));
    own.unwrap_or_else(|| format!("picture-{}@inline.invalid", meta.index))
}

/// Whether an address is `own`, or it with a `+tag` (RFC 5233) behind its local part.
#[must_use]
pub fn is_own(address: &Address, own: &str) -> bool {
    address.same_mailbox(own)
        || untagged(&address.address).is_some_and(|base| mailbox_key(&base) == mailbox_key(own))
}

/// The address without its `+tag`; `None` if it has none.
fn untagged(address: &str) -> Option<String> {
    let (local, domain) = address.rsplit_once('@')?;
    let (base, tag) = local.split_once('+')?;
    (!base.is_empty() && !tag.is_empty()).then(|| format!("{base}@{domain}"))
}

/// The addresses of the account. A message may name thousands of others: each is looked up, not compared with each of these.
struct Own(HashMap<String, usize>);

impl Own {
    fn new(addresses: &[String]) -> Self {
        let placed = addresses.iter().enumerate().rev();
        Self(placed.map(|(n, a)| (mailbox_key(a), n)).filter(|(key, _)| !key.is_empty()).collect())
    }

    /// The place of the one that `address` is, the tagged one before the one without the tag.
    fn place(&self, address: &str) -> Option<usize> {
        let whole = self.0.get(&mailbox_key(address));
        whole.or_else(|| self.0.get(&mailbox_key(&untagged(address)?))).copied()
    }

    fn has(&self, address: &Address) -> bool {
        self.place(&address.address).is_some()
    }
}

/// Which of `own` the original belongs to: the address as it stands there, with its `+tag`, and the place in `own` of the one
/// that it is. Of one's own message that is its author; of others whom To and Cc name, then to whom it was delivered, as with
/// mailing lists and blind copies. `None` if nothing tells.
#[must_use]
pub fn written_to(original: &Original, own: &[String]) -> Option<(Address, usize)> {
    let own = Own::new(own);
    let known = |address: &str| {
        let place = own.place(address)?;
        Some((Address { name: None, address: address.to_owned() }, place))
    };
    let mut named = original.from.iter().chain(&original.to).chain(&original.cc);
    named.find_map(|a| known(&a.address)).or_else(|| delivered_to(&original.body.headers).find_map(known))
}

/// The addresses that servers wrote down as they delivered. Those before any rewriting come first: an alias stands in
/// X-Original-To or Envelope-To, and the mailbox it leads to in Delivered-To. Servers add fields above those of others, so
/// the lowest Delivered-To is the earliest.
fn delivered_to(headers: &[(String, String)]) -> impl Iterator<Item = &str> {
    let fields = ["x-original-to", "envelope-to", "delivered-to"].into_iter().flat_map(|name| {
        headers.iter().rev().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).take(MAX_DELIVERIES)
    });
    fields
        .flat_map(|(_, value)| value.split(',').take(MAX_DELIVERIES))
        .map(|a| a.trim_matches([' ', '\t', '<', '>']))
        .filter(|a| validate(a).is_ok())
}

/// Prepares a reply. `own` are the addresses of the account; they, and they with a `+tag`, are taken out of the recipients
/// unless nobody else is left. A reply to one's own message goes to whom that went to.
#[must_use]
pub fn reply(original: &Original, all: bool, own: &[String]) -> ReplyParts {
    let own = Own::new(own);
    let is_own = |a: &Address| own.has(a);
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
    let html = original.safe_html(false).map(|html| {
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
    let html = original.safe_html(true).map(|html| {
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
    let mut known: HashSet<_> = list.iter().chain(others).map(|a| mailbox_key(&a.address)).collect();
    for a in more {
        if !skip(a) && a.validate().is_ok() && known.insert(mailbox_key(&a.address)) {
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
