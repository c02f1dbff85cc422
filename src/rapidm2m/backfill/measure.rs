//! Tells the operator what a backfill would fetch, without recording or sending anything.

use super::{
    Run,
    stretch::{parts, read},
};
use crate::rapidm2m::{
    FetchError, Selection, Site, Stamp,
    client::Limit,
    ledger::{Committed, Cursor},
    polling::{Forwarder, Limits, Report, turn::Turn, world::World},
};

/// The content of a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measured {
    pub rows: usize,
    pub messages: usize,
    /// Size of the backend's answers.
    pub bytes: usize,
    pub bad_rows: usize,
    /// The first moment that was not looked at.
    pub until: Stamp,
}

impl<W: World> Forwarder<W> {
    /// Fetches the window at `position` and counts its content. Does not read or write the ledger.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn measure(
        &self,
        site: &Site,
        run: &mut Run,
        position: Stamp,
        limits: Limits,
    ) -> Result<Measured, FetchError> {
        let channels = match (&self.channels, run.memory.channels.take()) {
            (Selection::Named(channels), _) => channels.clone(),
            (Selection::All, Some((_, channels))) => channels,
            (Selection::All, None) => {
                let limit = Limit { until: limits.ask_until, answer: limits.answer };
                self.world.channels(site, self.histdata, limit).await?
            }
        };
        let Run { range, memory, grid } = run;
        // Used for the request only, and never written.
        let committed = Committed { cursor: Cursor::new(&site.key), etag: None };
        let report = Report::default();
        let mut turn = Turn {
            forwarder: self,
            site,
            range: Some(*range),
            memory,
            committed,
            report,
            limits,
            can_send: false,
            is_cursor_kept: true,
        };
        let (_, window, answer) = turn.fetch(grid, position, &channels).await.map_err(|(_, error)| error)?;
        let size = answer.body.len();
        let rows = read(answer, &channels, &window, position).await?;
        let messages = parts(site, &window, &rows, &channels).count();
        let bytes = turn.report.bytes;
        grid.fitted(&window, size);
        memory.channels = Some((tokio::time::Instant::now(), channels.clone()));
        let until = window.span.until;
        Ok(Measured { rows: rows.rows.len(), messages, bytes, bad_rows: rows.flaws.count, until })
    }
}
