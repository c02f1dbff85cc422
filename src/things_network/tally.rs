//! Counts the work of functions that are called up to a thousand times a second, so that they log it once a minute.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep};
use tracing::Level;

use crate::support::summary_line::summary_line;
use crate::{
    iot_hub::Sender,
    support::kind::Kind,
    support::meter::{Meters, Readings},
};

/// Time from the first count to the line that reports it.
const PERIOD: Duration = Duration::from_secs(60);
/// An outage is over if it was not met for this long. What waits for it comes back more often.
const LULL: Duration = Duration::from_secs(15 * 60);
/// How often an outage that lasts is logged in full.
const AGAIN: Duration = Duration::from_secs(60 * 60);

/// The things that are counted. Failures are counted by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Count {
    UplinksAccepted,
    EventsAccepted,
    EventsIgnored,
    WebhooksCutDown,
    WebhooksRefused,
    UplinksForwarded,
    EventsForwarded,
    MessagesRejected,
    MessagesPutBack,
    DownlinksForwarded,
    DownlinksRejected,
    DownlinkChecksFailed,
}

impl Count {
    fn text(self) -> &'static str {
        match self {
            Self::UplinksAccepted => "uplinks accepted",
            Self::EventsAccepted => "events accepted",
            Self::EventsIgnored => "events ignored",
            Self::WebhooksCutDown => "webhooks cut down",
            Self::WebhooksRefused => "webhooks refused",
            Self::UplinksForwarded => "uplinks forwarded",
            Self::EventsForwarded => "events forwarded",
            Self::MessagesRejected => "messages rejected",
            Self::MessagesPutBack => "messages put back",
            Self::DownlinksForwarded => "downlinks passed on",
            Self::DownlinksRejected => "downlinks rejected",
            Self::DownlinkChecksFailed => "downlink checks failed",
        }
    }
}

/// The counts of a function since its last line. Cheap to clone.
#[derive(Clone)]
pub struct Tally {
    function: &'static str,
    counts: Arc<Mutex<Counts>>,
    outages: Arc<Mutex<BTreeMap<Kind, Outage>>>,
    meters: Arc<Meters>,
    sender: Option<Arc<Sender>>,
}

/// A failure that lasts.
struct Outage {
    logged: Option<Instant>,
    seen: Instant,
}

#[derive(Debug, Default)]
struct Counts {
    done: BTreeMap<Count, u64>,
    /// By kind.
    failures: BTreeMap<Kind, u64>,
}

impl Tally {
    /// `meters` and `sender` are those that the function uses for its requests.
    pub fn new(function: &'static str, meters: Arc<Meters>, sender: Option<Arc<Sender>>) -> Self {
        Self { function, counts: Arc::default(), outages: Arc::default(), meters, sender }
    }

    /// Counts one more. Returns whether it is the first since the last line, so that a fault that occurs a thousand
    /// times is logged in full once.
    ///
    /// Must be called within a runtime.
    pub fn count(&self, what: Count) -> bool {
        self.add(|counts| one_more(counts.done.entry(what).or_default()))
    }

    /// Counts a failure that lasts, such as an outage. Returns whether it begins, or an hour has passed since this was last
    /// so.
    ///
    /// Must be called within a runtime.
    pub fn lasts(&self, kind: Kind) -> bool {
        self.failed(kind.clone());
        let (now, mut outages) = (Instant::now(), self.outages.lock().unwrap_or_else(PoisonError::into_inner));
        let outage = outages.entry(kind).or_insert(Outage { logged: None, seen: now });
        let is_over = now - outage.seen > LULL;
        outage.seen = now;
        let is_due = is_over || outage.logged.is_none_or(|logged| now - logged >= AGAIN);
        if is_due {
            outage.logged = Some(now);
        }
        is_due
    }

    /// Counts a failure. Returns whether it is the first of its kind since the last line.
    ///
    /// Must be called within a runtime.
    pub fn failed(&self, kind: Kind) -> bool {
        self.add(|counts| one_more(counts.failures.entry(kind).or_default()))
    }

