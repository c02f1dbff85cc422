//! Turns the backend's answers into rows and a list of flaws. Pure.
//!
//! An answer is an array of arrays: `[["20170126133",51000,"NAN"]]`, the stamp first, then a value for each selected
//! channel. A value stays the JSON text that the backend wrote, so that no digit of a number changes. Nearly all answers are
//! clean JSON, which is read at once; `scanner` reads the others row by row.

use std::{collections::HashSet, fmt, ops::Range};

use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;

mod scanner;

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
    /// The first few.
    pub first: Vec<Flaw>,
    /// The stamps of all that have one.
    pub stamps: Vec<Stamp>,
}

/// A row that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    pub stamp: Option<Stamp>,
    pub reason: &'static str,
    /// The beginning of the row's text.
    pub text: String,
}

impl fmt::Display for Flaw {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(stamp) = self.stamp {
            write!(out, "{}: ", stamp.rfc3339())?;
        }
        write!(out, "{}: {}", self.reason, self.text)
    }
}

impl Flaws {
    pub fn add(&mut self, stamp: Option<Stamp>, reason: &'static str, text: &str) {
        self.count += 1;
        self.stamps.extend(stamp);
        if self.first.len() < DESCRIBED_FLAWS {
            self.first.push(Flaw { stamp, reason, text: one_line(text, FLAW_TEXT) });
        }
    }

    /// How many have no stamp.
    #[must_use]
    pub fn unstamped(&self) -> usize {
        self.count - self.stamps.len()
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
        let body = body.strip_prefix(b"\xef\xbb\xbf").map_or_else(|| body.clone(), |rest| body.slice_ref(rest));
        if says_nothing(&body) {
            return Ok(Self::default());
        }
        let text = match String::from_utf8(body.into()) {
            Ok(text) => text,
            Err(error) => return Self::scanned(error.as_bytes(), channels),
        };
        let mut reader = Reader { text: &text, channels, rows: Vec::new(), values: Vec::new(), is_clean: true };
        if !reader.reads_clean_rows() {
            return Self::scanned(text.as_bytes(), channels);
        }
        let Reader { rows, values, .. } = reader;
        Ok(Self { rows, flaws: Flaws::default(), values, text })
    }

    fn scanned(body: &[u8], channels: usize) -> Result<Self, WireError> {
        let body = body.trim_ascii();
        if !body.starts_with(b"[") {
            // No array: this says what it is.
            let refused = json::<Vec<&RawValue>>(body, "an array of rows").err();
            return Err(refused.unwrap_or_else(|| WireError::NotJson("it does not begin as an array".into())));
        }
        let body = match row_alone(body, channels) {
            Some(row) => Bytes::from([b"[", row, b"]"].concat()),
            None => Bytes::copy_from_slice(body),
        };
        let scanner::Scanned { rows, flaws, values, text } = scanner::scan(&body, channels)?;
        Ok(Self { rows, flaws, values, text })
    }

    /// The complete rows at the start of a body that was read only as far as `prefix`.
    #[must_use]
    pub fn read_prefix(prefix: &[u8], channels: usize) -> Self {
        // After the last whole character comes the cut, or text that is not JSON.
        let whole = prefix.utf8_chunks().next().map_or("", |chunk| chunk.valid());
        let text = whole.strip_prefix('\u{feff}').unwrap_or(whole);
        // Cut off it is not clean, but serde says so only at its end.
        let mut reader = Reader { text, channels, rows: Vec::new(), values: Vec::new(), is_clean: true };
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let read = deserializer.deserialize_seq(CleanRows(&mut reader));
        if reader.is_clean && read.is_err_and(|error| error.is_eof()) {
            let Reader { rows, values, .. } = reader;
            return Self { rows, flaws: Flaws::default(), values, text: text.to_owned() };
        }
        if !text.trim_start().starts_with('[') {
            return Self::default();
        }
        let scanner::Scanned { rows, flaws, values, text } =
            scanner::scan_prefix(text.trim_start().as_bytes(), channels);
        Self { rows, flaws, values, text }
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

/// "No new rows" has many forms.
fn says_nothing(body: &[u8]) -> bool {
    let inner = |open: &[u8], close: &[u8]| body.trim_ascii().strip_prefix(open)?.strip_suffix(close);
    let is_empty = |inner: Option<&[u8]>| inner.is_some_and(|inner| inner.trim_ascii().is_empty());
    matches!(body.trim_ascii(), b"" | b"null") || is_empty(inner(b"{", b"}")) || is_empty(inner(b"[", b"]"))
}

/// A row without the outer array. The backend might answer `youngest` this way: no client shows it, none excludes it.
fn row_alone(body: &[u8], channels: usize) -> Option<&[u8]> {
    let cells = serde_json::from_slice::<Vec<&RawValue>>(body).ok()?;
    let is_stamp = Stamp::parse(cells.first()?.get().strip_prefix('"')?.strip_suffix('"')?).is_some();
    let are_values = !cells.iter().any(|cell| cell.get().starts_with(['[', '{']));
    (is_stamp && are_values && cells.len() == channels + 1).then_some(body)
}

/// Reads an answer in which every row is clean.
struct Reader<'a> {
    text: &'a str,
    channels: usize,
    rows: Vec<Row>,
    values: Vec<Option<Range<u32>>>,
    is_clean: bool,
}

impl<'a> Reader<'a> {
    /// Reads rows until the end, or to the first element that cannot be read at all. Returns whether all are clean.
    fn reads_clean_rows(&mut self) -> bool {
        let mut deserializer = serde_json::Deserializer::from_str(self.text);
        let read = deserializer.deserialize_seq(CleanRows(self)).and_then(|()| deserializer.end());
        read.is_ok() && self.is_clean
    }

