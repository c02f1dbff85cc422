//! Named moments in the work of the stand-ins, so that a test can act at exactly such a moment.
//!
//! A crash test kills its client "after the transaction was applied, before it was answered". A timer cannot hit that
//! moment. Instead, the test gives each stand-in a [`Steps`] in its options. The stand-in calls it at each step and
//! continues only after the call returns. If the call kills the client, everything that the stand-in does next is done
//! for a dead client.
//!
//! The call may return [`Then::Lose`]: then the write or message that has just arrived is lost, as if it had never left
//! the client. Each request or message reaches its steps again. By default there is no watcher, and nothing happens.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    body::{Body, Bytes},
    http::Response,
};
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use crate::door::Written;

macro_rules! steps {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+) => {
        /// A moment. "Answered" means that the kernel has the whole answer and sends it to the client.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Step {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Step {
            /// A few words for tables.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }
        }
    };
}

steps! {
    /// Functions host: a timer's function is about to be called.
    TimerCalled = "timer called",
    /// Functions host: a timer's function has answered.
    TimerAnswered = "timer answered",
    /// Functions host: an HTTP function is about to be called.
    WebhookCalled = "webhook called",
    /// Functions host: an HTTP function has answered; its output is in no queue yet.
    WebhookAnswered = "webhook answered",
    /// Functions host: a queue's function is about to be called.
    UplinkCalled = "uplink called",
    /// Functions host: a queue's function has answered; the message is still in the queue.
    UplinkAnswered = "uplink answered",
    /// rapidM2M: a request for rows has arrived.
    RowsAsked = "rows asked for",
    /// rapidM2M: the rows are in flight to the client.
    RowsAnswered = "rows answered",
    /// Cosmos DB: a site's cursor is about to be read.
    CursorRead = "cursor read",
    /// Cosmos DB: another document of a site is about to be read.
    PollRead = "poll read",
    /// Cosmos DB: a transaction has arrived that creates documents, or writes only the cursor.
    RecordCame = "record came",
    /// Cosmos DB: that transaction is applied or refused.
    RecordApplied = "record applied",
    /// Cosmos DB: that transaction is answered.
    RecordAnswered = "record answered",
    /// Cosmos DB: a transaction that replaces polls has arrived.
    MarkCame = "mark came",
    /// Cosmos DB: that transaction is applied or refused.
    MarkApplied = "mark applied",
    /// Cosmos DB: that transaction is answered.
    MarkAnswered = "mark answered",
    /// Cosmos DB: a document outside any hierarchical partition (a device) is about to be read.
    DeviceRead = "device read",
    /// Cosmos DB: a request to write such a document has arrived.
    DeviceCame = "device came",
    /// Cosmos DB: the document is written or refused.
    DeviceApplied = "device applied",
    /// Cosmos DB: the request to write it is answered.
    DeviceAnswered = "device answered",
    /// Device Provisioning Service: a device is about to be registered.
    RegisterCame = "register came",
    /// Device Provisioning Service: the registration has begun; the answer with its operation id is in flight.
    RegisterAnswered = "register answered",
    /// Device Provisioning Service: the client polls the state of a registration.
    AssignmentAsked = "assignment asked for",
    /// Device Provisioning Service: the answer to that poll is in flight.
    AssignmentAnswered = "assignment answered",
    /// IoT Hub, MQTT: a device is accepted, but its CONNECT is not answered yet.
    Connect = "connect",
    /// IoT Hub: a message has arrived, or a batch of messages over HTTPS.
    MessageCame = "message came",
    /// IoT Hub: the hub has accepted the message but not acknowledged it.
    MessageTaken = "message taken",
    /// IoT Hub: the PUBACK, or the answer with 204, is in flight.
    MessageAnswered = "message answered",
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// How a stand-in continues after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    GoOn,
    /// The write or message that has just arrived is lost, and so is everything after it on the same connection. It
    /// has an effect only at the steps "… came".
    Lose,
}

type Watch = dyn Fn(Step) -> Then + Send + Sync;

