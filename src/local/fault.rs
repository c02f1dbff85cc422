//! `fault`: breaks a service of a running session, and mends it.

use std::{
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
};

use anyhow::bail;
use clap::ValueEnum;
use reqwest::Method;

use super::open_session::{Asked, OpenSession};
use crate::cli::{exit::Usage, similar, table};

const EXAMPLES: &str = "\
Examples:
  iothub-connector fault                  # what can be broken
  iothub-connector fault hub away         # IoT Hub refuses connections
  iothub-connector fault hub ok           # and accepts them again

It is for the session of `iothub-connector local` that runs in this folder. A new fault
of a service replaces the one before.";
/// Ends a service's fault.
const OK: &str = "ok";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// The service. Without it: what can be broken
    service: Option<Service>,
    /// The fault, or `ok` to end it
    #[arg(requires = "service")]
    fault: Option<String>,
}

/// The emulated services with faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Service {
    /// The rapidM2M backend
    Backend,
    /// Azure Cosmos DB
    Cosmos,
    /// Azure IoT Hub
    Hub,
    /// The Things Stack
    ThingsStack,
}

impl Service {
    /// In the session's file and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Backend => "backend",
            Self::Cosmos => "cosmos",
            Self::Hub => "hub",
            Self::ThingsStack => "things-stack",
        }
    }
}

struct Fault {
    service: Service,
    name: &'static str,
    /// What the service does, as the rest of a sentence.
    effect: &'static str,
    switch: Switch,
}

/// How the emulator is told.
#[derive(Clone, Copy)]
enum Switch {
    Away,
    /// The body of its `/faults`.
    Faults(&'static str),
}

const fn fault(service: Service, name: &'static str, effect: &'static str, switch: Switch) -> Fault {
    Fault { service, name, effect, switch }
}

const FAULTS: [Fault; 13] = {
    use Service::{Backend, Cosmos, Hub, ThingsStack};
    use Switch::{Away, Faults};
    [
        fault(Backend, "away", "refuses connections", Away),
        fault(
            Backend,
            "password",
            "refuses the login, as with a wrong password",
            Faults(r#"{"rules":[{"status":401}]}"#),
        ),
        fault(
            Backend,
            "busy",
            "answers 429: slow down, for a minute",
            Faults(r#"{"rules":[{"status":429,"retryAfter":"60"}]}"#),
        ),
        fault(Backend, "hangs", "does not answer", Faults(r#"{"rules":[{"hang":true}]}"#)),
        fault(
            Backend,
            "garbage",
            "answers with bytes that are not JSON",
            Faults(r#"{"rules":[{"resource":"histdata","garbage":true}]}"#),
        ),
        fault(Cosmos, "away", "refuses connections", Away),
        fault(
            Cosmos,
            "throttled",
            "answers 429 to more than 2 requests in a second",
            Faults(r#"{"perSecond":2,"retryAfterMs":500}"#),
        ),
        fault(Hub, "away", "refuses connections", Away),
        fault(Hub, "refuses", "refuses its devices, as with a wrong key", Faults(r#"{"refuse":true}"#)),
        fault(
            Hub,
            "quota",
            "cuts connections, as when the day's quota is used up",
            Faults(r#"{"cutAfterConnectTimes":1000000}"#),
        ),
        fault(Hub, "silent", "acknowledges no message", Faults(r#"{"ignorePublishes":true}"#)),
        fault(ThingsStack, "away", "refuses connections, so it takes no downlinks", Away),
        fault(ThingsStack, "busy", "answers 429 to downlinks", Faults(r#"{"status":429,"times":1000000}"#)),
    ]
};

/// # Errors
/// No session runs here, or it does not emulate the service.
pub async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let Some(service) = options.service else {
        list()?;
        return Ok(ExitCode::SUCCESS);
    };
    let of_service = || FAULTS.iter().filter(|fault| fault.service == service);
    let names = || of_service().map(|fault| fault.name).chain([OK]);
    let Some(name) = options.fault else {
        let names = names().collect::<Vec<_>>().join(", ");
        return Err(Usage(format!("which fault of {}? One of {names}", service.name())).into());
    };
    let fault = of_service().find(|fault| fault.name == name);
    if fault.is_none() && name != OK {
        let meant = similar::meant(&name, names());
        let names = names().collect::<Vec<_>>().join(", ");
        let text = format!("{} has no fault {name:?}{meant}\nFaults of {0}: {names}", service.name());
        return Err(Usage(text).into());
    }
    let session = OpenSession::here(Path::new("."))?;
    let mut requests = vec![(Method::PUT, "away", Some("false")), (Method::DELETE, "faults", None)];
    requests.extend(fault.map(|fault| match fault.switch {
        Switch::Away => (Method::PUT, "away", Some("true")),
        // One after the other, each for so many downlinks.
        Switch::Faults(body) if service == Service::ThingsStack => (Method::POST, "faults", Some(body)),
        Switch::Faults(body) => (Method::PUT, "faults", Some(body)),
    }));
    for (method, path, body) in requests {
        match session.request(service.name(), method, path, body).await? {
            Asked::Done => {}
            Asked::NotEmulated => bail!("the session does not emulate {}, so it cannot break it", service.name()),
            Asked::Refused(status, text) => bail!("the emulator of {} answers {status}: {text}", service.name()),
        }
    }
    let service = service.name();
    match fault {
        Some(fault) => println!("{service} {}. To end it: iothub-connector fault {service} {OK}", fault.effect),
        None => println!("{service} works again"),
    }
    Ok(ExitCode::SUCCESS)
}

fn list() -> io::Result<()> {
    let rows = FAULTS.iter().map(|fault| [fault.service.name(), fault.name, fault.effect].map(str::to_owned));
    let mut out = io::stdout().lock();
    table::write(&mut out, ["SERVICE", "FAULT", "THE SERVICE"], rows, &[])?;
    writeln!(out, "\niothub-connector fault SERVICE FAULT breaks it, `{OK}` repairs it.")
}
