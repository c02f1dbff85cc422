//! The state of a site or device, as the page sorts and filters by it.

use serde::Serialize;

/// How a site or device is, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Its last poll, or the forwarding of its last uplink, failed; or the hub takes nothing.
    Failing,
    /// Messages wait for the hub.
    Waiting,
    /// No new value for a day.
    Silent,
    /// Nothing is known of it.
    Never,
    Ok,
}

impl State {
    pub const ALL: [Self; 5] = [Self::Failing, Self::Waiting, Self::Silent, Self::Never, Self::Ok];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Failing => "failing",
            Self::Waiting => "waiting",
            Self::Silent => "silent",
            Self::Never => "never",
            Self::Ok => "ok",
        }
    }
}
