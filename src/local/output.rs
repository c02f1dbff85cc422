//! Prints the output: lines for the user, or one JSON object per line for scripts. All times are UTC.

use std::io::{self, Write as _};

use chrono::{SecondsFormat, Utc};
use emulators::functions_host::{Level, Stream};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// The first and the last output of a session.
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

    /// Prints a line of the handler unchanged; the user also sees the time, which the host would add. A line of the
    /// host or of this process is printed in the handler's form.
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
            // This also covers lines that the handler prints before its log is ready.
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
