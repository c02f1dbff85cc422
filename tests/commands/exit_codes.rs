//! Tests that an exit code means the same for all commands: the table in `docs/reference/cli.md`.

use std::{fs, path::PathBuf, process::Stdio};

use serde_json::Value;

use super::run::{SITE, command};
use crate::support::{Settings, World};

/// Every command that reads settings, as it is called most simply.
const COMMANDS: [&[&str]; 12] = [
    &["serve"],
    &["check"],
    &["polls", SITE],
    &["backfill", SITE, "--from", "2026-01-01"],
    &["backfill", "--storage", "pumps", "--since", "1h"],
    &["replay", SITE, "--all"],
    &["replay", "--queue", "rejected"],
    &["import-sample"],
    &["devices"],
    &["devices", "forget", "--application", "pumps"],
    &["things-stack", "health", "--application", "pumps"],
    &["sas"],
];

struct Ended {
    code: Option<i32>,
    text: String,
}

async fn run(settings: &Settings, arguments: &[&str]) -> Ended {
    let mut command = tokio::process::Command::from(command(settings, arguments));
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    Ended { code: output.status.code(), text: String::from_utf8(text).unwrap() }
}

/// Azure's host restarts a handler that ends; a developer's does not.
fn on_a_developers_machine(settings: Settings) -> Settings {
    settings.into_iter().chain([("AZURE_FUNCTIONS_ENVIRONMENT".to_owned(), "Development".to_owned())]).collect()
}

#[tokio::test]
async fn without_settings_every_command_ends_with_2() {
    let none = on_a_developers_machine(Settings::new());
    for arguments in COMMANDS {
        let ended = run(&none, arguments).await;
        assert_eq!(ended.code, Some(2), "{arguments:?}: {}", ended.text);
    }
    let ended = run(&none, &["serve"]).await;
    assert!(ended.text.contains("no settings found: set M2MBackendURL and Customer_ID"), "{}", ended.text);
}

#[tokio::test]
async fn with_the_example_as_it_is_every_command_ends_with_2_and_says_what_to_fill_in() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let example = root.join("local.settings.json.example");
    let name = example.to_str().unwrap();
    let text: Value = serde_json::from_slice(&fs::read(&example).unwrap()).unwrap();
    let app = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("unfilled");
    fs::create_dir_all(&app).unwrap();
    fs::copy(root.join("host.json"), app.join("host.json")).unwrap();
    fs::copy(&example, app.join("local.settings.json")).unwrap();
    let of_local = ["local", "--for", "1s", "--app", app.to_str().unwrap()];
    // The storage account of the example is Azurite, which everybody has.
    let commands = COMMANDS.into_iter().filter(|arguments| *arguments != ["replay", "--queue", "rejected"]);
    for arguments in commands.chain([&of_local[..]]) {
        // The host reads the file for `serve`.
        let ended = if arguments == ["serve"] {
            let mut process = command(&Settings::new(), arguments);
            let values =
                text["Values"].as_object().unwrap().iter().map(|(name, value)| (name, value.as_str().unwrap()));
            process.envs(values).env("AZURE_FUNCTIONS_ENVIRONMENT", "Development");
            let output = process.output().unwrap();
            Ended { code: output.status.code(), text: String::from_utf8(output.stderr).unwrap() }
        } else if arguments[0] == "local" {
            run(&Settings::new(), arguments).await
        } else {
            run(&Settings::new(), &[arguments, &["--settings", name]].concat()).await
        };
        assert_eq!(ended.code, Some(2), "{arguments:?}: {}", ended.text);
        assert!(ended.text.contains("placeholder"), "{arguments:?}: {}", ended.text);
    }
}

#[tokio::test]
async fn an_exit_code_means_the_same_for_all_commands() {
    let world = World::with_sites(&[SITE]).await;
    world.add(SITE, [1]).await;
    world.handler().await.invoke_ok().await;
    let table: &[(&[&str], i32)] = &[
        (&["polls", SITE], 0),
        (&["polls", SITE, "--outcome=rejected"], 0),
        (&["polls", "Nowhere"], 1),
        (&["polls", SITE, "--since=1h", "--until=2h"], 2),
        (&["polls", SITE, "--since=7"], 2),
        (&["backfill", SITE, "--from=2024-03-01", "--until=2024-02-01"], 2),
        (&["backfill", SITE, "--from=2h"], 2),
        (&["backfill", SITE, "--from=2024-03-01", "--until=9999-01-01"], 2),
        (&["backfill", SITE, "--from=2024-02-01", "--until=2024-03-02", "--dry-run"], 0),
        (&["replay", SITE, "--all"], 0),
        (&["replay", "Nowhere", "--all"], 1),
        (&["replay", SITE, "Nowhere", "--poll=1"], 2),
        (&["devices"], 0),
        (&["devices", "forget", "--application=pumps"], 1),
        (&["import-sample"], 2),
        (&["import-sample", "--container=nothing"], 1),
        (&["sas"], 0),
        (&["sas", "--expires=7"], 2),
        (&["sas", "--device= "], 2),
        (&["sas", "--key-file=/does/not/exist"], 2),
        (&["check", "--offline"], 0),
        (&["check", "--settings=/does/not/exist"], 2),
        (&["completions", "bash"], 0),
        (&["nothing"], 2),
        (&["--help"], 0),
    ];
    for (arguments, code) in table {
        let ended = run(&world.settings, arguments).await;
        assert_eq!(ended.code, Some(*code), "{arguments:?}: {}", ended.text);
    }
}
