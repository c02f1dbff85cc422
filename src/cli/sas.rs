//! `sas`: prints a token for a device or for a registration.

use std::{
    fs::File,
    io::{self, Read, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, anyhow, bail, ensure};
use chrono::{DateTime, SecondsFormat, Utc};
use iothub_connector::{
    config::{Problems, Settings, dps, hub::connection_string},
    iot_hub::{
        Credential, Device, Endpoint,
        device::{check_id, decode_key},
        devices::naming::check_registration_id,
        sas,
    },
};
use secrecy::{ExposeSecret as _, SecretBox, SecretString};

use super::{
    exit::{Usage, usage},
    settings::Source,
    time::{self, Moment},
};

/// Largest key file that is read, in bytes. A key has 88.
const MAX_KEY_FILE: u64 = 4096;
/// The policy name in the token of a registration.
const REGISTRATION: &str = "registration";
const EXAMPLES: &str = "\
Examples:
  iothub-connector sas                              # for the device of the settings, one hour
  iothub-connector sas --expires 7d --hub myhub.azure-devices.net --device pump-7 --key-file key.txt
  iothub-connector sas --registration pump-7        # with which pump-7 is registered
  iothub-connector sas --group --hub myhub.azure-devices.net --device pump-7

What no option says is taken from the settings: the environment, else local.settings.json.
  of a device        IoTHubConnection, or IoTHubURL, IoTHubDeviceId and IoTHubDeviceKey
  of a registration  DPSIDScope and DPSEnrollmentGroupSymmetricKey
A key is never given as an option: other users could see it. `--key-file -` reads standard input.

The token alone goes to standard output; what it is for, to standard error.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// Device id at the hub
    #[arg(long, value_name = "ID")]
    device: Option<String>,
    /// Host name of the hub
    #[arg(long, value_name = "HOST")]
    hub: Option<String>,
    /// The key is that of an enrollment group: the device's own is derived from it
    #[arg(long, requires_all = ["hub", "device"])]
    group: bool,
    /// A token for registering this id with the Device Provisioning Service, with an enrollment group's key
    #[arg(long, value_name = "ID", conflicts_with_all = ["device", "hub", "group"])]
    registration: Option<String>,
    /// ID scope of the Device Provisioning Service
    #[arg(long, value_name = "SCOPE", requires = "registration")]
    id_scope: Option<String>,
    /// File with the key in Base64; - is standard input
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// When the token ends: in 20m, 1h or 7d; or a date, or a time such as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = time::moment)]
    expires: Moment,
    #[command(flatten)]
    source: Source,
}

type Key = SecretBox<Vec<u8>>;

/// The parts of a token.
struct Request {
    resource: String,
    policy: Option<&'static str>,
    key: Key,
    /// The token's purpose, in words.
    purpose: String,
}

