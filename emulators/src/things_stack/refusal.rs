//! How The Things Stack says no: a gRPC status as JSON, with details that name the error.
//!
//! Source: The Things Stack's documentation, "API errors"; names and texts are those of its source.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::formatter::Does;

/// An error of The Things Stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: StatusCode,
    /// gRPC's code.
    code: u8,
    namespace: &'static str,
    name: &'static str,
    pub text: String,
    attributes: Value,
}

const WEBHOOKS: &str = "pkg/applicationserver/io/web";

impl Refusal {
    fn new(status: u16, code: u8, namespace: &'static str, name: &'static str, text: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, code, namespace, name, text: text.into(), attributes: Value::Null }
    }

    fn with(self, attributes: Value) -> Self {
        Self { attributes, ..self }
    }

    pub fn no_rights(application: &str) -> Self {
        Self::new(
            403,
            7,
            "pkg/auth/rights",
            "no_application_rights",
            format!("no rights for application `{application}`"),
        )
    }

    pub fn lacking_rights(application: &str, missing: &[&str]) -> Self {
        let text = format!("insufficient rights for application `{application}`");
        let refusal = Self::new(403, 7, "pkg/auth/rights", "insufficient_application_rights", text);
        refusal.with(json!({"uid": application, "missing": missing}))
    }

    /// Source: lorawan-stack `pkg/redis/errors.go`.
    pub fn not_found() -> Self {
        Self::new(404, 5, "pkg/redis", "not_found", "entity not found")
    }

    /// Source: lorawan-stack `pkg/rpcmiddleware/validator/validator.go`.
    pub fn forbidden_paths(paths: &[&str]) -> Self {
        let text = "forbidden path(s) in field mask";
        let refusal = Self::new(400, 3, "pkg/rpcmiddleware/validator", "field_mask_paths", text);
        refusal.with(json!({ "forbidden_paths": paths }))
    }

    /// Source: lorawan-stack `pkg/errors/validation.go`.
    pub fn invalid(field: &str, reason: &str) -> Self {
        Self::new(400, 3, "pkg/errors", "validation", format!("invalid `{field}`: {reason}"))
    }

    pub fn simulated_again() -> Self {
        let text = "simulated traffic cannot be simulated again";
        Self::new(400, 3, "pkg/applicationserver/io/grpc", "simulated", text)
    }

    pub fn bad_json(reason: impl std::fmt::Display) -> Self {
        Self::new(400, 3, "pkg/errors/web", "unknown", format!("parsing the body: {reason}"))
    }

    pub fn unsupported_authorization() -> Self {
        let text = "unsupported authorization method";
        Self::new(401, 16, "pkg/identityserver", "unsupported_authorization", text)
    }

    pub fn unknown_key() -> Self {
        Self::new(401, 16, "pkg/identityserver", "api_key_not_found", "API key not found")
    }

    pub fn unknown_application(application: &str) -> Self {
        let text = format!("application `{application}` not found");
        Self::new(404, 5, "pkg/identityserver/store", "application_not_found", text)
    }

    pub fn unknown_webhook() -> Self {
        Self::new(404, 5, WEBHOOKS, "webhook_not_found", "webhook not found")
    }

    pub fn unknown_device(device: &str) -> Self {
        Self::new(404, 5, "pkg/applicationserver", "device_not_found", format!("device `{device}` not found"))
    }

    pub fn unknown_route() -> Self {
        Self::new(404, 5, "pkg/errors/web", "unknown", "Not Found")
    }

    pub fn bad_body(reason: impl std::fmt::Display) -> Self {
        Self::new(400, 3, WEBHOOKS, "decode_body", format!("decode body: {reason}"))
    }

    pub fn bad_query(reason: impl std::fmt::Display) -> Self {
        Self::new(400, 3, "pkg/errors/web", "unknown", format!("parsing the query: {reason}"))
    }

    pub fn too_large(limit: usize) -> Self {
        Self::new(413, 8, WEBHOOKS, "read_body", format!("the body has more than {limit} bytes"))
    }

    pub fn queue_full(limit: usize) -> Self {
        let text = format!("the downlink queue holds {limit} messages");
        Self::new(429, 8, "pkg/networkserver", "downlink_queue_capacity_exceeded", text)
    }

    /// What a payload formatter says. See `formatter` for the places in The Things Stack's source.
    pub fn formatter(does: Does) -> Self {
        let (javascript, scripting) = ("pkg/messageprocessors/javascript", "pkg/scripting/javascript");
        match does {
            Does::NotConfigured => {
                let text = "formatter `FORMATTER_NONE` is not configured";
                Self::new(400, 9, "pkg/messageprocessors", "formatter_not_configured", text)
            }
            Does::Input => Self::new(400, 3, javascript, "input", "invalid input"),
            Does::OutputErrors => Self::new(409, 10, javascript, "output_errors", "unknown command"),
            Does::Script => Self::new(409, 10, scripting, "script", "SyntaxError: Unexpected token"),
            Does::Runtime => Self::new(409, 10, scripting, "runtime", "TypeError: value has no member"),
        }
    }

    /// The webhook is paused. Source: lorawan-stack `pkg/applicationserver/io/web/webhooks.go`, which answers without a
    /// body.
    pub fn paused() -> Self {
        Self::new(406, 0, WEBHOOKS, "", "")
    }

    /// What a status means when it is made to be answered.
    pub fn with_status(status: StatusCode) -> Self {
        match status.as_u16() {
            401 => Self::unknown_key(),
            403 => Self::no_rights("demanded"),
            406 => Self::paused(),
            429 => Self::new(429, 8, "pkg/ratelimit", "exceeded", "rate limit of `1` accesses per second exceeded"),
            503 => Self::new(503, 14, "pkg/errors/web", "unknown", "unavailable"),
            other => Self::new(other, 13, "pkg/errors", "unknown", "internal error"),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self { status, code, namespace, name, text, attributes } = self;
        if name.is_empty() {
            return status.into_response();
        }
        let body = json!({
            "code": code,
            "message": format!("error:{namespace}:{name} ({text})"),
            "details": [{
                "@type": "type.googleapis.com/ttn.lorawan.v3.ErrorDetails",
                "namespace": namespace,
                "name": name,
                "message_format": text,
                "attributes": attributes,
                "correlation_id": format!("{:032x}", fastrand::u128(..)),
                "code": code,
            }],
        });
        (status, Json(body)).into_response()
    }
}
