//! Where the devices of LoRaWAN applications come from: which Device Provisioning Service and enrollment group, or which
//! hub, by application and port.
//!
//! Each setting comes with a suffix; `__` counts as `-` everywhere in a name, since many places refuse a `-`:
//!
//! | Suffix | Holds for |
//! |---|---|
//! | `-{application}-{port}` | uplinks of one application with one fPort |
//! | `-{application}` | the application's other uplinks |
//! | `Default`, or none | everything else |
//!
//! | Setting | |
//! |---|---|
//! | `DPSIDScope…`, `DPSEnrollmentGroupSymmetricKey…` | a service and an enrollment group in it |
//! | `AzureIotHubConnectionString…` | instead of these: a hub's own connection string, for devices that are in its registry |
//!
//! The most specific suffix wins. ID scope and group key are looked for separately, so that one service with a group for
//! each application needs `DPSIDScopeDefault` once. An application id may end in what looks like a port: `-pumps-1` is for
//! port 1 of `pumps` as well as for all of `pumps-1`.

mod connection_string;
mod families;
#[cfg(test)]
mod tests;

use self::families::Families;
pub(super) use self::families::{CONNECTION_STRING, suffix};
use super::{Problems, Settings, dps};
use crate::iot_hub::devices::enrollment::Enrollments;

/// Reads the settings. What is wrong with them goes to `problems`, also if there are none.
pub fn read(settings: &Settings, problems: &mut Problems) -> Option<Enrollments> {
    let mut found = Problems::default();
    let endpoint = dps::read_endpoint(settings, &mut found);
    let families = Families::read(settings, &mut found);
    families.check(&mut found);
    let is_good = found.is_empty();
    problems.append(found);
    if is_good { families.resolve(&endpoint?) } else { None }
}
