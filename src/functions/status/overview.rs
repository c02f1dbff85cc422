//! All sites and devices.

use std::collections::{BTreeMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Scope,
    query::{Query, Sort, Wanted},
};
use crate::{
    config::rapidm2m::Selection,
    devices::{Owner, activity},
    forward::record::MAX_UNFORWARDED,
    functions::rapidm2m_forwarding::ALL_SITES,
    hours::HOURS,
    ledger::{Cursor, Fault},
    queue::Lengths,
};

/// Without a new value for longer than this, a site or device counts as silent.
const SILENT_AFTER: TimeDelta = TimeDelta::hours(24);
/// If no poll at all was recorded for so long, the timer seems not to run: its longest interval that is of use.
const STANDS_STILL_AFTER: TimeDelta = TimeDelta::minutes(15);

/// How a site or device is, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Its last poll, or the forwarding of its last uplink, failed; or the hub takes nothing.
    Failing,
    /// Messages wait for the hub.
    Waiting,
    /// No new value for a day.
    Silent,
    /// Nothing is known of it.
    Never,
    Ok,
}

impl State {
    pub const ALL: [Self; 5] = [Self::Failing, Self::Waiting, Self::Silent, Self::Never, Self::Ok];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Failing => "failing",
            Self::Waiting => "waiting",
            Self::Silent => "silent",
            Self::Never => "never",
            Self::Ok => "ok",
        }
    }
}

/// A site or device.
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
    /// How its last polls ended: see [`Activity::polls`](crate::ledger::Activity::polls).
    pub polls: String,
    /// Messages that wait for the hub. (Those of uplinks wait in the storage queue.)
    pub waiting: usize,
    /// Failures in a row.
    pub failures: u32,
    /// What failed: the backend or the forwarding, and the hub.
    pub errors: Vec<Fault>,
    pub rests_until: Option<DateTime<Utc>>,
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
            rests_until: cursor.not_before.filter(|until| now < *until),
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
            rests_until: None,
            per_hour: activity.uplinks.until(now),
        }
    }

    fn never_polled(customer: &str, site: &str) -> Self {
        let key = crate::ledger::SiteKey { customer: customer.to_owned(), site: site.to_owned() };
        Self::of_site(Cursor::new(&key), DateTime::UNIX_EPOCH)
    }

    /// Seconds since the newest value.
    #[must_use]
    pub fn lag(&self, now: DateTime<Utc>) -> Option<i64> {
        self.newest.map(|newest| (now - newest).num_seconds().max(0))
    }

    /// For JSON. The names are those of the documents in Cosmos DB.
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
            "NotBefore": self.rests_until,
            "PerHour": self.per_hour,
        })
    }

    fn matches(&self, query: &Query) -> bool {
        let contains = |text: &str| text.to_lowercase().contains(&query.search);
        query.state.is_none_or(|state| state == self.state)
            && (query.search.is_empty() || contains(&self.name) || contains(&self.group))
    }
}

