//! Asks the hub for the commands of devices that do not wait for their next uplink, and to which the hub pushes nothing: over
//! HTTPS, in a process that has just started, or for a device whose connection made room for another.
//!
//! A hub of size S1 allows 16 questions a second for each unit, for uplinks and for this. So a call asks for a limited number of
//! devices, those first that have waited longest, and for none while the hub throttles.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::StreamExt as _;
use tokio::time::Instant;

use super::Forwarding;
use crate::{
    iot_hub::devices::{Owner, StoredOwner, documents::Document},
    support::ending,
    things_network::{
        downlinks::address::{EndDevice, Selection},
        tally::Count,
    },
};

/// Devices in one call: with a call every 10 s, a bit more than half of what one unit of S1 allows.
const MOST: usize = 100;
/// Devices at a time.
const CONCURRENCY: usize = 8;
/// A call ends before the next one begins.
const TIME: Duration = Duration::from_secs(8);
/// How long the list of devices is good, and how long at least, even if a device sends its first uplink here.
const LISTED: Duration = Duration::from_secs(5 * 60);
const LISTED_AT_LEAST: Duration = Duration::from_secs(30);

/// What the settings say.
#[derive(Clone, Debug)]
pub struct Poll {
    /// How often each device is asked for.
    pub every: Duration,
    pub devices: Selection,
}

/// The devices that are asked for.
pub struct Polling {
    poll: Option<Poll>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    listed: Option<(Instant, Arc<[Document]>)>,
    /// By the ids of documents.
    asked: HashMap<String, Instant>,
}

impl Polling {
    pub fn new(poll: Option<Poll>) -> Self {
        Self { poll, state: Mutex::default() }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The list, if it is good. `is_outdated` is only asked if that matters.
    fn listed(&self, is_outdated: impl FnOnce() -> bool) -> Option<Arc<[Document]>> {
        let (at, listed) = self.state().listed.clone()?;
        let age = at.elapsed();
        let is_good = age < LISTED_AT_LEAST || age < LISTED && !is_outdated();
        is_good.then_some(listed)
    }

    /// Keeps the list, and forgets devices that are not in it.
    fn keep(&self, documents: Arc<[Document]>) {
        let mut state = self.state();
        let before = std::mem::take(&mut state.asked);
        let ids = documents.iter().filter_map(|document| before.get_key_value(&document.id));
        state.asked = ids.map(|(id, at)| (id.clone(), *at)).collect();
        state.listed = Some((Instant::now(), documents));
    }
}

/// The devices to ask for now, longest wait first.
fn due<'a>(
    documents: &'a [Document],
    asked: &HashMap<String, Instant>,
    now: Instant,
    every: Duration,
) -> Vec<&'a Document> {
    let at = |document: &Document| asked.get(&document.id).copied();
    let is_due = |document: &&Document| at(document).is_none_or(|at| now.duration_since(at) >= every);
    let mut due: Vec<_> = documents.iter().filter(is_due).collect();
    due.sort_by_key(|document| at(document));
    due.truncate(MOST);
    due
}

impl Forwarding {
    /// Asks for the commands of the devices that are due. A failure is logged, and the device is due again after its interval. A
    /// device for which this call had no time left is due in the next one.
    pub async fn poll_downlinks(&self) {
        let Some(poll) = &self.polling.poll else { return };
        let began = Instant::now();
        let Some(documents) = self.documents(poll).await else { return };
        let due: Vec<_> = {
            let state = self.polling.state();
            due(&documents, &state.asked, began, poll.every).into_iter().cloned().collect()
        };
        let asking = futures::stream::iter(due).for_each_concurrent(CONCURRENCY, |document| async move {
            if began.elapsed() < TIME && !self.ending.has_begun() {
                self.ask(&document, began + TIME).await;
            }
        });
        tokio::select! {
            () = asking => {}
            () = self.ending.after(ending::SENDING) => {}
        }
    }

    /// The devices that the settings want asked.
    async fn documents(&self, poll: &Poll) -> Option<Arc<[Document]>> {
        if let Some(documents) = self.polling.listed(|| self.downlinks.has_new_devices()) {
            return Some(documents);
        }
        match self.store.list().await {
            Ok(listing) => {
                let is_wanted = |document: &Document| {
                    let owner = &document.owner;
                    let is_ours = owner.system == Owner::THINGS_NETWORK && !document.is_claim();
                    is_ours && poll.devices.has(&owner.group, &owner.name)
                };
                let documents =
                    listing.unwrap_or_default().documents.into_iter().filter(is_wanted).collect::<Arc<[_]>>();
                self.polling.keep(documents.clone());
                Some(documents)
            }
            Err(error) => {
                if self.tally.count(Count::DownlinkChecksFailed) {
                    tracing::warn!(
                        failure.kind = error.kind().as_str(),
                        "the devices to fetch commands for are not known, the next call of the timer tries again: {error}"
                    );
                }
                None
            }
        }
    }

    async fn ask(&self, document: &Document, deadline: Instant) {
        // Whatever becomes of it: a device for which it always fails is not to take the turns of the others.
        self.polling.state().asked.insert(document.id.clone(), Instant::now());
        let owner = &document.owner;
        let Some((devices, _)) = self.devices.of(&owner.group, document.port().unwrap_or_default()) else { return };
        let owner = Owner::things_network(&owner.group, &owner.name, document.registration_id())
            .of_tenant(document.tenant.clone())
            .named_by_dev_eui(self.device_ids.has_dev_eui())
            .at_port(document.port());
        // Its next uplink says why there is no device.
        let Ok(device) = devices.device(&owner, Instant::now()).await else { return };
        let StoredOwner { group: application, name, .. } = &document.owner;
        let end_device = EndDevice { application, device: name, tenant: document.tenant.as_ref() };
        // `None`: this process has seen no webhook of it, and there is no other address.
        if let Some(keys) = self.downlinks.keys(&device, end_device) {
            self.downlinks.ask(&device, &keys, deadline).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iot_hub::devices::StoredOwner;

    fn document(id: usize) -> Document {
        let owner = StoredOwner { system: Owner::THINGS_NETWORK.into(), group: "app".into(), name: id.to_string() };
        Document { registrations: 1, ..Document::claim(&id.to_string(), owner, None, chrono::Utc::now()) }
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_wait_comes_first_and_all_have_their_turn() {
        let every = Duration::from_secs(20);
        let documents: Vec<_> = (0..MOST * 2 + 10).map(document).collect();
        let mut asked = HashMap::new();
        for tick in 0..3 {
            let now = Instant::now();
            let ids: Vec<_> = due(&documents, &asked, now, every).iter().map(|document| document.id.clone()).collect();
            let expected = MOST;
            assert_eq!(ids.len(), expected, "{tick}");
            let new = ids.iter().filter(|id| !asked.contains_key(*id)).count();
            assert_eq!(new, [MOST, MOST, 10][tick], "those that were never asked come first");
            asked.extend(ids.into_iter().map(|id| (id, now)));
            tokio::time::advance(Duration::from_secs(10)).await;
        }
        assert_eq!(asked.len(), documents.len());
        // Nobody is asked more often than wanted.
        assert_eq!(due(&documents[..1], &[("0".to_owned(), Instant::now())].into(), Instant::now(), every).len(), 0);
    }
}
