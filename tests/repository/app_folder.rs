//! Checks the files that the Functions host and its tools read against the code.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use iothub_connector::{
    app::App,
    config::{Config, Settings},
    server,
};
use serde_json::{Value, json};

/// The files that `func azure functionapp publish` must upload, besides the function folders.
const DEPLOYED: [&str; 2] = ["host.json", "iothub-connector"];
/// Settings of the host itself, and one that Cosmos DB's client reads.
const OF_THE_HOST: [&str; 3] = ["FUNCTIONS_WORKER_RUNTIME", "AzureWebJobsStorage", "COSMOS_DISABLE_IMDS"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn json(path: impl AsRef<Path>) -> Value {
    serde_json::from_str(&text(path)).unwrap()
}

fn names_in(folder: &Path) -> Vec<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn function_folders() -> Vec<String> {
    let names = names_in(root());
    let functions: Vec<_> = names.into_iter().filter(|name| root().join(name).join("function.json").exists()).collect();
    assert!(!functions.is_empty());
    functions
}

fn example() -> BTreeMap<String, String> {
    let example = json("local.settings.json.example");
    assert_eq!(example["IsEncrypted"], false);
    serde_json::from_value(example["Values"].clone()).expect("settings are strings")
}

/// What each value of the example that is to be filled in contains.
const PLACEHOLDER: &str = "REPLACEwith";

/// A key, credentials, and a part of a host name.
const VALUE: &str = "dTpw";

fn filled_in(value: &str) -> String {
    let Some((before, rest)) = value.split_once(PLACEHOLDER) else { return value.to_owned() };
    format!("{before}{VALUE}{}", rest.trim_start_matches(|letter: char| letter.is_ascii_alphanumeric()))
}

fn example_filled_in() -> Settings {
    example().into_iter().map(|(name, value)| (name, filled_in(&value))).collect()
}

#[test]
fn the_example_settings_are_accepted_when_they_are_filled_in() {
    assert_eq!(example()["FUNCTIONS_WORKER_RUNTIME"], "custom");
    Config::from_settings(&example_filled_in()).unwrap_or_else(|problems| panic!("{problems}"));
}

#[test]
fn placeholders_of_the_example_settings_are_refused_and_named_in_one_sentence() {
    // Only `things-stack` reads these.
    let others = ["FunctionAppKey", "FunctionAppUrl", "ThingsStackApiKey"];
    let example = example();
    let placeholders = example.iter().filter(|(_, value)| value.contains(PLACEHOLDER)).map(|(name, _)| name.as_str());
    let expected: BTreeSet<_> = placeholders.filter(|name| !others.contains(name)).collect();
    assert!(expected.len() > 6, "{expected:?}");
    let problems = Config::from_settings(&example.clone().into_iter().collect()).unwrap_err();
    let text = problems.list();
    let (names, rest) = text.split_once(" must be filled in: ").unwrap();
    assert_eq!(names.split(", ").collect::<BTreeSet<_>>(), expected);
    assert!(!rest.contains(';') && !text.contains(PLACEHOLDER), "{text}");
}

#[test]
fn the_example_has_no_setting_that_the_code_does_not_read() {
    let code = code(&root().join("src/config"));
    let switched_off = function_folders().into_iter().map(|function| format!("AzureWebJobs.{function}.Disabled"));
    let of_the_host: Vec<_> = OF_THE_HOST.into_iter().map(str::to_owned).chain(switched_off).collect();
    for name in example().keys().filter(|name| !of_the_host.contains(name)) {
        let is_read = code.contains(&format!("\"{name}\""));
        assert!(is_read || connections().contains(name), "{name} is neither read in src/config nor by a binding");
    }
}

#[test]
fn the_example_has_every_setting_that_a_binding_names() {
    let example = example();
    for connection in connections() {
        assert!(example.contains_key(&connection), "{connection}");
    }
    // One that is switched off there has none.
    let is_on = |function: &String| !example.contains_key(&format!("AzureWebJobs.{function}.Disabled"));
    for function in function_folders().into_iter().filter(is_on) {
        let text = text(Path::new(&function).join("function.json"));
        for name in text.split('%').skip(1).step_by(2) {
            assert!(example.contains_key(name), "%{name}% of {function}");
        }
    }
}

/// The code in a folder and its subfolders.
fn code(folder: &Path) -> String {
    let paths = names_in(folder).into_iter().map(|name| folder.join(name));
    paths.map(|path| if path.is_dir() { code(&path) } else { text(path) }).collect()
}

/// The settings from which bindings take their storage account.
fn connections() -> Vec<String> {
    let connection = |binding: Value| binding["connection"].as_str().map(str::to_owned);
    function_folders().iter().flat_map(|function| bindings(function)).filter_map(connection).collect()
}

fn bindings(function: &str) -> Vec<Value> {
    json(Path::new(function).join("function.json"))["bindings"].as_array().unwrap().clone()
}

#[test]
fn host_json_starts_this_executable_as_a_handler() {
    let host = json("host.json");
    assert_eq!(host["version"], "2.0");
    let handler = &host["customHandler"]["description"];
    // The published file becomes executable only if this is exactly the file's name.
    assert_eq!(handler["defaultExecutablePath"], env!("CARGO_PKG_NAME"));
    let executable: PathBuf = env!("CARGO_BIN_EXE_iothub-connector").into();
    assert_eq!(handler["defaultExecutablePath"], executable.file_stem().unwrap().to_str().unwrap());
    assert_eq!(handler["arguments"], json!(["serve"]));
}

#[tokio::test]
async fn every_function_folder_has_a_route() {
    let config = Config::from_settings(&example_filled_in()).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(server::run(
        listener,
        server::Current::new(App::new(config, iothub_connector::support::ending::Ending::default())),
        std::future::pending(),
    ));
    for function in function_folders() {
        // No function accepts this body as a call, so nothing is run.
        assert_eq!(post(address, &function, "[]").await, 400, "{function}");
    }
    assert_eq!(post(address, "noSuchFunction", "[]").await, 404);
    server.abort();
}

async fn post(address: SocketAddr, function: &str, body: &'static str) -> u16 {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    client.post(format!("http://{address}/{function}")).body(body).send().await.unwrap().status().as_u16()
}

#[test]
fn function_folders_hold_nothing_but_function_json() {
    for function in function_folders() {
        assert_eq!(names_in(&root().join(&function)), ["function.json"], "{function}");
        let bindings = bindings(&function);
        assert_eq!(bindings.iter().filter(|binding| binding["direction"] == "in").count(), 1, "{function}");
    }
}

#[test]
fn webhooks_come_in_where_the_documents_say_and_go_through_one_queue() {
    let [uplink, forwarding] = ["thingsNetworkUplink", "thingsNetworkForwarding"].map(bindings);
    let of_type = |bindings: &[Value], kind: &str| {
        bindings.iter().find(|binding| binding["type"] == kind).unwrap_or_else(|| panic!("no {kind}")).clone()
    };
    let trigger = of_type(&uplink, "httpTrigger");
    // A path behind the address is answered by the function, which can say what is wrong.
    assert_eq!(
        (&trigger["route"], &trigger["methods"], &trigger["authLevel"]),
        (&json!("uplink/{*path}"), &json!(["post"]), &json!("function"))
    );
    let (from, to) = (of_type(&uplink, "queue"), of_type(&forwarding, "queueTrigger"));
    assert_eq!((&from["queueName"], &from["connection"]), (&to["queueName"], &to["connection"]));
    let rejected = of_type(&forwarding, "queue");
    // The limit for queue names in `src/config/things_network.rs` leaves room for this suffix.
    assert_eq!(rejected["queueName"], format!("{}-rejected", to["queueName"].as_str().unwrap()));
    assert_eq!(rejected["connection"], to["connection"]);
}

#[test]
fn host_json_keeps_failed_messages_for_as_long_as_outages_last() {
    let queues = &json("host.json")["extensions"]["queues"];
    let seconds = |name: &str| {
        let span = queues[name].as_str().unwrap_or_else(|| panic!("{name} is missing"));
        let parts: Vec<u64> = span.split(':').map(|part| part.parse().unwrap()).collect();
        let [hours, minutes, seconds] = parts[..] else { panic!("{name}: {span}") };
        hours * 3600 + minutes * 60 + seconds
    };
    let attempts = queues["maxDequeueCount"].as_u64().expect("maxDequeueCount");
    // The host's own values, 5 attempts without a pause, would give up within seconds.
    assert!(seconds("visibilityTimeout") >= 10, "a service that is away is not asked all the time");
    assert!(attempts * seconds("visibilityTimeout") >= 12 * 3600, "an outage of half a day loses nothing");
    // The host's own value of a minute would be the latency of every quiet device.
    assert!(seconds("maxPollingInterval") <= 5);
    // The most messages that the storage service returns at once.
    assert!(queues["batchSize"].as_u64().is_some_and(|size| (1..=32).contains(&size)));
    assert!(queues["newBatchThreshold"].is_u64());
}

/// Application Insights is billed by volume: see docs/operations.md.
#[test]
fn host_json_sends_lines_and_little_else() {
    let logging = &json("host.json")["logging"];
    let levels = logging["logLevel"].as_object().unwrap();
    assert!(!levels.contains_key("default"), "it would send two lines for each request of the Azure SDK");
    assert!(levels.keys().all(|category| !category.starts_with("Host.Function")), "the app's own lines");
    let sampling = &logging["applicationInsights"]["samplingSettings"];
    assert_eq!(sampling["excludedTypes"], "Trace", "queries and alerts read lines, and only lines");
    assert!(sampling["maxTelemetryItemsPerSecond"].as_f64().is_some_and(|most| most <= 0.5));
}

#[test]
fn only_what_runs_is_deployed() {
    let patterns = text(".funcignore");
    let patterns: Vec<_> =
        patterns.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    assert!(patterns.iter().all(|pattern| !pattern.contains(['!', '/', '?', '['])), "plain names and * only");
    let is_ignored = |name: &str| patterns.iter().any(|pattern| matches(pattern, name));

    let deployed: Vec<_> = DEPLOYED.into_iter().map(str::to_owned).chain(function_folders()).collect();
    for name in deployed.iter().map(String::as_str).chain(["function.json"]) {
        assert!(!is_ignored(name), "{name} must be deployed");
    }
    let others = names_in(root()).into_iter().filter(|name| !deployed.contains(name));
    for name in others.chain(["local.settings.json".to_owned(), ".git".to_owned(), "target".to_owned()]) {
        assert!(is_ignored(&name), "{name} must not be deployed");
    }
}

/// Whether the name fits a pattern with at most one `*`.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        Some((start, end)) => name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end),
        None => name == pattern,
    }
}

