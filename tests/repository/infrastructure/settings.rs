//! Checks the settings that the deployment writes against those of the code, the bindings and the example.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use iothub_connector::config::{Config, Settings};
use serde_json::Value;

use super::bicep::{objects, quoted, text};

/// Settings that the host reads, not the code.
const OF_THE_HOST: [&str; 5] = [
    "COSMOS_DISABLE_IMDS",
    "AzureWebJobsStorage__accountName",
    "AzureWebJobsStorage__credential",
    "APPLICATIONINSIGHTS_CONNECTION_STRING",
    "APPLICATIONINSIGHTS_AUTHENTICATION_STRING",
];
/// Settings that the code reads outside `src/config` (see ARCHITECTURE.md), and those without a small letter in their name.
const ELSEWHERE: [(&str, &str); 5] = [
    ("src/config/settings.rs", "LOCAL_SESSION"),
    ("src/config/settings.rs", "AZURE_FUNCTIONS_ENVIRONMENT"),
    ("src/support/logging/mod.rs", "RUST_LOG"),
    ("src/support/logging/mod.rs", "LOG_FORMAT"),
    ("src/cosmos/mod.rs", "REGION_NAME"),
];
/// Texts in `src/config` that look like settings, but are parts of connection strings, a suffix, or a value.
const NO_SETTINGS: [&str; 10] = [
    "REPLACEwith",
    "Default",
    "Development",
    "DeviceId",
    "GatewayHostName",
    "HostName",
    "M2MBackendForwarderData",
    "SharedAccessKey",
    "SharedAccessKeyName",
    "SharedAccessSignature",
];

fn bicep() -> String {
    text("infra/modules/settings.bicep")
}

/// All settings that the deployment writes with any option, with their expressions.
fn written() -> BTreeMap<String, String> {
    objects(&bicep()).into_values().flatten().collect()
}

/// The settings that the deployment leaves out: the first column of the table in the Bicep file's comment.
fn left_out() -> BTreeSet<String> {
    let text = bicep();
    let rows = text.lines().filter_map(|line| line.strip_prefix("// | ")).skip(1);
    let names = rows.flat_map(|row| row.split(" | ").next().unwrap().split(", ").map(str::to_owned));
    names.collect()
}

/// The code in a folder, without its tests.
fn code(folder: &Path) -> String {
    let mut all = String::new();
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            all += &code(&path);
        } else if !path.ends_with("tests.rs") {
            let text = fs::read_to_string(&path).unwrap();
            all += text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        }
    }
    all
}

