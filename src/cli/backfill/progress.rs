//! Prints progress to standard error: a bar on a terminal, otherwise a line now and then. With `--json` it prints lines
//! of JSON to standard output.

use std::{
    cell::{Cell, RefCell},
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use chrono::{DateTime, Utc};
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use iothub_connector::rapidm2m::{backfill::position, ledger::Cursor};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{range::text, totals::Totals};
use crate::cli::table;

/// Time between two lines if there is no bar.
const LINES: Duration = Duration::from_secs(10);
const TEMPLATE: &str = "{prefix:.20} [{wide_bar}] {percent:>3} %, {msg}, {eta} left";

pub struct Progress {
    pub(super) is_json: bool,
    /// The bar's style. `Some` if standard error is a terminal.
    style: Option<ProgressStyle>,
    /// The bar of the current site.
    bar: RefCell<Option<ProgressBar>>,
    range: RefCell<Option<(DateTime<Utc>, DateTime<Utc>)>>,
    /// Whether the bar knows where this run started. Work of an earlier run must not count towards the speed.
    is_placed: Cell<bool>,
    last_line: Cell<Option<Instant>>,
}

impl Progress {
    pub fn new(is_json: bool) -> Self {
        let style = ProgressStyle::with_template(TEMPLATE).map(|style| style.progress_chars("=> "));
        let style = style.ok().filter(|_| !is_json && io::stderr().is_terminal());
        let (bar, range) = (RefCell::default(), RefCell::default());
        Self { is_json, style, bar, range, is_placed: Cell::default(), last_line: Cell::default() }
    }

    /// The backfill of a site starts.
    pub fn begin(&self, site: &str, from: DateTime<Utc>, until: DateTime<Utc>) {
        self.range.replace(Some((from, until)));
        self.is_placed.set(false);
        self.last_line.set(Some(Instant::now()));
        if let Some(style) = &self.style {
            let bar = ProgressBar::new(seconds(until - from)).with_style(style.clone());
            let bar = bar.with_prefix(table::plain(site)).with_message(format!("from {}", from.format("%Y-%m-%d")));
            self.bar.replace(Some(bar));
        }
    }

    /// The backfill has come to the cursor's position.
    pub fn at(&self, site: &str, cursor: &Cursor, totals: &Totals, took: Duration) -> io::Result<()> {
        let Some(position) = position(cursor) else { return Ok(()) };
        self.came_to(site, position.time(), totals, took)
    }

    /// The counting of a dry run has come to `at`.
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
            bar.set_message(format!("{}/s, at {}", HumanCount(rate as u64), at.format("%Y-%m-%d")));
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

    /// Prints a remark for the user.
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

    /// The backfill of a site cannot go on.
    pub fn failed(&self, site: &str, error: &anyhow::Error) -> io::Result<()> {
        self.clear();
        self.say(&format!("error: {site}: {error:#}"));
        if self.is_json {
            return print(&json!({ "type": "failure", "site": site, "error": format!("{error:#}") }));
        }
        Ok(())
    }

    pub fn interrupted(&self, what_then: &str) {
        self.clear();
        eprintln!("Interrupted. {what_then}");
    }

    pub(super) fn clear(&self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

fn seconds(duration: chrono::TimeDelta) -> u64 {
    u64::try_from(duration.num_seconds()).unwrap_or_default()
}

pub(super) fn print(record: &Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{record}").and_then(|()| out.flush()) {
        // The reader has closed the pipe (`| head`). This is not a reason to stop the backfill.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed,
    }
}
