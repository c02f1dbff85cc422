//! The types for the operator's choice: which sites and channels to poll, and from which time on.

use chrono::{DateTime, Utc};

/// Some by name, or all that the backend lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    All,
    Named(Vec<String>),
}

/// Where the first poll of a site begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartFrom {
    /// With the newest row that the backend has.
    Youngest,
    /// With the oldest row that the backend has.
    All,
    /// With the first row at or after this time.
    At(DateTime<Utc>),
}
