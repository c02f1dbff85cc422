//! How The Things Stack says no to a request about webhooks. Pure.

use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use super::rights;
use crate::support::http;

/// Names of errors that say that the webhook or the device is not there. (The Things Stack's source: `pkg/redis/errors.go`,
/// `pkg/applicationserver`.)
const ABSENT: [&str; 3] = ["not_found", "webhook_not_found", "device_not_found"];
/// The key is for something else, or the application does not exist: The Things Stack does not tell which.
/// (`pkg/auth/rights/require.go`)
const NO_RIGHTS: &str = "no_application_rights";

/// Why a request about webhooks failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    #[error("The Things Stack cannot be used: {0}")]
    Unusable(String),
    #[error("The Things Stack refused the API key ({status}): check ThingsStackApiKey; it says: {text}")]
    Unauthorized { status: u16, text: String },
    #[error(
        "the API key has no rights on application {application}, or there is no such application: check the application's id, \
         and that ThingsStackApiKey is a key of this application, or of a user or organization that may use it"
    )]
    NoRights { application: String },
    #[error(
        "the API key lacks rights on application {application}: give the key of ThingsStackApiKey {}",
        rights::in_words(.rights.iter().map(String::as_str))
    )]
    Lacking { application: String, rights: Vec<String> },
    /// The webhook or the device.
    #[error("The Things Stack has no such entity: check its id; it says: {text}")]
    Absent { text: String },
    #[error("what answered {status} at {place} is not The Things Stack: check ThingsStackUrl; it says: {text}")]
    Stranger { place: String, status: u16, text: String },
    #[error("The Things Stack answered {status}; it says: {text}")]
    Status { status: u16, text: String },
    #[error("The Things Stack cannot be reached at {place} ({text}): check ThingsStackUrl and the network")]
    Unreachable { place: String, text: String },
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Refusal {
    code: Option<u32>,
    details: Vec<Detail>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Detail {
    name: String,
    attributes: Value,
}

impl RegistryError {
    /// Explains an answer that is not a success.
    #[must_use]
    pub fn of_answer(place: &str, application: &str, status: StatusCode, body: &[u8]) -> Self {
        let (_, text) = http::error_text(body);
        let number = status.as_u16();
        let refusal: Refusal = serde_json::from_slice(body).unwrap_or_default();
        if refusal.code.is_none() {
            return match status {
                // A busy service in front of it.
                StatusCode::TOO_MANY_REQUESTS => Self::Status { status: number, text },
                status if status.is_server_error() => Self::Status { status: number, text },
                _ => Self::Stranger { place: place.to_owned(), status: number, text },
            };
        }
        let application = application.to_owned();
        let has_name = |name: &str| refusal.details.iter().any(|detail| detail.name == name);
        let lacking: Vec<_> = refusal.details.iter().flat_map(|detail| missing(&detail.attributes)).collect();
        match status {
            StatusCode::UNAUTHORIZED => Self::Unauthorized { status: number, text },
            StatusCode::FORBIDDEN if !lacking.is_empty() => Self::Lacking { application, rights: lacking },
            StatusCode::FORBIDDEN if has_name(NO_RIGHTS) => Self::NoRights { application },
            StatusCode::FORBIDDEN => Self::Unauthorized { status: number, text },
            StatusCode::NOT_FOUND if ABSENT.iter().any(|name| has_name(name)) => Self::Absent { text },
            _ => Self::Status { status: number, text },
        }
    }
}

/// The rights that the caller lacks: a list, or one text.
fn missing(attributes: &Value) -> Vec<String> {
    let words = |text: &str| -> Vec<String> {
        let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        text.split(|letter| !is_part(letter)).filter(|word| !word.is_empty()).map(str::to_owned).collect()
    };
    match &attributes["missing"] {
        Value::Array(list) => list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Value::String(text) => words(text),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn error(status: u16, body: &str) -> RegistryError {
        let status = StatusCode::from_u16(status).unwrap();
        RegistryError::of_answer("https://eu1.example", "pumps", status, body.as_bytes())
    }

    fn refusal(status: u16, name: &str, attributes: Value) -> RegistryError {
        error(
            status,
            &json!({"code": 7, "message": "no", "details": [{"name": name, "attributes": attributes}]}).to_string(),
        )
    }

    #[test]
    fn what_a_key_may_not_do_is_told() {
        for missing in [json!(["RIGHT_APPLICATION_SETTINGS_BASIC"]), json!("[RIGHT_APPLICATION_SETTINGS_BASIC]")] {
            let error = refusal(403, "insufficient_application_rights", json!({ "missing": missing })).to_string();
            assert!(error.contains("application pumps: give the key"), "{error}");
            assert!(error.ends_with("\"Edit basic application settings\""), "{error}");
        }
        let none = refusal(403, NO_RIGHTS, json!({"uid": "pumps"}));
        assert!(matches!(none, RegistryError::NoRights { .. }) && none.to_string().contains("no such application"));
        for (status, name) in [(401, "api_key_not_found"), (403, "user_suspended")] {
            assert!(matches!(refusal(status, name, Value::Null), RegistryError::Unauthorized { .. }), "{name}");
        }
    }

    #[test]
    fn what_is_not_there_is_told_from_who_is_not_there() {
        assert!(matches!(refusal(404, "not_found", Value::Null), RegistryError::Absent { .. }));
        assert!(matches!(refusal(404, "route_not_found", Value::Null), RegistryError::Status { status: 404, .. }));
        for (status, body) in [(404, "<html>Not Found</html>"), (302, ""), (200, "<html>"), (401, "login first")] {
            let error = error(status, body);
            assert!(error.to_string().contains("at https://eu1.example is not The Things Stack"), "{error}");
        }
        assert!(matches!(error(502, "<html>Bad Gateway</html>"), RegistryError::Status { status: 502, .. }));
    }
}
