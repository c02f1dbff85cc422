//! Finds out which command an event is about. A downlink's correlation ids come back with all events about it; the connector
//! puts the message id of the cloud-to-device message among them. Pure.

use serde::Deserialize;
use serde_json::value::RawValue;

/// The begin of a correlation id of the connector; the message id follows.
pub const PREFIX: &str = "iothub:";

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    correlation_ids: Option<&'a RawValue>,
}

/// What an event holds: the downlink itself, or a `downlink` beside the reason.
#[derive(Deserialize)]
struct Content<'a> {
    #[serde(borrow)]
    correlation_ids: Option<&'a RawValue>,
    #[serde(borrow)]
    downlink: Option<&'a RawValue>,
}

/// The message id of the command that an event is about. A field mask may have left the ids in one place only.
pub fn command_id(envelope: &str, content: Option<&RawValue>) -> Option<String> {
    let of_content = || {
        let Content { correlation_ids, downlink } = serde_json::from_str(content?.get()).ok()?;
        let inner = || serde_json::from_str::<Envelope<'_>>(downlink?.get()).ok()?.correlation_ids.and_then(ours);
        correlation_ids.and_then(ours).or_else(inner)
    };
    let Envelope { correlation_ids } = serde_json::from_str(envelope).ok()?;
    correlation_ids.and_then(ours).or_else(of_content)
}

fn ours(ids: &RawValue) -> Option<String> {
    let ids: Vec<String> = serde_json::from_str(ids.get()).ok()?;
    ids.iter().find_map(|id| id.strip_prefix(PREFIX)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_of_an_event_is_found_wherever_its_id_is() {
        for (envelope, content, expected) in [
            (r#"{"correlation_ids":["as:downlink:01","iothub:cmd-77"]}"#, "{}", Some("cmd-77")),
            (r#"{"correlation_ids":["as:x"]}"#, r#"{"correlation_ids":["iothub:cmd-77"]}"#, Some("cmd-77")),
            ("{}", r#"{"downlink":{"f_port":1,"correlation_ids":["iothub:a:b"]},"error":{}}"#, Some("a:b")),
            ("{}", r#"{"f_port":1}"#, None),
            (r#"{"correlation_ids":7}"#, r#"{"correlation_ids":{},"downlink":[]}"#, None),
            ("{}", "[1]", None),
        ] {
            let content = RawValue::from_string(content.to_owned()).unwrap();
            assert_eq!(command_id(envelope, Some(&content)).as_deref(), expected, "{envelope} {content}");
        }
        assert_eq!(command_id("{}", None), None);
    }
}
