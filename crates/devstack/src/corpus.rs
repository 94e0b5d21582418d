//! Mail to fill mailboxes with: seeded, so the same arguments give the same bytes on every machine.
//!
//! The distributions imitate mail people get: sizes are log-normal (median about 8 KB, one in twenty over 90 KB,
//! attachments up to 2 MB), nearly half are replies with References and a quote, most have an HTML twin, an eighth is
//! written in an old charset. Bytes are RFC 5322 with CRLF. What lives here is one message as a whole; `random` draws,
//! `text` has words, `encode` has RFC 2045 and 2047, `body` has MIME structure. A new kind of message is a branch in
//! `body`; every branch must draw from the generator alone, never from a clock.

mod body;
mod encode;
mod random;
mod text;

use chrono::{DateTime, FixedOffset};

use encode::{Charset, header_text};
use random::Random;
use text::{Script, Words};

/// A message and what a server would say about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generated {
    /// System flags and keywords, as IMAP writes them.
    pub flags: Vec<String>,
    /// INTERNALDATE, in unix seconds; grows from message to message.
    pub internal_date: i64,
    /// The whole message with CRLF line ends.
    pub bytes: Vec<u8>,
    /// The Message-ID header without its angle brackets.
    pub message_id: String,
    /// A word of its text that no other message has.
    pub token: String,
}

/// Makes messages one after the other; a later one may answer an earlier one.
pub struct Generator {
    random: Random,
    words: Words,
    tag: String,
    recipient: String,
    size: Option<usize>,
    /// Bytes by which all messages of a given size together are too short, or too long.
    owed: isize,
    people: Vec<Person>,
    threads: Vec<Past>,
    clock: i64,
    count: u64,
}

struct Person {
    name: String,
    address: String,
}

/// What a reply needs to know of the message it answers.
struct Past {
    id: String,
    references: Vec<String>,
    subject: String,
    opening: String,
}

/// 2019-01-01, so that a few thousand messages end in the past.
const FIRST_SECOND: i64 = 1_546_300_800;
const MEAN_GAP_SECONDS: f64 = 7_000.0;
const PEOPLE: usize = 400;
/// Threads older than this many messages are not answered any more.
const REMEMBERED: usize = 500;
const SMALLEST_BYTES: f64 = 1_800.0;
/// With its attachment in base64 the largest message stays under 3 MB.
const LARGEST_BYTES: f64 = 2_750_000.0;

impl Generator {
    /// `tag` goes into every Message-ID and the first line of every text, so that two corpora never share a message.
    pub fn new(seed: u64, tag: &str) -> Self {
        let words = Words::new(&mut Random::new(seed, "words"));
        let mut random = Random::new(seed, "people");
        let people = (0..PEOPLE).map(|n| Person::invent(n, &words, &mut random)).collect();
        Self {
            random: Random::new(seed, tag),
            words,
            tag: tag.to_owned(),
            recipient: "me@lab.test".to_owned(),
            size: None,
            owed: 0,
            people,
            threads: Vec::new(),
            clock: FIRST_SECOND,
            count: 0,
        }
    }

    /// Whom the mail is to; `me@lab.test` unless told.
    #[must_use]
    pub fn to(mut self, address: &str) -> Self {
        self.recipient = address.to_owned();
        self
    }

    /// All messages of about this many bytes, and of exactly as many in the mean; large ones are files for the most part.
    #[must_use]
    pub fn sized(mut self, bytes: usize) -> Self {
        self.size = Some(bytes);
        self
    }

    /// The next `n` messages. A corpus of 100 is the beginning of a corpus of 200.
    pub fn messages(mut self, n: usize) -> impl Iterator<Item = Generated> {
        (0..n).map(move |_| self.message())
    }