/// What was read at one time.
#[derive(Debug)]
pub struct Overview {
    /// By trouble; those in the same trouble by lag, and by name those that are well.
    items: Vec<Item>,
    pub read_at: DateTime<Utc>,
    /// What concerns all of them.
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
    /// How many fit the query.
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
            // Among those that are well, nobody looks for the one that measures least often.
            let place = |item: &Item| (item.state, item.newest.filter(|_| item.state != State::Ok));
            place(one).cmp(&place(other)).then_with(|| by_name(one, other))
        });
        overview
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// How many are in each state.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<State, usize> {
        let mut counts = BTreeMap::from(State::ALL.map(|state| (state, 0)));
        for item in &self.items {
            *counts.entry(item.state).or_default() += 1;
        }
        counts
    }

    /// Rows and uplinks of all in each hour.
    #[must_use]
    pub fn per_hour(&self) -> [u32; HOURS] {
        let add =
            |sum: [u32; HOURS], item: &Item| std::array::from_fn(|hour| sum[hour].saturating_add(item.per_hour[hour]));
        self.items.iter().fold([0; HOURS], add)
    }

    /// The part of the list that a query asks for.
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
mod tests {
    use super::*;
    use crate::ledger::SiteKey;

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_767_225_600, 0).unwrap()
    }

    fn cursor(site: &str) -> Cursor {
        let mut cursor = Cursor::new(&SiteKey { customer: "c".into(), site: site.into() });
        (cursor.scanned_until, cursor.last_value_from) = (Some(now()), Some(now() - TimeDelta::hours(1)));
        let activity = cursor.activity.get_or_insert_default();
        (activity.polled_at, activity.polls) = (now(), "e".into());
        cursor
    }

    fn fault() -> Option<Fault> {
        Some(Fault { kind: "k".into(), text: "t".into() })
    }

    fn scope(selection: Selection) -> Scope {
        Scope { rapidm2m: Some(("c".into(), selection)), has_things_network: false, records_empty_polls: true }
    }

    fn states(cursors: Vec<Cursor>, selection: Selection) -> (Vec<(String, State)>, Vec<String>) {
        let overview = Overview::new(cursors, Vec::new(), &scope(selection), now());
        (overview.items.iter().map(|item| (item.name.clone(), item.state)).collect(), overview.notes)
    }

    #[test]
    fn trouble_comes_first_and_what_is_well_by_name() {
        let make = |site: &str, change: fn(&mut Cursor)| {
            let mut cursor = cursor(site);
            change(&mut cursor);
            cursor
        };
        let cursors = vec![
            make("well b", |_| {}),
            make("Well a", |cursor| cursor.last_value_from = Some(now())),
            make("gone", |cursor| cursor.last_value_from = Some(now() - TimeDelta::hours(25))),
            make("empty", |cursor| cursor.last_value_from = None),
            make("new", |cursor| (cursor.last_value_from, cursor.scanned_until) = (None, None)),
            make("waits", |cursor| cursor.unforwarded = vec!["1".into()]),
            make("refused", |cursor| {
                cursor.unforwarded = vec!["1".into()];
                cursor.activity.as_mut().unwrap().hub_error = fault();
            }),
            make("was refused", |cursor| cursor.activity.as_mut().unwrap().hub_error = fault()),
            make("full", |cursor| cursor.unforwarded = vec!["1".into(); MAX_UNFORWARDED]),
            make("fails", |cursor| (cursor.consecutive_failures, cursor.last_error) = (1, fault())),
        ];
        let (found, notes) = states(cursors, Selection::All);
        let names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
        let expected = ["fails", "full", "refused", "waits", "empty", "gone", "new", "was refused", "Well a", "well b"];
        assert_eq!(names, expected);
        let of = |name: &str| found.iter().find(|(other, _)| other == name).unwrap().1;
        assert_eq!(
            ["full", "waits", "gone", "new"].map(of),
            [State::Failing, State::Waiting, State::Silent, State::Never]
        );
        assert!(notes.is_empty(), "{notes:?}");
    }

    #[test]
    fn only_what_the_settings_ask_for_is_shown_and_all_of_it() {
        let mut listing = cursor(ALL_SITES);
        listing.last_error = fault();
        let mut foreign = cursor("other customer's");
        foreign.customer = "d".into();
        let cursors = vec![cursor("old"), cursor("a"), foreign, listing];
        let (found, notes) = states(cursors.clone(), Selection::Named(vec!["a".into(), "b".into()]));
        assert_eq!(found, [("b".to_owned(), State::Never), ("a".to_owned(), State::Ok)]);
        assert!(notes.iter().any(|note| note.contains("cannot be listed: t")), "{notes:?}");
        assert!(notes.iter().any(|note| note.starts_with("2 more sites")), "{notes:?}");
        assert_eq!(states(cursors, Selection::All).0.len(), 2);
    }

    #[test]
    fn a_timer_that_does_not_run_is_told() {
        let mut cursor = cursor("a");
        cursor.activity.as_mut().unwrap().polled_at = now() - TimeDelta::minutes(16);
        let (_, notes) = states(vec![cursor.clone()], Selection::All);
        assert!(notes[0].contains("16 minutes"), "{notes:?}");
        let quiet = Scope { records_empty_polls: false, ..scope(Selection::All) };
        assert!(Overview::new(vec![cursor], Vec::new(), &quiet, now()).notes.is_empty());
    }

    #[test]
    fn the_list_can_be_searched_and_sorted() {
        let mut cursors = vec![cursor("Älpli"), cursor("b"), cursor("C")];
        cursors[2].last_value_from = Some(now() - TimeDelta::hours(2));
        let overview = Overview::new(cursors, Vec::new(), &scope(Selection::All), now());
        let names =
            |query: &Query| -> Vec<_> { overview.select(query).items.iter().map(|item| item.name.clone()).collect() };
        let query = Query { limit: 50, ..Query::default() };
        assert_eq!(names(&Query { search: "älp".into(), ..query.clone() }), ["Älpli"]);
        assert_eq!(names(&Query { sort: Sort::Lag, ..query.clone() })[0], "C");
        assert_eq!(names(&Query { sort: Sort::Name, from: 1, limit: 1, ..query.clone() }), ["C"]);
        assert_eq!(names(&Query { state: Some(State::Failing), ..query }), Vec::<String>::new());
    }
}
