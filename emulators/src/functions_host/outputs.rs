//! Puts a function's messages into queues.
//!
//! The host takes the values apart in its own way, with surprises (`HttpScriptInvocationResultExtensions` and
//! `FunctionBinding` of the host). The tests below list them.

use std::sync::Arc;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde_json::Value;

use super::answer::Answer;
use crate::queues::Queue;

/// A queue output of a function.
pub struct Output {
    /// The binding's name.
    pub binding: String,
    pub queue: Arc<Queue>,
}

/// Puts the messages of an answer into their queues, one after the other as the host does.
///
/// # Errors
/// Names the binding and the queue. Messages that were put before the error stay there.
pub async fn send(answer: &Answer, outputs: &[Output]) -> Result<(), String> {
    for Output { binding, queue } in outputs {
        let failed = |problem: String| format!("the output {binding} to the queue {} failed: {problem}", queue.name());
        for message in messages(answer.output(binding)).map_err(failed)? {
            queue.put(message).await.map_err(|error| failed(error.to_string()))?;
        }
    }
    Ok(())
}

/// The messages of an output's value.
///
/// # Errors
/// Says which part the host cannot read.
fn messages(value: &Value) -> Result<Vec<Bytes>, String> {
    let text = match value {
        Value::Null => return Ok(Vec::new()),
        Value::Array(elements) => return Ok(elements.iter().map(message).collect()),
        Value::String(text) => text,
        other => return Ok(vec![message(other)]),
    };
    if let Some(bytes) = from_base64(text) {
        return Ok(vec![bytes.into()]);
    }
    let trimmed = text.trim();
    let looks_like = |first, last| trimmed.starts_with(first) && trimmed.ends_with(last);
    if !looks_like('{', '}') && !looks_like('[', ']') {
        return Ok(vec![message(value)]);
    }
    match serde_json::from_str(trimmed) {
        Ok(Value::Array(elements)) => Ok(elements.iter().map(message).collect()),
        Ok(other) => Ok(vec![message(&other)]),
        Err(error) => Err(format!("the string looks like JSON and is none: {error}")),
    }
}

/// `JToken.ToString()`: JSON is indented, a string stays as it is, and other values are written as .NET writes them.
/// (Members of objects are sorted here; the real host keeps their order.)
fn message(value: &Value) -> Bytes {
    match value {
        Value::String(text) => Bytes::copy_from_slice(text.as_bytes()),
        Value::Null => Bytes::new(),
        Value::Bool(flag) => Bytes::from_static(if *flag { b"True" } else { b"False" }),
        Value::Number(number) => number.to_string().into(),
        json => serde_json::to_vec_pretty(json).expect("JSON is JSON").into(),
    }
}

/// Base64 as .NET reads it: white space between the characters does not matter.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/= \t\r\n".contains(byte);
    if !text.as_bytes().iter().all(is_base64) {
        return None;
    }
    let text: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    BASE64_STANDARD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_become_messages_as_the_real_host_makes_them() {
        for (value, expected) in [
            (json!(null), vec![]),
            (json!([]), vec![]),
            (json!(["one", "two"]), vec!["one", "two"]),
            // Strings in an array stay unchanged, whatever they look like.
            (json!(["dHdv", "[1]", "{broken}", ""]), vec!["dHdv", "[1]", "{broken}", ""]),
            (
                json!([{ "b": 1, "a": [] }, 1, 1.5, true, null, [1]]),
                vec!["{\n  \"a\": [],\n  \"b\": 1\n}", "1", "1.5", "True", "", "[\n  1\n]"],
            ),
            (json!({ "a": 1 }), vec!["{\n  \"a\": 1\n}"]),
            (json!(7), vec!["7"]),
            (json!(false), vec!["False"]),
            (json!("hello!!"), vec!["hello!!"]),
            // A single string that happens to be Base64 becomes bytes.
            (json!("dHdv"), vec!["two"]),
            (json!(" dH\ndv\t"), vec!["two"]),
            (json!(""), vec![""]),
            (json!("dHdv?"), vec!["dHdv?"]),
            (json!("dHd"), vec!["dHd"]),
            // A single string that holds an array is taken apart.
            (json!(" [\"one\",2] "), vec!["one", "2"]),
            (json!("{\"a\":1}"), vec!["{\n  \"a\": 1\n}"]),
        ] {
            let messages = messages(&value).unwrap();
            let texts: Vec<_> = messages.iter().map(|bytes| std::str::from_utf8(bytes).unwrap()).collect();
            assert_eq!(texts, expected, "{value}");
        }
        assert!(messages(&json!("{broken}")).unwrap_err().contains("looks like JSON"));
        assert_eq!(messages(&json!("abcd")).unwrap()[0][..], [0x69, 0xb7, 0x1d], "no UTF-8 any more");
    }
}
