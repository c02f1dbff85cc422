//! One site: what waits is sent, the backend is asked, its rows are recorded, sent, and marked when acknowledged.
//!
//! What must hold, wherever this is cut, and whoever else polls the same site:
//! - A row is recorded before it is sent; the cursor moves only in the transaction that records the rows behind it.
//! - `forwarded` is written only after the hub acknowledged exactly that message.
//! - A site's messages leave in the order of their rows; what waits goes first.
//!
//! | Module | |
//! |---|---|
//! | `plan` | which window is asked for, and which of its rows are new |
//! | `turn` | what is asked for next, and what becomes of the answer |
//! | `recording` | what is written to the ledger |
//! | `sending` | what goes to the hub, and the marks for what it acknowledged |
//! | [`record`], [`split`] | documents and messages, as pure functions |
//! | [`replay`] | what was rejected, put back by hand |
//! | [`source`] | where rows come from |
//! | [`backfill`] | a range of the site, beside all this and with a cursor of its own |
//! | [`outside`] | the backend, the ledger, the hub and the clock, as a turn needs them |

pub mod outside;
mod plan;
pub mod record;
pub(super) mod recording;
pub mod run;
mod sending;
pub mod source;
pub mod split;
pub(super) mod turn;

use std::{collections::HashSet, time::Duration};

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use crate::rapidm2m::{
    FetchError, Selection, Stamp, StartFrom,
    ledger::{Committed, SiteKey},
    window::Search,
    wire::Flaws,
};

use outside::{Outside, Services};
use record::Asked;
use turn::Turn;

/// Everything that polling a site takes.
pub struct Forwarder<O = Services> {
    pub outside: O,
    pub channels: Selection,
    pub histdata: u8,
    pub start_from: StartFrom,
    /// How far behind the newest recorded row a row may still arrive.
    pub overlap: Option<Duration>,
    pub record_empty_polls: bool,
}

/// What is remembered of a site between polls. Forgetting it costs time, never data.
#[derive(Clone, Debug, Default)]
pub struct SiteMemory {
    /// The cursor as this process last wrote or read it. `None` while it is in use, and after every doubt.
    pub(super) committed: Option<Committed>,
    /// Polls whose messages the hub has acknowledged, but which could not be marked.
    pub(super) acknowledged: HashSet<String>,
    search: Search,
    /// How far the reading of the overlap has come, where one answer does not hold it.
    swept: Option<Stamp>,
    /// Whether it was said that the overlap is shorter than asked for.
    said_overlap_is_short: bool,
    pub(super) channels: Option<(Instant, Vec<String>)>,
    /// The furthest row of the future that was said to be one. A logger whose clock is wrong is a failure once for each such
    /// row, not in every run until their time has come.
    future: Option<Stamp>,
    /// The rows that could not be used when that was last a failure.
    flaws: Option<Flaws>,
    /// Whether this process has tried the site at all.
    tried: bool,
}

impl SiteMemory {
    /// The cursor is read again with the next turn: somebody else may have changed it.
    pub fn forget_cursor(&mut self) {
        self.committed = None;
    }
}

/// When to stop.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Nothing new is asked for after this.
    pub ask_until: Instant,
    /// What waits from earlier turns is sent until here, so that a slow hub does not keep the backend from being asked.
    pub resend_until: Instant,
    /// No acknowledgement is waited for after this.
    pub send_until: Instant,
    /// The registration of the site's device is not waited for after this.
    pub provision_until: Instant,
}

/// What polling a site came to.
#[derive(Debug, Default)]
pub struct Report {
    pub requests: usize,
    pub bytes: usize,
    pub rows_recorded: usize,
    pub messages_forwarded: usize,
    pub rows_forwarded: usize,
    pub messages_rejected: usize,
    /// Rows that could not be used.
    pub bad_rows: usize,
    /// Messages that wait for the hub now.
    pub waiting: usize,
    /// Stamp of the newest recorded row, if there is one and the cursor could be read.
    pub newest: Option<DateTime<Utc>>,
    /// The site's device is being registered: its messages wait for that.
    pub is_provisioning: bool,
    /// The backend has more, the deadline came first.
    pub is_behind: bool,
    /// Another poller was faster; nothing was written.
    pub lost_race: bool,
    /// What went wrong.
    pub failures: Vec<Failure>,
}

