//! One run over all sites of a customer: each is polled once, those first that waited longest.

mod lag;
mod summary;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::StreamExt as _;
use tokio::time::Instant;
use tracing::Instrument as _;

use self::lag::Lags;
pub use self::summary::Summary;

use crate::{
    rapidm2m::{
        FetchError, Selection, Stamp,
        ledger::SiteKey,
        polling::{Failure, Forwarder, Limits, Report, SiteMemory, record::Rest},
    },
    support::progress::{Progress, Step},
    support::{meter::Readings, panics},
};

/// As in host.json's folder, and in what is logged.
const NAME: &str = "rapidM2MForwarding";
/// Of the invocation's time: when listing the sites, sending what waits, asking, and sending what is new must have ended.
/// The rest is for marking what was acknowledged.
const LISTING: f64 = 0.25;
const RESENDING: f64 = 0.4;
const ASKING: f64 = 0.8;
const SENDING: f64 = 0.9;
/// Sites that wait for the registration of their devices at once.
const PROVISIONING_CONCURRENCY: usize = 64;
/// How often a cursor is read again that nothing was written to meanwhile: messages that were put back by hand stand in it.
const CURSOR_HOLDS: Duration = Duration::from_secs(10 * 60);
/// The pseudo site under which it is recorded that the sites could not be listed.
pub(crate) const ALL_SITES: &str = "*";

/// Polls the sites of one customer.
pub struct Polling {
    pub forwarder: Forwarder,
    pub customer: String,
    pub sites: Selection,
    /// Sites in flight at once.
    pub concurrency: usize,
    /// How long an invocation may take.
    pub timeout: Duration,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    invocations: u64,
    /// Whether the sites were listed the last time; an earlier failure is on record until they are.
    sites_listed: bool,
    /// Why and for how long the list of sites is not asked for. A restart forgets it, and asks at once.
    listing_rests: Option<Resting>,
    sites: HashMap<String, SiteEntry>,
    /// When the sites that lag were told one by one.
    lags_told: Option<Instant>,
}

struct Resting {
    /// Failures in a row.
    failures: u32,
    /// `None`: it is asked for with the next invocation.
    until: Option<Instant>,
    failure: Failure,
}

#[derive(Default)]
struct SiteEntry {
    /// The invocation in which the site last had its turn: who waited longest comes first.
    last_turn: u64,
    memory: Arc<tokio::sync::Mutex<SiteMemory>>,
    /// When the cursor is read again.
    cursor_holds_until: Option<Instant>,
}

impl Polling {
    #[must_use]
    pub fn new(
        forwarder: Forwarder,
        customer: String,
        sites: Selection,
        concurrency: usize,
        timeout: Duration,
    ) -> Self {
        Self { forwarder, customer, sites, concurrency, timeout, memory: Mutex::default() }
    }

    /// One run over all sites, those first that waited longest.
    pub async fn run(&self) -> Summary {
        let mut progress = Progress::of(NAME);
        let summary = self.run_all(&mut progress).await;
        progress.end();
        summary
    }

