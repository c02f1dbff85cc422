//! Reads many documents for commands and pages: all cursors, or a site's polls. Forwarding needs point reads only.

use std::collections::{BTreeMap, BTreeSet};

use azure_data_cosmos::{FeedScope, Query, clients::ContainerClient};
use futures::TryStreamExt as _;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    Ledger, LedgerError, Outcome, SiteKey,
    cosmos::partition,
    documents::{ALL_SITES, Cursor, Poll},
};
use crate::{
    cosmos::within,
    rapidm2m::{
        Stamp,
        directory::{Directory, Known},
        gate::Refusals,
    },
    support::{blocking, kind::Kind},
};

/// A cursor's fields without `Recorded`, which can be as large as all other fields of a hundred sites.
const CURSORS: &str = "SELECT c.id, c.Kind, c.Customer_Id, c.Site_Id, c.Site_Uid, c.Site_Name, c.Earlier_Names, c.GoneSince, c.LastValueFrom, c.ScannedUntil, c.Unforwarded, \
                       c.ConsecutiveFailures, c.LastError, c.NotBefore, c.ContactsWrongSince, c.Activity FROM c WHERE c.Kind = 'cursor'";
/// A site's cursor and its backfills.
const CURSORS_OF_SITE: &str = "SELECT c.id, c.Kind, c.Customer_Id, c.Site_Id, c.Site_Uid, c.Site_Name, c.Earlier_Names, c.GoneSince, c.Histdata, c.LastValueFrom, \
     c.ScannedUntil, c.Unforwarded, c.ConsecutiveFailures, c.LastError, c.NotBefore, c.ContactsWrongSince, c.Backfill FROM c WHERE c.Kind IN ('cursor', 'backfill')";
/// What tells which site a cursor belongs to, and whether messages wait.
const DIRECTORY: &str = "SELECT c.id, c.Kind, c.Customer_Id, c.Site_Id, c.Site_Uid, c.Site_Name, c.Earlier_Names, c.GoneSince, \
                         c.LastValueFrom, c.Contact, c.Unforwarded, c.LastError, c.RefusedLogins, c.ContactsWrongSince, c._ts FROM c WHERE c.Kind = 'cursor'";
/// Partitions take the time of a document from clocks of their own, in whole seconds.
const CLOCKS_APART: i64 = 10;
/// The backfills. There are few.
const BACKFILLS: &str = "SELECT c.id, c.Kind, c.Customer_Id, c.Site_Id, c.Site_Uid, c.Site_Name, c.Unforwarded, c.Backfill FROM c \
                         WHERE c.Kind = 'backfill'";
/// The sites that have documents.
const SITES: &str = "SELECT c.Customer_Id, c.Site_Id FROM c WHERE c.Kind IN ('cursor', 'backfill')";
/// Documents of the C# sample that hold rows, without these rows.
const OF_SAMPLE: &str = "SELECT c.id, c.Customer_Id, c.Site_Id, c.LastValueFrom FROM c \
                         WHERE IS_DEFINED(c.PollingTimestamp) AND NOT IS_DEFINED(c.Kind) AND IS_DEFINED(c.LastValueFrom) \
                         AND NOT IS_NULL(c.LastValueFrom)";
/// The sites of rejected messages, without those that were rejected for certain reasons.
const REJECTED: &str = "SELECT c.Site_Id FROM c WHERE c.Kind = 'poll' AND c.Outcome = 'rejected' AND c.Customer_Id = @customer \
                        AND IS_DEFINED(c.MessageId) AND NOT ARRAY_CONTAINS(@except, c.Error.Kind)";
/// Most of them that are counted: an operator who reads of so many need not know how many more there are.
const MAX_REJECTED: usize = 1_000;
/// The record that a site's cursor keeps.
const KEPT: &str = "SELECT VALUE c.Record FROM c WHERE c.Kind = 'cursor' AND IS_DEFINED(c.Record)";
/// A poll's fields without `IoTHubMessage`, which is nearly all of its size.
const POLL: &str = "c.id, c.Kind, c.Customer_Id, c.Site_Id, c.Site_Name, c.Site_Uid, c.PollingTimestamp, c.Request, c.Result, c.Outcome, c.Error, \
                    c.LastValueFrom, c.MessageId, c.ForwardedAt, c.Confirmed, c.Backfill, c.Correction, c.ttl";