impl Report {
    /// Adds what a second turn came to that only sent.
    pub fn add_sent(&mut self, sent: Self) {
        self.messages_forwarded += sent.messages_forwarded;
        self.rows_forwarded += sent.rows_forwarded;
        self.messages_rejected += sent.messages_rejected;
        // A turn that could not even read the cursor knows nothing.
        if sent.failures.is_empty() || sent.waiting > 0 {
            self.waiting = sent.waiting;
            self.newest = sent.newest;
        }
        self.is_provisioning = sent.is_provisioning;
        self.is_behind |= sent.is_behind;
        self.lost_race |= sent.lost_race;
        self.failures.extend(sent.failures);
    }
}

/// One thing that went wrong with a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub kind: String,
    pub text: String,
    /// It went wrong before, is logged, and the site is left alone because of it.
    pub is_known: bool,
}

impl Failure {
    pub(super) fn new(kind: &str, text: impl ToString) -> Self {
        Self { kind: kind.to_owned(), text: text.to_string(), is_known: false }
    }
}

impl<O: Outside> Forwarder<O> {
    /// One turn for one site.
    pub async fn poll_site(&self, key: &SiteKey, memory: &mut SiteMemory, limits: Limits) -> Report {
        self.turn(key, memory, limits, true).await
    }

    /// Sends what waits of one site, without asking for more.
    pub async fn send_site(&self, key: &SiteKey, memory: &mut SiteMemory, limits: Limits) -> Report {
        self.turn(key, memory, limits, false).await
    }

    async fn turn(&self, key: &SiteKey, memory: &mut SiteMemory, limits: Limits, asks: bool) -> Report {
        let mut report = Report::default();
        let mut committed = match self.committed(key, memory).await {
            Ok(committed) => committed,
            Err(failure) => {
                report.failures.push(failure);
                return report;
            }
        };
        record::keep_recorded(&mut committed.cursor, self.overlap);
        memory.acknowledged.retain(|id| committed.cursor.unforwarded.contains(id));
        let mut turn =
            Turn { forwarder: self, key, memory, committed, report, limits, can_send: true, is_cursor_kept: true };
        let ended = if asks { turn.run().await } else { turn.send_what_waits(limits.send_until).await };
        let Turn { committed, mut report, is_cursor_kept, .. } = turn;
        report.waiting = committed.cursor.unforwarded.len();
        report.newest = committed.cursor.last_value_from;
        if ended.is_ok() && is_cursor_kept {
            memory.committed = Some(committed);
        }
        report
    }

    /// The cursor as it was left, or from the ledger. It is taken out of memory: if whoever has it is dropped half-way, it is
    /// read again.
    pub(super) async fn committed(&self, key: &SiteKey, memory: &mut SiteMemory) -> Result<Committed, Failure> {
        match memory.committed.take() {
            Some(committed) => Ok(committed),
            None => self.outside.cursor(key).await.map_err(|error| Failure::new(error.kind(), error)),
        }
    }

    /// Records under the site `*` that the sites of a customer could not be listed, or (once) that they can again.
    /// A ledger that is away will be reported by the sites themselves.
    pub async fn record_listing(&self, key: &SiteKey, listed: Result<(), &FetchError>, took: Duration) {
        let now = Instant::now();
        let limits = Limits { ask_until: now, resend_until: now, send_until: now, provision_until: now };
        let Ok(committed) = self.outside.cursor(key).await else { return };
        let (mut memory, report) = (SiteMemory::default(), Report::default());
        let mut turn = Turn {
            forwarder: self,
            key,
            memory: &mut memory,
            committed,
            report,
            limits,
            can_send: false,
            is_cursor_kept: false,
        };
        let request = crate::rapidm2m::ledger::Request { path: "sites".into(), ..Default::default() };
        let (key, at, status) = (key.clone(), self.outside.now(), Some(200));
        let mut asked = Asked { key, at, request, status, bytes: 0, took, backfill: None };
        let _recorded = match listed {
            Ok(()) if turn.committed.cursor.last_error.is_none() => Ok(()),
            Ok(()) => turn.record_nothing(&asked, &Flaws::default()).await,
            Err(error) => {
                asked.status = error.status();
                turn.record_failure(&asked, error).await
            }
        };
    }
}
