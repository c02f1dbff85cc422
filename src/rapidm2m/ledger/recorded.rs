//! Remembers which rows of the overlap are recorded, to distinguish a late row from a known one. Pure.
//!
//! Loggers measure at even intervals: a day of rows each minute is one run of three numbers. A site that measures at
//! irregular times needs a run for every two rows. [`MAX_RUNS`] limits how many runs are kept.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::rapidm2m::Stamp;

/// How many runs are kept, the newest ones: about 25 kB of the cursor document.
pub const MAX_RUNS: usize = 1_000;

/// The stamps of the recorded rows from a time on. Which earlier rows are recorded is no longer known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Recorded {
    /// Rows with an earlier stamp count as old, whether they are recorded or not.
    since: DateTime<Utc>,
    /// Stamps from `since` on, in order.
    stamps: Vec<Run>,
}

/// Stamps at even intervals, in the document as `[first, step, count]`: Unix milliseconds, milliseconds, a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "(i64, i64, u32)", try_from = "(i64, i64, u32)")]
struct Run {
    first: i64,
    /// 0 in a run of one stamp.
    step: i64,
    count: u32,
}

impl Recorded {
    /// Nothing is recorded yet, and rows before `since` will never be recorded.
    #[must_use]
    pub fn starting(since: Stamp) -> Self {
        Self { since: since.time(), stamps: Vec::new() }
    }

    /// Where a window must begin to include every late row.
    #[must_use]
    pub fn since(&self) -> Stamp {
        Stamp::from_time(self.since)
    }

    /// Whether a row with this stamp is still to be recorded.
    #[must_use]
    pub fn lacks(&self, stamp: Stamp) -> bool {
        let after = self.stamps.partition_point(|run| run.first <= stamp.millis());
        let run = after.checked_sub(1).map(|index| &self.stamps[index]);
        stamp >= self.since() && run.is_none_or(|run| !run.contains(stamp.millis()))
    }

    /// Adds stamps, which must be in order, and forgets the stamps before `forget`. Returns `false` if lack of room
    /// forced it to forget more: late rows before the new `since` are then not recognised.
    pub fn extend(&mut self, stamps: impl Iterator<Item = Stamp>, forget: Stamp) -> bool {
        let mut stamps = stamps.map(Stamp::millis).peekable();
        // Nearly always the new stamps come after all known ones. If not, all runs are built again, because runs must
        // not overlap.
        let is_late = stamps.peek().zip(self.stamps.last()).is_some_and(|(stamp, run)| *stamp <= run.last());
        let known = if is_late { std::mem::take(&mut self.stamps) } else { Vec::new() };
        let mut known = known.iter().flat_map(|run| run.stamps()).peekable();
        for stamp in stamps {
            while let Some(earlier) = known.next_if(|known| *known <= stamp) {
                self.push(earlier);
            }
            self.push(stamp);
        }
        known.for_each(|stamp| self.push(stamp));
        self.forget_before(forget.millis());
        let over = self.stamps.len().saturating_sub(MAX_RUNS);
        if over > 0 {
            let from = self.stamps[over].first;
            self.forget_before(from);
        }
        over == 0
    }

    /// Adds a stamp that is not before any other.
    fn push(&mut self, stamp: i64) {
        match self.stamps.last_mut() {
            Some(run) if run.last() == stamp => {}
            Some(run) if run.count == 1 => *run = Run { step: stamp - run.first, count: 2, ..*run },
            Some(run) if run.last() + run.step == stamp && run.count < u32::MAX => run.count += 1,
            _ => self.stamps.push(Run { first: stamp, step: 0, count: 1 }),
        }
    }

    fn forget_before(&mut self, since: i64) {
        let Some(time) = DateTime::from_timestamp_millis(since).filter(|time| *time > self.since) else { return };
        self.since = time;
        let gone = self.stamps.partition_point(|run| run.last() < since);
        self.stamps.drain(..gone);
        if let Some(run) = self.stamps.first_mut().filter(|run| run.first < since) {
            let old = (since - run.first + run.step - 1) / run.step;
            let count = run.count - u32::try_from(old).unwrap_or(run.count - 1);
            *run = Run { first: run.first + old * run.step, step: if count == 1 { 0 } else { run.step }, count };
        }
    }
}

impl Run {
    fn last(&self) -> i64 {
        self.first + self.step * i64::from(self.count - 1)
    }

    /// `stamp` must not be before the run.
    fn contains(&self, stamp: i64) -> bool {
        stamp <= self.last() && (stamp == self.first || (stamp - self.first) % self.step == 0)
    }

    fn stamps(self) -> impl Iterator<Item = i64> {
        (0..i64::from(self.count)).map(move |index| self.first + self.step * index)
    }
}

