//! Reproduces what was measured under the real host, and checks the parts.

use std::{os::unix::process::ExitStatusExt as _, process::ExitStatus, sync::Arc};

use serde_json::{Value, json};

use super::*;
use crate::functions_host::document::Document;

fn logging(logging: &Value) -> Logging {
    let document = Document::of("host.json", logging.clone());
    Logging::parse(&document.root()).unwrap()
}

fn counter(rules: &Value) -> Counter {
    Counter::new(logging(rules))
}

fn finished(function: &str, succeeded: bool) -> Event {
    Event::InvocationFinished(InvocationFinished {
        function: function.to_owned(),
        id: String::new(),
        succeeded,
        status: None,
        duration: Duration::ZERO,
        logs: Vec::new(),
        response: Arc::default(),
        error: None,
    })
}

fn line(length: usize) -> Event {
    Event::Line { stream: Stream::Stdout, level: Level::Information, text: "x".repeat(length) }
}

/// What happens each minute.
struct Load {
    /// Uplinks, each with a webhook.
    uplinks: u32,
    /// Failed attempts to forward an uplink.
    failures: u32,
    storage_requests: u64,
    /// Requests for a queue that does not exist.
    missing: u64,
}

/// A timer each minute, and a queue that is polled every 2 seconds, as in all loads.
const IDLE: Load = Load { uplinks: 0, failures: 0, storage_requests: 30, missing: 0 };
/// While the queue did not exist.
const IDLE_WITHOUT_QUEUE: Load = Load { storage_requests: 30, missing: 44, ..IDLE };
const TWO_A_SECOND: Load = Load { uplinks: 120, storage_requests: 665, ..IDLE };
/// Of 200 uplinks, 160 to 200 were tried again each minute.
const HUB_AWAY: Load = Load { failures: 170, storage_requests: 30 + 255, ..IDLE };

/// Gigabytes a month at this load, from a run of four minutes as in the measurement.
fn gigabytes(rules: &Value, load: &Load) -> f64 {
    let mut counter = counter(rules);
    let mut all = Requests::default();
    for second in 0..240_u32 {
        let now = Duration::from_secs(second.into());
        let per_second = |per_minute: u32| (second + 1) * per_minute / 60 - second * per_minute / 60;
        if second % 60 == 0 {
            counter.event(&finished("rapidM2MForwarding", true), now);
            // Two about the sites, and one each about webhooks and forwarding, or about what failed.
            for _ in 0..if load.uplinks + load.failures > 0 { 4 } else { 2 } {
                counter.event(&line(300), now);
            }
            all.all += load.storage_requests + load.missing;
            all.failed += load.missing;
            counter.storage(all, now);
        }
        for _ in 0..per_second(load.uplinks) {
            counter.event(&finished("thingsNetworkUplink", true), now);
            counter.event(&finished("thingsNetworkForwarding", true), now);
        }
        for _ in 0..per_second(load.failures) {
            counter.event(&finished("thingsNetworkForwarding", false), now);
        }
        if second % 30 == 29 {
            counter.flush(now);
        }
    }
    counter.summary(Duration::from_secs(240)).gigabytes_a_month
}

