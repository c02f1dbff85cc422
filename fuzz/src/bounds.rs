//! Checks that several laws share.

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;

/// The longest error text that quotes its input, in bytes.
pub const LONGEST_ERROR: usize = 1500;

/// Whether the text is one JSON value. Large numbers and deep nesting are allowed.
pub fn is_json(text: &str) -> bool {
    serde_json::from_str::<&RawValue>(text).is_ok()
}

/// The current time for all laws: 2026-01-31T12:00:00.125Z.
pub fn now() -> DateTime<Utc> {
    DateTime::from_timestamp_millis(1_769_860_800_125).expect("a time")
}

/// An error has a text, in one line that fits a log.
#[track_caller]
pub fn check_error(text: &str) {
    assert!(!text.trim().is_empty(), "an error that says nothing");
    assert!(text.len() <= LONGEST_ERROR, "an error of {} bytes: {text}", text.len());
}
