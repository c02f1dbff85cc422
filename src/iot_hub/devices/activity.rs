//! The latest activity of LoRaWAN devices in container `devices`, for the user. No decision depends on it.

use std::collections::VecDeque;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::StoredOwner;
use crate::support::{fault::Fault, hours::Hours, reading::Reading};

/// Limits for the values that are kept of a device's last uplinks.
pub const MAX_POINTS: usize = 48;
pub const MAX_CHANNELS: usize = 16;

/// The activity document of a device. Other documents in the container say which owner has which device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Document {
    /// See [`id`].
    #[serde(rename = "id")]
    pub id: String,
    pub kind: Kind,
    pub owner: StoredOwner,
    pub activity: Activity,
}

/// The value of `Kind`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    #[default]
    #[serde(rename = "activity")]
    Activity,
}

/// The latest activity of a device. Also holds the part that is not written yet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Activity {
    /// When the network received the last uplink that was forwarded.
    #[serde(default)]
    pub last_uplink_at: Option<DateTime<Utc>>,
    /// Uplinks forwarded in each hour.
    #[serde(default)]
    pub uplinks: Hours,
    /// Failed attempts in a row, of any kind.
    #[serde(default)]
    pub failures: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<Fault>,
    /// Since when it fails for the reason in `last_error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<DateTime<Utc>>,
    /// The first number of the last uplink.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<Reading>,
    /// Numbers from the last uplinks.
    #[serde(default)]
    pub series: Series,
}

/// The last values of some channels. The numbers of channels and points are limited: the oldest points are removed, and
/// new channels are left out if there is no room.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Series {
    pub channels: Vec<String>,
    /// Unix time in milliseconds, and the values in the order of the channels; oldest first.
    pub points: VecDeque<(i64, Vec<Option<f64>>)>,
}

/// The id of an owner's document. It cannot be the id of a device's document, because a registration id has no `|`.
#[must_use]
pub fn id(owner: &StoredOwner) -> String {
    format!("activity|{}|{}", owner.group, owner.name)
}

impl Document {
    #[must_use]
    pub fn new(owner: StoredOwner) -> Self {
        Self { id: id(&owner), kind: Kind::Activity, owner, activity: Activity::default() }
    }
}

impl Activity {
    /// Adds an uplink that was forwarded.
    pub fn uplink(&mut self, at: DateTime<Utc>, values: impl IntoIterator<Item = (String, f64)>) {
        let mut values = values.into_iter().peekable();
        if self.last_uplink_at.is_none_or(|last| last <= at) {
            self.newest = values.peek().map(|(name, value)| Reading::of_json(name, &value.to_string()));
        }
        self.last_uplink_at = self.last_uplink_at.max(Some(at));
        self.uplinks.add(at, 1);
        (self.failures, self.last_error, self.failing_since) = (0, None, None);
        self.series.add(at, values);
    }

    /// Adds a failure.
    pub fn failure(&mut self, fault: Fault, now: DateTime<Utc>) {
        self.failures = self.failures.saturating_add(1);
        self.note_error(fault, Some(now));
    }

    /// An error that only follows from the known one does not replace it.
    fn note_error(&mut self, fault: Fault, since: Option<DateTime<Utc>>) {
        match &self.last_error {
            Some(_) if fault.kind.is_consequence() => return,
            Some(last) if last.kind.is_alike(&fault.kind) => self.failing_since = self.failing_since.or(since),
            _ => self.failing_since = since,
        }
        self.last_error = Some(fault);
    }

    /// Adds the activity of a later period.
    pub fn add(&mut self, since: Self) {
        if since.last_uplink_at.is_some() {
            (self.failures, self.last_error, self.failing_since) =
                (since.failures, since.last_error, since.failing_since);
        } else {
            self.failures = self.failures.saturating_add(since.failures);
            if let Some(fault) = since.last_error {
                self.note_error(fault, since.failing_since);
            }
        }
        if self.last_uplink_at <= since.last_uplink_at && since.last_uplink_at.is_some() {
            self.newest = since.newest;
        }
        self.last_uplink_at = self.last_uplink_at.max(since.last_uplink_at);
        self.uplinks.merge(&since.uplinks);
        let Series { channels, points } = since.series;
        for (at, values) in points {
            let named = channels.iter().cloned().zip(values).filter_map(|(name, value)| Some((name, value?)));
            self.series.add_at(at, named);
        }
    }
}

impl Series {
    pub fn add(&mut self, at: DateTime<Utc>, values: impl IntoIterator<Item = (String, f64)>) {
        self.add_at(at.timestamp_millis(), values);
    }

