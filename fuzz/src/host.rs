//! Laws for the requests of the Functions host.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use iothub_connector::host::{http::HttpRequest, queue::QueueMessage, timer};
use serde_json::json;

use super::bounds::check_error;

/// Envelopes of all kinds. The bytes are the envelope itself, and also the content of an envelope.
pub fn envelopes(data: &[u8]) {
    if let Err(error) = timer::read(data) {
        check_error(&error);
    }
    match HttpRequest::read(data, "req") {
        Ok(request) => {
            let printed = format!("HttpRequest {{ length: {}, .. }}", request.body.len());
            assert_eq!(format!("{request:?}"), printed, "bodies and headers do not print");
        }
        Err(error) => check_error(&error),
    }
    match QueueMessage::read(data, "uplink") {
        Ok(message) => {
            let printed = format!("QueueMessage {{ dequeue_count: {:?}, .. }}", message.dequeue_count);
            assert_eq!(format!("{message:?}"), printed, "texts do not print");
        }
        Err(error) => check_error(&error),
    }
    http_body(data);
    if let Ok(text) = std::str::from_utf8(data) {
        http_text(text);
        queue_text(text);
    }
}

/// A text is read unchanged, also in a header.
fn http_text(text: &str) {
    let envelope = json!({"Data": {"req": {"Headers": {"X-Text": [text, "2"], "Accept": "*/*"}, "Body": text}}});
    let envelope = envelope.to_string();
    let request = HttpRequest::read(envelope.as_bytes(), "req").expect("the host's envelope");
    assert_eq!(request.body, text);
    assert_eq!(request.header("x-text"), Some(text));
}

/// A body that the host takes for binary, and sends as Base64, is decoded and read as UTF-8 text.
fn http_body(body: &[u8]) {
    let headers = json!({"Content-Type": ["Application/Octet-Stream"]});
    let envelope = json!({"Data": {"req": {"Headers": headers, "Body": BASE64_STANDARD.encode(body)}}});
    let envelope = envelope.to_string();
    let request = HttpRequest::read(envelope.as_bytes(), "req").expect("the host's envelope");
    assert_eq!(request.body, String::from_utf8_lossy(body));
}

/// The text of a queue's message is read unchanged, from a string that holds a string and from a plain string.
fn queue_text(text: &str) {
    let read = |data: &serde_json::Value| {
        let envelope = json!({"Data": {"uplink": data}, "Metadata": {"DequeueCount": "7", "InsertionTime": text}});
        QueueMessage::read(envelope.to_string().as_bytes(), "uplink").expect("the host's envelope")
    };
    let message = read(&json!(json!(text).to_string()));
    assert_eq!((message.text.as_str(), message.dequeue_count), (text, Some(7)));
    if serde_json::from_str::<String>(text).is_err() {
        assert_eq!(read(&json!(text)).text, text);
    }
}
