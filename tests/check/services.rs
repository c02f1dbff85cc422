//! Starts a backend with two sites, a Cosmos DB, and a hub with its DPS, and reads what `check` reports about them.

use emulators::{cosmos, iot_hub, rapidm2m};
use serde_json::Value;
use tokio::join;

use crate::{
    check::command::{Ran, run},
    support::{Emulator, Storage, World},
};

pub const SITES: [&str; 2] = ["Well 7", "Reservoir Süd"];

/// Both halves: rapidM2M as one device; The Things Network with one DPS for all applications and a hub of its own for
/// `pumps`.
pub async fn world() -> World {
    let backend = rapidm2m::Options { site: SITES.map(str::to_owned).to_vec(), ..rapidm2m::Options::default() };
    world_of(backend).await
}

pub async fn world_of(backend: rapidm2m::Options) -> World {
    let (backend, cosmos, hub) = join!(
        Emulator::rapidm2m(backend),
        Emulator::cosmos(cosmos::Options::default()),
        Emulator::iot_hub(iot_hub::Options::default())
    );
    let mut world = World::of(backend, cosmos, hub, &SITES);
    let [dps, scope, group, https, policy, key] =
        ["dps", "idScope", "groupKey", "https", "policy", "policyKey"].map(|name| world.hub.ready(name).to_owned());
    let https = https.trim_start_matches("https://");
    let storage = connection_string(&Storage::default()).await;
    let connection = format!("HostName={https};SharedAccessKeyName={policy};SharedAccessKey={key}");
    for (name, value) in [
        ("UplinkQueueName", "uplinks"),
        ("AzureStorageConnectionString", &storage),
        ("DPSGlobalDeviceEndpoint", &dps),
        ("DPSIDScopeDefault", &scope),
        ("DPSEnrollmentGroupSymmetricKeyDefault", &group),
        ("AzureIotHubConnectionString__pumps", &connection),
    ] {
        world.set(name, value);
    }
    world
}

/// Starts the storage and returns its account's connection string.
pub async fn connection_string(storage: &Storage) -> String {
    storage.start().await.replace("AccountKey=a2V5", "AccountKey=aHVudGVyMg==")
}

/// The report of `check`.
#[derive(Debug)]
pub struct Report {
    pub ran: Ran,
    pub rows: Vec<Value>,
}

impl Report {
    pub async fn of(world: &World, arguments: &[&str]) -> Self {
        let ran = run(&[&["check", "--json"], arguments].concat(), &world.settings).await;
        ran.has_no(secrets(world).iter().map(String::as_str));
        let mut rows: Vec<Value> = ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let summary = rows.pop().unwrap_or_else(|| panic!("nothing is printed: {ran:?}"));
        for result in ["ok", "warning", "failed", "skipped"] {
            let count = rows.iter().filter(|row| row["result"] == result).count();
            assert_eq!(summary["summary"][result], count, "{ran:?}");
        }
        let is_failed = summary["summary"]["failed"] != 0;
        assert!(ran.code == 2 || ran.code == i32::from(is_failed), "{ran:?}");
        Self { ran, rows }
    }

    /// The subjects of the rows with this result.
    pub fn of_result(&self, result: &str) -> Vec<&str> {
        let rows = self.rows.iter().filter(|row| row["result"] == result);
        rows.map(|row| row["what"].as_str().unwrap()).collect()
    }

    /// The first row with this result whose subject begins with `what`.
    #[track_caller]
    pub fn row(&self, what: &str, result: &str) -> &Value {
        let is_it = |row: &&Value| row["what"].as_str().unwrap().starts_with(what) && row["result"] == result;
        self.rows.iter().find(is_it).unwrap_or_else(|| panic!("no {result} {what:?} in {:#?}", self.rows))
    }
}

pub fn secrets(world: &World) -> Vec<String> {
    let of_settings = world.settings.iter().filter(|(name, _)| {
        ["Key", "Password", "Signature"].iter().any(|part| name.contains(part)) && !name.starts_with("KeyVault")
    });
    let mut secrets: Vec<String> = of_settings.map(|(_, value)| value.clone()).collect();
    for (emulator, name) in [
        (&world.backend, "password"),
        (&world.cosmos, "key"),
        (&world.hub, "key"),
        (&world.hub, "groupKey"),
        (&world.hub, "policyKey"),
    ] {
        secrets.push(emulator.ready(name).to_owned());
    }
    secrets.extend(["sig=".to_owned(), "aHVudGVyMg".to_owned()]);
    secrets
}