    fn message(&mut self) -> Generated {
        self.clock += self.random.exponential(MEAN_GAP_SECONDS) as i64 + 1;
        self.count += 1;
        let size = match self.size {
            Some(mean) => mean.saturating_add_signed(self.owed),
            None => self.random.log_normal(8_000.0, 1.52).clamp(SMALLEST_BYTES, LARGEST_BYTES) as usize,
        };
        let (charset, script) = self.random_charset();
        let Draft { mut head, past } = self.head(charset, script);
        let quote = match past.references.is_empty() {
            true => String::new(),
            false => past.opening.lines().fold(String::new(), |all, line| all + "> " + line + "\r\n"),
        };
        let token = format!("token{:010x}", self.random.below(1 << 40));
        let opening = format!("Ref {}-{:06} {token}.\r\n\r\n", self.tag, self.count);
        let filled = self.size.is_some();
        let mut writer =
            body::Writer { random: &mut self.random, words: &self.words, charset, script, filled };
        let (body, text) = writer.write(size.saturating_sub(head.len()), &opening, &quote);
        head.extend(body);
        if let Some(mean) = self.size {
            // Line ends, tags and quotes come on top of what is asked for; the next one makes up for it.
            let half = mean.cast_signed() / 2;
            self.owed = (self.owed + mean.cast_signed() - head.len().cast_signed()).clamp(-half, half);
        }
        let message_id = past.id.clone();
        self.threads.push(Past { opening: text.chars().take(400).collect(), ..past });
        if self.threads.len() > REMEMBERED {
            self.threads.remove(0);
        }
        Generated { flags: self.flags(), internal_date: self.clock + 10, bytes: head, message_id, token }
    }

    fn random_charset(&mut self) -> (Charset, Option<Script>) {
        if self.random.chance(0.12) {
            let (charset, script) = self.random.pick(&Charset::OLD);
            (charset, Some(script))
        } else if self.random.chance(0.15) {
            (Charset::UTF_8, Some(self.random.pick(&Script::ALL)))
        } else if self.random.chance(0.2) {
            (Charset::ASCII, None)
        } else {
            (self.random.pick(&[Charset::UTF_8, Charset::UTF_8_BASE64, Charset::UTF_8_RAW]), None)
        }
    }

    fn flags(&mut self) -> Vec<String> {
        let odds = [
            ("\\Seen", 0.75),
            ("\\Answered", 0.15),
            ("\\Flagged", 0.04),
            ("$Forwarded", 0.03),
            ("work", 0.02),
        ];
        odds.iter()
            .filter(|(_, odds)| self.random.chance(*odds))
            .map(|(flag, _)| (*flag).to_owned())
            .collect()
    }

    /// The header of a new message or a reply. The `Past` returned is that of this message; for a reply its
    /// `opening` is still the parent's, for the quote.
    fn head(&mut self, charset: Charset, script: Option<Script>) -> Draft {
        let random = &mut self.random;
        let sender = random.pick_early(&self.people);
        let domain = sender.address.split('@').nth(1).unwrap_or("lab.test");
        let id = format!("{:016x}.{}.{}@{domain}", random.next(), self.count, self.tag);
        let back = random.exponential(60.0) as usize;
        let parent = match random.chance(0.45) {
            true => self.threads.iter().rev().nth(back.min(self.threads.len().saturating_sub(1))),
            false => None,
        };
        let past = match parent {
            Some(parent) => reply(parent, id),
            None => {
                let subject = self.words.subject(random, script);
                Past { id, references: Vec::new(), subject, opening: String::new() }
            }
        };
        let mut head = format!("Return-Path: <{}>\r\nDelivered-To: {}\r\n", sender.address, self.recipient);
        head += &trace(random, domain, &self.recipient, self.clock);
        head += &format!("From: {}\r\n", sender.mailbox());
        let others: Vec<String> = match random.below(7) {
            count @ 3..=5 => (3..count + 1).map(|_| random.pick_early(&self.people).mailbox()).collect(),
            6 => (0..8).map(|_| random.pick_early(&self.people).mailbox()).collect(),
            _ => Vec::new(),
        };
        let (to, cc) = others.split_at(others.len().min(3));
        let to: Vec<&str> =
            std::iter::once(self.recipient.as_str()).chain(to.iter().map(String::as_str)).collect();
        head += &format!("To: {}\r\n", to.join(",\r\n "));
        if !cc.is_empty() {
            head += &format!("Cc: {}\r\n", cc.join(",\r\n "));
        }
        head += &format!("Subject: {}\r\n", header_text(&past.subject, charset));
        head += &format!("Date: {}\r\nMessage-ID: <{}>\r\n", date(random, self.clock), past.id);
        if let Some(last) = past.references.last() {
            let references: Vec<String> = past.references.iter().map(|r| format!("<{r}>")).collect();
            head += &format!("In-Reply-To: <{last}>\r\nReferences: {}\r\n", references.join("\r\n "));
        }
        if random.chance(0.35) {
            let list = self.words.common(random);
            head += &format!("List-Id: <{list}.lists.test>\r\nPrecedence: bulk\r\n");
            head += &format!("List-Unsubscribe: <https://lists.test/u/{:x}>\r\n", random.next());
        }
        head += "MIME-Version: 1.0\r\n";
        Draft { head: head.into_bytes(), past }
    }
}

