//! Provides rows from the backend, or in emulation mode a row made up for each poll.

use chrono::{DateTime, Utc};

use crate::{
    rapidm2m::{
        Client, FetchError, Stamp,
        client::{Answer, Limit, RowsQuery},
        gate::Gate,
        site::Listed,
    },
    support::clock::Clock,
};

pub enum Source {
    Backend(Box<Client>),
    /// Each poll yields one row with the time of the poll; its first channel is the number of whole seconds since
    /// 2017-01-01T00:00:00Z, the others have no value.
    Emulation(Clock),
}

const EMULATION_EPOCH: DateTime<Utc> = DateTime::from_timestamp(1_483_228_800, 0).unwrap();

impl Source {
    /// The gate of the backend; none in emulation mode.
    #[must_use]
    pub fn gate(&self) -> Option<&Gate> {
        match self {
            Self::Backend(client) => Some(client.gate()),
            Self::Emulation(_) => None,
        }
    }

    /// The rows of a window, in the backend's bytes.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn rows(&self, query: &RowsQuery<'_>, max_body: usize, limit: Limit) -> Result<Answer, FetchError> {
        match self {
            Self::Backend(client) => client.rows(query, max_body, limit).await,
            Self::Emulation(clock) => {
                let now = clock.now();
                let seconds = (now - EMULATION_EPOCH).num_seconds();
                let nothing = ",null".repeat(query.channels.len().saturating_sub(1));
                let body = format!(r#"[["{}",{seconds}{nothing}]]"#, Stamp::from_time(now));
                Ok(Answer { status: 200, body: body.into() })
            }
        }
    }

    /// The channels in the site's blueprint.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn channels(
        &self,
        customer: &str,
        site: &str,
        histdata: u8,
        limit: Limit,
    ) -> Result<Vec<String>, FetchError> {
        match self {
            Self::Backend(client) => client.channels(customer, site, histdata, limit).await,
            Self::Emulation(_) => Err(FetchError::NoChannels(histdata)),
        }
    }

    /// The sites of the customer.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn sites(&self, customer: &str, limit: Limit) -> Result<Vec<Listed>, FetchError> {
        match self {
            Self::Backend(client) => client.sites(customer, limit).await,
            Self::Emulation(_) => Ok(Vec::new()),
        }
    }
}
