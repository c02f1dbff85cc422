//! Puts uplinks that The Things Stack has stored into the queue of uplinks, as if their webhooks had just come.

use std::{
    collections::{BTreeSet, HashSet},
    io,
    time::Duration,
};

use chrono::{DateTime, Utc};
use iothub_connector::{
    config::{Problems, Settings, hub, storage, things_stack},
    queue::Queue,
    support::http_client::HttpClient,
    things_network::{
        cut, door,
        queued::Queued,
        storage::{Query, Storage, StorageError},
        webhook::Webhook,
    },
};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{Options, progress::print, range::text};
use crate::cli::{
    exit::Usage,
    table,
    time::{self, Moment},
};

/// Time between two lines of progress.
const LINES: Duration = Duration::from_secs(10);
/// Reasons why uplinks were refused that are shown.
const SHOWN: usize = 10;

/// One application's stored uplinks on their way to the queue.
struct Backfilling<'a> {
    options: &'a Options,
    application: &'a str,
    storage: &'a Storage,
    /// `None` in a dry run.
    queue: Option<&'a Queue>,
    since: DateTime<Utc>,
    until: DateTime<Utc>,
    /// Where the next page begins.
    at: DateTime<Utc>,
    /// The message ids of this page and the one before, in which uplinks of one moment may be again.
    seen: [HashSet<String>; 2],
    uplinks: u64,
    devices: BTreeSet<String>,
    refused: u64,
    began: Instant,
    last_line: Instant,
}

/// Serves one application after the other. One that fails does not stop the others. Returns whether all uplinks are in the
/// queue.
///
/// # Errors
/// Settings or options are wrong, or the output cannot be printed.
pub async fn run(options: &Options, settings: &Settings) -> anyhow::Result<bool> {
    let now = Utc::now();
    let until = options.until.unwrap_or(Moment::At(now));
    let (since, until) = time::range(("--since", options.since), ("--until", Some(until)), now)?;
    let (Some(since), Some(until)) = (since, until) else { return Err(Usage("--since is missing".to_owned()).into()) };
    let mut problems = Problems::default();
    let stack = things_stack::read(settings, &mut problems);
    let trusted_ca = hub::trusted_ca(settings, &mut problems);
    let queue = (!options.dry_run).then(|| {
        let name = settings.required("UplinkQueueName", "the storage queue for uplinks", &mut problems)?;
        let account = storage::read(settings, &mut problems)?;
        Some(Queue::new(&account, name, HttpClient::default()))
    });
    let (Some(stack), Some(trusted_ca), true) = (stack, trusted_ca, problems.is_empty()) else {
        return Err(problems.into());
    };
    let storage = Storage::new(stack.root, stack.api_key, trusted_ca);
    let mut is_well = true;
    for application in &options.storage {
        let began = Instant::now();
        let mut backfilling = Backfilling {
            options,
            application,
            storage: &storage,
            queue: queue.as_ref().and_then(Option::as_ref),
            since,
            until,
            at: since,
            seen: Default::default(),
            uplinks: 0,
            devices: BTreeSet::new(),
            refused: 0,
            began,
            last_line: began,
        };
        let outcome = backfilling.go_through().await;
        is_well &= outcome.is_ok() && backfilling.refused == 0;
        backfilling.ended(outcome)?;
    }
    Ok(is_well)
}

/// A stored uplink, ready for the queue.
struct Stored {
    /// The message id.
    id: String,
    device: String,
    text: String,
}

/// # Errors
/// Why it cannot be queued.
fn stored(webhook: &str) -> Result<Stored, String> {
    let Webhook::Uplink(uplink) = Webhook::parse(webhook).map_err(|invalid| invalid.to_string())? else {
        return Err("it is not a uplink".into());
    };
    if uplink.published_at.is_none() {
        return Err(format!("that of device {} does not say when it was received", uplink.device));
    }
    // The tenant is in the uplink itself.
    let queued = Queued { received_at: Some(Utc::now()), downlink: None, domain: None, webhook: webhook.into() };
    let fitting = cut::fit(queued)
        .map_err(|bytes| format!("that of device {} has {bytes} bytes, more than the queue takes", uplink.device))?;
    Ok(Stored { id: uplink.message_id(None), device: uplink.device.to_string(), text: fitting.text })
}

