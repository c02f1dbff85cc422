//! Remembers which rows of the overlap are recorded and with which values, to distinguish late and corrected rows from
//! known ones. Pure.
//!
//! Loggers measure at even intervals: a day of rows each minute is one run of three numbers. A site that measures at
//! irregular times needs a run for every two rows. [`MAX_RUNS`] limits how many runs are kept, [`MAX_HASHES`] of how many
//! rows a change is noticed, and [`MAX_UNUSABLE`] how many unusable rows are told once only.

use base64::{Engine as _, prelude::BASE64_STANDARD_NO_PAD};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::rapidm2m::Stamp;

/// How many runs are kept, the newest ones: about 25 kB of the cursor document.
pub const MAX_RUNS: usize = 1_000;
/// Of how many rows the values are remembered, the newest ones: 5 kB of the cursor document.
pub const MAX_HASHES: usize = 1_000;
/// How many stamps of unusable rows are remembered, the newest ones.
pub const MAX_UNUSABLE: usize = 256;

/// The stamps of the recorded rows from a time on. Which earlier rows are recorded is no longer known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Recorded {
    /// Rows with an earlier stamp count as old, whether they are recorded or not.
    since: DateTime<Utc>,
    /// Stamps from `since` on, in order.
    stamps: Vec<Run>,
    /// The values of the newest of these rows.
    #[serde(default, skip_serializing_if = "Values::is_empty")]
    values: Values,
    /// Stamps of rows that could not be used, in order, as Unix milliseconds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    unusable: Vec<i64>,
}

/// A hash of each row's values, for the last rows of the list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Values {
    /// A hash of the channels. With other channels, other values say nothing.
    channels: u32,
    #[serde(serialize_with = "as_base64", deserialize_with = "from_base64")]
    hashes: Vec<u32>,
}

impl Values {
    fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }
}

fn as_base64<S: serde::Serializer>(hashes: &[u32], serializer: S) -> Result<S::Ok, S::Error> {
    let bytes: Vec<u8> = hashes.iter().flat_map(|hash| hash.to_le_bytes()).collect();
    serializer.serialize_str(&BASE64_STANDARD_NO_PAD.encode(bytes))
}

fn from_base64<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<u32>, D::Error> {
    let bytes = BASE64_STANDARD_NO_PAD.decode(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)?;
    let (hashes, rest) = bytes.as_chunks::<4>();
    if rest.is_empty() {
        Ok(hashes.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect())
    } else {
        Err(serde::de::Error::custom("hashes have four bytes each"))
    }
}

/// All rows of one stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamped {
    pub stamp: Stamp,
    /// A hash of their values.
    pub hash: u32,
}

