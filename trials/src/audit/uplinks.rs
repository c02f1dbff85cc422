//! Audits the uplinks of LoRaWAN devices: compares the answers to The Things Stack with the messages that arrived.
//!
//! **Order** is checked where it is promised: among the uplinks of the calm at the end, when nothing is killed and
//! every device is known. Before that, the queue redelivers messages a second after others that came later; for that
//! case, the consumer has the uplinks' times and counters.

use std::collections::{BTreeMap, HashMap, HashSet};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::Deserialize;

use super::{Message, Verdict};
use crate::ledger::DeviceDocument;

/// An uplink that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// It is also the device's id at the hub.
    pub device: String,
    /// No other uplink has this marker.
    pub marker: u64,
    /// The last answer that The Things Stack got, if any.
    pub status: Option<u16>,
    pub is_in_calm: bool,
}

impl Sent {
    fn is_accepted(&self) -> bool {
        self.status.is_some_and(|status| (200..300).contains(&status))
    }
}

/// The data that an audit compares.
pub struct Books<'a> {
    /// The uplinks of one device are in the order in which it sent them.
    pub sent: &'a [Sent],
    /// In order of arrival.
    pub messages: &'a [Message],
    /// Registration ids at the Device Provisioning Service, with their status.
    pub registrations: &'a BTreeMap<String, String>,
    pub documents: &'a [DeviceDocument],
    /// Names of queues that must be empty, each with its messages.
    pub leftovers: &'a [(String, Vec<String>)],
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Body {
    payload_raw: String,
}

/// Compares the uplinks with the messages, the registrations and the documents.
#[must_use]
pub fn audit(books: &Books<'_>) -> Verdict {
    let mut verdict = Verdict::default();
    let by_marker: HashMap<u64, &Sent> = books.sent.iter().map(|sent| (sent.marker, sent)).collect();
    let mut arrived: HashMap<u64, &str> = HashMap::new();
    let mut in_calm: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for message in verdict.distinct(books.messages) {
        let Some(marker) = marker(message) else {
            verdict.find(format!("message {} of device {} has no marker", message.id, message.device));
            continue;
        };
        let Some(sent) = by_marker.get(&marker) else {
            verdict.find(format!("message {} of device {} is of no uplink that was sent", message.id, message.device));
            continue;
        };
        if sent.device != message.device {
            verdict.find(format!("message {} came from device {}, not {}", message.id, message.device, sent.device));
        }
        if let Some(before) = arrived.insert(marker, &message.id) {
            verdict.find(format!("an uplink of {} is in messages {before} and {}", sent.device, message.id));
        } else if sent.is_in_calm {
            in_calm.entry(&sent.device).or_default().push(marker);
        }
    }
    verdict.sent = books.sent.iter().filter(|sent| sent.is_accepted()).count();
    for sent in books.sent.iter().filter(|sent| sent.is_accepted() && !arrived.contains_key(&sent.marker)) {
        verdict.lost += 1;
        let (device, status) = (&sent.device, sent.status.unwrap_or_default());
        verdict.find(format!("the uplink {} of {device} was answered with {status} and never arrived", sent.marker));
    }
    order(&mut verdict, books.sent, &in_calm);
    devices(&mut verdict, books);
    for (queue, texts) in books.leftovers.iter().filter(|(_, texts)| !texts.is_empty()) {
        let shown = texts.first().map_or("", |text| text.get(..200).unwrap_or(text));
        verdict.find(format!("{} messages are in {queue}, the first: {shown}", texts.len()));
    }
    verdict
}

/// The marker: the payload's first eight bytes.
fn marker(message: &Message) -> Option<u64> {
    let body: Body = serde_json::from_str(&message.body).ok()?;
    let payload = BASE64_STANDARD.decode(body.payload_raw).ok()?;
    payload.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

fn order(verdict: &mut Verdict, sent: &[Sent], arrived: &BTreeMap<&str, Vec<u64>>) {
    let position: HashMap<u64, usize> = sent.iter().enumerate().map(|(at, sent)| (sent.marker, at)).collect();
    for (device, markers) in arrived {
        let late = markers.windows(2).filter(|pair| position[&pair[0]] > position[&pair[1]]).count();
        if late > 0 {
            verdict.out_of_order += late;
            verdict.find(format!("{late} uplinks of {device} came after later ones, though nothing was given twice"));
        }
    }
}

/// A device with an accepted uplink is registered. Its document holds its device id and its hub.
fn devices(verdict: &mut Verdict, books: &Books<'_>) {
    let documents: HashMap<&str, &DeviceDocument> =
        books.documents.iter().map(|document| (document.id.as_str(), document)).collect();
    let mut seen = HashSet::new();
    for Sent { device, .. } in books.sent.iter().filter(|sent| sent.is_accepted()) {
        if !seen.insert(device) {
            continue;
        }
        match books.registrations.get(device).map(String::as_str) {
            Some("assigned") => {}
            status => verdict.find(format!("the registration of {device} is {}", status.unwrap_or("missing"))),
        }
        match documents.get(device.as_str()) {
            Some(document) if document.device_id == *device && !document.assigned_hub.is_empty() => {}
            Some(document) => verdict.find(format!("the document of {device} is wrong: {document:?}")),
            None => verdict.find(format!("{device} has no document")),
        }
    }
}

#[cfg(test)]
#[path = "uplinks_tests.rs"]
mod tests;
