//! Records the received requests and the status of their answers.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::{sync::watch, time::timeout};

use super::request;

/// Number of requests that are kept. Older ones are dropped but still counted.
const KEPT: usize = 100_000;

/// A received request, with the answer chosen for it.
#[derive(Debug)]
pub struct Entry {
    pub method: String,
    /// Raw, without the query.
    pub path: String,
    /// The URL parameter `json`, decoded.
    pub json: Option<String>,
    /// `None` if there is no answer.
    pub status: Option<u16>,
    pub rows: u64,
    pub received_at: DateTime<Utc>,
}

/// Totals since the start or since the requests were last cleared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    pub requests: u64,
    /// Rows in the answers.
    pub rows: u64,
    /// Requests whose answer has not been handed over completely.
    pub in_flight: u64,
    pub max_in_flight: u64,
}

#[derive(Debug)]
pub struct Journal {
    book: Mutex<Book>,
    total: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Book {
    entries: VecDeque<Entry>,
    counts: Counts,
}

/// A request that is being answered; dropping it ends that.
pub struct InFlight(Arc<Journal>);

impl Journal {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { book: Mutex::default(), total: watch::Sender::new(0) })
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().expect("no panic while locked")
    }

    /// Records a request whose answer has been chosen.
    pub fn record(self: &Arc<Self>, entry: Entry) -> InFlight {
        let mut book = self.book();
        let counts = &mut book.counts;
        counts.requests += 1;
        counts.rows += entry.rows;
        counts.in_flight += 1;
        counts.max_in_flight = counts.max_in_flight.max(counts.in_flight);
        let requests = counts.requests;
        if book.entries.len() == KEPT {
            book.entries.pop_front();
        }
        book.entries.push_back(entry);
        // Still locked, so that the totals are announced in order.
        self.total.send_replace(requests);
        InFlight(self.clone())
    }

    pub fn counts(&self) -> Counts {
        self.book().counts
    }

    pub fn clear(&self) {
        let mut book = self.book();
        book.entries.clear();
        let in_flight = book.counts.in_flight;
        book.counts = Counts { in_flight, max_in_flight: in_flight, ..Counts::default() };
        self.total.send_replace(0);
    }

    /// All kept requests, as soon as `wait` have been received in total or the time is over.
    pub async fn requests(&self, wait: u64, at_most: Duration) -> Value {
        // The channel cannot fail while `self` holds the sender, and a time-out is no failure here.
        let _ = timeout(at_most, self.total.subscribe().wait_for(|total| *total >= wait)).await;
        self.book().entries.iter().map(Entry::to_json).collect()
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.book().counts.in_flight -= 1;
    }
}

impl Entry {
    fn to_json(&self) -> Value {
        let query = self.json.as_ref().map(|json| serde_json::from_str(json).unwrap_or_else(|_| json!(json)));
        json!({
            "method": self.method,
            "path": self.path,
            "segments": request::segments(&self.path),
            "query": query,
            "status": self.status,
            "rows": self.rows,
            "receivedAt": self.received_at.to_rfc3339_opts(SecondsFormat::Millis, true),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(rows: u64) -> Entry {
        Entry {
            method: "GET".to_owned(),
            path: "/api/1/customers/a%2Fb/sites".to_owned(),
            json: Some("{".to_owned()),
            status: Some(200),
            rows,
            received_at: DateTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn requests_are_counted_while_and_after_they_are_answered() {
        let journal = Journal::new();
        let first = journal.record(entry(2));
        let second = journal.record(entry(3));
        drop(first);
        assert_eq!(journal.counts(), Counts { requests: 2, rows: 5, in_flight: 1, max_in_flight: 2 });
        journal.clear();
        assert_eq!(journal.counts(), Counts { requests: 0, rows: 0, in_flight: 1, max_in_flight: 1 });
        drop(second);
        assert_eq!(journal.counts().in_flight, 0);
    }

    #[test]
    fn only_the_newest_are_kept() {
        let journal = Journal::new();
        for rows in 0..=KEPT as u64 {
            drop(journal.record(entry(rows)));
        }
        let book = journal.book();
        assert_eq!((book.entries.len(), book.entries[0].rows, book.counts.requests), (KEPT, 1, KEPT as u64 + 1));
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_with_the_request_or_with_the_time() {
        let journal = Journal::new();
        assert_eq!(journal.requests(1, Duration::from_secs(3)).await, json!([]));
        let waiting = journal.clone();
        let waiting = tokio::spawn(async move { waiting.requests(1, Duration::MAX).await });
        tokio::task::yield_now().await;
        drop(journal.record(entry(7)));
        let expected = json!([{
            "method": "GET", "path": "/api/1/customers/a%2Fb/sites", "segments": ["customers", "a/b", "sites"],
            "query": "{", "status": 200, "rows": 7, "receivedAt": "1970-01-01T00:00:00.000Z",
        }]);
        assert_eq!(waiting.await.unwrap(), expected);
    }
}