/// What is known of the rows of a stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Still to be recorded.
    New,
    /// Recorded with other values.
    Changed,
    /// Recorded, or too old to know.
    Known,
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
        Self { since: since.time(), stamps: Vec::new(), values: Values::default(), unusable: Vec::new() }
    }

    /// Where a window must begin to include every late row.
    #[must_use]
    pub fn since(&self) -> Stamp {
        Stamp::from_time(self.since)
    }

    /// Adds a row whose values are not known. It must be after all others.
    pub fn note(&mut self, stamp: Stamp) {
        self.push(stamp.millis(), None);
    }

    /// What is known of rows, which must be in the order of their stamps. `channels` is a hash of the channels.
    #[must_use]
    pub fn see(&self, rows: &[Stamped], channels: u32) -> Vec<Seen> {
        let mut known = self.known(channels).peekable();
        let see = |row: &Stamped| {
            let stamp = row.stamp.millis();
            while known.next_if(|(known, _)| *known < stamp).is_some() {}
            match known.peek() {
                _ if row.stamp < self.since() => Seen::Known,
                Some((known, hash)) if *known == stamp => match hash {
                    Some(hash) if *hash != row.hash => Seen::Changed,
                    _ => Seen::Known,
                },
                _ => Seen::New,
            }
        };
        rows.iter().map(see).collect()
    }

    /// The recorded stamps, and the hashes of those of which the values are remembered.
    fn known(&self, channels: u32) -> impl Iterator<Item = (i64, Option<u32>)> {
        let hashes = if self.values.channels == channels { self.values.hashes.as_slice() } else { &[] };
        let without = self.count().saturating_sub(hashes.len());
        let hashes = std::iter::repeat_n(None, without).chain(hashes.iter().copied().map(Some));
        self.stamps.iter().flat_map(|run| run.stamps()).zip(hashes)
    }

    fn count(&self) -> usize {
        self.stamps.iter().map(|run| run.count as usize).sum()
    }

    /// Adds rows, which must be in order, or their new values, and forgets the rows before `forget`. Returns `false` if
    /// lack of room forced it to forget more: late rows before the new `since` are then not recognised.
    pub fn extend(&mut self, rows: &[Stamped], channels: u32, forget: Stamp) -> bool {
        if self.values.channels != channels {
            self.values = Values { channels, hashes: Vec::new() };
        }
        // Nearly always the new rows come after all known ones. If not, all runs are built again, because runs must not
        // overlap.
        let is_late = rows.first().zip(self.stamps.last()).is_some_and(|(row, run)| row.stamp.millis() <= run.last());
        if is_late {
            self.merge(rows, channels);
        } else {
            rows.iter().for_each(|row| self.push(row.stamp.millis(), Some(row.hash)));
        }
        self.forget_before(forget.millis());
        let over = self.stamps.len().saturating_sub(MAX_RUNS);
        if over > 0 {
            let from = self.stamps[over].first;
            self.forget_before(from);
        }
        let most = self.count().min(MAX_HASHES);
        let old = self.values.hashes.len().saturating_sub(most);
        self.values.hashes.drain(..old);
        if self.values.hashes.is_empty() {
            self.values = Values::default();
        }
        over == 0
    }

    fn merge(&mut self, rows: &[Stamped], channels: u32) {
        let known: Vec<_> = self.known(channels).collect();
        (self.stamps, self.values.hashes) = Default::default();
        let mut known = known.into_iter().peekable();
        for row in rows {
            let stamp = row.stamp.millis();
            while let Some((earlier, hash)) = known.next_if(|(known, _)| *known < stamp) {
                self.push(earlier, hash);
            }
            known.next_if(|(known, _)| *known == stamp);
            self.push(stamp, Some(row.hash));
        }
        known.for_each(|(stamp, hash)| self.push(stamp, hash));
    }

    /// Of rows that cannot be used, those that were not told before. Remembers them.
    pub fn note_unusable(&mut self, stamps: &[Stamp]) -> usize {
        let mut new: Vec<_> = stamps.iter().map(|stamp| stamp.millis()).collect();
        new.retain(|stamp| self.unusable.binary_search(stamp).is_err());
        let count = new.len();
        self.unusable.extend(new);
        self.unusable.sort_unstable();
        self.unusable.dedup();
        let old = self.unusable.len().saturating_sub(MAX_UNUSABLE);
        self.unusable.drain(..old);
        count
    }

    /// Adds a stamp that is after all others.
    fn push(&mut self, stamp: i64, hash: Option<u32>) {
        match hash {
            Some(hash) => self.values.hashes.push(hash),
            // Only of the last rows, without a gap.
            None => self.values.hashes.clear(),
        }
        match self.stamps.last_mut() {
            Some(run) if run.count == 1 => *run = Run { step: stamp - run.first, count: 2, ..*run },
            Some(run) if run.last() + run.step == stamp && run.count < u32::MAX => run.count += 1,
            _ => self.stamps.push(Run { first: stamp, step: 0, count: 1 }),
        }
    }

    fn forget_before(&mut self, since: i64) {
        let Some(time) = DateTime::from_timestamp_millis(since).filter(|time| *time > self.since) else { return };
        self.since = time;
        self.unusable.retain(|stamp| *stamp >= since);
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
            _ => Err(format!("[{first},{step},{count}] is not a run of stamps")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const MINUTE: i64 = 60_000;
    const CHANNELS: u32 = 7;

    fn at(millis: i64) -> Stamp {
        Stamp::BEGINNING.shifted(millis)
    }

    fn rows(stamps: impl IntoIterator<Item = i64>) -> Vec<Stamped> {
        stamps.into_iter().map(|stamp| Stamped { stamp: at(stamp), hash: 1 }).collect()
    }

    fn recorded(since: i64, stamps: impl IntoIterator<Item = i64>) -> Recorded {
        let mut recorded = Recorded::starting(at(since));
        assert!(recorded.extend(&rows(stamps), CHANNELS, at(since)));
        recorded
    }

    fn lacks(recorded: &Recorded, stamp: i64) -> bool {
        recorded.see(&rows([stamp]), CHANNELS) == [Seen::New]
    }

    #[test]
    fn a_day_of_minutes_is_one_run_however_it_came() {
        let all = || (0..1_440).map(|minute| minute * MINUTE);
        let mut halves = recorded(0, all().step_by(2));
        assert!(halves.extend(&rows(all().skip(1).step_by(2)), CHANNELS, at(0)));
        assert_eq!(halves, recorded(0, all()));
        assert_eq!((halves.stamps.len(), halves.values.hashes.len()), (1, MAX_HASHES));
        let json = serde_json::to_string(&recorded(0, [0, MINUTE])).unwrap();
        let first = Stamp::BEGINNING.millis();
        let expected = format!(
            r#"{{"Since":"{}","Stamps":[[{first},60000,2]],"Values":{{"Channels":7,"Hashes":"AQAAAAEAAAA"}}}}"#,
            Stamp::BEGINNING.rfc3339()
        );
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_str::<Recorded>(&json).unwrap(), recorded(0, [0, MINUTE]));
    }

    #[test]
    fn a_list_of_an_earlier_version_knows_no_values() {
        let json = format!(r#"{{"Since":"{}","Stamps":[[{},60000,3]]}}"#, at(0).rfc3339(), at(0).millis());
        let mut old: Recorded = serde_json::from_str(&json).unwrap();
        let changed = Stamped { stamp: at(MINUTE), hash: 9 };
        assert_eq!(old.see(&[changed], CHANNELS), [Seen::Known]);
        assert!(old.extend(&rows([3 * MINUTE]), CHANNELS, at(0)));
        let seen = [0, 1, 2, 3].map(|minute| Stamped { stamp: at(minute * MINUTE), hash: 9 });
        assert_eq!(old.see(&seen, CHANNELS), [Seen::Known, Seen::Known, Seen::Known, Seen::Changed]);
    }

    #[test]
    fn a_changed_value_is_told_once_and_not_if_the_channels_changed() {
        let mut recorded = recorded(0, [0, MINUTE, 2 * MINUTE]);
        let changed = Stamped { stamp: at(MINUTE), hash: 2 };
        assert_eq!(recorded.see(&[changed], CHANNELS), [Seen::Changed]);
        assert_eq!(recorded.see(&[changed], CHANNELS + 1), [Seen::Known]);
        assert!(recorded.extend(&[changed], CHANNELS, at(0)));
        assert_eq!(recorded.see(&[changed], CHANNELS), [Seen::Known]);
        assert_eq!(recorded.see(&rows([0, MINUTE, 2 * MINUTE]), CHANNELS), [Seen::Known, Seen::Changed, Seen::Known]);
        assert_eq!(recorded.count(), 3);
    }

    #[test]
    fn what_is_forgotten_is_old_and_not_lacking() {
        let mut recorded = recorded(0, [0, MINUTE, 2 * MINUTE]);
        assert!(lacks(&recorded, 1) && !lacks(&recorded, -1) && !lacks(&recorded, MINUTE));
        assert!(recorded.extend(&rows([3 * MINUTE]), CHANNELS, at(MINUTE + 1)));
        assert!(!lacks(&recorded, 1) && !lacks(&recorded, MINUTE) && lacks(&recorded, MINUTE + 1));
        assert!(recorded.extend(&[], CHANNELS, at(0)), "it never grows backwards");
        assert_eq!(recorded.since(), at(MINUTE + 1));
    }

    #[test]
    fn room_is_bounded_and_its_end_is_said() {
        let mut recorded = Recorded::starting(at(0));
        // Each interval differs from the last, so a run holds two stamps.
        let odd = (0..2 * i64::try_from(MAX_RUNS).unwrap() + 2).map(|index| index * index * 10);
        assert!(!recorded.extend(&rows(odd), CHANNELS, at(0)));
        assert_eq!(recorded.stamps.len(), MAX_RUNS);
        assert_eq!(recorded.since(), at(2 * 2 * 10));
        let many: Vec<_> = (0..1_000_000).map(at).collect();
        assert_eq!(recorded.note_unusable(&many), many.len());
        assert_eq!(recorded.note_unusable(&many[many.len() - MAX_UNUSABLE..]), 0);
        assert!(serde_json::to_string(&recorded).unwrap().len() < 40_000);
    }

    #[test]
    fn unusable_rows_are_told_once() {
        let mut recorded = recorded(0, [0]);
        assert_eq!(recorded.note_unusable(&[at(MINUTE), at(0)]), 2);
        assert_eq!(recorded.note_unusable(&[at(0), at(MINUTE), at(2 * MINUTE)]), 1);
        assert!(recorded.extend(&rows([3 * MINUTE]), CHANNELS, at(2 * MINUTE)));
        assert_eq!(recorded.unusable, [at(2 * MINUTE).millis()]);
    }

    #[test]
    fn a_run_that_is_none_is_refused() {
        for run in
            ["[0,0,0]", "[0,0,2]", "[0,-5,2]", "[0,5,1]", "[9223372036854775807,1,2]", "[0,9223372036854775807,9]"]
        {
            let json = format!(r#"{{"Since":"2000-01-01T00:00:00Z","Stamps":[{run}]}}"#);
            let error = serde_json::from_str::<Recorded>(&json).unwrap_err().to_string();
            assert!(error.contains("is not a run of stamps"), "{run}: {error}");
        }
    }

    proptest! {
        #[test]
        fn it_knows_what_a_map_would_know(
            rounds in prop::collection::vec((prop::collection::btree_map(0_i64..400, 0_u32..3, 0..40), 0_i64..300), 1..8)
        ) {
            let (mut recorded, mut map, mut since) = (Recorded::starting(at(0)), BTreeMap::new(), 0);
            for (rows, forget) in rounds {
                // Like the connector: add only what is new or changed.
                let rows: Vec<_> = rows.into_iter().map(|(stamp, hash)| Stamped { stamp: at(stamp), hash }).collect();
                let seen = recorded.see(&rows, CHANNELS);
                let new: Vec<_> = rows.iter().zip(seen).filter(|(_, seen)| *seen != Seen::Known).map(|(row, _)| *row).collect();
                prop_assert!(recorded.extend(&new, CHANNELS, at(forget)));
                map.extend(new.iter().map(|row| (row.stamp, row.hash)));
                since = since.max(forget);
                for stamp in 0..400 {
                    let expected = match map.get(&at(stamp)) {
                        _ if stamp < since => [Seen::Known; 2],
                        None => [Seen::New; 2],
                        Some(hash) => [0, 1].map(|other| if other == *hash { Seen::Known } else { Seen::Changed }),
                    };
                    let see = |hash| recorded.see(&[Stamped { stamp: at(stamp), hash }], CHANNELS)[0];
                    prop_assert_eq!([see(0), see(1)], expected, "{}", stamp);
                }
                let json = serde_json::to_string(&recorded).unwrap();
                prop_assert_eq!(&serde_json::from_str::<Recorded>(&json).unwrap(), &recorded);
            }
        }
    }
}
