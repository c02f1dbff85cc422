//! The end devices: who they are and what they measure. All of it follows from their number.

use base64::{Engine, prelude::BASE64_STANDARD};

/// Longest device id of The Things Stack.
const LONGEST_ID: usize = 36;
/// The range of EUIs that The Things Industries hands out.
const FIRST_DEV_EUI: u64 = 0x70B3_D57E_D000_0000;
const JOIN_EUI: u64 = 0x8000_0000_0000_000C;
/// Where the first device is: Linz, in degrees.
const LATITUDE: f64 = 48.3;
const LONGITUDE: f64 = 14.28;

/// What a device measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sensor {
    WaterMeter,
    EnergyMeter,
    /// The level of a well or reservoir.
    Level,
    Tracker,
    /// The climate in a room.
    Climate,
}

const SENSORS: [Sensor; 5] = [Sensor::WaterMeter, Sensor::EnergyMeter, Sensor::Level, Sensor::Tracker, Sensor::Climate];

#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    pub number: usize,
    pub application: String,
    pub id: String,
    pub dev_eui: u64,
    /// `None` for a device that was activated by personalization.
    pub join_eui: Option<u64>,
    pub dev_addr: u32,
    /// Base64; the same as long as the device does not join again.
    pub session_key_id: String,
    pub sensor: Sensor,
    pub latitude: f64,
    pub longitude: f64,
}

impl Device {
    /// The device with a number, of so many applications that take turns.
    pub fn numbered(number: usize, applications: usize, shared_ids: bool) -> Self {
        let application = format!("app-{}", number % applications + 1);
        let named_after = if shared_ids { number / applications } else { number };
        Self::new(number, application, id(named_after))
    }

    /// A device with any name.
    pub fn new(number: usize, application: String, id: String) -> Self {
        let mut key = [0; 16];
        key[..2].copy_from_slice(&[0x01, 0x70]);
        key[8..].copy_from_slice(&(number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        Self {
            number,
            application,
            id,
            dev_eui: FIRST_DEV_EUI + number as u64,
            join_eui: (number % 9 != 8).then_some(JOIN_EUI),
            dev_addr: 0x2601_0000 | (number as u32 & 0xffff),
            session_key_id: BASE64_STANDARD.encode(key),
            sensor: SENSORS[number % SENSORS.len()],
            latitude: thousandths(LATITUDE + (number % 100) as f64 / 1000.0),
            longitude: thousandths(LONGITUDE + (number / 100 % 100) as f64 / 1000.0),
        }
    }

    /// Whether the device is one of the share that speaks V2. Those are spread evenly; any share has at least one.
    pub fn is_v2(&self, share: f64) -> bool {
        let up_to = |count: usize| (count as f64 * share).ceil();
        up_to(self.number + 1) > up_to(self.number)
    }
}

fn thousandths(degrees: f64) -> f64 {
    (degrees * 1000.0).round() / 1000.0
}

/// Ids as users choose them, `[a-z0-9](-?[a-z0-9])*` with 2 to 36 characters: some speak for themselves, some are the
/// device's EUI as the Console proposes it, some are as long as they may be.
fn id(number: usize) -> String {
    let name = match SENSORS[number % SENSORS.len()] {
        Sensor::WaterMeter => "water-meter",
        Sensor::EnergyMeter => "energy-meter",
        Sensor::Level => "well-level",
        Sensor::Tracker => "tracker",
        Sensor::Climate => "room-climate",
    };
    match number {
        _ if number % 13 == 12 => format!("eui-{:016x}", FIRST_DEV_EUI + number as u64),
        _ if number % 17 == 16 => {
            let mut id = format!("{name}-{number:05}-building-7-north-cellar");
            id.truncate(LONGEST_ID);
            id.trim_end_matches('-').to_owned()
        }
        _ => format!("{name}-{number:05}"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn fleet(count: usize, applications: usize, shared: bool) -> Vec<Device> {
        (0..count).map(|number| Device::numbered(number, applications, shared)).collect()
    }

    fn is_valid(id: &str) -> bool {
        let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        (2..=36).contains(&id.len()) && id.split('-').all(|part| !part.is_empty() && part.bytes().all(is_letter))
    }

    #[test]
    fn ids_follow_the_rule_of_the_things_stack_and_differ() {
        let devices = fleet(2000, 3, false);
        for device in &devices {
            assert!(is_valid(&device.id) && is_valid(&device.application), "{device:?}");
        }
        assert_eq!(devices.iter().map(|device| &device.id).collect::<HashSet<_>>().len(), 2000);
        assert_eq!(devices.iter().map(|device| &device.session_key_id).collect::<HashSet<_>>().len(), 2000);
        assert!(devices.iter().any(|device| device.id.starts_with("eui-")));
        assert!(devices.iter().any(|device| device.id.len() == 36));
    }

    #[test]
    fn shared_ids_exist_once_in_every_application() {
        let devices = fleet(300, 3, true);
        assert_eq!(devices.iter().map(|device| &device.id).collect::<HashSet<_>>().len(), 100);
        let names: HashSet<_> = devices.iter().map(|device| (&device.application, &device.id)).collect();
        assert_eq!(names.len(), 300);
    }

    #[test]
    fn the_share_of_v2_is_met_and_never_nobody() {
        let speakers = |count, share| fleet(count, 1, false).iter().filter(|device| device.is_v2(share)).count();
        assert_eq!((speakers(500, 0.1), speakers(3, 0.1), speakers(100, 0.0), speakers(100, 1.0)), (50, 1, 0, 100));
    }
}
