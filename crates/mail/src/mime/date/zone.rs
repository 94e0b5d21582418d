//! Zones of dates: offsets in all their spellings, abbreviations, names of the tz database.

use chrono::{DateTime, FixedOffset, NaiveDateTime, TimeZone as _, Utc};

/// A zone by which a clock's reading is an instant.
#[derive(Clone, Copy, Debug)]
pub(super) enum Zone {
    /// Seconds east.
    Offset(i32),
    Place(chrono_tz::Tz),
}

impl Zone {
    /// The instant of a local time; the first of the two where clocks were put back.
    pub fn utc(self, local: NaiveDateTime) -> Option<DateTime<Utc>> {
        match self {
            Self::Offset(seconds) => {
                let offset = FixedOffset::east_opt(seconds)?;
                offset.from_local_datetime(&local).single().map(|d| d.with_timezone(&Utc))
            }
            Self::Place(tz) => tz.from_local_datetime(&local).earliest().map(|d| d.with_timezone(&Utc)),
        }
    }
}

/// `+0100`, `+01:00`, `-600`, `+1`, `GMT+0100`, `UTC+1`, `CET`, `EST5EDT`, `Europe/Berlin`. `None`: nobody knows.
pub(super) fn read(token: &str) -> Option<Zone> {
    let upper = token.to_ascii_uppercase();
    for prefix in ["GMT", "UTC", "UT", "Z"] {
        if let Some(rest) = upper.strip_prefix(prefix).filter(|r| r.starts_with(['+', '-'])) {
            return numeric(rest);
        }
    }
    if token.starts_with(['+', '-']) { numeric(token) } else { named(token) }
}

/// Whether a token is a name of UTC.
pub(super) fn is_universal(token: &str) -> bool {
    ["GMT", "UTC", "UT"].iter().any(|name| token.eq_ignore_ascii_case(name))
}

/// Zones reach from -12 to +14 hours; from a day on it is nonsense.
fn numeric(token: &str) -> Option<Zone> {
    let negative = token.starts_with('-');
    let rest = token.get(1..)?;
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != ':').unwrap_or(rest.len());
    let (hours, minutes) = match rest.get(..end)?.split_once(':') {
        Some((h, m)) => (h.to_owned(), m.get(..2)?.to_owned()),
        None => {
            let digits = rest.get(..end)?;
            match digits.len() {
                1 | 2 => (digits.to_owned(), "0".to_owned()),
                // `-600` is six hours, `+01000` a slip of the pen.
                3 => (digits.get(..1)?.to_owned(), digits.get(1..)?.to_owned()),
                4 | 6 => (digits.get(..2)?.to_owned(), digits.get(2..4)?.to_owned()),
                _ => return None,
            }
        }
    };
    let (h, m): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
    (h < 24 && m < 60).then(|| {
        let seconds = h * 3600 + m * 60;
        Zone::Offset(if negative { -seconds } else { seconds })
    })
}

/// RFC 5322 §4.3 has ten names, people's programs have these. Military letters but `Z` say nothing (the same section).
pub(super) fn named(token: &str) -> Option<Zone> {
    let name = token.trim_matches(['"', '\'', '[', ']', '.']).to_ascii_uppercase();
    let minutes = match name.as_str() {
        "UT" | "UTC" | "GMT" | "Z" | "WET" | "AZOST" => 0,
        "WEST" | "BST" | "CET" | "MET" | "MEZ" | "WAT" | "IST-IE" => 60,
        "CEST" | "MEST" | "MESZ" | "EET" | "OEZ" | "SAST" | "CAT" | "IST-IL" => 120,
        "EEST" | "IDT" | "MSK" | "EAT" | "TRT" | "AST-SA" => 180,
        "IRST" => 210,
        "MSD" | "GST" | "SAMT" | "AZT" | "AMT-AM" => 240,
        "AFT" => 270,
        "PKT" | "UZT" | "YEKT" | "TMT" => 300,
        "IST" => 330,
        "NPT" => 345,
        "BDT" | "OMST" | "BTT" => 360,
        "MMT" => 390,
        "ICT" | "WIB" | "KRAT" | "NOVT" => 420,
        "HKT" | "SGT" | "AWST" | "PHT" | "MYT" | "WITA" | "IRKT" | "CST-CN" => 480,
        "JST" | "KST" | "WIT" | "YAKT" => 540,
        "ACST" => 570,
        "AEST" | "CHST" | "VLAT" | "PGT" => 600,
        "ACDT" => 630,
        "AEDT" | "MAGT" | "SBT" => 660,
        "NZST" | "FJT" | "PETT" => 720,
        "NZDT" | "TOT" => 780,
        "CVT" | "EGT" => -60,
        "BRST" | "FNT" | "UYST" => -120,
        "NDT" => -150,
        "ADT" | "BRT" | "ART" | "CLST" | "UYT" | "GFT" | "WGT" => -180,
        "NST" => -210,
        "AST" | "EDT" | "CLT" | "VET" | "BOT" | "AMT" | "PYT" => -240,
        "EST" | "CDT" | "COT" | "PET" | "ECT" => -300,
        "CST" | "MDT" => -360,
        "MST" | "PDT" => -420,
        "PST" | "AKDT" => -480,
        "AKST" | "HDT" => -540,
        "HST" | "HAST" => -600,
        "SST" => -660,
        _ => return place(&name, token),
    };
    Some(Zone::Offset(minutes * 60))
}

/// A name of the tz database, `EST5EDT` among them.
fn place(name: &str, token: &str) -> Option<Zone> {
    let is_place = name.contains('/') || name.bytes().any(|b| b.is_ascii_digit());
    if !is_place || name.len() > 40 {
        return None;
    }
    name.parse().or_else(|_| token.parse()).ok().map(Zone::Place)
}
