//! Writes now and then to the container `devices` what devices do, for the status page. A loss of these notes loses no
//! data.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use futures::StreamExt as _;
use tokio::time::sleep;

use super::message::Forwardable;
use crate::{
    iot_hub::devices::{
        Owner, Store, StoredOwner,
        activity::{self, Activity, Document},
    },
    support::{fault::Fault, kind::Kind},
};

/// Documents that are written at once.
const CONCURRENCY: usize = 8;
/// Devices that are noted until the next write. Until then, nothing is noted for further devices.
const MAX_DEVICES: usize = 20_000;

/// Notes that are not written yet. Cheap to clone.
#[derive(Clone)]
pub struct Activities {
    store: Arc<Store>,
    /// Time from the first note to the write. `None`: nothing is noted.
    period: Option<Duration>,
    noted: Arc<Mutex<Noted>>,
}

#[derive(Default)]
struct Noted {
    devices: HashMap<String, (StoredOwner, Activity)>,
    /// Whether a task exists that will write the notes. There is only one at a time, so that tasks do not pile up at a
    /// slow database.
    is_attended: bool,
}

impl Noted {
    /// Returns whether the caller must start a task to write the notes. If there is no room for the device, nothing is
    /// noted.
    fn add(&mut self, id: String, owner: StoredOwner, what: impl FnOnce(&mut Activity)) -> bool {
        if self.devices.len() >= MAX_DEVICES && !self.devices.contains_key(&id) {
            return false;
        }
        what(&mut self.devices.entry(id).or_insert_with(|| (owner, Activity::default())).1);
        !std::mem::replace(&mut self.is_attended, true)
    }

    /// Takes all notes for writing. If there are none, the task that writes them ends.
    fn take(&mut self) -> HashMap<String, (StoredOwner, Activity)> {
        self.is_attended = !self.devices.is_empty();
        std::mem::take(&mut self.devices)
    }
}

impl Activities {
    #[must_use]
    pub fn new(store: Arc<Store>, period: Option<Duration>) -> Self {
        Self { store, period, noted: Arc::default() }
    }

    /// Notes that an uplink was forwarded. Must be called within a runtime, like [`failed`](Self::failed).
    pub(super) fn forwarded(&self, of: &Forwardable, now: DateTime<Utc>) {
        if self.period.is_some() && of.is_uplink {
            // A time stamp in the future would stay the newest for ever.
            let created = of.message.created.min(now);
            self.note(of, |activity| activity.uplink(created, of.numbers.iter().cloned()));
        }
    }

    /// Notes that a message was not forwarded, for now or for good.
    pub(super) fn failed(&self, of: &Forwardable, kind: Kind, text: &str, now: DateTime<Utc>) {
        self.note(of, |activity| activity.failure(Fault { kind, text: text.to_owned() }, now));
    }

    fn note(&self, of: &Forwardable, what: impl FnOnce(&mut Activity)) {
        let Some(period) = self.period else { return };
        let owner = StoredOwner {
            system: Owner::THINGS_NETWORK.into(),
            group: of.application.clone(),
            name: of.device.clone(),
        };
        let id = activity::id(&owner);
        let is_unattended = self.noted().add(id, owner, what);
        if is_unattended {
            let activities = self.clone();
            tokio::spawn(async move {
                loop {
                    sleep(period).await;
                    if !activities.write().await {
                        break;
                    }
                }
            });
        }
    }

    /// Writes the notes. Returns whether there were any. If not, the task that writes them ends.
    async fn write(&self) -> bool {
        let devices = self.noted().take();
        let total = devices.len();
        let writes = devices
            .into_values()
            .map(|(owner, activity)| async move { self.store.add_activity(Document::new(owner), &activity).await });
        let mut writes = futures::stream::iter(writes).buffer_unordered(CONCURRENCY);
        let mut written = 0;
        while let Some(outcome) = writes.next().await {
            if let Err(error) = outcome {
                // Further writes would only add load to a database that fails now.
                let missing = total - written;
                tracing::warn!(
                    devices.missing = missing,
                    "what devices did lately is missing on the status page: {error}"
                );
                break;
            }
            written += 1;
        }
        total > 0
    }

    fn noted(&self) -> std::sync::MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_attends_however_long_writing_takes_and_however_much_comes_meanwhile() {
        let mut noted = Noted::default();
        let owner = || StoredOwner { system: Owner::THINGS_NETWORK.into(), group: "app".into(), name: "dev".into() };
        let add = |noted: &mut Noted, id: usize| noted.add(id.to_string(), owner(), |activity| activity.failures += 1);
        assert!(add(&mut noted, 0), "somebody has to begin");
        assert!(!add(&mut noted, 0) && !add(&mut noted, 1), "and is there");
        assert_eq!(noted.take()["0"].1.failures, 2);
        assert!(!add(&mut noted, 2), "what comes while it is written is for the same one");
        assert_eq!(noted.take().len(), 1);
        assert!(noted.take().is_empty());
        assert!(add(&mut noted, 3), "who found nothing has gone");
        (4..MAX_DEVICES + 10).for_each(|id| assert!(!add(&mut noted, id)));
        assert_eq!(noted.take().len(), MAX_DEVICES);
    }
}
