//! Opens the Cosmos DB account for the ledger and all other users: one client for all containers, and one way to open
//! or create a container.

mod inspection;
mod requirements;
mod sample;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use azure_core::{credentials::Secret, http::StatusCode};
use azure_data_cosmos::{
    AccountEndpoint, AccountReference, CosmosClient, CosmosRuntime, RoutingStrategy,
    clients::ContainerClient,
    error::CosmosError,
    models::ContainerProperties,
    options::{
        ConnectionPoolOptions, OperationOptionsBuilder, Region, ServerCertificateValidation,
        ThrottlingRetryOptionsBuilder,
    },
};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::{sync::OnceCell, time::Instant};
use url::Url;

use crate::support::{
    backoff::{Backoff, Policy},
    http,
    identity::{self, SignIn},
    kind::Kind,
};

pub use inspection::{Facts, Found};
pub(crate) use inspection::{NEVER, Trial};
pub use requirements::{Requirements, Ttl, Unfit};

/// The longest time for one operation, the SDK's own retries included.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the SDK may retry within that time when the service throttles. Shorter than the time-out, so that
/// throttling is reported as throttling.
const THROTTLED_FOR: Duration = Duration::from_secs(5);

/// How long an operation may wait for the container's properties, which are only checked.
const INSPECTION_TIMEOUT: Duration = Duration::from_secs(3);

/// How often an idle connection is tested. The SDK's default is one second, which costs an idle handler more than ten
/// sites do. Keep it below four minutes: then Azure's load balancers forget a silent connection.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// How long an unfit container is not inspected again.
const UNFIT: Policy = Policy::exact(Duration::from_secs(1), Duration::from_secs(1));

/// Why Cosmos DB could not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error(
        "Cosmos DB refused the request ({status}): check M2MDocumentsDBPrimaryKey, or the managed identity's role: {text}"
    )]
    Unauthorized { status: u16, text: String },
    #[error("cannot sign in at Cosmos DB: {0}, or set M2MDocumentsDBPrimaryKey")]
    NobodySignedIn(&'static str),
    #[error("Cosmos DB has no {0}: it is only created with M2MDocumentsDBPrimaryKey, else it must exist")]
    Missing(String),
    #[error(
        "Cosmos DB has no {0} any more: it was deleted while the connector ran; it is made again with the next run"
    )]
    Deleted(String),
    #[error("Cosmos DB: {container} must not be used: {unfit}")]
    Unfit { container: String, unfit: Unfit },
    #[error("Cosmos DB is busy ({0}): it needs more throughput, or (rapidM2M) fewer sites at once: PollConcurrency")]
    Throttled(String),
    #[error("Cosmos DB did not answer within {} s", OPERATION_TIMEOUT.as_secs())]
    Timeout,
    #[error("Cosmos DB cannot be reached at {0}")]
    Unreachable(String),
    #[error("Cosmos DB: {0}")]
    Other(String),
}

impl Failure {
    /// A short name for summaries.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Unauthorized { .. } | Self::NobodySignedIn(_) => Kind::LedgerUnauthorized,
            Self::Missing(_) | Self::Deleted(_) => Kind::LedgerMissing,
            Self::Unfit { .. } => Kind::LedgerUnfit,
            Self::Throttled(_) => Kind::LedgerThrottled,
            Self::Timeout => Kind::LedgerTimeout,
            Self::Unreachable(_) => Kind::LedgerUnreachable,
            Self::Other(_) => Kind::LedgerError,
        }
    }
}

/// Where the database is, and with which credentials to sign in.
#[derive(Clone, Debug)]
pub struct Options {
    /// The account's endpoint.
    pub endpoint: Url,
    /// The account's key.
    pub key: Option<SecretString>,
    /// How to sign in if there is no key.
    pub sign_in: SignIn,
    pub database: String,
}

/// A database of an account. Connects with the first operation.
pub struct Account {
    endpoint: Url,
    key: Option<SecretString>,
    sign_in: SignIn,
    database: String,
    client: OnceCell<CosmosClient>,
}

impl Account {
    #[must_use]
    pub fn new(options: Options) -> Self {
        let Options { endpoint, key, sign_in, database } = options;
        Self { endpoint, key, sign_in, database, client: OnceCell::new() }
    }

