//! Collects the details of one site or device: its polls, and the last values of its channels.

use std::{cmp::Ordering, collections::HashMap};

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use super::overview::Item;
use crate::{iot_hub::devices::activity::Series, rapidm2m::ledger::PollList, support::reading};

/// Most rows that are read for the charts.
const ENOUGH_ROWS: usize = 240;
/// Most points of a channel.
const MAX_POINTS: usize = 240;
/// Most channels that are shown.
const MAX_CHANNELS: usize = 64;
/// Longest text of a value that is shown, in characters.
const MAX_TEXT: usize = 80;

/// Everything that is shown of one site or device.
pub struct Detail<'a> {
    pub item: &'a Item,
    /// None of a device.
    pub polls: PollList,
    pub readings: Readings,
}

/// The last values of each channel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Readings {
    pub channels: Vec<Channel>,
    /// Number of channels that are not shown.
    pub left_out: usize,
    places: HashMap<String, usize>,
    rows: usize,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Channel {
    pub name: String,
    /// Unix time in milliseconds, and the value; oldest first.
    pub points: Vec<(i64, f64)>,
    /// The latest value, as the backend wrote it.
    pub last: Option<(i64, String)>,
}

/// A message of a site.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Message<'a> {
    #[serde(borrow)]
    timeseries: Vec<Row<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Row<'a> {
    timestamp: DateTime<Utc>,
    #[serde(borrow)]
    channels: HashMap<String, &'a RawValue>,
}

impl Readings {
    /// Adds the rows of a message. A text that is no message (because a user edited it) adds nothing.
    pub fn add_message(&mut self, body: &str) {
        let Ok(message) = serde_json::from_str::<Message>(body) else { return };
        self.rows += message.timeseries.len();
        for row in message.timeseries {
            let at = row.timestamp.timestamp_millis();
            for (name, value) in row.channels {
                let channel = self.channel(&name);
                let text = value.get();
                if let Some(number) = number(text) {
                    channel.points.push((at, number));
                }
                if channel.last.as_ref().is_none_or(|(last, _)| *last <= at) {
                    channel.last = Some((at, reading::value(text, MAX_TEXT)));
                }
            }
        }
    }

    /// The readings of a device.
    #[must_use]
    pub fn of_series(series: Series) -> Self {
        let mut readings = Self::default();
        for (place, name) in series.channels.iter().enumerate() {
            let points: Vec<_> = series.values(place).collect();
            let last = points.last().map(|(at, value)| (*at, value.to_string()));
            readings.channels.push(Channel { name: name.clone(), points, last });
        }
        readings
    }

    fn channel(&mut self, name: &str) -> &mut Channel {
        let place = *self.places.entry(name.to_owned()).or_insert_with(|| {
            self.channels.push(Channel { name: name.to_owned(), ..Channel::default() });
            self.channels.len() - 1
        });
        &mut self.channels[place]
    }

    /// Whether there are enough rows.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.rows >= ENOUGH_ROWS
    }

    /// Sorts channels and points, and removes those above the limits.
    pub fn sort(&mut self) {
        self.channels.sort_by(|one, other| natural(&one.name, &other.name));
        self.left_out = self.channels.len().saturating_sub(MAX_CHANNELS);
        self.channels.truncate(MAX_CHANNELS);
        self.places.clear();
        for channel in &mut self.channels {
            channel.points.sort_by_key(|(at, _)| *at);
            let old = channel.points.len().saturating_sub(MAX_POINTS);
            channel.points.drain(..old);
        }
    }
}

/// A JSON value as a point of a chart. A boolean is 0 or 1, which is drawn as a strip.
fn number(json: &str) -> Option<f64> {
    match json {
        "true" => Some(1.0),
        "false" => Some(0.0),
        number => number.parse().ok(),
    }
}

/// Sorts `ch2` before `ch10`.
fn natural(one: &str, other: &str) -> Ordering {
    let split = |name: &str| {
        let text = name.trim_end_matches(|letter: char| letter.is_ascii_digit()).len();
        (name[..text].to_owned(), name[text..].parse::<u64>().ok(), name.to_owned())
    };
    split(one).cmp(&split(other))
}

