//! `devices`: lists the devices and the sites or end devices that they belong to. `fleet` changes to whom they belong.

mod fleet;

use std::{
    io::{self, BufWriter, Write},
    process::ExitCode,
    sync::Arc,
};

use anyhow::Context as _;
use iothub_connector::{
    config::{Problems, ledger},
    cosmos::Account,
    iot_hub::devices::{
        Store,
        documents::Document,
        store::{CONTAINER, Listing},
    },
};

use super::{settings::Source, table};

const EXAMPLES: &str = "\
Examples:
  iothub-connector devices
  iothub-connector devices --json | jq -r 'select(.Owner.Name == \"Well 7\").DeviceId'
  iothub-connector devices move --application trial --to production
  iothub-connector devices forget --application trial

It needs the M2MDocumentsDB… settings only. Nothing is changed or created, except by move and forget with --yes.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Options {
    #[command(subcommand)]
    command: Option<Command>,
    /// Print each device's document as one line of JSON, for scripts
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    source: Source,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Gives LoRaWAN devices to another application, or to another tenant
    Move(fleet::Move),
    /// Forgets LoRaWAN devices: they are registered anew when they send again
    Forget(fleet::Forget),
}

/// Lists the provisioned devices by device id, or changes to whom they belong.
///
/// # Errors
/// The container of devices cannot be read.
pub async fn run(options: Options) -> anyhow::Result<ExitCode> {
    match options.command {
        Some(Command::Move(options)) => return fleet::move_devices(options).await,
        Some(Command::Forget(options)) => return fleet::forget(options).await,
        None => {}
    }
    let (store, database) = store(&options.source)?;
    let listing = store.list().await?.unwrap_or_default();
    if listing.documents.is_empty() {
        eprintln!("no devices are provisioned: container {CONTAINER} in database {} is empty or absent", database);
    }
    if !listing.foreign.is_empty() {
        eprintln!("warning: not one of our documents: {}", listing.foreign.join(", "));
    }
    let mut out = BufWriter::new(io::stdout().lock());
    let written = if options.json { json(&listing, &mut out) } else { table(&listing.documents, &mut out) };
    match written.and_then(|()| out.flush()) {
        // The reader has closed the pipe (`| head`).
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        written => written.context("cannot print").map(|()| ExitCode::SUCCESS),
    }
}

/// The container of devices, and the name of its database.
fn store(source: &Source) -> anyhow::Result<(Store, String)> {
    let settings = source.read()?;
    let mut problems = Problems::default();
    let config = ledger::read(&settings, &mut problems);
    let Some(config) = config.filter(|_| problems.is_empty()) else {
        return Err(problems.into());
    };
    let database = config.account.database.clone();
    Ok((Store::new(Arc::new(Account::new(config.account))), database))
}

/// The documents as Cosmos DB stores them.
fn json(listing: &Listing, out: &mut impl Write) -> io::Result<()> {
    for document in &listing.documents {
        serde_json::to_writer(&mut *out, document)?;
        writeln!(out)?;
    }
    Ok(())
}

/// Leaves out documents that only say which owner has an id: the device itself has its own line.
fn table<'a>(documents: impl IntoIterator<Item = &'a Document>, out: &mut impl Write) -> io::Result<()> {
    let devices: Vec<_> = documents.into_iter().filter(|document| !document.is_claim()).collect();
    let Some(first) = devices.first() else { return Ok(()) };
    // What all of them have in common is said once.
    let has_one_hub = devices.iter().all(|device| device.assigned_hub == first.assigned_hub);
    let has_one_tenant = devices.iter().all(|device| device.tenant == first.tenant);
    let cells = |device: &&Document| {
        // A site and a whole end device have no port.
        let port = device.port().map(|port| format!(" (port {port})")).unwrap_or_default();
        let tenant = device.tenant.as_ref().filter(|_| !has_one_tenant);
        let tenant = tenant.map(|tenant| format!(" (tenant {tenant})")).unwrap_or_default();
        let hub = if has_one_hub { String::new() } else { format!(" at {}", device.assigned_hub) };
        [
            format!("{}{hub}", device.device_id),
            format!("{}{tenant}", device.owner.group),
            format!("{}{port}", device.owner.name),
            device.registered_at.format("%Y-%m-%d").to_string(),
            device.registrations.to_string(),
        ]
    };
    let hub = if has_one_hub { &first.assigned_hub } else { "several hubs" };
    let s = if devices.len() == 1 { "" } else { "s" };
    writeln!(out, "{} device{s} at {hub}\n", devices.len())?;
    let heads = ["DEVICE", "CUSTOMER OR APPLICATION", "SITE OR END DEVICE", "REGISTERED", "TIMES"];
    table::write(out, heads, devices.iter().map(cells), &[4])
}
