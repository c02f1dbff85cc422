//! Tests `sas` and `devices` as operators and scripts run them.

use std::{
    fs,
    io::Write as _,
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::Arc,
};

use chrono::DateTime;
use emulators::cosmos;
use iothub_connector::{
    config::{Problems, ledger},
    cosmos::Account,
    iot_hub::devices::{
        Owner, Store, Tenant,
        documents::{self, Document},
        store::Written,
    },
};
use serde_json::{Value, json};

const GROUP_KEY: &str = "8isrFI1sGsIlvvFSSFRiMfCNzv21fjbE/+ah/lSh3lF8e2YG1Te7w1KpZhJFFXJrqYKi9yegxkqIChbqOS9Egw==";
const ID: &str = "sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6";
const DEVICE_KEY: &str = "Jsm0lyGpjaVYVP2g3FnmnmG9dI/9qU24wNoykUmermc=";
const EXPIRES: &str = "--expires=2026-01-01T01:00:00Z";
/// Computed with Python's hmac and with Microsoft's device SDK; both give the same bytes.
const OF_DEVICE: &str = "SharedAccessSignature sr=myhub.azure-devices.net%2Fdevices%2Fsn-007-888-abc-mac-a1-b2-c3-d4-e5-f6\
                         &sig=4HmOE0kNLfBnUW9M41HvDXrhJ81HELrriABwN84lyIY%3D&se=1767229200\n";
const OF_REGISTRATION: &str = "SharedAccessSignature sr=0ne00111111%2Fregistrations%2Fsn-007-888-abc-mac-a1-b2-c3-d4-e5-f6\
                               &sig=aI1mILHhIBmAXY%2B3WcWilF9kQm8iL5ayGrmZ%2B1S1x4U%3D&se=1767229200&skn=registration\n";

type Pairs<'a> = &'a [(&'a str, &'a str)];

/// An empty folder for one test, so that no test sees another's files.
fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("cli").join(name);
    drop(fs::remove_dir_all(&folder));
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn command(folder: &PathBuf, arguments: &[&str], settings: Pairs<'_>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_iothub-connector"));
    command.args(arguments).env_clear().envs(settings.iter().copied()).current_dir(folder).stdin(Stdio::null());
    command
}

fn run(name: &str, arguments: &[&str], settings: Pairs<'_>) -> Output {
    command(&folder(name), arguments, settings).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap()
}

/// The standard output of a successful command, and its standard error.
fn success(output: &Output) -> (&str, &str) {
    let (printed, said) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{:?}: {said}", output.status);
    for secret in [GROUP_KEY, DEVICE_KEY] {
        assert!(!printed.contains(secret) && !said.contains(secret), "a key is printed");
    }
    (printed, said)
}

#[test]
fn the_tokens_are_those_that_microsofts_sdk_makes() {
    let hub = ("IoTHubURL", "myhub.azure-devices.net");
    let of_device = [hub, ("IoTHubDeviceId", ID), ("IoTHubDeviceKey", DEVICE_KEY)];
    let output = run("of_device", &["sas", EXPIRES], &of_device);
    assert_eq!(success(&output).0, OF_DEVICE);
    let said = format!(
        "token for device \"{ID}\" of hub myhub.azure-devices.net, ended 2026-01-01T01:00:00Z: every hub refuses it\n"
    );
    assert_eq!(success(&output).1, said);
    let connection = format!("HostName=myhub.azure-devices.net;DeviceId={ID};SharedAccessKey={DEVICE_KEY}");
    let output = run("of_connection", &["sas", EXPIRES], &[("IoTHubConnection", &connection)]);
    assert_eq!(success(&output).0, OF_DEVICE);

    let dps = [("DPSIDScopeDefault", "0ne00111111"), ("DPSEnrollmentGroupSymmetricKey", GROUP_KEY)];
    let output = run("of_registration", &["sas", EXPIRES, "--registration", ID], &dps);
    assert_eq!(success(&output).0, OF_REGISTRATION);
    let group = ["sas", EXPIRES, "--group", "--device", ID, "--hub", "myhub.azure-devices.net:8883"];
    assert_eq!(success(&run("of_group", &group, &dps)).0, OF_DEVICE);
}

