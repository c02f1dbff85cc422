//! Splits an answer that is not clean JSON into its rows, so that one bad row takes no other row with it. Pure.
//!
//! Loggers and backends write `NaN` without quotes, text in Latin-1, or raw line breaks. What can be read without guessing is
//! read. A row that cannot be read is a flaw, with its stamp if it has one. The next row begins where an array with a stamp
//! begins, whatever is wrong before it.

use std::ops::Range;

use serde_json::value::RawValue;

use super::{Flaws, Row, WireError};
use crate::rapidm2m::Stamp;

/// How many digits a stamp has.
const STAMP_DIGITS: std::ops::RangeInclusive<usize> = 4..=17;
/// What loggers write for no value.
const NO_VALUES: [&[u8]; 8] = [b"null", b"nan", b"-nan", b"+nan", b"infinity", b"-infinity", b"inf", b"-inf"];

/// The rows of an answer whose text was put together anew.
#[derive(Default)]
pub struct Scanned {
    pub rows: Vec<Row>,
    pub flaws: Flaws,
    pub values: Vec<Option<Range<u32>>>,
    pub text: String,
}

/// Reads an array of rows.
///
/// # Errors
/// It is not an array, it is cut off, or something else follows it.
pub fn scan(body: &[u8], channels: usize) -> Result<Scanned, WireError> {
    let mut scanner = Scanner { body, at: 1, channels, next_row: Some(0), looked_ahead: 0, out: Scanned::default() };
    scanner.read()?;
    Ok(scanner.out)
}

/// Reads the rows at the start of an array that was not read to its end.
pub fn scan_prefix(body: &[u8], channels: usize) -> Scanned {
    let mut scanner = Scanner { body, at: 1, channels, next_row: Some(0), looked_ahead: 0, out: Scanned::default() };
    // It is cut off: that is why it is read in this way.
    let _ = scanner.read();
    scanner.out
}

struct Scanner<'a> {
    body: &'a [u8],
    at: usize,
    channels: usize,
    /// Where the next row begins, if it was looked for already; `None` if there is no other.
    next_row: Option<usize>,
    /// How many bytes were read beyond the beginning of another row.
    looked_ahead: usize,
    out: Scanned,
}

/// Where an element ends.
enum End {
    /// Behind its last byte.
    At(usize),
    /// Another row begins here, before this one has ended.
    NextRow(usize),
    /// Nowhere.
    Never,
}

