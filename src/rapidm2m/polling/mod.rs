//! Forwards the rows of one site. A turn sends the pending messages, requests rows from the backend, records them,
//! sends them, and marks the messages that the hub acknowledged.
//!
//! These rules hold even if a turn is cut off anywhere, or another poller serves the same site:
//! - A row is recorded before it is sent. The cursor moves only in the transaction that records the rows up to it.
//! - `forwarded` is written only after the hub acknowledged exactly that message.
//! - A site's messages are sent in the order of their rows. Pending messages go first.
//!
//! | Module | |
//! |---|---|
//! | `identity` | what the cursor knows of its site |
//! | `plan` | which window to request, and which of its rows are new |
//! | `turn` | what to request next, and how to handle the answer |
//! | `recording` | what is written to the ledger |
//! | `reset_clock` | rows of a logger whose clock was reset |
//! | `sending` | what goes to the hub, and the marks for acknowledged messages |
//! | `marking` | a transaction, and which mark goes with it |
//! | [`record`], [`split`] | documents and messages, as pure functions |
//! | [`source`] | where rows come from |
//! | `run` | a run over all sites |
//! | [`world`] | the backend, the ledger, the hub and the clock, as a turn needs them |

mod identity;
mod marking;
mod plan;
pub mod record;
pub(super) mod recording;
mod reset_clock;
pub mod run;
mod sending;
pub mod source;
pub mod split;
pub(super) mod turn;
pub mod world;

use std::{collections::HashSet, fmt, time::Duration};

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use crate::rapidm2m::{
    FetchError, Selection, Site, Stamp, StartFrom,
    gate::Refusals,
    ledger::{ALL_SITES, BackfillRange, Committed, EmptyPolls, Fault, LedgerError, SiteKey},
    window::Search,
    wire::Flaws,
};
use crate::support::kind::Kind;

pub use identity::News;
use record::PollContext;
use turn::Turn;
use world::{Services, World};

/// How often a note is tried if other instances write theirs at the same time.
const NOTE_ATTEMPTS: usize = 5;

/// Everything that is needed to poll a site.
pub struct Forwarder<W = Services> {
    pub world: W,
    pub channels: Selection,
    pub histdata: u8,
    pub start_from: StartFrom,
    /// How much older than the newest recorded row a late row may be.
    pub overlap: Option<Duration>,
    /// Whether rows with changed values are forwarded.
    pub corrections: bool,
    /// Whether each poll that finds nothing has a record of its own. If not, the site's next record counts them, and there
    /// is one an hour.
    pub record_empty_polls: bool,
    /// A small record may stay in the cursor until it is marked, at the latest after this; `None`: each record is a document
    /// of its own, and marked at once.
    pub mark_within: Option<Duration>,
}

/// What is remembered of a site between polls. Losing it costs time, never data.
#[derive(Clone, Debug, Default)]
pub struct SiteMemory {
    /// The cursor as this process last wrote or read it. `None` while a turn uses it, and whenever it may be
    /// outdated.
    pub(super) committed: Option<Committed>,
    /// Polls whose messages the hub has acknowledged, but which could not be marked yet.
    pub(super) acknowledged: HashSet<String>,
    /// Of the one whose record the cursor keeps.
    unmarked: Option<marking::Acknowledged>,
    search: Search,
    /// How far the overlap has been read, if it does not fit into one answer.
    swept: Option<Stamp>,
    /// Whether the log already says that the overlap is shorter than configured.
    said_overlap_is_short: bool,
    pub(super) channels: Option<(Instant, Vec<String>)>,
    /// The unusable rows that were told last. The same ones are not told again.
    flaws: Option<Flaws>,
    /// Whether this process has tried the site at all.
    tried: bool,
    looking: reset_clock::Looking,
    empty: Unrecorded,
}

/// Polls that found nothing new and are not recorded yet. Losing them loses no row.
#[derive(Clone, Default)]
struct Unrecorded(Option<EmptyPolls>);

/// What a turn does to rows does not depend on them, so states that differ only in them count as the same.
impl fmt::Debug for Unrecorded {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Unrecorded")
    }
}

impl SiteMemory {
    /// Makes the next turn read the cursor again, because another process or the operator may have changed it.
    pub fn forget_cursor(&mut self) {
        self.committed = None;
    }
}

/// Deadlines of a turn.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// No request begins after this.
    pub ask_until: Instant,
    /// How long the backend may take for an answer.
    pub answer: Duration,
    /// Pending messages of earlier turns are sent until then, so that a slow hub leaves time for requests to the
    /// backend.
    pub resend_until: Instant,
    /// No acknowledgement is awaited after this.
    pub send_until: Instant,
    /// The registration of the site's device is not awaited after this.
    pub provision_until: Instant,
    /// Whether a site without a cursor may begin.
    pub begins: bool,
}

