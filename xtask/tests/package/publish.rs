//! Tests which files get into the cloud, for each way of publishing.
//!
//! `func azure functionapp publish` zips the files that .funcignore of the folder leaves. It makes executable the entry
//! whose name is exactly `defaultExecutablePath` (<https://github.com/Azure/azure-functions-core-tools>,
//! `PublishFunctionAppAction`, `ZipHelper`). `az` and `azd` send the zip unchanged.

use std::{fs, path::Path};

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use xtask::root;

use crate::support::{Files, Packed, app, empty, folder, unpack, zip};

/// The files that `func azure functionapp publish` sends from a folder.
fn publish(folder: &Path) -> Files {
    let mut ignored = GitignoreBuilder::new(folder);
    let file = folder.join(".funcignore");
    if file.exists() {
        assert!(ignored.add(file).is_none(), ".funcignore can be read");
    }
    let host: serde_json::Value = serde_json::from_slice(&fs::read(folder.join("host.json")).unwrap()).unwrap();
    let executable = host["customHandler"]["description"]["defaultExecutablePath"].as_str().unwrap();
    let mut files = Files::new();
    collect(folder, "", &ignored.build().unwrap(), &mut |path, file| {
        let bytes = fs::read(file).unwrap();
        files.insert(path.to_owned(), Packed { is_executable: path == executable, bytes });
    });
    files
}

fn collect(folder: &Path, prefix: &str, ignored: &Gitignore, take: &mut impl FnMut(&str, &Path)) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let (path, is_folder) = (entry.path(), entry.file_type().unwrap().is_dir());
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        match ignored.matched(&path, is_folder).is_ignore() {
            true => {}
            false if is_folder => collect(&path, &format!("{name}/"), ignored, take),
            false => take(&name, &path),
        }
    }
}

/// Files that a working copy has besides the repository's files; some are secret.
const OF_A_WORKING_COPY: [&str; 7] = [
    ".git/config",
    ".azure/production/.env",
    ".vscode/settings.json",
    "local.settings.json",
    "node_modules/left-pad/index.js",
    "target/debug/iothub-connector",
    "proptest-regressions/config.txt",
];

/// Copies the repository's files, without built or installed ones.
fn copy_repository(to: &Path) {
    let skipped = ["target", ".git", "node_modules", "local.settings.json"];
    let none = Gitignore::empty();
    for entry in fs::read_dir(root()).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        if skipped.contains(&name.as_str()) {
            continue;
        }
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), to.join(&name)).unwrap();
            continue;
        }
        collect(&entry.path(), &format!("{name}/"), &none, &mut |path, file| {
            if !path.contains("/node_modules/") && !path.contains("/target/") {
                let target = to.join(path);
                fs::create_dir_all(target.parent().unwrap()).unwrap();
                fs::copy(file, target).unwrap();
            }
        });
    }
}

fn names(files: &Files) -> Vec<&String> {
    files.keys().collect()
}

fn executables(files: &Files) -> Vec<&String> {
    files.iter().filter(|(_, file)| file.is_executable).map(|(name, _)| name).collect()
}

#[test]
fn the_zip_has_exactly_the_app_and_only_the_executable_may_run() {
    let (zip, app) = (zip(), app());
    assert_eq!(names(&zip), app.files().iter().collect::<Vec<_>>());
    assert_eq!(executables(&zip), [&app.executable]);
    for name in app.files().iter().filter(|name| **name != app.executable) {
        assert!(zip[name].bytes == fs::read(root().join(name)).unwrap(), "{name} is another one in the repository");
    }
}

#[test]
fn func_publishes_the_packaged_folder_as_the_zip_is() {
    assert!(publish(&folder()) == zip(), "{:?}", names(&publish(&folder())));
}

#[test]
fn func_publishes_the_same_from_a_packaged_folder_with_the_repositorys_funcignore() {
    let copy = unpack(&zip(), "with-funcignore");
    fs::copy(root().join(".funcignore"), copy.join(".funcignore")).unwrap();
    assert!(publish(&copy) == zip(), "{:?}", names(&publish(&copy)));
}

#[test]
fn func_publishes_the_same_from_the_repository_with_the_executable_in_it() {
    let copy = empty("repository");
    copy_repository(&copy);
    fs::copy(folder().join(&app().executable), copy.join(&app().executable)).unwrap();
    for name in OF_A_WORKING_COPY {
        let file = copy.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, "secret").unwrap();
    }
    assert!(copy.join("src/main.rs").is_file() && copy.join(".funcignore").is_file());
    let published = publish(&copy);
    assert_eq!(names(&published), names(&zip()));
    assert!(published == zip());
}
