//! Counts what one process has done for a site, for progress lines and the summary.

use iothub_connector::rapidm2m::{backfill::Measured, polling::Report};

/// What this process has done for a site.
#[derive(Debug, Default)]
pub struct Totals {
    pub requests: usize,
    /// Size of the backend's responses.
    pub bytes: usize,
    /// Rows that were recorded, or in a dry run counted.
    pub rows: usize,
    pub messages: usize,
    /// Messages that the hub has acknowledged.
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
