//! Function `status`: shows the state of every site and device, as a page for the user or as JSON.
//!
//! It reads Cosmos DB and the lengths of the queues, not this process's memory, because another process may do the
//! forwarding.
//!
//! | Part | |
//! |---|---|
//! | `overview` | all sites and devices, the most troubled first. No I/O |
//! | `cause` | causes that several of them share. No I/O |
//! | `detail` | one of them: its polls, and the last values of its channels. No I/O |
//! | `query` | the parameters of a request. No I/O |
//! | `page`, `chart` | HTML and SVG |

mod cause;
mod chart;
mod detail;
mod overview;
mod page;
mod query;
mod state;

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use reqwest::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use self::{
    detail::{Detail, Readings},
    overview::{Item, Overview},
    query::{Format, Query, Wanted},
};
use crate::{
    host::http::{HttpRequest, document, problem},
    iot_hub::devices::{Owner, Store, StoredOwner, activity},
    queue::{Lengths, UplinkQueues},
    rapidm2m::{
        Selection,
        ledger::{Ledger, LedgerError, PollList, PollQuery, Rejected, SiteKey},
        replay,
    },
    support::{blocking, clock::Clock},
};

/// How long an overview is reused. Reading ten thousand cursors costs Cosmos DB several thousand request units.
const LIFETIME: Duration = Duration::from_secs(10);
/// Time-out of a whole request.
const TIMEOUT: Duration = Duration::from_secs(25);
/// Time-out for reading the overview if what was read before can be shown instead.
const READ_TIMEOUT: Duration = Duration::from_secs(12);
/// Time-out for the lengths of the queues. Short, because the queues are not the main content of the page.
const QUEUES_TIMEOUT: Duration = Duration::from_secs(3);
/// Polls in the table of a site.
const POLLS: u32 = 40;
/// Messages are read in pieces of this many, until there are enough rows for the charts, or too many bytes or pieces.
const MESSAGES: u32 = 60;
const MAX_PIECES: usize = 5;
const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;
/// What a site or device comes to when the time is judged that work on many of them takes, in bytes of JSON.
const ITEM_BYTES: usize = 512;

pub struct Status {
    /// `None` if the settings are too faulty to read anything.
    services: Option<Services>,
    clock: Clock,
    /// Sentences about settings that need attention.
    faults: Vec<String>,
    read: Mutex<Option<Read>>,
}

/// What was read last. It stays while Cosmos DB is away.
struct Read {
    /// When reading was last tried.
    tried: Instant,
    overview: Arc<Overview>,
    away: Option<Away>,
}

/// Cosmos DB cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Away {
    since: DateTime<Utc>,
    text: String,
}

/// Where the status comes from.
pub struct Services {
    pub ledger: Arc<Ledger>,
    pub store: Arc<Store>,
    /// `Some` if the settings name them.
    pub queues: Option<UplinkQueues>,
    /// Those of `PollQueueName`.
    pub poll_queues: Option<UplinkQueues>,
    pub scope: Scope,
    /// The hub, and the transport. For people.
    pub sends_to: String,
    /// Whether commands need `--local`.
    pub is_local_session: bool,
    /// Of the timer that polls the sites.
    pub schedule: Option<String>,
}

/// The part of the settings that the status needs.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Customer and sites, if rapidM2M is on.
    pub rapidm2m: Option<(String, Selection)>,
    pub has_things_network: bool,
    /// Whether polls without rows are recorded.
    pub records_empty_polls: bool,
}

/// Why there is nothing to show.
enum Unread {
    NotFound(String),
    Away(String),
    Settings(String),
}

impl From<LedgerError> for Unread {
    fn from(error: LedgerError) -> Self {
        Self::Away(error.to_string())
    }
}

impl Unread {
    fn late(limit: Duration) -> Self {
        Self::Away(format!("Cosmos DB did not answer within {} s", limit.as_secs()))
    }
}

impl Status {
    #[must_use]
    pub fn new(services: Services, clock: Clock, faults: Vec<String>) -> Self {
        Self { services: Some(services), clock, faults, read: Mutex::default() }
    }

    /// For settings that name no ledger: the status shows what is wrong with them.
    #[must_use]
    pub fn without_services(clock: Clock, faults: Vec<String>) -> Self {
        Self { services: None, clock, faults, read: Mutex::default() }
    }