    fn push(&mut self, cells: &[&'a RawValue]) {
        let read = || {
            let (stamp, values) = cells.split_first()?;
            let stamp = Stamp::parse(stamp.get().trim_matches('"'))?;
            let is_clean = values.len() == self.channels && !values.iter().any(|value| is_odd(value.get()));
            is_clean.then_some((stamp, values))
        };
        let Some((stamp, values)) = read() else {
            self.is_clean = false;
            return;
        };
        let (answer, start) = (self.text, self.values.len());
        self.values.extend(values.iter().map(|value| match value.get() {
            "null" | "\"NAN\"" => None,
            value => Some(position(value, answer)),
        }));
        self.rows.push(Row { stamp, values: start..self.values.len() });
    }
}

/// Whether a value is not a scalar, or a text with an escape that may be half a character.
fn is_odd(value: &str) -> bool {
    value.starts_with(['[', '{'])
        || value.starts_with('"') && value.contains("\\u") && serde_json::from_str::<String>(value).is_err()
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
            self.0.push(&cells);
            cells.clear();
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
    use proptest::prelude::*;

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
        assert_eq!(rows.flaws.count, 8, "2017016 is not a time: there is no 60th of January");
        let reasons: Vec<_> = rows.flaws.first.iter().map(|flaw| flaw.reason).collect();
        assert_eq!(
            reasons,
            ["too many values", "too few values", "a stamp that is not a time", "an empty row", "not an array"]
        );
        assert_eq!(rows.flaws.first[2].to_string(), r#"a stamp that is not a time: ["yesterday",1]"#);
        assert_eq!(rows.flaws.first[0].to_string(), r#"2017-01-30T00:00:00Z: too many values: ["2017013",1,2]"#);
        assert_eq!((rows.flaws.stamps.len(), rows.flaws.unstamped()), (3, 5));
    }

    #[test]
    fn answers_that_are_no_rows_say_what_they_are() {
        assert_eq!(read(b"\n<!DOCTYPE html><html>", 1).unwrap_err(), WireError::Html);
        assert!(matches!(read(br#"[["2017012",1],["20"#, 1), Err(WireError::NotJson(_))));
        assert!(matches!(read(b"[] trailing", 1), Err(WireError::NotJson(_))));
        let error = read(br#"{"err":"no such thing"}"#, 1).unwrap_err().to_string();
        assert!(error.contains("no such thing"), "{error}");
        assert!(read(b"\xef\xbb\xbf[]", 1).unwrap().rows.is_empty());
    }

    #[test]
    fn no_new_rows_have_many_forms() {
        for body in ["", " \n", "\u{feff}", "null", " null ", "{}", "{ }", "[]", "[ ]", "\u{feff}[]"] {
            let rows = read(body.as_bytes(), 1).unwrap();
            assert!(rows.rows.is_empty() && rows.flaws == Flaws::default(), "{body:?}");
        }
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

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>, channels in 0_usize..4) {
            let _ = read(&bytes, channels);
            let _ = Rows::read_prefix(&bytes, channels);
        }

        #[test]
        fn clean_answers_are_read_alike_by_both_readers(
            rows in prop::collection::vec(
                (0_i64..10_000_000_000_000, prop::collection::vec("[0-9]{1,6}|\"[a-z ,\\[\\]\u{e4}]{0,8}\"|null|\"NAN\"|-1\\.5e3|true", 2..3)),
                0..12),
        ) {
            let stamp = |millis: &i64| Stamp::BEGINNING.shifted(*millis);
            let row = |(millis, values): &(i64, Vec<String>)| format!("[\"{}\",{}]", stamp(millis), values.join(","));
            // Numbers do not begin with zeros.
            let rows: Vec<_> = rows.iter().map(row).collect();
            let body = format!("[{}]", rows.join(" , "));
            prop_assume!(serde_json::from_str::<serde_json::Value>(&body).is_ok());
            let (clean, scanned) = (read(body.as_bytes(), 2).unwrap(), Rows::scanned(body.as_bytes(), 2).unwrap());
            prop_assert_eq!(all(&clean), all(&scanned));
            prop_assert_eq!(clean.rows.len(), rows.len());
            prop_assert_eq!(scanned.flaws.count, 0);
        }

        #[test]
        fn any_json_is_read_or_refused(text in r#"[\[\]{},:"0-9a-z. ]{0,60}"#, channels in 0_usize..4) {
            let _ = read(text.as_bytes(), channels);
        }
    }
}
