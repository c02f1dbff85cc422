//! Turns the backend's answers into rows and a list of flaws. Pure.
//!
//! An answer is an array of arrays: `[["20170126133",51000,"NAN"]]`, the stamp first, then a value for each selected
//! channel. A value stays the JSON text that the backend wrote, so that no digit of a number changes.

use std::{collections::HashSet, fmt, ops::Range};

use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::Stamp;
use crate::support::http::one_line;

/// How many flawed rows are described; further ones are only counted.
const DESCRIBED_FLAWS: usize = 5;
/// How many characters of a flawed row's text are kept.
const FLAW_TEXT: usize = 200;

/// One time stamp with its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub stamp: Stamp,
    values: Range<usize>,
}

/// The rows of an answer, in the backend's order.
#[derive(Debug, Default)]
pub struct Rows {
    pub rows: Vec<Row>,
    pub flaws: Flaws,
    /// The whole answer.
    text: String,
    /// The positions in `text` of the values of all rows, one row after the other: numbers, texts, `true` and
    /// `false`, as JSON. `None` for no value (`"NAN"` and `null`).
    values: Vec<Option<Range<u32>>>,
}

/// Rows that cannot be used, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flaws {
    pub count: usize,
    /// The first few: reason and the row's text.
    pub first: Vec<(&'static str, String)>,
}

impl Flaws {
    pub fn add(&mut self, reason: &'static str, text: &str) {
        self.count += 1;
        if self.first.len() < DESCRIBED_FLAWS {
            self.first.push((reason, one_line(text, FLAW_TEXT)));
        }
    }
}

/// Why an answer is not an array of rows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("the answer is empty")]
    Empty,
    #[error("the answer is HTML, not JSON: a login page or a proxy's message?")]
    Html,
    #[error("the answer is not JSON, or cut off: {0}")]
    NotJson(String),
    #[error("the answer is JSON, but not {expected}: {start}")]
    WrongShape { expected: &'static str, start: String },
}

impl Rows {
    /// Reads an answer to a request for `channels` channels.
    ///
    /// A row that is not a stamp and `channels` values is left out and counted. The other rows are kept.
    ///
    /// # Errors
    /// The answer as a whole is not an array of rows.
    pub fn read(body: Bytes, channels: usize) -> Result<Self, WireError> {
        let expected = "an array of rows";
        let text = String::from_utf8(body.into()).map_err(|error| {
            // An HTML page that is not UTF-8 is still reported as HTML.
            let other = json::<&RawValue>(error.as_bytes(), expected).err();
            other.unwrap_or_else(|| WireError::NotJson(error.to_string()))
        })?;
        let mut reader = Reader::new(&text, channels);
        if !reader.reads_clean_rows() {
            reader = Reader::new(&text, channels);
            json_seed(text.as_bytes(), expected, Elements(&mut reader))?;
            reader.read_row_alone();
        }
        let Reader { rows, flaws, values, .. } = reader;
        Ok(Self { rows, flaws, values, text })
    }

    /// The complete rows at the start of a body that was read only as far as `prefix`.
    #[must_use]
    pub fn read_prefix(prefix: &[u8], channels: usize) -> Self {
        // After the last whole character comes the cut, or text that is not JSON.
        let whole = prefix.utf8_chunks().next().map_or("", |chunk| chunk.valid());
        let mut reader = Reader::new(whole, channels);
        reader.reads_clean_rows();
        let Reader { rows, flaws, values, .. } = reader;
        Self { rows, flaws, values, text: whole.to_owned() }
    }

    /// The row's values in the order of the selected channels, as JSON text.
    pub fn values(&self, row: &Row) -> impl ExactSizeIterator<Item = Option<&str>> {
        let values = self.values[row.values.clone()].iter();
        values.map(|value| value.as_ref().map(|at| &self.text[at.start as usize..at.end as usize]))
    }

