//! What follows the header: text, its HTML twin, attachments, and the multiparts around them.

use std::fmt::Write as _;

use percent_encoding::percent_encode_byte;

use super::encode::{Charset, base64_lines, header_text, text_part};
use super::random::Random;
use super::text::{Script, Words};

/// Type, ending of the name, first bytes.
const KINDS: [(&str, &str, &[u8]); 7] = [
    ("application/pdf", "pdf", b"%PDF-1.4\n"),
    ("image/jpeg", "jpg", b"\xff\xd8\xff\xe0"),
    ("image/png", "png", b"\x89PNG\r\n\x1a\n"),
    ("application/zip", "zip", b"PK\x03\x04"),
    ("application/vnd.openxmlformats-officedocument.wordprocessingml.document", "docx", b"PK\x03\x04"),
    ("text/csv", "csv", b"id,amount\r\n"),
    ("application/octet-stream", "bin", b""),
];

const STEMS: [&str; 12] = [
    "report",
    "invoice",
    "photo",
    "contract",
    "résumé",
    "minutes",
    "budget",
    "schedule",
    "отчёт",
    "請求書",
    "plan",
    "notes",
];

/// Files begin to come with messages of this size; smaller ones are text alone.
const ATTACHMENT_FROM_BYTES: usize = 60_000;
const LARGEST_ATTACHMENT_BYTES: usize = 2_000_000;
/// Where all have one size, all from this one on have a file.
const FILLED_FROM_BYTES: usize = 16_000;

/// Writes the body of one message.
pub(crate) struct Writer<'a> {
    pub(crate) random: &'a mut Random,
    pub(crate) words: &'a Words,
    pub(crate) charset: Charset,
    pub(crate) script: Option<Script>,
    /// One file takes whatever room the text leaves.
    pub(crate) filled: bool,
}