    /// The value of the `http` output.
    pub async fn respond(&self, request: &HttpRequest<'_>) -> Value {
        let query = match Query::read(|name| request.parameter(name)) {
            Ok(query) => query,
            Err(text) => return problem(StatusCode::BAD_REQUEST, &text),
        };
        let answer = timeout(TIMEOUT, self.answer(&query)).await;
        match answer.unwrap_or_else(|_| Err(Unread::late(TIMEOUT))) {
            Ok(answer) => answer,
            Err(unread) => {
                let (status, text) = match &unread {
                    Unread::NotFound(text) => (StatusCode::NOT_FOUND, text),
                    // The functions that cannot work log it.
                    Unread::Settings(text) => (StatusCode::SERVICE_UNAVAILABLE, text),
                    Unread::Away(text) => {
                        tracing::warn!("the status cannot be shown: {text}");
                        (StatusCode::SERVICE_UNAVAILABLE, text)
                    }
                };
                match query.format {
                    Format::Html => html(status, &page::problem(status, text)),
                    Format::Json => problem(status, text),
                }
            }
        }
    }

    async fn answer(&self, query: &Query) -> Result<Value, Unread> {
        let now = self.clock.now();
        let services = self.services.as_ref().ok_or_else(|| Unread::Settings(self.faults.join(" ")))?;
        let (overview, mut away) = self.overview(services).await?;
        let Some(wanted) = &query.wanted else {
            let (size, query) = (overview.len() * ITEM_BYTES, query.clone());
            let write = move || match query.format {
                Format::Html => html(StatusCode::OK, &page::overview(&overview, &query, away.as_ref(), now)),
                Format::Json => {
                    let mut document = overview.select(&query).document(now);
                    document["Away"] = json!(away);
                    json(&document, away.as_ref())
                }
            };
            return Ok(blocking::run(size, write).await);
        };
        let Some(item) = overview.find(wanted) else {
            return Err(Unread::NotFound(wanted.not_found()));
        };
        let detail = match services.detail(item).await {
            Ok(detail) => detail,
            // The cursor says more than nothing.
            Err(Unread::Away(text)) => {
                away.get_or_insert(Away { since: now, text });
                Detail { item, polls: PollList::default(), readings: Readings::default() }
            }
            Err(unread) => return Err(unread),
        };
        Ok(match query.format {
            Format::Html => html(StatusCode::OK, &page::detail(&detail, &overview, away.as_ref(), now)),
            Format::Json => {
                let mut document = detail.document(now);
                document["Away"] = json!(away);
                json(&document, away.as_ref())
            }
        })
    }

    /// Returns the overview. Concurrent requests share one reading.
    ///
    /// While Cosmos DB is away, returns what was read before, and since when it is away.
    async fn overview(&self, of: &Services) -> Result<(Arc<Overview>, Option<Away>), Unread> {
        let mut read = self.read.lock().await;
        if let Some(Read { overview, away, .. }) = read.as_ref().filter(|read| read.tried.elapsed() < LIFETIME) {
            return Ok((overview.clone(), away.clone()));
        }
        // Who has nothing older to show waits as long as the request may take.
        let limit = if read.is_some() { READ_TIMEOUT } else { TIMEOUT };
        let fresh = timeout(limit, self.read(of)).await.unwrap_or_else(|_| Err(Unread::late(limit)));
        let (overview, away) = match (fresh, read.take()) {
            (Ok(overview), _) => (Arc::new(overview), None),
            (Err(Unread::Away(text)), Some(Read { overview, away, .. })) => {
                if away.is_none() {
                    tracing::warn!("the status page shows what was read before: {text}");
                }
                let since = away.map_or_else(|| self.clock.now(), |away| away.since);
                (overview, Some(Away { since, text }))
            }
            (Err(unread), _) => return Err(unread),
        };
        *read = Some(Read { tried: Instant::now(), overview: overview.clone(), away: away.clone() });
        Ok((overview, away))
    }

    async fn read(&self, of: &Services) -> Result<Overview, Unread> {
        let rejected = async {
            match &of.scope.rapidm2m {
                Some((customer, _)) => of.ledger.rejected(customer, &replay::NOT_PUT_BACK).await,
                None => Ok(Rejected::default()),
            }
        };
        let (cursors, rejected, activities, queues, poll_queues) = tokio::join!(
            of.ledger.cursors(),
            rejected,
            of.store.activities(),
            lengths(of.queues.as_ref()),
            lengths(of.poll_queues.as_ref())
        );
        let (cursors, odd_cursors) = cursors?.unwrap_or_default();
        let (activities, odd_activities) = activities.map_err(|error| Unread::Away(error.to_string()))?;
        let size = (cursors.len() + activities.len()) * ITEM_BYTES;
        let (scope, now) = (of.scope.clone(), self.clock.now());
        let mut overview = blocking::run(size, move || Overview::new(cursors, activities, &scope, now)).await;
        overview.sends_to.clone_from(&of.sends_to);
        overview.is_local_session = of.is_local_session;
        overview.schedule = of.schedule.clone().filter(|_| of.scope.rapidm2m.is_some());
        overview.rejected = rejected?;
        let unreadable = unreadable("Sites", &odd_cursors).into_iter().chain(unreadable("Devices", &odd_activities));
        overview.notes.splice(..0, self.faults.iter().cloned().chain(unreadable));
        for (read, shown) in [(queues, &mut overview.queues), (poll_queues, &mut overview.poll_queues)] {
            match read {
                Some(Ok(lengths)) => *shown = Some(lengths),
                Some(Err(text)) => overview.notes.push(format!("It is not known what waits in the queues: {text}")),
                None => {}
            }
        }
        Ok(overview)
    }
}

