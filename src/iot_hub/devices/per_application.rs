//! The devices of LoRaWAN applications. Each application may have another origin of its devices.

use std::sync::Arc;

use super::{Devices, Shared, Store, enrollment::Enrollments};
use crate::support::{http_client::HttpClient, meter::Meters};

/// The devices of each enrollment, all in one store. Enrollments share the connections to services, but each has its
/// own limit of concurrent registrations.
pub struct PerApplication {
    devices: Enrollments<Devices>,
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
        Self { devices: enrollments.map(|enrollment| Devices::of(enrollment, shared.clone())), meters }
    }

    /// The counters of requests to services.
    #[must_use]
    pub fn meters(&self) -> &Arc<Meters> {
        &self.meters
    }

    /// The devices that contain the one for an application's uplinks with this fPort (0 if there is none), and the port
    /// to pass to [`Owner::at_port`](super::Owner::at_port). `None` if no setting applies to the application.
    #[must_use]
    pub fn of(&self, application: &str, port: u8) -> Option<(&Devices, Option<u8>)> {
        self.devices.of(application, port)
    }
}
