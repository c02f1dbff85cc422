//! Prints first where every service is and what the user can do next.

use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
};

use emulators::{functions_host::Ready, iot_hub};
use iothub_connector::{config::Config, iot_hub::devices::Owner, rapidm2m::Selection, things_network::template::Parts};
use serde::Serialize;

use super::{
    Places,
    output::Told,
    plan::Source,
    rows::Row,
    services::{ROUTE, STATUS, STATUS_ROUTE, Services, UPLINK},
};
use crate::cli::table;

/// Columns of a terminal.
const WIDTH: u16 = 80;

/// The first record of the JSON output.
#[derive(Serialize)]
#[serde(tag = "type", rename = "start")]
pub struct Introduction<'a> {
    services: Vec<Row>,
    host: &'a str,
    /// The status page. It is also at the root.
    status: Option<String>,
    /// Timers and their schedules.
    timers: &'a BTreeMap<String, String>,
    /// The URL for webhooks, and the queue that holds them. Present if The Things Network is on.
    webhooks: Option<String>,
    queue: Option<&'a str>,
    /// The URL at which the emulated hub takes commands for a device.
    commands: Option<String>,
    /// A device of which commands are taken.
    #[serde(skip)]
    device: Option<String>,
    #[serde(skip)]
    is_all_emulated: bool,
    /// How a person starts this executable.
    #[serde(skip)]
    program: String,
    /// Why a half is off.
    off: Vec<&'static str>,
    #[serde(skip)]
    settings_file: Option<&'a Path>,
    /// A site for the examples.
    #[serde(skip)]
    site: Option<String>,
    /// The app's folder, if it is not the one in which the session was started.
    #[serde(skip)]
    app: Option<&'a Path>,
}

impl<'a> Introduction<'a> {
    /// `places` are those of the app, and of the settings if there are any.
    pub fn new(services: &Services, config: &'a Config, host: &'a Ready, places: &'a Places) -> Self {
        let mut off = Vec::new();
        if services.plan.rapidm2m == Source::Off {
            off.push("rapidM2M is off: set M2MBackendURL and Customer_ID, or EmulationMode=true");
        }
        if services.plan.things_stack == Source::Off {
            off.push("The Things Network is off: set UplinkQueueName");
        }
        let device = device(services, config);
        let at = |route| format!("{}{route}", host.endpoint);
        Self {
            services: services.rows(config, host),
            host: &host.endpoint,
            status: host.functions.iter().any(|name| name == STATUS).then(|| at(STATUS_ROUTE)),
            timers: &host.timers,
            webhooks: config.things_network.is_some().then(|| at(ROUTE)),
            queue: config.things_network.as_ref().map(|things_network| things_network.webhooks.queue.as_str()),
            commands: device.as_ref().zip(services.iot_hub.as_ref()).map(commands),
            device,
            is_all_emulated: services.plan.why_real.is_empty(),
            program: program(),
            off,
            settings_file: places.settings.as_deref(),
            site: config.rapidm2m.as_ref().and_then(|rapidm2m| match &rapidm2m.sites {
                Selection::Named(names) => names.first().cloned(),
                Selection::All => services.site.clone(),
            }),
            app: (places.app != places.started_in).then_some(places.app.as_path()),
        }
    }
}

/// The id at the hub of the first emulated LoRaWAN device.
fn device(services: &Services, config: &Config) -> Option<String> {
    let device = services.things_stack.as_ref()?.devices.first()?;
    let ids = &config.things_network.as_ref()?.device_ids;
    let (application, id) = (&device.application, &device.device);
    let name = ids.expand(Parts { application, device: id, dev_eui: Some(&device.dev_eui), tenant: None }).ok()?;
    Some(Owner::things_network(application, id, name).registration_id())
}

fn commands((device, hub): (&String, &iot_hub::Emulator)) -> String {
    format!("{}c2d?device={device}", hub.ready().control)
}