struct Draft {
    head: Vec<u8>,
    past: Past,
}

impl Person {
    fn invent(n: usize, words: &Words, random: &mut Random) -> Self {
        let first = text::capital(words.rare(random));
        // Every ninth has a name that does not fit into ASCII.
        let last = match n % 9 {
            0 => text::capital(random.pick(&text::LATIN)),
            _ => text::capital(words.rare(random)),
        };
        let address = format!("{}.{n}@{}.test", words.rare(random), words.rare(random));
        Self { name: format!("{first} {last}"), address }
    }

    fn mailbox(&self) -> String {
        format!("{} <{}>", header_text(&self.name, Charset::UTF_8), self.address)
    }
}

fn reply(parent: &Past, id: String) -> Past {
    let subject = match parent.subject.starts_with("Re: ") {
        true => parent.subject.clone(),
        false => format!("Re: {}", parent.subject),
    };
    let mut references = parent.references.clone();
    references.push(parent.id.clone());
    // As real clients do: the oldest go first once the header gets long.
    let references = references.split_off(references.len().saturating_sub(20));
    Past { id, references, subject, opening: parent.opening.clone() }
}

/// Received and DKIM-Signature: no one reads them, and they are a good part of every real header.
fn trace(random: &mut Random, domain: &str, recipient: &str, clock: i64) -> String {
    let mut lines = String::new();
    for hop in 0..2 + random.below(3) {
        let when = date_at(clock + 9 - hop as i64, 0);
        let (host, queue) = (random.below(254) + 1, random.below(1 << 44));
        lines += &format!(
            "Received: from mx{hop}.{domain} (mx{hop}.{domain} [192.0.2.{host}])\r\n\tby relay{hop}.lab.test "
        );
        lines += &format!("(Postfix) with ESMTPS id {queue:011X}\r\n\tfor <{recipient}>; {when}\r\n");
    }
    if random.chance(0.8) {
        lines += &format!("DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d={domain}; s=s1;\r\n");
        lines += &format!("\th=from:to:subject:date:message-id; bh={};\r\n\tb=", encode::noise(random, 32));
        let signature: Vec<String> = (0..5).map(|_| encode::noise(random, 48)).collect();
        lines += &format!("{}\r\n", signature.join("\r\n\t "));
    }
    lines
}

fn date(random: &mut Random, clock: i64) -> String {
    date_at(clock, random.pick(&[0, 0, 3_600, 7_200, 32_400, -18_000, -28_800, 19_800]))
}

