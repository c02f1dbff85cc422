//! Laws that must hold for any input from outside. Each parser has a function that panics if a law is broken.
//!
//! `cargo fuzz` looks for input that breaks a law. `cargo test --test corpora` replays the inputs that it kept.
//! `docs/fuzzing.md` describes this and the findings.

mod backend;
mod bounds;
mod host;
mod hub;
mod settings;
mod things_network;

pub use backend::{lists, rows, stamp};
pub use host::envelopes;
pub use hub::{downlink, property_bag, retry_after, sas};
pub use settings::{connection_strings, settings};
pub use things_network::{device_ids, downlink_url, queued, webhook};

/// A parser's laws, checked for one input.
pub type Target = fn(&[u8]);

/// All targets, by the names of their files in `fuzz_targets` and of their folders in `corpus`.
pub const TARGETS: [(&str, Target); 14] = [
    ("connection_strings", connection_strings),
    ("device_ids", device_ids),
    ("downlink", downlink),
    ("downlink_url", downlink_url),
    ("envelopes", envelopes),
    ("lists", lists),
    ("property_bag", property_bag),
    ("queued", queued),
    ("retry_after", retry_after),
    ("rows", rows),
    ("sas", sas),
    ("settings", settings),
    ("stamp", stamp),
    ("webhook", webhook),
];
