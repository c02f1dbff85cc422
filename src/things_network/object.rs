//! A JSON object whose members can be exchanged. All others keep their order and their text, so that no digit changes.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::{RawValue, to_raw_value};

use crate::host::input::Text;

#[derive(Debug, Default)]
pub struct Object<'a>(Vec<(Cow<'a, str>, Cow<'a, RawValue>)>);

impl<'a> Object<'a> {
    /// `None` if the text is not a JSON object.
    pub fn read(text: &'a str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    pub fn get(&self, name: &str) -> Option<&RawValue> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| &**value)
    }

    /// The member as an object; an empty one if it is absent or has another type.
    pub fn object(&self, name: &str) -> Object<'_> {
        self.get(name).and_then(|value| Object::read(value.get())).unwrap_or_default()
    }

    /// Exchanges the member's value, or adds the member at the end.
    pub fn set(&mut self, name: &str, value: &impl Serialize) {
        let value = Cow::Owned(to_raw_value(value).expect("what was JSON stays JSON"));
        match self.0.iter_mut().find(|(other, _)| other == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name.to_owned().into(), value)),
        }
    }

    pub fn take(&mut self, name: &str) -> Option<Cow<'a, RawValue>> {
        let index = self.0.iter().position(|(other, _)| other == name)?;
        Some(self.0.remove(index).1)
    }

    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.0.retain(|(name, _)| keep(name));
    }

    /// The names with the lengths of their values.
    pub fn lengths(&self) -> impl Iterator<Item = (&str, usize)> {
        self.0.iter().map(|(name, value)| (&**name, value.get().len()))
    }

    pub fn raw(&self) -> Box<RawValue> {
        to_raw_value(self).expect("what was JSON stays JSON")
    }

    pub fn text(&self) -> String {
        serde_json::to_string(self).expect("what was JSON stays JSON")
    }
}

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, &**value)))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members)
    }
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Object<'de>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut all = Vec::new();
        while let Some((Text(name), value)) = members.next_entry::<_, &RawValue>()? {
            all.push((name, Cow::Borrowed(value)));
        }
        Ok(Object(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_exchanged_stays_the_text_that_it_was() {
        let mut object = Object::read(r#"{ "b": 21.50, "a\"": [1e999, {"x" : 2.10}], "c": null }"#).unwrap();
        object.set("c", &7);
        object.set("d", &"new");
        assert_eq!(object.text(), r#"{"b":21.50,"a\"":[1e999, {"x" : 2.10}],"c":7,"d":"new"}"#);
        object.retain(|name| name != "b");
        assert!(object.get("b").is_none() && object.object("a\"").get("x").is_none());
        for other in ["", "[1]", "7", "{", "{} {}"] {
            assert!(Object::read(other).is_none(), "{other}");
        }
    }
}