    fn add(&self, add: impl FnOnce(&mut Counts) -> bool) -> bool {
        let (is_first_of_all, is_first) = {
            let mut counts = self.counts();
            let is_first_of_all = counts.done.is_empty() && counts.failures.is_empty();
            (is_first_of_all, add(&mut counts))
        };
        if is_first_of_all {
            let tally = self.clone();
            tokio::spawn(async move {
                sleep(PERIOD).await;
                tally.log();
            });
        }
        is_first
    }

    fn log(&self) {
        let counts = std::mem::take(&mut *self.counts());
        let (function, period) = (self.function, PERIOD.as_secs());
        for (kind, count) in &counts.failures {
            let failures = if *count == 1 { "failure" } else { "failures" };
            tracing::info!(
                function.name = function,
                failure.kind = kind.as_str(),
                failure.count = count,
                "{function}: {count} {failures} in the last {period} s: {kind}"
            );
        }
        let unconfirmed = self.sender.as_ref().and_then(|sender| sender.take_unconfirmed());
        let count = |what| counts.done.get(&what).copied();
        summary_line!(Level::INFO, Readings { unconfirmed, ..self.meters.take() }, {
            function.name = function,
            period_s = period,
            uplinks.accepted = count(Count::UplinksAccepted),
            uplinks.forwarded = count(Count::UplinksForwarded),
            events.accepted = count(Count::EventsAccepted),
            events.ignored = count(Count::EventsIgnored),
            events.forwarded = count(Count::EventsForwarded),
            webhooks.cut_down = count(Count::WebhooksCutDown),
            webhooks.refused = count(Count::WebhooksRefused),
            messages.rejected = count(Count::MessagesRejected),
            messages.put_back = count(Count::MessagesPutBack),
            downlinks.forwarded = count(Count::DownlinksForwarded),
            downlinks.rejected = count(Count::DownlinksRejected),
            downlinks.checks_failed = count(Count::DownlinkChecksFailed),
            failures.total = counts.failures.values().sum::<u64>(),
        }, "{function}: {counts} within {period} s");
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn one_more(count: &mut u64) -> bool {
    *count += 1;
    *count == 1
}

impl std::fmt::Display for Counts {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let done = self.done.iter().map(|(what, count)| (what.text(), count));
        let failures = self.failures.iter().map(|(kind, count)| (kind.as_str(), count));
        let parts: Vec<_> = done.chain(failures).map(|(what, count)| format!("{count} {what}")).collect();
        out.write_str(&parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_of_a_kind_is_told_again_after_a_minute() {
        let tally = Tally::new("f", Arc::default(), None);
        tally.count(Count::UplinksForwarded);
        tally.count(Count::UplinksForwarded);
        assert!(tally.failed(Kind::HubUnreachable));
        assert!(!tally.failed(Kind::HubUnreachable));
        assert_eq!(tally.counts().to_string(), "2 uplinks forwarded, 2 hub_unreachable");
        sleep(PERIOD + Duration::from_secs(1)).await;
        assert_eq!(tally.counts().to_string(), "");
        assert!(tally.failed(Kind::HubUnreachable));
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_told_when_it_begins_and_once_an_hour() {
        let tally = Tally::new("f", Arc::default(), None);
        assert!(tally.lasts(Kind::HubUnreachable) && !tally.lasts(Kind::HubUnreachable));
        assert!(tally.lasts(Kind::Turn), "another cause");
        for minutes in (10..60).step_by(10) {
            sleep(Duration::from_secs(600)).await;
            assert!(!tally.lasts(Kind::HubUnreachable), "after {minutes} minutes");
        }
        sleep(Duration::from_secs(600)).await;
        assert!(tally.lasts(Kind::HubUnreachable), "after an hour");
        sleep(LULL + PERIOD).await;
        assert!(tally.lasts(Kind::HubUnreachable), "another outage");
    }
}