impl Scanner<'_> {
    fn read(&mut self) -> Result<(), WireError> {
        loop {
            self.skip(|byte| byte.is_ascii_whitespace() || byte == b',');
            match self.body.get(self.at) {
                None => return Err(WireError::NotJson("the closing bracket is missing".into())),
                Some(b']') => {
                    let rest = self.at + 1;
                    if self.body[rest..].trim_ascii().is_empty() {
                        return Ok(());
                    }
                    // A bracket too many in a row?
                    let next = next_row(self.body, rest)
                        .ok_or_else(|| WireError::NotJson("something follows the rows".into()))?;
                    self.flaw("text between rows", rest..next);
                    self.at = next;
                }
                Some(_) => self.element()?,
            }
        }
    }

    fn skip(&mut self, is_meant: impl Fn(u8) -> bool) {
        while self.body.get(self.at).is_some_and(|byte| is_meant(*byte)) {
            self.at += 1;
        }
    }

    fn element(&mut self) -> Result<(), WireError> {
        let from = self.at;
        if let Some(until) = self.valid_element() {
            self.at = until;
            self.row(from..until);
            return Ok(());
        }
        match end(self.body, from) {
            End::At(until) => {
                // A bracket that closes nothing is an element of its own.
                self.at = until.max(from + 1);
                self.row(from..self.at);
            }
            End::NextRow(next) => {
                self.at = next;
                self.flaw("a row that does not end", from..next);
            }
            // The last row is broken, and the answer ends as an answer does.
            End::Never if ends_as_an_answer(self.body) => {
                let last = self.body.trim_ascii_end().len() - 1;
                self.at = last;
                self.flaw("a row that does not end", from..last);
            }
            End::Never => return Err(WireError::NotJson("the answer is cut off within a row".into())),
        }
        Ok(())
    }

    /// The end of an element that is JSON, and after which the array goes on.
    fn valid_element(&mut self) -> Option<usize> {
        let next = self.next_row();
        let until = json_end(&self.body[..next.unwrap_or(self.body.len())], self.at);
        let until = match (until, next) {
            (Some(until), _) => until,
            // A row within a value looks like the next row. Each byte is looked at in this way about once, so that an
            // answer full of rows without their end does not take the square of its size.
            (None, Some(_)) if self.looked_ahead <= self.body.len() => {
                let until = json_end(self.body, self.at);
                self.looked_ahead += until.map_or(self.body.len(), |until| until - self.at);
                until?
            }
            (None, _) => return None,
        };
        let after = self.body[until..].trim_ascii_start().first()?;
        // If a closing bracket is missing, the rows behind it look like values.
        (matches!(after, b',' | b'[') || *after == b']' && next.is_none_or(|next| next >= until)).then_some(until)
    }

    /// Where the next row behind this one begins.
    fn next_row(&mut self) -> Option<usize> {
        if self.next_row.is_some_and(|next| next <= self.at) {
            self.next_row = next_row(self.body, self.at + 1);
        }
        self.next_row
    }

    fn row(&mut self, at: Range<usize>) {
        let (rows, values, text) = (self.out.rows.len(), self.out.values.len(), self.out.text.len());
        if let Err(reason) = self.read_row(&self.body[at.clone()]) {
            self.out.rows.truncate(rows);
            self.out.values.truncate(values);
            self.out.text.truncate(text);
            self.flaw(reason, at);
        }
    }

    fn read_row(&mut self, row: &[u8]) -> Result<(), &'static str> {
        let inner = row.strip_prefix(b"[").and_then(|row| row.strip_suffix(b"]")).ok_or("not an array")?;
        if inner.trim_ascii().is_empty() {
            return Err("an empty row");
        }
        let mut cells = Cells(Some(inner));
        let stamp = cells.next().and_then(stamp).ok_or("a stamp that is not a time")?;
        let cells: Vec<_> = cells.take(self.channels + 1).collect();
        if cells.len() != self.channels {
            return Err(if cells.len() < self.channels { "too few values" } else { "too many values" });
        }
        let start = self.out.values.len();
        for cell in cells {
            let from = self.out.text.len();
            let has_value = self.read_value(cell)?;
            let at = |position| u32::try_from(position).expect("answers have at most 64 MiB");
            self.out.values.push(has_value.then(|| at(from)..at(self.out.text.len())));
        }
        self.out.rows.push(Row { stamp, values: start..self.out.values.len() });
        Ok(())
    }

    /// Appends a value as JSON. Returns `false` if it is none.
    fn read_value(&mut self, cell: &[u8]) -> Result<bool, &'static str> {
        if cell.starts_with(b"\"") {
            let before = self.out.text.len();
            write_text(cell, &mut self.out.text)?;
            return Ok(&self.out.text[before..] != "\"NAN\"");
        }
        if cell.starts_with(b"[") || cell.starts_with(b"{") {
            return Err("a value that is neither number nor text");
        }
        if NO_VALUES.iter().any(|none| cell.eq_ignore_ascii_case(none)) {
            return Ok(false);
        }
        let value = serde_json::from_slice::<&RawValue>(cell).map_err(|_| "a value that is not valid JSON")?;
        self.out.text.push_str(value.get());
        Ok(true)
    }

    fn flaw(&mut self, reason: &'static str, at: Range<usize>) {
        let text = self.body[at].trim_ascii();
        self.out.flaws.add(leading_stamp(text), reason, &String::from_utf8_lossy(&text[..text.len().min(4096)]));
    }
}

