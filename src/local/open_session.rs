//! The session that runs in this folder, for the commands of a second terminal: `local` leaves a file that says where its
//! emulators are, and the settings with which `check`, `polls`, `backfill`, `replay` and `devices` use them (`--local`).

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use reqwest::Method;
use serde::{Deserialize, Serialize};

use super::plan::Settings;

/// Below the app's folder.
pub const FILE: &str = ".local/settings.json";

/// The file, as long as the session runs. It has the form of a local.settings.json.
pub struct Published(PathBuf);

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Document {
    is_encrypted: bool,
    /// The settings of emulated services only: what a person has set does not get into another file.
    values: Settings,
    /// The control endpoint of each emulator.
    controls: BTreeMap<String, String>,
}

/// The emulators of a running session.
#[derive(Debug)]
pub struct OpenSession {
    controls: BTreeMap<String, String>,
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
        fs::write(&file, serde_json::to_vec_pretty(&document)?)?;
        Ok(Self(file))
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        // A file that stays names emulators that are gone: whoever uses it is told so.
        let _ = fs::remove_file(&self.0);
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
        Ok(Self { controls: Document::read(app)?.controls })
    }

    /// Asks an emulator for something. `None`: this session does not emulate the service.
    ///
    /// # Errors
    /// The session has ended, or the emulator refuses it.
    pub async fn request(
        &self,
        service: &str,
        method: Method,
        path: &str,
        body: Option<&str>,
    ) -> anyhow::Result<Option<()>> {
        let Some(control) = self.controls.get(service) else { return Ok(None) };
        let client = reqwest::Client::builder().no_proxy().build()?;
        let request = client.request(method, format!("{control}{path}"));
        let request = match body {
            Some(body) => request.header(reqwest::header::CONTENT_TYPE, "application/json").body(body.to_owned()),
            None => request,
        };
        let response = request.send().await.with_context(|| format!("the session of {FILE} has ended"))?;
        let status = response.status();
        if !status.is_success() {
            bail!("the emulator answers {status}: {}", response.text().await.unwrap_or_default());
        }
        Ok(Some(()))
    }
}
