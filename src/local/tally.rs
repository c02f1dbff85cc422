//! Counts what happens in a session, for the summary and the exit code.

use std::collections::{BTreeMap, HashMap};

use emulators::functions_host::InvocationFinished;
use serde::Serialize;

use super::{
    arrived::Arrived,
    services::{FORWARDING, RAPIDM2M, UPLINK},
};

/// Status of an answer that has none: the host's own status for a failed invocation.
const FAILED: u64 = 500;

/// The last record of the JSON output.
#[derive(Debug, Default, Serialize)]
#[serde(tag = "type", rename = "summary", rename_all = "camelCase")]
pub struct Tally {
    /// Duration in seconds, with milliseconds.
    pub seconds: f64,
    /// Runs of the timer, including failed ones.
    pub runs: u64,
    pub failed: u64,
    /// Runs that were in flight at the end.
    pub cut_off: u64,
    /// Webhooks by the status of their answers.
    pub webhooks: BTreeMap<u64, u64>,
    /// Batches of sites, by the instance that has polled them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub batches: BTreeMap<usize, u64>,
    /// Messages of the queue that were forwarded.
    pub forwarded: u64,
    /// Messages of the queue that can never be forwarded.
    pub rejected: u64,
    /// Failed invocations of functions other than the timer. The message is redelivered after a failure.
    pub failures: u64,
    /// Messages that were still in the queue at the end.
    pub left_in_queue: u64,
    /// Downlinks that the emulated Things Stack has accepted.
    pub downlinks: u64,
    /// Invocations that came too fast to be counted.
    pub uncounted: u64,
    /// Why the host has stopped by itself.
    pub error: Option<String>,
    /// What reached the hub, if it is emulated.
    #[serde(flatten)]
    pub arrived: Option<Arrived>,
    /// Invocations in flight by their ids, each with whether it is a run.
    #[serde(skip)]
    pub under_way: HashMap<String, bool>,
    /// The user pressed Ctrl-C, which cuts invocations in flight.
    #[serde(skip)]
    pub is_interrupted: bool,
    /// Whether success needs a run, and whether it needs a forwarded uplink.
    #[serde(skip)]
    pub needs: (bool, bool),
}

impl Tally {
    /// Counts an invocation as begun.
    pub fn started(&mut self, function: &str, id: String) {
        self.under_way.insert(id, function == RAPIDM2M);
    }

    /// Counts an invocation as ended. Returns whether it counts: one that Ctrl-C has cut does not.
    pub fn finished(&mut self, finished: &InvocationFinished) -> bool {
        let InvocationFinished { function, id, succeeded, response, .. } = finished;
        if self.is_interrupted && !succeeded {
            return false;
        }
        self.under_way.remove(id);
        let outputs = &response["Outputs"];
        match function.as_str() {
            RAPIDM2M => self.runs += 1,
            UPLINK => {
                let status = outputs["res"]["statusCode"].as_u64().filter(|_| *succeeded);
                *self.webhooks.entry(status.unwrap_or(FAILED)).or_default() += 1;
            }
            FORWARDING if *succeeded && outputs["rejected"].is_array() => self.rejected += 1,
            FORWARDING if *succeeded => self.forwarded += 1,
            _ => {}
        }
        match function.as_str() {
            _ if *succeeded => {}
            RAPIDM2M => self.failed += 1,
            _ => self.failures += 1,
        }
        true
    }

    pub fn is_success(&self) -> bool {
        let has_failed = self.failed > 0 || self.failures > 0 || self.rejected > 0 || self.left_in_queue > 0;
        // The hub has the uplink a moment before the function has reported it.
        let has_forwarded = self.forwarded > 0 || self.arrived.as_ref().is_some_and(|arrived| arrived.uplinks > 0);
        let (needs_run, needs_uplink) = self.needs;
        let has_worked = (self.runs > self.failed || !needs_run) && (has_forwarded || !needs_uplink);
        has_worked && !has_failed && self.error.is_none()
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use serde_json::{Value, json};

    use super::*;

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
        let mut tally = Tally { needs: (true, true), ..Tally::default() };
        assert!(!tally.is_success() && Tally::default().is_success());
        tally.started(RAPIDM2M, "1".to_owned());
        tally.finished(&finished(RAPIDM2M, Value::Null, true));
        assert!(tally.under_way.is_empty() && !tally.is_success());
        tally.finished(&finished(FORWARDING, json!({ "Outputs": {} }), true));
        assert!(tally.is_success());
        // An error of the caller is reported to the caller and is not a failure of the session.
        tally.finished(&finished(UPLINK, json!({ "Outputs": { "res": { "statusCode": 400 } } }), true));
        assert!(tally.is_success());
        tally.finished(&finished(FORWARDING, json!({ "Outputs": { "rejected": ["{}"] } }), true));
        assert_eq!((tally.forwarded, tally.rejected, tally.is_success()), (1, 1, false));
    }

    #[test]
    fn what_is_cut_by_ctrl_c_is_no_failure() {
        let mut tally = Tally { needs: (true, false), ..Tally::default() };
        tally.finished(&finished(RAPIDM2M, Value::Null, true));
        tally.started(RAPIDM2M, "1".to_owned());
        tally.is_interrupted = true;
        assert!(!tally.finished(&finished(RAPIDM2M, Value::Null, false)));
        assert_eq!((tally.runs, tally.failed, tally.under_way.len()), (1, 0, 1));
        assert!(tally.is_success());
    }

    #[test]
    fn webhooks_are_counted_by_their_answers() {
        let mut tally = Tally::default();
        for (status, succeeded) in [(202, true), (202, true), (413, true), (202, false)] {
            let response = json!({ "Outputs": { "res": { "statusCode": status } } });
            tally.finished(&finished(UPLINK, response, succeeded));
        }
        assert_eq!(tally.webhooks, BTreeMap::from([(202, 2), (413, 1), (500, 1)]));
        assert_eq!(tally.failures, 1);
    }
}