    /// Sorts the rows by stamp and removes exact repeats. Rows with the same stamp and different values stay, in the
    /// backend's order.
    pub fn sort(&mut self) {
        self.rows.sort_by_key(|row| row.stamp);
        if self.rows.windows(2).all(|pair| pair[0].stamp != pair[1].stamp) {
            return;
        }
        let mut rows = std::mem::take(&mut self.rows);
        let mut seen = HashSet::new();
        let mut group = None;
        rows.retain(|row| {
            if group.replace(row.stamp) != Some(row.stamp) {
                seen.clear();
            }
            seen.insert(self.values(row).collect::<Vec<_>>())
        });
        self.rows = rows;
    }
}

/// Reads an answer element by element, so that millions of elements that are not rows take no memory.
struct Reader<'a> {
    text: &'a str,
    channels: usize,
    rows: Vec<Row>,
    flaws: Flaws,
    values: Vec<Option<Range<u32>>>,
    /// The first elements that are not arrays: at most one more than a row has.
    scalars: Vec<&'a RawValue>,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str, channels: usize) -> Self {
        let (rows, flaws, values, scalars) = Default::default();
        Self { text, channels, rows, flaws, values, scalars }
    }

    /// Reads rows until the first element that is not a row, which is rare, and does not describe it. Returns whether
    /// there was no such element.
    fn reads_clean_rows(&mut self) -> bool {
        let mut deserializer =
            serde_json::Deserializer::from_str(self.text.strip_prefix('\u{feff}').unwrap_or(self.text));
        let read = deserializer.deserialize_seq(CleanRows(self)).and_then(|()| deserializer.end());
        read.is_ok() && self.flaws.count == 0
    }

    /// Accepts a row without the outer array. The backend might answer `youngest` this way: no client shows it, none
    /// excludes it.
    fn read_row_alone(&mut self) {
        let scalars = std::mem::take(&mut self.scalars);
        let alone = scalars.len() == self.channels + 1 && self.flaws.count == scalars.len() && self.rows.is_empty();
        if alone && scalars.first().is_some_and(|first| first.get().starts_with('"')) {
            self.flaws = Flaws::default();
            self.push(&scalars, self.text);
        }
    }

    fn push(&mut self, cells: &[&'a RawValue], text: &str) {
        let Some((stamp, values)) = cells.split_first() else { return self.flaws.add("an empty row", text) };
        let Some(stamp) = Stamp::parse(stamp.get().trim_matches('"')) else {
            return self.flaws.add("a stamp that is no time", text);
        };
        if values.len() != self.channels {
            let reason = if values.len() < self.channels { "too few values" } else { "too many values" };
            return self.flaws.add(reason, text);
        }
        if values.iter().any(|value| value.get().starts_with(['[', '{'])) {
            return self.flaws.add("a value that is neither number nor text", text);
        }
        let (answer, start) = (self.text, self.values.len());
        self.values.extend(values.iter().map(|value| match value.get() {
            "null" | "\"NAN\"" => None,
            value => Some(position(value, answer)),
        }));
        self.rows.push(Row { stamp, values: start..self.values.len() });
    }
}

/// The position of a part of an answer.
fn position(part: &str, answer: &str) -> Range<u32> {
    let start = part.as_ptr().addr() - answer.as_ptr().addr();
    let within = |at| u32::try_from(at).expect("answers have at most 64 MiB");
    within(start)..within(start + part.len())
}

/// An array of arrays, and nothing else.
struct CleanRows<'r, 'a>(&'r mut Reader<'a>);

impl<'a> Visitor<'a> for CleanRows<'_, 'a> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an array of rows")
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut elements: A) -> Result<(), A::Error> {
        let mut cells = Vec::with_capacity(self.0.channels + 1);
        while elements.next_element_seed(Cells(&mut cells))?.is_some() {
            self.0.push(&cells, "");
            cells.clear();
        }
        Ok(())
    }
}

/// An array of any elements.
struct Elements<'r, 'a>(&'r mut Reader<'a>);

