//! Reads and writes the backend's time stamps: UTC as `YYYYMMDDhhmmssfff`, with trailing zeros removed.
//!
//! `2017-01-26T13:30:00.000Z` is `20170126133`. The reader pads with zeros on the right to 17 digits.

use std::io::Write;

use chrono::{DateTime, Datelike, NaiveDate, Timelike};

/// Digits of a full stamp.
const DIGITS: usize = 17;

/// A bound of a window, as the client wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Milliseconds since the Unix epoch, UTC.
    pub ms: i64,
    /// Whether `ms` is exactly the written time. `2017` pads to month 00, day 00, which lies before the first
    /// millisecond of the year; then `ms` holds that first millisecond.
    pub exact: bool,
}

/// Writes the stamp of `ms` (milliseconds since the Unix epoch).
pub fn write(ms: i64, out: &mut Vec<u8>) {
    let time = DateTime::from_timestamp_millis(ms).unwrap_or_default();
    let mut fields = i64::from(time.year());
    for field in [time.month(), time.day(), time.hour(), time.minute(), time.second()] {
        fields = fields * 100 + i64::from(field);
    }
    let mut digits = fields * 1000 + i64::from(time.timestamp_subsec_millis());
    while digits % 10 == 0 {
        digits /= 10;
    }
    // Writing to a `Vec` cannot fail.
    let _ = write!(out, "{digits}");
}

/// Reads a stamp of 4 to 17 digits. `None` if it is not a time.
pub fn parse(text: &str) -> Option<Bound> {
    if !(4..=DIGITS).contains(&text.len()) || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let padded = format!("{text:0<DIGITS$}");
    let field = |from: usize, to: usize| padded[from..to].parse::<u32>().ok();
    let (month, day) = (field(4, 6)?, field(6, 8)?);
    let date = NaiveDate::from_ymd_opt(padded[..4].parse().ok()?, month.max(1), day.max(1))?;
    let time = date.and_hms_milli_opt(field(8, 10)?, field(10, 12)?, field(12, 14)?, field(14, 17)?)?;
    Some(Bound { ms: time.and_utc().timestamp_millis(), exact: month > 0 && day > 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(rfc3339: &str) -> String {
        let mut out = Vec::new();
        write(DateTime::parse_from_rfc3339(rfc3339).unwrap().timestamp_millis(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_documented_stamps_are_written_and_read() {
        for (time, stamp) in [
            ("2019-09-09T05:59:06.035Z", "20190909055906035"),
            ("2017-01-26T13:30:00Z", "20170126133"),
            ("2017-01-20T00:00:00Z", "2017012"),
            ("2017-10-10T00:00:00Z", "2017101"),
        ] {
            assert_eq!(written(time), stamp);
            let ms = DateTime::parse_from_rfc3339(time).unwrap().timestamp_millis();
            assert_eq!(parse(stamp), Some(Bound { ms, exact: true }));
        }
    }

    #[test]
    fn a_year_alone_lies_before_its_first_day() {
        assert_eq!(parse("2017"), Some(Bound { exact: false, ..parse("20170101").unwrap() }));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in
            ["", "201", "20171301", "20170230", "2017010124", "201701011260", "2017-01-01", "123456789012345678"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
