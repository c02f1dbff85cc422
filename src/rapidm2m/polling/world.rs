//! Separates a turn from the outside world, so that tests can replace it. There are two implementations: the real
//! one, and the one in which `tests/model` tries all interleavings of the protocol.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant as WallInstant},
};

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use super::source::Source;
use crate::{
    iot_hub::{
        Message,
        delivery::{Delivery, DeliveryError},
        devices::Owner,
    },
    rapidm2m::{
        FetchError, Site,
        client::{Answer, Limit, MAX_BODY, RowsQuery},
        directory::Directory,
        ledger::{BackfillRange, Changes, Committed, Cursor, Ledger, LedgerError, Poll, SiteKey},
        site::Listed,
    },
    support::{clock::Clock, meter::Meters},
};

/// The backend, the ledger, the hub and the clock. Crash safety depends on what these operations promise.
pub trait World: Sync {
    fn now(&self) -> DateTime<Utc>;

    /// How long something took.
    fn elapsed(&self, since: Instant) -> Duration {
        since.elapsed()
    }

    /// See [`Source::rows`].
    fn rows(
        &self,
        query: &RowsQuery<'_>,
        max_body: usize,
        limit: Limit,
    ) -> impl Future<Output = Result<Answer, FetchError>> + Send;

    /// See [`Source::channels`].
    fn channels(
        &self,
        site: &Site,
        histdata: u8,
        limit: Limit,
    ) -> impl Future<Output = Result<Vec<String>, FetchError>> + Send;

    /// See [`Ledger::history_seconds`].
    fn history_seconds(&self) -> Option<u32>;

    /// See [`Ledger::cursor`].
    fn cursor(
        &self,
        key: &SiteKey,
        range: Option<BackfillRange>,
    ) -> impl Future<Output = Result<Committed, LedgerError>> + Send;

    /// See [`Ledger::poll`].
    fn poll(&self, key: &SiteKey, id: &str) -> impl Future<Output = Result<Option<Poll>, LedgerError>> + Send;

    /// Writes all or nothing, and only if the cursor is unchanged since it was read: see [`Ledger::commit`].
    fn commit(
        &self,
        key: &SiteKey,
        created: &[Poll],
        replaced: &[Poll],
        cursor: &Cursor,
        etag: Option<&str>,
    ) -> impl Future<Output = Result<String, LedgerError>> + Send;

    /// Why nothing of this owner is sent now, as far as is known: see [`Delivery::closed`].
    fn closed(&self, owner: &Owner) -> Option<DeliveryError>;

    /// Sends in order. Returns how many messages, counted from the first, are acknowledged: see
    /// [`Delivery::send_in_order`].
    fn send_in_order(
        &self,
        owner: &Owner,
        messages: &[Message],
        provision_until: Instant,
        deadline: Instant,
    ) -> impl Future<Output = (usize, Result<(), DeliveryError>)> + Send;

    /// Whether the transport can know that a message is acknowledged: see [`crate::iot_hub::Sender::confirms`].
    fn confirms(&self) -> bool;
}

/// The real services.
pub struct Services {
    pub source: Source,
    pub ledger: Arc<Ledger>,
    pub delivery: Delivery,
    pub clock: Clock,
    /// Counts and times of all these operations.
    pub meters: Arc<Meters>,
}

impl Services {
    /// See [`Source::sites`].
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn sites(&self, customer: &str, limit: Limit) -> Result<Vec<Listed>, FetchError> {
        let began = WallInstant::now();
        let sites = self.source.sites(customer, limit).await;
        self.measure_request(began, 0, sites.as_ref().err());
        sites
    }

    /// See [`Ledger::directory`].
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub async fn directory(&self, customer: &str) -> Result<Directory, LedgerError> {
        self.measured(self.ledger.directory(customer)).await
    }

    /// See [`Ledger::changes`].
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub async fn changes(&self, customer: &str, as_of: i64) -> Result<Changes, LedgerError> {
        self.measured(self.ledger.changes(customer, as_of)).await
    }

    fn measure_request(&self, began: WallInstant, bytes: usize, error: Option<&FetchError>) {
        // In emulation mode there is no backend. What the gate holds back is not a request.
        let is_request = !matches!(error, Some(FetchError::Held { .. }));
        if let (Source::Backend(_), true) = (&self.source, is_request) {
            self.meters.backend.count(began.elapsed(), bytes, error.map(FetchError::kind).as_ref());
        }
    }

    /// Measures an operation of the ledger. A conflict with a faster poller is not a failure.
    async fn measured<T>(
        &self,
        operation: impl Future<Output = Result<T, LedgerError>> + Send,
    ) -> Result<T, LedgerError> {
        let began = WallInstant::now();
        let result = operation.await;
        let failure = result.as_ref().err().filter(|error| !matches!(error, LedgerError::Conflict));
        self.meters.ledger.count(began.elapsed(), 0, failure.map(LedgerError::kind).as_ref());
        result
    }
}

impl World for Services {
    fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    async fn rows(&self, query: &RowsQuery<'_>, max_body: usize, limit: Limit) -> Result<Answer, FetchError> {
        let began = WallInstant::now();
        let answer = self.source.rows(query, max_body, limit).await;
        match &answer {
            Ok(Answer { body, .. }) => self.measure_request(began, body.len(), None),
            // The window was too wide, and will be made narrower.
            Err(FetchError::TooLarge { prefix, .. }) if max_body < MAX_BODY => {
                self.measure_request(began, prefix.len(), None)
            }
            Err(error) => self.measure_request(began, 0, Some(error)),
        }
        answer
    }

    async fn channels(&self, site: &Site, histdata: u8, limit: Limit) -> Result<Vec<String>, FetchError> {
        let began = WallInstant::now();
        let channels = self.source.channels(&site.key.customer, site.path(), histdata, limit).await;
        self.measure_request(began, 0, channels.as_ref().err());
        channels
    }

    fn history_seconds(&self) -> Option<u32> {
        self.ledger.history_seconds()
    }

    async fn cursor(&self, key: &SiteKey, range: Option<BackfillRange>) -> Result<Committed, LedgerError> {
        self.measured(self.ledger.cursor(key, range)).await
    }

    async fn poll(&self, key: &SiteKey, id: &str) -> Result<Option<Poll>, LedgerError> {
        self.measured(self.ledger.poll(key, id)).await
    }

    async fn commit(
        &self,
        key: &SiteKey,
        created: &[Poll],
        replaced: &[Poll],
        cursor: &Cursor,
        etag: Option<&str>,
    ) -> Result<String, LedgerError> {
        self.measured(self.ledger.commit(key, created, replaced, cursor, etag)).await
    }

    fn closed(&self, owner: &Owner) -> Option<DeliveryError> {
        self.delivery.closed(owner)
    }

    async fn send_in_order(
        &self,
        owner: &Owner,
        messages: &[Message],
        provision_until: Instant,
        deadline: Instant,
    ) -> (usize, Result<(), DeliveryError>) {
        self.delivery.send_in_order(owner, messages, provision_until, deadline).await
    }

    fn confirms(&self) -> bool {
        self.delivery.sender.confirms()
    }
}
