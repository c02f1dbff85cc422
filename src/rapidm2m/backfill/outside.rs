//! Gives a turn the real services, but with a backfill's cursor instead of the site's.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use crate::{
    iot_hub::{Message, delivery::DeliveryError, devices::Owner},
    rapidm2m::{
        FetchError,
        client::{Answer, RowsQuery},
        ledger::{Committed, Cursor, LedgerError, Poll, SiteKey, backfill_id},
        polling::{
            Forwarder,
            outside::{Outside, Services},
        },
    },
};

/// The services with a backfill's cursor in place of the site's cursor.
pub struct BackfillOutside<'a> {
    services: &'a Services,
    from: DateTime<Utc>,
    until: DateTime<Utc>,
}

impl Forwarder {
    /// The same forwarder, for a backfill of the range.
    #[must_use]
    pub fn for_backfill(&self, from: DateTime<Utc>, until: DateTime<Utc>) -> Forwarder<BackfillOutside<'_>> {
        Forwarder {
            outside: BackfillOutside { services: &self.outside, from, until },
            channels: self.channels.clone(),
            histdata: self.histdata,
            start_from: self.start_from,
            // Late rows do not matter here: a range is fetched once.
            overlap: None,
            record_empty_polls: self.record_empty_polls,
        }
    }
}

impl Outside for BackfillOutside<'_> {
    fn now(&self) -> DateTime<Utc> {
        self.services.now()
    }

    async fn rows(&self, query: &RowsQuery<'_>, max_body: usize, limit: Duration) -> Result<Answer, FetchError> {
        self.services.rows(query, max_body, limit).await
    }

    async fn channels(&self, key: &SiteKey, histdata: u8, limit: Duration) -> Result<Vec<String>, FetchError> {
        self.services.channels(key, histdata, limit).await
    }

    fn history_seconds(&self) -> Option<u32> {
        self.services.history_seconds()
    }

    async fn cursor(&self, key: &SiteKey) -> Result<Committed, LedgerError> {
        let id = backfill_id(self.from, self.until);
        let found = self.services.ledger.cursor_with_id(key, &id).await?;
        Ok(found.unwrap_or_else(|| Committed { cursor: Cursor::of_backfill(key, self.from, self.until), etag: None }))
    }

    async fn poll(&self, key: &SiteKey, id: &str) -> Result<Option<Poll>, LedgerError> {
        self.services.poll(key, id).await
    }

    async fn commit(
        &self,
        key: &SiteKey,
        created: &[Poll],
        replaced: &[Poll],
        cursor: &Cursor,
        etag: Option<&str>,
    ) -> Result<String, LedgerError> {
        self.services.commit(key, created, replaced, cursor, etag).await
    }

    async fn send_in_order(
        &self,
        owner: &Owner,
        messages: &[Message],
        provision_until: Instant,
        deadline: Instant,
    ) -> (usize, Result<(), DeliveryError>) {
        self.services.send_in_order(owner, messages, provision_until, deadline).await
    }

    fn confirms(&self) -> bool {
        self.services.confirms()
    }
}