impl<'a> DeserializeSeed<'a> for Elements<'_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'a> Visitor<'a> for Elements<'_, 'a> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an array of rows")
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut elements: A) -> Result<(), A::Error> {
        let reader = self.0;
        let mut cells = Vec::with_capacity(reader.channels + 1);
        while let Some(element) = elements.next_element::<&'a RawValue>()? {
            cells.clear();
            match Cells(&mut cells).deserialize(&mut serde_json::Deserializer::from_str(element.get())) {
                Ok(()) => reader.push(&cells, element.get()),
                Err(_) => {
                    reader.flaws.add("not an array", element.get());
                    if reader.scalars.len() <= reader.channels + 1 {
                        reader.scalars.push(element);
                    }
                }
            }
        }
        Ok(())
    }
}

/// A row: stamp and values.
struct Cells<'c, 'a>(&'c mut Vec<&'a RawValue>);

impl<'a> DeserializeSeed<'a> for Cells<'_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'a> Visitor<'a> for Cells<'_, 'a> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a row")
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut elements: A) -> Result<(), A::Error> {
        while let Some(cell) = elements.next_element()? {
            self.0.push(cell);
        }
        Ok(())
    }
}

/// Parses any answer; `expected` names its shape for the error.
///
/// # Errors
/// The body is empty, HTML, not JSON, or JSON of another shape.
pub fn json<'a, T: serde::Deserialize<'a>>(body: &'a [u8], expected: &'static str) -> Result<T, WireError> {
    json_seed(body, expected, std::marker::PhantomData)
}

fn json_seed<'a, S: DeserializeSeed<'a>>(
    body: &'a [u8],
    expected: &'static str,
    seed: S,
) -> Result<S::Value, WireError> {
    // Some servers put a byte order mark before their JSON.
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let trimmed = body.trim_ascii();
    if trimmed.is_empty() {
        return Err(WireError::Empty);
    }
    if trimmed.starts_with(b"<") {
        return Err(WireError::Html);
    }
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value = seed.deserialize(&mut deserializer).and_then(|value| deserializer.end().map(|()| value));
    value.map_err(|error| {
        if error.is_data() {
            // Redact before cutting: half a credential would be too much. This much text is enough to recognise the
            // shape.
            let start = String::from_utf8_lossy(&trimmed[..trimmed.len().min(16 * FLAW_TEXT)]);
            WireError::WrongShape { expected, start: one_line(&start, FLAW_TEXT) }
        } else {
            WireError::NotJson(error.to_string())
        }
    })
}

