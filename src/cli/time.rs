//! Parses times on the command line.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use chrono::{DateTime, NaiveDate, NaiveTime, SecondsFormat, Utc};
use iothub_connector::support::clock::read_rfc3339;

use super::exit::Usage;

/// Parses `20s`, `2m`, `1h` or `7d`.
///
/// # Errors
/// The message says what to write instead.
pub fn duration(text: &str) -> anyhow::Result<Duration> {
    const HELP: &str = "write a number with s, m, h or d, such as 20s";
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let seconds = match &text[digits.len()..] {
        "s" => 1,
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
fn time(text: &str) -> anyhow::Result<DateTime<Utc>> {
    let date = || NaiveDate::parse_from_str(text, "%Y-%m-%d").ok();
    let time = read_rfc3339(text).or_else(|| date().map(|date| date.and_time(NaiveTime::MIN).and_utc()));
    time.filter(|time| time.timestamp() > 0)
        .context("write a date such as 2026-01-31, or a time such as 2026-01-31T12:00:00Z")
}

/// Parses a moment. All options that take one accept the same: a duration from now (or before now), a date or a time.
///
/// # Errors
/// The message says what to write instead.
pub fn moment(text: &str) -> anyhow::Result<Moment> {
    if let Ok(duration) = duration(text) {
        return Ok(Moment::In(duration));
    }
    time(text)
        .map(Moment::At)
        .context("write a duration such as 2h or 7d, a date such as 2026-01-31, or a time such as 2026-01-31T12:00:00Z")
}

/// Start and end, as far as they are given.
pub type Range = (Option<DateTime<Utc>>, Option<DateTime<Utc>>);

/// The times of two options that name a range in the past, each with its option.
///
/// # Errors
/// A time is outside the calendar's range, or the range is empty.
pub fn range(
    (since_option, since): (&str, Option<Moment>),
    (until_option, until): (&str, Option<Moment>),
    now: DateTime<Utc>,
) -> Result<Range, Usage> {
    let time = |option: &str, moment: Option<Moment>| {
        let time = moment.map(|moment| moment.before(now).ok_or_else(|| Usage(format!("{option} is too long ago"))));
        time.transpose()
    };
    let (since, until) = (time(since_option, since)?, time(until_option, until)?);
    match (since, until) {
        (Some(since), Some(until)) if until <= since => {
            let (since, until) = (stamp(since), stamp(until));
            Err(Usage(format!("{until_option} {until} must be later than {since_option} {since}")))
        }
        range => Ok(range),
    }
}

pub fn stamp(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        for (text, seconds) in [("20s", 20), ("2m", 120), ("1h", 3600), ("7d", 604_800)] {
            assert_eq!(duration(text).unwrap().as_secs(), seconds, "{text}");
        }
        for text in ["", "7", "s", "0s", "1w", "2 m", "-1s", "1.5s", "99999999999s"] {
            assert!(duration(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn moments_are_durations_dates_or_times() {
        let now = DateTime::from_timestamp(1_769_860_800, 0).unwrap();
        let before = |text| stamp(moment(text).unwrap().before(now).unwrap());
        assert_eq!(before("2h"), "2026-01-31T10:00:00Z");
        assert_eq!(before("2026-01-30"), "2026-01-30T00:00:00Z");
        assert_eq!(before("2026-01-30T01:00:00.125+01:00"), "2026-01-30T00:00:00.125Z");
        let after = |text| moment(text).unwrap().after(now).map(stamp);
        assert_eq!(after("1h").as_deref(), Some("2026-01-31T13:00:00Z"));
        assert_eq!(after("2026-02-01").as_deref(), Some("2026-02-01T00:00:00Z"));
        assert_eq!(after("4294967295d"), None);
        for text in ["", "7", "0h", "yesterday", "2026-02-30", "2026-1", "1960-01-01", "1960-01-01T00:00:00Z", "-2h"] {
            assert!(moment(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_range_has_a_start_before_its_end() {
        let now = DateTime::from_timestamp(1_769_860_800, 0).unwrap();
        let read = |since: &str, until: &str| {
            let moment = |text: &str| (!text.is_empty()).then(|| moment(text).unwrap());
            range(("--from", moment(since)), ("--until", moment(until)), now)
        };
        assert!(read("2h", "1h").is_ok() && read("", "2h").is_ok() && read("2h", "").is_ok());
        assert_eq!(
            read("1h", "2026-01-31").unwrap_err().to_string(),
            "--until 2026-01-31T00:00:00Z must be later than --from 2026-01-31T11:00:00Z"
        );
        assert!(read("2h", "2h").is_err());
        assert_eq!(read("4294967295d", "").unwrap_err().to_string(), "--from is too long ago");
    }
}
