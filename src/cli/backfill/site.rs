//! Runs one site's backfill from the start of the range, or from where it stopped, to the end.

use std::time::Duration;

use anyhow::{bail, ensure};
use chrono::{DateTime, Utc};
use iothub_connector::{
    rapidm2m::{
        Site, Stamp,
        backfill::{Next, Run, Stretch, position},
        client::Limit,
        ledger::{BackfillRange, Cursor},
        polling::{Forwarder, Limits, Report},
    },
    support::backoff::Policy,
};
use tokio::time::Instant;

use crate::cli::sites;

use super::{
    Options,
    progress::Progress,
    range::{self, text},
    summary::Summary,
    totals::Totals,
};

/// Time for requests to the backend for one window, including the narrower windows that are tried after it.
const ASKING: Duration = Duration::from_secs(5 * 60);
/// Time for the list of sites.
const LISTING: Duration = Duration::from_secs(15);
/// Additional time for sending the window's messages to the hub. A hub that is silent is given up on long before.
const SENDING: Duration = Duration::from_secs(5 * 60);
const RETRY: Policy = Policy::jittered(Duration::from_secs(1), Duration::from_secs(30));
/// The command stops if a service requests a longer back-off than this.
const PATIENCE: Duration = Duration::from_secs(5 * 60);

pub struct Backfilling<'a> {
    pub forwarder: &'a Forwarder,
    pub customer: &'a str,
    pub site: &'a str,
    pub from: DateTime<Utc>,
    pub until: Option<DateTime<Utc>>,
    pub options: &'a Options,
    pub progress: &'a Progress,
}

impl Backfilling<'_> {
    /// The site that the user names, as the app knows it.
    async fn resolve(&self) -> anyhow::Result<Site> {
        let world = &self.forwarder.world;
        let directory = world.directory(self.customer).await?;
        // Without a list, the site is asked for by its name.
        let listed = world.sites(self.customer, Limit::of(LISTING)).await.unwrap_or_default();
        let mut sites = directory.named(&[self.site.to_owned()], &listed).sites;
        match (sites.pop(), sites.pop()) {
            (Some(site), None) => Ok(site),
            (one, other) => {
                let sites = [one, other].into_iter().flatten();
                let uids: Vec<_> = sites.filter_map(|site| site.uid).collect();
                bail!("{}", sites::ambiguous(self.site, uids.iter().map(String::as_str)))
            }
        }
    }

    /// Returns whether every row of the range has arrived at the hub.
    ///
    /// # Errors
    /// The backfill cannot go on. The message says how far it came and what to do.
    pub async fn run(&self) -> anyhow::Result<bool> {
        let site = self.resolve().await?;
        let known = self.forwarder.world.ledger.cursors_of_site(&site.key).await?;
        let from = Stamp::from_time(self.from).time();
        let until = Stamp::from_time(range::end(from, self.until, &known, Utc::now())?).time();
        ensure!(from < until, "the range is shorter than a millisecond");
        let earlier = known.into_iter().find(|cursor| {
            cursor.backfill.as_ref().is_some_and(|backfill| (backfill.from, backfill.until) == (from, until))
        });
        if let Some(cursor) = &earlier
            && let Some(histdata) = cursor.histdata.filter(|histdata| *histdata != self.forwarder.histdata)
        {
            ensure!(
                self.options.again,
                "this range was fetched from histdata{histdata}, and Histdata is {} now: --again fetches it from there",
                self.forwarder.histdata
            );
        }
        let mut backfill = OneRange {
            of: site,
            forwarder: self.forwarder,
            run: Run::new(BackfillRange { from, until }),
            from,
            until,
            site: self,
            totals: Totals::default(),
            began: Instant::now(),
        };
        if self.options.dry_run {
            return backfill.measure().await;
        }
        if self.options.drop {
            let Some(one) = earlier.as_ref().and_then(|cursor| cursor.backfill.as_ref()) else {
                bail!("there is no backfill of this range{}", backfill.of_range());
            };
            ensure!(
                one.is_open(),
                "the backfill of this range{} is over: there is nothing to drop",
                backfill.of_range()
            );
            return backfill.give_up().await;
        }
        if let Some(done) = earlier.as_ref().filter(|cursor| cursor.backfill.as_ref().is_some_and(|one| !one.is_open()))
        {
            if !self.options.again {
                return Ok(self.progress.is_done(self.site, done, self.until.is_none())?);
            }
            backfill.begin_again().await?;
        }
        backfill.go_through().await
    }
}

struct OneRange<'a> {
    of: Site,
    forwarder: &'a Forwarder,
    run: Run,
    from: DateTime<Utc>,
    until: DateTime<Utc>,
    site: &'a Backfilling<'a>,
    totals: Totals,
    began: Instant,
}

