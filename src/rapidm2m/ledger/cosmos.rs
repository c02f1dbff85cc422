//! Reads and writes the ledger's documents in Cosmos DB for NoSQL.

use std::{sync::Arc, time::Duration};

use azure_core::http::StatusCode;
use azure_data_cosmos::{
    PartitionKey, TransactionalBatch,
    clients::ContainerClient,
    error::CosmosError,
    models::{ContainerProperties, IndexingPolicy, PartitionKeyDefinition, TimeToLive},
    options::{
        BatchOptions, BatchReplaceOptions, ItemReadOptions, OperationOptions, OperationOptionsBuilder, Precondition,
        ThrottlingRetryOptionsBuilder,
    },
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::Instant;

use super::{
    backfill::BackfillRange,
    documents::{CURSOR_ID, Cursor, Poll, SiteKey},
};
use crate::{
    cosmos::{self, Account, Container, Failure, Found, NEVER, Requirements, Trial, is, within},
    support::{adaptive::Adaptive, backoff::Policy, kind::Kind, slots::Slots},
};

/// Limits of one transaction. The service accepts 2 MB and 100 operations.
/// <https://learn.microsoft.com/azure/cosmos-db/concepts-limits>
pub const MAX_BATCH_BYTES: usize = 1_800_000;
pub const MAX_BATCH_POLLS: usize = 90;

pub const PARTITION_KEY: [&str; 2] = ["/Customer_Id", "/Site_Id"];
pub const REQUIREMENTS: Requirements = Requirements {
    partition_key: &PARTITION_KEY,
    expiry_means: "records that wait for the hub would expire",
    expiry_remedy: "set the default time to live to -1 (on, no default)",
};
/// Most of a record's size, and never searched: leaving it out of the index halves the price of a write.
pub const MESSAGE_PATH: &str = "/IoTHubMessage/?";

/// How many operations are in flight at first, at least and at most. When the service throttles, they become fewer.
const OPERATIONS: (usize, usize, usize) = (256, 4, 1_000);
/// The waits of an operation that the service throttles, and for how long it is tried.
const THROTTLED: Policy = Policy::jittered(Duration::from_millis(100), Duration::from_secs(4));
const PATIENCE: Duration = Duration::from_secs(10);

/// Why the ledger could not be read or written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LedgerError {
    /// Nothing was written, because another poller wrote first.
    #[error("another poller recorded this site at the same time")]
    Conflict,
    #[error(transparent)]
    Cosmos(#[from] Failure),
    #[error("the document {id} of site {site} is not one of ours: {text}")]
    Foreign { id: String, site: String, text: String },
}

impl LedgerError {
    pub(super) fn foreign(key: &SiteKey, id: &str, error: &serde_json::Error) -> Self {
        Self::Foreign { id: id.to_owned(), site: key.site.clone(), text: error.to_string() }
    }

    /// A short name for summaries.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Conflict => Kind::LedgerConflict,
            Self::Cosmos(failure) => failure.kind(),
            Self::Foreign { .. } => Kind::LedgerForeignDocument,
        }
    }
}

/// A cursor as the ledger has it. `etag` is `None` if the ledger does not have it yet.
#[derive(Clone, Debug)]
pub struct Committed {
    pub cursor: Cursor,
    pub etag: Option<String>,
}

/// Where polls are recorded.
#[derive(Clone, Debug)]
pub struct Options {
    pub account: cosmos::Options,
    pub container: String,
    /// How many days records of finished polls are kept; `None`: for ever.
    pub history_days: Option<u32>,
}

pub struct Ledger {
    account: Arc<Account>,
    name: String,
    history_days: Option<u32>,
    container: Container,
    slots: Slots,
    patience: Duration,
}

impl Ledger {
    #[must_use]
    pub fn new(options: Options) -> Self {
        let Options { account, container: name, history_days } = options;
        let (first, lowest, highest) = OPERATIONS;
        Self {
            account: Arc::new(Account::new(account)),
            name,
            history_days,
            container: Container::default(),
            slots: Slots::new(Adaptive::for_overload(first, lowest, highest)),
            patience: PATIENCE,
        }
    }

