//! Message ids of uplinks: what makes two webhooks the same uplink.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use sha2::{Digest as _, Sha256};

use super::uplink::Uplink;
use crate::support::hex::hex;

/// A real uplink is passed on within seconds. A simulated one may claim any time of reception.
const PASSED_ON_WITHIN: TimeDelta = TimeDelta::minutes(1);

impl Uplink<'_> {
    /// The message id. A webhook that is sent again has the same id; every other uplink has a different one. It is a
    /// hash of application, device, session, fCnt, fPort, payload and the time of reception; without that time, of the
    /// whole body as well; and if that cannot tell two uplinks apart, of `queued_at`, the time at which the webhook was
    /// put into the queue.
    #[must_use]
    pub fn message_id(&self, queued_at: Option<DateTime<Utc>>) -> String {
        let mut hash = Sha256::new();
        let (counter, port) = (self.counter.unwrap_or_default().to_string(), self.port.to_string());
        let session = self.session.as_deref().unwrap_or_default();
        for part in [&*self.application, &*self.device, session, &*counter, &*port, &*self.payload] {
            // The zero byte separates ("ab", "c") from ("a", "bc").
            hash = hash.chain_update(part).chain_update([0]);
        }
        let nanos = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Nanos, true);
        hash = match self.received_at {
            Some(time) => hash.chain_update(nanos(time)),
            None => hash.chain_update(self.body),
        };
        if let Some(time) = self.other_time(queued_at) {
            hash = hash.chain_update([0]).chain_update(nanos(time));
        }
        hex(&hash.finalize()[..16])
    }

    /// The time that tells two uplinks apart whose other parts may be the same.
    fn other_time(&self, queued_at: Option<DateTime<Utc>>) -> Option<DateTime<Utc>> {
        match self.received_at {
            Some(claimed) => {
                let is_claim = |published: &DateTime<Utc>| (*published - claimed).abs() > PASSED_ON_WITHIN;
                self.published_at.filter(|published| self.extras.simulated && is_claim(published))
            }
            // A session counts each fCnt once. Without fCnt, it was 0 or is masked.
            None if self.session.is_some() && self.counter.is_some() => None,
            // The body has the time of a gateway.
            None if self.reception.has_time() => None,
            None => queued_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::things_network::webhook::Webhook;

    fn id_at(body: &Value, queued_at: Option<&str>) -> String {
        match Webhook::parse(&body.to_string()).unwrap() {
            Webhook::Uplink(uplink) => uplink.message_id(queued_at.map(|time| time.parse().unwrap())),
            Webhook::Event(event) => panic!("{event:?}"),
        }
    }

    fn v3(message: &Value) -> Value {
        let ids = json!({"device_id": "d", "application_ids": {"application_id": "a"}});
        json!({"end_device_ids": ids, "uplink_message": message})
    }

    #[test]
    fn a_repeated_webhook_has_the_same_id_and_every_other_uplink_another() {
        let base = json!({"session_key_id": "s", "f_cnt": 1, "f_port": 2, "frm_payload": "AA==",
                          "received_at": "2020-02-12T15:15:45.789585559Z"});
        let id = |message: &Value| id_at(&v3(message), None);
        let changed = |member: &str, value: Value| {
            let mut message = base.clone();
            message[member] = value;
            id(&message)
        };
        assert_eq!(id(&base), id(&base.clone()));
        assert_eq!(id(&base).len(), 32);
        // Data that two webhooks of one application may show differently does not count.
        assert_eq!(changed("decoded_payload", json!({"a": 1})), id(&base));
        for (member, value) in [
            ("session_key_id", json!("t")),
            ("f_cnt", json!(2)),
            ("f_port", json!(3)),
            ("frm_payload", json!("AQ==")),
            ("received_at", json!("2020-02-12T15:15:45.789585558Z")),
        ] {
            assert_ne!(changed(member, value), id(&base), "{member}");
        }
        let masked = |level: f64| id(&json!({"frm_payload": "AA==", "decoded_payload": {"level": level}}));
        assert_eq!(masked(1.0), masked(1.0));
        assert_ne!(masked(1.0), masked(2.0), "without a time, everything counts");
    }

    #[test]
    fn a_retry_of_v2_is_another_delivery_of_the_same_uplink() {
        let body = |retry, time: &str| json!({"app_id": "a", "dev_id": "d", "counter": 1, "is_retry": retry, "metadata": {"time": time}});
        let (first, again) =
            (body(false, "2020-08-30T10:21:08.03946533Z"), body(true, "2020-08-30T10:21:08.03946533Z"));
        assert_eq!(id_at(&first, None), id_at(&again, None));
        let later = body(true, "2020-08-30T10:21:18.03946533Z");
        assert_ne!(id_at(&first, None), id_at(&later, None));
    }

    #[test]
    fn the_time_of_the_request_counts_only_where_nothing_else_tells_two_uplinks_apart() {
        let depends = |message: Value| {
            let [one, other] =
                ["2026-01-31T12:00:00Z", "2026-01-31T12:00:01Z"].map(|at| id_at(&v3(&message), Some(at)));
            one != other
        };
        let payload = "AA==";
        assert!(depends(json!({"frm_payload": payload})), "masked");
        assert!(depends(json!({"frm_payload": payload, "session_key_id": "s"})), "fCnt is 0 or masked");
        assert!(depends(json!({"frm_payload": payload, "f_cnt": 7})), "there may have been a join");
        assert!(depends(json!({"frm_payload": payload, "received_at": "0001-01-01T00:00:00Z"})), "never set");
        let never_set = json!([{"time": "0001-01-01T00:00:00Z"}, {"rssi": -80}]);
        assert!(depends(json!({"frm_payload": payload, "rx_metadata": never_set})));
        assert!(!depends(json!({"frm_payload": payload, "session_key_id": "s", "f_cnt": 7})));
        assert!(!depends(json!({"frm_payload": payload, "received_at": "2026-01-31T12:00:00Z"})));
        let heard = json!([{"rssi": -80}, {"received_at": "2026-01-31T12:00:00Z"}]);
        assert!(!depends(json!({"frm_payload": payload, "rx_metadata": heard})), "the body has a time");
    }

    #[test]
    fn a_simulated_uplink_may_claim_the_same_time_twice() {
        let simulated = |claimed: &str, published: &str| {
            let mut body = v3(&json!({"received_at": claimed}));
            (body["received_at"], body["simulated"]) = (json!(published), json!(true));
            id_at(&body, None)
        };
        let (claimed, one, other) = ("2020-01-01T00:00:00Z", "2026-01-31T12:00:00Z", "2026-01-31T12:01:00Z");
        assert_ne!(simulated(claimed, one), simulated(claimed, other));
        assert_eq!(simulated(claimed, one), simulated(claimed, one));
        // As a real one.
        assert_eq!(
            simulated("2026-01-31T11:59:59.8Z", one),
            id_at(&v3(&json!({"received_at": "2026-01-31T11:59:59.8Z"})), None)
        );
    }
}
