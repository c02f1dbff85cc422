//! Counts what the real host would send to Application Insights, in records and bytes. The sizes were measured at an
//! ingestion endpoint. Records of the host's start are not counted.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use serde::Serialize;
use tokio::time::Instant;

use super::{
    events::{Event, InvocationFinished, Level, Stream},
    logging::Logging,
};
use crate::queues::Requests;

/// How often the host sends its numbers of each function, and how many.
pub const FLUSH_EVERY: Duration = Duration::from_secs(30);
const METRICS: u64 = 7;
/// Requests for the leases of the host and of its timers, per flush.
const LEASE_REQUESTS: u64 = 6;
/// What may be sent at once after a quiet time.
const SAMPLING_INTERVAL: f64 = 15.0;

// Sizes in bytes.
const REQUEST: u64 = 1_070;
const FAILED_REQUEST: u64 = 1_050;
const EXCEPTION: u64 = 10_400;
const HANDLERS_EXIT: u64 = 3_200;
const MESSAGE: u64 = 1_200;
const METRIC: u64 = 550;
const OF_AZURE_CORE: u64 = 1_480;
const WARNING_OF_AZURE_CORE: u64 = 1_270;
/// A line's text is in its record twice.
const AROUND_A_LINE: u64 = 700;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Trace,
    Exception,
    Request,
    Metric,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Exception => "exception",
            Self::Request => "request",
            Self::Metric => "metric",
        }
    }
}

struct Record {
    kind: Kind,
    category: String,
    level: Level,
    bytes: u64,
}

/// Records and bytes that were sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sent {
    pub records: u64,
    pub bytes: u64,
}

/// What the real host would have sent to Application Insights.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TelemetrySummary {
    pub seconds: f64,
    #[serde(flatten)]
    pub all: Sent,
    /// At this rate.
    pub gigabytes_a_month: f64,
    pub categories: BTreeMap<String, Sent>,
}

impl fmt::Display for TelemetrySummary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { all, gigabytes_a_month, categories, .. } = self;
        let (records, kilobytes) = (all.records, all.bytes / 1000);
        write!(formatter, "{records} records, {kilobytes} kB, at this rate {gigabytes_a_month:.2} GB a month")?;
        categories.iter().try_for_each(|(category, sent)| {
            write!(formatter, "; {category} {} records, {} kB", sent.records, sent.bytes / 1000)
        })
    }
}

/// Counts for one process of the host. It has no clock: the caller passes the time since the start.
struct Counter {
    logging: Logging,
    sent: BTreeMap<String, Sent>,
    /// How many more sampled records may be sent, and when that was computed.
    budget: f64,
    budgeted_at: Duration,
    /// Functions with invocations since the last flush.
    called: BTreeSet<String>,
    requests: Requests,
}

impl Counter {
    fn new(logging: Logging) -> Self {
        let budget = logging.sampling.as_ref().map_or(0.0, |sampling| SAMPLING_INTERVAL * sampling.items_per_second);
        let (sent, called, requests) = (BTreeMap::new(), BTreeSet::new(), Requests::default());
        Self { logging, sent, budget, budgeted_at: Duration::ZERO, called, requests }
    }

    fn event(&mut self, event: &Event, now: Duration) {
        let message = |category: &str, level, text: &str| {
            let bytes = AROUND_A_LINE + 2 * text.len() as u64;
            Record { kind: Kind::Trace, category: category.to_owned(), level, bytes }
        };
        match event {
            Event::Line { stream: Stream::Host, level, text } => {
                self.send(vec![message("Host.Triggers", *level, text)], now);
            }
            Event::Line { level, text, .. } => self.send(vec![message("Host.Function.Console", *level, text)], now),
            Event::HandlerExited { status } if !status.success() => {
                let category = "Worker.HttpWorkerProcess".to_owned();
                let bytes = HANDLERS_EXIT;
                self.send(vec![Record { kind: Kind::Exception, category, level: Level::Error, bytes }], now);
            }
            Event::InvocationFinished(finished) => self.invocation(finished, now),
            Event::HandlerStarted { .. }
            | Event::HandlerReady { .. }
            | Event::HandlerExited { .. }
            | Event::InvocationStarted { .. }
            | Event::Stopped { .. } => {}
        }
    }

