//! Container `devices` in Cosmos DB: stores which owner has which device, so that nothing is registered twice.

use std::{sync::Arc, time::Duration};

use azure_core::http::StatusCode;
use azure_data_cosmos::{
    FeedScope, PartitionKey, Query, TransactionalBatch,
    clients::ContainerClient,
    models::{ContainerProperties, IndexingPolicy, PartitionKeyDefinition},
    options::{ItemWriteOptions, Precondition},
};
use futures::{TryStreamExt as _, future::BoxFuture};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    StoredOwner,
    activity::{self, Activity},
    confirmations,
    documents::Document,
};
use crate::{
    cosmos::{Account, Container, Failure, Found, NEVER, Requirements, Trial, is, one_line, within},
    support::{backoff::Policy, kind::Kind},
};

/// Next to the container of polls. Partition key `/id`.
pub const CONTAINER: &str = "devices";
pub const PARTITION_KEY: &str = "/id";

pub const REQUIREMENTS: Requirements = Requirements {
    partition_key: &[PARTITION_KEY],
    expiry_means: "devices would be registered again and again",
    expiry_remedy: "switch its time to live off",
};

/// The container. Connects with the first operation.
pub struct Store {
    account: Arc<Account>,
    container: Container,
}

/// Leaves out the numbers of uplinks, which are nearly all of a document's size.
const ACTIVITIES: &str = "SELECT c.id, c.Kind, c.Owner, {\"LastUplinkAt\": c.Activity.LastUplinkAt, \"Uplinks\": c.Activity.Uplinks, \
                          \"Failures\": c.Activity.Failures, \"LastError\": c.Activity.LastError, \"FailingSince\": c.Activity.FailingSince, \
                          \"Newest\": c.Activity.Newest} AS Activity \
                          FROM c WHERE c.Kind = 'activity'";
/// How often an activity is written again if other processes write it meanwhile, and the pauses between these attempts.
const ATTEMPTS: u32 = 8;
const RETRY: Policy = Policy::jittered(Duration::from_millis(20), Duration::from_secs(1));

/// A document as it is in the store.
#[derive(Debug)]
pub struct Stored<T = Document> {
    pub document: T,
    /// For [`Store::write`].
    pub etag: Option<String>,
}

/// Why the store could not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Cosmos(#[from] Failure),
    #[error("document {id} in container {CONTAINER} is not one of ours ({text}): delete it, or correct it")]
    Foreign { id: String, text: String },
}

impl StoreError {
    /// A short name for summaries.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Cosmos(failure) => failure.kind(),
            Self::Foreign { .. } => Kind::DeviceForeignDocument,
        }
    }
}

/// The result of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    Yes,
    /// Another process wrote first: nothing was written.
    Conflict,
}

/// All documents, by id.
#[derive(Debug, Default)]
pub struct Listing {
    pub documents: Vec<Document>,
    /// Ids of documents that the connector has not written.
    pub foreign: Vec<String>,
}

impl Store {
    #[must_use]
    pub fn new(account: Arc<Account>) -> Self {
        Self { account, container: Container::default() }
    }

    /// The document with this id, if it exists.
    ///
    /// # Errors
    /// The store cannot be read, or the document is not one of the connector's.
    pub async fn read(&self, id: &str) -> Result<Option<Stored>, StoreError> {
        self.get(id).await
    }

    async fn get<T: DeserializeOwned>(&self, id: &str) -> Result<Option<Stored<T>>, StoreError> {
        within(async {
            let response = match self.container().await?.read_item(id.to_owned(), id, None).await {
                Ok(response) => response,
                Err(error) if is(&error, StatusCode::NotFound) => return Ok(None),
                Err(error) => return Err(self.account.explain(&error, CONTAINER).into()),
            };
            let etag = response.headers().etag().map(ToString::to_string);
            let foreign = |error| StoreError::Foreign { id: id.to_owned(), text: one_line(&error) };
            Ok(Some(Stored { document: response.into_model().map_err(foreign)?, etag }))
        })
        .await
    }

    /// Writes a document: a new one without `etag`, otherwise in place of the one that was read.
    ///
    /// # Errors
    /// The store cannot be written. The document may have been written all the same: read it again.
    pub async fn write(&self, document: &Document, etag: Option<&str>) -> Result<Written, StoreError> {
        self.put(&document.id, document, etag).await
    }

