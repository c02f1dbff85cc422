//! Which sites have a turn in a run: those that are polled, and those whose messages wait although they are not polled
//! any more.

use std::{sync::Arc, time::Duration};

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{LISTING, Memory, Polling, Summary};
use crate::rapidm2m::{
    FetchError, Selection, Site, Stamp,
    client::Limit,
    directory::{Directory, Known, Resolved},
    ledger::{ALL_SITES, SiteKey},
    polling::{Failure, record::Retry},
    site::Listed,
};

/// How long the list is used to resolve names of `Site_ID`. With `Site_ID=*`, or if its contacts are used, it is requested in
/// each run.
const LIST_HOLDS: Duration = Duration::from_secs(10 * 60);
/// How long what was read of the cursors is used: the operator may have put messages back.
const DIRECTORY_HOLDS: Duration = Duration::from_secs(10 * 60);
/// If the list lacks more of the known sites than this, in per cent, something is wrong with the list.
const PLAUSIBLE_SHRINKAGE: usize = 5;
/// A list that stays shorter for so long is the truth.
const SHRINKAGE_HOLDS: Duration = Duration::from_secs(24 * 60 * 60);

/// For how long a start does not trust contacts that were wrong before.
const DISTRUST: TimeDelta = TimeDelta::days(7);

/// What a turn is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Task {
    #[default]
    Poll,
    /// The site is not polled any more, but messages wait.
    Send,
    /// The site has no news, but an acknowledged message is not marked yet.
    Mark,
    /// The backend does not list the site any more.
    Leave,
}

/// The sites of a run.
pub struct Plan {
    pub tasks: Vec<(Task, Site)>,
    /// Why it is not known which sites have a cursor.
    pub unread: Option<Failure>,
    /// Whether sites without a cursor may begin: otherwise a renamed site might begin anew.
    pub begins: bool,
    /// The list was requested just now, and its contacts are used.
    pub has_hints: bool,
    /// The backend and Cosmos DB have just answered, so other instances may ask them, too.
    pub can_be_handed_out: bool,
}

/// What the process knows of the sites.
#[derive(Default)]
pub struct Sites {
    directory: Option<(Instant, Directory)>,
    list: Option<(Instant, Arc<[Listed]>)>,
    /// Whether the last request for the list succeeded. If not, the failure is on record until one does.
    is_listed: bool,
    /// Since when the list lacks more sites than is plausible.
    shrunk_since: Option<Instant>,
    remarks: Vec<String>,
}

impl Sites {
    /// Makes the next run read the cursors again.
    pub fn expire(&mut self) {
        self.directory = None;
    }

    pub fn directory(&mut self) -> Option<&mut Directory> {
        self.directory.as_mut().map(|(_, directory)| directory)
    }
}

impl Polling {
    pub(super) async fn plan(&self, summary: &mut Summary) -> Plan {
        let unread = self.read_directory().await.err();
        let (listed, is_fresh) = match self.options.sites {
            Selection::All => self.list(summary).await,
            Selection::Named(_) => self.list_for_names().await,
        };
        let has_hints = is_fresh && self.options.sweep.is_some();
        let mut memory = self.memory();
        let empty = Directory::new(&self.options.customer, []);
        let Memory { sites, .. } = &mut *memory;
        let directory = sites.directory.as_ref().map_or(&empty, |(_, directory)| directory);
        let Resolved { sites: polled, remarks } = match &self.options.sites {
            Selection::All => Resolved { sites: directory.all(&listed), remarks: Vec::new() },
            Selection::Named(names) => directory.named(names, &listed),
        };
        let site = |known: &Known| Site {
            key: SiteKey { customer: self.options.customer.clone(), site: known.place.clone() },
            name: known.name.clone(),
            uid: known.uid.clone(),
            contact: None,
        };
        let missing = directory.missing(&polled);
        let mut gone: Vec<Site> = Vec::new();
        if is_fresh && self.options.sites == Selection::All {
            if is_plausible(missing.len(), directory.count()) || is_old(sites.shrunk_since) {
                sites.shrunk_since = None;
                gone = missing.into_iter().map(site).collect();
            } else {
                sites.shrunk_since.get_or_insert_with(Instant::now);
                summary.unlisted = missing.len();
            }
        }
        let orphans = directory.orphans(&polled).into_iter().map(site);
        let mut tasks: Vec<_> = orphans.map(|site| (Task::Send, site)).collect();
        tasks.extend(gone.into_iter().map(|site| (Task::Leave, site)));
        tasks.extend(polled.into_iter().map(|site| (Task::Poll, site)));
        for remark in &remarks {
            if !sites.remarks.contains(remark) {
                tracing::warn!("{remark}");
            }
        }
        sites.remarks = remarks;
        let begins = sites.directory.is_some();
        let can_be_handed_out = is_fresh && unread.is_none();
        Plan { tasks, unread, begins, has_hints, can_be_handed_out }
    }

