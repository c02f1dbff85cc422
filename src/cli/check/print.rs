//! Prints the report as a table for the user or as lines of JSON.

use std::io::{self, Write};

use serde::Serialize;

use super::report::{Row, Summary, Verdict};
use crate::cli::table;

pub fn table(rows: &[Row], out: &mut impl Write) -> io::Result<()> {
    let cells = rows.iter().map(|row| {
        let verdict = match row.result {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Failed => "failed",
            Verdict::Skipped => "skipped",
        };
        let result = if row.text.is_empty() { verdict.to_owned() } else { format!("{verdict}: {}", row.text) };
        [row.what.clone(), result, row.to_do.clone().unwrap_or_default()]
    });
    table::write(out, ["WHAT", "RESULT", "TO DO"], cells, &[])?;
    let Summary { ok, warning, failed, skipped } = Summary::of(rows);
    let warnings = if warning == 1 { "warning" } else { "warnings" };
    writeln!(out, "\n{ok} ok, {warning} {warnings}, {failed} failed, {skipped} skipped")
}

pub fn json(rows: &[Row], out: &mut impl Write) -> io::Result<()> {
    #[derive(Serialize)]
    struct Last {
        summary: Summary,
    }
    for row in rows {
        serde_json::to_writer(&mut *out, row)?;
        writeln!(out)?;
    }
    serde_json::to_writer(&mut *out, &Last { summary: Summary::of(rows) })?;
    writeln!(out)
}
