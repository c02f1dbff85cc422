//! Collects the result of an invocation for its answer and its log lines.

use std::{collections::BTreeSet, fmt, time::Duration};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tracing::Level;

use super::{
    lag::Lags,
    told::{OfSite, Told},
};
use crate::{
    rapidm2m::{
        FetchError, Stamp,
        ledger::ALL_SITES,
        polling::{Failure, News, Report},
    },
    support::{meter::Readings, summary_line::summary_line},
};

/// How many failures the answer names.
const NAMED_FAILURES: usize = 1_000;

/// The function that was called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Function {
    #[default]
    Timer,
    Batch,
}

impl Function {
    /// Its folder, and what it is called in the log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Timer => "rapidM2MForwarding",
            Self::Batch => "rapidM2MSites",
        }
    }
}

/// The result of an invocation.
#[derive(Debug, Default)]
pub struct Summary {
    pub function: Function,
    pub sites: usize,
    /// Of a batch: how many sites of the fleet it stands for, those included that were left out.
    pub stands_for: Option<usize>,
    /// Batches of sites that were put into the queue of `PollQueueName`, and the sites in them.
    pub batches_put: usize,
    pub sites_put: usize,
    /// Batches of earlier runs that were still there, those included that were being worked on.
    pub batches_waiting: usize,
    pub polled: usize,
    pub rows_recorded: usize,
    pub rows_forwarded: usize,
    pub messages_forwarded: usize,
    pub messages_rejected: usize,
    pub bad_rows: usize,
    pub late_rows: usize,
    pub corrected_rows: usize,
    pub rows_ahead: usize,
    pub reset_rows: usize,
    /// Sites that were polled before and that the backend's list lacks.
    pub unlisted: usize,
    /// Messages that are pending.
    pub waiting: usize,
    /// Sites whose rows could not all be requested in time.
    pub behind: usize,
    /// Sites whose devices are still being registered.
    pub provisioning: usize,
    /// Sites at which another poller was faster.
    pub lost_races: usize,
    /// Sites that had no contact with the backend since they were asked.
    pub quiet: usize,
    /// Sites for which the backend was not asked, and why.
    pub held: usize,
    pub held_by: Option<FetchError>,
    /// Sites without a turn, because the handler was told to end.
    pub left: usize,
    /// Site and failure.
    pub failures: Vec<(String, Failure)>,
    pub news: Vec<(String, News)>,
    /// Sites with rows that a person should know of.
    pub rows_of_sites: Vec<OfSite>,
    /// How many sites may be at fault, in per cent, before the run is a failure.
    pub failed_sites_threshold: u64,
    /// All sites send as one device: what the hub has against it concerns all of them.
    pub is_one_device: bool,
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
        self.late_rows += report.late_rows;
        self.corrected_rows += report.corrected_rows;
        self.rows_ahead += report.rows_ahead;
        self.reset_rows += report.reset_rows;
        self.waiting += report.waiting;
        self.behind += usize::from(report.is_behind);
        self.provisioning += usize::from(report.is_provisioning);
        self.lost_races += usize::from(report.lost_race);
        self.lags.add(&site, &report, now);
        if let Some(error) = report.held {
            self.held += 1;
            self.hold(error);
        }
        if report.late_rows + report.corrected_rows + report.bad_rows + report.rows_ahead + report.reset_rows > 0 {
            self.rows_of_sites.push(OfSite {
                site: site.clone(),
                late: report.late_rows,
                corrected: report.corrected_rows,
                unusable: report.bad_rows,
                ahead: report.rows_ahead,
                reset: report.reset_rows,
            });
        }
        self.news.extend(report.news.into_iter().map(|news| (site.clone(), news)));
        let failures = report.failures.into_iter().chain(report.rejections);
        self.failures.extend(failures.map(|failure| (site.clone(), failure)));
    }

    pub(super) fn hold(&mut self, error: FetchError) {
        self.held_by.get_or_insert(error);
    }

    /// One reason for all sites for which the backend was not asked. It is known if an earlier run told it.
    pub(super) fn tell_held(&mut self, is_known: bool, now: DateTime<Utc>) {
        let Some(error) = self.held_by.take() else { return };
        let next = match error.retry_after().filter(|wait| !wait.is_zero()) {
            Some(wait) => format!("next attempt at {}", Stamp::from_time(now + wait).rfc3339()),
            None => "they come first in the next run".to_owned(),
        };
        let consequence = format!("{} sites are not polled meanwhile: {next}", self.held);
        // The list of sites may have met it first.
        let met = self.failures.iter_mut().find(|(site, met)| site == ALL_SITES && met.kind == error.kind());
        match met {
            Some((_, failure)) => failure.text.push_str(&format!("; {consequence}")),
            None => {
                let text = format!("{error}; {consequence}");
                self.failures.push((ALL_SITES.into(), Failure { kind: error.kind(), text, is_known }));
            }
        }
    }

    /// Whether the fleet was polled, recorded and forwarded. What is common to all sites must work, and most sites. A few
    /// sites at fault are told, but an alert on failed runs must mean something.
    #[must_use]
    pub fn is_success(&self) -> bool {
        let is_common = |(site, failure): &(String, Failure)| {
            site == ALL_SITES || failure.kind.is_common() || self.is_one_device && failure.kind.is_of_device()
        };
        // A batch is judged as its part of the fleet would be: how the sites with news are cut into batches means nothing.
        let (failed, sites) = (self.failed_sites(), self.stands_for.unwrap_or(self.sites));
        let are_many = failed >= 2 && failed as u64 * 100 > self.failed_sites_threshold * sites as u64;
        failed == 0 || failed < sites && !are_many && !self.failures.iter().any(is_common)
    }

    /// The failed sites with their failures, for the answer.
    #[must_use]
    pub fn failed(&self) -> Value {
        let named = self.failures.iter().take(NAMED_FAILURES);
        named.map(|(site, failure)| json!({ "Site_Id": site, "Kind": failure.kind, "Text": failure.text })).collect()
    }

    /// Whether it polls sites itself.
    fn polls(&self) -> bool {
        self.batches_put == 0 || self.polled > 0
    }

    fn failed_sites(&self) -> usize {
        self.failures.iter().map(|(site, _)| site).collect::<BTreeSet<_>>().len()
    }

    pub(super) fn log(&mut self, told: &mut Told) {
        told.log(self);
        self.lags.log();
        // A macro, because `tracing` needs the level at compile time: each level is a separate line in the code.
        macro_rules! line {
            ($level:expr) => {
                summary_line!($level, self.readings, {
                    function.name = self.function.name(),
                    duration_ms = u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX),
                    sites.total = self.sites,
                    // Who looks for runs without a polled site means those that poll.
                    sites.polled = self.polls().then_some(self.polled),
                    sites.put = (self.sites_put > 0).then_some(self.sites_put),
                    batches.put = (self.batches_put > 0).then_some(self.batches_put),
                    batches.waiting = (self.batches_waiting > 0).then_some(self.batches_waiting),
                    sites.failed = self.failed_sites(),
                    sites.behind = self.behind,
                    sites.quiet = (self.quiet > 0).then_some(self.quiet),
                    sites.held = (self.held > 0).then_some(self.held),
                    sites.provisioning = self.provisioning,
                    sites.lost_races = self.lost_races,
                    sites.left = (self.left > 0).then_some(self.left),
                    sites.lagging = self.lags.lagging,
                    sites.max_lag_s = self.lags.max.map(|lag| lag.num_seconds()),
                    rows.recorded = self.rows_recorded,
                    rows.forwarded = self.rows_forwarded,
                    rows.unusable = self.bad_rows,
                    rows.late = (self.late_rows > 0).then_some(self.late_rows),
                    rows.corrected = (self.corrected_rows > 0).then_some(self.corrected_rows),
                    rows.reset_clock = (self.reset_rows > 0).then_some(self.reset_rows),
                    rows.ahead = (self.rows_ahead > 0).then_some(self.rows_ahead),
                    sites.unlisted = (self.unlisted > 0).then_some(self.unlisted),
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
        write!(out, "{}: ", self.function.name())?;
        if self.batches_put > 0 {
            let (put, batches) = (self.sites_put, self.batches_put);
            write!(out, "{put} of {} sites put into the queue in {batches} batches, ", self.sites)?;
        }
        if self.polls() {
            write!(
                out,
                "{} of {} sites polled, {} rows recorded, {} rows forwarded in {} messages, {} waiting, ",
                self.polled, self.sites, self.rows_recorded, self.rows_forwarded, self.messages_forwarded, self.waiting,
            )?;
        }
        write!(out, "{} failed", self.failed_sites())?;
        for (count, what) in [
            (self.behind, "behind"),
            (self.quiet, "without a new contact"),
            (self.held, "not asked for"),
            (self.provisioning, "waiting for their device's registration"),
            (self.lost_races, "served by another poller"),
            (self.left, "left for the next handler"),
            (self.messages_rejected, "messages rejected"),
            (self.bad_rows, "unusable rows"),
            (self.late_rows, "late rows"),
            (self.corrected_rows, "corrected rows"),
            (self.reset_rows, "rows of a reset clock"),
            (self.rows_ahead, "rows ahead of the clock"),
            (self.unlisted, "sites not listed any more"),
            (self.batches_waiting, "batches of earlier runs not done"),
        ] {
            if count > 0 {
                write!(out, ", {count} {what}")?;
            }
        }
        write!(out, ", in {:.1} s", self.took.as_secs_f64())
    }
}
