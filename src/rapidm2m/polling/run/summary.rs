//! Collects the result of an invocation for its answer and its log lines.

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
    support::{kind::Kind, meter::Readings, summary_line::summary_line},
};

/// How many different failures are logged, and how many affected sites each line names. The ledger has them all.
const LOGGED_FAILURES: usize = 20;
const LOGGED_SITES: usize = 5;
/// How many failures the answer names.
const NAMED_FAILURES: usize = 1_000;

/// The result of an invocation.
#[derive(Debug, Default)]
pub struct Summary {
    pub sites: usize,
    pub polled: usize,
    pub rows_recorded: usize,
    pub rows_forwarded: usize,
    pub messages_forwarded: usize,
    pub messages_rejected: usize,
    pub bad_rows: usize,
    /// Messages that are pending.
    pub waiting: usize,
    /// Sites whose rows could not all be requested in time.
    pub behind: usize,
    /// Sites whose devices are still being registered.
    pub provisioning: usize,
    /// Sites at which another poller was faster.
    pub lost_races: usize,
    /// Sites without a turn, because the handler was told to end.
    pub left: usize,
    /// Site and failure.
    pub failures: Vec<(String, Failure)>,
    /// What the invocation requested from the services.
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
        let failures = report.failures.into_iter().chain(report.rejections);
        self.failures.extend(failures.map(|failure| (site.clone(), failure)));
    }

    /// Whether every site was polled, recorded and forwarded. A run that gave a message up is not a success, even if
    /// the next one is: an operator must look at it.
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

    /// The new failures of this invocation, each once with the sites that it affects: an unreachable backend is one
    /// failure, not ten thousand.
    fn new_failures(&self) -> Vec<(&Failure, Vec<&str>)> {
        let mut groups: BTreeMap<(&Kind, &str), (&Failure, Vec<&str>)> = BTreeMap::new();
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
            tracing::warn!(
                site.names = named,
                failure.kind = failure.kind.as_str(),
                failure.count = count,
                "{}",
                failure.text
            );
        }
        self.lags.log();
        // A macro, because `tracing` needs the level at compile time: each level is a separate line in the code.
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
                    sites.left = (self.left > 0).then_some(self.left),
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
            (self.left, "left for the next handler"),
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
