//! The clock for times in data. Delays and deadlines use tokio's clock instead.

use chrono::{DateTime, Datelike as _, DurationRound as _, SecondsFormat, TimeDelta, Utc};

/// Reads an RFC 3339 time from another system. `None` also for years before 1 and after 9999, because not every reader
/// could read such a time if it were written again. A leap second becomes the end of the second before it.
#[must_use]
pub fn read_rfc3339(text: &str) -> Option<DateTime<Utc>> {
    let time = DateTime::parse_from_rfc3339(text).ok()?.to_utc();
    let time = DateTime::from_timestamp(time.timestamp(), time.timestamp_subsec_nanos().min(999_999_999))?;
    (1..=9999).contains(&time.year()).then_some(time)
}

/// An RFC 3339 time with as many digits as it has.
#[must_use]
pub fn rfc3339(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// A clock in whole milliseconds, the precision of the ledger and the backend.
#[derive(Clone, Copy, Debug)]
pub struct Clock(fn() -> DateTime<Utc>);

impl Clock {
    #[must_use]
    pub fn system() -> Self {
        Self(Utc::now)
    }

    /// A clock for tests.
    #[cfg(test)]
    pub(crate) fn of(now: fn() -> DateTime<Utc>) -> Self {
        Self(now)
    }

    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        let now = (self.0)();
        now.duration_trunc(TimeDelta::milliseconds(1)).unwrap_or(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_is_read_can_be_written_for_everybody() {
        let read = |text| read_rfc3339(text).map(|time| time.to_rfc3339_opts(SecondsFormat::AutoSi, true));
        for (text, expected) in [
            ("2026-01-31T12:00:00.125+01:00", Some("2026-01-31T11:00:00.125Z")),
            ("2016-12-31T23:59:60.5Z", Some("2016-12-31T23:59:59.999999999Z")),
            ("0001-01-01T00:00:00Z", Some("0001-01-01T00:00:00Z")),
            ("0000-01-01T00:00:00+23:59", None),
            ("9999-12-31T23:59:59-01:00", None),
            ("+262142-12-31T23:59:59Z", None),
            ("yesterday", None),
        ] {
            assert_eq!(read(text).as_deref(), expected, "{text}");
        }
    }
}
