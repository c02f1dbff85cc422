//! Adds positions for IoT Central: inside fields whose names begin with `GPS` (any case), latitude, longitude and
//! altitude are repeated as `lat`, `lon` and `alt`, the names that IoT Central knows. Values keep their original text.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

/// Deeper fields are left unchanged.
const DEEPEST: usize = 32;
const NAMES: [(&str, &str); 3] = [("latitude", "lat"), ("longitude", "lon"), ("altitude", "alt")];

/// The field with its positions repeated; `None` if it has none.
pub fn repeated(name: &str, value: &RawValue) -> Option<Box<RawValue>> {
    let is_gps = begins_with_gps(name.as_bytes());
    // Skip parsing for the many fields that contain no position.
    let mentions_gps = || value.get().as_bytes().windows(4).any(|part| part[0] == b'"' && begins_with_gps(&part[1..]));
    if !is_gps && !mentions_gps() {
        return None;
    }
    within(value, is_gps, DEEPEST)
}

fn begins_with_gps(name: &[u8]) -> bool {
    name.get(..3).is_some_and(|start| start.eq_ignore_ascii_case(b"gps"))
}

fn within(value: &RawValue, is_in_gps: bool, depth: usize) -> Option<Box<RawValue>> {
    let depth = depth.checked_sub(1)?;
    match value.get().as_bytes().first()? {
        b'{' => in_object(serde_json::from_str(value.get()).ok()?, is_in_gps, depth),
        b'[' => in_array(&serde_json::from_str::<Vec<&RawValue>>(value.get()).ok()?, is_in_gps, depth),
        _ => None,
    }
}

fn in_object(fields: BTreeMap<String, &RawValue>, is_in_gps: bool, depth: usize) -> Option<Box<RawValue>> {
    let inner = |name: &str, value| within(value, is_in_gps || begins_with_gps(name.as_bytes()), depth);
    let changed: BTreeMap<&str, _> =
        fields.iter().filter_map(|(name, value)| Some((name.as_str(), inner(name, value)?))).collect();
    let mut repeated: BTreeMap<&str, &RawValue> = fields
        .iter()
        .map(|(name, value)| (name.as_str(), changed.get(name.as_str()).map_or(*value, |changed| &**changed)))
        .collect();
    if is_in_gps {
        for (long, short) in NAMES {
            let found = fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(long)).map(|(_, value)| *value);
            if let Some(value) = found.filter(|value| !value.get().starts_with(['{', '['])) {
                repeated.entry(short).or_insert(value);
            }
        }
    }
    if changed.is_empty() && repeated.len() == fields.len() {
        return None;
    }
    serde_json::value::to_raw_value(&repeated).ok()
}

fn in_array(values: &[&RawValue], is_in_gps: bool, depth: usize) -> Option<Box<RawValue>> {
    let changed: Vec<_> = values.iter().map(|value| within(value, is_in_gps, depth)).collect();
    if changed.iter().all(Option::is_none) {
        return None;
    }
    let values: Vec<_> =
        values.iter().zip(&changed).map(|(value, changed)| changed.as_deref().unwrap_or(value)).collect();
    serde_json::value::to_raw_value(&values).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, value: &str, expected: Option<&str>) {
        let raw = RawValue::from_string(value.to_owned()).unwrap();
        assert_eq!(repeated(name, &raw).as_deref().map(RawValue::get), expected, "{name}: {value}");
    }

    #[test]
    fn what_is_no_position_is_not_touched() {
        for (name, value) in [
            ("place", r#"{"latitude":2}"#),
            ("gps", "4"),
            ("gps", r#"{"fix":true}"#),
            ("gps", r#"{"latitude":[1],"lon":1,"longitude":2}"#),
            ("gp", r#"{"latitude":5}"#),
            ("source", r#"{"of":"gps","latitude":1}"#),
            ("gps", r#"{"latitude":1,"lat":2}"#),
        ] {
            check(name, value, None);
        }
    }

    #[test]
    fn every_other_digit_stays() {
        check(
            "GPS_1",
            r#"{"Latitude":-43.50,"big":123456789012345678901234567890}"#,
            Some(r#"{"Latitude":-43.50,"big":123456789012345678901234567890,"lat":-43.50}"#),
        );
        check("sensors", r#"[1.0,{"gpsA":{"altitude":7.10}}]"#, Some(r#"[1.0,{"gpsA":{"alt":7.10,"altitude":7.10}}]"#));
        check("gps", r#"{"a":{"b":[{"longitude":1}]}}"#, Some(r#"{"a":{"b":[{"lon":1,"longitude":1}]}}"#));
    }

    #[test]
    fn what_is_too_deep_is_left_alone() {
        check("gps", &format!("{}1{}", "[".repeat(5000), "]".repeat(5000)), None);
    }
}
