//! Makes or checks `docs/reference/cli.md` from the help of each command, and checks the commands that documents show
//! against that help.

use std::{
    fs,
    process::{Command, Stdio},
    sync::LazyLock,
};

use crate::documents::{Files, Page, pages, root};

/// The environment variable that makes the test rewrite the page instead of comparing it.
const WRITE: &str = "CLI_PAGE";
const PAGE: &str = "docs/reference/cli.md";
const PROGRAM: &str = "iothub-connector";
const INTRODUCTION: &str = "\
# Command line

Every command of the executable with its options, as `--help` prints it. The how-to pages show when to use them.
`cargo build --release` makes the executable: `target/release/iothub-connector`.

Settings come from the environment, else from `Values` in `local.settings.json`; `--settings FILE` names another file. The deployed executable
has neither `local` nor `emulator`.

## Exit codes

The same for all commands:

| Code | Meaning |
|---|---|
| 0 | everything is done, or nothing was found |
| 1 | something was found (`check`, `things-stack health`), failed, or was done only in part |
| 2 | the command line or the settings are wrong: nothing was done |
| 130 | Ctrl-C ended the command |

This page is made from the code. To write it again: `CLI_PAGE=write cargo test --test repository command_line`.
";
/// What comes before the arguments of the executable in a document.
const BEGINNINGS: [(&str, &[&str]); 3] =
    [("cargo run -p emulators -- ", &["emulator"]), ("cargo run -- ", &[]), ("iothub-connector ", &[])];

/// A command and its help.
struct Help {
    path: Vec<String>,
    text: String,
}

/// All commands: the executable itself, then each with its own subcommands behind it.
static COMMANDS: LazyLock<Vec<Help>> = LazyLock::new(|| {
    fn collect(path: &[String], found: &mut Vec<Help>) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_iothub-connector"));
        // The help is as wide as the terminal, and as this where there is none.
        command.args(path).arg("--help").env("COLUMNS", "100").stdin(Stdio::null());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{path:?}: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let subcommands = subcommands(&text);
        found.push(Help { path: path.to_vec(), text });
        for name in subcommands {
            collect(&[path, &[name]].concat(), found);
        }
    }
    let mut found = Vec::new();
    collect(&[], &mut found);
    found
});

fn subcommands(help: &str) -> Vec<String> {
    let Some((_, list)) = help.split_once("\nCommands:\n") else { return Vec::new() };
    // A text that goes on in the next line is further to the right than a name.
    let lines = list.lines().take_while(|line| !line.is_empty()).filter(|line| !line.starts_with("   "));
    lines.map(|line| line.split_whitespace().next().unwrap().to_owned()).filter(|name| name != "help").collect()
}

fn made() -> String {
    let mut page = INTRODUCTION.to_owned();
    for Help { path, text } in COMMANDS.iter() {
        let level = "#".repeat(path.len().max(1) + 1);
        let title = if path.is_empty() { PROGRAM.to_owned() } else { path.join(" ") };
        let help: Vec<_> = text.lines().map(str::trim_end).collect();
        page += &format!("\n{level} `{title}`\n\n```text\n{}\n```\n", help.join("\n").trim_end());
    }
    page
}

#[test]
fn the_page_of_the_command_line_is_as_the_code_has_it() {
    let path = root().join(PAGE);
    let made = made();
    assert!(COMMANDS.len() > 15, "{} commands", COMMANDS.len());
    if std::env::var_os(WRITE).is_some() {
        fs::write(path, made).unwrap();
        return;
    }
    let page = fs::read_to_string(path).unwrap_or_default();
    assert!(page == made, "{PAGE} is out of date: rewrite it with {WRITE}=write");
}

/// The options in a line of a document that the command does not have.
fn unknown_options(line: &str) -> Vec<String> {
    let mut unknown = Vec::new();
    for (beginning, before) in BEGINNINGS {
        // What follows a `#` is a comment; what follows a `|`, another program.
        let Some((_, rest)) = line.split_once(beginning) else { continue };
        let rest = rest.split(" # ").next().unwrap().split(" | ").next().unwrap();
        let words: Vec<_> = before.iter().copied().chain(rest.split_whitespace()).collect();
        let is_of = |help: &&Help| {
            words.len() >= help.path.len() && help.path.iter().zip(&words).all(|(name, word)| name == word)
        };
        let help = COMMANDS.iter().filter(is_of).max_by_key(|help| help.path.len()).unwrap();
        for option in words.iter().filter(|word| word.starts_with("--")) {
            let option = option.split(['=', ')', '`', ',']).next().unwrap();
            let names: Vec<_> = help.text.split(|letter: char| !letter.is_alphanumeric() && letter != '-').collect();
            if !names.contains(&option) {
                unknown.push(format!("`{}` has no {option}", help.path.join(" ")));
            }
        }
        break;
    }
    unknown
}

/// The commands in a page: the lines of its code blocks, joined where they go on in the next one, and texts in back-ticks.
fn commands(page: &Page) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    for (line, text) in &page.blocks {
        match found.last_mut().and_then(|(_, last)| last.ends_with('\\').then_some(last)) {
            Some(last) => *last = format!("{}{}", last.trim_end_matches('\\'), text.trim_start()),
            None => found.push((*line, text.clone())),
        }
    }
    found.extend(page.codes.iter().cloned());
    found
}

#[test]
fn documents_show_commands_that_exist() {
    let mut seen = 0;
    let mut wrong = Vec::new();
    for page in pages(&Files::read()).iter().filter(|page| page.path != PAGE) {
        for (line, text) in commands(page) {
            seen += usize::from(BEGINNINGS.iter().any(|(beginning, _)| text.contains(beginning)));
            wrong.extend(unknown_options(&text).into_iter().map(|what| page.say(line, &what)));
        }
    }
    assert!(seen > 30, "{seen} commands");
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn an_option_that_is_not_there_is_found() {
    assert_eq!(unknown_options("cargo run -- local --for 30s --fore 3 # --not-this"), ["`local` has no --fore"]);
    assert_eq!(unknown_options("iothub-connector replay --queue rejected --yes"), ["`replay` has no --yes"]);
    assert_eq!(
        unknown_options("cargo run -p emulators -- rapidm2m --sites 3 --port 8 --ports=8"),
        ["`emulator rapidm2m` has no --ports"]
    );
    assert_eq!(unknown_options("az login --yes"), [""; 0]);
}
