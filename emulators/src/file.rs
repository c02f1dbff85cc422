//! Paths of files that people name.

use std::path::{self, Path, PathBuf};

use anyhow::Context as _;

/// The whole path of a file or folder that exists. Not the canonical one: on Windows, that begins with `\\?\`, which other
/// programs do not take.
///
/// # Errors
/// Names the file and why it cannot be read.
pub fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    let absolute = path::absolute(path).and_then(|absolute| absolute.metadata().map(|_| absolute));
    absolute.with_context(|| format!("{} cannot be read", path.display()))
}
