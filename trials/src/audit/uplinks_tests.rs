//! Each possible fault is found, and nothing else is.

use serde_json::json;

use super::*;

fn sent(marker: u64, device: &str, status: u16) -> Sent {
    Sent { device: device.into(), marker, status: Some(status), is_in_calm: marker >= 10 }
}

fn message(marker: u64, device: &str) -> Message {
    let body = json!({ "PayloadRaw": BASE64_STANDARD.encode(marker.to_be_bytes()) }).to_string();
    Message { device: device.into(), id: format!("id {marker}"), properties: BTreeMap::new(), body }
}

/// Two devices, in trouble and in the calm, without any fault. The queue has delivered one message twice.
struct World {
    sent: Vec<Sent>,
    messages: Vec<Message>,
    registrations: BTreeMap<String, String>,
    documents: Vec<DeviceDocument>,
    leftovers: Vec<(String, Vec<String>)>,
}

impl World {
    fn new() -> Self {
        let uplinks = [(1, "a"), (2, "b"), (3, "a"), (10, "a"), (11, "b"), (12, "a")];
        let arrivals = [(3, "a"), (2, "b"), (1, "a"), (2, "b"), (11, "b"), (10, "a"), (12, "a")];
        let document = |id: &str| DeviceDocument { id: id.into(), assigned_hub: "hub".into(), device_id: id.into() };
        Self {
            sent: uplinks.map(|(marker, device)| sent(marker, device, 202)).to_vec(),
            messages: arrivals.map(|(marker, device)| message(marker, device)).to_vec(),
            registrations: ["a", "b"].map(|id| (id.to_owned(), "assigned".to_owned())).into(),
            documents: ["a", "b"].map(document).to_vec(),
            leftovers: vec![("uplinks-poison".into(), vec![])],
        }
    }

    fn audit(&self) -> Verdict {
        audit(&Books {
            sent: &self.sent,
            messages: &self.messages,
            registrations: &self.registrations,
            documents: &self.documents,
            leftovers: &self.leftovers,
        })
    }

    /// Expects only this finding, and these numbers of uplinks lost and out of order.
    fn assert(&self, finding: &str, lost: usize, out_of_order: usize) {
        let verdict = self.audit();
        assert_eq!(verdict.findings.len(), 1, "{:#?}", verdict.findings);
        assert!(verdict.findings[0].contains(finding), "{}", verdict.findings[0]);
        assert_eq!((verdict.lost, verdict.out_of_order), (lost, out_of_order));
    }
}

#[test]
fn what_the_queue_gives_again_may_be_late_and_come_twice() {
    assert_eq!(World::new().audit(), Verdict { sent: 6, messages: 6, repeats: 1, ..Verdict::default() });
}

#[test]
fn what_was_accepted_must_arrive_and_what_was_not_may() {
    let mut world = World::new();
    world.messages.remove(0);
    world.assert("the uplink 3 of a was answered with 202 and never arrived", 1, 0);
    world.sent[2].status = Some(500);
    assert!(world.audit().is_clean());
    world.sent[0].status = None;
    assert_eq!(world.audit(), Verdict { sent: 4, messages: 5, repeats: 1, ..Verdict::default() });
}

#[test]
fn the_order_must_hold_in_the_calm() {
    let mut world = World::new();
    world.messages.swap(5, 6);
    world.assert("1 uplinks of a came after later ones", 0, 1);
}

#[test]
fn one_uplink_is_one_message_of_its_device() {
    let mut world = World::new();
    world.messages.push(Message { id: "another".into(), ..message(2, "b") });
    world.assert("an uplink of b is in messages id 2 and another", 0, 0);
    let mut world = World::new();
    world.messages[6].device = "b".into();
    world.assert("id 12 came from device b, not a", 0, 0);
    let mut world = World::new();
    world.messages.push(message(99, "a"));
    world.assert("of no uplink that was sent", 0, 0);
    let mut world = World::new();
    world.messages.push(Message { body: "{}".into(), ..message(99, "a") });
    world.assert("has no marker", 0, 0);
    let mut world = World::new();
    world.messages[3].body.push(' ');
    world.assert("id 2 came again with other contents", 0, 0);
}

#[test]
fn devices_are_registered_and_have_their_document() {
    let mut world = World::new();
    world.registrations.insert("a".into(), "assigning".into());
    world.assert("the registration of a is assigning", 0, 0);
    let mut world = World::new();
    world.registrations.remove("b");
    world.assert("the registration of b is missing", 0, 0);
    let mut world = World::new();
    world.documents.pop();
    world.assert("b has no document", 0, 0);
    let mut world = World::new();
    world.documents[0].device_id = "b".into();
    world.assert("the document of a is wrong", 0, 0);
}

#[test]
fn queues_that_must_be_empty_are_looked_at() {
    let mut world = World::new();
    world.leftovers.push(("uplinks-rejected".into(), vec!["why".into()]));
    world.assert("1 messages are in uplinks-rejected, the first: why", 0, 0);
}
