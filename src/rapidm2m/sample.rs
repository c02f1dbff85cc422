//! Reads what the C# sample has recorded: the newest row that it has forwarded of each site. Pure.
//!
//! The sample writes the stamps of the backend, which are UTC, without a time zone. Only the rows of its emulation have
//! one: it makes them from the local clock, and they are in no backend.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use serde_json::Value;

use super::ledger::{Cursor, SiteKey};

/// The container that the sample's code names.
pub const CONTAINER: &str = "pollingAttempts";
/// The sample reads no other data container of a site.
const HISTDATA: u8 = 0;
/// How many unusable documents are named.
const NAMED: usize = 10;
/// As for rows of the backend: the logger's clock may be this far ahead.
const CLOCK_TOLERANCE: TimeDelta = TimeDelta::seconds(60);

/// What the sample knows of a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forwarded {
    pub newest: DateTime<Utc>,
    /// How many documents of the site hold rows.
    pub documents: u64,
}

/// What the documents of the sample's container tell.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct History {
    /// By customer and site.
    pub sites: BTreeMap<(String, String), Forwarded>,
    /// Documents of the sample's emulation, which are left out.
    pub emulated: u64,
    /// Documents whose newest row is ahead of the clock, which are left out.
    pub ahead: u64,
    /// Documents that cannot be used.
    pub unusable: u64,
    /// The first of these, each with its id and the reason.
    pub first_unusable: Vec<String>,
}

enum Stamp {
    OfBackend(DateTime<Utc>),
    OfEmulation,
}

impl History {
    /// Adds a document that holds rows: at least its `id`, `Customer_Id`, `Site_Id` and `LastValueFrom`.
    pub fn add(&mut self, document: &Value, now: DateTime<Utc>) {
        match read(document) {
            Ok((_, Stamp::OfEmulation)) => self.emulated += 1,
            // As a cursor, it would hide all rows until then.
            Ok((_, Stamp::OfBackend(newest))) if newest > now + CLOCK_TOLERANCE => self.ahead += 1,
            Ok((site, Stamp::OfBackend(newest))) => {
                let known = self.sites.entry(site).or_insert(Forwarded { newest, documents: 0 });
                known.newest = known.newest.max(newest);
                known.documents += 1;
            }
            Err(why) => {
                self.unusable += 1;
                if self.first_unusable.len() < NAMED {
                    let id = document["id"].as_str().unwrap_or("?");
                    self.first_unusable.push(format!("document {id}: {why}"));
                }
            }
        }
    }

    /// Whether there was no document at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sites.is_empty() && self.emulated + self.ahead + self.unusable == 0
    }
}

/// The cursor of a site at the newest row that the sample has forwarded.
#[must_use]
pub fn cursor(key: &SiteKey, forwarded: &Forwarded) -> Cursor {
    let mut cursor = Cursor::new(key);
    (cursor.histdata, cursor.last_value_from) = (Some(HISTDATA), Some(forwarded.newest));
    cursor
}

fn read(document: &Value) -> Result<((String, String), Stamp), String> {
    // The sample does not trim the names in its settings; the app does.
    let name = |field: &str| {
        let name = document[field].as_str().map(str::trim).filter(|name| !name.is_empty());
        name.map(str::to_owned).ok_or_else(|| format!("{field} is not a name"))
    };
    let site = (name("Customer_Id")?, name("Site_Id")?);
    let stamp = &document["LastValueFrom"];
    let stamp = stamp.as_str().and_then(parse).ok_or_else(|| format!("LastValueFrom is not a time: {stamp}"))?;
    Ok((site, stamp))
}

fn parse(text: &str) -> Option<Stamp> {
    if let Ok(time) = text.trim_end_matches('Z').parse::<NaiveDateTime>() {
        return Some(Stamp::OfBackend(time.and_utc()));
    }
    DateTime::parse_from_rfc3339(text).is_ok().then_some(Stamp::OfEmulation)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn time(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn history(documents: &[Value]) -> History {
        let mut history = History::default();
        for document in documents {
            history.add(document, time("2026-01-01T00:00:00Z"));
        }
        history
    }

    fn document(site: &str, newest: &str) -> Value {
        json!({ "id": "1", "Customer_Id": "c", "Site_Id": site, "LastValueFrom": newest })
    }

    #[test]
    fn the_newest_stamp_of_each_site_counts_and_is_utc() {
        let history = history(&[
            document("Well", "2025-01-01T12:00:00"),
            document(" Well ", "2025-01-01T12:30:00.035"),
            document("Well", "2024-12-31T23:59:59"),
            document("Süd", "2025-01-01T00:00:00Z"),
        ]);
        let well = Forwarded { newest: time("2025-01-01T12:30:00.035Z"), documents: 3 };
        assert_eq!(history.sites[&("c".into(), "Well".into())], well);
        assert_eq!(history.sites[&("c".into(), "Süd".into())].newest, time("2025-01-01T00:00:00Z"));
        assert_eq!((history.sites.len(), history.unusable, history.emulated), (2, 0, 0));
        let key = SiteKey { customer: "c".into(), site: "Well".into() };
        let cursor = cursor(&key, &well);
        assert_eq!((cursor.histdata, cursor.last_value_from), (Some(0), Some(well.newest)));
    }

    #[test]
    fn what_does_not_tell_how_far_the_sample_came_is_counted() {
        let bad = [json!({"id": "x", "Customer_Id": "c", "Site_Id": null, "LastValueFrom": "2025-01-01T00:00:00"})];
        let bad = bad.into_iter().chain((0..20).map(|_| document("Well", "yesterday")));
        let mut documents: Vec<_> = bad.collect();
        documents.push(document("Well", "2025-01-01T13:00:00.1234567+01:00"));
        documents.push(document("Well", "2026-01-01T00:02:00"));
        let history = history(&documents);
        assert!(history.sites.is_empty() && !history.is_empty());
        assert_eq!((history.emulated, history.ahead, history.unusable), (1, 1, 21));
        assert_eq!(history.first_unusable.len(), NAMED);
        assert_eq!(history.first_unusable[0], "document x: Site_Id is not a name");
        assert_eq!(history.first_unusable[1], "document 1: LastValueFrom is not a time: \"yesterday\"");
    }
}
