//! Checks the containers and the published files against the code that uses them.

use iothub_connector::{
    config::{Problems, Settings, ledger},
    iot_hub::devices::store::CONTAINER,
};

use super::bicep::{quoted, resource, text, variable};

/// The text between two texts, at its first place after `start`.
fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let rest = text.split_once(start).unwrap_or_else(|| panic!("{start:?} is missing")).1;
    rest.split_once(end).unwrap_or_else(|| panic!("{end:?} is missing after {start:?}")).0
}

#[test]
fn database_and_containers_have_the_names_that_the_code_looks_for() {
    let cosmos = text("infra/modules/cosmos.bicep");
    let settings: Settings = [("M2MDocumentsDBUri", "https://a.documents.azure.com:443/")].into_iter().collect();
    let config = ledger::read(&settings, &mut Problems::default()).unwrap();
    assert_eq!(variable(&cosmos, "databaseName"), config.account.database);
    assert_eq!(variable(&cosmos, "pollsContainerName"), config.container);
    assert_eq!(variable(&cosmos, "devicesContainerName"), CONTAINER);
}

#[test]
fn the_polls_container_is_the_one_that_the_code_would_make() {
    let cosmos = text("infra/modules/cosmos.bicep");
    let polls = resource(&cosmos, "polls");
    let file = text("src/rapidm2m/ledger/cosmos.rs");
    let message_path = between(&file, "MESSAGE_PATH: &str = ", ";");
    let code = between(&file, "fn properties(&self)", "\n    }\n").replace("MESSAGE_PATH", message_path);

    let keys = between(&file, "PARTITION_KEY: [&str; 2] = [", "]");
    assert_eq!(quoted(between(polls, "paths: [", "]"), '\''), quoted(keys, '"'));
    assert_eq!(quoted(keys, '"').len(), 2);
    assert!(polls.contains("kind: 'MultiHash', version: 2"), "two keys are hierarchical");

    let paths = |call: &str| -> Vec<_> { code.split(call).skip(1).map(|rest| quoted(rest, '"')[0]).collect() };
    assert_eq!(quoted(between(polls, "includedPaths: [", "]"), '\''), paths(".with_included_path("));
    assert_eq!(quoted(between(polls, "excludedPaths: [", "]"), '\''), paths(".with_excluded_path("));

    assert!(code.contains(".with_default_ttl(TimeToLive::NoDefault)"));
    assert!(polls.contains("defaultTtl: -1"), "with a default, what waits would expire; without any, nothing would");
}

#[test]
fn the_devices_container_is_the_one_that_the_code_would_make() {
    let cosmos = text("infra/modules/cosmos.bicep");
    let devices = resource(&cosmos, "devices");
    let key = between(&text("src/iot_hub/devices/store.rs"), "const PARTITION_KEY: &str = \"", "\"").to_owned();
    assert_eq!(quoted(between(devices, "paths: [", "]"), '\''), [key.as_str()]);
    let code = text("src/iot_hub/devices/store.rs");
    let paths = |call: &str| -> Vec<_> { code.split(call).skip(1).map(|rest| quoted(rest, '"')[0]).collect() };
    assert_eq!(quoted(between(devices, "includedPaths: [", "]"), '\''), paths(".with_included_path("));
    assert_eq!(quoted(between(devices, "excludedPaths: [", "]"), '\''), paths(".with_excluded_path("));
    assert!(!devices.contains("defaultTtl"), "who a device stands for is never forgotten");
}

#[test]
fn azd_publishes_the_zip_that_the_package_command_makes_to_the_app() {
    let project = text("azure.yaml");
    let package = text("xtask/src/lib.rs") + &text("xtask/src/package/mod.rs");
    let dist = between(&project, "    dist: ", "\n");
    let (folder, zip) = dist.rsplit_once('/').unwrap();
    assert!(package.contains(&format!("\"{folder}\"")) && package.contains(&format!("\"{zip}\"")), "{dist}");
    assert!(project.contains("    host: function\n    language: custom\n"));
    assert_eq!(project.matches("run: cargo xtask package").count(), 2, "on every system");
    // azd finds the app by this tag.
    let tag = between(&text("infra/modules/app.bicep"), "'azd-service-name': '", "'").to_owned();
    assert!(project.contains(&format!("\n  {tag}:\n    project: .")), "{tag}");
    let hook = between(&project, "    run: infra/", "\n").to_owned();
    assert!(text(&format!("infra/{hook}")).starts_with("#!/bin/sh\n"));
}

#[test]
fn nobody_has_a_key_where_an_identity_will_do() {
    assert!(text("infra/modules/storage.bicep").contains("allowSharedKeyAccess: false"));
    assert!(text("infra/modules/cosmos.bicep").contains("disableLocalAuth: true"));
    assert!(text("infra/modules/monitoring.bicep").contains("DisableLocalAuth: true"));
    assert!(text("infra/modules/vault.bicep").contains("enableRbacAuthorization: true"));
}