/// The watcher of steps, if there is one. Cheap to clone; several stand-ins may share one.
#[derive(Clone, Default)]
pub struct Steps(Option<Arc<Watch>>);

impl fmt::Debug for Steps {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.is_watched() { "Steps(watched)" } else { "Steps(unwatched)" })
    }
}

impl Steps {
    /// Calls `watch` at each step, on the thread that has reached it. `watch` must have finished its work when it
    /// returns.
    #[must_use]
    pub fn new(watch: impl Fn(Step) -> Then + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(watch)))
    }

    pub(crate) fn is_watched(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn reached(&self, step: Step) {
        let _ = self.loses(step);
    }

    /// Reports the step. `true` if what has just arrived is lost.
    pub(crate) fn loses(&self, step: Step) -> bool {
        self.0.as_ref().is_some_and(|watch| watch(step) == Then::Lose)
    }

    /// The same response, but `step` is reached when all of it has been written to its connection.
    pub(crate) fn when_written(&self, step: Step, written: &Written, response: Response<Body>) -> Response<Body> {
        if !self.is_watched() {
            return response;
        }
        let end = End { steps: self.clone(), step, written: written.clone() };
        response.map(|body| Body::new(Watched { body, _end: end }))
    }
}

/// A body that reports its end.
struct Watched {
    body: Body,
    _end: End,
}

/// The server drops a body when it has taken all of it. Then it flushes what its buffer still holds.
struct End {
    steps: Steps,
    step: Step,
    written: Written,
}

impl Drop for End {
    fn drop(&mut self) {
        let (steps, step) = (self.steps.clone(), self.step);
        self.written.when_flushed(move || steps.reached(step));
    }
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpStream,
        sync::mpsc,
    };

    use axum::{Router, extract::ConnectInfo, routing::get};
    use futures::stream;

    use super::*;
    use crate::door;

    /// Loopback delivers at once: when the step is reached, the client must be able to read the whole answer without
    /// waiting.
    #[tokio::test(flavor = "multi_thread")]
    async fn the_whole_answer_is_with_the_client_when_its_step_is_reached() {
        let pieces = || stream::iter((0..9).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; 5_000]))));
        let bodies = [(Body::empty(), 0), (Body::from("x".repeat(20)), 20), (Body::from_stream(pieces()), 45_000)];
        for (body, length) in bodies {
            let (door, listener) = door::open("127.0.0.1", 0).unwrap();
            let mut client = TcpStream::connect(door.address()).unwrap();
            let reader = client.try_clone().unwrap();
            reader.set_nonblocking(true).unwrap();
            let (sender, seen) = mpsc::channel();
            let reader = std::sync::Mutex::new(reader);
            let steps = Steps::new(move |step| {
                let mut text = Vec::new();
                let end = reader.lock().unwrap().read_to_end(&mut text);
                assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "the connection is still open");
                sender.send((step, text)).unwrap();
                Then::GoOn
            });
            let body = Arc::new(std::sync::Mutex::new(Some(body)));
            let answer = move |ConnectInfo(written): ConnectInfo<Written>| {
                let response = Response::new(body.lock().unwrap().take().unwrap());
                let response = steps.when_written(Step::RowsAnswered, &written, response);
                async move { response }
            };
            let router = Router::new().route("/", get(answer));
            let server = tokio::spawn(async move {
                axum::serve(listener, router.into_make_service_with_connect_info::<Written>()).await
            });
            client.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").unwrap();
            let (step, text) = tokio::task::spawn_blocking(move || seen.recv().unwrap()).await.unwrap();
            assert_eq!(step, Step::RowsAnswered);
            assert_eq!(text.iter().filter(|byte| **byte == b'x').count(), length);
            server.abort();
        }
    }

    #[test]
    fn nobody_is_told_by_default() {
        let steps = Steps::default();
        steps.reached(Step::Connect);
        assert_eq!(format!("{steps:?}"), "Steps(unwatched)");
    }
}
