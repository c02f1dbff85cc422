//! Lists the files of the function app: host.json, the folders with a function.json, and the executable that host.json
//! names.

use std::{fs, path::Path};

use anyhow::{Context as _, bail, ensure};

/// The function app in the repository.
#[derive(Debug)]
pub struct App {
    /// Names of the function folders, sorted.
    pub functions: Vec<String>,
    /// `customHandler.description.defaultExecutablePath`: only this file is made executable in the cloud.
    pub executable: String,
}

impl App {
    /// Reads host.json and the folders beside it.
    ///
    /// # Errors
    /// host.json names no executable that can be published, or there is no function.
    pub fn of(root: &Path) -> anyhow::Result<Self> {
        let file = root.join("host.json");
        let text = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let host: serde_json::Value =
            serde_json::from_slice(&text).with_context(|| format!("{} is not valid JSON", file.display()))?;
        let Some(executable) = host["customHandler"]["description"]["defaultExecutablePath"].as_str() else {
            bail!("{}: customHandler.description.defaultExecutablePath is missing", file.display());
        };
        ensure!(
            !executable.is_empty() && !executable.contains(['/', '\\', '%']),
            "{}: defaultExecutablePath is {executable:?}: it must be the file's bare name, or the published file is not \
             made executable",
            file.display()
        );
        let mut functions = Vec::new();
        for entry in fs::read_dir(root).with_context(|| format!("cannot read {}", root.display()))? {
            let entry = entry?;
            if entry.path().join("function.json").is_file() {
                let name = entry.file_name().into_string();
                functions.push(name.map_err(|name| anyhow::anyhow!("the folder {} is not UTF-8", name.display()))?);
            }
        }
        ensure!(!functions.is_empty(), "{} has no folder with a function.json", root.display());
        functions.sort_unstable();
        Ok(Self { functions, executable: executable.to_owned() })
    }

    /// The files by their path in the package, sorted. Paths have `/` as separator.
    #[must_use]
    pub fn files(&self) -> Vec<String> {
        let functions = self.functions.iter().map(|name| format!("{name}/function.json"));
        let mut files: Vec<_> = functions.chain(["host.json".to_owned(), self.executable.clone()]).collect();
        files.sort_unstable();
        files
    }

    /// Creates the folder that is published, and removes its former contents.
    ///
    /// # Errors
    /// A file cannot be copied.
    pub fn lay_out(&self, root: &Path, executable: &[u8], folder: &Path) -> anyhow::Result<()> {
        if folder.exists() {
            fs::remove_dir_all(folder).with_context(|| format!("cannot empty {}", folder.display()))?;
        }
        for file in self.files() {
            let target = folder.join(&file);
            let write = || {
                fs::create_dir_all(target.parent().unwrap_or(folder))?;
                match file == self.executable {
                    true => fs::write(&target, executable).and_then(|()| make_executable(&target)),
                    false => fs::copy(root.join(&file), &target).map(drop),
                }
            };
            write().with_context(|| format!("cannot make {}", target.display()))?;
        }
        Ok(())
    }
}

#[cfg(unix)]
fn make_executable(file: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(file, fs::Permissions::from_mode(0o755))
}

#[cfg(not(unix))]
fn make_executable(_: &Path) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A test's own folder.
    fn folder(name: &str, host: &str, functions: &[&str]) -> std::path::PathBuf {
        let folder = std::env::temp_dir().join(format!("xtask-{}-{name}", std::process::id()));
        for function in functions {
            fs::create_dir_all(folder.join(function)).unwrap();
            fs::write(folder.join(function).join("function.json"), "{}").unwrap();
        }
        fs::create_dir_all(folder.join("src")).unwrap();
        fs::write(folder.join("src/lib.rs"), "").unwrap();
        fs::write(folder.join("host.json"), host).unwrap();
        folder
    }

    #[test]
    fn only_the_deployable_files_are_laid_out() {
        let host = r#"{"customHandler":{"description":{"defaultExecutablePath":"handler"}}}"#;
        let root = folder("good", host, &["b", "a"]);
        let app = App::of(&root).unwrap();
        assert_eq!(app.files(), ["a/function.json", "b/function.json", "handler", "host.json"]);
        let out = root.join("out");
        fs::create_dir_all(&out).unwrap();
        fs::write(out.join("left over"), "").unwrap();
        app.lay_out(&root, b"ELF", &out).unwrap();
        assert!(!out.join("left over").exists() && !out.join("src").exists());
        assert_eq!(fs::read(out.join("handler")).unwrap(), b"ELF");
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn an_app_that_cannot_be_published_is_refused() {
        let handler =
            |name: &str| format!(r#"{{"customHandler":{{"description":{{"defaultExecutablePath":"{name}"}}}}}}"#);
        for (name, host, functions, expected) in [
            ("path", handler("./handler"), &["a"][..], "bare name"),
            ("none", "{}".to_owned(), &["a"], "defaultExecutablePath is missing"),
            ("empty", handler("handler"), &[], "no folder with a function.json"),
            ("text", "host".to_owned(), &["a"], "is not valid JSON"),
        ] {
            let root = folder(name, &host, functions);
            let error = format!("{:#}", App::of(&root).unwrap_err());
            assert!(error.contains(expected), "{name}: {error}");
            fs::remove_dir_all(root).unwrap();
        }
    }
}