/// The end of the JSON value that begins here.
fn json_end(body: &[u8], from: usize) -> Option<usize> {
    let mut values = serde_json::Deserializer::from_slice(&body[from..]).into_iter::<&RawValue>();
    values.next()?.ok()?;
    Some(from + values.byte_offset())
}

fn ends_as_an_answer(body: &[u8]) -> bool {
    let rows = body.trim_ascii_end().strip_suffix(b"]");
    rows.is_some_and(|rows| rows.trim_ascii_end().ends_with(b"]"))
}

/// The end of an array, an object or a value, even if it is not valid JSON.
fn end(body: &[u8], from: usize) -> End {
    let (mut brackets, mut braces, mut at) = (0_usize, 0_usize, from);
    let mut is_in_text = false;
    while let Some(byte) = body.get(at) {
        if *byte == b'[' && at > from && begins_row(&body[at..]) {
            return End::NextRow(at);
        }
        match byte {
            b'\\' if is_in_text => at += 1,
            b'"' => is_in_text = !is_in_text,
            _ if is_in_text => {}
            b'[' => brackets += 1,
            b'{' => braces += 1,
            // The bracket of the whole answer.
            b']' if brackets == 0 => return End::At(at),
            b']' => brackets -= 1,
            // A brace too many is a part of the element.
            b'}' => braces = braces.saturating_sub(1),
            b',' if brackets + braces == 0 => return End::At(at),
            _ => {}
        }
        at += 1;
        if brackets + braces == 0 && matches!(byte, b']' | b'}') {
            return End::At(at);
        }
    }
    End::Never
}

/// Where the next row begins: with an array whose first value is a stamp.
fn next_row(body: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        at += body.get(at..)?.iter().position(|byte| *byte == b'[')?;
        if begins_row(&body[at..]) {
            return Some(at);
        }
        at += 1;
    }
}

fn begins_row(text: &[u8]) -> bool {
    leading_digits(text).is_some()
}

fn leading_stamp(text: &[u8]) -> Option<Stamp> {
    stamp(leading_digits(text)?)
}

/// The digits in quotes with which a row begins.
fn leading_digits(text: &[u8]) -> Option<&[u8]> {
    let text = text.strip_prefix(b"[")?.trim_ascii_start().strip_prefix(b"\"")?;
    let count = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    (STAMP_DIGITS.contains(&count) && text.get(count) == Some(&b'"')).then_some(&text[..count])
}

fn stamp(cell: &[u8]) -> Option<Stamp> {
    let digits = cell.strip_prefix(b"\"").and_then(|cell| cell.strip_suffix(b"\"")).unwrap_or(cell);
    Stamp::parse(std::str::from_utf8(digits).ok()?)
}

/// The values of a row, between its brackets. Commas within texts, arrays and objects do not count.
struct Cells<'a>(Option<&'a [u8]>);

impl<'a> Iterator for Cells<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.0.take()?;
        let (mut depth, mut is_in_text, mut is_escaped) = (0_usize, false, false);
        let comma = rest.iter().position(|byte| {
            if std::mem::take(&mut is_escaped) {
                return false;
            }
            match byte {
                b'\\' if is_in_text => is_escaped = true,
                b'"' => is_in_text = !is_in_text,
                b'[' | b'{' if !is_in_text => depth += 1,
                b']' | b'}' if !is_in_text => depth = depth.saturating_sub(1),
                b',' if !is_in_text && depth == 0 => return true,
                _ => {}
            }
            false
        });
        self.0 = comma.map(|comma| &rest[comma + 1..]);
        Some(rest[..comma.unwrap_or(rest.len())].trim_ascii())
    }
}