    async fn run_all(&self, progress: &mut Progress) -> Summary {
        let started = Instant::now();
        let limits = Limits {
            // Every site is polled and recorded before anybody waits for a registration.
            provision_until: started,
            ask_until: started + self.timeout.mul_f64(ASKING),
            resend_until: started + self.timeout.mul_f64(RESENDING),
            send_until: started + self.timeout.mul_f64(SENDING),
        };
        let deadline = started + self.timeout;
        self.forwarder.outside.delivery.try_again();

        let mut summary = Summary { lags: Lags::new(&mut self.memory().lags_told), ..Summary::default() };
        let sites = self.sites(&mut summary).await;
        summary.sites = sites.len();
        progress.step = Step::Sites { done: 0, total: summary.sites };
        let turns = futures::stream::iter(self.in_turn(sites)).map(|(site, memory)| async move {
            let report = if Instant::now() < limits.ask_until {
                let span = tracing::error_span!("site", site.name = site);
                let turn = self.caught(&site, self.turn(&site, &memory, limits)).instrument(span);
                tokio::time::timeout_at(deadline, turn).await.map_err(|_| "was cut off")
            } else {
                Err("was not reached")
            };
            (site, report)
        });
        let mut turns = turns.buffer_unordered(self.concurrency);
        let mut provisioning = Vec::new();
        while let Some((site, report)) = turns.next().await {
            match report {
                Ok(report) if report.is_provisioning => {
                    provisioning.push((site, report));
                    continue;
                }
                Ok(report) => summary.add(site, report, self.forwarder.outside.clock.now()),
                Err(what) => {
                    let text = format!(
                        "{what} within PollTimeoutSeconds={}; it comes first next time",
                        self.timeout.as_secs()
                    );
                    summary.failures.push((site, Failure { kind: "deadline".into(), text, is_known: false }));
                }
            }
            progress.one_site_done();
        }
        drop(turns);
        self.send_when_provisioned(provisioning, limits, deadline, &mut summary, progress).await;
        summary.failures.sort_by(|(a, _), (b, _)| a.cmp(b));
        let outside = &self.forwarder.outside;
        summary.readings =
            Readings { unconfirmed: outside.delivery.sender.take_unconfirmed(), ..outside.meters.take() };
        summary.took = started.elapsed();
        summary.log();
        summary
    }

    /// A second turn for sites whose devices were not registered yet when they were polled.
    async fn send_when_provisioned(
        &self,
        sites: Vec<(String, Report)>,
        limits: Limits,
        deadline: Instant,
        summary: &mut Summary,
        progress: &mut Progress,
    ) {
        let limits = Limits { resend_until: limits.send_until, provision_until: limits.send_until, ..limits };
        let turns = futures::stream::iter(sites).map(|(site, mut report)| async move {
            let memory = self.memory().sites.entry(site.clone()).or_default().memory.clone();
            let span = tracing::error_span!("site", site.name = site);
            let turn = async {
                let mut memory = memory.lock().await;
                self.forwarder.send_site(&self.key(&site), &mut memory, limits).await
            };
            let turn = self.caught(&site, turn).instrument(span);
            // Cut off: what was polled and recorded is still so.
            if let Ok(sent) = tokio::time::timeout_at(deadline, turn).await {
                report.add_sent(sent);
            }
            (site, report)
        });
        let mut turns = turns.buffer_unordered(PROVISIONING_CONCURRENCY);
        while let Some((site, report)) = turns.next().await {
            summary.add(site, report, self.forwarder.outside.clock.now());
            progress.one_site_done();
        }
    }

    fn key(&self, site: &str) -> SiteKey {
        SiteKey { customer: self.customer.clone(), site: site.to_owned() }
    }

    async fn turn(&self, site: &str, memory: &tokio::sync::Mutex<SiteMemory>, limits: Limits) -> Report {
        // An overlapping invocation may be at the same site: it finishes first.
        let mut memory = memory.lock().await;
        // Where each run writes to the cursor, one that was changed is noticed by that.
        if !self.forwarder.record_empty_polls && self.cursor_is_old(site) {
            memory.forget_cursor();
        }
        let report = self.forwarder.poll_site(&self.key(site), &mut memory, limits).await;
        self.had_its_turn(site);
        report
    }

    /// A site's turn. A panic in it ends this turn only, and throws away what is remembered of the site.
    async fn caught(&self, site: &str, turn: impl Future<Output = Report>) -> Report {
        // Boxed: a turn's future is large, and each layer around it would hold it once more.
        panics::caught(Box::pin(turn)).await.unwrap_or_else(|text| {
            if let Some(entry) = self.memory().sites.get_mut(site) {
                entry.memory = Arc::default();
            }
            // The panic hook has logged it.
            let failure = Failure { kind: "panic".into(), text, is_known: true };
            Report { failures: vec![failure], ..Report::default() }
        })
    }

