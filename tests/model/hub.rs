//! The model's hub: the messages that have arrived, are refused for good, or may still arrive.

use std::collections::{BTreeSet, VecDeque};

use iothub_connector::{
    iot_hub::{Message, SendError, delivery::DeliveryError},
    rapidm2m::polling::record,
};

use crate::{
    outcomes::{Outcome, Rest},
    rules::{Rule, Violation},
    scope::{Sabotage, Scope},
    store::Store,
};

#[derive(Clone, Default)]
pub struct Hub {
    /// Ids of the messages that have arrived.
    pub arrived: BTreeSet<String>,
    /// Ids of the messages that the hub always refuses.
    pub refused: BTreeSet<String>,
    /// Ids of messages whose sender gave up waiting, in order. They may still arrive.
    pub on_their_way: VecDeque<String>,
}

impl Hub {
    /// A message arrives, for the first time or again.
    pub fn take(&mut self, id: &str, store: &Store) -> Result<(), Violation> {
        if self.refused.contains(id) || !self.arrived.insert(id.to_owned()) {
            return Ok(());
        }
        let Some((place, record)) = store.by_message(id) else {
            return Err(Violation {
                rule: Rule::RecordedBeforeSent,
                what: "a message arrived that is not recorded".into(),
            });
        };
        let overtaken =
            store.records[..place].iter().find(|earlier| !self.is_settled(earlier.poll.message_id.as_deref()));
        Rule::InOrder.check(overtaken.is_none(), || {
            let overtaken = overtaken.map(|earlier| &earlier.rows);
            format!("the message of rows {:?} arrived before that of {overtaken:?}", record.rows)
        })
    }

    /// How many messages are acknowledged, and why not all are.
    pub fn send(
        &mut self,
        messages: &[Message],
        outcome: Outcome,
        scope: &Scope,
        store: &Store,
    ) -> Result<(usize, Result<(), DeliveryError>), Violation> {
        let breaks = |sabotage| scope.sabotage == Some(sabotage);
        let refused = messages.iter().position(|message| self.refused.contains(&message.id));
        let (count, ended) = match outcome {
            Outcome::Sends { acknowledged, rest } => (acknowledged, Some(rest)),
            Outcome::Refuses(place) => {
                self.refused.insert(messages[place].id.clone());
                (place, None)
            }
            _ => (refused.unwrap_or(messages.len()), None),
        };
        let mut taken: Vec<_> = messages[..count].iter().map(|message| message.id.as_str()).collect();
        if breaks(Sabotage::SwapsMessages) {
            taken.reverse();
        }
        if breaks(Sabotage::AcknowledgesNothing) {
            taken.clear();
        }
        for id in taken {
            self.take(id, store)?;
        }
        let cut: Result<(), DeliveryError> = Err(SendError::Cut.into());
        Ok(match ended {
            None if count == messages.len() => (count, Ok(())),
            None => (count, Err(SendError::Rejected { status: 400, text: String::new() }.into())),
            Some(Rest::Lost) => (count, cut),
            Some(Rest::OneArrives) => {
                self.take(&messages[count].id, store)?;
                (count, cut)
            }
            Some(Rest::ArrivesLater) => {
                self.on_their_way = messages[count..].iter().map(|message| message.id.clone()).collect();
                (count, Err(SendError::TimedOut.into()))
            }
        })
    }

    fn is_settled(&self, id: Option<&str>) -> bool {
        id.is_some_and(|id| self.arrived.contains(id) || self.refused.contains(id))
    }
}

/// Checks that the messages handed to the hub are those in the ledger.
pub fn check_sent(messages: &[Message], store: &Store) -> Result<(), Violation> {
    for message in messages {
        let Some((_, found)) = store.by_message(&message.id) else {
            let what = format!("a message is sent that is not recorded: {}", String::from_utf8_lossy(&message.body));
            return Err(Violation { rule: Rule::RecordedBeforeSent, what });
        };
        let is_same = record::message(&found.poll).is_some_and(|recorded| {
            (recorded.created, &recorded.properties, &recorded.body)
                == (message.created, &message.properties, &message.body)
        });
        Rule::SameBytes.check(is_same, || {
            let sent = String::from_utf8_lossy(&message.body);
            format!("what is sent is not what is recorded for rows {:?}: {sent}", found.rows)
        })?;
    }
    Ok(())
}
