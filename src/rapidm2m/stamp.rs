//! Reads and writes time stamps as the backend does: UTC digits `YYYYMMDDhhmmssfff` without trailing zeros.
//!
//! Zeros are dropped in any field: `20170126133` is 2017-01-26T13:30:00.000Z and `2017012` is
//! 2017-01-20T00:00:00.000Z. So the only way to read a stamp is to fill it up with zeros to 17 digits.

use std::fmt;

use chrono::{DateTime, Datelike as _, NaiveDate, Timelike as _, Utc};

/// Digits of a full stamp.
const DIGITS: usize = 17;

/// A point in time with millisecond resolution: milliseconds since 1970-01-01T00:00:00Z, within the years 1 to 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp(i64);

impl Stamp {
    /// Where a search for the oldest row begins: earlier than any measurement of a rapidM2M device. (A clock that was reset
    /// starts on 1999-12-31.)
    pub const BEGINNING: Self = Self(915_148_800_000); // 1999-01-01T00:00:00Z

    /// Reads the backend's digits. `None` if they are not a valid time.
    #[must_use]
    pub fn parse(digits: &str) -> Option<Self> {
        if digits.is_empty() || digits.len() > DIGITS || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let mut full = [b'0'; DIGITS];
        full[..digits.len()].copy_from_slice(digits.as_bytes());
        let number =
            |from: usize, to: usize| full[from..to].iter().fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'));
        let year = i32::try_from(number(0, 4)).ok().filter(|year| *year > 0)?;
        let time = NaiveDate::from_ymd_opt(year, number(4, 6), number(6, 8))?.and_hms_milli_opt(
            number(8, 10),
            number(10, 12),
            number(12, 14),
            number(14, 17),
        )?;
        Some(Self(time.and_utc().timestamp_millis()))
    }

    /// The time, truncated to whole milliseconds.
    #[must_use]
    pub fn from_time(time: DateTime<Utc>) -> Self {
        Self(time.timestamp_millis())
    }

    #[must_use]
    pub fn time(self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(self.0).unwrap_or_default()
    }

    #[must_use]
    pub fn millis(self) -> i64 {
        self.0
    }

    /// The stamp `millis` later (earlier if negative), limited to the years that can be written.
    #[must_use]
    pub fn shifted(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis).clamp(EARLIEST, LATEST))
    }

    /// The time from `earlier` to this stamp, in milliseconds.
    #[must_use]
    pub fn since(self, earlier: Self) -> i64 {
        self.0 - earlier.0
    }

    /// Appends `2017-01-26T13:30:00Z`, with three digits of milliseconds if they are not zero.
    pub fn write_rfc3339(self, out: &mut String) {
        let time = self.time().naive_utc();
        push_digits(u32::try_from(time.year()).unwrap_or_default(), 4, out);
        for (separator, number) in
            [('-', time.month()), ('-', time.day()), ('T', time.hour()), (':', time.minute()), (':', time.second())]
        {
            out.push(separator);
            push_digits(number, 2, out);
        }
        let millis = time.and_utc().timestamp_subsec_millis();
        if millis != 0 {
            out.push('.');
            push_digits(millis, 3, out);
        }
        out.push('Z');
    }

    /// Like [`write_rfc3339`](Self::write_rfc3339), as a new string.
    #[must_use]
    pub fn rfc3339(self) -> String {
        let mut text = String::with_capacity(24);
        self.write_rfc3339(&mut text);
        text
    }
}

/// Written by hand because every row needs it: this takes a tenth of a formatter's time.
fn push_digits(number: u32, digits: u32, out: &mut String) {
    for place in (0..digits).rev() {
        out.push(char::from_digit(number / 10_u32.pow(place) % 10, 10).unwrap_or('0'));
    }
}

impl fmt::Display for Stamp {
    /// The backend's digits, without trailing zeros.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let full = self.time().format("%Y%m%d%H%M%S%3f").to_string();
        out.write_str(full.trim_end_matches('0'))
    }
}

/// 0001-01-01T00:00:00.000Z and 9999-12-31T23:59:59.999Z.
const EARLIEST: i64 = -62_135_596_800_000;
const LATEST: i64 = 253_402_300_799_999;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn time(text: &str) -> DateTime<Utc> {
        DateTime::parse_from_rfc3339(text).unwrap().to_utc()
    }

    /// From the vendor's samples.
    #[test]
    fn known_stamps_read_and_write() {
        for (digits, text) in [
            ("20190909055906035", "2019-09-09T05:59:06.035Z"),
            ("20170126133", "2017-01-26T13:30:00Z"),
            ("2017012", "2017-01-20T00:00:00Z"),
            ("2017101", "2017-10-10T00:00:00Z"),
        ] {
            let stamp = Stamp::parse(digits).unwrap();
            assert_eq!(stamp.time(), time(text), "{digits}");
            assert_eq!(stamp.rfc3339(), text);
            assert_eq!(stamp.to_string(), digits);
        }
        assert_eq!(Stamp::parse("20150101").unwrap().time(), time("2015-01-01T00:00:00Z"));
        assert_eq!(Stamp::parse("202401010000").unwrap().time(), time("2024-01-01T00:00:00Z"));
        assert_eq!(Stamp::BEGINNING.rfc3339(), "1999-01-01T00:00:00Z");
    }

    #[test]
    fn what_is_no_time_is_none() {
        for digits in [
            "",
            "2017",
            "20171301",
            "20170230",
            "2017012625",
            "201701260000601",
            "0000010101",
            "1e5",
            "-2017012",
            "201701261330000000",
        ] {
            assert_eq!(Stamp::parse(digits), None, "{digits:?}");
        }
    }

    proptest! {
        #[test]
        fn writing_and_reading_is_the_identity(millis in EARLIEST..=LATEST) {
            let stamp = Stamp(millis);
            let digits = stamp.to_string();
            prop_assert_eq!(Stamp::parse(&digits), Some(stamp));
            prop_assert!(digits.len() >= 17 - 10, "at most ten zeros are left out of {}", digits);
            prop_assert_eq!(DateTime::parse_from_rfc3339(&stamp.rfc3339()).unwrap().to_utc(), stamp.time());
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,20}") {
            let _ = Stamp::parse(&text);
        }

        #[test]
        fn later_times_are_later_stamps(a in EARLIEST..=LATEST, b in EARLIEST..=LATEST) {
            prop_assert_eq!(Stamp(a) < Stamp(b), Stamp(a).time() < Stamp(b).time());
        }
    }
}