/// Appends a text as JSON: raw control characters are escaped, bytes that are no UTF-8 are read as Latin-1.
fn write_text(cell: &[u8], out: &mut String) -> Result<(), &'static str> {
    let inner = cell[1..].strip_suffix(b"\"").ok_or("a text that does not end")?;
    let text = match std::str::from_utf8(inner) {
        Ok(text) => text.to_owned(),
        Err(_) => inner.iter().copied().map(char::from).collect(),
    };
    let before = out.len();
    out.push('"');
    for letter in text.chars() {
        match letter {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if control < ' ' => out.push_str(&format!("\\u{:04x}", u32::from(control))),
            letter => out.push(letter),
        }
    }
    out.push('"');
    // Other escapes than JSON's, and halves of characters, have no certain meaning.
    serde_json::from_str::<String>(&out[before..])
        .map(drop)
        .map_err(|_| "a text with an escape that JSON does not have")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Digits of a stamp, and the values.
    type Found = (String, Vec<Option<String>>);

    /// The rows, and the reasons of the flaws with their stamps.
    fn scanned(body: &[u8], channels: usize) -> (Vec<Found>, Vec<(&'static str, Option<String>)>) {
        let Scanned { rows, flaws, values, text } = scan(body, channels).unwrap();
        let value = |at: &Option<Range<u32>>| at.as_ref().map(|at| text[at.start as usize..at.end as usize].to_owned());
        let rows =
            rows.iter().map(|row| (row.stamp.to_string(), values[row.values.clone()].iter().map(value).collect()));
        let flaws = flaws.first.iter().map(|flaw| (flaw.reason, flaw.stamp.map(|stamp| stamp.to_string())));
        (rows.collect(), flaws.collect())
    }

    /// A row of an odd kind between two good ones: what its only value is, or why it is a flaw.
    fn between(row: &[u8]) -> Result<Option<String>, &'static str> {
        let body = [b"[[\"2017011\",1],", row, b",[\"2017013\",3]]"].concat();
        let (mut rows, flaws) = scanned(&body, 1);
        let good = |digits: &str, value: &str| (digits.to_owned(), vec![Some(value.to_owned())]);
        assert_eq!((rows.remove(0), rows.pop()), (good("2017011", "1"), Some(good("2017013", "3"))), "{row:?}");
        match (rows.pop(), &flaws[..]) {
            (Some((_, values)), []) => Ok(values[0].clone()),
            (None, [(reason, stamp)]) => {
                assert_eq!(stamp.as_deref(), Some("2017012"), "{row:?}: {reason}");
                Err(reason)
            }
            odd => panic!("{row:?}: {odd:?}"),
        }
    }

    #[test]
    fn what_can_be_read_without_guessing_is_read() {
        let some = |text: &str| Ok(Some(text.to_owned()));
        for (value, expected) in [
            (&b"NaN"[..], Ok(None)),
            (b"-Infinity", Ok(None)),
            (b"inf", Ok(None)),
            (b"\"NAN\"", Ok(None)),
            (b" 1.50 ", some("1.50")),
            (b"\"K\xe4lte\"", some("\"K\u{e4}lte\"")),
            (b"\"line1\nline2\"", some("\"line1\\nline2\"")),
            (b"\"a\0b\"", some("\"a\\u0000b\"")),
            (b"\"a, b] [c\"", some("\"a, b] [c\"")),
            (b"\"C:\\data\"", Err("a text with an escape that JSON does not have")),
            (b"\"\\ud800\"", Err("a text with an escape that JSON does not have")),
            (b"007", Err("a value that is not valid JSON")),
            (b"21,5", Err("too many values")),
            (b"[1]", Err("a value that is neither number nor text")),
            (b"1,", Err("too many values")),
            (b"", Err("a value that is not valid JSON")),
        ] {
            let row = [b"[\"2017012\",", value, b"]"].concat();
            assert_eq!(between(&row), expected, "{}", String::from_utf8_lossy(value));
        }
        assert_eq!(between(b"[\"2017012\"]"), Err("too few values"));
    }

    #[test]
    fn a_broken_row_takes_no_other_with_it() {
        for (row, reason) in [
            (&b"[\"2017012\",\"1]"[..], "a row that does not end"),
            (b"[\"2017012\",\"C:\\\"]", "a row that does not end"),
            (b"[\"2017012\",1", "a row that does not end"),
            (b"[\"2017012\",[1]", "a row that does not end"),
            (b"[\"2017012\",1}]", "a value that is not valid JSON"),
        ] {
            match between(row) {
                Err(found) => assert_eq!(found, reason, "{}", String::from_utf8_lossy(row)),
                Ok(value) => panic!("{}: {value:?}", String::from_utf8_lossy(row)),
            }
        }
        let (rows, flaws) = scanned(b"[[\"2017011\",1]],2],[\"2017012\",2],[\"2017013\",\"3]]", 1);
        assert_eq!((rows.len(), flaws.len()), (2, 2), "{rows:?} {flaws:?}");
    }

    #[test]
    fn a_million_rows_without_their_end_take_no_more_time_than_other_rows() {
        let body = ["[", &"[\"2017012\",[1],".repeat(1_000_000), "[\"2017013\",2]]"].concat();
        let Scanned { rows, flaws, .. } = scan(body.as_bytes(), 1).unwrap();
        assert_eq!((rows.len(), flaws.count, flaws.first.len()), (1, 1_000_000, 5));
    }

    #[test]
    fn a_million_elements_that_are_no_rows_are_counted() {
        let body = ["[[\"2017011\",1]", &",7".repeat(1_000_000), "]"].concat();
        let Scanned { rows, flaws, .. } = scan(body.as_bytes(), 1).unwrap();
        assert_eq!((rows.len(), flaws.count, flaws.stamps.len()), (1, 1_000_000, 0));
    }

    #[test]
    fn a_row_within_a_value_is_no_row() {
        assert_eq!(
            between(b"[\"2017012\",[\"2017019\",7]]"),
            Err("a value that is neither number nor text"),
            "its brackets are right"
        );
    }

    #[test]
    fn an_answer_that_is_cut_off_is_no_answer() {
        for body in [
            "[[\"2017011\",1],[\"2017012\",2]",
            "[[\"2017011\",1],[\"20",
            "[[\"2017011\",1],",
            "[",
            "[[]] x",
            "[[\"2017011\",1],[\"2017012\",\"a]",
        ] {
            assert!(matches!(scan(body.as_bytes(), 1), Err(WireError::NotJson(_))), "{body}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(mut bytes: Vec<u8>, channels in 0_usize..4) {
            bytes.insert(0, b'[');
            let _ = scan(&bytes, channels);
        }

        #[test]
        fn damage_in_one_row_changes_no_other(
            count in 2_usize..8,
            place in any::<prop::sample::Index>(),
            from in any::<prop::sample::Index>(),
            until in any::<prop::sample::Index>(),
            damage in prop::collection::vec(
                prop::sample::select(&b"\"\\[]{},:NaIf0127 \n\0\xe4"[..]), 0..6),
        ) {
            let rows: Vec<_> = (0..count).map(|row| format!("[\"201701{:02}\",1{row},\"text {row}\"]", row + 10)).collect();
            let place = place.index(count);
            let mut broken = rows[place].clone().into_bytes();
            let [from, until] = [from, until].map(|index| index.index(broken.len()));
            broken.splice(from.min(until)..from.max(until), damage);
            // A stamp in the damage would be a row of its own; a last row without its end is an answer that is cut off.
            prop_assume!(next_row(&broken, 1).is_none());
            prop_assume!(place + 1 < count);
            let texts: Vec<_> =
                rows.iter().enumerate().map(|(row, text)| if row == place { &broken[..] } else { text.as_bytes() }).collect();
            let body = [b"[", &texts.join(&b","[..])[..], b"]"].concat();
            let (found, _) = scanned(&body, 2);
            for row in (0..count).filter(|row| *row != place) {
                let expected = (format!("201701{:02}", row + 10), vec![Some(format!("1{row}")), Some(format!("\"text {row}\""))]);
                let expected = (Stamp::parse(&expected.0).unwrap().to_string(), expected.1);
                prop_assert!(found.contains(&expected), "row {} of {}", row, String::from_utf8_lossy(&body));
            }
        }
    }
}
