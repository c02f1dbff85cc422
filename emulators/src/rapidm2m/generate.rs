//! Made-up measurements. They are a pure function of site, channel and time: a repeated request gets the same values,
//! and no row has to be stored.

use std::io::Write;

/// The form of a channel's values. Together the kinds cover every form that clients have met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A counter: integers that only grow.
    Counter,
    /// A measurement with up to two decimals.
    Measurement,
    /// Text on some rows, `null` on the others.
    Text,
    /// A measurement, or the string `"NAN"` on some rows.
    OrNan,
    /// A measurement, or `null` on some rows.
    OrNull,
    /// A measurement written as a string.
    InText,
}

const CYCLE: [Kind; 6] = [Kind::Counter, Kind::Measurement, Kind::Text, Kind::OrNan, Kind::OrNull, Kind::InText];
const TEXTS: [&str; 4] = ["Pump 1 started", "Pump 1 stopped", "Battery 87 %", "Behälter übergelaufen"];
const MS_PER_DAY: i64 = 86_400_000;
/// 2014-05-13: counters start at about this time.
const COUNTED_SINCE_MS: i64 = 1_400_000_000_000;

impl Kind {
    /// The kind of the channel at `position`. `plain` leaves only JSON numbers.
    pub fn at(position: usize, plain: bool) -> Self {
        CYCLE[position % if plain { 2 } else { CYCLE.len() }]
    }

    /// Title and units for the blueprint.
    pub fn title_and_units(self) -> (&'static str, &'static str) {
        match self {
            Kind::Counter => ("Energy", "kWh"),
            Kind::Measurement => ("Temperature", "°C"),
            Kind::Text => ("Message", ""),
            Kind::OrNan => ("Level", "m"),
            Kind::OrNull => ("Flow", "l/s"),
            Kind::InText => ("Pressure", "bar"),
        }
    }
}

/// Writes the JSON value of a channel at `ms` (Unix milliseconds). `quoted`: numbers as strings.
pub fn write_value(kind: Kind, site_seed: u64, channel: usize, ms: i64, quoted: bool, out: &mut Vec<u8>) {
    let noise = mixed(site_seed ^ mixed(ms as u64 ^ (channel as u64) << 56));
    match kind {
        Kind::Text if !noise.is_multiple_of(8) => out.extend_from_slice(b"null"),
        // The texts need no escaping in JSON.
        Kind::Text => drop(write!(out, "\"{}\"", TEXTS[(noise >> 8) as usize % TEXTS.len()])),
        Kind::OrNan if noise.is_multiple_of(8) => out.extend_from_slice(b"\"NAN\""),
        Kind::OrNull if noise.is_multiple_of(8) => out.extend_from_slice(b"null"),
        _ => {
            let quoted = quoted || kind == Kind::InText;
            if quoted {
                out.push(b'"');
            }
            match kind {
                Kind::Counter => {
                    drop(write!(out, "{}", (ms - COUNTED_SINCE_MS) / 10_000 + (site_seed % 10_000) as i64));
                }
                _ => write_hundredths(daily_wave(ms) + (site_seed % 500 + noise % 50) as i64, out),
            }
            if quoted {
                out.push(b'"');
            }
        }
    }
}

/// 10.00 at midnight, 20.00 at noon, in hundredths.
fn daily_wave(ms: i64) -> i64 {
    let time_of_day = ms.rem_euclid(MS_PER_DAY);
    1000 + 1000 * time_of_day.min(MS_PER_DAY - time_of_day) / (MS_PER_DAY / 2)
}

/// In the form that JavaScript and C# print: `21.37`, `21.3`, `21`.
fn write_hundredths(hundredths: i64, out: &mut Vec<u8>) {
    let (whole, fraction) = (hundredths / 100, hundredths % 100);
    drop(match fraction {
        0 => write!(out, "{whole}"),
        _ if fraction % 10 == 0 => write!(out, "{whole}.{}", fraction / 10),
        _ => write!(out, "{whole}.{fraction:02}"),
    });
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", 2014).
pub fn mixed(mut bits: u64) -> u64 {
    bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// A number for a name. It is the same in every run.
pub fn seed(name: &str) -> u64 {
    name.bytes().fold(0, |bits, byte| mixed(bits ^ u64::from(byte)))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use serde_json::Value;

    use super::*;

    fn value(kind: Kind, ms: i64, quoted: bool) -> Value {
        let mut out = Vec::new();
        write_value(kind, seed("Reservoir Süd"), 1, ms, quoted, &mut out);
        serde_json::from_slice(&out).unwrap_or_else(|error| panic!("{}: {error}", String::from_utf8_lossy(&out)))
    }

    #[test]
    fn every_kind_shows_what_it_promises_and_nothing_else() {
        let seen = |kind| -> HashSet<String> {
            (0..500)
                .map(|minute| match value(kind, 1_700_000_000_000 + minute * 60_000, false) {
                    Value::Number(number) if number.is_i64() => "integer".to_owned(),
                    Value::Number(_) => "float".to_owned(),
                    Value::String(text) if text.parse::<f64>().is_ok_and(f64::is_finite) => "\"number\"".to_owned(),
                    Value::String(text) if text == "NAN" => text,
                    Value::String(_) => "text".to_owned(),
                    Value::Null => "null".to_owned(),
                    other => panic!("{other}"),
                })
                .collect()
        };
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<HashSet<_>>();
        assert_eq!(seen(Kind::Counter), set(&["integer"]));
        assert_eq!(seen(Kind::Measurement), set(&["integer", "float"]));
        assert_eq!(seen(Kind::Text), set(&["text", "null"]));
        assert_eq!(seen(Kind::OrNan), set(&["integer", "float", "NAN"]));
        assert_eq!(seen(Kind::OrNull), set(&["integer", "float", "null"]));
        assert_eq!(seen(Kind::InText), set(&["\"number\""]));
    }

    #[test]
    fn numbers_can_be_had_as_strings() {
        assert!(value(Kind::Counter, 1_700_000_000_000, true).is_string());
        assert!(value(Kind::Measurement, 1_700_000_000_000, true).is_string());
    }
}
