//! Which commands wait for a device's confirmation, in container `devices`: commands of a hub device whose downlinks were accepted,
//! and what the device said. It must outlive the process: a command that is confirmed is never sent again.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::iot_hub::Device;

/// Commands that are kept. They are handled one after the other, so that only the newest one still waits; older ones have expired
/// at the hub.
const MOST: usize = 8;
/// The hub keeps a message for two days at most. <https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-messages-c2d>
const KEPT: TimeDelta = TimeDelta::days(3);

/// The commands of one hub device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Document {
    /// See [`id`].
    #[serde(rename = "id")]
    pub id: String,
    pub kind: Kind,
    /// Oldest first.
    pub commands: Vec<Command>,
}

/// The value of `Kind`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    #[default]
    #[serde(rename = "confirmations")]
    Confirmations,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Command {
    /// The message id of the cloud-to-device message.
    pub message_id: String,
    /// A hash of its content: senders may use an id again.
    pub content: String,
    pub at: DateTime<Utc>,
    /// Whether The Things Stack has accepted its downlink.
    #[serde(default)]
    pub is_accepted: bool,
    /// Absent as long as the device has said nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Confirmation>,
}

/// How far a command has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It is not known whether The Things Stack has accepted its downlink.
    New,
    /// The device has not confirmed it yet.
    Accepted,
    Over(Confirmation),
}

/// What became of a confirmed downlink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Confirmation {
    /// The device has acknowledged it.
    Acknowledged,
    /// The Things Stack has given it up, for this reason.
    Failed(String),
}

/// The id of a hub device's document. It cannot be the id of a device's document, because a registration id has no `|`.
#[must_use]
pub fn id(device: &Device) -> String {
    format!("confirmations|{}|{}", device.endpoint, device.id)
}

impl Document {
    #[must_use]
    pub fn new(id: String) -> Self {
        Self { id, kind: Kind::default(), commands: Vec::new() }
    }

    /// Its downlink is about to be posted, if it is new. It is noted before, so that no result comes too early for it. Returns how
    /// far it has come, or `None` if it was not there.
    pub fn begin(&mut self, message_id: &str, content: &str, now: DateTime<Utc>) -> Option<State> {
        self.commands.retain(|command| now - command.at < KEPT);
        if let Some(command) = self.commands.iter().find(|command| command.is(message_id, content)) {
            return Some(command.state());
        }
        let (message_id, content) = (message_id.to_owned(), content.to_owned());
        self.commands.push(Command { message_id, content, at: now, is_accepted: false, result: None });
        let surplus = self.commands.len().saturating_sub(MOST);
        self.commands.drain(..surplus);
        None
    }

    /// The Things Stack has accepted its downlink. The device may have been faster.
    pub fn accepted(&mut self, message_id: &str, content: &str) -> State {
        let Some(command) = self.commands.iter_mut().find(|command| command.is(message_id, content)) else {
            return State::Accepted;
        };
        command.is_accepted = true;
        command.state()
    }

    /// What became of the newest command with this id. Returns its content, or `None` if there is none: a result may be told twice.
    pub fn has_result(&mut self, message_id: &str, result: Confirmation) -> Option<String> {
        let command = self.commands.iter_mut().rev().find(|command| command.message_id == message_id)?;
        command.result = Some(result);
        Some(command.content.clone())
    }

    /// The hub has the command no longer.
    pub fn settled(&mut self, message_id: &str, content: &str) {
        self.commands.retain(|command| !command.is(message_id, content));
    }
}

impl Command {
    fn is(&self, message_id: &str, content: &str) -> bool {
        self.message_id == message_id && self.content == content
    }

    fn state(&self) -> State {
        match &self.result {
            Some(result) => State::Over(result.clone()),
            None if self.is_accepted => State::Accepted,
            None => State::New,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Confirmation::{Acknowledged, Failed};

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_767_225_600, 0).unwrap()
    }

    fn document() -> Document {
        Document::new("confirmations|h.net|valve-1".into())
    }

    #[test]
    fn a_command_goes_its_way() {
        let mut document = document();
        assert_eq!(document.begin("a", "1", now()), None);
        assert_eq!(document.begin("a", "1", now()), Some(State::New), "it was not accepted");
        assert_eq!(document.accepted("a", "1"), State::Accepted);
        assert_eq!(document.begin("a", "1", now()), Some(State::Accepted));
        assert_eq!(document.has_result("a", Acknowledged).as_deref(), Some("1"));
        assert_eq!(document.begin("a", "1", now()), Some(State::Over(Acknowledged)));
        document.settled("a", "1");
        assert_eq!(document.has_result("a", Acknowledged), None, "it is told again");
        assert_eq!(document.begin("a", "1", now()), None, "the sender uses the id again");
    }

    #[test]
    fn a_result_may_be_faster_than_the_answer() {
        let mut document = document();
        document.begin("a", "1", now());
        document.has_result("a", Failed("no".into()));
        assert_eq!(document.accepted("a", "1"), State::Over(Failed("no".into())));
    }

    #[test]
    fn an_id_that_is_used_again_is_another_command() {
        let mut document = document();
        document.begin("cmd", "on", now());
        document.has_result("cmd", Acknowledged);
        assert_eq!(document.begin("cmd", "off", now()), None);
        document.has_result("cmd", Failed("no".into()));
        assert_eq!(document.begin("cmd", "on", now()), Some(State::Over(Acknowledged)));
        assert_eq!(document.begin("cmd", "on", now() + KEPT), None, "the hub cannot have the old one any more");
    }

    #[test]
    fn a_device_has_few_of_them() {
        let mut document = document();
        for number in 0..2 * MOST {
            document.begin(&number.to_string(), "", now());
        }
        assert_eq!(document.commands.len(), MOST);
        assert_eq!(document.commands[MOST - 1].message_id, (2 * MOST - 1).to_string());
        let json = serde_json::to_value(&document).unwrap();
        assert_eq!(json["Kind"], "confirmations");
        assert_eq!(serde_json::from_value::<Document>(json).unwrap(), document);
    }
}
