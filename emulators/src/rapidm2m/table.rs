//! The rows of one answer. The position of a row is enough to write it, so a request for two million rows holds none of
//! them in memory.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    generate,
    request::Selection,
    sites::{AddedRow, Site},
    stamp,
};

/// A piece of the body is handed on when it reaches this many bytes.
const PIECE: usize = 32 * 1024;

/// The times of made-up rows: one per interval, on multiples of the interval since the Unix epoch.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    pub interval_ms: i64,
    pub first_ms: i64,
}

/// The order in which rows are answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    #[default]
    Ascending,
    Descending,
    Shuffled,
}

/// Variants of the same rows in different backends.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shape {
    pub order: Order,
    /// Every row twice.
    pub repeat: bool,
    pub numbers_as_strings: bool,
}

pub struct Table {
    site: Arc<Site>,
    columns: Vec<usize>,
    interval_ms: i64,
    /// Numbers of the grid's rows. Row `n` is at `n` intervals since the Unix epoch.
    generated: Range<i64>,
    /// Added rows with their rank among all rows, ascending.
    added: Vec<(u64, Arc<AddedRow>)>,
    shape: Shape,
}

impl Table {
    /// The selected rows of a container that exist at `now_ms`.
    pub fn new(site: Arc<Site>, container: usize, selection: Selection, grid: Grid, now_ms: i64, shape: Shape) -> Self {
        let Selection { columns, window, open } = selection;
        let start = window.start.max(grid.first_ms);
        let end = window.end.min(now_ms.saturating_add(1));
        let mut generated = ceil_div(start, grid.interval_ms)..ceil_div(end, grid.interval_ms);
        if !site.generate || container != 0 || generated.is_empty() {
            generated = 0..0;
        }
        let before = |at: Option<i64>| match at {
            // A made-up row at the same time counts as earlier.
            Some(at) => (at.div_euclid(grid.interval_ms) + 1).clamp(generated.start, generated.end) - generated.start,
            None => generated.end - generated.start,
        };
        let added = site.added(container);
        let selected = added.iter().filter(|row| row.at.map_or(open, |at| window.contains(&at)));
        let added = selected.zip(0..).map(|(row, index)| (before(row.at) as u64 + index, row.clone())).collect();
        Self { site, columns, interval_ms: grid.interval_ms, generated, added, shape }
    }

    /// Keeps only the newest row, if there is one.
    pub fn youngest(mut self) -> Self {
        self.shape = Shape { order: Order::Ascending, repeat: false, ..self.shape };
        let generated = self.generated.end - 1;
        let newest_added = self.added.iter().rfind(|(_, row)| row.at.is_some()).or(self.added.last()).cloned();
        let newest_generated = (!self.generated.is_empty()).then_some(generated * self.interval_ms);
        self.generated = 0..0;
        self.added.clear();
        match newest_added {
            Some((_, row)) if newest_generated.is_none() || row.at >= newest_generated => self.added.push((0, row)),
            _ if newest_generated.is_some() => self.generated = generated..generated + 1,
            _ => {}
        }
        self
    }

    /// Rows that will be answered.
    pub fn len(&self) -> u64 {
        self.distinct() * if self.shape.repeat { 2 } else { 1 }
    }

    fn distinct(&self) -> u64 {
        (self.generated.end - self.generated.start) as u64 + self.added.len() as u64
    }

    /// Writes the row at a position of the answer.
    fn write(&self, position: u64, out: &mut Vec<u8>) {
        let position = match self.shape.order {
            Order::Ascending => position,
            Order::Descending => self.len() - 1 - position,
            Order::Shuffled => shuffled(position, self.len()),
        };
        let rank = if self.shape.repeat { position / 2 } else { position };
        let quoted = self.shape.numbers_as_strings;
        match self.added.binary_search_by_key(&rank, |(rank, _)| *rank) {
            Ok(index) => self.added[index].1.write(&self.columns, quoted, out),
            Err(added_before) => {
                let number = self.generated.start + (rank - added_before as u64) as i64;
                self.write_generated(number * self.interval_ms, quoted, out);
            }
        }
    }

