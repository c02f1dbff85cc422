//! The devices of LoRaWAN applications, which may each come from elsewhere.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;

use super::{Devices, Shared, Store, enrollment::Enrollments};
use crate::support::meter::Meters;

/// For each enrollment its devices, all of them in one store. What enrollments have in common they share: the connections to
/// services, and how many registrations are under way at once.
pub struct PerApplication {
    devices: Enrollments<Devices>,
    meters: Arc<Meters>,
}

impl PerApplication {
    /// Does not connect. `trusted_ca` are certificates that are trusted in addition to the platform's. What is asked for is
    /// counted as by [`Devices::new`].
    #[must_use]
    pub fn new(
        enrollments: Enrollments,
        store: impl Into<Arc<Store>>,
        trusted_ca: Vec<CertificateDer<'static>>,
        meters: Arc<Meters>,
    ) -> Self {
        let shared = Shared::new(store, trusted_ca, meters.clone());
        Self { devices: enrollments.map(|enrollment| Devices::of(enrollment, shared.clone())), meters }
    }

    /// What services are asked for.
    #[must_use]
    pub fn meters(&self) -> &Arc<Meters> {
        &self.meters
    }

    /// The devices among which is the one for an application's uplinks with this fPort (0 if there is none), and what
    /// [`Owner::at_port`](super::Owner::at_port) must be told. `None` if no setting holds for the application.
    #[must_use]
    pub fn of(&self, application: &str, port: u8) -> Option<(&Devices, Option<u8>)> {
        self.devices.of(application, port)
    }
}
