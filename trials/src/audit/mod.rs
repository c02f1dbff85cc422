//! Checks what must hold at the end of a trial. Does no I/O: data in, findings out.

pub mod sites;
pub mod uplinks;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use emulators::iot_hub::Received;

/// A message that the hub accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub device: String,
    /// Empty if the message has none.
    pub id: String,
    /// Application and system properties.
    pub properties: BTreeMap<String, String>,
    pub body: String,
}

impl Message {
    #[must_use]
    pub fn of(received: &Arc<Received>) -> Self {
        let properties = received.properties.iter().chain(&received.system_properties);
        Self {
            device: received.device_id.clone(),
            id: received.message_id().unwrap_or_default().to_owned(),
            properties: properties.map(|(name, value)| (name.clone(), value.clone())).collect(),
            body: String::from_utf8_lossy(&received.body).into_owned(),
        }
    }
}

/// The result of an audit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Rows, or uplinks, that had to arrive.
    pub sent: usize,
    /// Distinct messages at the hub.
    pub messages: usize,
    /// Messages that arrived again with the same id.
    pub repeats: usize,
    pub lost: usize,
    pub out_of_order: usize,
    /// Everything that is wrong, including losses and disorder. Each finding is a sentence.
    pub findings: Vec<String>,
}

impl Verdict {
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    fn find(&mut self, finding: String) {
        self.findings.push(finding);
    }

    /// The first message of each id, in order of arrival. Other messages with that id must repeat its contents exactly.
    /// Their device may differ: several pollers can send a site's messages, each as its own device.
    fn distinct<'a>(&mut self, messages: &'a [Message]) -> Vec<&'a Message> {
        let mut first: HashMap<&str, &Message> = HashMap::new();
        let mut distinct = Vec::new();
        for message in messages {
            if message.id.is_empty() {
                self.find(format!("a message of device {} has no id", message.device));
            }
            match first.get(message.id.as_str()) {
                None => {
                    first.insert(&message.id, message);
                    distinct.push(message);
                }
                Some(before) => {
                    self.repeats += 1;
                    if (&before.properties, &before.body) != (&message.properties, &message.body) {
                        self.find(format!("message {} came again with other contents", message.id));
                    }
                }
            }
        }
        self.messages = distinct.len();
        distinct
    }
}
