//! Starts a LoRaWAN device, a ledger, a hub and The Things Stack for each cell.

use std::{collections::BTreeMap, time::Duration};

use emulators::{cosmos, iot_hub, things_stack};
use serde_json::{Value, json};
use tokio::{join, time::Instant};

use crate::{
    faults::{cell::normal, polls::platform, secrets::Secrets},
    support::{Answer, Emulator, Handler, Ledger, Output, Settings},
};

pub const DEVICE: &str = "dev-1";
const APPLICATION: &str = "app-1";
/// The pause between two attempts while a fault or back-off lasts.
const PAUSE: Duration = Duration::from_secs(1);
/// The pause between two looks at the log.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// The longest time for a recovery.
const PATIENCE: Duration = Duration::from_secs(75);

pub struct World {
    pub cosmos: Emulator,
    pub hub: Emulator,
    pub stack: Emulator,
    pub settings: Settings,
    output: Output,
    handler: Option<Handler>,
    answers: Vec<Value>,
    posted: u32,
    /// Where downlinks are sent, if not to the stand-in.
    pub push: Option<String>,
}

impl World {
    pub async fn start() -> Self {
        let dps_options = iot_hub::DpsOptions { dps_retry_after: 0, ..iot_hub::DpsOptions::default() };
        let (cosmos, hub, stack) = join!(
            Emulator::cosmos(cosmos::Options::default()),
            Emulator::iot_hub(iot_hub::Options { dps_options, ..iot_hub::Options::default() }),
            Emulator::things_stack(things_stack::Options::default())
        );
        let platform = platform();
        let settings = [
            ("UplinkQueueName", "uplinks"),
            ("M2MDocumentsDBUri", cosmos.ready("endpoint")),
            ("M2MDocumentsDBPrimaryKey", cosmos.ready("key")),
            ("DPSGlobalDeviceEndpoint", hub.ready("dps")),
            ("DPSIDScopeDefault", hub.ready("idScope")),
            ("DPSEnrollmentGroupSymmetricKeyDefault", hub.ready("groupKey")),
            ("IoTHubTrustedCa", hub.ready("ca")),
            ("IoTHubTransport", "https"),
            ("ForwardTimeoutSeconds", "6"),
            ("RUST_LOG", "trace,mio=info"),
            ("SSL_CERT_FILE", &platform),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let (output, answers) = (Output::default(), Vec::new());
        Self { cosmos, hub, stack, settings, output, handler: None, answers, posted: 0, push: None }
    }

    pub fn set(&mut self, name: &str, value: &str) {
        self.settings.insert(name.to_owned(), value.to_owned());
    }

    pub async fn restart(&mut self) {
        let handler = Handler::start(&self.settings, self.output.clone()).await;
        if let Some(old) = self.handler.replace(handler) {
            old.kill().await;
        }
    }

    pub fn uplink(&mut self) -> u32 {
        self.posted += 1;
        self.posted
    }

    /// Posts the message of an uplink to the function.
    pub async fn give(&mut self, counter: u32) -> Answer {
        let body = self.envelope(counter);
        let answer = self.handler.as_ref().expect("a handler").post("/thingsNetworkForwarding", body).await;
        self.answers.push(answer.body.clone());
        answer
    }

    /// The same request, for a caller that does not wait for the answer.
    pub fn request(&self, counter: u32) -> reqwest::RequestBuilder {
        self.handler.as_ref().expect("a handler").request("/thingsNetworkForwarding", self.envelope(counter))
    }

    /// Redelivers the message until the function takes it.
    pub async fn give_until_taken(&mut self, counter: u32) {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let answer = self.give(counter).await;
            if answer.status == 200 {
                assert!(answer.body["Outputs"]["rejected"].is_null(), "{}", answer.body);
                return;
            }
            assert!(Instant::now() < give_up, "not taken within {PATIENCE:?}: {}", answer.body);
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn envelope(&self, counter: u32) -> String {
        let push = self.push.clone().unwrap_or(format!(
            "{}as/applications/{APPLICATION}/webhooks/iot-hub/devices/{DEVICE}/down/push",
            self.stack.ready("endpoint")
        ));
        let text = json!({
            "ReceivedAtUTC": "2026-01-31T12:00:00.500Z",
            "Downlink": {"ApiKey": self.stack.ready("apikey"), "Push": push},
            "Webhook": {
                "end_device_ids": {"device_id": DEVICE, "application_ids": {"application_id": APPLICATION}},
                "received_at": "2026-01-31T12:00:00.5Z",
                "uplink_message": {"session_key_id": "AXA50g==", "f_port": 1, "f_cnt": counter, "frm_payload": "AQ==",
                                   "decoded_payload": {"level": counter}, "received_at": "2026-01-31T12:00:00.25Z"}
            }
        });
        let text = Value::String(text.to_string()).to_string();
        json!({"Data": {"uplink": text}, "Metadata": {"DequeueCount": "1"}}).to_string()
    }

    /// Asserts that every uplink is at the hub, each under one id, and no output contains a secret.
    pub async fn assert_all_is_well(&mut self) {
        let next = self.uplink();
        self.give_until_taken(next).await;
        let mut ids: BTreeMap<u64, Value> = BTreeMap::new();
        for message in self.hub.get("received").await.as_array().unwrap() {
            let body: Value = serde_json::from_str(message["body"].as_str().unwrap()).unwrap();
            let counter = body["Counter"].as_u64().unwrap();
            let id = ids.entry(counter).or_insert_with(|| message["messageId"].clone());
            assert_eq!(id, &message["messageId"], "uplink {counter} has one id");
        }
        assert_eq!(ids.into_keys().collect::<Vec<_>>(), (1..=u64::from(self.posted)).collect::<Vec<_>>());
        self.assert_no_secrets().await;
    }

    async fn assert_no_secrets(&self) {
        let mut secrets = Secrets::of_settings(&self.settings);
        secrets.add("the API key", self.stack.ready("apikey"));
        secrets.add_derived(self.hub.ready("groupKey"), DEVICE);
        secrets.assert_absent("the log", &self.output.text());
        secrets.assert_absent_in("an answer", &self.answers);
        let (endpoint, key) = (self.cosmos.ready("endpoint"), self.cosmos.ready("key"));
        let devices =
            Ledger::find(endpoint, key, "M2MBackendForwarderData", "devices").await.expect("container devices");
        secrets.assert_absent_in("a document", &devices.all().await);
    }

    pub fn pid(&self) -> u32 {
        self.handler.as_ref().expect("a handler").pid()
    }

    pub fn log(&self) -> String {
        self.output.text()
    }

    /// Waits until this was logged: lines come through a pipe.
    pub async fn logged(&self, part: &str) {
        let give_up = Instant::now() + PATIENCE;
        while !self.log().contains(part) {
            assert!(Instant::now() < give_up, "{part:?} is not logged: {}", self.told());
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// The last warning or error that contains this text, without the fields that differ between runs.
    pub fn warned(&self, part: &str) -> Option<String> {
        let log = self.log();
        let line = log
            .lines()
            .rfind(|line| (line.starts_with("warn: ") || line.starts_with("error: ")) && line.contains(part))?;
        let text = line.split_once(": ").map_or(line, |(_, text)| text);
        // The fields follow the text.
        let fields = [" failure.kind=", " device.id=", " message.id=", " message.attempt=", " invocation.id="];
        let end = fields.iter().filter_map(|field| text.find(field)).min();
        Some(normal(&text[..end.unwrap_or(text.len())]))
    }

    /// The last lines that the connector itself logged.
    pub fn told(&self) -> String {
        let log = self.log();
        let is_ours =
            |line: &&str| line.starts_with("error: ") || line.starts_with("warn: ") || line.starts_with("info: ");
        let ours: Vec<_> = log.lines().filter(is_ours).collect();
        ours[ours.len().saturating_sub(10)..].join("\n")
    }
}
