//! The state of a site or device, as the page sorts and filters by it.

use serde::Serialize;

/// The state of a site or device, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The last poll failed, or the forwarding of the last uplink failed, or the hub accepts no messages.
    Failing,
    /// Messages for the hub are pending.
    Waiting,
    /// There was no new value for several of its usual intervals.
    Silent,
    /// There is no data about it.
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