impl Limits {
    /// Nothing is requested or sent.
    #[must_use]
    pub fn now() -> Self {
        let now = Instant::now();
        let answer = Duration::ZERO;
        Self { ask_until: now, answer, resend_until: now, send_until: now, provision_until: now, begins: true }
    }
}

/// What a turn is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Poll,
    Send,
    Mark,
    Leave,
}

/// The result of a turn.
#[derive(Debug, Default)]
pub struct Report {
    pub requests: usize,
    pub bytes: usize,
    pub rows_recorded: usize,
    pub messages_forwarded: usize,
    pub rows_forwarded: usize,
    pub messages_rejected: usize,
    /// The reasons, one for each rejected message. They are already logged.
    pub rejections: Vec<Failure>,
    /// Rows that could not be used.
    pub bad_rows: usize,
    /// Recorded rows that are older than others that were recorded before.
    pub late_rows: usize,
    /// Rows whose values differ from those that were recorded before.
    pub corrected_rows: usize,
    /// Rows that are ahead of the clock. They stay in the backend until their time has come.
    pub rows_ahead: usize,
    /// Rows that a logger stamped after its clock was reset. They are not forwarded.
    pub reset_rows: usize,
    /// Messages that are pending now.
    pub waiting: usize,
    /// An acknowledged message is not marked yet.
    pub is_unmarked: bool,
    /// Stamp of the newest recorded row, if there is one and the cursor could be read.
    pub newest: Option<DateTime<Utc>>,
    /// The site's device is being registered. Its messages are pending until then.
    pub is_provisioning: bool,
    /// The backend has more rows, but the deadline came first.
    pub is_behind: bool,
    /// The cursor could be read, and the ledger has it.
    pub has_cursor: bool,
    /// Why the backend was not asked.
    pub held: Option<FetchError>,
    /// Another poller was faster, so nothing was written.
    pub lost_race: bool,
    /// What the cursor did not know of the site.
    pub news: Vec<News>,
    pub failures: Vec<Failure>,
}

impl Report {
    /// Adds the result of a second turn, which only sent.
    pub fn add_sent(&mut self, sent: Self) {
        self.messages_forwarded += sent.messages_forwarded;
        self.rows_forwarded += sent.rows_forwarded;
        self.messages_rejected += sent.messages_rejected;
        self.rejections.extend(sent.rejections);
        // A turn that could not read the cursor does not know these values.
        if sent.failures.is_empty() || sent.waiting > 0 {
            self.waiting = sent.waiting;
            self.newest = sent.newest;
        }
        self.is_unmarked = sent.is_unmarked;
        self.is_provisioning = sent.is_provisioning;
        self.is_behind |= sent.is_behind;
        self.lost_race |= sent.lost_race;
        self.failures.extend(sent.failures);
    }
}

/// One thing that went wrong with a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub kind: Kind,
    pub text: String,
    /// It is already logged: a rejected message, or an earlier failure that makes the site back off.
    pub is_known: bool,
}

impl Failure {
    fn known(fault: &Fault) -> Self {
        Self { kind: fault.kind.clone(), text: fault.text.clone(), is_known: true }
    }

    pub(super) fn new(kind: Kind, text: impl ToString) -> Self {
        Self { kind, text: text.to_string(), is_known: false }
    }
}

impl<W: World> Forwarder<W> {
    pub async fn poll_site(&self, site: &Site, memory: &mut SiteMemory, limits: Limits) -> Report {
        self.turn(site, memory, limits, Purpose::Poll).await
    }

    /// Sends the pending messages of one site, without a request to the backend.
    pub async fn send_site(&self, site: &Site, memory: &mut SiteMemory, limits: Limits) -> Report {
        self.turn(site, memory, limits, Purpose::Send).await
    }

    /// Marks what the hub has acknowledged. Nothing is sent.
    pub async fn mark_site(&self, site: &Site, memory: &mut SiteMemory, limits: Limits) -> Report {
        self.turn(site, memory, limits, Purpose::Mark).await
    }

    /// Notes in the cursor that the backend does not list the site any more. What waits is sent.
    pub async fn leave_site(&self, site: &Site, memory: &mut SiteMemory, limits: Limits) -> Report {
        self.turn(site, memory, limits, Purpose::Leave).await
    }

