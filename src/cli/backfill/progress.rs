//! What is printed: progress to standard error, as a bar on a terminal and else as a line now and then; the summary to
//! standard output. With `--json` both are lines of JSON on standard output.

use std::{
    cell::{Cell, RefCell},
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use chrono::{DateTime, Utc};
use indicatif::{HumanBytes, HumanCount, HumanDuration, ProgressBar, ProgressStyle};
use iothub_connector::{
    forward::{
        Report,
        backfill::{Measured, position},
    },
    ledger::{Backfill, Cursor},
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::range::text;
use crate::cli::table;

/// Between two lines, where there is no bar.
const LINES: Duration = Duration::from_secs(10);
const TEMPLATE: &str = "{prefix} [{bar:25}] {percent:>3} %, {msg}, {eta} left";

pub struct Progress {
    is_json: bool,
    /// Where standard error is a terminal.
    bar: Option<ProgressBar>,
    range: RefCell<Option<(DateTime<Utc>, DateTime<Utc>)>>,
    /// Whether the bar knows where this run began: what an earlier one has done says nothing about the speed.
    is_placed: Cell<bool>,
    last_line: Cell<Option<Instant>>,
}

/// What this process has done for a site.
#[derive(Debug, Default)]
pub struct Totals {
    pub requests: usize,
    /// Of the backend's answers.
    pub bytes: usize,
    /// Recorded; in a dry run: counted.
    pub rows: usize,
    pub messages: usize,
    /// Acknowledged by the hub.
    pub forwarded: usize,
    pub rejected: usize,
    pub bad_rows: usize,
    pub waiting: usize,
}

impl Totals {
    pub fn add(&mut self, report: &Report) {
        self.requests += report.requests;
        self.bytes += report.bytes;
        self.rows += report.rows_recorded;
        self.forwarded += report.messages_forwarded;
        self.rejected += report.messages_rejected;
        self.bad_rows += report.bad_rows;
        self.waiting = report.waiting;
    }

    pub fn add_measured(&mut self, measured: &Measured) {
        self.bytes += measured.bytes;
        self.rows += measured.rows;
        self.messages += measured.messages;
        self.bad_rows += measured.bad_rows;
    }
}

/// What a site's range came to.
pub struct Summary<'a> {
    pub site: &'a str,
    pub from: DateTime<Utc>,
    pub until: DateTime<Utc>,
    /// With what earlier processes did.
    pub backfill: Option<&'a Backfill>,
    pub totals: &'a Totals,
    pub took: Duration,
}

impl Progress {
    pub fn new(is_json: bool) -> Self {
        let style = ProgressStyle::with_template(TEMPLATE).map(|style| style.progress_chars("=> "));
        let has_bar = !is_json && io::stderr().is_terminal();
        let bar = style.ok().filter(|_| has_bar).map(|style| ProgressBar::new(0).with_style(style));
        Self { is_json, bar, range: RefCell::default(), is_placed: Cell::default(), last_line: Cell::default() }
    }

    /// A site's range begins.
    pub fn begin(&self, site: &str, from: DateTime<Utc>, until: DateTime<Utc>) {
        self.range.replace(Some((from, until)));
        self.is_placed.set(false);
        self.last_line.set(Some(Instant::now()));
        if let Some(bar) = &self.bar {
            bar.reset();
            bar.set_length(seconds(until - from));
            bar.set_prefix(table::plain(site));
            bar.set_message(format!("from {}", text(from)));
        }
    }

    /// The backfill has come so far.
    pub fn at(&self, site: &str, cursor: &Cursor, totals: &Totals, took: Duration) -> io::Result<()> {
        let Some(position) = position(cursor) else { return Ok(()) };
        self.came_to(site, position.time(), totals, took)
    }

    /// The counting has come so far.
    pub fn measured(&self, site: &str, at: DateTime<Utc>, totals: &Totals, took: Duration) -> io::Result<()> {
        self.came_to(site, at, totals, took)
    }

    fn came_to(&self, site: &str, at: DateTime<Utc>, totals: &Totals, took: Duration) -> io::Result<()> {
        let Some((from, until)) = *self.range.borrow() else { return Ok(()) };
        let rate = totals.rows as f64 / took.as_secs_f64().max(0.001);
        if self.is_json {
            return print(&json!({
                "type": "progress", "site": site, "from": text(from), "until": text(until), "at": text(at),
                "rows": totals.rows, "messagesForwarded": totals.forwarded, "waiting": totals.waiting,
                "rowsPerSecond": rate.round(), "seconds": took.as_secs_f64(),
            }));
        }
        let done = seconds(at - from);
        let message =
            format!("{} rows, {}/s, at {}", HumanCount(totals.rows as u64), HumanCount(rate as u64), text(at));
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            if !self.is_placed.replace(true) {
                bar.reset_eta();
            }
            bar.set_message(message);
        } else if self.last_line.get().is_none_or(|last| last.elapsed() >= LINES) {
            self.last_line.set(Some(Instant::now()));
            let all = seconds(until - from).max(1);
            eprintln!("{}: {} %, {message}", table::plain(site), done * 100 / all);
        }
        Ok(())
    }

    /// Something for people to know.
    pub fn remark(&self, site: &str, said: &str) {
        self.say(&format!("{site}: {said}"));
    }

    fn say(&self, said: &str) {
        let said = table::plain(said);
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{said}")),
            None => eprintln!("{said}"),
        }
    }

    /// All of the range is at the hub, but for what it says.
    pub fn finished(&self, summary: &Summary<'_>) -> io::Result<()> {
        let Summary { site, from, until, backfill, totals, took } = summary;
        self.clear();
        let (rows, messages) = backfill.map_or((0, 0), |backfill| (backfill.rows, backfill.messages));
        if self.is_json {
            return print(&json!({
                "type": "summary", "site": site, "from": text(*from), "until": text(*until), "isFinished": true,
                "rows": rows, "messages": messages, "rowsNow": totals.rows, "messagesForwardedNow": totals.forwarded,
                "messagesRejected": totals.rejected, "badRows": totals.bad_rows, "requests": totals.requests,
                "bytes": totals.bytes, "seconds": took.as_secs_f64(),
            }));
        }
        let mut said = format!(
            "{site}: {} rows in {} messages from {} to {}, {} fetched, in {}",
            HumanCount(rows),
            HumanCount(messages),
            text(*from),
            text(*until),
            HumanBytes(totals.bytes as u64),
            time(*took),
        );
        if totals.rows as u64 != rows {
            said +=
                &format!("; {} of the rows were recorded before", HumanCount(rows.saturating_sub(totals.rows as u64)));
        }
        said += &losses(site, totals);
        print_line(&said)
    }

    /// A dry run has ended.
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
            "{site}: {} rows from {} to {}, which make {} messages; {} fetched, in {}; nothing is recorded or sent (--dry-run)",
            HumanCount(totals.rows as u64),
            text(*from),
            text(*until),
            HumanCount(totals.messages as u64),
            HumanBytes(totals.bytes as u64),
            time(*took),
        );
        if totals.bad_rows > 0 {
            said += &format!("; {} rows cannot be used", totals.bad_rows);
        }
        print_line(&said)
    }

    /// There is nothing to do.
    pub fn is_done(&self, site: &str, cursor: &Cursor, was_open: bool) -> io::Result<()> {
        let Some(backfill) = &cursor.backfill else { return Ok(()) };
        if self.is_json {
            return print(&json!({
                "type": "summary", "site": site, "from": text(backfill.from), "until": text(backfill.until),
                "isFinished": backfill.finished_at.is_some(), "isDropped": backfill.dropped_at.is_some(),
                "rows": backfill.rows, "messages": backfill.messages, "rowsNow": 0, "messagesForwardedNow": 0,
            }));
        }
        let (what, when) = match (backfill.finished_at, backfill.dropped_at) {
            (Some(at), _) => ("is done since", at),
            (None, Some(at)) => ("was dropped at", at),
            (None, None) => return Ok(()),
        };
        let later = if was_open { "; for later rows give --until" } else { "" };
        print_line(&format!(
            "{site}: the backfill from {} to {} {what} {} ({} rows in {} messages): --again fetches it once more{later}",
            text(backfill.from),
            text(backfill.until),
            text(when),
            HumanCount(backfill.rows),
            HumanCount(backfill.messages),
        ))
    }

    /// A backfill is given up.
    pub fn dropped(&self, summary: &Summary<'_>, rejected: usize) -> io::Result<()> {
        let Summary { site, from, until, .. } = summary;
        if self.is_json {
            return print(&json!({
                "type": "summary", "site": site, "from": text(*from), "until": text(*until), "isDropped": true,
                "messagesRejected": rejected,
            }));
        }
        print_line(&format!(
            "{site}: the backfill from {} to {} is dropped; {rejected} messages that waited are marked as rejected",
            text(*from),
            text(*until)
        ))
    }

    /// A site's backfill cannot go on.
    pub fn failed(&self, site: &str, error: &anyhow::Error) -> io::Result<()> {
        self.clear();
        self.say(&format!("error: {site}: {error:#}"));
        if self.is_json {
            return print(&json!({ "type": "failure", "site": site, "error": format!("{error:#}") }));
        }
        Ok(())
    }

    pub fn interrupted(&self) {
        self.clear();
        eprintln!("stopped: the same command goes on; what is recorded and not yet sent goes out then");
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// What is not at the hub, though the backfill is at its end.
fn losses(site: &str, totals: &Totals) -> String {
    let mut said = String::new();
    if totals.rejected > 0 {
        said += &format!(
            "; {} messages were rejected: see iothub-connector polls {site:?} --outcome rejected",
            totals.rejected
        );
    }
    if totals.bad_rows > 0 {
        said += &format!(
            "; {} rows cannot be used: see Result.BadRows in iothub-connector polls {site:?} --json",
            totals.bad_rows
        );
    }
    said
}

fn seconds(duration: chrono::TimeDelta) -> u64 {
    u64::try_from(duration.num_seconds()).unwrap_or_default()
}

fn time(took: Duration) -> String {
    if took < Duration::from_secs(100) {
        format!("{:.1} s", took.as_secs_f64())
    } else {
        HumanDuration(took).to_string()
    }
}

fn print(record: &Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{record}")?;
    out.flush()
}

fn print_line(said: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{}", table::plain(said))
}
