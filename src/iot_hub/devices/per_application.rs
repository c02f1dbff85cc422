//! The devices of LoRaWAN applications. Each application may have another origin of its devices.

use std::sync::Arc;

use super::{Devices, Shared, Store, StoreError, StoredOwner, documents::Document, enrollment::Enrollments};
use crate::support::{http_client::HttpClient, meter::Meters};

/// The devices of each enrollment, all in one store. Enrollments share the connections to services, but each has its
/// own limit of concurrent registrations.
pub struct PerApplication {
    devices: Enrollments<Devices>,
    store: Arc<Store>,
    meters: Arc<Meters>,
}

impl PerApplication {
    /// Does not connect. Requests are
    /// counted as by [`Devices::new`].
    #[must_use]
    pub fn new(
        enrollments: Enrollments,
        store: impl Into<Arc<Store>>,
        http: impl Into<HttpClient>,
        meters: Arc<Meters>,
    ) -> Self {
        let shared = Shared::new(store, http, meters.clone());
        let store = shared.store.clone();
        Self { store, devices: enrollments.map(|enrollment| Devices::of(enrollment, shared.clone())), meters }
    }

    /// The documents of an owner, whatever enrollment they come from.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn documents_of(&self, owner: &StoredOwner) -> Result<Vec<Document>, StoreError> {
        self.store.documents_of(owner).await
    }

    /// The counters of requests to services.
    #[must_use]
    pub fn meters(&self) -> &Arc<Meters> {
        &self.meters
    }

    /// The devices that contain the one for an application's uplinks with this fPort (0 if there is none), and the port
    /// to pass to [`Owner::at_port`](super::Owner::at_port). Events and uplinks without a port are the device of the lowest
    /// port, if only single ports have a device. `None` if no setting applies to the application.
    #[must_use]
    pub fn of(&self, application: &str, port: u8) -> Option<(&Devices, Option<u8>)> {
        self.devices.of(application, port).or_else(|| self.devices.of_lowest_port(application).filter(|_| port == 0))
    }
}
