//! Emulates the part of the storage service's REST API that moving and counting messages needs. It only checks that a
//! signature is there; Azurite verifies the signatures.
//! <https://learn.microsoft.com/rest/api/storageservices/queue-service-rest-api>

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, put},
};
use tokio::net::TcpListener;

/// The messages of a queue, in order: id, stored text, visible or not.
type Messages = Vec<(String, String, bool)>;

#[derive(Clone, Default)]
pub struct Storage(Arc<Mutex<Queues>>);

#[derive(Default)]
struct Queues {
    queues: BTreeMap<String, Messages>,
    ids: usize,
    /// This many more messages can be put; then every put fails.
    most_puts: Option<usize>,
    /// Every request is refused with this error code.
    refusal: Option<&'static str>,
}

impl Storage {
    /// Starts to listen. Returns the connection string.
    pub async fn start(&self) -> String {
        let routes = Router::new()
            .route("/{account}/{queue}", get(metadata))
            .route("/{account}/{queue}/messages", get(take).post(add))
            .route("/{account}/{queue}/messages/{id}", put(update).delete(delete))
            .with_state(self.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        format!("AccountName=a;AccountKey=a2V5;QueueEndpoint=http://{address}/a")
    }

    pub fn add(&self, queue: &str, stored: &str) {
        let mut state = self.0.lock().unwrap();
        state.ids += 1;
        // As in the real service, ids and receipts contain characters that must be encoded in a URL.
        let id = format!("{:08}", state.ids);
        state.queues.entry(queue.to_owned()).or_default().push((id, stored.to_owned(), true));
    }

    pub fn fail_after(&self, puts: usize) {
        self.0.lock().unwrap().most_puts = Some(puts);
    }

    /// Answers 403 with this error code from now on.
    pub fn refuse_with(&self, code: &'static str) {
        self.0.lock().unwrap().refusal = Some(code);
    }

    /// The stored texts, and how many of them are visible.
    pub fn texts(&self, queue: &str) -> (Vec<String>, usize) {
        let state = self.0.lock().unwrap();
        let messages = state.queues.get(queue).cloned().unwrap_or_default();
        let seen = messages.iter().filter(|(_, _, is_seen)| *is_seen).count();
        (messages.into_iter().map(|(_, text, _)| text).collect(), seen)
    }
}

type Parameters = Query<HashMap<String, String>>;

fn refused(storage: &Storage, parameters: &Parameters) -> Option<Response> {
    let is_signed = ["sv", "se", "sig"].iter().all(|name| parameters.contains_key(*name));
    let code = storage.0.lock().unwrap().refusal.or((!is_signed).then_some("AuthenticationFailed"))?;
    Some((StatusCode::FORBIDDEN, [("x-ms-error-code", code)]).into_response())
}

fn missing() -> Response {
    (StatusCode::NOT_FOUND, [("x-ms-error-code", "QueueNotFound")]).into_response()
}

async fn metadata(
    State(storage): State<Storage>,
    Path((_, queue)): Path<(String, String)>,
    query: Parameters,
) -> Response {
    if let Some(refused) = refused(&storage, &query) {
        return refused;
    }
    assert_eq!(query["comp"], "metadata");
    let state = storage.0.lock().unwrap();
    let Some(messages) = state.queues.get(&queue) else { return missing() };
    [("x-ms-approximate-messages-count", messages.len().to_string())].into_response()
}

async fn take(State(storage): State<Storage>, Path((_, queue)): Path<(String, String)>, query: Parameters) -> Response {
    if let Some(refused) = refused(&storage, &query) {
        return refused;
    }
    let most: usize = query["numofmessages"].parse().unwrap();
    let mut state = storage.0.lock().unwrap();
    let Some(messages) = state.queues.get_mut(&queue) else { return missing() };
    let mut body = "<?xml version=\"1.0\" encoding=\"utf-8\"?><QueueMessagesList>".to_owned();
    for (id, text, is_seen) in messages.iter_mut().filter(|(_, _, is_seen)| *is_seen).take(most) {
        *is_seen = false;
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        body += &format!(
            "<QueueMessage><MessageId>{id}</MessageId><PopReceipt>{id}+/=</PopReceipt><DequeueCount>1</DequeueCount>\
             <MessageText>{text}</MessageText></QueueMessage>"
        );
    }
    (body + "</QueueMessagesList>").into_response()
}

async fn add(
    State(storage): State<Storage>,
    Path((_, queue)): Path<(String, String)>,
    query: Parameters,
    body: String,
) -> Response {
    if let Some(refused) = refused(&storage, &query) {
        return refused;
    }
    {
        let mut state = storage.0.lock().unwrap();
        if !state.queues.contains_key(&queue) {
            return missing();
        }
        if let Some(left) = &mut state.most_puts {
            if *left == 0 {
                return (StatusCode::SERVICE_UNAVAILABLE, [("x-ms-error-code", "ServerBusy")]).into_response();
            }
            *left -= 1;
        }
    }
    let text = body.split_once("<MessageText>").unwrap().1.split_once("</MessageText>").unwrap().0;
    storage.add(&queue, text);
    StatusCode::CREATED.into_response()
}

/// The message with this id and receipt.
fn found(
    storage: &Storage,
    queue: &str,
    id: &str,
    query: &Parameters,
    then: impl FnOnce(&mut Messages, usize),
) -> Response {
    if let Some(refused) = refused(storage, query) {
        return refused;
    }
    let mut state = storage.0.lock().unwrap();
    let Some(messages) = state.queues.get_mut(queue) else { return missing() };
    let is_it =
        |(of, _, is_seen): &(String, String, bool)| of == id && !is_seen && query["popreceipt"] == format!("{id}+/=");
    let Some(at) = messages.iter().position(is_it) else {
        return (StatusCode::NOT_FOUND, [("x-ms-error-code", "MessageNotFound")]).into_response();
    };
    then(messages, at);
    StatusCode::NO_CONTENT.into_response()
}

async fn update(
    State(storage): State<Storage>,
    Path((_, queue, id)): Path<(String, String, String)>,
    query: Parameters,
) -> Response {
    assert_eq!(query["visibilitytimeout"], "0");
    found(&storage, &queue, &id, &query, |messages, at| messages[at].2 = true)
}

async fn delete(
    State(storage): State<Storage>,
    Path((_, queue, id)): Path<(String, String, String)>,
    query: Parameters,
) -> Response {
    found(&storage, &queue, &id, &query, |messages, at| drop(messages.remove(at)))
}