    /// For so long an operation is tried while the service throttles.
    #[must_use]
    pub fn patient(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The account and its connections, for other containers of the same database.
    #[must_use]
    pub fn account(&self) -> Arc<Account> {
        self.account.clone()
    }

    /// Seconds after which the service removes the record of a finished poll; `None` if it keeps it.
    #[must_use]
    pub fn history_seconds(&self) -> Option<u32> {
        self.history_days.map(|days| days * 24 * 60 * 60)
    }

    /// The site's cursor, or the cursor of its backfill of a range. It is new if the ledger has none.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn cursor(&self, key: &SiteKey, range: Option<BackfillRange>) -> Result<Committed, LedgerError> {
        let id = range.map(BackfillRange::document_id);
        let found = self.read(key, id.as_deref().unwrap_or(CURSOR_ID)).await?;
        let new = || match range {
            Some(range) => Cursor::of_backfill(key, range),
            None => Cursor::new(key),
        };
        Ok(found.map_or_else(|| Committed { cursor: new(), etag: None }, |(cursor, etag)| Committed { cursor, etag }))
    }

    /// The poll with this id, if it (still) exists.
    ///
    /// # Errors
    /// The ledger cannot be read; [`LedgerError::Foreign`] if the document is not a poll.
    pub async fn poll(&self, key: &SiteKey, id: &str) -> Result<Option<Poll>, LedgerError> {
        Ok(self.read(key, id).await?.map(|(poll, _)| poll))
    }

