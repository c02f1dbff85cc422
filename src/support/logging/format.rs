//! Writes a log record as one line: `warn: not forwarded now failure.kind="turn" message.attempt=2
//! invocation.id="5b2f"`, or as a flat JSON object with the same names.

use std::fmt::{self, Write as _};

use chrono::{SecondsFormat, Utc};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
    span::Record,
};
use tracing_subscriber::{
    field::RecordFields,
    fmt::{
        FmtContext, FormattedFields,
        format::{FormatEvent, FormatFields, Writer},
    },
    registry::LookupSpan,
};

/// The format of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `level: message name="text" name=7`
    Text,
    /// For people: as `Text`, without numbers and without the names and ids of calls.
    Brief,
    /// `{"timestamp":"…","level":"…","message":"…","name":"text","name":7}`
    Json,
}

/// The message and the fields of an event or a span. The fields follow the message.
struct Fields {
    format: Format,
    written: String,
    message: String,
}

impl Fields {
    fn new(format: Format) -> Self {
        Self { format, written: String::with_capacity(256), message: String::new() }
    }

    fn value(&mut self, field: &Field, value: impl fmt::Display) {
        let name = field.name();
        // Writing to a string does not fail.
        let _ = match self.format {
            Format::Text | Format::Brief => write!(self.written, " {name}={value}"),
            Format::Json => write!(self.written, ",\"{name}\":{value}"),
        };
    }

    fn number(&mut self, field: &Field, number: impl fmt::Display) {
        if self.format != Format::Brief {
            self.value(field, number);
        }
    }

    fn text(&mut self, field: &Field, text: &str) {
        match field.name() {
            "message" => text.clone_into(&mut self.message),
            "function.name" | "invocation.id" if self.format == Format::Brief => {}
            _ => self.value(field, Quoted(text)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no infinite numbers and no NaN.
        if value.is_finite() {
            self.number(field, value);
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.number(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.number(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.number(field, value);
    }
}

/// A JSON string. Names and texts come from outside and must not start a new line or look like a field.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_char('"')?;
        for letter in self.0.chars() {
            match letter {
                '"' | '\\' => write!(out, "\\{letter}")?,
                '\n' => out.write_str("\\n")?,
                '\r' => out.write_str("\\r")?,
                '\t' => out.write_str("\\t")?,
                _ if letter.is_control() => write!(out, "\\u{:04x}", u32::from(letter))?,
                _ => out.write_char(letter)?,
            }
        }
        out.write_char('"')
    }
}

/// Formats the fields of spans.
impl FormatFields<'_> for Format {
    fn format_fields<R: RecordFields>(&self, mut out: Writer<'_>, fields: R) -> fmt::Result {
        let mut visitor = Fields::new(*self);
        fields.record(&mut visitor);
        out.write_str(&visitor.written)
    }

    fn add_fields(&self, current: &mut FormattedFields<Self>, fields: &Record<'_>) -> fmt::Result {
        self.format_fields(current.as_writer(), fields)
    }
}

impl<S, N> FormatEvent<S, N> for Format
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let level = *event.metadata().level();
        let mut fields = Fields::new(*self);
        event.record(&mut fields);
        for span in context.event_scope().into_iter().flatten() {
            if let Some(of_span) = span.extensions().get::<FormattedFields<N>>() {
                fields.written.push_str(of_span);
            }
        }
        let Fields { written, message, .. } = fields;
        let line = match self {
            Self::Text | Self::Brief => format!("{}: {}{written}", name(level), plain(&message)),
            Self::Json => {
                let (now, message) = (Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true), Quoted(&message));
                format!("{{\"timestamp\":\"{now}\",\"level\":\"{}\",\"message\":{message}{written}}}", name(level))
            }
        };
        if level == Level::ERROR { writeln!(out, "{}", not_a_warning(line)) } else { writeln!(out, "{line}") }
    }
}

fn name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

/// Escapes control characters, so that the text stays on one line.
fn plain(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut line, letter| {
        if letter.is_control() {
            line.extend(letter.escape_default());
        } else {
            line.push(letter);
        }
        line
    })
}

