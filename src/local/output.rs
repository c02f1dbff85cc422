//! What is printed: aligned columns for people, or one JSON object per line for scripts. All times are UTC.

use std::{
    io::{self, Write as _},
    path::Path,
    time::Duration,
};

use chrono::{DateTime, SecondsFormat, Utc};
use emulators::functions_host::{InvocationFinished, Level};
use serde_json::{Map, Value, json};

use super::{
    forwarded::Forwarded,
    schedule::Timer,
    services::Row,
    tally::{Site, Tally},
};

/// Columns of a site's name: room for the longest known one within these bounds.
const SITE_WIDTH: std::ops::RangeInclusive<usize> = 14..=32;
/// Columns of a device id: a name of ordinary length and its hash.
const DEVICE_WIDTH: usize = 24;
/// Columns for values; those that do not fit are left out.
const VALUES_WIDTH: usize = 40;
/// `2026-01-31T00:00:00Z`.
const STAMP_WIDTH: usize = 20;

/// What is told first.
pub struct Introduction<'a> {
    pub endpoint: &'a str,
    pub services: Vec<Row>,
    pub timers: Vec<Timer>,
    pub settings_file: Option<&'a Path>,
}

pub struct Output {
    is_json: bool,
    site_width: usize,
    /// Whether messages are shown with their devices.
    shows_device: bool,
}

impl Output {
    pub fn new(is_json: bool, sites: Vec<String>, shows_device: bool) -> Self {
        let longest = sites.iter().map(|site| site.chars().count()).max().unwrap_or(*SITE_WIDTH.end());
        Self { is_json, site_width: longest.clamp(*SITE_WIDTH.start(), *SITE_WIDTH.end()), shows_device }
    }

    /// The column of a message's device, if there is one.
    fn device(&self, device: &str) -> String {
        if self.shows_device { format!("{device:DEVICE_WIDTH$}  ") } else { String::new() }
    }

    pub fn introduction(&mut self, introduction: &Introduction<'_>) -> io::Result<()> {
        let Introduction { endpoint, services, timers, settings_file } = introduction;
        if self.is_json {
            let service = |row: &Row| json!({ "name": row.service, "emulated": row.is_emulated, "at": row.place });
            let timer = |timer: &Timer| {
                let next = timer.next.map(|next| stamp(next, SecondsFormat::Secs));
                json!({ "function": timer.function, "schedule": timer.schedule, "next": next })
            };
            return self.record(&json!({
                "type": "start",
                "at": stamp(Utc::now(), SecondsFormat::Millis),
                "services": services.iter().map(service).collect::<Vec<_>>(),
                "host": endpoint,
                "timers": timers.iter().map(timer).collect::<Vec<_>>(),
            }));
        }
        let mut text = "The function app runs on this machine. Times are UTC. Ctrl-C ends.\n\n".to_owned();
        let place_width = services.iter().map(|row| row.place.len()).chain([endpoint.len()]).max().unwrap_or_default();
        for Row { service, is_emulated, place, details } in services {
            let kind = if *is_emulated { "emulated" } else { "REAL" };
            text += &format!("  {service:17}{kind:10}{place:place_width$}  {details}\n");
        }
        text += &format!("  {:17}{:10}{endpoint}\n", "Functions host", "emulated");
        for timer in timers {
            let origin = if timer.is_overridden { "command line" } else { "function.json" };
            let next = timer.next.map(|next| format!(", then at {}", next.format("%H:%M:%S"))).unwrap_or_default();
            text += &format!("\n  {} runs now{next}; schedule {:?} ({origin})\n", timer.function, timer.schedule);
        }
        text += &match settings_file {
            Some(file) => format!("  Settings: {}\n", file.display()),
            None => {
                "  To use services of your own, set them in local.settings.json (see local.settings.json.example)\n"
                    .to_owned()
            }
        };
        if services.iter().any(|row| row.service == "IoT Hub" && row.is_emulated) {
            let width = self.site_width;
            text += &format!(
                "\nWhat reaches the hub, one line per message:\n  {:8}  {:width$}  {}{:>5}  {:STAMP_WIDTH$}  its values\n",
                "received",
                "site",
                self.device("device"),
                "rows",
                "newest row"
            );
        } else {
            text += "\n";
        }
        self.text(&text)
    }

    pub fn forwarded(&mut self, forwarded: &Forwarded) -> io::Result<()> {
        let Forwarded { at, device, message_id, site, rows, newest, values } = forwarded;
        if self.is_json {
            return self.record(&json!({
                "type": "message",
                "at": stamp(*at, SecondsFormat::Millis),
                "device": device,
                "messageId": message_id,
                "site": site,
                "rows": rows,
                "newest": newest,
                "values": values,
            }));
        }
        let (width, newest) = (self.site_width, newest.as_deref().unwrap_or("-"));
        let (device, values) = (self.device(device), shown(values));
        self.text(&format!(
            "  {}  {site:width$}  {device}{rows:>5}  {newest:STAMP_WIDTH$}  {values}\n",
            at.format("%H:%M:%S")
        ))
    }