#[test]
fn a_key_comes_from_a_file_or_from_standard_input() {
    let folder = folder("key_file");
    fs::write(folder.join("key.txt"), format!("{DEVICE_KEY}\n")).unwrap();
    let arguments = ["sas", EXPIRES, "--hub", "myhub.azure-devices.net", "--device", ID, "--key-file"];
    let output = command(&folder, &[&arguments[..], &["key.txt"]].concat(), &[]).output().unwrap();
    assert_eq!(success(&output).0, OF_DEVICE);
    let broken = [("IoTHubConnection", "hunter2"), ("IoTHubDeviceId", " "), ("IoTHubURL", "no hub")];
    let output = command(&folder, &[&arguments[..], &["key.txt"]].concat(), &broken).output().unwrap();
    assert_eq!(success(&output).0, OF_DEVICE, "what no option needs is not read");
    let output = command(&folder, &["sas", "--device", ID, "--key-file", "key.txt"], &broken).output().unwrap();
    assert!(text(&output.stderr).contains("IoTHubConnection is not a connection string"), "the hub is needed");

    let registration = ["sas", EXPIRES, "--registration", ID, "--id-scope", "0ne00111111", "--key-file", "-"];
    let mut child = command(&folder, &registration, &[])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(GROUP_KEY.as_bytes()).unwrap();
    assert_eq!(success(&child.wait_with_output().unwrap()).0, OF_REGISTRATION);
}

#[test]
fn settings_come_from_the_environment_before_the_file() {
    let folder = folder("settings");
    let values = json!({"IoTHubURL": "myhub.azure-devices.net", "IoTHubDeviceId": ID, "IoTHubDeviceKey": "c2VjcmV0"});
    for file in ["local.settings.json", "other.json"] {
        fs::write(folder.join(file), json!({ "IsEncrypted": false, "Values": values }).to_string()).unwrap();
    }
    let key = [("IoTHubDeviceKey", DEVICE_KEY)];
    let output = command(&folder, &["sas", EXPIRES], &key).output().unwrap();
    assert_eq!(success(&output).0, OF_DEVICE);
    fs::remove_file(folder.join("local.settings.json")).unwrap();
    let output = command(&folder, &["sas", EXPIRES, "--settings", "other.json"], &key).output().unwrap();
    assert_eq!(success(&output).0, OF_DEVICE);
}

#[test]
fn a_token_holds_for_an_hour_unless_told_otherwise() {
    let settings = [("IoTHubURL", "h.net"), ("IoTHubDeviceId", "d"), ("IoTHubDeviceKey", DEVICE_KEY)];
    for (option, hours) in [(None, 1), (Some("--expires=7d"), 7 * 24), (Some("--expires=120m"), 2)] {
        let arguments: Vec<_> = ["sas"].into_iter().chain(option).collect();
        let before = chrono::Utc::now().timestamp();
        let output = run("lifetime", &arguments, &settings);
        let (printed, said) = success(&output);
        let end: i64 = printed.trim().rsplit_once("&se=").unwrap().1.parse().unwrap();
        assert!((before..before + 60).contains(&(end - hours * 3600)), "{printed}");
        assert!(said.contains("of hub h.net, until 20"), "{said}");
    }
}

