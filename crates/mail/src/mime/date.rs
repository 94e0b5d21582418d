//! Dates of header fields (RFC 5322 §3.3 and the forms of §4.3), also as broken software writes them.
//!
//! The borrowed parser gets zones from +1200 on wrong by half a day and gives up on a date without a zone, so
//! this one is ours.

mod zone;

use chrono::{DateTime, Days, NaiveDate, NaiveTime, Utc};

use self::zone::Zone;

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
/// Tokens looked at; a date has eight.
const MAX_TOKENS: usize = 20;

/// When a message says that it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Written {
    pub at: DateTime<Utc>,
    /// False where no zone was given, or none that anybody knows: then `at` is the clock's reading taken as UTC.
    pub zone_known: bool,
}

/// The instant, or `None` if the text holds no day, month, year and time.
pub(super) fn parse(text: &str) -> Option<Written> {
    let (text, remarks) = without_comments(text);
    let text = joined_clock(&text);
    let mut fields = Fields::default();
    let separator = |c: char| c.is_whitespace() || matches!(c, ',' | ';');
    for token in text.split(separator).filter(|t| !t.is_empty()).take(MAX_TOKENS) {
        fields.note(token);
    }
    let date = NaiveDate::from_ymd_opt(fields.year?, fields.month?, fields.day?)?;
    let clock = fields.clock?.meant(fields.afternoon)?;
    let date = if clock.next_day { date.checked_add_days(Days::new(1))? } else { date };
    let local = date.and_time(clock.time);
    // `12:00:00 (CET)`: the remark is all there is to go by.
    let zone = fields.zone.or_else(|| remarks.split_whitespace().find_map(zone::named));
    let known = zone.and_then(|z| z.utc(local));
    Some(Written { at: known.unwrap_or_else(|| local.and_utc()), zone_known: known.is_some() })
}

#[derive(Default)]
struct Fields {
    day: Option<u32>,
    month: Option<u32>,
    year: Option<i32>,
    clock: Option<Clock>,
    afternoon: Option<bool>,
    zone: Option<Zone>,
    /// The month stood before any day: `mar., 3 nov. 2026` is a Tuesday in November.
    maybe_weekday: bool,
    /// The zone is UTC by its name.
    universal: bool,
}

impl Fields {
    fn note(&mut self, token: &str) {
        // Behind the year or the clock no month comes to correct it.
        self.maybe_weekday &= self.year.is_none() && self.clock.is_none();
        if self.clock.is_none() && token.contains(':') {
            self.time(token);
        } else if token.bytes().all(|b| b.is_ascii_digit()) {
            self.number(token);
        } else if self.whole_date(token) {
            // Taken.
        } else if let (Some(month), true) = (month(token), self.month.is_none() || self.maybe_weekday) {
            self.month = Some(month);
            self.maybe_weekday = self.day.is_none();
        } else if let (Some(half), true, None) = (half_of_day(token), self.clock.is_some(), self.afternoon) {
            self.afternoon = Some(half);
        } else if self.clock.is_some()
            && (self.zone.is_none() || (self.universal && token.starts_with(['+', '-'])))
        {
            // `GMT +0100` means what it ends with.
            self.universal = zone::is_universal(token);
            self.zone = zone::read(token).or(self.zone);
        }
    }

    /// `10:11:12`, also with what was glued to it: a date before a `T`, a zone behind.
    fn time(&mut self, token: &str) {
        let token = match token.split_once(['T', 't']) {
            Some((date, time)) if date.len() >= 8 && self.whole_date(date) => time,
            _ => token,
        };
        let end = token.find(|c: char| !c.is_ascii_digit() && !matches!(c, ':' | '.')).unwrap_or(token.len());
        let (time, behind) = token.split_at_checked(end).unwrap_or((token, ""));
        self.clock = Clock::read(time);
        if self.clock.is_some() && !behind.is_empty() {
            self.note(behind);
        }
    }

