//! Finds the executable that the host starts as the handler.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use serde_json::Value;

/// This executable or, if the app is `packaged`, the one in the app's folder that host.json names.
///
/// # Errors
/// The folder has no such file, or the file is not executable.
pub fn executable(app: &Path, packaged: bool) -> anyhow::Result<PathBuf> {
    if !packaged {
        return env::current_exe().context("cannot find this executable");
    }
    let host = app.join("host.json");
    let text = fs::read(&host).with_context(|| format!("{} cannot be read", host.display()))?;
    let text: Value = serde_json::from_slice(&text).with_context(|| format!("{} is not valid JSON", host.display()))?;
    let name = text["customHandler"]["description"]["defaultExecutablePath"].as_str();
    let name = name.with_context(|| format!("{} names no defaultExecutablePath", host.display()))?;
    let executable = Some(app.join(name)).filter(|file| file.is_file()).unwrap_or_else(|| {
        // On Windows, host.json may leave out what the file's name ends with.
        app.join(format!("{name}{}", env::consts::EXE_SUFFIX))
    });
    ensure!(
        executable.is_file(),
        "{} has no {name}, which --packaged would start: make the package with `cargo xtask package` and name its folder with \
         --app target/package/app, or leave --packaged out",
        app.display()
    );
    ensure!(may_run(&executable), "{} may not be executed: chmod +x makes it so", executable.display());
    Ok(executable)
}

#[cfg(unix)]
fn may_run(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(file).is_ok_and(|metadata| metadata.permissions().mode() & 0o111 != 0)
}

/// Windows has no such permission.
#[cfg(not(unix))]
fn may_run(_file: &Path) -> bool {
    true
}
