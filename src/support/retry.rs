//! Computes how long to wait before a retry. No I/O; only the jitter is random.

use std::time::Duration;

use chrono::{DateTime, Utc};

/// Full jitter: a random wait from 0 to `first × 2^(attempt − 1)`, at most `cap`. `attempt` counts from 1.
#[must_use]
pub fn full_jitter(attempt: u32, first: Duration, cap: Duration) -> Duration {
    exponential(attempt, first, cap).mul_f64(fastrand::f64())
}

/// `first × 2^(attempt − 1)`, at most `cap`. `attempt` counts from 1.
#[must_use]
pub fn exponential(attempt: u32, first: Duration, cap: Duration) -> Duration {
    let factor = 2_u32.saturating_pow(attempt.saturating_sub(1));
    first.saturating_mul(factor).min(cap)
}

/// The wait that a `Retry-After` header requests, in seconds or as an HTTP date.
/// <https://www.rfc-editor.org/rfc/rfc9110#field.retry-after>
#[must_use]
pub fn retry_after(header: &str, now: DateTime<Utc>) -> Option<Duration> {
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
    fn waits_double_up_to_the_cap() {
        let waits: Vec<_> = (0..6).map(|attempt| exponential(attempt, SECOND, 10 * SECOND).as_secs()).collect();
        assert_eq!(waits, [1, 1, 2, 4, 8, 10]);
        assert_eq!(exponential(u32::MAX, SECOND, 10 * SECOND), 10 * SECOND);
        assert!((0..100).all(|_| full_jitter(3, SECOND, 10 * SECOND) <= 4 * SECOND));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = DateTime::parse_from_rfc3339("2026-01-31T12:00:00Z").unwrap().to_utc();
        assert_eq!(retry_after(" 120 ", now), Some(120 * SECOND));
        assert_eq!(retry_after("Sat, 31 Jan 2026 12:01:00 GMT", now), Some(60 * SECOND));
        assert_eq!(retry_after("Sat, 31 Jan 2026 11:00:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(retry_after("soon", now), None);
        assert_eq!(retry_after("-1", now), None);
    }

    proptest! {
        #[test]
        fn seconds_and_dates_are_what_they_say(seconds in 0_u32.., text: String) {
            let now = DateTime::from_timestamp(1_769_860_800, 0).unwrap();
            let wait = Duration::from_secs(seconds.into());
            prop_assert_eq!(retry_after(&seconds.to_string(), now), Some(wait));
            let date = (now + wait).format("%a, %d %b %Y %H:%M:%S GMT").to_string();
            prop_assert_eq!(retry_after(&date, now), Some(wait));
            let _ = retry_after(&text, now);
        }
    }
}
