//! Captures the log lines of both halves, with all kinds of faults.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use emulators::{cosmos, iot_hub};
use iothub_connector::{app::App, config::Config, server, support::logging};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{
    operations::INVOCATION,
    support::{Emulator, Settings, World, client},
};

/// The first name is one that the host would take for a warning.
const SITES: [&str; 2] = ["Warnemünde \"1\"", "Well 7"];

/// The lines of a handler that polls.
pub async fn of_polls(format: &str) -> Vec<String> {
    let mut world = World::with_sites(&SITES).await;
    world.provision_sites().await;
    for (name, value) in [("LOG_FORMAT", format), ("RUST_LOG", "info"), ("IoTHubTransport", "https")] {
        world.set(name, value);
    }
    let handler = world.handler().await;
    for site in SITES {
        world.add(site, 0..3).await;
    }
    world.hub.put("faults", json!({ "httpDropBeforeAnswerTimes": 1 })).await;
    handler.invoke_ok().await;
    world.hub.put("faults", json!({ "httpStatus": 400, "httpStatusTimes": 1 })).await;
    for site in SITES {
        world.add(site, 3..6).await;
    }
    // One message is rejected. That concerns one of the two sites.
    handler.invoke_ok().await;
    world.backend.put("faults", json!({ "rules": [{ "status": 429, "times": 2 }] })).await;
    handler.invoke_failing().await;
    // The lines come through pipes; this run's line is the last.
    handler.invoke_ok().await;
    world.printed("0 failed", 2).await;
    let mut unset = world.settings.clone();
    unset.remove("Customer_ID");
    drop(world.handler_with(&unset).await);
    world.printed("does not work until", 1).await;
    world.output().lines().map(str::to_owned).collect()
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The lines of the server that takes and forwards uplinks. It runs in this process, because only here the test can let
/// a minute pass at once.
pub async fn of_uplinks(format: &str) -> Vec<String> {
    let lines = Lines::default();
    let of = lines.clone();
    let format = if format == "json" { logging::Format::Json } else { logging::Format::Text };
    let subscriber = logging::subscriber(format, "error,iothub_connector=info".parse().unwrap(), move || of.clone());
    let _guard = tracing::subscriber::set_default(subscriber);

    let cosmos = Emulator::cosmos(cosmos::Options::default()).await;
    let dps_options = iot_hub::DpsOptions { dps_retry_after: 0, ..iot_hub::DpsOptions::default() };
    let hub = Emulator::iot_hub(iot_hub::Options { dps_options, ..iot_hub::Options::default() }).await;
    let settings = [
        ("UplinkQueueName", "uplinks"),
        ("M2MDocumentsDBUri", cosmos.ready("endpoint")),
        ("M2MDocumentsDBPrimaryKey", cosmos.ready("key")),
        ("DPSGlobalDeviceEndpoint", hub.ready("dps")),
        ("DPSIDScopeDefault", hub.ready("idScope")),
        ("DPSEnrollmentGroupSymmetricKeyDefault", hub.ready("groupKey")),
        ("IoTHubTrustedCa", hub.ready("ca")),
        ("IoTHubTransport", "https"),
        ("ForwardTimeoutSeconds", "2"),
    ];
    let settings: Settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let config = Config::from_settings(&settings.into_iter().collect()).unwrap_or_else(|problems| panic!("{problems}"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(server::run(
        listener,
        server::Current::new(App::new(config, iothub_connector::support::ending::Ending::default())),
        std::future::pending(),
    ));

    let call = async |function: &str, body: Value| {
        let request =
            client().post(format!("{endpoint}/{function}")).header("x-azure-functions-invocationid", INVOCATION);
        request.body(body.to_string()).send().await.unwrap().status().as_u16()
    };
    let webhook = |body: String| json!({ "Data": { "req": { "Method": "POST", "Headers": {}, "Body": body } } });
    let queued = |text: String| json!({ "Data": { "uplink": text }, "Metadata": { "DequeueCount": "2" } });
    assert_eq!(call("thingsNetworkUplink", webhook(uplink("app-1", "dev-1"))).await, 200);
    assert_eq!(call("thingsNetworkUplink", webhook("{}".into())).await, 200);
    // The first message may have to be redelivered until its device is registered.
    while call("thingsNetworkForwarding", queued(uplink("app-1", "dev-1"))).await != 200 {}
    assert_eq!(call("thingsNetworkForwarding", queued(uplink("app-2", "dev-1"))).await, 200, "rejected");
    hub.away(true).await;
    assert_eq!(call("thingsNetworkForwarding", queued(uplink("app-1", "dev-1"))).await, 500);
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(61)).await;
    let written = lines.0.lock().unwrap().clone();
    String::from_utf8(written).unwrap().lines().map(str::to_owned).collect()
}

fn uplink(application: &str, device: &str) -> String {
    json!({
        "end_device_ids": { "device_id": device, "application_ids": { "application_id": application } },
        "uplink_message": { "session_key_id": "AXA50g==", "f_port": 1, "f_cnt": 1, "frm_payload": "AQ==",
                            "received_at": "2026-01-31T12:00:00.25Z" }
    })
    .to_string()
}
