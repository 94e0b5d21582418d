//! What stands behind an operator: words, mailboxes, dates, ages and sizes. To add an operator: a line in
//! [`OPERATORS`] and an arm in [`term`].

use chrono::{DateTime, Days, Months, NaiveDate, TimeDelta, Utc};

use unicode_normalization::char::is_combining_mark;

use super::{Field, Place, Status, Term, Words, Zone};
use crate::mailbox::Role;
use crate::search_index::{pictures, spelled_out, tokens};

/// What relative values refer to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context {
    pub(super) now: DateTime<Utc>,
    pub(super) tz: Zone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Field(Field),
    In,
    Is,
    Has,
    After,
    Before,
    OlderThan,
    NewerThan,
    Larger,
    Smaller,
    MessageId,
    Thread,
    Account,
}

const OPERATORS: [(&str, Operator); 19] = [
    ("from", Operator::Field(Field::From)),
    ("to", Operator::Field(Field::To)),
    ("cc", Operator::Field(Field::Cc)),
    ("bcc", Operator::Field(Field::Bcc)),
    ("subject", Operator::Field(Field::Subject)),
    ("list", Operator::Field(Field::List)),
    ("filename", Operator::Field(Field::Filename)),
    ("in", Operator::In),
    ("is", Operator::Is),
    ("has", Operator::Has),
    ("after", Operator::After),
    ("before", Operator::Before),
    ("older_than", Operator::OlderThan),
    ("newer_than", Operator::NewerThan),
    ("larger", Operator::Larger),
    ("smaller", Operator::Smaller),
    ("rfc822msgid", Operator::MessageId),
    ("thread", Operator::Thread),
    ("account", Operator::Account),
];

impl Operator {
    pub(super) fn named(name: &str) -> Option<Self> {
        OPERATORS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, operator)| *operator)
    }

    pub(super) fn name(self) -> &'static str {
        OPERATORS.iter().find(|(_, operator)| *operator == self).map_or("", |(name, _)| name)
    }
}

/// The words of a text, `None` when it has none. A star at the end of an unquoted one makes it a prefix.
///
/// Pictures count where there is nothing else: beside words they are decoration, which few people repeat.
pub(super) fn words(text: &str, quoted: bool) -> Option<Words> {
    let words = tokens(text);
    if words.is_empty() {
        let pictures = pictures(text);
        return (!pictures.is_empty()).then_some(Words {
            words: pictures,
            prefix: false,
            spelled: Vec::new(),
        });
    }
    let prefix = !quoted
        && text.strip_suffix('*').is_some_and(|stem| {
            stem.chars().next_back().is_some_and(|c| c.is_alphanumeric() || is_combining_mark(c))
        });
    // As many words as there are, for an umlaut parts none.
    let spelled = spelled_out(text).map(|other| tokens(&other)).filter(|other| other.len() == words.len());
    Some(Words { words, prefix, spelled: spelled.unwrap_or_default() })
}

/// The condition that `operator` makes of `text`, or a sentence on why it makes none.
pub(super) fn term(operator: Operator, text: &str, quoted: bool, context: Context) -> Result<Term, String> {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Err(format!("“{}:” needs a value", operator.name()));
    }
    match operator {
        Operator::Field(field) => words(text, quoted)
            .map(|words| Term::Field(field, words))
            .ok_or_else(|| format!("“{trimmed}” has no word to search for")),
        Operator::In => Ok(Term::In(place(trimmed))),
        Operator::Is => status(trimmed).map(Term::Is),
        Operator::Has => match trimmed.to_ascii_lowercase().as_str() {
            "attachment" | "attachments" => Ok(Term::HasAttachment),
            _ => Err("“has:” takes attachment".to_owned()),
        },
        Operator::After => instant(trimmed, context.tz).map(Term::After),
        Operator::Before => instant(trimmed, context.tz).map(Term::Before),
        Operator::OlderThan => age(trimmed, context.now).map(Term::Before),
        Operator::NewerThan => age(trimmed, context.now).map(Term::After),
        Operator::Larger => bytes(trimmed).map(Term::Larger),
        Operator::Smaller => bytes(trimmed).map(Term::Smaller),
        Operator::MessageId => match trimmed.trim_start_matches('<').trim_end_matches('>').trim() {
            "" => Err("“rfc822msgid:” needs a value".to_owned()),
            id => Ok(Term::MessageId(id.to_owned())),
        },
        Operator::Thread => thread(trimmed).map(Term::Thread),
        Operator::Account => Ok(Term::Account(trimmed.to_owned())),
    }
}

