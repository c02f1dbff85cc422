//! Replays the inputs that fuzzing kept: checks every input in `fuzz/corpus` against the laws in `fuzz/src`. Needs no
//! nightly compiler.

use std::{
    collections::BTreeSet,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

#[path = "../fuzz/src/lib.rs"]
mod laws;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(name)
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

#[test]
fn every_kept_input_keeps_the_laws() {
    let mut broken = Vec::new();
    for (name, target) in laws::TARGETS {
        let folder = folder("corpus").join(name);
        let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(files.len() > 3, "{name} has no corpus");
        for file in files {
            let input = fs::read(&file).unwrap();
            if catch_unwind(AssertUnwindSafe(|| target(&input))).is_err() {
                broken.push(file);
            }
        }
    }
    assert!(broken.is_empty(), "laws are broken by {broken:#?}");
}

#[test]
fn every_target_is_fuzzed_and_replayed() {
    let expected: BTreeSet<_> = laws::TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(&folder("fuzz_targets")), expected);
    assert_eq!(names(&folder("corpus")), expected);
}
