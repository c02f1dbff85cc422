//! Keeps paths of the build machine out of the executable. Panics and the C code's errors name their source file;
//! without replacement, that path shows who built the executable, and where. Compilers can replace the beginning of
//! such paths.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// A folder, and its name in the executable.
pub type Replacement = (PathBuf, &'static str);

/// The replacements for a build of `root`. If several match, the last one counts.
#[must_use]
pub fn replacements(root: &Path) -> Vec<Replacement> {
    let home = env::home_dir().filter(|home| home.components().count() > 1);
    let cargo = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(home.as_ref()?.join(".cargo")));
    let mut replacements = Vec::new();
    replacements.extend(home.map(|home| (home, "home")));
    if let Some(cargo) = cargo {
        replacements.push((cargo.clone(), "cargo"));
        // One folder for each registry.
        let registries = fs::read_dir(cargo.join("registry/src")).into_iter().flatten().flatten();
        replacements.extend(registries.map(|registry| (registry.path(), "crates")));
    }
    replacements.push((root.to_owned(), "."));
    replacements
}

/// The flags for rustc, after the user's own flags.
///
/// They are separated by 0x1f, as in `CARGO_ENCODED_RUSTFLAGS`, so that a path may contain spaces.
#[must_use]
pub fn rustflags(replacements: &[Replacement]) -> String {
    let inherited = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_else(|_| {
        let flags = env::var("RUSTFLAGS").unwrap_or_default();
        flags.split_whitespace().collect::<Vec<_>>().join("\u{1f}")
    });
    let own = replacements.iter().map(|(folder, name)| format!("--remap-path-prefix={}={name}", folder.display()));
    inherited
        .split('\u{1f}')
        .filter(|flag| !flag.is_empty())
        .map(str::to_owned)
        .chain(own)
        .collect::<Vec<_>>()
        .join("\u{1f}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_specific_folder_comes_later() {
        let replacements = replacements(Path::new("/repository"));
        assert_eq!(replacements.last().unwrap(), &(PathBuf::from("/repository"), "."));
        let position = |name: &str| replacements.iter().position(|(_, other)| *other == name);
        assert!(
            position("cargo") < position("crates"),
            "this test was built with crates of a registry: {replacements:?}"
        );
    }

    #[test]
    fn folders_with_spaces_stay_one_flag() {
        let flags = rustflags(&[(PathBuf::from("/home/a b"), "home"), (PathBuf::from("/r"), ".")]);
        assert!(flags.ends_with("--remap-path-prefix=/home/a b=home\u{1f}--remap-path-prefix=/r=."), "{flags:?}");
    }
}
