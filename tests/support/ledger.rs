//! Reads the ledger's documents back with Microsoft's SDK.

use azure_core::credentials::Secret;
use azure_data_cosmos::{
    AccountReference, CosmosClient, CosmosRuntime, FeedScope, PartitionKey, RoutingStrategy,
    clients::{ContainerClient, DatabaseClient},
    models::{ContainerProperties, PartitionKeyDefinition, TimeToLive},
};
use chrono::{DateTime, TimeDelta, Utc};
use futures::TryStreamExt as _;
use serde_json::Value;

pub struct Ledger(ContainerClient);

impl Ledger {
    pub async fn open(endpoint: &str, key: &str, database: &str, container: &str) -> Self {
        Self::find(endpoint, key, database, container).await.expect("the container")
    }

    /// Makes the container, and the database if there is none.
    pub async fn make(
        endpoint: &str,
        key: &str,
        database: &str,
        container: &'static str,
        paths: &[&'static str],
    ) -> Self {
        let client = client(endpoint, key).await;
        // It may be there already.
        let _ = client.create_database(database, None).await;
        let database = client.database_client(database.to_owned());
        let paths = PartitionKeyDefinition::new(paths.iter().map(|path| (*path).into()).collect::<Vec<_>>());
        let properties = ContainerProperties::new(container, paths).with_default_ttl(TimeToLive::NoDefault);
        database.create_container(properties, None).await.unwrap();
        Self::within(&database, container).await.unwrap()
    }

    async fn within(database: &DatabaseClient, container: &str) -> Option<Self> {
        database.container_client(container.to_owned(), None).await.ok().map(Self)
    }

    /// Adds a document as another program writes it.
    pub async fn create(&self, partition: impl Into<PartitionKey>, document: &Value) {
        self.0.create_item(partition, document["id"].as_str().unwrap(), document, None).await.unwrap();
    }

    /// `None` if the container does not exist.
    pub async fn find(endpoint: &str, key: &str, database: &str, container: &str) -> Option<Self> {
        Self::within(&client(endpoint, key).await.database_client(database.to_owned()), container).await
    }

    /// Every document of a site, by id: the polls in the order of time, then the cursor.
    pub async fn documents(&self, customer: &str, site: &str) -> Vec<Value> {
        let partition = PartitionKey::from((customer.to_owned(), site.to_owned()));
        let found = self.0.query_items::<Value>("SELECT * FROM c", FeedScope::partition(partition), None).await;
        let mut documents: Vec<Value> = found.unwrap().try_collect().await.unwrap();
        documents.sort_by_key(|document| document["id"].as_str().unwrap().to_owned());
        documents
    }

    /// Deletes a document, as an operator does by hand.
    pub async fn delete(&self, customer: &str, site: &str, id: &str) {
        let partition = PartitionKey::from((customer.to_owned(), site.to_owned()));
        self.0.delete_item(partition, id, None).await.unwrap();
    }

    /// Replaces a document, as an operator does by hand.
    #[allow(dead_code, reason = "for tests/forwarding and tests/replay")]
    pub async fn replace(&self, customer: &str, site: &str, document: &Value) {
        let partition = PartitionKey::from((customer.to_owned(), site.to_owned()));
        let id = document["id"].as_str().unwrap();
        self.0.replace_item(partition, id, document, None).await.unwrap();
    }

    /// Every document of the container.
    pub async fn all(&self) -> Vec<Value> {
        let found = self.0.query_items::<Value>("SELECT * FROM c", FeedScope::full_container(), None).await;
        found.unwrap().try_collect().await.unwrap()
    }

    /// Moves `RegisteredAt` of a document in the container `devices` into the past.
    pub async fn age(&self, id: &str, seconds: i64) {
        let read = self.0.read_item(id.to_owned(), id, None).await.unwrap();
        let mut document: Value = read.into_model().unwrap();
        let registered_at = document["RegisteredAt"].as_str().unwrap().parse::<DateTime<Utc>>().unwrap();
        document["RegisteredAt"] = (registered_at - TimeDelta::seconds(seconds)).to_rfc3339().into();
        self.0.replace_item(id.to_owned(), id, &document, None).await.unwrap();
    }
}

async fn client(endpoint: &str, key: &str) -> CosmosClient {
    let account = AccountReference::with_authentication_key(endpoint.parse().unwrap(), Secret::new(key.to_owned()));
    let routing = RoutingStrategy::PreferredRegions(Vec::new());
    // The SDK's own runtime is shared by the whole process, but would end with the test that started it.
    let runtime = CosmosRuntime::builder().build().await.unwrap();
    CosmosClient::builder().with_runtime(runtime).build(account, routing).await.unwrap()
}
