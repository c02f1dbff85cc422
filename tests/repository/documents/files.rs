//! Finds the files of the repository, and the texts that name them.

use std::{collections::BTreeSet, fs, path::Path};

use ignore::WalkBuilder;

use super::root;

/// A text in back-ticks with one of these endings is a file name.
const ENDINGS: [&str; 10] = ["bicep", "js", "json", "lock", "md", "proptest-regressions", "py", "rs", "toml", "yaml"];
/// Stands for any name: `tests/fixtures/things_network/NAME.json`.
const ANY: &str = "NAME";

pub struct Files {
    /// The files and folders of the repository, without those that builds or developers make.
    pub all: BTreeSet<String>,
    /// The paths that git ignores, because builds and developers make them.
    made: Vec<String>,
}

impl Files {
    pub fn read() -> Self {
        let mut walk = WalkBuilder::new(root());
        walk.hidden(false).require_git(false).filter_entry(|entry| entry.file_name() != ".git");
        let paths = walk.build().map(|entry| entry.unwrap().into_path());
        let paths = paths.map(|path| path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned());
        let made = fs::read_to_string(root().join(".gitignore")).unwrap().lines().map(str::to_owned).collect();
        Self { all: paths.filter(|path| !path.is_empty()).collect(), made }
    }

    pub fn has(&self, path: &str) -> bool {
        self.all.contains(path.trim_end_matches('/'))
    }

    /// Whether a text in back-ticks is a path in a repository.
    pub fn is_path(&self, code: &str) -> bool {
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-".contains(letter);
        if !code.chars().all(is_plain) {
            return false;
        }
        let of_ours = code.split_once('/').is_some_and(|(first, _)| !first.is_empty() && self.has(first));
        of_ours || Path::new(code).extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known))
    }

    /// Whether this file exists, from the root or below a folder that need not be named, or is one that git ignores.
    pub fn are_named(&self, code: &str) -> bool {
        let code = code.trim_end_matches('/');
        let is_made = self.made.iter().any(|made| Path::new(code).starts_with(made));
        let fits = |path: &str| {
            let (mut parts, mut path) = (code.split('/').rev(), path.split('/').rev());
            parts.all(|part| path.next().is_some_and(|name| fits(part, name)))
        };
        is_made || self.all.iter().any(|path| fits(path))
    }
}

fn fits(part: &str, name: &str) -> bool {
    match part.split_once(ANY) {
        Some((begin, end)) => name.starts_with(begin) && name.ends_with(end),
        None => part == name,
    }
}
