//! The part of the queue service that a test needs, written after its documentation: created queues, signed requests,
//! XML.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Query, Request},
    http::{Method, Response, StatusCode},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit as _, Mac as _};
use quick_xml::escape::{escape, unescape};
use sha2::Sha256;
use tokio::{net::TcpListener, task::JoinHandle};

use crate::queues::{Message, Taken, memory::Messages};

const KEY: &[u8] = b"the account's key";

/// The service; it ends when this is dropped.
pub struct Service {
    pub connection: String,
    server: JoinHandle<()>,
}

impl Service {
    pub async fn start() -> Self {
        let queues = Arc::new(Mutex::new(BTreeMap::new()));
        let router = Router::new().fallback(async move |request: Request| {
            let (parts, body) = request.into_parts();
            let body = to_bytes(body, usize::MAX).await.unwrap();
            if !is_signed(&parts, body.len()) {
                return failure(StatusCode::FORBIDDEN, "AuthenticationFailed");
            }
            answer(&mut queues.lock().unwrap(), &parts, &body)
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}/a", listener.local_addr().unwrap());
        let key = BASE64_STANDARD.encode(KEY);
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { connection: format!("AccountName=a;AccountKey={key};QueueEndpoint={endpoint}"), server }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn is_signed(request: &axum::http::request::Parts, length: usize) -> bool {
    let header = |name: &str| request.headers.get(name).map_or("", |value| value.to_str().unwrap());
    let length = if length == 0 { String::new() } else { length.to_string() };
    let mut query: Vec<_> = parameters(request).into_iter().collect();
    query.sort();
    let query: String = query.iter().map(|(name, value)| format!("\n{name}:{value}")).collect();
    let (date, version, kind) = (header("x-ms-date"), header("x-ms-version"), header("content-type"));
    let text = format!(
        "{}\n\n\n{length}\n\n{kind}\n\n\n\n\n\n\nx-ms-date:{date}\nx-ms-version:{version}\n/a{}{query}",
        request.method,
        request.uri.path(),
    );
    let mut mac = Hmac::<Sha256>::new_from_slice(KEY).unwrap();
    mac.update(text.as_bytes());
    header("authorization") == format!("SharedKey a:{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
}

fn parameters(request: &axum::http::request::Parts) -> HashMap<String, String> {
    Query::try_from_uri(&request.uri).unwrap().0
}

fn answer(
    queues: &mut BTreeMap<String, Messages>,
    request: &axum::http::request::Parts,
    body: &Bytes,
) -> Response<Body> {
    let (now, parameters) = (Utc::now(), parameters(request));
    let segments: Vec<&str> = request.uri.path().split('/').skip(2).collect();
    let name = segments[0].to_owned();
    if request.method == Method::PUT && segments.len() == 1 {
        queues.entry(name).or_default();
        return success(StatusCode::CREATED).body(Body::empty()).unwrap();
    }
    let Some(queue) = queues.get_mut(&name) else { return failure(StatusCode::NOT_FOUND, "QueueNotFound") };
    let number = |name: &str| parameters.get(name).map_or(1, |text| text.parse::<u64>().unwrap());
    let hidden = Duration::from_secs(number("visibilitytimeout"));
    let mut taken = Taken {
        message: Message {
            id: segments.get(2).copied().unwrap_or_default().to_owned(),
            content: Bytes::new(),
            is_undecodable: false,
            inserted: now,
            expires: now,
            next_visible: None,
            dequeue_count: 0,
        },
        receipt: parameters.get("popreceipt").cloned().unwrap_or_default(),
    };
    match (&request.method, segments.len()) {
        (&Method::GET, 1) => {
            let counts = queue.counts(now);
            let count = counts.visible + counts.invisible;
            success(StatusCode::OK).header("x-ms-approximate-messages-count", count).body(Body::empty()).unwrap()
        }
        (&Method::POST, 2) => {
            let body = std::str::from_utf8(body).unwrap();
            let text = body.strip_prefix("<QueueMessage><MessageText>").unwrap();
            let text = unescape(text.strip_suffix("</MessageText></QueueMessage>").unwrap()).unwrap().into_owned();
            queue.put(text.into(), false, now);
            success(StatusCode::CREATED).body(Body::empty()).unwrap()
        }
        (&Method::GET, 2) if parameters.contains_key("peekonly") => {
            let visible = queue.all(now).into_iter().filter(|message| message.next_visible.unwrap() <= now);
            let most = number("numofmessages") as usize;
            list(visible.take(most).map(|message| Taken { message, receipt: String::new() }))
        }
        (&Method::GET, 2) => list(queue.take(number("numofmessages") as usize, hidden, now).into_iter()),
        (&Method::PUT, 3) => match queue.update(&mut taken, hidden, now) {
            Ok(()) => {
                let next = taken.message.next_visible.map(stamp).unwrap();
                let answer = success(StatusCode::NO_CONTENT).header("x-ms-popreceipt", taken.receipt);
                answer.header("x-ms-time-next-visible", next).body(Body::empty()).unwrap()
            }
            Err(_) => failure(StatusCode::BAD_REQUEST, "PopReceiptMismatch"),
        },
        (&Method::DELETE, 3) => match queue.delete(&taken, now) {
            Ok(()) => success(StatusCode::NO_CONTENT).body(Body::empty()).unwrap(),
            Err(_) => failure(StatusCode::NOT_FOUND, "MessageNotFound"),
        },
        _ => failure(StatusCode::BAD_REQUEST, "UnsupportedHttpVerb"),
    }
}

fn list(messages: impl Iterator<Item = Taken>) -> Response<Body> {
    let mut xml = "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><QueueMessagesList>".to_owned();
    for Taken { message, receipt } in messages {
        let text = std::str::from_utf8(&message.content).unwrap();
        let text = escape(text).replace('\r', "&#xD;");
        xml += &format!(
            "<QueueMessage><MessageId>{}</MessageId><InsertionTime>{}</InsertionTime><ExpirationTime>{}</ExpirationTime>",
            message.id,
            stamp(message.inserted),
            stamp(message.expires),
        );
        if !receipt.is_empty() {
            let next = stamp(message.next_visible.unwrap());
            xml += &format!("<PopReceipt>{receipt}</PopReceipt><TimeNextVisible>{next}</TimeNextVisible>");
        }
        let count = message.dequeue_count;
        xml += &format!("<DequeueCount>{count}</DequeueCount><MessageText>{text}</MessageText></QueueMessage>");
    }
    success(StatusCode::OK).body(Body::from(xml + "</QueueMessagesList>")).unwrap()
}

fn stamp(time: DateTime<Utc>) -> String {
    time.format("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

fn success(status: StatusCode) -> axum::http::response::Builder {
    Response::builder().status(status)
}

fn failure(status: StatusCode, code: &str) -> Response<Body> {
    success(status).header("x-ms-error-code", code).body(Body::empty()).unwrap()
}
