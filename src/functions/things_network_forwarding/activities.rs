//! What devices do, written to the container `devices` now and then, for the status page. Losing it loses no data.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::StreamExt as _;
use serde_json::{Map, Value};
use tokio::time::sleep;

use super::message::Forwardable;
use crate::{
    devices::{
        Owner, Store, StoredOwner,
        activity::{self, Activity, Document},
    },
    ledger::Fault,
    things_network::uplink::MEMBERS,
};

/// Documents that are written at once.
const CONCURRENCY: usize = 8;
/// Devices that are noted until the next writing; of more, nothing is noted until then.
const MAX_DEVICES: usize = 20_000;
/// Members of the telemetry that are channels too.
const RECEPTION: [&str; 2] = ["Rssi", "Snr"];

/// What is noted and not written yet. Cheap to clone.
#[derive(Clone)]
pub struct Activities {
    store: Arc<Store>,
    /// From the first note to the writing; `None`: nothing is noted.
    period: Option<Duration>,
    noted: Arc<Mutex<HashMap<String, (StoredOwner, Activity)>>>,
}

impl Activities {
    #[must_use]
    pub fn new(store: Arc<Store>, period: Option<Duration>) -> Self {
        Self { store, period, noted: Arc::default() }
    }

    /// An uplink was forwarded. Must be called within a runtime, as [`failed`](Self::failed).
    pub(super) fn forwarded(&self, of: &Forwardable) {
        if self.period.is_some() && of.is_uplink {
            let created = of.message.created;
            self.note(of, |activity| activity.uplink(created, numbers(&of.message.body)));
        }
    }

    /// A message was not forwarded: for now, or for good.
    pub(super) fn failed(&self, of: &Forwardable, kind: &str, text: &str) {
        self.note(of, |activity| activity.failure(Fault { kind: kind.to_owned(), text: text.to_owned() }));
    }

    fn note(&self, of: &Forwardable, what: impl FnOnce(&mut Activity)) {
        let Some(period) = self.period else { return };
        let is_first = {
            let mut noted = self.noted();
            let owner = StoredOwner {
                system: Owner::THINGS_NETWORK.into(),
                group: of.application.clone(),
                name: of.device.clone(),
            };
            let id = activity::id(&owner);
            if noted.len() >= MAX_DEVICES && !noted.contains_key(&id) {
                return;
            }
            let is_first = noted.is_empty();
            what(&mut noted.entry(id).or_insert_with(|| (owner, Activity::default())).1);
            is_first
        };
        if is_first {
            let activities = self.clone();
            tokio::spawn(async move {
                sleep(period).await;
                activities.write().await;
            });
        }
    }

    async fn write(&self) {
        let noted = std::mem::take(&mut *self.noted());
        let writes = noted
            .into_values()
            .map(|(owner, activity)| async move { self.store.add_activity(Document::new(owner), &activity).await });
        let mut writes = futures::stream::iter(writes).buffer_unordered(CONCURRENCY);
        let (mut failed, mut first) = (0, None);
        while let Some(written) = writes.next().await {
            if let Err(error) = written {
                failed += 1;
                first.get_or_insert(error);
            }
        }
        if let Some(error) = first {
            tracing::warn!(devices.missing = failed, "what devices did lately is missing on the status page: {error}");
        }
    }

    fn noted(&self) -> std::sync::MutexGuard<'_, HashMap<String, (StoredOwner, Activity)>> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The numbers among the decoded fields, in their order, then those of the reception.
fn numbers(telemetry: &[u8]) -> Vec<(String, f64)> {
    let Ok(members) = serde_json::from_slice::<Map<String, Value>>(telemetry) else { return Vec::new() };
    let number = |(name, value): (&String, &Value)| Some((name.clone(), value.as_f64()?));
    let decoded = members.iter().filter(|(name, _)| !MEMBERS.contains(&name.as_str()));
    let reception = members.iter().filter(|(name, _)| RECEPTION.contains(&name.as_str()));
    decoded.chain(reception).filter_map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoded_numbers_are_channels_and_so_is_the_reception() {
        let telemetry = br#"{"Counter":1,"Rssi":-35,"Snr":5.2,"temperature":1.5,"state":"on","luminosity":64}"#;
        let expected = [("luminosity", 64.0), ("temperature", 1.5), ("Rssi", -35.0), ("Snr", 5.2)];
        let mut numbers = numbers(telemetry);
        numbers[..2].sort_by(|one, other| one.0.cmp(&other.0));
        assert_eq!(numbers, expected.map(|(name, value)| (name.to_owned(), value)));
        assert!(super::numbers(b"[]").is_empty());
    }
}
