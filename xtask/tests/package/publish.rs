//! Tests which files get into the cloud, for each way of publishing.
//!
//! `func azure functionapp publish` zips the files that .funcignore of the folder leaves, by rules of its own. It makes
//! executable the entry whose name is exactly `defaultExecutablePath`
//! (<https://github.com/Azure/azure-functions-core-tools>, `PublishFunctionAppAction`, `ZipHelper`, `GitIgnoreParser`).
//! `az` and `azd` send the zip unchanged.

use std::{fs, path::Path};

use regex::Regex;
use xtask::root;

use crate::support::{Files, Packed, app, empty, folder, unpack, zip};

/// The files that `func azure functionapp publish` sends from a folder.
fn publish(folder: &Path) -> Files {
    let ignored = Ignored::by(&fs::read_to_string(folder.join(".funcignore")).unwrap_or_default());
    let host: serde_json::Value = serde_json::from_slice(&fs::read(folder.join("host.json")).unwrap()).unwrap();
    let executable = host["customHandler"]["description"]["defaultExecutablePath"].as_str().unwrap();
    let mut files = Files::new();
    collect(folder, "", &ignored, &mut |path, file| {
        let bytes = fs::read(file).unwrap();
        files.insert(path.to_owned(), Packed { is_executable: path == executable, bytes });
    });
    files
}

/// The tools' rules for .funcignore, which are not git's: a pattern must match at the beginning of the path, up to the end of
/// a word. `*` is any text without a slash, but not none.
struct Ignored(Option<Regex>);

/// What the tools never send.
const NEVER: [&str; 5] = [".git", ".vscode", ".funcignore", ".gitignore", "local.settings.json"];

impl Ignored {
    fn by(patterns: &str) -> Self {
        let lines = patterns.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let pattern = |line: &str| regex::escape(line.trim_matches('/')).replace(r"\*", "[^/]+");
        let patterns: Vec<_> = lines.map(pattern).collect();
        Self((!patterns.is_empty()).then(|| Regex::new(&format!(r"^(?:{})\b", patterns.join("|"))).unwrap()))
    }

    fn has(&self, path: &str) -> bool {
        NEVER.contains(&path) || self.0.as_ref().is_some_and(|patterns| patterns.is_match(path))
    }
}

#[test]
fn patterns_match_from_the_beginning_to_the_end_of_a_word() {
    let ignored = Ignored::by("# comment\nsrc\n*.md\nCargo.*\n");
    for path in ["src/main.rs", "src", "src-old/main.rs", "README.md", "Cargo.toml"] {
        assert!(ignored.has(path), "{path}");
    }
    for path in ["srcs/main.rs", "app/src/main.rs", "docs/README.md", ".md", "host.json"] {
        assert!(!ignored.has(path), "{path}");
    }
}

fn collect(folder: &Path, prefix: &str, ignored: &Ignored, take: &mut impl FnMut(&str, &Path)) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let (path, is_folder) = (entry.path(), entry.file_type().unwrap().is_dir());
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        match ignored.has(&name) {
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
    let none = Ignored(None);
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
