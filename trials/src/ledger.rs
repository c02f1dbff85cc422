//! Reads the documents in the emulated Cosmos DB with Microsoft's SDK.

use anyhow::Context as _;
use azure_core::credentials::Secret;
use azure_data_cosmos::{
    AccountReference, CosmosClient, CosmosRuntime, FeedScope, PartitionKey, RoutingStrategy, clients::ContainerClient,
};
use chrono::{DateTime, Utc};
use emulators::cosmos::Ready;
use futures::TryStreamExt as _;
use serde::Deserialize;

const DATABASE: &str = "M2MBackendForwarderData";
const POLLS: &str = "pollingAttempts";
const DEVICES: &str = "devices";

/// A document of a site. Its members depend on its kind.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Document {
    #[serde(rename = "id")]
    pub id: String,
    /// `poll` or `cursor`.
    pub kind: String,
    pub outcome: String,
    pub last_value_from: Option<DateTime<Utc>>,
    #[serde(rename = "IoTHubMessage")]
    pub message: Option<String>,
    pub message_id: Option<String>,
    /// Ids, or `{"Id": …}` of a record that the cursor keeps.
    pub unforwarded: Vec<serde_json::Value>,
    pub error: Option<Fault>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Fault {
    pub kind: String,
    pub text: String,
}

/// A document in the container of devices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DeviceDocument {
    #[serde(rename = "id")]
    pub id: String,
    pub assigned_hub: String,
    pub device_id: String,
}

/// All documents of devices.
pub async fn devices(cosmos: &Ready) -> anyhow::Result<Vec<DeviceDocument>> {
    let container = container(cosmos, DEVICES).await?;
    let found = container.query_items::<DeviceDocument>("SELECT * FROM c", FeedScope::full_container(), None).await?;
    Ok(found.try_collect().await?)
}

/// The container of polls and cursors.
pub struct Ledger {
    polls: ContainerClient,
    customer: String,
}

impl Ledger {
    /// The container must exist already: the handler creates it.
    pub async fn open(cosmos: &Ready, customer: &str) -> anyhow::Result<Self> {
        let polls = container(cosmos, POLLS).await?;
        Ok(Self { polls, customer: customer.to_owned() })
    }

    /// All documents of a site, sorted by id: polls by time, the cursor last.
    pub async fn documents(&self, site: &str) -> anyhow::Result<Vec<Document>> {
        let scope = FeedScope::partition(self.partition(site));
        let found = self.polls.query_items::<Document>("SELECT * FROM c", scope, None).await?;
        let mut documents: Vec<Document> = found.try_collect().await?;
        documents.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(documents)
    }

    /// A site's cursor, if it has one.
    pub async fn cursor(&self, site: &str) -> anyhow::Result<Document> {
        let read = self.polls.read_item(self.partition(site), "cursor", None).await;
        Ok(read.with_context(|| format!("the cursor of {site:?} cannot be read"))?.into_model()?)
    }

    fn partition(&self, site: &str) -> PartitionKey {
        PartitionKey::from((self.customer.clone(), site.to_owned()))
    }
}

async fn container(cosmos: &Ready, name: &str) -> anyhow::Result<ContainerClient> {
    let key = Secret::new(cosmos.key.clone());
    let account = AccountReference::with_authentication_key(cosmos.endpoint.parse()?, key);
    let runtime = CosmosRuntime::builder().build().await?;
    let routing = RoutingStrategy::PreferredRegions(Vec::new());
    let client = CosmosClient::builder().with_runtime(runtime).build(account, routing).await?;
    Ok(client.database_client(DATABASE.to_owned()).container_client(name.to_owned(), None).await?)
}
