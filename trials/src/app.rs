//! Makes the function app's folder for the host's stand-in, and finds the handler to run in it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The folder's name (which is the function's name), and its function.json.
pub type Function = (&'static str, &'static str);

pub const POLLING: Function = ("rapidM2MForwarding", include_str!("../../rapidM2MForwarding/function.json"));
pub const SITES: Function = ("rapidM2MSites", include_str!("../../rapidM2MSites/function.json"));
pub const UPLINK: Function = ("thingsNetworkUplink", include_str!("../../thingsNetworkUplink/function.json"));
pub const FORWARDING: Function =
    ("thingsNetworkForwarding", include_str!("../../thingsNetworkForwarding/function.json"));

const HOST: &str = include_str!("../../host.json");
/// A message whose handler was killed is redelivered after this time. The deployed app waits for a minute.
const VISIBLE_AGAIN: &str = "00:00:01";
/// Once a year: the trials start the timers themselves.
pub const NEVER: &str = "0 0 0 1 1 *";
const BINARY: &str = "iothub-connector";

/// Makes an app with these functions.
pub fn folder(functions: &[Function]) -> anyhow::Result<TempDir> {
    let folder = tempfile::Builder::new().prefix("trials-app-").tempdir().context("cannot make a temporary folder")?;
    for (name, json) in functions {
        fs::create_dir(folder.path().join(name))?;
        fs::write(folder.path().join(name).join("function.json"), json)?;
    }
    let mut host: Value = serde_json::from_str(HOST).context("host.json")?;
    host["extensions"]["queues"]["visibilityTimeout"] = json!(VISIBLE_AGAIN);
    fs::write(folder.path().join("host.json"), host.to_string())?;
    Ok(folder)
}

/// The handler under test: the given one, or the one beside this program.
///
/// # Errors
/// There is none. The error says how to build it.
pub fn handler(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(path) = given {
        return path.canonicalize().with_context(|| format!("--handler {}: there is no such file", path.display()));
    }
    let here = std::env::current_exe().context("cannot find this program's own file")?;
    let handler = here.with_file_name(BINARY);
    if !handler.is_file() {
        let flag = if cfg!(debug_assertions) { "" } else { " --release" };
        bail!("{} does not exist: build it with `cargo build{flag}`, or name one with --handler", handler.display());
    }
    Ok(handler)
}
