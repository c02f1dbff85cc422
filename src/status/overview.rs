//! Builds the list of all sites and devices with their states, and selects a part of it.

use std::collections::{BTreeMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use super::{
    Scope,
    query::{Query, Sort, Wanted},
    state::State,
};
use crate::{
    iot_hub::devices::{Owner, activity},
    queue::Lengths,
    rapidm2m::{
        Selection,
        ledger::{ALL_SITES, Cursor, Fault},
        polling::record::MAX_UNFORWARDED,
    },
    support::hours::HOURS,
};

/// A site or device without a new value for longer than this counts as silent.
const SILENT_AFTER: TimeDelta = TimeDelta::hours(24);
/// If no poll was recorded for this long, the timer probably does not run. No useful timer interval is longer.
const STANDS_STILL_AFTER: TimeDelta = TimeDelta::minutes(15);

#[derive(Clone, Debug)]
pub struct Item {
    pub system: &'static str,
    /// Customer or application.
    pub group: String,
    pub name: String,
    pub state: State,
    /// Stamp of the newest row, or time of the last uplink.
    pub newest: Option<DateTime<Utc>>,
    pub polled_at: Option<DateTime<Utc>>,
    /// The results of its last polls: see [`Activity::polls`](crate::rapidm2m::ledger::Activity::polls).
    pub polls: String,
    /// Pending messages for the hub. (Pending uplinks are in the storage queue.)
    pub waiting: usize,
    /// Failures in a row.
    pub failures: u32,
    /// The last error of the backend or of the forwarding, and the last error of the hub.
    pub errors: Vec<Fault>,
    pub backs_off_until: Option<DateTime<Utc>>,
    /// Rows or uplinks.
    pub per_hour: [u32; HOURS],
}

impl Item {
    fn of_site(cursor: Cursor, now: DateTime<Utc>) -> Self {
        let activity = cursor.activity.unwrap_or_default();
        let waiting = cursor.unforwarded.len();
        let hub_error = activity.hub_error.filter(|_| waiting > 0);
        let is_failing = cursor.consecutive_failures > 0 || waiting >= MAX_UNFORWARDED || hub_error.is_some();
        let state = match cursor.last_value_from {
            _ if is_failing => State::Failing,
            _ if waiting > 0 => State::Waiting,
            None if cursor.scanned_until.is_none() => State::Never,
            Some(newest) if now - newest <= SILENT_AFTER => State::Ok,
            _ => State::Silent,
        };
        Self {
            system: Owner::RAPIDM2M,
            group: cursor.customer,
            name: cursor.site,
            state,
            newest: cursor.last_value_from,
            polled_at: (!activity.polls.is_empty()).then_some(activity.polled_at),
            polls: activity.polls,
            waiting,
            failures: cursor.consecutive_failures,
            errors: cursor.last_error.into_iter().chain(hub_error).collect(),
            backs_off_until: cursor.not_before.filter(|until| now < *until),
            per_hour: activity.rows.until(now),
        }
    }

    fn of_device(document: activity::Document, now: DateTime<Utc>) -> Self {
        let activity = document.activity;
        let state = match activity.last_uplink_at {
            _ if activity.failures > 0 => State::Failing,
            None => State::Never,
            Some(newest) if now - newest <= SILENT_AFTER => State::Ok,
            Some(_) => State::Silent,
        };
        Self {
            system: Owner::THINGS_NETWORK,
            group: document.owner.group,
            name: document.owner.name,
            state,
            newest: activity.last_uplink_at,
            polled_at: None,
            polls: String::new(),
            waiting: 0,
            failures: activity.failures,
            errors: activity.last_error.into_iter().collect(),
            backs_off_until: None,
            per_hour: activity.uplinks.until(now),
        }
    }

    fn never_polled(customer: &str, site: &str) -> Self {
        let key = crate::rapidm2m::ledger::SiteKey { customer: customer.to_owned(), site: site.to_owned() };
        Self::of_site(Cursor::new(&key), DateTime::UNIX_EPOCH)
    }

    /// Seconds since the newest value.
    #[must_use]
    pub fn lag(&self, now: DateTime<Utc>) -> Option<i64> {
        self.newest.map(|newest| (now - newest).num_seconds().max(0))
    }

    /// The item as JSON. The names are those of the documents in Cosmos DB.
    #[must_use]
    pub fn document(&self, now: DateTime<Utc>) -> Value {
        let [of, name] =
            if self.system == Owner::RAPIDM2M { ["Customer_Id", "Site_Id"] } else { ["ApplicationID", "DeviceID"] };
        json!({
            "System": self.system,
            of: self.group,
            name: self.name,
            "State": self.state,
            "LastValueFrom": self.newest,
            "LagSeconds": self.lag(now),
            "PolledAt": self.polled_at,
            "Polls": self.polls,
            "Waiting": self.waiting,
            "ConsecutiveFailures": self.failures,
            "Errors": self.errors,
            "NotBefore": self.backs_off_until,
            "PerHour": self.per_hour,
        })
    }

    fn matches(&self, query: &Query) -> bool {
        let contains = |text: &str| text.to_lowercase().contains(&query.search);
        query.state.is_none_or(|state| state == self.state)
            && (query.search.is_empty() || contains(&self.name) || contains(&self.group))
    }
}

/// The list as it was read at one time.
#[derive(Debug)]
pub struct Overview {
    /// Sorted by state. Within a state, those with the oldest newest value come first; those in state ok are sorted by
    /// name.
    items: Vec<Item>,
    pub read_at: DateTime<Utc>,
    /// Remarks that concern the whole list.
    pub notes: Vec<String>,
    pub has_sites: bool,
    pub has_devices: bool,
    /// Messages of LoRaWAN devices.
    pub queues: Option<Lengths>,
}

/// A part of the list.
#[derive(Debug)]
pub struct Selected<'a> {
    pub overview: &'a Overview,
    pub items: Vec<&'a Item>,
    pub from: usize,
    /// The number of items that match the query.
    pub total: usize,
    limit: usize,
}

