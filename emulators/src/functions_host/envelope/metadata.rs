//! `Metadata` of an envelope.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDateTime, Utc};
use serde::Serialize;
use serde_json::{Value, json, value::RawValue};

use crate::queues::guid;

/// Names are unique in any case.
#[derive(Default, Serialize)]
#[serde(transparent)]
pub struct Metadata<'a>(BTreeMap<String, Datum<'a>>);

/// A value of [`Metadata`].
#[derive(Serialize)]
#[serde(untagged)]
enum Datum<'a> {
    Text(String),
    Raw(&'a RawValue),
    Json(Value),
}

impl<'a> Metadata<'a> {
    /// A string in the envelope.
    pub fn set_text(&mut self, name: &str, text: String) {
        self.set(name, Datum::Text(text));
    }

    /// A string in the envelope that holds a JSON string.
    pub fn set_literal(&mut self, name: &str, text: &str) {
        self.set(name, Datum::Text(literal(text)));
    }

    /// Replaces a value, whose name stays as it was.
    fn set(&mut self, name: &str, datum: Datum<'a>) {
        let there = self.name_of(name).map_or_else(|| name.to_owned(), str::to_owned);
        self.0.insert(there, datum);
    }

    fn name_of(&self, name: &str) -> Option<&str> {
        self.0.keys().map(String::as_str).find(|key| key.eq_ignore_ascii_case(name))
    }

    pub fn add_if_absent(&mut self, name: &str, json: Value) {
        if self.name_of(name).is_none() {
            self.set(name, Datum::Json(json));
        }
    }

    /// The host's own member. It gives way to a value of this name.
    pub fn add_system(&mut self, function: &str, now: DateTime<Utc>) {
        let name = if self.name_of("sys").is_none() { "sys" } else { "$sys" };
        let system = json!({ "MethodName": function, "UtcNow": dotnet(now, "Z"), "RandGuid": guid() });
        self.set(name, Datum::Json(system));
    }

    /// Copies the top-level properties of a JSON object (`Utility.ApplyBindingData` of the host). If the name exists
    /// already, in any case, the existing name stays and gets the new value. Arrays, nulls, the trigger's own name and
    /// names that end with `…trigger` are left out; the host takes the latter for the message itself.
    pub fn copy_properties(&mut self, text: &'a str, binding: &str) {
        let trimmed = text.trim();
        if !trimmed.starts_with('{') || !trimmed.ends_with('}') {
            return;
        }
        let Ok(properties) = serde_json::from_str::<BTreeMap<String, &RawValue>>(trimmed) else { return };
        for (name, value) in properties {
            let datum = match value.get().as_bytes().first() {
                Some(b'{') => Datum::Raw(value),
                Some(b'[' | b'n') | None => continue,
                _ => Datum::Text(literal(&as_dotnet_writes(value.get()))),
            };
            if !name.to_ascii_lowercase().ends_with("trigger") && !name.eq_ignore_ascii_case(binding) {
                self.set(&name, datum);
            }
        }
    }
}

/// The string that .NET makes of a JSON value: `true` becomes `True`, and a string that looks like a time is parsed as
/// a time first.
fn as_dotnet_writes(json: &str) -> String {
    match serde_json::from_str(json) {
        Ok(Value::String(text)) => time_in(&text).map_or(text, |time| time.format("%m/%d/%Y %H:%M:%S").to_string()),
        Ok(Value::Bool(flag)) => if flag { "True" } else { "False" }.to_owned(),
        Ok(Value::Number(number)) if json.contains(['.', 'e', 'E']) => {
            number.as_f64().map_or_else(|| json.to_owned(), |number| number.to_string())
        }
        _ => json.to_owned(),
    }
}

fn time_in(text: &str) -> Option<NaiveDateTime> {
    if text.as_bytes().get(10) != Some(&b'T') {
        return None;
    }
    let with_zone = DateTime::parse_from_rfc3339(text).map(|time| time.naive_utc());
    with_zone.or_else(|_| NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f")).ok()
}

/// The text as a JSON string.
pub fn literal(text: &str) -> String {
    serde_json::to_string(text).expect("a text is JSON")
}

/// The time as .NET writes it: fractions of 100 ns without trailing zeros.
pub fn dotnet(time: DateTime<Utc>, zone: &str) -> String {
    let text = time.format("%Y-%m-%dT%H:%M:%S%.9f").to_string();
    let text = text[..text.len() - 2].trim_end_matches('0').trim_end_matches('.');
    format!("{text}{zone}")
}
