//! What a reply or a forward begins with: recipients, subject, thread, quote, and the files that are passed on.
//!
//! Pure but for the caller's reading of the original ([`crate::domain::blob::of_message`]): parsing hostile mail takes time, so
//! run [`prepare`] off the async threads.

use std::collections::HashSet;

use mail::address::{Address, mailbox_key};
use mail::compose::{self, Original};
use mail::mime::{self, html};

use super::spool::Contents;
use super::{Content, MAX_SUBJECT_BYTES, NewAttachment};
use crate::domain::identity::{self, Identity};
use crate::platform::id::MessageId;

/// How a draft relates to another message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An answer to its author.
    Reply,
    /// An answer to its author and all recipients.
    ReplyAll,
    /// Passed on.
    Forward,
}

impl Content {
    /// The message this draft answers or passes on. The caller made sure that at most one is named.
    #[must_use]
    pub fn answers(&self) -> Option<(Kind, MessageId)> {
        let named = [
            (Kind::Reply, self.reply_to_message_id),
            (Kind::ReplyAll, self.reply_all_to_message_id),
            (Kind::Forward, self.forward_message_id),
        ];
        named.into_iter().find_map(|(kind, id)| id.map(|id| (kind, id)))
    }
}

/// What the client left to us.
#[derive(Debug, Clone, Copy, Default)]
pub struct Open {
    /// Fill in To.
    pub to: bool,
    /// Fill in Cc.
    pub cc: bool,
    /// Fill in the subject.
    pub subject: bool,
    /// Add the quote, and the files of a forward.
    pub quote: bool,
}

/// Adds the signature of the identity that `content` is from, in the kinds of text that there are. A draft that says nothing
/// yet gets none.
pub fn sign(content: &mut Content, identities: &[Identity]) {
    let Some(identity) = identity::meant(identities, content.from.as_ref()) else { return };
    let (text, html) = (identity.signature_text.trim(), identity.signature_html.trim());
    if text.is_empty() && html.is_empty() {
        return;
    }
    if let Some(own) = &mut content.text {
        let text = if text.is_empty() { html::to_text_limited(html) } else { text.to_owned() };
        own.push_str(&format!("\n\n-- \n{}\n", text.trim_end()));
    }
    if let Some(own) = &mut content.html {
        let html = if html.is_empty() { html::from_text(text) } else { html.to_owned() };
        own.push_str(&format!("<br><div>-- <br>{html}</div>"));
    }
}

/// Completes `content` from the original's source. `identities` are the account's: what was written to one of them is
/// answered by it. Returns the files to be carried over.
#[must_use]
pub fn prepare(
    content: &mut Content,
    kind: Kind,
    raw: &[u8],
    identities: &[Identity],
    open: Open,
) -> Vec<NewAttachment> {
    let parsed = mime::parse(raw);
    let original = Original::new(&parsed, mime::body(raw));
    let own: Vec<String> = identities.iter().map(|i| i.email.clone()).collect();
    if open.quote && content.from.is_none() {
        // The first identity is meant where nothing is said; it must not be told to who wrote to another.
        let written = compose::written_to(&original, &own);
        content.from = written
            .filter(|(address, at)| *at > 0 || own.first().is_some_and(|o| !address.same_mailbox(o)))
            .map(|(address, at)| match own.get(at) {
                // Its domain may stand there in another spelling.
                Some(email) if address.same_mailbox(email) => Address { address: email.clone(), ..address },
                _ => address,
            });
    }
    let (subject, text, html) = if kind == Kind::Forward {
        let parts = compose::forward(&original);
        content.in_reply_to = Vec::new();
        content.references = parts.references;
        (parts.subject, parts.text, parts.html)
    } else {
        let parts = compose::reply(&original, kind == Kind::ReplyAll, &own);
        content.in_reply_to = parts.in_reply_to;
        content.references = parts.references;
        if open.to {
            content.to = parts.to;
        }
        if open.cc {
            content.cc = without(parts.cc, &content.to);
        }
        (parts.subject, parts.text, parts.html)
    };
    if open.subject {
        // What is answered may have a longer one than a draft may.
        content.subject = mime::text::truncate(subject, MAX_SUBJECT_BYTES);
    }
    if !open.quote {
        return Vec::new();
    }
    // Formatting is kept where the user writes HTML, and where the original is what the message is about.
    let keep_html = content.html.is_some() || (kind == Kind::Forward && html.is_some());
    let keep_text = content.text.is_some() || !keep_html || kind == Kind::Forward;
    begin(content, keep_text, keep_html);
    sign(content, identities);
    if let Some(own) = &mut content.html {
        own.push_str(&html.unwrap_or_else(|| html::from_text(&text)));
    }
    if let Some(own) = &mut content.text {
        own.push_str(&text);
    }
    let shown = content.html.as_deref().filter(|_| keep_html).unwrap_or_default();
    carried_over(raw, &parsed, shown, kind == Kind::Forward)
}

