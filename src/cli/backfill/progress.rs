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
    /// How a bar looks, where standard error is a terminal.
    style: Option<ProgressStyle>,
    /// The one of the site that is served now.
    bar: RefCell<Option<ProgressBar>>,
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
        let style = style.ok().filter(|_| !is_json && io::stderr().is_terminal());
        let (bar, range) = (RefCell::default(), RefCell::default());
        Self { is_json, style, bar, range, is_placed: Cell::default(), last_line: Cell::default() }
    }

    /// A site's range begins.
    pub fn begin(&self, site: &str, from: DateTime<Utc>, until: DateTime<Utc>) {
        self.range.replace(Some((from, until)));
        self.is_placed.set(false);
        self.last_line.set(Some(Instant::now()));
        if let Some(style) = &self.style {
            let bar = ProgressBar::new(seconds(until - from)).with_style(style.clone());
            let bar = bar.with_prefix(table::plain(site)).with_message(format!("from {}", text(from)));
            self.bar.replace(Some(bar));
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
        if let Some(bar) = &*self.bar.borrow() {
            bar.set_message(message);
            bar.set_position(done);
            if !self.is_placed.replace(true) {
                bar.reset_eta();
            }
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
        match &*self.bar.borrow() {
            Some(bar) => bar.suspend(|| eprintln!("{said}")),
            None => eprintln!("{said}"),
        }
    }

    /// All of the range is at the hub, but for what it says.
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

    /// There is nothing to do. Returns whether all of it is at the hub.
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
            None => ("is done since", backfill.finished_at),
        };
        let later = if was_open { ". For later rows give --until" } else { "" };
        print_line(&format!(
            "{site}: the backfill from {} to {} {what} {} ({} in {}{}): --again fetches it once more{later}",
            text(backfill.from),
            text(backfill.until),
            when.map(text).unwrap_or_default(),
            counted(backfill.rows, "row"),
            counted(backfill.messages, "message"),
            losses(site, backfill),
        ))?;
        Ok(is_well)
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
            "{site}: the backfill from {} to {} is dropped; {} that waited marked as rejected",
            text(*from),
            text(*until),
            counted(rejected as u64, "message"),
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
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// What is not at the hub, though the backfill is at its end.
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
