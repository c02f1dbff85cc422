//! Reads and unpacks the package for the tests.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use xtask::{package::app::App, package_folder, root};
use zip::ZipArchive;

/// A file of a package.
#[derive(Clone, PartialEq, Eq)]
pub struct Packed {
    pub is_executable: bool,
    pub bytes: Vec<u8>,
}

/// Files by their path.
pub type Files = BTreeMap<String, Packed>;

/// The function app in the repository.
pub fn app() -> App {
    App::of(root()).unwrap()
}

/// The folder that is published.
pub fn folder() -> PathBuf {
    let folder = package_folder().join("app");
    assert!(folder.is_dir(), "there is no {}: run `cargo xtask package` first", folder.display());
    folder
}

/// The files in the zip, with the permissions with which they are unpacked.
pub fn zip() -> Files {
    let path = package_folder().join("iothub-connector.zip");
    let file =
        File::open(&path).unwrap_or_else(|error| panic!("{}: {error}: run `cargo xtask package`", path.display()));
    let mut zip = ZipArchive::new(file).unwrap();
    let mut files = Files::new();
    for index in 0..zip.len() {
        let mut entry = zip.by_index(index).unwrap();
        let name = entry.name().unwrap().into_owned();
        let mode = entry.unix_mode().unwrap_or_else(|| panic!("{name} has no permissions"));
        let is_executable = mode & 0o111 != 0;
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        assert!(files.insert(name, Packed { is_executable, bytes }).is_none(), "twice in the zip");
    }
    files
}

/// The executable in the zip.
pub fn executable() -> Vec<u8> {
    zip().remove(&app().executable).expect("the executable is in the zip").bytes
}

/// Writes files as the cloud unpacks them. Returns the folder.
pub fn unpack(files: &Files, name: &str) -> PathBuf {
    let folder = empty(name);
    for (path, file) in files {
        let target = folder.join(path);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::write(&target, &file.bytes).unwrap();
        let mode = if file.is_executable { 0o755 } else { 0o644 };
        fs::set_permissions(target, fs::Permissions::from_mode(mode)).unwrap();
    }
    folder
}

/// An empty folder for one test.
pub fn empty(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder).unwrap();
    }
    fs::create_dir_all(&folder).unwrap();
    folder
}
