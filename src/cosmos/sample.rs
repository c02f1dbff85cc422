//! Recognises the container of the C# sample, which has the same default name as the app's own.

use std::time::Duration;

use azure_data_cosmos::{FeedScope, clients::ContainerClient};
use futures::TryStreamExt as _;
use serde_json::Value;

use super::requirements::Unfit;

/// One document as the sample writes it. The app's own documents have a `Kind`.
const ANY: &str = "SELECT TOP 1 c.id FROM c WHERE IS_DEFINED(c.PollingTimestamp) AND IS_DEFINED(c.M2MData) \
                   AND IS_DEFINED(c.Customer_Id) AND NOT IS_DEFINED(c.Kind)";

/// How long it may take. It only makes a failure's text better.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Whether a container that is not fit for the app is the sample's. The sample knows no hierarchical partition key.
pub async fn is_of_sample(client: &ContainerClient, partition_key: &[String]) -> bool {
    let look = async {
        let found = client.query_items::<Value>(ANY, FeedScope::full_container(), None).await.ok()?;
        let first: Vec<Value> = found.try_collect().await.ok()?;
        Some(!first.is_empty())
    };
    partition_key.len() <= 1 && tokio::time::timeout(TIMEOUT, look).await.ok().flatten().unwrap_or_default()
}

/// What to say of it.
pub fn unfit() -> Unfit {
    Unfit {
        reason: "it is the container of the C# sample".into(),
        remedy: "give M2MDocumentsDBCollection another name, then run `iothub-connector import-sample`",
    }
}
