//! The payload formatters of the devices: what becomes of `decoded_payload`. Pure.
//!
//! Source: lorawan-stack `pkg/messageprocessors/payload.go` (`formatter_not_configured` is FailedPrecondition),
//! `pkg/messageprocessors/javascript/javascript.go` (`input` is InvalidArgument, `output_errors` is Aborted) and
//! `pkg/scripting/javascript` (`script` and `runtime` are Aborted). The Application Server encodes a downlink before it
//! is queued (`pkg/applicationserver/applicationserver.go`), so that the request for the downlink is refused.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::refusal::Refusal;

/// What a device's formatter for downlinks does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Formatter {
    /// Of any application.
    pub device: String,
    pub does: Does,
    /// With an error: only payloads whose JSON contains this text meet it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub contains: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Does {
    /// There is none.
    NotConfigured,
    /// It takes the payload for invalid.
    Input,
    /// It returns `errors`.
    OutputErrors,
    /// Its text is not a script.
    Script,
    /// It throws.
    Runtime,
}

/// Devices without an entry have a formatter that takes all.
#[derive(Debug, Default)]
pub struct Formatters(HashMap<String, Formatter>);

impl Formatters {
    pub fn set(&mut self, formatter: Formatter) {
        self.0.insert(formatter.device.clone(), formatter);
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// # Errors
    /// What the formatter says to one of the downlinks.
    pub fn check(&self, device: &str, downlinks: &[Value]) -> Result<(), Refusal> {
        let Some(formatter) = self.0.get(device) else { return Ok(()) };
        let mut payloads = downlinks.iter().filter_map(|downlink| downlink.get("decoded_payload"));
        match payloads.any(|payload| payload.to_string().contains(&formatter.contains)) {
            true => Err(Refusal::formatter(formatter.does)),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_formatter_refuses_what_it_does_not_take_and_never_bytes() {
        let mut formatters = Formatters::default();
        let (bad, good) = ([json!({"decoded_payload": {"bad": 1}})], [json!({"decoded_payload": {"open": true}})]);
        assert_eq!(formatters.check("enc-1", &bad), Ok(()));
        let formatter = json!({"device": "enc-1", "does": "output_errors", "contains": "bad"});
        formatters.set(serde_json::from_value(formatter).unwrap());
        assert_eq!(formatters.check("enc-1", &bad), Err(Refusal::formatter(Does::OutputErrors)));
        assert_eq!((formatters.check("enc-1", &good), formatters.check("enc-2", &bad)), (Ok(()), Ok(())));
        formatters.set(serde_json::from_value(json!({"device": "enc-1", "does": "not_configured"})).unwrap());
        assert_eq!(formatters.check("enc-1", &good), Err(Refusal::formatter(Does::NotConfigured)));
        assert_eq!(formatters.check("enc-1", &[json!({"frm_payload": "AA=="})]), Ok(()));
    }
}
