//! Writes log lines in the form that the Functions host reads. Lines without a fault go to standard output, where the
//! host takes every line for Information. The others go to standard error, where the host looks for words: a line with
//! "warn" is a Warning, another line with "error" is an Error. A record is one line. The host adds the time but no
//! invocation id. `docs/operations.md` lists the fields.

mod format;

use std::io::{self, Write};

use tracing::{Level, Subscriber};
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    fmt::{MakeWriter, writer::MakeWriterExt as _},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

pub use self::format::Format;
use crate::support::redact::without_credentials;

/// Removes credentials from the lines: the connector cannot control what libraries log at `debug` and `trace`, and what
/// services answer.
struct Redacting<W>(W);

impl<W: Write> Write for Redacting<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match std::str::from_utf8(line) {
            Ok(text) => self.0.write_all(without_credentials(text).as_bytes())?,
            Err(_) => self.0.write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// The filter without `RUST_LOG`: information of the connector, warnings of the emulators, errors of the libraries.
const DEFAULT_FILTER: &str = "error,iothub_connector=info,emulators=warn";

/// Sets up logging by `RUST_LOG` (`info`) and `LOG_FORMAT` (`text`, `brief` or `json`). Panics are logged too.
///
/// # Errors
/// A sentence that names the setting at fault.
pub fn init() -> Result<(), String> {
    let [level, format] = ["RUST_LOG", "LOG_FORMAT"].map(|name| std::env::var(name).ok());
    let said = |(name, why): (&str, String)| format!("{name} {why}");
    let filter = filter(level.as_deref()).map_err(said)?;
    let format = format_of(format.as_deref()).map_err(said)?;
    let (stdout, stderr) = (|| Redacting(io::stdout()), || Redacting(io::stderr()));
    subscriber(format, filter, stdout.with_min_level(Level::INFO).and(stderr.with_max_level(Level::WARN))).init();
    // The standard library's panic message has several lines, and the host takes none of them for an error.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let why = super::panics::message(panic.payload());
        tracing::error!(panic.place = place, "a bug in the connector, please report it: {why}");
    }));
    Ok(())
}

/// The filter for this `RUST_LOG`.
///
/// # Errors
/// The setting's name and its fault.
pub fn filter(level: Option<&str>) -> Result<Targets, (&'static str, String)> {
    let filter = match level {
        // A bare level applies to the connector only: users do not want the libraries' debug output by accident.
        Some(level) if level.parse::<Level>().is_ok() => format!("error,iothub_connector={level},emulators=warn"),
        Some(filter) if !filter.trim().is_empty() => filter.to_owned(),
        _ => DEFAULT_FILTER.to_owned(),
    };
    filter.parse().map_err(|error| ("RUST_LOG", format!("is {filter:?}: {error}")))
}

/// The format for this `LOG_FORMAT`.
///
/// # Errors
/// The setting's name and its fault.
pub fn format_of(name: Option<&str>) -> Result<Format, (&'static str, String)> {
    match name {
        None | Some("text") => Ok(Format::Text),
        Some("brief") => Ok(Format::Brief),
        Some("json") => Ok(Format::Json),
        Some(other) => Err(("LOG_FORMAT", format!("is {other:?}: write text, brief or json"))),
    }
}

/// Writes the lines that pass `filter`.
pub fn subscriber<W>(format: Format, filter: Targets, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_writer(writer).with_ansi(false);
    builder.fmt_fields(format).event_format(format).finish().with(filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_written_without_credentials() {
        let mut written = Vec::new();
        let line = "trace: {\"said\":\"\\\"Basic ZGVtbzpzZWNyZXQ=\\\"\"}\n";
        assert_eq!(Redacting(&mut written).write(line.as_bytes()).unwrap(), line.len());
        assert_eq!(String::from_utf8(written).unwrap(), line.replace("ZGVtbzpzZWNyZXQ=", "[REDACTED]"));
    }
}
