//! .NET's `TimeSpan` text: `hh:mm:ss`, `d.hh:mm:ss`, and the trap that `24:00:00` is 24 days.

use std::time::Duration;

/// Reads a time span of at least a second. `None` when it is none.
pub fn parse(text: &str) -> Option<Duration> {
    let number = |text: &str, below: u64| text.parse().ok().filter(|number| (0..below).contains(number));
    let (days, clock) = match text.split_once('.') {
        Some((days, clock)) if days.contains(':') => (None, [days, ".", clock].concat()),
        Some((days, clock)) => (Some(number(days, 10_000_000)?), clock.to_owned()),
        None => (None, text.to_owned()),
    };
    let [first, second, third] = clock.split(':').collect::<Vec<_>>().try_into().ok()?;
    let (days, hours, minutes, seconds) = match number(first, 24) {
        Some(hours) => (days.unwrap_or(0), hours, number(second, 60)?, number(third, 60)?),
        // .NET takes a first part that is no hour for days.
        None if days.is_none() => (number(first, 10_000_000)?, number(second, 24)?, number(third, 60)?, 0),
        None => return None,
    };
    let total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds;
    (total > 0).then(|| Duration::from_secs(total))
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
}
