//! Device twins, as far as the SDKs need them: a device reads its twin and reports properties.
//!
//! Source: <https://learn.microsoft.com/azure/iot/iot-mqtt-connect-to-iot-hub#retrieving-a-device-twins-properties>.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde_json::{Map, Value, json};

/// Largest reported section, in bytes of JSON.
const MAX_REPORTED: usize = 32 * 1024;

/// The subscription that a device needs for the answers.
pub const FILTER: &str = "$iothub/twin/res/#";

/// A device's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    Get { rid: &'a str },
    PatchReported { rid: &'a str },
}

/// The answer to a request.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub topic: String,
    pub body: Vec<u8>,
}

/// The twins of all devices. A device that never reported anything has no entry.
#[derive(Default)]
pub struct Twins {
    twins: Mutex<HashMap<String, Reported>>,
}

struct Reported {
    properties: Map<String, Value>,
    version: u64,
}

impl Default for Reported {
    fn default() -> Self {
        Self { properties: Map::new(), version: 1 }
    }
}

impl<'a> Request<'a> {
    /// Reads the topic of a request. `None` if it is another topic.
    pub fn of_topic(topic: &'a str) -> Option<Self> {
        let (path, query) = topic.strip_prefix("$iothub/twin/")?.split_once("/?")?;
        let rid = query.split('&').find_map(|pair| pair.strip_prefix("$rid="))?;
        match path {
            "GET" => Some(Self::Get { rid }),
            "PATCH/properties/reported" => Some(Self::PatchReported { rid }),
            _ => None,
        }
    }
}

impl Twins {
    /// Carries out a device's request.
    pub fn answer(&self, device_id: &str, request: Request<'_>, body: &[u8]) -> Answer {
        match request {
            Request::Get { rid } => Answer::new(200, rid, "", self.get(device_id).to_string().into_bytes()),
            Request::PatchReported { rid } => match self.patch(device_id, body) {
                Ok(version) => Answer::new(204, rid, &format!("&$version={version}"), Vec::new()),
                Err((status, reason)) => {
                    tracing::warn!(device = device_id, "reported properties refused: {reason}");
                    Answer::new(status, rid, "", json!({ "message": reason }).to_string().into_bytes())
                }
            },
        }
    }

    /// `{"desired":{"$version":1},"reported":{…,"$version":N}}`.
    pub fn get(&self, device_id: &str) -> Value {
        let twins = self.twins();
        let fresh = Reported::default();
        let reported = twins.get(device_id).unwrap_or(&fresh);
        let mut properties = reported.properties.clone();
        properties.insert("$version".into(), reported.version.into());
        json!({ "desired": { "$version": 1 }, "reported": properties })
    }

    fn patch(&self, device_id: &str, body: &[u8]) -> Result<u64, (u16, String)> {
        let patch: Map<String, Value> =
            serde_json::from_slice(body).map_err(|error| (400, format!("not a JSON object: {error}")))?;
        if let Some(name) = patch.keys().find(|name| name.starts_with('$')) {
            return Err((400, format!("a property cannot be named {name:?}")));
        }
        let mut twins = self.twins();
        let before = twins.get(device_id);
        let mut properties = before.map(|reported| reported.properties.clone()).unwrap_or_default();
        let version = before.map_or(1, |reported| reported.version) + 1;
        merge(&mut properties, patch);
        let size = serde_json::to_vec(&properties).map_or(usize::MAX, |json| json.len());
        if size > MAX_REPORTED {
            return Err((413, format!("{size} bytes of reported properties; {MAX_REPORTED} are allowed")));
        }
        twins.insert(device_id.to_owned(), Reported { properties, version });
        Ok(version)
    }

    fn twins(&self) -> MutexGuard<'_, HashMap<String, Reported>> {
        self.twins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Answer {
    fn new(status: u16, rid: &str, more: &str, body: Vec<u8>) -> Self {
        Self { topic: format!("$iothub/twin/res/{status}/?$rid={rid}{more}"), body }
    }
}

/// Merges objects member by member. Null deletes a member, any other value replaces it.
fn merge(into: &mut Map<String, Value>, patch: Map<String, Value>) {
    for (name, value) in patch {
        match value {
            Value::Null => {
                into.remove(&name);
            }
            Value::Object(patch) => {
                let mut merged = match into.remove(&name) {
                    Some(Value::Object(before)) => before,
                    _ => Map::new(),
                };
                merge(&mut merged, patch);
                into.insert(name, Value::Object(merged));
            }
            value => {
                into.insert(name, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patch(twins: &Twins, body: &str) -> String {
        twins.answer("d", Request::PatchReported { rid: "9" }, body.as_bytes()).topic
    }

    #[test]
    fn topics_of_the_sdks_are_understood() {
        for (topic, request) in [
            ("$iothub/twin/GET/?$rid=1", Some(Request::Get { rid: "1" })),
            ("$iothub/twin/GET/?a=b&$rid=a-1", Some(Request::Get { rid: "a-1" })),
            ("$iothub/twin/PATCH/properties/reported/?$rid=2", Some(Request::PatchReported { rid: "2" })),
            ("$iothub/twin/PATCH/properties/desired/?$rid=2", None),
            ("$iothub/twin/GET/", None),
            ("$iothub/twin/GET/?rid=1", None),
            ("$iothub/methods/res/200/?$rid=1", None),
        ] {
            assert_eq!(Request::of_topic(topic), request, "{topic}");
        }
    }

    #[test]
    fn reported_properties_are_merged_and_null_deletes() {
        let twins = Twins::default();
        assert_eq!(twins.get("d"), json!({"desired": {"$version": 1}, "reported": {"$version": 1}}));
        assert_eq!(patch(&twins, r#"{"a":{"b":1,"c":[1]},"d":2}"#), "$iothub/twin/res/204/?$rid=9&$version=2");
        assert_eq!(
            patch(&twins, r#"{"a":{"b":null,"e":{"f":null}},"d":null}"#),
            "$iothub/twin/res/204/?$rid=9&$version=3"
        );
        let answer = twins.answer("d", Request::Get { rid: "x" }, b"");
        assert_eq!(answer.topic, "$iothub/twin/res/200/?$rid=x");
        let twin: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(twin["reported"], json!({"a": {"c": [1], "e": {}}, "$version": 3}));
        assert_eq!(twins.get("e")["reported"], json!({"$version": 1}), "another device's");
    }

    #[test]
    fn what_cannot_be_reported_changes_nothing() {
        let twins = Twins::default();
        let large = json!({ "a": "x".repeat(MAX_REPORTED) }).to_string();
        for (body, status) in [("{", 400), ("[]", 400), ("", 400), (r#"{"$version":5}"#, 400), (large.as_str(), 413)] {
            assert_eq!(patch(&twins, body), format!("$iothub/twin/res/{status}/?$rid=9"));
        }
        assert_eq!(twins.get("d")["reported"], json!({"$version": 1}));
        let exact = json!({ "a": "x".repeat(MAX_REPORTED - 8) }).to_string();
        assert!(patch(&twins, &exact).contains("/204/"));
    }
}