/// <https://github.com/Azure/azure-dev/blob/main/cli/azd/resources/alpha_features.yaml>
#[test]
fn what_azd_counts_as_alpha_is_switched_on_first() {
    let azure = text("azure.yaml");
    assert!(azure.contains("language: custom") && azure.contains("/schemas/alpha/azure.yaml.json"));
    for page in ["README.md", "docs/how-to/deploy-with-azd.md"] {
        let text = text(page);
        let find = |command: &str| text.find(command).unwrap_or_else(|| panic!("{page} has no {command}"));
        let switched = find("azd config set alpha.language.custom on");
        assert!(switched < find("azd env new"), "{page}: before any other command of azd");
        let is_first = text.match_indices("azd up").all(|(at, _)| at > switched || !is_command(&text, at));
        assert!(is_first && text.contains("azd up\n"), "{page}: before any other command of azd");
    }
}

/// Whether the line has nothing before this place but blanks, as in a block of code.
fn is_command(text: &str, at: usize) -> bool {
    text[..at].rsplit('\n').next().unwrap_or_default().trim().is_empty()
}

/// Without it, the tools look for a language in files that a package does not have.
#[test]
fn func_publishes_a_custom_handler() {
    let mut commands = 0;
    for file in ["docs/how-to/deploy-by-hand.md", "xtask/src/package/mod.rs"] {
        for line in text(file).lines().filter(|line| line.contains("&& func azure functionapp publish")) {
            assert!(line.contains("--custom"), "{file}: {line}");
            commands += 1;
        }
    }
    assert_eq!(commands, 2);
}