    /// Carries out an operation, and again while the service throttles it: then it was not carried out.
    async fn throttled<T, F>(&self, operation: impl Fn() -> F) -> Result<T, LedgerError>
    where
        F: Future<Output = Result<T, LedgerError>>,
    {
        let (began, mut failures) = (Instant::now(), 0);
        loop {
            let mut slot = self.slots.slot().await;
            slot.begin();
            // Boxed: the SDK's futures are large.
            let result = within(Box::pin(operation())).await;
            let is_throttled = matches!(result, Err(LedgerError::Cosmos(Failure::Throttled(_))));
            slot.end(is_throttled);
            failures += 1;
            let wait = THROTTLED.wait(failures);
            if !is_throttled || began.elapsed() + wait >= self.patience {
                return result;
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// A document and its ETag, if it exists.
    async fn read<T: DeserializeOwned>(
        &self,
        key: &SiteKey,
        id: &str,
    ) -> Result<Option<(T, Option<String>)>, LedgerError> {
        let response = self.throttled(async || {
            let options = ItemReadOptions::default().with_operation_options(once());
            match self.container().await?.read_item(partition(key), id, Some(options)).await {
                Ok(response) => Ok(Some(response)),
                Err(error) if is(&error, StatusCode::NotFound) => Ok(None),
                Err(error) => Err(self.explain(&error)),
            }
        });
        let Some(response) = response.await? else { return Ok(None) };
        let etag = response.headers().etag().map(ToString::to_string);
        // An answer without the id is not a damaged document: something on the way has changed it.
        let document = response.into_model::<Value>().ok().filter(|document| document["id"] == *id);
        let Some(document) = document else {
            let text = format!("the answer to reading document {id} is not that document: is a proxy in between?");
            return Err(Failure::Other(text).into());
        };
        let read = serde_json::from_value(document).map_err(|error| LedgerError::foreign(key, id, &error))?;
        Ok(Some((read, etag)))
    }

    /// Creates and replaces polls and writes the cursor: all or nothing, and only if the cursor is unchanged since it
    /// was read. Returns the cursor's new ETag.
    ///
    /// # Errors
    /// [`LedgerError::Conflict`] if another poller was faster: nothing is written. After any other error it is
    /// unknown whether anything was written: read the cursor again.
    pub async fn commit(
        &self,
        key: &SiteKey,
        created: &[Poll],
        replaced: &[Poll],
        cursor: &Cursor,
        etag: Option<&str>,
    ) -> Result<String, LedgerError> {
        let batch = batch(key, created, replaced, cursor, etag).map_err(|error| self.explain(&error))?;
        self.throttled(async || self.execute(batch.clone()).await).await
    }

    async fn execute(&self, batch: TransactionalBatch) -> Result<String, LedgerError> {
        let options = BatchOptions::default().with_operation_options(once());
        let executed = self.container().await?.execute_transactional_batch(batch, Some(options)).await;
        let response = executed.map_err(|error| {
            if is(&error, StatusCode::PreconditionFailed) || is(&error, StatusCode::Conflict) {
                return LedgerError::Conflict;
            }
            self.container.forget_if_gone(&error);
            self.explain(&error)
        })?;
        let response = response.into_model().map_err(|error| self.explain(&error))?;
        let results = response.results();
        // A refused batch is also a successful answer: the failed operation has its own status, the others have 424.
        if let Some(fault) = results.iter().find(|result| !result.is_success() && result.status_code() != 424) {
            return Err(match fault.status_code() {
                409 | 412 => LedgerError::Conflict,
                // The cursor, or a poll that was to be replaced, has been deleted.
                404 => LedgerError::Conflict,
                429 => Failure::Throttled("429".into()).into(),
                status => Failure::Other(format!("a transaction was refused with status {status}")).into(),
            });
        }
        match results.last().and_then(|result| result.etag()) {
            Some(etag) if results.iter().all(|result| result.is_success()) => Ok(etag.to_owned()),
            _ => Err(Failure::Other("a transaction was answered without results".into()).into()),
        }
    }

    /// What exists, and whether it can be used. Creates nothing.
    ///
    /// # Errors
    /// The account cannot be used.
    pub async fn inspect(&self) -> Result<Found, Failure> {
        let partition = PartitionKey::from((NEVER.to_owned(), NEVER.to_owned()));
        let document = serde_json::json!({ "id": NEVER, "Customer_Id": NEVER, "Site_Id": NEVER });
        let missing = format!("{NEVER}-missing");
        let batch = TransactionalBatch::new(partition.clone()).create_item(&document);
        let replaced = serde_json::json!({ "id": missing, "Customer_Id": NEVER, "Site_Id": NEVER });
        let batch = batch.and_then(|batch| batch.replace_item(missing.clone(), &replaced, None));
        self.account.inspect(&self.name, Trial { partition_key: &PARTITION_KEY, partition, batch }).await
    }

    /// The container, if it exists.
    pub(super) async fn find(&self) -> Result<Option<ContainerClient>, LedgerError> {
        within(async { Ok(self.account.find(&self.name).await?) }).await
    }

    async fn container(&self) -> Result<ContainerClient, LedgerError> {
        Ok(self.container.get(|| self.account.open(self.properties(), &REQUIREMENTS)).await?)
    }

    fn properties(&self) -> ContainerProperties {
        ContainerProperties::new(self.name.clone(), PartitionKeyDefinition::new(PARTITION_KEY.map(Into::into).to_vec()))
            .with_indexing_policy(
                // These are not searched either. Each channel's name would have an entry.
                IndexingPolicy::default()
                    .with_included_path("/*")
                    .with_excluded_path(MESSAGE_PATH)
                    .with_excluded_path("/Recorded/*")
                    .with_excluded_path("/Activity/*")
                    .with_excluded_path("/Request/*")
                    .with_excluded_path("/Result/*")
                    .with_excluded_path("/Unforwarded/*")
                    .with_excluded_path("/EmptyPolls/*")
                    .with_excluded_path("/Record/*"),
            )
            .with_default_ttl(TimeToLive::NoDefault)
    }

    pub(super) fn explain(&self, error: &CosmosError) -> LedgerError {
        self.account.explain(error, &self.name).into()
    }
}

/// The SDK leaves it to us to try again when the service throttles.
fn once() -> OperationOptions {
    let throttling = ThrottlingRetryOptionsBuilder::new().with_max_retry_count(0).build();
    OperationOptionsBuilder::new().with_throttling_retry_options(throttling).build()
}

fn batch(
    key: &SiteKey,
    created: &[Poll],
    replaced: &[Poll],
    cursor: &Cursor,
    etag: Option<&str>,
) -> Result<TransactionalBatch, CosmosError> {
    let mut batch = TransactionalBatch::new(partition(key));
    for poll in created {
        batch = batch.create_item(poll)?;
    }
    for poll in replaced {
        batch = batch.replace_item(poll.id.clone(), poll, None)?;
    }
    // The cursor comes last, so its ETag is in the last result.
    match etag {
        None => batch.create_item(cursor),
        Some(etag) => {
            let unchanged = BatchReplaceOptions::default().with_precondition(Precondition::if_match(etag));
            batch.replace_item(cursor.id().to_owned(), cursor, Some(unchanged))
        }
    }
}

pub(super) fn partition(key: &SiteKey) -> PartitionKey {
    PartitionKey::from((key.customer.clone(), key.site.clone()))
}