/// The host takes every line on standard error with "warn" in it for a warning, whatever else the line says. An error
/// about the site Warnemünde therefore has `W\u0061rnemünde`, which is the same text in a string.
fn not_a_warning(line: String) -> String {
    const WORD: &[u8] = b"warn";
    let is_word = |at: &usize| line.as_bytes()[*at..].get(..WORD.len()).is_some_and(|it| it.eq_ignore_ascii_case(WORD));
    let words: Vec<_> = (0..line.len()).filter(is_word).collect();
    if words.is_empty() {
        return line;
    }
    let mut whole = String::with_capacity(line.len() + 8 * words.len());
    let mut done = 0;
    for at in words {
        let letter = line.as_bytes()[at + 1];
        whole.push_str(&line[done..=at]);
        // Writing to a string does not fail.
        let _ = write!(whole, "\\u{letter:04x}");
        done = at + 2;
    }
    whole + &line[done..]
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

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

    /// Returns the lines that `log` writes.
    fn lines(format: Format, log: impl FnOnce()) -> String {
        let written = Written::default();
        let of = written.clone();
        let subscriber = crate::support::logging::subscriber(format, "info".parse().unwrap(), move || of.clone());
        tracing::subscriber::with_default(subscriber, log);
        String::from_utf8(written.0.lock().unwrap().clone()).unwrap()
    }

    fn log() {
        let span = tracing::error_span!("invocation", invocation.id = %"i\n1", end_device.id = tracing::field::Empty);
        let _entered = span.enter();
        span.record("end_device.id", "d 1");
        let lag = Some(0.5);
        tracing::warn!(site.name = %"Süd\"\nazfuncjsonlog:x\u{85}", site.lag_s = lag, rows = 7, n = None::<u64>, "not sent\r\n: {}", "a\tb");
    }

    #[test]
    fn whatever_is_in_it_a_record_is_one_line() {
        let expected = r#"warn: not sent\r\n: a\tb site.name="Süd\"\nazfuncjsonlog:x\u0085" site.lag_s=0.5 rows=7 invocation.id="i\n1" end_device.id="d 1""#;
        assert_eq!(lines(Format::Text, log), format!("{expected}\n"));
    }

    #[test]
    fn json_is_one_flat_object_with_the_same_names() {
        let line = lines(Format::Json, log);
        assert_eq!(line.lines().count(), 1);
        let mut object: serde_json::Map<_, _> = serde_json::from_str(&line).unwrap();
        let timestamp = object.remove("timestamp").unwrap();
        assert!(chrono::DateTime::parse_from_rfc3339(timestamp.as_str().unwrap()).is_ok());
        let expected = serde_json::json!({
            "level": "warn", "message": "not sent\r\n: a\tb", "site.name": "Süd\"\nazfuncjsonlog:x\u{85}", "site.lag_s": 0.5,
            "rows": 7, "invocation.id": "i\n1", "end_device.id": "d 1",
        });
        assert_eq!(serde_json::Value::Object(object), expected);
    }

    #[test]
    fn people_read_which_site_and_why_but_no_figures() {
        let expected = r#"warn: not sent\r\n: a\tb site.name="Süd\"\nazfuncjsonlog:x\u0085" end_device.id="d 1""#;
        assert_eq!(lines(Format::Brief, log), format!("{expected}\n"));
        let fine = || tracing::info!(sites.polled = 3, function.name = "f", "f: 3 of 3 sites polled");
        assert_eq!(lines(Format::Brief, fine), "info: f: 3 of 3 sites polled\n");
    }

    #[test]
    fn an_error_is_no_warning_whatever_it_is_about() {
        let log = || tracing::error!(site.name = "Warnemünde", "WARN: no warning");
        let text = lines(Format::Text, log);
        assert_eq!(text, "error: W\\u0041RN: no w\\u0061rning site.name=\"W\\u0061rnemünde\"\n");
        let json: serde_json::Value = serde_json::from_str(&lines(Format::Json, log)).unwrap();
        assert_eq!((&json["site.name"], &json["message"]), (&"Warnemünde".into(), &"WARN: no warning".into()));
        assert!(lines(Format::Text, || tracing::warn!(site.name = "Warnemünde", "x")).contains("Warnemünde"));
    }
}
