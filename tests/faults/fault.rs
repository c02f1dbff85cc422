//! Lists the faults of a service that speaks HTTP.

use serde_json::{Value, json};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The port refuses connections.
    Refused,
    /// The service accepts requests and never answers them.
    Silent,
    /// The service acts at once. Its answer comes after 30 s, longer than any time-out here.
    TooSlow,
    /// The service acts at once. Its answer is late but within the time-out.
    Slow,
    Status(u16),
    /// With `Retry-After`, in seconds.
    StatusAfter(u16, u32),
    /// The service acts. The connection breaks in the middle of the answer.
    CutBody,
    /// Status 200 and bytes that are not text.
    Garbage,
    /// The normal answer with another content type: `text/html`.
    ContentType,
    /// A careless service: status 500 with a page that shows the whole request.
    Echo,
}

impl Fault {
    pub fn name(self) -> String {
        match self {
            Self::Refused => "connection refused".into(),
            Self::Silent => "never answers".into(),
            Self::TooSlow => "answers after 30 s".into(),
            Self::Slow => "slow, but in time".into(),
            Self::Status(status) => format!("status {status}"),
            Self::StatusAfter(status, _) => format!("status {status} with Retry-After"),
            Self::CutBody => "cut in the middle of the answer".into(),
            Self::Garbage => "200 with garbage".into(),
            Self::ContentType => "200 with another content type".into(),
            Self::Echo => "500 with a page that shows the request".into(),
        }
    }

    /// The body for `PUT /trouble`; `None` for a closed port. `slow_ms` is a delay within the time-out.
    pub fn effect(self, slow_ms: u64) -> Option<Value> {
        let answer = |status: u16, headers: Value| json!({"answer": {"status": status, "headers": headers, "body": "{\"err\":\"as asked for\"}"}});
        Some(match self {
            Self::Refused => return None,
            Self::Silent => json!("hang"),
            Self::TooSlow => json!({"delayMs": 30_000}),
            Self::Slow => json!({"delayMs": slow_ms}),
            Self::Status(status) => answer(status, json!({"content-type": "application/json"})),
            Self::StatusAfter(status, seconds) => answer(
                status,
                // The second header is Cosmos DB's.
                json!({"content-type": "application/json", "retry-after": seconds.to_string(),
                       "x-ms-retry-after-ms": (seconds * 1000).to_string()}),
            ),
            Self::CutBody => json!("cutBody"),
            Self::Garbage => json!("garbage"),
            Self::ContentType => json!({"contentType": "text/html"}),
            Self::Echo => json!("echo"),
        })
    }
}