    /// A container, if it exists.
    pub(crate) async fn find(&self, container: &str) -> Result<Option<ContainerClient>, Failure> {
        let database = self.client().await?.database_client(self.database.clone());
        match database.container_client(container.to_owned(), None).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if is(&error, StatusCode::NotFound) => Ok(None),
            Err(error) => Err(self.explain(&error, container)),
        }
    }

    /// A container that is fit for use. With the account's key, creates what is missing.
    pub(crate) async fn open(
        &self,
        properties: ContainerProperties,
        requirements: &Requirements,
    ) -> Result<ContainerClient, Failure> {
        let container = properties.id.to_string();
        let (client, found) = self.find_or_make(properties).await?;
        let Some(found) = found else { return Ok(client) };
        let partition_key = requirements::partition_key(&found);
        let Some(unfit) = requirements.unfit(&partition_key, Ttl::of(&found)) else { return Ok(client) };
        let is_of_sample = sample::is_of_sample(&client, &partition_key).await;
        let unfit = if is_of_sample { sample::unfit() } else { unfit };
        Err(Failure::Unfit { container: self.name(&container), unfit })
    }

    /// The container, and its properties if they can be read.
    async fn find_or_make(
        &self,
        properties: ContainerProperties,
    ) -> Result<(ContainerClient, Option<ContainerProperties>), Failure> {
        let container = properties.id.to_string();
        // The SDK caches containers that it has found, and returns them even if they have been deleted since.
        if let Some(found) = self.find(&container).await? {
            let read = tokio::time::timeout(INSPECTION_TIMEOUT, self.read(&found, &container)).await;
            match read.unwrap_or(Err(Failure::Timeout)) {
                Ok(Some(properties)) => return Ok((found, Some(properties))),
                Ok(None) => {}
                // An identity may read and write documents without this right.
                Err(failure) => {
                    let container = self.name(&container);
                    tracing::warn!(
                        failure.kind = failure.kind().as_str(),
                        "{container} was not checked for its partition key and time to live: {failure}"
                    );
                    return Ok((found, None));
                }
            }
        }
        if self.key.is_none() {
            return Err(Failure::Missing(self.name(&container)));
        }
        let explain = |error: CosmosError| self.explain(&error, &container);
        let client = self.client().await?;
        match client.create_database(&self.database, None).await {
            Err(error) if !is(&error, StatusCode::Conflict) => return Err(explain(error)),
            _ => {}
        }
        let database = client.database_client(self.database.clone());
        match database.create_container(properties, None).await {
            Err(error) if !is(&error, StatusCode::Conflict) => return Err(explain(error)),
            _ => {}
        }
        tracing::info!(database.name = self.database, container.name = container, "created a container");
        let made = database.container_client(container.clone(), None).await.map_err(explain)?;
        let properties = self.read(&made, &container).await?;
        let properties = properties.ok_or_else(|| Failure::Deleted(self.name(&container)))?;
        Ok((made, Some(properties)))
    }

    async fn read(&self, client: &ContainerClient, container: &str) -> Result<Option<ContainerProperties>, Failure> {
        match client.read(None).await.and_then(|response| response.into_model()) {
            Ok(properties) => Ok(Some(properties)),
            Err(error) if is(&error, StatusCode::NotFound) => Ok(None),
            Err(error) => Err(self.explain(&error, container)),
        }
    }

    async fn client(&self) -> Result<&CosmosClient, Failure> {
        self.client.get_or_try_init(|| self.connect()).await
    }

    async fn connect(&self) -> Result<CosmosClient, Failure> {
        let endpoint = AccountEndpoint::from(self.endpoint.clone());
        let account = match &self.key {
            Some(key) => {
                AccountReference::with_authentication_key(endpoint, Secret::new(key.expose_secret().to_owned()))
            }
            None => {
                let credential = self
                    .sign_in
                    .credential(identity::client_options())
                    .map_err(|error| Failure::Other(format!("no managed identity: {error}")))?;
                AccountReference::with_credential(endpoint, credential)
            }
        };
        // In Azure, REGION_NAME names the region of the app. Elsewhere any order of the account's regions will do.
        let region = std::env::var("REGION_NAME").ok().filter(|name| !name.is_empty());
        let routing = region.map_or(RoutingStrategy::PreferredRegions(Vec::new()), |name| {
            RoutingStrategy::ProximityTo(Region::new(name))
        });
        // The SDK's shared runtime ends with the first tokio runtime that uses it. Tests have many runtimes.
        let explain = |error: CosmosError| match is(&error, StatusCode::NotFound) {
            true => Failure::Other(format!("there is no account at {}: check M2MDocumentsDBUri", self.endpoint)),
            false => self.explain(&error, ""),
        };
        // Without this, an environment variable of the SDK could turn validation off for endpoints on this machine.
        let connections = ConnectionPoolOptions::builder()
            .with_server_certificate_validation(ServerCertificateValidation::Required)
            .with_http2_keep_alive_interval(PING_INTERVAL)
            .build()
            .map_err(explain)?;
        let throttling = ThrottlingRetryOptionsBuilder::new().with_max_retry_wait_time(THROTTLED_FOR).build();
        let operations = OperationOptionsBuilder::new().with_throttling_retry_options(throttling).build();
        let runtime = CosmosRuntime::builder().with_connection_pool(connections).build().await.map_err(explain)?;
        let builder = CosmosClient::builder().with_runtime(runtime).with_default_operation_options(operations);
        builder.build(account, routing).await.map_err(explain)
    }

    fn name(&self, container: &str) -> String {
        format!("container {container} in database {}", self.database)
    }

    pub(crate) fn explain(&self, error: &CosmosError, container: &str) -> Failure {
        let text = one_line(error);
        match u16::from(error.status().status_code()) {
            // This 401 comes from the SDK itself: it could not get a token for the request.
            401 if self.key.is_none() && !error.is_from_wire() => Failure::NobodySignedIn(self.sign_in.advice()),
            status @ (401 | 403) => Failure::Unauthorized { status, text },
            404 if self.key.is_some() => Failure::Deleted(self.name(container)),
            404 => Failure::Missing(self.name(container)),
            429 => Failure::Throttled("429".into()),
            408 => Failure::Timeout,
            // This 503 comes from the SDK itself: no request reached the service.
            503 if !error.is_from_wire() => Failure::Unreachable(self.endpoint.to_string()),
            _ => Failure::Other(text),
        }
    }
}

