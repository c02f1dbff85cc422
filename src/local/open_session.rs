//! The session that runs in this folder, for the commands of a second terminal: `local` leaves a file that says where its
//! emulators are, and the settings with which `check`, `polls`, `backfill`, `replay` and `devices` use them (`--local`).

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use reqwest::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use super::plan::Settings;

/// Below the app's folder.
pub const FILE: &str = ".local/settings.json";

/// The file, as long as the session runs. It has the form of a local.settings.json.
pub struct Published {
    file: PathBuf,
    text: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Document {
    is_encrypted: bool,
    /// See [`Services::published`](super::services::Services::published).
    values: Settings,
    /// The control endpoint of each emulator.
    controls: BTreeMap<String, String>,
}

/// The emulators of a running session.
#[derive(Debug)]
pub struct OpenSession {
    settings: Settings,
    controls: BTreeMap<String, String>,
}

/// What an emulator answers.
#[derive(Debug)]
pub enum Asked {
    Done,
    /// The session does not emulate the service.
    NotEmulated,
    Refused(StatusCode, String),
}

impl Published {
    /// # Errors
    /// The file cannot be written.
    pub fn write(app: &Path, values: Settings, controls: BTreeMap<String, String>) -> io::Result<Self> {
        let file = app.join(FILE);
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        let document = Document { is_encrypted: false, values, controls };
        let text = serde_json::to_vec_pretty(&document)?;
        fs::write(&file, &text)?;
        Ok(Self { file, text })
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        // Another session of this folder has written its own since. A file that stays names emulators that are gone: whoever
        // uses it is told so.
        if fs::read(&self.file).is_ok_and(|text| text == self.text) {
            let _ = fs::remove_file(&self.file);
        }
    }
}

/// The settings that point to the emulators of the session whose app is in this folder.
///
/// # Errors
/// There is none.
pub fn settings(app: &Path) -> anyhow::Result<Settings> {
    Ok(Document::read(app)?.values)
}

impl Document {
    fn read(app: &Path) -> anyhow::Result<Self> {
        let text = match fs::read(app.join(FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => bail!(
                "no session runs here ({FILE} is missing): start `iothub-connector local` in another terminal, or go to the folder \
                 in which it runs"
            ),
            text => text.with_context(|| format!("{FILE} cannot be read"))?,
        };
        serde_json::from_slice(&text)
            .with_context(|| format!("{FILE} is not the file of a session: remove it, and start `local` again"))
    }
}

impl OpenSession {
    /// The session whose app is in this folder.
    ///
    /// # Errors
    /// There is none.
    pub fn here(app: &Path) -> anyhow::Result<Self> {
        let Document { values: settings, controls, .. } = Document::read(app)?;
        Ok(Self { settings, controls })
    }

    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(String::as_str)
    }

    /// Asks an emulator for something.
    ///
    /// # Errors
    /// The session has ended.
    pub async fn request(
        &self,
        service: &str,
        method: Method,
        path: &str,
        body: Option<&str>,
    ) -> anyhow::Result<Asked> {
        let Some(control) = self.controls.get(service) else { return Ok(Asked::NotEmulated) };
        let client = reqwest::Client::builder().no_proxy().build()?;
        let request = client.request(method, format!("{control}{path}"));
        let request = match body {
            Some(body) => request.header(reqwest::header::CONTENT_TYPE, "application/json").body(body.to_owned()),
            None => request,
        };
        let response = request.send().await.with_context(|| format!("the session of {FILE} has ended"))?;
        let status = response.status();
        if !status.is_success() {
            return Ok(Asked::Refused(status, response.text().await.unwrap_or_default()));
        }
        Ok(Asked::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_removes_only_its_own_file() {
        let app = std::env::temp_dir().join(format!("open-session-{}", std::process::id()));
        let write = |port: &str| {
            let values = [("M2MBackendURL".to_owned(), format!("http://127.0.0.1:{port}/"))].into();
            Published::write(&app, values, BTreeMap::new()).unwrap()
        };
        let backend = || settings(&app).map(|settings| settings["M2MBackendURL"].clone()).ok();
        let (first, second) = (write("1"), write("2"));
        drop(first);
        assert_eq!(backend().as_deref(), Some("http://127.0.0.1:2/"));
        drop(second);
        assert_eq!(backend(), None);
        fs::remove_dir_all(&app).unwrap();
    }
}
