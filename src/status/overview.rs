//! Builds the list of all sites and devices with their states, and selects a part of it.

use std::collections::{BTreeMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use super::{
    Scope,
    cause::{self, Cause},
    query::{Query, Sort, Wanted, Within},
    state::State,
};
use crate::{
    iot_hub::devices::{Owner, activity},
    queue::Lengths,
    rapidm2m::{
        Selection, Stamp,
        ledger::{ALL_SITES, Cursor, Fault, Rejected},
        polling::record::MAX_UNFORWARDED,
    },
    support::{
        hours::{HOURS, Hours},
        kind::Kind,
        reading::Reading,
    },
};

/// A site or device is silent after so many of its usual intervals without a new value.
const INTERVALS: i32 = 3;
/// The interval of one that was not active often enough to have a usual one.
const UNKNOWN_INTERVAL: TimeDelta = TimeDelta::hours(8);
/// If no poll was recorded for this long, the timer probably does not run. No useful timer interval is longer.
const STANDS_STILL_AFTER: TimeDelta = TimeDelta::minutes(15);

/// Why something fails, and since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub fault: Fault,
    pub since: Option<DateTime<Utc>>,
}

#[derive(Clone, Debug)]
pub struct Item {
    pub system: &'static str,
    /// Customer or application.
    pub group: String,
    pub name: String,
    /// `Site_Id` of its documents. Of a device: its name.
    pub place: String,
    /// The site's `_uid`.
    pub uid: Option<String>,
    pub state: State,
    /// Stamp of the newest row, or time of the last uplink.
    pub newest: Option<DateTime<Utc>>,
    /// A value of then.
    pub reading: Option<Reading>,
    pub polled_at: Option<DateTime<Utc>>,
    /// The results of its last polls: see [`Activity::polls`](crate::rapidm2m::ledger::Activity::polls).
    pub polls: String,
    /// Pending messages for the hub. (Pending uplinks are in the storage queue.)
    pub waiting: usize,
    /// Failures in a row.
    pub failures: u32,
    /// The last error of the backend or of the forwarding, and the last error of the hub.
    pub errors: Vec<Failure>,
    pub backs_off_until: Option<DateTime<Utc>>,
    /// Rows or uplinks.
    pub per_hour: [u32; HOURS],
    /// It is silent when its newest value is older than this.
    pub silent_after: TimeDelta,
    /// Rows that came late, that came again with other values, that could not be used, and that a reset clock has stamped,
    /// since the site was first polled.
    pub odd_rows: [(&'static str, u64); 4],
}

impl Failure {
    fn document(&self) -> Value {
        json!({ "Kind": self.fault.kind, "Text": self.fault.text, "Since": self.since })
    }
}

/// After what time without a value one is silent that was active in these hours: several of its usual intervals, and longer
/// than any pause that it made of itself.
fn silent_after(hours: &Hours) -> TimeDelta {
    let pauses = hours.pauses();
    let Some(usual) = pauses.get(pauses.len() / 2) else { return UNKNOWN_INTERVAL * INTERVALS };
    let longest = pauses.last().copied().unwrap_or_default();
    (*usual * INTERVALS).max(longest + TimeDelta::hours(1))
}

impl Item {
    fn of_site(cursor: Cursor, now: DateTime<Utc>) -> Self {
        let name = cursor.name().to_owned();
        let gone = cursor.gone_since.map(|since| Failure {
            fault: Fault { kind: Kind::SitesUnlisted, text: "the backend does not list the site any more".to_owned() },
            since: Some(since),
        });
        let waiting = cursor.waiting(now);
        let activity = cursor.activity.unwrap_or_default();
        let hub_error = activity.hub_error.filter(|_| waiting > 0);
        let hub_error = hub_error.map(|fault| Failure { fault, since: activity.hub_error_since });
        let last_error = cursor.last_error.map(|fault| Failure { fault, since: activity.failing_since });
        let silent_after = silent_after(&activity.rows);
        let is_failing = cursor.consecutive_failures > 0 || waiting >= MAX_UNFORWARDED || hub_error.is_some();
        let state = match cursor.last_value_from {
            _ if is_failing => State::Failing,
            _ if waiting > 0 => State::Waiting,
            None if cursor.scanned_until.is_none() => State::Never,
            Some(newest) if now - newest <= silent_after => State::Ok,
            _ => State::Silent,
        };
        Self {
            system: Owner::RAPIDM2M,
            group: cursor.customer,
            name,
            place: cursor.site,
            uid: cursor.site_uid,
            state,
            newest: cursor.last_value_from,
            reading: activity.newest,
            polled_at: (!activity.polls.is_empty()).then_some(activity.polled_at),
            polls: activity.polls,
            waiting,
            failures: cursor.consecutive_failures,
            errors: gone.into_iter().chain(last_error).chain(hub_error).collect(),
            backs_off_until: cursor.not_before.filter(|until| now < *until),
            per_hour: activity.rows.until(now),
            silent_after,
            odd_rows: [
                ("Late", activity.late_rows),
                ("Corrected", activity.corrected_rows),
                ("Unusable", activity.unusable_rows),
                ("ResetClock", activity.reset_rows),
            ],
        }
    }

    fn of_device(document: activity::Document, now: DateTime<Utc>) -> Self {
        let activity = document.activity;
        let silent_after = silent_after(&activity.uplinks);
        let failing_since = activity.failing_since;
        let state = match activity.last_uplink_at {
            _ if activity.failures > 0 => State::Failing,
            None => State::Never,
            Some(newest) if now - newest <= silent_after => State::Ok,
            Some(_) => State::Silent,
        };
        Self {
            system: Owner::THINGS_NETWORK,
            group: document.owner.group,
            place: document.owner.name.clone(),
            name: document.owner.name,
            uid: None,
            state,
            newest: activity.last_uplink_at,
            reading: activity.newest,
            polled_at: None,
            polls: String::new(),
            waiting: 0,
            failures: activity.failures,
            errors: activity.last_error.map(|fault| Failure { fault, since: failing_since }).into_iter().collect(),
            backs_off_until: None,
            per_hour: activity.uplinks.until(now),
            silent_after,
            odd_rows: Default::default(),
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
        let mut document = json!({
            "System": self.system,
            of: self.group,
            name: self.place,
            "State": self.state,
            "LastValueFrom": self.newest,
            "LagSeconds": self.lag(now),
            "Newest": self.reading,
            "PolledAt": self.polled_at,
            "Polls": self.polls,
            "Waiting": self.waiting,
            "ConsecutiveFailures": self.failures,
            "Errors": self.errors.iter().map(Failure::document).collect::<Vec<_>>(),
            "SilentAfterSeconds": self.silent_after.num_seconds(),
            "NotBefore": self.backs_off_until,
            "PerHour": self.per_hour,
        });
        if self.system == Owner::RAPIDM2M {
            document["Site_Name"] = self.name.as_str().into();
            document["Site_Uid"] = self.uid.clone().into();
            document["OddRows"] = self.odd_rows.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect();
        }
        document
    }

    /// Whether a request means this one.
    fn is_called(&self, name: &str) -> bool {
        self.name == name || self.place == name || self.uid.as_deref() == Some(name)
    }

    fn is_within(&self, within: &Within) -> bool {
        self.system == within.system && within.group.as_ref().is_none_or(|group| *group == self.group)
    }

    fn matches(&self, query: &Query) -> bool {
        let contains = |text: &str| text.to_lowercase().contains(&query.search);
        query.state.is_none_or(|state| state == self.state)
            && query.within.as_ref().is_none_or(|within| self.is_within(within))
            && (query.search.is_empty()
                || [&self.name, &self.group].into_iter().chain(&self.uid).any(|text| contains(text)))
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
    /// Causes that several items share, those of most items first.
    pub causes: Vec<Cause>,
    /// Why the backend's sites cannot be listed.
    pub unlisted: Option<Failure>,
    /// When a site was last polled.
    pub polled_at: Option<DateTime<Utc>>,
    /// The hub, and the transport. For people.
    pub sends_to: String,
    /// Whether commands need `--local`.
    pub is_local_session: bool,
    /// Of the timer that polls the sites.
    pub schedule: Option<String>,
    /// Messages of sites that `replay` can put back.
    pub rejected: Rejected,
    pub has_sites: bool,
    pub has_devices: bool,
    /// Messages of LoRaWAN devices.
    pub queues: Option<Lengths>,
    /// Batches of sites.
    pub poll_queues: Option<Lengths>,
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
        let (mut notes, mut unlisted) = (Vec::new(), None);
        let mut items = Vec::with_capacity(cursors.len() + activities.len());
        let polled_at = cursors.iter().filter_map(|cursor| Some(cursor.activity.as_ref()?.polled_at)).max();
        if let Some((customer, selection)) = &scope.rapidm2m {
            // Messages that wait are sent though a site is not asked for (any more).
            let is_asked_for = |cursor: &Cursor| match selection {
                Selection::All => cursor.gone_since.is_none(),
                Selection::Named(names) => names.iter().any(|name| cursor.is_called(name)),
            };
            let (mut others, mut known) = (0, HashSet::new());
            for cursor in cursors {
                if cursor.customer != *customer {
                    others += 1;
                } else if cursor.site == ALL_SITES {
                    let since = cursor.activity.as_ref().and_then(|activity| activity.failing_since);
                    unlisted = cursor.last_error.clone().map(|fault| Failure { fault, since });
                    if let Some(since) = cursor.contacts_wrong_since {
                        notes.push(format!(
                            "Since {} each site is polled in each run: a site had new rows, but the site list showed no new contact \
                             (device.stamp) of it. It is trusted again by a start a week later",
                            Stamp::from_time(since).rfc3339()
                        ));
                    }
                } else if !is_asked_for(&cursor) && cursor.unforwarded.is_empty() {
                    others += 1;
                } else {
                    if let Selection::Named(names) = selection {
                        known.extend(names.iter().filter(|name| cursor.is_called(name)));
                    }
                    items.push(Item::of_site(cursor, now));
                }
            }
            if let Selection::Named(names) = selection {
                let unknown = names.iter().filter(|name| !known.contains(*name));
                items.extend(unknown.map(|site| Item::never_polled(customer, site)));
            }
            if others > 0 {
                notes.push(format!(
                    "{others} more sites have a cursor in Cosmos DB; Customer_ID and Site_ID do not ask for them (any more), or the backend \
                     does not list them. Nothing of them waits."
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
        let mut causes = cause::common(&items);
        // It is told already.
        causes.retain(|cause| !unlisted.as_ref().is_some_and(|unlisted| cause.explains(&unlisted.fault.kind)));
        let mut overview = Self {
            items,
            read_at: now,
            notes,
            causes,
            unlisted,
            polled_at: polled_at.filter(|at| *at > DateTime::UNIX_EPOCH),
            sends_to: String::new(),
            is_local_session: false,
            schedule: None,
            rejected: Rejected::default(),
            has_sites: scope.rapidm2m.is_some(),
            has_devices: scope.has_things_network,
            queues: None,
            poll_queues: None,
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

    /// The number of items of each system.
    #[must_use]
    pub fn systems(&self) -> BTreeMap<&'static str, usize> {
        let mut systems = BTreeMap::new();
        self.items.iter().for_each(|item| *systems.entry(item.system).or_default() += 1);
        systems
    }

    /// The number of items of each customer and application.
    #[must_use]
    pub fn groups(&self) -> BTreeMap<(&'static str, &str), usize> {
        let mut groups = BTreeMap::new();
        self.items.iter().for_each(|item| *groups.entry((item.system, item.group.as_str())).or_default() += 1);
        groups
    }

    /// The number of items in each state, of all or of a part.
    #[must_use]
    pub fn counts(&self, within: Option<&Within>) -> BTreeMap<State, usize> {
        let mut counts = BTreeMap::from(State::ALL.map(|state| (state, 0)));
        for item in self.items.iter().filter(|item| within.is_none_or(|within| item.is_within(within))) {
            *counts.entry(item.state).or_default() += 1;
        }
        counts
    }

    /// Messages of sites that wait for the hub, and of how many sites.
    #[must_use]
    pub fn waiting(&self) -> (usize, usize) {
        let waiting = self.items.iter().map(|item| item.waiting).filter(|waiting| *waiting > 0);
        waiting.fold((0, 0), |(messages, sites), waiting| (messages + waiting, sites + 1))
    }

    /// The cause at the head of the page that explains an error, if there is one.
    #[must_use]
    pub fn explains(&self, error: &Failure) -> bool {
        let kind = &error.fault.kind;
        self.causes.iter().any(|cause| cause.explains(kind))
            || self.unlisted.as_ref().is_some_and(|unlisted| unlisted.fault.kind.is_alike(kind))
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
        let is_of = |item: &&Item| {
            item.system == wanted.system && wanted.group.as_ref().is_none_or(|group| *group == item.group)
        };
        let mut items = self.items.iter().filter(is_of);
        let by_place = items.clone().find(|item| item.place == wanted.name);
        by_place.or_else(|| items.find(|item| item.is_called(&wanted.name)))
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
            self.overview.counts(None).into_iter().map(|(state, count)| (state.name(), count)).collect();
        let next = self.from + self.items.len();
        json!({
            "ReadAt": self.overview.read_at,
            "Notes": self.overview.notes,
            "PolledAt": self.overview.polled_at,
            "SendsTo": self.overview.sends_to,
            "Version": env!("CARGO_PKG_VERSION"),
            "Schedule": self.overview.schedule,
            "Rejected": self.overview.rejected,
            "Causes": self.overview.causes,
            "Unlisted": self.overview.unlisted.as_ref().map(Failure::document),
            "States": counts,
            "Queues": self.overview.queues,
            "PollQueues": self.overview.poll_queues,
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
