//! The command line, as far as no handler is needed.

use std::process::{Command, Output};

fn trials(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_trials")).args(arguments).output().unwrap()
}

#[test]
fn a_handler_that_is_not_there_is_named() {
    let output = trials(&["crash", "--handler", "no/such/file"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("--handler no/such/file: there is no such file"), "{text}");
}

#[test]
fn a_handler_that_never_answers_is_an_error_and_no_verdict() {
    let output = trials(&["crash", "--runs", "1", "--handler", "/bin/false"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("the handler does not start"), "{text}");
}

#[test]
fn the_help_says_what_a_seed_repeats() {
    let output = trials(&["crash", "--help"]);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("A seed gives the same kills and the same rows again"), "{text}");
}
