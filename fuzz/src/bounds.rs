//! What several laws share.

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;

/// The longest text of an error that quotes what it is about, in bytes.
pub const LONGEST_ERROR: usize = 1500;

/// Whether it is one JSON text, however large its numbers and however deep it is nested.
pub fn is_json(text: &str) -> bool {
    serde_json::from_str::<&RawValue>(text).is_ok()
}

/// A moment that laws are checked at: 2026-01-31T12:00:00.125Z.
pub fn now() -> DateTime<Utc> {
    DateTime::from_timestamp_millis(1_769_860_800_125).expect("a time")
}

/// An error tells something, in one line that a log can take.
#[track_caller]
pub fn check_error(text: &str) {
    assert!(!text.trim().is_empty(), "an error that says nothing");
    assert!(text.len() <= LONGEST_ERROR, "an error of {} bytes: {text}", text.len());
}
