//! Why a device may not come in.

use std::fmt;

/// Why a device may not come in. The texts are for the log: over MQTT the device hears only return code 5.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// The token is missing, wrong, expired or for somebody else.
    Unauthorized(String),
    /// There is no such device.
    UnknownDevice(String),
    /// The device is disabled; its token is good.
    Disabled(String),
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unauthorized(reason) | Self::UnknownDevice(reason) | Self::Disabled(reason) => f.write_str(reason),
        }
    }
}
