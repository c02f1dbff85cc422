//! What was sent and what the target said to it.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::time::Instant;

use super::{
    generate::{Kind, Webhook},
    uplink::Uplink,
};

/// Longest latency that is told apart, in microseconds: an hour.
const LONGEST: u64 = 3_600_000_000;
/// Significant digits of a latency.
const DIGITS: u8 = 3;

/// Totals since the start, or since they were last cleared.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Statistics {
    /// Webhooks that were sent, of whatever kind; further attempts are not counted.
    pub sent: u64,
    /// Of these, distinct uplinks.
    pub uplinks: u64,
    pub repeats: u64,
    pub malformed: u64,
    /// Other events than uplinks.
    pub events: u64,
    /// Requests, with the further attempts.
    pub attempts: u64,
    /// Answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests without an answer: refused, cut, too late.
    pub errors: u64,
    pub last_error: Option<String>,
    /// Webhooks that wait for their answer or for their next attempt.
    pub in_flight: u64,
    /// Whether no run is under way, with every webhook of the last one answered or given up.
    pub is_done: bool,
    /// Between the first webhook and the last answer, in seconds.
    pub seconds: f64,
    /// From sending a request to its whole answer.
    pub latency_ms: Latency,
    /// From when the schedule wanted a webhook sent to the whole answer to its first attempt, so with the time that it
    /// waited for others: what callers see that do not wait for each other. Zero without a schedule (rate 0).
    pub scheduled_latency_ms: Latency,
}

/// In milliseconds; zero when there was nothing to measure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Latency {
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

/// One request, when it is over.
pub struct Attempt<'a> {
    pub webhook: &'a Webhook,
    /// The status, or why there is none.
    pub answer: Result<u16, &'a str>,
    pub started: Instant,
    /// When it should have been sent; only of a webhook's first attempt, and only where there is a schedule.
    pub due: Option<Instant>,
}

pub struct Journal {
    book: Mutex<Book>,
    keep: usize,
}

struct Book {
    statistics: Statistics,
    latency: Histogram<u64>,
    scheduled: Histogram<u64>,
    first_sent: Option<Instant>,
    uplinks: VecDeque<Arc<Uplink>>,
}

impl Book {
    fn new(in_flight: u64) -> Self {
        let histogram = || Histogram::new_with_max(LONGEST, DIGITS).expect("constants that hdrhistogram allows");
        Self {
            statistics: Statistics { in_flight, ..Statistics::default() },
            latency: histogram(),
            scheduled: histogram(),
            first_sent: None,
            uplinks: VecDeque::new(),
        }
    }
}

impl Journal {
    /// Keeps the newest `keep` uplinks.
    pub fn new(keep: usize) -> Self {
        Self { book: Mutex::new(Book::new(0)), keep }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A webhook is about to be sent for the first time.
    pub fn begun(&self, webhook: &Webhook) {
        let mut book = self.book();
        book.first_sent.get_or_insert_with(Instant::now);
        let statistics = &mut book.statistics;
        statistics.sent += 1;
        statistics.in_flight += 1;
        match webhook.kind {
            Kind::Uplink => statistics.uplinks += 1,
            Kind::Repeat => statistics.repeats += 1,
            Kind::Malformed => statistics.malformed += 1,
            Kind::Event => statistics.events += 1,
        }
        if let (Kind::Uplink, Some(uplink)) = (webhook.kind, &webhook.uplink) {
            book.uplinks.push_back(uplink.clone());
            if book.uplinks.len() > self.keep {
                book.uplinks.pop_front();
            }
        }
    }

    pub fn attempted(&self, attempt: &Attempt) {
        let now = Instant::now();
        if let Some(uplink) = &attempt.webhook.uplink {
            uplink.attempted(attempt.answer.ok());
        }
        let mut book = self.book();
        book.statistics.attempts += 1;
        match attempt.answer {
            Ok(status) => {
                *book.statistics.statuses.entry(status).or_default() += 1;
                book.latency.saturating_record(micros(now - attempt.started));
                if let Some(due) = attempt.due {
                    book.scheduled.saturating_record(micros(now - due));
                }
            }
            Err(error) => {
                book.statistics.errors += 1;
                book.statistics.last_error = Some(error.to_owned());
            }
        }
        if let Some(first) = book.first_sent {
            book.statistics.seconds = (now - first).as_secs_f64();
        }
    }

    /// A webhook is answered or given up.
    pub fn ended(&self) {
        self.book().statistics.in_flight -= 1;
    }

    /// The totals; all but whether a run is under way.
    pub fn statistics(&self) -> Statistics {
        let book = self.book();
        Statistics {
            latency_ms: latency(&book.latency),
            scheduled_latency_ms: latency(&book.scheduled),
            ..book.statistics.clone()
        }
    }

    /// Forgets everything but what is in flight.
    pub fn clear(&self) {
        let mut book = self.book();
        *book = Book::new(book.statistics.in_flight);
    }

    /// The kept uplinks in sending order.
    pub fn kept(&self) -> Vec<Arc<Uplink>> {
        self.book().uplinks.iter().cloned().collect()
    }

    /// The kept uplinks in sending order, as a JSON array.
    pub fn uplinks(&self) -> Vec<u8> {
        let uplinks = self.kept();
        let mut array = vec![b'['];
        for uplink in uplinks {
            if array.len() > 1 {
                array.push(b',');
            }
            uplink.write(&mut array);
        }
        array.push(b']');
        array
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn latency(histogram: &Histogram<u64>) -> Latency {
    let ms = |micros: u64| micros as f64 / 1000.0;
    let at = |quantile| ms(histogram.value_at_quantile(quantile));
    Latency { p50: at(0.5), p99: at(0.99), max: ms(histogram.max()) }
}
