//! What is printed: lines for people, or one JSON object per line for scripts. All times are UTC.

use std::io::{self, Write as _};

use chrono::{SecondsFormat, Utc};
use emulators::functions_host::{Level, Stream};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// What is told first, and what is told last.
pub trait Told: Serialize {
    fn text(&self) -> String;
}

pub struct Output {
    pub is_json: bool,
}

impl Output {
    pub fn tell(&self, what: &impl Told) -> io::Result<()> {
        print(&if self.is_json { serde_json::to_string(what)? } else { what.text() })
    }

    /// A line that the handler printed, as it is; people get the time with it, which the host would add. Or one that is the
    /// host's or ours, in the handler's form.
    pub fn line(&self, stream: Stream, level: Level, text: &str) -> io::Result<()> {
        let level = match level {
            Level::Information => "info",
            Level::Warning => "warn",
            Level::Error => "error",
        };
        let (is_handlers, now) = (stream != Stream::Host, Utc::now());
        print(&match self.is_json {
            false if is_handlers => format!("{}  {text}", now.format("%H:%M:%S")),
            false => format!("{}  {level}: {text}", now.format("%H:%M:%S")),
            true if is_handlers && is_object(text) => text.to_owned(),
            // Also what a handler prints that has not come as far as its log.
            true => {
                let timestamp = now.to_rfc3339_opts(SecondsFormat::Millis, true);
                json!({ "timestamp": timestamp, "level": level, "message": text }).to_string()
            }
        })
    }
}

fn is_object(text: &str) -> bool {
    serde_json::from_str::<Map<String, Value>>(text).is_ok()
}

fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}