/// Prints a token.
///
/// # Errors
/// An option or a setting is missing or wrong.
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let settings = options.source.read()?;
    let now = Utc::now();
    let expires = options.expires.after(now).ok_or_else(|| Usage("--expires is too far away".into()))?;
    let request = match &options.registration {
        Some(id) => for_registration(id, options, &settings),
        None => for_device(options, &settings),
    };
    let request = request.map_err(usage)?;
    let token = sas::mint(&request.resource, request.key.expose_secret(), expires, request.policy);
    eprintln!("{}, {}", request.purpose, until(expires, now));
    match writeln!(io::stdout(), "{}", token.expose_secret()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("cannot print"),
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn until(expires: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let at = expires.to_rfc3339_opts(SecondsFormat::Secs, true);
    if expires <= now { format!("ended {at}: every hub refuses it") } else { format!("until {at}") }
}

fn for_registration(id: &str, options: &Options, settings: &Settings) -> anyhow::Result<Request> {
    check_registration_id(id).map_err(|why| anyhow!("--registration {why}"))?;
    let given = options.id_scope.as_deref();
    let given = given.map(|text| dps::check_id_scope(text).map_err(|why| anyhow!("--id-scope {why}"))).transpose()?;
    let scope = match given {
        Some(scope) => scope,
        None => {
            of_settings(settings, dps::read_id_scope)?.context("no ID scope: give --id-scope, or set DPSIDScope")?
        }
    };
    let group_key = group_key(options, settings)?;
    Ok(Request {
        resource: sas::registration_resource(&scope, id),
        policy: Some(REGISTRATION),
        key: derived(&group_key, id),
        purpose: format!("token for registering {id:?} in ID scope {scope}"),
    })
}

fn for_device(options: &Options, settings: &Settings) -> anyhow::Result<Request> {
    let has_key = options.key_file.is_some() || options.group;
    let is_complete = options.hub.is_some() && options.device.is_some() && has_key;
    // If the options are complete, faults in the setting do not matter.
    let connection = match settings.has("IoTHubConnection") && !is_complete {
        true => of_settings(settings, connection_string)?,
        false => None,
    };
    let hub = hub(options, settings, connection.as_ref())?;
    let (device, configured) = device(options, settings, connection.as_ref())?;
    let key = if options.group {
        check_registration_id(&device)
            .map_err(|why| anyhow!("--device with --group must be the id that was registered: it {why}"))?;
        derived(&group_key(options, settings)?, &device)
    } else if let Some(file) = &options.key_file {
        key_file(file)?
    } else {
        if let Some(other) = configured.filter(|other| *other != device) {
            eprintln!("warning: the key in the settings is that of device {other:?}: for another one give --key-file");
        }
        device_key(settings, connection)?
    };
    Ok(Request {
        resource: sas::device_resource(&hub, &device),
        policy: None,
        key,
        purpose: format!("token for device {device:?} of hub {hub}"),
    })
}

/// The hub's host name, without port.
fn hub(options: &Options, settings: &Settings, connection: Option<&Device>) -> anyhow::Result<String> {
    let parse = |name: &str, text: &str| {
        Endpoint::parse_full(text).map(|endpoint| endpoint.host).map_err(|why| anyhow!("{name} {why}"))
    };
    if let Some(text) = &options.hub {
        return parse("--hub", text);
    }
    if let Some(device) = connection {
        return Ok(device.hub_host.clone());
    }
    let url = of_settings(settings, |settings, problems| settings.get("IoTHubURL", problems).map(str::to_owned))?;
    parse("IoTHubURL", &url.context("no hub: give --hub, or set IoTHubURL or IoTHubConnection")?)
}

/// The device of the token, and the device that the settings name.
fn device(
    options: &Options,
    settings: &Settings,
    connection: Option<&Device>,
) -> anyhow::Result<(String, Option<String>)> {
    let configured = match connection {
        Some(device) => Some(device.id.clone()),
        None if options.device.is_some() && !settings.has("IoTHubDeviceId") => None,
        None => {
            of_settings(settings, |settings, problems| settings.get("IoTHubDeviceId", problems).map(str::to_owned))?
        }
    };
    let (name, device) = match (&options.device, &configured) {
        (Some(device), _) => ("--device", device.clone()),
        (None, Some(device)) => ("IoTHubDeviceId", device.clone()),
        (None, None) => bail!("no device: give --device, or set IoTHubDeviceId or IoTHubConnection"),
    };
    check_id(&device).map_err(|why| anyhow!("{name} {why}"))?;
    Ok((device, configured))
}

fn device_key(settings: &Settings, connection: Option<Device>) -> anyhow::Result<Key> {
    match connection.map(|device| device.credential) {
        Some(Credential::Key(key)) => return Ok(key),
        Some(Credential::Token(_) | Credential::Policy(_)) => {
            bail!("IoTHubConnection holds a ready token and no key: give --key-file")
        }
        None => {}
    }
    let read = |settings: &Settings, problems: &mut Problems| settings.secret("IoTHubDeviceKey", problems);
    let key = of_settings(settings, read)?.context(
        "no key: give --key-file (- is standard input), set IoTHubDeviceKey or IoTHubConnection, \
             or give --group for a device of an enrollment group",
    )?;
    decode(&key, "IoTHubDeviceKey")
}

fn group_key(options: &Options, settings: &Settings) -> anyhow::Result<Key> {
    match &options.key_file {
        Some(file) => key_file(file),
        None => of_settings(settings, dps::read_group_key)?.context(
            "no key of an enrollment group: give --key-file (- is standard input), or set DPSEnrollmentGroupSymmetricKey",
        ),
    }
}

fn derived(group_key: &Key, registration_id: &str) -> Key {
    SecretBox::new(Box::new(sas::derive_key(group_key.expose_secret(), registration_id)))
}

fn key_file(file: &Path) -> anyhow::Result<Key> {
    let name = if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() };
    let read = |source: &mut dyn Read| -> io::Result<String> {
        let mut text = String::new();
        source.take(MAX_KEY_FILE + 1).read_to_string(&mut text)?;
        Ok(text)
    };
    let text = if file == Path::new("-") {
        read(&mut io::stdin())
    } else {
        File::open(file).and_then(|mut file| read(&mut file))
    };
    let text = text.with_context(|| format!("{name} cannot be read"))?;
    ensure!(text.len() as u64 <= MAX_KEY_FILE, "{name} has more than {MAX_KEY_FILE} bytes: it is not a key");
    decode(&SecretString::from(text), &name)
}

fn decode(text: &SecretString, place: &str) -> anyhow::Result<Key> {
    decode_key(text.expose_secret())
        .map_err(|_| anyhow!("{place} holds no key in Base64: copy it again from the page of the device or group"))
}

/// Reads a value from the settings. `None` if it is absent.
fn of_settings<T>(
    settings: &Settings,
    read: impl FnOnce(&Settings, &mut Problems) -> Option<T>,
) -> anyhow::Result<Option<T>> {
    let mut problems = Problems::default();
    let found = read(settings, &mut problems);
    if problems.is_empty() { Ok(found) } else { Err(problems.into()) }
}