#[test]
fn what_is_missing_or_wrong_is_named_without_secrets() {
    let hub: Pairs<'_> = &[("IoTHubURL", "h.net"), ("IoTHubDeviceId", "d")];
    let bad_key: Pairs<'_> = &[("IoTHubURL", "h.net"), ("IoTHubDeviceId", "d"), ("IoTHubDeviceKey", "hunter2!")];
    let ready = [(
        "IoTHubConnection",
        "HostName=h.net;DeviceId=d;SharedAccessSignature=SharedAccessSignature sr=h.net&sig=hunter2&se=9999999999",
    )];
    let cases: [(&[&str], Pairs<'_>, &str); 14] = [
        (&["sas"], &[], "no hub: give --hub, or set IoTHubURL or IoTHubConnection"),
        (&["sas"], &[("IoTHubURL", "h.net")], "no device: give --device"),
        (&["sas"], hub, "no key: give --key-file"),
        (&["sas"], bad_key, "IoTHubDeviceKey holds no key in Base64"),
        (&["sas"], &ready, "IoTHubConnection holds a ready token"),
        (&["sas"], &[("IoTHubConnection", "hunter2")], "IoTHubConnection is not a connection string"),
        (&["sas", "--hub", "myhub"], hub, "--hub is \"myhub\", a name without dots: write myhub.azure-devices.net"),
        (&["sas", "--device", "a b"], hub, "--device is not a device id"),
        (&["sas", "--registration", "Pump 7"], &[], "--registration is not a registration id"),
        (&["sas", "--registration", "d"], &[], "no ID scope: give --id-scope, or set DPSIDScope"),
        (&["sas", "--registration", "d", "--id-scope", "a b"], &[], "--id-scope is not an ID scope"),
        (&["sas", "--registration", "d", "--id-scope", "0ne1"], &[], "no key of an enrollment group"),
        (&["sas", "--key-file", "absent.txt"], hub, "absent.txt cannot be read"),
        (&["sas", "--settings", "absent.json"], hub, "absent.json cannot be read"),
    ];
    for (arguments, settings, expected) in cases {
        let output = run("faults", arguments, settings);
        let said = text(&output.stderr);
        assert!(!output.status.success() && output.stdout.is_empty(), "{arguments:?}");
        assert!(said.starts_with("error: ") && said.contains(expected), "{expected:?} is missing in {said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
    for arguments in
        [&["sas", "--expires", "soon"][..], &["sas", "--group"], &["sas", "--registration", "d", "--hub", "h.net"]]
    {
        assert_eq!(run("usage", arguments, hub).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn the_key_of_another_device_is_warned_of() {
    let settings = [("IoTHubURL", "h.net"), ("IoTHubDeviceId", "d"), ("IoTHubDeviceKey", DEVICE_KEY)];
    let output = run("other_device", &["sas", "--device", "e"], &settings);
    let (printed, said) = success(&output);
    assert!(printed.contains("devices%2Fe&"), "{printed}");
    assert!(said.contains("warning: the key in the settings is that of device \"d\""), "{said}");
}

struct World {
    cosmos: cosmos::Emulator,
    store: Store,
}

impl World {
    async fn start() -> Self {
        let cosmos = cosmos::start(cosmos::Options::default()).await.unwrap();
        let ready = cosmos.ready();
        let settings = [("M2MDocumentsDBUri", &ready.endpoint), ("M2MDocumentsDBPrimaryKey", &ready.key)];
        let config = ledger::read(&settings.into_iter().collect(), &mut Problems::default()).unwrap();
        let store = Store::new(Arc::new(Account::new(config.account)));
        Self { cosmos, store }
    }

    async fn put(&self, id: &str, site: &str, registrations: u32) {
        let document = Document {
            id: id.into(),
            owner: (&Owner::rapidm2m_site("Demo Water Utility", site)).into(),
            tenant: None,
            assigned_hub: "myhub.azure-devices.net".into(),
            device_id: id.into(),
            registered_at: DateTime::from_timestamp(1_767_225_600, 0).unwrap(),
            id_scope: Some("0ne00111111".into()),
            registrations,
        };
        assert_eq!(self.store.write(&document, None).await.unwrap(), Written::Yes);
    }

    async fn devices(&self, name: &'static str, arguments: &'static [&'static str]) -> Output {
        let ready = self.cosmos.ready().clone();
        let run = move || {
            let settings =
                [("M2MDocumentsDBUri", ready.endpoint.as_str()), ("M2MDocumentsDBPrimaryKey", ready.key.as_str())];
            run(name, &[&["devices"], arguments].concat(), &settings)
        };
        tokio::task::spawn_blocking(run).await.unwrap()
    }
}

#[tokio::test]
async fn devices_are_listed_in_columns_or_as_json() {
    let world = World::start().await;
    world.put("reservoir-sued-255c8c5e", "Reservoir Süd", 12).await;
    world.put("pump-7", "pump-7", 1).await;
    let output = world.devices("table", &[]).await;
    assert_eq!(
        success(&output),
        (
            "\
2 devices at myhub.azure-devices.net

DEVICE                   CUSTOMER OR APPLICATION  SITE OR END DEVICE  REGISTERED  TIMES
pump-7                   Demo Water Utility       pump-7              2026-01-01      1
reservoir-sued-255c8c5e  Demo Water Utility       Reservoir Süd       2026-01-01     12
",
            ""
        )
    );
    let output = world.devices("json", &["--json"]).await;
    let lines: Vec<Value> = success(&output).0.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[1]["Owner"]["Name"], "Reservoir Süd");
    assert_eq!((&lines[0]["id"], &lines[0]["Registrations"]), (&json!("pump-7"), &json!(1)));
}

#[tokio::test]
async fn a_device_of_a_port_says_so_and_its_claim_is_no_device() {
    let world = World::start().await;
    let owner = || (&Owner::things_network("pumps", "pump-7", "pump-7")).into();
    let now = DateTime::from_timestamp(1_767_225_600, 0).unwrap();
    let claim = Document::claim("pump-7", owner(), None, now);
    let device = Document {
        id: documents::id("pump-7", Some(10)),
        assigned_hub: "myhub.azure-devices.net".into(),
        device_id: "pump-7".into(),
        registrations: 1,
        ..claim.clone()
    };
    for document in [&claim, &device] {
        assert_eq!(world.store.write(document, None).await.unwrap(), Written::Yes);
    }
    let output = world.devices("ports", &[]).await;
    let printed = success(&output).0;
    assert!(printed.lines().count() == 4 && printed.contains("  pump-7 (port 10)    2026-01-01"), "{printed}");
    let output = world.devices("ports_json", &["--json"]).await;
    assert_eq!(success(&output).0.lines().count(), 2);
}

/// Stores a device of each LoRaWAN device.
async fn put_fleet(world: &World, application: &str, devices: &[&str]) {
    for device in devices {
        let document = Document {
            id: (*device).into(),
            owner: (&Owner::things_network(application, device, *device)).into(),
            tenant: Tenant::of_domain("north.eu1.cloud.thethings.industries"),
            assigned_hub: "myhub.azure-devices.net".into(),
            device_id: (*device).into(),
            registered_at: DateTime::from_timestamp(1_767_225_600, 0).unwrap(),
            id_scope: Some("0ne00111111".into()),
            registrations: 1,
        };
        assert_eq!(world.store.write(&document, None).await.unwrap(), Written::Yes);
    }
}

async fn owners(world: &World) -> Vec<String> {
    let documents = world.store.list().await.unwrap().unwrap().documents;
    documents.iter().map(|document| format!("{}/{}", document.owner.group, document.owner.name)).collect()
}

#[tokio::test]
async fn a_fleet_is_moved_at_once_and_nothing_changes_in_a_dry_run() {
    let world = World::start().await;
    put_fleet(&world, "trial", &["probe-1", "probe-2", "probe-3"]).await;
    put_fleet(&world, "other", &["valve"]).await;
    let before = ["trial/probe-1", "trial/probe-2", "trial/probe-3", "other/valve"];
    let arguments = &["move", "--application", "trial", "--to", "production"];
    let output = world.devices("move_dry", arguments).await;
    let (printed, said) = success(&output);
    assert!(printed.contains("probe-3") && !printed.contains("valve"), "{printed}");
    assert_eq!(said, "3 devices would be moved. Nothing is changed: add --yes\n");
    assert_eq!(owners(&world).await, before);

    let one = &["move", "--application", "trial", "--to", "production", "--device", "probe-1", "--yes"];
    assert_eq!(success(&world.devices("move_one", one).await).1, "1 of 1 devices are moved\n");
    let all = &["move", "--application", "trial", "--to", "production", "--yes"];
    assert_eq!(success(&world.devices("move_all", all).await).1, "2 of 2 devices are moved\n");
    assert_eq!(owners(&world).await, ["production/probe-1", "production/probe-2", "production/probe-3", "other/valve"]);
    let moved = world.store.read("probe-1").await.unwrap().unwrap().document;
    assert_eq!((moved.tenant, moved.registrations), (None, 1), "the next webhook names the tenant");
    let output = world.devices("move_none", all).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).starts_with("error: application trial has no devices"));
}

#[tokio::test]
async fn a_fleet_is_forgotten_at_once() {
    let world = World::start().await;
    put_fleet(&world, "trial", &["probe-1", "probe-2"]).await;
    put_fleet(&world, "other", &["valve"]).await;
    world.put("trial", "trial", 1).await;
    let said = "2 devices would be forgotten. Nothing is changed: add --yes\n";
    assert_eq!(success(&world.devices("forget_dry", &["forget", "--application", "trial"]).await).1, said);
    assert_eq!(owners(&world).await.len(), 4);
    let output = world.devices("forget", &["forget", "--application", "trial", "--yes"]).await;
    assert_eq!(success(&output).1, "2 of 2 devices are forgotten\n");
    assert_eq!(owners(&world).await, ["Demo Water Utility/trial", "other/valve"], "a site is no LoRaWAN device");
}

#[tokio::test]
async fn an_empty_list_says_so_and_nothing_is_created() {
    let world = World::start().await;
    for arguments in [&[][..], &["--json"]] {
        let output = world.devices("empty", arguments).await;
        let (printed, said) = success(&output);
        assert_eq!(printed, "");
        assert_eq!(
            said,
            "no devices are provisioned: container devices in database M2MBackendForwarderData is empty or absent\n"
        );
    }
    assert!(world.store.list().await.unwrap().is_none(), "the container is there");
}

#[tokio::test]
async fn thousands_of_devices_are_listed_sorted() {
    const COUNT: usize = 2_500;
    let world = World::start().await;
    for number in 0..COUNT {
        world.put(&format!("well-{number}"), &format!("Well {number}"), 1).await;
    }
    let output = world.devices("many", &["--json"]).await;
    let ids: Vec<String> = success(&output)
        .0
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned())
        .collect();
    assert!(ids.len() == COUNT && ids.is_sorted(), "{}", ids.len());
}

#[tokio::test]
async fn a_store_that_cannot_be_read_is_said() {
    let world = World::start().await;
    let endpoint = world.cosmos.ready().endpoint.clone();
    let settings = move |key: &'static str| {
        let endpoint = endpoint.clone();
        tokio::task::spawn_blocking(move || {
            run("wrong_key", &["devices"], &[("M2MDocumentsDBUri", &endpoint), ("M2MDocumentsDBPrimaryKey", key)])
        })
    };
    let output = settings("c2VjcmV0").await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("M2MDocumentsDBPrimaryKey"), "{}", text(&output.stderr));

    let output = run("unset", &["devices"], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).starts_with("error: M2MDocumentsDBUri is not set: "), "{}", text(&output.stderr));
}
