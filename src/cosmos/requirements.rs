//! Keeps the app out of containers in which it would lose documents. The `check` command and the first use apply the
//! same rules.

use std::fmt;

use azure_data_cosmos::models::{ContainerProperties, TimeToLive};

/// What the app requires of a container.
#[derive(Clone, Copy, Debug)]
pub struct Requirements {
    pub partition_key: &'static [&'static str],
    /// What the app would lose if documents expired by default.
    pub expiry_means: &'static str,
    pub expiry_remedy: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    pub reason: String,
    pub remedy: &'static str,
}

impl fmt::Display for Unfit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}; {}", self.reason, self.remedy)
    }
}

/// When documents expire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ttl {
    Off,
    /// Only documents with a `ttl` of their own expire (-1).
    NoDefault,
    /// After this many seconds, unless the document has its own `ttl`.
    Default(u32),
}

impl Ttl {
    pub fn of(properties: &ContainerProperties) -> Self {
        match properties.default_ttl {
            TimeToLive::NoDefault => Self::NoDefault,
            TimeToLive::Seconds(seconds) => Self::Default(seconds),
            _ => Self::Off,
        }
    }
}

impl Requirements {
    /// Why a container with this partition key and time to live must not be used; `None` if it can be.
    #[must_use]
    pub fn unfit(&self, partition_key: &[String], time_to_live: Ttl) -> Option<Unfit> {
        if partition_key != self.partition_key {
            let (found, needed) = (partition_key.join(", "), self.partition_key.join(", "));
            return Some(Unfit {
                reason: format!("its partition key is {found}, not {needed}"),
                remedy: "name another container or database: it belongs to something else",
            });
        }
        match time_to_live {
            Ttl::Default(seconds) => Some(Unfit {
                reason: format!("its time to live is {seconds} s: {}", self.expiry_means),
                remedy: self.expiry_remedy,
            }),
            Ttl::Off | Ttl::NoDefault => None,
        }
    }
}

pub fn partition_key(properties: &ContainerProperties) -> Vec<String> {
    properties.partition_key.paths().iter().map(ToString::to_string).collect()
}