impl Told for Introduction<'_> {
    fn text(&self) -> String {
        let mut text = String::new();
        if self.status.is_some() {
            text += &format!("The status page is at {}\n", self.host);
        }
        text += "The function app runs on this machine. Times are UTC. Ctrl-C ends.\n\n";
        text += &self.table();
        text += "\n";
        for (function, schedule) in self.timers {
            text += &format!("{function} runs now, then on schedule {schedule:?}\n");
        }
        if let Some(url) = &self.webhooks {
            text += &format!("{UPLINK} takes webhooks at {url}\n");
        }
        for reason in &self.off {
            text += &format!("{reason}\n");
        }
        text += &match self.settings_file {
            Some(file) => format!("Settings: {}\n", file.display()),
            None => "To use services of your own, see local.settings.json.example\n".to_owned(),
        };
        // What people have set for real services is not in the session's file.
        if self.is_all_emulated {
            text += "\nIn a second terminal, in ";
            text += &self.app.map_or_else(|| "this folder:\n".to_owned(), |app| format!("{}:\n", app.display()));
            let polls = self.site.iter().map(|site| format!("polls {site:?}"));
            let devices = self.device.iter().map(|_| "devices".to_owned());
            let with_settings = ["check".to_owned()].into_iter().chain(polls).chain(devices);
            let with_settings = with_settings.map(|command| format!("{command} --local"));
            let command = self.device.iter().map(|device| format!("command {device} open -p Port=1"));
            let faults = ["fault", "fault hub away", "fault hub ok"].map(str::to_owned);
            for command in with_settings.chain(command).chain(faults) {
                text += &format!("  {} {command}\n", self.program);
            }
        }
        text
    }
}

/// How a person starts this executable from the app's folder: by its name if a shell finds it, else by its path.
fn program() -> String {
    let name = env!("CARGO_PKG_NAME");
    let Ok(executable) = env::current_exe() else { return name.to_owned() };
    let called = format!("{name}{}", env::consts::EXE_SUFFIX);
    let search = env::var_os("PATH").unwrap_or_default();
    let is_found = env::split_paths(&search).map(|folder| folder.join(&called)).find(|file| file.is_file());
    let is_this = |file: PathBuf| file.canonicalize().ok() == executable.canonicalize().ok();
    if is_found.is_some_and(is_this) {
        return name.to_owned();
    }
    let folder = env::current_dir().unwrap_or_default();
    match executable.strip_prefix(folder) {
        // Without a folder, a shell would look for it elsewhere.
        Ok(file) if file.components().count() == 1 => quoted(&Path::new(".").join(file)),
        Ok(file) => quoted(file),
        Err(_) => quoted(&executable),
    }
}

fn quoted(path: &Path) -> String {
    let path = path.display().to_string();
    // PowerShell takes a quoted path for a text, unless `&` stands before it.
    let call = if cfg!(windows) { "& " } else { "" };
    if path.contains(' ') { format!("{call}\"{path}\"") } else { path }
}

impl Introduction<'_> {
    fn table(&self) -> String {
        let kind = |is_emulated| if is_emulated { "emulated" } else { "REAL" }.to_owned();
        let row = |row: &Row| [row.service.to_owned(), kind(row.is_emulated), row.place.clone(), row.details.clone()];
        let host = ["Functions host".to_owned(), kind(true), self.host.to_owned(), String::new()];
        let rows: Vec<_> = self.services.iter().map(row).chain([host]).collect();
        // Addresses are not split, so that the user can copy them. Details continue on the next line.
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count() as u16).max().unwrap_or(0);
        let [service, kind, place] = [0, 1, 2].map(width);
        let details = WIDTH.saturating_sub(service + kind + place + 6).max(20);
        let mut out = Vec::new();
        let heads = ["SERVICE", "KIND", "ADDRESS", "DETAILS"];
        table::write_wrapped(&mut out, heads, rows, [service, kind, place, details]).expect("a Vec takes all");
        String::from_utf8(out).expect("made of strings")
    }
}
