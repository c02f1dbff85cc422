//! Reads one input out of the host's envelope: `Data` has the function's inputs by the names of their bindings, and
//! `Metadata` stands beside it. An envelope has the same text up to three times, so it is read in one pass and other
//! members are skipped.

use std::{borrow::Cow, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, Visitor},
};

use crate::support::http::{MAX_ERROR_TEXT, one_line};

/// A string; borrowed if nothing in it is escaped.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

/// The input of this name, and the metadata.
///
/// # Errors
/// What is missing or has the wrong type.
pub fn read<'de, T, M>(body: &'de [u8], binding: &str) -> Result<(T, Option<M>), String>
where
    T: Deserialize<'de>,
    M: Deserialize<'de>,
{
    let explain = |error: &dyn fmt::Display| one_line(&error.to_string(), MAX_ERROR_TEXT);
    // Once for the whole body, not for each string.
    let text = str::from_utf8(body).map_err(|error| explain(&error))?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let envelope = Envelope { binding, of: PhantomData }.deserialize(&mut deserializer);
    let (input, metadata) =
        envelope.and_then(|read| deserializer.end().map(|()| read)).map_err(|error| explain(&error))?;
    Ok((input.ok_or_else(|| format!("there is no {binding} in Data"))?, metadata))
}

struct Envelope<'n, T, M> {
    binding: &'n str,
    of: PhantomData<(T, M)>,
}

#[derive(Deserialize)]
#[serde(field_identifier)]
enum Member {
    Data,
    Metadata,
    #[serde(other)]
    Other,
}

impl<'de, T: Deserialize<'de>, M: Deserialize<'de>> DeserializeSeed<'de> for Envelope<'_, T, M> {
    type Value = (Option<T>, Option<M>);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, T: Deserialize<'de>, M: Deserialize<'de>> Visitor<'de> for Envelope<'_, T, M> {
    type Value = (Option<T>, Option<M>);

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object with Data")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let (mut input, mut metadata) = (None, None);
        while let Some(member) = members.next_key()? {
            match member {
                Member::Data => input = Some(members.next_value_seed(Input { name: self.binding, of: PhantomData })?),
                Member::Metadata => metadata = members.next_value()?,
                Member::Other => drop(members.next_value::<IgnoredAny>()?),
            }
        }
        Ok((input.ok_or_else(|| A::Error::missing_field("Data"))?, metadata))
    }
}

/// One of several inputs.
struct Input<'n, T> {
    name: &'n str,
    of: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for Input<'_, T> {
    type Value = Option<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Input<'_, T> {
    type Value = Option<T>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object of inputs")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut inputs: A) -> Result<Self::Value, A::Error> {
        let mut wanted = None;
        while let Some(Text(name)) = inputs.next_key()? {
            if name == self.name {
                let input = inputs.next_value();
                wanted = Some(input.map_err(|error| A::Error::custom(format_args!("{name}: {error}")))?);
            } else {
                inputs.next_value::<IgnoredAny>()?;
            }
        }
        Ok(wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(body: &[u8]) -> Result<(String, Option<u8>), String> {
        read::<Text<'_>, u8>(body, "in").map(|(Text(text), metadata)| (text.into_owned(), metadata))
    }

    #[test]
    fn the_input_is_found_wherever_it_stands() {
        for body in [
            r#"{"Data":{"in":"a"},"Metadata":7}"#,
            r#"{"Metadata":7,"More":[{}],"Data":{"other":{"in":"b"},"in":"a","more":1}}"#,
            r#" { "D\u0061ta" : { "\u0069n" : "\u0061" }, "Metadata" : 7 } "#,
        ] {
            assert_eq!(read_text(body.as_bytes()), Ok(("a".into(), Some(7))), "{body}");
        }
        assert_eq!(read_text(br#"{"Data":{"in":"a"},"Metadata":null}"#), Ok(("a".into(), None)));
    }

    #[test]
    fn what_is_no_envelope_says_why() {
        for (body, problem) in [
            (&b"{}"[..], "missing field `Data`"),
            (br#"{"Data":{"In":"a"}}"#, "there is no in in Data"),
            (br#"{"Data":{"in":1}}"#, "in: invalid type"),
            (br#"{"Data":[]}"#, "an object of inputs"),
            (b"[]", "an object with Data"),
            (br#"{"Data":{"in":"a"}} {}"#, "trailing"),
            (br#"{"Data":{"in":"a"},"Metadata":"#, "EOF"),
            (b"{\"Data\":{\"in\":\"\xff\"}}", "utf-8"),
        ] {
            let error = read_text(body).unwrap_err();
            assert!(error.contains(problem), "{problem:?} is missing in {error}");
        }
    }

    #[test]
    fn texts_are_not_copied_unless_they_must_be() {
        let is_borrowed =
            |body| matches!(read::<Text<'_>, IgnoredAny>(body, "in"), Ok((Text(Cow::Borrowed("a")), None)));
        assert!(is_borrowed(br#"{"Data":{"in":"a"}}"#) && !is_borrowed(br#"{"Data":{"in":"\u0061"}}"#));
    }
}
