//! Reads the times of The Things Stack.

use chrono::{DateTime, Datelike as _, Utc};

use crate::support::clock;

/// `None` if the text is not a time, or in the year 1: that is how The Things Stack writes a time that was never set.
#[must_use]
pub fn read(text: &str) -> Option<DateTime<Utc>> {
    clock::read_rfc3339(text).filter(|time| time.year() > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_was_never_set_is_none() {
        assert!(read("2026-03-02T10:15:30.125Z").is_some());
        for text in ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00.5+01:00", "yesterday", ""] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
