//! `rapidM2MForwarding`: on a timer, every site is polled and its rows are forwarded.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    config::rapidm2m::Selection,
    forward::{Failure, Forwarder, Limits, Report, SiteMemory, record::Rest},
    ledger::SiteKey,
    rapidm2m::{FetchError, Stamp},
};

/// Of the invocation's time: when listing the sites, sending what waits, asking, and sending what is new must have ended.
/// The rest is for marking what was acknowledged.
const LISTING: f64 = 0.25;
const RESENDING: f64 = 0.4;
const ASKING: f64 = 0.8;
const SENDING: f64 = 0.9;
/// Sites that wait for the registration of their devices at once.
const PROVISIONING_CONCURRENCY: usize = 64;
/// How many different failures are logged, and how many of the sites that each hit are named; all are in the ledger.
const LOGGED_FAILURES: usize = 20;
const LOGGED_SITES: usize = 5;
/// How many failures are named in the answer.
const NAMED_FAILURES: usize = 1_000;
/// The pseudo site under which it is recorded that the sites could not be listed.
pub(crate) const ALL_SITES: &str = "*";

/// Polls the sites of one customer.
pub struct RapidM2mForwarding {
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
}

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
    pub took: Duration,
}

impl RapidM2mForwarding {
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
    pub async fn invoke(&self) -> Summary {
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

        let mut summary = Summary::default();
        let sites = self.sites(&mut summary).await;
        summary.sites = sites.len();
        let turns = futures::stream::iter(self.in_turn(sites)).map(|(site, memory)| async move {
            let report = if Instant::now() < limits.ask_until {
                let turn = self.turn(&site, &memory, limits);
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
                Ok(report) if report.is_provisioning => provisioning.push((site, report)),
                Ok(report) => summary.add(site, report),
                Err(what) => {
                    let text = format!(
                        "{what} within PollTimeoutSeconds={}; it comes first next time",
                        self.timeout.as_secs()
                    );
                    summary.failures.push((site, Failure { kind: "deadline".into(), text, is_known: false }));
                }
            }
        }
        drop(turns);
        self.send_when_provisioned(provisioning, limits, deadline, &mut summary).await;
        summary.failures.sort_by(|(a, _), (b, _)| a.cmp(b));
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
    ) {
        let limits = Limits { resend_until: limits.send_until, provision_until: limits.send_until, ..limits };
        let turns = futures::stream::iter(sites).map(|(site, mut report)| async move {
            let memory = self.memory().sites.entry(site.clone()).or_default().memory.clone();
            let turn = async {
                let mut memory = memory.lock().await;
                self.forwarder.send_site(&self.key(&site), &mut memory, limits).await
            };
            // Cut off: what was polled and recorded is still so.
            if let Ok(sent) = tokio::time::timeout_at(deadline, turn).await {
                report.add_sent(sent);
            }
            (site, report)
        });
        let mut turns = turns.buffer_unordered(PROVISIONING_CONCURRENCY);
        while let Some((site, report)) = turns.next().await {
            summary.add(site, report);
        }
    }

    fn key(&self, site: &str) -> SiteKey {
        SiteKey { customer: self.customer.clone(), site: site.to_owned() }
    }

    async fn turn(&self, site: &str, memory: &tokio::sync::Mutex<SiteMemory>, limits: Limits) -> Report {
        // An overlapping invocation may be at the same site: it finishes first.
        let mut memory = memory.lock().await;
        let report = self.forwarder.poll_site(&self.key(site), &mut memory, limits).await;
        self.had_its_turn(site);
        report
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
        match self.forwarder.outside.source.sites(&self.customer, limit).await {
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

    fn had_its_turn(&self, site: &str) {
        let mut memory = self.memory();
        let now = memory.invocations;
        if let Some(entry) = memory.sites.get_mut(site) {
            entry.last_turn = now;
        }
    }
}

impl Summary {
    fn add(&mut self, site: String, report: Report) {
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

    fn log(&self) {
        for (failure, sites) in self.new_failures().into_iter().take(LOGGED_FAILURES) {
            let mut named = sites.iter().take(LOGGED_SITES).copied().collect::<Vec<_>>().join(", ");
            if sites.len() > LOGGED_SITES {
                named.push_str(&format!(" and {} more", sites.len() - LOGGED_SITES));
            }
            tracing::warn!(sites = %named, kind = %failure.kind, "{}", failure.text);
        }
        if self.is_success() {
            tracing::info!("{self}");
        } else {
            tracing::error!("{self}");
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failed: BTreeSet<_> = self.failures.iter().map(|(site, _)| site).collect();
        write!(
            out,
            "rapidM2MForwarding: {} of {} sites polled, {} rows recorded, {} rows forwarded in {} messages, {} waiting, {} failed",
            self.polled,
            self.sites,
            self.rows_recorded,
            self.rows_forwarded,
            self.messages_forwarded,
            self.waiting,
            failed.len(),
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
