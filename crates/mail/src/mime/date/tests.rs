use proptest::prelude::*;

use super::parse;

fn utc(text: &str) -> Option<String> {
    parse(text).map(|d| d.at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true))
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
        ("Mon, 01 January 2024 12:00:00 EST", "2024-01-01T17:00:00Z"),
        ("Mon Jan  1 12:00:00 PST 2024", "2024-01-01T20:00:00Z"),
        ("1-Jan-2024 12:00:00 +0100", "2024-01-01T11:00:00Z"),
        ("01 Jan 99 12:00 GMT", "1999-01-01T12:00:00Z"),
        ("Mon,1 Jan 24 12:00:00 +0200", "2024-01-01T10:00:00Z"),
        ("2024-01-01T12:00:00+01:00", "2024-01-01T11:00:00Z"),
        ("2024-01-01T12:00:00.123Z", "2024-01-01T12:00:00Z"),
        ("Mon, 2 Nov 2026 10:11:12 +01:00", "2026-11-02T09:11:12Z"),
        ("Mon, 2 Nov 2026 10:11:12 GMT+0100", "2026-11-02T09:11:12Z"),
        ("Mon, 2 Nov 2026 10:11:12 GMT+01:00", "2026-11-02T09:11:12Z"),
        ("Mon, 2 Nov 2026 10:11:12 UTC+0100", "2026-11-02T09:11:12Z"),
        ("Mon, 2 Nov 2026 10:11:12 GMT +0100", "2026-11-02T09:11:12Z"),
        ("Mon, 2 Nov 2026 10:11:12 +1:00", "2026-11-02T09:11:12Z"),
        ("Mon, 2 Nov 2026 10:11:12 UTC-5", "2026-11-02T15:11:12Z"),
        ("Mon, 2 Nov 2026 10:11:12 -600", "2026-11-02T16:11:12Z"),
        ("Mon, 2 Nov 2026 10:11:12 +530", "2026-11-02T04:41:12Z"),
        ("Mon, 2 Nov 2026 10:11:12+0100", "2026-11-02T09:11:12Z"),
        ("Mon, 2 Nov 2026 10:11:12-06:00", "2026-11-02T16:11:12Z"),
        ("Mon, 2 Nov 2026 10:11:12Z", "2026-11-02T10:11:12Z"),
        ("2026-11-02 10:00:00 +0100", "2026-11-02T09:00:00Z"),
        ("2026/11/02 10:00:00 +0100", "2026-11-02T09:00:00Z"),
        ("02.11.2026 10:00:00 +0100", "2026-11-02T09:00:00Z"),
        ("Mon, 2 Nov 2026 24:00:00 +0000", "2026-11-03T00:00:00Z"),
        ("Thu, 31 Dec 2026 24:00 +0100", "2026-12-31T23:00:00Z"),
        ("Fri, 21 Nov 1997 09(comment):   55  :  06 -0600", "1997-11-21T15:55:06Z"),
        ("Fri, 21 (of (this)) Nov 1997 09:55(x):06 (y) -0600", "1997-11-21T15:55:06Z"),
        ("Mon, 2 Nov 2026 10:00:00 EST5EDT", "2026-11-02T15:00:00Z"),
        ("Thu, 2 Jul 2026 10:00:00 EST5EDT", "2026-07-02T14:00:00Z"),
        ("Mon, 2 Nov 2026 10:00:00 AEST", "2026-11-02T00:00:00Z"),
        ("Mon, 2 Nov 2026 10:00:00 MESZ", "2026-11-02T08:00:00Z"),
        ("Mon, 2 Nov 2026 10:00:00 Europe/Berlin", "2026-11-02T09:00:00Z"),
        ("Mon, 2 Nov 2026 10:00:00 \"GMT\"", "2026-11-02T10:00:00Z"),
        ("Mon, 2 Nov 2026 10:00:00 (CET)", "2026-11-02T09:00:00Z"),
        ("Mon, 2 Nov 2026 10:00:00 +0100 (W. Europe Standard Time)", "2026-11-02T09:00:00Z"),
        ("Mon, 2 Nov 2026 1:05:00 PM -0500", "2026-11-02T18:05:00Z"),
        ("Mon, 2 Nov 2026 12:05AM +0000", "2026-11-02T00:05:00Z"),
        ("Mo, 2 Okt 2026 10:00:00 +0200", "2026-10-02T08:00:00Z"),
        ("Mon, 2 Nov 2026 10:00:00 -0000", "2026-11-02T10:00:00Z"),
    ] {
        assert_eq!(utc(text).as_deref(), Some(wanted), "{text}");
        assert!(parse(text).unwrap().zone_known, "{text}");
    }
}

#[test]
fn a_zone_that_nobody_knows_is_told() {
    for (text, wanted) in [
        ("Mon, 1 Jan 2024 12:00:00", "2024-01-01T12:00:00Z"),
        ("Mon Jan  1 12:00:00 2024", "2024-01-01T12:00:00Z"),
        ("Mon, 1 Jan 2024 12:00:00 +9999", "2024-01-01T12:00:00Z"),
        ("Mon, 1 Jan 2024 12:00:00 +999999:00", "2024-01-01T12:00:00Z"),
        ("Mon, 1 Jan 2024 12:00:00 -2147483647:59", "2024-01-01T12:00:00Z"),
        ("Mon, 1 Jan 2024 12:00:00 XYZT", "2024-01-01T12:00:00Z"),
        ("Mon, 1 Jan 2024 12:00:00 A", "2024-01-01T12:00:00Z"),
        ("Mon, 1 Jan 2024 12:00:00 Nowhere/Land", "2024-01-01T12:00:00Z"),
        ("2024-01-01T12:00:00", "2024-01-01T12:00:00Z"),
    ] {
        assert_eq!(utc(text).as_deref(), Some(wanted), "{text}");
        assert!(!parse(text).unwrap().zone_known, "{text}");
    }
}

#[test]
fn nonsense_is_no_date() {
    for text in [
        "",
        "yesterday",
        "31 Feb 2024 12:00 +0000",
        "1 Jan 2024 25:00 +0000",
        "1 Jan 2024 24:01 +0000",
        "1 Jan 2024",
        "((((",
        "99999",
        "Mon, 99 Foo",
    ] {
        assert_eq!(utc(text), None, "{text}");
    }
}

proptest! {
    #[test]
    fn any_text_is_a_date_or_not(text in "[0-9A-Za-z:+, ()/.-]{0,60}|\\PC{0,40}") {
        let _ = parse(&text);
    }

    #[test]
    fn what_is_written_is_read(seconds in 0i64..4_000_000_000) {
        let at = chrono::DateTime::from_timestamp(seconds, 0).unwrap();
        let read = parse(&at.to_rfc2822()).unwrap();
        prop_assert_eq!((read.at, read.zone_known), (at, true));
    }
}

#[test]
fn a_weekday_that_looks_like_a_month_is_none() {
    for (text, month) in [
        ("mar., 3 nov. 2026 10:00:00 +0100", "2026-11-03"),
        ("mar 3 nov 2026 10:00:00 +0100", "2026-11-03"),
        ("Mar 3, 2026 10:00:00 +0100", "2026-03-03"),
        ("Tue Mar 3 10:00:00 2026", "2026-03-03"),
        ("mar. 10 mar. 2026 10:00:00 +0100", "2026-03-10"),
    ] {
        assert!(super::parse(text).unwrap().at.to_rfc3339().starts_with(month), "{text}");
    }
}
