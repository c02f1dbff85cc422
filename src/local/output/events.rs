//! A line for what happens.

use std::io;

use chrono::{SecondsFormat, Utc};
use emulators::{
    functions_host::{InvocationFinished, Level},
    things_stack::DownlinkRequest,
};
use serde_json::{Map, Value, json};

use super::{
    Output,
    text::{self, COUNT_WIDTH, STAMP_WIDTH, seconds, stamp},
};
use crate::local::forwarded::{Content, Forwarded, Rows, Uplink};

impl Output {
    /// A message reached the hub.
    pub fn forwarded(&mut self, forwarded: &Forwarded) -> io::Result<()> {
        if self.is_json {
            return self.record(&record(forwarded));
        }
        let (name, count, newest, values) = match &forwarded.content {
            Content::Rows(Rows { site, count, newest, values }) => {
                (site.clone(), count.to_string(), newest.as_deref().unwrap_or("-"), text::values(values))
            }
            Content::Uplink(uplink) => {
                let Uplink { owner, port, counter, received_at, payload, values } = uplink;
                let values = match values.is_empty() {
                    true => format!("not decoded: {payload}"),
                    false => text::values(values),
                };
                (owner.name(), format!("{port}/{counter}"), received_at.as_deref().unwrap_or("-"), values)
            }
            Content::Event { owner, kind } => (owner.name(), "-".to_owned(), "-", format!("event {kind}")),
        };
        let (width, device) = (self.name_width, self.device(&forwarded.device));
        self.text(&format!(
            "  {}  {name:width$}  {device}{count:>COUNT_WIDTH$}  {newest:STAMP_WIDTH$}  {values}\n",
            forwarded.at.format("%H:%M:%S")
        ))
    }

    /// The Things Stack was asked for downlinks.
    pub fn downlinks(&mut self, request: &DownlinkRequest) -> io::Result<()> {
        let is_accepted = request.reason.is_none();
        if self.is_json {
            // A request that was refused unread is told of too.
            let unread = [Value::Null];
            let downlinks = if request.downlinks.is_empty() { &unread[..] } else { &request.downlinks };
            return downlinks.iter().try_for_each(|downlink| {
                self.record(&json!({
                    "type": "downlink",
                    "at": stamp(request.at, SecondsFormat::Millis),
                    "application": request.application,
                    "endDevice": request.device,
                    "accepted": is_accepted,
                    "status": request.status,
                    "reason": request.reason,
                    "fPort": downlink["f_port"],
                    "payload": downlink["frm_payload"],
                    "decodedPayload": downlink["decoded_payload"],
                }))
            });
        }
        let (at, name) = (request.at.format("%H:%M:%S"), format!("{}/{}", request.application, request.device));
        if let Some(reason) = &request.reason {
            let status = request.status;
            return self.text(&format!(
                "  {at}  warning: The Things Stack refused a downlink for {name} ({status}): {reason}\n"
            ));
        }
        let (width, device) = (self.name_width, self.device(""));
        request.downlinks.iter().try_for_each(|downlink| {
            let (port, payload) = (downlink["f_port"].to_string(), text::payload(downlink));
            self.text(&format!(
                "  {at}  {name:width$}  {device}{port:>COUNT_WIDTH$}  {:STAMP_WIDTH$}  {payload}\n",
                "downlink accepted"
            ))
        })
    }

    /// A line that the handler printed, or one about it.
    pub fn line(&mut self, level: Level, text: &str, functions: &[String]) -> io::Result<()> {
        let name = match level {
            Level::Information => "info",
            Level::Warning => "warning",
            Level::Error => "error",
        };
        let (text, fields) = handlers(text);
        if self.is_json {
            return self.record(&json!({
                "type": "log",
                "at": stamp(Utc::now(), SecondsFormat::Millis),
                "level": name,
                "text": text,
                "fields": fields,
            }));
        }
        let is_summary = functions.iter().any(|function| text.starts_with(&format!("{function}: ")));
        let text = if is_summary { text } else { with_fields(text, &fields) };
        let text = text.as_str();
        let function = functions.iter().find(|function| text.starts_with(&format!("{function}: ")));
        let line = match function {
            Some(timer) if self.timers.contains(timer) => {
                let summary = &text[timer.len() + 2..];
                format!("{}: {summary}", if level == Level::Error { "run failed" } else { "run" })
            }
            // Once a minute, what each message has told already.
            Some(_) if level == Level::Information && self.layout.has_messages => return Ok(()),
            Some(_) if level == Level::Information => text.to_owned(),
            _ => format!("{name}: {text}"),
        };
        self.text(&format!("  {}  {line}\n", Utc::now().format("%H:%M:%S")))
    }

