//! Turns the result of a session into text.

use serde_json::Value;

use super::{
    arrived::{Arrived, Sender},
    output::Told,
    tally::Tally,
};
use crate::cli::table;

/// LoRaWAN devices that the text lists.
const LISTED: usize = 50;
/// Columns for values. With this width, a table fits into a terminal's 80 columns.
const VALUES_WIDTH: usize = 22;

impl Told for Tally {
    fn text(&self) -> String {
        let mut text = format!("\nIn {:.0} s: {}\n", self.seconds, done(self));
        text += &match &self.arrived {
            Some(arrived) => received(arrived),
            None => "What arrived is in your hub: az iot hub monitor-events --hub-name NAME\n".to_owned(),
        };
        let (others, missed) = self.arrived.as_ref().map_or((0, 0), |arrived| (arrived.others, arrived.missed));
        for (count, what) in [
            (others, "other messages at the hub"),
            (missed, "older messages at the hub, not counted here"),
            (self.failures, "failed calls of The Things Network's functions, see above"),
            (self.rejected, "rejected, see above; they are in the queue of rejected messages"),
            (self.left_in_queue, "still in the queue"),
            (self.uncounted, "more calls, too fast to be counted"),
        ] {
            if count > 0 {
                text += &format!("({count} {what})\n");
            }
        }
        if let Some(reason) = &self.error {
            text += &format!("The host gave up: {reason}\n");
        }
        text.trim_end().to_owned()
    }
}

/// `3 runs, 1 failed; 12 webhooks (202: 11, 400: 1), 11 forwarded; 1 downlink`
fn done(tally: &Tally) -> String {
    let mut parts = Vec::new();
    if tally.runs > 0 {
        parts.push(format!("{}, {} failed", counted(tally.runs, "run"), tally.failed));
    }
    if tally.cut_off > 0 {
        parts.push(format!("{} cut off by the end", tally.cut_off));
    }
    if !tally.batches.is_empty() {
        let of_each = tally.batches.iter().map(|(instance, count)| format!("instance {instance}: {count}"));
        let batches = tally.batches.values().sum::<u64>();
        parts.push(format!("batches of sites: {batches} ({})", of_each.collect::<Vec<_>>().join(", ")));
    }
    if !tally.webhooks.is_empty() {
        let statuses: Vec<_> = tally.webhooks.iter().map(|(status, count)| format!("{status}: {count}")).collect();
        let webhooks = counted(tally.webhooks.values().sum(), "webhook");
        parts.push(format!("{webhooks} ({}), {} forwarded", statuses.join(", "), tally.forwarded));
    }
    if tally.downlinks > 0 {
        parts.push(counted(tally.downlinks, "downlink"));
    }
    if parts.is_empty() { "nothing was done".to_owned() } else { parts.join("; ") }
}

fn received(arrived: &Arrived) -> String {
    let Arrived { messages, rows, uplinks, sites, devices, .. } = arrived;
    let mut text = format!(
        "The hub received {} with {} of {}, {} of {}\n",
        counted(*messages, "message"),
        counted(*rows, "row"),
        counted(sites.len() as u64, "site"),
        counted(*uplinks, "uplink"),
        counted(devices.len() as u64, "device"),
    );
    if !sites.is_empty() {
        let cells = |(name, site): (&String, &Sender)| {
            let [newest, values] = site.newest();
            [name.clone(), site.messages.to_string(), site.rows.to_string(), newest, values]
        };
        text += &table(["SITE", "MESSAGES", "ROWS", "NEWEST ROW", "ITS VALUES"], sites.iter().map(cells), &[1, 2]);
    }
    if !devices.is_empty() {
        let cells = |(name, device): (&String, &Sender)| {
            let [newest, values] = device.newest();
            [name.clone(), device.messages.to_string(), newest, values]
        };
        let listed = devices.iter().take(LISTED).map(cells);
        text += &table(["DEVICE", "UPLINKS", "NEWEST UPLINK", "ITS VALUES"], listed, &[1]);
        if devices.len() > LISTED {
            text += &format!("and {} more\n", devices.len() - LISTED);
        }
    }
    text
}

impl Sender {
    /// The time in whole seconds, and as many numbers and texts as fit.
    fn newest(&self) -> [String; 2] {
        let is_short = |value: &Value| value.is_number() || value.is_string() || value.is_boolean();
        let values = self.values.iter().filter(|(_, value)| is_short(value));
        let mut pairs = values.map(|(name, value)| format!("{name}={value}"));
        let mut text = pairs.next().unwrap_or_default();
        for pair in pairs {
            if text.chars().count() + pair.chars().count() + 1 > VALUES_WIDTH {
                text += " …";
                break;
            }
            text = format!("{text} {pair}");
        }
        let at = self.newest.as_deref().unwrap_or_default();
        [format!("{at:.19}"), text]
    }
}

fn table<const N: usize>(heads: [&str; N], rows: impl Iterator<Item = [String; N]>, right: &[usize]) -> String {
    let mut out = b"\n".to_vec();
    table::write(&mut out, heads, rows, right).expect("a Vec takes all");
    String::from_utf8(out).expect("made of strings")
}

fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_as_many_values_are_shown_as_fit() {
        let newest = |values: Value| {
            let newest = Some("2026-01-31T12:00:00.123Z".to_owned());
            Sender { newest, values: values.as_object().unwrap().clone(), ..Sender::default() }.newest()
        };
        assert_eq!(newest(json!({}))[1], "");
        assert_eq!(newest(json!({"a": null, "ch0": 39_583_584, "ch1": 17.44}))[1], "ch0=39583584 ch1=17.44");
        assert_eq!(
            newest(json!({"a": 1_234_567_890_123_456_789_u64, "b": 1})),
            ["2026-01-31T12:00:00", "a=1234567890123456789 …"]
        );
    }

    #[test]
    fn what_did_not_happen_is_not_told() {
        let mut tally = Tally { seconds: 3.2, runs: 2, arrived: Some(Arrived::default()), ..Tally::default() };
        assert_eq!(
            tally.text(),
            "\nIn 3 s: 2 runs, 0 failed\nThe hub received 0 messages with 0 rows of 0 sites, 0 uplinks of 0 devices"
        );
        tally.webhooks = [(202, 11), (400, 1)].into();
        (tally.runs, tally.forwarded, tally.left_in_queue, tally.arrived) = (0, 10, 1, None);
        let expected = "\nIn 3 s: 12 webhooks (202: 11, 400: 1), 10 forwarded\nWhat arrived is in your hub: az iot hub \
                        monitor-events --hub-name NAME\n(1 still in the queue)";
        assert_eq!(tally.text(), expected);
    }
}
