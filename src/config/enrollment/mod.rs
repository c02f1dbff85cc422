//! Reads where the devices of LoRaWAN applications come from: which Device Provisioning Service and enrollment group,
//! or which hub, per application and port.
//!
//! Each setting's name ends in a suffix. `__` counts as `-` everywhere in a name, because many tools refuse a `-`:
//!
//! | Suffix | Used for |
//! |---|---|
//! | `-{application}-{port}` | uplinks of one application with one fPort |
//! | `-{application}` | the application's other uplinks |
//! | `Default`, or none | everything else |
//!
//! | Setting | |
//! |---|---|
//! | `DPSIDScope…`, `DPSEnrollmentGroupSymmetricKey…` | a service and an enrollment group in it |
//! | `AzureIotHubConnectionString…` | instead of these: a hub's own connection string, for devices in its registry |
//!
//! The most specific suffix wins. ID scope and group key are looked up separately, so that a service with one group per
//! application needs only one ID scope setting, `DPSIDScopeDefault`. An application id may end in something that looks
//! like a port: `-pumps-1` applies to port 1 of `pumps` and to all of `pumps-1`.

mod connection_string;
mod families;
#[cfg(test)]
mod tests;

use self::families::Families;
pub(super) use self::families::{CONNECTION_STRING, suffix};
use super::{Problems, Settings, dps};
use crate::iot_hub::devices::enrollment::Enrollments;

/// Reads the settings. Adds faults to `problems`; having no enrollment settings is a fault.
pub fn read(settings: &Settings, problems: &mut Problems) -> Option<Enrollments> {
    let mut found = Problems::default();
    let endpoint = dps::read_endpoint(settings, &mut found);
    let families = Families::read(settings, &mut found);
    families.check(&mut found);
    let is_good = found.is_empty();
    problems.append(found);
    if is_good { families.resolve(&endpoint?) } else { None }
}