    /// A line that the handler printed, or one about it.
    pub fn line(&mut self, level: Level, text: &str, functions: &[String]) -> io::Result<()> {
        let level = match level {
            Level::Information => "info",
            Level::Warning => "warning",
            Level::Error => "error",
        };
        if self.is_json {
            return self.record(&json!({
                "type": "log",
                "at": stamp(Utc::now(), SecondsFormat::Millis),
                "level": level,
                "text": text,
            }));
        }
        // Only runs on a schedule are shown: which one it was is clear from the time.
        let text = text.split(" invocation=").next().unwrap_or(text);
        let text = ["info: ", "warn: ", "error: "].iter().find_map(|prefix| text.strip_prefix(prefix)).unwrap_or(text);
        let summary = functions.iter().find_map(|function| text.strip_prefix(function.as_str())?.strip_prefix(": "));
        let line = match summary {
            Some(summary) if level == "error" => format!("run failed: {summary}"),
            Some(summary) => format!("run: {summary}"),
            None => format!("{level}: {text}"),
        };
        self.text(&format!("  {}  {line}\n", Utc::now().format("%H:%M:%S")))
    }

    /// The end of a run. For people this is the handler's own line; only what kept it from writing one is added.
    pub fn run(&mut self, finished: &InvocationFinished) -> io::Result<()> {
        let own_words = finished.response["Error"].as_str();
        let error = own_words.or(finished.error.as_deref());
        if self.is_json {
            return self.record(&json!({
                "type": "run",
                "at": stamp(Utc::now(), SecondsFormat::Millis),
                "function": finished.function,
                "invocation": finished.id,
                "succeeded": finished.succeeded,
                "seconds": seconds(finished.duration),
                "error": error.filter(|_| !finished.succeeded),
            }));
        }
        match error.filter(|_| !finished.succeeded && own_words.is_none()) {
            Some(error) => self.text(&format!("  {}  run failed: {error}\n", Utc::now().format("%H:%M:%S"))),
            None => Ok(()),
        }
    }

    /// `knows_messages`: the hub is emulated, so what reached it is known.
    pub fn summary(&mut self, tally: &Tally, knows_messages: bool, took: Duration) -> io::Result<()> {
        if self.is_json {
            let site = |(name, site): (&String, &Site)| {
                let Site { messages, rows, newest, values } = site;
                (name.clone(), json!({ "messages": messages, "rows": rows, "newest": newest, "values": values }))
            };
            return self.record(&json!({
                "type": "summary",
                "at": stamp(Utc::now(), SecondsFormat::Millis),
                "seconds": seconds(took),
                "runs": tally.succeeded + tally.failed,
                "failed": tally.failed,
                "cutOff": tally.under_way,
                "messages": knows_messages.then(|| tally.messages()),
                "rows": knows_messages.then(|| tally.rows()),
                "sites": tally.sites.iter().map(site).collect::<Map<_, _>>(),
                "missed": tally.missed,
                "error": tally.gave_up,
            }));
        }
        let runs = counted(tally.succeeded + tally.failed, "run");
        let mut text = format!("\nIn {:.0} s: {runs}, {} failed", took.as_secs_f64(), tally.failed);
        if tally.under_way > 0 {
            text += &format!(", {} cut off by the end", tally.under_way);
        }
        if knows_messages && tally.sites.is_empty() {
            text += "; nothing reached the hub\n";
        } else if knows_messages {
            let messages = counted(tally.messages(), "message");
            let rows = counted(tally.rows(), "row");
            let sites = counted(tally.sites.len(), "site");
            text += &format!("; the hub received {messages} with {rows} of {sites}\n");
            let width = self.site_width;
            text += &format!(
                "  {:width$}  {:>8}  {:>5}  {:STAMP_WIDTH$}  its values\n",
                "site", "messages", "rows", "newest row"
            );
            for (name, site) in &tally.sites {
                let Site { messages, rows, newest, values } = site;
                let (newest, values) = (newest.as_deref().unwrap_or("-"), shown(values));
                text += &format!("  {name:width$}  {messages:>8}  {rows:>5}  {newest:STAMP_WIDTH$}  {values}\n");
            }
        } else {
            text += "; what arrived is in your hub: az iot hub monitor-events --hub-name NAME\n";
        }
        if tally.missed > 0 {
            text += &format!("  ({} more messages came too fast to be shown)\n", tally.missed);
        }
        if let Some(reason) = &tally.gave_up {
            text += &format!("  The host gave up: {reason}\n");
        }
        self.text(&text)
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

fn stamp(time: DateTime<Utc>, precision: SecondsFormat) -> String {
    time.to_rfc3339_opts(precision, true)
}

/// With milliseconds.
fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// The first values, as many as fit.
fn shown(values: &Map<String, Value>) -> String {
    let mut text = String::new();
    for (index, (channel, value)) in values.iter().enumerate() {
        let value = format!("{channel}={value}");
        if index > 0 && text.chars().count() + value.chars().count() + 2 > VALUES_WIDTH {
            text += " …";
            break;
        }
        if index > 0 {
            text += "  ";
        }
        text += &value;
    }
    if text.is_empty() { "(none)".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_as_many_values_are_shown_as_fit() {
        let values = |text: &str| shown(serde_json::from_str::<Value>(text).unwrap().as_object().unwrap());
        assert_eq!(values("{}"), "(none)");
        assert_eq!(values(r#"{"ch0":39801,"ch1":17.4}"#), "ch0=39801  ch1=17.4");
        assert_eq!(values(r#"{"ch0":1234567890,"ch1":1234567890,"ch2":34567}"#), "ch0=1234567890  ch1=1234567890 …");
        let long = "x".repeat(100);
        assert_eq!(values(&format!(r#"{{"a":"{long}","b":1}}"#)), format!("a=\"{long}\" …"));
    }
}