/// Gives the draft the kinds of text that it will have. A new one begins with what the user wrote in the other.
fn begin(content: &mut Content, text: bool, html: bool) {
    let (own_text, own_html) = (content.text.take(), content.html.take());
    content.html = html.then(|| {
        let other = || own_text.as_deref().map(html::from_text);
        own_html.clone().or_else(other).unwrap_or_default()
    });
    content.text = text.then(|| {
        let other = || own_html.as_deref().map(html::to_text_limited);
        own_text.or_else(other).unwrap_or_default()
    });
}

fn without(list: Vec<Address>, others: &[Address]) -> Vec<Address> {
    let others: HashSet<String> = others.iter().map(|b| mailbox_key(&b.address)).collect();
    list.into_iter().filter(|a| !others.contains(&mailbox_key(&a.address))).collect()
}

/// The original's files. Pictures that the quote shows go along with it; what is shown by nothing is carried over by a
/// forward alone, and pictures of an HTML that was not taken over by nobody.
fn carried_over(raw: &[u8], parsed: &mime::ParsedMessage, html: &str, forward: bool) -> Vec<NewAttachment> {
    let carried = parsed.attachments.iter().filter_map(|meta| {
        let id = compose::carried_id(meta);
        let shown = html.contains(&format!("cid:{id}"));
        let wanted = shown || (forward && (!meta.inline || !html.is_empty()));
        let data = mime::attachment(raw, meta.index).filter(|_| wanted)?;
        Some(NewAttachment {
            filename: data.filename.unwrap_or_else(|| format!("attachment-{}", meta.index + 1)),
            content_type: data.content_type,
            inline: shown,
            content_id: shown.then_some(id),
            content: Contents::Here(data.bytes.into()),
        })
    });
    carried.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here(file: &NewAttachment) -> &[u8] {
        match &file.content {
            Contents::Here(bytes) => bytes,
            Contents::Spooled { .. } => panic!("what is carried over is in memory"),
        }
    }

    const ORIGINAL: &[u8] = b"From: Ann <ann@a.example>\r\nTo: me@b.example, Cy <cy@c.example>\r\nCc: dee@d.example\r\nSubject: Lunch\r\nMessage-ID: <1@a.example>\r\nReferences: <0@a.example>\r\nDate: Mon, 2 Nov 2026 10:00:00 +0000\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nhungry?\r\n--b\r\nContent-Type: application/pdf; name=menu.pdf\r\nContent-Disposition: attachment; filename=menu.pdf\r\n\r\nPDF\r\n--b--\r\n";
    const ALL: Open = Open { to: true, cc: true, subject: true, quote: true };

    fn own() -> Vec<Identity> {
        let identity = |email: &str, signature: &str| Identity {
            email: email.to_owned(),
            name: String::new(),
            signature_text: signature.to_owned(),
            signature_html: String::new(),
        };
        vec![identity("me@b.example", ""), identity("sales@b.example", "Sales")]
    }

    #[test]
    fn a_reply_comes_from_the_identity_that_was_written_to_with_its_signature() {
        let raw = String::from_utf8(ORIGINAL.to_vec()).unwrap();
        let from = |to: &str| {
            let mut content = Content { text: Some("Yes!".to_owned()), ..Content::default() };
            let raw = raw.replace("To: me@b.example", &format!("To: {to}"));
            let _ = prepare(&mut content, Kind::Reply, raw.as_bytes(), &own(), ALL);
            (content.from.map(|a| a.address), content.text.unwrap())
        };
        assert_eq!(from("me@b.example").0, None, "the first is meant anyway");
        let (address, text) = from("sales@b.example");
        assert_eq!(address.as_deref(), Some("sales@b.example"));
        assert!(text.starts_with("Yes!\n\n-- \nSales\n") && text.contains("> hungry?"), "{text}");
        assert_eq!(from("me+shop@b.example").0.as_deref(), Some("me+shop@b.example"));
        assert_eq!(from("list@c.example").0, None);
    }

    #[test]
    fn a_signature_stands_in_every_kind_of_text_whatever_the_client_gave() {
        let sales = Identity { signature_html: "<b>Sales</b>".to_owned(), ..own().swap_remove(1) };
        let html_original =
            String::from_utf8(ORIGINAL.to_vec()).unwrap().replacen("text/plain", "text/html", 1);
        let made = |kind, raw: &str, text: Option<&str>, html: Option<&str>| {
            let given = |t: Option<&str>| t.map(str::to_owned);
            let mut content = Content { text: given(text), html: given(html), ..Content::default() };
            let _ = prepare(&mut content, kind, raw.as_bytes(), std::slice::from_ref(&sales), ALL);
            (content.text, content.html)
        };
        let plain = std::str::from_utf8(ORIGINAL).unwrap();
        for kind in [Kind::Reply, Kind::ReplyAll, Kind::Forward] {
            for (raw, text, html) in [
                (plain, None, None),
                (plain, Some("Yes"), None),
                (plain, None, Some("<p>Yes</p>")),
                (&html_original, None, None),
                (&html_original, Some("Yes"), None),
                (&html_original, None, Some("<p>Yes</p>")),
                (&html_original, Some("Yes"), Some("<p>Yes</p>")),
            ] {
                let case = format!("{kind:?} {text:?} {html:?}");
                let yes = if text.is_some() || html.is_some() { "Yes" } else { "" };
                let (made_text, made_html) = made(kind, raw, text, html);
                assert!(made_text.is_some() || made_html.is_some(), "{case}");
                for (made, signature) in [(made_text, "-- \nSales\n"), (made_html, "-- <br><b>Sales</b>")] {
                    let Some(made) = made else { continue };
                    let order = [yes, signature, "hungry?"].map(|part| made.find(part));
                    assert!(order.is_sorted() && order.iter().all(Option::is_some), "{case}: {made}");
                    assert_eq!(made.matches("Sales").count(), 1, "{case}: {made}");
                }
            }
        }
    }

    #[test]
    fn a_reply_keeps_the_pictures_that_its_quote_shows() {
        let raw = b"From: a@a.example\r\nContent-Type: multipart/related; boundary=b\r\n\r\n--b\r\nContent-Type: text/html\r\n\r\n<p>x<img src=\"cid:i@x\"></p>\r\n--b\r\nContent-Type: image/png\r\nContent-ID: <i@x>\r\n\r\nPNG\r\n--b\r\nContent-Type: image/png; name=other.png\r\n\r\nPNG\r\n--b--\r\n";
        let mut content = Content { html: Some("<p>Yes</p>".to_owned()), ..Content::default() };
        let files = prepare(&mut content, Kind::Reply, raw, &own(), ALL);
        assert_eq!(files.iter().map(|f| f.content_id.as_deref()).collect::<Vec<_>>(), [Some("i@x")]);
        assert!(content.html.unwrap().contains("cid:i@x"));
        let mut content = Content { text: Some("Yes".to_owned()), ..Content::default() };
        assert!(prepare(&mut content, Kind::Reply, raw, &own(), ALL).is_empty());
    }

    fn addresses(list: &[Address]) -> Vec<&str> {
        list.iter().map(|a| a.address.as_str()).collect()
    }

    #[test]
    fn a_reply_goes_to_the_author_with_thread_and_quote() {
        let mut content = Content { text: Some("Yes!".to_owned()), ..Content::default() };
        let files = prepare(&mut content, Kind::Reply, ORIGINAL, &own(), ALL);
        assert!(files.is_empty());
        assert_eq!((addresses(&content.to), addresses(&content.cc)), (vec!["ann@a.example"], vec![]));
        assert_eq!(content.subject, "Re: Lunch");
        assert_eq!(content.in_reply_to, ["1@a.example"]);
        assert_eq!(content.references, ["0@a.example", "1@a.example"]);
        let text = content.text.unwrap();
        assert!(text.starts_with("Yes!\n") && text.contains("> hungry?"), "{text}");
        assert_eq!(content.html, None);
    }

    #[test]
    fn a_reply_to_all_leaves_out_oneself_and_keeps_what_the_client_said() {
        let mut content = Content::default();
        let _ = prepare(&mut content, Kind::ReplyAll, ORIGINAL, &own(), ALL);
        assert_eq!(addresses(&content.cc), ["cy@c.example", "dee@d.example"]);
        let cy = Address { name: None, address: "cy@c.example".to_owned() };
        let mut content = Content { to: vec![cy], subject: "Own".to_owned(), ..Content::default() };
        let open = Open { to: false, subject: false, ..ALL };
        let _ = prepare(&mut content, Kind::ReplyAll, ORIGINAL, &own(), open);
        assert_eq!(
            (addresses(&content.to), addresses(&content.cc)),
            (vec!["cy@c.example"], vec!["dee@d.example"])
        );
        assert_eq!(content.subject, "Own");
    }

    #[test]
    fn a_forward_carries_text_and_files_and_no_recipients() {
        let mut content = Content { text: Some("See below.".to_owned()), ..Content::default() };
        let files = prepare(&mut content, Kind::Forward, ORIGINAL, &own(), ALL);
        assert_eq!(
            files.iter().map(|f| (f.filename.as_str(), here(f))).collect::<Vec<_>>(),
            [("menu.pdf", &b"PDF"[..])]
        );
        assert!(content.to.is_empty() && content.in_reply_to.is_empty());
        let text = content.text.unwrap();
        assert!(
            text.starts_with("See below.") && text.contains("hungry?") && text.contains("From: Ann"),
            "{text}"
        );
    }

    #[test]
    fn an_update_keeps_the_thread_and_adds_no_second_quote() {
        let mut content = Content { text: Some("edited".to_owned()), ..Content::default() };
        let open = Open { quote: false, ..ALL };
        let _ = prepare(&mut content, Kind::Reply, ORIGINAL, &own(), open);
        assert_eq!(content.text.as_deref(), Some("edited"));
        assert_eq!(content.in_reply_to, ["1@a.example"]);
    }
}
