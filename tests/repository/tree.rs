//! Checks the rules of the source tree that the compiler does not know: see ARCHITECTURE.md, "Code map".

use std::{fs, path::Path};

const BINARY: [&str; 3] = ["src/main.rs", "src/cli/", "src/local/"];

/// Every file below `src` with its code, without comments and unit tests.
fn files() -> Vec<(String, String)> {
    fn visit(folder: &Path, found: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                visit(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
                let code: String =
                    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
                found.push((path.to_str().unwrap().replace('\\', "/"), code));
            }
        }
    }
    let mut found = Vec::new();
    visit(Path::new("src"), &mut found);
    assert!(found.len() > 100, "these tests run in the package's folder");
    found
}

fn is_of_binary(path: &str) -> bool {
    BINARY.iter().any(|place| path.starts_with(place))
}

fn is_test(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("/tests.rs")
}

/// Whether the code names this crate or module in a path: `name::…`, or in a `use` group.
fn names(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let is_word = before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_');
        !is_word && code[at + name.len()..].starts_with("::")
    })
}

#[test]
fn only_the_binary_knows_the_command_line_and_the_emulators() {
    for (path, code) in files().iter().filter(|(path, _)| !is_of_binary(path) && !is_test(path)) {
        for name in ["clap", "clap_complete", "indicatif", "comfy_table", "emulators"] {
            assert!(!names(code, name), "{path} is of the library and names {name}");
        }
    }
}

#[test]
fn config_reads_into_types_of_others_and_only_the_app_reads_config() {
    for (path, code) in files().iter().filter(|(path, _)| !is_of_binary(path) && !is_test(path)) {
        let may_know = path.starts_with("src/config/") || path == "src/app.rs";
        assert!(may_know || !names(code, "config"), "{path} imports config, which imports it");
    }
}

#[test]
fn the_halves_do_not_know_each_other() {
    for (path, code) in files() {
        for (half, other) in [("src/rapidm2m/", "things_network"), ("src/things_network/", "rapidm2m")] {
            assert!(!path.starts_with(half) || !names(&code, other), "{path} names {other}");
        }
        let is_below_both =
            ["src/iot_hub/", "src/cosmos/", "src/queue/", "src/host/"].iter().any(|place| path.starts_with(place));
        for half in ["rapidm2m", "things_network"] {
            assert!(
                !is_below_both || is_test(&path) || !names(&code, half),
                "{path} stands below both halves and names {half}"
            );
        }
        for module in ["rapidm2m", "things_network", "iot_hub", "cosmos", "queue", "status", "config", "app"] {
            let is_support = path.starts_with("src/support/");
            assert!(!is_support || !names(&code, module), "{path} is of support and names {module}");
        }
    }
}
