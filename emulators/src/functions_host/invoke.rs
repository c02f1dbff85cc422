//! Calls the handler and reports the result.

use std::{error::Error, future::Future, pin::pin, sync::Arc, time::Duration};

use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use bytes::Bytes;
use futures::{StreamExt, stream};
use reqwest::{Body, Client, Response, Url};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{
    answer::{self, Answer, Refused},
    events::{Event, InvocationFinished, Sender, send},
    handler::Handler,
    lifetime::Lifetime,
    outputs::{self, Output},
};
use crate::{
    queues::guid,
    steps::{Step, Steps},
};

/// The version that the host reports.
const HOST_VERSION: &str = "4.1037.0.0";
const USER_AGENT: &str = "Azure-Functions-Host/4.1037.0.0";
const INVOCATION_ID: &str = "X-Azure-Functions-InvocationId";
/// Largest answer that is read, in bytes.
const LARGEST_ANSWER: usize = 100 * 1024 * 1024;

/// Calls the handler. Each call is an invocation with an id, events and a deadline.
pub struct Invoker {
    pub handler: Handler,
    /// `functionTimeout`. `None` means unlimited.
    pub timeout: Option<Duration>,
    pub events: Sender,
    pub steps: Steps,
    pub lifetime: Lifetime,
}

/// A function that can be called.
pub struct Callee {
    pub name: String,
    pub outputs: Vec<Output>,
    /// The steps before the call and after the answer.
    pub steps: [Step; 2],
}

/// The handler's answer to a forwarded request, unchanged.
pub struct Forwarded {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// The reason for a failed call, and what is known about it.
struct Failure {
    status: Option<u16>,
    response: Arc<Value>,
    /// `None` if the host does not notice the failure and keeps waiting.
    error: Option<String>,
}

/// The result of a successful call.
struct Success<T> {
    status: u16,
    response: Arc<Value>,
    logs: Vec<String>,
    value: T,
}

impl Failure {
    fn before_answer(error: impl ToString) -> Self {
        Self { status: None, response: Arc::default(), error: Some(error.to_string()) }
    }
}

impl Invoker {
    /// Posts an envelope to a function. After success, its messages are in their queues.
    pub async fn call(&self, function: &Callee, envelope: String) -> (InvocationFinished, Option<Answer>) {
        let [called, answered] = function.steps;
        self.invocation(&function.name, |client, endpoint, id| async move {
            self.steps.reached(called);
            let response = client
                .post(with_path(endpoint, &function.name, None))
                .header(header::CONTENT_TYPE, "application/json; charset=utf-8")
                .header(INVOCATION_ID, id)
                .header("X-Azure-Functions-HostVersion", HOST_VERSION)
                .header(header::USER_AGENT, USER_AGENT)
                .header("traceparent", traceparent())
                // A stream has no length: it is sent chunked, as the host sends it.
                .body(Body::wrap_stream(stream::once(async move { Ok::<_, std::io::Error>(envelope) })))
                .send();
            let response = response.await.map_err(|error| Failure::before_answer(described(&error)))?;
            let status = response.status().as_u16();
            let content_type = response.headers().get(header::CONTENT_TYPE);
            let content_type = content_type.and_then(|value| value.to_str().ok()).map(str::to_owned);
            let failure = |response, error| Failure { status: Some(status), response, error };
            let body = read(response).await.map_err(|problem| failure(Arc::default(), Some(problem)))?;
            self.steps.reached(answered);
            let (response, answer) = answer::read(status, content_type.as_deref(), &body);
            let answer = answer.map_err(|refused| match refused {
                Refused::Because(error) => failure(response.clone(), Some(error)),
                Refused::Hangs => failure(response.clone(), None),
            })?;
            outputs::send(&answer, &function.outputs).await.map_err(|error| failure(response.clone(), Some(error)))?;
            Ok(Success { status, response, logs: answer.logs.clone(), value: answer })
        })
        .await
    }