    /// The end of an invocation: of a run, or one that failed or rejected its message. For people this is the handler's
    /// own line; only what kept it from writing one is added.
    pub fn finished(&mut self, finished: &InvocationFinished) -> io::Result<()> {
        let is_run = self.timers.contains(&finished.function);
        let own_words = finished.response["Error"].as_str();
        let error = own_words.or(finished.error.as_deref());
        if self.is_json {
            let at = stamp(Utc::now(), SecondsFormat::Millis);
            for text in finished.response["Outputs"]["rejected"].as_array().into_iter().flatten() {
                let rejected: Value = serde_json::from_str(text.as_str().unwrap_or_default()).unwrap_or_default();
                self.record(&json!({
                    "type": "rejected",
                    "at": at,
                    "invocation": finished.id,
                    "kind": rejected["Kind"],
                    "reason": rejected["Reason"],
                }))?;
            }
            if finished.succeeded && !is_run {
                return Ok(());
            }
            return self.record(&json!({
                "type": "run",
                "at": at,
                "function": finished.function,
                "invocation": finished.id,
                "succeeded": finished.succeeded,
                "seconds": seconds(finished.duration),
                "error": error.filter(|_| !finished.succeeded),
            }));
        }
        let what = if is_run { "run" } else { &finished.function };
        match error.filter(|_| !finished.succeeded && own_words.is_none()) {
            Some(error) => self.text(&format!("  {}  {what} failed: {error}\n", Utc::now().format("%H:%M:%S"))),
            None => Ok(()),
        }
    }
}

/// The message and the fields of a line that the handler printed. Another one, such as the host's own, has no fields.
fn handlers(line: &str) -> (String, Map<String, Value>) {
    let Ok(Value::Object(mut fields)) = serde_json::from_str(line) else { return (line.to_owned(), Map::new()) };
    fields.retain(|name, _| name != "timestamp" && name != "level");
    match fields.remove("message") {
        Some(Value::String(message)) => (message, fields),
        _ => (line.to_owned(), Map::new()),
    }
}

/// What people want to know beside the message.
fn with_fields(mut text: String, fields: &Map<String, Value>) -> String {
    // Which invocation it was is of no use here.
    for (name, value) in fields.iter().filter(|(name, _)| *name != "invocation.id") {
        text.push_str(&match value {
            Value::String(value) => format!(" {name}={value}"),
            value => format!(" {name}={value}"),
        });
    }
    text
}

fn record(forwarded: &Forwarded) -> Value {
    let Forwarded { at, device, message_id, content } = forwarded;
    let at = stamp(*at, SecondsFormat::Millis);
    match content {
        Content::Rows(Rows { site, count, newest, values }) => json!({
            "type": "message",
            "at": at,
            "device": device,
            "messageId": message_id,
            "site": site,
            "rows": count,
            "newest": newest,
            "values": values,
        }),
        Content::Uplink(Uplink { owner, port, counter, received_at, payload, values }) => json!({
            "type": "uplink",
            "at": at,
            "device": device,
            "messageId": message_id,
            "application": owner.application,
            "endDevice": owner.id,
            "fPort": port,
            "fCnt": counter,
            "receivedAt": received_at,
            "payload": payload,
            "values": values,
        }),
        Content::Event { owner, kind } => json!({
            "type": "event",
            "at": at,
            "device": device,
            "messageId": message_id,
            "application": owner.application,
            "endDevice": owner.id,
            "kind": kind,
        }),
    }
}