impl Backfilling<'_> {
    async fn go_through(&mut self) -> anyhow::Result<()> {
        let mut failures = 0;
        loop {
            let (at, before) = (self.at, self.uplinks);
            let outcome = self.page().await;
            let is_further = self.at > at || self.uplinks > before;
            match outcome {
                // That a page is not full says nothing: The Things Stack may have a limit of its own.
                Ok(()) if !is_further => return Ok(()),
                Ok(()) => failures = 0,
                Err(error) => {
                    let wait = error.downcast_ref::<StorageError>().and_then(StorageError::retry_after);
                    failures = if is_further { 1 } else { failures + 1 };
                    let Some(wait) = wait.filter(|_| failures < self.options.attempts) else { return Err(error) };
                    let wait = wait * failures;
                    eprintln!("{}: {error}; next attempt in {} s", table::plain(self.application), wait.as_secs());
                    sleep(wait).await;
                }
            }
        }
    }

    /// Puts the uplinks of the next page into the queue.
    async fn page(&mut self) -> anyhow::Result<()> {
        let device = self.options.device.as_deref();
        let query = Query { application: self.application, device, after: self.at, before: self.until };
        let mut lines = self.storage.page(query).await?;
        if !self.seen[1].is_empty() {
            self.seen.swap(0, 1);
            self.seen[1].clear();
        }
        while let Some(line) = lines.next().await? {
            self.line(&line).await?;
            self.progress()?;
        }
        Ok(())
    }

    async fn line(&mut self, line: &str) -> anyhow::Result<()> {
        let webhook = door::unwrapped(line);
        match stored(webhook) {
            Ok(stored) if self.seen.iter().any(|page| page.contains(&stored.id)) => {}
            Ok(Stored { id, device, text }) => {
                if let Some(queue) = self.queue {
                    queue.put_text(&text).await?;
                }
                self.uplinks += 1;
                self.devices.insert(device);
                self.seen[1].insert(id);
            }
            Err(why) => self.refuse(&why),
        }
        // The next page begins behind this uplink, even if it cannot be used.
        self.at = door::received_at(webhook).map_or(self.at, |at| at.max(self.at));
        Ok(())
    }

    fn refuse(&mut self, why: &str) {
        self.refused += 1;
        if self.refused <= SHOWN as u64 {
            eprintln!("{}: a stored uplink is left out: {}", table::plain(self.application), table::plain(why));
        }
    }

    fn progress(&mut self) -> io::Result<()> {
        if self.last_line.elapsed() < LINES {
            return Ok(());
        }
        self.last_line = Instant::now();
        if self.options.json {
            return print(&json!({
                "type": "progress", "application": self.application, "since": text(self.since), "until": text(self.until),
                "at": text(self.at), "uplinks": self.uplinks, "seconds": self.began.elapsed().as_secs_f64(),
            }));
        }
        eprintln!("{}: {} uplinks, at {}", table::plain(self.application), self.uplinks, text(self.at));
        Ok(())
    }

    fn ended(&self, outcome: anyhow::Result<()>) -> io::Result<()> {
        let error = outcome.err().map(|error| format!("{error:#}"));
        if self.options.json {
            print(&json!({
                "type": "summary", "application": self.application, "since": text(self.since), "until": text(self.until),
                "at": text(self.at), "isFinished": error.is_none(), "uplinks": self.uplinks, "devices": self.devices.len(),
                "refused": self.refused, "queued": if self.queue.is_some() { self.uplinks } else { 0 }, "error": error,
                "seconds": self.began.elapsed().as_secs_f64(),
            }))?;
        } else {
            let what = if self.queue.is_some() { "are in the queue of uplinks" } else { "would be queued" };
            println!(
                "{}: {} uplinks of {} devices, {} to {}, {what}; {} were left out",
                table::plain(self.application),
                self.uplinks,
                self.devices.len(),
                text(self.since),
                text(if error.is_none() { self.until } else { self.at }),
                self.refused
            );
        }
        if let Some(error) = error {
            let application = table::plain(self.application);
            eprintln!(
                "error: {application}: {error}. The same command sends the rest; what comes twice has one message id"
            );
        }
        Ok(())
    }
}
