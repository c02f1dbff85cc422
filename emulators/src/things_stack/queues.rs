//! The downlinks that were asked for: every request, and what is queued for each device.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Serialize, Serializer};
use serde_json::Value;
use tokio::{sync::watch, time::timeout};

use super::{faults::Faults, formatter::Formatters};

/// Requests that are kept; older ones are forgotten but stay counted.
const KEPT: usize = 100_000;
/// Downlinks that wait for one device.
pub const LONGEST_QUEUE: usize = 1000;

/// What a request does to the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    Push,
    Replace,
}

/// A request for downlinks, refused ones included.
#[derive(Clone, Debug, Serialize)]
pub struct DownlinkRequest {
    pub application: String,
    pub device: String,
    pub webhook: String,
    pub operation: Operation,
    /// As they were written; empty if the request was refused before they were read.
    pub downlinks: Vec<Value>,
    /// What was decided; a request whose answer was cut has it too.
    pub status: u16,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(serialize_with = "milliseconds")]
    pub at: DateTime<Utc>,
}

fn milliseconds<S: Serializer>(at: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&at.to_rfc3339_opts(SecondsFormat::Millis, true))
}

type DeviceName = (String, String);

pub struct Queues {
    book: Mutex<Book>,
    total: watch::Sender<u64>,
}

#[derive(Default)]
struct Book {
    requests: VecDeque<Arc<DownlinkRequest>>,
    queues: HashMap<DeviceName, Vec<Value>>,
    faults: Faults,
    formatters: Formatters,
}

impl Queues {
    pub fn new() -> Self {
        Self { book: Mutex::default(), total: watch::Sender::new(0) }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn with_faults<T>(&self, action: impl FnOnce(&mut Faults) -> T) -> T {
        action(&mut self.book().faults)
    }

    pub fn with_formatters<T>(&self, action: impl FnOnce(&mut Formatters) -> T) -> T {
        action(&mut self.book().formatters)
    }

    /// Puts downlinks into a device's queue; `false`, and nothing is changed, if there is no room for them.
    pub fn put(&self, application: &str, device: &str, operation: Operation, downlinks: &[Value]) -> bool {
        let mut book = self.book();
        let queue = book.queues.entry((application.to_owned(), device.to_owned())).or_default();
        let stay = if operation == Operation::Push { queue.len() } else { 0 };
        if stay + downlinks.len() > LONGEST_QUEUE {
            return false;
        }
        queue.truncate(stay);
        queue.extend_from_slice(downlinks);
        true
    }

    pub fn record(&self, request: DownlinkRequest) -> Arc<DownlinkRequest> {
        let request = Arc::new(request);
        let mut book = self.book();
        if book.requests.len() == KEPT {
            book.requests.pop_front();
        }
        book.requests.push_back(request.clone());
        // While locked, so that the totals are announced in order.
        self.total.send_modify(|total| *total += 1);
        request
    }

    /// All kept requests, as soon as `wait` were received in total or the time is over.
    pub async fn requests(&self, wait: u64, at_most: Duration) -> Vec<Arc<DownlinkRequest>> {
        // An error of the channel is impossible while `self` holds the sender; a timeout is no failure.
        let _ = timeout(at_most, self.total.subscribe().wait_for(|total| *total >= wait)).await;
        self.book().requests.iter().cloned().collect()
    }

    /// What waits for a device, the oldest first.
    pub fn queue(&self, application: &str, device: &str) -> Vec<Value> {
        self.book().queues.get(&(application.to_owned(), device.to_owned())).cloned().unwrap_or_default()
    }

    /// Forgets requests and queues; the faults stay.
    pub fn clear(&self) {
        let mut book = self.book();
        book.requests.clear();
        book.queues.clear();
        self.total.send_replace(0);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn push_appends_and_replace_replaces_within_the_limit() {
        let queues = Queues::new();
        let downlinks = |number: usize| vec![json!(number); number];
        assert!(queues.put("a", "d", Operation::Push, &downlinks(2)));
        assert!(queues.put("a", "d", Operation::Push, &downlinks(1)));
        assert!(queues.put("b", "d", Operation::Push, &downlinks(3)));
        assert_eq!(queues.queue("a", "d"), [json!(2), json!(2), json!(1)]);
        assert!(!queues.put("a", "d", Operation::Push, &downlinks(LONGEST_QUEUE - 2)));
        assert!(!queues.put("a", "d", Operation::Replace, &downlinks(LONGEST_QUEUE + 1)));
        assert_eq!(queues.queue("a", "d").len(), 3);
        assert!(queues.put("a", "d", Operation::Replace, &downlinks(1)));
        assert_eq!(queues.queue("a", "d"), [json!(1)]);
        queues.clear();
        assert!(queues.queue("b", "d").is_empty());
    }
}
