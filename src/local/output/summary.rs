//! What is told last.

use std::{io, time::Duration};

use chrono::{SecondsFormat, Utc};
use serde_json::{Map, Value, json};

use super::{
    Output,
    text::{self, COUNT_WIDTH, STAMP_WIDTH, counted, seconds, stamp},
};
use crate::local::tally::{Device, Site, Tally};

/// LoRaWAN devices that are listed for people.
const LISTED: usize = 50;
/// Columns of a name at the most: The Things Stack's applications and devices have up to 36 letters each.
const LONGEST_NAME: usize = 73;

impl Output {
    pub fn summary(&mut self, tally: &Tally, took: Duration) -> io::Result<()> {
        if self.is_json { self.record(&self.record_of(tally, took)) } else { self.text(&self.summed_up(tally, took)) }
    }

    fn record_of(&self, tally: &Tally, took: Duration) -> Value {
        let knows_messages = self.layout.has_messages;
        let site = |(name, site): (&String, &Site)| {
            let Site { messages, rows, newest, values } = site;
            (name.clone(), json!({ "messages": messages, "rows": rows, "newest": newest, "values": values }))
        };
        let device = |(name, device): (&String, &Device)| {
            let Device { uplinks, events, newest, port, counter, values } = device;
            let newest = json!({ "receivedAt": newest, "fPort": port, "fCnt": counter, "values": values });
            (name.clone(), json!({ "uplinks": uplinks, "events": events, "newest": newest }))
        };
        json!({
            "type": "summary",
            "at": stamp(Utc::now(), SecondsFormat::Millis),
            "seconds": seconds(took),
            "runs": tally.succeeded + tally.failed,
            "failed": tally.failed,
            "cutOff": tally.cut_off(),
            "messages": knows_messages.then(|| tally.messages()),
            "rows": knows_messages.then(|| tally.rows()),
            "sites": tally.sites.iter().map(site).collect::<Map<_, _>>(),
            "webhooks": tally.webhooks.iter().map(|(status, count)| (status.to_string(), json!(count))).collect::<Map<_, _>>(),
            "forwarded": tally.forwarded,
            "rejected": tally.rejected,
            "failures": tally.failures,
            "leftInQueue": tally.left,
            "uplinks": knows_messages.then(|| tally.uplinks()),
            "events": knows_messages.then(|| tally.events()),
            "devices": tally.devices.iter().map(device).collect::<Map<_, _>>(),
            "downlinks": tally.downlinks,
            "missed": tally.missed,
            "uncounted": tally.uncounted,
            "error": tally.gave_up,
        })
    }

    fn summed_up(&self, tally: &Tally, took: Duration) -> String {
        let layout = self.layout;
        let mut done = Vec::new();
        if layout.has_sites {
            done.push(format!("{}, {} failed", counted(tally.succeeded + tally.failed, "run"), tally.failed));
        }
        if tally.cut_off() > 0 {
            done.push(format!("{} cut off by the end", tally.cut_off()));
        }
        if layout.has_uplinks {
            done.push(webhooks(tally));
        }
        let mut text = format!("\nIn {:.0} s: {}", took.as_secs_f64(), done.join("; "));
        text += &match layout.has_messages {
            true => format!("\n{}\n", received(tally)),
            false => "\nWhat arrived is in your hub: az iot hub monitor-events --hub-name NAME\n".to_owned(),
        };
        text += &self.sites(tally);
        text += &self.devices(tally);
        for (count, what) in [
            (tally.failures, "failed calls of The Things Network's functions, see above"),
            (tally.rejected, "rejected, see above; they are in the queue of rejected messages"),
            (tally.left as u64, "still in the queue"),
            (tally.missed, "more messages at the hub, too fast to be shown"),
            (tally.uncounted, "more events, too fast to be counted"),
        ] {
            if count > 0 {
                text += &format!("  ({count} {what})\n");
            }
        }
        if let Some(reason) = &tally.gave_up {
            text += &format!("  The host gave up: {reason}\n");
        }
        text
    }

    /// Of both tables' first column: wider than above if names turned out to be longer.
    fn width(&self, tally: &Tally) -> usize {
        let names = tally.sites.keys().chain(tally.devices.keys().take(LISTED));
        names.map(|name| name.chars().count()).max().unwrap_or_default().clamp(self.name_width, LONGEST_NAME)
    }

    fn sites(&self, tally: &Tally) -> String {
        if tally.sites.is_empty() {
            return String::new();
        }
        let width = self.width(tally);
        let mut text = format!(
            "  {:width$}  {:>8}  {:>COUNT_WIDTH$}  {:STAMP_WIDTH$}  its values\n",
            "site", "messages", "rows", "newest row"
        );
        for (name, site) in &tally.sites {
            let Site { messages, rows, newest, values } = site;
            let (newest, values) = (newest.as_deref().unwrap_or("-"), text::values(values));
            text += &format!("  {name:width$}  {messages:>8}  {rows:>COUNT_WIDTH$}  {newest:STAMP_WIDTH$}  {values}\n");
        }
        text
    }

    fn devices(&self, tally: &Tally) -> String {
        if tally.devices.is_empty() {
            return String::new();
        }
        let width = self.width(tally);
        let mut text = format!(
            "  {:width$}  {:>8}  {:>COUNT_WIDTH$}  {:STAMP_WIDTH$}  its values\n",
            "application/device", "uplinks", "fPort/fCnt", "newest uplink"
        );
        for (name, device) in tally.devices.iter().take(LISTED) {
            let Device { uplinks, newest, port, counter, values, .. } = device;
            let (count, newest) = (format!("{port}/{counter}"), newest.as_deref().unwrap_or("-"));
            let values = text::values(values);
            text += &format!("  {name:width$}  {uplinks:>8}  {count:>COUNT_WIDTH$}  {newest:STAMP_WIDTH$}  {values}\n");
        }
        if tally.devices.len() > LISTED {
            text += &format!("  and {} more\n", tally.devices.len() - LISTED);
        }
        text
    }
}

/// `12 webhooks (202: 11, 400: 1), 11 forwarded, 1 downlink`
fn webhooks(tally: &Tally) -> String {
    let count = tally.webhooks.values().sum::<u64>();
    let mut text = counted(usize::try_from(count).unwrap_or(usize::MAX), "webhook");
    let statuses: Vec<_> = tally.webhooks.iter().map(|(status, count)| format!("{status}: {count}")).collect();
    if !statuses.is_empty() {
        text += &format!(" ({})", statuses.join(", "));
    }
    if count > 0 || tally.forwarded > 0 {
        text += &format!(", {} forwarded", tally.forwarded);
    }
    if tally.downlinks > 0 {
        text += &format!(", {}", counted(usize::try_from(tally.downlinks).unwrap_or(usize::MAX), "downlink"));
    }
    text
}

fn received(tally: &Tally) -> String {
    let mut parts = Vec::new();
    if tally.messages() > 0 {
        let (messages, rows) = (counted(tally.messages(), "message"), counted(tally.rows(), "row"));
        parts.push(format!("{messages} with {rows} of {}", counted(tally.sites.len(), "site")));
    }
    if tally.uplinks() > 0 {
        parts.push(format!("{} of {}", counted(tally.uplinks(), "uplink"), counted(tally.devices.len(), "device")));
    }
    if tally.events() > 0 {
        parts.push(counted(tally.events(), "event"));
    }
    if parts.is_empty() {
        "Nothing reached the hub".to_owned()
    } else {
        format!("The hub received {}", parts.join(", "))
    }
}
