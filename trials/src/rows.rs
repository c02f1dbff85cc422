//! Makes the rows of the emulated backend: each site's stamps strictly increase, and each row has a number that no
//! other row has.

use std::{collections::BTreeMap, ops::RangeInclusive};

use chrono::{DateTime, Utc};
use fastrand::Rng;
use serde_json::{Value, json};

/// 2024-03-01T00:00:00Z, because the connector holds back rows from the future.
const BEGINNING: i64 = 1_709_251_200_000;
/// Milliseconds between two rows of a site.
const PAUSE: RangeInclusive<i64> = 1..=90_000;
/// Rows of a normal upload; a logger uploads a few.
const FEW: RangeInclusive<usize> = 1..=4;
/// One upload in this many is a burst.
const BURST_EVERY: usize = 40;
/// Rows of a burst, and characters of the text in each row: together they need two to four messages.
const BURST: RangeInclusive<usize> = 150..=300;
const TEXT: RangeInclusive<usize> = 1_200..=2_000;
/// The most bursts of a run. They are limited because every transaction copies all documents in the emulated Cosmos DB.
const MOST_BURSTS: usize = 5;

/// A site's values at one time, in the same form as in a message.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub at: DateTime<Utc>,
    pub channels: Value,
}

impl Row {
    /// As the backend serves it: the stamp's digits without the zeros at the end, then a value for each channel.
    #[must_use]
    pub fn raw(&self) -> Value {
        let stamp = self.at.format("%Y%m%d%H%M%S%3f").to_string();
        let value = |name| self.channels.get(name).cloned().unwrap_or(json!("NAN"));
        json!([stamp.trim_end_matches('0'), value("ch0"), value("ch1")])
    }
}

/// Makes rows. The same seed gives the same rows.
pub struct Producer {
    random: Rng,
    sites: Vec<String>,
    bursts: usize,
    last_number: u64,
    /// By site, oldest first.
    pub produced: BTreeMap<String, Vec<Row>>,
}

impl Producer {
    #[must_use]
    pub fn new(seed: u64, sites: &[String]) -> Self {
        let sites = sites.to_vec();
        let produced = sites.iter().map(|site| (site.clone(), Vec::new())).collect();
        Self { random: Rng::with_seed(seed), sites, bursts: 0, last_number: 0, produced }
    }

    /// The next upload: a site and its new rows.
    pub fn next(&mut self) -> (&str, &[Row]) {
        let site = &self.sites[self.random.usize(..self.sites.len())];
        let is_burst = self.bursts < MOST_BURSTS && self.random.usize(..BURST_EVERY) == 0;
        self.bursts += usize::from(is_burst);
        let count = self.random.usize(if is_burst { BURST } else { FEW });
        let rows = self.produced.entry(site.clone()).or_default();
        for _ in 0..count {
            let newest = rows.last().map_or(BEGINNING, |row| row.at.timestamp_millis());
            let at = DateTime::from_timestamp_millis(newest + self.random.i64(PAUSE)).expect("a few years at most");
            self.last_number += 1;
            let mut channels = json!({ "ch0": self.last_number });
            if is_burst {
                channels["ch1"] = text(&mut self.random).into();
            } else if self.random.bool() {
                channels["ch1"] = json!(0.5);
            }
            rows.push(Row { at, channels });
        }
        (site, &rows[rows.len() - count..])
    }
}

fn text(random: &mut Rng) -> String {
    let length = random.usize(TEXT);
    std::iter::repeat_with(|| random.alphanumeric()).take(length).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn a_seed_makes_the_same_rows_again_and_every_row_is_another() {
        let make = |seed| {
            let mut producer = Producer::new(seed, &["a", "b"].map(str::to_owned));
            for _ in 0..200 {
                producer.next();
            }
            producer.produced
        };
        let rows = make(7);
        assert_eq!(rows, make(7));
        assert_ne!(rows, make(8));
        let numbers: BTreeSet<_> = rows.values().flatten().map(|row| row.channels["ch0"].as_u64().unwrap()).collect();
        assert_eq!(numbers.len(), rows.values().flatten().count());
        for rows in rows.values() {
            assert!(rows.is_sorted_by(|one, next| one.at < next.at));
            assert!(
                rows.last().unwrap().at < DateTime::from_timestamp_millis(BEGINNING).unwrap() + TimeDelta::days(365)
            );
        }
        let widest = rows.values().flatten().map(|row| row.raw().to_string().len()).max().unwrap();
        assert!(widest > *TEXT.start(), "there was a burst");
    }

    #[test]
    fn rows_are_written_as_the_backend_writes_them() {
        let at = DateTime::from_timestamp_millis(1_485_437_400_500).unwrap();
        let row = Row { at, channels: json!({ "ch0": 1 }) };
        assert_eq!(row.raw(), json!(["201701261330005", 1, "NAN"]));
    }
}
