//! Counts rows or uplinks for each hour of the last day.

use chrono::{DateTime, DurationRound as _, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

pub const HOURS: usize = 24;

/// Counts for up to 24 hours.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Hours {
    /// The start of the latest hour.
    last: DateTime<Utc>,
    /// One count per hour, the latest hour last.
    counts: Vec<u32>,
}

impl Hours {
    /// Adds to the hour of `at`. If the clock was set back, adds to the latest hour.
    pub fn add(&mut self, at: DateTime<Utc>, count: usize) {
        let hour = at.duration_trunc(TimeDelta::hours(1)).unwrap_or(at);
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        if self.counts.is_empty() {
            (self.last, self.counts) = (hour, vec![count]);
            return;
        }
        let gap = usize::try_from((hour - self.last).num_hours()).unwrap_or(0);
        if gap > 0 {
            self.last = hour;
            self.counts.extend(std::iter::repeat_n(0, gap.min(HOURS)));
            let old = self.counts.len().saturating_sub(HOURS);
            self.counts.drain(..old);
        }
        if let Some(last) = self.counts.last_mut() {
            *last = last.saturating_add(count);
        }
    }

    /// The last 24 hours; the hour of `now` is last.
    #[must_use]
    pub fn until(&self, now: DateTime<Utc>) -> [u32; HOURS] {
        let mut counts = [0; HOURS];
        let hour = now.duration_trunc(TimeDelta::hours(1)).unwrap_or(now);
        let Ok(ago) = usize::try_from((hour - self.last).num_hours().max(0)) else { return counts };
        for (place, count) in self.counts.iter().rev().enumerate() {
            if let Some(slot) = HOURS.checked_sub(1 + place + ago).and_then(|slot| counts.get_mut(slot)) {
                *slot = *count;
            }
        }
        counts
    }

    /// The pauses from one hour with something to the next, the shortest first. One hour alone in a whole day says that the
    /// pauses are at least a day; without a day behind it, nothing is known.
    #[must_use]
    pub fn pauses(&self) -> Vec<TimeDelta> {
        let active: Vec<_> = (0..self.counts.len()).filter(|hour| self.counts[*hour] > 0).collect();
        let hours = |count: usize| TimeDelta::hours(i64::try_from(count).unwrap_or(i64::MAX / 3_600_000));
        if active.len() == 1 && self.counts.len() == HOURS {
            return vec![hours(HOURS)];
        }
        let mut pauses: Vec<_> = active.windows(2).map(|pair| hours(pair[1] - pair[0])).collect();
        pauses.sort_unstable();
        pauses
    }

    /// Adds the counts of another process.
    pub fn merge(&mut self, other: &Self) {
        let (mut early, late) = if self.last <= other.last { (self.clone(), other) } else { (other.clone(), &*self) };
        early.add(late.last, 0);
        for (place, count) in late.counts.iter().rev().enumerate().take(HOURS) {
            if place >= early.counts.len() {
                early.counts.insert(0, 0);
            }
            let slot = early.counts.len() - 1 - place;
            early.counts[slot] = early.counts[slot].saturating_add(*count);
        }
        *self = early;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(hour: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_767_225_600, 0).unwrap() + TimeDelta::minutes(hour * 60 + 7)
    }

    #[test]
    fn hours_without_anything_are_zero_and_older_ones_fall_off() {
        let mut hours = Hours::default();
        assert_eq!(hours.until(at(0)), [0; HOURS]);
        hours.add(at(0), 5);
        hours.add(at(0), 2);
        hours.add(at(3), 1);
        let mut expected = [0; HOURS];
        (expected[20], expected[23]) = (7, 1);
        assert_eq!(hours.until(at(3)), expected);
        assert_eq!(hours.until(at(26))[0..2], [1, 0]);
        hours.add(at(2), 10);
        assert_eq!(hours.until(at(3))[23], 11, "a clock that was put back");
        hours.add(at(1_000), usize::MAX);
        assert_eq!((hours.counts.len(), hours.until(at(1_000))[23]), (HOURS, u32::MAX));
        let json = serde_json::to_value(&Hours { last: at(0), counts: vec![1, 2] }).unwrap();
        assert_eq!(json, serde_json::json!({"Last": "2026-01-01T00:07:00Z", "Counts": [1, 2]}));
    }

    #[test]
    fn pauses_are_known_from_the_hours_however_long_ago_they_were() {
        let pauses = |active: &[i64]| -> Vec<_> {
            let mut hours = Hours::default();
            active.iter().for_each(|hour| hours.add(at(*hour), 1));
            hours.pauses().iter().map(TimeDelta::num_hours).collect()
        };
        assert_eq!(pauses(&[0, 1, 2, 9, 10]), [1, 1, 1, 7]);
        assert_eq!(pauses(&[5]), [0_i64; 0], "one that is new");
        assert_eq!(pauses(&[5, 29]), [24], "once a day");
    }

    proptest! {
        #[test]
        fn it_counts_as_a_map_would(adds in prop::collection::vec((0_i64..60, 0_usize..9), 0..30), split in 0_usize..30) {
            let mut adds = adds;
            adds.sort_unstable();
            let mut all = Hours::default();
            adds.iter().for_each(|(hour, count)| all.add(at(*hour), *count));
            let expected: [u32; HOURS] = std::array::from_fn(|slot| {
                let hour = 59 - 23 + i64::try_from(slot).unwrap();
                adds.iter().filter(|(of, _)| *of == hour).map(|(_, count)| u32::try_from(*count).unwrap()).sum()
            });
            prop_assert_eq!(all.until(at(59)), expected);

            // Two processes that share the work get the same result.
            let (mut one, mut other) = (Hours::default(), Hours::default());
            for (index, (hour, count)) in adds.iter().enumerate() {
                if index % 30 < split { one.add(at(*hour), *count) } else { other.add(at(*hour), *count) }
            }
            one.merge(&other);
            prop_assert_eq!(one.until(at(59)), expected);
        }
    }
}
