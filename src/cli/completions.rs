//! `completions`: prints a script that completes commands and options in a shell.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::Context as _;
use clap_complete::Shell;

const EXAMPLES: &str = "\
Examples:
  source <(iothub-connector completions bash)     # for this session of bash

To have it in every session, put the script where the shell looks for it:
  iothub-connector completions bash > /etc/bash_completion.d/iothub-connector
  iothub-connector completions zsh > \"${fpath[1]}/_iothub-connector\"
  iothub-connector completions fish > ~/.config/fish/completions/iothub-connector.fish
  iothub-connector completions powershell >> $PROFILE";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// The shell
    shell: Shell,
}

/// Prints the script.
///
/// # Errors
/// The script cannot be printed.
pub fn run(options: &Options, mut command: clap::Command) -> anyhow::Result<ExitCode> {
    const NAME: &str = env!("CARGO_BIN_NAME");
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut command, NAME, &mut script);
    let mut script = String::from_utf8(script).context("the script is not text")?;
    if options.shell == Shell::Bash {
        // If the program's name has a hyphen, the script calls a command by one name and looks it up by another:
        // https://github.com/clap-rs/clap/issues/6421
        script = script.replace(&NAME.replace('-', "__subcmd__"), &NAME.replace('-', "__"));
    }
    match io::stdout().write_all(script.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("cannot print"),
        _ => Ok(ExitCode::SUCCESS),
    }
}
