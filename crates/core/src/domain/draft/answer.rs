//! What a reply or a forward begins with: recipients, subject, thread, quote, and the files that are passed on.
//!
//! Pure but for the caller's reading of the original ([`crate::domain::blob::of_message`]): parsing hostile mail takes time, so
//! run [`prepare`] off the async threads.

use mail::address::Address;
use mail::compose::{self, Original};
use mail::mime::{self, html};

use super::spool::Contents;
use super::{Content, MAX_SUBJECT_BYTES, NewAttachment};
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

/// Completes `content` from the original's source. `own` are the account's addresses. Returns the files to be carried
/// over.
#[must_use]
pub fn prepare(
    content: &mut Content,
    kind: Kind,
    raw: &[u8],
    own: &[String],
    open: Open,
) -> Vec<NewAttachment> {
    let parsed = mime::parse(raw);
    let original = Original::new(&parsed, mime::body(raw));
    let (subject, text, html) = if kind == Kind::Forward {
        let parts = compose::forward(&original);
        content.in_reply_to = Vec::new();
        content.references = parts.references;
        (parts.subject, parts.text, parts.html)
    } else {
        let parts = compose::reply(&original, kind == Kind::ReplyAll, own);
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
    if keep_html {
        let quote = html.unwrap_or_else(|| html::from_text(&text));
        let own =
            content.html.take().or_else(|| content.text.as_deref().map(html::from_text)).unwrap_or_default();
        content.html = Some(format!("{own}{quote}"));
    }
    if content.text.is_some() || !keep_html || kind == Kind::Forward {
        content.text = Some(format!("{}{text}", content.text.take().unwrap_or_default()));
    }
    if kind == Kind::Forward { carried_over(raw, &parsed, keep_html) } else { Vec::new() }
}

fn without(list: Vec<Address>, others: &[Address]) -> Vec<Address> {
    list.into_iter().filter(|a| !others.iter().any(|b| a.same_mailbox(&b.address))).collect()
}

/// The original's files; images inside its HTML only where that HTML is carried over too.
fn carried_over(raw: &[u8], parsed: &mime::ParsedMessage, with_inline: bool) -> Vec<NewAttachment> {
    let wanted = parsed.attachments.iter().filter(|a| with_inline || !a.inline);
    wanted
        .filter_map(|meta| {
            let data = mime::attachment(raw, meta.index)?;
            let content_id = meta.content_id.clone().filter(|id| compose::is_id(id));
            Some(NewAttachment {
                filename: data.filename.unwrap_or_else(|| format!("attachment-{}", meta.index + 1)),
                content_type: data.content_type,
                inline: meta.inline && content_id.is_some(),
                content_id,
                content: Contents::Here(data.bytes.into()),
            })
        })
        .collect()
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

    fn own() -> Vec<String> {
        vec!["me@b.example".to_owned()]
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