    fn write_generated(&self, ms: i64, quoted: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(b"[\"");
        stamp::write(ms, out);
        out.push(b'"');
        for &column in &self.columns {
            out.push(b',');
            generate::write_value(self.site.channels[column].kind, self.site.seed, column, ms, quoted, out);
        }
        out.push(b']');
    }

    /// The JSON array in pieces.
    pub fn pieces(self) -> impl Iterator<Item = Bytes> + Send + 'static {
        let rows = self.len();
        let mut next = Some(0);
        std::iter::from_fn(move || {
            let mut position = next?;
            let mut out = Vec::with_capacity(4096);
            if position == 0 {
                out.push(b'[');
            }
            while position < rows && out.len() < PIECE {
                if position > 0 {
                    out.push(b',');
                }
                self.write(position, &mut out);
                position += 1;
            }
            if position == rows {
                out.push(b']');
            }
            next = (position < rows).then_some(position);
            Some(Bytes::from(out))
        })
    }
}

fn ceil_div(dividend: i64, divisor: i64) -> i64 {
    dividend.div_euclid(divisor) + i64::from(dividend.rem_euclid(divisor) != 0)
}

/// A fixed permutation of `0..len`. Its step is about the golden section of `len`, so that neighbours end up far apart.
fn shuffled(position: u64, len: u64) -> u64 {
    let mut step = (len as f64 * 0.618) as u64;
    while gcd(step, len) != 1 {
        step += 1;
    }
    ((u128::from(position) * u128::from(step) + u128::from(len / 2)) % u128::from(len)) as u64
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use serde_json::{Value, json, value::RawValue};

    use super::*;
    use crate::rapidm2m::{generate::Kind, sites::Channel};

    /// 2017-01-26T13:30:00Z
    const HALF_PAST_ONE: i64 = 1_485_437_400_000;
    const GRID: Grid = Grid { interval_ms: 60_000, first_ms: HALF_PAST_ONE - 1 };

    fn site(rows: &[&str]) -> Arc<Site> {
        let site = Site::new("s", vec![Channel { name: "ch0".to_owned(), kind: Kind::Counter }], true);
        site.add(0, rows.iter().map(|row| RawValue::from_string((*row).to_owned()).unwrap()).collect());
        Arc::new(site)
    }

    fn table(site: &Arc<Site>, window: Range<i64>, now_ms: i64, shape: Shape) -> Table {
        let selection = Selection { columns: vec![0], open: window.end == i64::MAX, window };
        Table::new(site.clone(), 0, selection, GRID, now_ms, shape)
    }

    fn rows(table: Table) -> Vec<Value> {
        let len = table.len();
        let body: Vec<u8> = table.pieces().flatten().collect();
        let rows: Vec<Value> = serde_json::from_slice(&body).unwrap();
        assert_eq!(rows.len() as u64, len);
        rows
    }

    fn stamps(table: Table) -> Vec<String> {
        rows(table).iter().map(|row| row[0].as_str().unwrap().to_owned()).collect()
    }

    const ALL: Range<i64> = i64::MIN..i64::MAX;

    #[test]
    fn rows_lie_on_the_grid_from_the_first_to_now() {
        let now = HALF_PAST_ONE + 120_000;
        let ascending = Shape::default();
        assert_eq!(stamps(table(&site(&[]), ALL, now, ascending)), ["20170126133", "201701261331", "201701261332"]);
        assert_eq!(stamps(table(&site(&[]), ALL, now - 1, ascending)), ["20170126133", "201701261331"]);
        let window = HALF_PAST_ONE + 1..HALF_PAST_ONE + 60_001;
        assert_eq!(stamps(table(&site(&[]), window, now, ascending)), ["201701261331"]);
        assert_eq!(rows(table(&site(&[]), now + 1..now, now, ascending)), [] as [Value; 0]);
    }

    #[test]
    fn a_repeated_request_gets_the_same_rows() {
        let ask = || rows(table(&site(&[]), ALL, HALF_PAST_ONE + 3_600_000, Shape::default()));
        assert_eq!(ask(), ask());
    }

    #[test]
    fn added_rows_are_merged_by_time() {
        let site =
            site(&[r#"["20170126133100500",1]"#, r#"["2017012613",2]"#, r#"["what?",3]"#, r#"["20170126133",4]"#]);
        let now = HALF_PAST_ONE + 60_000;
        let expected = ["2017012613", "20170126133", "20170126133", "201701261331", "20170126133100500", "what?"];
        assert_eq!(stamps(table(&site, ALL, now, Shape::default())), expected);
        let closed = HALF_PAST_ONE..now;
        assert_eq!(stamps(table(&site, closed, now, Shape::default())), ["20170126133", "20170126133"]);
        let descending = Shape { order: Order::Descending, ..Shape::default() };
        assert!(stamps(table(&site, ALL, now, descending)).iter().rev().eq(expected.iter()));
    }

    #[test]
    fn the_youngest_is_the_newest_of_all() {
        let youngest = |rows: &[&str], now| stamps(table(&site(rows), ALL, now, Shape::default()).youngest());
        assert_eq!(youngest(&[], HALF_PAST_ONE - 2), [] as [&str; 0]);
        assert_eq!(youngest(&[], HALF_PAST_ONE), ["20170126133"]);
        assert_eq!(youngest(&[r#"["2018",1]"#, r#"["20180101",1]"#], HALF_PAST_ONE), ["20180101"]);
        assert_eq!(youngest(&[r#"["20160101",1]"#], HALF_PAST_ONE), ["20170126133"]);
        assert_eq!(youngest(&[r#"["what?",1]"#], HALF_PAST_ONE - 2), ["what?"]);
    }

    #[test]
    fn shuffled_and_repeated_rows_are_the_same_rows() {
        let now = HALF_PAST_ONE + 100 * 60_000;
        let expected = rows(table(&site(&[]), ALL, now, Shape::default()));
        let shape = Shape { order: Order::Shuffled, repeat: true, numbers_as_strings: false };
        let mut answered = rows(table(&site(&[]), ALL, now, shape));
        assert_eq!(answered.len(), 2 * expected.len());
        assert!(!answered.is_sorted_by_key(|row| row[0].as_str().unwrap().to_owned()));
        answered.sort_by_key(|row| row[0].as_str().map(|stamp| format!("{stamp:0<17}")));
        answered.dedup();
        assert_eq!(answered, expected);
    }

    #[test]
    fn a_shuffle_leaves_nothing_out() {
        for len in 1..200 {
            assert_eq!((0..len).map(|position| shuffled(position, len)).collect::<HashSet<_>>().len(), len as usize);
        }
    }

    #[test]
    fn numbers_as_strings() {
        let shape = Shape { numbers_as_strings: true, ..Shape::default() };
        let answered = rows(table(&site(&[r#"["20170126",7]"#]), ALL, HALF_PAST_ONE, shape));
        assert_eq!(answered[0], json!(["20170126", "7"]));
        assert!(answered[1][1].is_string());
    }

    #[test]
    fn a_long_answer_comes_in_pieces() {
        let table = table(&site(&[]), ALL, HALF_PAST_ONE + 60_000 * 99_999, Shape::default());
        assert_eq!(table.len(), 100_000);
        let pieces: Vec<Bytes> = table.pieces().collect();
        assert!(pieces.len() > 50 && pieces.iter().all(|piece| piece.len() < PIECE + 1024));
        let rows: Vec<Value> = serde_json::from_slice(&pieces.concat()).unwrap();
        assert_eq!(rows.len(), 100_000);
    }
}
