//! Adds up: every row is at the hub, or in a count that a person is shown. Does no I/O.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde_json::Value;

use super::fleet::{Fleet, Row, rows};
use crate::audit::Message;

/// The ledger's documents, read once.
pub struct Records {
    documents: Vec<Value>,
    /// Every row that is recorded.
    rows: BTreeSet<Row>,
    /// Recorded rows that were older than others of their site that were recorded before.
    late: u64,
    corrected: u64,
    /// Messages that wait.
    pub waiting: usize,
}

impl Records {
    pub fn new(mut documents: Vec<Value>) -> Self {
        // The id of a poll begins with its time.
        documents.sort_by(|one, other| one["id"].as_str().cmp(&other["id"].as_str()));
        let (mut all, mut newest, mut late, mut corrected) = (BTreeSet::new(), BTreeMap::new(), 0, 0);
        let kept = documents.iter().map(|document| &document["Record"]).filter(|kept| kept.is_object());
        for document in documents.iter().chain(kept) {
            let (Some(uid), Some(body)) = (document["Site_Uid"].as_str(), document["IoTHubMessage"].as_str()) else {
                continue;
            };
            let rows = rows(uid, body);
            if document["Correction"] == true {
                corrected += rows.len() as u64;
            } else {
                let newest = newest.entry(uid.to_owned()).or_insert(i64::MIN);
                late += rows.iter().filter(|(_, at, _)| *at < *newest).count() as u64;
                *newest = rows.iter().map(|(_, at, _)| *at).max().unwrap_or(i64::MIN).max(*newest);
            }
            all.extend(rows);
        }
        let waiting = documents.iter().filter_map(|document| document["Unforwarded"].as_array().map(Vec::len)).sum();
        Self { documents, rows: all, late, corrected, waiting }
    }

    /// How many of the fleet's rows are not recorded.
    pub fn missing(&self, fleet: &Fleet) -> usize {
        self.missing_of(fleet, |_| true)
    }

    /// Whether all rows of silent sites are recorded, and (`are_sent`) none of their messages waits.
    pub fn has_silent(&self, fleet: &Fleet, are_sent: bool) -> bool {
        let silent: HashSet<_> =
            fleet.sites.iter().filter(|site| site.is_silent).map(|site| site.uid.as_str()).collect();
        let mut of_silent =
            self.cursors().filter(|cursor| cursor["Site_Uid"].as_str().is_some_and(|uid| silent.contains(uid)));
        let waits = of_silent.any(|cursor| cursor["Unforwarded"] != serde_json::json!([]));
        self.missing_of(fleet, |(uid, ..)| silent.contains(uid.as_str())) == 0 && !(are_sent && waits)
    }

    fn missing_of(&self, fleet: &Fleet, is_meant: impl Fn(&Row) -> bool) -> usize {
        fleet.good.iter().filter(|row| is_meant(row) && !self.rows.contains(*row)).count()
    }

    fn cursors(&self) -> impl Iterator<Item = &Value> {
        self.documents.iter().filter(|document| document["Kind"] == "cursor")
    }