#[derive(Clone, Debug, Default)]
pub struct PollQuery {
    /// At most this many, the newest ones.
    pub limit: u32,
    /// Only those with one of these outcomes; empty: all.
    pub outcomes: Vec<Outcome>,
    /// Only those with this id or a later one: ids begin with the time in milliseconds (see
    /// [`poll_id`](super::documents::poll_id)).
    pub from_id: Option<String>,
    /// Only those with an earlier id.
    pub before_id: Option<String>,
    /// Whether to read their messages.
    pub with_messages: bool,
    /// Only those that have a message.
    pub only_with_messages: bool,
    /// Only the timer's polls, whose rows are in time order.
    pub without_backfills: bool,
}

impl PollQuery {
    /// Whether a record that waits in the cursor is asked for.
    fn is_for(&self, kept: &Poll) -> bool {
        (self.outcomes.is_empty() || self.outcomes.contains(&kept.outcome))
            && self.from_id.as_ref().is_none_or(|from| kept.id >= *from)
            && self.before_id.as_ref().is_none_or(|before| kept.id < *before)
    }

    fn query(&self) -> azure_data_cosmos::Result<Query> {
        let fields = if self.with_messages { "*" } else { POLL };
        let mut text = format!("SELECT TOP {} {fields} FROM c WHERE c.Kind = 'poll'", self.limit);
        if !self.outcomes.is_empty() {
            text.push_str(" AND ARRAY_CONTAINS(@outcomes, c.Outcome)");
        }
        if self.only_with_messages {
            text.push_str(" AND IS_DEFINED(c.IoTHubMessage)");
        }
        if self.without_backfills {
            text.push_str(" AND NOT IS_DEFINED(c.Backfill)");
        }
        for (bound, condition) in [(&self.from_id, " AND c.id >= @from"), (&self.before_id, " AND c.id < @before")] {
            if bound.is_some() {
                text.push_str(condition);
            }
        }
        text.push_str(" ORDER BY c.id DESC");
        let mut query = Query::from(text);
        if !self.outcomes.is_empty() {
            query = query.with_parameter("@outcomes", &self.outcomes)?;
        }
        for (name, bound) in [("@from", &self.from_id), ("@before", &self.before_id)] {
            if let Some(bound) = bound {
                query = query.with_parameter(name, bound)?;
            }
        }
        Ok(query)
    }
}

/// What others have written into cursors.
#[derive(Debug, Default)]
pub struct Changes {
    pub known: Vec<Known>,
    pub refused_logins: Option<Refusals>,
    /// As [`Directory::as_of`].
    pub as_of: i64,
}

/// Polls of a site.
#[derive(Debug, Default)]
pub struct PollList {
    /// Newest first.
    pub polls: Vec<Poll>,
    /// Documents that claim to be a poll but cannot be read as one, each with its id and the reason.
    pub unreadable: Vec<LedgerError>,
}

/// Messages that were rejected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Rejected {
    /// How many of each site, by its `Site_Id`.
    pub sites: BTreeMap<String, usize>,
    /// There are more, which were not counted.
    pub is_more: bool,
}

impl Rejected {
    #[must_use]
    pub fn messages(&self) -> usize {
        self.sites.values().sum()
    }
}

/// The newest time at which one of these documents was written, in seconds.
fn newest(values: &[Value]) -> i64 {
    values.iter().filter_map(|value| value["_ts"].as_i64()).max().unwrap_or_default()
}

fn known(cursor: Cursor) -> Known {
    Known {
        waiting: cursor.unforwarded.len(),
        is_gone: cursor.gone_since.is_some(),
        contact: cursor.contact.filter(|_| cursor.last_error.is_none()).map(Stamp::from_time),
        newest: cursor.last_value_from,
        name: cursor.name().to_owned(),
        place: cursor.site,
        uid: cursor.site_uid,
        earlier_names: cursor.earlier_names,
    }
}

fn read<T: DeserializeOwned>(value: Value) -> Result<T, LedgerError> {
    let text = |name| value[name].as_str().unwrap_or_default().to_owned();
    let (id, key) = (text("id"), SiteKey { customer: text("Customer_Id"), site: text("Site_Id") });
    serde_json::from_value(value).map_err(|error| LedgerError::foreign(&key, &id, &error))
}

