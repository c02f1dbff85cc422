//! A range of a site, again or for the first time, beside the polling of what is new: what it does not touch is the site's
//! cursor. A backfill is a cursor of its own ([`Backfill`](crate::rapidm2m::ledger::Backfill)) that goes through the range once, window by
//! window, and ends. All else is as in a turn: recorded before sent, moved only with what is recorded, `forwarded` when
//! acknowledged. It can be cut anywhere; whoever goes on finds in the document where.
//!
//! Its messages are a pure function of the range and of the backend's rows: see [`grid`].
//!
//! | Module | |
//! |---|---|
//! | [`grid`] | which windows are asked for, and where messages begin and end |
//! | `stretch` | asking, and what becomes of the answer |
//! | `measure` | the same without recording or sending anything |
//! | `outside` | the services, with another cursor |

pub mod grid;
mod measure;
mod outside;
mod stretch;

use std::time::Duration;

use crate::rapidm2m::polling::{
    Forwarder, Limits, Report, SiteMemory,
    outside::Outside,
    record,
    turn::{EndTurn, Step, Turn},
};
use crate::rapidm2m::{
    Stamp,
    ledger::{Cursor, SiteKey},
};

use grid::{Grid, Span};
pub use measure::Measured;
pub use outside::BackfillOutside;

/// A backfill under way. Forgetting it costs requests, never data.
pub struct Run {
    memory: SiteMemory,
    grid: Grid,
}

/// What a stretch of a backfill came to: a window, or what waited.
#[derive(Debug)]
pub struct Stretch {
    pub report: Report,
    /// The backfill's document, as far as it is known.
    pub cursor: Option<Cursor>,
    pub next: Next,
}

/// How to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// With the next stretch.
    GoOn,
    /// All of the range is recorded, and nothing of it waits.
    Finished,
    /// Something failed that may pass; somebody asked to be left alone for so long.
    TryAgain(Duration),
    /// Somebody has to mend something first.
    GiveUp,
}

impl Run {
    #[must_use]
    pub fn new(range: Span) -> Self {
        Self { memory: SiteMemory::default(), grid: Grid::new(range) }
    }
}

/// Of a backfill: everything before this is recorded.
#[must_use]
pub fn position(cursor: &Cursor) -> Option<Stamp> {
    let backfill = cursor.backfill.as_ref()?;
    Some(Stamp::from_time(cursor.scanned_until.unwrap_or(backfill.from)))
}

impl<O: Outside> Forwarder<O> {
    /// Sends what waits, then fetches, records and sends the next window. `outside` must know the cursor of a backfill: see
    /// [`BackfillOutside`].
    pub async fn backfill(&self, key: &SiteKey, run: &mut Run, limits: Limits) -> Stretch {
        self.stretch(key, run, limits, async |turn, grid| turn.backfill(grid).await).await
    }

    /// Gives the backfill up: what waits is not sent any more.
    pub async fn drop_backfill(&self, key: &SiteKey, run: &mut Run, limits: Limits) -> Stretch {
        self.stretch(key, run, limits, async |turn, _| turn.drop_backfill().await).await
    }

    /// Begins with the range anew; what waits goes on waiting.
    pub async fn begin_backfill_again(&self, key: &SiteKey, run: &mut Run, limits: Limits) -> Stretch {
        self.stretch(key, run, limits, async |turn, _| {
            let cursor = turn.committed.cursor.begun_again();
            turn.commit(&[], &[], cursor).await.map_err(|error| turn.stop(&error)).map(|()| Step::GoOn)
        })
        .await
    }

    async fn stretch(
        &self,
        key: &SiteKey,
        run: &mut Run,
        limits: Limits,
        what: impl AsyncFnOnce(&mut Turn<'_, O>, &mut Grid) -> Result<Step, EndTurn>,
    ) -> Stretch {
        let Run { memory, grid } = run;
        let mut report = Report::default();
        let committed = match self.committed(key, memory).await {
            Ok(committed) => committed,
            Err(failure) => {
                report.failures.push(failure);
                let next = next(&report, None, Duration::ZERO);
                return Stretch { report, cursor: None, next };
            }
        };
        memory.acknowledged.retain(|id| committed.cursor.unforwarded.contains(id));
        let mut turn =
            Turn { forwarder: self, key, memory, committed, report, limits, can_send: true, is_cursor_kept: true };
        let ended = what(&mut turn, grid).await;
        let Turn { committed, mut report, .. } = turn;
        report.waiting = committed.cursor.unforwarded.len();
        let now = self.outside.now();
        let rest = record::backs_off_until(&committed.cursor, now).and_then(|until| (until - now).to_std().ok());
        let step = ended.as_ref().ok().copied();
        let next = next(&report, step, rest.unwrap_or_default());
        let cursor = committed.cursor.clone();
        // After a failure time passes: somebody may have dropped it meanwhile.
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

/// Failures that no further attempt of this process can mend.
fn is_for_somebody(kind: &str) -> bool {
    let of_ledger = ["ledger_unauthorized", "ledger_missing", "ledger_foreign_document"];
    record::is_permanent(kind) || of_ledger.contains(&kind) || kind == "too_large" || kind == stretch::DROPPED
}
