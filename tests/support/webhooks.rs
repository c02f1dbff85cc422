//! Calls the API of the emulated Things Stack as an operator who may do everything.

use serde_json::{Value, json};

use super::process::{Emulator, client};

pub async fn stack_api(stack: &Emulator, method: &str, path: &str, body: Option<Value>) -> Value {
    let url = format!("{}{path}", stack.ready("endpoint"));
    let request = client().request(method.parse().unwrap(), url).bearer_auth(stack.ready("apikey"));
    let response = request.body(body.map(|body| body.to_string()).unwrap_or_default()).send().await.unwrap();
    let text = response.text().await.unwrap();
    serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"))
}

/// Makes or changes a webhook, as another tool does. What is null is removed.
pub async fn put_webhook(stack: &Emulator, application: &str, id: &str, webhook: Value) {
    let paths: Vec<_> = webhook.as_object().unwrap().keys().cloned().collect();
    let body = json!({"webhook": webhook, "field_mask": {"paths": paths}});
    let answer = stack_api(stack, "PUT", &format!("as/webhooks/{application}/{id}"), Some(body)).await;
    assert_eq!(answer["ids"]["webhook_id"], id, "{answer}");
}
