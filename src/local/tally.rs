//! What a session came to.

use std::collections::{BTreeMap, HashMap};

use emulators::functions_host::InvocationFinished;
use serde_json::{Map, Value};

use super::{
    forwarded::{Content, Forwarded},
    services::{FORWARDING, UPLINK},
};

/// What an answer says that has none: the host's own, when the invocation failed.
const FAILED: u64 = 500;

#[derive(Debug, Default)]
pub struct Tally {
    /// Runs of timers.
    pub succeeded: usize,
    pub failed: usize,
    /// Invocations that have begun and not ended, by their ids; whether each is a run.
    pub under_way: HashMap<String, bool>,
    /// Ctrl-C was pressed: it cuts what is under way.
    pub is_interrupted: bool,
    /// Webhooks by the status they were answered with.
    pub webhooks: BTreeMap<u64, u64>,
    /// Messages of the queue that were forwarded.
    pub forwarded: u64,
    /// Messages of the queue that can never be forwarded.
    pub rejected: u64,
    /// Failed invocations of other functions than timers. A message comes again after one.
    pub failures: u64,
    pub downlinks: u64,
    /// Messages that came faster than they could be shown.
    pub missed: u64,
    /// Invocations and downlinks of which the same is true.
    pub uncounted: u64,
    /// Messages that were still in the queue at the end.
    pub left: usize,
    /// Why the host has stopped by itself.
    pub gave_up: Option<String>,
    pub sites: BTreeMap<String, Site>,
    pub devices: BTreeMap<String, Device>,
}

/// What reached the hub from a site.
#[derive(Debug, Default)]
pub struct Site {
    pub messages: usize,
    pub rows: usize,
    pub newest: Option<String>,
    pub values: Map<String, Value>,
}

/// What reached the hub from a LoRaWAN device.
#[derive(Debug, Default)]
pub struct Device {
    pub uplinks: usize,
    pub events: usize,
    pub newest: Option<String>,
    /// Of the newest uplink.
    pub port: u64,
    pub counter: u64,
    pub values: Map<String, Value>,
}

/// What must have happened for a session to be called a success.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    pub runs: bool,
    pub uplinks: bool,
}

impl Tally {
    /// An invocation has ended. `is_timer`: it was a run. Returns whether it counts: what Ctrl-C has cut does not.
    pub fn finished(&mut self, finished: &InvocationFinished, is_timer: bool) -> bool {
        if self.is_interrupted && !finished.succeeded {
            return false;
        }
        self.under_way.remove(&finished.id);
        let outputs = &finished.response["Outputs"];
        match finished.function.as_str() {
            _ if is_timer => *(if finished.succeeded { &mut self.succeeded } else { &mut self.failed }) += 1,
            UPLINK => {
                let status = outputs["res"]["statusCode"].as_u64().filter(|_| finished.succeeded);
                *self.webhooks.entry(status.unwrap_or(FAILED)).or_default() += 1;
            }
            FORWARDING if finished.succeeded && outputs["rejected"].is_array() => self.rejected += 1,
            FORWARDING if finished.succeeded => self.forwarded += 1,
            _ => {}
        }
        if !is_timer && !finished.succeeded {
            self.failures += 1;
        }
        true
    }

    /// Runs that the end found under way.
    pub fn cut_off(&self) -> usize {
        self.under_way.values().filter(|is_run| **is_run).count()
    }

    pub fn add(&mut self, forwarded: Forwarded) {
        // The stamps are all UTC in one format: they sort as text. What is sent again is not newer.
        match forwarded.content {
            Content::Rows(rows) => {
                let site = self.sites.entry(rows.site).or_default();
                site.messages += 1;
                site.rows += rows.count;
                if rows.newest >= site.newest {
                    (site.newest, site.values) = (rows.newest, rows.values);
                }
            }
            Content::Uplink(uplink) => {
                let device = self.devices.entry(uplink.owner.name()).or_default();
                device.uplinks += 1;
                if uplink.received_at >= device.newest {
                    (device.newest, device.values) = (uplink.received_at, uplink.values);
                    (device.port, device.counter) = (uplink.port, uplink.counter);
                }
            }
            Content::Event { owner, .. } => self.devices.entry(owner.name()).or_default().events += 1,
        }
    }

