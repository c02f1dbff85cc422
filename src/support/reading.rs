//! The newest value of a site or device, for people.

use serde::{Deserialize, Serialize};

/// Longest name and value, in characters: every cursor holds one, and the page has a column for it.
const MAX_TEXT: usize = 40;
/// A number that takes more characters is written with an exponent: no such number needs more of them.
const MAX_NUMBER: usize = 24;

/// A channel's value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Reading {
    pub name: String,
    pub value: String,
}

impl Reading {
    /// From a value as JSON.
    #[must_use]
    pub fn of_json(name: &str, json: &str) -> Self {
        Self { name: shortened(name, MAX_TEXT), value: value(json, MAX_TEXT) }
    }
}

/// A value as JSON, for people, in about `most` characters.
#[must_use]
pub fn value(json: &str, most: usize) -> String {
    let text = serde_json::from_str::<String>(json).unwrap_or_else(|_| json.to_owned());
    // Without its last digits a number is another one.
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite() && text.len() > MAX_NUMBER);
    number.map_or_else(|| shortened(&text, most), |number| format!("{number:e}"))
}

fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some(_) => text.chars().take(most - 1).chain(['…']).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_digits_and_texts_lose_their_quotes() {
        let value = |json| Reading::of_json("ch0", json).value;
        assert_eq!([value("1.50"), value("true"), value(r#""on \u00fc""#)], ["1.50", "true", "on ü"]);
        let long = Reading::of_json(&"n".repeat(100), &format!("\"{}\"", "ü".repeat(100)));
        assert_eq!(
            [long.name, long.value].map(|text| (text.chars().count(), text.ends_with('…'))),
            [(MAX_TEXT, true); 2]
        );
    }

    #[test]
    fn a_long_number_keeps_its_size() {
        let value = |json: &str| Reading::of_json("ch0", json).value;
        assert_eq!(value(&f64::MAX.to_string()), "1.7976931348623157e308");
        assert_eq!(value(&(-1.234e-30_f64).to_string()), "-1.234e-30");
        assert_eq!(value("-2.2250738585072014e-308"), "-2.2250738585072014e-308", "the longest");
        assert_eq!(value("18446744073709551615"), "18446744073709551615");
        assert_eq!(value(&"7".repeat(100)), "7.777777777777778e99");
        assert!(value(&"7".repeat(400)).ends_with('…'), "no number holds it");
    }
}
