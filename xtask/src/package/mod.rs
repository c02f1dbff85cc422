//! `cargo xtask package` makes the function app for deployment.
//!
//! | Part | |
//! |---|---|
//! | `zig` | the tools, and the build for an old C library |
//! | `paths` | keeps the build machine's folders out of the executable |
//! | `app` | the files of the function app, and the folder with them |
//! | `archive` | the same files as a zip |

pub mod app;
mod archive;
mod paths;
mod zig;

use std::{fs, path::Path};

use anyhow::{Context as _, ensure};

use self::app::App;
use crate::{elf::Needs, package_folder, root};

/// The oldest C library that the executable runs with: that of Debian 10 and RHEL 8. The hosts' images have a newer
/// one.
pub const GLIBC: (u32, u32) = (2, 28);
/// Largest size of the executable, in bytes.
pub const MOST_BYTES: u64 = 21_000_000;

const EXAMPLES: &str = "\
Examples:
  cargo xtask package                                      # some minutes the first time
  cargo run -- local --app target/package/app --packaged   # then try it here
  cd target/package/app && func azure functionapp publish MY_APP --custom

It needs Python 3 with venv and pip, and the Rust target x86_64-unknown-linux-gnu (which
Linux on x86-64 has; elsewhere: rustup target add x86_64-unknown-linux-gnu). The Zig
compiler, which links for an old C library, comes from PyPI and stays in target/zig.

What is built is the committed Cargo.lock, with the profile `release`, without the emulators.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// Print only errors
    #[arg(long, short)]
    quiet: bool,
}

/// Builds the executable and makes the package.
///
/// # Errors
/// A tool is missing, the build fails, or its result cannot be deployed.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let say = |text: &str| {
        if !options.quiet {
            println!("{text}");
        }
    };
    let app = App::of(root())?;
    say(&format!("packaging {} for Linux on x86-64, glibc {}.{} or newer", app.executable, GLIBC.0, GLIBC.1));
    let zig = zig::Tools::ready(&root().join("target/zig"), &say)?;
    say("building with profile release, without the emulators (some minutes the first time)");
    let built = zig.build(root(), &app.executable, GLIBC, options.quiet)?;

    let executable = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    let needs = Needs::of(&executable).with_context(|| built.display().to_string())?;
    ensure!(
        needs.glibc <= Some(GLIBC),
        "the executable needs {}: it would not start where the C library is older",
        version(&needs)
    );
    let folder = package_folder();
    app.lay_out(root(), &executable, &folder.join("app"))?;
    let zip = folder.join("iothub-connector.zip");
    archive::write(&app, &folder.join("app"), &zip)?;
    let size = executable.len() as u64;
    say(&format!("{}: host.json, {}, {}", short(&folder.join("app")), app.functions.join(", "), app.executable));
    say(&format!("{}: {}", short(&zip), megabytes(fs::metadata(&zip)?.len())));
    say(&format!(
        "{}: {}, needs {} and {}",
        app.executable,
        megabytes(size),
        version(&needs),
        needs.libraries.join(", ")
    ));
    if size > MOST_BYTES {
        eprintln!("warning: the executable should have at most {}", megabytes(MOST_BYTES));
    }
    say("next: cargo run -- local --app target/package/app --packaged");
    say("      then docs/how-to/deploy-with-azd.md");
    Ok(())
}

fn version(needs: &Needs) -> String {
    needs.glibc.map_or("no glibc".into(), |(major, minor)| format!("GLIBC_{major}.{minor}"))
}

fn megabytes(bytes: u64) -> String {
    format!("{}.{:02} MB", bytes / 1_000_000, bytes % 1_000_000 / 10_000)
}

fn short(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_people_write_them() {
        assert_eq!(megabytes(13_984_999), "13.98 MB");
        assert_eq!(megabytes(5_049_999), "5.04 MB");
    }
}