/// Every setting that the code reads.
fn read() -> BTreeSet<String> {
    let code = code(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config"));
    let is_name = |text: &&str| {
        text.len() > 5
            && text.starts_with(|first: char| first.is_ascii_uppercase())
            && text.contains(|letter: char| letter.is_ascii_lowercase())
            && text.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
    };
    let literals = code.lines().filter(|line| !line.trim_start().starts_with("//")).flat_map(|line| quoted(line, '"'));
    let mut names: BTreeSet<_> =
        literals.filter(is_name).filter(|name| !NO_SETTINGS.contains(name)).map(str::to_owned).collect();
    for (file, name) in ELSEWHERE {
        assert!(text(file).contains(&format!("\"{name}\"")), "{file} does not read {name}");
        names.insert(name.to_owned());
    }
    assert!(names.len() > 30 && names.contains("UplinkQueueName"), "{names:?}");
    names
}

/// The bindings of all functions.
fn bindings() -> Vec<Value> {
    let mut bindings = Vec::new();
    for folder in fs::read_dir(env!("CARGO_MANIFEST_DIR")).unwrap().map(|entry| entry.unwrap().path()) {
        if let Ok(text) = fs::read(folder.join("function.json")) {
            let function: Value = serde_json::from_slice(&text).unwrap();
            bindings.extend(function["bindings"].as_array().unwrap().iter().cloned());
        }
    }
    bindings
}

fn connections() -> BTreeSet<String> {
    bindings().iter().filter_map(|binding| binding["connection"].as_str().map(str::to_owned)).collect()
}

/// Every setting that the code, the bindings or the host reads.
pub fn known() -> BTreeSet<String> {
    let mut known = read();
    known.extend(connections());
    known.extend(OF_THE_HOST.map(str::to_owned));
    known
}

/// Every setting of the app itself: those of [`known`] that are not the host's own.
pub fn of_the_app() -> BTreeSet<String> {
    let of_the_host =
        OF_THE_HOST.iter().filter(|name| name.contains("AzureWebJobs") || name.starts_with("APPLICATIONINSIGHTS"));
    let mut settings = known();
    of_the_host.for_each(|name| {
        settings.remove(*name);
    });
    settings
}

/// Whether the name is a known setting, also with a suffix: an application, or the property of a connection.
pub fn is_one_of(known: &BTreeSet<String>, name: &str) -> bool {
    let is_ending = |end: &str| end.is_empty() || end == "Default" || end.starts_with('-') || end.starts_with("__");
    known.iter().any(|known| name.strip_prefix(known.as_str()).is_some_and(is_ending))
}

#[test]
fn every_setting_of_the_code_is_written_or_left_out_on_purpose() {
    let (read, written, left_out, connections) = (read(), written(), left_out(), connections());
    // A connection's name may have `__` and a property after it, and `AzureWebJobs` before it.
    let is_connection = |name: &&String| connections.contains(name.trim_start_matches("AzureWebJobs"));
    for name in read.iter().filter(|name| !is_connection(name)) {
        let is_written = written.contains_key(name);
        assert!(is_written || left_out.contains(name), "infra/modules/settings.bicep says nothing of {name}");
        assert!(!is_written || !left_out.contains(name), "{name} is written, and in the table of what is left out");
    }
    for name in &left_out {
        assert!(read.contains(name), "the table of what is left out has {name}, which the code does not read");
    }
}

#[test]
fn nothing_is_written_that_nobody_reads() {
    let (read, connections) = (read(), connections());
    for name in written().keys() {
        let of_connection = name.split_once("__").is_some_and(|(connection, _)| connections.contains(connection));
        let switched_off = name.strip_prefix("AzureWebJobs.").and_then(|name| name.strip_suffix(".Disabled"));
        let is_function = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join(name).join("function.json").is_file();
        assert!(
            read.contains(name)
                || of_connection
                || OF_THE_HOST.contains(&name.as_str())
                || switched_off.is_some_and(is_function),
            "{name}"
        );
    }
}

#[test]
fn bindings_find_their_account_as_the_apps_identity() {
    let written = written();
    for connection in connections() {
        assert_eq!(written[&format!("{connection}__queueServiceUri")], "queueServiceUri");
        assert_eq!(written[&format!("{connection}__credential")], "'managedidentity'");
        assert!(!written.contains_key(&connection), "a connection string would win");
    }
    for binding in bindings() {
        for name in quoted(&binding.to_string(), '%') {
            assert!(written.contains_key(name), "%{name}%");
        }
    }
}

#[test]
fn the_queues_are_those_of_the_bindings() {
    let storage = text("infra/modules/storage.bicep");
    let mut made = BTreeSet::new();
    for (setting, queues) in
        ["UplinkQueueName", "PollQueueName"].into_iter().zip(storage.split("for suffix in ").skip(1))
    {
        let list = queues.split("]: {").next().expect("the queues");
        made.extend(quoted(list, '\'').into_iter().map(|suffix| format!("%{setting}%{suffix}")));
        let begin = setting[..1].to_lowercase();
        assert!(queues.contains(&format!("name: '${{{begin}{}}}${{suffix}}'", &setting[1..])), "{setting}: {queues}");
    }
    let mut bound = BTreeSet::new();
    for binding in bindings() {
        let Some(queue) = binding["queueName"].as_str() else { continue };
        bound.insert(queue.to_owned());
        if binding["type"] == "queueTrigger" {
            bound.insert(format!("{queue}-poison"));
        }
    }
    assert_eq!(made, bound);
}

#[test]
fn every_setting_of_the_example_has_its_place() {
    let example: Value = serde_json::from_str(&text("local.settings.json.example")).unwrap();
    let (written, left_out, connections) = (written(), left_out(), connections());
    for name in example["Values"].as_object().unwrap().keys() {
        // The plan sets the runtime elsewhere, and the host uses an identity for its account.
        let of_the_host = matches!(name.as_str(), "FUNCTIONS_WORKER_RUNTIME" | "AzureWebJobsStorage");
        assert!(
            of_the_host || written.contains_key(name) || left_out.contains(name) || connections.contains(name),
            "{name}"
        );
    }
}

/// The secrets in the vault with a value for each.
const SECRETS: [(&str, &str); 3] = [
    ("Base64encodedUsernamePassword", "dXNlcjpwYXNzd29yZA=="),
    ("DPSEnrollmentGroupSymmetricKeyDefault", "c2VjcmV0IG9mIGEgZ3JvdXA="),
    ("ThingsNetworkWebhookSecret", "0123456789abcdef"),
];

#[test]
fn every_secret_is_in_the_vault_under_the_name_of_its_setting_and_nowhere_else() {
    let (vault, written, known) = (text("infra/modules/vault.bicep"), written(), known());
    for (name, _) in SECRETS {
        assert!(vault.contains(&format!("  name: '{name}'")), "{name} is not in the vault");
        assert!(is_one_of(&known, name) && !written.contains_key(name), "the app reads {name} from the vault");
    }
    assert_eq!(vault.matches("/secrets@").count(), SECRETS.len());
    assert_eq!(written["KeyVaultURI"], "vaultUri");
    assert!(!bicep().contains("@Microsoft.KeyVault("));
}

/// A value for a parameter of the module in a deployment.
fn sample(parameter: &str) -> &str {
    match parameter {
        "cosmosEndpoint" => "https://cosmos-abc.documents.azure.com:443/",
        "idScope" => "0ne00111111",
        "vaultUri" => "https://kv-abc.vault.azure.net/",
        "m2mBackendUrl" => "https://cloud.microtronics.com/api/1/",
        "customerId" => "Demo Water Utility",
        "siteId" | "channelNames" => "*",
        "startFrom" => "youngest",
        "transport" => "https",
        "uplinkQueueName" => "uplinks",
        "deviceIdTemplate" => "{device_id}",
        "string(pollHistoryDays)" => "30",
        other => other,
    }
}

fn settings(groups: &[&str]) -> Settings {
    let objects = objects(&bicep());
    let value = |expression: &str| match expression.strip_prefix('\'') {
        Some(text) => text.trim_end_matches('\'').to_owned(),
        None => sample(expression).to_owned(),
    };
    let all = groups.iter().flat_map(|group| &objects[*group]);
    let written = all.map(|(name, expression)| (name.clone(), value(expression)));
    written.chain(SECRETS.map(|(name, value)| (name.to_owned(), value.to_owned()))).collect()
}

#[test]
fn whatever_is_on_the_settings_go_together() {
    let (rapidm2m, things_network) = ("ofRapidM2M", "ofTheThingsNetwork");
    let cases = [
        ([rapidm2m, things_network], (true, true)),
        ([rapidm2m, "withoutTheThingsNetwork"], (true, false)),
        (["withoutRapidM2M", things_network], (false, true)),
    ];
    for (halves, expected) in cases {
        let groups = ["ofTheHost", "ofBoth", halves[0], halves[1]];
        let config =
            Config::from_settings(&settings(&groups)).unwrap_or_else(|problems| panic!("{halves:?}: {problems}"));
        assert_eq!((config.rapidm2m.is_some(), config.things_network.is_some()), expected);
        assert!(config.ledger.account.key.is_none(), "the identity is used");
        assert_eq!(config.hub.identity.is_some_and(|identity| identity.one().is_none()), expected.0, "a device each");
    }
}

#[test]
fn the_plan_gets_nothing_that_it_does_not_take() {
    // <https://learn.microsoft.com/azure/azure-functions/functions-app-settings#flex-consumption-plan-deprecations>
    let written = written();
    for name in
        ["FUNCTIONS_WORKER_RUNTIME", "FUNCTIONS_EXTENSION_VERSION", "WEBSITE_RUN_FROM_PACKAGE", "AzureWebJobsStorage"]
    {
        assert!(!written.contains_key(name), "{name}");
    }
    assert!(text("infra/modules/app.bicep").contains("name: 'custom'"));
}
