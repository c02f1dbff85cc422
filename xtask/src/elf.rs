//! Reads what an executable needs from the machine on which it runs.

use anyhow::{Context as _, ensure};
use object::{
    Object as _, ObjectKind, ObjectSection as _,
    elf::FileHeader64,
    endian::Endianness,
    read::elf::{ElfFile64, FileHeader as _, SectionHeader as _},
};

/// What the dynamic linker must find.
#[derive(Debug, PartialEq, Eq)]
pub struct Needs {
    /// The newest version of glibc whose symbols it uses, such as (2, 28). `None` if it uses none.
    pub glibc: Option<(u32, u32)>,
    /// Shared libraries by name, sorted.
    pub libraries: Vec<String>,
    /// Whether it still has symbols or debugging information.
    pub has_symbols: bool,
}

impl Needs {
    /// Reads an ELF executable for x86-64.
    ///
    /// # Errors
    /// The file is no such executable, or it is broken.
    pub fn of(executable: &[u8]) -> anyhow::Result<Self> {
        let file = ElfFile64::<Endianness>::parse(executable).context("no ELF executable")?;
        ensure!(file.architecture() == object::Architecture::X86_64, "built for {:?}", file.architecture());
        ensure!(
            matches!(file.kind(), ObjectKind::Dynamic | ObjectKind::Executable),
            "an ELF file, but no executable: {:?}",
            file.kind()
        );
        let (mut libraries, versions) = required(executable)?;
        libraries.sort_unstable();
        let glibc = versions.iter().filter_map(|version| glibc(version)).max();
        let has_symbols = file
            .sections()
            .filter_map(|section| section.name().ok())
            .any(|name| name == ".symtab" || name.starts_with(".debug_") || name.starts_with(".zdebug_"));
        Ok(Self { glibc, libraries, has_symbols })
    }
}

/// The libraries, and the required versions of their symbols.
fn required(executable: &[u8]) -> anyhow::Result<(Vec<String>, Vec<String>)> {
    let header = FileHeader64::<Endianness>::parse(executable)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, executable)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (mut libraries, mut versions) = (Vec::new(), Vec::new());
    for section in sections.iter() {
        if let Some((mut verneeds, link)) = section.gnu_verneed(endian, executable)? {
            let strings = sections.strings(endian, executable, link)?;
            while let Some((verneed, mut auxiliaries)) = verneeds.next()? {
                // Not used: DT_NEEDED lists the libraries as well.
                verneed.file(endian, strings)?;
                while let Some(auxiliary) = auxiliaries.next()? {
                    versions.push(text(auxiliary.name(endian, strings)?));
                }
            }
        }
        if let Some((entries, link)) = section.dynamic(endian, executable)? {
            let strings = sections.strings(endian, executable, link)?;
            for entry in entries.iter().filter(|entry| entry.d_tag.get(endian) == object::elf::DT_NEEDED) {
                let offset = u32::try_from(entry.d_val.get(endian)).context("a library's name is out of bounds")?;
                let name = strings.get(offset).ok().context("a library's name is out of bounds")?;
                libraries.push(text(name));
            }
        }
    }
    Ok((libraries, versions))
}

/// `GLIBC_2.2.5` is (2, 2). `None` if the version is not glibc's.
fn glibc(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.strip_prefix("GLIBC_")?.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_other_libraries_do_not_count() {
        assert_eq!(glibc("GLIBC_2.2.5"), Some((2, 2)));
        assert_eq!(glibc("GLIBC_2.28"), Some((2, 28)));
        assert!(glibc("GLIBC_2.28") > glibc("GLIBC_2.4"));
        assert_eq!((glibc("GCC_3.0"), glibc("GLIBC_PRIVATE"), glibc("OPENSSL_3.0.0")), (None, None, None));
    }

    #[test]
    fn this_test_needs_the_c_library_and_has_symbols() {
        let needs = Needs::of(&std::fs::read(std::env::current_exe().unwrap()).unwrap()).unwrap();
        assert!(needs.libraries.iter().any(|name| name == "libc.so.6"), "{needs:?}");
        assert!(needs.glibc >= Some((2, 2)) && needs.has_symbols, "{needs:?}");
    }

    #[test]
    fn other_files_are_refused() {
        assert!(Needs::of(b"#!/bin/sh\n").unwrap_err().to_string().contains("no ELF executable"));
    }
}
