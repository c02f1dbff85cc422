//! Log lines as the Functions host reads them: what is fine goes to standard output, the rest to standard error, where the
//! host looks for the words "warn" and "error". One line a record; the host adds the time but no invocation id.

use std::{
    fmt::{self, Write as _},
    io::{self, Write},
};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    EnvFilter,
    fmt::{
        FmtContext, FormattedFields,
        format::{FormatEvent, FormatFields, Writer},
        writer::MakeWriterExt as _,
    },
    registry::LookupSpan,
};

use crate::redact::without_credentials;

/// Writes lines without the credentials that may stand in them: what libraries log at `debug` and `trace`, and what services
/// answer, is not ours to choose.
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

/// What is logged without `RUST_LOG`: our own information, of the libraries only what is wrong.
const DEFAULT_FILTER: &str = "error,iothub_connector=info,emulators=warn";

/// Sets up logging by `RUST_LOG` (`info`) and `LOG_FORMAT` (`text` or `json`).
///
/// # Errors
/// A sentence that names the setting at fault.
pub fn init() -> Result<(), String> {
    let filter = match std::env::var("RUST_LOG") {
        // A bare level means ours: nobody wants the libraries' debug output by accident.
        Ok(level) if level.parse::<Level>().is_ok() => format!("error,iothub_connector={level},emulators=warn"),
        Ok(filter) if !filter.trim().is_empty() => filter,
        _ => DEFAULT_FILTER.to_owned(),
    };
    let filter = EnvFilter::try_new(&filter).map_err(|error| format!("RUST_LOG is {filter:?}: {error}"))?;
    let (stdout, stderr) = (|| Redacting(io::stdout()), || Redacting(io::stderr()));
    let writer = stdout.with_min_level(Level::INFO).and(stderr.with_max_level(Level::WARN));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(false);
    match std::env::var("LOG_FORMAT").as_deref() {
        Err(_) | Ok("text") => builder.event_format(Line).init(),
        Ok("json") => builder.json().flatten_event(true).with_current_span(true).with_span_list(false).init(),
        Ok(other) => return Err(format!("LOG_FORMAT is {other:?}: write text or json")),
    }
    Ok(())
}

/// `warn: message field=value invocation=…`
struct Line;

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warn",
            Level::INFO => "info",
            Level::DEBUG => "debug",
            Level::TRACE => "trace",
        };
        let mut text = String::with_capacity(256);
        context.format_fields(Writer::new(&mut text), event)?;
        for span in context.event_scope().into_iter().flatten() {
            if let Some(fields) = span.extensions().get::<FormattedFields<N>>().filter(|fields| !fields.is_empty()) {
                write!(text, " {fields}")?;
            }
        }
        write!(out, "{level}: ")?;
        // Names and texts come from outside: none of them may begin a line of its own.
        for part in text.split_inclusive(char::is_control) {
            let plain = part.trim_end_matches(char::is_control);
            write!(out, "{plain}{}", part[plain.len()..].escape_default())?;
        }
        writeln!(out)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn whatever_is_in_it_a_record_is_one_line() {
        let written = Written::default();
        let of = written.clone();
        let subscriber = tracing_subscriber::fmt().event_format(Line).with_writer(move || of.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            let _span = tracing::info_span!("invocation", invocation = %"i\n1").entered();
            tracing::warn!(site = %"Süd\nazfuncjsonlog:x\u{85}", "not sent\r\n: {}", "a\tb");
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let expected = r"warn: not sent\r\n: a\tb site=Süd\nazfuncjsonlog:x\u{85} invocation=i\n1";
        assert_eq!(text, format!("{expected}\n"));
    }

    #[test]
    fn a_line_is_written_without_credentials() {
        let mut written = Vec::new();
        let line = "trace: {\"said\":\"\\\"Basic ZGVtbzpzZWNyZXQ=\\\"\"}\n";
        assert_eq!(Redacting(&mut written).write(line.as_bytes()).unwrap(), line.len());
        assert_eq!(String::from_utf8(written).unwrap(), line.replace("ZGVtbzpzZWNyZXQ=", "[REDACTED]"));
    }
}
