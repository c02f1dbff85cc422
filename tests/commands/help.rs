//! Tests `--help` and `completions`.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use crate::support::Settings;

fn printed(arguments: &[&str]) -> String {
    let output = crate::commands::run::command(&Settings::new(), arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The commands of the help, in its order.
fn commands() -> Vec<String> {
    let help = printed(&["--help"]);
    let (_, list) = help.split_once("Commands:\n").unwrap();
    let lines = list.lines().take_while(|line| !line.is_empty()).filter(|line| !line.starts_with("   "));
    lines.map(|line| line.split_whitespace().next().unwrap().to_owned()).filter(|name| name != "help").collect()
}

#[test]
fn every_command_has_examples_that_name_it() {
    let commands = commands();
    assert!(commands.len() >= 8, "{commands:?}");
    for command in commands {
        let help = printed(&[&command, "--help"]);
        let (_, examples) = help.split_once("Examples:\n").unwrap_or_else(|| panic!("no examples in {help}"));
        assert!(examples.contains(&format!("iothub-connector {command}")), "{help}");
        let short = printed(&[&command, "-h"]);
        assert!(short.contains("Usage: "), "{short}");
    }
}

#[test]
fn bash_takes_the_script_and_completes_commands_and_options() {
    let script = printed(&["completions", "bash"]);
    let complete = |words: &str, at: usize| {
        let mut bash = Command::new("bash");
        bash.args(["--norc", "--noprofile", "-euo", "pipefail", "-s"]);
        let mut bash = bash.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let last = words.split(' ').next_back().unwrap();
        let (_, function) = script.split_once("complete -F ").unwrap();
        let function = function.split(' ').next().unwrap();
        let ask = format!(
            "{script}\nCOMP_WORDS=({words}); COMP_CWORD={at}; {function} iothub-connector '{last}' ''\necho \"${{COMPREPLY[@]}}\"\n"
        );
        bash.stdin.take().unwrap().write_all(ask.as_bytes()).unwrap();
        let output = bash.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(complete("iothub-connector back", 1), "backfill");
    assert_eq!(complete("iothub-connector polls --outc", 2), "--outcome");
}

#[test]
fn other_shells_have_scripts_too() {
    for shell in ["zsh", "fish", "powershell", "elvish"] {
        let script = printed(&["completions", shell]);
        assert!(script.contains("iothub-connector") && script.contains("backfill"), "{shell}");
    }
    let output = crate::commands::run::command(&Settings::new(), &["completions", "dos"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}