fn date_at(clock: i64, offset_seconds: i32) -> String {
    let zone = FixedOffset::east_opt(offset_seconds);
    let utc = DateTime::from_timestamp(clock, 0).unwrap_or_default();
    zone.map_or_else(|| utc.to_rfc2822(), |zone| utc.with_timezone(&zone).to_rfc2822())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{Generated, Generator};

    fn corpus(n: usize) -> Vec<Generated> {
        Generator::new(1, "unit").messages(n).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes_and_another_tag_none_of_them() {
        assert_eq!(corpus(60), corpus(60));
        assert_eq!(corpus(60)[..30], corpus(30));
        let other: HashSet<Vec<u8>> = Generator::new(1, "other").messages(60).map(|m| m.bytes).collect();
        assert!(corpus(60).iter().all(|m| !other.contains(&m.bytes)));
    }

    #[test]
    fn sizes_are_those_of_real_mail() {
        let mut sizes: Vec<usize> = corpus(1500).iter().map(|m| m.bytes.len()).collect();
        sizes.sort_unstable();
        let (median, p95, max) = (sizes[750], sizes[1425], sizes[1499]);
        assert!((5_000..13_000).contains(&median), "median {median}");
        assert!((50_000..150_000).contains(&p95), "p95 {p95}");
        assert!((300_000..3_500_000).contains(&max), "max {max}");
    }

    #[test]
    fn messages_of_one_size_have_it_and_none_is_like_another() {
        for size in [4_096, 62_000] {
            let all: Vec<Generated> = Generator::new(2, "sized").sized(size).messages(300).collect();
            let mean = all.iter().map(|m| m.bytes.len()).sum::<usize>() / all.len();
            assert!((size * 49 / 50..size * 51 / 50).contains(&mean), "{mean} instead of {size}");
            let unlike: HashSet<&[u8]> = all.iter().map(|m| m.bytes.as_slice()).collect();
            let tokens: HashSet<&str> = all.iter().map(|m| m.token.as_str()).collect();
            assert_eq!((unlike.len(), tokens.len()), (300, 300));
        }
    }

    #[test]
    fn every_line_ends_in_crlf_and_none_is_too_long() {
        for message in corpus(300) {
            for line in message.bytes.split_inclusive(|b| *b == b'\n') {
                assert!(line.ends_with(b"\r\n"), "{}", message.message_id);
                assert!(line.len() <= 1000, "{} bytes in {}", line.len(), message.message_id);
            }
        }
    }

    #[test]
    fn ids_are_unique_replies_point_at_earlier_messages_and_dates_grow() {
        let corpus = corpus(400);
        let mut seen = HashSet::new();
        let mut replies = 0;
        for message in &corpus {
            let text = String::from_utf8_lossy(&message.bytes);
            if let Some(parent) = text.lines().find_map(|l| l.strip_prefix("In-Reply-To: <")) {
                assert!(seen.contains(parent.trim_end_matches('>')), "{parent}");
                replies += 1;
            }
            assert!(text.contains(&format!("\r\nMessage-ID: <{}>\r\n", message.message_id)));
            assert!(seen.insert(message.message_id.clone()));
        }
        assert!((120..250).contains(&replies), "{replies} replies");
        assert!(corpus.windows(2).all(|w| w[0].internal_date < w[1].internal_date));
    }

    #[test]
    fn charsets_attachments_and_html_all_occur() {
        let all: Vec<u8> = corpus(400).into_iter().flat_map(|m| m.bytes).collect();
        let all = String::from_utf8_lossy(&all);
        for part in [
            "charset=koi8-r",
            "charset=iso-2022-jp",
            "charset=gb2312",
            "charset=euc-kr",
            "charset=windows-1251",
            "charset=us-ascii",
            "quoted-printable",
            "multipart/alternative",
            "multipart/mixed",
            "multipart/related",
            "filename*=utf-8''",
            "filename=\"=?utf-8?",
            "=?koi8-r?",
            "application/pdf",
            "text/calendar",
            "message/rfc822",
        ] {
            assert!(all.contains(part), "{part}");
        }
    }
}
