//! Packs rows into messages that the hub accepts. Pure.
//!
//! A message has the format of the connector's predecessor:
//! `{"customer_id":…,"site_id":…,"Timerange":{"begin":…,"end":…},"Timeseries":[{"Timestamp":…,"Channels":{"ch0":…}}]}`.

use std::{fmt::Write as _, ops::Range};

use chrono::{DateTime, Utc};
use sha2::{Digest as _, Sha256};

use crate::rapidm2m::{Rows, Site, Stamp};

/// The values that all messages of a poll have in common.
pub struct Heading<'a> {
    pub site: &'a Site,
    /// The cursor before the poll; `None` for the first poll. In a backfill: the beginning of the message's time
    /// unit.
    pub begin: Option<DateTime<Utc>>,
    /// When the backend was polled. In a backfill: the end of that time unit.
    pub end: DateTime<Utc>,
    /// The selected channels, in the order of the values.
    pub channels: &'a [String],
    /// The rows were recorded before with other values. A value may come back, so the time of the poll is a part of the
    /// message's id: what says something new must not look like a repeat.
    pub correction: bool,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The rows in it.
    pub rows: Range<usize>,
    /// The stamp of its last row.
    pub newest: Stamp,
    /// The next message begins with a row of the same stamp. Happens only if more rows share a stamp than a message
    /// holds.
    pub splits_stamp: bool,
    pub body: String,
    /// A hash of customer, site (the place of its documents) and rows: the same rows have the same id, whenever they are
    /// requested and whatever the site is called.
    pub message_id: String,
}

/// Splits rows into messages of at most `max_body` bytes, as few as possible, in order. Rows with the same stamp stay
/// in one message if they fit, because the cursor cannot stand between them. A row that is larger than a message gets
/// a message of its own, which is too large.
pub struct Splitter<'a> {
    prefix: String,
    seed: Sha256,
    /// `"ch0":` for each channel.
    names: Vec<String>,
    rows: &'a Rows,
    next: usize,
    end: usize,
    max_body: usize,
}

const SUFFIX: &str = "]}";

impl<'a> Splitter<'a> {
    /// A splitter for all rows.
    #[must_use]
    pub fn new(heading: &Heading<'_>, rows: &'a Rows, max_body: usize) -> Self {
        Self::of(heading, rows, 0..rows.rows.len(), max_body)
    }

