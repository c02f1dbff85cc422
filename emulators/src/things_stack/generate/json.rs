//! How The Things Stack writes JSON.

use chrono::{DateTime, SecondsFormat, Utc};

/// Nanoseconds, as Go's clock has them.
pub fn stamp(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Nanos, true)
}

/// Whether protobuf's JSON leaves a member out.
pub fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