/// That documents of some sites or devices cannot be read, so that they are missing on the page.
fn unreadable(whose: &str, errors: &[impl ToString]) -> Option<String> {
    let first = errors.first()?.to_string();
    Some(format!(
        "{whose} that are not shown, because their documents cannot be read: {}. The first: {first}",
        errors.len()
    ))
}

async fn lengths(queues: Option<&UplinkQueues>) -> Option<Result<Lengths, String>> {
    let lengths = timeout(QUEUES_TIMEOUT, queues?.lengths()).await;
    let late = || format!("the storage account did not answer within {} s", QUEUES_TIMEOUT.as_secs());
    Some(lengths.map_err(|_| late()).and_then(|lengths| lengths.map_err(|error| error.to_string())))
}

impl Services {
    async fn detail<'a>(&self, item: &'a Item) -> Result<Detail<'a>, Unread> {
        if item.system != Owner::RAPIDM2M {
            let owner = StoredOwner { system: item.system.into(), group: item.group.clone(), name: item.name.clone() };
            let document = self.store.activity(&activity::id(&owner)).await;
            let document = document.map_err(|error| Unread::Away(error.to_string()))?;
            let readings = document.map(|document| Readings::of_series(document.activity.series));
            let (polls, readings) = (PollList::default(), readings.unwrap_or_default());
            return Ok(Detail { item, polls, readings });
        }
        let key = SiteKey { customer: item.group.clone(), site: item.place.clone() };
        let newest = PollQuery { limit: POLLS, ..PollQuery::default() };
        let (polls, readings) = tokio::join!(self.ledger.polls(&key, &newest), self.readings(&key));
        Ok(Detail { item, polls: polls?.unwrap_or_default(), readings: readings? })
    }

    /// The last values of a site's channels, read from its messages.
    async fn readings(&self, key: &SiteKey) -> Result<Readings, LedgerError> {
        let mut readings = Readings::default();
        let (mut bytes, mut before_id) = (0, None);
        for _ in 0..MAX_PIECES {
            let messages = PollQuery {
                limit: MESSAGES,
                before_id: before_id.take(),
                with_messages: true,
                only_with_messages: true,
                without_backfills: true,
                ..PollQuery::default()
            };
            let PollList { polls, unreadable } = self.ledger.polls(key, &messages).await?.unwrap_or_default();
            let is_last = polls.len() + unreadable.len() < MESSAGES as usize || polls.is_empty();
            before_id = polls.last().map(|poll| poll.id.clone());
            let messages: Vec<_> = polls.into_iter().filter_map(|poll| poll.message).collect();
            let size = messages.iter().map(String::len).sum();
            bytes += size;
            let read = move || {
                messages.iter().for_each(|message| readings.add_message(message));
                readings
            };
            readings = blocking::run(size, read).await;
            if is_last || readings.is_full() || bytes > MAX_MESSAGE_BYTES {
                break;
            }
        }
        readings.sort();
        Ok(readings)
    }
}

fn html(status: StatusCode, page: &page::Page) -> Value {
    document(status, "text/html; charset=utf-8", &[("Content-Security-Policy", page.policy)], &page.html)
}

/// For monitors the status says that this is not the state of now. People see it on the page, which a proxy might replace.
fn json(value: &Value, away: Option<&Away>) -> Value {
    let status = if away.is_some() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    document(status, "application/json; charset=utf-8", &[], &value.to_string())
}

impl Wanted {
    fn not_found(&self) -> String {
        let Self { system, group, name } = self;
        let what = if *system == Owner::RAPIDM2M { "site" } else { "device" };
        match group {
            Some(group) => {
                format!("nothing is known of {what} {name:?} of {group:?}: is the name spelt as in the overview?")
            }
            None => format!("nothing is known of {what} {name:?}: is the name spelt as in the overview?"),
        }
    }
}
