//! Parses times on the command line.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use iothub_connector::support::clock::read_rfc3339;

/// Parses `20s`, `2m`, `1h` or `7d`. A number without a unit is in seconds.
///
/// # Errors
/// The message says what to write instead.
pub fn duration(text: &str) -> anyhow::Result<Duration> {
    const HELP: &str = "write a number with s, m, h or d, such as 20s";
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let seconds = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => bail!(HELP),
    };
    let number: u32 = digits.parse().context(HELP)?;
    ensure!(number > 0, "must be more than 0");
    Ok(Duration::from_secs(u64::from(number) * seconds))
}

/// A moment: a duration from now (or before now), or an RFC 3339 time.
#[derive(Clone, Copy, Debug)]
pub enum Moment {
    In(Duration),
    At(DateTime<Utc>),
}

impl Moment {
    /// `None` if the time is outside the calendar's range.
    pub fn after(self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match self {
            Self::In(duration) => now.checked_add_signed(chrono::TimeDelta::from_std(duration).ok()?),
            Self::At(at) => Some(at),
        }
    }

    /// Counts the duration back from `now`. `None` if the time is outside the calendar's range.
    pub fn before(self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match self {
            Self::In(duration) => now.checked_sub_signed(chrono::TimeDelta::from_std(duration).ok()?),
            Self::At(at) => Some(at),
        }
    }
}

/// Parses an RFC 3339 time, or a date, which means its start in UTC.
///
/// # Errors
/// The message says what to write instead.
pub fn time(text: &str) -> anyhow::Result<DateTime<Utc>> {
    let date = || NaiveDate::parse_from_str(text, "%Y-%m-%d").ok();
    let time = read_rfc3339(text).or_else(|| date().map(|date| date.and_time(NaiveTime::MIN).and_utc()));
    time.filter(|time| time.timestamp() > 0)
        .context("write a date such as 2026-01-31, or a time such as 2026-01-31T12:00:00Z")
}

/// Parses a time in the past: an age such as 2h, or a text as in [`time()`].
///
/// # Errors
/// The message says what to write instead.
pub fn past(text: &str) -> anyhow::Result<Moment> {
    if let Ok(duration) = duration(text) {
        return Ok(Moment::In(duration));
    }
    time(text)
        .map(Moment::At)
        .context("write how long ago, such as 2h or 7d; or a date or time such as 2026-01-31T12:00:00Z")
}

/// # Errors
/// The message says what to write instead.
pub fn moment(text: &str) -> anyhow::Result<Moment> {
    if let Ok(duration) = duration(text) {
        return Ok(Moment::In(duration));
    }
    let at = DateTime::parse_from_rfc3339(text)
        .ok()
        .filter(|at| at.timestamp() > 0)
        .context("write 1h, 7d or a time such as 2026-01-31T12:00:00Z")?;
    Ok(Moment::At(at.to_utc()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit_or_are_seconds() {
        for (text, seconds) in [("20s", 20), ("2m", 120), ("1h", 3600), ("7d", 604_800), ("7", 7)] {
            assert_eq!(duration(text).unwrap().as_secs(), seconds, "{text}");
        }
        for text in ["", "s", "0s", "1w", "2 m", "-1s", "1.5s", "99999999999s"] {
            assert!(duration(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn times_of_the_past_are_relative_dates_or_times() {
        let now = DateTime::from_timestamp(1_769_860_800, 0).unwrap();
        let before = |text| past(text).unwrap().before(now).unwrap().to_rfc3339();
        assert_eq!(before("2h"), "2026-01-31T10:00:00+00:00");
        assert_eq!(before("2026-01-30"), "2026-01-30T00:00:00+00:00");
        assert_eq!(before("2026-01-30T01:00:00.125+01:00"), "2026-01-30T00:00:00.125+00:00");
        for text in ["", "yesterday", "2026-02-30", "2026-1", "1960-01-01", "-2h"] {
            assert!(past(text).is_err() && time(text).is_err(), "{text:?}");
        }
        assert!(time("2h").is_err());
    }

    #[test]
    fn moments_are_relative_or_absolute() {
        let now = DateTime::from_timestamp(1_000, 0).unwrap();
        let seconds = |text| moment(text).unwrap().after(now).map(|at| at.timestamp());
        assert_eq!(seconds("1h"), Some(4600));
        assert_eq!(seconds("2026-01-01T01:00:00Z"), Some(1_767_229_200));
        assert_eq!(seconds("2026-01-01T02:00:00+01:00"), Some(1_767_229_200));
        assert_eq!(seconds("4294967295d"), None);
        for text in ["", "tomorrow", "0h", "2026-01-01", "1960-01-01T00:00:00Z"] {
            assert!(moment(text).is_err(), "{text:?}");
        }
    }
}
