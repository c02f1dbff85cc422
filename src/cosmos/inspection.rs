//! Lets the operator check the account before the connector runs: what exists and what is allowed. Creates nothing
//! and leaves nothing behind.

use azure_core::http::StatusCode;
use azure_data_cosmos::{PartitionKey, TransactionalBatch, clients::ContainerClient, models::ContainerProperties};

use super::{
    Account, Failure, is,
    requirements::{Ttl, Unfit, partition_key},
    sample, within,
};

/// The id of documents that are never written.
pub(crate) const NEVER: &str = "iothub-connector-check";

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    NoDatabase,
    NoContainer,
    Container(Facts),
}

/// The properties of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The paths of its partition key.
    pub partition_key: Vec<String>,
    pub time_to_live: Ttl,
    /// Paths that are not indexed.
    pub excluded_paths: Vec<String>,
    /// Whether documents can be read and written. `None` if the partition key is not the expected one: then it cannot
    /// be tried.
    pub access: Option<Result<(), Failure>>,
    /// What to say if it is known whose container it is, and not ours.
    pub foreign: Option<Unfit>,
}

/// How to try whether documents can be written: with a transaction that cannot succeed, because it replaces a
/// document that does not exist. So it writes nothing.
pub(crate) struct Trial {
    pub partition_key: &'static [&'static str],
    pub partition: PartitionKey,
    pub batch: azure_data_cosmos::Result<TransactionalBatch>,
}

impl Account {
    /// Connects to the account: it must exist and accept our credentials.
    ///
    /// # Errors
    /// The account does not exist or cannot be used.
    pub async fn reach(&self) -> Result<(), Failure> {
        within(async { self.client().await.map(drop) }).await
    }

    /// Whether missing containers are created when they are needed.
    #[must_use]
    pub fn makes_containers(&self) -> bool {
        self.key.is_some()
    }

    pub(crate) async fn inspect(&self, container: &str, trial: Trial) -> Result<Found, Failure> {
        let Some(client) = within(self.find(container)).await? else {
            let database = self.client().await?.database_client(self.database.clone());
            return within(async {
                match database.read(None).await {
                    Ok(_) => Ok(Found::NoContainer),
                    Err(error) if is(&error, StatusCode::NotFound) => Ok(Found::NoDatabase),
                    Err(error) => Err(self.explain(&error, container)),
                }
            })
            .await;
        };
        let Some(properties) = within(self.read(&client, container)).await? else { return Ok(Found::NoContainer) };
        let (paths, time_to_live) = (partition_key(&properties), Ttl::of(&properties));
        let access = match paths == trial.partition_key {
            true => Some(self.try_access(&client, container, trial).await),
            false => None,
        };
        let foreign = match access.is_none() && sample::is_of_sample(&client, &paths).await {
            true => Some(sample::unfit()),
            false => None,
        };
        Ok(Found::Container(Facts {
            partition_key: paths,
            time_to_live,
            excluded_paths: excluded_paths(properties),
            access,
            foreign,
        }))
    }

    async fn try_access(&self, client: &ContainerClient, container: &str, trial: Trial) -> Result<(), Failure> {
        let explain = |error| self.explain(&error, container);
        within(async {
            match client.read_item(trial.partition, NEVER, None).await {
                Err(error) if !is(&error, StatusCode::NotFound) => Err(explain(error)),
                _ => Ok(()),
            }
        })
        .await?;
        let response = within(async {
            match client.execute_transactional_batch(trial.batch.map_err(explain)?, None).await {
                Ok(response) => response.into_model().map(Some).map_err(explain),
                Err(error) if is(&error, StatusCode::NotFound) => Ok(None),
                Err(error) => Err(explain(error)),
            }
        })
        .await?;
        let mut statuses = response.iter().flat_map(|response| response.results()).map(|result| result.status_code());
        match statuses.find(|status| matches!(status, 401 | 403 | 429)) {
            Some(429) => Err(Failure::Throttled("429".into())),
            Some(status) => Err(Failure::Unauthorized { status, text: "writing is not allowed".into() }),
            None => Ok(()),
        }
    }
}

fn excluded_paths(properties: ContainerProperties) -> Vec<String> {
    let paths = properties.indexing_policy.map(|policy| policy.excluded_paths).unwrap_or_default();
    paths.into_iter().map(|path| path.path).collect()
}