    /// Forwards a caller's request unchanged.
    pub async fn forward(
        &self,
        function: &str,
        method: Method,
        target: &Uri,
        headers: HeaderMap,
        body: Bytes,
    ) -> (InvocationFinished, Option<Forwarded>) {
        self.invocation(function, |client, endpoint, id| async move {
            let url = with_path(endpoint, target.path(), target.query());
            let mut headers = headers;
            answer::remove_hop_headers(&mut headers);
            let request = client.request(method, url).headers(headers).header(INVOCATION_ID, id).body(body);
            let response = request.send().await.map_err(|error| Failure::before_answer(described(&error)))?;
            let (status, headers) = (response.status(), response.headers().clone());
            let body = read(response).await.map_err(Failure::before_answer)?;
            let value = Forwarded { status, headers, body };
            Ok(Success { status: status.as_u16(), response: Arc::default(), logs: Vec::new(), value })
        })
        .await
    }

    /// An invocation with its events, from the wait for a ready handler to the end.
    async fn invocation<T, F>(
        &self,
        function: &str,
        call: impl FnOnce(Client, Url, String) -> F,
    ) -> (InvocationFinished, Option<T>)
    where
        F: Future<Output = Result<Success<T>, Failure>>,
    {
        let (id, started) = (guid(), Instant::now());
        send(&self.events, Event::InvocationStarted { function: function.to_owned(), id: id.clone() });
        let result = self.attempt(call, id.clone()).await;
        let mut finished = InvocationFinished {
            function: function.to_owned(),
            id,
            succeeded: result.is_ok(),
            status: None,
            duration: started.elapsed(),
            logs: Vec::new(),
            response: Arc::default(),
            error: None,
        };
        let value = match result {
            Ok(Success { status, response, logs, value }) => {
                (finished.status, finished.response, finished.logs) = (Some(status), response, logs);
                Some(value)
            }
            Err(Failure { status, response, error }) => {
                (finished.status, finished.response, finished.error) = (status, response, error);
                None
            }
        };
        send(&self.events, Event::InvocationFinished(finished.clone()));
        (finished, value)
    }

    async fn attempt<T, F>(
        &self,
        call: impl FnOnce(Client, Url, String) -> F,
        id: String,
    ) -> Result<Success<T>, Failure>
    where
        F: Future<Output = Result<Success<T>, Failure>>,
    {
        let mut deadline = pin!(async {
            match self.timeout {
                Some(timeout) => sleep(timeout).await,
                None => std::future::pending().await,
            }
        });
        let (client, start) = tokio::select! {
            ready = self.handler.ready() => ready.map_err(Failure::before_answer)?,
            () = &mut deadline => return Err(Failure::before_answer("the handler was not ready within functionTimeout")),
        };
        let result = tokio::select! {
            result = call(client, self.handler.endpoint.clone(), id) => Some(result),
            () = &mut deadline => None,
        };
        let (status, response, problem) = match result {
            Some(Err(Failure { status, response, error: None })) => {
                deadline.await;
                (status, response, "the answer was empty or null, which the host takes for none")
            }
            Some(result) => return result,
            None => (None, Arc::default(), "no answer came"),
        };
        self.handler.kill(start);
        Err(Failure { status, response, error: Some(format!("{problem} until functionTimeout was over")) })
    }
}

fn with_path(mut endpoint: Url, path: &str, query: Option<&str>) -> Url {
    endpoint.set_path(path);
    endpoint.set_query(query);
    endpoint
}

/// A new root span (W3C Trace Context).
fn traceparent() -> String {
    format!("00-{:032x}-{:016x}-00", fastrand::u128(1..), fastrand::u64(1..))
}

async fn read(response: Response) -> Result<Bytes, String> {
    let mut body = Vec::new();
    let mut pieces = response.bytes_stream();
    while let Some(piece) = pieces.next().await {
        body.extend_from_slice(&piece.map_err(|error| described(&error))?);
        if body.len() > LARGEST_ANSWER {
            return Err(format!("the handler's answer is larger than {LARGEST_ANSWER} bytes"));
        }
    }
    Ok(body.into())
}

/// The error with its causes, which reqwest omits.
fn described(error: &reqwest::Error) -> String {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
