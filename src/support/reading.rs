//! The newest value of a site or device, for people.

use serde::{Deserialize, Serialize};

/// Longest name and value, in characters: every cursor holds one.
const MAX_TEXT: usize = 40;

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
        let text = serde_json::from_str::<String>(json).unwrap_or_else(|_| json.to_owned());
        let short = |text: &str| text.chars().take(MAX_TEXT).collect();
        Self { name: short(name), value: short(&text) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_digits_and_texts_lose_their_quotes() {
        let value = |json| Reading::of_json("ch0", json).value;
        assert_eq!([value("1.50"), value("true"), value(r#""on \u00fc""#)], ["1.50", "true", "on ü"]);
        let long = Reading::of_json(&"n".repeat(100), &"7".repeat(100));
        assert_eq!((long.name.len(), long.value.len()), (MAX_TEXT, MAX_TEXT));
    }
}