/// The channels of a container in a site's blueprint: `{"histdata0":{"ch0":{"title":…},"calc0":{…}},…}`. Channels
/// that the backend calculates (`calc…`) cannot be selected.
#[must_use]
pub fn channels(blueprint: &serde_json::Map<String, serde_json::Value>, histdata: u8) -> Vec<String> {
    let container = blueprint.get(&format!("histdata{histdata}")).and_then(|container| container.as_object());
    let names = container.into_iter().flat_map(|container| container.keys());
    names.filter(|name| !name.to_ascii_lowercase().contains("calc")).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &[u8], channels: usize) -> Result<Rows, WireError> {
        Rows::read(Bytes::copy_from_slice(body), channels)
    }

    fn all(rows: &Rows) -> Vec<(String, Vec<Option<String>>)> {
        let owned = |row| rows.values(row).map(|value| value.map(str::to_owned)).collect();
        rows.rows.iter().map(|row| (row.stamp.to_string(), owned(row))).collect()
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn every_kind_of_value_is_kept_as_it_was_written() {
        let body = br#"[["20170126133",51000,"NAN", 21.50, null,"a \"b\" \u00fc",-1e-3,"17",true]]"#;
        let rows = read(body, 8).unwrap();
        let values = [
            some("51000"),
            None,
            some("21.50"),
            None,
            some(r#""a \"b\" \u00fc""#),
            some("-1e-3"),
            some("\"17\""),
            some("true"),
        ];
        assert_eq!(all(&rows), [("20170126133".to_owned(), values.to_vec())]);
        assert_eq!(rows.flaws.count, 0);
    }

    #[test]
    fn good_rows_are_kept_and_bad_ones_counted_and_named() {
        let body = br#"[["2017012",1],["2017013",1,2],["20170114"],["yesterday",1],[],7,{"a":1},["20170115",[1]],["2017016",2]]"#;
        let rows = read(body, 1).unwrap();
        assert_eq!(all(&rows), [("2017012".to_owned(), vec![some("1")])]);
        assert_eq!(rows.flaws.count, 8, "2017016 is no time: there is no 60th of January");
        let reasons: Vec<_> = rows.flaws.first.iter().map(|(reason, _)| *reason).collect();
        assert_eq!(
            reasons,
            ["too many values", "too few values", "a stamp that is no time", "an empty row", "not an array"]
        );
        assert_eq!(rows.flaws.first[2].1, r#"["yesterday",1]"#);
    }

    #[test]
    fn answers_that_are_no_rows_say_what_they_are() {
        assert_eq!(read(b" \n", 1).unwrap_err(), WireError::Empty);
        assert_eq!(read(b"\n<!DOCTYPE html><html>", 1).unwrap_err(), WireError::Html);
        assert!(matches!(read(br#"[["2017012",1],["20"#, 1), Err(WireError::NotJson(_))));
        assert!(matches!(read(b"[[\"2017012\",\"\xff\"]]", 1), Err(WireError::NotJson(_))));
        assert!(matches!(read(b"[] trailing", 1), Err(WireError::NotJson(_))));
        let error = read(br#"{"err":"no such thing"}"#, 1).unwrap_err().to_string();
        assert!(error.contains("no such thing"), "{error}");
        assert!(read(b"\xef\xbb\xbf[]", 1).unwrap().rows.is_empty());
    }

    #[test]
    fn a_row_alone_is_a_row() {
        assert_eq!(all(&read(br#"["2017012",5]"#, 1).unwrap()), [("2017012".to_owned(), vec![some("5")])]);
    }

    #[test]
    fn unordered_and_repeated_rows_are_put_right() {
        let body = br#"[["2017013",3],["2017012",1],["2017013",3],["2017012",2],["2017012",1]]"#;
        let mut rows = read(body, 1).unwrap();
        rows.sort();
        let stamps: Vec<_> =
            all(&rows).into_iter().map(|(stamp, values)| (stamp, values[0].clone().unwrap())).collect();
        let expected = [("2017012", "1"), ("2017012", "2"), ("2017013", "3")];
        assert_eq!(stamps, expected.map(|(stamp, value)| (stamp.to_owned(), value.to_owned())));
    }

    #[test]
    fn a_prefix_yields_its_complete_rows() {
        let rows = Rows::read_prefix(br#"[["2017012",1],["2017013",2],["20170"#, 1);
        assert_eq!(all(&rows).len(), 2);
        assert_eq!(
            Rows::read_prefix(b"\xef\xbb\xbf[[\"2017012\",1],[\"20", 1).rows.len(),
            1,
            "behind a byte order mark"
        );
        assert!(Rows::read_prefix(b"<html>", 1).rows.is_empty());
    }

    #[test]
    fn the_blueprint_lists_the_channels() {
        let text =
            br#"{"histdata0":{"ch0":{"title":"Level"},"calc1":{},"ch1":null},"histdata1":null,"config0":{"x":{}}}"#;
        let blueprint = json(text, "").unwrap();
        assert_eq!(channels(&blueprint, 0), ["ch0", "ch1"]);
        assert!(channels(&blueprint, 1).is_empty() && channels(&blueprint, 2).is_empty());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>, channels in 0_usize..4) {
            let _ = read(&bytes, channels);
            let _ = Rows::read_prefix(&bytes, channels);
        }

        #[test]
        fn any_json_is_read_or_refused(text in r#"[\[\]{},:"0-9a-z. ]{0,60}"#, channels in 0_usize..4) {
            let _ = read(text.as_bytes(), channels);
        }
    }
}
