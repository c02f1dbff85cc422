//! Trouble on demand: what the control endpoint's `/faults` switches, and what each switch does to a connection.

use std::{num::NonZeroU64, time::Duration};

use serde::{Deserialize, Serialize};

/// The switches of `PUT /faults`, all off by default. Members named `…Times` count down, once per use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Faults {
    /// Every CONNECT is answered with return code 5, as for a bad token or a disabled device.
    pub refuse: bool,
    /// As `refuse`, for so many CONNECTs.
    pub refuse_times: u64,
    /// Every CONNECT is answered with return code 3.
    pub server_unavailable: bool,
    /// So many messages at QoS 1 end their connection instead of being acknowledged.
    pub drop_before_puback_times: u64,
    /// Whether those messages are recorded: did the hub have them when the connection broke? On by default.
    pub record_dropped: bool,
    /// Acknowledgements come this many milliseconds late, still in order: throttling.
    pub puback_delay_ms: u32,
    /// So many connections are accepted, then cut at once: the daily quota.
    pub cut_after_connect_times: u64,
    /// Every connection is cut after it has had so many messages recorded and acknowledged; acknowledgements held back
    /// by `puback_delay_ms` are lost.
    pub cut_after_messages: Option<NonZeroU64>,
    /// Messages are neither recorded nor acknowledged: a hub that hangs.
    pub ignore_publishes: bool,
    /// Every CONNACK says that there is no session, and there is none: a hub that lost it.
    pub no_session_present: bool,
    /// The devices concerned. Absent: all.
    pub devices: Option<Vec<String>>,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            refuse: false,
            refuse_times: 0,
            server_unavailable: false,
            drop_before_puback_times: 0,
            record_dropped: true,
            puback_delay_ms: 0,
            cut_after_connect_times: 0,
            cut_after_messages: None,
            ignore_publishes: false,
            no_session_present: false,
            devices: None,
        }
    }
}

/// How a CONNECT is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    NotAuthorized,
    ServerUnavailable,
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnPublish {
    Ignore,
    /// The connection ends without an acknowledgement.
    Cut {
        record: bool,
    },
    /// Recorded, acknowledged after `delay`; `cut` if the connection ends then.
    Accept {
        delay: Duration,
        cut: bool,
    },
}

impl Faults {
    /// Whether this CONNECT is refused, before its credentials are looked at.
    pub fn on_connect(&mut self, device_id: &str) -> Option<Refusal> {
        if !self.concern(device_id) {
            return None;
        }
        if self.server_unavailable {
            return Some(Refusal::ServerUnavailable);
        }
        (self.refuse || count_down(&mut self.refuse_times)).then_some(Refusal::NotAuthorized)
    }

    /// Whether this connection, accepted, is cut at once.
    pub fn cuts_after_connect(&mut self, device_id: &str) -> bool {
        self.concern(device_id) && count_down(&mut self.cut_after_connect_times)
    }

    /// Whether the device's session is lost.
    pub fn loses_session(&self, device_id: &str) -> bool {
        self.concern(device_id) && self.no_session_present
    }

    /// What becomes of a message; `before` messages were recorded on its connection before it.
    pub fn on_publish(&mut self, device_id: &str, wants_puback: bool, before: u64) -> OnPublish {
        if !self.concern(device_id) {
            return OnPublish::Accept { delay: Duration::ZERO, cut: false };
        }
        if self.ignore_publishes {
            return OnPublish::Ignore;
        }
        if wants_puback && count_down(&mut self.drop_before_puback_times) {
            return OnPublish::Cut { record: self.record_dropped };
        }
        OnPublish::Accept {
            delay: Duration::from_millis(self.puback_delay_ms.into()),
            cut: self.cut_after_messages.is_some_and(|limit| before + 1 >= limit.get()),
        }
    }

    fn concern(&self, device_id: &str) -> bool {
        self.devices.as_ref().is_none_or(|devices| devices.iter().any(|device| device == device_id))
    }
}

fn count_down(times: &mut u64) -> bool {
    let left = *times > 0;
    *times = times.saturating_sub(1);
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCEPT: OnPublish = OnPublish::Accept { delay: Duration::ZERO, cut: false };

    fn faults(json: &str) -> Faults {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn without_faults_everything_passes() {
        let mut none = faults("{}");
        assert_eq!(none, Faults::default());
        assert_eq!(none.on_connect("d"), None);
        assert!(!none.cuts_after_connect("d") && !none.loses_session("d"));
        assert_eq!(none.on_publish("d", true, 99), ACCEPT);
    }

    #[test]
    fn counted_faults_run_out() {
        let mut counted =
            faults(r#"{"refuseTimes":2,"cutAfterConnectTimes":1,"dropBeforePubackTimes":1,"recordDropped":false}"#);
        assert_eq!(counted.on_connect("d"), Some(Refusal::NotAuthorized));
        assert_eq!(counted.on_connect("d"), Some(Refusal::NotAuthorized));
        assert_eq!(counted.on_connect("d"), None);
        assert!(counted.cuts_after_connect("d") && !counted.cuts_after_connect("d"));
        assert_eq!(counted.on_publish("d", false, 0), ACCEPT, "a message at QoS 0 has no PUBACK to drop");
        assert_eq!(counted.on_publish("d", true, 0), OnPublish::Cut { record: false });
        assert_eq!(counted.on_publish("d", true, 1), ACCEPT);
    }

    #[test]
    fn faults_concern_only_the_devices_named() {
        let mut some = faults(r#"{"refuse":true,"ignorePublishes":true,"noSessionPresent":true,"devices":["a"]}"#);
        assert_eq!(some.on_connect("b"), None);
        assert_eq!(some.on_publish("b", true, 0), ACCEPT);
        assert!(!some.loses_session("b") && some.loses_session("a"));
        assert_eq!(some.on_connect("a"), Some(Refusal::NotAuthorized));
        assert_eq!(some.on_publish("a", true, 0), OnPublish::Ignore);
        assert_eq!(faults(r#"{"refuse":true,"devices":[]}"#).on_connect("a"), None);
    }

    #[test]
    fn a_connection_is_cut_with_its_last_message() {
        let mut cutting = faults(r#"{"cutAfterMessages":2,"pubackDelayMs":5}"#);
        let delay = Duration::from_millis(5);
        assert_eq!(cutting.on_publish("d", true, 0), OnPublish::Accept { delay, cut: false });
        assert_eq!(cutting.on_publish("d", true, 1), OnPublish::Accept { delay, cut: true });
    }

    #[test]
    fn a_misspelt_fault_is_refused() {
        for json in [r#"{"refused":true}"#, r#"{"cutAfterMessages":0}"#, r#"{"refuseTimes":-1}"#, "true"] {
            assert!(serde_json::from_str::<Faults>(json).is_err(), "{json}");
        }
    }
}
