//! Prints aligned tables for the user, as wide as the terminal.

use std::io::{self, IsTerminal as _, Write};

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table, Width, presets::NOTHING};
use unicode_width::UnicodeWidthStr as _;

/// Blanks between two columns.
const BETWEEN: usize = 2;
/// How far a text below its row is moved to the right.
const INDENT: usize = 4;
/// A column is not made narrower than this, whatever the terminal.
const NARROWEST: usize = 8;

/// Writes a table: a line of heads, then the rows. The columns in `right` (numbers) are aligned to the right. Line breaks
/// and other control characters are escaped.
///
/// On a terminal, or with `COLUMNS` in the environment, it is not wider than that, and a cell continues on the next line at
/// a blank. Otherwise each row is one line, for `grep`.
///
/// # Errors
/// `out` cannot be written.
pub fn write<const N: usize>(
    out: &mut impl Write,
    heads: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
    right: &[usize],
) -> io::Result<()> {
    write_within(out, heads, rows, right, columns())
}

/// Like [`write`], but whatever the terminal, each column has at most the width in `widths`.
///
/// # Errors
/// `out` cannot be written.
#[cfg(feature = "local")]
pub fn write_wrapped<const N: usize>(
    out: &mut impl Write,
    heads: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
    widths: [u16; N],
) -> io::Result<()> {
    let rows: Vec<[String; N]> = rows.into_iter().map(|row| row.map(|cell| plain(&cell))).collect();
    let natural = natural(heads, &rows);
    let widths = std::array::from_fn(|column| natural[column].min(widths[column].into()));
    writeln!(out, "{}", table(heads, &rows, &[], Some(widths)).trim_fmt())
}

/// The width for the output. `None` where it is not read on a screen.
fn columns() -> Option<usize> {
    if io::stdout().is_terminal()
        && let Some((terminal_size::Width(width), _)) = terminal_size::terminal_size()
    {
        return Some(width.into());
    }
    std::env::var("COLUMNS").ok()?.parse().ok()
}

fn write_within<const N: usize>(
    out: &mut impl Write,
    heads: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
    right: &[usize],
    columns: Option<usize>,
) -> io::Result<()> {
    let rows: Vec<[String; N]> = rows.into_iter().map(|row| row.map(|cell| plain(&cell))).collect();
    let Some(columns) = columns else { return writeln!(out, "{}", table(heads, &rows, right, None).trim_fmt()) };
    let (natural, least) = (natural(heads, &rows), least(heads, &rows));
    let is_narrow = total(&least) > columns;
    if is_narrow && total(&natural[..N - 1]) <= columns {
        return write_last_below(out, heads, rows, right, columns);
    }
    let widths = widths(natural, least, columns);
    writeln!(out, "{}", table(heads, &rows, right, Some(widths)).trim_fmt())
}

/// The last column is text for which there is no room beside the others: it is below each row.
fn write_last_below<const N: usize>(
    out: &mut impl Write,
    mut heads: [&str; N],
    mut rows: Vec<[String; N]>,
    right: &[usize],
    columns: usize,
) -> io::Result<()> {
    heads[N - 1] = "";
    let last: Vec<String> = rows.iter_mut().map(|row| std::mem::take(&mut row[N - 1])).collect();
    let table = table(heads, &rows, right, None).trim_fmt();
    let mut lines = table.lines();
    writeln!(out, "{}", lines.next().unwrap_or_default())?;
    for (line, below) in lines.zip(last) {
        writeln!(out, "{line}")?;
        for line in wrapped(&below, columns.saturating_sub(INDENT).max(NARROWEST)) {
            writeln!(out, "{:INDENT$}{line}", "")?;
        }
    }
    Ok(())
}