fn place(text: &str) -> Place {
    if text.eq_ignore_ascii_case("anywhere") {
        return Place::Anywhere;
    }
    let role = Role::parse(text).or(text.eq_ignore_ascii_case("spam").then_some(Role::Junk));
    role.map_or_else(|| Place::Mailbox(text.to_owned()), Place::Role)
}

fn status(text: &str) -> Result<Status, String> {
    Ok(match text.to_ascii_lowercase().as_str() {
        "unread" => Status::Unread,
        "read" => Status::Read,
        "starred" => Status::Starred,
        "answered" => Status::Answered,
        "draft" => Status::Draft,
        _ => return Err("“is:” takes unread, read, starred, answered or draft".to_owned()),
    })
}

fn thread(text: &str) -> Result<String, String> {
    let hyphens = [8, 13, 18, 23];
    let shaped = text.len() == 36
        && text
            .bytes()
            .enumerate()
            .all(|(at, b)| if hyphens.contains(&at) { b == b'-' } else { b.is_ascii_hexdigit() });
    if shaped {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("“thread:” takes the id of a thread".to_owned())
    }
}

/// The first second of year 1 and of year 10,000: what both `PostgreSQL` and RFC 3339 can write.
const SECONDS: std::ops::Range<i64> = -62_135_596_800..253_402_300_800;

/// The first instant in `tz` of a day (`2024-01-31`, `2024/1/31`), a month (`2024-01`) or a year (`2024`), or unix
/// seconds. Four digits are a year: as seconds they would be an hour of 1970.
fn instant(text: &str, tz: Zone) -> Result<DateTime<Utc>, String> {
    let wrong = || format!("“{text}” is neither a date like 2024-01-31 nor unix seconds");
    let seconds = match (day(text), text.parse::<i64>()) {
        (Some(day), _) => tz.start_of_day(day).ok_or_else(wrong)?,
        (None, Ok(seconds)) if !text.starts_with('+') && text.len() != 4 => seconds,
        _ => return Err(wrong()),
    };
    if !SECONDS.contains(&seconds) {
        return Err(wrong());
    }
    DateTime::from_timestamp(seconds, 0).ok_or_else(wrong)
}

fn day(text: &str) -> Option<NaiveDate> {
    let separator = if text.contains('/') { '/' } else { '-' };
    let mut parts = text.split(separator).map(|part| {
        let digits = (1..=4).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| part.parse::<u32>().ok()).flatten()
    });
    let year = parts.next()??;
    let mut part = || parts.next().map_or(Some(1), |given| given);
    let (month, day) = (part()?, part()?);
    let date = NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, month, day)?;
    // Two digits of a year would be the first century, which nobody means.
    (parts.next().is_none() && year >= 1000).then_some(date)
}

/// `now` less an age such as `2d`, `3m`, `1y` (days, months, years; also `h` and `w`), in whole seconds.
fn age(text: &str, now: DateTime<Utc>) -> Result<DateTime<Utc>, String> {
    let wrong = || format!("“{text}” is not an age like 2d, 3m or 1y");
    let unit = text.chars().next_back().ok_or_else(wrong)?.to_ascii_lowercase();
    let digits: String = text.chars().take(text.chars().count() - 1).collect();
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let count: u32 = digits.parse().map_err(|_| wrong())?;
    let then = match unit {
        'h' => now.checked_sub_signed(TimeDelta::hours(i64::from(count))),
        'd' => now.checked_sub_days(Days::new(u64::from(count))),
        'w' => now.checked_sub_days(Days::new(u64::from(count) * 7)),
        'm' => now.checked_sub_months(Months::new(count)),
        'y' => count.checked_mul(12).and_then(|months| now.checked_sub_months(Months::new(months))),
        _ => return Err(wrong()),
    };
    let seconds = then.map(|then| then.timestamp()).filter(|seconds| SECONDS.contains(seconds));
    seconds.and_then(|seconds| DateTime::from_timestamp(seconds, 0)).ok_or_else(wrong)
}

/// A size: digits and an optional `K`, `M` or `G` (1024 each), which may have a `B` behind it.
fn bytes(text: &str) -> Result<i64, String> {
    let wrong = || format!("“{text}” is not a size like 500K or 10M");
    let upper = text.to_ascii_uppercase();
    let number = upper.strip_suffix('B').unwrap_or(&upper);
    let (digits, unit) = match number.chars().next_back() {
        Some('K') => (number.strip_suffix('K'), 1_i64 << 10),
        Some('M') => (number.strip_suffix('M'), 1 << 20),
        Some('G') => (number.strip_suffix('G'), 1 << 30),
        _ => (Some(number), 1),
    };
    let digits =
        digits.filter(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit())).ok_or_else(wrong)?;
    digits.parse::<i64>().ok().and_then(|count| count.checked_mul(unit)).ok_or_else(wrong)
}
