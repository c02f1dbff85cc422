//! The documents in Cosmos DB for NoSQL.

use std::time::Duration;

use azure_core::{credentials::Secret, http::StatusCode};
use azure_data_cosmos::{
    AccountEndpoint, AccountReference, CosmosClient, PartitionKey, RoutingStrategy, TransactionalBatch,
    clients::ContainerClient,
    error::CosmosError,
    models::{ContainerProperties, IndexingPolicy, ItemResponse, PartitionKeyDefinition, TimeToLive},
    options::{BatchReplaceOptions, Precondition, Region},
};
use secrecy::ExposeSecret as _;
use tokio::sync::OnceCell;

use super::documents::{CURSOR_ID, Cursor, Poll, SiteKey};
use crate::config::ledger::Config;

/// The longest that one operation may take, the SDK's own retries included.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(10);
/// What goes into one transaction. The service takes 2 MB and 100 operations.
/// <https://learn.microsoft.com/azure/cosmos-db/concepts-limits>
pub const MAX_BATCH_BYTES: usize = 1_800_000;
pub const MAX_BATCH_POLLS: usize = 90;

/// Why the ledger could not be read or written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LedgerError {
    /// Nothing was written: another poller has written first.
    #[error("another poller recorded this site at the same time")]
    Conflict,
    #[error(
        "Cosmos DB refused the request ({status}): check M2MDocumentsDBPrimaryKey, or the managed identity's role: {text}"
    )]
    Unauthorized { status: u16, text: String },
    #[error("Cosmos DB has no {0}: it is only created with M2MDocumentsDBPrimaryKey, else it must exist")]
    Missing(String),
    #[error("Cosmos DB is busy ({0}): it needs more throughput, or fewer sites at once (PollConcurrency)")]
    Throttled(String),
    #[error("Cosmos DB did not answer within {} s", OPERATION_TIMEOUT.as_secs())]
    Timeout,
    #[error("Cosmos DB cannot be reached at {0}")]
    Unreachable(String),
    #[error("Cosmos DB: {0}")]
    Other(String),
    #[error("the document {id} of site {site} is not one of ours: {text}")]
    Foreign { id: String, site: String, text: String },
}

impl LedgerError {
    /// A short name for summaries.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Conflict => "ledger_conflict",
            Self::Unauthorized { .. } => "ledger_unauthorized",
            Self::Missing(_) => "ledger_missing",
            Self::Throttled(_) => "ledger_throttled",
            Self::Timeout => "ledger_timeout",
            Self::Unreachable(_) => "ledger_unreachable",
            Self::Other(_) => "ledger_error",
            Self::Foreign { .. } => "ledger_foreign_document",
        }
    }
}

/// A cursor as it stands in the ledger. `etag` is `None` when it does not stand there yet.
#[derive(Clone, Debug)]
pub struct Committed {
    pub cursor: Cursor,
    pub etag: Option<String>,
}

/// The container. Connects with the first operation.
pub struct Ledger {
    config: Config,
    container: OnceCell<ContainerClient>,
}