impl Writer<'_> {
    /// About `room` bytes, content headers included, and the plain text of it. `opening` comes first, `quote` last.
    pub(crate) fn write(&mut self, room: usize, opening: &str, quote: &str) -> (Vec<u8>, String) {
        let attach = match self.filled {
            true => room > FILLED_FROM_BYTES,
            false => room > ATTACHMENT_FROM_BYTES && self.random.chance(0.75),
        };
        let plain_only = room < 900 || (!attach && room < 30_000 && self.random.chance(0.15));
        if plain_only {
            let text = self.text(opening, room.max(200), quote);
            return (text_part(&text, "plain", self.charset), text);
        }
        let share = if attach { room.min(6_000) } else { room };
        let text = self.text(opening, (share / 4).clamp(150, 30_000), quote);
        let body = self.alternative(&text, share);
        let body = match attach {
            true => self.with_attachments(body, room),
            false => match self.random.below(40) {
                0 => self.with_forwarded(body),
                1 => self.with_invitation(body),
                _ => body,
            },
        };
        (body, text)
    }

    fn text(&mut self, opening: &str, bytes: usize, quote: &str) -> String {
        // ASCII mail quotes what it cannot say as UTF-8, see `text_part`.
        opening.to_owned() + &self.words.prose(self.random, bytes, self.script) + quote
    }

    fn alternative(&mut self, text: &str, share: usize) -> Vec<u8> {
        let picture = self.random.chance(0.06);
        let html = self.html(text, (share * 2 / 3).max(400), picture);
        let mut html = text_part(&html, "html", self.charset);
        if picture {
            let data = self.random.bytes(900);
            let mut image = b"Content-Type: image/png; name=\"logo.png\"\r\nContent-ID: <logo@lab>\r\n\
                Content-Disposition: inline; filename=\"logo.png\"\r\nContent-Transfer-Encoding: base64\r\n\r\n"
                .to_vec();
            image.extend(base64_lines(&data));
            html = self.multipart("related", vec![html, image]);
        }
        let plain = text_part(text, "plain", self.charset);
        self.multipart("alternative", vec![plain, html])
    }

    /// The text as newsletters write it: a table, inline styles, a tracking pixel, and style rules up to the size.
    fn html(&mut self, text: &str, bytes: usize, picture: bool) -> String {
        let mut body =
            String::from("<table width=\"600\" cellpadding=\"0\"><tr><td style=\"padding:20px\">\r\n");
        for paragraph in text.split("\r\n\r\n") {
            let paragraph = paragraph.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            body += "<p style=\"margin:0 0 12px;font:14px/20px Arial,sans-serif;color:#333\">";
            body += &paragraph;
            body += "</p>\r\n";
        }
        if picture {
            body += "<img src=\"cid:logo@lab\" alt=\"logo\">\r\n";
        }
        let (link, pixel) = (self.random.next(), self.random.next());
        body += &format!("<a href=\"https://shop.test/c/{link:x}\">View online</a></td></tr></table>\r\n");
        body += &format!("<img src=\"https://shop.test/o/{pixel:x}.gif\" width=\"1\" height=\"1\">\r\n");
        let mut style = String::new();
        let mut rule = 0;
        while style.len() + body.len() < bytes {
            let (pad, color, width) =
                (self.random.below(40), self.random.below(1 << 24), self.random.below(600));
            // Writing to a String cannot fail.
            let _ = write!(style, ".c{rule}{{padding:{pad}px;color:#{color:06x};width:{width}px}}\r\n");
            rule += 1;
        }
        format!(
            "<!DOCTYPE html>\r\n<html><head><style>\r\n{style}</style></head><body>\r\n{body}</body></html>\r\n"
        )
    }

    fn with_attachments(&mut self, body: Vec<u8>, room: usize) -> Vec<u8> {
        // Base64 makes four bytes of three, and line ends come on top.
        let mut left = room.saturating_sub(body.len()) * 73 / 100;
        let mut parts = vec![body];
        for _ in 0..if self.filled { 1 } else { self.random.pick(&[1, 1, 1, 2, 3]) } {
            let all = self.filled || self.random.chance(0.5);
            let size = (if all { left } else { left / 2 }).clamp(2_000, LARGEST_ATTACHMENT_BYTES);
            parts.push(self.attachment(size));
            left = left.saturating_sub(size);
            if left < 4_000 {
                break;
            }
        }
        self.multipart("mixed", parts)
    }

    fn attachment(&mut self, size: usize) -> Vec<u8> {
        let (kind, ending, magic) = self.random.pick(&KINDS);
        let name = format!("{}-{}.{ending}", self.random.pick(&STEMS), self.random.below(10_000));
        let mut data = magic.to_vec();
        if ending == "csv" {
            data.extend(
                self.words.prose(self.random, size.min(200_000), None).replace(' ', ",").into_bytes(),
            );
        } else {
            data.extend(self.random.bytes(size));
        }
        let name = if name.is_ascii() {
            format!("filename=\"{name}\"")
        } else if self.random.chance(0.5) {
            // RFC 2231, as the standard wants it.
            format!("filename*=utf-8''{}", name.bytes().map(percent_encode_byte).collect::<String>())
        } else {
            // An encoded word inside of quotes: forbidden by RFC 2047 §5, sent by many, understood by all.
            format!("filename=\"{}\"", header_text(&name, Charset::UTF_8).replace("\r\n ", " "))
        };
        let mut part = format!(
            "Content-Type: {kind}\r\nContent-Transfer-Encoding: base64\r\nContent-Disposition: attachment;\r\n {name}\r\n\r\n"
        )
        .into_bytes();
        part.extend(base64_lines(&data));
        part
    }

    fn with_forwarded(&mut self, body: Vec<u8>) -> Vec<u8> {
        let subject = self.words.subject(self.random, None);
        let text = self.words.prose(self.random, 600, None);
        let inner = format!(
            "Content-Type: message/rfc822\r\nContent-Disposition: attachment; filename=\"forwarded.eml\"\r\n\r\n\
             From: Somebody <somebody@elsewhere.test>\r\nTo: me@lab.test\r\nSubject: {subject}\r\n\
             Date: Tue, 01 Jan 2019 00:00:00 +0000\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\n{text}"
        );
        self.multipart("mixed", vec![body, inner.into_bytes()])
    }

    fn with_invitation(&mut self, body: Vec<u8>) -> Vec<u8> {
        let (summary, uid) = (self.words.subject(self.random, None), self.random.next());
        let event = format!(
            "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//lab//corpus//EN\r\nMETHOD:REQUEST\r\nBEGIN:VEVENT\r\n\
             UID:{uid:x}@lab.test\r\nDTSTART:20190301T100000Z\r\nDTEND:20190301T110000Z\r\nSUMMARY:{summary}\r\n\
             END:VEVENT\r\nEND:VCALENDAR\r\n"
        );
        let part = text_part(&event, "calendar; method=REQUEST", Charset::UTF_8);
        self.multipart("mixed", vec![body, part])
    }

    fn multipart(&mut self, kind: &str, parts: Vec<Vec<u8>>) -> Vec<u8> {
        // A quoted-printable text cannot contain "=_", nor can base64.
        let boundary = format!("=_{:016x}{:016x}", self.random.next(), self.random.next());
        let mut all = format!("Content-Type: multipart/{kind}; boundary=\"{boundary}\"\r\n\r\n").into_bytes();
        for part in parts {
            all.extend(format!("--{boundary}\r\n").into_bytes());
            all.extend(part);
            all.extend(b"\r\n");
        }
        all.extend(format!("--{boundary}--\r\n").into_bytes());
        all
    }
}
