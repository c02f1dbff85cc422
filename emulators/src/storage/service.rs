//! Carries out the requests of the queue service.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{Query, Request, State},
    http::{Method, Response, StatusCode, request::Parts},
};
use chrono::{DateTime, Utc};
use quick_xml::escape::{escape, unescape};

use super::{
    auth::Key,
    messages::{Messages, New},
    queues::Queues,
};
use crate::queues::{Error, LARGEST_BATCH, LARGEST_MESSAGE, Message, Taken};

/// Larger than any message with its XML.
const LARGEST_BODY: usize = 512 * 1024;
/// How long a message is kept unless its request says otherwise.
const TIME_TO_LIVE: Duration = Duration::from_secs(7 * 24 * 60 * 60);
const INVISIBLE: Duration = Duration::from_secs(30);
const LONGEST_INVISIBLE: u64 = 7 * 24 * 60 * 60;

/// A status, and the error's code.
pub type Refusal = (StatusCode, &'static str);

/// A request in full.
pub struct Received {
    pub parts: Parts,
    pub query: BTreeMap<String, String>,
    pub body: Bytes,
}

struct Service {
    queues: Arc<Queues>,
    key: Arc<Key>,
}

pub fn router(queues: Arc<Queues>, key: Arc<Key>) -> Router {
    Router::new().fallback(serve).with_state(Arc::new(Service { queues, key }))
}

pub async fn received(request: Request) -> Result<Received, Refusal> {
    let (parts, body) = request.into_parts();
    let too_large = |_| (StatusCode::PAYLOAD_TOO_LARGE, "RequestBodyTooLarge");
    let body = to_bytes(body, LARGEST_BODY).await.map_err(too_large)?;
    let unreadable = |_| (StatusCode::BAD_REQUEST, "InvalidQueryParameterValue");
    let Query(query) = Query::try_from_uri(&parts.uri).map_err(unreadable)?;
    Ok(Received { parts, query, body })
}

async fn serve(State(service): State<Arc<Service>>, request: Request) -> Response<Body> {
    let Received { parts, query, body } = match received(request).await {
        Ok(received) => received,
        Err((status, code)) => return failure(status, code),
    };
    // Behind the account's name.
    let path: Vec<&str> = parts.uri.path().split('/').skip(2).collect();
    let Some(operation) = Operation::of(&parts.method, &path, &query) else {
        return failure(StatusCode::BAD_REQUEST, "UnsupportedHttpVerb");
    };
    if !service.key.allows(&parts, &query, body.len(), operation.permission()) {
        return failure(StatusCode::FORBIDDEN, "AuthenticationFailed");
    }
    carry_out(&service.queues, operation, path[0], &query, &body).unwrap_or_else(|(status, code)| failure(status, code))
}

enum Operation<'a> {
    Create,
    Metadata,
    Put,
    Take,
    Peek,
    Clear,
    Update(&'a str),
    Delete(&'a str),
}

impl<'a> Operation<'a> {
    fn of(method: &Method, path: &[&'a str], query: &BTreeMap<String, String>) -> Option<Self> {
        Some(match (method.as_str(), path) {
            ("PUT", [_]) => Self::Create,
            ("GET", [_]) if query.get("comp").is_some_and(|comp| comp == "metadata") => Self::Metadata,
            ("POST", [_, "messages"]) => Self::Put,
            ("GET", [_, "messages"]) if query.get("peekonly").is_some_and(|is_peek| is_peek == "true") => Self::Peek,
            ("GET", [_, "messages"]) => Self::Take,
            ("DELETE", [_, "messages"]) => Self::Clear,
            ("PUT", [_, "messages", id]) => Self::Update(id),
            ("DELETE", [_, "messages", id]) => Self::Delete(id),
            _ => return None,
        })
    }

    /// <https://learn.microsoft.com/rest/api/storageservices/create-account-sas#queue-service>
    fn permission(&self) -> char {
        match self {
            Self::Create => 'c',
            Self::Metadata | Self::Peek => 'r',
            Self::Put => 'a',
            Self::Take | Self::Delete(_) => 'p',
            Self::Clear => 'd',
            Self::Update(_) => 'u',
        }
    }
}

fn carry_out(
    queues: &Queues,
    operation: Operation<'_>,
    queue: &str,
    query: &BTreeMap<String, String>,
    body: &Bytes,
) -> Result<Response<Body>, Refusal> {
    if let Operation::Create = operation {
        let status = if queues.create(queue) { StatusCode::CREATED } else { StatusCode::NO_CONTENT };
        return Ok(empty(status));
    }
    let hidden = |default: Duration| number(query, "visibilitytimeout", default.as_secs(), 0..=LONGEST_INVISIBLE);
    let most = || number(query, "numofmessages", 1, 1..=LARGEST_BATCH as u64).map(|most| most as usize);
    let taken = |id: &str| Taken {
        message: Message::with_id(id),
        receipt: query.get("popreceipt").cloned().unwrap_or_default(),
    };
    let answer = match operation {
        Operation::Put => {
            let hidden = Duration::from_secs(hidden(Duration::ZERO)?);
            let content = text(body).ok_or((StatusCode::BAD_REQUEST, "InvalidXmlDocument"))?;
            if content.len() > LARGEST_MESSAGE {
                return Err((StatusCode::BAD_REQUEST, "RequestBodyTooLarge"));
            }
            let time_to_live = match query.get("messagettl").map(String::as_str) {
                None => Some(TIME_TO_LIVE),
                Some("-1") => None,
                Some(_) => Some(Duration::from_secs(number(query, "messagettl", 0, 1..=u64::from(u32::MAX))?)),
            };
            queues.with(queue, |messages, now| {
                messages.put(New { content: content.into(), time_to_live, hidden }, now);
                empty(StatusCode::CREATED)
            })
        }
        Operation::Take => {
            let (most, hidden) = (most()?, Duration::from_secs(hidden(INVISIBLE)?));
            queues.with(queue, |messages, now| list(messages.take(most, hidden, now).into_iter()))
        }
        Operation::Peek => {
            let most = most()?;
            queues.with(queue, |messages, now| {
                let visible = messages.all(now).into_iter().filter(|message| message.next_visible <= Some(now));
                list(visible.take(most).map(|message| Taken { message, receipt: String::new() }))
            })
        }
        Operation::Update(id) => {
            let hidden = Duration::from_secs(hidden(Duration::ZERO)?);
            queues.with(queue, |messages, now| update(messages, taken(id), hidden, now))
        }
        Operation::Delete(id) => queues.with(queue, |messages, now| match messages.delete(&taken(id), now) {
            Ok(()) => empty(StatusCode::NO_CONTENT),
            Err(error) => not_yours(&error),
        }),
        Operation::Clear => queues.with(queue, |messages, _| {
            *messages = Messages::default();
            empty(StatusCode::NO_CONTENT)
        }),
        Operation::Create | Operation::Metadata => queues.with(queue, |messages, now| {
            let counts = messages.counts(now);
            let count = counts.visible + counts.invisible;
            success(StatusCode::OK)
                .header("x-ms-approximate-messages-count", count)
                .body(Body::empty())
                .unwrap_or_default()
        }),
    };
    answer.ok_or((StatusCode::NOT_FOUND, "QueueNotFound"))
}

fn update(messages: &mut Messages, mut taken: Taken, hidden: Duration, now: DateTime<Utc>) -> Response<Body> {
    match messages.update(&mut taken, hidden, now) {
        Ok(()) => {
            let next = taken.message.next_visible.map(stamp).unwrap_or_default();
            let answer = success(StatusCode::NO_CONTENT).header("x-ms-popreceipt", taken.receipt);
            answer.header("x-ms-time-next-visible", next).body(Body::empty()).unwrap_or_default()
        }
        Err(error) => not_yours(&error),
    }
}

fn not_yours(error: &Error) -> Response<Body> {
    match error {
        Error::NotYours => failure(StatusCode::BAD_REQUEST, "PopReceiptMismatch"),
        _ => failure(StatusCode::NOT_FOUND, "MessageNotFound"),
    }
}

fn number(
    query: &BTreeMap<String, String>,
    name: &str,
    default: u64,
    allowed: std::ops::RangeInclusive<u64>,
) -> Result<u64, Refusal> {
    let Some(text) = query.get(name) else { return Ok(default) };
    let number = text.parse().ok().filter(|number| allowed.contains(number));
    number.ok_or((StatusCode::BAD_REQUEST, "OutOfRangeQueryParameterValue"))
}

/// The message's text in a request body.
fn text(body: &Bytes) -> Option<String> {
    let body = std::str::from_utf8(body).ok()?;
    let text = body.split_once("<MessageText>")?.1.split_once("</MessageText>")?.0;
    Some(unescape(text).ok()?.into_owned())
}

fn list(messages: impl Iterator<Item = Taken>) -> Response<Body> {
    let mut xml = "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><QueueMessagesList>".to_owned();
    for Taken { message, receipt } in messages {
        let text = String::from_utf8_lossy(&message.content);
        let text = escape(&*text).replace('\r', "&#xD;");
        let (inserted, expires) = (stamp(message.inserted), stamp(message.expires));
        xml += &format!(
            "<QueueMessage><MessageId>{}</MessageId><InsertionTime>{inserted}</InsertionTime>\
             <ExpirationTime>{expires}</ExpirationTime>",
            message.id,
        );
        if !receipt.is_empty() {
            let next = message.next_visible.map(stamp).unwrap_or_default();
            xml += &format!("<PopReceipt>{receipt}</PopReceipt><TimeNextVisible>{next}</TimeNextVisible>");
        }
        let count = message.dequeue_count;
        xml += &format!("<DequeueCount>{count}</DequeueCount><MessageText>{text}</MessageText></QueueMessage>");
    }
    success(StatusCode::OK).body(Body::from(xml + "</QueueMessagesList>")).unwrap_or_default()
}

fn stamp(time: DateTime<Utc>) -> String {
    time.format("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

pub fn success(status: StatusCode) -> axum::http::response::Builder {
    Response::builder().status(status)
}

pub fn empty(status: StatusCode) -> Response<Body> {
    success(status).body(Body::empty()).unwrap_or_default()
}

pub fn failure(status: StatusCode, code: &str) -> Response<Body> {
    success(status).header("x-ms-error-code", code).body(Body::empty()).unwrap_or_default()
}
