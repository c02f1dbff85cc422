//! Tests what the executable needs, and what the package must not contain.

use std::{env, path::Path};

use memchr::memmem;
use xtask::{
    elf::Needs,
    package::{GLIBC, MOST_BYTES},
    root,
};

use crate::support::{executable, zip};

/// The libraries of glibc. All other code is in the executable.
const OF_GLIBC: [&str; 7] =
    ["ld-linux-x86-64.so.2", "libc.so.6", "libdl.so.2", "libm.so.6", "libpthread.so.0", "librt.so.1", "libutil.so.1"];

/// Texts that only the stand-ins and their libraries have: file names in panics, modules of log lines, paths of their `control`
/// URLs.
const OF_THE_STAND_INS: [&str; 9] = [
    "emulators/src/",
    "emulators::",
    "admin/queues",
    "dps/registrations",
    "functions_host",
    "mqtt-protocol-core",
    "rcgen-",
    "croner-",
    "in_memory_emulator/",
];

/// Keys and passwords that tests, examples and stand-ins use.
const SECRETS: [&str; 6] = [
    "c2VjcmV0",
    "hunter2",
    // The password of the emulated backend, `user:password`.
    "dXNlcjpwYXNzd29yZA==",
    // A placeholder of the example. The executable knows only how they begin.
    "REPLACEwithTHE",
    // The key that all Cosmos DB emulators have.
    "C2y6yDjf5/R+ob0N8A7Cgv30VRDJIWEHLM+4QDU5DE2nQ9nDuVTqobD4b8mGGyPMbIZnqyMsEcaGQy67XIw",
    // A real key, not the label that a parser looks for.
    "PRIVATE KEY-----\nM",
];

/// Texts of Rust code and manifests.
const SOURCE: [&str; 4] = ["#[derive(", "#[cfg(", "pub fn ", "[dependencies]"];

/// No file of the package may contain any of these texts.
fn absent<'a>(what: &str, parts: impl IntoIterator<Item = &'a str>) {
    let parts: Vec<_> = parts.into_iter().collect();
    assert!(!parts.is_empty());
    for (name, file) in zip() {
        let found: Vec<_> = parts.iter().filter(|part| memmem::find(&file.bytes, part.as_bytes()).is_some()).collect();
        assert!(found.is_empty(), "{what} in {name}: {found:?}");
    }
}

#[test]
fn an_old_c_library_is_enough() {
    let needs = Needs::of(&executable()).unwrap();
    assert!(needs.glibc <= Some(GLIBC), "{needs:?}");
    assert!(needs.libraries.iter().all(|library| OF_GLIBC.contains(&library.as_str())), "{needs:?}");
    assert!(!needs.libraries.is_empty(), "it is not static: names are resolved as the image is set up to");
}

#[test]
fn it_is_small() {
    let size = executable().len() as u64;
    assert!(size <= MOST_BYTES, "{size} bytes");
}

#[test]
fn it_has_no_symbols() {
    assert!(!Needs::of(&executable()).unwrap().has_symbols, "it is not stripped");
}

#[test]
fn nothing_names_the_machine_that_built_it() {
    // Not "/root" alone, which may occur for other reasons.
    let folder = |path: &Path| format!("{}/", path.to_str().unwrap().trim_end_matches('/'));
    let home = env::home_dir().expect("a home folder");
    let cargo = env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), Into::into);
    let own = [folder(&home), folder(&cargo), folder(root())];
    absent("a path of this machine", own.iter().map(String::as_str).filter(|path| path.len() > 1));
    absent(
        "a path of a building machine",
        [".cargo/registry", "registry/src", "index.crates.io", ".rustup/toolchains"],
    );
}

#[test]
fn no_stand_in_is_in_it() {
    absent("a stand-in", OF_THE_STAND_INS);
}

#[test]
fn no_key_of_a_test_is_in_it() {
    absent("a secret", SECRETS);
}

#[test]
fn no_source_is_in_it() {
    absent("source", SOURCE);
}