/// A container that is opened at its first use, and again after it was forgotten.
pub(crate) struct Container {
    client: Mutex<Arc<OnceCell<ContainerClient>>>,
    /// Why it is not opened now. Without this, a thousand sites would each request a container that is unfit.
    unfit: Backoff<(), Failure>,
}

impl Default for Container {
    fn default() -> Self {
        Self { client: Mutex::default(), unfit: Backoff::new(UNFIT) }
    }
}

impl Container {
    /// The container. Calls `open` once, however many callers wait for it.
    pub async fn get<F>(&self, open: impl FnOnce() -> F) -> Result<ContainerClient, Failure>
    where
        F: Future<Output = Result<ContainerClient, Failure>>,
    {
        let cell = self.client.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // Boxed: the SDK's futures are large, and otherwise every operation would contain this one.
        let opened = cell.get_or_try_init(|| {
            Box::pin(async {
                if let Some(failed) = self.unfit.holding(&()) {
                    return Err(failed.error);
                }
                let (began, opened) = (Instant::now(), open().await);
                if let Err(failure @ Failure::Unfit { .. }) = &opened {
                    self.unfit.failed((), failure.clone(), None, began);
                }
                opened
            })
        });
        opened.await.cloned()
    }

    /// If a write failed because the container is gone, the next use opens it again (and creates it if allowed).
    pub fn forget_if_gone(&self, error: &CosmosError) {
        if is(error, StatusCode::NotFound) {
            *self.client.lock().unwrap_or_else(PoisonError::into_inner) = Arc::default();
        }
    }
}

/// Limits an operation to [`OPERATION_TIMEOUT`].
pub(crate) async fn within<T, E: From<Failure>>(operation: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    tokio::time::timeout(OPERATION_TIMEOUT, operation).await.unwrap_or_else(|_| Err(Failure::Timeout.into()))
}

pub(crate) fn is(error: &CosmosError, status: StatusCode) -> bool {
    error.status().status_code() == status
}

/// The SDK's errors can contain pages of diagnostics. The first line names the error.
pub(crate) fn one_line(error: &CosmosError) -> String {
    const MOST: usize = 300;
    http::one_line(error.to_string().lines().next().unwrap_or_default(), MOST)
}
