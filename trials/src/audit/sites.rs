//! Audits the rows of sites: compares the produced rows with the messages and with the ledger.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Deserialize;
use serde_json::Value;

use super::{Message, Verdict};
use crate::{ledger::Document, rows::Row};

/// The data that an audit compares.
pub struct Books<'a> {
    /// By site, oldest first.
    pub produced: &'a BTreeMap<String, Vec<Row>>,
    /// In order of arrival.
    pub messages: &'a [Message],
    /// By site.
    pub documents: &'a BTreeMap<String, Vec<Document>>,
    /// Whether polls may have failed meanwhile.
    pub may_fail: bool,
}

#[derive(Deserialize)]
struct Body {
    site_id: String,
    #[serde(rename = "Timeseries")]
    rows: Vec<Arrived>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Arrived {
    timestamp: DateTime<Utc>,
    channels: Value,
}

/// Compares the produced rows with the messages and the ledger.
#[must_use]
pub fn audit(books: &Books<'_>) -> Verdict {
    let mut verdict = Verdict { sent: books.produced.values().map(Vec::len).sum(), ..Verdict::default() };
    let mut by_site: BTreeMap<String, Vec<(&Message, Vec<Arrived>)>> = BTreeMap::new();
    for message in verdict.distinct(books.messages) {
        match serde_json::from_str::<Body>(&message.body) {
            Ok(body) if books.produced.contains_key(&body.site_id) => {
                by_site.entry(body.site_id).or_default().push((message, body.rows));
            }
            Ok(body) => verdict.find(format!("message {} is of an unknown site {:?}", message.id, body.site_id)),
            Err(error) => verdict.find(format!("message {} cannot be read: {error}", message.id)),
        }
    }
    for (site, produced) in books.produced {
        let messages = by_site.remove(site).unwrap_or_default();
        rows(&mut verdict, site, produced, &messages);
        let documents = books.documents.get(site).map_or(&[][..], Vec::as_slice);
        let messages: Vec<&Message> = messages.iter().map(|(message, _)| *message).collect();
        ledger(&mut verdict, site, produced, &messages, documents, books.may_fail);
    }
    verdict
}

/// Each row must arrive once, in order and unchanged.
fn rows(verdict: &mut Verdict, site: &str, produced: &[Row], messages: &[(&Message, Vec<Arrived>)]) {
    let index: HashMap<DateTime<Utc>, usize> = produced.iter().enumerate().map(|(at, row)| (row.at, at)).collect();
    let mut arrived_in: Vec<Option<&str>> = vec![None; produced.len()];
    let mut newest = None;
    for (message, rows) in messages {
        let id = message.id.as_str();
        let (mut unknown, mut changed, mut late) = (Span::default(), Span::default(), Span::default());
        let mut again: BTreeMap<&str, Span> = BTreeMap::new();
        for row in rows {
            let Some(&position) = index.get(&row.timestamp) else {
                unknown.add(row.timestamp);
                continue;
            };
            if row.channels != produced[position].channels {
                changed.add(row.timestamp);
            }
            if let Some(before) = arrived_in[position].replace(id) {
                again.entry(before).or_default().add(row.timestamp);
                continue;
            }
            if newest.is_some_and(|newest| newest > position) {
                late.add(row.timestamp);
            }
            newest = newest.max(Some(position));
        }
        verdict.out_of_order += late.count;
        unknown.tell(verdict, |span| format!("{site}: message {id} has {span} that nobody produced"));
        changed.tell(verdict, |span| format!("{site}: message {id} has {span} with other values than were produced"));
        late.tell(verdict, |span| format!("{site}: message {id} has {span} that came after newer ones"));
        for (before, span) in again {
            span.tell(verdict, |span| format!("{site}: message {id} has {span} that are in message {before} too"));
        }
    }
    let mut lost = Span::default();
    for (row, _) in produced.iter().zip(&arrived_in).filter(|(_, id)| id.is_none()) {
        lost.add(row.at);
    }
    verdict.lost += lost.count;
    lost.tell(verdict, |span| format!("{site}: {span} never arrived"));
}

/// Rows with the same fault.
#[derive(Default)]
struct Span {
    count: usize,
    first: Option<DateTime<Utc>>,
    last: Option<DateTime<Utc>>,
}

impl Span {
    fn add(&mut self, at: DateTime<Utc>) {
        self.count += 1;
        self.first = self.first.or(Some(at));
        self.last = Some(at);
    }

    fn tell(&self, verdict: &mut Verdict, finding: impl FnOnce(String) -> String) {
        if let (Some(first), Some(last)) = (self.first, self.last) {
            let text = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Millis, true);
            verdict.find(finding(format!("{} rows ({} to {})", self.count, text(first), text(last))));
        }
    }
}

/// The records must agree with the messages that arrived, and none may be pending.
fn ledger(
    verdict: &mut Verdict,
    site: &str,
    produced: &[Row],
    messages: &[&Message],
    documents: &[Document],
    may_fail: bool,
) {
    let arrived: HashMap<&str, &Message> = messages.iter().map(|message| (message.id.as_str(), *message)).collect();
    let mut forwarded: HashMap<&str, usize> = HashMap::new();
    for poll in documents.iter().filter(|document| document.kind == "poll") {
        let (record, id) = (&poll.id, poll.message_id.as_deref().unwrap_or_default());
        match poll.outcome.as_str() {
            "empty" => {}
            "failed" if may_fail => {}
            "forwarded" => {
                *forwarded.entry(id).or_default() += 1;
                match arrived.get(id) {
                    None => verdict.find(format!("{site}: record {record} says forwarded, but {id} never arrived")),
                    Some(message) if poll.message.as_ref() != Some(&message.body) => {
                        verdict.find(format!("{site}: record {record} has another body than {id} had at the hub"));
                    }
                    Some(_) => {}
                }
            }
            outcome => {
                let why =
                    poll.error.as_ref().map_or(String::new(), |fault| format!(" ({}: {})", fault.kind, fault.text));
                verdict.find(format!("{site}: record {record} is {outcome}{why}"));
            }
        }
    }
    for message in messages {
        match forwarded.get(message.id.as_str()) {
            Some(1) => {}
            None => verdict.find(format!("{site}: {} arrived, but no record of it says forwarded", message.id)),
            Some(count) => verdict.find(format!("{site}: {count} records say forwarded of {}", message.id)),
        }
    }
    let cursors: Vec<&Document> = documents.iter().filter(|document| document.kind == "cursor").collect();
    let [cursor] = cursors[..] else {
        return verdict.find(format!("{site}: {} cursors", cursors.len()));
    };
    if !cursor.unforwarded.is_empty() {
        verdict.find(format!("{site}: {} messages still wait: {:?}", cursor.unforwarded.len(), cursor.unforwarded));
    }
    let newest = produced.last().map(|row| row.at);
    if cursor.last_value_from != newest {
        let stands = cursor.last_value_from;
        verdict.find(format!("{site}: the cursor stands at {stands:?}, the newest row is of {newest:?}"));
    }
}

#[cfg(test)]
#[path = "sites_tests.rs"]
mod tests;
