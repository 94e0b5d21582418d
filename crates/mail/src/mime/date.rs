//! Dates of header fields (RFC 5322 §3.3 and the forms of §4.3), also as broken software writes them.
//!
//! The borrowed parser gets zones from +1200 on wrong by half a day and gives up on a date without a zone, so
//! this one is ours.

use chrono::{DateTime, FixedOffset, NaiveDate, NaiveTime, Utc};

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

/// The instant, or `None` if the text holds no day, month, year and time. Without a zone it is taken as UTC.
pub(super) fn parse(text: &str) -> Option<DateTime<Utc>> {
    let text = without_comments(text);
    if let Ok(date) = DateTime::parse_from_rfc3339(text.trim()) {
        return Some(date.with_timezone(&Utc));
    }
    let mut fields = Fields::default();
    for token in text.split(|c: char| c.is_whitespace() || c == ',').filter(|t| !t.is_empty()).take(20) {
        fields.note(token);
    }
    let date = NaiveDate::from_ymd_opt(fields.year?, fields.month?, fields.day?)?;
    let local = date.and_time(fields.time?);
    let offset = FixedOffset::east_opt(fields.zone.unwrap_or(0))?;
    local.and_local_timezone(offset).single().map(|d| d.with_timezone(&Utc))
}

#[derive(Default)]
struct Fields {
    day: Option<u32>,
    month: Option<u32>,
    year: Option<i32>,
    time: Option<NaiveTime>,
    zone: Option<i32>,
}

impl Fields {
    fn note(&mut self, token: &str) {
        if token.contains(':') {
            if self.time.is_none() {
                self.time = clock(token);
            }
        } else if token.starts_with(['+', '-']) {
            if self.time.is_some() && self.zone.is_none() {
                self.zone = numeric_zone(token);
            }
        } else if token.bytes().all(|b| b.is_ascii_digit()) {
            self.number(token);
        } else if let Some((day, rest)) = token.split_once('-') {
            // 31-Dec-2024, as old servers write it.
            if let Some((month, year)) = rest.split_once('-') {
                [day, month, year].into_iter().for_each(|t| self.note(t));
            }
        } else if self.month.is_none() && month(token).is_some() {
            self.month = month(token);
        } else if self.time.is_some() && self.zone.is_none() {
            self.zone = named_zone(token);
        }
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

fn clock(token: &str) -> Option<NaiveTime> {
    let mut parts = token.split(':');
    let (h, m) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let second = parts.next().and_then(|s| s.split('.').next()).map_or(Some(0), |s| s.parse::<u32>().ok())?;
    // A leap second counts as the second before it.
    NaiveTime::from_hms_opt(h, m, second.min(59))
}

fn month(token: &str) -> Option<u32> {
    let head = token.get(..3)?.to_ascii_lowercase();
    MONTHS.iter().position(|m| *m == head).and_then(|i| u32::try_from(i + 1).ok())
}

/// Seconds east. Zones reach from -12 to +14 hours; beyond a day it is nonsense and taken as unknown.
fn numeric_zone(token: &str) -> Option<i32> {
    let digits: String = token.chars().skip(1).take_while(char::is_ascii_digit).collect();
    let (h, m): (i32, i32) = match digits.len() {
        4 => (digits.get(..2)?.parse().ok()?, digits.get(2..)?.parse().ok()?),
        1 | 2 => (digits.parse().ok()?, 0),
        _ => return None,
    };
    let seconds = h * 3600 + m * 60;
    (h < 24 && m < 60).then_some(if token.starts_with('-') { -seconds } else { seconds })
}

fn named_zone(token: &str) -> Option<i32> {
    let hours = match token.to_ascii_uppercase().as_str() {
        "UT" | "UTC" | "GMT" | "Z" | "WET" => 0,
        "EDT" => -4,
        "EST" | "CDT" => -5,
        "CST" | "MDT" => -6,
        "MST" | "PDT" => -7,
        "PST" => -8,
        "CET" | "MET" | "BST" => 1,
        "CEST" | "MEST" | "EET" => 2,
        "EEST" | "MSK" => 3,
        "JST" | "KST" => 9,
        _ => return None,
    };
    Some(hours * 3600)
}

fn without_comments(text: &str) -> String {
    let mut depth = 0u32;
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            c if depth == 0 => out.push(c),
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::parse;

    fn utc(text: &str) -> Option<String> {
        parse(text).map(|d| d.to_rfc3339_opts(chrono::SecondsFormat::Secs, true))
    }

    #[test]
    fn dates_as_they_should_be() {
        assert_eq!(utc("Fri, 21 Nov 1997 09:55:06 -0600").as_deref(), Some("1997-11-21T15:55:06Z"));
        assert_eq!(utc("1 Jan 2024 00:30 +1345 (NZDT)").as_deref(), Some("2023-12-31T10:45:00Z"));
        assert_eq!(utc("Mon, 1 Jan 2024 12:00:60 +1400").as_deref(), Some("2023-12-31T22:00:59Z"));
    }

    #[test]
    fn dates_as_they_are() {
        for (text, wanted) in [
            ("Mon, 1 Jan 2024 12:00:00", "2024-01-01T12:00:00Z"),
            ("Mon, 01 January 2024 12:00:00 EST", "2024-01-01T17:00:00Z"),
            ("Mon Jan  1 12:00:00 2024", "2024-01-01T12:00:00Z"),
            ("Mon Jan  1 12:00:00 PST 2024", "2024-01-01T20:00:00Z"),
            ("1-Jan-2024 12:00:00 +0100", "2024-01-01T11:00:00Z"),
            ("01 Jan 99 12:00 GMT", "1999-01-01T12:00:00Z"),
            ("Mon,1 Jan 24 12:00:00 +0200", "2024-01-01T10:00:00Z"),
            ("2024-01-01T12:00:00+01:00", "2024-01-01T11:00:00Z"),
            ("Mon, 1 Jan 2024 12:00:00 +9999", "2024-01-01T12:00:00Z"),
        ] {
            assert_eq!(utc(text).as_deref(), Some(wanted), "{text}");
        }
    }

    #[test]
    fn nonsense_is_no_date() {
        for text in [
            "",
            "yesterday",
            "31 Feb 2024 12:00 +0000",
            "1 Jan 2024 25:00 +0000",
            "1 Jan 2024",
            "((((",
            "99999",
        ] {
            assert_eq!(utc(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_date_or_not(text in "[0-9A-Za-z:+, ()-]{0,60}") {
            let _ = parse(&text);
        }
    }
}