    async fn put<T: Serialize>(&self, id: &str, document: &T, etag: Option<&str>) -> Result<Written, StoreError> {
        within(async {
            let container = self.container().await?;
            let result = match etag {
                None => container.create_item(id.to_owned(), id, document, None).await,
                Some(etag) => {
                    let unchanged = ItemWriteOptions::default().with_precondition(Precondition::if_match(etag));
                    container.replace_item(id.to_owned(), id, document, Some(unchanged)).await
                }
            };
            match result {
                // The document prevents two owners from sharing one device, so a proxy's "200" must not count as a
                // write.
                Ok(response) if response.headers().etag().is_none() => {
                    Err(Failure::Other(format!("writing document {id} was answered without an ETag")).into())
                }
                Ok(_) => Ok(Written::Yes),
                // Not found: the document was deleted after it was read.
                Err(error) if is(&error, StatusCode::Conflict) || is(&error, StatusCode::PreconditionFailed) => {
                    Ok(Written::Conflict)
                }
                Err(error) if etag.is_some() && is(&error, StatusCode::NotFound) => Ok(Written::Conflict),
                Err(error) => {
                    self.container.forget_if_gone(&error);
                    Err(self.account.explain(&error, CONTAINER).into())
                }
            }
        })
        .await
    }

    /// Deletes the document that was read.
    ///
    /// # Errors
    /// The store cannot be written.
    pub async fn delete(&self, id: &str, etag: &str) -> Result<Written, StoreError> {
        within(async {
            let unchanged = ItemWriteOptions::default().with_precondition(Precondition::if_match(etag));
            match self.container().await?.delete_item(id.to_owned(), id, Some(unchanged)).await {
                Ok(_) => Ok(Written::Yes),
                Err(error) if is(&error, StatusCode::PreconditionFailed) || is(&error, StatusCode::NotFound) => {
                    Ok(Written::Conflict)
                }
                Err(error) => Err(self.account.explain(&error, CONTAINER).into()),
            }
        })
        .await
    }

