//! Installs the Zig compiler and cargo-zigbuild from PyPI, and builds with them.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail, ensure};

use super::paths;

const REQUIREMENTS: &str = include_str!("../../zig-requirements.txt");
const TARGET: &str = "x86_64-unknown-linux-gnu";
const PROFILE: &str = "release";
/// Flags for the C compiler. AWS-LC's code for AVX-512 has 0.7 MB, which pays for megabytes of data but not for
/// messages (<https://github.com/aws/aws-lc/blob/main/CMakeLists.txt> has the option). No panic ever passes through C.
const CFLAGS: (&str, &str) =
    ("CFLAGS_x86_64_unknown_linux_gnu", "-DMY_ASSEMBLER_IS_TOO_OLD_FOR_512AVX -fno-asynchronous-unwind-tables");

/// Installed tools.
pub struct Tools {
    /// The folder with the programs.
    programs: PathBuf,
}

impl Tools {
    /// Installs the tools into a Python virtual environment, unless they are installed already.
    ///
    /// # Errors
    /// There is no Python 3, or the packages cannot be downloaded.
    pub fn ready(folder: &Path, say: &impl Fn(&str)) -> anyhow::Result<Self> {
        let programs = folder.join(if cfg!(windows) { "Scripts" } else { "bin" });
        let tools = Self { programs };
        // Written last: an incomplete installation is repeated.
        let installed = folder.join("installed.txt");
        if fs::read_to_string(&installed).is_ok_and(|text| text == REQUIREMENTS) {
            return Ok(tools);
        }
        say("installing the Zig compiler and cargo-zigbuild from PyPI into target/zig");
        if folder.exists() {
            fs::remove_dir_all(folder).with_context(|| format!("cannot empty {}", folder.display()))?;
        }
        let python = python()?;
        run(
            Command::new(python).args(["-m", "venv"]).arg(folder),
            "cannot make a virtual environment: install Python's module venv (Debian, Ubuntu: apt-get install python3-venv)",
        )?;
        let requirements = folder.join("requirements.txt");
        fs::write(&requirements, REQUIREMENTS).with_context(|| format!("cannot write {}", requirements.display()))?;
        run(
            Command::new(tools.programs.join("python"))
                .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"])
                .args(["--require-hashes", "-r"])
                .arg(&requirements),
            "cannot install the Zig compiler and cargo-zigbuild: PyPI must be reachable for pip (PIP_INDEX_URL names a \
             mirror, HTTPS_PROXY a proxy), and have them for this machine",
        )?;
        fs::write(&installed, REQUIREMENTS).with_context(|| format!("cannot write {}", installed.display()))?;
        Ok(tools)
    }

    /// Builds the executable for this version of the C library or a newer one. Returns its path.
    ///
    /// # Errors
    /// The build fails; cargo has printed the reason.
    pub fn build(&self, root: &Path, name: &str, glibc: (u32, u32), quiet: bool) -> anyhow::Result<PathBuf> {
        let target_folder =
            env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |folder| root.join(folder));
        let path = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths([self.programs.clone()].into_iter().chain(env::split_paths(&path)))?;
        let replacements = paths::replacements(root);
        let cflags = [env::var(CFLAGS.0).unwrap_or_default(), CFLAGS.1.to_owned()].join(" ");
        let mut command = Command::new(self.programs.join("cargo-zigbuild"));
        command
            .args(["build", "--locked", "--no-default-features", "--profile", PROFILE, "--bin", name])
            .args(["--target", &format!("{TARGET}.{}.{}", glibc.0, glibc.1)])
            .args(quiet.then_some("--quiet"))
            .current_dir(root)
            .env("PATH", path)
            .env("CARGO_ENCODED_RUSTFLAGS", paths::rustflags(&replacements))
            .env("CARGO_TARGET_DIR", &target_folder)
            .env(CFLAGS.0, cflags.trim())
            .env_remove("RUSTFLAGS");
        run(
            &mut command,
            "the build failed: cargo's message is above. If it is about the target's `core` or `std`: rustup target add \
             x86_64-unknown-linux-gnu; if it is about the lock file: commit the Cargo.lock that `cargo check` makes",
        )?;
        let built = target_folder.join(TARGET).join(PROFILE).join(name);
        ensure!(built.is_file(), "the build made no {}", built.display());
        Ok(built)
    }
}

/// The name of the installed Python 3.
fn python() -> anyhow::Result<&'static str> {
    let is_python_3 = |name: &&str| {
        let mut command = Command::new(name);
        command
            .args(["-c", "import sys; sys.exit(sys.version_info[0] != 3)"])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    match ["python3", "python"].into_iter().find(is_python_3) {
        Some(python) => Ok(python),
        None => bail!(
            "there is no python3: install Python 3 with venv and pip (Debian, Ubuntu: apt-get install python3-venv). The Zig \
             compiler, which links for an old C library, comes as a Python package"
        ),
    }
}

fn run(command: &mut Command, problem: &str) -> anyhow::Result<()> {
    let program = PathBuf::from(command.get_program());
    let status =
        command.stdin(Stdio::null()).status().with_context(|| format!("cannot start {}", program.display()))?;
    ensure!(status.success(), "{problem} ({}: {status})", program.display());
    Ok(())
}