    fn invocation(&mut self, finished: &InvocationFinished, now: Duration) {
        self.called.insert(finished.function.clone());
        let function = format!("Function.{}", finished.function);
        let record = |kind, category: &str, level, bytes| Record { kind, category: category.to_owned(), level, bytes };
        let mut records = vec![record(Kind::Trace, &function, Level::Information, MESSAGE)];
        for line in &finished.logs {
            let bytes = AROUND_A_LINE + 2 * line.len() as u64;
            records.push(record(Kind::Trace, &format!("{function}.User"), Level::Information, bytes));
        }
        if finished.succeeded {
            records.push(record(Kind::Trace, &function, Level::Information, MESSAGE));
            records.push(record(Kind::Request, "Host.Results", Level::Information, REQUEST));
        } else {
            records.push(record(Kind::Trace, &function, Level::Error, MESSAGE));
            records.push(record(Kind::Exception, &function, Level::Error, EXCEPTION));
            records.push(record(Kind::Exception, "Host.Results", Level::Error, EXCEPTION));
            records.push(record(Kind::Request, "Host.Results", Level::Error, FAILED_REQUEST));
        }
        self.send(records, now);
    }

    /// `requests` are all requests to storage accounts since the start.
    fn storage(&mut self, requests: Requests, now: Duration) {
        let good = (requests.all - requests.failed) - (self.requests.all - self.requests.failed);
        let failed = requests.failed - self.requests.failed;
        self.requests = requests;
        self.storage_requests(good, failed, now);
    }

    fn storage_requests(&mut self, good: u64, failed: u64, now: Duration) {
        for (count, level, bytes) in
            [(2 * good + failed, Level::Information, OF_AZURE_CORE), (failed, Level::Warning, WARNING_OF_AZURE_CORE)]
        {
            for _ in 0..count {
                self.send(vec![Record { kind: Kind::Trace, category: "Azure.Core".to_owned(), level, bytes }], now);
            }
        }
    }

    /// To be called at each [`FLUSH_EVERY`].
    fn flush(&mut self, now: Duration) {
        self.storage_requests(LEASE_REQUESTS, 0, now);
        for _ in std::mem::take(&mut self.called) {
            for _ in 0..METRICS {
                let category = "Host.Aggregator".to_owned();
                let record = Record { kind: Kind::Metric, category, level: Level::Information, bytes: METRIC };
                self.send(vec![record], now);
            }
        }
    }

    /// Sends records of one operation. Sampling takes all of them or none, those of excluded types apart.
    fn send(&mut self, records: Vec<Record>, now: Duration) {
        let logged: Vec<_> =
            records.into_iter().filter(|record| self.logging.allows(&record.category, record.level)).collect();
        let sampling = self.logging.sampling.as_ref();
        let is_sampled = |record: &Record| {
            let is_excluded =
                |kind: &str| sampling.is_none_or(|sampling| sampling.excluded.iter().any(|one| one == kind));
            record.kind != Kind::Metric && !is_excluded(record.kind.name())
        };
        let sampled = logged.iter().filter(|record| is_sampled(record)).count();
        let mut are_sent = true;
        if let Some(sampling) = sampling {
            let rate = sampling.items_per_second;
            let earned = now.saturating_sub(self.budgeted_at).as_secs_f64() * rate;
            self.budget = (self.budget + earned).min(SAMPLING_INTERVAL * rate);
            self.budgeted_at = self.budgeted_at.max(now);
            are_sent = self.budget > 0.0;
            if are_sent {
                self.budget -= sampled as f64;
            }
        }
        let passed: Vec<_> = logged.into_iter().filter(|record| are_sent || !is_sampled(record)).collect();
        for record in passed {
            let sent = self.sent.entry(record.category).or_default();
            sent.records += 1;
            sent.bytes += record.bytes;
        }
    }

    fn summary(&self, now: Duration) -> TelemetrySummary {
        const MONTH: f64 = 30.0 * 24.0 * 60.0 * 60.0;
        let mut all = Sent::default();
        for sent in self.sent.values() {
            all = Sent { records: all.records + sent.records, bytes: all.bytes + sent.bytes };
        }
        let seconds = now.as_secs_f64();
        let gigabytes_a_month = if seconds > 0.0 { all.bytes as f64 / seconds * MONTH / 1e9 } else { 0.0 };
        TelemetrySummary { seconds, all, gigabytes_a_month, categories: self.sent.clone() }
    }
}

/// Counts while the host runs.
pub struct Telemetry {
    started: Instant,
    counter: Mutex<Counter>,
}

impl Telemetry {
    pub fn new(logging: Logging) -> Self {
        Self { started: Instant::now(), counter: Mutex::new(Counter::new(logging)) }
    }

    pub fn observe(&self, event: &Event) {
        self.counter().event(event, self.started.elapsed());
    }

    pub fn flush(&self) {
        self.counter().flush(self.started.elapsed());
    }

    /// `requests` are all requests to storage accounts since the start.
    pub fn summary(&self, requests: Requests) -> TelemetrySummary {
        let (now, mut counter) = (self.started.elapsed(), self.counter());
        counter.storage(requests, now);
        counter.summary(now)
    }

    fn counter(&self) -> MutexGuard<'_, Counter> {
        self.counter.lock().expect("no panic while locked")
    }
}

#[cfg(test)]
#[path = "telemetry_tests.rs"]
mod tests;