    /// The sites to poll. If the backend cannot list them, those that are known from an earlier list.
    async fn sites(&self, summary: &mut Summary) -> Vec<String> {
        if let Selection::Named(sites) = &self.sites {
            return sites.clone();
        }
        if let Some(failure) = self.listing_is_left_alone() {
            summary.failures.push((ALL_SITES.into(), failure));
            return self.known_sites();
        }
        let started = Instant::now();
        let limit = self.timeout.mul_f64(LISTING);
        let key = self.key(ALL_SITES);
        match self.forwarder.outside.sites(&self.customer, limit).await {
            Ok(sites) => {
                self.forget_all_but(&sites);
                self.memory().listing_rests = None;
                if !std::mem::replace(&mut self.memory().sites_listed, true) {
                    self.forwarder.record_listing(&key, Ok(()), started.elapsed()).await;
                }
                sites
            }
            Err(error) => {
                let failure =
                    Failure { kind: error.kind().into(), text: format!("listing the sites: {error}"), is_known: false };
                summary.failures.push((ALL_SITES.into(), failure.clone()));
                self.let_listing_rest(&error, failure);
                self.memory().sites_listed = false;
                self.forwarder.record_listing(&key, Err(&error), started.elapsed()).await;
                self.known_sites()
            }
        }
    }

    /// As a site: what somebody has to mend, and what the backend asks for itself, is waited for.
    fn let_listing_rest(&self, error: &FetchError, failure: Failure) {
        let mut memory = self.memory();
        let failures = memory.listing_rests.as_ref().map_or(0, |rests| rests.failures).saturating_add(1);
        let until = Rest::after(error).wait(failures).map(|rest| Instant::now() + rest);
        memory.listing_rests = Some(Resting { failures, until, failure });
    }

    fn listing_is_left_alone(&self) -> Option<Failure> {
        let memory = self.memory();
        let Resting { until, failure, .. } = memory.listing_rests.as_ref()?;
        let left = until.filter(|until| Instant::now() < *until)? - Instant::now();
        let until = self.forwarder.outside.clock.now() + left;
        let text = format!("left alone until {}, after {}", Stamp::from_time(until).rfc3339(), failure.text);
        Some(Failure { kind: failure.kind.clone(), text, is_known: true })
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known_sites(&self) -> Vec<String> {
        self.memory().sites.keys().cloned().collect()
    }

    fn forget_all_but(&self, sites: &[String]) {
        let sites: HashSet<_> = sites.iter().collect();
        self.memory().sites.retain(|site, _| sites.contains(site));
    }

    /// The sites with their memories, the longest-waiting first.
    fn in_turn(&self, sites: Vec<String>) -> Vec<(String, Arc<tokio::sync::Mutex<SiteMemory>>)> {
        let mut memory = self.memory();
        memory.invocations += 1;
        let mut sites: Vec<_> = sites
            .into_iter()
            .map(|site| {
                let entry = memory.sites.entry(site.clone()).or_default();
                (entry.last_turn, site, entry.memory.clone())
            })
            .collect();
        sites.sort_by_key(|(last_turn, ..)| *last_turn);
        sites.into_iter().map(|(_, site, memory)| (site, memory)).collect()
    }

    /// Whether the site's cursor is to be read again; not for all sites in one run.
    fn cursor_is_old(&self, site: &str) -> bool {
        let (mut memory, now) = (self.memory(), Instant::now());
        let Some(entry) = memory.sites.get_mut(site) else { return false };
        let is_old = entry.cursor_holds_until.is_some_and(|until| now >= until);
        if is_old || entry.cursor_holds_until.is_none() {
            entry.cursor_holds_until = Some(now + CURSOR_HOLDS.mul_f64(0.5 + fastrand::f64() / 2.0));
        }
        is_old
    }

    fn had_its_turn(&self, site: &str) {
        let mut memory = self.memory();
        let now = memory.invocations;
        if let Some(entry) = memory.sites.get_mut(site) {
            entry.last_turn = now;
        }
    }
}

#[cfg(test)]
mod tests;