impl Ledger {
    /// The cursors of all sites, without their lists of recorded rows, and what is wrong with those that cannot be read. `None`
    /// if the container does not exist; it is not created for this.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn cursors(&self) -> Result<Option<(Vec<Cursor>, Vec<LedgerError>)>, LedgerError> {
        let Some(container) = self.find().await? else { return Ok(None) };
        let values: Vec<Value> = self.all(&container, CURSORS, FeedScope::full_container()).await?;
        // A cursor has about one kilobyte.
        let size = values.len() * 1024;
        let read_all = || {
            let (mut cursors, mut unreadable) = (Vec::with_capacity(values.len()), Vec::new());
            for value in values {
                match read(value) {
                    Ok(cursor) => cursors.push(cursor),
                    Err(error) => unreadable.push(error),
                }
            }
            (cursors, unreadable)
        };
        Ok(Some(blocking::run(size, read_all).await))
    }

    /// The customer's sites that have a cursor. Empty if the container does not exist; it is not created for this.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn directory(&self, customer: &str) -> Result<Directory, LedgerError> {
        let Some(container) = self.find().await? else { return Ok(Directory::new(customer, [])) };
        let values: Vec<Value> = self.all(&container, DIRECTORY, FeedScope::full_container()).await?;
        let as_of = newest(&values);
        // A cursor that cannot be read stops its own site, when that is polled.
        let cursors = values.into_iter().filter_map(|value| read::<Cursor>(value).ok());
        let ours = cursors.filter(|cursor| cursor.customer == customer);
        let (of_all, of_sites): (Vec<_>, Vec<_>) = ours.partition(|cursor| cursor.site == ALL_SITES);
        let mut directory = Directory::new(customer, of_sites.into_iter().map(known));
        directory.as_of = as_of;
        let values: Vec<Value> = self.all(&container, BACKFILLS, FeedScope::full_container()).await?;
        let backfills = values.into_iter().filter_map(|value| read::<Cursor>(value).ok());
        directory.backfills =
            backfills.filter(|cursor| cursor.customer == customer && !cursor.unforwarded.is_empty()).collect();
        directory.contacts_wrong_since = of_all.iter().find_map(|cursor| cursor.contacts_wrong_since);
        directory.refused_logins = of_all.into_iter().find_map(|cursor| cursor.refused_logins).unwrap_or_default();
        Ok(directory)
    }

    /// What the customer's cursors hold that were written since `as_of` (see [`Directory::as_of`]).
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn changes(&self, customer: &str, as_of: i64) -> Result<Changes, LedgerError> {
        let mut changes = Changes { as_of, ..Changes::default() };
        let Some(container) = self.find().await? else { return Ok(changes) };
        let query = format!("{DIRECTORY} AND c._ts >= {}", as_of - CLOCKS_APART);
        let values: Vec<Value> = self.all(&container, query, FeedScope::full_container()).await?;
        changes.as_of = newest(&values).max(as_of);
        let cursors = values.into_iter().filter_map(|value| read::<Cursor>(value).ok());
        for cursor in cursors.filter(|cursor| cursor.customer == customer) {
            if cursor.site == ALL_SITES {
                changes.refused_logins = cursor.refused_logins;
            } else {
                changes.known.push(known(cursor));
            }
        }
        Ok(changes)
    }

    /// The sites that have documents, in order. Empty if the container does not exist; it is not created for this.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn sites(&self) -> Result<Vec<SiteKey>, LedgerError> {
        #[derive(Deserialize)]
        struct Site {
            #[serde(rename = "Customer_Id")]
            customer: String,
            #[serde(rename = "Site_Id")]
            site: String,
        }
        let Some(container) = self.find().await? else { return Ok(Vec::new()) };
        let sites: Vec<Site> = self.all(&container, SITES, FeedScope::full_container()).await?;
        let sites: BTreeSet<_> = sites.into_iter().map(|Site { customer, site }| (customer, site)).collect();
        Ok(sites.into_iter().map(|(customer, site)| SiteKey { customer, site }).collect())
    }

    /// The messages of the customer's sites that were rejected, but not those that were rejected for one of these reasons. None
    /// if the container does not exist; it is not created for this.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn rejected(&self, customer: &str, except: &[Kind]) -> Result<Rejected, LedgerError> {
        #[derive(Deserialize)]
        struct Site {
            #[serde(rename = "Site_Id")]
            site: String,
        }
        let mut rejected = Rejected::default();
        let Some(container) = self.find().await? else { return Ok(rejected) };
        let query = Query::from(REJECTED).with_parameter("@customer", customer);
        let query = query.and_then(|query| query.with_parameter("@except", except));
        let query = query.map_err(|error| self.explain(&error))?;
        let query = container.query_items::<Site>(query, FeedScope::full_container(), None);
        let mut pages = within(async { query.await.map_err(|error| self.explain(&error)) }).await?.into_pages();
        while let Some(page) = within(async { pages.try_next().await.map_err(|error| self.explain(&error)) }).await? {
            for Site { site } in page.into_items() {
                *rejected.sites.entry(site).or_default() += 1;
            }
            if rejected.messages() >= MAX_REJECTED {
                rejected.is_more = true;
                break;
            }
        }
        Ok(rejected)
    }

    /// A site's cursor and its backfills, without their lists of recorded rows. Empty if the container does not
    /// exist; it is not created for this.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn cursors_of_site(&self, key: &SiteKey) -> Result<Vec<Cursor>, LedgerError> {
        let Some(container) = self.find().await? else { return Ok(Vec::new()) };
        let values: Vec<Value> = self.all(&container, CURSORS_OF_SITE, FeedScope::partition(partition(key))).await?;
        values.into_iter().map(read).collect()
    }

    /// Polls of a site, newest first, with the one whose record the cursor keeps. A damaged document does not hide the others. `None` if the container does not
    /// exist.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn polls(&self, key: &SiteKey, polls: &PollQuery) -> Result<Option<PollList>, LedgerError> {
        let Some(container) = self.find().await? else { return Ok(None) };
        let query = polls.query().map_err(|error| self.explain(&error))?;
        let values: Vec<Value> = self.all(&container, query, FeedScope::partition(partition(key))).await?;
        let mut list = PollList::default();
        let kept: Vec<Value> = self.all(&container, KEPT, FeedScope::partition(partition(key))).await?;
        for kept in kept.into_iter().filter_map(|value| read::<Poll>(value).ok()).filter(|kept| polls.is_for(kept)) {
            list.polls.push(if polls.with_messages { kept } else { Poll { message: None, ..kept } });
        }
        for value in values {
            match read(value) {
                Ok(poll) => list.polls.push(poll),
                Err(error) => list.unreadable.push(error),
            }
        }
        Ok(Some(list))
    }

    /// Goes through the documents of the C# sample that hold rows, if this is its container. `None` if the container does
    /// not exist.
    ///
    /// # Errors
    /// The container cannot be read.
    pub async fn each_of_sample(&self, then: impl FnMut(Value)) -> Result<Option<()>, LedgerError> {
        let Some(container) = self.find().await? else { return Ok(None) };
        self.each(&container, OF_SAMPLE, FeedScope::full_container(), then).await.map(Some)
    }

    /// Reads page by page. Each page has the time-out of one operation.
    async fn all<T: DeserializeOwned + Send + 'static>(
        &self,
        container: &ContainerClient,
        query: impl Into<Query>,
        scope: FeedScope,
    ) -> Result<Vec<T>, LedgerError> {
        let mut items = Vec::new();
        self.each(container, query, scope, |item| items.push(item)).await?;
        Ok(items)
    }

    async fn each<T: DeserializeOwned + Send + 'static>(
        &self,
        container: &ContainerClient,
        query: impl Into<Query>,
        scope: FeedScope,
        mut then: impl FnMut(T),
    ) -> Result<(), LedgerError> {
        let query = container.query_items::<T>(query, scope, None);
        let mut pages = within(async { query.await.map_err(|error| self.explain(&error)) }).await?.into_pages();
        while let Some(page) = within(async { pages.try_next().await.map_err(|error| self.explain(&error)) }).await? {
            page.into_items().into_iter().for_each(&mut then);
        }
        Ok(())
    }
}
