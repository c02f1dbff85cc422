//! The commands behind `cargo xtask`.

pub mod elf;
pub mod package;

use std::path::{Path, PathBuf};

/// The repository.
#[must_use]
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Where the package is: `app/`, the folder that is published, and `iothub-connector.zip`, the same as one file.
#[must_use]
pub fn package_folder() -> PathBuf {
    root().join("target/package")
}
