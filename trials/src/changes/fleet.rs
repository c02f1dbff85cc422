//! The fleet, and what must be accounted for. Does no I/O.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use fastrand::Rng;
use serde_json::{Value, json};

/// Of a hundred sites, so many are renamed, and so many removed.
const CHANGED: usize = 5;
/// Of a hundred rows, so many are bad, late, or corrected later.
const BAD: usize = 1;
const LATE: usize = 3;
const CORRECTED: usize = 1;
const MINUTE: i64 = 60_000;
/// 2024-03-01T00:00:00Z.
const BEGINNING: i64 = 1_709_251_200_000;

/// A row that a logger has sent: `_uid` of the site, when, and the number in its first channel.
pub type Row = (String, i64, u64);

/// A site as the trial knows it.
pub struct Site {
    pub uid: String,
    pub name: String,
    /// What the backend has: the number of each stamp, `None` for a bad row.
    rows: BTreeMap<i64, Option<u64>>,
    /// The stamp that is left out for a late row.
    gap: Option<i64>,
    /// Its logger has been taken down.
    pub is_silent: bool,
    pub is_removed: bool,
}

/// What a logger sends before a tick: the place of its site, and the row.
pub struct Upload {
    pub place: usize,
    at: i64,
    number: Option<u64>,
}

pub struct Fleet {
    random: Rng,
    pub sites: Vec<Site>,
    number: u64,
    /// The rows as they are in the backend at last.
    pub good: BTreeSet<Row>,
    /// Every row that was ever sent, those with earlier values included.
    pub ever: BTreeSet<Row>,
    pub bad: usize,
    pub late: usize,
    pub corrected: usize,
}

impl Fleet {
    pub fn new(names: &[String], seed: u64) -> Self {
        let site = |name: &String| Site {
            uid: emulators::rapidm2m::uid(name),
            name: name.clone(),
            rows: BTreeMap::new(),
            gap: None,
            is_silent: false,
            is_removed: false,
        };
        Self {
            random: Rng::with_seed(seed),
            sites: names.iter().map(site).collect(),
            number: 0,
            good: BTreeSet::new(),
            ever: BTreeSet::new(),
            bad: 0,
            late: 0,
            corrected: 0,
        }
    }

    /// What the loggers send before a tick.
    pub fn send(&mut self) -> Vec<Upload> {
        let mut uploads = Vec::new();
        for place in 0..self.sites.len() {
            if !self.sites[place].is_silent && self.random.usize(..3) > 0 {
                uploads.push(self.next_row(place));
            }
        }
        uploads
    }

    /// The last rows of the silent sites.
    pub fn send_last(&mut self) -> Vec<Upload> {
        let silent: Vec<_> = (0..self.sites.len()).filter(|place| self.sites[*place].is_silent).collect();
        silent.into_iter().map(|place| self.next_row(place)).collect()
    }

    fn next_row(&mut self, place: usize) -> Upload {
        self.number += 1;
        let (number, roll) = (self.number, self.random.usize(..100));
        let site = &mut self.sites[place];
        let newest = site.rows.keys().next_back().copied();
        let next = newest.map_or(BEGINNING, |newest| newest + MINUTE);
        let is_first = newest.is_none();
        let (at, number) = if let Some(gap) = site.gap.take() {
            self.late += 1;
            (gap, Some(number))
        } else if roll < BAD && !is_first {
            self.bad += 1;
            (next, None)
        } else if roll < BAD + LATE && !is_first {
            site.gap = Some(next);
            (next + MINUTE, Some(number))
        } else if roll < BAD + LATE + CORRECTED
            && let Some((at, before)) = site.rows.iter().rev().find_map(|(at, value)| Some((*at, (*value)?)))
        {
            // The newest good row gets another value. The one that it had was sent, or is not known to anybody.
            self.good.remove(&(site.uid.clone(), at, before));
            self.corrected += 1;
            (at, Some(number))
        } else {
            (next, Some(number))
        };
        site.rows.insert(at, number);
        if let Some(number) = number {
            self.good.insert((site.uid.clone(), at, number));
            self.ever.insert((site.uid.clone(), at, number));
        }
        Upload { place, at, number }
    }

    /// Sites for a change of the fleet.
    pub fn some(&mut self) -> Vec<usize> {
        let count = (self.sites.len() * CHANGED / 100).max(1);
        let mut places: Vec<_> = (0..self.sites.len()).filter(|place| !self.sites[*place].is_silent).collect();
        self.random.shuffle(&mut places);
        places.truncate(count);
        places
    }
}

impl Site {
    pub fn has_rows(&self) -> bool {
        !self.rows.is_empty()
    }
}

impl Upload {
    /// As the backend has it.
    pub fn raw(&self) -> Value {
        let time = DateTime::from_timestamp_millis(self.at).unwrap_or_default();
        let digits = time.format("%Y%m%d%H%M%S%3f").to_string();
        let stamp = digits.trim_end_matches('0');
        // A bad row has a value too few.
        self.number.map_or(json!([stamp, 1]), |number| json!([stamp, number, 0.5]))
    }
}

/// The rows of a message.
pub fn rows(uid: &str, body: &str) -> Vec<Row> {
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    let series = body["Timeseries"].as_array().cloned().unwrap_or_default();
    let row = |row: &Value| {
        let at = row["Timestamp"].as_str()?.parse::<DateTime<Utc>>().ok()?;
        Some((uid.to_owned(), at.timestamp_millis(), row["Channels"]["ch0"].as_u64()?))
    };
    series.iter().filter_map(row).collect()
}
