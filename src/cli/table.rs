//! Prints aligned tables for the user.

use std::io::{self, Write};

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table, Width, presets::NOTHING};

/// Writes a table: a line of heads, then one line per row. The columns in `right` (numbers) are aligned to the right.
/// Each cell stays on one line: line breaks and other control characters are escaped.
///
/// # Errors
/// `out` cannot be written.
pub fn write<const N: usize>(
    out: &mut impl Write,
    heads: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
    right: &[usize],
) -> io::Result<()> {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(heads);
    for row in rows {
        table.add_row(row.map(|cell| plain(&cell)));
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        // The right padding of each column separates it from the next one by two blanks.
        column.set_padding((0, 2));
        if right.contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    writeln!(out, "{}", table.trim_fmt())
}

/// Like [`write`], but each column has at most the width in `widths`. Longer text continues on the next line of its
/// cell.
///
/// # Errors
/// `out` cannot be written.
pub fn write_wrapped<const N: usize>(
    out: &mut impl Write,
    heads: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
    widths: [u16; N],
) -> io::Result<()> {
    const BETWEEN: u16 = 2;
    let mut table = Table::new();
    let width = widths.iter().map(|width| width + BETWEEN).sum();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_width(width).set_header(heads);
    for row in rows {
        table.add_row(row.map(|cell| plain(&cell)));
    }
    for (column, width) in table.column_iter_mut().zip(widths) {
        column.set_padding((0, BETWEEN)).set_constraint(ColumnConstraint::UpperBoundary(Width::Fixed(width + BETWEEN)));
    }
    writeln!(out, "{}", table.trim_fmt())
}

/// Escapes control characters: names come from outside and must not start a new line or move the terminal's cursor.
pub fn plain(text: &str) -> String {
    text.chars()
        .flat_map(|letter| if letter.is_control() { letter.escape_default().collect() } else { vec![letter] })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_a_row_is_one_line() {
        let mut out = Vec::new();
        let rows = [["Süd".into(), "7".into()], ["a\nb".into(), "1000".into()]];
        write(&mut out, ["SITE", "ROWS"], rows, &[1]).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "SITE  ROWS\nSüd      7\na\\nb  1000\n");
    }

    #[test]
    fn what_is_too_long_goes_on_below() {
        let mut out = Vec::new();
        let rows = [["backend".into(), "it cannot be reached".into()], ["hub".into(), "ok".into()]];
        write_wrapped(&mut out, ["WHAT", "RESULT"], rows, [8, 12]).unwrap();
        let expected = "WHAT     RESULT\nbackend  it cannot be\n         reached\nhub      ok\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
