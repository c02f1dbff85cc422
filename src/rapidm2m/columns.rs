//! Splits a long list of channels over several requests, and joins their answers. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    ops::Range,
};

use super::{Rows, Stamp};

/// Divides channels into ranges for which `fits` holds. A channel that does not fit by itself is alone.
pub fn ranges(channels: &[String], fits: impl Fn(&[String]) -> bool) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for end in 1..=channels.len() {
        match ranges.last_mut() {
            Some(range) if fits(&channels[range.start..end]) => range.end = end,
            _ => ranges.push(end - 1..end),
        }
    }
    ranges
}

/// Whether all answers have the same stamps. If not, a row came between two requests.
pub fn have_same_stamps(parts: &[Rows]) -> bool {
    let stamps = |rows: &Rows| {
        let mut stamps: Vec<_> =
            rows.rows.iter().map(|row| row.stamp).chain(rows.flaws.stamps.iter().copied()).collect();
        stamps.sort_unstable();
        stamps
    };
    parts.windows(2).all(|pair| stamps(&pair[0]) == stamps(&pair[1]))
}

/// The answer that a request for all channels would have got; `None` if it has more than `limit` bytes. `widths` says how
/// many channels each part has.
///
/// A part without a row has no value there. A row that cannot be used in one part cannot be used at all.
pub fn join(parts: &[Rows], widths: &[usize], limit: usize) -> Option<String> {
    // Of each stamp, the rows of each part. Several rows of one stamp keep their order.
    let mut joined: BTreeMap<Stamp, Vec<Vec<&super::Row>>> = BTreeMap::new();
    for (place, part) in parts.iter().enumerate() {
        for row in &part.rows {
            joined.entry(row.stamp).or_insert_with(|| vec![Vec::new(); parts.len()])[place].push(row);
        }
    }
    let bad: BTreeSet<Stamp> = parts.iter().flat_map(|part| part.flaws.stamps.iter().copied()).collect();
    let mut out = String::from("[");
    for (stamp, rows) in joined.iter().filter(|(stamp, _)| !bad.contains(stamp)) {
        for number in 0..rows.iter().map(Vec::len).max().unwrap_or_default() {
            let _ = write!(out, "[\"{stamp}\"");
            for ((part, rows), width) in parts.iter().zip(rows).zip(widths) {
                match rows.get(number) {
                    Some(row) => part.values(row).for_each(|value| {
                        out.push(',');
                        out.push_str(value.unwrap_or("null"));
                    }),
                    None => (0..*width).for_each(|_| out.push_str(",null")),
                }
            }
            out.push_str("],");
        }
        if out.len() > limit {
            return None;
        }
    }
    // As rows that cannot be used, with their stamps.
    for stamp in bad {
        let _ = write!(out, "[\"{stamp}\"],");
    }
    let unstamped = parts.iter().map(|part| part.flaws.unstamped()).max().unwrap_or_default();
    (0..unstamped).for_each(|_| out.push_str("[],"));
    out.truncate(out.trim_end_matches(',').len());
    out.push(']');
    Some(out)
}

/// What is known of an answer that was too large, as the beginning of an answer with all channels: some of the stamps, with
/// the first and the last one.
pub fn prefix(rows: &Rows, channels: usize) -> String {
    const MOST: usize = 1_000;
    let nothing = ",null".repeat(channels);
    let (step, last) = (rows.rows.len() / MOST + 1, rows.rows.last());
    rows.rows.iter().step_by(step).chain(last).fold(String::from("["), |mut out, row| {
        let _ = write!(out, "[\"{}\"{nothing}],", row.stamp);
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str, channels: usize) -> Rows {
        Rows::read(text.to_owned().into(), channels).unwrap()
    }

    #[test]
    fn channels_are_divided_by_what_fits() {
        let channels: Vec<_> = (0..7).map(|number| format!("ch{number}")).collect();
        assert_eq!(ranges(&channels, |some| some.len() <= 3), [0..3, 3..6, 6..7]);
        assert_eq!(ranges(&channels[..2], |_| false), [0..1, 1..2]);
        assert!(ranges(&[], |_| true).is_empty());
    }

    #[test]
    fn columns_are_joined_by_stamp() {
        let parts = [
            rows(r#"[["2017012",1,"a"],["2017011",2,"NAN"],["2017012",3,4]]"#, 2),
            rows(r#"[["2017011",5],["2017012",6],["2017013",7]]"#, 1),
        ];
        assert!(!have_same_stamps(&parts));
        let expected = r#"[["2017011",2,null,5],["2017012",1,"a",6],["2017012",3,4,null],["2017013",null,null,7]]"#;
        assert_eq!(join(&parts, &[2, 1], 1_000).as_deref(), Some(expected));
        assert_eq!(join(&parts, &[2, 1], 20), None);
        assert!(have_same_stamps(&[rows(expected, 3), rows(expected, 3)]));
        assert_eq!(join(&[rows("[]", 2), rows("[]", 1)], &[2, 1], 1_000).as_deref(), Some("[]"));
    }

    #[test]
    fn a_row_that_is_bad_in_one_part_is_bad() {
        let parts = [rows(r#"[["2017011",1],["2017012",007],7]"#, 1), rows(r#"[["2017011",1],["2017012",2]]"#, 1)];
        let joined = rows(&join(&parts, &[1, 1], 1_000).unwrap(), 2);
        assert_eq!((joined.rows.len(), joined.flaws.count, joined.flaws.stamps.len()), (1, 2, 1));
    }

    #[test]
    fn a_prefix_tells_its_stamps() {
        let known = Rows::read_prefix(br#"[["2017011",1],["2017012",2],["20"#, 1);
        let stamps: Vec<_> =
            Rows::read_prefix(prefix(&known, 3).as_bytes(), 3).rows.iter().map(|row| row.stamp).collect();
        assert_eq!(
            (stamps.first(), stamps.last()),
            (Stamp::parse("2017011").as_ref(), Stamp::parse("2017012").as_ref())
        );
    }
}
