//! What the devices measure, as a payload formatter would decode it: values of every JSON type, nested ones too.

use chrono::{DateTime, Utc};
use fastrand::Rng;
use serde_json::{Map, Value, json};

use crate::things_stack::devices::{Device, Sensor};

const SECONDS_PER_DAY: i64 = 86_400;
/// 2020-09-13: when the meters began to count.
const COUNTED_SINCE: i64 = 1_600_000_000;

/// The decoded values of a device at a time.
pub fn readings(device: &Device, now: DateTime<Utc>, rng: &mut Rng) -> Map<String, Value> {
    let seconds = now.timestamp();
    let temperature = hundredths(daily(seconds, 9.0, 21.0) + spread(rng, 0.4));
    let battery = hundredths(3.6 - (device.number % 7) as f64 * 0.05 + spread(rng, 0.01));
    let value = match device.sensor {
        Sensor::WaterMeter => json!({
            "volume": hundredths((seconds - COUNTED_SINCE) as f64 / 7200.0 + device.number as f64),
            "flow": hundredths(daily(seconds, 0.2, 3.5) + rng.f64() * 0.3),
            "temperature": temperature,
            "battery": battery,
            "leak": rng.u8(..50) == 0,
        }),
        Sensor::EnergyMeter => json!({
            "energy": { "import_kwh": (seconds - COUNTED_SINCE) / 3600 * 2 + device.number as i64, "export_kwh": 0 },
            "phases": phases(seconds, rng),
            "power_factor": hundredths(0.93 + spread(rng, 0.04)),
            "temperature_1": temperature,
        }),
        Sensor::Level => json!({
            "level": hundredths(daily(seconds, 2.1, 3.4) + spread(rng, 0.02)),
            "pressure": hundredths(1.013 + spread(rng, 0.02)),
            "temperature": temperature,
            "battery": battery,
            "alarm": null,
            "history": [hundredths(2.1 + rng.f64()), hundredths(2.1 + rng.f64()), hundredths(2.1 + rng.f64())],
        }),
        Sensor::Tracker => json!({
            "gps_1": position(device, rng),
            "GpsFix": { "altitude": 262, "hdop": hundredths(0.8 + rng.f64()), "satellites": rng.u8(4..12) },
            "temperature_1": temperature,
            "battery": battery,
            "moving": rng.bool(),
        }),
        Sensor::Climate => json!({
            "temperature": temperature,
            "humidity": hundredths(45.0 + spread(rng, 10.0)),
            "co2": rng.u32(400..1600),
            "window": { "open": rng.bool(), "since": { "minutes": rng.u16(0..600) } },
            "firmware": "1.4.2 \"Süd\"",
            "battery": battery,
        }),
    };
    match value {
        Value::Object(readings) => readings,
        // Not reached: every arm above is an object.
        other => Map::from_iter([("value".to_owned(), other)]),
    }
}

fn phases(seconds: i64, rng: &mut Rng) -> [Value; 3] {
    [1, 2, 3].map(|phase| {
        json!({
            "phase": phase,
            "voltage": hundredths(231.0 + spread(rng, 3.0)),
            "current": hundredths(daily(seconds, 1.0, 12.0) + rng.f64()),
        })
    })
}

/// Latitude and longitude in degrees, altitude in metres.
pub fn position(device: &Device, rng: &mut Rng) -> Value {
    let degrees = |value: f64| (value * 1e6).round() / 1e6;
    json!({
        "latitude": degrees(device.latitude + spread(rng, 0.0005)),
        "longitude": degrees(device.longitude + spread(rng, 0.0005)),
        "altitude": hundredths(262.0 + spread(rng, 2.0)),
    })
}

/// `low` at midnight UTC, `high` at noon.
fn daily(seconds: i64, low: f64, high: f64) -> f64 {
    let time_of_day = seconds.rem_euclid(SECONDS_PER_DAY);
    let from_midnight = time_of_day.min(SECONDS_PER_DAY - time_of_day) as f64;
    low + (high - low) * from_midnight / (SECONDS_PER_DAY / 2) as f64
}

/// A random number between plus and minus `by`.
pub fn spread(rng: &mut Rng, by: f64) -> f64 {
    (rng.f64() * 2.0 - 1.0) * by
}

fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