fn table<const N: usize>(heads: [&str; N], rows: &[[String; N]], right: &[usize], widths: Option<[usize; N]>) -> Table {
    let arrangement = if widths.is_some() { ContentArrangement::Dynamic } else { ContentArrangement::Disabled };
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(arrangement).set_header(heads);
    for row in rows {
        table.add_row(row);
    }
    let fixed = |width: usize| Width::Fixed(u16::try_from(width + BETWEEN).unwrap_or(u16::MAX));
    if let Some(widths) = &widths {
        table.set_width(u16::try_from(total(widths) + BETWEEN).unwrap_or(u16::MAX));
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        // The right padding of each column separates it from the next one.
        column.set_padding((0, BETWEEN as u16));
        if let Some(widths) = &widths {
            column.set_constraint(ColumnConstraint::Absolute(fixed(widths[index])));
        }
        if right.contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// The width of columns and of what is between them.
fn total(widths: &[usize]) -> usize {
    widths.iter().sum::<usize>() + BETWEEN * widths.len().saturating_sub(1)
}

fn natural<const N: usize>(heads: [&str; N], rows: &[[String; N]]) -> [usize; N] {
    std::array::from_fn(|column| texts(&heads, rows, column).map(|text| text.width()).max().unwrap_or_default())
}

/// Of each column, the width that breaks no word.
fn least<const N: usize>(heads: [&str; N], rows: &[[String; N]]) -> [usize; N] {
    let words = |column| texts(&heads, rows, column).flat_map(str::split_whitespace).map(|word| word.width());
    std::array::from_fn(|column| words(column).max().unwrap_or_default())
}

fn texts<'a, const N: usize>(
    heads: &'a [&str; N],
    rows: &'a [[String; N]],
    column: usize,
) -> impl Iterator<Item = &'a str> {
    std::iter::once(heads[column]).chain(rows.iter().map(move |row| row[column].as_str()))
}

/// Takes from the widest column until all fit: first what breaks no word, then what must be.
fn widths<const N: usize>(natural: [usize; N], least: [usize; N], columns: usize) -> [usize; N] {
    let mut widths = natural;
    for least in [least, least.map(|least| least.min(NARROWEST))] {
        while total(&widths) > columns {
            let shrinkable = (0..N).filter(|column| widths[*column] > least[*column]);
            let Some(widest) = shrinkable.max_by_key(|column| widths[*column]) else { break };
            widths[widest] -= 1;
        }
    }
    widths
}

/// The lines of a text, which end at blanks.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut().filter(|line| line.width() + 1 + word.width() <= width) {
            Some(line) => {
                line.push(' ');
                line.push_str(word);
            }
            None => lines.push(word.to_owned()),
        }
    }
    lines
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

    fn written<const N: usize>(
        heads: [&str; N],
        rows: &[[&str; N]],
        right: &[usize],
        columns: Option<usize>,
    ) -> String {
        let mut out = Vec::new();
        let rows = rows.iter().map(|row| row.map(str::to_owned));
        write_within(&mut out, heads, rows, right, columns).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns_line_up_and_a_row_is_one_line() {
        let rows = [["Süd", "7"], ["a\nb", "1000"]];
        let expected = "SITE  ROWS\nSüd      7\na\\nb  1000\n";
        for columns in [None, Some(80)] {
            assert_eq!(written(["SITE", "ROWS"], &rows, &[1], columns), expected);
        }
    }

    #[test]
    fn what_is_too_long_continues_below_at_a_blank() {
        let rows = [["backend", "it cannot be reached"], ["hub", "ok"]];
        let expected = "WHAT     RESULT\nbackend  it cannot be\n         reached\nhub      ok\n";
        assert_eq!(written(["WHAT", "RESULT"], &rows, &[], Some(21)), expected);
    }

    #[test]
    fn no_word_is_broken_as_long_as_all_words_fit() {
        let rows = [["DPSEnrollmentGroupSymmetricKeyDefault", "is set but empty", "give it a value or remove it"]];
        let text = written(["WHAT", "RESULT", "TO DO"], &rows, &[], Some(60));
        assert!(text.lines().all(|line| line.width() <= 60), "{text}");
        let words: Vec<_> = rows[0].iter().flat_map(|cell| cell.split(' ')).collect();
        assert!(words.iter().all(|word| text.split_whitespace().any(|seen| seen == *word)), "{text}");
    }

    #[test]
    fn text_without_room_beside_the_numbers_is_below_its_row() {
        let rows =
            [["2026-01-31T12:00:00.123Z", "200", "unauthorized: the backend"], ["2026-01-31T12:01:00.123Z", "200", ""]];
        let expected = "TIME                      HTTP\n2026-01-31T12:00:00.123Z   200\n    unauthorized: the backend\n\
                        2026-01-31T12:01:00.123Z   200\n";
        assert_eq!(written(["TIME", "HTTP", "WHAT"], &rows, &[1], Some(32)), expected);
    }

    #[test]
    fn a_word_that_is_wider_than_the_terminal_is_broken_and_the_table_still_fits() {
        let text = written(["URL"], &[["https://a-very-long-name.example.com/and/a/path"]], &[], Some(20));
        assert!(text.lines().all(|line| line.width() <= 20), "{text}");
    }
}