impl Detail<'_> {
    /// The details as JSON.
    #[must_use]
    pub fn document(&self, now: DateTime<Utc>) -> Value {
        let mut document = self.item.document(now);
        let time = |millis: i64| DateTime::from_timestamp_millis(millis);
        let channels = self.readings.channels.iter().map(|channel| {
            let points: Vec<_> = channel.points.iter().map(|(at, value)| json!([time(*at), value])).collect();
            let last = channel.last.as_ref().map(|(at, text)| json!({ "Timestamp": time(*at), "Value": text }));
            json!({ "Name": channel.name, "Last": last, "Points": points })
        });
        document["Channels"] = channels.collect();
        document["ChannelsLeftOut"] = self.readings.left_out.into();
        document["UnreadablePolls"] = self.polls.unreadable.iter().map(ToString::to_string).collect();
        document["RecentPolls"] = self
            .polls
            .polls
            .iter()
            .map(|poll| {
                json!({
                    "id": poll.id,
                    "PollingTimestamp": poll.polling_timestamp,
                    "Outcome": poll.outcome,
                    "Result": poll.result,
                    "Error": poll.error,
                    "ForwardedAt": poll.forwarded_at,
                })
            })
            .collect();
        document
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_values_come_from_messages_in_any_order() {
        let mut readings = Readings::default();
        readings.add_message(
            r#"{"Timeseries":[{"Timestamp":"2026-01-01T00:02:00Z","Channels":{"ch10":3,"ch2":"on\u0000"}}]}"#,
        );
        readings.add_message(
            r#"{"Timeseries":[{"Timestamp":"2026-01-01T00:00:00Z","Channels":{"ch10":1.50,"ch2":"off"}},
                             {"Timestamp":"2026-01-01T00:01:00Z","Channels":{}}]}"#,
        );
        readings.add_message("{}");
        readings.sort();
        let [two, ten] = &readings.channels[..] else { panic!("{readings:?}") };
        let at = |minute: i64| 1_767_225_600_000 + minute * 60_000;
        assert_eq!((two.name.as_str(), &two.last, two.points.len()), ("ch2", &Some((at(2), "on\0".into())), 0));
        assert_eq!((ten.points.as_slice(), &ten.last), (&[(at(0), 1.5), (at(2), 3.0)][..], &Some((at(2), "3".into()))));
        assert!(!readings.is_full());
    }

    #[test]
    fn booleans_are_switches() {
        let mut readings = Readings::default();
        readings.add_message(
            r#"{"Timeseries":[{"Timestamp":"2026-01-01T00:00:00Z","Channels":{"pump":true,"text":"true","none":null}},
                             {"Timestamp":"2026-01-01T00:01:00Z","Channels":{"pump":false}}]}"#,
        );
        readings.sort();
        let of = |name| readings.channels.iter().find(|channel| channel.name == name).unwrap();
        let values: Vec<_> = of("pump").points.iter().map(|(_, value)| *value).collect();
        assert_eq!((values, of("pump").last.as_ref().unwrap().1.as_str()), (vec![1.0, 0.0], "false"));
        assert!(of("text").points.is_empty() && of("none").points.is_empty());
    }

    #[test]
    fn channels_and_points_are_bounded_and_the_newest_stay() {
        let mut readings = Readings::default();
        let channels: Vec<_> = (0..100).map(|channel| format!("\"ch{channel}\":1")).collect();
        let row = |second: i64| {
            let at = DateTime::from_timestamp(1_767_225_600 + second, 0).unwrap().to_rfc3339();
            format!("{{\"Timestamp\":\"{at}\",\"Channels\":{{{}}}}}", channels.join(","))
        };
        let rows: Vec<_> = (0..300).map(row).collect();
        readings.add_message(&format!("{{\"Timeseries\":[{}]}}", rows.join(",")));
        assert!(readings.is_full());
        readings.sort();
        assert_eq!((readings.channels.len(), readings.left_out), (MAX_CHANNELS, 36));
        assert_eq!(readings.channels[10].name, "ch10");
        assert_eq!(readings.channels[0].points.len(), MAX_POINTS);
        assert_eq!(readings.channels[0].points[239].0, (1_767_225_600 + 299) * 1000);
    }
}
