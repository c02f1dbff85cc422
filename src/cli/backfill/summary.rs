//! Prints the result for a site to standard output: a sentence, or with `--json` a line of JSON.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use chrono::{DateTime, Utc};
use indicatif::{HumanBytes, HumanCount, HumanDuration};
use iothub_connector::rapidm2m::ledger::{Backfill, Cursor};
use serde_json::json;

use super::{
    progress::{Progress, print},
    range::text,
    totals::Totals,
};
use crate::cli::table;

/// The result for a site's range.
pub struct Summary<'a> {
    pub site: &'a str,
    pub from: DateTime<Utc>,
    pub until: DateTime<Utc>,
    /// Includes the work of earlier processes.
    pub backfill: Option<&'a Backfill>,
    pub totals: &'a Totals,
    pub took: Duration,
}

impl Progress {
    /// The backfill is finished: all rows are at the hub, except the losses that are printed.
    pub fn finished(&self, summary: &Summary<'_>) -> io::Result<()> {
        let Summary { site, from, until, backfill: Some(backfill), totals, took } = summary else { return Ok(()) };
        self.clear();
        if self.is_json {
            return print(&json!({
                "type": "summary", "site": site, "from": text(*from), "until": text(*until), "isFinished": true,
                "rows": backfill.rows, "messages": backfill.messages, "rowsNow": totals.rows,
                "messagesForwardedNow": totals.forwarded, "messagesRejected": backfill.rejected,
                "badRows": backfill.bad_rows, "requests": totals.requests, "bytes": totals.bytes,
                "seconds": took.as_secs_f64(),
            }));
        }
        let mut said = format!(
            "{site}: {} in {} from {} to {}, {} fetched, in {}",
            counted(backfill.rows, "row"),
            counted(backfill.messages, "message"),
            text(*from),
            text(*until),
            HumanBytes(totals.bytes as u64),
            time(*took),
        );
        let earlier = backfill.rows.saturating_sub(totals.rows as u64);
        if earlier > 0 {
            said += &format!("; {} recorded before", counted(earlier, "row"));
        }
        print_line(&(said + &losses(site, backfill)))
    }

    pub fn counted(&self, summary: &Summary<'_>) -> io::Result<()> {
        let Summary { site, from, until, totals, took, .. } = summary;
        self.clear();
        if self.is_json {
            return print(&json!({
                "type": "summary", "site": site, "from": text(*from), "until": text(*until), "isDryRun": true,
                "rows": totals.rows, "messages": totals.messages, "badRows": totals.bad_rows, "bytes": totals.bytes,
                "seconds": took.as_secs_f64(),
            }));
        }
        let mut said = format!(
            "{site}: {} from {} to {}, in {}; {} fetched, in {}; nothing is recorded or sent (--dry-run)",
            counted(totals.rows as u64, "row"),
            text(*from),
            text(*until),
            counted(totals.messages as u64, "message"),
            HumanBytes(totals.bytes as u64),
            time(*took),
        );
        if totals.bad_rows > 0 {
            said += &format!("; {} unusable", counted(totals.bad_rows as u64, "row"));
        }
        print_line(&said)
    }

    /// There is nothing to do. Returns whether all rows of the range are at the hub.
    pub fn is_done(&self, site: &str, cursor: &Cursor, was_open: bool) -> io::Result<bool> {
        let Some(backfill) = &cursor.backfill else { return Ok(false) };
        let is_well = backfill.dropped_at.is_none() && backfill.rejected == 0 && backfill.bad_rows == 0;
        if self.is_json {
            print(&json!({
                "type": "summary", "site": site, "from": text(backfill.from), "until": text(backfill.until),
                "isFinished": backfill.finished_at.is_some(), "isDropped": backfill.dropped_at.is_some(),
                "rows": backfill.rows, "messages": backfill.messages, "rowsNow": 0, "messagesForwardedNow": 0,
                "messagesRejected": backfill.rejected, "badRows": backfill.bad_rows,
            }))?;
            return Ok(is_well);
        }
        let (what, when) = match backfill.dropped_at {
            Some(at) => ("was dropped at", Some(at)),
            None => ("finished at", backfill.finished_at),
        };
        let later = if was_open { ". For later rows give --until" } else { "" };
        print_line(&format!(
            "{site}: the backfill from {} to {} {what} {} ({} in {}{}); use --again to repeat{later}",
            text(backfill.from),
            text(backfill.until),
            when.map(text).unwrap_or_default(),
            counted(backfill.rows, "row"),
            counted(backfill.messages, "message"),
            losses(site, backfill),
        ))?;
        Ok(is_well)
    }

    /// The backfill was given up.
    pub fn dropped(&self, summary: &Summary<'_>, rejected: usize) -> io::Result<()> {
        let Summary { site, from, until, .. } = summary;
        if self.is_json {
            return print(&json!({
                "type": "summary", "site": site, "from": text(*from), "until": text(*until), "isDropped": true,
                "messagesRejected": rejected,
            }));
        }
        print_line(&format!(
            "{site}: the backfill from {} to {} is dropped; {} that waited marked as rejected",
            text(*from),
            text(*until),
            counted(rejected as u64, "message"),
        ))
    }
}

/// Rows and messages of a finished backfill that are not at the hub.
fn losses(site: &str, backfill: &Backfill) -> String {
    let mut said = String::new();
    if backfill.rejected > 0 {
        let rejected = counted(backfill.rejected, "message");
        said += &format!("; {rejected} rejected: see iothub-connector polls {site:?} --outcome rejected");
    }
    if backfill.bad_rows > 0 {
        let bad = counted(backfill.bad_rows, "row");
        said += &format!("; {bad} unusable: see Result.BadRows in iothub-connector polls {site:?} --json");
    }
    said
}

fn counted(count: u64, noun: &str) -> String {
    format!("{} {noun}{}", HumanCount(count), if count == 1 { "" } else { "s" })
}

fn time(took: Duration) -> String {
    if took < Duration::from_secs(100) {
        format!("{:.1} s", took.as_secs_f64())
    } else {
        HumanDuration(took).to_string()
    }
}

fn print_line(said: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{}", table::plain(said))
}