    /// A splitter for some of the rows.
    #[must_use]
    pub fn of(heading: &Heading<'_>, rows: &'a Rows, some: Range<usize>, max_body: usize) -> Self {
        let begin =
            heading.begin.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), |time| Stamp::from_time(time).rfc3339());
        let prefix = format!(
            r#"{{"customer_id":{},"site_id":{},"Timerange":{{"begin":"{begin}","end":"{}"}},"Timeseries":["#,
            quoted(&heading.site.key.customer),
            quoted(&heading.site.name),
            Stamp::from_time(heading.end).rfc3339(),
        );
        // The zero byte distinguishes ("ab", "c") from ("a", "bc"). No id contains one.
        let key = &heading.site.key;
        let mut seed = Sha256::new().chain_update(&key.customer).chain_update([0]).chain_update(&key.site);
        if heading.correction {
            seed = seed.chain_update([0]).chain_update(heading.end.timestamp_millis().to_be_bytes());
        }
        let names = heading.channels.iter().map(|name| format!("{}:", quoted(name))).collect();
        Self { prefix, seed: seed.chain_update([0]), names, rows, next: some.start, end: some.end, max_body }
    }

    fn write_row(&self, index: usize, out: &mut String) {
        let row = &self.rows.rows[index];
        out.push_str(r#"{"Timestamp":""#);
        row.stamp.write_rfc3339(out);
        out.push_str(r#"","Channels":{"#);
        let values = self.names.iter().zip(self.rows.values(row)).filter_map(|(name, value)| Some((name, value?)));
        for (count, (name, value)) in values.enumerate() {
            if count > 0 {
                out.push(',');
            }
            out.push_str(name);
            out.push_str(value);
        }
        out.push_str("}}");
    }
}

impl Iterator for Splitter<'_> {
    type Item = Part;

    fn next(&mut self) -> Option<Part> {
        let rows = &self.rows.rows[..self.end];
        let first = self.next;
        if first >= rows.len() {
            return None;
        }
        let mut body = self.prefix.clone();
        // Where the rows of the last stamp begin, in the text and in the rows.
        let (mut group_text, mut group) = (body.len(), first);
        while self.next < rows.len() {
            let before = body.len();
            if self.next > first {
                body.push(',');
                if rows[self.next].stamp != rows[group].stamp {
                    (group_text, group) = (before, self.next);
                }
            }
            self.write_row(self.next, &mut body);
            if body.len() + SUFFIX.len() > self.max_body && self.next > first {
                // The row does not fit. Leave out all rows of its stamp; if the message has no other stamp, leave out
                // only this row.
                let (text, row) = if group > first { (group_text, group) } else { (before, self.next) };
                body.truncate(text);
                self.next = row;
                break;
            }
            self.next += 1;
        }
        let newest = rows[self.next - 1].stamp;
        let splits_stamp = rows.get(self.next).is_some_and(|row| row.stamp == newest);
        let hash = self.seed.clone().chain_update(&body[self.prefix.len()..]).finalize();
        let mut message_id = String::with_capacity(32);
        for byte in &hash[..16] {
            write!(message_id, "{byte:02x}").expect("a String takes all");
        }
        body.push_str(SUFFIX);
        Some(Part { rows: first..self.next, newest, splits_stamp, body, message_id })
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rapidm2m::ledger::SiteKey;

    fn site() -> Site {
        Site::of_key(SiteKey { customer: "Wässer \"&\" Co".into(), site: "Energy meter 1".into() })
    }

    fn time(text: &str) -> DateTime<Utc> {
        DateTime::parse_from_rfc3339(text).unwrap().to_utc()
    }

    fn split(json: &str, channels: &[&str], begin: Option<&str>, end: &str, max_body: usize) -> Vec<Part> {
        let rows = Rows::read(json.to_owned().into(), channels.len()).unwrap();
        let channels: Vec<_> = channels.iter().map(|name| (*name).to_owned()).collect();
        let site = site();
        let heading =
            Heading { site: &site, begin: begin.map(time), end: time(end), channels: &channels, correction: false };
        Splitter::new(&heading, &rows, max_body).collect()
    }

    #[test]
    fn the_message_has_the_documented_shape() {
        let json =
            r#"[["20170126133",51000,"NAN",null],["20170126133000035",1.50,"x","y"],["2017012614",null,null,null]]"#;
        let parts = split(json, &["ch0", "ch \"1\"", "ch2"], None, "2017-02-16T21:09:24.774Z", 10_000);
        assert_eq!(
            parts[0].body,
            r#"{"customer_id":"Wässer \"&\" Co","site_id":"Energy meter 1","Timerange":{"begin":"0001-01-01T00:00:00Z","end":"2017-02-16T21:09:24.774Z"},"Timeseries":[{"Timestamp":"2017-01-26T13:30:00Z","Channels":{"ch0":51000}},{"Timestamp":"2017-01-26T13:30:00.035Z","Channels":{"ch0":1.50,"ch \"1\"":"x","ch2":"y"}},{"Timestamp":"2017-01-26T14:00:00Z","Channels":{}}]}"#
        );
        assert_eq!(
            (parts.len(), parts[0].rows.clone(), parts[0].newest.rfc3339()),
            (1, 0..3, "2017-01-26T14:00:00Z".into())
        );
    }

    #[test]
    fn the_id_depends_on_the_rows_alone() {
        let rows = r#"[["2017012",1]]"#;
        let first = &split(rows, &["ch0"], None, "2017-02-16T21:09:24Z", 10_000)[0];
        let later = &split(rows, &["ch0"], Some("2017-01-01T00:00:00Z"), "2018-01-01T00:00:00Z", 10_000)[0];
        let other = &split(r#"[["2017012",2]]"#, &["ch0"], None, "2017-02-16T21:09:24Z", 10_000)[0];
        assert_eq!(first.message_id, later.message_id);
        assert_ne!(first.message_id, other.message_id);
        assert_eq!(first.message_id.len(), 32);
    }

    #[test]
    fn a_row_that_is_too_large_stands_alone() {
        let json = format!(r#"[["2017011",1],["2017012","{}"],["2017013",3]]"#, "x".repeat(500));
        let parts = split(&json, &["ch0"], None, "2018-01-01T00:00:00Z", 300);
        let rows: Vec<_> = parts.iter().map(|part| part.rows.clone()).collect();
        assert_eq!(rows, [0..1, 1..2, 2..3]);
        assert!(parts[0].body.len() <= 300 && parts[1].body.len() > 300 && parts[2].body.len() <= 300);
    }

    #[test]
    fn rows_of_one_stamp_stay_together_if_a_message_can_hold_them() {
        let row = |stamp: &str, value: u32| format!(r#"["{stamp}",{value}]"#);
        let together = [row("2017011", 1), row("2017012", 2), row("2017012", 3), row("2017013", 4)].join(",");
        let parts = split(&format!("[{together}]"), &["ch0"], None, "2018-01-01T00:00:00Z", 280);
        let rows: Vec<_> = parts.iter().map(|part| (part.rows.clone(), part.splits_stamp)).collect();
        assert_eq!(rows, [(0..1, false), (1..3, false), (3..4, false)]);

        let too_many: Vec<_> = (0..5).map(|value| row("2017012", value)).collect();
        let parts = split(&format!("[{}]", too_many.join(",")), &["ch0"], None, "2018-01-01T00:00:00Z", 280);
        let rows: Vec<_> = parts.iter().map(|part| (part.rows.clone(), part.splits_stamp)).collect();
        assert_eq!(rows, [(0..2, true), (2..4, true), (4..5, false)]);
    }

    proptest! {
        #[test]
        fn every_row_is_in_one_message_in_order_and_messages_are_full(
            values in prop::collection::vec(0_u64..u64::MAX, 1..120), max_body in 250_usize..2_000
        ) {
            let rows: Vec<_> = values.iter().enumerate().map(|(index, value)| {
                (Stamp::BEGINNING.shifted(i64::try_from(index).unwrap() * 1000).to_string(), *value)
            }).collect();
            let parts = split(&serde_json::to_string(&rows).unwrap(), &["ch0"], None, "2018-01-01T00:00:00Z", max_body);
            let mut expected_start = 0;
            let mut seen = Vec::new();
            for (index, part) in parts.iter().enumerate() {
                prop_assert_eq!(part.rows.start, expected_start);
                expected_start = part.rows.end;
                prop_assert!(part.body.len() <= max_body);
                let body: serde_json::Value = serde_json::from_str(&part.body).unwrap();
                seen.extend(body["Timeseries"].as_array().unwrap().iter().map(|row| row["Channels"]["ch0"].as_u64().unwrap()));
                if let Some(next) = parts.get(index + 1) {
                    let longest_row = 90;
                    prop_assert!(part.body.len() + longest_row > max_body, "room for a row of {:?}", next.rows);
                }
            }
            prop_assert_eq!(seen, values);
        }
    }
}
