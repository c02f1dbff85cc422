//! Shows the operator how far sites are behind the clock.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::Instant;

use crate::rapidm2m::{Stamp, polling::Report};

/// A site whose newest row is older than this lags. Loggers upload a few times a day, or every hour.
pub const LAGGING: TimeDelta = TimeDelta::hours(1);
/// How often the lagging sites are logged one by one.
const EVERY: Duration = Duration::from_secs(60 * 60);
/// How many of them are logged, the worst first. Of a fleet that uploads once a day, nearly all lag.
const MOST: usize = 100;

/// The lags that an invocation has found.
#[derive(Debug, Default)]
pub struct Lags {
    /// Present only if the sites are to be logged one by one.
    sites: Option<Vec<Lag>>,
    pub lagging: usize,
    /// The longest lag.
    pub max: Option<TimeDelta>,
}

#[derive(Debug)]
struct Lag {
    site: String,
    newest: DateTime<Utc>,
    lag: TimeDelta,
    waiting: usize,
}

impl Lags {
    /// `told` is when the sites were last logged one by one.
    pub fn new(told: &mut Option<Instant>) -> Self {
        let is_due = told.is_none_or(|told| told.elapsed() >= EVERY);
        if is_due {
            *told = Some(Instant::now());
        }
        Self { sites: is_due.then(Vec::new), ..Self::default() }
    }

    /// Counts a site, if its newest row is known.
    pub fn add(&mut self, site: &str, report: &Report, now: DateTime<Utc>) {
        let Some(newest) = report.newest else { return };
        let lag = now - newest;
        self.max = self.max.max(Some(lag));
        if lag < LAGGING {
            return;
        }
        self.lagging += 1;
        if let Some(sites) = &mut self.sites {
            sites.push(Lag { site: site.to_owned(), newest, lag, waiting: report.waiting });
        }
    }

    /// Logs a line for each lagging site, if it is time for that.
    pub fn log(&mut self) {
        let Some(mut sites) = self.sites.take() else { return };
        sites.sort_by(|a, b| b.lag.cmp(&a.lag).then_with(|| a.site.cmp(&b.site)));
        for Lag { site, newest, lag, waiting } in sites.into_iter().take(MOST) {
            tracing::info!(
                site.name = site,
                site.newest = Stamp::from_time(newest).rfc3339(),
                site.lag_s = lag.num_seconds(),
                site.waiting = waiting,
                "the site's newest row is {} old",
                age(lag)
            );
        }
    }
}

/// `2 d 3 h`, `3 h 20 min`.
fn age(lag: TimeDelta) -> String {
    let (days, hours, minutes) = (lag.num_days(), lag.num_hours() % 24, lag.num_minutes() % 60);
    if days > 0 { format!("{days} d {hours} h") } else { format!("{hours} h {minutes} min") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn sites_are_told_one_by_one_once_an_hour() {
        let now = "2026-01-31T12:00:00Z".parse::<DateTime<Utc>>().unwrap();
        let report = |minutes| Report { newest: Some(now - TimeDelta::minutes(minutes)), ..Report::default() };
        let (mut told, mut names) = (None, Vec::new());
        for _ in 0..61 {
            let mut lags = Lags::new(&mut told);
            lags.add("behind", &report(60), now);
            lags.add("up to date", &report(59), now);
            lags.add("unknown", &Report::default(), now);
            assert_eq!((lags.lagging, lags.max), (1, Some(TimeDelta::minutes(60))));
            names.extend(lags.sites.into_iter().flatten().map(|lag| lag.site));
            tokio::time::advance(Duration::from_secs(60)).await;
        }
        assert_eq!(names, ["behind", "behind"]);
        assert_eq!([age(TimeDelta::minutes(200)), age(TimeDelta::hours(51))], ["3 h 20 min", "2 d 3 h"]);
    }
}