    pub fn is_success(&self, expected: Expected) -> bool {
        let has_failed = self.failed > 0 || self.failures > 0 || self.rejected > 0 || self.left > 0;
        // The hub has it a moment before the function has told so.
        let has_forwarded = self.forwarded > 0 || self.uplinks() > 0;
        let has_worked = (self.succeeded > 0 || !expected.runs) && (has_forwarded || !expected.uplinks);
        has_worked && !has_failed && self.gave_up.is_none()
    }

    pub fn messages(&self) -> usize {
        self.sites.values().map(|site| site.messages).sum()
    }

    pub fn rows(&self) -> usize {
        self.sites.values().map(|site| site.rows).sum()
    }

    pub fn uplinks(&self) -> usize {
        self.devices.values().map(|device| device.uplinks).sum()
    }

    pub fn events(&self) -> usize {
        self.devices.values().map(|device| device.events).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use serde_json::json;

    use super::*;

    const BOTH: Expected = Expected { runs: true, uplinks: true };

    fn finished(function: &str, response: Value, succeeded: bool) -> InvocationFinished {
        InvocationFinished {
            function: function.to_owned(),
            id: "1".to_owned(),
            succeeded,
            status: None,
            duration: Duration::ZERO,
            logs: Vec::new(),
            response: Arc::new(response),
            error: None,
        }
    }

    #[test]
    fn a_session_succeeds_when_both_halves_have_worked_and_nothing_failed() {
        let mut tally = Tally::default();
        assert!(!tally.is_success(BOTH) && tally.is_success(Expected { runs: false, uplinks: false }));
        tally.under_way.insert("1".to_owned(), true);
        tally.finished(&finished("timer", Value::Null, true), true);
        assert!(tally.under_way.is_empty() && !tally.is_success(BOTH));
        assert!(tally.is_success(Expected { uplinks: false, ..BOTH }));
        tally.finished(&finished(FORWARDING, json!({ "Outputs": {} }), true), false);
        assert!(tally.is_success(BOTH));
        // What a caller did wrong is told to the caller.
        tally.finished(&finished(UPLINK, json!({ "Outputs": { "res": { "statusCode": 400 } } }), true), false);
        assert!(tally.is_success(BOTH));
        tally.finished(&finished(FORWARDING, json!({ "Outputs": { "rejected": ["{}"] } }), true), false);
        assert_eq!((tally.forwarded, tally.rejected, tally.is_success(BOTH)), (1, 1, false));
    }

    #[test]
    fn what_is_cut_by_ctrl_c_is_no_failure() {
        let mut tally = Tally::default();
        tally.finished(&finished("timer", Value::Null, true), true);
        tally.under_way = [("1".to_owned(), true), ("2".to_owned(), false)].into();
        tally.is_interrupted = true;
        assert!(!tally.finished(&finished("timer", Value::Null, false), true));
        assert_eq!((tally.failed, tally.cut_off()), (0, 1));
        assert!(tally.is_success(Expected { runs: true, uplinks: false }));
    }

    #[test]
    fn webhooks_are_counted_by_their_answers() {
        let mut tally = Tally::default();
        for (status, succeeded) in [(json!(202), true), (json!(202), true), (json!(413), true), (json!(202), false)] {
            let response = json!({ "Outputs": { "res": { "statusCode": status } } });
            tally.finished(&finished(UPLINK, response, succeeded), false);
        }
        assert_eq!(tally.webhooks, BTreeMap::from([(202, 2), (413, 1), (500, 1)]));
        assert_eq!(tally.failures, 1);
    }
}