#[test]
fn bytes_are_those_of_the_real_host() {
    let levels = |levels: Value| {
        let mut levels = levels;
        levels["Function.thingsNetworkUplink"] = json!("Warning");
        levels["Function.thingsNetworkForwarding"] = json!("Warning");
        levels
    };
    let rules = |of: Value, most: f64, excluded: &str| {
        json!({ "logLevel": levels(of), "applicationInsights": { "samplingSettings": {
            "isEnabled": true, "maxTelemetryItemsPerSecond": most, "excludedTypes": excluded,
        } } })
    };
    let (most, excluded) = (20.0, "Trace;Exception");
    let as_it_was = rules(json!({ "default": "Information" }), most, excluded);
    let no_azure_core = rules(json!({ "default": "Information", "Azure.Core": "Warning" }), most, excluded);
    let no_default = rules(json!({}), most, excluded);
    let cheap = rules(json!({ "Host.Aggregator": "Error" }), 0.5, "Trace");
    for (name, rules, measured, idle) in [
        ("as it was", as_it_was, [5.9, 103.0, 236.0], IDLE),
        ("without Azure.Core", no_azure_core, [2.5, 9.7, 197.0], IDLE_WITHOUT_QUEUE),
        ("without default", no_default, [0.50, 11.5, 157.0], IDLE),
        ("cheap", cheap, [0.33, 2.5, 15.0], IDLE),
    ] {
        for (load, measured) in [idle, TWO_A_SECOND, HUB_AWAY].iter().zip(measured) {
            let counted = gigabytes(&rules, load);
            assert!((0.7..1.3).contains(&(counted / measured)), "{name}: {counted} instead of {measured} GB a month");
        }
    }
}

/// That of the app. What it costs is in Application Insights' price per gigabyte.
#[test]
fn the_apps_host_json_lets_little_through() {
    let host: Value = serde_json::from_str(include_str!("../../../host.json")).unwrap();
    let rules = &host["logging"];
    // With the hub away, uplinks are put back: their calls succeed.
    let put_back = Load { uplinks: 10, ..IDLE };
    for (load, most) in [(IDLE, 0.4), (TWO_A_SECOND, 2.0), (put_back, 1.0)] {
        let counted = gigabytes(rules, &load);
        println!("{} uplinks a minute: {counted:.2} GB a month", load.uplinks);
        assert!(counted <= most, "{counted} GB a month instead of at most {most}");
    }
}

#[test]
fn a_failed_invocation_is_four_records_of_23_kilobytes() {
    let mut counter = counter(&json!({ "logLevel": { "Function": "Warning" } }));
    counter.event(&finished("f", false), Duration::ZERO);
    let all = counter.summary(Duration::ZERO).all;
    assert_eq!(all.records, 4);
    assert!((22_500..23_500).contains(&all.bytes), "{all:?}");
}

#[test]
fn a_handler_that_ends_badly_is_an_exception() {
    let mut counter = counter(&json!({}));
    for status in [0, 9] {
        counter.event(&Event::HandlerExited { status: ExitStatus::from_raw(status) }, Duration::ZERO);
    }
    assert_eq!(counter.summary(Duration::ZERO).all.records, 1);
}

#[test]
fn the_longest_name_of_a_category_decides() {
    let rules = logging(&json!({ "logLevel": {
        "Function": "Error", "Function.f": "Information", "Host.Results": "None", "Azure.Core": "Warning",
    } }));
    for (category, level, expected) in [
        ("Function.f", Level::Information, true),
        ("Function.g", Level::Warning, false),
        ("Function.g", Level::Error, true),
        ("Host.Results", Level::Error, false),
        ("Host.Function.Console", Level::Information, true),
        ("Azure.Core.1", Level::Information, false),
        ("Azure.Core.1", Level::Warning, true),
        ("System.Net", Level::Error, false),
    ] {
        assert_eq!(rules.allows(category, level), expected, "{category} {level:?}");
    }
    assert!(logging(&json!({ "logLevel": { "default": "Warning" } })).allows("System.Net", Level::Error));
    assert!(!logging(&json!({ "logLevel": { "Default": "None" } })).allows("Host.Results", Level::Error));
}

#[test]
fn what_is_wrong_with_the_logging_is_said() {
    for (rules, problem) in [
        (json!({ "logLevel": { "default": "Loud" } }), "logLevel.default must be a log level"),
        (
            json!({ "applicationInsights": { "samplingSettings": { "maxTelemetryItemsPerSecond": "5" } } }),
            "maxTelemetryItemsPerSecond must be a number",
        ),
    ] {
        let document = Document::of("host.json", rules);
        let error = Logging::parse(&document.root()).unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    }
}
