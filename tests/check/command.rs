//! Runs the binary once, without any variable of the surrounding environment.

use std::{collections::BTreeMap, process::Stdio, time::Duration};

use tokio::process::Command;

/// Longer than any of the binary's own limits. A run that hangs fails the test.
const PATIENCE: Duration = Duration::from_secs(120);

pub type Settings = BTreeMap<String, String>;

/// The result of a run.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

pub fn settings<const N: usize>(pairs: [(&str, &str); N]) -> Settings {
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

/// Runs the binary in a folder without a settings file.
pub async fn run(arguments: &[&str], settings: &Settings) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_iothub-connector"));
    command.args(arguments).env_clear().envs(settings).current_dir(env!("CARGO_TARGET_TMPDIR"));
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await.expect("it must end by itself").unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

impl Ran {
    /// Asserts that the output contains none of these texts.
    #[track_caller]
    pub fn has_no<'a>(&self, secrets: impl IntoIterator<Item = &'a str>) {
        for secret in secrets {
            assert!(!self.out.contains(secret) && !self.err.contains(secret), "{secret} stands in {self:?}");
        }
    }
}