    /// `31-Dec-2024`, `2024-12-31`, `2024/12/31`, `31.12.2024`.
    fn whole_date(&mut self, token: &str) -> bool {
        for sign in ['-', '/', '.'] {
            let parts: Vec<&str> = token.splitn(4, sign).collect();
            let [first, second, third] = parts.as_slice() else { continue };
            let number =
                |t: &str| t.bytes().all(|b| b.is_ascii_digit()).then(|| t.parse::<u32>().ok()).flatten();
            match (number(first), month(second), number(second), number(third)) {
                (Some(day), Some(month), _, Some(_)) if self.day.is_none() => {
                    (self.day, self.month) = (Some(day), Some(month));
                    self.number(third);
                }
                (Some(year), _, Some(month), Some(day)) if first.len() == 4 => {
                    self.year = i32::try_from(year).ok();
                    (self.month, self.day) = (Some(month), Some(day));
                }
                (Some(day), _, Some(month), Some(_)) if sign == '.' && third.len() == 4 => {
                    (self.day, self.month) = (Some(day), Some(month));
                    self.number(third);
                }
                _ => continue,
            }
            return true;
        }
        false
    }

    fn number(&mut self, token: &str) {
        let Ok(n) = token.parse::<u32>() else { return };
        if self.day.is_none() && token.len() <= 2 {
            self.day = Some(n);
        } else if self.year.is_none() && token.len() <= 4 {
            self.year = match token.len() {
                // RFC 5322 §4.3
                1 | 2 => i32::try_from(if n < 50 { n + 2000 } else { n + 1900 }).ok(),
                3 => i32::try_from(n + 1900).ok(),
                _ => i32::try_from(n).ok().filter(|y| *y > 0),
            };
        }
    }
}

/// A clock's reading as it is written.
#[derive(Clone, Copy)]
struct Clock {
    hour: u32,
    minute: u32,
    second: u32,
}

/// The same within its day.
struct Meant {
    time: NaiveTime,
    next_day: bool,
}

impl Clock {
    fn read(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let (hour, minute) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let second = parts.next().and_then(|s| s.split('.').next()).filter(|s| !s.is_empty());
        Some(Self { hour, minute, second: second.map_or(Ok(0), str::parse).ok()? })
    }

    fn meant(self, afternoon: Option<bool>) -> Option<Meant> {
        let hour = match afternoon {
            Some(afternoon) if (1..=12).contains(&self.hour) => {
                self.hour % 12 + if afternoon { 12 } else { 0 }
            }
            _ => self.hour,
        };
        // ISO 8601 lets a day end at 24:00.
        let next_day = hour == 24 && self.minute == 0 && self.second == 0;
        // A leap second counts as the second before it.
        let second = if self.second == 60 { 59 } else { self.second };
        NaiveTime::from_hms_opt(if next_day { 0 } else { hour }, self.minute, second)
            .map(|time| Meant { time, next_day })
    }
}

fn half_of_day(token: &str) -> Option<bool> {
    match token.to_ascii_lowercase().as_str() {
        "am" | "a.m." => Some(false),
        "pm" | "p.m." => Some(true),
        _ => None,
    }
}

/// English as RFC 5322 has it, and the abbreviations of other languages that programs put there.
fn month(token: &str) -> Option<u32> {
    let head: String = token.chars().take(3).collect::<String>().to_lowercase();
    let foreign = match head.as_str() {
        "mär" | "mrz" | "mrt" => 3,
        "avr" | "abr" => 4,
        "mai" | "mei" | "maj" => 5,
        "fév" | "fev" => 2,
        "aoû" | "ago" => 8,
        "okt" | "out" => 10,
        "dez" | "déc" | "dic" => 12,
        _ => 0,
    };
    if foreign > 0 {
        return Some(foreign);
    }
    MONTHS.iter().position(|m| *m == head).and_then(|i| u32::try_from(i + 1).ok())
}

/// RFC 5322 §3.2.2: a comment may stand between any two tokens, and hold others.
fn without_comments(text: &str) -> (String, String) {
    let mut depth = 0u32;
    let (mut out, mut remarks) = (String::with_capacity(text.len()), String::new());
    for c in text.chars() {
        match c {
            '(' => {
                depth += 1;
                remarks.push(' ');
            }
            ')' => depth = depth.saturating_sub(1),
            c if depth == 0 => out.push(c),
            c => remarks.push(c),
        }
    }
    (out, remarks)
}

/// `09 : 55 : 06` as one token (RFC 5322 A.6.3).
fn joined_clock(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c == ':' {
            out.truncate(out.trim_end().len());
            out.push(c);
        } else if !(c.is_whitespace() && out.ends_with(':')) {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests;
