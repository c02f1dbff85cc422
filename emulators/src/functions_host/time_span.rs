//! Reads .NET's `TimeSpan` text: `hh:mm:ss` or `d.hh:mm:ss`. Beware: `24:00:00` is 24 days.

use std::time::Duration;

/// Reads a time span of whole seconds, at least one second. `None` if the text is none.
pub fn parse(text: &str) -> Option<Duration> {
    parse_any(text).filter(|span| !span.is_zero() && span.subsec_nanos() == 0)
}

/// Reads a time span down to 100 ns, or zero. `None` if the text is none.
pub fn parse_any(text: &str) -> Option<Duration> {
    let number = |text: &str, below: u64| text.parse().ok().filter(|number| (0..below).contains(number));
    // A dot ends the days if a colon comes later; otherwise it begins a fraction.
    let (text, ticks) = match text.rsplit_once('.') {
        Some((whole, fraction)) if !fraction.contains(':') => {
            let has_digits = (1..=7).contains(&fraction.len()) && fraction.bytes().all(|byte| byte.is_ascii_digit());
            (whole, has_digits.then(|| format!("{fraction:0<7}").parse().ok())??)
        }
        _ => (text, 0u32),
    };
    let (days, clock) = match text.split_once('.') {
        Some((days, clock)) => (Some(number(days, 10_000_000)?), clock),
        None => (None, text),
    };
    let [first, second, third] = clock.split(':').collect::<Vec<_>>().try_into().ok()?;
    let (days, hours, minutes, seconds) = match number(first, 24) {
        Some(hours) => (days.unwrap_or(0), hours, number(second, 60)?, number(third, 60)?),
        // .NET reads a first part that is not an hour as days.
        None if days.is_none() => (number(first, 10_000_000)?, number(second, 24)?, number(third, 60)?, 0),
        None => return None,
    };
    Some(Duration::new(((days * 24 + hours) * 60 + minutes) * 60 + seconds, ticks * 100))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_dotnet_reads_them() {
        for (text, seconds) in
            [("00:05:00", 300), ("23:59:59", 86_399), ("1.00:00:30", 86_430), ("24:00:00", 24 * 86_400), ("0:0:1", 1)]
        {
            assert_eq!(parse(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        for text in
            ["", "5", "00:05", "00:60:00", "00:00:00", "-00:05:00", "00:00:60", "1.24:00:00", "a:b:c", "00:00:01.5"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }
    #[test]
    fn fractions_and_zero_are_read_where_they_are_wanted() {
        for (text, expected) in [
            ("00:00:00", Duration::ZERO),
            ("00:00:00.25", Duration::from_millis(250)),
            ("1.00:00:01.0000001", Duration::new(86_401, 100)),
            ("00:05:00", Duration::from_secs(300)),
        ] {
            assert_eq!(parse_any(text), Some(expected), "{text}");
        }
        for text in ["00:00:00.", "00:00:00.12345678", "00:00:00.+1", "1.5", "-00:00:01", "60", "00:00:01.5.5"] {
            assert_eq!(parse_any(text), None, "{text}");
        }
    }
}
