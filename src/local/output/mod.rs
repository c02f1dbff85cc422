//! What is printed: aligned columns for people, or one JSON object per line for scripts. All times are UTC.
//!
//! | Part | |
//! |---|---|
//! | `introduction` | what is told first |
//! | `events` | a line for what happens |
//! | `summary` | what is told last |
//! | `text` | pieces of text |

mod events;
mod introduction;
mod summary;
mod text;

use std::io::{self, Write as _};

use serde_json::Value;

pub use self::introduction::{Downlinks, Introduction, Webhooks};

/// Columns of a site's or LoRaWAN device's name: room for the longest known one within these bounds.
const NAME_WIDTH: std::ops::RangeInclusive<usize> = 14..=32;
/// Columns of a device id: a name of ordinary length and its hash.
const DEVICE_WIDTH: usize = 24;

pub struct Output {
    is_json: bool,
    layout: Layout,
    name_width: usize,
    timers: Vec<String>,
}

/// What there is to show.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// The hub is emulated: what reaches it is known.
    pub has_messages: bool,
    /// Messages are shown with their devices.
    pub has_devices: bool,
    pub has_sites: bool,
    pub has_uplinks: bool,
}

impl Output {
    /// `names` are those of sites and LoRaWAN devices that are known.
    pub fn new(is_json: bool, layout: Layout, names: &[String], timers: Vec<String>) -> Self {
        let longest = names.iter().map(|name| name.chars().count()).max().unwrap_or(*NAME_WIDTH.end());
        Self { is_json, layout, name_width: longest.clamp(*NAME_WIDTH.start(), *NAME_WIDTH.end()), timers }
    }

    /// The column of a message's device, if there is one.
    fn device(&self, device: &str) -> String {
        if self.layout.has_devices { format!("{device:DEVICE_WIDTH$}  ") } else { String::new() }
    }

    fn record(&self, record: &Value) -> io::Result<()> {
        self.text(&format!("{record}\n"))
    }

    fn text(&self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }
}
