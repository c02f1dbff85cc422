//! The events of the host, for a caller that prints or awaits them.

use std::{fmt, process::ExitStatus, sync::Arc, time::Duration};

use serde_json::Value;
use tokio::sync::broadcast;

/// Events that are kept for a receiver that is slower than the host. It loses older ones.
pub const KEPT: usize = 4096;

/// Tells one observer of each event at once, and all receivers as they come to it. Cheap to clone.
#[derive(Clone)]
pub struct Sender {
    pub channel: broadcast::Sender<Event>,
    pub observer: Arc<dyn Fn(&Event) + Send + Sync>,
}

/// One event. Its text is one line, without bodies.
#[derive(Clone)]
pub enum Event {
    HandlerStarted {
        pid: u32,
    },
    /// The handler answered for the first time, this many milliseconds after its start.
    HandlerReady {
        after_ms: u64,
    },
    /// A line printed by the handler, or a line logged by the host itself.
    Line {
        stream: Stream,
        level: Level,
        text: String,
    },
    InvocationStarted {
        function: String,
        id: String,
    },
    InvocationFinished(InvocationFinished),
    HandlerExited {
        status: ExitStatus,
    },
    /// The host gave up on the handler, or was stopped.
    Stopped {
        reason: String,
    },
}

impl fmt::Display for Event {
    /// Written in one piece: standard error is not buffered, and there may be many events.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&match self {
            Self::HandlerStarted { pid } => format!("handler started, process {pid}"),
            Self::HandlerReady { after_ms } => format!("handler ready after {after_ms} ms"),
            Self::Line { stream: Stream::Host, text, .. } => format!("host: {text}"),
            Self::Line { text, .. } => format!("handler: {text}"),
            Self::InvocationStarted { function, id } => format!("{function} started ({id})"),
            Self::InvocationFinished(InvocationFinished {
                function, id, succeeded, status, duration, error, ..
            }) => {
                let how = if *succeeded { "succeeded" } else { "failed" };
                let status = status.map(|status| format!(" with status {status}")).unwrap_or_default();
                let error = error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
                format!("{function} {how}{status} in {} ms ({id}){error}", duration.as_millis())
            }
            Self::HandlerExited { status } => format!("handler ended: {status}"),
            Self::Stopped { reason } => format!("host stopped: {reason}"),
        })
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// How an invocation ended.
#[derive(Clone, Debug)]
pub struct InvocationFinished {
    pub function: String,
    /// A GUID, as in `X-Azure-Functions-InvocationId`.
    pub id: String,
    pub succeeded: bool,
    /// The handler's HTTP status, if it answered.
    pub status: Option<u16>,
    pub duration: Duration,
    /// `Logs` of the handler's answer. The host drops them if the invocation fails.
    pub logs: Vec<String>,
    /// The handler's answer: JSON, or a string if it is not valid JSON. `null` without an answer and for forwarded requests.
    pub response: Arc<Value>,
    /// Why it failed.
    pub error: Option<String>,
}

/// The source of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
    /// Logged by the host itself.
    Host,
}

/// The log level of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Information,
    Warning,
    Error,
}

impl Level {
    /// A line on standard error is an error, unless it has "warn" in it.
    #[must_use]
    pub fn of(stream: Stream, text: &str) -> Self {
        match stream {
            Stream::Stderr if text.to_lowercase().contains("warn") => Self::Warning,
            Stream::Stderr => Self::Error,
            Stream::Stdout | Stream::Host => Self::Information,
        }
    }
}

/// Sends an event to all receivers.
pub fn send(events: &Sender, event: Event) {
    (events.observer)(&event);
    // An error means that there is no receiver, which is fine.
    let _ = events.channel.send(event);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_sentences() {
        let finished = InvocationFinished {
            function: "poll".into(),
            id: "7".into(),
            succeeded: false,
            status: Some(500),
            duration: Duration::from_millis(12),
            logs: Vec::new(),
            response: Arc::default(),
            error: Some("the backend is away".into()),
        };
        let line = Event::Line { stream: Stream::Host, level: Level::Warning, text: "no queue".into() };
        for (event, text) in [
            (Event::InvocationFinished(finished), "poll failed with status 500 in 12 ms (7): the backend is away"),
            (Event::HandlerReady { after_ms: 3 }, "handler ready after 3 ms"),
            (line, "host: no queue"),
        ] {
            assert_eq!(event.to_string(), text);
        }
    }

    #[test]
    fn a_line_on_standard_error_is_an_error_or_a_warning() {
        for (stream, text, level) in [
            (Stream::Stdout, "an error, a warning", Level::Information),
            (Stream::Stderr, "WARN error", Level::Warning),
            (Stream::Stderr, "Failed", Level::Error),
            (Stream::Stderr, "listening", Level::Error),
        ] {
            assert_eq!(Level::of(stream, text), level, "{text}");
        }
    }
}