impl OneRange<'_> {
    async fn go_through(&mut self) -> anyhow::Result<bool> {
        let (mut failures, mut last) = (0, None);
        let (progress, site) = (self.site.progress, self.site.site);
        progress.begin(site, self.from, self.until);
        loop {
            let Stretch { report, cursor, next } = self.forwarder.backfill(&self.of, &mut self.run, limits()).await;
            self.totals.add(&report);
            let is_further = report.messages_forwarded + report.messages_rejected + report.rows_recorded > 0
                || cursor.is_some() && cursor.as_ref().and_then(position) != last.as_ref().and_then(position);
            last = cursor.or(last);
            if let Some(cursor) = &last {
                progress.at(site, cursor, &self.totals, self.began.elapsed())?;
            }
            failures = if is_further { 0 } else { failures };
            match next {
                Next::GoOn => {}
                Next::Finished => break,
                Next::GiveUp => bail!("{}", self.stopped(&report, last.as_ref())),
                Next::TryAgain(rest) => {
                    failures += 1;
                    if failures >= self.site.options.attempts || rest > PATIENCE {
                        bail!("{}", self.stopped(&report, last.as_ref()));
                    }
                    let wait = RETRY.wait(failures).max(rest);
                    progress.remark(
                        site,
                        &format!("{}; trying again in {:.1} s", what_failed(&report), wait.as_secs_f64()),
                    );
                    tokio::time::sleep(wait).await;
                    self.site.forwarder.world.delivery.try_again();
                }
            }
        }
        let summary = self.summary(last.as_ref());
        progress.finished(&summary)?;
        Ok(summary.backfill.is_some_and(|backfill| backfill.rejected == 0 && backfill.bad_rows == 0))
    }

    fn summary<'b>(&'b self, cursor: Option<&'b Cursor>) -> Summary<'b> {
        Summary {
            site: self.site.site,
            from: self.from,
            until: self.until,
            backfill: cursor.and_then(|cursor| cursor.backfill.as_ref()),
            totals: &self.totals,
            took: self.began.elapsed(),
        }
    }

    /// Why the backfill stops, how far it came, and how to resume it.
    fn stopped(&self, report: &Report, cursor: Option<&Cursor>) -> String {
        let mut said = what_failed(report);
        match cursor {
            Some(cursor) if cursor.scanned_until.is_some() => {
                let position = position(cursor).unwrap_or(Stamp::from_time(self.from));
                let backfill = cursor.backfill.as_ref();
                said += &format!(
                    "; the backfill came to {} ({} rows in {} messages recorded; waiting for the hub: {})",
                    position.rfc3339(),
                    backfill.map_or(0, |backfill| backfill.rows),
                    backfill.map_or(0, |backfill| backfill.messages),
                    cursor.unforwarded.len(),
                );
                said += ". Run the same command to resume";
            }
            Some(_) => said += ". Nothing was recorded. Fix the cause and run the same command again",
            None => said += ". Run the same command to resume",
        }
        said
    }

    async fn measure(&mut self) -> anyhow::Result<bool> {
        let (mut at, until, mut failures) = (Stamp::from_time(self.from), Stamp::from_time(self.until), 0);
        let (progress, site) = (self.site.progress, self.site.site);
        progress.begin(site, self.from, self.until);
        while at < until {
            match self.forwarder.measure(&self.of, &mut self.run, at, limits()).await {
                Ok(measured) => {
                    failures = 0;
                    at = measured.until;
                    self.totals.add_measured(&measured);
                    progress.measured(site, at.time(), &self.totals, self.began.elapsed())?;
                }
                Err(error) => {
                    failures += 1;
                    let rest = error.retry_after().unwrap_or_default();
                    if error.is_permanent() || failures >= self.site.options.attempts || rest > PATIENCE {
                        bail!("{error}; it was counted up to {}", at.rfc3339());
                    }
                    let wait = RETRY.wait(failures).max(rest);
                    progress.remark(site, &format!("{error}; trying again in {:.1} s", wait.as_secs_f64()));
                    tokio::time::sleep(wait).await;
                }
            }
        }
        progress.counted(&self.summary(None))?;
        Ok(self.totals.bad_rows == 0)
    }

    async fn begin_again(&mut self) -> anyhow::Result<()> {
        let begun = self.forwarder.begin_backfill_again(&self.of, &mut self.run, limits()).await;
        ensure!(begun.next == Next::GoOn, "{}; nothing has begun, try again", what_failed(&begun.report));
        Ok(())
    }

    async fn give_up(&mut self) -> anyhow::Result<bool> {
        let dropped = self.forwarder.drop_backfill(&self.of, &mut self.run, limits()).await;
        if dropped.next != Next::Finished {
            let left = dropped.report.waiting;
            bail!("{}; messages that still wait: {left}. Try again", what_failed(&dropped.report));
        }
        self.site.progress.dropped(&self.summary(dropped.cursor.as_ref()), dropped.report.messages_rejected)?;
        Ok(true)
    }

    fn of_range(&self) -> String {
        format!(" ({} to {})", text(self.from), text(self.until))
    }
}

fn limits() -> Limits {
    let now = Instant::now();
    let send_until = now + ASKING + SENDING;
    Limits {
        ask_until: now + ASKING,
        answer: ASKING,
        resend_until: send_until,
        send_until,
        provision_until: send_until,
        begins: true,
    }
}

fn what_failed(report: &Report) -> String {
    match report.failures.last() {
        Some(failure) => failure.text.clone(),
        None if report.lost_race => "another process works at the same backfill: let it finish, or stop it".into(),
        None if report.is_provisioning => "the site's device is still being registered".into(),
        None => "the time was over".into(),
    }
}