impl Ledger {
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config, container: OnceCell::new() }
    }

    /// Seconds after which the service removes the record of a finished poll; `None` keeps it.
    #[must_use]
    pub fn history_seconds(&self) -> Option<u32> {
        self.config.history_days.map(|days| days * 24 * 60 * 60)
    }

    /// The site's cursor; that of a site that was never polled if there is none.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn cursor(&self, key: &SiteKey) -> Result<Committed, LedgerError> {
        let Some(response) = self.read(key, CURSOR_ID).await? else {
            return Ok(Committed { cursor: Cursor::new(key), etag: None });
        };
        let etag = response.headers().etag().map(ToString::to_string);
        let cursor = response.into_model().map_err(|error| foreign(CURSOR_ID, key, &error))?;
        Ok(Committed { cursor, etag })
    }

    /// The poll with this id, if it is (still) there.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn poll(&self, key: &SiteKey, id: &str) -> Result<Option<Poll>, LedgerError> {
        match self.read(key, id).await? {
            Some(response) => response.into_model().map(Some).map_err(|error| foreign(id, key, &error)),
            None => Ok(None),
        }
    }

    async fn read(&self, key: &SiteKey, id: &str) -> Result<Option<ItemResponse>, LedgerError> {
        within(async {
            match self.container().await?.read_item(partition(key), id, None).await {
                Ok(response) => Ok(Some(response)),
                Err(error) if is(&error, StatusCode::NotFound) => Ok(None),
                Err(error) => Err(self.explain(&error)),
            }
        })
        .await
    }

    /// Creates and replaces polls and writes the cursor, all or nothing, if the cursor is still the one that was read.
    /// Returns the cursor's new ETag.
    ///
    /// # Errors
    /// [`LedgerError::Conflict`] if another poller was faster: nothing is written. After any other error it is unknown
    /// whether it was: read the cursor again.
    pub async fn commit(
        &self,
        key: &SiteKey,
        created: &[Poll],
        replaced: &[Poll],
        cursor: &Cursor,
        etag: Option<&str>,
    ) -> Result<String, LedgerError> {
        let batch = batch(key, created, replaced, cursor, etag).map_err(|error| self.explain(&error))?;
        let response = within(async {
            self.container().await?.execute_transactional_batch(batch, None).await.map_err(|error| {
                if is(&error, StatusCode::PreconditionFailed) || is(&error, StatusCode::Conflict) {
                    return LedgerError::Conflict;
                }
                self.explain(&error)
            })
        })
        .await?;
        let response = response.into_model().map_err(|error| self.explain(&error))?;
        let results = response.results();
        // A refused batch is an answer too: the operation at fault carries its status, the others 424.
        if let Some(fault) = results.iter().find(|result| !result.is_success() && result.status_code() != 424) {
            return Err(match fault.status_code() {
                409 | 412 => LedgerError::Conflict,
                // Somebody deleted the cursor or a poll that was to be replaced.
                404 => LedgerError::Conflict,
                429 => LedgerError::Throttled("429".into()),
                status => LedgerError::Other(format!("a transaction was refused with status {status}")),
            });
        }
        match results.last().and_then(|result| result.etag()) {
            Some(etag) if results.iter().all(|result| result.is_success()) => Ok(etag.to_owned()),
            _ => Err(LedgerError::Other("a transaction was answered without results".into())),
        }
    }

    async fn container(&self) -> Result<&ContainerClient, LedgerError> {
        self.container.get_or_try_init(|| self.open()).await
    }

    /// Connects; with the account's key, makes what is absent.
    async fn open(&self) -> Result<ContainerClient, LedgerError> {
        let explain = |error: CosmosError| self.explain(&error);
        let client = self.client().await?;
        let (database, container) = (&self.config.database, &self.config.container);
        match client.database_client(database.clone()).container_client(container.clone(), None).await {
            Err(error) if is(&error, StatusCode::NotFound) && self.config.key.is_some() => {}
            Err(error) if is(&error, StatusCode::NotFound) => {
                return Err(LedgerError::Missing(format!("container {container} in database {database}")));
            }
            found => return found.map_err(explain),
        }
        match client.create_database(database, None).await {
            Err(error) if !is(&error, StatusCode::Conflict) => return Err(explain(error)),
            _ => {}
        }
        let properties = ContainerProperties::new(
            container.clone(),
            PartitionKeyDefinition::new(vec!["/Customer_Id".into(), "/Site_Id".into()]),
        )
        .with_indexing_policy(
            // The message is the bulk of a record and is never searched: not indexing it halves the price of a write.
            IndexingPolicy::default().with_included_path("/*").with_excluded_path("/IoTHubMessage/?"),
        )
        .with_default_ttl(TimeToLive::NoDefault);
        match client.database_client(database.clone()).create_container(properties, None).await {
            Err(error) if !is(&error, StatusCode::Conflict) => return Err(explain(error)),
            _ => {}
        }
        tracing::info!(%database, %container, "created the container for polls");
        client.database_client(database.clone()).container_client(container.clone(), None).await.map_err(explain)
    }

    async fn client(&self) -> Result<CosmosClient, LedgerError> {
        let endpoint = AccountEndpoint::from(self.config.endpoint.clone());
        let account = match &self.config.key {
            Some(key) => {
                AccountReference::with_authentication_key(endpoint, Secret::new(key.expose_secret().to_owned()))
            }
            None => {
                let credential = azure_identity::ManagedIdentityCredential::new(None)
                    .map_err(|error| LedgerError::Other(format!("no managed identity: {error}")))?;
                AccountReference::with_credential(endpoint, credential)
            }
        };
        // Azure names the region that an app runs in; elsewhere any order of the account's regions is as good.
        let region = std::env::var("REGION_NAME").ok().filter(|name| !name.is_empty());
        let routing = region.map_or(RoutingStrategy::PreferredRegions(Vec::new()), |name| {
            RoutingStrategy::ProximityTo(Region::new(name))
        });
        CosmosClient::builder().build(account, routing).await.map_err(|error| self.explain(&error))
    }

    fn explain(&self, error: &CosmosError) -> LedgerError {
        let text = one_line(error);
        match u16::from(error.status().status_code()) {
            status @ (401 | 403) => LedgerError::Unauthorized { status, text },
            404 => LedgerError::Missing(format!(
                "container {} in database {}",
                self.config.container, self.config.database
            )),
            429 => LedgerError::Throttled("429".into()),
            408 => LedgerError::Timeout,
            // The SDK's own answer when no request came through.
            503 if !error.is_from_wire() => LedgerError::Unreachable(self.config.endpoint.to_string()),
            _ => LedgerError::Other(text),
        }
    }
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
    // The cursor comes last: its ETag is the last result's.
    match etag {
        None => batch.create_item(cursor),
        Some(etag) => {
            let unchanged = BatchReplaceOptions::default().with_precondition(Precondition::if_match(etag));
            batch.replace_item(CURSOR_ID, cursor, Some(unchanged))
        }
    }
}

async fn within<T>(operation: impl Future<Output = Result<T, LedgerError>>) -> Result<T, LedgerError> {
    tokio::time::timeout(OPERATION_TIMEOUT, operation).await.unwrap_or(Err(LedgerError::Timeout))
}

fn partition(key: &SiteKey) -> PartitionKey {
    PartitionKey::from((key.customer.clone(), key.site.clone()))
}

fn is(error: &CosmosError, status: StatusCode) -> bool {
    error.status().status_code() == status
}

fn foreign(id: &str, key: &SiteKey, error: &CosmosError) -> LedgerError {
    LedgerError::Foreign { id: id.to_owned(), site: key.site.clone(), text: one_line(error) }
}

/// The SDK's errors can carry pages of diagnostics: their first line says what it is.
fn one_line(error: &CosmosError) -> String {
    const MOST: usize = 300;
    error.to_string().lines().next().unwrap_or_default().chars().take(MOST).collect()
}