    /// A count of the status page, over all sites.
    fn on_page(&self, name: &str) -> u64 {
        self.cursors().filter_map(|cursor| cursor["Activity"][name].as_u64()).sum()
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Counted {
    pub at_hub: usize,
    pub bad: u64,
    pub late: u64,
    pub corrected: u64,
    pub repeats: usize,
    pub lost: usize,
}

/// Compares the fleet with the ledger and the hub. Each finding is a sentence.
pub fn account(fleet: &Fleet, records: &Records, messages: &[Message], findings: &mut Vec<String>) -> Counted {
    let (mut ids_of_row, mut seen, mut repeats): (HashMap<Row, BTreeSet<&str>>, _, _) =
        (HashMap::new(), BTreeSet::new(), 0);
    for message in messages {
        repeats += usize::from(!seen.insert(&message.id));
        let uid = message.properties.get("Site_Uid").map(String::as_str).unwrap_or_default();
        for row in rows(uid, &message.body) {
            ids_of_row.entry(row).or_default().insert(&message.id);
        }
    }
    let lost: Vec<_> = fleet.good.iter().filter(|row| !ids_of_row.contains_key(*row)).collect();
    findings.extend(lost.iter().map(|row| format!("row {row:?} is not at the hub")));
    let unsent = records.rows.iter().filter(|row| !ids_of_row.contains_key(*row));
    findings.extend(unsent.map(|row| format!("row {row:?} is recorded and not at the hub")));
    let made_up = ids_of_row.keys().filter(|row| !fleet.ever.contains(*row));
    findings.extend(made_up.map(|row| format!("row {row:?} is at the hub, and no logger sent it")));
    let twice = ids_of_row.iter().filter(|(_, ids)| ids.len() > 1);
    findings.extend(twice.map(|(row, ids)| format!("row {row:?} came in {} messages", ids.len())));
    let bad = records.documents.iter().filter_map(|document| document["Result"]["BadRows"]["Count"].as_u64()).sum();
    // A late row that comes with newer ones, or a row that is corrected before it was polled, is neither.
    for (what, sent, recorded, name) in [
        ("bad", Some(fleet.bad as u64), bad, "UnusableRows"),
        ("late", None, records.late, "LateRows"),
        ("corrected", None, records.corrected, "CorrectedRows"),
    ] {
        if let Some(sent) = sent.filter(|sent| *sent != recorded) {
            findings.push(format!("{sent} {what} rows were sent, the records have {recorded}"));
        }
        let on_page = records.on_page(name);
        if on_page != recorded {
            findings.push(format!("the records have {recorded} {what} rows, the page has {on_page}"));
        }
    }
    let mut cursors: HashMap<&str, usize> = HashMap::new();
    for uid in records.cursors().filter_map(|cursor| cursor["Site_Uid"].as_str()) {
        *cursors.entry(uid).or_default() += 1;
    }
    for site in fleet.sites.iter().filter(|site| site.has_rows()) {
        let count = cursors.get(site.uid.as_str()).copied().unwrap_or_default();
        if count != 1 {
            findings.push(format!("{} has {count} cursors", site.name));
        }
    }
    let (late, corrected) = (records.late, records.corrected);
    Counted { at_hub: fleet.good.len() - lost.len(), bad, late, corrected, repeats, lost: lost.len() }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use serde_json::json;

    use super::*;

    /// A fleet whose rows are all recorded and at the hub, one message each.
    struct Books {
        fleet: Fleet,
        documents: Vec<Value>,
        messages: Vec<Message>,
    }

    fn message(number: usize, uid: &str, body: &str) -> Message {
        Message {
            device: "d".into(),
            id: format!("m{number}"),
            properties: [("Site_Uid".to_owned(), uid.to_owned())].into(),
            body: body.to_owned(),
        }
    }

    fn books() -> Books {
        let mut fleet = Fleet::new(&["A", "B", "C", "D", "E", "F"].map(str::to_owned), 7);
        let (mut documents, mut messages) = (Vec::new(), Vec::new());
        let mut activity: BTreeMap<String, [u64; 3]> = BTreeMap::new();
        let mut newest: BTreeMap<String, i64> = BTreeMap::new();
        let (mut known, mut stamps) = (BTreeSet::new(), BTreeSet::new());
        for tick in 0..100 {
            let bad_before = fleet.bad;
            let uploads = fleet.send();
            let place = uploads.first().map_or(0, |upload| upload.place);
            let bad = (fleet.bad - bad_before) as u64;
            if bad > 0 {
                let uid = fleet.sites[place].uid.clone();
                activity.entry(uid).or_default()[0] += bad;
                documents.push(json!({ "id": format!("{tick:04}-bad"), "Result": { "BadRows": { "Count": bad } } }));
            }
            let new: Vec<Row> = fleet.good.iter().filter(|row| !known.contains(*row)).cloned().collect();
            for (uid, at, number) in new {
                known.insert((uid.clone(), at, number));
                let is_correction = !stamps.insert((uid.clone(), at));
                let newest = newest.entry(uid.clone()).or_insert(i64::MIN);
                let is_late = !is_correction && at < *newest;
                *newest = at.max(*newest);
                let counts = activity.entry(uid.clone()).or_default();
                counts[1] += u64::from(is_late);
                counts[2] += u64::from(is_correction);
                let stamp = DateTime::from_timestamp_millis(at).unwrap().to_rfc3339();
                let body = json!({ "Timeseries": [{ "Timestamp": stamp, "Channels": { "ch0": number } }] }).to_string();
                messages.push(message(messages.len(), &uid, &body));
                documents.push(json!({
                    "id": format!("{tick:04}"), "Site_Uid": uid, "IoTHubMessage": body, "Correction": is_correction,
                }));
            }
        }
        for (uid, [bad, late, corrected]) in activity {
            let activity = json!({ "UnusableRows": bad, "LateRows": late, "CorrectedRows": corrected });
            documents.push(json!({ "id": "cursor", "Kind": "cursor", "Site_Uid": uid, "Activity": activity }));
        }
        Books { fleet, documents, messages }
    }

    fn findings(books: &Books) -> (Counted, Vec<String>) {
        let mut findings = Vec::new();
        let records = Records::new(books.documents.clone());
        (account(&books.fleet, &records, &books.messages, &mut findings), findings)
    }

    #[test]
    fn a_fleet_whose_rows_have_all_arrived_is_accounted_for() {
        let (counted, findings) = findings(&books());
        assert_eq!(findings, Vec::<String>::new());
        assert_eq!(counted.lost + counted.repeats, 0);
        assert!(counted.bad > 0 && counted.late > 0 && counted.corrected > 0, "{counted:?}");
    }

    /// Each change makes one thing wrong; the finding names it.
    #[test]
    fn whatever_is_missing_or_too_much_is_found() {
        type Change = fn(&mut Books);
        let changes: [(&str, Change); 8] = [
            ("is not at the hub", |books| drop(books.messages.pop())),
            ("is recorded and not at the hub", |books| books.messages.retain(|message| message.id != "m3")),
            ("no logger sent it", |books| {
                let body = r#"{"Timeseries":[{"Timestamp":"2030-01-01T00:00:00Z","Channels":{"ch0":1}}]}"#;
                books.messages.push(message(9_999, &books.fleet.sites[0].uid, body));
            }),
            ("came in 2 messages", |books| {
                let again = Message { id: "other".into(), ..books.messages[0].clone() };
                books.messages.push(again);
            }),
            ("bad rows were sent", |books| books.documents.retain(|document| document["Result"].is_null())),
            ("late rows, the page has", |books| note(books, "LateRows")),
            ("corrected rows, the page has", |books| note(books, "CorrectedRows")),
            ("has 2 cursors", |books| {
                let cursor = json!({ "id": "cursor", "Kind": "cursor", "Site_Uid": books.fleet.sites[0].uid });
                books.documents.push(cursor);
            }),
        ];
        for (expected, change) in changes {
            let mut books = books();
            change(&mut books);
            let (_, findings) = findings(&books);
            assert!(findings.iter().any(|finding| finding.contains(expected)), "{expected}: {findings:?}");
        }
    }

    /// One more on the page.
    fn note(books: &mut Books, name: &str) {
        let cursor = books.documents.last_mut().unwrap();
        cursor["Activity"][name] = json!(cursor["Activity"][name].as_u64().unwrap() + 1);
    }
}