    fn add_at(&mut self, at: i64, values: impl IntoIterator<Item = (String, f64)>) {
        let mut row = vec![None; self.channels.len()];
        for (name, value) in values {
            match self.channels.iter().position(|channel| *channel == name) {
                Some(place) => row[place] = Some(value),
                None if self.channels.len() < MAX_CHANNELS => {
                    self.channels.push(name);
                    row.push(Some(value));
                }
                None => {}
            }
        }
        let place = self.points.partition_point(|(other, _)| *other <= at);
        self.points.insert(place, (at, row));
        if self.points.len() > MAX_POINTS {
            self.points.pop_front();
        }
    }

    /// The values of the channel at this index.
    pub fn values(&self, channel: usize) -> impl Iterator<Item = (i64, f64)> {
        self.points.iter().filter_map(move |(at, row)| Some((*at, (*row.get(channel)?)?)))
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use serde_json::json;

    use super::*;
    use crate::{iot_hub::devices::Owner, support::kind::Kind as Cause};

    fn at(minute: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_767_225_600, 0).unwrap() + TimeDelta::minutes(minute)
    }

    fn values(pairs: &[(&str, f64)]) -> Vec<(String, f64)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
    }

    fn fault() -> Fault {
        Fault { kind: "hub_refused".into(), text: "no".into() }
    }

    #[test]
    fn a_document_has_the_documented_fields() {
        let mut document = Document::new((&Owner::things_network("app", "pump-7", "pump-7")).into());
        document.activity.uplink(at(0), values(&[("level", 1.5)]));
        document.activity.uplink(at(1), values(&[("rain", 2.0)]));
        let json = json!({
            "id": "activity|app|pump-7", "Kind": "activity",
            "Owner": {"System": "thingsNetwork", "Group": "app", "Name": "pump-7"},
            "Activity": {
                "LastUplinkAt": "2026-01-01T00:01:00Z", "Uplinks": {"Last": "2026-01-01T00:00:00Z", "Counts": [2]},
                "Failures": 0, "Newest": {"Name": "rain", "Value": "2"},
                "Series": {
                    "Channels": ["level", "rain"],
                    "Points": [[1_767_225_600_000_i64, [1.5]], [1_767_225_660_000_i64, [null, 2.0]]]
                }
            }
        });
        assert_eq!(serde_json::to_value(&document).unwrap(), json);
        assert_eq!(serde_json::from_value::<Document>(json).unwrap(), document);
    }

    #[test]
    fn what_happened_since_is_added_whoever_saw_it() {
        let mut all = Activity::default();
        all.uplink(at(5), values(&[("a", 1.0)]));
        all.failure(fault(), at(6));
        let mut since = Activity::default();
        since.failure(fault(), at(7));
        all.add(since);
        assert_eq!((all.failures, all.last_error.is_some(), all.failing_since), (2, true, Some(at(6))));
        let mut since = Activity::default();
        since.failure(Fault { kind: Cause::Turn, text: "waits".into() }, at(8));
        all.add(since);
        assert_eq!(
            (all.failures, &all.last_error, all.failing_since),
            (3, &Some(fault()), Some(at(6))),
            "the cause stays"
        );
        let mut since = Activity::default();
        since.failure(Fault { kind: Cause::HubQuota, text: "used up".into() }, at(9));
        all.add(since);
        assert_eq!(all.failing_since, Some(at(9)), "another cause");
        let mut since = Activity::default();
        since.uplink(at(3), values(&[("b", 2.0), ("a", 3.0)]));
        all.add(since);
        assert_eq!((all.failures, &all.last_error, all.last_uplink_at), (0, &None, Some(at(5))));
        assert_eq!(all.newest.as_ref().map(|newest| newest.name.as_str()), Some("a"), "the uplink came late");
        assert_eq!(all.uplinks.until(at(59))[23], 2);
        let millis = |minute| at(minute).timestamp_millis();
        assert_eq!(all.series.values(0).collect::<Vec<_>>(), [(millis(3), 3.0), (millis(5), 1.0)]);
        assert_eq!(all.series.values(1).collect::<Vec<_>>(), [(millis(3), 2.0)]);
    }

    #[test]
    fn channels_and_points_are_bounded() {
        let mut series = Series::default();
        for minute in 0..100 {
            series.add(at(minute), (0..40).map(|channel| (format!("c{channel}"), 0.0)));
        }
        assert_eq!((series.channels.len(), series.points.len()), (MAX_CHANNELS, MAX_POINTS));
        assert_eq!(series.points[0].0, at(52).timestamp_millis());
        assert!(serde_json::to_string(&series).unwrap().len() < 6_000);
    }
}
