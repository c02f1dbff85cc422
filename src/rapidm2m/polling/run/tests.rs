//! Tests runs against in-process emulators, with faults that no service can cause.

use std::sync::atomic::{AtomicBool, Ordering};

use chrono::{DateTime, Utc};
use emulators::{cosmos, iot_hub};

use super::Polling;
use crate::{
    app::App,
    config::{Config, Settings},
    rapidm2m::polling::source::Source,
    support::{clock::Clock, kind::Kind},
};

const SITES: &str = "Well 1,Well 2,Well 3";

static HAS_PANICKED: AtomicBool = AtomicBool::new(false);

/// A bug that hits one poll: the first that reads this clock.
fn panics_once() -> DateTime<Utc> {
    assert!(HAS_PANICKED.swap(true, Ordering::SeqCst), "the clock is broken");
    Utc::now()
}

fn polling(cosmos: &cosmos::Emulator, hub: &iot_hub::Emulator) -> Polling {
    let (cosmos, hub) = (cosmos.ready(), hub.ready());
    let ca = hub.ca.display().to_string();
    let settings: Settings = [
        ("EmulationMode", "true"),
        ("Customer_ID", "Demo Water Utility"),
        ("Site_ID", SITES),
        ("Channelnames", "ch0"),
        ("PollConcurrency", "1"),
        ("M2MDocumentsDBUri", &cosmos.endpoint),
        ("M2MDocumentsDBPrimaryKey", &cosmos.key),
        ("IoTHubURL", &hub.mqtt),
        ("IoTHubDeviceId", "gateway-1"),
        ("IoTHubDeviceKey", &hub.key),
        ("IoTHubTrustedCa", &ca),
    ]
    .into_iter()
    .collect();
    let config = Config::from_settings(&settings).unwrap_or_else(|problems| panic!("{problems}"));
    App::new(config, crate::support::ending::Ending::default()).polling.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_one_site_is_a_failure_of_this_site_only() {
    let (cosmos, hub) =
        tokio::join!(cosmos::start(cosmos::Options::default()), iot_hub::start(iot_hub::Options::default()));
    let (cosmos, hub) = (cosmos.unwrap(), hub.unwrap());
    let mut polling = polling(&cosmos, &hub);
    polling.forwarder.world.source = Source::Emulation(Clock::of(panics_once));

    let run = polling.run(None).await;
    let [(site, failure)] = &run.failures[..] else { panic!("{:?}", run.failures) };
    assert_eq!((site.as_str(), &failure.kind), ("Well 1", &Kind::Panic));
    assert!(failure.text.contains("the clock is broken"), "{}", failure.text);
    assert_eq!((run.sites, run.rows_forwarded, run.is_success()), (3, 2, false));

    let run = polling.run(None).await;
    assert_eq!((run.rows_forwarded, run.is_success()), (3, true), "{:?}", run.failures);
}