#[test]
fn hooks_name_scripts_that_are_there_for_both_shells() {
    let azure = text("azure.yaml");
    let scripts: Vec<_> = azure.lines().filter_map(|line| line.trim().strip_prefix("run: infra/")).collect();
    assert_eq!(scripts, ["enrollment-group.sh", "enrollment-group.ps1"]);
    let mut names = Vec::new();
    for script in scripts {
        let script = text(format!("infra/{script}"));
        for part in [
            "az extension add --name azure-iot --upgrade --only-show-errors",
            "AZURE_SUBSCRIPTION_ID",
            "$reason",
            "az account show --query id --output tsv --only-show-errors",
            " cannot be made in subscription $",
            "azd env set AZURE_SUBSCRIPTION_ID ID`",
        ] {
            assert!(script.replace("\\`", "`").replace("``", "`").contains(part), "{part} is missing");
        }
        names.push(["DPS_NAME", "AZURE_RESOURCE_GROUP", "ENROLLMENT_GROUP_KEY"].map(|name| script.contains(name)));
    }
    assert_eq!(names, [[true; 3]; 2]);
    assert!(text(".gitattributes").contains("*.sh text eol=lf"), "a script with CRLF does not run");
}

/// Runs the script with an Azure CLI whose current subscription is `current`, and that makes no enrollment group.
#[cfg(unix)]
fn make_no_enrollment_group(test: &str, given: Option<&str>, current: &str) -> String {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
    fs::create_dir_all(&folder).unwrap();
    let az = folder.join("az");
    let answers = format!(
        "#!/bin/sh\ncase \"$*\" in\n'extension add'*) ;;\n'account show --query id'*) echo '{current}' ;;\n\
         *) echo \"said of: $*\"; exit 1 ;;\nesac\n"
    );
    fs::write(&az, answers).unwrap();
    fs::set_permissions(&az, fs::Permissions::from_mode(0o755)).unwrap();

    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    let mut script = std::process::Command::new("sh");
    script.arg(root().join("infra/enrollment-group.sh")).env("PATH", path).env_remove("AZURE_SUBSCRIPTION_ID");
    script.envs([("DPS_NAME", "dps-a"), ("AZURE_RESOURCE_GROUP", "rg-a"), ("ENROLLMENT_GROUP_KEY", "hunter2")]);
    let ran = script.envs(given.map(|id| ("AZURE_SUBSCRIPTION_ID", id))).output().unwrap();
    assert_eq!(ran.status.code(), Some(1), "{ran:?}");
    String::from_utf8(ran.stderr).unwrap()
}

#[cfg(unix)]
#[test]
fn an_enrollment_group_that_is_not_made_names_the_subscription() {
    for (test, given, current, named) in [
        ("given-subscription", Some("of-azd"), "of-az", "of-azd"),
        ("current-subscription", None, "of-az", "of-az"),
        ("no-subscription", None, "", "(none: run `az login`)"),
    ] {
        let said = make_no_enrollment_group(test, given, current);
        let first =
            format!("error: enrollment group iothub-connector of dps-a cannot be made in subscription {named}: ");
        assert!(said.starts_with(&first), "{said}");
        // The one that is named is the one that was used.
        assert_eq!(said.contains("--subscription of-azd"), given.is_some(), "{said}");
        assert!(said.contains("If this is the wrong one, set AZURE_SUBSCRIPTION_ID"), "{said}");
    }
}
