//! What an answer means for an event and for its endpoint, and when to come again. Pure: time and chance are arguments.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use wire::post::{Answered, PostError};

/// How often an event is tried that its endpoint refuses for itself.
pub const TRIES: i32 = 3;
/// An endpoint that took nothing for so long is disabled.
pub const PATIENCE: TimeDelta = TimeDelta::days(5);

/// The word of an endpoint that said that it is gone.
pub const GONE: &str = "gone";
/// The word of an endpoint that took nothing for five days.
pub const FAILING_TOO_LONG: &str = "failing-too-long";

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
/// Seconds after each failure of an endpoint in a row; the first try is made at once, the last one stays.
const PAUSES: [u64; 9] =
    [5, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR, 10 * HOUR, 14 * HOUR, 20 * HOUR, 24 * HOUR];
/// Seconds after each refusal of an event: three tries in ten minutes.
const EVENT_PAUSES: [u64; 2] = [MINUTE, 8 * MINUTE];
/// Longest pause that an endpoint may ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(24 * HOUR);

/// What an answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The event was taken.
    Taken,
    /// The endpoint refuses this event; others may pass.
    EventRefused,
    /// The endpoint takes nothing at present.
    Failed,
    /// It asks to come again after this time.
    Later(Duration),
    /// It is gone.
    Gone,
}

/// What the answer to an event means. A redirect is a failure: it could lead anywhere.
#[must_use]
pub fn judge(answer: &Result<Answered, PostError>, now: DateTime<Utc>) -> Verdict {
    let Ok(answer) = answer else { return Verdict::Failed };
    match answer.status {
        200..300 => Verdict::Taken,
        410 => Verdict::Gone,
        429 | 503 => {
            let asked = answer.retry_after.as_deref().and_then(|text| asked(text, now));
            asked.map_or(Verdict::Failed, Verdict::Later)
        }
        408 | 425 => Verdict::Failed,
        400..500 => Verdict::EventRefused,
        _ => Verdict::Failed,
    }
}

/// `Retry-After` in seconds or as a date (RFC 9110 §10.2.3), a second at least and a day at most.
fn asked(text: &str, now: DateTime<Utc>) -> Option<Duration> {
    let text = text.trim();
    let pause = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => (DateTime::parse_from_rfc2822(text).ok()?.to_utc() - now).to_std().unwrap_or_default(),
    };
    Some(pause.clamp(Duration::from_secs(1), LONGEST_ASKED))
}

/// The word for programs of an answer that was no success.
#[must_use]
pub fn word(answer: &Result<Answered, PostError>) -> String {
    match answer {
        Ok(answer) => format!("status-{}", answer.status),
        Err(PostError(trouble)) => trouble.code().to_owned(),
    }
}

/// The pause after so many failures of an endpoint in a row, up to a tenth longer.
#[must_use]
pub fn pause(failures: i32, unit: f64) -> Duration {
    spread(&PAUSES, failures, unit)
}

/// The pause after an event was refused so often; `None`: it is given up.
#[must_use]
pub fn event_pause(tries: i32, unit: f64) -> Option<Duration> {
    (tries < TRIES).then(|| spread(&EVENT_PAUSES, tries, unit))
}

fn spread(pauses: &[u64], nth: i32, unit: f64) -> Duration {
    let at = usize::try_from(nth - 1).unwrap_or(0).min(pauses.len() - 1);
    let seconds = pauses.get(at).copied().unwrap_or(24 * HOUR);
    Duration::from_secs(seconds).mul_f64(1.0 + 0.1 * unit.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use wire::trouble::Trouble;

    use super::*;

    fn status(status: u16, retry_after: Option<&str>) -> Verdict {
        let answered = Answered { status, retry_after: retry_after.map(str::to_owned) };
        judge(&Ok(answered), DateTime::from_timestamp(784_111_777, 0).unwrap())
    }

    #[test]
    fn each_answer_has_one_meaning() {
        for (code, verdict) in [
            (200, Verdict::Taken),
            (204, Verdict::Taken),
            (299, Verdict::Taken),
            (301, Verdict::Failed),
            (307, Verdict::Failed),
            (400, Verdict::EventRefused),
            (401, Verdict::EventRefused),
            (404, Verdict::EventRefused),
            (408, Verdict::Failed),
            (410, Verdict::Gone),
            (422, Verdict::EventRefused),
            (425, Verdict::Failed),
            (429, Verdict::Failed),
            (500, Verdict::Failed),
            (503, Verdict::Failed),
            (999, Verdict::Failed),
        ] {
            assert_eq!(status(code, None), verdict, "{code}");
        }
        assert_eq!(judge(&Err(PostError(Trouble::Timeout)), DateTime::UNIX_EPOCH), Verdict::Failed);
    }

    #[test]
    fn who_asks_for_patience_gets_as_much_as_a_day_and_no_less_than_a_second() {
        for (text, seconds) in [
            ("7", Some(7)),
            (" 120 ", Some(120)),
            ("0", Some(1)),
            ("99999999999", Some(86_400)),
            // Now is Sun, 06 Nov 1994 08:49:37 GMT.
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1993 08:50:37 GMT", None),
            ("Sat, 05 Nov 1994 08:50:37 GMT", Some(1)),
            ("soon", None),
            ("-5", None),
            ("1.5", None),
        ] {
            let wanted = seconds.map_or(Verdict::Failed, |s| Verdict::Later(Duration::from_secs(s)));
            assert_eq!((status(429, Some(text)), status(503, Some(text))), (wanted, wanted), "{text}");
        }
        assert_eq!(status(500, Some("7")), Verdict::Failed, "only those two ask for patience");
    }

    #[test]
    fn pauses_grow_to_a_day_and_stay() {
        let pauses: Vec<u64> = (1..12).map(|n| pause(n, 0.0).as_secs()).collect();
        let day = 24 * HOUR;
        let hours = [2, 5, 10, 14, 20].map(|h| h * HOUR);
        assert_eq!(pauses[..3], [5, 300, 1800]);
        assert_eq!(pauses[3..8], hours);
        assert_eq!(pauses[8..], [day; 3]);
        for n in 1..12 {
            assert!(pause(n, 1.0) > pause(n, 0.0) && pause(n, 9.0) <= pause(n, 0.0).mul_f64(1.11), "{n}");
        }
    }

    #[test]
    fn an_event_that_is_refused_has_three_tries_in_ten_minutes() {
        let all: Vec<Option<Duration>> = (1..5).map(|n| event_pause(n, 1.0)).collect();
        assert_eq!((all[2], all[3]), (None, None));
        let whole: Duration = all.into_iter().flatten().sum();
        assert!(whole <= Duration::from_secs(600) && whole > Duration::from_secs(300), "{whole:?}");
    }
}
