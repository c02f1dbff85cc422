//! Reads the header `Retry-After`.

use std::time::Duration;

use chrono::{DateTime, Utc};

/// The wait that a `Retry-After` header requests, in seconds or as an HTTP date.
/// <https://www.rfc-editor.org/rfc/rfc9110#field.retry-after>
#[must_use]
pub fn parse(header: &str, now: DateTime<Utc>) -> Option<Duration> {
    let header = header.trim();
    if let Ok(seconds) = header.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = DateTime::parse_from_rfc2822(header).ok()?;
    Some((date.to_utc() - now).to_std().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = DateTime::parse_from_rfc3339("2026-01-31T12:00:00Z").unwrap().to_utc();
        assert_eq!(parse(" 120 ", now), Some(120 * SECOND));
        assert_eq!(parse("Sat, 31 Jan 2026 12:01:00 GMT", now), Some(60 * SECOND));
        assert_eq!(parse("Sat, 31 Jan 2026 11:00:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(parse("soon", now), None);
        assert_eq!(parse("-1", now), None);
    }

    proptest! {
        #[test]
        fn seconds_and_dates_are_what_they_say(seconds in 0_u32.., text: String) {
            let now = DateTime::from_timestamp(1_769_860_800, 0).unwrap();
            let wait = Duration::from_secs(seconds.into());
            prop_assert_eq!(parse(&seconds.to_string(), now), Some(wait));
            let date = (now + wait).format("%a, %d %b %Y %H:%M:%S GMT").to_string();
            prop_assert_eq!(parse(&date, now), Some(wait));
            let _ = parse(&text, now);
        }
    }
}
