//! Tells a person of the sites at fault, and of rows that do not go on as they should: once an hour each.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use super::summary::Summary;
use crate::{
    rapidm2m::polling::{Failure, News},
    support::kind::Kind,
};

const EVERY: Duration = Duration::from_secs(60 * 60);
/// How many different failures are logged, and how many affected sites each line names. The ledger has them all.
const LOGGED_FAILURES: usize = 20;
const NAMED_SITES: usize = 5;
/// How many lines about rows of single sites are logged in a run. Others follow in the next runs.
const LOGGED_ROWS: usize = 50;

/// When what was told last.
#[derive(Default)]
pub struct Told(HashMap<(String, What), Instant>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum What {
    Failure(Kind),
    Late,
    Corrected,
    Unusable,
    Ahead,
    ResetClock,
    Unlisted,
}

/// Numbers of rows of one site.
#[derive(Debug)]
pub struct OfSite {
    pub site: String,
    pub late: usize,
    pub corrected: usize,
    pub unusable: usize,
    pub ahead: usize,
    pub reset: usize,
}

impl Told {
    /// Whether it is time to tell it.
    fn is_due(&mut self, site: &str, what: What) -> bool {
        let now = Instant::now();
        match self.0.entry((site.to_owned(), what)) {
            std::collections::hash_map::Entry::Occupied(told) if now - *told.get() < EVERY => false,
            entry => {
                entry.insert_entry(now);
                true
            }
        }
    }

    fn forget_old(&mut self) {
        self.0.retain(|_, told| told.elapsed() < EVERY);
    }

    /// Logs what is new in a run.
    pub fn log(&mut self, summary: &Summary) {
        self.forget_old();
        let are_single = summary.is_success();
        let new = summary.failures.iter().filter(|(_, failure)| !failure.is_known);
        // What is common to all sites is told in each run that it breaks.
        let due = new.filter(|(site, failure)| !are_single || self.is_due(site, What::Failure(failure.kind.clone())));
        for (failure, sites) in groups(due).into_iter().take(LOGGED_FAILURES) {
            tracing::warn!(
                site.names = some_of(&sites),
                failure.kind = failure.kind.as_str(),
                failure.count = sites.len(),
                "{}",
                failure.text
            );
        }
        self.log_rows(summary);
        if summary.unlisted > 0 && self.is_due("", What::Unlisted) {
            tracing::warn!(
                failure.kind = Kind::SitesUnlisted.as_str(),
                "the backend lists {} sites, and {} that were polled before are not among them: they are not polled, and go on \
                 where they were when they are listed again. Check Customer_ID and the user's rights at the backend",
                summary.sites,
                summary.unlisted
            );
        }
        log_news(summary);
    }

    fn log_rows(&mut self, summary: &Summary) {
        let mut logged = 0;
        for OfSite { site, late, corrected, unusable, ahead, reset } in &summary.rows_of_sites {
            for (count, what, text) in [
                (late, What::Late, "came after newer ones. They are forwarded"),
                (
                    corrected,
                    What::Corrected,
                    "have other values than before. They are forwarded, unless ForwardCorrections=false",
                ),
                (unusable, What::Unusable, "cannot be used. Each poll's record names them"),
                (
                    ahead,
                    What::Ahead,
                    "are ahead of the clock. They are left in the backend until their time has come: is the logger's clock \
                     right?",
                ),
                (
                    reset,
                    What::ResetClock,
                    "have times of before 2001: the logger's clock was reset. They are left in the backend; `backfill --from \
                     1999-12-31 --until 2001-01-01` forwards them",
                ),
            ] {
                if *count > 0 && logged < LOGGED_ROWS && self.is_due(site, what) {
                    logged += 1;
                    tracing::warn!(site.name = site, rows.count = count, "{count} rows of the site {text}");
                }
            }
        }
    }
}

/// Each failure once with the sites that it affects: an unreachable backend is one failure, not ten thousand.
fn groups<'a>(failures: impl Iterator<Item = &'a (String, Failure)>) -> Vec<(&'a Failure, Vec<&'a str>)> {
    let mut groups: std::collections::BTreeMap<(&Kind, &str), (&Failure, Vec<&str>)> = Default::default();
    for (site, failure) in failures {
        let (_, sites) = groups.entry((&failure.kind, &failure.text)).or_insert_with(|| (failure, Vec::new()));
        sites.push(site);
    }
    groups.into_values().collect()
}

fn some_of(names: &[&str]) -> String {
    let mut text = names.iter().take(NAMED_SITES).copied().collect::<Vec<_>>().join(", ");
    if names.len() > NAMED_SITES {
        text.push_str(&format!(" and {} more", names.len() - NAMED_SITES));
    }
    text
}

fn log_news(summary: &Summary) {
    let of = |is_meant: fn(&News) -> bool| -> Vec<&str> {
        let meant = summary.news.iter().filter(|(_, news)| is_meant(news));
        meant.map(|(site, _)| site.as_str()).collect()
    };
    let by_uid = of(|news| *news == News::Uid);
    if !by_uid.is_empty() {
        tracing::info!(
            site.names = some_of(&by_uid),
            "the cursors of {} sites have their _uid now: they continue if the site is renamed",
            by_uid.len()
        );
    }
    for (site, news) in summary.news.iter().filter(|(_, news)| *news != News::Uid).take(LOGGED_FAILURES) {
        match news {
            News::Uid => {}
            News::Renamed(before) => {
                tracing::info!(site.name = site, "the site was called {before:?} before; it continues where it was");
            }
            News::Histdata(before) => tracing::warn!(
                site.name = site,
                "Histdata was {before} before: the other container is polled from where it was left, or by StartFrom"
            ),
            News::Gone { waiting: 0 } => {
                tracing::warn!(site.name = site, "the backend does not list the site any more")
            }
            News::Gone { waiting } => tracing::warn!(
                site.name = site,
                "the backend does not list the site any more; {waiting} of its messages wait and will be sent"
            ),
            News::Back => {
                tracing::info!(site.name = site, "the backend lists the site again; it continues where it was")
            }
        }
    }
}
