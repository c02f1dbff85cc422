//! Every row with what can be wrong with it. Each fault has a world of its own.

use std::borrow::Cow;

use azure_core::credentials::Secret;
use azure_data_cosmos::{
    AccountReference, CosmosClient, CosmosRuntime, RoutingStrategy,
    models::{ContainerProperties, PartitionKeyDefinition, TimeToLive},
};
use chrono::{TimeDelta, Utc};
use futures::{StreamExt as _, stream};
use serde_json::{Value, json};

use crate::{
    services::{Report, world},
    support::{World, token},
};

/// Worlds at a time.
const AT_ONCE: usize = 4;
const DATABASE: &str = "M2MBackendForwarderData";

/// What is wrong.
#[derive(Clone, Debug)]
enum Wrong {
    Setting(&'static str, String),
    Unset(&'static str),
    /// `trouble` of a service for requests to a path.
    Trouble(Service, &'static str, Value),
    /// `faults` of a service.
    Faults(Service, Value),
    Away(Service),
    /// A container that somebody made.
    Container(ContainerProperties),
}

#[derive(Clone, Copy, Debug)]
enum Service {
    Backend,
    Cosmos,
    Hub,
}

/// What is wrong; then the row about it: what it is about, its result, its kind, and what is in its text and its advice.
type Case = (Vec<Wrong>, &'static str, &'static str, Option<&'static str>, &'static str, &'static str);

fn set(name: &'static str, value: &str) -> Wrong {
    Wrong::Setting(name, value.to_owned())
}

fn answer(status: u16) -> Value {
    json!({ "answer": { "status": status } })
}

async fn spoil(world: &mut World, wrong: &Wrong) {
    match wrong {
        Wrong::Setting(name, value) => world.set(name, value),
        Wrong::Unset(name) => world.unset(name),
        Wrong::Trouble(service, path, effect) => {
            service.of(world).put("trouble", json!([{ "path": path, "effect": effect }])).await;
        }
        Wrong::Faults(service, faults) => service.of(world).put("faults", faults.clone()).await,
        Wrong::Away(service) => service.of(world).away(true).await,
        Wrong::Container(properties) => make(world, properties.clone()).await,
    }
}

impl Service {
    fn of(self, world: &World) -> &crate::support::Emulator {
        match self {
            Self::Backend => &world.backend,
            Self::Cosmos => &world.cosmos,
            Self::Hub => &world.hub,
        }
    }
}

fn container(id: &'static str, paths: &[&'static str], ttl: TimeToLive) -> Wrong {
    let paths = paths.iter().map(|path| Cow::from(*path)).collect::<Vec<_>>();
    Wrong::Container(ContainerProperties::new(id, PartitionKeyDefinition::new(paths)).with_default_ttl(ttl))
}

async fn make(world: &World, properties: ContainerProperties) {
    let (endpoint, key) = (world.cosmos.ready("endpoint"), world.cosmos.ready("key"));
    let account = AccountReference::with_authentication_key(endpoint.parse().unwrap(), Secret::new(key.to_owned()));
    let runtime = CosmosRuntime::builder().build().await.unwrap();
    let routing = RoutingStrategy::PreferredRegions(Vec::new());
    let client = CosmosClient::builder().with_runtime(runtime).build(account, routing).await.unwrap();
    // Another fault may have made it.
    drop(client.create_database(DATABASE, None).await);
    client.database_client(DATABASE).create_container(properties, None).await.unwrap();
}

async fn run(cases: Vec<Case>) {
    stream::iter(cases)
        .for_each_concurrent(AT_ONCE, async |(wrong, what, result, kind, text, to_do)| {
            let mut world = world().await;
            for wrong in &wrong {
                spoil(&mut world, wrong).await;
            }
            let report = Report::of(&world, &[]).await;
            let row = report.row(what, result);
            assert_eq!(row["kind"].as_str(), kind, "{wrong:?}: {row}");
            for (member, expected) in [("text", text), ("toDo", to_do)] {
                let said = row[member].as_str().unwrap_or_default();
                assert!(said.contains(expected), "{wrong:?}: {expected:?} is not in {said:?}");
            }
            assert!(!row["toDo"].as_str().unwrap_or_default().is_empty(), "{wrong:?}: nothing to do? {row}");
            let others = report.rows.iter().filter(|other| *other != row && other["result"] == "failed");
            assert_eq!(others.count(), 0, "{wrong:?} spoils something else: {:#?}", report.rows);
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_the_backend() {
    use Service::Backend;
    let rest = |kind| (kind, "failed");
    let (backend, failed) = rest("backend");
    let customers = r#"{"customers":[]}"#;
    let late = (Utc::now() - TimeDelta::minutes(10)).format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let notable = (Utc::now() + TimeDelta::minutes(3)).format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let at = |date: &str| json!({"answer": {"status": 200, "headers": {"date": date}, "body": customers}});
    run(vec![
        (
            vec![set("Base64encodedUsernamePassword", "YTpi")],
            backend,
            failed,
            Some("unauthorized"),
            "(401)",
            "check Base64",
        ),
        (vec![Wrong::Away(Backend)], backend, failed, Some("connect"), "cannot be reached", "check M2MBackendURL"),
        (
            vec![Wrong::Trouble(Backend, "/me", answer(403))],
            backend,
            "warning",
            Some("forbidden"),
            "(403)",
            "has the user access",
        ),
        (
            vec![Wrong::Trouble(Backend, "/me", answer(404))],
            backend,
            failed,
            Some("not_found"),
            "(404)",
            "M2MBackendURL",
        ),
        (
            vec![Wrong::Trouble(Backend, "/me", answer(500))],
            backend,
            failed,
            Some("http_status"),
            "status 500",
            "try again",
        ),
        (
            vec![Wrong::Trouble(Backend, "/me", json!("echo"))],
            backend,
            failed,
            Some("http_status"),
            "status 500",
            "try again",
        ),
        (
            vec![Wrong::Trouble(Backend, "/me", json!("garbage"))],
            backend,
            failed,
            Some("not_json"),
            "",
            "check M2MBackendURL",
        ),
        (
            vec![Wrong::Trouble(Backend, "/sites$", answer(500))],
            "customer",
            "warning",
            Some("http_status"),
            "cannot be listed",
            "",
        ),
        (vec![set("Site_ID", "Well 7,Well 8")], "site Well 8", failed, Some("not_found"), "(404)", "Site_ID"),
        (
            vec![set("Channelnames", "ch0,CH1,ch99")],
            "site Well 7",
            "failed",
            None,
            "does not list ch99 for histdata0, but ch0, ch1",
            "check Channelnames",
        ),
        (
            vec![Wrong::Trouble(Backend, "/me", at(&late))],
            "clock",
            failed,
            None,
            "s fast, says the backend",
            "set it right",
        ),
        (
            vec![Wrong::Trouble(Backend, "/me", at(&notable))],
            "clock",
            "warning",
            None,
            "s slow, says the backend",
            "set it right",
        ),
    ]
    .into_iter()
    .map(one_site)
    .collect())
    .await;
    run(vec![
        (
            vec![set("Histdata", "5"), set("Site_ID", "Well 7")],
            "site Well 7",
            failed,
            Some("no_channels"),
            "no channels for histdata5",
            "check Histdata",
        ),
        (
            vec![set("Histdata", "5"), set("Site_ID", "Well 7"), set("Channelnames", "*")],
            "site Well 7",
            failed,
            Some("no_channels"),
            "histdata5",
            "check Histdata",
        ),
    ])
    .await;
    // Of a customer that is not there, no site is either.
    let mut world = world().await;
    world.set("Customer_ID", "Nobody");
    let report = Report::of(&world, &[]).await;
    assert_eq!(report.row("customer Nobody", "failed")["kind"], "not_found");
    assert_eq!(report.row("site Well 7", "failed")["kind"], "not_found");
}

/// Only one of the sites, unless the case has others.
fn one_site(mut case: Case) -> Case {
    if !case.0.iter().any(|wrong| matches!(wrong, Wrong::Setting("Site_ID", _))) {
        case.0.push(set("Site_ID", "Well 7"));
    }
    case
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_cosmos_db() {
    use Service::Cosmos;
    let polls = |ttl| container("pollingAttempts", &["/Customer_Id", "/Site_Id"], ttl);
    let good = || polls(TimeToLive::NoDefault);
    let (account, of_polls, of_devices, failed) =
        ("Cosmos DB", "container pollingAttempts", "container devices", "failed");
    run(vec![
        (
            vec![set("M2MDocumentsDBPrimaryKey", "d3Jvbmc=")],
            account,
            failed,
            Some("ledger_unauthorized"),
            "refused",
            "check M2MDocumentsDBPrimaryKey",
        ),
        (
            vec![Wrong::Away(Cosmos)],
            account,
            failed,
            Some("ledger_unreachable"),
            "cannot be reached",
            "check M2MDocumentsDBUri",
        ),
        (
            vec![container("pollingAttempts", &["/id"], TimeToLive::NoDefault)],
            of_polls,
            failed,
            None,
            "/id, not /Customer_Id, /Site_Id",
            "name another container",
        ),
        (
            vec![polls(TimeToLive::Seconds(60))],
            of_polls,
            failed,
            None,
            "60 s: records that wait for the hub would expire",
            "to -1",
        ),
        (vec![polls(TimeToLive::Forever)], of_polls, "warning", None, "never removed", "PollHistoryDays=0"),
        (vec![good()], of_polls, "warning", None, "indexes /IoTHubMessage", "exclude the path"),
        (
            vec![good(), Wrong::Faults(Cosmos, json!({"status": 403}))],
            of_polls,
            failed,
            Some("ledger_unauthorized"),
            "(403)",
            "check M2MDocumentsDBPrimaryKey",
        ),
        (
            vec![good(), Wrong::Faults(Cosmos, json!({"status": 403, "writesOnly": true}))],
            of_polls,
            failed,
            Some("ledger_unauthorized"),
            "(403)",
            "role",
        ),
        (
            vec![container("devices", &["/deviceId"], TimeToLive::Forever)],
            of_devices,
            failed,
            None,
            "/deviceId, not /id",
            "name another",
        ),
        (
            vec![container("devices", &["/id"], TimeToLive::Seconds(60))],
            of_devices,
            failed,
            None,
            "registered again",
            "switch its time to live off",
        ),
        (
            vec![
                container("devices", &["/id"], TimeToLive::Forever),
                Wrong::Faults(Cosmos, json!({"status": 403, "writesOnly": true})),
            ],
            of_devices,
            failed,
            Some("ledger_unauthorized"),
            "(403)",
            "role",
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_the_hub() {
    use Service::Hub;
    let (hub, failed, https) = ("hub 127.0.0.1", "failed", || set("IoTHubTransport", "https"));
    let only = |wrong: Vec<Wrong>| [wrong, vec![Wrong::Unset("UplinkQueueName")]].concat();
    run(vec![
        (
            vec![set("IoTHubDeviceKey", "d3Jvbmc=")],
            hub,
            failed,
            Some("hub_refused"),
            "refused device gateway-1",
            "check key or token",
        ),
        (
            vec![https(), set("IoTHubDeviceKey", "d3Jvbmc=")],
            hub,
            failed,
            Some("hub_refused"),
            "(401)",
            "check key or token",
        ),
        (only(vec![Wrong::Away(Hub)]), hub, failed, Some("hub_unreachable"), "cannot be reached", "IoTHubTransport"),
        (
            only(vec![https(), Wrong::Away(Hub)]),
            hub,
            failed,
            Some("hub_unreachable"),
            "cannot be reached",
            "IoTHubTransport",
        ),
        (
            only(vec![Wrong::Unset("IoTHubTrustedCa")]),
            hub,
            failed,
            Some("hub_untrusted"),
            "is not trusted",
            "set IoTHubTrustedCa",
        ),
        (
            vec![Wrong::Faults(Hub, json!({"cutAfterConnectTimes": 1}))],
            hub,
            failed,
            Some("hub_accepted_then_cut"),
            "quota",
            "more units",
        ),
        (
            only(vec![https(), Wrong::Faults(Hub, json!({"cutAfterConnectTimes": 1}))]),
            hub,
            failed,
            Some("hub_quota"),
            "quota",
            "more units",
        ),
        (
            only(vec![https(), Wrong::Trouble(Hub, "/messages/events", answer(429))]),
            hub,
            failed,
            Some("hub_throttled"),
            "throttling",
            "units",
        ),
        (
            only(vec![https(), Wrong::Trouble(Hub, "/messages/events", answer(200))]),
            hub,
            failed,
            Some("hub_unreachable"),
            "is no hub",
            "check the hub's name",
        ),
    ])
    .await;
}

#[tokio::test]
async fn of_a_ready_token() {
    for (seconds, result, kind, text) in [
        (-60, "failed", Some("hub_token_expired"), "it expired at 20"),
        (3600, "warning", None, "it expires at 20"),
        (30 * 24 * 3600, "ok", None, "holds until 20"),
    ] {
        let mut world = world().await;
        let host = world.hub.ready("mqtt").split(':').next().unwrap().to_owned();
        let ready = token(&host, "gateway-1", world.hub.ready("key"), seconds);
        world.unset("IoTHubDeviceKey");
        world.set("IoTHubSharedAccessSignature", &ready);
        let report = Report::of(&world, &[]).await;
        let row = report.row("token of the device", result);
        assert_eq!(row["kind"].as_str(), kind);
        assert!(row["text"].as_str().unwrap().starts_with(text), "{row}");
        // That needs nobody to be asked.
        assert_eq!(Report::of(&world, &["--offline"]).await.row("token of the device", result), row);
        let of_hub = if seconds < 0 { "failed" } else { "ok" };
        let row = report.row("hub 127.0.0.1", of_hub);
        assert_eq!(row["kind"].as_str(), kind);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_the_provisioning_service_and_of_a_policy() {
    use Service::Hub;
    let (dps, failed) = ("DPS ", "failed");
    let key = "DPSEnrollmentGroupSymmetricKeyDefault";
    let look = "/registrations/iothub-connector-check";
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let wrong_policy = format!("HostName={free};SharedAccessKeyName=device;SharedAccessKey=d3Jvbmc=");
    run(vec![
        (
            vec![set("DPSIDScopeDefault", "0neWRONG")],
            dps,
            failed,
            Some("dps_unknown_scope"),
            "(404)",
            "check DPSIDScope",
        ),
        (
            vec![set(key, "d3Jvbmc=")],
            dps,
            failed,
            Some("dps_unauthorized"),
            "(401)",
            "check DPSEnrollmentGroupSymmetricKey",
        ),
        (
            vec![set("DPSGlobalDeviceEndpoint", &free)],
            dps,
            failed,
            Some("dps_unreachable"),
            "cannot be reached",
            "check DPSGlobalDeviceEndpoint",
        ),
        (vec![Wrong::Trouble(Hub, look, answer(503))], dps, failed, Some("dps_status"), "503", "try again"),
        (
            vec![Wrong::Trouble(Hub, look, answer(404))],
            dps,
            failed,
            Some("dps_garbage"),
            "makes no sense",
            "check DPSGlobalDeviceEndpoint",
        ),
        (
            vec![Wrong::Trouble(Hub, look, json!("garbage"))],
            dps,
            failed,
            Some("dps_garbage"),
            "makes no sense",
            "check DPSGlobalDeviceEndpoint",
        ),
        (
            vec![Wrong::Setting("AzureIotHubConnectionString__pumps", wrong_policy)],
            "hub ",
            failed,
            Some("hub_unreachable"),
            "cannot be reached",
            "check the hub's name",
        ),
    ])
    .await;
    let mut world = world().await;
    let name = "AzureIotHubConnectionString__pumps";
    let wrong = world.settings[name].replace(world.hub.ready("policyKey"), "d3Jvbmc=");
    world.set(name, &wrong);
    let report = Report::of(&world, &[]).await;
    let row = report.row("hub ", "failed");
    assert!(row["what"].as_str().unwrap().ends_with("(pumps)"), "{row}");
    assert_eq!((&row["kind"], report.of_result("failed").len()), (&"hub_refused".into(), 1), "{row}");
    assert_eq!(row["toDo"], "check the policy's name and key in AzureIotHubConnectionString…");
}