    async fn read_directory(&self) -> Result<(), Failure> {
        let holds = |read: &(Instant, Directory)| read.0.elapsed() < DIRECTORY_HOLDS;
        if self.memory().sites.directory.as_ref().is_some_and(holds) {
            return if self.options.queue.is_some() { self.learn_changes().await } else { Ok(()) };
        }
        match self.forwarder.world.directory(&self.options.customer).await {
            Ok(directory) => {
                // Not all instances read it in the same run.
                let at = Instant::now() - DIRECTORY_HOLDS.mul_f64(fastrand::f64() / 4.0);
                if let Some(gate) = self.gate() {
                    gate.restore(directory.refused_logins.clone(), self.forwarder.world.clock.now());
                }
                let wrong_for = directory.contacts_wrong_since.map(|since| self.forwarder.world.clock.now() - since);
                let mut memory = self.memory();
                memory.is_hint_wrong |= wrong_for.is_some_and(|wrong_for| wrong_for < DISTRUST);
                if let (Some(sweep), Some(_)) = (self.options.sweep, &self.options.queue) {
                    let now = Instant::now();
                    for (place, entry) in &mut memory.entries {
                        if let Some(known) = directory.at(place) {
                            entry.asked.learn(known, sweep, fastrand::f64(), now);
                        }
                    }
                }
                memory.sites.directory = Some((at, directory));
                Ok(())
            }
            Err(error) => {
                let text = format!("reading which sites have a cursor: {error}");
                Err(Failure { kind: error.kind(), text, is_known: false })
            }
        }
    }

    /// The backend's list, and whether it was requested just now. If the backend gives none, this is an earlier list.
    async fn list(&self, summary: &mut Summary) -> (Arc<[Listed]>, bool) {
        if let Some(failure) = self.listing_backs_off() {
            summary.failures.push((ALL_SITES.into(), failure));
            return (self.earlier_list(), false);
        }
        let started = Instant::now();
        match self.forwarder.world.sites(&self.options.customer, Limit::of(self.options.timeout.mul_f64(LISTING))).await
        {
            Ok(listed) => {
                let listed: Arc<[Listed]> = listed.into();
                self.listing.forget_key(&());
                let was_listed = {
                    let sites = &mut self.memory().sites;
                    sites.list = Some((started, listed.clone()));
                    std::mem::replace(&mut sites.is_listed, true)
                };
                if !was_listed {
                    self.forwarder.record_listing(&self.options.customer, Ok(()), started.elapsed()).await;
                }
                (listed, true)
            }
            Err(error @ FetchError::Held { .. }) => {
                summary.hold(error);
                (self.earlier_list(), false)
            }
            Err(error) => {
                let mut text = format!("listing the sites: {error}");
                if let (FetchError::NoSites, Some(known)) = (&error, self.known_sites()) {
                    text.push_str(&format!("; {known} were polled before and continue"));
                }
                let failure = Failure { kind: error.kind(), text, is_known: false };
                summary.failures.push((ALL_SITES.into(), failure.clone()));
                if let Retry::BackOff(requested) = Retry::after(&error) {
                    self.listing.failed((), failure, requested, started);
                } else {
                    self.listing.forget_key(&());
                }
                self.memory().sites.is_listed = false;
                self.forwarder.record_listing(&self.options.customer, Err(&error), started.elapsed()).await;
                (self.earlier_list(), false)
            }
        }
    }

    /// The list by which names of `Site_ID` are resolved, and whether it was requested just now. Names also work without it, so
    /// a failure is only said.
    async fn list_for_names(&self) -> (Arc<[Listed]>, bool) {
        let holds = |list: &(Instant, Arc<[Listed]>)| list.0.elapsed() < LIST_HOLDS;
        let is_used_up = {
            let memory = self.memory();
            self.options.queue.is_some()
                || self.options.sweep.is_some() && !memory.is_hint_wrong
                || !memory.sites.list.as_ref().is_some_and(holds)
        };
        if !is_used_up || self.listing.holding(&()).is_some() {
            return (self.earlier_list(), false);
        }
        let started = Instant::now();
        match self.forwarder.world.sites(&self.options.customer, Limit::of(self.options.timeout.mul_f64(LISTING))).await
        {
            Ok(listed) => {
                let listed: Arc<[Listed]> = listed.into();
                self.listing.forget_key(&());
                self.memory().sites.list = Some((started, listed.clone()));
                (listed, true)
            }
            Err(FetchError::Held { .. }) => (self.earlier_list(), false),
            Err(error) => {
                let failure = Failure { kind: error.kind(), text: error.to_string(), is_known: true };
                let is_first = self.listing.last(&()).is_none();
                self.listing.failed((), failure, error.retry_after(), started);
                if is_first {
                    tracing::info!(
                        failure.kind = error.kind().as_str(),
                        "the sites of {:?} cannot be listed, so a site that is renamed is not recognised: {error}",
                        self.options.customer
                    );
                }
                (self.earlier_list(), false)
            }
        }
    }

    fn earlier_list(&self) -> Arc<[Listed]> {
        self.memory().sites.list.as_ref().map(|(_, list)| list.clone()).unwrap_or_default()
    }

    /// How many sites have a cursor, if there are some.
    fn known_sites(&self) -> Option<usize> {
        self.memory().sites.directory().map(|directory| directory.count()).filter(|count| *count > 0)
    }

    fn listing_backs_off(&self) -> Option<Failure> {
        let failed = self.listing.holding(&())?;
        let until = self.forwarder.world.clock.now() + failed.left();
        let text = format!("next attempt at {}, after {}", Stamp::from_time(until).rfc3339(), failed.error.text);
        Some(Failure { text, is_known: true, ..failed.error })
    }
}

/// Whether so many sites may have been removed. One site is always plausible.
fn is_plausible(missing: usize, known: usize) -> bool {
    missing <= 1 || missing * 100 <= known * PLAUSIBLE_SHRINKAGE
}

fn is_old(since: Option<Instant>) -> bool {
    since.is_some_and(|since| since.elapsed() >= SHRINKAGE_HOLDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_may_shrink_a_little() {
        for (missing, known, expected) in
            [(0, 0, true), (1, 1, true), (2, 3, false), (100, 2_000, true), (101, 2_000, false), (2_000, 2_000, false)]
        {
            assert_eq!(is_plausible(missing, known), expected, "{missing} of {known}");
        }
    }
}