    /// An owner's documents: for what comes without the DevEUI or the tenant that the device's id is made of.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn documents_of(&self, owner: &StoredOwner) -> Result<Vec<Document>, StoreError> {
        // The other members have names that are words of the query language.
        let query = Query::from("SELECT * FROM c WHERE c.Owner.Name = @name").with_parameter("@name", &owner.name);
        let query = query.map_err(|error| StoreError::from(self.account.explain(&error, CONTAINER)))?;
        let values = self.query(query).await?.unwrap_or_default();
        // An activity is no such document.
        let documents = values.into_iter().filter_map(|value| serde_json::from_value::<Document>(value).ok());
        Ok(documents.filter(|document| document.owner == *owner).collect())
    }

    /// Adds a device's activity to its document. Several processes may do so at once.
    ///
    /// # Errors
    /// The store cannot be used, or other processes keep writing the document.
    pub async fn add_activity(&self, new: activity::Document, since: &Activity) -> Result<(), StoreError> {
        let id = new.id.clone();
        let add = |document: &mut activity::Document| document.activity.add(since.clone());
        // The type of this future is too deep for the compiler.
        let changing: BoxFuture<'_, Result<(), StoreError>> = Box::pin(self.change(&id, new, add));
        changing.await
    }

    /// The commands of a hub device that wait for a confirmation, if there was any.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn confirmations(&self, id: &str) -> Result<Option<confirmations::Document>, StoreError> {
        Ok(self.get(id).await?.map(|stored| stored.document))
    }

    /// Changes the commands of a hub device that wait for a confirmation. Several processes may do so at once. Returns the
    /// result of the change that was written.
    ///
    /// # Errors
    /// The store cannot be used, or other processes keep writing the document.
    pub async fn change_confirmations<R>(
        &self,
        id: &str,
        change: impl FnMut(&mut confirmations::Document) -> R,
    ) -> Result<R, StoreError> {
        self.change(id, confirmations::Document::new(id.to_owned()), change).await
    }

    /// A change that changes nothing is not written.
    async fn change<T: Serialize + DeserializeOwned + Clone + PartialEq + Send + Sync, R>(
        &self,
        id: &str,
        new: T,
        mut change: impl FnMut(&mut T) -> R,
    ) -> Result<R, StoreError> {
        for attempt in 1..=ATTEMPTS {
            let (mut document, etag) = match self.get::<T>(id).await? {
                Some(stored) => (stored.document, stored.etag),
                None => (new.clone(), None),
            };
            let before = document.clone();
            let result = change(&mut document);
            if document == before || self.put(id, &document, etag.as_deref()).await? == Written::Yes {
                return Ok(result);
            }
            tokio::time::sleep(RETRY.wait(attempt)).await;
        }
        Err(Failure::Other(format!("document {id} is written by others all the time")).into())
    }

    /// The latest activity of all LoRaWAN devices, without the numbers of their uplinks, and what is wrong with documents that
    /// cannot be read. Empty if there is no container yet.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn activities(&self) -> Result<(Vec<activity::Document>, Vec<StoreError>), StoreError> {
        let (mut documents, mut unreadable) = (Vec::new(), Vec::new());
        for value in self.query(ACTIVITIES).await?.unwrap_or_default() {
            let id = value["id"].as_str().unwrap_or_default().to_owned();
            match serde_json::from_value(value) {
                Ok(document) => documents.push(document),
                Err(error) => unreadable.push(StoreError::Foreign { id, text: error.to_string() }),
            }
        }
        Ok((documents, unreadable))
    }

    /// The latest activity of one device, if there is any.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn activity(&self, id: &str) -> Result<Option<activity::Document>, StoreError> {
        Ok(self.get(id).await?.map(|stored| stored.document))
    }

    /// All owners with their devices. `None` if there is no container yet; this call does not create it.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn list(&self) -> Result<Option<Listing>, StoreError> {
        let Some(values) = self.query("SELECT * FROM c WHERE NOT IS_DEFINED(c.Kind)").await? else { return Ok(None) };
        let mut listing = Listing::default();
        for value in values {
            let id = value["id"].as_str().unwrap_or_default().to_owned();
            match serde_json::from_value(value) {
                Ok(document) => listing.documents.push(document),
                Err(_) => listing.foreign.push(id),
            }
        }
        listing.documents.sort_by(|one, other| one.id.cmp(&other.id));
        listing.foreign.sort();
        Ok(Some(listing))
    }

    /// Checks whether the container exists and can be used. Creates nothing.
    ///
    /// # Errors
    /// The account cannot be used.
    pub async fn inspect(&self) -> Result<Found, Failure> {
        let partition = PartitionKey::from(NEVER);
        let document = serde_json::json!({ "id": NEVER });
        // A document's partition is its id, so a transaction cannot contain a second document.
        let batch = TransactionalBatch::new(partition.clone()).replace_item(NEVER, &document, None);
        self.account.inspect(CONTAINER, Trial { partition_key: &[PARTITION_KEY], partition, batch }).await
    }

    /// Reads page by page. `None` if there is no container yet.
    async fn query(&self, text: impl Into<Query>) -> Result<Option<Vec<Value>>, StoreError> {
        let explain = |error| StoreError::from(self.account.explain(&error, CONTAINER));
        let Some(container) = within(self.account.find(CONTAINER)).await? else { return Ok(None) };
        let query = container.query_items::<Value>(text, FeedScope::full_container(), None);
        let mut pages = within(async { query.await.map_err(explain) }).await?.into_pages();
        let mut values = Vec::new();
        while let Some(page) = within(async { pages.try_next().await.map_err(explain) }).await? {
            values.extend(page.into_items());
        }
        Ok(Some(values))
    }

    async fn container(&self) -> Result<ContainerClient, Failure> {
        self.container.get(|| self.account.open(properties(), &REQUIREMENTS)).await
    }
}

fn properties() -> ContainerProperties {
    let key = PartitionKeyDefinition::new(vec![PARTITION_KEY.into()]);
    // Activities are written often and never searched.
    let policy = IndexingPolicy::default().with_included_path("/*").with_excluded_path("/Activity/*");
    ContainerProperties::new(CONTAINER, key).with_indexing_policy(policy)
}