    async fn turn(&self, site: &Site, memory: &mut SiteMemory, limits: Limits, purpose: Purpose) -> Report {
        let mut report = Report::default();
        if matches!(purpose, Purpose::Send | Purpose::Leave) {
            // Such turns may write nothing, so they would not notice that another process recorded a message.
            memory.forget_cursor();
        }
        let mut committed = match self.committed(&site.key, None, memory).await {
            Ok(committed) => committed,
            Err(failure) => {
                report.failures.push(failure);
                return report;
            }
        };
        if purpose == Purpose::Poll && !limits.begins && committed.etag.is_none() {
            // The failure is already told: see `run/sites.rs`.
            return report;
        }
        record::keep_recorded(&mut committed.cursor, self.overlap);
        memory.acknowledged.retain(|id| committed.cursor.unforwarded.contains(id));
        let mut turn = Turn {
            forwarder: self,
            site,
            range: None,
            memory,
            committed,
            report,
            limits,
            can_send: true,
            is_cursor_kept: true,
        };
        if !turn.has_unmarked() {
            turn.memory.unmarked = None;
        }
        let ended = match purpose {
            Purpose::Poll => turn.run().await,
            // Boxed: these futures are large, and this one would have room for all three.
            Purpose::Send => Box::pin(turn.send()).await,
            Purpose::Mark => Box::pin(turn.mark_what_is_acknowledged()).await,
            Purpose::Leave => Box::pin(turn.leave()).await,
        };
        let (waiting, is_unmarked) = (turn.waiting(), turn.has_unmarked());
        let Turn { committed, mut report, is_cursor_kept, .. } = turn;
        (report.waiting, report.is_unmarked) = (waiting, is_unmarked);
        report.newest = committed.cursor.last_value_from;
        report.has_cursor = committed.etag.is_some();
        if ended.is_ok() && is_cursor_kept {
            memory.committed = Some(committed);
        }
        report
    }

    /// The cursor that the last turn left, or the one in the ledger. This takes the cursor out of memory, so it is
    /// read again if the caller is cancelled half-way.
    pub(super) async fn committed(
        &self,
        key: &SiteKey,
        range: Option<BackfillRange>,
        memory: &mut SiteMemory,
    ) -> Result<Committed, Failure> {
        match memory.committed.take() {
            Some(committed) => Ok(committed),
            None => self.world.cursor(key, range).await.map_err(|error| Failure::new(error.kind(), error)),
        }
    }

    /// Notes refused logins under the site `*`, for the next process and for others. They are added to those of others; none
    /// means that the backend takes the credentials.
    ///
    /// # Errors
    /// The ledger cannot be read or written, or others have written at the same time again and again.
    pub async fn note_refusals(&self, customer: &str, mut refusals: Refusals) -> Result<(), LedgerError> {
        let key = all_sites(customer);
        let mut attempts = 1..NOTE_ATTEMPTS;
        loop {
            let Committed { mut cursor, etag } = self.world.cursor(&key, None).await?;
            if let Some(others) = cursor.refused_logins.take().filter(|_| !refusals.times.is_empty()) {
                refusals.merge(others);
            }
            cursor.refused_logins = Some(refusals.clone());
            match self.world.commit(&key, &[], &[], &cursor, etag.as_deref()).await {
                Err(LedgerError::Conflict) if attempts.next().is_some() => {}
                result => return result.map(|_etag| ()),
            }
        }
    }

    /// Notes under the site `*` that the contacts which the site list tells are not trusted.
    ///
    /// # Errors
    /// The ledger cannot be read or written, or somebody else has written at the same time.
    pub async fn note_wrong_contacts(&self, customer: &str) -> Result<(), LedgerError> {
        let key = all_sites(customer);
        let Committed { mut cursor, etag } = self.world.cursor(&key, None).await?;
        cursor.contacts_wrong_since = Some(self.world.now());
        self.world.commit(&key, &[], &[], &cursor, etag.as_deref()).await.map(|_etag| ())
    }

    /// Records under the site `*` that the sites of a customer could not be listed, or (once) that they can be listed
    /// again. If the ledger is unreachable, this reports nothing: the sites' own turns will.
    pub async fn record_listing(&self, customer: &str, listed: Result<(), &FetchError>, took: Duration) {
        let site = &Site::of_key(all_sites(customer));
        let limits = Limits::now();
        let Ok(committed) = self.world.cursor(&site.key, None).await else { return };
        let (mut memory, report) = (SiteMemory::default(), Report::default());
        let mut turn = Turn {
            forwarder: self,
            site,
            range: None,
            memory: &mut memory,
            committed,
            report,
            limits,
            can_send: false,
            is_cursor_kept: false,
        };
        let request = crate::rapidm2m::ledger::Request { path: "sites".into(), ..Default::default() };
        let (site, at, status) = (site.clone(), self.world.now(), Some(200));
        let mut context =
            PollContext { site, at, request, status, bytes: 0, took, backfill: None, rows_ahead: 0, correction: false };
        let _recorded = match listed {
            Ok(()) if turn.committed.cursor.last_error.is_none() => Ok(()),
            Ok(()) => turn.record_nothing(&context).await,
            Err(error) => {
                context.status = error.status();
                turn.record_failure(&context, error).await
            }
        };
    }
}

/// The place of what is common to all sites of a customer.
fn all_sites(customer: &str) -> SiteKey {
    SiteKey { customer: customer.to_owned(), site: ALL_SITES.to_owned() }
}
