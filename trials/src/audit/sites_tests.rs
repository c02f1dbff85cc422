//! Each possible fault is found, and nothing else is.

use serde_json::json;

use super::*;
use crate::ledger::Fault;

const SITE: &str = "Well 7";

fn at(minute: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_709_251_200 + minute * 60, 0).unwrap()
}

fn body(minutes: &[i64]) -> String {
    let row = |minute: &i64| json!({ "Timestamp": at(*minute), "Channels": { "ch0": minute } });
    json!({ "site_id": SITE, "Timeseries": minutes.iter().map(row).collect::<Vec<_>>() }).to_string()
}

fn message(id: &str, minutes: &[i64]) -> Message {
    Message { device: "d".into(), id: id.into(), properties: BTreeMap::new(), body: body(minutes) }
}

fn poll(id: &str, outcome: &str, minutes: &[i64]) -> Document {
    Document {
        id: format!("record of {id}"),
        kind: "poll".into(),
        outcome: outcome.into(),
        message: Some(body(minutes)),
        message_id: Some(id.into()),
        ..Document::default()
    }
}

fn cursor(minute: i64) -> Document {
    Document { id: "cursor".into(), kind: "cursor".into(), last_value_from: Some(at(minute)), ..Document::default() }
}

/// Four rows in two messages, without any fault.
struct World {
    messages: Vec<Message>,
    documents: Vec<Document>,
}

impl World {
    fn new() -> Self {
        Self {
            messages: vec![message("m1", &[1, 2]), message("m2", &[3, 4])],
            documents: vec![poll("m1", "forwarded", &[1, 2]), poll("m2", "forwarded", &[3, 4]), cursor(4)],
        }
    }

    fn audit(&self) -> Verdict {
        let rows = (1..=4).map(|minute| Row { at: at(minute), channels: json!({ "ch0": minute }) }).collect();
        let produced = BTreeMap::from([(SITE.to_owned(), rows)]);
        let documents = BTreeMap::from([(SITE.to_owned(), self.documents.clone())]);
        audit(&Books { produced: &produced, messages: &self.messages, documents: &documents, may_fail: false })
    }

    /// Expects these findings, and these numbers of rows lost and out of order.
    fn assert(&self, findings: &[&str], lost: usize, out_of_order: usize) {
        let verdict = self.audit();
        assert_eq!(verdict.findings.len(), findings.len(), "{:#?}", verdict.findings);
        for (finding, part) in verdict.findings.iter().zip(findings) {
            assert!(finding.contains(part), "{finding:?} does not say {part:?}");
        }
        assert_eq!((verdict.lost, verdict.out_of_order), (lost, out_of_order));
    }
}

#[test]
fn repeats_are_counted_and_are_no_fault() {
    let mut world = World::new();
    world.messages.insert(1, message("m1", &[1, 2]));
    world.messages.push(message("m1", &[1, 2]));
    world.documents.push(Document { kind: "poll".into(), outcome: "empty".into(), ..Document::default() });
    let verdict = world.audit();
    assert_eq!(verdict, Verdict { sent: 4, messages: 2, repeats: 2, ..Verdict::default() });
    assert!(verdict.is_clean());
}

#[test]
fn a_repeat_must_be_the_same_to_the_letter() {
    let mut world = World::new();
    world.messages.push(message("m1", &[1]));
    world.assert(&["m1 came again with other contents"], 0, 0);
    let mut world = World::new();
    let properties = BTreeMap::from([("$.ctime".to_owned(), "later".to_owned())]);
    world.messages.push(Message { properties, ..message("m1", &[1, 2]) });
    world.assert(&["m1 came again with other contents"], 0, 0);
}

#[test]
fn rows_that_are_missing_are_lost() {
    let mut world = World::new();
    world.messages.pop();
    world.assert(
        &["2 rows (2024-03-01T00:03:00.000Z to 2024-03-01T00:04:00.000Z) never arrived", "m2 never arrived"],
        2,
        0,
    );
}

#[test]
fn rows_out_of_order_are_found() {
    let mut world = World::new();
    world.messages.reverse();
    world.assert(
        &["message m1 has 2 rows (2024-03-01T00:01:00.000Z to 2024-03-01T00:02:00.000Z) that came after"],
        0,
        2,
    );
}

#[test]
fn a_row_in_two_messages_is_found() {
    let mut world = World::new();
    world.messages.push(message("m3", &[4]));
    world.documents.insert(2, poll("m3", "forwarded", &[4]));
    world.assert(
        &["message m3 has 1 rows (2024-03-01T00:04:00.000Z to 2024-03-01T00:04:00.000Z) that are in message m2"],
        0,
        0,
    );
}

#[test]
fn rows_that_nobody_produced_or_that_have_changed_are_found() {
    let mut world = World::new();
    world.messages[1].body = world.messages[1].body.replace(r#""ch0":4"#, r#""ch0":5"#);
    world.documents[1].message = Some(world.messages[1].body.clone());
    world.assert(
        &["message m2 has 1 rows (2024-03-01T00:04:00.000Z to 2024-03-01T00:04:00.000Z) with other values"],
        0,
        0,
    );
    let mut world = World::new();
    world.messages.push(message("m3", &[9]));
    world.documents.insert(2, poll("m3", "forwarded", &[9]));
    world.assert(&["that nobody produced"], 0, 0);
}

#[test]
fn records_must_agree_with_what_arrived() {
    let mut world = World::new();
    world.documents[1].outcome = "pending".into();
    world.documents[2].unforwarded = vec!["record of m2".into()];
    world.assert(&["is pending", "m2 arrived, but no record of it", "1 messages still wait"], 0, 0);
    let mut world = World::new();
    world.documents[1].message = Some(body(&[3]));
    world.assert(&["another body than m2 had"], 0, 0);
    let mut world = World::new();
    world.documents.push(poll("m2", "forwarded", &[3, 4]));
    world.assert(&["2 records say forwarded of m2"], 0, 0);
    let mut world = World::new();
    let error = Some(Fault { kind: "timeout".into(), text: "too slow".into() });
    world.documents.push(Document { error, ..poll("m3", "failed", &[]) });
    world.assert(&["is failed (timeout: too slow)"], 0, 0);
}

#[test]
fn the_cursor_must_stand_at_the_newest_row() {
    let mut world = World::new();
    world.documents[2] = cursor(3);
    world.assert(&["the cursor stands at"], 0, 0);
    world.documents.pop();
    world.assert(&["0 cursors"], 0, 0);
}

#[test]
fn messages_of_strangers_are_found() {
    let mut world = World::new();
    world.messages.push(Message { body: body(&[1]).replace(SITE, "Well 8"), ..message("m3", &[]) });
    world.messages.push(Message { body: "no JSON".into(), ..message("m4", &[]) });
    world.messages.push(message("", &[]));
    let findings = ["has no id", "unknown site", "m4 cannot be read", "arrived, but no record"];
    world.assert(&findings, 0, 0);
}
