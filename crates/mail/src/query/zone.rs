//! Where days begin and end: an offset, or a place with its summer time.

use chrono::{
    DateTime, Duration, FixedOffset, LocalResult, NaiveDate, NaiveDateTime, NaiveTime, TimeZone, Utc,
};
use chrono_tz::{TZ_VARIANTS, Tz};

/// Furthest that any clock has stood from UTC (Manila until 1844: 15 h 56 min), and then the day Samoa left out.
const FURTHEST: Duration = Duration::hours(16);
const LEFT_OUT: Duration = Duration::hours(24);

/// A time zone: a fixed offset, or a name of the IANA database (the copy that was current when this was built).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zone {
    /// The same offset all year.
    Fixed(FixedOffset),
    /// A place, by its rules at each time.
    Place(Tz),
}

impl Zone {
    /// UTC.
    pub const UTC: Self = Self::Place(Tz::UTC);

    /// Reads `Z`, `UTC`, an offset (`+02:00`, `-0530`, `+02`) or an IANA name in any case (`Europe/Berlin`). A blank
    /// stands for the plus that an address line turns into one. `None`: it is none of these.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.eq_ignore_ascii_case("z") {
            return Some(Self::UTC);
        }
        if text.starts_with(['+', ' ', '-']) {
            return offset(text).map(Self::Fixed);
        }
        let name = text.replace(' ', "+");
        TZ_VARIANTS.iter().find(|zone| zone.name().eq_ignore_ascii_case(&name)).copied().map(Self::Place)
    }

    /// The first instant of `day`, in unix seconds. Where the clocks skip midnight the day begins with the skip, where
    /// they pass it twice with the first time; a day that a place left out begins with the next one.
    pub(super) fn start_of_day(self, day: NaiveDate) -> Option<i64> {
        let midnight = day.and_time(NaiveTime::MIN);
        match self {
            Self::Fixed(offset) => first(&offset, midnight),
            Self::Place(place) => first(&place, midnight),
        }
    }
}

impl From<FixedOffset> for Zone {
    fn from(offset: FixedOffset) -> Self {
        Self::Fixed(offset)
    }
}

fn first<Z: TimeZone>(zone: &Z, midnight: NaiveDateTime) -> Option<i64> {
    match zone.from_local_datetime(&midnight) {
        LocalResult::Single(start) | LocalResult::Ambiguous(start, _) => Some(start.timestamp()),
        LocalResult::None => after_the_skip(zone, midnight),
    }
}

/// The instant at which the clocks went from before `midnight` to after it, found by halving.
fn after_the_skip<Z: TimeZone>(zone: &Z, midnight: NaiveDateTime) -> Option<i64> {
    let from = midnight.and_utc();
    let mut before = from.checked_sub_signed(FURTHEST)?.timestamp();
    let mut after = from.checked_add_signed(FURTHEST + LEFT_OUT)?.timestamp();
    while after - before > 1 {
        let middle = before + (after - before) / 2;
        let local = DateTime::<Utc>::from_timestamp(middle, 0)?.with_timezone(zone).naive_local();
        if local < midnight {
            before = middle;
        } else {
            after = middle;
        }
    }
    Some(after)
}

fn offset(text: &str) -> Option<FixedOffset> {
    let (sign, rest) = match (text.strip_prefix(['+', ' ']), text.strip_prefix('-')) {
        (Some(rest), _) => (1, rest),
        (_, Some(rest)) => (-1, rest),
        _ => return None,
    };
    let digits: String = rest.chars().filter(|c| *c != ':').collect();
    let shaped =
        matches!(rest.len(), 2 | 4) && !rest.contains(':') || rest.len() == 5 && rest.find(':') == Some(2);
    if !shaped || !matches!(digits.len(), 2 | 4) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: i32 = format!("{digits:0<4}").parse().ok()?;
    let (hours, minutes) = (number / 100, number % 100);
    // Kiribati's Line Islands stand at +14:00, and no place further.
    (hours <= 14 && minutes < 60).then(|| FixedOffset::east_opt(sign * (hours * 3600 + minutes * 60)))?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(zone: &str, day: &str) -> String {
        let zone = Zone::parse(zone).unwrap_or_else(|| panic!("{zone} is no zone"));
        let seconds = zone.start_of_day(day.parse().unwrap()).unwrap();
        DateTime::<Utc>::from_timestamp(seconds, 0).unwrap().format("%FT%TZ").to_string()
    }

    #[test]
    fn offsets_are_read_in_their_usual_spellings() {
        for (text, seconds) in [("+02:00", 7200), (" 0200", 7200), ("+02", 7200), ("-05:30", -19_800)] {
            assert_eq!(Zone::parse(text), Some(FixedOffset::east_opt(seconds).unwrap().into()), "{text}");
        }
        for bad in
            ["", "2", "+2", "+25:00", "+02:60", "+020", "+0:200", "+é2", "Mars/Olympus", "Europe/", "Z "]
        {
            assert_eq!(Zone::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn names_are_read_in_any_case() {
        assert_eq!(Zone::parse("europe/berlin"), Some(Zone::Place(Tz::Europe__Berlin)));
        assert_eq!((Zone::parse("z"), Zone::parse("utc")), (Some(Zone::UTC), Some(Zone::UTC)));
        // As an address line turns `Etc/GMT+5` into.
        assert_eq!(Zone::parse("Etc/GMT 5"), Some(Zone::Place(Tz::Etc__GMTPlus5)));
    }

    #[test]
    fn days_begin_by_the_clocks_of_the_place() {
        for (zone, day, begin) in [
            // The days on which the clocks change still begin by the time before.
            ("Europe/Berlin", "2026-03-29", "2026-03-28T23:00:00Z"),
            ("Europe/Berlin", "2026-03-30", "2026-03-29T22:00:00Z"),
            ("Europe/Berlin", "2026-10-25", "2026-10-24T22:00:00Z"),
            ("Europe/Berlin", "2026-10-26", "2026-10-25T23:00:00Z"),
            // 00:00 became 01:00.
            ("America/Sao_Paulo", "2018-11-04", "2018-11-04T03:00:00Z"),
            // 23:30 became 00:30: the day begins in the middle of the skip.
            ("America/Toronto", "1919-03-31", "1919-03-31T04:30:00Z"),
            // 01:00 became 00:00: midnight came twice, and the first time counts.
            ("America/Havana", "2026-11-01", "2026-11-01T04:00:00Z"),
            // 00:00 became 23:00 of the day before: the day begins an hour later.
            ("America/Sao_Paulo", "2018-02-18", "2018-02-18T03:00:00Z"),
            // Samoa went from the 29th to the 31st.
            ("Pacific/Apia", "2011-12-30", "2011-12-30T10:00:00Z"),
            ("Pacific/Apia", "2011-12-31", "2011-12-30T10:00:00Z"),
            ("Asia/Kathmandu", "2026-01-01", "2025-12-31T18:15:00Z"),
            ("-05:00", "2026-01-01", "2026-01-01T05:00:00Z"),
        ] {
            assert_eq!(start(zone, day), begin, "{zone} {day}");
        }
    }

    #[test]
    fn every_zone_knows_where_days_begin() {
        for zone in TZ_VARIANTS {
            for day in ["1000-01-01", "1844-12-31", "1919-03-31", "2011-12-30", "2026-11-21", "9999-12-31"] {
                assert!(Zone::Place(zone).start_of_day(day.parse().unwrap()).is_some(), "{zone} {day}");
            }
        }
    }
}
