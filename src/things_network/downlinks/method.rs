//! The commands of IoT Central, which names a command in the property `method-name` and cannot set other properties: the
//! settings say how each is sent. Pure.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::{
    downlink::{Operation, confirmed, operation, port, priority},
    payload::object,
};

/// How the commands are sent, by their names in lower case.
#[derive(Clone, Debug, Default)]
pub struct Methods(BTreeMap<String, Method>);

/// How a command is sent. A property of the message comes before the setting.
#[derive(Clone, Debug, Default)]
pub struct Method {
    pub port: Option<u8>,
    pub confirmed: Option<bool>,
    pub priority: Option<&'static str>,
    pub operation: Option<Operation>,
    /// The object for a command without a parameter.
    pub payload: Option<Box<RawValue>>,
}

/// What can be set for a command.
pub const MEMBERS: [&str; 5] = ["Port", "Confirmed", "Priority", "Queue", "Payload"];

impl Methods {
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Method> {
        self.0.get(&name.to_ascii_lowercase())
    }

    /// Sets one of the [`MEMBERS`] of a command. Names are case-insensitive.
    ///
    /// # Errors
    /// The fault, as the rest of a sentence that begins with the setting's name.
    pub fn set(&mut self, name: &str, member: &str, value: &str) -> Result<(), String> {
        let method = self.0.entry(name.to_ascii_lowercase()).or_default();
        match MEMBERS.into_iter().find(|known| known.eq_ignore_ascii_case(member)) {
            Some("Port") => method.port = Some(port(value)?),
            Some("Confirmed") => method.confirmed = Some(confirmed(value)?),
            Some("Priority") => method.priority = Some(priority(value)?),
            Some("Queue") => method.operation = Some(operation(value)?),
            Some(_) => {
                let payload = object(value.as_bytes());
                method.payload = Some(payload.map_err(|why| format!("is not a JSON object: {why}"))?);
            }
            None => {
                return Err(format!("sets nothing: a command of IoT Central has {}", MEMBERS.join(", ")));
            }
        }
        Ok(())
    }
}