impl Overview {
    #[must_use]
    pub fn new(cursors: Vec<Cursor>, activities: Vec<activity::Document>, scope: &Scope, now: DateTime<Utc>) -> Self {
        let mut notes = Vec::new();
        let mut items = Vec::with_capacity(cursors.len() + activities.len());
        let polled_at = cursors.iter().filter_map(|cursor| Some(cursor.activity.as_ref()?.polled_at)).max();
        if let Some((customer, selection)) = &scope.rapidm2m {
            let named: Option<HashSet<&str>> = match selection {
                Selection::All => None,
                Selection::Named(names) => Some(names.iter().map(String::as_str).collect()),
            };
            let mut others = 0;
            for cursor in cursors {
                if cursor.customer != *customer {
                    others += 1;
                } else if cursor.site == ALL_SITES {
                    if let Some(error) = &cursor.last_error {
                        notes.push(format!("The sites of {customer:?} cannot be listed: {}", error.text));
                    }
                } else if named.as_ref().is_some_and(|named| !named.contains(cursor.site.as_str())) {
                    others += 1;
                } else {
                    items.push(Item::of_site(cursor, now));
                }
            }
            if let Selection::Named(names) = selection {
                let known: HashSet<_> = items.iter().map(|item| item.name.clone()).collect();
                let unknown = names.iter().filter(|name| !known.contains(*name));
                items.extend(unknown.map(|site| Item::never_polled(customer, site)));
            }
            if others > 0 {
                notes.push(format!(
                    "{others} more sites have a cursor in Cosmos DB; Customer_ID and Site_ID do not ask for them (any more)."
                ));
            }
            if scope.records_empty_polls
                && let Some(at) = polled_at
                && now - at > STANDS_STILL_AFTER
            {
                let minutes = (now - at).num_minutes();
                notes.push(format!("No poll was recorded for {minutes} minutes: does rapidM2MForwarding run?"));
            }
        }
        items.extend(activities.into_iter().map(|document| Item::of_device(document, now)));
        let mut overview = Self {
            items,
            read_at: now,
            notes,
            has_sites: scope.rapidm2m.is_some(),
            has_devices: scope.has_things_network,
            queues: None,
        };
        overview.items.sort_by(|one, other| {
            // Among healthy items, the order by lag is of no use: it would show those first that measure least often.
            let place = |item: &Item| (item.state, item.newest.filter(|_| item.state != State::Ok));
            place(one).cmp(&place(other)).then_with(|| by_name(one, other))
        });
        overview
    }

    /// The number of items.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// The number of items in each state.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<State, usize> {
        let mut counts = BTreeMap::from(State::ALL.map(|state| (state, 0)));
        for item in &self.items {
            *counts.entry(item.state).or_default() += 1;
        }
        counts
    }

    /// Rows and uplinks of all items in each hour.
    #[must_use]
    pub fn per_hour(&self) -> [u32; HOURS] {
        let add =
            |sum: [u32; HOURS], item: &Item| std::array::from_fn(|hour| sum[hour].saturating_add(item.per_hour[hour]));
        self.items.iter().fold([0; HOURS], add)
    }

    /// The part of the list that a query requests.
    #[must_use]
    pub fn select(&self, query: &Query) -> Selected<'_> {
        let mut items: Vec<_> = self.items.iter().filter(|item| item.matches(query)).collect();
        match query.sort {
            Sort::Trouble => {}
            Sort::Lag => items.sort_by(|one, other| one.newest.cmp(&other.newest).then_with(|| by_name(one, other))),
            Sort::Name => items.sort_by(|one, other| by_name(one, other)),
        }
        let total = items.len();
        let items = items.into_iter().skip(query.from).take(query.limit).collect();
        Selected { overview: self, items, from: query.from, total, limit: query.limit }
    }

    #[must_use]
    pub fn find(&self, wanted: &Wanted) -> Option<&Item> {
        self.items.iter().find(|item| {
            item.system == wanted.system
                && item.name == wanted.name
                && wanted.group.as_ref().is_none_or(|group| *group == item.group)
        })
    }
}

fn by_name(one: &Item, other: &Item) -> std::cmp::Ordering {
    let key = |item: &Item| (item.system, item.group.to_lowercase(), item.name.to_lowercase());
    key(one).cmp(&key(other)).then_with(|| one.name.cmp(&other.name))
}

impl Selected<'_> {
    #[must_use]
    pub fn document(&self, now: DateTime<Utc>) -> Value {
        let counts: BTreeMap<_, _> =
            self.overview.counts().into_iter().map(|(state, count)| (state.name(), count)).collect();
        let next = self.from + self.items.len();
        json!({
            "ReadAt": self.overview.read_at,
            "Notes": self.overview.notes,
            "States": counts,
            "Queues": self.overview.queues,
            "PerHour": self.overview.per_hour(),
            "Total": self.total,
            "From": self.from,
            "Limit": self.limit,
            "Next": (next < self.total && !self.items.is_empty()).then_some(next),
            "Items": self.items.iter().map(|item| item.document(now)).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests;
