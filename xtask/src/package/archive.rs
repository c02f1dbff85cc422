//! Writes the package as one file, for `az` and `azd`.

use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
};

use anyhow::Context as _;
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use super::app::App;

/// Writes only the app's files. Only the executable has the permission to run; the host relies on this permission. The
/// same files give the same bytes: the entries carry no time of their own.
///
/// # Errors
/// A file cannot be read or written.
pub fn write(app: &App, folder: &Path, archive: &Path) -> anyhow::Result<()> {
    let cannot = || format!("cannot write {}", archive.display());
    let mut zip = ZipWriter::new(File::create(archive).with_context(cannot)?);
    for file in app.files() {
        let mode = if file == app.executable { 0o755 } else { 0o644 };
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .compression_level(Some(9))
            .unix_permissions(mode);
        let path = folder.join(&file);
        let content = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        zip.start_file(&file, options).with_context(cannot)?;
        zip.write_all(&content).with_context(cannot)?;
    }
    zip.finish().with_context(cannot)?;
    Ok(())
}
