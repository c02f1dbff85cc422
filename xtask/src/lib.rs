//! The commands behind `cargo xtask`.

pub mod elf;
pub mod package;

use std::path::{Path, PathBuf};

/// The repository's folder.
#[must_use]
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// The package's folder. It holds `app/`, which is published, and `iothub-connector.zip`, the same as one file.
#[must_use]
pub fn package_folder() -> PathBuf {
    root().join("target/package")
}