impl From<Run> for (i64, i64, u32) {
    fn from(run: Run) -> Self {
        (run.first, run.step, run.count)
    }
}

impl TryFrom<(i64, i64, u32)> for Run {
    type Error = String;

    fn try_from((first, step, count): (i64, i64, u32)) -> Result<Self, String> {
        let last = i64::from(count).checked_sub(1).and_then(|steps| step.checked_mul(steps)?.checked_add(first));
        let is_even = if count == 1 { step == 0 } else { step > 0 };
        let is_time = |millis| DateTime::from_timestamp_millis(millis).is_some();
        match last {
            Some(last) if count > 0 && is_even && is_time(first) && is_time(last) => Ok(Self { first, step, count }),
            _ => Err(format!("[{first},{step},{count}] is no run of stamps")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const MINUTE: i64 = 60_000;

    fn at(millis: i64) -> Stamp {
        Stamp::BEGINNING.shifted(millis)
    }

    fn recorded(since: i64, stamps: &[i64]) -> Recorded {
        let mut recorded = Recorded::starting(at(since));
        assert!(recorded.extend(stamps.iter().copied().map(at), at(since)));
        recorded
    }

    #[test]
    fn a_day_of_minutes_is_one_run_however_it_came() {
        let all: Vec<_> = (0..1_440).map(|minute| minute * MINUTE).collect();
        let mut halves = recorded(0, &all.iter().copied().step_by(2).collect::<Vec<_>>());
        assert!(halves.extend(all.iter().copied().skip(1).step_by(2).map(at), at(0)));
        assert_eq!(halves, recorded(0, &all));
        let json = serde_json::to_string(&halves).unwrap();
        assert_eq!(json, r#"{"Since":"2000-01-01T00:00:00Z","Stamps":[[946684800000,60000,1440]]}"#);
        assert_eq!(serde_json::from_str::<Recorded>(&json).unwrap(), halves);
    }

    #[test]
    fn what_is_forgotten_is_old_and_not_lacking() {
        let mut recorded = recorded(0, &[0, MINUTE, 2 * MINUTE]);
        assert!(recorded.lacks(at(1)) && !recorded.lacks(at(-1)) && !recorded.lacks(at(MINUTE)));
        assert!(recorded.extend([at(3 * MINUTE)].into_iter(), at(MINUTE + 1)));
        assert!(!recorded.lacks(at(1)) && !recorded.lacks(at(MINUTE)) && recorded.lacks(at(MINUTE + 1)));
        assert!(recorded.extend([].into_iter(), at(0)), "it never grows backwards");
        assert_eq!(recorded.since(), at(MINUTE + 1));
    }

    #[test]
    fn room_is_bounded_and_its_end_is_said() {
        let mut recorded = Recorded::starting(at(0));
        // Each interval differs from the last, so a run holds two stamps.
        let odd = (0..2 * i64::try_from(MAX_RUNS).unwrap() + 2).map(|index| at(index * index * 10));
        assert!(!recorded.extend(odd, at(0)));
        assert_eq!(recorded.stamps.len(), MAX_RUNS);
        assert_eq!(recorded.since(), at(2 * 2 * 10));
        assert!(serde_json::to_string(&recorded).unwrap().len() < 32_000);
    }

    #[test]
    fn a_run_that_is_none_is_refused() {
        for run in
            ["[0,0,0]", "[0,0,2]", "[0,-5,2]", "[0,5,1]", "[9223372036854775807,1,2]", "[0,9223372036854775807,9]"]
        {
            let json = format!(r#"{{"Since":"2000-01-01T00:00:00Z","Stamps":[{run}]}}"#);
            let error = serde_json::from_str::<Recorded>(&json).unwrap_err().to_string();
            assert!(error.contains("is no run of stamps"), "{run}: {error}");
        }
    }

    proptest! {
        #[test]
        fn it_knows_what_a_set_would_know(
            rounds in prop::collection::vec((prop::collection::btree_set(0_i64..400, 0..40), 0_i64..300), 1..8)
        ) {
            let (mut recorded, mut set, mut since) = (Recorded::starting(at(0)), BTreeSet::new(), 0);
            for (stamps, forget) in rounds {
                // Like the connector: add only the missing stamps.
                let new: Vec<_> = stamps.into_iter().filter(|stamp| recorded.lacks(at(*stamp))).collect();
                prop_assert!(recorded.extend(new.iter().copied().map(at), at(forget)));
                set.extend(new);
                since = since.max(forget);
                for stamp in 0..400 {
                    prop_assert_eq!(recorded.lacks(at(stamp)), stamp >= since && !set.contains(&stamp), "{}", stamp);
                }
                let json = serde_json::to_string(&recorded).unwrap();
                prop_assert_eq!(&serde_json::from_str::<Recorded>(&json).unwrap(), &recorded);
            }
        }
    }
}
