//! Fetches a time range of a site, again or for the first time, without touching the site's cursor or its polling.
//!
//! A backfill has a cursor of its own ([`Backfill`](crate::rapidm2m::ledger::Backfill)), which goes through the range
//! once, window by window, and ends. The rules of a turn apply: rows are recorded before they are sent, the cursor
//! moves only with the recorded rows, and `forwarded` is written only after the acknowledgement. A backfill can be
//! cut off anywhere: the document says where to continue.
//!
//! Its messages are a pure function of the range and of the backend's rows: see [`grid`].
//!
//! | Module | |
//! |---|---|
//! | [`grid`] | which windows to request, and where messages begin and end |
//! | `stretch` | makes the requests and handles the answers |
//! | `measure` | the same without recording or sending anything |

pub mod grid;
mod measure;
mod stretch;

use std::time::Duration;

use crate::rapidm2m::polling::{
    Forwarder, Limits, Report, SiteMemory, record,
    turn::{EndTurn, Step, Turn},
    world::World,
};
use crate::rapidm2m::{
    Site, Stamp,
    ledger::{BackfillRange, Cursor},
};
use crate::support::kind::Kind;

use grid::{Grid, Span};
pub use measure::Measured;

/// A backfill in progress. Losing this costs requests, never data.
pub struct Run {
    range: BackfillRange,
    memory: SiteMemory,
    grid: Grid,
}

/// The result of one step of a backfill: a window, or pending messages.
#[derive(Debug)]
pub struct Stretch {
    pub report: Report,
    /// The backfill's document, if it could be read.
    pub cursor: Option<Cursor>,
    pub next: Next,
}

/// How to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// With the next stretch.
    GoOn,
    /// All of the range is recorded, and none of its messages is pending.
    Finished,
    /// A failure that may pass. Try again after this time, if a service requested a wait.
    TryAgain(Duration),
    /// An operator must fix something first.
    GiveUp,
}

impl Run {
    #[must_use]
    pub fn new(range: BackfillRange) -> Self {
        let span = Span { from: Stamp::from_time(range.from), until: Stamp::from_time(range.until) };
        Self { range, memory: SiteMemory::default(), grid: Grid::new(span) }
    }
}

/// The position of a backfill: everything before it is recorded.
#[must_use]
pub fn position(cursor: &Cursor) -> Option<Stamp> {
    let backfill = cursor.backfill.as_ref()?;
    Some(Stamp::from_time(cursor.scanned_until.unwrap_or(backfill.from)))
}

impl<W: World> Forwarder<W> {
    /// Sends pending messages, then fetches, records and sends the next window.
    pub async fn backfill(&self, site: &Site, run: &mut Run, limits: Limits) -> Stretch {
        self.stretch(site, run, limits, async |turn, grid| turn.backfill(grid).await).await
    }

    /// Sends the pending messages of a backfill that nobody goes on with.
    pub async fn send_backfill(&self, site: &Site, run: &mut Run, limits: Limits) -> Report {
        let sent = self.stretch(site, run, limits, async |turn, _| {
            turn.send_what_waits(limits.send_until).await.map(|()| Step::Done)
        });
        sent.await.report
    }

    /// Gives the backfill up: its pending messages are not sent.
    pub async fn drop_backfill(&self, site: &Site, run: &mut Run, limits: Limits) -> Stretch {
        self.stretch(site, run, limits, async |turn, _| turn.drop_backfill().await).await
    }

    /// Begins the range again. Pending messages stay pending.
    pub async fn begin_backfill_again(&self, site: &Site, run: &mut Run, limits: Limits) -> Stretch {
        self.stretch(site, run, limits, async |turn, _| {
            let cursor = turn.committed.cursor.begun_again();
            turn.commit(&[], &[], cursor).await.map_err(|error| turn.stop(&error)).map(|()| Step::GoOn)
        })
        .await
    }

    async fn stretch(
        &self,
        site: &Site,
        run: &mut Run,
        limits: Limits,
        what: impl AsyncFnOnce(&mut Turn<'_, W>, &mut Grid) -> Result<Step, EndTurn>,
    ) -> Stretch {
        let Run { range, memory, grid } = run;
        let mut report = Report::default();
        let mut committed = match self.committed(&site.key, Some(*range), memory).await {
            Ok(committed) => committed,
            Err(failure) => {
                report.failures.push(failure);
                let next = next(&report, None, Duration::ZERO);
                return Stretch { report, cursor: None, next };
            }
        };
        committed.cursor.histdata.get_or_insert(self.histdata);
        memory.acknowledged.retain(|id| committed.cursor.unforwarded.contains(id));
        let mut turn = Turn {
            forwarder: self,
            site,
            range: Some(*range),
            memory,
            committed,
            report,
            limits,
            can_send: true,
            is_cursor_kept: true,
        };
        let ended = what(&mut turn, grid).await;
        let Turn { committed, mut report, .. } = turn;
        report.waiting = committed.cursor.unforwarded.len();
        let now = self.world.now();
        let rest = record::backs_off_until(&committed.cursor, now).and_then(|until| (until - now).to_std().ok());
        let step = ended.as_ref().ok().copied();
        let next = next(&report, step, rest.unwrap_or_default());
        let cursor = committed.cursor.clone();
        // The caller waits after a failure. The operator may drop the backfill meanwhile, so read the cursor again.
        if ended.is_ok() && report.failures.is_empty() {
            memory.committed = Some(committed);
        }
        Stretch { report, cursor: Some(cursor), next }
    }
}

/// `step` is `None` if the turn ended early.
fn next(report: &Report, step: Option<Step>, rest: Duration) -> Next {
    if report.failures.iter().any(|failure| is_for_somebody(&failure.kind)) {
        return Next::GiveUp;
    }
    match step {
        Some(Step::Done) => Next::Finished,
        Some(Step::GoOn) if report.failures.is_empty() && !report.is_provisioning => Next::GoOn,
        _ => Next::TryAgain(rest),
    }
}

/// Failures that remain, however often this process tries again.
fn is_for_somebody(kind: &Kind) -> bool {
    let of_ledger = [Kind::LedgerUnauthorized, Kind::LedgerMissing, Kind::LedgerUnfit, Kind::LedgerForeignDocument];
    kind.is_permanent() || of_ledger.contains(kind) || matches!(kind, Kind::TooLarge | Kind::Dropped)
}
