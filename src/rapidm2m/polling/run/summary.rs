//! What an invocation came to, and the lines that say so.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tracing::Level;

use super::lag::Lags;
use crate::{
    rapidm2m::polling::{Failure, Report},
    support::{meter::Readings, summary_line::summary_line},
};

/// How many different failures are logged, and how many of the sites that each hit are named; all are in the ledger.
const LOGGED_FAILURES: usize = 20;
const LOGGED_SITES: usize = 5;
/// How many failures are named in the answer.
const NAMED_FAILURES: usize = 1_000;

/// What an invocation came to.
#[derive(Debug, Default)]
pub struct Summary {
    pub sites: usize,
    pub polled: usize,
    pub rows_recorded: usize,
    pub rows_forwarded: usize,
    pub messages_forwarded: usize,
    pub messages_rejected: usize,
    pub bad_rows: usize,
    /// Messages that wait for the hub.
    pub waiting: usize,
    /// Sites that have more to ask for than fitted into the time.
    pub behind: usize,
    /// Sites whose devices are still being registered.
    pub provisioning: usize,
    /// Sites that another poller served.
    pub lost_races: usize,
    /// Site and failure.
    pub failures: Vec<(String, Failure)>,
    /// What the services were asked for.
    pub readings: Readings,
    pub lags: Lags,
    pub took: Duration,
}

impl Summary {
    pub(super) fn add(&mut self, site: String, report: Report, now: DateTime<Utc>) {
        self.polled += usize::from(report.requests > 0);
        self.rows_recorded += report.rows_recorded;
        self.rows_forwarded += report.rows_forwarded;
        self.messages_forwarded += report.messages_forwarded;
        self.messages_rejected += report.messages_rejected;
        self.bad_rows += report.bad_rows;
        self.waiting += report.waiting;
        self.behind += usize::from(report.is_behind);
        self.provisioning += usize::from(report.is_provisioning);
        self.lost_races += usize::from(report.lost_race);
        self.lags.add(&site, &report, now);
        self.failures.extend(report.failures.into_iter().map(|failure| (site.clone(), failure)));
    }

    /// Whether every site was polled, recorded and forwarded.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.failures.is_empty()
    }

    /// The failed sites with their failures, for the answer.
    #[must_use]
    pub fn failed(&self) -> Value {
        let named = self.failures.iter().take(NAMED_FAILURES);
        named.map(|(site, failure)| json!({ "Site_Id": site, "Kind": failure.kind, "Text": failure.text })).collect()
    }

    fn failed_sites(&self) -> usize {
        self.failures.iter().map(|(site, _)| site).collect::<BTreeSet<_>>().len()
    }

    /// What went wrong in this invocation, once each, with the sites that it hit: a backend that is away is one failure,
    /// not ten thousand.
    fn new_failures(&self) -> Vec<(&Failure, Vec<&str>)> {
        let mut groups: BTreeMap<(&str, &str), (&Failure, Vec<&str>)> = BTreeMap::new();
        for (site, failure) in self.failures.iter().filter(|(_, failure)| !failure.is_known) {
            let (_, sites) = groups.entry((&failure.kind, &failure.text)).or_insert_with(|| (failure, Vec::new()));
            sites.push(site);
        }
        groups.into_values().collect()
    }

    pub(super) fn log(&mut self) {
        for (failure, sites) in self.new_failures().into_iter().take(LOGGED_FAILURES) {
            let mut named = sites.iter().take(LOGGED_SITES).copied().collect::<Vec<_>>().join(", ");
            if sites.len() > LOGGED_SITES {
                named.push_str(&format!(" and {} more", sites.len() - LOGGED_SITES));
            }
            let count = sites.len();
            tracing::warn!(site.names = named, failure.kind = failure.kind, failure.count = count, "{}", failure.text);
        }
        self.lags.log();
        // Each level is a line of its own in the code.
        macro_rules! line {
            ($level:expr) => {
                summary_line!($level, self.readings, {
                    function.name = "rapidM2MForwarding",
                    duration_ms = u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX),
                    sites.total = self.sites,
                    sites.polled = self.polled,
                    sites.failed = self.failed_sites(),
                    sites.behind = self.behind,
                    sites.provisioning = self.provisioning,
                    sites.lost_races = self.lost_races,
                    sites.lagging = self.lags.lagging,
                    sites.max_lag_s = self.lags.max.map(|lag| lag.num_seconds()),
                    rows.recorded = self.rows_recorded,
                    rows.forwarded = self.rows_forwarded,
                    rows.unusable = self.bad_rows,
                    messages.forwarded = self.messages_forwarded,
                    messages.waiting = self.waiting,
                    messages.rejected = self.messages_rejected,
                }, "{self}")
            };
        }
        if self.is_success() { line!(Level::INFO) } else { line!(Level::ERROR) }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "rapidM2MForwarding: {} of {} sites polled, {} rows recorded, {} rows forwarded in {} messages, {} waiting, {} failed",
            self.polled,
            self.sites,
            self.rows_recorded,
            self.rows_forwarded,
            self.messages_forwarded,
            self.waiting,
            self.failed_sites(),
        )?;
        for (count, what) in [
            (self.behind, "behind"),
            (self.provisioning, "waiting for their device's registration"),
            (self.lost_races, "served by another poller"),
            (self.messages_rejected, "messages rejected"),
            (self.bad_rows, "unusable rows"),
        ] {
            if count > 0 {
                write!(out, ", {count} {what}")?;
            }
        }
        write!(out, ", in {:.1} s", self.took.as_secs_f64())
    }
}
